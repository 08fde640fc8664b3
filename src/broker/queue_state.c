/* broker/queue_state.c: see queue_state.h.
 *
 * The counters `available`, `acquired`, `dying` count window and late together; move() is the only place that changes a mark, so that they
 * are right. Late records are few (what is acquired is bounded, and due ones are admitted only while there is room for them), so that
 * an insertion in the middle is cheap. */
#include "broker/queue_state.h"

#include "base/err.h"

#include <stdlib.h>

#define FIRST_CAP 64u

static bw_queue_entry *at(const bw_queue_state *s, int64_t offset) { return &s->ring[(uint64_t)offset & (s->cap - 1)]; }

void bw_queue_state_init(bw_queue_state *s, int64_t start)
{
    memset(s, 0, sizeof *s);
    s->start = s->end = s->available_from = start;
}

void bw_queue_state_fini(bw_queue_state *s)
{
    free(s->ring);
    free(s->late);
    free(s->gone);
    memset(s, 0, sizeof *s);
}

/* ---- marks ---- */

static uint32_t *count_of(bw_queue_state *s, uint8_t mark)
{
    return mark == BW_QUEUE_AVAILABLE ? &s->available : mark == BW_QUEUE_ACQUIRED ? &s->acquired : &s->dying;
}

static void move(bw_queue_state *s, bw_queue_entry *e, bw_queue_mark to)
{
    if (e->mark != BW_QUEUE_SETTLED) --*count_of(s, e->mark);
    if (e->mark == BW_QUEUE_DYING && !e->taken) s->untaken--;
    e->mark = (uint8_t)to;
    e->taken = false;
    if (to != BW_QUEUE_SETTLED) ++*count_of(s, e->mark);
    if (to == BW_QUEUE_DYING) s->untaken++;
    e->changed = true;
}

static void raise_start(bw_queue_state *s)
{
    while (s->start < s->end && at(s, s->start)->mark == BW_QUEUE_SETTLED) s->start++;
    if (s->available_from < s->start) s->available_from = s->start;
}

/* The first late record at or above offset. */
static uint32_t late_at(const bw_queue_state *s, int64_t offset)
{
    uint32_t low = 0, high = s->late_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (s->late[middle].offset < offset) low = middle + 1;
        else high = middle;
    }
    return low;
}

bw_queue_entry *bw_queue_state_find(const bw_queue_state *s, int64_t offset, bool *late)
{
    uint32_t i = late_at(s, offset);
    bool is_late = i < s->late_count && s->late[i].offset == offset;
    if (late) *late = is_late;
    if (is_late) return &s->late[i].entry;
    return offset >= s->start && offset < s->end ? at(s, offset) : NULL;
}

static void settle(bw_queue_state *s, int64_t offset, bw_queue_entry *e, bool late)
{
    move(s, e, BW_QUEUE_SETTLED);
    if (late) {
        uint32_t i = late_at(s, offset);
        s->gone[s->gone_count++] = (bw_queue_gone){s->late[i].due_ms, offset}; /* there is room: admit_late made it */
        memmove(&s->late[i], &s->late[i + 1], (--s->late_count - i) * sizeof *s->late);
        if (i < s->late_from) s->late_from--;
    } else if (offset == s->start) {
        raise_start(s);
    }
}

static void make_available(bw_queue_state *s, int64_t offset, bw_queue_entry *e, bool late)
{
    move(s, e, BW_QUEUE_AVAILABLE);
    e->member = 0;
    if (!late && offset < s->available_from) s->available_from = offset;
    uint32_t i = late ? late_at(s, offset) : s->late_from;
    if (i < s->late_from) s->late_from = i;
}

/* Its delivery came to nothing. */
static void give_back(bw_queue_state *s, int64_t offset, bw_queue_entry *e, bool late, bw_queue_rules rules)
{
    if (rules.max_deliveries && e->deliveries >= rules.max_deliveries) {
        e->reason = BW_QUEUE_WORN_OUT;
        if (rules.archive) {
            s->archived++;
            settle(s, offset, e, late);
        } else {
            move(s, e, BW_QUEUE_DYING);
        }
    } else {
        make_available(s, offset, e, late);
    }
}

/* ---- growing ---- */

static bw_err grow(bw_queue_state *s, uint64_t span)
{
    if (span > BW_QUEUE_SPAN_MAX) return BW_ERR_LIMIT_REACHED;
    if (span <= s->cap) return BW_OK;
    uint32_t cap = s->cap ? s->cap : FIRST_CAP;
    while (cap < span) cap *= 2;
    bw_queue_entry *ring = calloc(cap, sizeof *ring);
    if (!ring) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a queue's window");
    for (int64_t o = s->start; o < s->end; o++) ring[(uint64_t)o & (cap - 1)] = *at(s, o);
    free(s->ring);
    s->ring = ring;
    s->cap = cap;
    return BW_OK;
}

bw_err bw_queue_state_skip(bw_queue_state *s, int64_t upto)
{
    if (upto <= s->end) return BW_OK;
    if (s->start == s->end) { /* nothing in the window: no room is needed */
        s->start = s->end = s->available_from = upto;
        return BW_OK;
    }
    bw_err e = grow(s, (uint64_t)(upto - s->start));
    if (e) return e;
    for (; s->end < upto; s->end++) *at(s, s->end) = (bw_queue_entry){.mark = BW_QUEUE_SETTLED};
    return BW_OK;
}

bw_err bw_queue_state_admit(bw_queue_state *s, int64_t offset)
{
    int64_t from = s->start == s->end ? offset : s->start;
    bw_err e = grow(s, (uint64_t)(offset - from) + 1);
    if (e) return e;
    (void)bw_queue_state_skip(s, offset);
    *at(s, offset) = (bw_queue_entry){.mark = BW_QUEUE_AVAILABLE};
    s->end = offset + 1;
    s->available++;
    if (offset < s->available_from) s->available_from = offset;
    return BW_OK;
}

bw_err bw_queue_state_admit_late(bw_queue_state *s, int64_t offset, int64_t due_ms, uint16_t deliveries, uint8_t reason)
{
    if (s->late_count == s->late_cap) {
        uint32_t cap = s->late_cap ? s->late_cap * 2 : FIRST_CAP;
        bw_queue_late *grown = realloc(s->late, cap * sizeof *grown);
        if (!grown) return bw_fail(BW_ERR_NO_MEMORY, "no memory for due records");
        s->late = grown;
        s->late_cap = cap;
    }
    if (s->gone_count + s->late_count + 1 > s->gone_cap) {
        uint32_t cap = s->gone_count + s->late_cap + FIRST_CAP;
        bw_queue_gone *grown = realloc(s->gone, cap * sizeof *grown);
        if (!grown) return bw_fail(BW_ERR_NO_MEMORY, "no memory for due records");
        s->gone = grown;
        s->gone_cap = cap;
    }
    uint32_t i = late_at(s, offset);
    if (i < s->late_count && s->late[i].offset == offset) return BW_ERR_INVALID_ARGUMENT;
    memmove(&s->late[i + 1], &s->late[i], (s->late_count++ - i) * sizeof *s->late);
    s->late[i] = (bw_queue_late){.offset = offset, .due_ms = due_ms, .entry = {.mark = BW_QUEUE_AVAILABLE, .deliveries = deliveries}};
    s->available++;
    if (i < s->late_from) s->late_from = i;
    if (!reason) return BW_OK;
    s->late[i].entry.reason = reason & 0xf;
    move(s, &s->late[i].entry, BW_QUEUE_DYING);
    return BW_OK;
}

/* ---- the log's ends ---- */

void bw_queue_state_lose(bw_queue_state *s, int64_t offset)
{
    bool late;
    bw_queue_entry *e = bw_queue_state_find(s, offset, &late);
    if (!e || e->mark == BW_QUEUE_SETTLED) return;
    s->lost++;
    settle(s, offset, e, late);
}

void bw_queue_state_trim(bw_queue_state *s, int64_t log_start)
{
    for (int64_t o = s->start; o < s->end && o < log_start; o++)
        if (at(s, o)->mark == BW_QUEUE_AVAILABLE) bw_queue_state_lose(s, o);
    while (s->late_count) { /* the lowest first; it goes from the list */
        uint32_t i = 0;
        while (i < s->late_count && s->late[i].offset < log_start && s->late[i].entry.mark != BW_QUEUE_AVAILABLE) i++;
        if (i == s->late_count || s->late[i].offset >= log_start) break;
        bw_queue_state_lose(s, s->late[i].offset);
    }
}

void bw_queue_state_cut(bw_queue_state *s, int64_t end)
{
    for (int64_t o = end > s->start ? end : s->start; o < s->end; o++) move(s, at(s, o), BW_QUEUE_SETTLED);
    while (s->late_count && s->late[s->late_count - 1].offset >= end)
        settle(s, s->late[s->late_count - 1].offset, &s->late[s->late_count - 1].entry, true);
    if (s->end > end) s->end = end;
    if (s->start > end) s->start = end;
    if (s->available_from > end) s->available_from = end;
    raise_start(s);
}

/* ---- handing out ---- */

bool bw_queue_state_next(bw_queue_state *s, int64_t *offset, const bw_queue_entry **entry)
{
    if (!s->available) return false;
    for (; s->late_from < s->late_count; s->late_from++) {
        const bw_queue_late *l = &s->late[s->late_from];
        if (l->entry.mark != BW_QUEUE_AVAILABLE) continue;
        *offset = l->offset;
        *entry = &l->entry;
        return true;
    }
    for (; s->available_from < s->end; s->available_from++) {
        if (at(s, s->available_from)->mark != BW_QUEUE_AVAILABLE) continue;
        *offset = s->available_from;
        *entry = at(s, s->available_from);
        return true;
    }
    return false;
}

bool bw_queue_state_acquire(bw_queue_state *s, int64_t offset, uint32_t member, int64_t lease_ns, uint16_t max)
{
    bw_queue_entry *e = bw_queue_state_find(s, offset, NULL);
    if (!e || e->mark != BW_QUEUE_AVAILABLE) return false;
    if (max && e->deliveries >= max) { /* read back from a life that ended while it was out for the last time */
        e->reason = BW_QUEUE_WORN_OUT;
        move(s, e, BW_QUEUE_DYING);
        return false;
    }
    move(s, e, BW_QUEUE_ACQUIRED);
    e->member = member;
    e->lease_ns = lease_ns;
    if (e->deliveries < UINT16_MAX) e->deliveries++;
    return true;
}

static bool is_its(const bw_queue_entry *e, uint32_t member)
{
    if (member) return e->mark == BW_QUEUE_ACQUIRED && e->member == member;
    return e->mark == BW_QUEUE_ACQUIRED || e->mark == BW_QUEUE_AVAILABLE;
}

bool bw_queue_state_ack(bw_queue_state *s, int64_t offset, uint32_t member, bw_queue_verb verb, int64_t lease_ns, bw_queue_rules rules)
{
    bool late;
    bw_queue_entry *e = bw_queue_state_find(s, offset, &late);
    if (!e || !is_its(e, member)) return false;
    switch (verb) {
    case BW_QUEUE_ACCEPT:
        s->acknowledged++;
        settle(s, offset, e, late);
        return true;
    case BW_QUEUE_REJECT:
        e->reason = BW_QUEUE_REJECTED;
        if (rules.archive) {
            s->archived++;
            settle(s, offset, e, late);
        } else {
            move(s, e, BW_QUEUE_DYING);
        }
        return true;
    case BW_QUEUE_RETURN:
        if (e->mark != BW_QUEUE_ACQUIRED) return false;
        e->deliveries--;
        make_available(s, offset, e, late);
        return true;
    case BW_QUEUE_RELEASE:
        if (e->mark != BW_QUEUE_ACQUIRED) return false;
        s->released++;
        give_back(s, offset, e, late, rules);
        return true;
    case BW_QUEUE_RENEW:
        if (e->mark != BW_QUEUE_ACQUIRED) return false;
        e->lease_ns = lease_ns;
        return true;
    }
    return false;
}

/* ---- members and leases ---- */

typedef bool (*entry_test)(const bw_queue_entry *e, int64_t arg);
static bool is_of(const bw_queue_entry *e, int64_t member) { return e->member == (uint32_t)member; }
static bool is_over(const bw_queue_entry *e, int64_t now_ns) { return e->lease_ns <= now_ns; }

static uint32_t give_back_all(bw_queue_state *s, entry_test test, int64_t arg, bw_queue_rules rules)
{
    uint32_t n = 0, left = s->acquired;
    for (uint32_t i = s->late_count; i-- > 0 && left;) { /* from above: one that is settled leaves the list */
        bw_queue_entry *e = &s->late[i].entry;
        if (e->mark != BW_QUEUE_ACQUIRED) continue;
        left--;
        if (!test(e, arg)) continue;
        give_back(s, s->late[i].offset, e, true, rules);
        n++;
    }
    for (int64_t o = s->start; o < s->end && left; o++) {
        bw_queue_entry *e = at(s, o);
        if (e->mark != BW_QUEUE_ACQUIRED) continue;
        left--;
        if (!test(e, arg)) continue;
        give_back(s, o, e, false, rules);
        n++;
    }
    return n;
}

uint32_t bw_queue_state_drop(bw_queue_state *s, uint32_t member, bw_queue_rules rules)
{
    return give_back_all(s, is_of, member, rules);
}

uint32_t bw_queue_state_expire(bw_queue_state *s, int64_t now_ns, bw_queue_rules rules, int64_t *next)
{
    uint32_t n = give_back_all(s, is_over, now_ns, rules), left = s->acquired;
    s->expired += n;
    *next = INT64_MAX;
    for (uint32_t i = 0; i < s->late_count && left; i++) {
        const bw_queue_entry *e = &s->late[i].entry;
        if (e->mark != BW_QUEUE_ACQUIRED) continue;
        left--;
        if (e->lease_ns < *next) *next = e->lease_ns;
    }
    for (int64_t o = s->start; o < s->end && left; o++) {
        const bw_queue_entry *e = at(s, o);
        if (e->mark != BW_QUEUE_ACQUIRED) continue;
        left--;
        if (e->lease_ns < *next) *next = e->lease_ns;
    }
    return n;
}

/* ---- dead letters ---- */

bool bw_queue_state_dying(const bw_queue_state *s, int64_t from, int64_t *offset, const bw_queue_entry **entry)
{
    if (!s->untaken) return false;
    uint32_t i = late_at(s, from);
    while (i < s->late_count && (s->late[i].entry.mark != BW_QUEUE_DYING || s->late[i].entry.taken)) i++;
    int64_t late = i < s->late_count ? s->late[i].offset : INT64_MAX;
    for (int64_t o = from > s->start ? from : s->start; o < s->end && o < late; o++) {
        const bw_queue_entry *e = at(s, o);
        if (e->mark != BW_QUEUE_DYING || e->taken) continue;
        *offset = o;
        *entry = e;
        return true;
    }
    if (late == INT64_MAX) return false;
    *offset = late;
    *entry = &s->late[i].entry;
    return true;
}

void bw_queue_state_take(bw_queue_state *s, int64_t offset)
{
    bw_queue_entry *e = bw_queue_state_find(s, offset, NULL);
    if (!e || e->mark != BW_QUEUE_DYING || e->taken) return;
    e->taken = true;
    s->untaken--;
}

void bw_queue_state_untake(bw_queue_state *s, int64_t offset)
{
    bw_queue_entry *e = bw_queue_state_find(s, offset, NULL);
    if (!e || e->mark != BW_QUEUE_DYING || !e->taken) return;
    e->taken = false;
    s->untaken++;
}

void bw_queue_state_bury(bw_queue_state *s, int64_t offset)
{
    bool late;
    bw_queue_entry *e = bw_queue_state_find(s, offset, &late);
    if (!e || e->mark != BW_QUEUE_DYING) return;
    s->archived++;
    settle(s, offset, e, late);
}
