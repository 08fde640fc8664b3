/* broker/part.c: one partition in the registry: opening it, its appender and readers, and who uses it.
 *
 * A part is in the table `parts` under its bus number, which is its bit in every mailbox. Users are counted: the table's one, one a
 * keeper's round, one a job. Who takes it out of the table (deletion) waits until it is the last, then closes and frees it. */
#include "broker/replica.h"
#include "broker/links.h"

#include "base/killpoint.h"
#include "base/os.h"
#include "format/names.h"
#include "log/producers.h"
#include "log/wait.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define READER_IDLE_MS 10000
#define IO_PARTS_MOST 128  /* partitions that the broker thread itself has files of open */
#define OPENED_AT_ONCE 16 /* partitions of a new topic; more are left to the opener */

/* ---- the table ---- */

static bw_err table_insert(bw_broker *b, bw_part *p, uint32_t wanted)
{
    bw_err e = BW_OK;
    pthread_mutex_lock(&b->parts_lock);
    uint32_t number = wanted;
    if (number >= BW_BUS_PARTITIONS_MAX || (number < b->parts_count && b->parts[number])) {
        number = b->bus_floor > b->parts_full ? b->bus_floor : b->parts_full;
        while (number < b->parts_count && b->parts[number]) number++;
        if (b->bus_floor <= b->parts_full) b->parts_full = number;
    }
    if (number >= BW_BUS_PARTITIONS_MAX)
        e = bw_fail(BW_ERR_INVALID_ARGUMENT, "the bus has its most partitions, %u; delete topics", BW_BUS_PARTITIONS_MAX);
    else if (number >= b->parts_cap) {
        uint32_t cap = b->parts_cap ? b->parts_cap : 64;
        while (cap <= number) cap *= 2;
        bw_part **grown = realloc(b->parts, cap * sizeof *grown);
        if (!grown) e = bw_fail(BW_ERR_NO_MEMORY, "no memory for %u partitions", cap);
        else {
            b->parts = grown;
            b->parts_cap = cap;
        }
    }
    if (!e) {
        while (b->parts_count <= number) b->parts[b->parts_count++] = NULL;
        b->parts[number] = p;
        p->bus_number = number;
        atomic_store(&p->users, 1);
    }
    pthread_mutex_unlock(&b->parts_lock);
    return e;
}

bool bw_part_remove(bw_broker *b, bw_part *p)
{
    bw_broker_forget(b, p);
    bw_timers_clear(&b->timers, &p->retry);
    pthread_mutex_lock(&b->parts_lock);
    bool there = p->bus_number < b->parts_count && b->parts[p->bus_number] == p;
    if (there) b->parts[p->bus_number] = NULL;
    if (there && p->bus_number < b->parts_full) b->parts_full = p->bus_number;
    pthread_mutex_unlock(&b->parts_lock);
    return there;
}

bw_part *bw_part_by_number(bw_broker *b, uint32_t number) { return number < b->parts_count ? b->parts[number] : NULL; }

size_t bw_parts_hold(bw_broker *b, bw_part ***out)
{
    size_t n = 0;
    pthread_mutex_lock(&b->parts_lock);
    bw_part **list = malloc((b->parts_count ? b->parts_count : 1) * sizeof *list);
    for (uint32_t i = 0; list && i < b->parts_count; i++) {
        if (!b->parts[i] || !b->parts[i]->log) continue;
        atomic_fetch_add(&b->parts[i]->users, 1);
        list[n++] = b->parts[i];
    }
    pthread_mutex_unlock(&b->parts_lock);
    *out = list;
    return n;
}

bw_part *bw_part_hold_number(bw_broker *b, uint32_t number)
{
    pthread_mutex_lock(&b->parts_lock);
    bw_part *p = number < b->parts_count ? b->parts[number] : NULL;
    if (p && p->log) atomic_fetch_add(&p->users, 1);
    else {
        if (p) bw_opener_want(b, p); /* who notified is served when it is open */
        p = NULL;
    }
    pthread_mutex_unlock(&b->parts_lock);
    return p;
}

void bw_part_release(bw_part *p) { atomic_fetch_sub(&p->users, 1); }

void bw_parts_drop(bw_part **parts, size_t count)
{
    for (size_t i = 0; i < count; i++) bw_part_release(parts[i]);
    free(parts);
}

/* ---- open ---- */

static bw_err ensure_folder(bw_broker *b, const bw_topic *t, uint32_t index)
{
    char folder[BW_PARTITION_DIR_MAX];
    struct stat st;
    bw_partition_dir_name(folder, t->name, (int32_t)index);
    if (!bw_os_stat_at(b->dir->fd, folder, &st)) return BW_OK;
    if (errno != ENOENT) return bw_fail_errno(errno, "cannot look at partition folder %s", folder);
    char name[300];
    bw_recovery_point point;
    bool had_data = !bw_store_point_get(b->store, &t->id, index, &point) && point.next_offset > 0;
    bw_broker_event(b, had_data ? BW_LOG_ERROR : BW_LOG_INFO, had_data ? "partition_folder_lost" : "partition_folder_made",
                    "topic=%s partition=%u", bw_event_text(t->name, name, sizeof name), index);
    return bw_partition_create_files(b->dir->fd, t->name, (int32_t)index, &t->id);
}

static void report_recovery(bw_broker *b, const bw_part *p, const bw_recovery_report *r)
{
    const char *topic = p->topic->name;
    if (r->quarantined)
        bw_broker_event(b, BW_LOG_ERROR, "segments_quarantined", "topic=%s partition=%u segments=%u", topic, p->index, r->quarantined);
    if (r->foreign)
        bw_broker_event(b, BW_LOG_ERROR, "log_behind_recovery_point", "topic=%s partition=%u end=%lld epoch=%d reason=%s", topic, p->index,
                        (long long)r->end_offset, r->leader_epoch, "\"restored from a copy? taken as it is\"");
    if (r->cut)
        bw_broker_event(b, BW_LOG_WARN, "log_cut", "topic=%s partition=%u end=%lld bytes=%lld epoch=%d", topic, p->index,
                        (long long)r->end_offset, (long long)r->cut_from_bytes, r->leader_epoch);
    else if (r->recovered)
        bw_broker_event(b, BW_LOG_DEBUG, "log_recovered", "topic=%s partition=%u end=%lld", topic, p->index, (long long)r->end_offset);
}

static bw_err open_log(bw_broker *b, bw_part *p)
{
    bw_topic *t = p->topic;
    bw_err e = p->just_created ? BW_OK : ensure_folder(b, t, p->index);
    if (e) return e;
    bw_partition_open_options o = {
        .data_fd = b->dir->fd,
        .topic = t->name,
        .partition = (int32_t)p->index,
        .control = t->control,
        .bus_number = p->bus_number,
        .fresh_slot = p->fresh,
        .just_created = p->just_created,
        .guard = &b->guard,
        .clock_ahead_ms = b->clock_ahead_ms,
        .open_files = &b->open_files,
        .verify_later = true,
    };
    bw_topic_config_partition(&t->config, &o.config);
    o.config.mirror = t->mirror != NULL;
    o.config.dirty = b->dirty.most ? &b->dirty : NULL;
    o.config.disk_reserve_bytes = atomic_load(&b->reserve_bytes);
    e = p->just_created ? BW_ERR_NOT_FOUND : bw_store_point_get(b->store, &t->id, p->index, &o.point);
    if (e && e != BW_ERR_NOT_FOUND) return e;
    bw_buf snapshot = {0};
    if (!e && o.point.state_crc) {
        e = bw_store_snapshot_get(b->store, &t->id, p->index, &snapshot);
        if (e) /* the log is walked instead */
            bw_broker_event(b, BW_LOG_WARN, "producers_snapshot_lost", "topic=%s partition=%u error=%s", t->name, p->index, bw_err_name(e));
        o.snapshot = e ? NULL : snapshot.data;
        o.snapshot_len = snapshot.len;
    }
    bw_recovery_report report = {0};
    bw_partition *log;
    e = bw_partition_open(&o, &log, &report);
    bw_buf_free(&snapshot);
    if (e) return e;
    if (report.leader_epoch > 0 && (e = bw_partition_history_get(log, &p->history))) { /* epoch 0: nothing was ever lost */
        bw_recovery_point ignored;
        (void)bw_partition_close(log, false, &ignored);
        return e;
    }
    atomic_store(&p->used_ms, bw_clock_mono_ms());
    pthread_mutex_lock(&b->parts_lock);
    p->log = log; /* from here on the keeper tends it */
    pthread_mutex_unlock(&b->parts_lock);
    report_recovery(b, p, &report);
    return BW_OK;
}

/* A partition that does not open must not stop the others: it stays in the registry, closed, and its slot refuses. */
static void keep_closed(bw_broker *b, bw_part *p, bw_err e)
{
    char why[700];
    p->why = strdup(bw_error_message());
    bw_tail_slot *s = &p->topic->control->slots[p->index];
    uint32_t unopened = BW_SLOT_UNOPENED;
    if (p->fresh) atomic_store(&s->message_max, (uint32_t)p->topic->config.max_message_bytes); /* so that the state is what refuses */
    if (p->fresh) atomic_compare_exchange_strong(&s->state, &unopened, BW_SLOT_POISONED);
    bw_broker_event(b, BW_LOG_ERROR, "partition_not_opened", "topic=%s partition=%u error=%s reason=%s", p->topic->name, p->index, bw_err_name(e),
                    bw_event_text(p->why ? p->why : "", why, sizeof why));
}

bw_err bw_part_open(bw_broker *b, bw_part *p)
{
    bw_err e = open_log(b, p);
    if (e) keep_closed(b, p, e);
    atomic_store(&p->stage, e ? BW_PART_FAILED : BW_PART_OPEN);
    bw_wake(p->topic->control, p->index, BW_WAIT_STATE);
    return e;
}

static bw_err register_part(bw_broker *b, bw_topic *t, uint32_t index, uint32_t published, bool new_files)
{
    bw_part *p = calloc(1, sizeof *p);
    if (!p) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a partition");
    bw_tail_slot *s = &t->control->slots[index];
    p->topic = t;
    p->index = index;
    p->just_created = new_files;
    atomic_store(&p->synced_ms, bw_clock_mono_ms());
    bool fresh = index >= published;
    uint32_t wanted = fresh ? UINT32_MAX : atomic_load(&s->bus_number);
    p->fresh = fresh || atomic_load(&s->state) == BW_SLOT_UNOPENED; /* or a start before this one did not come to it */
    bw_err e = table_insert(b, p, wanted);
    if (e) {
        free(p);
        return e;
    }
    if (fresh) atomic_store(&s->state, BW_SLOT_UNOPENED);
    atomic_store(&s->bus_number, p->bus_number);
    t->parts[index] = p;
    t->part_count = index + 1;
    return BW_OK;
}

/* New partitions have a recovery point before anyone writes to them: without one, a log that lost power could not be told from one
 * that rots. */
static bw_err store_first_points(bw_broker *b, const bw_topic *t, uint32_t from, uint32_t upto)
{
    bw_meta_point *points = calloc(upto - from + 1, sizeof *points);
    if (!points) return bw_fail(BW_ERR_NO_MEMORY, "no memory for recovery points");
    for (uint32_t i = from; i < upto; i++) points[i - from] = (bw_meta_point){.topic = t->id, .partition = i, .point = {.known = true}};
    bw_err e = bw_store_points_put(b->store, points, upto - from);
    free(points);
    return e;
}

bw_err bw_topic_open_parts(bw_broker *b, bw_topic *t, uint32_t upto, bool new_files)
{
    bw_err e = BW_OK;
    uint32_t first = t->part_count;
    bw_part **grown = realloc(t->parts, upto * sizeof *grown);
    if (!grown) return bw_fail(BW_ERR_NO_MEMORY, "no memory for %u partitions", upto);
    t->parts = grown;
    uint32_t published = atomic_load(&t->control->header->slots);
    if (upto > published && (e = bw_control_grow(b->arena_fd, t->control, upto))) return e;
    if (new_files) e = bw_partition_create_many(b->dir->fd, t->name, (int32_t)first, upto - first, &t->id);
    if (!e && new_files) e = store_first_points(b, t, first, upto);
    while (!e && t->part_count < upto) {
        e = register_part(b, t, t->part_count, published, new_files);
        BW_KILL_POINT("topic.partition");
    }
    if (!e && upto > published) bw_control_publish(t->control, upto);
    if (e || !new_files) return e;
    for (uint32_t i = first; !e && i < upto && upto - first <= OPENED_AT_ONCE; i++) e = bw_part_open(b, t->parts[i]);
    if (upto - first > OPENED_AT_ONCE) bw_opener_look_again(b, 0);
    return e;
}

/* ---- input and output; broker thread ---- */

static bw_err closed_part(const bw_part *p)
{
    return bw_fail(BW_ERR_IO, "topic '%s' partition %u is not open: %s", p->topic->name, p->index, p->why ? p->why : "see the daemon's log");
}

static void rest_io(bw_part *p)
{
    if (p->appender) bw_appender_rest(p->appender);
    for (int i = 0; i < BW_PART_READERS; i++)
        if (p->readers[i]) bw_reader_rest(p->readers[i]);
    bw_sub_rest(p);
    bw_queue_rest_part(p);
    p->has_io = false;
}

void bw_part_use_io(bw_broker *b, bw_part *p)
{
    if (p->has_io) return;
    p->has_io = true;
    if (++b->io_parts <= IO_PARTS_MOST) return;
    for (uint32_t i = 0; i < b->parts_count; i++)
        if (b->parts[i] && b->parts[i] != p && b->parts[i]->has_io) rest_io(b->parts[i]);
    b->io_parts = 1;
}

bw_err bw_part_appender(bw_broker *b, bw_part *p, bw_appender **out)
{
    if (!p->log) return closed_part(p);
    bw_part_use_io(b, p);
    if (!p->appender) {
        char folder[BW_PARTITION_DIR_MAX];
        bw_partition_dir_name(folder, p->topic->name, (int32_t)p->index);
        bw_appender_options o = {.control = p->topic->control, .partition = p->index, .dir_fd = b->dir->fd, .use_pwrite = true,
                                 .guard = &b->guard, .folder = folder};
        bw_err e = bw_appender_open(&o, &p->appender);
        if (e) return e;
    }
    *out = p->appender;
    return BW_OK;
}

bw_err bw_part_open_reader(bw_broker *b, bw_part *p, int limit, bool committed, bw_reader **out)
{
    if (!p->log) return closed_part(p);
    char folder[BW_PARTITION_DIR_MAX];
    bw_partition_dir_name(folder, p->topic->name, (int32_t)p->index);
    bw_reader_options o = {.control = p->topic->control, .partition = p->index, .dir_fd = b->dir->fd, .folder = folder,
                           .limit = (bw_reader_limit)limit, .committed = committed,
                           .use_pread = true, .guard = &b->guard};
    return bw_reader_open(&o, out);
}

bw_err bw_part_reader(bw_broker *b, bw_part *p, int limit, bool committed, bw_reader **out)
{
    int i = (int)bw_fetch_limit(p, (int8_t)limit) + BW_LIMIT_COUNT * committed;
    bw_part_use_io(b, p);
    if (!p->readers[i]) {
        bw_err e = bw_part_open_reader(b, p, i % BW_LIMIT_COUNT, committed, &p->readers[i]);
        if (e) return e;
        bw_broker_tick_on(b);
    }
    p->reader_used_ms[i] = bw_clock_mono_ms();
    *out = p->readers[i];
    return BW_OK;
}

bool bw_part_close_idle_readers(bw_part *p)
{
    bool open = false;
    for (int i = 0; i < BW_PART_READERS; i++) {
        if (!p->readers[i]) continue;
        if (bw_clock_mono_ms() - p->reader_used_ms[i] < READER_IDLE_MS) open = true;
        else {
            bw_reader_close(p->readers[i]);
            p->readers[i] = NULL;
        }
    }
    return open;
}

void bw_part_stop_io(bw_broker *b, bw_part *p)
{
    bw_queue_stop_part(b, p);
    if (p->has_io && b->io_parts) b->io_parts--;
    p->has_io = false;
    bw_replica_end_waits(p);
    bw_appender_close(p->appender);
    p->appender = NULL;
    for (int i = 0; i < BW_PART_READERS; i++) {
        bw_reader_close(p->readers[i]);
        p->readers[i] = NULL;
    }
    bw_producers_free(p->producers);
    p->producers = NULL;
    bw_merge_free(b, p);
}

void bw_part_free(bw_part *p)
{
    bw_replica_free(p);
    free(p->history.epochs);
    free(p->why);
    free(p->cleaned);
    free(p);
}

void bw_part_range(const bw_part *p, int64_t *log_start, int64_t *end, int64_t *durable)
{
    const bw_tail_slot *s = &p->topic->control->slots[p->index];
    *log_start = atomic_load_explicit(&s->log_start, memory_order_acquire);
    *durable = atomic_load_explicit(&s->durable_offset, memory_order_acquire);
    *end = bw_slot_end_offset(s);
}
