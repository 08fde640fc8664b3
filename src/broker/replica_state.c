/* broker/replica_state.c: REPLICA_STATE: how much of a partition is here and on the disk, told when a given offset is. By it a link learns what
 * it may acknowledge to the origin (REPLICA_ACK); and a mirror what the origin says is replicated, which bounds readers here, too. */
#include "broker/replica.h"

#include <stdlib.h>

struct bw_replica_wait {
    struct bw_replica_wait *next;
    bw_op *op;
    int64_t durable;
};

static bw_tail_slot *slot_of(const bw_part *p) { return &p->topic->control->slots[p->index]; }

static void answer(bw_part *p, bw_op *op)
{
    bw_answer a;
    bw_answer_init(&a, &op->request);
    a.replica.epoch = (int32_t)atomic_load_explicit(&slot_of(p)->leader_epoch, memory_order_acquire);
    if (p->topic->config.replicas > 0) a.replica.wanted = bw_replica_wants_disk(p) ? 2 : 1;
    a.replica.replicated = (int64_t)atomic_load_explicit(&slot_of(p)->replicated, memory_order_acquire);
    bw_part_range(p, &a.log_start, &a.end, &a.durable);
    bw_op_finish(op, &a);
}

static bool must_wait(const bw_part *p, int64_t durable)
{
    const bw_tail_slot *s = slot_of(p);
    int64_t end = bw_slot_end_offset(s);
    return atomic_load_explicit(&s->durable_offset, memory_order_acquire) < (durable < end ? durable : end) &&
           atomic_load_explicit(&s->state, memory_order_acquire) == BW_SLOT_OPEN;
}

void bw_handle_replica_state(bw_broker *b, bw_op *op)
{
    const bw_replica_request *q = &op->request.replica;
    bw_part *p;
    bw_err e = bw_part_of(b, op->request.topic, op->request.partition, false, &p);
    if (!e && !p->log) e = bw_fail(BW_ERR_IO, "topic '%s' partition %u is not open: %s", p->topic->name, p->index, p->why ? p->why : "see the log");
    if (e) {
        bw_op_fail(op, e);
        return;
    }
    if (p->topic->mirror && q->visible > p->replicated_there) p->replicated_there = q->visible;
    if (p->topic->mirror && q->visible > 0 && bw_partition_raise_replicated(p->log, q->visible)) bw_broker_again(b, p);
    bw_replica_answer_when(b, p, op, q->durable);
}

void bw_replica_answer_when(bw_broker *b, bw_part *p, bw_op *op, int64_t durable)
{
    struct bw_replica_wait *w = must_wait(p, durable) ? calloc(1, sizeof *w) : NULL;
    if (!w) { /* nothing to wait for; without memory the answer says what is durable now */
        answer(p, op);
        return;
    }
    *w = (struct bw_replica_wait){p->replica_waits, op, durable};
    p->replica_waits = w;
    bw_position_raise(&slot_of(p)->sync_request, atomic_load_explicit(&slot_of(p)->tail, memory_order_acquire));
    bw_syncer_want(b, p);
    bw_broker_again(b, p);
}

void bw_replica_serve_waits(bw_broker *b, bw_part *p)
{
    (void)b;
    for (struct bw_replica_wait **at = &p->replica_waits; *at;) {
        struct bw_replica_wait *w = *at;
        if (!w->op->session->closed && must_wait(p, w->durable)) {
            at = &w->next;
            continue;
        }
        *at = w->next;
        if (w->op->session->closed) bw_op_finish(w->op, NULL);
        else answer(p, w->op);
        free(w);
    }
}

void bw_replica_end_waits(bw_part *p)
{
    while (p->replica_waits) {
        struct bw_replica_wait *w = p->replica_waits;
        p->replica_waits = w->next;
        bw_op_fail(w->op, bw_fail(BW_ERR_BUSY, "topic '%s' partition %u is being closed", p->topic->name, p->index));
        free(w);
    }
}
