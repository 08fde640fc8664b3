/* log/partition_takeover.c: a new coordinator for control data that lives (same boot, same generation).
 *
 * Direct writers may be appending all the while, so nothing is scanned or cut; the slot is the truth. What must be made sure of
 * is durability: pages of (durable, tail] may have been written back, and lost by a failed writeback, while nobody had the files
 * open. So, always, even when durable == tail seems true:
 *   1. open every segment from seg(durable) to seg(tail) and the published spare;
 *   2. lock, load the tail, unlock: no copy below that tail straddles the opening (again if it has rolled meanwhile);
 *   3. fdatasync them all; read (durable, tail] from the medium (O_DIRECT) and check it; only then durable = tail.
 * Where durable == tail under the lock there is nothing to sync or to read. If a stopped writer holds the lock, or the caller wants
 * no syncs now, 2 and 3 wait for the next sync (unverified); the partition works meanwhile. */
#include "log/segment.h"

#include "base/killpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

enum { VERIFY_TRIES = 16 };

/* The newest sequence at or below seg(tail) whose ring entry is that file; 0: none. */
static uint32_t ring_seq(const bw_tail_slot *t, uint32_t newest, uint64_t inode, uint32_t *index)
{
    for (uint32_t i = 0; i < BW_RING && i < newest; i++) {
        const bw_ring_entry *e = &t->ring[(newest - i) % BW_RING];
        if (atomic_load_explicit(&e->seq, memory_order_acquire) != newest - i) break;
        if (atomic_load_explicit(&e->inode, memory_order_acquire) == inode) {
            *index = (newest - i) % BW_RING;
            return newest - i;
        }
    }
    return 0;
}

/* An older segment that was never sealed, and that the ring has forgotten: its data ends at a zero header or at the end of the file.
 * It may lie behind the durable watermark, when more than a ring of segments were rolled since the last sync: a seal must vouch for
 * what is on the disk. */
static bw_err load_unsealed(bw_partition *p, bw_segment *s)
{
    bw_scan scan = {.next_offset = s->base_offset, .leader_epoch = INT32_MIN, .until = s->file_bytes, .direct = true};
    if (bw_os_fdatasync(s->fd) != 0) bw_partition_poison(p);
    bw_err e = bw_segment_scan(p, s, &scan);
    if (e) return e;
    s->rolled = true;
    s->length = s->final_length = s->limit = scan.position;
    s->next_offset = scan.next_offset;
    s->max_timestamp = scan.max_timestamp;
    s->exact = true;
    if (atomic_load_explicit(&p->slot->state, memory_order_acquire) == BW_SLOT_OPEN && bw_segment_seal(p, s) == BW_OK) s->sealed = true;
    bw_segment_set_fd(s, -1);
    return BW_OK;
}

static bw_err load_log(bw_partition *p, int64_t base, uint32_t newest)
{
    bw_segment *s = bw_segment_new(p, base);
    if (!s) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a segment");
    s->linked = true;
    bw_err e = bw_partition_push(p, s);
    if (e) {
        bw_segment_free(s);
        return e;
    }
    bw_seal seal;
    bool sealed = bw_segment_read_seal(p, base, &seal);
    e = sealed ? bw_segment_load_sealed(p, s, &seal) : bw_segment_open(p, s);
    if (e) return e;
    uint32_t at;
    s->seq = ring_seq(p->slot, newest, s->inode, &at);
    if (sealed) return BW_OK;
    if (s->seq == 0) return load_unsealed(p, s);
    bw_ring_entry *entry = &p->slot->ring[at];
    s->limit = atomic_load_explicit(&entry->limit, memory_order_acquire);
    if (s->seq < newest) {
        s->rolled = true;
        s->length = s->final_length = atomic_load_explicit(&entry->final_position, memory_order_acquire);
        s->next_offset = (int64_t)atomic_load_explicit(&bw_ring_at(p->slot, s->seq + 1)->base_offset, memory_order_acquire);
    }
    return BW_OK;
}

static bool known_inode(const bw_partition *p, uint64_t inode, uint32_t seq)
{
    for (size_t i = 0; i < p->count; i++)
        if (p->segments[i]->inode == inode) {
            p->segments[i]->spare_name = true; /* linked, and the other name still there */
            p->segments[i]->spare_seq = seq;
            return true;
        }
    return false;
}

/* A spare file: rolled into but not linked yet, published, or nobody's. */
static bw_err load_spare(bw_partition *p, uint32_t seq, uint32_t newest)
{
    bw_segment *s = bw_segment_new(p, 0);
    if (!s) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a segment");
    s->seq = seq;
    s->spare_name = true;
    s->spare_seq = seq;
    bw_err e = bw_segment_open(p, s);
    if (!e && known_inode(p, s->inode, seq)) {
        bw_segment_free(s);
        return BW_OK;
    }
    uint32_t at;
    if (!e && ring_seq(p->slot, newest, s->inode, &at) == seq) {
        bw_ring_entry *entry = &p->slot->ring[at];
        s->base_offset = s->next_offset = (int64_t)atomic_load_explicit(&entry->base_offset, memory_order_acquire);
        s->limit = atomic_load_explicit(&entry->limit, memory_order_acquire);
        if (seq < newest) {
            s->rolled = true;
            s->length = s->final_length = atomic_load_explicit(&entry->final_position, memory_order_acquire);
            s->next_offset = (int64_t)atomic_load_explicit(&bw_ring_at(p->slot, seq + 1)->base_offset, memory_order_acquire);
        }
        e = bw_partition_push(p, s);
        if (!e) return BW_OK;
    }
    if (!e && seq == newest + 1 && atomic_load_explicit(&p->slot->spare_seq, memory_order_acquire) == seq &&
        atomic_load_explicit(&p->slot->spare_inode, memory_order_acquire) == s->inode && !p->spare) {
        s->limit = atomic_load_explicit(&p->slot->spare_limit, memory_order_acquire);
        s->step = bw_u32_min(s->file_bytes, BW_GRANT_MOST);
        p->spare = s;
        p->spare_published = true;
        return BW_OK;
    }
    /* P2 is stored before the spare is withdrawn: seeing it gone, we see the roll that took it. */
    if (!e && seq > newest && bw_position_seq(atomic_load_explicit(&p->slot->tail, memory_order_acquire)) != newest)
        e = bw_fail(BW_ERR_BUSY, "the log rolled while it was looked at");
    if (!e && seq > newest) { /* made, never published */
        char name[BW_SEGMENT_NAME_MAX];
        bw_spare_name(name, seq);
        (void)bw_os_unlink(bw_partition_dir(p), name, 0);
        p->dir_dirty = true;
    }
    bw_segment_free(s);
    return e;
}

static int compare_segments(const void *a, const void *b)
{
    int64_t x = (*(bw_segment *const *)a)->base_offset, y = (*(bw_segment *const *)b)->base_offset;
    return x < y ? -1 : x > y;
}

static void forget(bw_partition *p)
{
    while (p->count) bw_partition_remove_at(p, p->count - 1);
    bw_segment_free(p->spare);
    p->spare = NULL;
    p->spare_published = false;
    p->follow_at = 0;
}

/* About the step that brought a file to this size (each is twice the one before): a writer that was quick should not be given little,
 * again and again, by one coordinator after the other. */
static uint32_t step_of(uint32_t file_bytes)
{
    uint32_t step = BW_GRANT_FIRST;
    while (step < BW_GRANT_MOST && (uint64_t)step * 4 <= file_bytes) step *= 2;
    return step;
}

/* Builds the segment list for the tail of this moment. BUSY: it rolled meanwhile. */
static bw_err load_files(bw_partition *p)
{
    forget(p);
    bw_position tail = atomic_load_explicit(&p->slot->tail, memory_order_acquire);
    uint32_t newest = bw_position_seq(tail);
    bw_found f;
    bw_err e = bw_partition_list(p, &f);
    for (size_t i = 0; !e && i < f.log_count; i++) {
        e = load_log(p, f.logs[i], newest);
        if (e == BW_ERR_CORRUPT && i + 1 < f.log_count) { /* readers of it are told; the rest goes on */
            bw_partition_remove_at(p, p->count - 1);
            e = BW_OK;
        }
    }
    for (size_t i = 0; !e && i < f.spare_count; i++) e = load_spare(p, f.spares[i], newest);
    bw_found_free(&f);
    if (e) return e;
    if (p->count > 1) qsort(p->segments, p->count, sizeof *p->segments, compare_segments);
    if (bw_position_seq(atomic_load_explicit(&p->slot->tail, memory_order_acquire)) != newest)
        return bw_fail(BW_ERR_BUSY, "the log rolls faster than it can be looked at");
    if (p->count == 0 || bw_partition_active(p)->seq != newest)
        return bw_fail(BW_ERR_CORRUPT, "the newest segment's file is missing; stop all writers and remove the runtime folder");
    bw_segment *a = bw_partition_active(p);
    a->length = bw_position_pos(tail);
    a->next_offset = a->length ? -1 : a->base_offset;
    a->step = a->file_bytes > a->length ? step_of(a->file_bytes) : 0;
    p->sync_grant = a->file_bytes == a->length;
    return BW_OK;
}

/* Reads (durable, target] from the medium. CORRUPT: not what was visible. */
static bw_err check_medium(bw_partition *p, bw_position durable, bw_position target)
{
    for (size_t i = 0; i < p->count; i++) {
        const bw_segment *s = p->segments[i];
        if (s->seq == 0 || s->seq < bw_position_seq(durable) || s->seq > bw_position_seq(target)) continue;
        uint32_t from = s->seq == bw_position_seq(durable) ? bw_position_pos(durable) : 0;
        uint32_t until = s->seq == bw_position_seq(target) ? bw_position_pos(target) : s->final_length;
        if (from >= until) continue;
        bw_scan scan = {.from = from, .next_offset = from ? -1 : s->base_offset, .leader_epoch = INT32_MIN, .until = until, .direct = true};
        bw_err e = bw_segment_scan(p, s, &scan);
        if (e) return e;
        if (scan.position != until)
            return bw_fail(BW_ERR_CORRUPT, "segment %020lld.log: byte %u is not on the disk as it was written", (long long)s->base_offset,
                           scan.position);
    }
    return BW_OK;
}

/* Step 2: the tail under the lock, with its segment open. */
static bw_err settled_tail(bw_partition *p, bw_position *tail)
{
    for (int i = 0; i < VERIFY_TRIES; i++) {
        bw_err e = bw_partition_lock_slot(p);
        if (e) return e;
        *tail = atomic_load_explicit(&p->slot->tail, memory_order_acquire);
        bw_partition_unlock_slot(p);
        bw_partition_adopt_rolls(p, *tail);
        if (bw_partition_active(p)->seq == bw_position_seq(*tail)) return BW_OK;
    }
    return bw_fail(BW_ERR_BUSY, "the log rolls faster than it can be looked at");
}

bw_err bw_partition_verify_takeover(bw_partition *p)
{
    bw_position tail, durable = atomic_load_explicit(&p->slot->durable, memory_order_acquire);
    bw_err e = settled_tail(p, &tail);
    if (e) return e;
    e = bw_partition_follow(p, tail);
    if (e) return e;
    BW_KILL_POINT("takeover.opened");
    if (tail == durable) { /* seen under the lock: there is no byte that a sync would have to be told of */
        p->unverified = false;
        return BW_OK;
    }
    int dir = bw_partition_dir(p);
    if (dir < 0) return bw_fail_errno(errno, "cannot open partition folder %s", p->dir_name); /* no sync has failed */
    (void)bw_partition_link_files(p); /* the recovery point may be the beginning of a file that is a spare by name */
    int error = bw_os_sync_dir(dir) == 0 ? 0 : errno;
    for (size_t i = 0; i < p->count && !error; i++)
        if (p->segments[i]->fd >= 0 && bw_os_fdatasync(p->segments[i]->fd) != 0) error = errno;
    BW_KILL_POINT("takeover.synced");
    if (!error) e = check_medium(p, durable, tail);
    if (error || e == BW_ERR_CORRUPT || e == BW_ERR_IO) {
        if (error) (void)bw_fail_errno(error, "syncing %s failed", p->dir_name);
        bw_partition_poison(p);
        p->unverified = false;
        return BW_ERR_POISONED;
    }
    if (e) return e;
    const bw_segment *a = bw_partition_active(p);
    atomic_store_explicit(&p->slot->durable_offset, a->next_offset, memory_order_release);
    atomic_store_explicit(&p->slot->durable, tail, memory_order_release);
    bw_state_job state;
    bw_partition_state_begin(p, a->next_offset, &state);
    bw_partition_state_sync(dir, &state);
    bw_partition_note_point(p, a->next_offset, a, bw_position_pos(tail), p->indexer.last_crc);
    bw_partition_state_end(p, a->next_offset, &state, p->point.next_offset == a->next_offset);
    p->unverified = false;
    BW_KILL_POINT("takeover.durable");
    bw_wake(p->control, (uint32_t)p->number, BW_WAIT_STATE);
    return BW_OK;
}

/* Transactions: what a coordinator that died between a marker and its index entry, or first_unstable, left undone is done now. Until
 * then first_unstable was too low at worst. */
static bw_err take_over_producers(bw_partition *p, const bw_partition_open_options *o)
{
    bw_err e = bw_partition_load_producers(p, &o->point, o->snapshot, o->snapshot_len);
    if (e) return e;
    BW_KILL_POINT("takeover.producers");
    atomic_fetch_add_explicit(&p->slot->aborts, 1, memory_order_release);
    int64_t stable = bw_producers_first_unstable(p->producers);
    if (atomic_exchange_explicit(&p->slot->first_unstable, stable, memory_order_acq_rel) == stable) return BW_OK;
    bw_wake(p->control, (uint32_t)p->number, BW_WAIT_TAIL);
    bw_wake(p->control, (uint32_t)p->number, BW_WAIT_STATE);
    return BW_OK;
}

bw_err bw_partition_take_over(bw_partition *p, const bw_partition_open_options *o, bw_recovery_report *report)
{
    const bw_recovery_point *point = &o->point;
    uint32_t state = atomic_load_explicit(&p->slot->state, memory_order_acquire);
    if (state == BW_SLOT_DELETED) return bw_fail(BW_ERR_DELETED, "the topic was deleted");
    if (state == BW_SLOT_RETIRED) return bw_fail(BW_ERR_RETIRED, "the control data was replaced");
    atomic_store_explicit(&p->slot->bus_number, p->bus_number, memory_order_release);
    p->point = *point;
    bw_err e = BW_ERR_BUSY;
    for (int i = 0; e == BW_ERR_BUSY && i < VERIFY_TRIES; i++) e = load_files(p);
    if (e) return e;
    state = atomic_load_explicit(&p->slot->state, memory_order_acquire);
    /* A deletion that was written down and not yet told. */
    int64_t start = bw_partition_read_log_start(p);
    if (start > atomic_load_explicit(&p->slot->log_start, memory_order_acquire) && start <= bw_slot_end_offset(p->slot))
        atomic_store_explicit(&p->slot->log_start, start, memory_order_release);
    bw_segment *a = bw_partition_active(p);
    p->dir_dirty |= p->spare != NULL; /* who made it may not have synced the folder since */
    for (size_t i = 0; i < p->count; i++) p->dir_dirty |= p->segments[i]->spare_name;
    bw_segment_estimate_age(p, a);
    e = bw_partition_resume_index(p);
    if (!e) e = take_over_producers(p, o);
    if (e) return e;
    p->unverified = true;
    if (state == BW_SLOT_POISONED || point->poisoned) {
        bw_partition_poison(p); /* persisted again; nobody's wait goes on */
    } else if (!p->verify_later || atomic_load_explicit(&p->slot->durable, memory_order_acquire) ==
                                       atomic_load_explicit(&p->slot->tail, memory_order_acquire)) {
        e = bw_partition_verify_takeover(p);
        if (e && p->unverified && e != BW_ERR_LOCK_HELD && e != BW_ERR_BUSY) return e;
    }
    /* Writers went on with what the coordinator before had granted, and may be at its end: before anything else that takes time. */
    if (atomic_load_explicit(&p->slot->state, memory_order_acquire) == BW_SLOT_OPEN)
        (void)bw_partition_grant(p, atomic_load_explicit(&p->slot->tail, memory_order_acquire), bw_clock_mono_ms());
    report->end_offset = bw_slot_end_offset(p->slot);
    report->leader_epoch = (int32_t)atomic_load_explicit(&p->slot->leader_epoch, memory_order_acquire);
    return BW_OK;
}
