/* client/producer_many.c: many records in one call, and sending only when that needs not wait.
 *
 * Records for several partitions are taken a window at a time: each record's partition is chosen, the window is sorted by partition
 * (stable: records of a partition keep their order) into a table of our own, and each partition's run is sent in slices of batch.size.
 * Records without a key form a run of their own, whose partition changes with each batch (sticky), as in bw_producer_send. */
#include "client/backend.h"
#include "client/partitioner.h"
#include "client/producer.h"

#include <stdlib.h>
#include <string.h>

enum { WINDOW = 1024 };

typedef struct many {
    bw_producer *producer;
    const char *topic;
    bw_ptopic *t;
    bw_deadline deadline;
    size_t most; /* bytes of a batch */
    bw_placed *placed;
} many;

/* A window, sorted. */
typedef struct sorted {
    bw_record records[WINDOW];
    uint32_t from[WINDOW];      /* where each was */
    uint32_t key[WINDOW];       /* each one's place in `partition` */
    int32_t partition[WINDOW];  /* those that occur; BW_PARTITION_ANY: without a key */
    uint32_t count[WINDOW], distinct;
} sorted;

bw_err bw_producer_send_now(bw_producer *p, const char *topic, int32_t partition, const bw_record *records, size_t count,
                            bw_delivery *out)
{
    bw_err e = bw_producer_check(p, topic);
    if (e) return e;
    if (p->options.acks == BW_ACKS_DURABLE || p->txn || !records || count == 0) return BW_ERR_BUSY;
    bw_ptopic *t = atomic_load_explicit(&p->last, memory_order_acquire);
    if (!t || strcmp(t->name, topic) != 0) {
        pthread_mutex_lock(&p->mutex);
        for (t = p->topics; t && strcmp(t->name, topic) != 0;) t = t->next;
        pthread_mutex_unlock(&p->mutex);
    }
    if (!t || atomic_load_explicit(&t->gone, memory_order_relaxed)) return BW_ERR_BUSY;
    int32_t chosen = bw_producer_choose(t, partition, records);
    if ((uint32_t)chosen >= BW_PARTITIONS_MAX || (count > 1 && partition == BW_PARTITION_ANY)) return BW_ERR_BUSY;
    bw_ppart *part = atomic_load_explicit(&t->parts[chosen], memory_order_acquire);
    if (!part || !atomic_load_explicit(&part->direct, memory_order_acquire)) return BW_ERR_BUSY;
    e = bw_producer_send_batch(p, topic, partition, records, count, 0, out);
    if (!e || e == BW_ERR_RECORD_TOO_LARGE || e == BW_ERR_INVALID_ARGUMENT) return e;
    /* Nothing was appended, unless the partition turned to the socket within this call: then the error stands. */
    return atomic_load_explicit(&part->direct, memory_order_acquire) ? BW_ERR_BUSY : e;
}

static int32_t left_ms(bw_deadline deadline)
{
    if (deadline == BW_DEADLINE_NEVER) return -1;
    int64_t ms = (bw_deadline_left_ns(deadline) + 999999) / 1000000;
    return ms > INT32_MAX ? INT32_MAX : (int32_t)ms;
}

static void place(const many *m, const uint32_t *from, size_t first, size_t count, const bw_delivery *d)
{
    if (!m->placed) return;
    for (size_t i = 0; i < count; i++) {
        bw_placed *at = &m->placed[from ? from[first + i] : first + i];
        at->error = d->error;
        at->partition = d->error ? -1 : d->partition;
        at->offset = d->error || d->offset < 0 ? -1 : d->offset + (int64_t)i;
    }
}

/* Records [0, count) of one partition; those of `from` are theirs in the caller's order, NULL: they are in it, from `base`. */
static bw_err send_run(const many *m, int32_t partition, const bw_record *records, size_t count, const uint32_t *from, size_t base)
{
    for (size_t at = 0; at < count;) {
        size_t n = 0, bytes = BW_BATCH_HEADER_BYTES;
        do bytes += bw_record_encoded_size(&records[at + n++]);
        while (at + n < count && bytes + bw_record_encoded_size(&records[at + n]) <= m->most && n < INT32_MAX);
        int32_t to = partition;
        if (to == BW_PARTITION_ANY) to = bw_sticky_get(&m->t->sticky, atomic_load_explicit(&m->t->partitions, memory_order_relaxed));
        bw_delivery d;
        bw_err e = bw_producer_send_batch(m->producer, m->topic, to, records + at, n, left_ms(m->deadline), &d);
        place(m, from, from ? at : base + at, n, &d);
        if (e) return e;
        if (partition == BW_PARTITION_ANY)
            bw_sticky_next(&m->t->sticky, to, atomic_load_explicit(&m->t->partitions, memory_order_relaxed));
        at += n;
    }
    return BW_OK;
}

static void sort_window(const bw_ptopic *t, const bw_record *records, size_t count, size_t base, sorted *s)
{
    int32_t n = atomic_load_explicit(&t->partitions, memory_order_relaxed);
    uint32_t last = 0;
    s->distinct = 0;
    for (size_t i = 0; i < count; i++) {
        int32_t to = records[i].key ? bw_partition_for_key(records[i].key, records[i].key_len, n) : BW_PARTITION_ANY;
        uint32_t k = last;
        if (s->distinct == 0 || s->partition[k] != to)
            for (k = 0; k < s->distinct && s->partition[k] != to;) k++;
        if (k == s->distinct) {
            s->partition[s->distinct] = to;
            s->count[s->distinct++] = 0;
        }
        s->count[k]++;
        s->key[i] = last = k;
    }
    uint32_t start[WINDOW], sum = 0;
    for (uint32_t k = 0; k < s->distinct; k++) {
        start[k] = sum;
        sum += s->count[k];
    }
    for (size_t i = 0; i < count; i++) {
        uint32_t at = start[s->key[i]]++;
        s->records[at] = records[i];
        s->from[at] = (uint32_t)(base + i);
    }
}

static bw_err send_sorted(const many *m, const bw_record *records, size_t count)
{
    sorted *s = malloc(sizeof *s);
    if (!s) return bw_fail(BW_ERR_NO_MEMORY, "no memory to sort records by partition");
    bw_err e = BW_OK;
    for (size_t base = 0; base < count && !e; base += WINDOW) {
        size_t n = count - base < WINDOW ? count - base : WINDOW, at = 0;
        sort_window(m->t, records + base, n, base, s);
        for (uint32_t k = 0; k < s->distinct && !e; k++) {
            e = send_run(m, s->partition[k], s->records + at, s->count[k], s->from + at, 0);
            at += s->count[k];
        }
    }
    free(s);
    return e;
}

bw_err bw_producer_send_many(bw_producer *p, const char *topic, int32_t partition, const bw_record *records, size_t count,
                             int32_t timeout_ms, bw_placed *placed)
{
    bw_err e = bw_producer_check(p, topic);
    if (e) return e;
    if ((count && !records) || count > UINT32_MAX) return bw_fail(BW_ERR_INVALID_ARGUMENT, "bw_producer_send_many: %zu records", count);
    many m = {.producer = p, .topic = topic, .deadline = bw_deadline_in_ms(timeout_ms), .placed = placed};
    for (size_t i = 0; placed && i < count; i++) placed[i] = (bw_placed){-1, -1, BW_ERR_TIMED_OUT};
    BW_DISPATCH(p->bus, send_many(p, topic, partition, records, count, timeout_ms, placed));
    e = bw_producer_topic(p, topic, m.deadline, &m.t);
    if (e || count == 0) return e;
    uint32_t most = atomic_load_explicit(&m.t->message_max, memory_order_relaxed);
    m.most = p->options.batch_size < most ? p->options.batch_size : most;
    if (partition == BW_PARTITION_ANY && atomic_load_explicit(&m.t->partitions, memory_order_relaxed) == 1) partition = 0;
    if (partition != BW_PARTITION_ANY) e = send_run(&m, partition, records, count, NULL, 0);
    else e = send_sorted(&m, records, count);
    return e;
}
