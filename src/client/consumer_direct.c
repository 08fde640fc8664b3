/* client/consumer_direct.c: partitions read from the mapped log, and sleeping for them.
 *
 * Going to sleep: every idle partition is armed, one fence, then each is looked at again (log/wait.h has the proof). Every sleep is
 * at most a second, a tenth without a daemon, and followed by an audit: a writer may have died between publishing and waking. */
#include "client/consumer.h"

#include "client/readonly.h"

#include "base/cpu.h"
#include "format/names.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { REATTACH_MS = 1000 };

static bw_wait_class wait_class(const bw_cpart *p) { return bw_limit_wait_class(p->limit); }

/* ---- open and close a partition ---- */

static bw_err open_reader(bw_cpart *p)
{
    bw_consumer *c = p->consumer;
    char folder[BW_PARTITION_DIR_MAX];
    bool readonly = p->attach->env->readonly != NULL;
    bw_err ready = readonly ? bw_readonly_part(c->bus, p->attach, p->partition) : BW_OK;
    if (ready) return ready;
    if ((uint32_t)p->partition >= atomic_load_explicit(&p->attach->control->header->slots, memory_order_acquire))
        return bw_fail(BW_ERR_UNKNOWN_PARTITION, "topic %s has no partition %d", p->topic, p->partition);
    bw_partition_dir_name(folder, p->attach->topic, p->partition);
    bw_reader_options o = {
        .control = p->attach->control,
        .partition = (uint32_t)p->partition,
        .dir_fd = p->attach->env->dir->fd,
        .folder = folder,
        .limit = (bw_reader_limit)c->options.read_limit,
        .committed = c->options.isolation == BW_READ_COMMITTED,
        .check_crcs = c->options.check_crcs || readonly,
        .use_pread = readonly,
        .guard = &c->bus->guard,
    };
    bw_err e = bw_reader_open(&o, &p->reader);
    if (e) return e;
    p->slot = &p->attach->control->slots[p->partition];
    p->limit = bw_reader_limit_is(p->reader);
    return BW_OK;
}

static bw_err enroll(bw_cpart *p)
{
    bw_consumer *c = p->consumer;
    p->number = atomic_load_explicit(&p->slot->bus_number, memory_order_relaxed);
    HASH_ADD(by_number, c->numbered, number, sizeof p->number, p);
    if (!p->by_number.tbl) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a partition");
    p->direct = true;
    c->direct_count++;
    p->watch = (bw_watch_entry){.inbox = &c->inbox, .slot = p->slot, .number = p->number,
                                .word = bw_limit_word(p->slot, p->limit), .part = p};
    if (c->by_watch) {
        bw_watch_add(c->bus, &p->watch);
        p->watched = true;
    }
    return BW_OK;
}

bw_err bw_cpart_open_direct(bw_cpart *p, bw_deadline deadline)
{
    bw_bus *bus = p->consumer->bus;
    bw_err e = bw_direct_attach(bus, p->topic, BW_CONTROL_READ, deadline, &p->attach);
    if (e) return e;
    if (p->consumer->by_watch) e = bw_watch_check(bus, p->attach->env);
    if (!e) e = bw_consumer_take_mailbox(p->consumer, p->attach->env);
    if (!e) e = open_reader(p);
    if (!e) e = enroll(p);
    if (e) {
        bw_reader_close(p->reader);
        p->reader = NULL;
        bw_direct_release(bus, p->attach);
        p->attach = NULL;
    }
    return e;
}

void bw_cpart_close_direct(bw_cpart *p)
{
    bw_consumer *c = p->consumer;
    bw_cpart_rest(p);
    if (p->watched) bw_watch_remove(c->bus, &p->watch);
    p->watched = false;
    HASH_DELETE(by_number, c->numbered, p);
    bw_disarm(p->attach->control, (uint32_t)p->partition, wait_class(p), c->mailbox);
    bw_reader_close(p->reader);
    c->windows -= p->has_window;
    p->has_window = false;
    bw_direct_release(c->bus, p->attach);
    p->reader = NULL;
    p->attach = NULL;
    p->slot = NULL;
    p->direct = false;
    c->direct_count--;
}

void bw_cpart_seek_direct(bw_cpart *p, int64_t offset)
{
    if (offset == BW_OFFSET_BEGINNING) offset = atomic_load_explicit(&p->slot->log_start, memory_order_acquire);
    else if (offset == BW_OFFSET_END) offset = bw_limit_end(p->slot, p->limit);
    p->position = offset;
    p->leader_epoch = -1;
    p->stopped = false;
    bw_reader_seek(p->reader, offset);
    bw_cpart_make_ready(p);
}

/* ---- giving ---- */

/* The control data was replaced: map it anew, or go on through the socket. */
static bw_err reattach(bw_cpart *p)
{
    bw_consumer *c = p->consumer;
    bw_deadline deadline = bw_deadline_in_ms(REATTACH_MS);
    bool paused = p->paused;
    bw_direct_mark_stale(c->bus, p->attach);
    bw_conn_check(&c->bus->conn);
    bw_err e = bw_bus_connect(c->bus, true, deadline);
    if (e) return e;
    bw_cpart_close_direct(p);
    e = bw_cpart_open_direct(p, deadline);
    if (!e) {
        bw_cpart_seek_direct(p, p->position);
    } else if (bw_direct_may_fall_back(c->bus, e)) {
        bw_direct_note(c->bus, p->topic, false, bw_error_message());
        e = bw_cpart_open_ipc(p, p->position, deadline);
    }
    p->paused = paused;
    return e;
}

static bw_err trouble(bw_cpart *p, bw_err e, bw_batch *batch)
{
    if (e == BW_ERR_CORRUPT && p->attach->env->readonly && p->looked_again != p->position + 1) {
        /* a file that vanished and was used again, or was cut? */
        p->looked_again = p->position + 1;
        bw_readonly_refresh(p->consumer->bus, p->attach, p->partition);
        bw_reader_rest(p->reader);
        bw_cpart_seek_direct(p, p->position);
        return BW_OK;
    }
    if (e == BW_ERR_OFFSET_OUT_OF_RANGE) {
        int64_t start = atomic_load_explicit(&p->slot->log_start, memory_order_acquire), to = p->position;
        e = bw_cpart_reset(p, start, bw_slot_end_offset(p->slot), &to);
        if (e) return bw_cpart_fail(p, e, true, batch);
        bw_cpart_seek_direct(p, to);
        return BW_OK;
    }
    if (e == BW_ERR_RETIRED) {
        e = reattach(p);
        if (!e) return BW_OK;
        if (p->direct) { /* no daemon: the next poll tries again */
            nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
            return bw_cpart_fail(p, BW_ERR_NOT_CONNECTED, false, batch);
        }
        return bw_cpart_fail(p, e == BW_ERR_UNKNOWN_TOPIC ? BW_ERR_DELETED : e, true, batch); /* a seek goes on */
    }
    return bw_cpart_fail(p, e, e != BW_ERR_FORKED && e != BW_ERR_NO_MEMORY, batch);
}

/* One window more is open. When there are many, all others are given back; who has something next opens it again. */
static void count_window(bw_cpart *p)
{
    bw_consumer *c = p->consumer;
    p->has_window = true;
    if (++c->windows <= BW_WINDOWS_MAX) return;
    for (bw_cpart *other = c->parts; other; other = other->next_part) {
        if (other == p || !other->has_window) continue;
        bw_reader_rest(other->reader);
        other->has_window = false;
        c->windows--;
    }
}

bw_err bw_cpart_give_direct(bw_cpart *p, bw_batch *batch)
{
    for (;;) {
        bw_batch_ref ref;
        bw_err e = bw_reader_next(p->reader, &ref);
        if (__builtin_expect(e == BW_OK, 1)) {
            if (__builtin_expect(!p->has_window, 0)) count_window(p);
            e = bw_cpart_fill(p, ref.data, &ref.header, batch);
            if (__builtin_expect(e == BW_OK, 1)) return BW_OK;
            if (e == BW_ERR_EMPTY) continue;
            return trouble(p, e, batch);
        }
        if (e == BW_ERR_EMPTY) {
            bw_cpart_make_idle(p);
            return e;
        }
        e = trouble(p, e, batch);
        if (e) return e;
        if (!p->direct) return BW_ERR_EMPTY; /* it went over to the socket */
    }
}

/* ---- looking and sleeping ---- */

static void notified(bw_cpart *p)
{
    if (p->where == BW_AT_ARMED) bw_cpart_rest(p);
    bw_cpart_make_ready(p);
}

bool bw_consumer_take_mail(bw_consumer *c)
{
    bool any = false;
    if (c->by_watch) {
        if (!atomic_load_explicit(&c->inbox.has_news, memory_order_acquire)) return false;
        bw_consumer_unring(c);
        for (bw_watch_entry *e = bw_watch_take(c->bus, &c->inbox), *next; e; e = next) {
            next = e->next_ready;
            notified(e->part);
            any = true;
        }
        return any;
    }
    bw_mailbox *box = atomic_load_explicit(&c->box, memory_order_relaxed);
    if (!box) return false;
    uint32_t word = atomic_load_explicit(&box->word, memory_order_acquire) & ~1u;
    if (word == c->seen_word) return false;
    c->seen_word = word;
    uint32_t numbers[256];
    size_t n;
    while ((n = bw_mailbox_drain(box, numbers, sizeof numbers / sizeof numbers[0])) > 0) {
        for (size_t i = 0; i < n; i++) {
            bw_cpart *p;
            HASH_FIND(by_number, c->numbered, &numbers[i], sizeof numbers[i], p);
            if (!p) continue;
            notified(p);
            any = true;
        }
    }
    return any;
}

static bool look_idle(bw_consumer *c)
{
    bool any = false;
    for (bw_cpart *p = c->idle, *next; p; p = next) {
        next = p->next;
        if (!bw_reader_ready(p->reader)) continue;
        bw_cpart_make_ready(p);
        any = true;
    }
    return any;
}

bool bw_consumer_look(bw_consumer *c)
{
    bool any = c->armed_count ? bw_consumer_take_mail(c) : false;
    if (c->idle_count == 0) return any;
    return (c->idle_count <= BW_LOOK_MAX ? look_idle(c) : bw_consumer_arm(c)) || any;
}

bool bw_consumer_arm(bw_consumer *c)
{
    if (!c->idle) return false;
    /* A ring that came while nothing was armed: it is taken now, or it would stand for all later ones, after its eventfd was read. */
    if (c->by_watch && bw_consumer_take_mail(c)) return true;
    uint32_t mailbox = c->by_watch ? bw_watch_mailbox(c->bus) : c->mailbox;
    for (bw_cpart *p = c->idle; p; p = p->next) {
        if (c->by_watch) {
            atomic_store(&p->watch.seen, atomic_load_explicit(p->watch.word, memory_order_acquire));
            atomic_store(&p->watch.armed, true);
        }
        bw_arm(p->attach->control, (uint32_t)p->partition, wait_class(p), mailbox);
    }
    bw_arm_fence(c->env->mail->header->asymmetric);
    bool any = false;
    while (c->idle) {
        bw_cpart *p = c->idle;
        bw_cpart_rest(p);
        p->where = BW_AT_ARMED;
        c->armed_count++;
        bw_consumer_count_look(c);
        if (!bw_reader_ready(p->reader)) continue;
        notified(p); /* the ring that may still come is harmless */
        any = true;
    }
    return any;
}

void bw_consumer_audit(bw_consumer *c)
{
    int64_t wall = bw_clock_wall_ms();
    if (bw_bus_look_due(c->bus, wall)) bw_bus_look(c->bus, wall);
    for (bw_cpart *p = c->parts; p; p = p->next_part) {
        if (!p->direct || (p->where != BW_AT_ARMED && p->where != BW_AT_IDLE)) continue;
        bool gone = atomic_load_explicit(&p->attach->control->header->retired, memory_order_relaxed);
        if (gone || bw_reader_ready(p->reader)) notified(p);
    }
    bw_consumer_renew_mailbox(c);
}

void bw_consumer_sleep_direct(bw_consumer *c, bw_deadline deadline)
{
    bw_mailbox *box = atomic_load_explicit(&c->box, memory_order_relaxed);
    if (c->idle_count) { /* a writer that is at it is often quicker than a sleep */
        for (int i = 0; i < BW_SPINS; i++) {
            if (look_idle(c)) return;
            bw_cpu_relax();
        }
    }
    if (bw_consumer_arm(c)) return;
    if (c->armed_count == 0) (void)bw_consumer_take_mail(c); /* of partitions that were paused or given up: it would let nobody sleep */
    int64_t cap = bw_conn_is_up(&c->bus->conn) ? BW_SLEEP_CAP_MS : BW_SLEEP_CAP_ALONE_MS;
    if (bw_mailbox_sleep(box, bw_deadline_first(deadline, bw_deadline_in_ms(cap)))) return;
    if (atomic_load_explicit(&c->woken, memory_order_relaxed)) return;
    bw_consumer_audit(c);
}

bw_err bw_consumer_use_watch(bw_consumer *c)
{
    if (c->by_watch || !c->env) return BW_OK;
    bw_err e = bw_watch_start(c->bus, c->env);
    if (e) return e;
    bw_bell_close(c->bell);
    c->bell = NULL;
    for (bw_cpart *p = c->parts; p; p = p->next_part) {
        if (!p->direct) continue;
        bw_watch_add(c->bus, &p->watch);
        p->watched = true;
        if (p->where != BW_AT_ARMED) continue;
        bw_disarm(p->attach->control, (uint32_t)p->partition, wait_class(p), c->mailbox);
        bw_cpart_make_ready(p);
    }
    c->by_watch = true;
    return BW_OK;
}
