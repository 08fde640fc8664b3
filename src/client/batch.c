/* client/batch.c: the records of a batch, one by one or many at once: the hot path of reading. */
#include "format/record_batch.h"

#include <busway/consumer.h>

static inline bw_record_iter begin(const bw_batch *b)
{
    return (bw_record_iter){
        .at = {b->it_at, b->it_end, false},
        .base_offset = b->base_offset,
        .base_timestamp = b->base_timestamp_ms,
        .append_time = b->timestamp_type == BW_TIMESTAMP_LOG_APPEND ? b->max_timestamp_ms : BW_NO_TIMESTAMP,
        .left = b->it_left,
    };
}

int bw_batch_next(bw_batch *b, bw_record_view *record)
{
    bw_record_iter it = begin(b);
    int r;
    do r = bw_record_iter_next(&it, record);
    while (__builtin_expect(r == 1 && record->offset < b->it_from, 0));
    if (__builtin_expect(r < 0, 0)) return r; /* where it is: the same again at the next call */
    b->it_at = it.at.at;
    b->it_left = it.left;
    return r;
}

int32_t bw_batch_records(bw_batch *b, bw_record_view *out, int32_t max)
{
    bw_record_iter it = begin(b);
    int32_t n = 0;
    int r = 1;
    while (n < max) {
        const uint8_t *at = it.at.at;
        int32_t left = it.left;
        if (__builtin_expect((r = bw_record_iter_next(&it, &out[n])) != 1, 0)) {
            it.at.at = at; /* a broken record is met again by the next call; the good ones before it are given now */
            it.left = r < 0 ? left : it.left;
            break;
        }
        n += out[n].offset >= b->it_from;
    }
    b->it_at = it.at.at;
    b->it_left = it.left;
    return r < 0 && n == 0 ? -1 : n;
}
