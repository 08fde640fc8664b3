/* client/consumer_ipc.c: partitions read through the daemon: a connection of the consumer's own, a subscription a partition,
 * bytes pushed within the credit that was granted.
 *
 * DATA frames are queued as references into the receive buffers, in the order they came, and their batches are given in place.
 * Consumed bytes are granted again when half a window has gathered, so that the memory held is bounded by the windows. A frame of a
 * subscription that was given up is dropped when its turn comes. After a lost connection every partition is subscribed again from
 * the position of what was given last: what was queued is dropped, nothing is given twice. */
#include "client/consumer_group.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { RECONNECT_NAP_MS = 50, QUICK_CONNECT_MS = 200 };

/* ---- queue ---- */

static bw_item *item_get(bw_consumer *c)
{
    bw_item *item = c->spare;
    if (item) c->spare = item->next;
    else item = malloc(sizeof *item);
    if (item) memset(item, 0, sizeof *item);
    return item;
}

static void item_put(bw_consumer *c, bw_item *item)
{
    if (item->rx) bw_rx_unref(&c->conn, item->rx);
    free(item->message);
    item->message = NULL;
    item->next = c->spare;
    c->spare = item;
}

static bw_cpart *part_of(bw_consumer *c, uint32_t subscription)
{
    bw_cpart *p;
    HASH_FIND(by_subscription, c->subscribed, &subscription, sizeof subscription, p);
    return p;
}

/* What the daemon pushes; called by the pump. What can't be queued must not be passed over: the connection ends, and the partitions are
 * subscribed again from what was given last. */
static bool pushed(void *opaque, const bw_frame *frame, bw_rx *rx)
{
    bw_consumer *c = opaque;
    bw_answer a;
    memset(&a, 0, sizeof a);
    if (frame->type != BW_API_DATA) return !c->group || bw_group_pushed(c->group, frame);
    if (bw_answer_decode(frame, &a) != BW_OK) return false;
    bw_conn_throttled(&c->bus->conn, a.throttle_ms);
    bool wanted = part_of(c, a.subscription) != NULL;
    bw_item *item = wanted ? item_get(c) : NULL;
    if (item) {
        item->subscription = a.subscription;
        item->error = (bw_err)a.error;
        if (a.error) {
            item->message = a.message.len ? bw_text_copy(a.message.data, a.message.len) : NULL;
        } else {
            item->data = a.payload;
            item->len = a.payload_len;
            item->rx = rx;
            bw_rx_ref(rx);
        }
        *c->items_tail = item;
        c->items_tail = &item->next;
    }
    bw_answer_fini(&a);
    return item || !wanted;
}

static bw_item *items_pop(bw_consumer *c)
{
    bw_item *item = c->items;
    if (!item) return NULL;
    c->items = item->next;
    if (!c->items) c->items_tail = &c->items;
    item->next = NULL;
    return item;
}

static void drop_list(bw_consumer *c, bw_item *list)
{
    while (list) {
        bw_item *item = list;
        list = item->next;
        item_put(c, item);
    }
}

/* ---- subscriptions ---- */

static void tell_credit(bw_cpart *p)
{
    bw_consumer *c = p->consumer;
    bw_request q;
    bw_request_init(&q, BW_API_CREDIT);
    q.subscription = p->subscription;
    q.credit = p->owed;
    if (bw_conn_tell(&c->conn, &q) == BW_OK) p->owed = 0;
}

static void forget_subscription(bw_cpart *p, bool tell)
{
    bw_consumer *c = p->consumer;
    if (!p->subscription) return;
    if (tell && bw_conn_is_up(&c->conn)) {
        bw_request q;
        bw_request_init(&q, BW_API_UNSUBSCRIBE);
        q.subscription = p->subscription;
        bw_conn_tell(&c->conn, &q); /* the answer is of no interest */
    }
    HASH_DELETE(by_subscription, c->subscribed, p);
    p->subscription = 0;
    drop_list(c, p->held);
    p->held = NULL;
    p->held_tail = &p->held;
}

static bool take_subscription(bw_cpart *p)
{
    bw_consumer *c = p->consumer;
    p->subscription = c->next_subscription++;
    if (p->subscription == 0) p->subscription = c->next_subscription++;
    HASH_ADD(by_subscription, c->subscribed, subscription, sizeof p->subscription, p);
    if (p->by_subscription.tbl) return true;
    p->subscription = 0;
    return false;
}

static uint64_t window_of(const bw_consumer *c)
{
    uint64_t share = BW_FETCH_TOTAL / (c->ipc_count ? c->ipc_count : 1);
    if (share < BW_FETCH_LEAST) share = BW_FETCH_LEAST;
    return share < c->options.fetch_max_bytes ? share : c->options.fetch_max_bytes;
}

/* One SUBSCRIBE over a connection that is up. OFFSET_OUT_OF_RANGE comes as DATA; BEGINNING and END are resolved by the daemon. */
static bw_err subscribe_once(bw_cpart *p, int64_t offset, bw_deadline deadline)
{
    bw_consumer *c = p->consumer;
    forget_subscription(p, true);
    if (!take_subscription(p)) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a subscription");
    p->window = window_of(c);
    p->owed = 0;
    bw_request q;
    bw_request_init(&q, BW_API_SUBSCRIBE);
    q.subscription = p->subscription;
    q.topic = bw_str_of(p->topic);
    q.partition = p->partition;
    q.offset = offset;
    q.read_limit = (int8_t)c->options.read_limit;
    q.isolation = (int8_t)c->options.isolation;
    q.credit = p->window;
    bw_reply reply;
    bw_err e = bw_conn_request(&c->conn, &q, deadline, &reply);
    if (!e) p->position = reply.answer.offset;
    else forget_subscription(p, e == BW_ERR_TIMED_OUT);
    bw_reply_fini(&reply);
    return e;
}

bw_err bw_consumer_ensure_conn(bw_consumer *c)
{
    if (c->has_conn) return BW_OK;
    bw_conn_options o = bw_bus_conn_options(c->bus);
    o.push = pushed;
    o.opaque = c;
    bw_err e = bw_conn_init(&c->conn, &o);
    c->has_conn = !e;
    return e;
}

bw_err bw_consumer_reconnect(bw_consumer *c, bw_deadline deadline)
{
    bw_err e = bw_bus_connect_conn(c->bus, &c->conn, true, deadline);
    if (e) return e;
    uint32_t epoch = atomic_load(&c->conn.epoch);
    if (epoch == c->conn_epoch) return BW_OK;
    bool again = c->conn_epoch != 0;
    c->conn_epoch = epoch;
    if (!again) return BW_OK;
    deadline = bw_conn_patience(&c->conn, deadline);
    drop_list(c, c->items);
    c->items = NULL;
    c->items_tail = &c->items;
    for (bw_cpart *p = c->parts; p; p = p->next_part) {
        if (p->direct || p->stopped || !p->held_tail) continue;
        int64_t at = p->position;
        e = subscribe_once(p, at, deadline);
        p->position = at;
        if (e == BW_ERR_NOT_CONNECTED || e == BW_ERR_TIMED_OUT) {
            bw_conn_drop(&c->conn);
            return e;
        }
        if (e) { /* to be told by the next poll */
            p->stopped = true;
            bw_item *item = item_get(c);
            if (!item || !take_subscription(p)) {
                free(item);
                return BW_ERR_NO_MEMORY;
            }
            item->subscription = p->subscription;
            item->error = e == BW_ERR_UNKNOWN_TOPIC ? BW_ERR_DELETED : e;
            item->message = strdup(bw_error_message());
            *c->items_tail = item;
            c->items_tail = &item->next;
        }
    }
    return BW_OK;
}

static bw_err subscribe(bw_cpart *p, int64_t offset, bw_deadline deadline)
{
    bw_consumer *c = p->consumer;
    for (int tries = 0;; tries++) {
        bw_err e = bw_consumer_reconnect(c, deadline);
        if (!e) e = subscribe_once(p, offset, deadline);
        if (e != BW_ERR_NOT_CONNECTED || tries == 3) return e;
    }
}

bw_err bw_cpart_open_ipc(bw_cpart *p, int64_t offset, bw_deadline deadline)
{
    bw_consumer *c = p->consumer;
    bw_err e = bw_consumer_ensure_conn(c);
    if (e) return e;
    bool fresh = !p->held_tail;
    if (fresh) {
        p->held_tail = &p->held;
        c->ipc_count++;
    }
    p->stopped = false;
    p->leader_epoch = -1;
    e = subscribe(p, offset, deadline);
    if (e && fresh) {
        p->held_tail = NULL;
        c->ipc_count--;
    } else {
        p->stopped = e != BW_OK;
    }
    if (c->ipc_count && c->direct_count && !c->by_watch) {
        bw_err w = bw_consumer_use_watch(c);
        if (w && !e) e = w;
    }
    return e;
}

void bw_cpart_close_ipc(bw_cpart *p)
{
    if (!p->held_tail) return;
    forget_subscription(p, true);
    p->held_tail = NULL;
    p->consumer->ipc_count--;
}

void bw_consumer_close_ipc(bw_consumer *c)
{
    if (!c->has_conn) return;
    drop_list(c, c->items);
    c->items = NULL;
    bw_conn_fini(&c->conn);
    while (c->spare) {
        bw_item *item = c->spare;
        c->spare = item->next;
        free(item);
    }
    c->has_conn = false;
}

void bw_cpart_resume_ipc(bw_cpart *p)
{
    bw_consumer *c = p->consumer;
    if (!p->held) return;
    *p->held_tail = c->items;
    if (!c->items) c->items_tail = p->held_tail;
    c->items = p->held;
    p->held = NULL;
    p->held_tail = &p->held;
}

/* ---- giving ---- */

void bw_consumer_release(bw_consumer *c)
{
    bw_item *item = c->giving;
    if (!item) return;
    c->giving = NULL;
    bw_cpart *p = part_of(c, item->subscription);
    if (p) {
        p->owed += item->len;
        if (p->owed * 2 >= p->window) tell_credit(p);
    }
    item_put(c, item);
}

/* The next batch of an item. EMPTY: it is used up. */
static bw_err give_item(bw_cpart *p, bw_item *item, bw_batch *batch)
{
    while (item->at < item->len) {
        const uint8_t *data = item->data + item->at;
        bw_batch_header h;
        bw_err e = bw_batch_header_decode(data, item->len - item->at, false, &h);
        if (e == BW_ERR_EMPTY) e = bw_fail(BW_ERR_CORRUPT, "the daemon sent something behind the last batch");
        if (!e && p->consumer->options.check_crcs && !bw_batch_crc_ok(data, bw_batch_size(&h)))
            e = bw_fail(BW_ERR_CORRUPT, "the batch at offset %lld came with a wrong checksum", (long long)h.base_offset);
        if (!e) {
            item->at += bw_batch_size(&h);
            e = bw_cpart_fill(p, data, &h, batch);
        }
        if (e != BW_ERR_EMPTY) return e;
    }
    return BW_ERR_EMPTY;
}

static bw_err item_error(bw_cpart *p, bw_item *item, bw_batch *batch)
{
    bw_err e = bw_fail(item->error, "%s", item->message ? item->message : bw_err_text(item->error));
    bw_consumer *c = p->consumer;
    forget_subscription(p, false); /* it ended with this */
    item_put(c, item);
    if (e == BW_ERR_OFFSET_OUT_OF_RANGE && c->options.auto_offset_reset != BW_RESET_ERROR) {
        int64_t to = c->options.auto_offset_reset == BW_RESET_EARLIEST ? BW_OFFSET_BEGINNING : BW_OFFSET_END;
        e = subscribe(p, to, bw_bus_request_deadline(c->bus));
        if (!e) return BW_ERR_EMPTY;
    }
    p->stopped = true;
    return bw_cpart_fail(p, e, true, batch);
}

static bw_err give_queued(bw_consumer *c, bw_batch *batch)
{
    while (c->items) {
        bw_item *item = c->items;
        bw_cpart *p = part_of(c, item->subscription);
        if (!p) {
            item_put(c, items_pop(c));
            continue;
        }
        if (p->paused) {
            *p->held_tail = items_pop(c);
            p->held_tail = &item->next;
            continue;
        }
        if (item->error) {
            bw_err e = item_error(p, items_pop(c), batch);
            if (e != BW_ERR_EMPTY) return e;
            continue;
        }
        bw_err e = give_item(p, item, batch);
        bool used_up = item->at >= item->len;
        if (e == BW_OK) {
            if (used_up) c->giving = items_pop(c); /* kept until the next poll */
            return BW_OK;
        }
        items_pop(c);
        c->giving = item;
        bw_consumer_release(c);
        if (e != BW_ERR_EMPTY) {
            forget_subscription(p, true);
            return bw_cpart_fail(p, e, true, batch);
        }
    }
    return BW_ERR_EMPTY;
}

bw_err bw_consumer_give_ipc(bw_consumer *c, bw_batch *batch)
{
    bw_err e = give_queued(c, batch);
    if (e != BW_ERR_EMPTY) return e;
    if (bw_conn_is_up(&c->conn)) {
        bw_conn_try_pump(&c->conn, -1, 0);
    } else if (bw_clock_mono_ns() >= c->reconnect_at) {
        bw_err again = bw_consumer_reconnect(c, bw_deadline_in_ms(QUICK_CONNECT_MS));
        if (again) c->reconnect_at = bw_deadline_in_ms(RECONNECT_NAP_MS);
        bool turned_away = again == BW_ERR_AUTHENTICATION_FAILED || again == BW_ERR_TLS_FAILED || again == BW_ERR_UNSUPPORTED_VERSION;
        c->away = turned_away ? again : BW_OK;
        if (turned_away) snprintf(c->away_why, sizeof c->away_why, "%s", bw_error_message());
    }
    return c->items ? give_queued(c, batch) : BW_ERR_EMPTY;
}

/* ---- sleeping ---- */

static bool has_news(void *opaque)
{
    bw_consumer *c = opaque;
    return c->items || atomic_load(&c->woken) || atomic_load(&c->inbox.has_news);
}

void bw_consumer_sleep_poll(bw_consumer *c, bw_deadline deadline)
{
    if (c->by_watch && bw_consumer_arm(c)) return;
    bw_deadline until = bw_deadline_first(deadline, bw_deadline_in_ms(BW_SLEEP_CAP_MS));
    bool by_socket = c->ipc_count || (c->group && c->has_conn);
    if (by_socket && bw_conn_is_up(&c->conn)) {
        bw_conn_wait(&c->conn, has_news, c, c->event_fd, until);
    } else {
        if (c->ipc_count) until = bw_deadline_first(until, c->reconnect_at);
        struct pollfd p = {.fd = c->event_fd, .events = POLLIN};
        int64_t left = bw_deadline_left_ns(until);
        struct timespec t = {left / 1000000000, left % 1000000000};
        if (!has_news(c)) ppoll(&p, 1, &t, NULL);
    }
    int64_t now = bw_clock_mono_ns();
    if (c->direct_count && now >= c->next_audit) {
        c->next_audit = now + BW_SLEEP_CAP_MS * INT64_C(1000000);
        bw_consumer_audit(c);
    }
}
