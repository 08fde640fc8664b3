/* format/names.c: topic names and the names of folders and files in the data directory.
 *
 * Invariant: a parser accepts exactly what the writer of the same kind makes, so that a name has one meaning and a folder that
 * is not ours is never taken for one. */
#include "format/names.h"

#include "base/err.h"

#include <stdio.h>

static bool topic_char_ok(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
}

bw_err bw_topic_name_check(const char *name, size_t len)
{
    if (len == 0) return bw_fail(BW_ERR_INVALID_TOPIC, "topic name is empty; give 1 to %d of [A-Za-z0-9._-]", BW_TOPIC_NAME_MAX);
    if (len > BW_TOPIC_NAME_MAX)
        return bw_fail(BW_ERR_INVALID_TOPIC, "topic name \"%.32s…\" has %zu characters; at most %d are allowed", name, len,
                       BW_TOPIC_NAME_MAX);
    for (size_t i = 0; i < len; i++) {
        if (topic_char_ok(name[i])) continue;
        unsigned char c = (unsigned char)name[i];
        if (c > 0x20 && c < 0x7f)
            return bw_fail(BW_ERR_INVALID_TOPIC, "topic name \"%.*s\" has '%c' at position %zu; use only [A-Za-z0-9._-]",
                           (int)len, name, c, i);
        return bw_fail(BW_ERR_INVALID_TOPIC, "topic name \"%.*s…\" has byte 0x%02x at position %zu; use only [A-Za-z0-9._-]",
                       (int)i, name, c, i);
    }
    if ((len == 1 && name[0] == '.') || (len == 2 && name[0] == '.' && name[1] == '.'))
        return bw_fail(BW_ERR_INVALID_TOPIC, "topic name \"%.*s\" is a folder's own name; choose another", (int)len, name);
    return BW_OK;
}

bool bw_topic_names_collide(const char *a, const char *b)
{
    for (;; a++, b++) {
        char x = *a == '.' ? '_' : *a;
        char y = *b == '.' ? '_' : *b;
        if (x != y) return false;
        if (x == '\0') return true;
    }
}

/* Exactly `len` decimal digits, no more than max. */
static bool digits_parse(const char *text, size_t len, uint64_t max, uint64_t *out)
{
    uint64_t value = 0;
    if (len == 0) return false;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9') return false;
        uint64_t digit = (uint64_t)(text[i] - '0');
        if (value > (max - digit) / 10) return false;
        value = value * 10 + digit;
    }
    *out = value;
    return true;
}

void bw_partition_dir_name(char out[BW_PARTITION_DIR_MAX], const char *topic, int32_t partition)
{
    snprintf(out, BW_PARTITION_DIR_MAX, "%s-%d", topic, partition);
}

bool bw_partition_dir_parse(const char *name, char topic[BW_TOPIC_NAME_MAX + 1], int32_t *partition)
{
    size_t len = strnlen(name, BW_PARTITION_DIR_MAX);
    if (len >= BW_PARTITION_DIR_MAX) return false;
    const char *dash = memrchr(name, '-', len);
    if (!dash) return false;
    size_t topic_len = (size_t)(dash - name);
    if (topic_len == 0 || topic_len > BW_TOPIC_NAME_MAX) return false;
    for (size_t i = 0; i < topic_len; i++)
        if (!topic_char_ok(name[i])) return false;
    if ((topic_len == 1 && name[0] == '.') || (topic_len == 2 && name[0] == '.' && name[1] == '.')) return false;
    size_t digits = len - topic_len - 1;
    uint64_t number;
    if ((digits > 1 && dash[1] == '0') || !digits_parse(dash + 1, digits, INT32_MAX, &number)) return false;
    memcpy(topic, name, topic_len);
    topic[topic_len] = '\0';
    *partition = (int32_t)number;
    return true;
}

void bw_segment_name(char out[BW_SEGMENT_NAME_MAX], int64_t base_offset, const char *suffix)
{
    snprintf(out, BW_SEGMENT_NAME_MAX, "%020lld%s", (long long)base_offset, suffix);
}

bool bw_segment_name_parse(const char *name, const char *suffix, int64_t *base_offset)
{
    uint64_t number;
    if (strnlen(name, 20) < 20 || strcmp(name + 20, suffix) != 0 || !digits_parse(name, 20, INT64_MAX, &number)) return false;
    *base_offset = (int64_t)number;
    return true;
}

void bw_spare_name(char out[BW_SEGMENT_NAME_MAX], uint32_t seq) { snprintf(out, BW_SEGMENT_NAME_MAX, "%010u.spare", seq); }

bool bw_spare_name_parse(const char *name, uint32_t *seq)
{
    uint64_t number;
    if (strnlen(name, 10) < 10 || strcmp(name + 10, ".spare") != 0 || !digits_parse(name, 10, UINT32_MAX, &number)) return false;
    *seq = (uint32_t)number;
    return true;
}
