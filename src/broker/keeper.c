/* broker/keeper.c: the keeper thread: space, rolls, names, indexes, retention of all partitions.
 *
 * The keeper never syncs data: a slow disk must not keep a writer waiting for room. It sleeps on the coordinator's mailbox, tends what
 * is notified at once and everything each second, and hands over to the syncer (syncer.c) what wants a sync without that anybody asked:
 * because 64 MiB are unsynced, or because log.flush.interval.ms passed. */
#include "broker/core.h"

#include "base/os.h"
#include "log/wait.h"

#define NOTIFIED_AT_ONCE 256
#define STORE_CARE_MS 60000
#define POINTS_MS 1000
#define SWEEP_FIRST_MS 1500 /* not while programs wait for a daemon that has just begun */
#define SWEEP_MS 600000

void bw_keeper_say(bw_broker *b, bw_part *p, bw_err e, const char *event)
{
    bool failed = e != BW_OK;
    if (atomic_exchange(&p->failing, failed) == failed) return;
    char why[700];
    if (failed)
        bw_broker_event(b, BW_LOG_ERROR, event, "topic=%s partition=%u error=%s reason=%s", p->topic->name, p->index, bw_err_name(e),
                        bw_event_text(bw_error_message(), why, sizeof why));
    else bw_broker_event(b, BW_LOG_INFO, "partition_well_again", "topic=%s partition=%u", p->topic->name, p->index);
}

static void tend(bw_broker *b, bw_part *p, int64_t now)
{
    bw_position tail = atomic_load_explicit(&p->topic->control->slots[p->index].tail, memory_order_relaxed);
    bool rested = bw_partition_is_resting(p->log);
    bw_err e = bw_partition_tend_files(p->log);
    if (tail != p->seen_tail || (rested && !bw_partition_is_resting(p->log))) atomic_store_explicit(&p->used_ms, now, memory_order_relaxed);
    p->seen_tail = tail;
    if (bw_partition_is_starved(p->log) || bw_opener_is_short(b)) bw_opener_make_room(b);
    bool full = atomic_load(&p->topic->control->slots[p->index].flags) & BW_SLOT_NO_SPACE; /* not each round tries again */
    if (e != BW_ERR_POISONED && (e || !full)) bw_keeper_say(b, p, e, "tending_failed");
    if (bw_partition_wants_sync(p->log)) bw_syncer_want(b, p);
    if (bw_partition_wants_folder(p->log)) bw_syncer_want_folder(b, p);
}

static void tend_notified(bw_broker *b, bw_mailbox *box)
{
    uint32_t numbers[NOTIFIED_AT_ONCE];
    size_t n = bw_mailbox_drain(box, numbers, NOTIFIED_AT_ONCE);
    for (size_t i = 0; i < n; i++) {
        bw_part *p = bw_part_hold_number(b, numbers[i]);
        if (!p) continue;
        tend(b, p, bw_clock_mono_ms());
        bw_part_release(p);
    }
}

static void look_at_space(bw_broker *b)
{
    int64_t bytes = bw_os_free_bytes(b->dir->fd);
    if (bytes < 0) return;
    atomic_store(&b->free_bytes, bytes);
    int64_t reserve = atomic_load(&b->reserve_bytes);
    bool low = atomic_load(&b->low_space);
    bool now_low = low ? bytes < reserve + reserve / 2 : bytes < reserve;
    if (low == now_low) return;
    atomic_store(&b->low_space, now_low);
    bw_broker_event(b, now_low ? BW_LOG_ERROR : BW_LOG_INFO, now_low ? "disk_low" : "disk_enough", "free_bytes=%lld reserve_bytes=%lld",
                    (long long)bytes, (long long)reserve);
}

static void retain(bw_broker *b, bw_part *p)
{
    uint32_t deleted = 0;
    bw_partition_expire_producers(p->log, b->config.producer_id_expiration_ms);
    bw_err e = bw_partition_retain(p->log, bw_clock_wall_ms(), &deleted);
    if (e) bw_keeper_say(b, p, e, "retention_failed");
    if (e || !deleted) return;
    bw_broker_event(b, BW_LOG_INFO, "segments_deleted", "topic=%s partition=%u segments=%u", p->topic->name, p->index, deleted);
    bw_wake(p->topic->control, p->index, BW_WAIT_TAIL); /* links tell of it */
}

typedef struct keeper {
    int64_t next_tick_ms, next_retention_ms, next_care_ms, next_points_ms, next_sweep_ms;
} keeper;

/* Control data that daemons which were killed have left, whose folders are gone. */
static void sweep(bw_broker *b)
{
    uint32_t n = b->no_direct[0] ? 0 : bw_arena_dir_sweep(b->arena_path);
    if (n) bw_broker_event(b, BW_LOG_INFO, "control_data_swept", "folders=%u beside=%s", n, b->arena_path);
}

static void tick(bw_broker *b, keeper *k, int64_t now)
{
    bw_part **parts;
    size_t n = bw_parts_hold(b, &parts);
    bool retention = now >= k->next_retention_ms;
    if (retention) k->next_retention_ms = now + b->config.retention_check_interval_ms;
    look_at_space(b);
    for (size_t i = 0; parts && i < n; i++) {
        bw_part *p = parts[i];
        if (!bw_partition_is_resting(p->log) || bw_partition_is_starved(p->log)) tend(b, p, now);
        if (retention) retain(b, p);
        if (!bw_partition_has_unsynced(p->log)) atomic_store(&p->synced_ms, now);
        else if (now - atomic_load(&p->synced_ms) >= b->config.flush_interval_ms) bw_syncer_want(b, p);
    }
    bw_parts_drop(parts, parts ? n : 0);
    if (now >= k->next_points_ms && atomic_exchange(&b->points_moved, false)) {
        k->next_points_ms = now + POINTS_MS;
        bw_syncer_save_points(b);
    }
    if (now >= k->next_care_ms) {
        k->next_care_ms = now + STORE_CARE_MS;
        bw_store_maintain(b->store);
    }
    if (now >= k->next_sweep_ms) {
        k->next_sweep_ms = now + SWEEP_MS;
        sweep(b);
    }
    atomic_fetch_add(&b->keeper_rounds, 1);
}

static void *keeper_main(void *broker)
{
    bw_broker *b = broker;
    bw_mailbox *box = bw_mail_box(b->mail, BW_MAILBOX_COORDINATOR);
    int64_t now = bw_clock_mono_ms();
    int64_t step = b->config.flush_interval_ms < BW_TICK_MS ? b->config.flush_interval_ms : BW_TICK_MS;
    if (step < 10) step = 10;
    keeper k = {now, now + b->config.retention_check_interval_ms, now + STORE_CARE_MS, now, now + SWEEP_FIRST_MS};
    while (!atomic_load(&b->keeper_stopping)) {
        tend_notified(b, box);
        now = bw_clock_mono_ms();
        if (now >= k.next_tick_ms) {
            tick(b, &k, now);
            k.next_tick_ms = now + step;
        }
        bw_mailbox_sleep(box, bw_deadline_in_ms(k.next_tick_ms - now));
    }
    return NULL;
}

bw_err bw_keeper_start(bw_broker *b)
{
    bw_err e = bw_syncer_start(b);
    if (e) return e;
    e = bw_broker_start_thread(&b->keeper_thread, keeper_main, b);
    b->keeper_running = !e;
    if (e) bw_syncer_stop(b);
    return e;
}

void bw_keeper_stop(bw_broker *b)
{
    if (!b->keeper_running) return;
    atomic_store(&b->keeper_stopping, true);
    bw_mailbox_poke(bw_mail_box(b->mail, BW_MAILBOX_COORDINATOR));
    pthread_join(b->keeper_thread, NULL);
    bw_syncer_stop(b);
    b->keeper_running = false;
}
