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

/* ---- the root ---- */

enum { TREE_LEVEL = 3, TREE = 1 << TREE_LEVEL };

/* A finished subtree of 2^level leaves behind all that are there; they are a multiple of that. */
static inline void add_subtree(bw_merkle *m, uint32_t node, unsigned level)
{
    unsigned i = level;
    for (; m->count >> i & 1; i++) node = bw_murmur2_pair(m->level[i], node);
    m->level[i] = node;
    m->count += UINT64_C(1) << level;
}

void bw_merkle_add(bw_merkle *m, const uint8_t first21[21]) { add_subtree(m, bw_crc32c(first21, 21), 0); }

#ifdef BW_CRC32C_TARGET
BW_CRC32C_TARGET static inline uint32_t leaf_of(const uint8_t *first21)
{
    uint32_t crc = BW_CRC32C_U64(UINT32_MAX, get_le64(first21));
    crc = BW_CRC32C_U64(crc, get_le64(first21 + 8));
    crc = BW_CRC32C_U32(crc, get_le32(first21 + 16));
    return ~BW_CRC32C_U8(crc, first21[20]);
}

/* Eight leaves at a time: nothing in them waits for anything else, and there is one branch to guess wrong instead of eight. */
BW_CRC32C_TARGET static void add_by_instruction(bw_merkle *m, const uint8_t *const *first21, size_t n)
{
    uint32_t node[TREE];
    for (size_t i = 0; i < n;) {
        if (m->count % TREE != 0 || n - i < TREE) {
            add_subtree(m, leaf_of(first21[i++]), 0);
            continue;
        }
        for (unsigned k = 0; k < TREE; k++) node[k] = leaf_of(first21[i + k]);
        for (unsigned left = TREE / 2; left > 0; left /= 2)
            for (unsigned k = 0; k < left; k++) node[k] = bw_murmur2_pair(node[2 * k], node[2 * k + 1]);
        add_subtree(m, node[0], TREE_LEVEL);
        i += TREE;
    }
}
#endif

void bw_merkle_add_many(bw_merkle *m, const uint8_t *const *first21, size_t n)
{
#ifdef BW_CRC32C_TARGET
    if (BW_CRC32C_READY()) {
        add_by_instruction(m, first21, n);
        return;
    }
#endif
    for (size_t i = 0; i < n; i++) bw_merkle_add(m, first21[i]);
}

uint32_t bw_merkle_root(const bw_merkle *m)
{
    if (m->count == 0) return 0;
    unsigned i = (unsigned)__builtin_ctzll(m->count);
    uint32_t node = m->level[i];
    for (i++; i < 64; i++)
        if (m->count >> i & 1) node = bw_murmur2_pair(m->level[i], node);
    return node;
}
