/* meta/record.c: layouts of the store's values, big-endian, each with its version in the first byte.
 *
 *   topic   u8 1 · uuid 16 · be32 partitions · u8 state · be64 created (wall ms) · be16 n · n × { u8 len, name, u8 len, value }
 *   point   u8 2 · be32 epoch · be64 next offset · be64 segment base · be32 position · be32 crc · u8 poisoned · be64 state offset ·
 *           be32 crc of the producers' snapshot             version 1 had neither: the state is not known
 *
 * A version above ours is refused, not guessed at. */
#include "meta/record.h"

#include "format/control_page.h"

#include <stdlib.h>

#define TOPIC_VERSION 1
#define POINT_VERSION 2

static bw_err append_text(bw_buf *out, const char *text)
{
    uint8_t len = (uint8_t)strlen(text);
    bw_err e = bw_buf_append(out, &len, 1);
    return e ? e : bw_buf_append(out, text, len);
}

bw_err bw_meta_topic_encode(const bw_meta_topic *t, bw_buf *out)
{
    uint8_t head[32];
    head[0] = TOPIC_VERSION;
    memcpy(head + 1, t->id.b, 16);
    bw_put_be32(head + 17, t->partitions);
    head[21] = (uint8_t)t->state;
    bw_put_be64(head + 22, (uint64_t)t->created_ms);
    bw_put_be16(head + 30, (uint16_t)t->config_count);
    bw_err e = bw_buf_append(out, head, sizeof head);
    for (size_t i = 0; !e && i < t->config_count; i++) {
        e = append_text(out, t->configs[i].name);
        if (!e) e = append_text(out, t->configs[i].value);
    }
    return e;
}

static bool take_text(bw_cursor *c, char *out, size_t size)
{
    size_t len = bw_cursor_u8(c);
    const uint8_t *p = bw_cursor_take(c, len);
    if (!p || len >= size || memchr(p, 0, len)) return false;
    memcpy(out, p, len);
    out[len] = 0;
    return true;
}

static bw_err topic_corrupt(const bw_meta_topic *t, const char *what)
{
    return bw_fail(BW_ERR_CORRUPT, "the stored record of topic '%s' is broken (%s); restore the meta folder from a backup", t->name, what);
}

bw_err bw_meta_topic_decode(const void *name, size_t name_len, const void *data, size_t len, bw_meta_topic *out)
{
    memset(out, 0, sizeof *out);
    if (!name_len || name_len > BW_META_NAME_MAX || memchr(name, 0, name_len))
        return bw_fail(BW_ERR_CORRUPT, "a stored topic has a name of %zu bytes that no topic can have", name_len);
    memcpy(out->name, name, name_len);
    bw_cursor c = bw_cursor_over(data, len);
    int version = bw_cursor_u8(&c);
    if (!c.bad && version > TOPIC_VERSION)
        return bw_fail(BW_ERR_NEWER_FORMAT, "topic '%s' was stored in version %d; this program knows %d", out->name, version, TOPIC_VERSION);
    const uint8_t *id = bw_cursor_take(&c, 16);
    if (id) memcpy(out->id.b, id, 16);
    out->partitions = bw_cursor_be32(&c);
    int state = bw_cursor_u8(&c);
    out->created_ms = (int64_t)bw_cursor_be64(&c);
    size_t n = bw_cursor_be16(&c);
    if (c.bad || version != TOPIC_VERSION) return topic_corrupt(out, "too short");
    if (!out->partitions || out->partitions > BW_PARTITIONS_MAX) return topic_corrupt(out, "number of partitions");
    if (state != BW_META_TOPIC_LIVE && state != BW_META_TOPIC_DELETING) return topic_corrupt(out, "state");
    out->state = (bw_meta_topic_state)state;
    if (n > BW_META_CONFIGS_MAX || n > bw_cursor_left(&c) / 2) return topic_corrupt(out, "number of configurations");
    if (n && !(out->configs = calloc(n, sizeof *out->configs))) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a topic's configuration");
    for (size_t i = 0; i < n; i++) {
        if (!take_text(&c, out->configs[i].name, sizeof out->configs[i].name) ||
            !take_text(&c, out->configs[i].value, sizeof out->configs[i].value)) {
            bw_meta_topic_fini(out);
            return topic_corrupt(out, "a configuration");
        }
        out->config_count = i + 1;
    }
    return BW_OK;
}

void bw_meta_topic_fini(bw_meta_topic *t)
{
    free(t->configs);
    t->configs = NULL;
    t->config_count = 0;
}

void bw_meta_point_encode(const bw_recovery_point *p, uint8_t out[BW_META_POINT_BYTES])
{
    out[0] = POINT_VERSION;
    bw_put_be32(out + 1, (uint32_t)p->leader_epoch);
    bw_put_be64(out + 5, (uint64_t)p->next_offset);
    bw_put_be64(out + 13, (uint64_t)p->segment_base);
    bw_put_be32(out + 21, p->position);
    bw_put_be32(out + 25, p->last_crc);
    out[29] = p->poisoned;
    bw_put_be64(out + 30, (uint64_t)p->state_offset);
    bw_put_be32(out + 38, p->state_crc);
}

bw_err bw_meta_point_decode(const void *data, size_t len, bw_recovery_point *out)
{
    bw_cursor c = bw_cursor_over(data, len);
    int version = bw_cursor_u8(&c);
    if (!c.bad && version > POINT_VERSION)
        return bw_fail(BW_ERR_NEWER_FORMAT, "a recovery point was stored in version %d; this program knows %d", version, POINT_VERSION);
    memset(out, 0, sizeof *out);
    out->leader_epoch = (int32_t)bw_cursor_be32(&c);
    out->next_offset = (int64_t)bw_cursor_be64(&c);
    out->segment_base = (int64_t)bw_cursor_be64(&c);
    out->position = bw_cursor_be32(&c);
    out->last_crc = bw_cursor_be32(&c);
    int poisoned = bw_cursor_u8(&c);
    out->state_offset = version > 1 ? (int64_t)bw_cursor_be64(&c) : -1;
    out->state_crc = version > 1 ? bw_cursor_be32(&c) : 0;
    bool state = out->state_offset >= -1 && out->state_offset <= out->next_offset;
    if (c.bad || version < 1 || !state || out->next_offset < 0 || out->segment_base < 0 || out->segment_base > out->next_offset)
        return bw_fail(BW_ERR_CORRUPT, "a stored recovery point is broken; restore the meta folder from a backup");
    out->known = true;
    out->poisoned = poisoned != 0;
    return BW_OK;
}
