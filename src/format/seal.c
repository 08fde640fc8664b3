/* format/seal.c: the seal of a finished segment, and the Merkle root that it carries.
 *
 * The first 16 bytes of a batch lie outside its checksum; a leaf covers them together with the magic and that checksum, so that
 * the root vouches for every byte of the segment. bw_merkle is a binary counter: level[i] holds a finished subtree of 2^i leaves
 * exactly when bit i of count is set. Folding them from the lowest up is the same tree as pairing level by level with an odd
 * node carried up. */
#include "format/names.h"

#include "base/crc32c.h"
#include "base/err.h"
#include "base/murmur2.h"

#define SEAL_MAGIC  "BWSEAL01"
#define SEAL_FORMAT 1u
#define SEAL_CRC_AT 44u

/* The seal is little-endian, as this host is (base/bytes.h). */
static uint32_t get_le32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}
static uint64_t get_le64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, 8);
    return v;
}
static void put_le32(uint8_t *p, uint32_t v) { memcpy(p, &v, 4); }
static void put_le64(uint8_t *p, uint64_t v) { memcpy(p, &v, 8); }

void bw_seal_encode(uint8_t out[BW_SEAL_BYTES], const bw_seal *seal)
{
    memcpy(out, SEAL_MAGIC, 8);
    put_le32(out + 8, SEAL_FORMAT);
    put_le32(out + 12, seal->length);
    put_le64(out + 16, (uint64_t)seal->base_offset);
    put_le64(out + 24, (uint64_t)seal->next_offset);
    put_le64(out + 32, seal->batches);
    put_le32(out + 40, seal->root);
    put_le32(out + SEAL_CRC_AT, bw_crc32c(out, SEAL_CRC_AT));
}

bw_err bw_seal_decode(const uint8_t *data, size_t len, bw_seal *seal)
{
    if (len < 12 || memcmp(data, SEAL_MAGIC, 8) != 0)
        return bw_fail(BW_ERR_CORRUPT,
                       "a seal of %zu bytes does not begin with \"" SEAL_MAGIC "\"; remove it to have it made anew", len);
    if (get_le32(data + 8) > SEAL_FORMAT)
        return bw_fail(BW_ERR_NEWER_FORMAT, "the seal has format %u, this program reads up to %u", get_le32(data + 8),
                       SEAL_FORMAT);
    if (len != BW_SEAL_BYTES || get_le32(data + 8) != SEAL_FORMAT || get_le32(data + SEAL_CRC_AT) != bw_crc32c(data, SEAL_CRC_AT))
        return bw_fail(BW_ERR_CORRUPT, "a seal of %zu bytes fails its checksum; remove it to have it made anew", len);
    bw_seal s = {
        .length = get_le32(data + 12),
        .base_offset = (int64_t)get_le64(data + 16),
        .next_offset = (int64_t)get_le64(data + 24),
        .batches = get_le64(data + 32),
        .root = get_le32(data + 40),
    };
    if (s.base_offset < 0 || s.next_offset < s.base_offset)
        return bw_fail(BW_ERR_CORRUPT, "a seal claims offsets %lld to %lld; remove it to have it made anew",
                       (long long)s.base_offset, (long long)s.next_offset);
    *seal = s;
    return BW_OK;
}

static uint32_t merkle_pair(uint32_t left, uint32_t right)
{
    uint8_t pair[8];
    put_le32(pair, left);
    put_le32(pair + 4, right);
    return bw_murmur2(pair, sizeof pair);
}

void bw_merkle_add(bw_merkle *m, const uint8_t first21[21])
{
    uint32_t node = bw_crc32c(first21, 21);
    unsigned i = 0;
    for (; m->count >> i & 1; i++) node = merkle_pair(m->level[i], node);
    m->level[i] = node;
    m->count++;
}

uint32_t bw_merkle_root(const bw_merkle *m)
{
    if (m->count == 0) return 0;
    unsigned i = (unsigned)__builtin_ctzll(m->count);
    uint32_t node = m->level[i];
    for (i++; i < 64; i++)
        if (m->count >> i & 1) node = merkle_pair(m->level[i], node);
    return node;
}
