/* broker/offsets_expire.c: committed offsets that go by themselves: with their topic, and when nobody has used their group for
 * offsets.retention.minutes, as in Kafka: counted from when its last member left, and never from before the commit.
 *
 * Time is bw_offsets_clock: a wall clock that is set forward while the daemon runs ages nothing, nor does one that was found to be ahead
 * at the start. The first look is one interval after the start, so that members have come back. That a group has members is in the
 * store (idle -1) from the first look that found some: after a crash its offsets have the whole time again. */
#include "broker/offsets_cache.h"

bw_err bw_offset_remove(bw_broker *b, bw_offset_entry *e)
{
    if (bw_offset_entry_newest(e)->offset < 0) return BW_OK;
    bw_offset_value *v = bw_offset_change_entry(b, e, (bw_str){0});
    if (!v) return BW_ERR_NO_MEMORY;
    v->offset = -1;
    return BW_OK;
}

/* ---- with the topic ---- */

static void forget_target(bw_broker *b, bw_offset_target *t)
{
    bw_part *p = t->part;
    if (p) p->offsets = NULL;
    t->part = NULL;
    t->settled = false;
    bw_offset_target_done(b->offsets, t);
}

void bw_offsets_topic_deleted(bw_broker *b, const bw_topic *t)
{
    for (uint32_t i = 0; b->offsets && i < t->part_count; i++) {
        bw_offset_target *target = bw_offset_target_of(b->offsets, &t->id, i, false);
        if (!target) continue;
        for (bw_offset_entry *e = target->entries; e; e = e->next) (void)bw_offset_remove(b, e); /* or at the next start */
        forget_target(b, target);
    }
}

void bw_offsets_begin(bw_broker *b)
{
    bw_offset_target *t, *more;
    HASH_ITER(hh, b->offsets->targets, t, more)
    {
        bw_topic *topic = NULL;
        HASH_FIND(by_id, b->topics_by_id, t->key, 16, topic);
        if (topic && bw_get_be32(t->key + 16) < topic->wanted_parts) continue;
        for (bw_offset_entry *e = t->entries; e; e = e->next) (void)bw_offset_remove(b, e);
    }
    bw_offsets_expire_start(b);
}

/* ---- with time ---- */

/* What the group is now, and since when. */
static void look_at_members(bw_broker *b, bw_offset_group *g, int64_t now)
{
    const bw_group *members = bw_offset_members_of(b, (bw_str){g->id, g->len});
    bool there = members && members->member_count > 0;
    if (there == (g->idle_ms == -1)) return;
    g->idle_ms = there ? -1 : now;
    bw_offset_change_group(b, g);
}

static uint64_t expire_group(bw_broker *b, bw_offset_group *g, int64_t before)
{
    bw_offset_entry *e, *more;
    uint64_t n = 0;
    HASH_ITER(hh, g->entries, e, more)
    {
        const bw_offset_value *v = bw_offset_entry_newest(e);
        if (v->offset < 0 || v->commit_ms >= before || bw_offset_remove(b, e)) continue;
        n++;
    }
    return n;
}

static void on_expire(void *broker, bw_timer *timer)
{
    (void)timer;
    bw_broker *b = broker;
    int64_t now = bw_offsets_clock(b), before = now - (int64_t)b->config.offsets_retention_minutes * 60000;
    bw_offset_group *g, *more;
    uint64_t n = 0;
    HASH_ITER(hh, b->offsets->groups, g, more)
    {
        look_at_members(b, g, now);
        if (g->idle_ms == -1 || g->idle_ms >= before) continue;
        n += expire_group(b, g, before);
        if (g->entries || !g->idle_ms) continue;
        g->idle_ms = 0; /* nothing is left of it */
        bw_offset_change_group(b, g);
    }
    if (n) bw_broker_event(b, BW_LOG_INFO, "offsets_expired", "offsets=%llu", (unsigned long long)n);
    bw_offsets_expire_start(b);
}

void bw_offsets_expire_start(bw_broker *b)
{
    b->offsets->expire.fire = on_expire;
    (void)bw_timers_set(&b->timers, &b->offsets->expire, bw_deadline_in_ms(b->config.offsets_check_interval_ms));
}

void bw_offsets_group_idle(bw_broker *b, bw_str group)
{
    bw_offset_group *g = bw_offset_group_find(b->offsets, group);
    if (!g) return;
    g->idle_ms = bw_offsets_clock(b);
    bw_offset_change_group(b, g);
}
