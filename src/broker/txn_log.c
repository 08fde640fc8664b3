/* broker/txn_log.c: the coordinator's log: records gather in a buffer and are appended as one batch; checkpoints.
 *
 * A checkpoint, begun when transaction.state.checkpoint.bytes were written: 1 the log's end is noted, and which partitions got
 * markers before it; 2 when
 * those are durable, the states that changed since the last one go to LMDB, with that end; 3 the log before it is deleted. A state that
 * is stored says of which offset it is, so that it may be newer than the checkpoint. Killed in between: the one before holds. */
#include "broker/txn_internal.h"

#include "base/killpoint.h"

#include <stdlib.h>

#define APPEND_PATIENCE_NS 500000
#define BUFFER_MOST (256u << 10)
#define CHECKPOINT_LOOK_MS 50

static bw_tail_slot *slot_of(const bw_part *p) { return &p->topic->control->slots[p->index]; }

static void on_retry(void *broker, bw_timer *timer)
{
    (void)timer;
    bw_broker *b = broker;
    for (uint32_t i = 0; i < b->parts_count; i++)
        if (b->parts[i] && b->parts[i]->log && b->parts[i]->txn_look) bw_txn_reconcile(b, b->parts[i]);
    bw_txn_run(b);
}

void bw_txn_retry_later(bw_broker *b)
{
    bw_txns *x = b->txns;
    x->retry.fire = on_retry;
    if (!x->retry.index) bw_timers_set(&b->timers, &x->retry, bw_deadline_in_ms(BW_TXN_RETRY_MS));
}

bw_err bw_txn_put(bw_broker *b, bw_txn *t, const bw_txn_record *r)
{
    bw_txns *x = b->txns;
    if (x->buffer.count > 0 && bw_batch_builder_size(&x->buffer) > BUFFER_MOST && !bw_txn_flush(b))
        return bw_fail(BW_ERR_CONCURRENT_TRANSACTIONS, "the log of transactions cannot be written now (%s); try again", bw_error_message());
    x->scratch.len = 0;
    bw_err e = bw_txn_record_encode(r, &x->scratch);
    if (!e) e = bw_buf_reserve(&x->buffer.buf, x->scratch.len + sizeof t->id + 64); /* so that what is applied is also written */
    if (!e) e = bw_txn_apply(&t->state, r);
    if (e) return e;
    bw_record record = {.key = t->id, .key_len = strlen(t->id), .value = x->scratch.data, .value_len = x->scratch.len, .timestamp_ms = r->at_ms};
    e = bw_batch_builder_add(&x->buffer, &record);
    t->dirty = true;
    return e;
}

static bw_err append(bw_broker *b, const uint8_t *data, size_t len, int32_t count, int64_t newest, bw_append_result *out)
{
    bw_part *p = b->txns->log;
    bw_appender *a;
    bw_err e = bw_part_appender(b, p, &a);
    if (!e) e = bw_append(a, data, len, count, newest, bw_clock_mono_ns() + APPEND_PATIENCE_NS, out);
    if (e != BW_ERR_FENCED) return e;
    bw_appender_close(p->appender);
    p->appender = NULL;
    e = bw_part_appender(b, p, &a);
    return e ? e : bw_append(a, data, len, count, newest, bw_clock_mono_ns() + APPEND_PATIENCE_NS, out);
}

bool bw_txn_unwritten(const bw_broker *b) { return b->txns && b->txns->buffer.count > 0; }

bool bw_txn_flush(bw_broker *b)
{
    bw_txns *x = b->txns;
    if (!x || x->buffer.count == 0) return true;
    bw_batch_options o = BW_BATCH_OPTIONS_INIT;
    uint8_t *data;
    size_t len;
    int32_t count = x->buffer.count;
    bw_append_result r;
    BW_KILL_POINT("txn.flushing");
    bw_err e = bw_batch_builder_finish(&x->buffer, &o, &data, &len);
    if (!e) e = append(b, data, len, count, x->buffer.max_timestamp, &r);
    if (e) {
        bw_txn_retry_later(b);
        return false;
    }
    BW_KILL_POINT("txn.flushed");
    bw_broker_again(b, x->log); /* who reads it */
    x->log_end = r.end;
    x->log_next = r.base_offset + count;
    x->log_bytes += len;
    bw_batch_builder_reset(&x->buffer);
    return true;
}

/* ---- checkpoints ---- */

size_t bw_txn_key(char out[BW_TXN_KEY_MAX], const char *what, const char *id)
{
    size_t n = strlen(what), m = strlen(id);
    memcpy(out, what, n);
    memcpy(out + n, id, m);
    return n + m;
}

bw_err bw_txn_store_put(bw_commit *c, const bw_txn *t)
{
    char key[BW_TXN_KEY_MAX];
    bw_buf value = {0};
    bw_err e = bw_txn_state_encode(&t->state, &value);
    if (!e) e = bw_commit_put(c, BW_TABLE_TRANSACTIONS, key, bw_txn_key(key, "id:", t->id), value.data, value.len);
    bw_buf_free(&value);
    return e;
}

void bw_txn_touch(bw_txns *x, const bw_part *p, bw_position end)
{
    for (size_t i = 0; i < x->touched_count; i++) {
        bw_txn_touched *at = &x->touched[i];
        if (at->partition != p->index || !bw_uuid_equal(&at->topic, &p->topic->id)) continue;
        if (end > at->end) at->end = end;
        return;
    }
    if (x->touched_count == x->touched_cap) {
        size_t cap = x->touched_cap ? x->touched_cap * 2 : 64;
        bw_txn_touched *grown = realloc(x->touched, cap * sizeof *grown);
        if (!grown) { /* not known any more: no checkpoint of what is now */
            x->log_bytes = 0;
            return;
        }
        x->touched = grown;
        x->touched_cap = cap;
    }
    x->touched[x->touched_count++] = (bw_txn_touched){p->topic->id, p->index, end};
}

/* true: what was appended there before the checkpoint is on the disk, or its partition is gone. */
static bool is_durable(bw_broker *b, bw_txn_touched *at)
{
    bw_part *p = bw_txn_topic_part(b, &at->topic, at->partition);
    if (!p) return true;
    bw_tail_slot *s = slot_of(p);
    if (!p->log) { /* what is open in it is looked at when it is opened */
        if (atomic_load(&p->stage) != BW_PART_UNOPENED) return true;
        bw_opener_want(b, p);
        return false;
    }
    if (at->end == 0) at->end = atomic_load_explicit(&s->tail, memory_order_acquire);
    if (atomic_load_explicit(&s->durable, memory_order_acquire) >= at->end) return true;
    if (atomic_load_explicit(&s->state, memory_order_acquire) != BW_SLOT_OPEN) return true; /* it is looked through when it is opened again */
    bw_position_raise(&s->sync_request, at->end);
    bw_syncer_want(b, p);
    return false;
}

static void delete_run(bw_broker *b, bw_job *job)
{
    (void)b;
    bw_err e = bw_partition_delete_records(job->part->log, job->in, &job->out[0]);
    if (e) bw_job_set_error(job, e);
}

static void delete_done(bw_broker *b, bw_job *job)
{
    (void)b;
    bw_part_release(job->part);
    free(job);
}

static void delete_before(bw_broker *b, int64_t offset)
{
    bw_job *job = calloc(1, sizeof *job);
    if (!job) return; /* the next one does it */
    *job = (bw_job){.run = delete_run, .done = delete_done, .part = b->txns->log, .in = offset};
    atomic_fetch_add(&job->part->users, 1);
    if (!bw_worker_submit(b, job)) return;
    bw_part_release(job->part);
    free(job);
}

static void checkpoint_stored(bw_broker *b, bw_commit *c, bw_err e)
{
    bw_txns *x = b->txns;
    bw_commit_fini(c);
    free(c);
    x->checkpointing = x->checkpoint_stored = false;
    if (e) {
        bw_broker_event(b, BW_LOG_ERROR, "transactions_not_saved", "error=%s", bw_err_name(e));
        bw_txn *t, *tmp;
        HASH_ITER(by_id, x->by_id, t, tmp) t->dirty = true;
        return;
    }
    BW_KILL_POINT("txn.checkpoint");
    if (!b->draining) delete_before(b, x->checkpoint_offset); /* the worker has ended: the next checkpoint does it */
}

/* Ids that nobody has used for long go with the checkpoint. Should it fail they are back after the next start. */
static bw_err drop_expired(bw_broker *b, bw_commit *c)
{
    bw_txns *x = b->txns;
    int64_t before = bw_clock_wall_ms() - b->config.transactional_id_expiration_ms;
    bw_err e = BW_OK;
    char key[BW_TXN_KEY_MAX];
    bw_txn *t, *tmp;
    HASH_ITER(by_id, x->by_id, t, tmp)
    {
        bool idle = t->state.phase != BW_TXN_ONGOING && !bw_txn_is_prepared(&t->state) && !t->stage && !t->storing;
        if (e || !idle || t->gathered || t->state.changed_ms >= before) continue;
        e = bw_commit_remove(c, BW_TABLE_TRANSACTIONS, key, bw_txn_key(key, "id:", t->id));
        if (!e) e = bw_commit_remove(c, BW_TABLE_TRANSACTIONS, key, bw_txn_key(key, "done:", t->id));
        if (!e) bw_txn_free(b, t);
    }
    return e;
}

static void store_checkpoint(bw_broker *b)
{
    bw_txns *x = b->txns;
    bw_commit *c = calloc(1, sizeof *c);
    uint8_t value[9] = {1};
    bw_put_be64(value + 1, (uint64_t)x->checkpoint_offset);
    bw_err e = c ? bw_commit_put(c, BW_TABLE_TRANSACTIONS, "log", 3, value, sizeof value) : BW_ERR_NO_MEMORY;
    if (!e) e = drop_expired(b, c);
    bw_txn *t, *tmp;
    HASH_ITER(by_id, x->by_id, t, tmp)
    {
        if (e || !t->dirty || t->storing || t->state.producer_id < 0) continue;
        t->state.log_offset = x->log_next;
        e = bw_txn_store_put(c, t);
    }
    if (!e) {
        c->done = checkpoint_stored;
        e = bw_committer_submit(b, c);
    }
    if (e) {
        if (c) bw_commit_fini(c);
        free(c);
        x->checkpointing = false;
        return;
    }
    x->checkpoint_stored = true;
    HASH_ITER(by_id, x->by_id, t, tmp)
    {
        if (!t->storing) t->dirty = false;
    }
}

/* Called at the end of each run: the buffer is empty, or it is not the time. */
void bw_txn_checkpoint_look(bw_broker *b)
{
    bw_txns *x = b->txns;
    if (!x->checkpointing) {
        if (x->log_bytes < (uint64_t)b->config.transaction_checkpoint_bytes || x->buffer.count) return;
        free(x->awaited);
        x->awaited = x->touched;
        x->awaited_count = x->touched_count;
        x->touched = NULL;
        x->touched_count = x->touched_cap = 0;
        x->checkpointing = true;
        x->checkpoint_offset = x->log_next;
        x->log_bytes = 0;
    }
    if (x->checkpoint_stored || x->buffer.count) return;
    while (x->awaited_count && is_durable(b, &x->awaited[x->awaited_count - 1])) x->awaited_count--;
    if (x->awaited_count == 0) store_checkpoint(b);
    else if (!x->retry.index) {
        x->retry.fire = on_retry;
        bw_timers_set(&b->timers, &x->retry, bw_deadline_in_ms(CHECKPOINT_LOOK_MS));
    }
}
