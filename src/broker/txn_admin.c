/* broker/txn_admin.c: what people ask of transactions: documents in msgpack, and an abort by hand. Names as in busway/transaction.h. */
#include "broker/document.h"
#include "broker/txn_internal.h"

#include "log/producers.h"

#include <stdlib.h>

/* ---- transactions ---- */

static int put_head(msgpack_packer *pk, const bw_txn *t, uint32_t more)
{
    const bw_txn_state *s = &t->state;
    int64_t age = s->phase == BW_TXN_ONGOING || bw_txn_is_prepared(s) ? bw_clock_wall_ms() - s->began_ms : -1;
    int bad = msgpack_pack_map(pk, 7 + more);
    bad |= key_text(pk, "id", t->id) | key_text(pk, "state", bw_txn_phase_name(s->phase)) | key_int(pk, "producer_id", s->producer_id);
    bad |= key_int(pk, "epoch", s->epoch) | key_int(pk, "timeout_ms", s->timeout_ms) | key_int(pk, "age_ms", age);
    return bad | key_int(pk, "changed_ms", s->changed_ms);
}

static bool loaded(bw_broker *b, bw_op *op)
{
    if (!b->txns || !b->txns->loading) return true;
    bw_op_fail(op, bw_txns_need(b));
    return false;
}

void bw_handle_list_transactions(bw_broker *b, bw_op *op)
{
    if (!loaded(b, op)) return;
    msgpack_packer pk;
    bw_doc_begin(b, &pk);
    int bad = msgpack_pack_array(&pk, b->txns ? HASH_CNT(by_id, b->txns->by_id) : 0);
    bw_txn *t, *tmp;
    if (b->txns)
        HASH_ITER(by_id, b->txns->by_id, t, tmp) bad |= put_head(&pk, t, 0);
    bw_doc_send(b, op, bad);
}

static bw_txn *named(bw_broker *b, bw_op *op)
{
    if (!loaded(b, op)) return NULL;
    bw_str id = op->request.txn.id;
    bw_txn *t = bw_txn_find(b->txns, id);
    if (!t)
        bw_op_fail(op, bw_fail(BW_ERR_TRANSACTIONAL_ID_NOT_FOUND, "transactional id '%.*s' is not known", (int)(id.len < 60 ? id.len : 60), id.data));
    return t;
}

void bw_handle_describe_transaction(bw_broker *b, bw_op *op)
{
    bw_txn *t = named(b, op);
    if (!t) return;
    msgpack_packer pk;
    bw_doc_begin(b, &pk);
    int bad = put_head(&pk, t, 2);
    bad |= put_text(&pk, "partitions") | msgpack_pack_array(&pk, t->state.part_count);
    for (uint32_t i = 0; i < t->state.part_count; i++) {
        const bw_txn_part *at = &t->state.parts[i];
        bw_part *p = bw_txn_topic_part(b, &at->topic, at->partition);
        bad |= msgpack_pack_map(&pk, 2) | key_text(&pk, "topic", p ? p->topic->name : "") | key_int(&pk, "partition", at->partition);
    }
    bad |= put_text(&pk, "offsets") | msgpack_pack_array(&pk, t->state.offset_count);
    for (uint32_t i = 0; i < t->state.offset_count; i++) {
        const bw_txn_offset *o = &t->state.offsets[i];
        bad |= msgpack_pack_map(&pk, 4) | key_text(&pk, "group", o->group) | key_text(&pk, "topic", o->topic);
        bad |= key_int(&pk, "partition", o->partition) | key_int(&pk, "offset", o->offset);
    }
    bw_doc_send(b, op, bad);
}

void bw_handle_abort_transaction(bw_broker *b, bw_op *op)
{
    bw_txn *t = named(b, op);
    if (!t) return;
    if (t->state.phase != BW_TXN_ONGOING || t->stage || t->storing) {
        bw_op_fail(op, bw_fail(BW_ERR_INVALID_TXN_STATE, "transactional id '%s' is in state %s: there is nothing to abort", t->id,
                               bw_txn_phase_name(t->state.phase)));
        return;
    }
    char id[600];
    bw_broker_event(b, BW_LOG_WARN, "transaction_aborted_by_hand", "id=%s session=%llu", bw_event_text(t->id, id, sizeof id),
                    (unsigned long long)op->session->number);
    bw_txn_begin_end(b, t, false, false, BW_TXN_RECOVER, op);
    bw_txn_run(b);
}

/* ---- producers of a partition: read by the worker ---- */

struct query {
    bw_producers *table;
    bool found;
    bw_producer_info info;
};

static void answer_error(bw_job *job)
{
    bw_error_set_message(job->error, job->message);
    bw_op_fail(job->op, job->error);
}

static void end_job(bw_job *job)
{
    struct query *q = job->data;
    bw_producers_free(q->table);
    free(q);
    bw_part_release(job->part);
    free(job);
}

static void submit(bw_broker *b, bw_op *op, int64_t id, void (*run)(bw_broker *, bw_job *), void (*done)(bw_broker *, bw_job *))
{
    bw_part *p;
    bw_err e = bw_part_of(b, op->request.topic, op->request.partition, false, &p);
    struct query *q = e ? NULL : calloc(1, sizeof *q);
    bw_job *job = q ? calloc(1, sizeof *job) : NULL;
    if (!e && !job) e = bw_fail(BW_ERR_NO_MEMORY, "no memory for a request");
    if (!e) {
        *job = (bw_job){.run = run, .done = done, .op = op, .part = p, .in = id, .data = q};
        atomic_fetch_add(&p->users, 1);
        e = bw_worker_submit(b, job);
        if (!e) return;
        bw_part_release(p);
    }
    free(job);
    free(q);
    bw_op_fail(op, e);
}

static void producers_run(bw_broker *b, bw_job *job)
{
    (void)b;
    struct query *q = job->data;
    bw_err e = bw_partition_producers(job->part->log, &q->table);
    if (e) bw_job_set_error(job, e);
}

struct pack {
    msgpack_packer pk;
    int bad;
};

static bool put_producer(void *opaque, const bw_producer_info *i)
{
    struct pack *p = opaque;
    p->bad |= msgpack_pack_map(&p->pk, 6) | key_int(&p->pk, "producer_id", i->id) | key_int(&p->pk, "epoch", i->epoch);
    p->bad |= key_int(&p->pk, "last_sequence", i->last_sequence) | key_int(&p->pk, "last_offset", i->last_offset);
    p->bad |= key_int(&p->pk, "transaction_start_offset", i->transaction) | key_int(&p->pk, "silent_ms", i->silent_ms);
    return true;
}

static void producers_done(bw_broker *b, bw_job *job)
{
    struct query *q = job->data;
    struct pack p;
    if (job->error) answer_error(job);
    else {
        bw_doc_begin(b, &p.pk);
        p.bad = msgpack_pack_array(&p.pk, bw_producers_count(q->table));
        bw_producers_each(q->table, false, bw_clock_mono_ms(), put_producer, &p);
        bw_doc_send(b, job->op, p.bad);
    }
    end_job(job);
}

void bw_handle_describe_producers(bw_broker *b, bw_op *op) { submit(b, op, -1, producers_run, producers_done); }

static void last_run(bw_broker *b, bw_job *job)
{
    (void)b;
    struct query *q = job->data;
    bw_err e = bw_partition_producer_last(job->part->log, job->in, &q->info);
    if (e && e != BW_ERR_NOT_FOUND) bw_job_set_error(job, e);
    q->found = !e;
}

static void last_done(bw_broker *b, bw_job *job)
{
    (void)b;
    struct query *q = job->data;
    bw_answer a;
    bw_answer_init(&a, &job->op->request);
    a.producer_id = job->in;
    if (q->found) {
        a.producer_epoch = q->info.epoch;
        a.sequence = q->info.last_sequence;
        a.offset = q->info.last_offset;
    }
    if (job->error) answer_error(job);
    else bw_op_finish(job->op, &a);
    end_job(job);
}

struct lookup {
    size_t len; /* of the name: others may begin with it */
    bool found;
    int64_t id;
};

static bool on_named(void *opaque, const void *key, size_t key_len, const void *value, size_t value_len)
{
    (void)key;
    struct lookup *l = opaque;
    l->found = key_len == l->len && value_len >= 9;
    if (l->found) l->id = (int64_t)bw_get_be64((const uint8_t *)value + 1);
    return false;
}

void bw_handle_producer_last(bw_broker *b, bw_op *op)
{
    bw_str name = op->request.producer_name;
    struct lookup l = {.len = name.len, .id = -1};
    bw_err e = name.len && name.len <= BW_META_NAME_MAX ? bw_store_each(b->store, BW_TABLE_PRODUCERS, name.data, name.len, on_named, &l)
                                                       : bw_fail(BW_ERR_INVALID_ARGUMENT, "a producer's name has 1 to %u bytes", BW_META_NAME_MAX);
    if (!e && !l.found)
        e = bw_fail(BW_ERR_UNKNOWN_PRODUCER_ID, "no producer was ever named '%.*s'", (int)(name.len < 60 ? name.len : 60), name.data);
    if (e) bw_op_fail(op, e);
    else submit(b, op, l.id, last_run, last_done);
}

/* ---- who may name the log's topic ---- */

bw_err bw_txn_check_request(const bw_op *op)
{
    const bw_request *r = &op->request;
    static const char name[] = BW_TXN_TOPIC;
    bool names = bw_str_is(r->topic, name), reads = r->type == BW_API_SUBSCRIBE || r->type == BW_API_LIST_OFFSETS || r->type == BW_API_METADATA ||
                 r->type == BW_API_DESCRIBE_TOPICS || r->type == BW_API_FETCH || r->type == BW_API_DETACH || r->type == BW_API_REPORT ||
                 (r->type == BW_API_ATTACH && !r->for_write);
    for (size_t i = 0; i < r->part_count && !names; i++) names = bw_str_is(r->parts[i].topic, name);
    if (!names || (reads && op->session->role == BW_ROLE_ADMIN)) return BW_OK;
    return bw_fail(BW_ERR_INVALID_TOPIC, "topic '%s' is the daemon's own: administrators may read it, nobody else may do anything with it", name);
}
