/* broker/bringup.c: control data and all partitions: taken over, or made anew.
 *
 *   stored generation's arenas are there, of this boot and layout   -> take over: slots are the truth, writers went on meanwhile
 *   else, nobody holds writers.lock (taken exclusively)             -> new generation, fresh arenas, every log recovered
 *   else                                                            -> not ready: requests for data are refused, naming the holders;
 *                                                                      tried again each second
 * A new generation is stored before its arenas exist: a crash in between leads to the second case again. Without a tmpfs the control
 * data is private to this daemon (a folder that no client is told of, made anew at each start): everybody uses the socket. */
#include "broker/groups.h"
#include "broker/offsets.h"
#include "broker/txn.h"

#include "base/killpoint.h"
#include "base/os.h"
#include "log/wait.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    TRIMMED_AT_ONCE = 256, /* at a stop: as many files are open then */
    OPENED_AT_ONCE = 16,   /* at a start, for direct writers that stand still */
};

static bw_err load_registry(bw_broker *b)
{
    bw_meta_topic *topics;
    size_t count;
    bw_err e = bw_store_topics(b->store, &topics, &count);
    if (e) return e;
    e = bw_broker_finish_deletes(b, topics, count);
    for (size_t i = 0; !e && i < count; i++) {
        bw_topic *t;
        if (topics[i].state == BW_META_TOPIC_LIVE) e = bw_topic_from_meta(b, &topics[i], &t);
    }
    bw_store_topics_free(topics, count);
    return e ? e : bw_broker_adopt(b);
}

static void set_mail(bw_broker *b, bw_mail *mail)
{
    pthread_mutex_lock(&b->queue_lock);
    b->mail = mail;
    pthread_mutex_unlock(&b->queue_lock);
}

static void drop_controls(bw_broker *b)
{
    bw_topic *t, *tmp;
    HASH_ITER(by_name, b->topics_by_name, t, tmp)
    {
        bw_control_close(t->control);
        t->control = NULL;
    }
    if (b->arena_fd >= 0) bw_os_close(b->arena_fd);
    b->arena_fd = -1;
}

/* ---- take over ---- */

static bw_err attach_topic(bw_broker *b, bw_topic *t, bw_mail *mail)
{
    bw_err e = bw_control_attach(b->arena_fd, b->dir->generation, &t->id, BW_CONTROL_WRITE, mail, &t->control);
    /* A topic whose creation was cut short, or that was just adopted: nobody can be attached to what is not there. */
    if (e == BW_ERR_NOT_FOUND) return bw_control_create(b->arena_fd, b->dir->generation, &t->id, mail, t->wanted_parts, &t->control);
    if (e) return e;
    uint32_t published = atomic_load(&t->control->header->slots);
    if (published > BW_PARTITIONS_MAX) return bw_fail(BW_ERR_CORRUPT, "the control data of topic '%s' is nonsense", t->name);
    for (uint32_t i = 0; i < published; i++) {
        uint32_t number = atomic_load(&t->control->slots[i].bus_number);
        if (number < BW_BUS_PARTITIONS_MAX && number >= b->bus_floor) b->bus_floor = number + 1;
    }
    return BW_OK;
}

static bw_err take_over(bw_broker *b, bw_mail **mail)
{
    bw_err e = bw_arena_dir_open(b->config.runtime_dir, b->dir, false, b->arena_path, sizeof b->arena_path, &b->arena_fd);
    if (e) { /* of a coordinator with another runtime folder? */
        char why[512];
        snprintf(why, sizeof why, "%s", bw_error_message());
        if (bw_arena_dir_open_noted(b->dir, b->arena_path, sizeof b->arena_path, &b->arena_fd) == BW_OK) e = BW_OK;
        else bw_error_set_message(e, why);
    }
    if (e) {
        b->arena_fd = -1;
        return e;
    }
    e = bw_mail_attach(b->arena_fd, b->dir->generation, mail);
    bw_topic *t, *tmp;
    HASH_ITER(by_name, b->topics_by_name, t, tmp)
    {
        if (!e) e = attach_topic(b, t, *mail);
    }
    if (!e) return BW_OK;
    drop_controls(b);
    bw_mail_close(*mail);
    *mail = NULL;
    b->bus_floor = 0;
    return e;
}

/* ---- anew ---- */

static bw_err open_private_arenas(bw_broker *b)
{
    bw_error_context(BW_ERR_UNSUPPORTED, "the direct path is off");
    snprintf(b->no_direct, sizeof b->no_direct, "%s", bw_error_message());
    if (snprintf(b->arena_path, sizeof b->arena_path, "%s/private-control", b->config.runtime_dir) >= (int)sizeof b->arena_path)
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "the runtime folder's name is too long");
    if (bw_os_mkdir(AT_FDCWD, b->config.runtime_dir, 0750) && errno != EEXIST)
        return bw_fail_errno(errno, "cannot make runtime folder %s", b->config.runtime_dir);
    if (bw_os_mkdir(AT_FDCWD, b->arena_path, 0700) && errno != EEXIST) return bw_fail_errno(errno, "cannot make folder %s", b->arena_path);
    b->arena_fd = bw_os_open(AT_FDCWD, b->arena_path, O_RDONLY | O_DIRECTORY, 0);
    if (b->arena_fd < 0) return bw_fail_errno(errno, "cannot open folder %s", b->arena_path);
    char why[700];
    bw_broker_event(b, BW_LOG_WARN, "direct_path_off", "reason=%s", bw_event_text(b->no_direct, why, sizeof why));
    return BW_OK;
}

static bw_err make_anew(bw_broker *b, bw_mail **mail)
{
    bw_uuid generation;
    bw_err e = BW_OK;
    if (bw_os_uuid(generation.b)) return bw_fail(BW_ERR_IO, "no random bytes for a generation id");
    if (!b->dir->generation_is_new && (e = bw_datadir_set_generation(b->dir, generation.b))) return e;
    b->dir->generation_is_new = false;
    BW_KILL_POINT("bringup.generation");
    e = bw_arena_dir_open(b->config.runtime_dir, b->dir, true, b->arena_path, sizeof b->arena_path, &b->arena_fd);
    if (e) b->arena_fd = -1;
    if (!e) e = bw_arena_dir_note(b->dir, b->arena_path);
    if (e == BW_ERR_UNSUPPORTED) e = open_private_arenas(b);
    if (!e) e = bw_mail_create(b->arena_fd, b->dir->generation, mail);
    BW_KILL_POINT("bringup.mail");
    bw_topic *t, *tmp;
    HASH_ITER(by_name, b->topics_by_name, t, tmp)
    {
        if (!e) e = bw_control_create(b->arena_fd, b->dir->generation, &t->id, *mail, t->wanted_parts, &t->control);
    }
    if (!e) return BW_OK;
    drop_controls(b);
    bw_mail_close(*mail);
    *mail = NULL;
    return e;
}

static bw_err not_ready(bw_broker *b);

static void retry_bring_up(void *broker, bw_timer *timer)
{
    (void)timer;
    bw_broker *b = broker;
    if (bw_broker_bring_up(b)) not_ready(b);
}

/* The broker runs meanwhile and says why it refuses. Tried again by a timer, but not when it failed half way, with maps made. */
static bw_err not_ready(bw_broker *b)
{
    bool said = b->not_ready[0] != 0;
    snprintf(b->not_ready, sizeof b->not_ready, "%s", bw_error_message());
    char why[700];
    if (!said) bw_broker_event(b, BW_LOG_ERROR, "not_ready", "reason=%s", bw_event_text(b->not_ready, why, sizeof why));
    if (b->mail) return BW_OK;
    b->bring_up.fire = retry_bring_up;
    return bw_timers_set(&b->timers, &b->bring_up, bw_deadline_in_ms(BW_TICK_MS));
}

static bw_err open_all(bw_broker *b)
{
    bw_err e = BW_OK;
    bw_topic *t, *tmp;
    HASH_ITER(by_name, b->topics_by_name, t, tmp)
    {
        if (!e) e = bw_topic_open_parts(b, t, t->wanted_parts, false);
    }
    return e;
}

/* Direct writers went on while there was nobody. Those that stand at the end of their room are served before anybody else, and before it is
 * said that there is a coordinator again; then come those that write. A few: the rest in the background, as ever. */
static void open_for_writers(bw_broker *b)
{
    uint32_t opened = 0;
    for (uint32_t i = 0; i < b->parts_count; i++) {
        bw_part *p = b->parts[i];
        if (!p || p->fresh || atomic_load(&p->stage) != BW_PART_UNOPENED) continue;
        bw_tail_slot *s = &p->topic->control->slots[p->index];
        bool waits = atomic_load_explicit(&s->capacity_request, memory_order_relaxed) > atomic_load_explicit(&s->capacity, memory_order_relaxed);
        if (waits && opened++ < OPENED_AT_ONCE) bw_opener_open_now(b, p);
        else if (waits || atomic_load_explicit(&s->bias, memory_order_relaxed)) bw_opener_want(b, p);
    }
}

bw_err bw_broker_bring_up(bw_broker *b)
{
    bw_err e = BW_OK;
    bw_mail *mail = NULL;
    if (b->ready) return BW_OK;
    if (!b->registry_loaded && (e = load_registry(b))) return e;
    b->registry_loaded = true;
    b->clock_ahead_ms = bw_datadir_clock_ahead_ms(b->dir);
    if (b->clock_ahead_ms)
        bw_broker_event(b, BW_LOG_WARN, "clock_jumped", "ahead_ms=%lld what=\"%s\"", (long long)b->clock_ahead_ms,
                        "retention.ms does not count this; if the clock is right now, remove the file clock and start again");
    int64_t began = bw_clock_mono_ms();
    b->fresh = take_over(b, &mail) != BW_OK;
    if (b->fresh) {
        char why[512];
        snprintf(why, sizeof why, "%s", bw_error_message());
        if ((e = bw_datadir_lock_writers_exclusive(b->dir)) == BW_ERR_BUSY) {
            bw_error_context(e, "no data is taken or given until the control data can be made anew (%s)", why);
            return not_ready(b);
        }
        if (!e) e = make_anew(b, &mail);
        if (e) {
            bw_datadir_unlock_writers(b->dir);
            return e;
        }
    }
    if (!b->fresh) bw_attach_mail_taken_over(b, mail);
    set_mail(b, mail);
    e = open_all(b);
    if (!e && !b->fresh) open_for_writers(b);
    BW_KILL_POINT("bringup.opened");
    if (b->fresh && !b->no_direct[0]) bw_arena_dir_remove_others(b->arena_path);
    bw_datadir_unlock_writers(b->dir);
    if (e) return e;
    bw_offsets_begin(b);
    if ((e = bw_groups_begin(b))) return e;
    b->ready = true;
    b->not_ready[0] = 0;
    bw_broker_event(b, BW_LOG_INFO, b->fresh ? "recovered" : "taken_over", "topics=%u partitions=%u ms=%lld", HASH_CNT(by_name, b->topics_by_name),
                    b->parts_count, (long long)(bw_clock_mono_ms() - began));
    e = bw_keeper_start(b);
    bool compacts = false;
    bw_topic *t, *tmp;
    HASH_ITER(by_name, b->topics_by_name, t, tmp) compacts |= bw_topic_config_compacts(&t->config);
    if (!e && compacts) bw_cleaner_want(b);
    if (!e) e = bw_opener_start(b);
    return e ? e : bw_txns_start(b);
}

/* ---- down ---- */

/* An error comes again when the partition is closed. */
static void trim_some(bw_broker *b, uint32_t from)
{
    for (uint32_t i = from; i < b->parts_count && i < from + TRIMMED_AT_ONCE; i++)
        if (b->parts[i] && b->parts[i]->log) (void)bw_partition_trim(b->parts[i]->log);
}

/* All threads have ended. trim: no direct writer is attached: the logs end where they end, and the control data goes. */
static void close_parts(bw_broker *b, bool trim)
{
    size_t n = 0;
    bw_meta_point *points = malloc((b->parts_count + 1) * sizeof *points);
    bw_buf *snapshots = points ? calloc(b->parts_count + 1, sizeof *snapshots) : NULL;
    for (uint32_t i = 0; i < b->parts_count; i++) {
        bw_part *p = b->parts[i];
        if (trim && i % TRIMMED_AT_ONCE == 0) trim_some(b, i);
        if (!p) continue;
        bw_part_stop_io(b, p);
        if (!p->log) continue;
        bw_meta_point point = {.topic = p->topic->id, .partition = p->index};
        bw_buf snapshot = {0};
        bw_err e = bw_partition_close_keep(p->log, trim, &point.point, &snapshot);
        p->log = NULL;
        char why[700];
        if (e)
            bw_broker_event(b, BW_LOG_ERROR, "partition_close_failed", "topic=%s partition=%u reason=%s", p->topic->name, p->index,
                            bw_event_text(bw_error_message(), why, sizeof why));
        if (e || !snapshots) {
            bw_buf_free(&snapshot);
            continue;
        }
        point.snapshot = snapshot.data;
        point.snapshot_len = snapshot.len;
        snapshots[n] = snapshot;
        points[n++] = point;
    }
    bw_err e = snapshots ? bw_store_points_put(b->store, points, n) : BW_ERR_NO_MEMORY;
    if (e) bw_broker_event(b, BW_LOG_ERROR, "recovery_points_not_saved", "error=%s", bw_err_name(e));
    for (size_t i = 0; i < n; i++) bw_buf_free(&snapshots[i]);
    free(snapshots);
    free(points);
}

void bw_broker_take_down(bw_broker *b)
{
    bool trim = b->ready && bw_datadir_lock_writers_exclusive(b->dir) == BW_OK;
    if (b->ready) close_parts(b, trim);
    BW_KILL_POINT("stop.closed");
    bw_topic *t, *tmp;
    HASH_ITER(by_name, b->topics_by_name, t, tmp) bw_topic_free(b, t);
    free(b->parts);
    b->parts = NULL;
    b->parts_count = 0;
    bw_mail_close(b->mail);
    b->mail = NULL;
    if (b->arena_fd >= 0) bw_os_close(b->arena_fd);
    b->arena_fd = -1;
    if (trim) bw_arena_dir_remove(b->arena_path);
    BW_KILL_POINT("stop.removed");
    bw_broker_event(b, BW_LOG_INFO, "closed", "trimmed=%s", trim ? "true" : "false");
    bw_datadir_unlock_writers(b->dir);
}
