/* broker/producers.c: the table. uthash keeps insertion order; an entry is put in anew at each batch, so that the first is the one that
 * was silent the longest. */
#include "broker/producers.h"

#include <stdlib.h>

#define HASH_NONFATAL_OOM 1
#define uthash_nonfatal_oom(e) ((e)->lost = true)
#include <uthash.h>

typedef struct producer {
    int64_t id;
    int16_t epoch;
    int count; /* batches known, at most BW_PRODUCER_BATCHES; the newest is the last */
    bw_producer_batch batches[BW_PRODUCER_BATCHES];
    int64_t seen_ms;
    bool lost; /* no memory to add it */
    UT_hash_handle hh;
} producer;

struct bw_producers {
    producer *table;
};

bw_producers *bw_producers_new(void) { return calloc(1, sizeof(bw_producers)); }

void bw_producers_free(bw_producers *p)
{
    if (!p) return;
    producer *e, *tmp;
    HASH_ITER(hh, p->table, e, tmp)
    {
        HASH_DEL(p->table, e);
        free(e);
    }
    free(p);
}

size_t bw_producers_count(const bw_producers *p) { return HASH_COUNT(p->table); }

static producer *find(const bw_producers *p, int64_t id)
{
    producer *e;
    HASH_FIND(hh, p->table, &id, sizeof id, e);
    return e;
}

bw_sequence bw_producers_check(const bw_producers *p, const bw_batch_header *h, bw_producer_batch *before, bw_err *error)
{
    const producer *e = find(p, h->producer_id);
    if (!e || !e->count) return BW_SEQUENCE_ACCEPT;
    if (h->producer_epoch < e->epoch) {
        *error = bw_fail(BW_ERR_INVALID_PRODUCER_EPOCH, "producer %lld: epoch %d was replaced by %d: another one goes by this name",
                         (long long)h->producer_id, h->producer_epoch, e->epoch);
        return BW_SEQUENCE_REFUSED;
    }
    int32_t expected = 0;
    if (h->producer_epoch == e->epoch) {
        int32_t last = bw_sequence_after(h->base_sequence, h->last_offset_delta);
        for (int i = 0; i < e->count; i++) {
            if (e->batches[i].first != h->base_sequence || e->batches[i].last != last) continue;
            *before = e->batches[i];
            return BW_SEQUENCE_DUPLICATE;
        }
        expected = bw_sequence_after(e->batches[e->count - 1].last, 1);
    }
    if (h->base_sequence == expected) return BW_SEQUENCE_ACCEPT;
    *error = bw_fail(BW_ERR_OUT_OF_ORDER_SEQUENCE, "producer %lld epoch %d: sequence %d came, %d was expected", (long long)h->producer_id,
                     h->producer_epoch, h->base_sequence, expected);
    return BW_SEQUENCE_REFUSED;
}

void bw_producers_note(bw_producers *p, const bw_batch_header *h, int64_t base_offset, int64_t timestamp, bw_position end, int64_t now_ms)
{
    producer *e = find(p, h->producer_id);
    if (e) HASH_DEL(p->table, e);
    else if (HASH_COUNT(p->table) >= BW_PRODUCERS_MAX) {
        e = p->table; /* the oldest */
        HASH_DEL(p->table, e);
        memset(e, 0, sizeof *e);
    } else if (!(e = calloc(1, sizeof *e))) return;
    if (e->epoch != h->producer_epoch) e->count = 0;
    if (e->count == BW_PRODUCER_BATCHES) {
        e->count--;
        memmove(&e->batches[0], &e->batches[1], sizeof e->batches[0] * (size_t)e->count);
    }
    e->id = h->producer_id;
    e->epoch = h->producer_epoch;
    e->seen_ms = now_ms;
    e->batches[e->count++] = (bw_producer_batch){
        .first = h->base_sequence,
        .last = bw_sequence_after(h->base_sequence, h->last_offset_delta),
        .base_offset = base_offset,
        .timestamp = timestamp,
        .end = end,
    };
    e->lost = false;
    HASH_ADD(hh, p->table, id, sizeof e->id, e);
    if (e->lost) free(e);
}

void bw_producers_expire(bw_producers *p, int64_t before_ms)
{
    while (p->table && p->table->seen_ms < before_ms) {
        producer *e = p->table;
        HASH_DEL(p->table, e);
        free(e);
    }
}
