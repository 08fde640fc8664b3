/* broker/txn.c: transactional ids: INIT_PRODUCER_ID, what joins a transaction, time-outs. The end is in txn_end.c. */
#include "broker/txn_internal.h"

#include "base/killpoint.h"
#include "broker/groups.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- the table ---- */

bw_txn *bw_txn_find(const bw_txns *x, bw_str id)
{
    bw_txn *t = NULL;
    if (x && id.len) HASH_FIND(by_id, x->by_id, id.data, id.len, t);
    return t;
}

bw_txn *bw_txn_by_producer(const bw_txns *x, int64_t producer_id)
{
    bw_txn *t = NULL;
    if (x) HASH_FIND(by_producer, x->by_producer, &producer_id, sizeof producer_id, t);
    return t;
}

bw_err bw_txn_new(bw_broker *b, bw_str id, bw_txn **out)
{
    bw_txns *x = b->txns;
    if (id.len == 0 || id.len > BW_TXN_ID_MAX || memchr(id.data, 0, id.len))
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "a transactional id has 1 to %u bytes, none of them 0", BW_TXN_ID_MAX);
    if (HASH_CNT(by_id, x->by_id) >= BW_TXN_IDS_MAX)
        return bw_fail(BW_ERR_LIMIT_REACHED, "there are %d transactional ids already; give each program one that it keeps", BW_TXN_IDS_MAX);
    bw_txn *t = calloc(1, sizeof *t);
    if (!t) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a transactional id");
    t->broker = b;
    t->state.producer_id = -1;
    t->state.epoch = t->state.epoch_before = -1;
    memcpy(t->id, id.data, id.len);
    HASH_ADD_KEYPTR(by_id, x->by_id, t->id, id.len, t);
    if (t->not_hashed) {
        free(t);
        return bw_fail(BW_ERR_NO_MEMORY, "no memory for a transactional id");
    }
    *out = t;
    return BW_OK;
}

void bw_txn_index_producer(bw_txns *x, bw_txn *t)
{
    HASH_ADD(by_producer, x->by_producer, state.producer_id, sizeof t->state.producer_id, t);
}

void bw_txn_free(bw_broker *b, bw_txn *t)
{
    bw_txns *x = b->txns;
    if (bw_txn_by_producer(x, t->state.producer_id) == t) HASH_DELETE(by_producer, x->by_producer, t);
    HASH_DELETE(by_id, x->by_id, t);
    bw_timers_clear(&b->timers, &t->timer);
    bw_txn_state_fini(&t->state);
    free(t->needs);
    free(t);
}

bw_part *bw_txn_topic_part(bw_broker *b, const bw_uuid *topic, uint32_t partition)
{
    bw_topic *t = NULL;
    HASH_FIND(by_id, b->topics_by_id, topic->b, 16, t);
    return t && !t->deleting && partition < t->part_count ? t->parts[partition] : NULL;
}

/* ---- the coordinator itself ---- */

static bw_err make_log(bw_broker *b)
{
    static const char *const configs[][2] = {{"retention.ms", "-1"}, {"segment.bytes", "16777216"}, {"compression.type", "producer"}};
    bw_config_pair pairs[3];
    for (int i = 0; i < 3; i++) pairs[i] = (bw_config_pair){bw_str_of(configs[i][0]), bw_str_of(configs[i][1]), true};
    bw_topic *t;
    bw_err e = bw_topic_create_new(b, bw_str_of(BW_TXN_TOPIC), 1, pairs, 3, &t);
    if (e) return bw_error_context(e, "transactions cannot begin");
    b->txns->log = t->parts[0];
    return BW_OK;
}

bw_err bw_txns_need(bw_broker *b)
{
    if (!b->ready) return bw_fail(BW_ERR_BUSY, "%s", b->not_ready);
    if (!b->txns && !(b->txns = calloc(1, sizeof *b->txns))) return bw_fail(BW_ERR_NO_MEMORY, "no memory for transactions");
    bw_txns *x = b->txns;
    if (x->ready) return BW_OK;
    if (x->loading) return bw_fail(BW_ERR_CONCURRENT_TRANSACTIONS, "the daemon is reading what was decided before its start; try again");
    if (x->why[0]) return bw_fail(BW_ERR_IO, "transactions are not possible: %s", x->why);
    bw_err e = make_log(b);
    if (e) return e;
    bw_batch_builder_init(&x->buffer);
    x->ready = true;
    return BW_OK;
}

bw_err bw_txns_start(bw_broker *b)
{
    bw_topic *t = bw_topic_find(b, bw_str_of(BW_TXN_TOPIC));
    if (!t || b->txns) return BW_OK;
    bw_txns *x = b->txns = calloc(1, sizeof *x);
    if (!x) return bw_fail(BW_ERR_NO_MEMORY, "no memory for transactions");
    bw_batch_builder_init(&x->buffer);
    x->log = t->parts[0];
    x->loading = true;
    bw_txn_load(b);
    return BW_OK;
}

void bw_txns_stop(bw_broker *b)
{
    bw_txns *x = b->txns;
    if (!x) return;
    bw_txn_flush(b);
    bw_txn *t, *tmp;
    HASH_ITER(by_id, x->by_id, t, tmp)
    {
        if (t->op) bw_op_finish(t->op, NULL);
        bw_txn_free(b, t);
    }
    while (x->gathered) {
        bw_op *op = x->gathered;
        x->gathered = op->next;
        bw_op_finish(op, NULL);
    }
    bw_timers_clear(&b->timers, &x->retry);
    bw_timers_clear(&b->timers, &x->load_timer);
    bw_batch_builder_fini(&x->buffer);
    bw_buf_free(&x->scratch);
    free(x->marks);
    free(x->decisions);
    free(x->touched);
    free(x->awaited);
    free(x);
    b->txns = NULL;
}

/* ---- INIT_PRODUCER_ID ---- */

static void answer_id(bw_op *op, int64_t id, int16_t epoch)
{
    bw_answer a;
    bw_answer_init(&a, &op->request);
    a.producer_id = id;
    a.producer_epoch = epoch;
    bw_op_finish(op, &a);
}

typedef struct init_commit {
    bw_commit commit;
    bw_txn *txn;
    bw_op *op;
} init_commit;

static void init_stored(bw_broker *b, bw_commit *commit, bw_err e)
{
    init_commit *c = (init_commit *)(void *)commit; /* its first member */
    bw_txn *t = c->txn;
    t->storing = false;
    t->dirty |= e != BW_OK;
    BW_KILL_POINT("txn.init_stored");
    if (b->draining) bw_op_finish(c->op, NULL);
    else if (e) bw_op_fail(c->op, e);
    else answer_id(c->op, t->state.producer_id, t->state.epoch);
    bw_commit_fini(commit);
    free(c);
}

static bw_err raise(bw_broker *b, bw_txn *t, int16_t asked)
{
    bw_txns *x = b->txns;
    if (t->state.producer_id >= 0 && bw_txn_state_raise(&t->state, asked)) return BW_OK;
    int64_t id;
    bw_err e = bw_store_producer_id(b->store, &id);
    if (e) return e;
    if (bw_txn_by_producer(x, t->state.producer_id) == t) HASH_DELETE(by_producer, x->by_producer, t);
    t->state.producer_id = id;
    t->state.epoch = 0;
    t->state.epoch_before = -1;
    t->state.phase = BW_TXN_EMPTY;
    bw_txn_index_producer(x, t);
    return BW_OK;
}

/* The raised epoch goes to the disk before anybody learns of it. After a failure it is merely higher than it had to be. */
static bw_err store_init(bw_broker *b, bw_txn *t, bw_op *op)
{
    init_commit *c = calloc(1, sizeof *c);
    if (!c) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a transactional id");
    bw_err e = bw_txn_flush(b) ? raise(b, t, op->request.txn.producer_epoch) : BW_ERR_CONCURRENT_TRANSACTIONS;
    if (!e) {
        *c = (init_commit){.txn = t, .op = op};
        c->commit.done = init_stored;
        t->state.timeout_ms = op->request.txn.timeout_ms;
        t->state.changed_ms = bw_clock_wall_ms();
        t->state.log_offset = b->txns->log_next;
        e = bw_txn_store_put(&c->commit, t);
        if (!e) e = bw_committer_submit(b, &c->commit);
    }
    if (e) {
        bw_commit_fini(&c->commit);
        free(c);
        return e;
    }
    t->storing = true;
    return BW_OK;
}

/* *waits: the op is in good hands. */
static bw_err init_transactional(bw_broker *b, bw_op *op, bool *waits)
{
    const bw_txn_request *r = &op->request.txn;
    bw_txn *t;
    bw_err e = bw_txns_need(b);
    if (e) return e;
    if (r->timeout_ms < 1 || r->timeout_ms > b->config.transaction_max_timeout_ms)
        return bw_fail(BW_ERR_INVALID_TRANSACTION_TIMEOUT, "transaction time-out of %d ms; allowed: 1 to %lld (transaction.max.timeout.ms)",
                       r->timeout_ms, (long long)b->config.transaction_max_timeout_ms);
    t = bw_txn_find(b->txns, r->id);
    if (!t && r->producer_id >= 0)
        return bw_fail(BW_ERR_INVALID_PRODUCER_ID_MAPPING, "transactional id '%.*s' is not known; initialise it without a producer id",
                       (int)(r->id.len < 60 ? r->id.len : 60), r->id.data);
    if (!t && (e = bw_txn_new(b, r->id, &t))) return e;
    if (t->storing || t->stage)
        return bw_fail(BW_ERR_CONCURRENT_TRANSACTIONS, "transactional id '%s': a request before this one is being carried out; try again", t->id);
    switch (bw_txn_state_init(&t->state, t->id, r->producer_id, r->producer_epoch, &e)) {
    case BW_TXN_INIT_REFUSED: return e;
    case BW_TXN_INIT_REPEAT:
        answer_id(op, t->state.producer_id, t->state.epoch);
        *waits = true;
        return BW_OK;
    case BW_TXN_INIT_ABORT_FIRST:
        *waits = true;
        bw_txn_begin_end(b, t, false, false, r->producer_id < 0 ? BW_TXN_FENCE : BW_TXN_RECOVER, op);
        bw_txn_run(b);
        return BW_OK;
    default: break;
    }
    e = store_init(b, t, op);
    *waits = !e;
    if (e && t->state.producer_id < 0) bw_txn_free(b, t);
    return e;
}

void bw_handle_init_producer(bw_broker *b, bw_op *op)
{
    const bw_request *r = &op->request;
    bool waits = false;
    int64_t id = -1;
    int16_t epoch = 0;
    bw_err e;
    if (r->txn.id.len) e = init_transactional(b, op, &waits);
    else if (r->producer_name.len) e = bw_store_producer_named(b->store, r->producer_name.data, r->producer_name.len, &id, &epoch);
    else e = bw_store_producer_id(b->store, &id);
    if (waits) return;
    if (e) bw_op_fail(op, e);
    else answer_id(op, id, epoch);
}

/* ---- what joins a transaction ---- */

static void on_timeout(void *broker, bw_timer *timer)
{
    bw_broker *b = broker;
    bw_txn *t = (bw_txn *)(void *)((char *)timer - offsetof(bw_txn, timer));
    if (t->state.phase != BW_TXN_ONGOING || t->stage) return;
    char id[600];
    bw_broker_event(b, BW_LOG_WARN, "transaction_timed_out", "id=%s timeout_ms=%d partitions=%u",
                    bw_event_text(t->id, id, sizeof id), t->state.timeout_ms, t->state.part_count);
    b->txns->timeouts++;
    bw_txn_begin_end(b, t, false, false, BW_TXN_RECOVER, NULL);
    bw_txn_run(b);
}

/* A wall clock that jumped cannot make it longer than the time-out. */
void bw_txn_arm_timeout(bw_broker *b, bw_txn *t)
{
    int64_t since = bw_clock_wall_ms() - t->state.began_ms, left = t->state.timeout_ms - (since < 0 ? 0 : since);
    t->timer.fire = on_timeout;
    bw_timers_set(&b->timers, &t->timer, bw_deadline_in_ms((int32_t)(left < 0 ? 0 : left)));
}

static bw_txn_record record_of(const bw_txn *t, bw_txn_kind kind)
{
    return (bw_txn_record){.kind = kind, .producer_id = t->state.producer_id, .epoch = t->state.epoch, .at_ms = bw_clock_wall_ms()};
}

/* The id's entry, if this producer may write in a transaction of it now. */
static bw_err may_write(bw_broker *b, bw_txn *t, int64_t producer_id, int16_t epoch)
{
    if (!t) {
        if (b->txns && b->txns->loading) return bw_txns_need(b);
        return bw_fail(BW_ERR_INVALID_PRODUCER_ID_MAPPING, "producer id %lld has no transactional id; call bw_transactions_init",
                       (long long)producer_id);
    }
    bw_err e = bw_txn_state_may_write(&t->state, t->id, producer_id, epoch);
    if (!e && (t->stage || t->storing))
        e = bw_fail(BW_ERR_CONCURRENT_TRANSACTIONS, "transactional id '%s': its transaction is being ended; try again", t->id);
    return e;
}

static bw_err join(bw_broker *b, bw_txn *t, const bw_txn_record *r)
{
    bool fresh = t->state.phase != BW_TXN_ONGOING;
    bw_err e = bw_txn_put(b, t, r);
    if (e || !fresh) return e;
    t->records = 0;
    bw_txn_arm_timeout(b, t);
    return BW_OK;
}

bw_err bw_txn_admit(bw_broker *b, bw_part *p, int64_t producer_id, int16_t epoch)
{
    bw_txn *t = bw_txn_by_producer(b->txns, producer_id);
    bw_err e = may_write(b, t, producer_id, epoch);
    if (e) return e;
    if (t->state.phase == BW_TXN_ONGOING && bw_txn_has_part(&t->state, &p->topic->id, p->index)) return BW_OK;
    bw_txn_part part = {.topic = p->topic->id, .partition = p->index, .end = -1};
    bw_txn_record r = record_of(t, BW_TXN_ADD);
    r.parts = &part;
    r.part_count = 1;
    return join(b, t, &r);
}

void bw_txn_count(bw_broker *b, int64_t producer_id, int32_t records)
{
    bw_txn *t = bw_txn_by_producer(b->txns, producer_id);
    if (t) t->records += records;
}

/* ---- TXN_OFFSET_COMMIT ---- */

static char *text_of(bw_str s) { return s.len ? bw_text_copy(s.data, s.len) : strdup(""); }

/* One partition's offset into the record, or its error into the answer. */
static bw_err take_offset(bw_broker *b, const bw_request *r, const bw_offset_part *in, bw_txn_record *record)
{
    bw_part *p;
    bw_err e = bw_part_of(b, in->topic, in->partition, false, &p);
    bw_offset_put put = {.part = p, .offset = in->offset, .leader_epoch = in->leader_epoch, .metadata = in->metadata};
    if (!e && in->offset < 0) e = bw_fail(BW_ERR_INVALID_COMMIT_OFFSET, "offset %lld of topic '%s'", (long long)in->offset, p->topic->name);
    if (!e) e = bw_offsets_check(b, &put);
    if (e) return e;
    bw_txn_offset *o = &record->offsets[record->offset_count++];
    *o = (bw_txn_offset){.group = text_of(r->group.id), .topic = text_of(in->topic), .metadata = text_of(in->metadata),
                         .topic_id = p->topic->id, .partition = p->index, .offset = in->offset, .leader_epoch = in->leader_epoch,
                         .member = text_of(r->group.member), .instance = text_of(r->group.instance), .member_epoch = r->group.epoch};
    return o->group && o->topic && o->metadata && o->member && o->instance ? BW_OK : bw_fail(BW_ERR_NO_MEMORY, "no memory for offsets");
}

static bw_err take_offsets(bw_broker *b, bw_txn *t, const bw_request *r, bw_answer *a, bw_txn_record *record)
{
    *record = record_of(t, BW_TXN_OFFSETS);
    record->offsets = calloc(r->group.part_count + 1, sizeof *record->offsets);
    a->group.parts = calloc(r->group.part_count + 1, sizeof *a->group.parts);
    if (!record->offsets || !a->group.parts) return bw_fail(BW_ERR_NO_MEMORY, "no memory for offsets");
    bw_err first = BW_OK;
    for (size_t i = 0; i < r->group.part_count; i++) {
        bw_offset_part *out = &a->group.parts[a->group.part_count++];
        *out = (bw_offset_part){.topic = r->group.parts[i].topic, .partition = r->group.parts[i].partition, .offset = -1, .leader_epoch = -1,
                                .timestamp = -1};
        out->error = (int32_t)take_offset(b, r, &r->group.parts[i], record);
        if (out->error && !first) first = (bw_err)out->error;
    }
    return first; /* one that is not taken: none is: a transaction is whole */
}

void bw_handle_txn_offset_commit(bw_broker *b, bw_op *op)
{
    const bw_request *r = &op->request;
    bw_txn *t = bw_txn_find(b->txns, r->txn.id);
    bw_txn_record record = {.kind = BW_TXN_OFFSETS};
    bw_answer a;
    bw_answer_init(&a, r);
    bw_err e = may_write(b, t, r->txn.producer_id, r->txn.producer_epoch);
    if (!e) e = bw_group_id_check(r->group.id);
    for (size_t i = 0; !e && i < r->group.part_count; i++)
        e = bw_groups_may_commit(b, r->group.id, r->group.member, r->group.instance, r->group.epoch, r->group.parts[i].topic,
                                 r->group.parts[i].partition);
    if (!e) e = take_offsets(b, t, r, &a, &record);
    if (!e) e = join(b, t, &record);
    if (!e && !bw_txn_flush(b))
        e = bw_fail(BW_ERR_CONCURRENT_TRANSACTIONS, "the log of transactions cannot be written now (%s); try again", bw_error_message());
    BW_KILL_POINT("txn.offsets_taken");
    bw_txn_record_fini(&record);
    if (e) bw_op_fail(op, e);
    else bw_op_reply(op, &a);
    bw_answer_fini(&a);
    if (!e) bw_op_finish(op, NULL);
}

/* ---- the end ---- */

void bw_handle_end_txn(bw_broker *b, bw_op *op)
{
    bw_err e = bw_txns_need(b);
    if (e) {
        bw_op_fail(op, e);
        return;
    }
    bw_txns *x = b->txns;
    bw_txn *t = bw_txn_find(x, op->request.txn.id);
    if (t) t->gathered = true;
    op->next = NULL;
    if (x->gathered) x->gathered_last->next = op;
    else x->gathered = op;
    x->gathered_last = op;
}

bool bw_txn_is_ending(const bw_broker *b, int64_t producer_id)
{
    const bw_txn *t = bw_txn_by_producer(b->txns, producer_id);
    return t && t->gathered;
}

bool bw_txn_gathered(const bw_broker *b) { return b->txns && b->txns->gathered; }

/* Who read must still be who reads: the partition's next owner has begun at the committed offset, without this transaction. */
static bw_err check_readers(bw_broker *b, const bw_txn *t)
{
    bw_err e = BW_OK;
    for (uint32_t i = 0; i < t->state.offset_count && !e; i++) {
        const bw_txn_offset *o = &t->state.offsets[i];
        e = bw_groups_may_commit(b, bw_str_of(o->group), bw_str_of(o->member), bw_str_of(o->instance), o->member_epoch, bw_str_of(o->topic),
                                 (int32_t)o->partition);
    }
    return e;
}

static void end_one(bw_broker *b, bw_op *op)
{
    const bw_txn_request *r = &op->request.txn;
    bw_txn *t = bw_txn_find(b->txns, r->id);
    bw_err e = BW_OK;
    if (t) t->gathered = false;
    if (!t)
        e = bw_fail(BW_ERR_TRANSACTIONAL_ID_NOT_FOUND, "transactional id '%.*s' is not known; call bw_transactions_init",
                    (int)(r->id.len < 60 ? r->id.len : 60), r->id.data);
    else if (t->stage || t->storing)
        e = bw_fail(BW_ERR_CONCURRENT_TRANSACTIONS, "transactional id '%s': a request before this one is being carried out; try again", t->id);
    bw_txn_end_outcome o = e ? BW_TXN_END_REFUSED
                             : bw_txn_state_end(&t->state, t->id, r->producer_id, r->producer_epoch, r->commit, r->records >= 0, &e);
    if (o == BW_TXN_END_DECIDE && r->records >= 0 && r->records != t->records) {
        e = bw_fail(BW_ERR_CONCURRENT_TRANSACTIONS, "transactional id '%s': %lld records are in the transaction, %lld were sent; see what became "
                    "of them", t->id, (long long)t->records, (long long)r->records);
        o = BW_TXN_END_REFUSED;
    }
    if (o == BW_TXN_END_DECIDE && r->commit && (e = check_readers(b, t)) != BW_OK) o = BW_TXN_END_REFUSED;
    if (o == BW_TXN_END_DECIDE) bw_txn_begin_end(b, t, r->commit, r->durable, BW_TXN_KEEP, op);
    else if (o == BW_TXN_END_REPEAT) bw_op_ok(op);
    else bw_op_fail(op, e);
}

void bw_txn_end_gathered(bw_broker *b)
{
    bw_txns *x = b->txns;
    bw_op *op = x->gathered;
    x->gathered = x->gathered_last = NULL;
    while (op) {
        bw_op *next = op->next;
        end_one(b, op);
        op = next;
    }
    bw_txn_run(b);
}

void bw_txn_ended(bw_broker *b, bw_txn *t, bw_op *op)
{
    (void)t;
    if (!op) return;
    if (op->session->closed || b->draining) bw_op_finish(op, NULL);
    else if (op->request.type == BW_API_INIT_PRODUCER_ID) bw_handle_init_producer(b, op);
    else bw_op_ok(op);
}
