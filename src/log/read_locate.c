/* log/read_locate.c: find the segment and the byte position of an offset.
 *
 * The newest segments are in the slot's ring (sequence, base offset, inode); older ones are found by their file names. Inside a
 * segment the offset index is a hint: an entry is used only if a batch with a right checksum lies where it points; otherwise the
 * segment is walked from its start.
 *
 * Nothing keeps the coordinator from linking, merging and deleting files between two looks here: each BW_KILL_POINT("read.…") is
 * such a gap, where tests/unit/log/test_read_races.c lets it do so. */
#include "log/reader.h"

#include "base/killpoint.h"
#include "format/index.h"
#include "format/names.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { INDEX_BYTES_MAX = 16 << 20, REPLACED_TRIES = 16 };

static bw_window_mode mode_of(const bw_reader *r) { return r->use_pread ? BW_WINDOW_PREAD : BW_WINDOW_READ; }

/* What the ring says of a sequence; false: it is not in there (any more). *inode 0: it was cleaned. */
static bool ring_look(const bw_reader *r, uint32_t seq, int64_t *base, uint64_t *inode)
{
    bw_ring_entry *e = bw_ring_at(r->slot, seq);
    if (atomic_load_explicit(&e->seq, memory_order_acquire) != seq) return false;
    *base = (int64_t)atomic_load_explicit(&e->base_offset, memory_order_acquire);
    *inode = atomic_load_explicit(&e->inode, memory_order_acquire);
    atomic_thread_fence(memory_order_acquire);
    return atomic_load_explicit(&e->seq, memory_order_relaxed) == seq;
}

/* The ring's segment with the largest base offset <= target among sequences <= newest; 0: none of the ring. */
static uint32_t ring_floor(const bw_reader *r, uint32_t newest, int64_t target)
{
    int64_t base;
    uint64_t inode;
    for (uint32_t i = 0; i < BW_RING && i < newest && ring_look(r, newest - i, &base, &inode); i++)
        if (base <= target) return newest - i;
    return 0;
}

/* The ring's segment with the smallest base offset >= target among sequences <= newest, but those that were cleaned; 0: none. *base: its. */
static uint32_t ring_ceiling(const bw_reader *r, uint32_t newest, int64_t target, int64_t *base)
{
    uint32_t found = 0;
    int64_t at;
    uint64_t inode;
    for (uint32_t i = 0; i < BW_RING && i < newest && ring_look(r, newest - i, &at, &inode) && at >= target; i++) {
        if (!inode) continue;
        found = newest - i;
        *base = at;
    }
    return found;
}

typedef struct neighbours { int64_t target, floor, above; } neighbours;

static bool note_neighbour(void *opaque, const char *name)
{
    neighbours *n = opaque;
    int64_t base;
    if (!bw_segment_name_parse(name, ".log", &base)) return true;
    if (base <= n->target && base > n->floor) n->floor = base;
    if (base > n->target && (n->above < 0 || base < n->above)) n->above = base;
    return true;
}

/* Looks through the folder for segments: *floor the largest base <= target (-1: none), *above the smallest base > target
 * (-1: none). A folder that can't be read to its end is an error: what was not seen may be there. */
static bw_err folder_neighbours(bw_reader *r, int64_t target, int64_t *floor, int64_t *above)
{
    neighbours n = {target, -1, -1};
    *floor = *above = -1;
    if (bw_os_list_dir(r->dir_fd, note_neighbour, &n) != 0) return bw_fail_errno(errno, "cannot list the partition's folder");
    *floor = n.floor;
    *above = n.above;
    return BW_OK;
}

static bw_err read_small_file(bw_reader *r, const char *suffix, size_t max, bw_buf *out)
{
    char name[BW_SEGMENT_NAME_MAX];
    bw_segment_name(name, r->window.base_offset, suffix);
    int fd = bw_os_open_beneath(r->dir_fd, name, O_RDONLY, 0);
    if (fd < 0) return BW_ERR_NOT_FOUND;
    struct stat st;
    bw_err e = BW_ERR_NOT_FOUND;
    if (bw_os_fstat(fd, &st) == 0 && st.st_size > 0 && (uint64_t)st.st_size <= max &&
        bw_buf_reserve(out, (size_t)st.st_size) == BW_OK) {
        ssize_t n = bw_os_pread(fd, out->data, (size_t)st.st_size, 0);
        if (n > 0) {
            out->len = (size_t)n;
            e = BW_OK;
        }
    }
    bw_os_close(fd);
    return e;
}

/* The window is a segment that left the ring: its length is what the seal says, else up to the file's end or a zero header. */
static bw_err sealed_length(bw_reader *r, bool *has_seal)
{
    bw_buf file = {0};
    bw_seal seal;
    r->sealed = r->window.limit;
    *has_seal = false;
    if (read_small_file(r, ".seal", 4096, &file) == BW_OK && bw_seal_decode(file.data, file.len, &seal) == BW_OK &&
        seal.base_offset == r->window.base_offset) {
        if (seal.length > r->window.limit) {
            bw_buf_free(&file);
            return bw_fail(BW_ERR_CORRUPT, "segment %020lld.log has %u bytes, its seal says %u: it was cut",
                           (long long)r->window.base_offset, r->window.limit, seal.length);
        }
        r->sealed = seal.length;
        *has_seal = true;
    }
    bw_buf_free(&file);
    return BW_OK;
}

/* Is there a batch with a right checksum at pos that starts at or before the wanted offset? */
static bool hint_holds(bw_reader *r, uint32_t pos, uint32_t lim, bw_batch_header *h)
{
    bw_err e;
    if (pos >= lim || lim - pos < BW_BATCH_HEADER_BYTES) return false;
    const uint8_t *p = bw_reader_bytes(r, pos, BW_BATCH_HEADER_BYTES, lim, &e);
    if (!p || bw_batch_header_decode(p, lim - pos, true, h) != BW_OK || bw_batch_size(h) > lim - pos) return false;
    if (h->base_offset > r->next || h->base_offset < r->window.base_offset) return false;
    p = bw_reader_bytes(r, pos, bw_batch_size(h), lim, &e);
    return p && bw_batch_crc_ok(p, bw_batch_size(h));
}

/* The offset in the index entry for that position: that of the batch's last record, or of a later batch that came with it. The base
 * offset lies outside a batch's checksum: a batch that claims to go beyond its entry is not what was indexed. */
static int64_t indexed_offset(const uint8_t *index, size_t entries, int64_t base_offset, uint32_t pos)
{
    size_t low = 0, high = entries;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (bw_get_be32(index + mid * BW_INDEX_ENTRY_BYTES + 4) < pos) low = mid + 1;
        else high = mid;
    }
    return low < entries ? base_offset + (int64_t)bw_get_be32(index + low * BW_INDEX_ENTRY_BYTES) : -1;
}

static void jump_by_index(bw_reader *r, uint32_t lim)
{
    bw_buf file = {0};
    if (r->next > r->window.base_offset && read_small_file(r, ".index", INDEX_BYTES_MAX, &file) == BW_OK) {
        size_t n = bw_index_entries(file.data, file.len, lim);
        uint32_t pos = bw_index_floor(file.data, n, r->window.base_offset, r->next);
        bw_batch_header h;
        if (pos > 0 && hint_holds(r, pos, lim, &h) &&
            bw_batch_last_offset(&h) <= indexed_offset(file.data, n, r->window.base_offset, pos)) {
            r->pos = pos;
            r->expect = h.base_offset;
            r->epoch = h.leader_epoch;
        } else {
            r->window.populated = 0; /* pages below the hint are not there */
        }
    }
    bw_buf_free(&file);
}

static void enter_window(bw_reader *r)
{
    r->pos = 0;
    r->expect = r->window.base_offset;
    r->epoch = 0;
    r->sealed = 0;
    r->buf_len = 0;
    r->located = true;
}

/* Does the segment's name lead to another file than the one that is open? Then the cleaner was here, and a seal that was read in
 * between may be that one's. */
static bool was_replaced(bw_reader *r, int64_t base)
{
    char name[BW_SEGMENT_NAME_MAX];
    struct stat st;
    bw_segment_name(name, base, ".log");
    return bw_os_stat_at(r->dir_fd, name, &st) == 0 && (uint64_t)st.st_ino != r->window.inode;
}

static bw_err open_base(bw_reader *r, int64_t base)
{
    bool has_seal;
    bw_err e;
    int tries = 0;
    do {
        e = bw_window_open_base(&r->window, r->dir_fd, base, mode_of(r));
        if (e) return e;
        BW_KILL_POINT("read.opened");
        enter_window(r);
        e = sealed_length(r, &has_seal);
        BW_KILL_POINT("read.seal");
    } while (was_replaced(r, base) && ++tries < REPLACED_TRIES);
    if (e || has_seal || !r->window.map) return e;
    /* Its end is looked for behind the last batch, where the coordinator may cut the file at any time: nothing there is mapped. */
    e = bw_window_open_base(&r->window, r->dir_fd, base, BW_WINDOW_PREAD);
    r->sealed = r->window.limit;
    return e;
}

static bw_err open_seq(bw_reader *r, uint32_t seq)
{
    bw_err e = bw_window_open_seq(&r->window, r->dir_fd, r->slot, seq, mode_of(r));
    if (e == BW_OK) enter_window(r);
    return e;
}

/* After a segment was opened: it was not deleted before that, and so its file is not used for another (partition_reuse.c). */
static bw_err still_there(bw_reader *r)
{
    atomic_thread_fence(memory_order_seq_cst);
    return r->next < atomic_load(&r->slot->log_start) ? bw_reader_out_of_range(r) : BW_OK;
}

static bw_err locate(bw_reader *r, bw_position watermark)
{
    r->located = false;
    r->rest_at = 0;
    uint32_t seq = ring_floor(r, bw_position_seq(watermark), r->next);
    BW_KILL_POINT("read.ring_floor");
    bw_err e = seq ? open_seq(r, seq) : BW_ERR_NOT_FOUND;
    for (int tries = 0; e == BW_ERR_NOT_FOUND && tries < REPLACED_TRIES; tries++) { /* again: it was merged into the one before */
        int64_t floor = -1, above = -1;
        e = folder_neighbours(r, r->next, &floor, &above);
        BW_KILL_POINT("read.folder_floor");
        if (e) return e;
        if (floor < 0) return bw_reader_out_of_range(r);
        e = open_base(r, floor);
    }
    uint32_t lim = 0;
    if (e == BW_OK) e = still_there(r);
    if (e == BW_OK) e = bw_reader_segment_limit(r, watermark, &lim);
    if (e == BW_OK) jump_by_index(r, lim);
    if (e) r->located = false;
    return e;
}

bw_err bw_reader_locate(bw_reader *r, bw_position watermark)
{
    bool entered = bw_reader_enter(r);
    bw_err e = locate(r, watermark);
    bw_reader_leave(r, entered);
    return e;
}

typedef struct aside { int64_t from, before; bool found; } aside;

static bool note_aside(void *opaque, const char *entry)
{
    aside *a = opaque;
    char name[BW_SEGMENT_NAME_MAX];
    int64_t base;
    const char *mark = strstr(entry, ".log.corrupt");
    if (!mark || mark - entry != 20) return true;
    snprintf(name, sizeof name, "%.20s.log", entry);
    a->found = bw_segment_name_parse(name, ".log", &base) && base >= a->from && base < a->before;
    return !a->found;
}

/* Was a segment that began between these offsets set aside as corrupt? */
static bw_err was_set_aside(bw_reader *r, int64_t from, int64_t before, bool *found)
{
    aside a = {from, before, false};
    if (bw_os_list_dir(r->dir_fd, note_aside, &a) != 0) return bw_fail_errno(errno, "cannot list the partition's folder");
    *found = a.found;
    return BW_OK;
}

/* Is the segment that begins at `base` the file that was read to its end? NOT_FOUND: it has gone since the folder was looked through. */
static bw_err is_same(const bw_reader *r, const bw_window *was, int64_t base, bool *same)
{
    char name[BW_SEGMENT_NAME_MAX];
    struct stat st;
    bw_segment_name(name, base, ".log");
    if (bw_os_stat_at(r->dir_fd, name, &st) != 0)
        return errno == ENOENT ? BW_ERR_NOT_FOUND : bw_fail_errno(errno, "cannot look at segment %s", name);
    *same = (uint64_t)st.st_ino == was->inode;
    return BW_OK;
}

/* By name. Whether what follows was merged into a segment that begins earlier is told by that one's file, looked at after the folder: if
 * it is still the one that was read, nothing was merged into it, nor it into another. Its seal would not do: it may be the next merge's
 * already, or on its way. *moved: the place was looked for anew. */
static bw_err next_by_name(bw_reader *r, const bw_window *was, bw_position watermark, int64_t expect, bool *moved)
{
    bw_err e = BW_ERR_NOT_FOUND;
    for (int tries = 0; e == BW_ERR_NOT_FOUND && tries < REPLACED_TRIES; tries++) { /* then it may be one of the ring again */
        int64_t floor = -1, above = -1, ring_base = -1;
        bool same = true;
        uint32_t seq = ring_ceiling(r, bw_position_seq(watermark), expect, &ring_base); /* first: what leaves the ring has its name */
        BW_KILL_POINT("read.ring_next");
        e = folder_neighbours(r, expect, &floor, &above);
        BW_KILL_POINT("read.folder_next");
        if (!e && floor >= 0 && floor < expect) e = is_same(r, was, floor, &same);
        BW_KILL_POINT("read.compared");
        if (e == BW_ERR_NOT_FOUND) continue;
        if (e) return e;
        if (!same) {
            if (r->next < expect) r->next = expect;
            *moved = true;
            return locate(r, watermark);
        }
        if (floor == expect) above = floor;
        bool in_ring = seq && (above < 0 || ring_base <= above); /* it may have no name yet but its spare's */
        if (above < 0 && !in_ring) return BW_ERR_EMPTY;
        e = in_ring ? open_seq(r, seq) : BW_ERR_NOT_FOUND;
        if (e == BW_ERR_NOT_FOUND && (!in_ring || ring_base == above)) e = open_base(r, above); /* or it has just left the ring */
    }
    return e;
}

static bw_err next_segment(bw_reader *r, const bw_window *was, bw_position watermark)
{
    int64_t expect = r->expect > r->next ? r->expect : r->next;
    bool moved = false;
    BW_KILL_POINT("read.next");
    bw_err e = was->seq ? open_seq(r, was->seq + 1) : BW_ERR_NOT_FOUND;
    if (e == BW_ERR_NOT_FOUND) e = next_by_name(r, was, watermark, expect, &moved);
    if (moved || e == BW_ERR_EMPTY) return e;
    if (!e) e = still_there(r);
    if (!e && r->window.base_offset > expect) {
        int64_t base = r->window.base_offset;
        r->expect = expect;
        bool sound = bw_reader_gap_is_sound(r, base), found = false;
        if (sound) e = was_set_aside(r, was->base_offset, base, &found);
        r->expect = base;
        if (!e && (!sound || found))
            e = bw_fail(BW_ERR_CORRUPT, "offsets %lld to %lld are missing from the log (damaged segment set aside); seek to %lld",
                        (long long)expect, (long long)base - 1, (long long)base);
    }
    if (e) r->located = false;
    return e;
}

/* The segment that was read stays open until the next one is: so long no other file has its inode number. */
static bw_err advance(bw_reader *r, bw_position watermark)
{
    if (r->window.seq && r->window.seq >= bw_position_seq(watermark)) return BW_ERR_EMPTY;
    bw_window was = r->window;
    r->window = (bw_window){.fd = -1};
    bw_window_inherit(&r->window, &was);
    bw_err e = next_segment(r, &was, watermark);
    bw_window_close(e == BW_ERR_EMPTY ? &r->window : &was);
    if (e == BW_ERR_EMPTY) r->window = was;
    return e;
}

bw_err bw_reader_advance(bw_reader *r, bw_position watermark)
{
    bool entered = bw_reader_enter(r);
    bw_err e = advance(r, watermark);
    bw_reader_leave(r, entered);
    return e;
}
