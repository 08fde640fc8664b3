/* broker/syncer.c: the syncer thread, and the thread that puts recovery points into LMDB.
 *
 * Who waits for "durable" raises the slot's sync_request and marks the partition in the syncer's mailbox, from whatever process: one
 * wake-up lies between the request and its fdatasync, and one between that and who waits. The mailbox is the queue: a partition is in
 * it once, however many ask. One fdatasync serves all who wait on a partition; who asked meanwhile is served by the next round. Marks
 * are hints that anybody may write: a sync runs only when the slot's request lies above the durable watermark, or the coordinator
 * itself wants one (sync_due). A mark that was lost costs who asked its next slice (100 ms); the keeper's tick looks as well.
 * The syncer has no timer: idle, it sleeps. It is the only thread that syncs data while the daemon runs.
 *
 * Recovery points go to LMDB after the syncs that they describe, at most once a second and only those that moved; in a thread of their
 * own, because LMDB syncs too and nobody who waits for "durable" should wait for that. That thread also syncs folders whose deleted files
 * wait to be used again. */
#include "broker/core.h"

#include "base/killpoint.h"
#include "log/wait.h"

#include <sched.h>
#include <stdlib.h>

#define NOTIFIED_AT_ONCE 256
#define GATHER_MOST_NS 60000

/* ---- syncs ---- */

void bw_syncer_want(bw_broker *b, bw_part *p)
{
    atomic_store(&p->sync_due, true);
    bw_notify(b->mail, BW_MAILBOX_SYNCER, p->bus_number);
}

static bool is_asked(const bw_tail_slot *s)
{
    uint64_t asked = atomic_load_explicit(&s->sync_request, memory_order_acquire);
    return asked > atomic_load_explicit(&s->durable, memory_order_acquire);
}

/* A sync has ended and the next is asked for already: whoever it woke is about to ask for more. A moment, a quarter of what the sync
 * took at most, lets that come along; else each sync would serve half of those who keep asking. Who asks one at a time never gets here. */
static void gather(int64_t took_ns)
{
    int64_t now = bw_clock_mono_ns(), until = now + (took_ns / 4 < GATHER_MOST_NS ? took_ns / 4 : GATHER_MOST_NS);
    for (; now < until; now = bw_clock_mono_ns()) sched_yield();
}

static void sync_one(bw_broker *b, bw_part *p)
{
    bw_tail_slot *s = &p->topic->control->slots[p->index];
    bool due = atomic_exchange(&p->sync_due, false);
    if (!due && !is_asked(s)) return;
    if (atomic_load(&s->state) == BW_SLOT_OPEN && bw_partition_has_unsynced(p->log)) {
        int64_t began = bw_clock_mono_ns();
        bw_err e = bw_partition_sync(p->log);
        int64_t took = bw_clock_mono_ns() - began;
        atomic_fetch_add(&b->syncs, 1);
        atomic_store(&b->points_moved, true);
        if (e) {
            bw_keeper_say(b, p, e, "sync_failed");
        } else if (bw_partition_wants_sync(p->log)) { /* asked meanwhile, or much has come */
            bw_syncer_want(b, p);
            if (is_asked(s)) gather(took);
        }
    }
    atomic_store(&p->synced_ms, bw_clock_mono_ms());
}

static size_t sync_notified(bw_broker *b, bw_mailbox *box)
{
    uint32_t numbers[NOTIFIED_AT_ONCE];
    size_t n = bw_mailbox_drain(box, numbers, NOTIFIED_AT_ONCE);
    for (size_t i = 0; i < n; i++) {
        bw_part *p = bw_part_hold_number(b, numbers[i]);
        if (!p) continue; /* hints may be nonsense */
        sync_one(b, p);
        bw_part_release(p);
    }
    return n;
}

static void *syncer_main(void *broker)
{
    bw_broker *b = broker;
    bw_mailbox *box = bw_mail_box(b->mail, BW_MAILBOX_SYNCER);
    for (;;) {
        bool stop = atomic_load(&b->syncer_stopping);
        if (sync_notified(b, box) > 0) continue;
        if (stop) return NULL; /* what was asked before the stop is done */
        bw_mailbox_sleep(box, BW_DEADLINE_NEVER);
    }
}

/* ---- recovery points ---- */

/* Of those that moved: their points, with a new snapshot of producers where there is one; parts[0..] become those that they are of. */
static size_t gather_points(bw_part **parts, size_t n, bw_meta_point *points, bw_buf *snapshots)
{
    size_t moved = 0;
    for (size_t i = 0; i < n; i++) {
        bw_meta_point *m = &points[moved];
        bw_part *p = parts[i];
        snapshots[moved] = (bw_buf){0};
        if (!bw_partition_recovery_point(p->log, &m->point, &snapshots[moved])) continue;
        m->topic = p->topic->id;
        m->partition = p->index;
        m->snapshot = snapshots[moved].data;
        m->snapshot_len = snapshots[moved].len;
        parts[i] = parts[moved]; /* swapped: all are given back in the end */
        parts[moved++] = p;
    }
    return moved;
}

static void save_points(bw_broker *b)
{
    bw_part **parts;
    size_t n = bw_parts_hold(b, &parts), moved = 0;
    bw_meta_point *points = parts ? malloc((n + 1) * sizeof *points) : NULL;
    bw_buf *snapshots = points ? malloc((n + 1) * sizeof *snapshots) : NULL;
    if (snapshots) moved = gather_points(parts, n, points, snapshots);
    BW_KILL_POINT("keeper.points");
    bw_err e = snapshots ? bw_store_points_put(b->store, points, moved) : BW_ERR_NO_MEMORY;
    BW_KILL_POINT("snapshot.stored");
    char why[700];
    if (e)
        bw_broker_event(b, BW_LOG_ERROR, "recovery_points_not_saved", "error=%s reason=%s", bw_err_name(e),
                        bw_event_text(bw_error_message(), why, sizeof why));
    for (size_t i = 0; i < moved; i++) {
        if (e) bw_partition_point_lost(parts[i]->log);
        bw_buf_free(&snapshots[i]);
    }
    free(snapshots);
    free(points);
    bw_parts_drop(parts, parts ? n : 0);
}

static void sync_folders(bw_broker *b)
{
    bw_part **parts;
    size_t n = bw_parts_hold(b, &parts);
    for (size_t i = 0; parts && i < n; i++) {
        if (!atomic_exchange(&parts[i]->folder_due, false)) continue;
        bw_err e = bw_partition_sync_folder(parts[i]->log);
        if (e) bw_keeper_say(b, parts[i], e, "sync_failed");
    }
    bw_parts_drop(parts, parts ? n : 0);
}

static void *points_main(void *broker)
{
    bw_broker *b = broker;
    for (;;) {
        pthread_mutex_lock(&b->points_lock);
        while (!b->points_due && !b->folders_due && !b->points_stop) pthread_cond_wait(&b->points_cond, &b->points_lock);
        bool due = b->points_due, stop = b->points_stop;
        bool folders = b->folders_due;
        b->points_due = b->folders_due = false;
        pthread_mutex_unlock(&b->points_lock);
        if (folders) sync_folders(b);
        if (due) save_points(b);
        if (stop) return NULL;
    }
}

void bw_syncer_want_folder(bw_broker *b, bw_part *p)
{
    if (atomic_exchange(&p->folder_due, true)) return;
    pthread_mutex_lock(&b->points_lock);
    b->folders_due = true;
    pthread_cond_signal(&b->points_cond);
    pthread_mutex_unlock(&b->points_lock);
}

void bw_syncer_save_points(bw_broker *b)
{
    pthread_mutex_lock(&b->points_lock);
    b->points_due = true;
    pthread_cond_signal(&b->points_cond);
    pthread_mutex_unlock(&b->points_lock);
}

/* ---- start and stop ---- */

static void stop_points(bw_broker *b)
{
    pthread_mutex_lock(&b->points_lock);
    b->points_stop = true;
    pthread_cond_signal(&b->points_cond);
    pthread_mutex_unlock(&b->points_lock);
    pthread_join(b->points_thread, NULL);
}

bw_err bw_syncer_start(bw_broker *b)
{
    bw_err e = bw_broker_start_thread(&b->points_thread, points_main, b);
    if (e) return e;
    e = bw_broker_start_thread(&b->syncer_thread, syncer_main, b);
    if (e) stop_points(b);
    return e;
}

void bw_syncer_stop(bw_broker *b)
{
    atomic_store(&b->syncer_stopping, true);
    bw_mailbox_poke(bw_mail_box(b->mail, BW_MAILBOX_SYNCER));
    pthread_join(b->syncer_thread, NULL);
    stop_points(b);
}
