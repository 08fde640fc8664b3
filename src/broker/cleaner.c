/* broker/cleaner.c: the cleaner thread: compacts partitions, one after the other. It is made when the first compacted topic is there.
 *
 * A round looks at every partition whose topic is compacted (log/compact.h says which is due; that is a look at memory), and cleans those
 * that are; while one had more than its map could hold, the next round follows at once, else after log.cleaner.backoff.ms. What it reads
 * and writes goes through a token bucket; it stops within a tenth of a second when the daemon or the topic goes. */
#include "broker/core.h"

#include "log/compact.h"

#include <stdlib.h>

enum { SLICE_MS = 100 };

typedef struct round_state {
    bw_broker *broker;
    bw_part *part;
    int64_t paid_until_ns; /* what was moved so far would have taken until then at the configured rate */
} round_state;

/* cleaner_lock held. Sleeps; true: the thread is to end. */
static bool nap(bw_broker *b, int64_t ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += ms / 1000;
    until.tv_nsec += ms % 1000 * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    if (!b->cleaner_stop) pthread_cond_timedwait(&b->cleaner_cond, &b->cleaner_lock, &until);
    return b->cleaner_stop;
}

static bool go_on(void *opaque, uint64_t bytes)
{
    round_state *r = opaque;
    bw_broker *b = r->broker;
    int64_t rate = b->config.cleaner_io_bytes, now = bw_clock_mono_ns();
    if (r->paid_until_ns < now) r->paid_until_ns = now;
    if (rate > 0) r->paid_until_ns += (int64_t)((double)bytes * 1e9 / (double)rate);
    _Atomic uint32_t *state = &r->part->topic->control->slots[r->part->index].state;
    pthread_mutex_lock(&b->cleaner_lock);
    bool stop = b->cleaner_stop;
    while (!stop && rate > 0 && (now = bw_clock_mono_ns()) < r->paid_until_ns && atomic_load(state) == BW_SLOT_OPEN) {
        int64_t ms = (r->paid_until_ns - now) / 1000000;
        if (ms == 0) break; /* paid with the next piece */
        stop = nap(b, ms < SLICE_MS ? ms : SLICE_MS);
    }
    pthread_mutex_unlock(&b->cleaner_lock);
    return !stop;
}

/* A locked partition, or segments that went meanwhile, are nothing to talk about. */
static void say_failed(bw_broker *b, bw_part *p, bw_err e)
{
    char why[700];
    if (e == BW_ERR_WOKEN || e == BW_ERR_BUSY || e == BW_ERR_DELETED || p->cleaning_failed) return;
    p->cleaning_failed = true;
    bw_broker_event(b, BW_LOG_ERROR, "compaction_failed", "topic=%s partition=%u error=%s reason=%s", p->topic->name, p->index, bw_err_name(e),
                    bw_event_text(bw_error_message(), why, sizeof why));
}

static void note_done(bw_broker *b, bw_part *p, const bw_compact_report *r, int64_t took_ms)
{
    p->cleaning_failed = false;
    bw_broker_event(b, BW_LOG_INFO, "compacted",
                    "topic=%s partition=%u upto=%lld dirty_ratio=%.3f bytes=%llu->%llu records=%llu->%llu segments=%u->%u keys=%llu ms=%lld",
                    p->topic->name, p->index, (long long)r->upto, r->dirty_ratio, (unsigned long long)r->bytes_before,
                    (unsigned long long)r->bytes_after, (unsigned long long)r->records_before, (unsigned long long)r->records_after,
                    r->segments_before, r->segments_after, (unsigned long long)r->keys, (long long)took_ms);
    pthread_mutex_lock(&b->cleaner_lock);
    if (!p->cleaned) p->cleaned = calloc(1, sizeof *p->cleaned);
    if (p->cleaned)
        *p->cleaned = (bw_cleaned){bw_clock_wall_ms(), took_ms, r->dirty_ratio, r->upto, r->bytes_before, r->bytes_after, r->records_before,
                                   r->records_after, p->cleaned->runs + 1};
    pthread_mutex_unlock(&b->cleaner_lock);
}

/* true: there is more of it to be cleaned now. */
static bool clean(bw_broker *b, bw_part *p)
{
    round_state round = {.broker = b, .part = p};
    bw_compact_options o = {.producer_expiration_ms = b->config.producer_id_expiration_ms,
                            .dedupe_bytes = (size_t)b->config.cleaner_dedupe_bytes,
                            .now_ms = bw_clock_wall_ms() - b->clock_ahead_ms,
                            .max_plain = b->config.socket_request_max_bytes,
                            .go_on = go_on,
                            .opaque = &round};
    bw_compact_report r;
    if (!bw_partition_compact_options(p->log, &o)) return false;
    int64_t began = bw_clock_mono_ms();
    bw_err e = bw_partition_compact(p->log, &o, &r);
    if (e && e != BW_ERR_EMPTY) say_failed(b, p, e);
    if (!e) note_done(b, p, &r, bw_clock_mono_ms() - began);
    return !e && r.map_full;
}

static bool is_stopping(bw_broker *b)
{
    pthread_mutex_lock(&b->cleaner_lock);
    bool stop = b->cleaner_stop;
    pthread_mutex_unlock(&b->cleaner_lock);
    return stop;
}

static bool clean_round(bw_broker *b)
{
    bw_part **parts;
    size_t n = bw_parts_hold(b, &parts);
    bool more = false;
    for (size_t i = 0; parts && i < n && !is_stopping(b); i++) more |= clean(b, parts[i]);
    bw_parts_drop(parts, parts ? n : 0);
    return more;
}

static void *cleaner_main(void *broker)
{
    bw_broker *b = broker;
    for (bool stop = false; !stop;) {
        bool more = clean_round(b);
        pthread_mutex_lock(&b->cleaner_lock);
        stop = b->cleaner_stop;
        if (!more && !stop && !b->cleaner_hurry) stop = nap(b, b->config.cleaner_backoff_ms);
        b->cleaner_hurry = false;
        pthread_mutex_unlock(&b->cleaner_lock);
    }
    return NULL;
}

void bw_cleaner_want(bw_broker *b)
{
    pthread_mutex_lock(&b->cleaner_lock);
    b->cleaner_hurry = true;
    pthread_cond_signal(&b->cleaner_cond);
    pthread_mutex_unlock(&b->cleaner_lock);
    if (b->cleaner_running) return;
    bw_err e = bw_broker_start_thread(&b->cleaner_thread, cleaner_main, b);
    b->cleaner_running = !e;
    if (e) bw_broker_event(b, BW_LOG_ERROR, "cleaner_not_started", "error=%s", bw_err_name(e)); /* the next compacted topic tries again */
}

void bw_cleaner_stop(bw_broker *b)
{
    if (!b->cleaner_running) return;
    pthread_mutex_lock(&b->cleaner_lock);
    b->cleaner_stop = true;
    pthread_cond_signal(&b->cleaner_cond);
    pthread_mutex_unlock(&b->cleaner_lock);
    pthread_join(b->cleaner_thread, NULL);
    b->cleaner_running = false;
}

bool bw_cleaner_get(bw_broker *b, const bw_part *p, bw_cleaned *out)
{
    pthread_mutex_lock(&b->cleaner_lock);
    bool there = p->cleaned != NULL;
    if (there) *out = *p->cleaned;
    pthread_mutex_unlock(&b->cleaner_lock);
    return there;
}
