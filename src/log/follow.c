/* log/follow.c: see follow.h.
 *
 *   open      the newest "<base>.log" is walked from where its index vouches for what lies before (the last 16 MiB are always walked),
 *             with checksums, to the last whole batch; then the segments behind it, as when it grows
 *   look      from there on. A segment has ended when the next one begins at our end: as "<end>.log", or as "<seq>.spare" while no
 *             coordinator has linked it
 *   thorough  the folder is listed: log start, a next segment that begins elsewhere (a gap), the folder's own end; and whether the
 *             batch taken in last is still there: one that was never published may have been cut
 * damage    what an open finds behind the end is searched for a sound batch of later offsets: then the end is no end but damage (of a copy
 *             that was torn, of a disk), and the log goes on behind it. A reader meets the damage and says CORRUPT, instead of ending there
 * What readers see changes in the order of a real roll: final position of the old segment, entry of the new one, tail. */
#include "log/follow.h"

#include "base/os.h"
#include "format/index.h"
#include "format/names.h"
#include "log/smallfile.h"
#include "log/walk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

enum { VOUCHED_BYTES = 16 << 20, INDEX_BYTES_MAX = 16 << 20, SPARES_MAX = 8, SEARCHED_BYTES = 64 << 20, SEARCH_STEP = 1 << 20, MAGIC_AT = 16 };

typedef struct listing {
    int64_t *bases; /* ascending */
    size_t count, cap;
    uint32_t spares[SPARES_MAX];
    size_t spare_count;
    bool no_memory;
} listing;

struct bw_follow {
    int data_fd, dir_fd;
    char folder[BW_PARTITION_DIR_MAX];
    uint64_t dir_inode;
    bw_tail_slot *slot;
    int fd; /* of the newest segment; -1: there is none */
    uint32_t seq;
    int64_t base, next;
    uint32_t pos;
    int32_t epoch;
    int64_t gaps_below;
    /* the batch taken in last */
    bool has_last;
    uint32_t last_at, last_crc;
    int64_t last_base;
    int32_t last_epoch;
    listing list;
};

/* ---- the folder ---- */

static bool on_entry(void *opaque, const char *name)
{
    listing *l = opaque;
    int64_t base;
    uint32_t seq;
    if (bw_spare_name_parse(name, &seq) && l->spare_count < SPARES_MAX) l->spares[l->spare_count++] = seq;
    if (!bw_segment_name_parse(name, ".log", &base)) return true;
    if (l->count == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 16;
        int64_t *more = realloc(l->bases, cap * sizeof *more);
        if (!more) return l->no_memory = true, false;
        l->bases = more;
        l->cap = cap;
    }
    l->bases[l->count++] = base;
    return true;
}

static int ascending(const void *x, const void *y)
{
    const int64_t *a = x, *b = y;
    return (*a > *b) - (*a < *b);
}

static bw_err list_folder(bw_follow *f)
{
    f->list.count = f->list.spare_count = 0;
    if (bw_os_list_dir(f->dir_fd, on_entry, &f->list)) return bw_fail_errno(errno, "cannot list folder %s", f->folder);
    if (f->list.no_memory) return bw_fail(BW_ERR_NO_MEMORY, "no memory for the segments of %s", f->folder);
    if (f->list.count) qsort(f->list.bases, f->list.count, sizeof *f->list.bases, ascending);
    f->gaps_below = bw_offset_file_read(f->dir_fd, BW_GAPS_FILE);
    return BW_OK;
}

/* ---- the slot ---- */

static void show_segment(bw_follow *f, uint64_t inode)
{
    bw_ring_entry *e = bw_ring_at(f->slot, f->seq);
    atomic_store_explicit(&e->seq, 0, memory_order_release);
    atomic_thread_fence(memory_order_release);
    atomic_store_explicit(&e->final_position, 0, memory_order_relaxed);
    atomic_store_explicit(&e->base_offset, (uint64_t)f->base, memory_order_relaxed);
    atomic_store_explicit(&e->inode, inode, memory_order_relaxed);
    atomic_store_explicit(&e->limit, BW_POSITION_MAX, memory_order_relaxed);
    atomic_store_explicit(&e->seq, f->seq, memory_order_release);
}

static void show_end(bw_follow *f)
{
    bw_tail_slot *s = f->slot;
    atomic_store_explicit(&s->leader_epoch, f->epoch > 0 ? (uint32_t)f->epoch : 0, memory_order_relaxed);
    atomic_store_explicit(&s->next_offset, f->next, memory_order_release);
    atomic_store_explicit(&s->durable_offset, f->next, memory_order_release);
    atomic_store_explicit(&s->tail, bw_position_of(f->seq, f->pos), memory_order_release);
    atomic_store_explicit(&s->durable, bw_position_of(f->seq, f->pos), memory_order_release);
}

static bool show_start(bw_follow *f)
{
    int64_t start = bw_offset_file_read(f->dir_fd, BW_LOG_START_FILE);
    if (f->list.count && f->list.bases[0] > start) start = f->list.bases[0];
    if (start > f->next) start = f->next;
    if (start == atomic_load_explicit(&f->slot->log_start, memory_order_relaxed)) return false;
    atomic_store_explicit(&f->slot->log_start, start, memory_order_release);
    return true;
}

/* ---- one segment ---- */

/* Takes over fd. */
static bw_err enter(bw_follow *f, int fd, uint32_t seq, int64_t base)
{
    struct stat st;
    if (bw_os_fstat(fd, &st)) {
        bw_err e = bw_fail_errno(errno, "%s: cannot stat segment %lld", f->folder, (long long)base);
        bw_os_close(fd);
        return e;
    }
    if (f->fd >= 0) bw_os_close(f->fd);
    f->fd = fd;
    f->seq = seq;
    f->base = f->next = base;
    f->pos = 0;
    f->has_last = false;
    show_segment(f, (uint64_t)st.st_ino);
    return BW_OK;
}

/* What the last index entry that lies well before the end says of the place to begin at, when a sound batch is there. */
static void begin_by_index(bw_follow *f, uint64_t end)
{
    char name[BW_SEGMENT_NAME_MAX];
    struct stat st;
    bw_buf index = {0};
    bw_segment_name(name, f->base, ".index");
    int fd = bw_os_open_beneath(f->dir_fd, name, O_RDONLY, 0);
    if (fd < 0) return;
    if (bw_os_fstat(fd, &st) == 0 && st.st_size > 0 && st.st_size <= INDEX_BYTES_MAX && !bw_buf_reserve(&index, (size_t)st.st_size)) {
        ssize_t n = bw_os_pread(fd, index.data, (size_t)st.st_size, 0);
        size_t count = n > 0 ? bw_index_entries(index.data, (size_t)n, end) : 0, at = count;
        uint32_t last = count ? bw_get_be32(index.data + (count - 1) * BW_INDEX_ENTRY_BYTES + 4) : 0;
        while (at > 0 && bw_get_be32(index.data + (at - 1) * BW_INDEX_ENTRY_BYTES + 4) + (uint64_t)VOUCHED_BYTES > last) at--;
        bw_walk w;
        if (at > 0 && bw_walk_init_fd(&w, f->fd, false, end, NULL, 0) == BW_OK) {
            const uint8_t *entry = index.data + (at - 1) * BW_INDEX_ENTRY_BYTES;
            uint32_t pos = bw_get_be32(entry + 4);
            int64_t indexed = f->base + (int64_t)bw_get_be32(entry);
            w.position = pos;
            if (bw_walk_next(&w) == BW_OK && w.header.base_offset >= f->base && bw_batch_last_offset(&w.header) <= indexed) {
                f->pos = pos;
                f->next = w.header.base_offset;
            }
            bw_walk_fini(&w);
        }
    }
    bw_buf_free(&index);
    bw_os_close(fd);
}

/* Is there anything at the end? One small read when not. */
static bool has_news(const bw_follow *f)
{
    uint8_t bytes[BW_BATCH_HEADER_BYTES];
    bw_batch_header h;
    ssize_t n = bw_os_pread(f->fd, bytes, sizeof bytes, f->pos);
    return n == (ssize_t)sizeof bytes && bw_batch_header_decode(bytes, sizeof bytes, true, &h) == BW_OK && h.base_offset >= f->next;
}

static bw_err walk_on(bw_follow *f, bool *moved)
{
    struct stat st;
    bw_walk w;
    if (!has_news(f)) return BW_OK;
    if (bw_os_fstat(f->fd, &st)) return bw_fail_errno(errno, "%s: cannot stat segment %lld", f->folder, (long long)f->base);
    uint64_t end = st.st_size < (off_t)BW_POSITION_MAX ? (uint64_t)st.st_size : BW_POSITION_MAX;
    bw_err e = bw_walk_init_fd(&w, f->fd, false, end, NULL, 0);
    if (e) return e;
    w.position = f->pos;
    w.next_offset = f->next;
    w.leader_epoch = f->epoch;
    w.gaps_below = f->gaps_below;
    while ((e = bw_walk_next(&w)) == BW_OK) {
        f->has_last = *moved = true;
        f->last_at = (uint32_t)w.at;
        f->last_crc = w.header.crc;
        f->last_base = w.header.base_offset;
        f->last_epoch = f->epoch;
        f->pos = (uint32_t)w.position;
        f->next = w.next_offset;
        f->epoch = w.leader_epoch;
        if (w.header.max_timestamp > atomic_load_explicit(&f->slot->max_timestamp, memory_order_relaxed))
            atomic_store_explicit(&f->slot->max_timestamp, w.header.max_timestamp, memory_order_relaxed);
    }
    bw_walk_fini(&w);
    return e == BW_ERR_EMPTY || e == BW_ERR_CORRUPT ? BW_OK : e; /* a batch that is not whole yet is the end */
}

/* ---- damage ---- */

static bool is_sound(const bw_follow *f, uint64_t at, uint64_t end, int64_t *base)
{
    bw_walk w;
    if (bw_walk_init_fd(&w, f->fd, false, end, NULL, 0)) return false;
    w.position = at;
    w.next_offset = -1;
    w.leader_epoch = INT32_MIN;
    bool sound = bw_walk_next(&w) == BW_OK && w.at == at;
    *base = w.header.base_offset;
    bw_walk_fini(&w);
    return sound;
}

/* The first sound batch of offsets that are still to come, among n bytes of which the first lies at `from`. */
static bool find_batch(const bw_follow *f, const uint8_t *bytes, size_t n, uint64_t from, uint64_t end, uint64_t *at, int64_t *base)
{
    bw_batch_header h;
    for (size_t i = 0; i + BW_BATCH_HEADER_BYTES <= n; i++) {
        if (bytes[i + MAGIC_AT] != BW_BATCH_MAGIC || bw_batch_header_decode(bytes + i, BW_BATCH_HEADER_BYTES, true, &h)) continue;
        if (h.base_offset < f->next || h.base_offset - f->next > INT32_MAX || !is_sound(f, from + i, end, base)) continue;
        *at = from + i;
        return true;
    }
    return false;
}

/* At an open: true when the log goes on behind what ended it; it does from there. */
static bool pass_damage(bw_follow *f)
{
    struct stat st;
    uint64_t at = 0;
    int64_t base = 0;
    bool found = false;
    uint8_t *bytes = f->fd >= 0 && bw_os_fstat(f->fd, &st) == 0 ? malloc(SEARCH_STEP) : NULL;
    if (!bytes) return false;
    uint64_t end = st.st_size < (off_t)BW_POSITION_MAX ? (uint64_t)st.st_size : BW_POSITION_MAX;
    uint64_t upto = f->pos + (uint64_t)SEARCHED_BYTES < end ? f->pos + (uint64_t)SEARCHED_BYTES : end;
    for (uint64_t from = f->pos + 1ULL; !found && from + BW_BATCH_HEADER_BYTES <= upto; from += SEARCH_STEP - BW_BATCH_HEADER_BYTES) {
        ssize_t n = bw_os_pread(f->fd, bytes, SEARCH_STEP, (off_t)from);
        if (n <= 0) break;
        found = find_batch(f, bytes, (size_t)n, from, end, &at, &base);
    }
    free(bytes);
    int64_t here;
    if (!found || is_sound(f, f->pos, end, &here)) return false; /* somebody wrote meanwhile */
    f->pos = (uint32_t)at;
    f->next = base;
    f->epoch = INT32_MIN;
    return true;
}

/* ---- from one segment to the next ---- */

static int64_t first_base(int fd)
{
    struct stat st;
    bw_walk w;
    int64_t base = -1;
    if (bw_os_fstat(fd, &st) || st.st_size < (off_t)BW_BATCH_HEADER_BYTES) return -1;
    if (bw_walk_init_fd(&w, fd, false, (uint64_t)st.st_size, NULL, 0) == BW_OK && bw_walk_next(&w) == BW_OK) base = w.header.base_offset;
    bw_walk_fini(&w);
    return base;
}

static int open_log(const bw_follow *f, int64_t base)
{
    char name[BW_SEGMENT_NAME_MAX];
    bw_segment_name(name, base, ".log");
    return bw_os_open_beneath(f->dir_fd, name, O_RDONLY, 0);
}

/* The spare when it already holds what comes at `base`; else -1. */
static int open_spare(const bw_follow *f, uint32_t seq, int64_t base)
{
    char name[BW_SEGMENT_NAME_MAX];
    bw_spare_name(name, seq);
    int fd = bw_os_open_beneath(f->dir_fd, name, O_RDONLY, 0);
    if (fd >= 0 && first_base(fd) == base) return fd;
    if (fd >= 0) bw_os_close(fd);
    return -1;
}

static bw_err roll_to(bw_follow *f, int fd, int64_t base)
{
    atomic_store_explicit(&bw_ring_at(f->slot, f->seq)->final_position, f->pos, memory_order_release);
    return enter(f, fd, f->seq + 1, base);
}

/* *more: there was one. */
static bw_err next_segment(bw_follow *f, bool listed, bool *more)
{
    int64_t base = f->next;
    int fd = f->next > f->base ? open_log(f, base) : -1;
    if (fd < 0) fd = open_spare(f, f->seq + 1, base);
    for (size_t i = 0; fd < 0 && listed && i < f->list.count; i++)
        if (f->list.bases[i] > f->base) {
            base = f->list.bases[i];
            fd = open_log(f, base);
        }
    *more = fd >= 0;
    return fd < 0 ? BW_OK : roll_to(f, fd, base);
}

/* The batch taken in last was never published, and was cut: go back to where it began. */
static bool went_back(bw_follow *f)
{
    uint8_t bytes[BW_BATCH_HEADER_BYTES];
    bw_batch_header h;
    if (!f->has_last) return false;
    ssize_t n = bw_os_pread(f->fd, bytes, sizeof bytes, f->last_at);
    if (n < 0 || (n == (ssize_t)sizeof bytes && bw_batch_header_decode(bytes, sizeof bytes, true, &h) == BW_OK && h.crc == f->last_crc &&
                  h.base_offset == f->last_base))
        return false;
    f->pos = f->last_at;
    f->next = f->last_base;
    f->epoch = f->last_epoch;
    f->has_last = false;
    return true;
}

static bool folder_is_gone(const bw_follow *f)
{
    struct stat st;
    if (bw_os_stat_at(f->data_fd, f->folder, &st)) return errno == ENOENT;
    return (uint64_t)st.st_ino != f->dir_inode;
}

/* ---- open, look ---- */

/* Sequences are of this process alone, but for a spare that is in use already: it is found by its number. */
static uint32_t first_seq(const bw_follow *f)
{
    uint32_t least = 0;
    for (size_t i = 0; i < f->list.spare_count; i++)
        if (f->list.spares[i] > 1 && (!least || f->list.spares[i] < least)) least = f->list.spares[i];
    return least ? least - 1 : 1;
}

bw_err bw_follow_look(bw_follow *f, bool thorough, bool *moved)
{
    bw_err e = BW_OK;
    bool more = true;
    *moved = false;
    if (thorough && folder_is_gone(f)) {
        *moved = atomic_exchange(&f->slot->state, BW_SLOT_DELETED) != BW_SLOT_DELETED;
        return BW_OK;
    }
    if (thorough && (e = list_folder(f))) return e;
    if (f->fd < 0) { /* there was no segment yet */
        int fd = f->list.count ? open_log(f, f->list.bases[0]) : -1;
        if (fd < 0) return BW_OK;
        if ((e = enter(f, fd, first_seq(f), f->list.bases[0]))) return e;
        *moved = true;
    }
    if (thorough) *moved |= went_back(f);
    while (!e && more) {
        e = walk_on(f, moved);
        if (!e) e = next_segment(f, thorough, &more);
        *moved |= more;
    }
    if (*moved) show_end(f);
    if (thorough) *moved |= show_start(f);
    return e;
}

static bw_err open_newest(bw_follow *f)
{
    struct stat st;
    bool moved;
    bw_err e = list_folder(f);
    int fd = -1;
    if (!e && f->list.count) {
        fd = open_log(f, f->list.bases[f->list.count - 1]);
        if (fd < 0) return bw_fail_errno(errno, "%s: cannot open its newest segment", f->folder);
        e = enter(f, fd, first_seq(f), f->list.bases[f->list.count - 1]);
        if (!e && bw_os_fstat(fd, &st) == 0) begin_by_index(f, (uint64_t)st.st_size);
        show_end(f);
    }
    if (!e) e = bw_follow_look(f, true, &moved);
    while (!e && pass_damage(f)) e = bw_follow_look(f, true, &moved);
    if (!e) show_end(f);
    return e;
}

bw_err bw_follow_open(int data_fd, const char *topic, int32_t partition, bw_tail_slot *slot, bw_follow **out)
{
    struct stat st;
    bw_follow *f = calloc(1, sizeof *f);
    if (!f) return bw_fail(BW_ERR_NO_MEMORY, "no memory to follow a partition");
    f->data_fd = data_fd;
    f->fd = -1;
    f->seq = 1;
    f->epoch = INT32_MIN;
    f->slot = slot;
    atomic_store(&slot->first_unstable, INT64_MAX);
    atomic_store(&slot->max_timestamp, -1);
    bw_partition_dir_name(f->folder, topic, partition);
    f->dir_fd = bw_os_open_beneath(data_fd, f->folder, O_RDONLY | O_DIRECTORY, 0);
    bw_err e = BW_OK;
    if (f->dir_fd < 0)
        e = errno == ENOENT || errno == ENOTDIR ? bw_fail(BW_ERR_UNKNOWN_PARTITION, "there is no folder %s", f->folder)
                                                : bw_fail_errno(errno, "cannot open folder %s", f->folder);
    else if (bw_os_fstat(f->dir_fd, &st)) e = bw_fail_errno(errno, "cannot stat folder %s", f->folder);
    else f->dir_inode = (uint64_t)st.st_ino;
    if (!e) e = open_newest(f);
    if (e) {
        bw_follow_close(f);
        return e;
    }
    atomic_store_explicit(&slot->state, BW_SLOT_OPEN, memory_order_release);
    *out = f;
    return BW_OK;
}

void bw_follow_close(bw_follow *f)
{
    if (!f) return;
    if (f->fd >= 0) bw_os_close(f->fd);
    if (f->dir_fd >= 0) bw_os_close(f->dir_fd);
    free(f->list.bases);
    free(f);
}

void bw_follow_info_get(const bw_follow *f, bw_follow_info *out)
{
    *out = (bw_follow_info){.segments = (uint32_t)f->list.count, .leader_epoch = f->epoch > 0 ? f->epoch : 0, .size_bytes = f->pos};
    for (size_t i = 0; i < f->list.count; i++) {
        char name[BW_SEGMENT_NAME_MAX];
        struct stat st;
        bw_segment_name(name, f->list.bases[i], ".log");
        if (f->list.bases[i] < f->base && bw_os_stat_at(f->dir_fd, name, &st) == 0) out->size_bytes += (uint64_t)st.st_size;
    }
}

/* ---- time ---- */

/* EMPTY: nothing in this segment. */
static bw_err search(const bw_follow *f, int fd, int64_t base, int64_t ts, int64_t *offset, int64_t *found)
{
    struct stat st;
    bw_walk w;
    if (bw_os_fstat(fd, &st)) return bw_fail_errno(errno, "%s: cannot stat segment %lld", f->folder, (long long)base);
    bw_err e = bw_walk_init_fd(&w, fd, false, base == f->base ? f->pos : (uint64_t)st.st_size, NULL, 0);
    w.check_crc = false;
    w.next_offset = base;
    w.gaps_below = f->gaps_below;
    int64_t start = atomic_load(&f->slot->log_start);
    if (!e) e = bw_walk_find_time(&w, ts, start, offset, found);
    bw_walk_fini(&w);
    return e;
}

bw_err bw_follow_offset_for_time(bw_follow *f, int64_t ts, int64_t *offset, int64_t *found)
{
    bw_err e = BW_ERR_EMPTY;
    for (size_t i = 0; e == BW_ERR_EMPTY && i < f->list.count; i++) {
        if (f->list.bases[i] >= f->base) break;
        int fd = open_log(f, f->list.bases[i]);
        if (fd < 0) continue; /* deleted meanwhile */
        e = search(f, fd, f->list.bases[i], ts, offset, found);
        bw_os_close(fd);
    }
    if (e == BW_ERR_EMPTY && f->fd >= 0) e = search(f, f->fd, f->base, ts, offset, found);
    if (e != BW_ERR_EMPTY) return e;
    *offset = f->next;
    *found = -1;
    return BW_OK;
}
