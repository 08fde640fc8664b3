/* broker/offsets_layout.c: see offsets_layout.h. */
#include "broker/offsets_layout.h"

#include "base/err.h"

enum { VERSION = 1 };

size_t bw_offset_key_encode(const bw_offset_key *k, uint8_t out[BW_OFFSET_KEY_MAX])
{
    uint8_t *p = out;
    memcpy(p, k->group.data, k->group.len);
    p += k->group.len;
    *p++ = 0;
    if (k->of_group) return (size_t)(p - out);
    memcpy(p, k->topic.b, 16);
    bw_put_be32(p + 16, k->partition);
    return (size_t)(p - out) + 20;
}

bw_err bw_offset_key_decode(const void *data, size_t len, bw_offset_key *out)
{
    const uint8_t *p = data, *zero = len ? memchr(p, 0, len) : NULL;
    size_t group = zero ? (size_t)(zero - p) : 0;
    if (!group || group > BW_OFFSET_GROUP_MAX || (len != group + 1 && len != group + 21))
        return bw_fail(BW_ERR_CORRUPT, "committed offsets: a key of %zu bytes with a group of %zu", len, group);
    *out = (bw_offset_key){.group = {data, group}, .of_group = len == group + 1};
    if (out->of_group) return BW_OK;
    memcpy(out->topic.b, zero + 1, 16);
    out->partition = bw_get_be32(zero + 17);
    return BW_OK;
}

void bw_offset_value_encode(const bw_offset_stored *v, uint8_t out[BW_OFFSET_VALUE_HEAD])
{
    out[0] = VERSION;
    bw_put_be64(out + 1, (uint64_t)v->offset);
    bw_put_be32(out + 9, (uint32_t)v->leader_epoch);
    bw_put_be32(out + 13, (uint32_t)v->log_epoch);
    bw_put_be64(out + 17, (uint64_t)v->commit_ms);
    bw_put_be16(out + 25, (uint16_t)v->metadata.len);
}

static bw_err check_version(const uint8_t *p, size_t len)
{
    if (len && p[0] > VERSION)
        return bw_fail(BW_ERR_NEWER_FORMAT, "committed offsets have layout %u, this program reads %u: use the newer one", p[0], VERSION);
    return len && p[0] == VERSION ? BW_OK : bw_fail(BW_ERR_CORRUPT, "committed offsets: a value without its layout's number");
}

bw_err bw_offset_value_decode(const void *data, size_t len, bw_offset_stored *out)
{
    const uint8_t *p = data;
    bw_err e = check_version(p, len);
    if (e) return e;
    if (len < BW_OFFSET_VALUE_HEAD || len != BW_OFFSET_VALUE_HEAD + (size_t)bw_get_be16(p + 25))
        return bw_fail(BW_ERR_CORRUPT, "committed offsets: a value of %zu bytes", len);
    *out = (bw_offset_stored){.offset = (int64_t)bw_get_be64(p + 1), .leader_epoch = (int32_t)bw_get_be32(p + 9),
                              .log_epoch = (int32_t)bw_get_be32(p + 13), .commit_ms = (int64_t)bw_get_be64(p + 17),
                              .metadata = {(const char *)p + BW_OFFSET_VALUE_HEAD, len - BW_OFFSET_VALUE_HEAD}};
    return out->offset >= 0 ? BW_OK : bw_fail(BW_ERR_CORRUPT, "committed offsets: offset %lld", (long long)out->offset);
}

void bw_offset_idle_encode(int64_t idle_ms, uint8_t out[BW_OFFSET_IDLE_BYTES])
{
    out[0] = VERSION;
    bw_put_be64(out + 1, (uint64_t)idle_ms);
}

bw_err bw_offset_idle_decode(const void *data, size_t len, int64_t *idle_ms)
{
    const uint8_t *p = data;
    bw_err e = check_version(p, len);
    if (!e && len != BW_OFFSET_IDLE_BYTES) e = bw_fail(BW_ERR_CORRUPT, "committed offsets: a group's entry of %zu bytes", len);
    if (!e) *idle_ms = (int64_t)bw_get_be64(p + 1);
    return e;
}
