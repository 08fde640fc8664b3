/* Segments: any bytes walked, verified and dumped, from memory and as a segment with indexes and a seal beside it.
 * Byte 0: bit 0 mend the batches' checksums and lengths first, bit 1 split index and time index off the end, bit 2 a seal, bit 3 not
 * the last segment. */
#include "fuzz/fuzz.h"

#include "base/crc32c.h"
#include "log/inspect.h"

#define PLAIN_MAX (256u * 1024u)

static void on_finding(void *opaque, const bw_finding *f)
{
    uint64_t *count = opaque;
    FUZZ_CHECK(f->message && f->message[0]);
    (*count)++;
}

static bool on_dump(void *opaque, const bw_dump_batch *batch, const bw_record_view *record)
{
    (void)opaque;
    FUZZ_CHECK(batch->size >= BW_BATCH_HEADER_BYTES);
    if (record) FUZZ_CHECK(record->offset >= batch->base_offset && record->offset <= batch->last_offset);
    return true;
}

/* Walks by the length fields and makes what lies there a batch with a right checksum, so that the depth is reached. */
static void mend(uint8_t *data, size_t size)
{
    int64_t offset = 0;
    for (size_t at = 0; size - at >= BW_BATCH_HEADER_BYTES;) {
        uint32_t length = bw_get_be32(data + at + 8) % 400 + 49;
        if (length + 12 > size - at) length = (uint32_t)(size - at) - 12;
        bw_put_be64(data + at, (uint64_t)offset);
        bw_put_be32(data + at + 8, length);
        bw_put_be32(data + at + 12, 0);
        data[at + 16] = BW_BATCH_MAGIC;
        data[at + 22] &= 0x7f;
        bw_put_be32(data + at + 23, bw_get_be32(data + at + 23) % 16);
        bw_put_be32(data + at + 57, bw_get_be32(data + at + 57) % 16);
        bw_put_be32(data + at + 17, bw_crc32c(data + at + BW_BATCH_CRC_FROM, length + 12 - BW_BATCH_CRC_FROM));
        offset += bw_get_be32(data + at + 23) + 1;
        at += length + 12;
    }
}

static void verify(const uint8_t *data, size_t size, uint8_t how)
{
    bw_verify_totals totals = {0};
    uint64_t findings = 0;
    bw_inspection in = {.finding = on_finding, .opaque = &findings, .totals = &totals, .plain_max = PLAIN_MAX, .path = "x"};
    bw_seal seal;
    bw_segment_facts facts = {.is_last = !(how & 8)};
    if (how & 2) {
        facts.index_len = size / 8 < 96 ? size / 8 : 96;
        facts.timeindex_len = facts.index_len;
        size -= facts.index_len + facts.timeindex_len;
        facts.index = data + size;
        facts.timeindex = data + size + facts.index_len;
    }
    if ((how & 4) && size >= BW_SEAL_BYTES) {
        size -= BW_SEAL_BYTES;
        if (bw_seal_decode(data + size, BW_SEAL_BYTES, &seal) == BW_OK) facts.seal = &seal;
    }
    bw_walk w;
    int64_t next;
    bw_walk_init_memory(&w, data, size);
    w.next_offset = 0;
    FUZZ_CHECK(bw_inspect_segment(&in, &w, &facts, &next) == BW_OK);
    FUZZ_CHECK(totals.bytes <= size && totals.errors + totals.notes == findings);
    FUZZ_CHECK(totals.batches * BW_BATCH_HEADER_BYTES <= size);
    bw_walk_init_memory(&w, data, size);
    bw_err e = bw_inspect_dump(&w, true, PLAIN_MAX, on_dump, NULL);
    if (totals.errors == 0 && totals.notes == 0) FUZZ_CHECK(e == BW_OK);
}

static int fuzz_input(const uint8_t *data, size_t size)
{
    if (size < 1) return 0;
    fuzz_allow(2 * PLAIN_MAX + FUZZ_LZ4_BLOCKS);
    uint8_t *copy = malloc(size);
    FUZZ_CHECK(copy);
    memcpy(copy, data + 1, size - 1);
    if (data[0] & 1) mend(copy, size - 1);
    verify(copy, size - 1, data[0]);
    free(copy);
    return 0;
}
