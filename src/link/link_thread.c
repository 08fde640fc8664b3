/* link/link_thread.c: a link's thread: both ends are opened, copied between until something ends it, closed; and again, later.
 *
 * Wherever it waits it can be told to leave (bw_stop): a link to a peer that does not answer is stopped at once, too.
 * An end that is lost is looked for again after 50 ms, then twice as long each time up to 5 s, a random half of it off; what is no loss
 * (a link to itself, a version, a right) is tried every 10 s: a person must do something, and may. */
#include "link/links_internal.h"

#include "base/lock.h"
#include "base/os.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { BACKOFF_MS = 50, BACKOFF_MOST_MS = 5000, WRONG_MS = 10000 };

static void set_state(bw_link *k, bw_link_state state)
{
    if (k->state != state) k->since_ms = bw_clock_wall_ms();
    k->state = state;
}

static void on_event(void *opaque, bw_log_level level, const char *event, const char *fields)
{
    bw_link *k = opaque;
    if (k->links->config->event) k->links->config->event(k->links->config->event_opaque, level, event, fields);
}

void bw_link_poke(bw_link *k)
{
    pthread_mutex_lock(&k->mutex);
    if (atomic_load(&k->stop) || atomic_load(&k->paused)) {
        atomic_store(&k->copy.stop, true);
        bw_stop_raise(&k->waits);
    }
    pthread_cond_broadcast(&k->cond);
    pthread_mutex_unlock(&k->mutex);
}

static bw_err run_once(bw_link *k)
{
    bw_endpoint *local = NULL, *peer = NULL;
    bw_err e = bw_endpoint_open_local(k->links->broker, &k->spec, &k->waits, &local);
    if (!e) e = bw_endpoint_open_peer(&k->spec, &k->waits, &peer);
    if (!e) e = bw_copy_run(&k->copy, local, peer);
    char why[512];
    snprintf(why, sizeof why, "%s", bw_error_message());
    k->copy.discard = true;
    if (peer) {
        peer->ops->drop(peer);
        peer->ops->close(peer);
    }
    if (local) local->ops->close(local);
    k->copy.discard = false;
    bw_copy_settle(&k->copy);
    return e ? bw_error_set_message(e, why) : BW_OK;
}

static void say_failure(bw_link *k, bw_err e, bool first)
{
    char fields[900], why[700];
    snprintf(fields, sizeof fields, "link=%s error=%s reason=%s", k->spec.name, bw_err_name(e), bw_event_text(k->message, why, sizeof why));
    if (first) on_event(k, BW_LOG_WARN, "link_down", fields);
}

/* With the mutex. */
static void wait_ms(bw_link *k, int64_t ms)
{
    bw_deadline until = bw_deadline_in_ms(ms);
    struct timespec t = {until / 1000000000, until % 1000000000};
    bool paused = atomic_load(&k->paused);
    while (!atomic_load(&k->stop) && atomic_load(&k->paused) == paused)
        if (pthread_cond_timedwait(&k->cond, &k->mutex, &t)) break;
}

static int64_t backoff_ms(const bw_link *k, bw_err e)
{
    bool lost = e == BW_ERR_NOT_CONNECTED || e == BW_ERR_TIMED_OUT || e == BW_ERR_NO_COORDINATOR || e == BW_ERR_IO || e == BW_ERR_BUSY;
    if (!lost) return WRONG_MS;
    int64_t ms = k->failures > 7 ? BACKOFF_MOST_MS : (int64_t)BACKOFF_MS << (k->failures - 1);
    uint32_t r = 0;
    (void)bw_os_random(&r, sizeof r);
    if (ms > BACKOFF_MOST_MS) ms = BACKOFF_MOST_MS;
    return ms / 2 + (int64_t)(r % (uint32_t)(ms / 2 + 1));
}

/* With the mutex; true: it came to stream. */
static void ended(bw_link *k, bw_err e, bool was_up)
{
    bool first = k->error != e;
    if (was_up) k->failures = 0;
    k->failures++;
    k->error = e;
    snprintf(k->message, sizeof k->message, "%s", bw_error_message());
    set_state(k, BW_LINK_WAITS);
    say_failure(k, e, first || was_up);
    wait_ms(k, backoff_ms(k, e));
}

static void *link_main(void *opaque)
{
    bw_link *k = opaque;
    pthread_mutex_lock(&k->mutex);
    while (!atomic_load(&k->stop)) {
        if (atomic_load(&k->paused)) {
            set_state(k, BW_LINK_PAUSED);
            k->error = BW_OK;
            wait_ms(k, 60000);
            continue;
        }
        set_state(k, BW_LINK_CONNECTS);
        atomic_store(&k->copy.stop, false);
        bw_stop_lower(&k->waits);
        uint64_t chunks = k->copy.chunks;
        k->connects++;
        pthread_mutex_unlock(&k->mutex);
        bw_err e = run_once(k);
        pthread_mutex_lock(&k->mutex);
        if (atomic_load(&k->copy.stop)) e = BW_OK; /* it was told to, and left what it waited for */
        if (e) ended(k, e, k->copy.chunks != chunks);
    }
    pthread_mutex_unlock(&k->mutex);
    atomic_store(&k->finished, true);
    return NULL;
}

bw_err bw_link_start(bw_link *k)
{
    bw_cond_init(&k->cond);
    pthread_mutex_init(&k->mutex, NULL);
    bw_copy_init(&k->copy, &k->spec);
    k->copy.event = on_event;
    k->copy.opaque = k;
    atomic_store(&k->paused, k->spec.paused);
    k->since_ms = bw_clock_wall_ms();
    bw_err e = bw_stop_init(&k->waits);
    if (!e) e = bw_broker_start_thread(&k->thread, link_main, k);
    k->runs = e == BW_OK;
    return e;
}
