/* proto/replica_items.c: see replica_items.h. Numbers are copied as they are: this host is little-endian (base/bytes.h). */
#include "proto/replica_items.h"

#include "base/err.h"

#include <stdlib.h>

static bw_err broken(const char *what) { return bw_fail(BW_ERR_PROTOCOL, "the peer's list of %s is not as it should be", what); }

bw_err bw_range_item_put(bw_buf *out, const bw_range_item *item)
{
    uint8_t bytes[BW_RANGE_HASH_BYTES];
    memcpy(bytes, &item->hash, 8);
    memcpy(bytes + 8, &item->bytes, 8);
    memcpy(bytes + 16, &item->batches, 4);
    memcpy(bytes + 20, &item->damaged, 4);
    return bw_buf_append(out, bytes, sizeof bytes);
}

bw_err bw_batch_item_put(bw_buf *out, const bw_batch_item *item)
{
    uint8_t bytes[BW_RANGE_BATCH_BYTES];
    memcpy(bytes, &item->base, 8);
    memcpy(bytes + 8, &item->next, 8);
    memcpy(bytes + 16, &item->hash, 8);
    memcpy(bytes + 24, &item->bytes, 4);
    memcpy(bytes + 28, &item->flags, 4);
    return bw_buf_append(out, bytes, sizeof bytes);
}

bw_err bw_epoch_item_put(bw_buf *out, const bw_epoch_entry *item)
{
    uint8_t bytes[BW_EPOCH_ITEM_BYTES] = {0};
    memcpy(bytes, &item->start_offset, 8);
    memcpy(bytes + 8, &item->epoch, 4);
    return bw_buf_append(out, bytes, sizeof bytes);
}

bw_err bw_range_items(bw_str in, uint32_t most, bw_range_item *out, uint32_t *count)
{
    size_t n = in.len / BW_RANGE_HASH_BYTES;
    if (in.len % BW_RANGE_HASH_BYTES || n == 0 || n > most) return broken("ranges");
    for (size_t i = 0; i < n; i++) {
        const char *p = in.data + i * BW_RANGE_HASH_BYTES;
        memcpy(&out[i].hash, p, 8);
        memcpy(&out[i].bytes, p + 8, 8);
        memcpy(&out[i].batches, p + 16, 4);
        memcpy(&out[i].damaged, p + 20, 4);
    }
    *count = (uint32_t)n;
    return BW_OK;
}

bw_err bw_batch_items(bw_str in, int64_t from, int64_t next, bw_batch_item *out, uint32_t *count)
{
    size_t n = in.len / BW_RANGE_BATCH_BYTES;
    if (in.len % BW_RANGE_BATCH_BYTES || n > BW_RANGE_BATCHES_MAX) return broken("batches");
    for (size_t i = 0; i < n; i++) {
        const char *p = in.data + i * BW_RANGE_BATCH_BYTES;
        bw_batch_item *b = &out[i];
        memcpy(&b->base, p, 8);
        memcpy(&b->next, p + 8, 8);
        memcpy(&b->hash, p + 16, 8);
        memcpy(&b->bytes, p + 24, 4);
        memcpy(&b->flags, p + 28, 4);
        if (b->base < 0 || b->next <= b->base || b->next <= from || b->next > next || (i && b->base < out[i - 1].next)) return broken("batches");
    }
    *count = (uint32_t)n;
    return BW_OK;
}

bw_err bw_epoch_items(bw_str in, bw_epoch_entry **out, size_t *count)
{
    size_t n = in.len / BW_EPOCH_ITEM_BYTES;
    *out = NULL;
    *count = 0;
    if (in.len % BW_EPOCH_ITEM_BYTES || n > BW_EPOCH_ITEMS_MAX) return broken("leader epochs");
    bw_epoch_entry *list = calloc(n + 1, sizeof *list);
    if (!list) return bw_fail(BW_ERR_NO_MEMORY, "no memory for leader epochs");
    for (size_t i = 0; i < n; i++) {
        memcpy(&list[i].start_offset, in.data + i * BW_EPOCH_ITEM_BYTES, 8);
        memcpy(&list[i].epoch, in.data + i * BW_EPOCH_ITEM_BYTES + 8, 4);
        bool good = list[i].start_offset >= 0 && list[i].epoch >= 0 &&
                    (i == 0 || (list[i].epoch > list[i - 1].epoch && list[i].start_offset >= list[i - 1].start_offset));
        if (good) continue;
        free(list);
        return broken("leader epochs");
    }
    *out = list;
    *count = n;
    return BW_OK;
}

int64_t bw_epochs_part(const bw_epoch_entry *x, size_t x_count, int64_t x_end, const bw_epoch_entry *y, size_t y_count, int64_t y_end)
{
    size_t i = x_count, k = y_count;
    while (i > 0 && k > 0) {
        if (x[i - 1].epoch > y[k - 1].epoch) i--;
        else if (x[i - 1].epoch < y[k - 1].epoch) k--;
        else {
            int64_t a = i < x_count ? x[i].start_offset : x_end, b = k < y_count ? y[k].start_offset : y_end;
            return a < b ? a : b;
        }
    }
    return 0;
}
