/* broker/link_merge.c: the version vector of a merged partition: read at the first need, stored now and then (links.h says why that is
 * enough).
 *
 * Reading: what was stored, then every batch of the log from `valid` on that a merge has written, by the worker. A stored vector that is
 * ahead of the log (which was cut, or restored from a copy) is not used, and all of the log is read.
 * Storing: a copy is taken, and put into the store when the log is on the disk up to its `valid`. */
#include "broker/links.h"

#include "base/killpoint.h"
#include "broker/committer.h"
#include "format/batch_filter.h"

#include <busway/consumer.h>

#include <stdlib.h>

enum { SAVE_MS = 1000, BLOB_MAX = 13 + BW_VECTOR_MAX * BW_VECTOR_ENTRY_BYTES };

static void merge_key(const bw_part *p, uint8_t key[20])
{
    memcpy(key, p->topic->id.b, 16);
    bw_put_be32(key + 16, p->index);
}

/* ---- reading ---- */

struct loading {
    bw_job job;
    bw_vector vector;
};

static bool take_vector(void *opaque, const void *key, size_t key_len, const void *value, size_t value_len)
{
    bw_vector *v = opaque;
    (void)key;
    if (key_len != 20) return true;
    if (value_len > BLOB_MAX || bw_vector_decode(value, value_len, v) != BW_OK) *v = (bw_vector){0};
    return false;
}

static bw_err walk(bw_broker *b, bw_part *p, bw_vector *v)
{
    bw_reader *r;
    bw_batch_ref ref;
    bw_buf plain = {0};
    int64_t log_start, end, durable;
    bw_part_range(p, &log_start, &end, &durable);
    if (v->valid > end) bw_vector_free(v);
    if (v->valid < log_start) v->valid = log_start;
    if (v->valid >= end) return BW_OK;
    bw_err e = bw_part_open_reader(b, p, BW_LIMIT_ALL, false, &r);
    if (e) return e;
    bw_reader_seek(r, v->valid);
    while (!e && v->valid < end) {
        if ((e = bw_reader_next(r, &ref))) break;
        if (ref.header.base_sequence == BW_MERGE_SEQUENCE && ref.header.producer_id < 0)
            e = bw_merge_note(ref.data, &ref.header, b->config.socket_request_max_bytes, &plain, v);
        if (!e) v->valid = bw_batch_last_offset(&ref.header) + 1;
    }
    bw_buf_free(&plain);
    bw_reader_close(r);
    return e == BW_ERR_EMPTY ? BW_OK : e;
}

static void load_run(bw_broker *b, bw_job *job)
{
    struct loading *l = (struct loading *)(void *)job;
    uint8_t key[20];
    merge_key(job->part, key);
    bw_err e = bw_store_each(b->store, BW_TABLE_MERGES, key, sizeof key, take_vector, &l->vector);
    if (!e) e = walk(b, job->part, &l->vector);
    BW_KILL_POINT("merge.loaded");
    if (e) bw_job_set_error(job, e);
}

static void load_done(bw_broker *b, bw_job *job)
{
    struct loading *l = (struct loading *)(void *)job;
    bw_part *p = job->part;
    struct bw_merge *m = bw_part_by_number(b, p->bus_number) == p ? p->merge : NULL;
    if (m) {
        m->loading = false;
        m->error = job->error;
        m->loaded = !job->error;
        bw_vector_free(&m->vector);
        m->vector = l->vector;
        if (job->error) {
            char why[600];
            bw_broker_event(b, BW_LOG_ERROR, "merge_not_read", "topic=%s partition=%u reason=%s", p->topic->name, p->index,
                            bw_event_text(job->message, why, sizeof why));
        }
    } else bw_vector_free(&l->vector);
    bw_part_release(p);
    free(l);
}

struct bw_merge *bw_merge_ready(bw_broker *b, bw_part *p, bw_err *e)
{
    *e = BW_OK;
    struct bw_merge *m = p->merge;
    if (!m && !(m = p->merge = calloc(1, sizeof *m))) *e = bw_fail(BW_ERR_NO_MEMORY, "no memory for a version vector");
    if (*e) return NULL;
    m->part = p;
    if (m->loaded) return m;
    if (m->loading) return NULL;
    if (m->error) { /* said once; the next who comes tries again */
        *e = bw_fail(m->error, "topic '%s' partition %u: which records it has can't be read from it; see the daemon's log", p->topic->name,
                     p->index);
        m->error = BW_OK;
        return NULL;
    }
    struct loading *l = calloc(1, sizeof *l);
    if (!l) *e = bw_fail(BW_ERR_NO_MEMORY, "no memory to read a version vector");
    if (*e) return NULL;
    l->job = (bw_job){.run = load_run, .done = load_done, .part = p};
    atomic_fetch_add(&p->users, 1);
    if ((*e = bw_worker_submit(b, &l->job))) {
        bw_part_release(p);
        free(l);
    } else m->loading = true;
    return NULL;
}

void bw_merge_spoil(struct bw_merge *m)
{
    m->loaded = m->dirty = false;
    bw_vector_free(&m->saving);
}

/* ---- storing ---- */

static void stored(bw_broker *b, bw_commit *c, bw_err e)
{
    (void)b, (void)e; /* a store that fails says so itself; the log has it all */
    bw_commit_fini(c);
    free(c);
}

static bw_err store(bw_broker *b, const bw_part *p, const bw_vector *v)
{
    uint8_t key[20];
    bw_buf value = {0};
    bw_commit *c = calloc(1, sizeof *c);
    if (!c) return bw_fail(BW_ERR_NO_MEMORY, "no memory to store a version vector");
    c->done = stored;
    merge_key(p, key);
    bw_err e = bw_vector_encode(v, &value);
    if (!e) e = bw_commit_put(c, BW_TABLE_MERGES, key, sizeof key, value.data, value.len);
    bw_buf_free(&value);
    BW_KILL_POINT("merge.storing");
    if (!e) e = bw_committer_submit(b, c);
    if (e) {
        bw_commit_fini(c);
        free(c);
    }
    return e;
}

static void on_save(void *broker, bw_timer *timer)
{
    bw_broker *b = broker;
    struct bw_merge *m = (struct bw_merge *)(void *)((char *)timer - offsetof(struct bw_merge, save));
    int64_t log_start, end, durable;
    bw_part_range(m->part, &log_start, &end, &durable);
    if (m->saving.valid && m->saving.valid <= durable) {
        (void)store(b, m->part, &m->saving);
        bw_vector_free(&m->saving);
    }
    if (m->dirty && m->loaded && !m->saving.valid && bw_vector_copy(&m->vector, &m->saving) == BW_OK) m->dirty = false;
    if (m->saving.valid || m->dirty) bw_timers_set(&b->timers, &m->save, bw_deadline_in_ms(SAVE_MS));
}

void bw_merge_changed(bw_broker *b, struct bw_merge *m)
{
    m->dirty = true;
    m->save.fire = on_save;
    if (!m->save.index) bw_timers_set(&b->timers, &m->save, bw_deadline_in_ms(SAVE_MS));
}

void bw_merge_free(bw_broker *b, bw_part *p)
{
    struct bw_merge *m = p->merge;
    p->merge = NULL;
    if (!m) return;
    bw_timers_clear(&b->timers, &m->save);
    bw_vector_free(&m->vector);
    bw_vector_free(&m->saving);
    free(m);
}
