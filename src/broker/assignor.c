/* broker/assignor.c: the order of members, the lists of subscribers, range and round robin. */
#include "broker/assignor_plan.h"

#include <stdlib.h>
#include <string.h>

static const char *const names[] = {"range", "roundrobin", "sticky", "cooperative-sticky"};

const char *bw_assignor_name(bw_assignor_kind kind) { return (size_t)kind < 4 ? names[kind] : "unknown"; }

bw_err bw_assignor_by_name(const char *name, size_t len, bw_assignor_kind *out)
{
    for (int i = 0; i < 4; i++)
        if (strlen(names[i]) == len && memcmp(names[i], name, len) == 0) {
            *out = (bw_assignor_kind)i;
            return BW_OK;
        }
    return bw_fail(BW_ERR_UNSUPPORTED_ASSIGNOR, "no assignor \"%.*s\": there are range, roundrobin, sticky and cooperative-sticky",
                   (int)(len > 64 ? 64 : len), name);
}

int bw_assign_compare_ids(const char *a, const char *b)
{
    const uint8_t *x = (const uint8_t *)a, *y = (const uint8_t *)b;
    while (*x && *x == *y) x++, y++;
    /* Characters of four bytes are pairs of surrogates in Java: before those that begin with 0xee and 0xef. */
    int cx = *x >= 0xee ? (*x >= 0xf0 ? 0xee : *x + 0x10) : *x, cy = *y >= 0xee ? (*y >= 0xf0 ? 0xee : *y + 0x10) : *y;
    return cx != cy ? cx - cy : (int)*x - (int)*y;
}

static int compare_members(const void *a, const void *b, void *context)
{
    const bw_assign_member *members = context, *x = &members[*(const uint32_t *)a], *y = &members[*(const uint32_t *)b];
    int c;
    if (x->instance && y->instance) c = bw_assign_compare_ids(x->instance, y->instance);
    else if (x->instance || y->instance) return x->instance ? -1 : 1;
    else c = bw_assign_compare_ids(x->id, y->id);
    return c ? c : (*(const uint32_t *)a < *(const uint32_t *)b ? -1 : 1);
}

static int compare_topics(const void *a, const void *b, void *context)
{
    const bw_assign_topic *topics = context;
    return bw_assign_compare_ids(topics[*(const uint32_t *)a].name, topics[*(const uint32_t *)b].name);
}

static void plan_free(bw_assign_plan *p)
{
    free(p->order);
    free(p->first);
    free(p->sub_first);
    free(p->subs);
    free(p->owner);
}

/* The lists of subscribers: members are gone through by rank, so that each list ascends; a topic named twice counts once. */
static bw_err plan_subscribers(bw_assign_plan *p)
{
    size_t total = 0;
    for (uint32_t m = 0; m < p->member_count; m++) total += p->members[m].topic_count;
    p->sub_first = calloc((size_t)p->topic_count + 2, sizeof *p->sub_first);
    p->subs = malloc((total + 1) * sizeof *p->subs);
    uint32_t *last = malloc(((size_t)p->topic_count + 1) * sizeof *last);
    if (!p->sub_first || !p->subs || !last) {
        free(last);
        return bw_fail(BW_ERR_NO_MEMORY, "no memory for an assignment of %u topics", p->topic_count);
    }
    for (int pass = 0; pass < 2; pass++) {
        memset(last, 0xff, ((size_t)p->topic_count + 1) * sizeof *last);
        for (uint32_t rank = 0; rank < p->member_count; rank++) {
            const bw_assign_member *m = &p->members[p->order[rank]];
            for (size_t i = 0; i < m->topic_count; i++) {
                uint32_t t = m->topics[i];
                if (t >= p->topic_count || last[t] == rank) continue;
                last[t] = rank;
                if (pass == 0) p->sub_first[t + 2]++;
                else p->subs[p->sub_first[t + 1]++] = rank;
            }
        }
        /* After the counts: sub_first[t + 1] is where the topic's list begins; after the second pass where it ends. */
        if (pass == 0)
            for (uint32_t t = 0; t < p->topic_count; t++) p->sub_first[t + 2] += p->sub_first[t + 1];
    }
    free(last);
    return BW_OK;
}

static bw_err plan_make(bw_assign_plan *p)
{
    uint64_t parts = 0;
    for (uint32_t t = 0; t < p->topic_count; t++) parts += p->topics[t].partitions;
    if (parts >= BW_NOBODY) return bw_fail(BW_ERR_INVALID_ARGUMENT, "%llu partitions in one group", (unsigned long long)parts);
    p->part_count = (uint32_t)parts;
    p->order = malloc(((size_t)p->member_count + 1) * sizeof *p->order);
    p->first = malloc(((size_t)p->topic_count + 1) * sizeof *p->first);
    p->owner = malloc(((size_t)parts + 1) * sizeof *p->owner);
    if (!p->order || !p->first || !p->owner) return bw_fail(BW_ERR_NO_MEMORY, "no memory for an assignment of %u partitions", p->part_count);
    p->first[0] = 0;
    for (uint32_t t = 0; t < p->topic_count; t++) p->first[t + 1] = p->first[t] + p->topics[t].partitions;
    for (uint32_t m = 0; m < p->member_count; m++) p->order[m] = m;
    qsort_r(p->order, p->member_count, sizeof *p->order, compare_members, (void *)p->members);
    for (uint32_t i = 0; i < p->part_count; i++) p->owner[i] = BW_NOBODY;
    return plan_subscribers(p);
}

static void assign_range(bw_assign_plan *p)
{
    for (uint32_t t = 0; t < p->topic_count; t++) {
        uint32_t n = bw_plan_subscribers(p, t), parts = p->topics[t].partitions, at = p->first[t];
        for (uint32_t i = 0; i < n; i++)
            for (uint32_t k = parts / n + (i < parts % n); k > 0; k--) p->owner[at++] = p->subs[p->sub_first[t] + i];
    }
}

/* The first subscriber of the topic at or after the rank, going round. */
static uint32_t next_subscriber(const bw_assign_plan *p, uint32_t topic, uint32_t rank)
{
    uint32_t low = p->sub_first[topic], end = p->sub_first[topic + 1], high = end;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (p->subs[middle] < rank) low = middle + 1;
        else high = middle;
    }
    return p->subs[low < end ? low : p->sub_first[topic]];
}

static bw_err assign_roundrobin(bw_assign_plan *p)
{
    uint32_t *by_name = malloc(((size_t)p->topic_count + 1) * sizeof *by_name), cursor = 0;
    if (!by_name) return bw_fail(BW_ERR_NO_MEMORY, "no memory for an assignment of %u topics", p->topic_count);
    for (uint32_t t = 0; t < p->topic_count; t++) by_name[t] = t;
    qsort_r(by_name, p->topic_count, sizeof *by_name, compare_topics, (void *)p->topics);
    for (uint32_t i = 0; i < p->topic_count; i++) {
        uint32_t t = by_name[i];
        if (!bw_plan_subscribers(p, t)) continue;
        for (uint32_t k = 0; k < p->topics[t].partitions; k++) {
            uint32_t rank = next_subscriber(p, t, cursor);
            p->owner[p->first[t] + k] = rank;
            cursor = rank + 1 == p->member_count ? 0 : rank + 1;
        }
    }
    free(by_name);
    return BW_OK;
}

bw_err bw_assign(bw_assignor_kind kind, const bw_assign_topic *topics, size_t topic_count, const bw_assign_member *members,
                 size_t member_count, uint32_t *owners)
{
    if (topic_count >= BW_NOBODY || member_count >= BW_NOBODY)
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "an assignment of %zu topics to %zu members", topic_count, member_count);
    bw_assign_plan p = {.topics = topics, .topic_count = (uint32_t)topic_count, .members = members, .member_count = (uint32_t)member_count};
    bw_err e = plan_make(&p);
    if (!e && kind == BW_ASSIGNOR_RANGE) assign_range(&p);
    else if (!e) e = kind == BW_ASSIGNOR_ROUNDROBIN ? assign_roundrobin(&p) : bw_assign_sticky(&p);
    for (uint32_t i = 0; !e && i < p.part_count; i++) owners[i] = p.owner[i] == BW_NOBODY ? BW_NOBODY : p.order[p.owner[i]];
    plan_free(&p);
    return e;
}
