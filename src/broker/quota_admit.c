/* broker/quota_admit.c: see quota_admit.h.
 *
 * Invariants: while a session holds requests or is muted its timer is set, GRAIN_NS later than its first bucket allows: nothing is lost by that,
 * since a bucket is charged from where it was paid, and many small requests go on together. A session's buckets are those of its generation. */
#include "broker/quota_admit.h"

#include "base/os.h"

#include <stdio.h>
#include <stdlib.h>

#define GRAIN_NS 1000000
#define NS_PER_MS 1000000

enum { HELD_PRODUCE = 0, HELD_OTHER = 1 };

static int64_t window_ns(const bw_broker *b) { return b->config.quota_window_ms * NS_PER_MS; }

/* ---- a session's buckets ---- */

static void drop_buckets(bw_broker *b, bw_session *s, int64_t now)
{
    for (int k = 0; k < BW_QUOTA_KINDS; k++) {
        if (s->throttle.buckets[k]) bw_quota_bucket_release(b->quotas, s->throttle.buckets[k], now);
        s->throttle.buckets[k] = NULL;
    }
}

static void refresh(bw_broker *b, bw_session *s)
{
    bw_throttle *t = &s->throttle;
    if (t->generation == bw_quotas_generation(b->quotas)) return;
    int64_t now = bw_clock_mono_ns();
    drop_buckets(b, s, now);
    bw_quota_name who = {.user = ""};
    if (s->peer.uid >= 0) snprintf(who.user, sizeof who.user, "%lld", (long long)s->peer.uid);
    if (s->peer.pid > 0) snprintf(who.pid, sizeof who.pid, "%d", (int)s->peer.pid);
    snprintf(who.client, sizeof who.client, "%s", s->client_id);
    for (int k = 0; k < BW_QUOTA_KINDS; k++) t->buckets[k] = bw_quotas_bucket(b->quotas, (bw_quota_kind)k, &who, now);
    t->generation = bw_quotas_generation(b->quotas);
}

void bw_quota_introduced(bw_session *s) { s->throttle.generation = 0; }

static int64_t wait_of(const bw_session *s, bw_quota_kind kind, int64_t now)
{
    bw_quota_bucket *q = s->throttle.buckets[kind];
    return q ? bw_bucket_wait_ns(bw_quota_bucket_of(q), now) : 0;
}

static void charge(bw_broker *b, bw_session *s, bw_quota_kind kind, int64_t now, uint64_t amount)
{
    bw_quota_bucket *q = s->throttle.buckets[kind];
    if (q) bw_bucket_charge(bw_quota_bucket_of(q), now, window_ns(b), amount);
}

/* ---- holding ---- */

static bool is_exempt(uint16_t type)
{
    switch (type) {
    case BW_API_HELLO:
    case BW_API_CREDIT:
    case BW_API_UNSUBSCRIBE:
    case BW_API_DETACH:
    case BW_API_REPORT:
    case BW_API_STATUS:
    case BW_API_PING:
    case BW_API_AUTHENTICATE:
    case BW_API_HANDOVER:
    case BW_API_GROUP_HEARTBEAT:
    case BW_API_HEARTBEAT:
    case BW_API_SET_QUOTA:
    case BW_API_LIST_QUOTAS: return true;
    default: return false;
    }
}

static int64_t op_wait(const bw_op *op, int64_t now)
{
    const bw_session *s = op->session;
    int64_t wait = wait_of(s, BW_QUOTA_REQUEST, now);
    int64_t bytes = 0;
    if (op->request.type == BW_API_PRODUCE) bytes = wait_of(s, BW_QUOTA_PRODUCE, now);
    if (op->request.type == BW_API_QUEUE_FETCH) bytes = wait_of(s, BW_QUOTA_CONSUME, now);
    return bytes > wait ? bytes : wait;
}

static void admit(bw_broker *b, bw_op *op, int64_t now)
{
    charge(b, op->session, BW_QUOTA_REQUEST, now, 1);
    if (op->request.type == BW_API_PRODUCE) charge(b, op->session, BW_QUOTA_PRODUCE, now, op->request.payload_len);
}

static void release_held(bw_broker *b, bw_session *s)
{
    bw_throttle *t = &s->throttle;
    for (int list = 0; list < 2; list++) {
        while (t->held[list]) {
            bw_op *op = t->held[list];
            int64_t now = bw_clock_mono_ns();
            if (op_wait(op, now)) break;
            t->held[list] = op->next;
            if (!op->next) t->held_last[list] = NULL;
            op->next = NULL;
            t->held_count--;
            int64_t ms = (now - op->held_ns + NS_PER_MS / 2) / NS_PER_MS;
            op->throttle_ms = ms > INT32_MAX ? INT32_MAX : (int32_t)ms;
            t->throttled_ms += (uint64_t)ms;
            admit(b, op, now);
            bw_broker_handle_admitted(b, op);
        }
    }
}

static bool arm(bw_broker *b, bw_session *s);

static void on_timer(void *broker, bw_timer *timer)
{
    bw_broker *b = broker;
    bw_session *s = (bw_session *)(void *)((char *)timer - offsetof(bw_session, throttle.timer));
    bw_throttle *t = &s->throttle;
    bw_session_ref(s);
    refresh(b, s);
    release_held(b, s);
    bw_produce_flush(b);
    int64_t now = bw_clock_mono_ns();
    if (!s->closed && t->muted_ns && !wait_of(s, BW_QUOTA_CONSUME, now)) {
        int64_t ms = (now - t->muted_ns + NS_PER_MS / 2) / NS_PER_MS;
        t->muted_ns = 0;
        t->told_ms = ms > INT32_MAX ? INT32_MAX : (int32_t)ms;
        t->throttled_ms += (uint64_t)ms;
        bw_session_writable(b, s);
    }
    if (!s->closed) arm(b, s);
    bw_session_unref(s);
}

/* Set the timer for what waits; false: it can't be. */
static bool arm(bw_broker *b, bw_session *s)
{
    bw_throttle *t = &s->throttle;
    int64_t now = bw_clock_mono_ns(), least = INT64_MAX;
    for (int list = 0; list < 2; list++) {
        int64_t wait = t->held[list] ? op_wait(t->held[list], now) : INT64_MAX;
        if (wait < least) least = wait;
    }
    if (t->muted_ns && wait_of(s, BW_QUOTA_CONSUME, now) < least) least = wait_of(s, BW_QUOTA_CONSUME, now);
    if (least == INT64_MAX) return true;
    if (t->timer.index && t->timer.at <= now + least + GRAIN_NS) return true;
    t->timer.fire = on_timer;
    return bw_timers_set(&b->timers, &t->timer, now + least + GRAIN_NS) == BW_OK;
}

bool bw_quota_hold(bw_broker *b, bw_op *op)
{
    bw_session *s = op->session;
    bw_throttle *t = &s->throttle;
    refresh(b, s);
    if (is_exempt(op->request.type)) return false;
    if (!t->buckets[BW_QUOTA_PRODUCE] && !t->buckets[BW_QUOTA_REQUEST] && !t->buckets[BW_QUOTA_CONSUME]) return false;
    int list = op->request.type == BW_API_PRODUCE ? HELD_PRODUCE : HELD_OTHER;
    int64_t now = bw_clock_mono_ns();
    if (!t->held[list] && !op_wait(op, now)) {
        admit(b, op, now);
        return false;
    }
    op->next = NULL;
    op->held_ns = now;
    bw_op *before = t->held_last[list];
    if (before) before->next = op;
    else t->held[list] = op;
    t->held_last[list] = op;
    t->held_count++;
    if (arm(b, s)) return true;
    t->held_last[list] = before; /* no memory for a timer: rather too early than never */
    if (before) before->next = NULL;
    else t->held[list] = NULL;
    t->held_count--;
    return false;
}

/* ---- sending ---- */

bool bw_quota_must_wait(bw_broker *b, bw_session *s)
{
    if (!bw_quotas_count(b->quotas) && !s->throttle.buckets[BW_QUOTA_CONSUME]) return false;
    refresh(b, s);
    int64_t now = bw_clock_mono_ns();
    if (!wait_of(s, BW_QUOTA_CONSUME, now)) return false;
    if (!s->throttle.muted_ns) s->throttle.muted_ns = now;
    if (arm(b, s)) return true;
    s->throttle.muted_ns = 0;
    return false;
}

void bw_quota_sent(bw_session *s, const bw_op *op, bw_answer *a)
{
    a->throttle_ms = op ? op->throttle_ms : 0;
    if (!s->throttle.buckets[BW_QUOTA_CONSUME] || (op && op->request.type != BW_API_FETCH && !a->payload_len)) return;
    if (s->throttle.told_ms > a->throttle_ms) a->throttle_ms = s->throttle.told_ms;
    s->throttle.told_ms = 0;
    if (a->payload_len) charge(s->broker, s, BW_QUOTA_CONSUME, bw_clock_mono_ns(), a->payload_len);
}

/* ---- the direct path ---- */

bw_err bw_quota_check_attach(bw_broker *b, bw_session *s, bool for_write)
{
    if (!bw_quotas_count(b->quotas)) return BW_OK;
    refresh(b, s);
    bw_quota_kind kind = for_write ? BW_QUOTA_PRODUCE : BW_QUOTA_CONSUME;
    bw_quota_bucket *q = s->throttle.buckets[kind];
    char whose[128];
    if (!q) return BW_OK;
    return bw_fail(BW_ERR_THROTTLED, "quota: %s = %lld of %s is kept on the socket; use transport=auto or ipc", bw_quota_kind_name(kind),
                   (long long)bw_quota_bucket_of(q)->rate, bw_quota_describe(bw_quota_bucket_name(q), whose, sizeof whose));
}

void bw_quota_session_closed(bw_broker *b, bw_session *s)
{
    bw_throttle *t = &s->throttle;
    bw_timers_clear(&b->timers, &t->timer);
    for (int list = 0; list < 2; list++) {
        while (t->held[list]) {
            bw_op *op = t->held[list];
            t->held[list] = op->next;
            bw_op_finish(op, NULL);
        }
        t->held_last[list] = NULL;
    }
    t->held_count = 0;
    t->muted_ns = 0;
    drop_buckets(b, s, bw_clock_mono_ns());
    t->generation = 0;
}

/* After a change: everyone's buckets anew, what waits is looked at, writers that are under a rate now are fenced. */
static void apply(bw_broker *b, const bw_quota_entry *set)
{
    uint32_t fenced = 0, readers = 0;
    for (bw_session *s = b->sessions; s; s = s->next) {
        refresh(b, s);
        if (s->throttle.buckets[BW_QUOTA_PRODUCE]) fenced += bw_attach_fence_writers(b, s);
        if (s->throttle.buckets[BW_QUOTA_CONSUME]) readers += bw_attach_readers(s);
        if (s->throttle.held_count || s->throttle.muted_ns) {
            s->throttle.timer.fire = on_timer;
            bw_timers_set(&b->timers, &s->throttle.timer, bw_clock_mono_ns());
        }
    }
    char whose[128], text[300];
    bw_broker_event(b, BW_LOG_INFO, "quota_set", "entity=%s producer_byte_rate=%lld consumer_byte_rate=%lld request_rate=%lld fenced_writers=%u "
                    "direct_readers=%u", bw_event_text(bw_quota_describe(&set->name, whose, sizeof whose), text, sizeof text),
                    (long long)set->rates[BW_QUOTA_PRODUCE], (long long)set->rates[BW_QUOTA_CONSUME], (long long)set->rates[BW_QUOTA_REQUEST],
                    fenced, readers);
}

/* ---- requests ---- */

static bw_err store(bw_broker *b, const bw_quota_entry *e)
{
    uint8_t key[BW_QUOTA_KEY_MAX], value[BW_QUOTA_VALUE_BYTES];
    bw_meta_change c = {.table = BW_TABLE_QUOTAS, .key = key, .key_len = bw_quota_key(&e->name, key)};
    bw_quota_value(e, value);
    if (e->rates[0] || e->rates[1] || e->rates[2]) {
        c.value = value;
        c.value_len = sizeof value;
    }
    return bw_store_change(b->store, &c, 1);
}

void bw_handle_set_quota(bw_broker *b, bw_op *op)
{
    const bw_request *r = &op->request;
    bw_quota_entry e = {.rates = {0}};
    bw_err err = bw_quota_name_of(&r->quota, &e.name);
    const bw_quota_entry *before = err ? NULL : bw_quotas_get(b->quotas, &e.name);
    if (before) e = *before;
    if (!err && !r->config_count)
        err = bw_fail(BW_ERR_INVALID_QUOTA, "no rate; allowed: producer_byte_rate, consumer_byte_rate, request_rate");
    if (!err) err = bw_quota_apply(&e, r->configs, r->config_count);
    if (!err && !before && bw_quotas_count(b->quotas) >= BW_QUOTAS_MAX)
        err = bw_fail(BW_ERR_LIMIT_REACHED, "there are %u quotas; remove some first", BW_QUOTAS_MAX);
    if (!err) err = store(b, &e);
    if (!err) err = bw_quotas_put(b->quotas, &e, bw_clock_mono_ns());
    if (err) {
        bw_op_fail(op, err);
        return;
    }
    apply(b, &e);
    bw_op_ok(op);
}

static bool load_one(void *opaque, const void *key, size_t key_len, const void *value, size_t value_len)
{
    bw_broker *b = opaque;
    bw_quota_entry e;
    char why[700];
    bw_err err = bw_quota_decode(key, key_len, value, value_len, &e);
    if (!err) err = bw_quotas_put(b->quotas, &e, 0);
    if (err) bw_broker_event(b, BW_LOG_ERROR, "quota_ignored", "reason=%s", bw_event_text(bw_error_message(), why, sizeof why));
    return true;
}

bw_err bw_quota_load(bw_broker *b)
{
    if (!(b->quotas = bw_quotas_new())) return bw_fail(BW_ERR_NO_MEMORY, "no memory for the quotas");
    return bw_store_each(b->store, BW_TABLE_QUOTAS, "", 0, load_one, b);
}
