/* broker/replica_ranges.c: RANGE_HASHES, RANGE_BATCHES, MEND: two copies of a partition compare themselves, and one is mended from the other.
 *
 * All three read or write files and run in the worker thread; each looks at no more than scan_max bytes (RANGES_SCAN_MOST), so that others
 * who have work there wait for a moment only. */
#include "broker/links.h"
#include "broker/replica.h"

#include "log/ranges.h"
#include "proto/replica_items.h"

#include <stdlib.h>

#define RANGES_SCAN_MOST (UINT64_C(256) << 20)

typedef struct ranges_job {
    bw_job job;
    bw_range_query query;
    uint32_t count;
    uint64_t bytes;
    int64_t next;
    bw_buf items;
} ranges_job;

static void done(bw_broker *b, bw_job *job)
{
    ranges_job *r = (ranges_job *)(void *)job;
    bw_part *p = job->part;
    bw_answer a;
    bw_answer_init(&a, &job->op->request);
    a.error = (int32_t)job->error;
    a.message = bw_str_of(job->message);
    if (bw_part_by_number(b, p->bus_number) == p) bw_part_range(p, &a.log_start, &a.end, &a.durable);
    a.replica.next = r->next;
    a.replica.bytes = r->bytes;
    a.replica.ranges = (bw_str){(const char *)r->items.data, r->items.len};
    bw_op_finish(job->op, &a);
    bw_part_release(p);
    bw_buf_free(&r->items);
    free(r);
}

static void hashes_run(bw_broker *b, bw_job *job)
{
    (void)b;
    ranges_job *r = (ranges_job *)(void *)job;
    size_t parts = (size_t)bw_range_parts(&r->query);
    bw_range_hash *list = malloc(parts * sizeof *list);
    bw_err e = list ? bw_buf_reserve(&r->items, parts * BW_RANGE_HASH_BYTES) : BW_ERR_NO_MEMORY;
    if (e) e = bw_fail(e, "no memory for the hashes of %zu ranges", parts);
    else e = bw_partition_range_hashes(job->part->log, &r->query, list, &r->count, &r->next, &r->bytes);
    for (uint32_t i = 0; !e && i < r->count; i++) {
        bw_range_item item = {list[i].hash, list[i].bytes, list[i].batches, list[i].damaged};
        e = bw_range_item_put(&r->items, &item);
    }
    free(list);
    if (e) bw_job_set_error(job, e);
}

static void batches_run(bw_broker *b, bw_job *job)
{
    (void)b;
    ranges_job *r = (ranges_job *)(void *)job;
    bw_range_batch *list = malloc(BW_RANGE_BATCHES_MAX * sizeof *list);
    bw_err e = list ? bw_buf_reserve(&r->items, BW_RANGE_BATCHES_MAX * BW_RANGE_BATCH_BYTES) : BW_ERR_NO_MEMORY;
    if (e) e = bw_fail(e, "no memory for a list of batches");
    else e = bw_partition_range_batches(job->part->log, &r->query, list, BW_RANGE_BATCHES_MAX, &r->count, &r->next, &r->bytes);
    for (uint32_t i = 0; !e && i < r->count; i++) {
        bw_batch_item item = {list[i].base_offset, list[i].next_offset, list[i].hash, list[i].bytes, list[i].damaged ? BW_RANGE_DAMAGED : 0};
        e = bw_batch_item_put(&r->items, &item);
    }
    free(list);
    if (e) bw_job_set_error(job, e);
}

static void mend_run(bw_broker *b, bw_job *job)
{
    (void)b;
    ranges_job *r = (ranges_job *)(void *)job;
    const bw_request *q = &job->op->request;
    bw_err e = bw_partition_mend(job->part->log, r->query.from, r->query.upto, q->payload, q->payload_len);
    r->bytes = e ? 0 : q->payload_len;
    if (e) bw_job_set_error(job, e);
}

static void mend_done(bw_broker *b, bw_job *job)
{
    const bw_part *p = job->part;
    const bw_replica_request *q = &job->op->request.replica;
    if (!job->error)
        bw_broker_event(b, BW_LOG_WARN, "mirror_mended", "topic=%s partition=%u from=%lld upto=%lld bytes=%zu", p->topic->name, p->index,
                        (long long)q->from, (long long)q->upto, job->op->request.payload_len);
    done(b, job);
}

static bw_err check_range(const bw_request *r)
{
    const bw_replica_request *q = &r->replica;
    if (q->from < 0 || q->upto <= q->from)
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "a range of offsets from %lld to %lld", (long long)q->from, (long long)q->upto);
    if (r->type == BW_API_RANGE_HASHES && (q->step < 1 || (q->upto - q->from - 1) / q->step >= BW_RANGE_HASHES_MAX))
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "step = %lld; allowed: what makes 1 to %u parts of the range", (long long)q->step,
                       BW_RANGE_HASHES_MAX);
    return BW_OK;
}

void bw_handle_ranges(bw_broker *b, bw_op *op)
{
    const bw_request *r = &op->request;
    const bw_replica_request *q = &r->replica;
    bw_part *p;
    bw_err e = bw_part_of(b, r->topic, r->partition, false, &p);
    if (!e) e = check_range(r);
    if (!e && !p->log) e = bw_fail(BW_ERR_IO, "topic '%s' partition %u is not open: %s", p->topic->name, p->index, p->why ? p->why : "see the log");
    if (!e && r->type == BW_API_MEND && !bw_topic_is_mirror(p->topic) && !q->force)
        e = bw_fail(BW_ERR_INVALID_ARGUMENT, "topic '%s' is no mirror: nothing is put in the place of its records unless that is forced",
                    p->topic->name);
    ranges_job *j = e ? NULL : calloc(1, sizeof *j);
    if (!e && !j) e = bw_fail(BW_ERR_NO_MEMORY, "no memory for a request");
    if (e) {
        bw_op_fail(op, e);
        return;
    }
    j->job = (bw_job){.run = hashes_run, .done = done, .op = op, .part = p};
    if (r->type == BW_API_RANGE_BATCHES) j->job.run = batches_run;
    if (r->type == BW_API_MEND) {
        j->job.run = mend_run;
        j->job.done = mend_done;
    }
    j->query = (bw_range_query){.from = q->from, .upto = q->upto, .step = q->step > 0 ? q->step : 1, .whole = q->check,
                                .scan_max = q->scan_max < RANGES_SCAN_MOST ? q->scan_max : RANGES_SCAN_MOST};
    atomic_fetch_add(&p->users, 1);
    if ((e = bw_worker_submit(b, &j->job))) {
        bw_part_release(p);
        free(j);
        bw_op_fail(op, e);
    }
}
