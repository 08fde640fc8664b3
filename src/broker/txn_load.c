/* broker/txn_load.c: the coordinator's start: states from LMDB, then the log from the checkpoint on; and what partitions still have open.
 *
 * The worker reads, the broker thread takes over: transactions that were decided are finished, those going on get their time-out again.
 * Nothing is answered before (CONCURRENT_TRANSACTIONS). Partitions that are opened later, or were before, with transactions that the
 * coordinator does not know of (a power cut took the end of its log, or of theirs) are brought to an end by bw_txn_reconcile. */
#include "broker/txn_internal.h"

#include "base/killpoint.h"
#include "log/txn.h"

#include <stdio.h>
#include <stdlib.h>

#define LOOK_MS 2
#define APPEND_PATIENCE_NS 500000

static bw_tail_slot *slot_of(const bw_part *p) { return &p->topic->control->slots[p->index]; }

/* ---- the worker's part ---- */

typedef struct loaded {
    bw_txn txn;
    bool has_done;
    uint64_t done; /* the serial whose offsets were stored */
    struct loaded *next;
} loaded;

typedef struct load {
    loaded *list;
    bw_txn *by_id; /* over the list */
    int64_t from, next;
    uint64_t bytes;
    bw_position end;
    bw_txn_decision *decisions;
    size_t count, cap;
    bw_err e;
} load;

static loaded *entry(load *l, const void *id, size_t len)
{
    bw_txn *t = NULL;
    if (len == 0 || len > BW_TXN_ID_MAX) return NULL;
    HASH_FIND(by_id, l->by_id, id, len, t);
    if (t) return (loaded *)(void *)t; /* its first member */
    loaded *one = calloc(1, sizeof *one);
    if (!one) {
        l->e = bw_fail(BW_ERR_NO_MEMORY, "no memory for transactional ids");
        return NULL;
    }
    one->txn.state.producer_id = -1;
    one->txn.state.epoch = one->txn.state.epoch_before = -1;
    memcpy(one->txn.id, id, len);
    one->next = l->list;
    l->list = one;
    HASH_ADD_KEYPTR(by_id, l->by_id, one->txn.id, len, &one->txn);
    if (one->txn.not_hashed) l->e = bw_fail(BW_ERR_NO_MEMORY, "no memory for transactional ids");
    return one;
}

static bool on_stored(void *opaque, const void *key, size_t key_len, const void *value, size_t value_len)
{
    load *l = opaque;
    const char *k = key;
    bool number = value_len == 9 && *(const uint8_t *)value == 1;
    if (key_len == 3 && !memcmp(k, "log", 3) && number) l->from = (int64_t)bw_get_be64((const uint8_t *)value + 1);
    else if (key_len > 3 && !memcmp(k, "id:", 3)) {
        loaded *one = entry(l, k + 3, key_len - 3);
        if (one) l->e = bw_txn_state_decode(value, value_len, &one->txn.state);
    } else if (key_len > 5 && !memcmp(k, "done:", 5) && number) {
        loaded *one = entry(l, k + 5, key_len - 5);
        if (one) one->has_done = true, one->done = bw_get_be64((const uint8_t *)value + 1);
    }
    return l->e == BW_OK;
}

static bw_err keep_decision(load *l, const bw_txn_record *r)
{
    for (uint32_t i = 0; i < r->part_count; i++) {
        if (l->count == l->cap) {
            size_t cap = l->cap ? l->cap * 2 : 256;
            bw_txn_decision *grown = realloc(l->decisions, cap * sizeof *grown);
            if (!grown) return bw_fail(BW_ERR_NO_MEMORY, "no memory for decisions");
            l->decisions = grown;
            l->cap = cap;
        }
        l->decisions[l->count++] = (bw_txn_decision){r->producer_id, r->parts[i].topic, r->parts[i].partition, r->parts[i].end, r->commit};
    }
    return BW_OK;
}

static bw_err apply_one(load *l, const bw_record_view *v)
{
    bw_txn_record r;
    bw_err e = bw_txn_record_decode(v->value, v->value_len, &r);
    loaded *one = e ? NULL : entry(l, v->key, v->key_len);
    if (!e) e = l->e;
    if (!e && r.kind == BW_TXN_PREPARE) e = keep_decision(l, &r);
    if (!e && one && v->offset >= one->txn.state.log_offset) {
        bw_txn_state *s = &one->txn.state;
        if (s->producer_id < 0) { /* the store does not know it: it cannot have been answered */
            s->producer_id = r.producer_id;
            s->epoch = r.epoch;
        }
        if (s->producer_id == r.producer_id) e = bw_txn_apply(s, &r);
    }
    bw_txn_record_fini(&r);
    return e;
}

static bw_err read_log(bw_broker *b, bw_part *p, load *l)
{
    bw_reader *reader;
    bw_batch_ref batch;
    bw_err e = bw_part_open_reader(b, p, BW_LIMIT_ALL, false, &reader);
    if (e) return e;
    int64_t start = atomic_load(&slot_of(p)->log_start);
    bw_reader_seek(reader, l->from > start ? l->from : start);
    while (!(e = bw_reader_next(reader, &batch))) {
        bw_record_iter it;
        bw_record_view v;
        int got;
        l->bytes += batch.size;
        l->next = bw_batch_last_offset(&batch.header) + 1;
        if (batch.header.attributes & BW_ATTR_CONTROL) continue;
        bw_record_iter_init(&it, &batch.header, batch.data + BW_BATCH_HEADER_BYTES, batch.size - BW_BATCH_HEADER_BYTES);
        while ((got = bw_record_iter_next(&it, &v)) > 0 && !(e = apply_one(l, &v))) {}
        if (got < 0) e = BW_ERR_CORRUPT;
        if (e) break;
    }
    bw_reader_close(reader);
    if (e != BW_ERR_EMPTY) return e;
    l->end = atomic_load(&slot_of(p)->tail);
    l->next = bw_slot_end_offset(slot_of(p));
    return BW_OK;
}

static void load_run(bw_broker *b, bw_job *job)
{
    load *l = job->data;
    bw_err e = bw_store_each(b->store, BW_TABLE_TRANSACTIONS, "", 0, on_stored, l);
    if (!e) e = l->e;
    if (!e) e = read_log(b, job->part, l);
    if (e) bw_job_set_error(job, e);
}

static void load_free(load *l)
{
    HASH_CLEAR(by_id, l->by_id);
    while (l->list) {
        loaded *one = l->list;
        l->list = one->next;
        bw_txn_state_fini(&one->txn.state);
        free(one);
    }
    free(l->decisions);
    free(l);
}

/* ---- the broker thread's ---- */

static bw_err adopt(bw_broker *b, loaded *one)
{
    bw_txns *x = b->txns;
    bw_txn *t;
    if (one->txn.state.producer_id < 0) return BW_OK; /* a note without a state */
    bw_err e = bw_txn_new(b, bw_str_of(one->txn.id), &t);
    if (e) return e;
    t->state = one->txn.state;
    memset(&one->txn.state, 0, sizeof one->txn.state);
    t->dirty = true;
    bw_txn_index_producer(x, t);
    if (t->state.phase == BW_TXN_ONGOING) bw_txn_arm_timeout(b, t);
    if (!bw_txn_is_prepared(&t->state)) return BW_OK;
    t->offsets_done = one->has_done && one->done == t->state.serial;
    bw_txn_resume(b, t);
    return BW_OK;
}

static void look_at_all(bw_broker *b)
{
    for (uint32_t i = 0; i < b->parts_count; i++) {
        bw_part *p = b->parts[i];
        if (p && p->log && (p->txn_look || atomic_load(&slot_of(p)->first_unstable) != INT64_MAX)) bw_txn_reconcile(b, p);
    }
}

static void not_loaded(bw_broker *b, const char *why)
{
    char text[600];
    snprintf(b->txns->why, sizeof b->txns->why, "%s", why);
    b->txns->loading = false;
    bw_broker_event(b, BW_LOG_ERROR, "transactions_not_loaded", "reason=%s", bw_event_text(why, text, sizeof text));
}

static void take_over(bw_broker *b, load *l)
{
    bw_txns *x = b->txns;
    bw_err e = BW_OK;
    for (loaded *one = l->list; one && !e; one = one->next) e = adopt(b, one);
    if (e) {
        not_loaded(b, bw_error_message());
        return;
    }
    x->decisions = l->decisions;
    x->decision_count = l->count;
    l->decisions = NULL;
    for (size_t i = 0; i < x->decision_count; i++) { /* their markers may still be on their way to the disk */
        bw_part *p = bw_txn_topic_part(b, &x->decisions[i].topic, x->decisions[i].partition);
        if (p) bw_txn_touch(x, p, 0);
    }
    x->log_next = l->next;
    x->log_end = l->end;
    x->log_bytes = l->bytes;
    x->loading = false;
    x->ready = true;
    bw_broker_event(b, BW_LOG_INFO, "transactions_loaded", "ids=%u bytes=%llu", HASH_CNT(by_id, x->by_id), (unsigned long long)l->bytes);
}

static void load_done(bw_broker *b, bw_job *job)
{
    load *l = job->data;
    if (b->txns && !b->draining) {
        if (job->error) not_loaded(b, job->message);
        else take_over(b, l);
        if (b->txns->ready) {
            look_at_all(b);
            bw_txn_run(b);
        }
    }
    load_free(l);
    bw_part_release(job->part);
    free(job);
}

static void on_look(void *broker, bw_timer *timer)
{
    (void)timer;
    bw_txn_load(broker);
}

void bw_txn_load(bw_broker *b)
{
    bw_part *p = b->txns->log;
    uint32_t stage = atomic_load(&p->stage);
    if (stage == BW_PART_UNOPENED) {
        bw_opener_want(b, p);
        b->txns->load_timer.fire = on_look;
        bw_timers_set(&b->timers, &b->txns->load_timer, bw_deadline_in_ms(LOOK_MS));
        return;
    }
    if (!p->log) {
        not_loaded(b, p->why ? p->why : "the log of transactions cannot be opened");
        return;
    }
    load *l = calloc(1, sizeof *l);
    bw_job *job = calloc(1, sizeof *job);
    bw_err e = l && job ? BW_OK : bw_fail(BW_ERR_NO_MEMORY, "no memory to read the log of transactions");
    if (!e) {
        *job = (bw_job){.run = load_run, .done = load_done, .part = p, .data = l};
        atomic_fetch_add(&p->users, 1);
        if ((e = bw_worker_submit(b, job))) bw_part_release(p);
    }
    if (!e) return;
    free(l);
    free(job);
    not_loaded(b, bw_error_message());
}

/* ---- what partitions have open ---- */

struct lost {
    bw_broker *b;
    bw_part *part;
    bw_marker markers[BW_TXN_MARKERS_MAX];
    size_t n;
};

static bool is_known(const bw_txn *t, const bw_part *p, const bw_producer_info *info)
{
    if (!t || !bw_txn_has_part(&t->state, &p->topic->id, p->index)) return false;
    return bw_txn_is_prepared(&t->state) || (t->state.phase == BW_TXN_ONGOING && t->state.epoch == info->epoch);
}

/* The decision of the transaction that begins at `first`: the first one behind it. */
static bool was_committed(const bw_txns *x, const bw_part *p, int64_t producer_id, int64_t first)
{
    for (size_t i = 0; i < x->decision_count; i++) {
        const bw_txn_decision *d = &x->decisions[i];
        if (d->producer_id == producer_id && d->partition == p->index && d->end > first && bw_uuid_equal(&d->topic, &p->topic->id)) return d->commit;
    }
    return false;
}

static bool on_open(void *opaque, const bw_producer_info *info)
{
    struct lost *l = opaque;
    const bw_txns *x = l->b->txns;
    if (is_known(bw_txn_by_producer(x, info->id), l->part, info)) return true;
    l->markers[l->n++] = (bw_marker){.producer_id = info->id, .producer_epoch = info->epoch, .coordinator_epoch = 0,
                                     .commit = was_committed(x, l->part, info->id, info->transaction), .timestamp_ms = bw_clock_wall_ms()};
    return l->n < BW_TXN_MARKERS_MAX;
}

void bw_txn_reconcile(bw_broker *b, bw_part *p)
{
    if (p->topic->mirror) return; /* they are the origin's to end */
    p->txn_look = true; /* until it is done */
    bw_err e = b->ready ? bw_txns_need(b) : BW_ERR_BUSY;
    if (e || atomic_load(&slot_of(p)->state) != BW_SLOT_OPEN) return; /* looked at when the log is read; when it is opened anew */
    if (!bw_part_have_producers(b, p, &e)) {
        if (e) bw_txn_retry_later(b);
        return;
    }
    for (;;) {
        struct lost l = {.b = b, .part = p};
        bw_appender *a;
        bw_append_result r;
        bw_producers_each(p->producers, true, bw_clock_mono_ms(), on_open, &l);
        if (l.n == 0) break;
        e = bw_part_appender(b, p, &a);
        if (!e) e = bw_txn_end(p->log, a, p->producers, l.markers, l.n, bw_clock_mono_ms(), bw_clock_mono_ns() + APPEND_PATIENCE_NS, &r);
        if (e) {
            bw_txn_retry_later(b);
            return;
        }
        BW_KILL_POINT("txn.reconciled");
        for (size_t i = 0; i < l.n; i++)
            bw_broker_event(b, BW_LOG_WARN, "transaction_settled", "topic=%s partition=%u producer_id=%lld as=%s", p->topic->name, p->index,
                            (long long)l.markers[i].producer_id, l.markers[i].commit ? "commit" : "abort");
        bw_txn_touch(b->txns, p, r.end);
        bw_broker_again(b, p);
    }
    p->txn_look = false;
}

void bw_txn_part_opened(bw_broker *b, bw_part *p)
{
    if (p->log && atomic_load(&slot_of(p)->first_unstable) != INT64_MAX) bw_txn_reconcile(b, p);
    bw_txn_serve(b, p);
}

void bw_txn_serve(bw_broker *b, bw_part *p)
{
    if (p->txn_look && p->log) bw_txn_reconcile(b, p);
    if (!p->txn_waits) return;
    p->txn_waits = false;
    bw_txn_run(b); /* sets it again when it has to */
}
