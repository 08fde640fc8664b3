/* client/consumer.c: open, close, poll. See consumer.h for where partitions are. */
#include "client/consumer_group.h"
#include "client/readonly.h"

#include "client/backend.h"

#include "format/codec.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { LOOK_CLOCK_EVERY = 1024 }; /* empty polls without waiting between looks at the clock */

/* ---- lists ---- */

static void unlink_part(bw_cpart *p)
{
    bw_consumer *c = p->consumer;
    if (p->where == BW_AT_READY) {
        if (p->next == p) {
            c->ready = NULL;
        } else {
            p->prev->next = p->next;
            p->next->prev = p->prev;
            if (c->ready == p) c->ready = p->next;
        }
    } else if (p->where == BW_AT_IDLE) {
        if (p->prev) p->prev->next = p->next;
        else c->idle = p->next;
        if (p->next) p->next->prev = p->prev;
        c->idle_count--;
    } else if (p->where == BW_AT_ARMED) {
        c->armed_count--;
    }
    p->where = BW_AT_REST;
    p->prev = p->next = NULL;
}

void bw_cpart_rest(bw_cpart *p) { unlink_part(p); }

void bw_cpart_make_ready(bw_cpart *p)
{
    bw_consumer *c = p->consumer;
    if (p->where == BW_AT_READY || p->paused || p->stopped || !p->direct) return;
    unlink_part(p);
    p->where = BW_AT_READY;
    if (!c->ready) {
        p->prev = p->next = p;
        c->ready = p;
    } else { /* behind all others */
        p->next = c->ready;
        p->prev = c->ready->prev;
        p->prev->next = p;
        p->next->prev = p;
    }
}

void bw_cpart_make_idle(bw_cpart *p)
{
    bw_consumer *c = p->consumer;
    unlink_part(p);
    p->where = BW_AT_IDLE;
    p->prev = NULL;
    p->next = c->idle;
    if (c->idle) c->idle->prev = p;
    c->idle = p;
    c->idle_count++;
    bw_consumer_count_look(c);
}

/* ---- outcomes ---- */

static void name_part(const bw_cpart *p, bw_batch *batch)
{
    memset(batch, 0, sizeof *batch);
    batch->topic = p->topic;
    batch->partition = p->partition;
    batch->base_offset = p->position;
    batch->last_offset = p->position - 1;
}

bw_err bw_cpart_fail(bw_cpart *p, bw_err e, bool stop, bw_batch *batch)
{
    name_part(p, batch);
    if (stop) {
        bw_cpart_rest(p);
        p->stopped = true;
    }
    return bw_error_context(e, "topic %s partition %d", p->topic, p->partition);
}

bw_err bw_cpart_reset(bw_cpart *p, int64_t log_start, int64_t end, int64_t *position)
{
    switch (p->consumer->options.auto_offset_reset) {
    case BW_RESET_EARLIEST:
        *position = log_start;
        return BW_OK;
    case BW_RESET_LATEST:
        *position = end;
        return BW_OK;
    default:
        return bw_fail(BW_ERR_OFFSET_OUT_OF_RANGE, "offset %lld is outside of the log, which goes from %lld to %lld; seek",
                       (long long)*position, (long long)log_start, (long long)end);
    }
}

static bw_err unpack(bw_consumer *c, bw_codec codec, const uint8_t **records, size_t *len)
{
    c->plain.len = 0;
    bw_err e = bw_codec_decompress(codec, *records, *len, BW_PLAIN_MAX, &c->plain);
    if (e) return e;
    *records = c->plain.data;
    *len = c->plain.len;
    return BW_OK;
}

bw_err bw_cpart_fill(bw_cpart *p, const uint8_t *data, const bw_batch_header *h, bw_batch *out)
{
    bw_consumer *c = p->consumer;
    int64_t from = p->position, last = bw_batch_last_offset(h);
    if (__builtin_expect(last < from, 0)) return BW_ERR_EMPTY;
    if (__builtin_expect((h->attributes & BW_ATTR_CONTROL) || h->record_count == 0, 0)) {
        p->position = last + 1;
        return BW_ERR_EMPTY;
    }
    const uint8_t *records = data + BW_BATCH_HEADER_BYTES;
    size_t len = bw_batch_size(h) - BW_BATCH_HEADER_BYTES;
    if (h->attributes & BW_ATTR_CODEC_MASK) {
        bw_err e = unpack(c, (bw_codec)(h->attributes & BW_ATTR_CODEC_MASK), &records, &len);
        if (e) return e;
    }
    *out = (bw_batch){
        .topic = p->topic,
        .partition = p->partition,
        .leader_epoch = h->leader_epoch,
        .base_offset = h->base_offset,
        .last_offset = last,
        .count = h->record_count,
        .timestamp_type = h->attributes & BW_ATTR_LOG_APPEND_TIME ? BW_TIMESTAMP_LOG_APPEND : BW_TIMESTAMP_CREATE,
        .base_timestamp_ms = h->base_timestamp,
        .max_timestamp_ms = h->max_timestamp,
        .it_at = records,
        .it_end = records + len,
        .it_from = from,
        .it_left = h->record_count,
    };
    p->position = last + 1;
    p->leader_epoch = h->leader_epoch;
    atomic_store_explicit(&c->records, atomic_load_explicit(&c->records, memory_order_relaxed) + (uint64_t)h->record_count,
                          memory_order_relaxed);
    atomic_store_explicit(&c->bytes, atomic_load_explicit(&c->bytes, memory_order_relaxed) + bw_batch_size(h), memory_order_relaxed);
    atomic_store_explicit(&c->batches, atomic_load_explicit(&c->batches, memory_order_relaxed) + 1, memory_order_relaxed);
    return BW_OK;
}

/* ---- poll ---- */

static bw_err give_ready(bw_consumer *c, bw_batch *batch)
{
    while (c->ready) {
        bw_cpart *p = c->ready;
        bw_err e = bw_cpart_give_direct(p, batch);
        if (e != BW_ERR_EMPTY) {
            if (c->ready) c->ready = c->ready->next; /* the others' turn */
            return e;
        }
    }
    return BW_ERR_EMPTY;
}

static bw_err give_any(bw_consumer *c, bw_batch *batch)
{
    if (__builtin_expect(c->ipc_count == 0, 1)) return give_ready(c, batch);
    c->turn_ipc = !c->turn_ipc;
    bw_err e = c->turn_ipc ? bw_consumer_give_ipc(c, batch) : give_ready(c, batch);
    if (e != BW_ERR_EMPTY) return e;
    return c->turn_ipc ? give_ready(c, batch) : bw_consumer_give_ipc(c, batch);
}

/* What a consumer that never sleeps must do now and then. */
static void keep_house(bw_consumer *c)
{
    int64_t now = bw_clock_mono_ns();
    if (now < c->next_audit) return;
    c->next_audit = now + (bw_conn_is_up(&c->bus->conn) ? BW_SLEEP_CAP_MS : BW_SLEEP_CAP_ALONE_MS) * INT64_C(1000000);
    bw_consumer_audit(c);
}

static bool take_wake(bw_consumer *c)
{
    if (__builtin_expect(atomic_load_explicit(&c->woken, memory_order_acquire) == 0, 1)) return false;
    bw_consumer_unring(c);
    return atomic_exchange(&c->woken, 0) != 0;
}

static bw_err nothing(bw_consumer *c, bw_batch *batch)
{
    if (c->epoll_fd >= 0) {
        if (c->direct_count && !c->by_watch) keep_house(c);
        bw_consumer_fd_update(c);
    } else if (__builtin_expect(++c->empty_polls % LOOK_CLOCK_EVERY == 0, 0)) {
        keep_house(c);
    }
    if (c->ipc_count && !bw_conn_is_up(&c->conn)) {
        bw_cpart *p = c->parts;
        while (p->direct) p = p->next_part;
        name_part(p, batch);
        return c->away ? bw_fail(c->away, "%s; it is tried again", c->away_why)
                       : bw_fail(BW_ERR_NOT_CONNECTED, "there is no connection to the daemon; it is tried again");
    }
    if (c->group && c->group->state == BW_MEMBER_WANTS && !c->parts && !bw_conn_is_up(&c->conn)) {
        *batch = (bw_batch){.partition = -1};
        return bw_fail(BW_ERR_NOT_CONNECTED, "group %s: there is no connection to the daemon; it is tried again", c->group->id);
    }
    return BW_ERR_TIMED_OUT;
}

static void sleep_for(bw_consumer *c, bw_deadline deadline)
{
    atomic_store_explicit(&c->sleeps, atomic_load_explicit(&c->sleeps, memory_order_relaxed) + 1, memory_order_relaxed);
    if (c->group) deadline = bw_group_until(c->group, deadline);
    if (c->ipc_count || c->by_watch || c->direct_count == 0) bw_consumer_sleep_poll(c, deadline);
    else bw_consumer_sleep_direct(c, deadline);
    if (c->group) c->group->due_ms = 0; /* what ended the sleep may have been a push */
}

bw_err bw_consumer_poll(bw_consumer *c, int32_t timeout_ms, bw_batch *batch)
{
    if (!c || !batch) return bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no consumer or no place for the batch");
    BW_CHECK_FORK(c->bus);
    if (__builtin_expect(c->group != NULL, 0)) {
        if (c->foreign) return c->bus->backend->poll(c, timeout_ms, batch);
        bw_err e = bw_group_check_call(c, "bw_consumer_poll");
        if (e) return e;
    }
    if (c->giving) bw_consumer_release(c);
    if (c->epoll_fd >= 0) bw_consumer_unring(c); /* what rings from here on is seen by the next wait */
    bw_deadline deadline = 0;
    bool looked = false;
    for (;;) {
        if (__builtin_expect(c->group != NULL, 0) && bw_group_is_due(c)) { /* before take_wake: it may take the poke of a wake */
            bw_err e = bw_group_work(c->group, timeout_ms, batch);
            if (e) return e == BW_ERR_TIMED_OUT ? nothing(c, batch) : e;
        }
        if (take_wake(c)) return BW_ERR_WOKEN;
        bw_err e = give_any(c, batch);
        if (__builtin_expect(e == BW_ERR_DELETED, 0) && c->group && c->group->state != BW_MEMBER_OUT) { /* the group takes it away */
            c->group->due_ms = 0;
            continue;
        }
        if (e != BW_ERR_EMPTY) return e;
        if (bw_consumer_look(c)) continue;
        if (c->epoll_fd >= 0 && bw_consumer_listen(c)) continue; /* the descriptor must show what comes from now on */
        if (c->group && !looked && bw_group_should_look(c)) {
            looked = true;
            c->group->due_ms = 0;
        }
        if (c->group && bw_group_is_due(c)) continue;
        if (timeout_ms == 0) return nothing(c, batch);
        if (deadline == 0) deadline = bw_deadline_in_ms(timeout_ms);
        if (bw_deadline_left_ns(deadline) == 0) return nothing(c, batch);
        sleep_for(c, deadline);
    }
}

/* ---- open and close ---- */

/* What only a coordinator knows. */
static bw_err check_readonly(const bw_bus *bus, const bw_consumer_options *o)
{
    if (!bus->readonly) return BW_OK;
    if (o->group_id) return bw_readonly_refuse(bus, "a consumer group");
    if (o->read_limit == BW_READ_DURABLE) return bw_readonly_refuse(bus, "read_limit durable, which only the coordinator knows");
    if (o->isolation == BW_READ_COMMITTED) return bw_readonly_refuse(bus, "isolation read_committed, which only the coordinator knows");
    return BW_OK;
}

bw_err bw_consumer_open(bw_bus *bus, const bw_consumer_options *options, bw_consumer **out)
{
    if (!bus || !out) return bw_fail(BW_ERR_INVALID_ARGUMENT, "bw_consumer_open: there is no bus or no place for the consumer");
    *out = NULL;
    BW_CHECK_FORK(bus);
    bw_consumer_options o = BW_CONSUMER_OPTIONS_INIT;
    if (options) {
        if (options->size < sizeof options->size || options->size > 4096)
            return bw_fail(BW_ERR_INVALID_ARGUMENT, "consumer options: size is not set; begin with BW_CONSUMER_OPTIONS_INIT");
        memcpy(&o, options, options->size < sizeof o ? options->size : sizeof o);
    }
    if (o.read_limit > BW_READ_REPLICATED || o.auto_offset_reset > BW_RESET_LATEST || o.isolation > BW_READ_COMMITTED || o.fetch_max_bytes == 0)
        return bw_fail(BW_ERR_INVALID_ARGUMENT,
                       "consumer options: unknown read_limit, auto_offset_reset or isolation, or fetch_max_bytes 0");
    bw_err refused = check_readonly(bus, &o);
    if (refused) return refused;
    bw_consumer *c = calloc(1, sizeof *c);
    if (!c) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a consumer");
    c->bus = bus;
    c->options = o;
    if (bus->backend) {
        bw_err e = o.group_id ? bw_group_check_options(&o) : BW_OK;
        if (!e) e = bus->backend->consumer_open(c);
        if (e) {
            free(c);
            return e;
        }
        c->group = c->foreign;
        atomic_fetch_add(&bus->handles, 1);
        *out = c;
        return BW_OK;
    }
    c->epoll_fd = c->timer_fd = -1;
    c->items_tail = &c->items;
    c->parts_tail = &c->parts;
    c->next_subscription = 1;
    c->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (c->event_fd < 0) {
        bw_err e = bw_fail_errno(errno, "can't make a consumer's eventfd");
        free(c);
        return e;
    }
    c->inbox.event_fd = c->event_fd;
    if (o.group_id) {
        bw_err e = bw_group_open(c);
        if (e) {
            close(c->event_fd);
            free(c);
            return e;
        }
    }
    pthread_mutex_lock(&bus->mutex);
    c->next = bus->consumers;
    bus->consumers = c;
    pthread_mutex_unlock(&bus->mutex);
    bw_bus_count_handle(bus);
    *out = c;
    return BW_OK;
}

static void unlist(bw_consumer *c)
{
    bw_bus *bus = c->bus;
    pthread_mutex_lock(&bus->mutex);
    for (bw_consumer **at = &bus->consumers; *at; at = &(*at)->next) {
        if (*at != c) continue;
        *at = c->next;
        break;
    }
    atomic_fetch_add(&bus->records_in, atomic_load(&c->records));
    atomic_fetch_add(&bus->bytes_in, atomic_load(&c->bytes));
    atomic_fetch_add(&bus->batches_in, atomic_load(&c->batches));
    atomic_fetch_add(&bus->waits, atomic_load(&c->sleeps));
    atomic_fetch_add(&bus->looks, atomic_load(&c->looks));
    pthread_mutex_unlock(&bus->mutex);
}

void bw_consumer_close(bw_consumer *c)
{
    if (!c || bw_forked(&c->bus->guard)) return;
    if (c->foreign) {
        c->bus->backend->consumer_close(c);
        if (c->foreign) return; /* inside a callback of its own */
        atomic_fetch_sub(&c->bus->handles, 1);
        free(c);
        return;
    }
    bw_consumer_release(c);
    if (c->group && bw_group_check_call(c, "bw_consumer_close") != BW_OK) return;
    if (c->group) bw_cgroup_leave(c->group, bw_deadline_in_ms(BW_GROUP_CLOSE_MS));
    while (c->parts) bw_cpart_remove(c->parts);
    if (c->group) bw_group_close(c);
    bw_consumer_close_ipc(c);
    bw_consumer_fd_close(c);
    bw_consumer_drop_mailbox(c);
    unlist(c);
    bw_buf_free(&c->plain);
    close(c->event_fd);
    atomic_fetch_sub(&c->bus->handles, 1);
    free(c);
}

void bw_consumer_wake(bw_consumer *c)
{
    if (!c || bw_forked(&c->bus->guard)) return;
    BW_DISPATCH(c->bus, wake(c));
    atomic_store(&c->woken, 1);
    bw_mailbox *box = atomic_load(&c->box);
    if (box) bw_mailbox_poke(box);
    bw_consumer_ring(c);
}
