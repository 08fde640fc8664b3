/* broker/produce_table.c: a partition's table of producers for the broker: a copy of the log's (log/producers.h), made by the worker at the
 * first need, and from then on kept up by the broker, which makes all appends that carry a producer id. */
#include "broker/core.h"

#include "log/producers.h"

#include <stdlib.h>

static bw_tail_slot *slot_of(const bw_part *p) { return &p->topic->control->slots[p->index]; }
static void load_run(bw_broker *b, bw_job *job)
{
    (void)b;
    bw_producers *table;
    bw_err e = bw_partition_producers(job->part->log, &table);
    job->data = table;
    if (e) bw_job_set_error(job, e);
}

static void load_done(bw_broker *b, bw_job *job)
{
    bw_part *p = job->part;
    p->producers_loading = false;
    bool there = bw_part_by_number(b, p->bus_number) == p;
    if (!there || job->error) bw_producers_free(job->data);
    else p->producers = job->data;
    bw_error_set_message(job->error, job->message);
    if (there && job->error) bw_produce_fail_all(b, p, job->error);
    bw_part_release(p);
    free(job);
    if (there) bw_part_serve(b, p);
}

bool bw_part_have_producers(bw_broker *b, bw_part *p, bw_err *e)
{
    *e = BW_OK;
    if (p->producers) return true;
    if (p->producers_loading) return false;
    bw_tail_slot *s = slot_of(p);
    if (bw_slot_end_offset(s) == 0) { /* a log that was never written to has no producers */
        p->producers = bw_producers_new();
        if (!p->producers) *e = bw_fail(BW_ERR_NO_MEMORY, "no memory for the producer table");
        return p->producers != NULL;
    }
    bw_job *job = calloc(1, sizeof *job);
    if (!job) {
        *e = bw_fail(BW_ERR_NO_MEMORY, "no memory to read the producer table");
        return false;
    }
    *job = (bw_job){.run = load_run, .done = load_done, .part = p};
    atomic_fetch_add(&p->users, 1);
    if ((*e = bw_worker_submit(b, job))) {
        bw_part_release(p);
        free(job);
    } else p->producers_loading = true;
    return false;
}
