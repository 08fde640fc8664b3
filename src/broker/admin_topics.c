/* broker/admin_topics.c: requests about topics: metadata, create, delete, alter, offsets, delete records. */
#include "broker/links.h"

#include <stdlib.h>

static void finish(bw_op *op, bw_err e)
{
    if (e) bw_op_fail(op, e);
    else bw_op_ok(op);
}

void bw_handle_create_topic(bw_broker *b, bw_op *op)
{
    const bw_request *r = &op->request;
    bw_topic *t;
    finish(op, bw_topic_create_new(b, r->topic, r->partitions, r->configs, r->config_count, &t));
}

void bw_handle_delete_topic(bw_broker *b, bw_op *op)
{
    bw_topic *t;
    bw_err e = bw_topic_of(b, op->request.topic, false, &t);
    if (!e) e = bw_topic_delete_start(b, t, op);
    if (e) bw_op_fail(op, e); /* else the job answers */
}

void bw_handle_alter_topic(bw_broker *b, bw_op *op)
{
    const bw_request *r = &op->request;
    bw_topic *t;
    bw_err e = bw_topic_of(b, r->topic, false, &t);
    if (!e) e = bw_topic_alter_config(b, t, r->partitions, r->configs, r->config_count);
    finish(op, e);
}

static void fill_meta(const bw_topic *t, bw_topic_meta *m)
{
    *m = (bw_topic_meta){
        .name = bw_str_of(t->name),
        .id = t->id,
        .partitions = (int32_t)t->part_count,
        .log_append_time = t->config.timestamp_type[0] == 'L',
        .compression = bw_str_of(t->config.compression_type),
        .message_max = (uint32_t)t->config.max_message_bytes,
    };
}

void bw_handle_metadata(bw_broker *b, bw_op *op)
{
    if (op->session->linking) op->session->linking->changed = false; /* from here on it is told again */
    const bw_request *r = &op->request;
    bw_topic *t = NULL, *tmp;
    bw_answer a;
    bw_answer_init(&a, r);
    bw_err e = BW_OK;
    size_t most = r->topic.len ? 1 : HASH_CNT(by_name, b->topics_by_name);
    if (r->topic.len) e = bw_topic_of(b, r->topic, r->allow_auto_create, &t);
    if (!e && most && !(a.topics = calloc(most, sizeof *a.topics))) e = bw_fail(BW_ERR_NO_MEMORY, "no memory for the list of topics");
    if (e) {
        bw_op_fail(op, e);
        return;
    }
    if (t) fill_meta(t, &a.topics[a.topic_count++]);
    else
        HASH_ITER(by_name, b->topics_by_name, t, tmp)
        {
            if (!t->deleting && a.topic_count < most) fill_meta(t, &a.topics[a.topic_count++]);
        }
    bw_op_reply(op, &a);
    bw_answer_fini(&a);
    bw_op_finish(op, NULL);
}

/* ---- long ones: the worker ---- */

static bool still_there(bw_broker *b, const bw_part *p) { return bw_part_by_number(b, p->bus_number) == p; }

static void submit(bw_broker *b, bw_op *op, bw_part *p, int64_t in, void (*run)(bw_broker *, bw_job *), void (*done)(bw_broker *, bw_job *))
{
    bw_job *job = calloc(1, sizeof *job);
    bw_err e = BW_OK;
    if (!job) e = bw_fail(BW_ERR_NO_MEMORY, "no memory for a request");
    else {
        *job = (bw_job){.run = run, .done = done, .op = op, .part = p, .in = in};
        atomic_fetch_add(&p->users, 1);
        if ((e = bw_worker_submit(b, job))) {
            bw_part_release(p);
            free(job);
        }
    }
    if (e) bw_op_fail(op, e);
}

/* The job's answer, with the partition's range when it still is there. */
static void job_answer(bw_broker *b, bw_job *job, bw_answer *a)
{
    a->error = (int32_t)job->error;
    a->message = bw_str_of(job->message);
    if (still_there(b, job->part)) bw_part_range(job->part, &a->log_start, &a->end, &a->durable);
    bw_op_finish(job->op, a);
    bw_part_release(job->part);
    free(job);
}

static void by_time_run(bw_broker *b, bw_job *job)
{
    (void)b;
    bw_err e = bw_partition_offset_for_time(job->part->log, job->in, &job->out[0], &job->out[1]);
    if (e) bw_job_set_error(job, e);
}

static void by_time_done(bw_broker *b, bw_job *job)
{
    bw_answer a;
    bw_answer_init(&a, &job->op->request);
    a.offset = job->out[0];
    a.timestamp = job->out[1];
    job_answer(b, job, &a);
}

void bw_handle_list_offsets(bw_broker *b, bw_op *op)
{
    const bw_request *r = &op->request;
    bw_part *p;
    bw_err e = bw_fetch_limit_check(op);
    if (!e) e = bw_part_of(b, r->topic, r->partition, false, &p);
    if (!e && r->read_limit == BW_LIMIT_REPLICATED && p->topic->config.replicas == 0)
        e = bw_fail(BW_ERR_INVALID_CONFIG, "read_limit = 2, replicated, but topic '%s' asks for no replicas", p->topic->name);
    if (e) {
        bw_op_fail(op, e);
        return;
    }
    if (r->timestamp >= 0) {
        submit(b, op, p, r->timestamp, by_time_run, by_time_done);
        return;
    }
    if (r->timestamp != BW_OFFSET_END && r->timestamp != BW_OFFSET_BEGINNING) {
        bw_op_fail(op, bw_fail(BW_ERR_INVALID_ARGUMENT, "timestamp = %lld; allowed: ms since 1970, -1 the end, -2 the beginning",
                               (long long)r->timestamp));
        return;
    }
    bw_answer a;
    bw_answer_init(&a, r);
    bw_part_range(p, &a.log_start, &a.end, &a.durable);
    a.offset = bw_resolve_offset(p, r->timestamp, r->read_limit);
    bw_op_finish(op, &a);
}

static void delete_records_run(bw_broker *b, bw_job *job)
{
    (void)b;
    bw_err e = bw_partition_delete_records(job->part->log, job->in, &job->out[0]);
    if (e) bw_job_set_error(job, e);
}

static void delete_records_done(bw_broker *b, bw_job *job)
{
    bw_answer a;
    bw_answer_init(&a, &job->op->request);
    a.offset = job->out[0];
    if (!job->error)
        bw_broker_event(b, BW_LOG_INFO, "records_deleted", "topic=%s partition=%u log_start=%lld", job->part->topic->name, job->part->index,
                        (long long)job->out[0]);
    if (!job->error && still_there(b, job->part) && job->part->taps) bw_broker_again(b, job->part); /* links tell of it */
    job_answer(b, job, &a);
}

void bw_handle_delete_records(bw_broker *b, bw_op *op)
{
    const bw_request *r = &op->request;
    bw_part *p;
    bw_err e = bw_part_of(b, r->topic, r->partition, false, &p);
    if (!e && r->offset < 0 && r->offset != BW_OFFSET_END)
        e = bw_fail(BW_ERR_INVALID_ARGUMENT, "offset = %lld; allowed: an offset, or -1 for everything", (long long)r->offset);
    if (e) {
        bw_op_fail(op, e);
        return;
    }
    submit(b, op, p, bw_resolve_offset(p, r->offset, 0), delete_records_run, delete_records_done);
}
