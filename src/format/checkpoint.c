/* format/checkpoint.c: the two small text files of a partition folder, as Kafka writes them.
 *
 * Decoding is strict and bounded: the text decides how many entries there are, a count that it cannot hold is refused before
 * anything is allocated. A missing last newline is forgiven, anything behind the last line is not. */
#include "format/names.h"

#include "base/err.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* The shortest entry is "0 0" and a newline, which may be missing on the last. */
#define EPOCH_ENTRY_MIN 3u

typedef struct bw_text {
    const char *at;
    const char *end;
} bw_text;

static bool text_skip(bw_text *t, const char *literal)
{
    size_t len = strlen(literal);
    if ((size_t)(t->end - t->at) < len || memcmp(t->at, literal, len) != 0) return false;
    t->at += len;
    return true;
}

/* A decimal number without sign, up to max. */
static bool text_number(bw_text *t, uint64_t max, uint64_t *out)
{
    const char *start = t->at;
    uint64_t value = 0;
    for (; t->at < t->end && *t->at >= '0' && *t->at <= '9'; t->at++) {
        uint64_t digit = (uint64_t)(*t->at - '0');
        if (value > (max - digit) / 10) return false;
        value = value * 10 + digit;
    }
    *out = value;
    return t->at > start;
}

static bool text_line_end(bw_text *t) { return t->at == t->end || text_skip(t, "\n"); }

size_t bw_partition_metadata_encode(char out[64], const bw_uuid *topic_id)
{
    char id[23];
    bw_uuid_base64(topic_id, id);
    return (size_t)snprintf(out, 64, "version: 0\ntopic_id: %s\n", id);
}

bw_err bw_partition_metadata_decode(const char *data, size_t len, bw_uuid *topic_id)
{
    bw_text t = {data, data + len};
    uint64_t version;
    if (!text_skip(&t, "version: ") || !text_number(&t, INT32_MAX, &version) || !text_skip(&t, "\n"))
        return bw_fail(BW_ERR_CORRUPT, "partition.metadata does not begin with \"version: 0\"; restore it or remove the file");
    if (version != 0)
        return bw_fail(BW_ERR_NEWER_FORMAT, "partition.metadata has version %" PRIu64 ", this program reads version 0", version);
    char id[23];
    if (!text_skip(&t, "topic_id: ") || t.end - t.at < 22) goto bad_id;
    memcpy(id, t.at, 22);
    id[22] = '\0';
    t.at += 22;
    if (!text_line_end(&t) || t.at != t.end || !bw_uuid_from_base64(id, topic_id)) goto bad_id;
    return BW_OK;
bad_id:
    return bw_fail(BW_ERR_CORRUPT,
                   "partition.metadata has no topic_id of 22 base64 characters in line 2; restore it or remove the file");
}

bw_err bw_epoch_checkpoint_encode(const bw_epoch_entry *entries, size_t count, bw_buf *out)
{
    char line[48];
    int n = snprintf(line, sizeof line, "0\n%zu\n", count);
    bw_err err = bw_buf_append(out, line, (size_t)n);
    for (size_t i = 0; i < count && !err; i++) {
        n = snprintf(line, sizeof line, "%" PRId32 " %" PRId64 "\n", entries[i].epoch, entries[i].start_offset);
        err = bw_buf_append(out, line, (size_t)n);
    }
    return err;
}

bw_err bw_epoch_checkpoint_decode(const char *data, size_t len, bw_epoch_entry **entries, size_t *count)
{
    bw_text t = {data, data + len};
    uint64_t version, declared;
    if (!text_number(&t, INT32_MAX, &version) || !text_skip(&t, "\n"))
        return bw_fail(BW_ERR_CORRUPT, "leader-epoch-checkpoint has no version in line 1; remove it to have it made anew");
    if (version != 0)
        return bw_fail(BW_ERR_NEWER_FORMAT, "leader-epoch-checkpoint has version %" PRIu64 ", this program reads version 0",
                       version);
    if (!text_number(&t, SIZE_MAX / sizeof **entries, &declared) || !text_line_end(&t))
        return bw_fail(BW_ERR_CORRUPT, "leader-epoch-checkpoint has no count in line 2; remove it to have it made anew");
    size_t left = (size_t)(t.end - t.at);
    if (declared > (left + 1) / EPOCH_ENTRY_MIN)
        return bw_fail(BW_ERR_CORRUPT,
                       "leader-epoch-checkpoint announces %" PRIu64 " entries in %zu bytes; remove it to have it made anew",
                       declared, left);
    bw_epoch_entry *list = malloc(declared ? declared * sizeof *list : 1);
    if (!list) return bw_fail(BW_ERR_NO_MEMORY, "no memory for %" PRIu64 " leader epochs", declared);
    for (uint64_t i = 0; i < declared; i++) {
        uint64_t epoch, start;
        if (!text_number(&t, INT32_MAX, &epoch) || !text_skip(&t, " ") || !text_number(&t, INT64_MAX, &start) ||
            !text_line_end(&t)) {
            free(list);
            return bw_fail(BW_ERR_CORRUPT,
                           "leader-epoch-checkpoint, entry %" PRIu64 " of %" PRIu64 " is not \"<epoch> <offset>\"; "
                           "remove it to have it made anew",
                           i + 1, declared);
        }
        list[i] = (bw_epoch_entry){(int32_t)epoch, (int64_t)start};
    }
    if (t.at != t.end) {
        free(list);
        return bw_fail(BW_ERR_CORRUPT,
                       "leader-epoch-checkpoint has text behind its %" PRIu64 " entries; remove it to have it made anew",
                       declared);
    }
    *entries = list;
    *count = (size_t)declared;
    return BW_OK;
}
