/* shim_producer.c: many records in one call, and their outcomes the same way back. See shim.h.
 *
 * Delivery callbacks run in the thread that polls or flushes; they only put the outcome into a list (under `mutex`), from which Go takes
 * many at a time and calls the program's functions in plain Go. One `call` a SendMany lives until its last outcome is there; the opaque
 * pointer of a record is its own slot in it, which tells both the call and the record's number. */
#include "shim.h"
#include "shim_private.h"

#include <pthread.h>
#include <stdatomic.h>

enum { DONE_MOST = 1 << 20, ON_STACK = 128 };

struct bwgo_producer {
    bw_producer *producer;
    pthread_mutex_t mutex; /* of the list */
    bwgo_done *done;
    size_t first, count, capacity;
    uint64_t lost; /* outcomes for which there was no memory */
};

typedef struct slot_at { struct call *c; } slot_at; /* what an opaque pointer leads to */

typedef struct call {
    bwgo_producer *owner;
    uint64_t number;
    int32_t first; /* number of its first record */
    int32_t quiet;
    _Atomic int32_t left; /* outcomes to come, and one for the call that sends */
    slot_at slots[];      /* one a record: its opaque pointer */
} call;

bwgo_result bwgo_producer_open(bw_bus *bus, bw_producer_options *options, bwgo_producer **out)
{
    bwgo_producer *p = calloc(1, sizeof *p);
    if (!p) return (bwgo_result){.code = BW_ERR_NO_MEMORY};
    pthread_mutex_init(&p->mutex, NULL);
    bwgo_result r = bwgo_result_of(bw_producer_open(bus, options, &p->producer));
    if (r.code) bwgo_producer_free(p);
    else *out = p;
    return r;
}

bwgo_result bwgo_producer_close(bwgo_producer *p, int32_t timeout_ms)
{
    bwgo_result r = bwgo_result_of(bw_producer_close(p->producer, timeout_ms));
    p->producer = NULL;
    return r;
}

void bwgo_producer_free(bwgo_producer *p)
{
    for (size_t i = 0; i < p->count; i++) free(p->done[p->first + i].message);
    free(p->done);
    pthread_mutex_destroy(&p->mutex);
    free(p);
}

bw_producer *bwgo_producer_handle(bwgo_producer *p) { return p->producer; }

/* ---- what is packed becomes records ---- */

typedef struct unpacker {
    const bwgo_packed_header *header;
    const uint8_t *at;
    bw_header *headers; /* room for those of the records that are unpacked */
} unpacker;

static inline const uint8_t *take(unpacker *u, int32_t len)
{
    if (len < 0) return NULL;
    const uint8_t *p = u->at;
    u->at += len;
    return p;
}

static inline void unpack(unpacker *u, const bwgo_packed *in, bw_record *out)
{
    out->key_len = in->key_len < 0 ? 0 : (size_t)in->key_len;
    out->key = take(u, in->key_len);
    out->value_len = in->value_len < 0 ? 0 : (size_t)in->value_len;
    out->value = take(u, in->value_len);
    out->timestamp_ms = in->timestamp_ms;
    out->header_count = (size_t)in->header_count;
    out->headers = NULL;
    if (__builtin_expect(in->header_count == 0, 1)) return;
    out->headers = u->headers;
    for (int32_t i = 0; i < in->header_count; i++, u->header++, u->headers++) {
        u->headers->name_len = (size_t)u->header->name_len;
        u->headers->name = (const char *)take(u, u->header->name_len);
        u->headers->value_len = u->header->value_len < 0 ? 0 : (size_t)u->header->value_len;
        u->headers->value = take(u, u->header->value_len);
    }
}

static bw_header *room_for_headers(const bwgo_packed *records, int32_t count, bool *ok)
{
    size_t n = 0;
    for (int32_t i = 0; i < count; i++) n += (size_t)records[i].header_count;
    bw_header *h = n ? malloc(n * sizeof *h) : NULL;
    *ok = h || !n;
    return h;
}

static bwgo_result no_memory(void) { return (bwgo_result){.code = BW_ERR_NO_MEMORY, .a = -1, .n = -1}; }

bwgo_result bwgo_send_batch(bwgo_producer *p, const char *topic, int32_t partition, const bwgo_packed *records, int32_t count,
                            const bwgo_packed_header *headers, const uint8_t *bytes, int32_t timeout_ms)
{
    bw_record on_stack[ON_STACK], *all = count > ON_STACK ? malloc((size_t)count * sizeof *all) : on_stack;
    bool ok;
    bw_header *room = room_for_headers(records, count, &ok);
    bwgo_result r = no_memory();
    if (all && ok) {
        unpacker u = {headers, bytes, room};
        for (int32_t i = 0; i < count; i++) unpack(&u, &records[i], &all[i]);
        bw_delivery d = {.partition = -1, .offset = -1};
        if (timeout_ms == BWGO_NOW) {
            bw_err e = bw_producer_send_now(p->producer, topic, partition, all, (size_t)count, &d);
            r = e == BW_ERR_BUSY ? (bwgo_result){.code = e} : bwgo_result_of(e);
        } else {
            r = bwgo_result_of(bw_producer_send_batch(p->producer, topic, partition, all, (size_t)count, timeout_ms, &d));
        }
        r.n = d.partition;
        r.a = d.offset;
        r.b = d.timestamp_ms;
    }
    free(room);
    if (all != on_stack) free(all);
    return r;
}

bwgo_result bwgo_send_all(bwgo_producer *p, const char *topic, int32_t partition, const bwgo_packed *records, int32_t count,
                          const bwgo_packed_header *headers, const uint8_t *bytes, int32_t timeout_ms, bw_placed *placed)
{
    bw_record on_stack[ON_STACK], *all = count > ON_STACK ? malloc((size_t)count * sizeof *all) : on_stack;
    bool ok;
    bw_header *room = room_for_headers(records, count, &ok);
    bwgo_result r = no_memory();
    if (all && ok) {
        unpacker u = {headers, bytes, room};
        for (int32_t i = 0; i < count; i++) unpack(&u, &records[i], &all[i]);
        r = bwgo_result_of(bw_producer_send_many(p->producer, topic, partition, all, (size_t)count, timeout_ms, placed));
    }
    free(room);
    if (all != on_stack) free(all);
    return r;
}

/* ---- without waiting ---- */

static void put_done(bwgo_producer *p, const bwgo_done *d)
{
    pthread_mutex_lock(&p->mutex);
    if (p->first + p->count == p->capacity && p->first > p->capacity / 2) { /* make room in front */
        memmove(p->done, p->done + p->first, p->count * sizeof *p->done);
        p->first = 0;
    }
    if (p->first + p->count == p->capacity) {
        size_t capacity = p->capacity ? p->capacity * 2 : 256;
        bwgo_done *grown = realloc(p->done, capacity * sizeof *grown);
        if (!grown) {
            p->lost++;
            pthread_mutex_unlock(&p->mutex);
            free(d->message);
            return;
        }
        p->done = grown;
        p->capacity = capacity;
    }
    p->done[p->first + p->count++] = *d;
    pthread_mutex_unlock(&p->mutex);
}

static size_t waiting(bwgo_producer *p)
{
    pthread_mutex_lock(&p->mutex);
    size_t n = p->count;
    pthread_mutex_unlock(&p->mutex);
    return n;
}

static void drop(call *c, int32_t n)
{
    if (atomic_fetch_sub_explicit(&c->left, n, memory_order_acq_rel) == n) free(c);
}

static void on_delivery(void *opaque, const bw_delivery *d)
{
    slot_at *s = opaque;
    call *c = s->c;
    if (!c->quiet || d->error) {
        bwgo_done out = {.call = c->number,
                         .index = c->first + (int32_t)(s - c->slots),
                         .code = (int32_t)d->error,
                         .partition = d->partition,
                         .offset = d->offset,
                         .timestamp_ms = d->timestamp_ms,
                         .message = d->error && d->message ? strdup(d->message) : NULL};
        put_done(c->owner, &out);
    }
    drop(c, 1);
}

bwgo_result bwgo_send_many(bwgo_producer *p, const char *topic, int32_t partition, const bwgo_packed *records, int32_t count,
                           const bwgo_packed_header *headers, const uint8_t *bytes, int32_t timeout_ms, uint64_t number, int32_t first,
                           int quiet)
{
    bool ok;
    bw_header *room = room_for_headers(records, count, &ok);
    call *c = ok ? malloc(sizeof *c + (size_t)count * sizeof c->slots[0]) : NULL;
    bwgo_result r = {.code = BW_ERR_NO_MEMORY};
    if (!c) {
        free(room);
        return r;
    }
    c->owner = p;
    c->number = number;
    c->first = first;
    c->quiet = quiet;
    atomic_init(&c->left, count + 1);
    unpacker u = {headers, bytes, room};
    bw_err e = waiting(p) >= DONE_MOST ? BW_ERR_QUEUE_FULL : BW_OK;
    if (e) r.message = strdup("a million outcomes wait to be taken: call Poll or Flush");
    int32_t sent = 0;
    for (; !e && sent < count; sent++) {
        bw_record record;
        unpack(&u, &records[sent], &record);
        slot_at *s = &c->slots[sent];
        s->c = c;
        e = bw_producer_send(p->producer, topic, partition, &record, on_delivery, s, sent ? 0 : timeout_ms);
        if (e) {
            r.message = strdup(bw_error_message());
            break;
        }
    }
    r.code = (int32_t)e;
    r.n = sent;
    drop(c, count - sent + 1);
    free(room);
    return r;
}

bwgo_result bwgo_producer_poll(bwgo_producer *p, int32_t timeout_ms)
{
    bw_producer_poll(p->producer, timeout_ms);
    return (bwgo_result){.n = (int32_t)waiting(p)};
}

bwgo_result bwgo_producer_flush(bwgo_producer *p, int32_t timeout_ms)
{
    bwgo_result r = bwgo_result_of(bw_producer_flush(p->producer, timeout_ms));
    r.n = (int32_t)waiting(p);
    return r;
}

int32_t bwgo_producer_take(bwgo_producer *p, bwgo_done *out, int32_t max)
{
    pthread_mutex_lock(&p->mutex);
    int32_t n = p->count < (size_t)max ? (int32_t)p->count : max;
    if (n) memcpy(out, p->done + p->first, (size_t)n * sizeof *out);
    p->first += (size_t)n;
    p->count -= (size_t)n;
    if (!p->count) p->first = 0;
    pthread_mutex_unlock(&p->mutex);
    return n;
}

/* ---- in place, transactions ---- */

bwgo_result bwgo_reserve(bwgo_producer *p, const char *topic, int32_t partition, const bwgo_packed *meta, const bwgo_packed_header *headers,
                         const uint8_t *bytes, size_t value_max, int32_t timeout_ms, bw_reservation *out)
{
    bool ok;
    bw_header *room = room_for_headers(meta, 1, &ok);
    if (!ok) return no_memory();
    bw_record record;
    unpacker u = {headers, bytes, room};
    unpack(&u, meta, &record);
    bwgo_result r = bwgo_result_of(bw_producer_reserve(p->producer, topic, partition, &record, value_max, timeout_ms, out));
    free(room);
    return r;
}

bwgo_result bwgo_reservation_commit(bwgo_producer *p, bw_reservation *reservation, size_t value_len, int32_t timeout_ms)
{
    bw_delivery d = {.partition = -1, .offset = -1};
    bwgo_result r = bwgo_result_of(bw_producer_commit(p->producer, reservation, value_len, timeout_ms, &d));
    r.n = d.partition;
    r.a = d.offset;
    r.b = d.timestamp_ms;
    return r;
}

bwgo_result bwgo_transaction(int what, bwgo_producer *p, int32_t timeout_ms)
{
    switch (what) {
    case BWGO_TXN_INIT: return bwgo_result_of(bw_transactions_init(p->producer, timeout_ms));
    case BWGO_TXN_BEGIN: return bwgo_result_of(bw_transaction_begin(p->producer));
    case BWGO_TXN_COMMIT: return bwgo_result_of(bw_transaction_commit(p->producer, timeout_ms));
    default: return bwgo_result_of(bw_transaction_abort(p->producer, timeout_ms));
    }
}

bwgo_result bwgo_txn_offsets(bwgo_producer *p, bw_group_metadata *group, bw_topic_partition *offsets, size_t count, int32_t timeout_ms)
{
    return bwgo_result_of(bw_transaction_send_offsets(p->producer, group, offsets, count, timeout_ms));
}

bwgo_result bwgo_last_sequence(bwgo_producer *p, const char *topic, int32_t partition)
{
    int32_t sequence = -1;
    int64_t offset = -1;
    bwgo_result r = bwgo_result_of(bw_producer_last_sequence(p->producer, topic, partition, &sequence, &offset));
    r.n = sequence;
    r.a = offset;
    return r;
}

bwgo_result bwgo_producer_fd(bwgo_producer *p)
{
    int fd = bw_producer_fd(p->producer);
    bwgo_result r = {.n = fd};
    if (fd < 0) {
        r.code = BW_ERR_IO;
        r.message = strdup(bw_error_message());
    }
    return r;
}
