/* meta/entry.c: see entry.h. */
#include "meta/entry.h"

#include "base/crc32c.h"
#include "base/err.h"
#include "meta/store.h"

const char *bw_table_name(int table)
{
    static const char *const names[] = {
#define TABLE_NAME(id, number, name, essential) [number] = name,
        BW_META_TABLES(TABLE_NAME)
#undef TABLE_NAME
    };
    return table >= 0 && table < BW_TABLE_COUNT ? names[table] : "?";
}

void bw_state_encode(const bw_meta_state *s, uint8_t out[BW_STATE_BYTES])
{
    bw_put_be32(out, BW_META_FORMAT);
    bw_put_be64(out + 4, s->sequence);
    bw_put_be64(out + 12, s->entries);
    bw_put_be64(out + 20, s->digest);
    bw_put_be32(out + 28, bw_crc32c(out, 28));
}

bw_err bw_state_decode(const void *data, size_t len, bw_meta_state *out)
{
    const uint8_t *p = data;
    if (len != BW_STATE_BYTES || bw_get_be32(p + 28) != bw_crc32c(p, 28))
        return bw_fail(BW_ERR_CORRUPT, "the state of the metadata fails its checksum");
    uint32_t format = bw_get_be32(p);
    if (format > BW_META_FORMAT)
        return bw_fail(BW_ERR_NEWER_FORMAT, "the metadata has format %u; this program knows formats up to %u: use a newer buswayd", format,
                       BW_META_FORMAT);
    if (format != BW_META_FORMAT) return bw_fail(BW_ERR_CORRUPT, "the state of the metadata has format %u", format);
    *out = (bw_meta_state){bw_get_be64(p + 4), bw_get_be64(p + 12), bw_get_be64(p + 20)};
    return BW_OK;
}

static uint32_t key_crc(int table, const void *key, size_t key_len)
{
    uint8_t head[3] = {(uint8_t)table};
    bw_put_be16(head + 1, (uint16_t)key_len);
    return bw_crc32c_extend(bw_crc32c(head, sizeof head), key, key_len);
}

uint32_t bw_entry_crc(int table, const void *key, size_t key_len, const void *value, size_t value_len)
{
    return bw_crc32c_extend(key_crc(table, key, key_len), value, value_len);
}

/* Both checksums through a mixer (MurmurHash3's finaliser): sums of checksums alone would be linear. */
uint64_t bw_entry_hash(int table, const void *key, size_t key_len, uint32_t crc)
{
    uint64_t h = (uint64_t)key_crc(table, key, key_len) << 32 | crc;
    h ^= h >> 33;
    h *= UINT64_C(0xff51afd7ed558ccd);
    h ^= h >> 33;
    h *= UINT64_C(0xc4ceb9fe1a85ec53);
    return h ^ h >> 33;
}

bool bw_entry_check(int table, const void *key, size_t key_len, const void *stored, size_t stored_len, uint64_t *hash)
{
    if (stored_len < BW_CRC_BYTES || !key_len || key_len > BW_META_KEY_MAX) return false;
    size_t len = stored_len - BW_CRC_BYTES;
    uint32_t crc = bw_get_be32((const uint8_t *)stored + len);
    if (crc != bw_entry_crc(table, key, key_len, stored, len)) return false;
    *hash = bw_entry_hash(table, key, key_len, crc);
    return true;
}

bw_err bw_op_append(bw_buf *out, int table, const void *key, size_t key_len, const void *stored, size_t stored_len, bool remove)
{
    uint8_t head[BW_OP_HEAD_BYTES];
    if (remove) stored_len = 0;
    bw_err e = bw_buf_reserve(out, sizeof head + key_len + stored_len);
    if (e) return e;
    head[0] = (uint8_t)table | (remove ? BW_OP_DELETE : 0);
    bw_put_be16(head + 1, (uint16_t)key_len);
    bw_put_be32(head + 3, (uint32_t)stored_len);
    bw_buf_append(out, head, sizeof head);
    bw_buf_append(out, key, key_len);
    return bw_buf_append(out, stored, stored_len);
}

bool bw_op_take(bw_cursor *c, bw_meta_op *out)
{
    if (c->bad || !bw_cursor_left(c)) return false;
    uint8_t table = bw_cursor_u8(c);
    out->table = table & ~BW_OP_DELETE;
    out->remove = table & BW_OP_DELETE;
    out->key_len = bw_cursor_be16(c);
    out->stored_len = bw_cursor_be32(c);
    out->key = bw_cursor_take(c, out->key_len);
    out->stored = bw_cursor_take(c, out->stored_len);
    out->hash = 0;
    if (c->bad) return false;
    bool good = out->table < BW_TABLE_COUNT && out->key_len && out->key_len <= BW_META_KEY_MAX;
    if (good && out->remove) good = !out->stored_len;
    else if (good) good = bw_entry_check(out->table, out->key, out->key_len, out->stored, out->stored_len, &out->hash);
    c->bad = !good;
    return good;
}
