/* broker/group_topics.c: the topics that the members of a server-assigned group subscribe to, and their partitions. A topic is kept while
 * somebody subscribes to it or owns a partition of it. */
#include "broker/group_core.h"

bw_group_topic *bw_group_topic_named(const bw_group *g, bw_str name)
{
    bw_group_topic *t = NULL;
    if (name.len && g->topics) HASH_FIND(hh, g->topics, name.data, name.len, t);
    return t;
}

/* Many changes of one moment are one assignment; in a large group, whose assignment costs more, of one short while. */
void bw_group_assign_soon(bw_group *g, int64_t now_ms)
{
    int64_t delay = g->member_count < 64 ? 0 : g->member_count / 32 < 20 ? g->member_count / 32 : 20;
    if (g->assign_at_ms == BW_GROUP_NEVER) g->assign_at_ms = bw_group_after(now_ms, delay);
    bw_group_wake_at(g, g->assign_at_ms);
}

/* The lists of the owners point into the array: it may move. */
static bw_err grow(bw_group *g, bw_group_topic *t, uint32_t partitions)
{
    bw_group_part *old = t->parts, *parts = calloc((size_t)partitions + 1, sizeof *parts);
    if (!parts) return bw_fail(BW_ERR_NO_MEMORY, "no memory for %u partitions of topic %s in group %s", partitions, t->name, g->id);
    for (uint32_t i = 0; i < partitions; i++) {
        bw_group_part *p = &parts[i];
        if (i < t->partitions) *p = old[i];
        p->topic = t;
    }
    for (uint32_t i = 0; i < t->partitions; i++) {
        bw_group_part *p = &parts[i];
        if (!p->owner) continue;
        /* A neighbour may lie in the old array still: then its own turn mends the link to it. */
        if (p->previous >= old && p->previous < old + t->partitions) p->previous = parts + (p->previous - old);
        if (p->next >= old && p->next < old + t->partitions) p->next = parts + (p->next - old);
        if (p->previous) p->previous->next = p;
        else p->owner->parts = p;
        if (p->next) p->next->previous = p;
    }
    free(old);
    t->parts = parts;
    t->partitions = partitions;
    return BW_OK;
}

static void topic_free(bw_group *g, bw_group_topic *t)
{
    HASH_DEL(g->topics, t);
    g->topic_count--;
    free(t->parts);
    free(t->name);
    free(t);
}

void bw_group_topic_drop_unused(bw_group *g, bw_group_topic *t)
{
    if (!t->subscribers && !t->owned) topic_free(g, t);
}

bw_err bw_group_topic_intern(bw_group *g, bw_uuid id, bw_str name, uint32_t partitions, bw_group_topic **out)
{
    bw_group_topic *t = bw_group_topic_named(g, name);
    bw_err e = BW_OK;
    if (!t) {
        t = calloc(1, sizeof *t);
        if (!t || !(t->name = bw_group_dup(name))) {
            free(t);
            return bw_fail(BW_ERR_NO_MEMORY, "no memory for topic %.*s in group %s", BW_STR_ARG(name), g->id);
        }
        t->id = id;
        HASH_ADD_KEYPTR(hh, g->topics, t->name, name.len, t);
        if (t->not_hashed) {
            free(t->name);
            free(t);
            return bw_fail(BW_ERR_NO_MEMORY, "no memory for topic %.*s in group %s", BW_STR_ARG(name), g->id);
        }
        g->topic_count++;
        e = grow(g, t, partitions);
        if (e) topic_free(g, t);
    } else if (partitions > t->partitions) {
        e = grow(g, t, partitions);
    }
    *out = e ? NULL : t;
    return e;
}

/* Everybody who had part of it has not any more; it was deleted, so nobody's answer is waited for. */
static void topic_lost(bw_group *g, bw_group_topic *t)
{
    for (uint32_t i = 0; i < t->partitions; i++) {
        bw_group_part *p = &t->parts[i];
        bw_member *m = p->owner;
        p->target = NULL;
        if (!m) continue;
        bw_part_free_owner(g, p);
        bw_member_touch(g, m, true);
    }
}

void bw_group_topic_gone(bw_group *g, const bw_uuid *id, int64_t now_ms)
{
    bw_group_topic *t, *next;
    HASH_ITER(hh, g->topics, t, next) {
        if (!bw_uuid_equal(&t->id, id)) continue;
        for (uint32_t i = 0; t->subscribers && i < g->member_count; i++) {
            bw_member *m = g->members[i];
            for (size_t k = 0; k < m->topic_count; k++) {
                if (m->topics[k] != t) continue;
                m->topics[k] = m->topics[--m->topic_count];
                t->subscribers--;
                bw_member_touch(g, m, g->kind == BW_GROUP_QUEUE);
                break;
            }
        }
        topic_lost(g, t);
        bw_group_topic_drop_unused(g, t);
        bw_group_assign_soon(g, now_ms);
        return;
    }
}

bw_err bw_group_topic_grown(bw_group *g, const bw_uuid *id, uint32_t partitions, int64_t now_ms)
{
    bw_group_topic *t, *next;
    HASH_ITER(hh, g->topics, t, next) {
        if (!bw_uuid_equal(&t->id, id) || partitions <= t->partitions) continue;
        bw_err e = grow(g, t, partitions);
        if (e) return e;
        for (uint32_t i = 0; g->kind == BW_GROUP_QUEUE && i < g->member_count; i++)
            for (size_t k = 0; k < g->members[i]->topic_count; k++)
                if (g->members[i]->topics[k] == t) bw_member_touch(g, g->members[i], true);
        bw_group_assign_soon(g, now_ms);
        return BW_OK;
    }
    return BW_OK;
}

static bool has(bw_group_topic *const *list, size_t count, const bw_group_topic *t)
{
    for (size_t i = 0; i < count; i++)
        if (list[i] == t) return true;
    return false;
}

static int by_address(const void *a, const void *b)
{
    const bw_group_topic *x = *(bw_group_topic *const *)a, *y = *(bw_group_topic *const *)b;
    return x < y ? -1 : x > y;
}

static void unsubscribe(bw_group *g, bw_group_topic **list, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        list[i]->subscribers--;
        bw_group_topic_drop_unused(g, list[i]);
    }
}

bw_err bw_group_topics_set(bw_group *g, bw_member *m, const bw_topic_view *topics, size_t count, bool *changed, int64_t now_ms)
{
    bw_group_topic **list = malloc((count + 1) * sizeof *list);
    size_t n = 0;
    if (!list) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a subscription to %zu topics", count);
    for (size_t i = 0; i < count; i++) {
        bw_group_topic *t = bw_group_topic_named(g, bw_str_of(topics[i].name));
        if (t && !bw_uuid_equal(&t->id, &topics[i].id)) { /* another topic of that name: the one before is gone */
            bw_uuid old = t->id;
            for (size_t k = 0; k < n; k++) /* named twice, with two lives: the later one counts */
                if (list[k] == t) list[k--] = list[--n], t->subscribers--;
            bw_group_topic_gone(g, &old, now_ms);
        }
        bw_err e = bw_group_topic_intern(g, topics[i].id, bw_str_of(topics[i].name), topics[i].partitions, &t);
        if (e) {
            unsubscribe(g, list, n);
            free(list);
            return e;
        }
        t->subscribers++;
        list[n++] = t;
    }
    qsort(list, n, sizeof *list, by_address);
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        if (kept && list[kept - 1] == list[i]) list[i]->subscribers--;
        else list[kept++] = list[i];
    }
    *changed = kept != m->topic_count;
    for (size_t i = 0; !*changed && i < kept; i++) *changed = !has(m->topics, m->topic_count, list[i]);
    bw_group_topic **old = m->topics;
    size_t old_count = m->topic_count;
    m->topics = list;
    m->topic_count = kept;
    unsubscribe(g, old, old_count);
    free(old);
    return BW_OK;
}

void bw_group_topics_leave(bw_group *g, bw_member *m)
{
    unsubscribe(g, m->topics, m->topic_count);
    m->topic_count = 0;
}
