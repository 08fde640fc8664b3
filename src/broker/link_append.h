/* broker/link_append.h: one LINK_APPEND at work; shared by link_append.c (order, worker, answers), link_append_mirror.c and
 * link_append_merge.c (a part of it) only. Broker thread; while `working` the worker's task has it. */
#ifndef BW_BROKER_LINK_APPEND_H
#define BW_BROKER_LINK_APPEND_H

#include "broker/links.h"

/* What a step of a part came to: done (or failed, see its answer) · goes on at once · come again by the timer · the worker has it. */
typedef enum bw_link_step { PART_DONE, PART_AGAIN, PART_RETRY, PART_WORKS } bw_link_step;

typedef enum bw_link_task { TASK_UNPACK, TASK_PREPARE, TASK_ENCODE } bw_link_task;

struct bw_link_append {
    bw_job job;
    bw_timer timer;
    struct bw_link_append *next;
    bw_op *op; /* NULL: its session is gone */
    bw_link_part *parts; /* the answer */
    size_t index, at;    /* part at work; bytes of the payload in front of it */
    size_t done;         /* of the part: bytes that were appended */
    const uint8_t *data;
    size_t len;
    bw_buf plain;
    bool unpacked, working;
    bool moved;          /* the end was moved for the part at work, which fitted where it was */
    bw_deadline patience;
    /* the worker's task */
    bw_link_task task;
    int64_t gaps_upto, epoch_from;
    int64_t way_to;      /* offset that the end is far from; 0: none */
    int32_t epoch;
    bw_merge_input input;
    bw_vector vector;
    bw_merged *merged;
    size_t merged_count;
};

/* link_append.c */
/* bw_link_append_part_error: the part at work has failed with e and the thread's message; the first error stays. */
void bw_link_append_part_error(struct bw_link_append *x, bw_err e);
/* bw_link_append_work: hand the task to the worker; the part is served again behind it. PART_DONE: it failed at once. */
bw_link_step bw_link_append_work(bw_broker *b, struct bw_link_append *x, bw_part *p, bw_link_task task);
/* bw_link_append_may_retry: what may be over in a moment (no room yet, the lock is held). */
bool bw_link_append_may_retry(const struct bw_link_append *x, bw_err e);

/* One step of the part x->index. */
bw_link_step bw_link_append_mirror(bw_broker *b, struct bw_link_append *x, bw_part *p);
bw_link_step bw_link_append_merge(bw_broker *b, struct bw_link_append *x, bw_part *p);

#endif
