/* broker/group_target.c: who should own what, and how a partition gets there.
 *
 * A partition has an owner and a target. When they differ the owner is told to give it up (`revoked`: in which epoch), and when he has it
 * is given to the target; whom nothing is taken from notices nothing. All that changes before a flush belongs to the flush's epoch,
 * which is the group's next one. A flush saves first and pushes then; the saved records of all members never name a partition twice,
 * because the one that lost it is saved with the one that got it. */
#include "broker/group_core.h"

void bw_member_touch(bw_group *g, bw_member *m, bool push)
{
    if (!m->unsaved && !m->unpushed) g->dirty++;
    m->unsaved = true;
    m->unpushed |= push;
}

void bw_part_give(bw_group *g, bw_group_part *p, bw_member *m)
{
    p->owner = m;
    p->since = g->epoch + 1;
    p->revoked = 0;
    p->previous = NULL;
    p->next = m->parts;
    if (m->parts) m->parts->previous = p;
    m->parts = p;
    m->part_count++;
    p->topic->owned++;
    bw_member_touch(g, m, true);
}

static void unrevoke(bw_group *g, bw_group_part *p)
{
    if (!p->revoked) return;
    p->revoked = 0;
    g->revoking--;
    if (!--p->owner->revoking) p->owner->revoke_until_ms = 0;
}

void bw_part_free_owner(bw_group *g, bw_group_part *p)
{
    bw_member *m = p->owner;
    unrevoke(g, p);
    if (p->previous) p->previous->next = p->next;
    else m->parts = p->next;
    if (p->next) p->next->previous = p->previous;
    p->previous = p->next = NULL;
    p->owner = NULL;
    m->part_count--;
    p->topic->owned--;
}

/* What goes into the assignor. */
typedef struct inputs {
    bw_assign_topic *topics;
    bw_group_topic **sources;
    bw_assign_member *members;
    uint32_t *lists;       /* the members' topics */
    bw_assign_part *owned; /* the members' partitions */
    uint32_t *owners;
} inputs;

static void inputs_free(inputs *in)
{
    free(in->topics);
    free(in->sources);
    free(in->members);
    free(in->lists);
    free(in->owned);
    free(in->owners);
}

/* Who is to keep it if that is possible: who has it, or else who was to get it. */
static bw_member *present(const bw_group_part *p) { return p->owner ? p->owner : p->target; }

static int by_name(const void *a, const void *b)
{
    return bw_assign_compare_ids((*(bw_group_topic *const *)a)->name, (*(bw_group_topic *const *)b)->name);
}

static bw_err inputs_make(bw_group *g, inputs *in)
{
    size_t parts = 0, subscriptions = 0;
    uint32_t topics = 0;
    bw_group_topic *t, *next;
    HASH_ITER(hh, g->topics, t, next) parts += t->partitions;
    for (uint32_t i = 0; i < g->member_count; i++) subscriptions += g->members[i]->topic_count;
    in->topics = calloc((size_t)g->topic_count + 1, sizeof *in->topics);
    in->sources = calloc((size_t)g->topic_count + 1, sizeof *in->sources);
    in->members = calloc((size_t)g->member_count + 1, sizeof *in->members);
    in->lists = calloc(subscriptions + 1, sizeof *in->lists);
    in->owned = calloc(parts + 1, sizeof *in->owned);
    in->owners = calloc(parts + 1, sizeof *in->owners);
    if (!in->topics || !in->sources || !in->members || !in->lists || !in->owned || !in->owners)
        return bw_fail(BW_ERR_NO_MEMORY, "no memory for an assignment of group %s", g->id);
    HASH_ITER(hh, g->topics, t, next) in->sources[topics++] = t;
    qsort(in->sources, topics, sizeof *in->sources, by_name); /* the result does not depend on who subscribed first */
    for (uint32_t i = 0; i < topics; i++) {
        in->sources[i]->number = i;
        in->topics[i] = (bw_assign_topic){in->sources[i]->name, in->sources[i]->partitions};
    }
    uint32_t *list = in->lists;
    for (uint32_t i = 0; i < g->member_count; i++) {
        const bw_member *m = g->members[i];
        in->members[i] = (bw_assign_member){.id = m->id, .instance = m->instance, .topics = list, .topic_count = m->topic_count};
        for (size_t k = 0; k < m->topic_count; k++) *list++ = m->topics[k]->number;
    }
    /* Each member's partitions in one run: count, place, fill. */
    for (uint32_t i = 0; i < topics; i++)
        for (uint32_t k = 0; k < in->sources[i]->partitions; k++) {
            const bw_member *m = present(&in->sources[i]->parts[k]);
            if (m) in->members[m->index].owned_count++;
        }
    bw_assign_part *at = in->owned;
    for (uint32_t i = 0; i < g->member_count; i++) {
        in->members[i].owned = at;
        at += in->members[i].owned_count;
        in->members[i].owned_count = 0;
    }
    for (uint32_t i = 0; i < topics; i++)
        for (uint32_t k = 0; k < in->sources[i]->partitions; k++) {
            const bw_member *m = present(&in->sources[i]->parts[k]);
            if (!m) continue;
            bw_assign_member *a = &in->members[m->index];
            in->owned[(size_t)(a->owned - in->owned) + a->owned_count++] = (bw_assign_part){i, k};
        }
    return BW_OK;
}

static void aim(bw_group *g, bw_group_part *p, bw_member *target)
{
    p->target = target;
    bw_member *owner = p->owner;
    if (!owner) {
        if (target) bw_part_give(g, p, target);
    } else if (owner == target) {
        if (!p->revoked) return;
        unrevoke(g, p);
        bw_member_touch(g, owner, true);
    } else if (!p->revoked) {
        p->revoked = g->epoch + 1;
        owner->revoking++;
        g->revoking++;
        bw_member_touch(g, owner, true);
    }
}

bw_err bw_group_retarget(bw_group *g, int64_t now_ms)
{
    (void)now_ms;
    inputs in = {0};
    bw_err e = inputs_make(g, &in);
    if (!e) e = bw_assign(g->assignor, in.topics, g->topic_count, in.members, g->member_count, in.owners);
    const uint32_t *owner = in.owners;
    for (uint32_t i = 0; !e && i < g->topic_count; i++)
        for (uint32_t k = 0; k < in.sources[i]->partitions; k++, owner++)
            aim(g, &in.sources[i]->parts[k], *owner == BW_NOBODY ? NULL : g->members[*owner]);
    inputs_free(&in);
    if (!e) g->rebalances++;
    return e;
}

void bw_group_flush(bw_group *g, int64_t now_ms)
{
    if (!g->dirty && !g->unsaved) return;
    g->epoch++;
    g->unsaved = false;
    g->ops->save(g->context, g, NULL);
    for (uint32_t i = 0; i < g->member_count; i++) {
        bw_member *m = g->members[i];
        if (!m->unsaved && !m->unpushed) continue;
        if (m->unpushed) m->epoch = g->epoch;
        if (m->revoking && !m->revoke_until_ms) m->revoke_until_ms = bw_group_after(now_ms, m->rebalance_ms);
        if (m->revoke_until_ms) bw_group_wake_at(g, m->revoke_until_ms);
        g->ops->save(g->context, g, m);
    }
    for (uint32_t i = 0; i < g->member_count && g->dirty; i++) {
        bw_member *m = g->members[i];
        if (!m->unsaved && !m->unpushed) continue;
        bool push = m->unpushed;
        m->unsaved = m->unpushed = false;
        g->dirty--;
        if (push) g->ops->assigned(g->context, g, m);
    }
}
