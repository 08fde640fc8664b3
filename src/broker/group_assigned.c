/* broker/group_assigned.c: groups whose partitions the daemon assigns (CONSUMER), and those of which it only keeps the members (QUEUE).
 *
 * The order that makes it safe: what a member was told to give up stays his, in memory and on the disk, until he says with an epoch not
 * older than that of the telling that he has it no more, or is no member any more. Only then, in an epoch after it, does the next one
 * get it. A heartbeat that was on its way when he was told has an older epoch, so it frees nothing. */
#include "broker/group_core.h"

#define LEASE_DEFAULT_MS 300000
#define PER_TOPIC_BYTES 16u

/* ---- members come ---- */

/* May a member of this kind and assignor come? The first one decides. */
static bw_err fits(const bw_group *g, const bw_member_join *j, bw_assignor_kind *assignor)
{
    *assignor = g->assignor;
    if (j->assignor.len) {
        bw_err e = bw_assignor_by_name(j->assignor.data, j->assignor.len, assignor);
        if (e) return e;
    }
    bool queue_ever = g->kind_fixed && (g->kind == BW_GROUP_QUEUE) != (j->kind == BW_GROUP_QUEUE);
    if (j->kind == BW_GROUP_CLASSIC || queue_ever || (g->member_count && g->kind != j->kind))
        return bw_fail(BW_ERR_INCONSISTENT_GROUP_PROTOCOL, "group %s is a %s group: a member of another kind needs another group id", g->id,
                       g->kind == BW_GROUP_CLASSIC ? "classic" : g->kind == BW_GROUP_QUEUE ? "queue" : "consumer");
    if (g->member_count && *assignor != g->assignor)
        return bw_fail(BW_ERR_INCONSISTENT_GROUP_PROTOCOL, "group %s assigns by %s, a member asks for %s: all members must name the same "
                       "(partition.assignment.strategy), or none", g->id, bw_assignor_name(g->assignor), bw_assignor_name(*assignor));
    return BW_OK;
}

static bool same_process(const bw_process *a, const bw_process *b)
{
    return !a->pid || !b->pid || (a->pid == b->pid && a->start_ticks == b->start_ticks && memcmp(a->boot, b->boot, sizeof a->boot) == 0);
}

static void renew(bw_group *g, bw_member *m, int64_t now_ms)
{
    m->away = m->expected = false;
    m->deadline_ms = bw_group_after(now_ms, m->lease_ms);
    bw_group_wake_at(g, m->deadline_ms);
}

/* An owned list: what was revoked in an epoch that the member knows of, and is not in it, is free. */
static void release(bw_group *g, bw_member *m, int32_t epoch, const bw_offset_part *owned, size_t count, int64_t now_ms)
{
    if (!m->revoking) return;
    uint32_t claim = ++g->claims ? g->claims : ++g->claims;
    for (size_t i = 0; i < count; i++) {
        bw_group_topic *t = bw_group_topic_named(g, owned[i].topic);
        if (t && owned[i].partition >= 0 && (uint32_t)owned[i].partition < t->partitions) t->parts[owned[i].partition].claim = claim;
    }
    uint32_t before = m->revoking;
    for (bw_group_part *p = m->parts, *next; p; p = next) {
        next = p->next;
        if (!p->revoked || p->revoked > epoch || p->claim == claim) continue;
        bw_group_topic *t = p->topic;
        bw_part_free_owner(g, p);
        bw_member_touch(g, m, false);
        if (p->target) bw_part_give(g, p, p->target);
        else bw_group_topic_drop_unused(g, t);
    }
    if (m->revoking && m->revoking < before) m->revoke_until_ms = bw_group_after(now_ms, m->rebalance_ms); /* he is at it */
}

static bw_err subscribe(bw_group *g, bw_member *m, bw_str subscription, const bw_topic_view *topics, size_t count, int64_t now_ms)
{
    size_t before = m->bytes, old = m->subscription.len + m->topic_count * PER_TOPIC_BYTES;
    size_t subscription_bytes = subscription.data ? subscription.len : m->subscription.len;
    bw_err e = bw_member_account(g, m, before - old + subscription_bytes + count * PER_TOPIC_BYTES);
    bool changed = false;
    bw_blob blob = {0};
    if (!e && subscription.data) e = bw_blob_set(&blob, subscription);
    if (!e) e = bw_group_topics_set(g, m, topics, count, &changed, now_ms);
    if (e) {
        free(blob.data);
        g->bytes = g->bytes - m->bytes + before;
        m->bytes = before;
        return e;
    }
    m->bytes -= (count - m->topic_count) * PER_TOPIC_BYTES; /* named twice */
    g->bytes -= (count - m->topic_count) * PER_TOPIC_BYTES;
    if (subscription.data) {
        if (m->subscription.len != blob.len || memcmp(m->subscription.data, blob.data, blob.len) != 0) bw_member_touch(g, m, false);
        free(m->subscription.data);
        m->subscription = blob;
    }
    if (changed) {
        bw_group_assign_soon(g, now_ms);
        if (g->kind == BW_GROUP_QUEUE) bw_member_touch(g, m, true);
    }
    return BW_OK;
}

bw_err bw_group_resubscribe(bw_group *g, bw_member *m, bw_str subscription, const bw_topic_view *topics, size_t topic_count, int64_t now_ms)
{
    return subscribe(g, m, subscription, topics, topic_count, now_ms);
}

static bw_err come_back(bw_group *g, const bw_member_join *j, int64_t now_ms, bw_member **out)
{
    bw_member *m;
    bw_err e = bw_group_find(g, j->member, j->instance, &m);
    if (e) return e;
    if (!same_process(&m->process, &j->process))
        return bw_fail(BW_ERR_UNKNOWN_MEMBER_ID, "group %s: member %s is process %lld, not %lld: join without a member id", g->id, m->id,
                       (long long)m->process.pid, (long long)j->process.pid);
    if (j->epoch > m->epoch)
        return bw_fail(BW_ERR_FENCED_MEMBER_EPOCH, "group %s: member %s claims epoch %d, it was given %d: join anew", g->id, m->id, j->epoch,
                       m->epoch);
    e = subscribe(g, m, j->subscription, j->topics, j->topic_count, now_ms);
    if (e) return e;
    renew(g, m, now_ms);
    /* Without an epoch: no assignment ever reached it, so there is nothing to be given up. */
    release(g, m, j->epoch < 0 ? INT32_MAX : j->epoch, j->owned, j->owned_count, now_ms);
    m->process = j->process;
    bw_member_touch(g, m, true); /* it is told what it has */
    *out = m;
    return BW_OK;
}

/* The new holder of an instance id gets everything that the former one had; he is not asked. */
static void take_over(bw_group *g, bw_member *old, bw_member *m)
{
    bw_group_topic *t, *next;
    for (bw_group_part *p = old->parts, *after; p; p = after) {
        after = p->next;
        bw_member *target = p->target;
        bool stays = !p->revoked;
        bw_part_free_owner(g, p);
        if (stays) bw_part_give(g, p, m);
        else if (target && target != old) bw_part_give(g, p, target);
    }
    HASH_ITER(hh, g->topics, t, next)
        for (uint32_t i = 0; i < t->partitions; i++)
            if (t->parts[i].target == old) t->parts[i].target = m;
}

static bool same_topics(const bw_member *a, const bw_member *b)
{
    if (a->topic_count != b->topic_count) return false;
    for (size_t i = 0; i < a->topic_count; i++) {
        size_t k = 0;
        while (k < b->topic_count && b->topics[k] != a->topics[i]) k++;
        if (k == b->topic_count) return false;
    }
    return true;
}

static bw_err come(bw_group *g, const bw_member_join *j, bw_member_new *n, int64_t now_ms, bw_member **out)
{
    bw_member *old = bw_group_with_instance(g, j->instance), *m;
    bw_err e = old ? BW_OK : bw_group_room(g, g->member_count);
    if (e) return e;
    bool due = g->assign_at_ms != BW_GROUP_NEVER, first = !g->member_count;
    e = bw_member_add(g, n, now_ms, &m);
    if (!e) {
        e = subscribe(g, m, j->subscription, j->topics, j->topic_count, now_ms);
        if (e) bw_member_drop(g, m, now_ms);
    }
    if (e) return e;
    if (old) {
        char *name = old->instance;
        bool alike = same_topics(old, m);
        HASH_DELETE(by_instance, g->by_instance, old);
        old->instance = NULL;
        take_over(g, old, m);
        if (alike && !due) g->assign_at_ms = BW_GROUP_NEVER; /* nothing changes for the others */
        bw_group_topics_leave(g, old);
        g->unsaved = true;
        g->ops->removed(g->context, g, old, BW_ERR_FENCED_INSTANCE_ID, "another process uses its group.instance.id");
        bw_member_drop(g, old, now_ms);
        free(name);
    } else {
        bw_group_assign_soon(g, now_ms);
        if (first && g->kind == BW_GROUP_CONSUMER && !due)
            g->assign_at_ms = bw_group_after(now_ms, g->limits->initial_delay_ms);
    }
    bw_member_touch(g, m, true); /* it hears of its epoch, even if it owns nothing */
    *out = m;
    return BW_OK;
}

bw_err bw_group_admit(bw_group *g, const bw_member_join *j, int64_t now_ms, bw_member **out)
{
    bw_assignor_kind assignor;
    *out = NULL;
    if (g->state == BW_GROUP_DEAD) return bw_fail(BW_ERR_GROUP_ID_NOT_FOUND, "group %s is being deleted", g->id);
    bw_member_new n = {j->new_id, j->instance, j->client, j->host, j->process, j->session_ms, j->rebalance_ms, j->lease_ms, 0};
    bw_err e = bw_group_session(g, &n.session_ms);
    if (!e) e = fits(g, j, &assignor);
    if (e) return e;
    if (n.lease_ms <= 0) n.lease_ms = LEASE_DEFAULT_MS;
    if (n.rebalance_ms <= 0) n.rebalance_ms = n.lease_ms;
    if (j->member.len && (j->epoch >= 0 || bw_group_with_id(g, j->member))) return come_back(g, j, now_ms, out);
    if (j->member.len) n.id = j->member; /* its own choice: if the answer is lost, it is found by it */
    if (!g->member_count) {
        bw_classic_forget_pending(g);
        g->kind = j->kind;
        g->assignor = assignor;
    }
    e = come(g, j, &n, now_ms, out);
    if (!e) g->kind_fixed = true;
    return e;
}

/* ---- members are heard of ---- */

bw_err bw_group_beat(bw_group *g, bw_str member, bw_str instance, int32_t epoch, const bw_offset_part *owned, size_t owned_count,
                     bool has_owned, int64_t now_ms, bw_member **out)
{
    bw_member *m;
    *out = NULL;
    bw_err e = bw_group_find(g, member, instance, &m);
    if (e) return e;
    if (g->kind == BW_GROUP_CLASSIC)
        return bw_fail(BW_ERR_INCONSISTENT_GROUP_PROTOCOL, "group %s is a classic group: its members send HEARTBEAT", g->id);
    if (epoch > m->epoch)
        return bw_fail(BW_ERR_FENCED_MEMBER_EPOCH, "group %s: member %s claims epoch %d, it was given %d: join anew", g->id, m->id, epoch, m->epoch);
    renew(g, m, now_ms);
    if (has_owned) release(g, m, epoch, owned, owned_count, now_ms);
    *out = m;
    return BW_OK;
}

bw_err bw_assigned_may_commit(bw_group *g, const bw_member *m, int32_t epoch, bw_str topic, int32_t partition)
{
    if (epoch > m->epoch)
        return bw_fail(BW_ERR_FENCED_MEMBER_EPOCH, "group %s: member %s commits in epoch %d, it was given %d: join anew", g->id, m->id, epoch,
                       m->epoch);
    const bw_group_topic *t = bw_group_topic_named(g, topic);
    if (g->kind == BW_GROUP_QUEUE) return BW_OK;
    const bw_group_part *p = t && partition >= 0 && (uint32_t)partition < t->partitions ? &t->parts[partition] : NULL;
    if (!p || p->owner != m)
        return bw_fail(BW_ERR_FENCED_MEMBER_EPOCH, "group %s: partition %d of %.*s is not member %s's%s: what it read since it lost it is read "
                       "by the next owner", g->id, partition, BW_STR_ARG(topic), m->id, p && p->owner ? " any more" : "");
    if (epoch < p->since)
        return bw_fail(BW_ERR_STALE_MEMBER_EPOCH, "group %s: member %s commits partition %d of %.*s in epoch %d, it got it in %d: commit again",
                       g->id, m->id, partition, BW_STR_ARG(topic), epoch, p->since);
    return BW_OK;
}

/* ---- members go ---- */

void bw_assigned_remove(bw_group *g, bw_member *m, bw_err why, const char *reason, int64_t now_ms)
{
    bw_group_topic *t, *next;
    HASH_ITER(hh, g->topics, t, next)
        for (uint32_t i = 0; i < t->partitions; i++) {
            bw_group_part *p = &t->parts[i];
            if (p->target == m) p->target = NULL;
            if (p->owner != m) continue;
            bw_part_free_owner(g, p);
            if (p->target) bw_part_give(g, p, p->target);
        }
    /* What he alone subscribed to goes with him, and what he was only to give up. */
    bw_group_topics_leave(g, m);
    HASH_ITER(hh, g->topics, t, next) bw_group_topic_drop_unused(g, t);
    g->ops->removed(g->context, g, m, why, reason);
    bw_member_drop(g, m, now_ms);
    g->unsaved = true; /* the epoch that follows */
    bw_group_assign_soon(g, now_ms);
}

void bw_assigned_free(bw_group *g)
{
    bw_group_topic *t, *next;
    HASH_ITER(hh, g->topics, t, next) {
        HASH_DEL(g->topics, t);
        free(t->parts);
        free(t->name);
        free(t);
    }
}

/* ---- what a member has ---- */

void bw_member_each_part(const bw_group *g, const bw_member *m, bw_part_fn fn, void *opaque)
{
    if (g->kind == BW_GROUP_QUEUE) {
        for (size_t i = 0; i < m->topic_count; i++)
            for (uint32_t k = 0; k < m->topics[i]->partitions; k++) fn(opaque, m->topics[i], k);
        return;
    }
    for (const bw_group_part *p = m->parts; p; p = p->next)
        if (!p->revoked) fn(opaque, p->topic, (uint32_t)(p - p->topic->parts));
}

size_t bw_member_part_count(const bw_group *g, const bw_member *m)
{
    size_t n = m->part_count - m->revoking;
    for (size_t i = 0; g->kind == BW_GROUP_QUEUE && i < m->topic_count; i++) n += m->topics[i]->partitions;
    return n;
}

/* ---- time ---- */

void bw_assigned_poll(bw_group *g, int64_t now_ms)
{
    if (g->assign_at_ms <= now_ms) {
        g->assign_at_ms = BW_GROUP_NEVER;
        if (g->kind == BW_GROUP_CONSUMER && bw_group_retarget(g, now_ms) != BW_OK)
            g->assign_at_ms = bw_group_after(now_ms, 100); /* no memory: again later, with everything as it was */
    }
    bw_group_wake_at(g, g->assign_at_ms);
    if (g->assign_at_ms == BW_GROUP_NEVER) bw_group_flush(g, now_ms);
    g->state = !g->member_count ? BW_GROUP_EMPTY : g->assign_at_ms != BW_GROUP_NEVER ? BW_GROUP_PREPARING
               : g->revoking ? BW_GROUP_COMPLETING : BW_GROUP_STABLE;
}
