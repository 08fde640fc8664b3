/* client/batch.c: the records of a batch, one by one: the hot path of reading. */
#include "format/record_batch.h"

#include <busway/consumer.h>

int bw_batch_next(bw_batch *b, bw_record_view *record)
{
    bw_record_iter it = {
        .at = {b->it_at, b->it_end, false},
        .base_offset = b->base_offset,
        .base_timestamp = b->base_timestamp_ms,
        .append_time = b->timestamp_type == BW_TIMESTAMP_LOG_APPEND ? b->max_timestamp_ms : BW_NO_TIMESTAMP,
        .left = b->it_left,
    };
    int r;
    do r = bw_record_iter_next(&it, record);
    while (__builtin_expect(r == 1 && record->offset < b->it_from, 0));
    if (__builtin_expect(r < 0, 0)) return r; /* where it is: the same again at the next call */
    b->it_at = it.at.at;
    b->it_left = it.left;
    return r;
}
