/* broker/queue_delay.c: see queue_delay.h. */
#include "broker/queue_delay.h"

#include "base/err.h"

#include <stdlib.h>

/* ---- the header ---- */

static bool all_digits(const uint8_t *p, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (p[i] < '0' || p[i] > '9') return false;
    return true;
}

bool bw_deliver_at_parse(const void *value, size_t len, int64_t *ms)
{
    const uint8_t *p = value;
    if (!p || !len || len > 19) return false;
    if (!all_digits(p, len)) { /* eight digits as a number would be a time that no calendar has */
        uint64_t v = len == 8 ? bw_get_be64(p) : UINT64_MAX;
        if (v > INT64_MAX) return false;
        *ms = (int64_t)v;
        return true;
    }
    uint64_t v = 0;
    for (size_t i = 0; i < len; i++) v = v * 10 + (uint64_t)(p[i] - '0'); /* 19 digits fit */
    if (v > INT64_MAX) return false;
    *ms = (int64_t)v;
    return true;
}

bool bw_deliver_at(const bw_record_view *record, int64_t *ms)
{
    if (!record->header_count) return false;
    bw_header_iter it;
    bw_header h;
    bw_header_iter_init(&it, record);
    while (bw_header_iter_next(&it, &h) == 1)
        if (h.name_len == sizeof BW_DELAY_HEADER - 1 && !memcmp(h.name, BW_DELAY_HEADER, h.name_len))
            return bw_deliver_at_parse(h.value, h.value_len, ms);
    return false;
}

/* ---- the heap ---- */

#define NEVER (bw_delay){.due_ms = INT64_MAX, .offset = INT64_MAX}

void bw_delays_init(bw_delays *d, bool all)
{
    memset(d, 0, sizeof *d);
    d->horizon = all ? NEVER : (bw_delay){.due_ms = INT64_MIN, .offset = INT64_MIN};
}

void bw_delays_fini(bw_delays *d)
{
    free(d->heap);
    memset(d, 0, sizeof *d);
}

static void sift_up(bw_delay *h, uint32_t i)
{
    bw_delay item = h[i];
    while (i && bw_delay_before(&item, &h[(i - 1) / 2])) {
        h[i] = h[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    h[i] = item;
}

static void sift_down(bw_delay *h, uint32_t count)
{
    uint32_t i = 0;
    bw_delay item = h[0];
    for (;;) {
        uint32_t child = 2 * i + 1;
        if (child >= count) break;
        if (child + 1 < count && bw_delay_before(&h[child + 1], &h[child])) child++;
        if (!bw_delay_before(&h[child], &item)) break;
        h[i] = h[child];
        i = child;
    }
    h[i] = item;
}

static int by_time(const void *x, const void *y)
{
    const bw_delay *a = x, *b = y;
    return bw_delay_before(a, b) ? -1 : bw_delay_before(b, a);
}

/* Sorted ascending is a heap too. */
static void halve(bw_delays *d)
{
    qsort(d->heap, d->count, sizeof *d->heap, by_time);
    d->count /= 2;
    d->horizon = d->heap[d->count];
}

bw_err bw_delays_add(bw_delays *d, bw_delay item)
{
    if (!bw_delay_before(&item, &d->horizon)) return BW_OK;
    if (!d->heap && !(d->heap = malloc(BW_DELAY_HEAP * sizeof *d->heap))) return bw_fail(BW_ERR_NO_MEMORY, "no memory for delayed records");
    if (d->count == BW_DELAY_HEAP) {
        halve(d);
        if (!bw_delay_before(&item, &d->horizon)) return BW_OK;
    }
    d->heap[d->count] = item;
    sift_up(d->heap, d->count++);
    return BW_OK;
}

const bw_delay *bw_delays_first(const bw_delays *d) { return d->count ? &d->heap[0] : NULL; }

void bw_delays_pop(bw_delays *d)
{
    if (!d->count) return;
    d->heap[0] = d->heap[--d->count];
    if (d->count) sift_down(d->heap, d->count);
}

void bw_delays_refill_begin(bw_delays *d, bw_delay *old_horizon)
{
    *old_horizon = d->horizon;
    d->horizon = NEVER; /* unless offer finds that there is more */
}

bool bw_delays_refill_offer(bw_delays *d, const bw_delay *old_horizon, bw_delay item)
{
    if (bw_delay_before(&item, old_horizon)) return true;
    if (d->count < BW_DELAY_FULL && bw_delays_add(d, item) == BW_OK) return true;
    d->horizon = item;
    return false;
}
