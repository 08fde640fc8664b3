/* What a peer says of ranges, batches and leader epochs: any bytes are refused, or decode to items that encode to the same bytes and keep what
 * replica_items.h promises. First byte: which list. */
#include "fuzz/fuzz.h"

#include "proto/replica_items.h"

static void same(const bw_buf *out, bw_str in) { FUZZ_CHECK(out->len == in.len && (in.len == 0 || memcmp(out->data, in.data, in.len) == 0)); }

static void ranges(bw_str in)
{
    static bw_range_item items[BW_RANGE_HASHES_MAX];
    uint32_t count;
    bw_buf out = {0};
    if (bw_range_items(in, BW_RANGE_HASHES_MAX, items, &count) != BW_OK) return;
    FUZZ_CHECK(count > 0 && count <= BW_RANGE_HASHES_MAX);
    fuzz_pause();
    for (uint32_t i = 0; i < count; i++) FUZZ_CHECK(bw_range_item_put(&out, &items[i]) == BW_OK);
    same(&out, in);
    bw_buf_free(&out);
    fuzz_resume();
}

static void batches(bw_str in, int64_t from, int64_t next)
{
    static bw_batch_item items[BW_RANGE_BATCHES_MAX];
    uint32_t count;
    bw_buf out = {0};
    if (bw_batch_items(in, from, next, items, &count) != BW_OK) return;
    int64_t at = 0;
    fuzz_pause();
    for (uint32_t i = 0; i < count; i++) {
        FUZZ_CHECK(items[i].base >= at && items[i].next > items[i].base && items[i].next > from && items[i].next <= next);
        at = items[i].next;
        FUZZ_CHECK(bw_batch_item_put(&out, &items[i]) == BW_OK);
    }
    same(&out, in);
    bw_buf_free(&out);
    fuzz_resume();
}

static void epochs(bw_str in, int64_t end)
{
    bw_epoch_entry *list;
    size_t count;
    if (bw_epoch_items(in, &list, &count) != BW_OK) {
        FUZZ_CHECK(!list && !count);
        return;
    }
    for (size_t split = 0; split <= count && split < 8; split++) {
        int64_t a = bw_epochs_part(list, count, end, list + split, count - split, end),
                b = bw_epochs_part(list + split, count - split, end, list, count, end);
        FUZZ_CHECK(a == b);
        FUZZ_CHECK(split < count ? a == end : a == 0);
    }
    free(list);
}

static int fuzz_input(const uint8_t *data, size_t size)
{
    if (size < 17) return 0;
    int64_t x, y;
    memcpy(&x, data + 1, 8);
    memcpy(&y, data + 9, 8);
    bw_str in = {(const char *)data + 17, size - 17};
    if (data[0] % 3 == 0) ranges(in);
    else if (data[0] % 3 == 1) batches(in, x, y);
    else epochs(in, x);
    return 0;
}
