/* broker/queue_part.c: one partition of a queue group: its life, its timers, and who is woken.
 *
 * A wait costs nothing: the partition's tail is armed only while a fetch waits, the timer of what is put off runs only then, and the
 * timer of leases only while something is held. What is put off is due by the wall clock, which is looked at at least each second, so
 * that a jump forward is seen; a jump back makes records later, never earlier, and what was handed out stays so. */
#include "broker/queue.h"

#include "broker/offsets_cache.h"

#include <stdlib.h>

#define LOOK_MS 1000
#define PERSIST_MS 100
#define DEAD_RETRY_MS 50

#define PART_OF(timer, member) ((bw_queue_part *)(void *)((char *)(timer)-offsetof(bw_queue_part, member)))

/* ---- timers ---- */

static void on_lease(void *broker, bw_timer *timer)
{
    bw_queue_part *q = PART_OF(timer, lease_timer);
    int64_t next;
    uint32_t n = bw_queue_state_expire(&q->state, bw_clock_mono_ns(), bw_queue_rules_of(q->group), &next);
    if (next != INT64_MAX) bw_queue_part_leased(broker, q, next, false);
    if (!n) return;
    q->dirty = true;
    bw_queue_part_changed(broker, q);
}

static void on_due(void *broker, bw_timer *timer)
{
    bw_queue_part *q = PART_OF(timer, due_timer);
    bw_queue_serve(broker, q);
    if (q->group->waits) bw_queue_part_arm_due(broker, q);
}

static void on_persist(void *broker, bw_timer *timer) { bw_queue_commit(broker, PART_OF(timer, persist_timer)); }

static void on_dead(void *broker, bw_timer *timer) { bw_queue_part_changed(broker, PART_OF(timer, dead_timer)); }

void bw_queue_part_leased(bw_broker *b, bw_queue_part *q, int64_t until_ns, bool again)
{
    if (!q->lease_timer.index || until_ns < q->lease_timer.at) bw_timers_set(&b->timers, &q->lease_timer, until_ns);
    if (!again || q->dirty) return;
    q->dirty = true;
    bw_timers_set(&b->timers, &q->persist_timer, bw_deadline_in_ms(PERSIST_MS));
}

void bw_queue_part_arm_due(bw_broker *b, bw_queue_part *q)
{
    const bw_delay *first = bw_delays_first(&q->delays);
    if (!first) return;
    int64_t left = first->due_ms - bw_clock_wall_ms();
    bw_deadline at = bw_deadline_in_ms(left < 1 ? 1 : left > LOOK_MS ? LOOK_MS : left);
    if (!q->due_timer.index || at < q->due_timer.at) bw_timers_set(&b->timers, &q->due_timer, at);
}

/* ---- life ---- */

bw_err bw_queue_part_new(bw_queue_group *g, const bw_uuid *topic, uint32_t index, bw_part *part, int64_t start, bw_queue_part **out)
{
    bw_queue_part *q = calloc(1, sizeof *q);
    if (!q) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a queue's partition");
    q->group = g;
    q->topic = *topic;
    q->index = index;
    q->part = part;
    q->lease_timer.fire = on_lease;
    q->due_timer.fire = on_due;
    q->persist_timer.fire = on_persist;
    q->dead_timer.fire = on_dead;
    bw_queue_state_init(&q->state, start);
    bw_delays_init(&q->delays, true);
    q->next = g->parts;
    g->parts = q;
    g->part_count++;
    if (part) {
        q->state.leader_epoch = atomic_load(&part->topic->control->slots[index].leader_epoch);
        q->next_of_part = part->queues;
        part->queues = q;
    }
    *out = q;
    return BW_OK;
}

bw_queue_part *bw_queue_part_find(const bw_queue_group *g, const bw_uuid *topic, uint32_t index)
{
    bw_queue_part *q = g->parts;
    while (q && (q->index != index || !bw_uuid_equal(&q->topic, topic))) q = q->next;
    return q;
}

void bw_queue_part_free(bw_queue_part *q)
{
    bw_queue_state_fini(&q->state);
    bw_delays_fini(&q->delays);
    free(q->parks);
    free(q->waiting);
    free(q->sent);
    free(q);
}

static void leave_part(bw_queue_part *q)
{
    if (!q->part) return;
    bw_queue_part **at = &q->part->queues;
    while (*at && *at != q) at = &(*at)->next_of_part;
    if (*at) *at = q->next_of_part;
    q->part = NULL;
}

static void stop(bw_broker *b, bw_queue_part *q)
{
    bw_timers_clear(&b->timers, &q->lease_timer);
    bw_timers_clear(&b->timers, &q->due_timer);
    bw_timers_clear(&b->timers, &q->persist_timer);
    bw_timers_clear(&b->timers, &q->dead_timer);
    bw_queue_deaths_forget(b, q);
    bw_queue_cursor_close(&q->fresh);
    bw_queue_cursor_close(&q->old);
    leave_part(q);
}

void bw_queue_part_remove(bw_broker *b, bw_queue_part *q)
{
    bw_queue_group *g = q->group;
    bw_queue_part **at = &g->parts;
    while (*at && *at != q) at = &(*at)->next;
    if (*at) {
        *at = q->next;
        g->part_count--;
    }
    if (g->turn == q) g->turn = q->next;
    stop(b, q);
    bw_queue_acks_fail(b, q, BW_ERR_DELETED);
    q->gone = true;
    if (!q->committing) bw_queue_part_free(q);
}

/* ---- the log's ends ---- */

/* After a restart: what the state says of records that a recovery cut off is forgotten: others may have their offsets by now. */
static void settle_in(bw_broker *b, bw_queue_part *q)
{
    int64_t log_start, end, durable;
    bw_part_range(q->part, &log_start, &end, &durable);
    end = bw_offset_epoch_end(q->part, (int32_t)q->state.leader_epoch, end);
    if (q->state.end > end) {
        char name[600];
        bw_broker_event(b, BW_LOG_WARN, "queue_cut", "group=%s topic=%s partition=%u end=%lld state_end=%lld",
                        bw_event_text(q->group->name, name, sizeof name), q->part->topic->name, q->index, (long long)end,
                        (long long)q->state.end);
        bw_queue_state_cut(&q->state, end);
        q->dirty = true;
    }
    q->settled_in = true;
}

bool bw_queue_part_ready(bw_broker *b, bw_queue_part *q)
{
    bw_part *p = q->part;
    if (!p || p->topic->deleting) return false;
    if (atomic_load(&p->stage) == BW_PART_UNOPENED) {
        atomic_store(&p->ops_wait, true); /* so that it tells when it is open */
        bw_opener_want(b, p);
        if (atomic_load(&p->stage) == BW_PART_UNOPENED) return false;
    }
    if (!p->log) return false;
    if (!q->settled_in) settle_in(b, q);
    if (bw_delays_wants(&q->delays)) bw_queue_refill(b, q);
    return true;
}

/* ---- waking ---- */

void bw_queue_part_admit_due(bw_broker *b, bw_queue_part *q, int64_t now_ms)
{
    const bw_delay *first;
    while ((first = bw_delays_first(&q->delays)) && first->due_ms <= now_ms && q->state.late_count < q->group->settings.max_in_flight) {
        bw_err e = bw_queue_state_admit_late(&q->state, first->offset, first->due_ms, first->deliveries, first->reason);
        if (e == BW_ERR_NO_MEMORY) return;
        bw_delays_pop(&q->delays);
        if (bw_delays_wants(&q->delays)) bw_queue_refill(b, q);
    }
}

void bw_queue_part_changed(bw_broker *b, bw_queue_part *q)
{
    if (q->state.untaken) bw_queue_bury(b, q);
    if (q->state.untaken && !q->dead_timer.index) bw_timers_set(&b->timers, &q->dead_timer, bw_deadline_in_ms(DEAD_RETRY_MS));
    bw_queue_commit(b, q);
    bw_queue_serve(b, q);
}

bool bw_queue_waiting(const bw_part *p, bw_wait_class cls)
{
    if (cls == BW_WAIT_STATE) return p->deaths != NULL;
    for (const bw_queue_part *q = p->queues; q; q = q->next_of_part)
        if (q->group->waits && q->state.acquired < q->group->settings.max_in_flight) return true;
    return false;
}

void bw_queue_rest_part(bw_part *p)
{
    for (bw_queue_part *q = p->queues; q; q = q->next_of_part) {
        bw_queue_cursor_rest(&q->fresh);
        bw_queue_cursor_rest(&q->old);
    }
}

bool bw_queue_close_idle(bw_part *p)
{
    bool open = false;
    for (bw_queue_part *q = p->queues; q; q = q->next_of_part) {
        if (!q->fresh.reader && !q->old.reader) continue;
        if (bw_clock_mono_ms() - q->used_ms < 10000) open = true;
        else {
            bw_queue_cursor_close(&q->fresh);
            bw_queue_cursor_close(&q->old);
        }
    }
    return open;
}

void bw_queue_stop_part(bw_broker *b, bw_part *p)
{
    while (p->queues) stop(b, p->queues);
    while (p->deaths) { /* tried again in another life, or elsewhere */
        bw_queue_death *d = p->deaths;
        p->deaths = d->next;
        bw_queue_state_untake(&d->part->state, d->offset);
        if (!d->part->dead_timer.index && d->part->part) bw_timers_set(&b->timers, &d->part->dead_timer, bw_deadline_in_ms(DEAD_RETRY_MS));
        free(d);
    }
}

void bw_queue_forget_topic(bw_broker *b, bw_topic *t)
{
    bw_queue_group *g, *tmp;
    if (!b->queues) return;
    HASH_ITER(hh, b->queues->groups, g, tmp)
    {
        for (bw_queue_part *q = g->parts, *next; q; q = next) {
            next = q->next;
            if (!bw_uuid_equal(&q->topic, &t->id)) continue;
            bw_queue_sweep(b, q, NULL);
            bw_queue_part_remove(b, q);
        }
    }
}

void bw_queue_topic_grew(bw_broker *b, bw_topic *t)
{
    bw_queue_group *g, *tmp;
    if (!b->queues) return;
    HASH_ITER(hh, b->queues->groups, g, tmp)
    {
        if (!bw_queue_part_find(g, &t->id, 0)) continue;
        for (uint32_t i = 1; i < t->part_count; i++) {
            bw_queue_part *q;
            if (bw_queue_part_find(g, &t->id, i) || bw_queue_part_new(g, &t->id, i, t->parts[i], 0, &q)) continue;
            q->dirty = true;
            bw_queue_commit(b, q);
            bw_queue_serve(b, q);
        }
    }
}
