/* broker/assignor_sticky.c: the sticky assignment.
 *
 * 1. Claims: each partition stays with the member that had it in the newest generation, if he is there and subscribes.
 * 2. Where all subscribe to the same: each keeps at most his quota, what is over is dealt to those below theirs. Nothing else moves.
 * 3. Else: what nobody has goes to the subscriber with the least; then partitions are passed on from the fullest member along the
 *    cheapest chain (member, a partition of his, a subscriber of its topic, …) to one with at least two less, until there is none.
 *    A member from whom no such chain starts is settled, with everybody that can be reached from him: none of them has two less than
 *    the fullest, nor ever will, so they are not looked at again. What is left then is the most balanced assignment that there is
 *    (a semi-matching without a cost-reducing path is optimal).
 * 4. Partitions that were moved go home where that costs neither balance nor another partition its home. */
#include "broker/assignor_plan.h"

#include <stdlib.h>
#include <string.h>

typedef struct sticky {
    bw_assign_plan *plan;
    uint32_t *topic_of; /* partition -> topic */
    uint32_t *before;   /* partition -> the rank that may keep it, or BW_NOBODY */
    uint32_t *load;     /* rank -> partitions */
    uint32_t *next, *previous, *head; /* lists of each rank's partitions */
    /* one search */
    bool *settled, *topic_settled;
    uint32_t *seen, *topic_seen; /* number of the search that saw it last */
    uint32_t search;
    uint32_t *through; /* rank -> the partition by which it was reached */
    uint32_t *queue;
    uint32_t *heap;
} sticky;

static void give(sticky *s, uint32_t part, uint32_t rank)
{
    s->plan->owner[part] = rank;
    s->load[rank]++;
    s->previous[part] = BW_NOBODY;
    s->next[part] = s->head[rank];
    if (s->head[rank] != BW_NOBODY) s->previous[s->head[rank]] = part;
    s->head[rank] = part;
}

static void take(sticky *s, uint32_t part)
{
    uint32_t rank = s->plan->owner[part];
    if (s->previous[part] == BW_NOBODY) s->head[rank] = s->next[part];
    else s->next[s->previous[part]] = s->next[part];
    if (s->next[part] != BW_NOBODY) s->previous[s->next[part]] = s->previous[part];
    s->load[rank]--;
    s->plan->owner[part] = BW_NOBODY;
}

static bool subscribes(const bw_assign_plan *p, uint32_t rank, uint32_t topic)
{
    uint32_t low = p->sub_first[topic], high = p->sub_first[topic + 1];
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (p->subs[middle] < rank) low = middle + 1;
        else high = middle;
    }
    return low < p->sub_first[topic + 1] && p->subs[low] == rank;
}

/* The newest claim wins; of two in the same generation neither, unless a newer one comes. */
static bw_err claims(sticky *s)
{
    bw_assign_plan *p = s->plan;
    int32_t *generation = malloc(((size_t)p->part_count + 1) * sizeof *generation);
    if (!generation) return bw_fail(BW_ERR_NO_MEMORY, "no memory for an assignment of %u partitions", p->part_count);
    bool *claimed = calloc((size_t)p->part_count + 1, 1);
    for (uint32_t rank = 0; claimed && rank < p->member_count; rank++) {
        const bw_assign_member *m = &p->members[p->order[rank]];
        for (size_t i = 0; i < m->owned_count; i++) {
            bw_assign_part o = m->owned[i];
            if (o.topic >= p->topic_count || o.partition >= p->topics[o.topic].partitions || !subscribes(p, rank, o.topic)) continue;
            uint32_t part = p->first[o.topic] + o.partition;
            if (claimed[part] && generation[part] > m->generation) continue;
            bool both = claimed[part] && generation[part] == m->generation && s->before[part] != rank;
            claimed[part] = true;
            generation[part] = m->generation;
            s->before[part] = both ? BW_NOBODY : rank;
        }
    }
    free(generation);
    bool ok = claimed != NULL;
    free(claimed);
    return ok ? BW_OK : bw_fail(BW_ERR_NO_MEMORY, "no memory for an assignment of %u partitions", p->part_count);
}

static bool all_alike(const bw_assign_plan *p)
{
    for (uint32_t t = 0; t < p->topic_count; t++) {
        uint32_t n = bw_plan_subscribers(p, t);
        if (n && n != p->member_count) return false;
    }
    return true;
}

/* Everybody subscribes to the same: quotas. `extra` members have one more than the others. */
static void assign_alike(sticky *s)
{
    bw_assign_plan *p = s->plan;
    uint32_t total = 0, extra_used = 0, rank = 0;
    for (uint32_t t = 0; t < p->topic_count; t++)
        if (bw_plan_subscribers(p, t)) total += p->topics[t].partitions;
    uint32_t quota = total / p->member_count, extra = total % p->member_count;
    for (uint32_t part = 0; part < p->part_count; part++) {
        uint32_t owner = s->before[part];
        if (owner == BW_NOBODY || s->load[owner] > quota) continue;
        if (s->load[owner] == quota && extra_used++ >= extra) continue;
        give(s, part, owner);
    }
    if (extra_used > extra) extra_used = extra;
    /* Dealt one by one, so that the partitions of a topic are spread; first everybody to the quota. */
    uint32_t below = 0;
    for (uint32_t m = 0; m < p->member_count; m++)
        if (s->load[m] < quota) below += quota - s->load[m];
    for (uint32_t part = 0; part < p->part_count; part++) {
        if (p->owner[part] != BW_NOBODY || !bw_plan_subscribers(p, s->topic_of[part])) continue;
        while (below ? s->load[rank] >= quota : s->load[rank] > quota) rank = rank + 1 == p->member_count ? 0 : rank + 1;
        if (below) below--;
        give(s, part, rank);
        rank = rank + 1 == p->member_count ? 0 : rank + 1;
    }
}

/* ---- different subscriptions ---- */

static bool lighter(const sticky *s, uint32_t a, uint32_t b) { return s->load[a] != s->load[b] ? s->load[a] < s->load[b] : a < b; }

static void sift_down(const sticky *s, uint32_t count, uint32_t i)
{
    uint32_t *h = s->heap, moving = h[i];
    for (;;) {
        uint32_t child = 2 * i + 1;
        if (child >= count) break;
        if (child + 1 < count && lighter(s, h[child + 1], h[child])) child++;
        if (!lighter(s, h[child], moving)) break;
        h[i] = h[child];
        i = child;
    }
    h[i] = moving;
}

static int compare_choice(const void *a, const void *b, void *context)
{
    const bw_assign_plan *p = context;
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b, nx = bw_plan_subscribers(p, x), ny = bw_plan_subscribers(p, y);
    return nx != ny ? (nx < ny ? -1 : 1) : (x < y ? -1 : 1);
}

/* What nobody has goes to the subscriber with the least; topics with the fewest subscribers first. */
static bw_err fill(sticky *s)
{
    bw_assign_plan *p = s->plan;
    uint32_t *topics = malloc(((size_t)p->topic_count + 1) * sizeof *topics);
    if (!topics) return bw_fail(BW_ERR_NO_MEMORY, "no memory for an assignment of %u topics", p->topic_count);
    for (uint32_t t = 0; t < p->topic_count; t++) topics[t] = t;
    qsort_r(topics, p->topic_count, sizeof *topics, compare_choice, p);
    for (uint32_t k = 0; k < p->topic_count; k++) {
        uint32_t t = topics[k], n = bw_plan_subscribers(p, t);
        bool heaped = false;
        if (!n) continue;
        for (uint32_t part = p->first[t]; part < p->first[t + 1]; part++) {
            if (p->owner[part] != BW_NOBODY) continue;
            if (!heaped) {
                memcpy(s->heap, p->subs + p->sub_first[t], n * sizeof *s->heap);
                for (uint32_t i = n / 2; i-- > 0;) sift_down(s, n, i);
                heaped = true;
            }
            give(s, part, s->heap[0]);
            sift_down(s, n, 0);
        }
    }
    free(topics);
    return BW_OK;
}

/* Look at the subscribers of a partition that `from` could pass on. *best: the lightest with at least two less than `most`. */
static void look(sticky *s, uint32_t part, uint32_t most, uint32_t *tail, uint32_t *best)
{
    bw_assign_plan *p = s->plan;
    uint32_t t = s->topic_of[part];
    if (s->topic_settled[t] || s->topic_seen[t] == s->search) return;
    s->topic_seen[t] = s->search;
    for (uint32_t i = p->sub_first[t]; i < p->sub_first[t + 1]; i++) {
        uint32_t rank = p->subs[i];
        if (s->seen[rank] == s->search || s->settled[rank]) continue;
        s->seen[rank] = s->search;
        s->through[rank] = part;
        s->queue[(*tail)++] = rank;
        if (s->load[rank] + 2 <= most && (*best == BW_NOBODY || s->load[rank] < s->load[*best])) *best = rank;
    }
}

static void look_from(sticky *s, uint32_t rank, bool at_home, uint32_t most, uint32_t *tail, uint32_t *best)
{
    for (uint32_t part = s->head[rank]; part != BW_NOBODY; part = s->next[part])
        if ((s->before[part] == rank) == at_home) look(s, part, most, tail, best);
}

/* The chain from the fullest member that takes the fewest partitions from those who had them before: layer by layer, a layer is
 * everybody that can be reached at the same price. False: there is none, and everybody that was seen is settled. */
static bool pass_on(sticky *s, uint32_t from)
{
    uint32_t head = 0, tail = 0, best = BW_NOBODY, most = s->load[from];
    s->search++;
    s->seen[from] = s->search;
    s->through[from] = BW_NOBODY;
    s->queue[tail++] = from;
    while (head < tail && best == BW_NOBODY) {
        uint32_t i = head;
        for (; i < tail; i++) look_from(s, s->queue[i], false, most, &tail, &best);
        for (; head < i && best == BW_NOBODY; head++) look_from(s, s->queue[head], true, most, &tail, &best);
    }
    if (best == BW_NOBODY) {
        for (uint32_t i = 0; i < tail; i++) {
            s->settled[s->queue[i]] = true;
            for (uint32_t part = s->head[s->queue[i]]; part != BW_NOBODY; part = s->next[part]) s->topic_settled[s->topic_of[part]] = true;
        }
        return false;
    }
    while (best != from) {
        uint32_t part = s->through[best], giver = s->plan->owner[part];
        take(s, part);
        give(s, part, best);
        best = giver;
    }
    return true;
}

static void balance(sticky *s)
{
    bw_assign_plan *p = s->plan;
    for (;;) {
        uint32_t fullest = BW_NOBODY;
        for (uint32_t m = 0; m < p->member_count; m++)
            if (!s->settled[m] && (fullest == BW_NOBODY || s->load[m] > s->load[fullest])) fullest = m;
        if (fullest == BW_NOBODY) return;
        pass_on(s, fullest);
    }
}

/* The shortest chain by which `home` can get rid of one partition that nobody misses (its owner did not have it before), ending at
 * `here`, who gives one up for it, or at one who has one less than he: both leave the loads as balanced as they were. */
static uint32_t chain_end(sticky *s, uint32_t home, uint32_t here)
{
    bw_assign_plan *p = s->plan;
    uint32_t head = 0, tail = 0, wanted = s->load[here] - 1;
    s->search++;
    s->seen[home] = s->search;
    s->through[home] = BW_NOBODY;
    s->queue[tail++] = home;
    while (head < tail) {
        uint32_t rank = s->queue[head++];
        if (rank == here || s->load[rank] == wanted) return rank;
        for (uint32_t part = s->head[rank]; part != BW_NOBODY; part = s->next[part]) {
            uint32_t t = s->topic_of[part];
            if (s->before[part] == rank || s->topic_seen[t] == s->search) continue;
            s->topic_seen[t] = s->search;
            for (uint32_t i = p->sub_first[t]; i < p->sub_first[t + 1]; i++) {
                if (s->seen[p->subs[i]] == s->search) continue;
                s->seen[p->subs[i]] = s->search;
                s->through[p->subs[i]] = part;
                s->queue[tail++] = p->subs[i];
            }
        }
    }
    return BW_NOBODY;
}

/* Partitions that left a member which is still there go home where that costs no balance and no other its home. */
static void put_back(sticky *s)
{
    bw_assign_plan *p = s->plan;
    bool again = true;
    for (int pass = 0; again && pass < 4; pass++) {
        again = false;
        for (uint32_t part = 0; part < p->part_count; part++) {
            uint32_t home = s->before[part], here = p->owner[part];
            if (home == BW_NOBODY || here == home) continue;
            uint32_t at = chain_end(s, home, here);
            if (at == BW_NOBODY) continue;
            again = true;
            take(s, part);
            while (at != home) {
                uint32_t passed = s->through[at], giver = p->owner[passed];
                take(s, passed);
                give(s, passed, at);
                at = giver;
            }
            give(s, part, home);
        }
    }
}

static bw_err assign_different(sticky *s)
{
    for (uint32_t part = 0; part < s->plan->part_count; part++)
        if (s->before[part] != BW_NOBODY) give(s, part, s->before[part]);
    bw_err e = fill(s);
    if (e) return e;
    balance(s);
    put_back(s);
    return BW_OK;
}

static void *words(size_t count, int with)
{
    uint32_t *w = malloc((count + 1) * sizeof *w);
    if (w) memset(w, with, (count + 1) * sizeof *w);
    return w;
}

bw_err bw_assign_sticky(bw_assign_plan *p)
{
    sticky s = {.plan = p};
    if (!p->member_count) return BW_OK;
    s.topic_of = words(p->part_count, 0);
    s.before = words(p->part_count, 0xff);
    s.next = words(p->part_count, 0xff);
    s.previous = words(p->part_count, 0xff);
    s.load = words(p->member_count, 0);
    s.head = words(p->member_count, 0xff);
    s.seen = words(p->member_count, 0);
    s.through = words(p->member_count, 0);
    s.queue = words(p->member_count, 0);
    s.heap = words(p->member_count, 0);
    s.topic_seen = words(p->topic_count, 0);
    s.settled = calloc((size_t)p->member_count + 1, 1);
    s.topic_settled = calloc((size_t)p->topic_count + 1, 1);
    bw_err e = BW_OK;
    if (!s.topic_of || !s.before || !s.next || !s.previous || !s.load || !s.head || !s.seen || !s.through || !s.queue || !s.heap ||
        !s.topic_seen || !s.settled || !s.topic_settled)
        e = bw_fail(BW_ERR_NO_MEMORY, "no memory for an assignment of %u partitions to %u members", p->part_count, p->member_count);
    for (uint32_t t = 0; !e && t < p->topic_count; t++)
        for (uint32_t part = p->first[t]; part < p->first[t + 1]; part++) s.topic_of[part] = t;
    if (!e) e = claims(&s);
    if (!e && all_alike(p)) assign_alike(&s);
    else if (!e) e = assign_different(&s);
    void *all[] = {s.topic_of, s.before, s.next, s.previous, s.load, s.head, s.seen, s.through, s.queue, s.heap, s.topic_seen, s.settled,
                   s.topic_settled};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    return e;
}
