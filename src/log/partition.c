/* log/partition.c: open, close, tend: the coordinator's handle of one partition. The work itself is in partition_*.c;
 * log/segment.h says how a segment lives and which locks are taken in which order.
 *
 * tend is called for every partition each second and whenever a writer asked for something; with nothing wanted it is a few loads
 * and no system call. Order inside: first what a writer may be waiting for (rolls noticed, capacity, spare), then names, indexes
 * and seals. */
#include "log/segment.h"

#include "base/killpoint.h"
#include "base/lock.h"
#include "log/smallfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* "<folder>.<id>-<what>": no partition's name. A file name has at most 255 bytes; the topic's own may take nearly all of them. The
 * id must tell apart what the cut name does not. */
static void aside_name(char *out, size_t size, const char *folder, const bw_uuid *id, const char *what)
{
    char hex[33];
    bw_uuid_hex(id, hex);
    snprintf(out, size, "%.*s.%s-%s", 255 - 40, folder, hex, what);
}

enum { CREATED_AT_ONCE = 256 };

typedef struct creation {
    int data_fd;
    const char *topic;
    int32_t first;
    uint32_t count, filled, named;
    const bw_uuid *id;
    bw_uuid aside;
    int pattern; /* the first new folder: its small files are those of all others too */
} creation;

static void creation_names(const creation *c, uint32_t i, char name[BW_PARTITION_DIR_MAX], char fresh[BW_PARTITION_DIR_MAX + 48])
{
    bw_partition_dir_name(name, c->topic, c->first + (int32_t)i);
    aside_name(fresh, BW_PARTITION_DIR_MAX + 48, name, &c->aside, "new");
}

/* The topic's id is the only content that must be on the disk: an epoch file that was lost is made anew, and an empty segment
 * promises nothing. It is the same for all partitions of a topic: one file with many names, which is replaced, never written to. */
static bw_err write_small_files(creation *c, int dir, const char *name)
{
    static const char *const small[] = {"leader-epoch-checkpoint", "partition.metadata"};
    if (c->pattern >= 0) {
        bool linked = true;
        for (int i = 0; i < 2 && linked; i++) linked = bw_os_link(c->pattern, small[i], dir, small[i]) == 0;
        if (linked) return BW_OK;
        for (int i = 0; i < 2; i++) (void)bw_os_unlink(dir, small[i], 0); /* too many links, or none here */
    }
    char text[64];
    bw_err e = bw_smallfile_write(dir, small[0], "0\n1\n0 0\n", 8, false);
    if (!e) e = bw_smallfile_write(dir, small[1], text, bw_partition_metadata_encode(text, c->id), true);
    if (!e && c->pattern < 0 && c->count > 1) c->pattern = fcntl(dir, F_DUPFD_CLOEXEC, 0);
    return e ? bw_error_context(e, "partition folder %s", name) : BW_OK;
}

static bw_err fill_new_folder(creation *c, int dir, const char *name)
{
    char log[BW_SEGMENT_NAME_MAX];
    bw_segment_name(log, 0, ".log");
    int fd = bw_os_open_beneath(dir, log, O_RDWR | O_CREAT | O_EXCL, 0644);
    if (fd < 0) return bw_fail_errno(errno, "cannot create %s/%s", name, log);
    bw_err e = BW_OK;
    if (bw_os_fallocate(fd, 0, 0, BW_GRANT_FIRST) != 0) e = bw_fail_errno(errno, "cannot allocate %s/%s", name, log);
    bw_os_close(fd);
    BW_KILL_POINT("create.segment");
    if (!e) e = write_small_files(c, dir, name);
    BW_KILL_POINT("create.metadata");
    return e;
}

static bw_err creation_fill(creation *c, uint32_t i)
{
    char name[BW_PARTITION_DIR_MAX], fresh[BW_PARTITION_DIR_MAX + 48];
    struct stat st;
    creation_names(c, i, name, fresh);
    if (bw_os_stat_at(c->data_fd, name, &st) == 0) return bw_fail(BW_ERR_BUSY, "partition folder %s exists already", name);
    if (bw_os_mkdir(c->data_fd, fresh, 0755) != 0) return bw_fail_errno(errno, "cannot make partition folder %s", name);
    c->filled = i + 1;
    BW_KILL_POINT("create.folder");
    int dir = bw_os_open_beneath(c->data_fd, fresh, O_RDONLY | O_DIRECTORY, 0);
    bw_err e = dir < 0 ? bw_fail_errno(errno, "cannot open partition folder %s", name) : fill_new_folder(c, dir, name);
    if (dir >= 0) bw_os_close(dir);
    return e;
}

static bw_err creation_sync(creation *c, uint32_t i)
{
    char name[BW_PARTITION_DIR_MAX], fresh[BW_PARTITION_DIR_MAX + 48];
    creation_names(c, i, name, fresh);
    int dir = bw_os_open_beneath(c->data_fd, fresh, O_RDONLY | O_DIRECTORY, 0);
    bw_err e = dir < 0 || bw_os_sync_dir(dir) != 0 ? bw_fail_errno(errno, "cannot sync partition folder %s", name) : BW_OK;
    if (dir >= 0) bw_os_close(dir);
    return e;
}

static bw_err creation_name(creation *c, uint32_t i)
{
    char name[BW_PARTITION_DIR_MAX], fresh[BW_PARTITION_DIR_MAX + 48];
    creation_names(c, i, name, fresh);
    if (bw_os_rename(c->data_fd, fresh, c->data_fd, name) != 0) return bw_fail_errno(errno, "cannot name partition folder %s", name);
    c->named = i + 1;
    BW_KILL_POINT("create.named");
    return BW_OK;
}

static void creation_undo(creation *c)
{
    char name[BW_PARTITION_DIR_MAX], fresh[BW_PARTITION_DIR_MAX + 48];
    for (uint32_t i = 0; i < c->filled; i++) {
        creation_names(c, i, name, fresh);
        if (i < c->named) (void)bw_partition_delete_files(c->data_fd, c->topic, c->first + (int32_t)i);
        else (void)bw_folder_remove(c->data_fd, fresh);
    }
}

/* A folder appears under its name only when it is whole and on the disk; what a death leaves of it ends in "-new" and goes at the next
 * start. Many are filled before the first is synced: one journal commit does for all. */
static bw_err create_some(creation *c)
{
    bw_err e = bw_os_uuid(c->aside.b) != 0 ? bw_fail_errno(errno, "no random numbers") : BW_OK;
    for (uint32_t i = 0; !e && i < c->count; i++) e = creation_fill(c, i);
    for (uint32_t i = 0; !e && i < c->count; i++) e = creation_sync(c, i);
    for (uint32_t i = 0; !e && i < c->count; i++) e = creation_name(c, i);
    if (!e && bw_os_sync_dir(c->data_fd) != 0) e = bw_fail_errno(errno, "cannot sync the data directory");
    if (c->pattern >= 0) bw_os_close(c->pattern);
    if (!e) return BW_OK;
    char why[512];
    snprintf(why, sizeof why, "%s", bw_error_message());
    creation_undo(c);
    return bw_error_set_message(e, why);
}

bw_err bw_partition_create_many(int data_fd, const char *topic, int32_t first, uint32_t count, const bw_uuid *id)
{
    bw_err e = BW_OK;
    for (uint32_t done = 0, n; !e && done < count; done += n) {
        n = count - done < CREATED_AT_ONCE ? count - done : CREATED_AT_ONCE;
        creation c = {.data_fd = data_fd, .topic = topic, .first = first + (int32_t)done, .count = n, .id = id, .pattern = -1};
        e = create_some(&c);
        if (!e) continue;
        char why[512];
        snprintf(why, sizeof why, "%s", bw_error_message());
        for (uint32_t i = 0; i < done; i++) (void)bw_partition_delete_files(data_fd, topic, first + (int32_t)i);
        return bw_error_set_message(e, why);
    }
    return e;
}

bw_err bw_partition_create_files(int data_fd, const char *topic, int32_t partition, const bw_uuid *id)
{
    return bw_partition_create_many(data_fd, topic, partition, 1, id);
}

bw_err bw_partition_delete_files(int data_fd, const char *topic, int32_t partition)
{
    char name[BW_PARTITION_DIR_MAX], aside[BW_PARTITION_DIR_MAX + 48];
    bw_uuid id;
    bw_partition_dir_name(name, topic, partition);
    if (bw_os_uuid(id.b) != 0) return bw_fail_errno(errno, "no random numbers");
    aside_name(aside, sizeof aside, name, &id, "delete");
    if (bw_os_rename(data_fd, name, data_fd, aside) != 0) return bw_fail_errno(errno, "cannot rename partition folder %s", name);
    BW_KILL_POINT("delete.renamed");
    if (bw_os_sync_dir(data_fd) != 0) return bw_fail_errno(errno, "cannot sync the data directory");
    return bw_folder_remove(data_fd, aside);
}

static bw_err check_config(const bw_partition_config *c)
{
    if (c->segment_bytes < 1024 || c->segment_bytes > BW_POSITION_MAX)
        return bw_fail(BW_ERR_INVALID_CONFIG, "segment.bytes is %u; from 1024 to %u", c->segment_bytes, BW_POSITION_MAX);
    if (c->index_interval_bytes > BW_POSITION_MAX) return bw_fail(BW_ERR_INVALID_CONFIG, "index.interval.bytes is out of range");
    return BW_OK;
}

void bw_partition_store_config(bw_partition *p)
{
    atomic_store_explicit(&p->slot->segment_max, p->config.segment_bytes, memory_order_relaxed);
    atomic_store_explicit(&p->slot->message_max, p->config.max_message_bytes, memory_order_relaxed);
    uint32_t set = 0, all = BW_SLOT_LOG_APPEND_TIME | BW_SLOT_READ_REPLICATED | BW_SLOT_READ_DURABLE | BW_SLOT_REPLICAS;
    if (p->config.log_append_time) set |= BW_SLOT_LOG_APPEND_TIME;
    if (p->config.read_limit == BW_LIMIT_REPLICATED) set |= BW_SLOT_READ_REPLICATED;
    if (p->config.read_limit == BW_LIMIT_DURABLE) set |= BW_SLOT_READ_DURABLE;
    if (p->config.replicas) set |= BW_SLOT_REPLICAS;
    atomic_fetch_or_explicit(&p->slot->flags, set, memory_order_release);
    atomic_fetch_and_explicit(&p->slot->flags, ~(all & ~set), memory_order_release);
}

static void partition_free(bw_partition *p)
{
    bw_partition_count_dirty(p, 0);
    bw_appender_close(p->appender);
    for (size_t i = 0; i < p->count; i++) bw_segment_free(p->segments[i]);
    free(p->segments);
    bw_segment_free(p->spare);
    bw_indexer_free(&p->indexer);
    free(p->dropped);
    if (p->dir_fd >= 0) bw_os_close(p->dir_fd);
    free(p->dir_name);
    bw_partition_producers_fini(p);
    pthread_mutex_destroy(&p->mutex);
    pthread_mutex_destroy(&p->sync_mutex);
    pthread_rwlock_destroy(&p->files_lock);
    free(p);
}

bw_err bw_partition_open(const bw_partition_open_options *o, bw_partition **out, bw_recovery_report *report)
{
    bw_err e = check_config(&o->config);
    if (e) return e;
    bw_partition *p = calloc(1, sizeof *p);
    if (!p) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a partition");
    pthread_mutex_init(&p->mutex, NULL);
    pthread_mutex_init(&p->sync_mutex, NULL);
    pthread_mutex_init(&p->txn_mutex, NULL);
    pthread_rwlock_init(&p->files_lock, NULL);
    p->clean_upto = -1;
    char name[BW_PARTITION_DIR_MAX];
    bw_partition_dir_name(name, o->topic, o->partition);
    p->dir_name = strdup(name);
    p->dir_fd = -1;
    p->data_fd = o->data_fd;
    p->open_files = o->open_files;
    p->number = o->partition;
    p->bus_number = o->bus_number;
    p->control = o->control;
    p->slot = &o->control->slots[o->partition];
    p->guard = o->guard;
    p->config = o->config;
    p->just_created = o->just_created;
    p->verify_later = o->verify_later;
    p->open_wall_ms = bw_clock_wall_ms() - o->clock_ahead_ms;
    p->open_mono_ms = bw_clock_mono_ms();
    bw_recovery_report ignored;
    if (!report) report = &ignored;
    *report = (bw_recovery_report){0};
    if (!p->dir_name) e = bw_fail(BW_ERR_NO_MEMORY, "no memory for a partition");
    else if (bw_partition_dir(p) < 0) e = bw_fail_errno(errno, "cannot open partition folder %s", p->dir_name);
    if (!e) p->gaps_below = bw_offset_file_read(bw_partition_dir(p), BW_GAPS_FILE);
    if (e) { /* said below */
    } else if (o->fresh_slot) e = bw_partition_recover(p, o, report);
    else e = bw_partition_take_over(p, o, report);
    if (e) {
        e = bw_error_context(e, "partition %s", name);
        partition_free(p);
        return e;
    }
    bw_partition_restore_replicated(p, o->fresh_slot);
    bw_os_close(p->dir_fd);
    p->dir_fd = -1;
    bw_partition_store_config(p);
    p->last_tick_ms = p->open_mono_ms;
    p->seal_all = true;
    *out = p;
    return BW_OK;
}

bw_err bw_partition_set_config(bw_partition *p, const bw_partition_config *config)
{
    bw_err e = check_config(config);
    if (e) return e;
    bw_partition_lock(p);
    p->config = *config;
    bw_partition_store_config(p);
    atomic_fetch_add_explicit(&p->slot->fence, 1, memory_order_release); /* writers ask what has changed */
    bw_partition_unlock(p);
    return BW_OK;
}

/* What can wait a while: indexes, seals, names, deletions. */
static bw_err tend_slow(bw_partition *p, bw_position tail, int64_t now)
{
    p->last_tick_ms = now;
    bw_err e = bw_partition_follow(p, tail);
    bw_err e2 = p->indexer.index.len ? bw_indexer_flush(&p->indexer, bw_partition_dir(p)) : BW_OK;
    bw_partition_reap(p, now, false);
    bw_partition_reuse_expire(p, now);
    return e ? e : e2;
}

static uint64_t unfollowed(const bw_partition *p, bw_position tail)
{
    uint64_t bytes = 0;
    for (size_t i = p->follow_at; i < p->count; i++) {
        const bw_segment *s = p->segments[i];
        bytes += (s->rolled ? s->final_length : bw_position_seq(tail) == s->seq ? bw_position_pos(tail) : s->length) - s->length;
    }
    return bytes;
}

static bw_err tend_locked(bw_partition *p)
{
    uint32_t state = atomic_load_explicit(&p->slot->state, memory_order_acquire);
    if (state == BW_SLOT_DELETED || state == BW_SLOT_RETIRED || p->broken) return BW_OK;
    bw_position tail = atomic_load_explicit(&p->slot->tail, memory_order_acquire);
    int64_t now = bw_clock_mono_ms();
    if (p->rest == BW_RESTING) {
        bw_err woken = state == BW_SLOT_OPEN ? bw_partition_wake(p, tail, now, false) : BW_ERR_EMPTY;
        if (woken) return woken == BW_ERR_EMPTY ? BW_OK : woken;
    }
    bool rolled = bw_position_seq(tail) != bw_partition_active(p)->seq;
    if (rolled) bw_partition_adopt_rolls(p, tail);
    bw_partition_count_dirty(p, bw_partition_unsynced(p, tail));
    bw_err e = state == BW_SLOT_OPEN ? bw_partition_grant(p, tail, now) : BW_OK;
    bw_err e2 = bw_partition_link_files(p);
    bool tick = now - p->last_tick_ms >= BW_TICK_MS;
    if (rolled || (tick && unfollowed(p, tail) + p->indexer.index.len + p->dropped_count > 0)) {
        bw_err e3 = tend_slow(p, tail, now);
        if (!e2) e2 = e3;
    }
    bw_partition_seal_durable(p);
    bw_partition_save_replicated(p, now);
    if (rolled && p->config.retention_bytes >= 0) bw_partition_retain_bytes(p, NULL);
    return e ? e : e2;
}

bw_err bw_partition_tend_files(bw_partition *p)
{
    bw_partition_lock(p);
    bw_err e = tend_locked(p);
    bw_partition_unlock(p);
    return e ? bw_error_context(e, "partition %s", p->dir_name) : BW_OK;
}

bool bw_partition_wants_sync(bw_partition *p)
{
    bw_partition_lock(p);
    bool wanted = bw_partition_wants_sync_locked(p, atomic_load_explicit(&p->slot->tail, memory_order_acquire));
    bw_partition_unlock(p);
    return wanted;
}

bw_err bw_partition_tend(bw_partition *p, bool *synced)
{
    if (synced) *synced = false;
    bw_err e = bw_partition_tend_files(p);
    if (!bw_partition_wants_sync(p)) return e;
    bw_err e2 = bw_partition_sync(p);
    if (e2) return e2;
    if (synced) *synced = true;
    bw_err e3 = bw_partition_tend_files(p); /* a sync takes long: writers may have asked meanwhile; rolled segments can be sealed */
    return e ? e : e3;
}

bool bw_partition_has_unsynced(const bw_partition *p)
{
    return atomic_load_explicit(&p->slot->durable, memory_order_acquire) !=
           atomic_load_explicit(&p->slot->tail, memory_order_acquire);
}

/* Nobody writes any more: give back what was allocated ahead, so that the files end where the log ends. */
static bw_err trim(bw_partition *p)
{
    bw_err e = bw_partition_lock_slot(p);
    if (e) return e;
    bw_position tail = atomic_load_explicit(&p->slot->tail, memory_order_acquire);
    atomic_store_explicit(&p->slot->capacity, tail, memory_order_release);
    atomic_store_explicit(&p->slot->spare_seq, 0, memory_order_release);
    bw_partition_unlock_slot(p);
    bw_partition_adopt_rolls(p, tail);
    char name[BW_SEGMENT_NAME_MAX];
    if (p->spare) {
        bw_spare_name(name, p->spare->seq);
        (void)bw_os_unlink(bw_partition_dir(p), name, 0);
        bw_segment_free(p->spare);
        p->spare = NULL;
        p->spare_published = false;
        p->dir_dirty = true;
    }
    BW_KILL_POINT("close.spare");
    bw_segment *a = bw_partition_active(p);
    if (bw_position_seq(tail) != a->seq) return bw_fail(BW_ERR_INTERNAL, "the log rolled while it was closed");
    if (a->file_bytes > bw_position_pos(tail)) {
        e = a->fd < 0 ? bw_segment_open(p, a) : BW_OK;
        if (e) return e;
        if (bw_os_ftruncate(a->fd, bw_position_pos(tail)) != 0)
            return bw_fail_errno(errno, "cannot cut the newest segment to its length");
        a->file_bytes = bw_position_pos(tail);
        a->step = 0;
        p->sync_grant = p->cut_unsynced = true;
    }
    BW_KILL_POINT("close.trimmed");
    return BW_OK;
}

/* The cut must be on the disk before the point that calls it a clean stop. */
static bw_err sync_cut(bw_partition *p)
{
    if (!p->cut_unsynced) return BW_OK;
    if (bw_os_fsync(bw_partition_active(p)->fd) != 0) return bw_fail_errno(errno, "cannot sync the newest segment's length");
    p->cut_unsynced = false;
    return BW_OK;
}

static bool is_open(const bw_partition *p)
{
    return atomic_load_explicit(&p->slot->state, memory_order_acquire) == BW_SLOT_OPEN && !p->broken;
}

bw_err bw_partition_trim(bw_partition *p)
{
    if (!is_open(p)) return BW_OK;
    bw_err e = bw_partition_sync(p);
    if (e) return e;
    bw_partition_lock(p);
    e = bw_partition_link_files(p);
    if (!e) e = trim(p);
    bw_partition_unlock(p);
    return e ? bw_error_context(e, "partition %s", p->dir_name) : BW_OK;
}

bw_err bw_partition_close(bw_partition *p, bool trim_files, bw_recovery_point *point)
{
    return bw_partition_close_keep(p, trim_files, point, NULL);
}

bw_err bw_partition_close_keep(bw_partition *p, bool trim_files, bw_recovery_point *point, bw_buf *snapshot)
{
    if (!p) return BW_OK;
    uint32_t state = atomic_load_explicit(&p->slot->state, memory_order_acquire);
    bool open = is_open(p);
    bw_err e = open ? bw_partition_sync(p) : BW_OK;
    bw_partition_lock(p);
    if (open && !e) {
        e = bw_partition_link_files(p);
        if (!e && trim_files) e = trim(p);
        if (!e) e = sync_cut(p);
        if (!e && p->dir_dirty && bw_os_sync_dir(bw_partition_dir(p)) != 0) e = bw_fail_errno(errno, "cannot sync folder %s", p->dir_name);
        if (!e) {
            p->dir_dirty = false;
            for (size_t i = 0; i < p->count; i++) p->segments[i]->link_syncing = p->segments[i]->linked;
            bw_partition_unlink_spare_names(p);
        }
        bw_partition_seal_durable(p);
        bw_err e2 = p->indexer.index.len ? bw_indexer_flush(&p->indexer, bw_partition_dir(p)) : BW_OK;
        if (!e) e = e2;
    }
    if (open) bw_partition_save_replicated(p, INT64_MAX);
    if (state != BW_SLOT_DELETED) bw_partition_reap(p, 0, true);
    if (state != BW_SLOT_DELETED) bw_partition_reuse_expire(p, -1);
    if (point) *point = p->point;
    if (snapshot) {
        *snapshot = p->snapshot;
        p->snapshot = (bw_buf){0};
    }
    bw_partition_unlock(p);
    if (e) e = bw_error_context(e, "partition %s", p->dir_name);
    partition_free(p);
    return e;
}

void bw_partition_info_get(bw_partition *p, bw_partition_info *out)
{
    bw_partition_lock(p);
    bw_tail_slot *s = p->slot;
    *out = (bw_partition_info){
        .log_start = atomic_load_explicit(&s->log_start, memory_order_acquire),
        .end_offset = bw_slot_end_offset(s),
        .durable_offset = atomic_load_explicit(&s->durable_offset, memory_order_acquire),
        .replicated_offset = bw_limit_end(s, BW_LIMIT_REPLICATED),
        .segments = (uint32_t)p->count,
        .leader_epoch = (int32_t)atomic_load_explicit(&s->leader_epoch, memory_order_acquire),
        .state = (bw_slot_state)atomic_load_explicit(&s->state, memory_order_acquire),
    };
    bw_position tail = atomic_load_explicit(&s->tail, memory_order_acquire);
    bw_partition_adopt_rolls(p, tail);
    for (size_t i = 0; i + 1 < p->count; i++) out->size_bytes += p->segments[i]->final_length;
    out->size_bytes += bw_position_pos(tail);
    bw_partition_unlock(p);
}

int bw_partition_dir_fd(bw_partition *p)
{
    bw_partition_lock(p);
    p->dir_kept = true;
    int fd = bw_partition_dir(p);
    bw_partition_unlock(p);
    return fd;
}

bw_tail_slot *bw_partition_slot(const bw_partition *p) { return p->slot; }
