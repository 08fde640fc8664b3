/* log/read.c: READ. A reader never writes shared memory and holds nothing that others wait for.
 *
 * R1: one acquire load of the watermark (tail or durable) pairs with P1, P2 or S2: everything below it is there, whole. In the
 * watermark's own segment the limit is its byte position; in an earlier one it is the final position of the ring entry, or, when
 * the entry is gone, the sealed length. F6: a segment above the watermark's is never entered.
 *
 * Committed readers: first_unstable is loaded *after* the tail (P1 of a transaction's first batch comes after first_unstable was lowered:
 * who sees the batch sees that), and slot.aborts after both (read_aborted.c). What lies below a first_unstable is decided for ever: so the
 * bound is loaded with the watermark, and kept as long as that.
 *
 * What is given out has been checked: header against the limit, base offset against the one expected, epoch not going back,
 * checksum when asked. Nothing of a bad batch is given out, and the reader stays in front of it. */
#include "log/reader.h"

#include "base/cpu.h"

#include "log/smallfile.h"
#include "log/wait.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

enum { READ_AHEAD = 256 << 10, CHASE_MANY = 32, CHASE_LOOKS = 3, CHASE_RESTS = 6 };

bw_err bw_reader_open(const bw_reader_options *o, bw_reader **out)
{
    if (o->partition >= atomic_load_explicit(&o->control->header->slots, memory_order_acquire))
        return bw_fail(BW_ERR_UNKNOWN_PARTITION, "partition %u is not in the control data", o->partition);
    bw_err opened = bw_slot_await_opened(o->control, o->partition);
    if (opened) return opened;
    const bw_tail_slot *slot = &o->control->slots[o->partition];
    if (o->limit == BW_LIMIT_REPLICATED && !(atomic_load_explicit(&slot->flags, memory_order_acquire) & BW_SLOT_REPLICAS))
        return bw_fail(BW_ERR_INVALID_CONFIG, "read limit replicated: the topic asks for no replicas (replicas = 0)");
    bw_reader *r = calloc(1, sizeof *r);
    if (!r) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a reader");
    r->control = o->control;
    r->slot = &o->control->slots[o->partition];
    r->partition = o->partition;
    r->limit = bw_limit_of(r->slot, o->limit);
    r->decided = o->committed ? BW_ATTR_TRANSACTIONAL : 0;
    r->bounded = o->committed || r->limit == BW_LIMIT_DURABLE || r->limit == BW_LIMIT_REPLICATED;
    r->gated = o->committed || r->limit == BW_LIMIT_REPLICATED;
    r->bound = r->bounded ? 0 : INT64_MAX;
    r->aborted_base = -1;
    r->check_crcs = o->check_crcs;
    r->use_pread = o->use_pread;
    r->guard = o->guard;
    r->window = (bw_window)BW_WINDOW_NONE;
    r->gaps_below = -1;
    r->parent_fd = o->dir_fd;
    r->folder = o->folder ? strdup(o->folder) : NULL;
    r->dir_fd = o->folder ? -1 : fcntl(o->dir_fd, F_DUPFD_CLOEXEC, 0);
    bool there = o->folder ? r->folder && bw_reader_enter(r) : r->dir_fd >= 0;
    if (!there) {
        bw_err e = bw_fail_errno(errno, "cannot keep the partition's folder open");
        free(r->folder);
        free(r);
        return e;
    }
    bw_reader_leave(r, o->folder != NULL);
    *out = r;
    return BW_OK;
}

void bw_reader_close(bw_reader *r)
{
    if (!r) return;
    bw_window_close(&r->window);
    if (!r->folder) bw_os_close(r->dir_fd);
    free(r->folder);
    free(r->buf);
    bw_aborted_list_free(&r->aborted);
    free(r);
}

bool bw_reader_enter(bw_reader *r)
{
    if (r->dir_fd >= 0 || !r->folder) return false;
    r->dir_fd = bw_os_open_beneath(r->parent_fd, r->folder, O_RDONLY | O_DIRECTORY, 0);
    return r->dir_fd >= 0;
}

void bw_reader_leave(bw_reader *r, bool entered)
{
    if (!entered) return;
    int saved = errno;
    bw_os_close(r->dir_fd);
    r->dir_fd = -1;
    errno = saved;
}

bw_reader_limit bw_reader_limit_is(const bw_reader *r) { return r->limit; }

const _Atomic uint64_t *bw_limit_word(const bw_tail_slot *s, bw_reader_limit limit)
{
    return limit == BW_LIMIT_REPLICATED ? &s->replicated : limit == BW_LIMIT_DURABLE ? &s->durable : &s->tail;
}

bool bw_reader_is_open(const bw_reader *r) { return r->window.map || r->window.fd >= 0; }

void bw_reader_rest(bw_reader *r)
{
    if (r->located) {
        r->rest_at = r->window.seq && r->next <= r->expect ? bw_position_of(r->window.seq, r->pos) : 0;
        if (r->next < r->expect) r->next = r->expect;
    }
    bw_window_close(&r->window);
    r->located = false;
    r->seen = 0;
    free(r->buf);
    r->buf = NULL;
    r->buf_cap = r->buf_len = 0;
    bw_aborted_list_free(&r->aborted);
    r->aborted_until = 0;
}

void bw_reader_seek(bw_reader *r, int64_t offset)
{
    if (r->located && offset == r->next && offset >= r->expect) return;
    if (r->rest_at && offset == r->next) return;
    r->next = offset;
    r->located = false;
    r->rest_at = 0;
}

int64_t bw_reader_position(const bw_reader *r) { return r->next; }

bw_position bw_reader_watermark(const bw_reader *r)
{
    return atomic_load_explicit(r->limit == BW_LIMIT_DURABLE ? &r->slot->durable : &r->slot->tail, memory_order_acquire); /* R1 */
}

/* What peers have bounds the readers of it as first_unstable bounds the committed ones: an offset, whatever the tail is. */
static int64_t offset_gate(const bw_reader *r)
{
    int64_t gate = r->decided ? atomic_load_explicit(&r->slot->first_unstable, memory_order_acquire) : INT64_MAX;
    if (r->limit != BW_LIMIT_REPLICATED) return gate;
    int64_t replicated = (int64_t)atomic_load_explicit(&r->slot->replicated, memory_order_acquire);
    return replicated < gate ? replicated : gate;
}

/* Offsets from here on are not given. Loaded after the watermark: the last stable offset for committed readers; for durable ones the
 * durable offset, which bounds them where a watermark's segment has already left the ring (it is stored before the watermark is). */
static int64_t offset_bound(const bw_reader *r)
{
    int64_t bound = offset_gate(r);
    if (r->limit == BW_LIMIT_DURABLE) {
        int64_t durable = atomic_load_explicit(&r->slot->durable_offset, memory_order_acquire);
        if (durable < bound) bound = durable;
    }
    return bound;
}

static bool is_below_watermark(bw_reader *r)
{
    if (!r->located) return r->rest_at == 0 || bw_reader_watermark(r) > r->rest_at;
    if (r->window.seq == 0) return true;
    if (bw_reader_watermark(r) > bw_position_of(r->window.seq, r->pos)) return true;
    if (++r->looks > CHASE_LOOKS) r->chase = 0;
    return false;
}

bool bw_reader_ready(bw_reader *r)
{
    if (atomic_load_explicit(&r->slot->state, memory_order_relaxed) >= BW_SLOT_DELETED) return true;
    if (!is_below_watermark(r)) return false;
    if (!r->gated) return true;
    int64_t at = r->located && r->expect > r->next ? r->expect : r->next;
    return at < offset_gate(r);
}

int64_t bw_limit_end(const bw_tail_slot *s, bw_reader_limit limit)
{
    if (limit == BW_LIMIT_DURABLE) return atomic_load_explicit(&s->durable_offset, memory_order_acquire);
    int64_t end = bw_slot_end_offset(s);
    if (limit != BW_LIMIT_REPLICATED) return end;
    int64_t replicated = (int64_t)atomic_load_explicit(&s->replicated, memory_order_acquire);
    return replicated < end ? replicated : end;
}

bw_err bw_reader_segment_limit(bw_reader *r, bw_position watermark, uint32_t *lim)
{
    if (r->window.seq == 0) {
        *lim = r->sealed;
        return BW_OK;
    }
    if (r->window.seq > bw_position_seq(watermark)) return BW_ERR_EMPTY; /* F6 */
    if (r->window.seq == bw_position_seq(watermark)) {
        *lim = bw_position_pos(watermark);
        return BW_OK;
    }
    if (!r->sealed) {
        bw_ring_entry *e = bw_ring_at(r->slot, r->window.seq);
        uint32_t seq = atomic_load_explicit(&e->seq, memory_order_acquire);
        uint32_t final = atomic_load_explicit(&e->final_position, memory_order_acquire);
        atomic_thread_fence(memory_order_acquire);
        if (seq != r->window.seq || atomic_load_explicit(&e->seq, memory_order_relaxed) != seq) {
            r->window.seq = 0; /* the ring has moved on: find it again by its name */
            r->located = false;
            r->next = r->next > r->expect ? r->next : r->expect;
            return BW_ERR_RETIRED;
        }
        r->sealed = final;
    }
    *lim = r->sealed;
    return BW_OK;
}

/* ---- bytes ---- */

/* A segment without a seal was cut to its length meanwhile. EMPTY: exactly at pos. */
static bw_err cut_short(bw_reader *r, uint32_t pos, uint32_t lim)
{
    if (r->window.seq == 0 && r->buf_len == 0) {
        r->window.limit = r->sealed = pos;
        return BW_ERR_EMPTY;
    }
    return bw_fail(BW_ERR_CORRUPT, "segment %020lld.log ends at byte %zu, %u were written", (long long)r->window.base_offset,
                   pos + r->buf_len, lim);
}

static bw_err bytes_by_pread(bw_reader *r, uint32_t pos, uint32_t len, uint32_t lim)
{
    uint32_t want = lim - pos < READ_AHEAD ? lim - pos : READ_AHEAD;
    if (want < len) want = len;
    if (r->buf_cap < want) {
        uint8_t *p = realloc(r->buf, want);
        if (!p) return bw_fail(BW_ERR_NO_MEMORY, "no memory to read %u bytes", want);
        r->buf = p;
        r->buf_cap = want;
    }
    ssize_t n = bw_os_pread(r->window.fd, r->buf, want, pos);
    r->buf_from = pos;
    r->buf_len = n > 0 ? (size_t)n : 0;
    if (n < 0) return bw_fail_errno(errno, "segment %020lld.log, byte %u: cannot read", (long long)r->window.base_offset, pos);
    return r->buf_len < len ? cut_short(r, pos, lim) : BW_OK;
}

static bw_err fall_back_to_pread(bw_reader *r)
{
    bw_window w = BW_WINDOW_NONE;
    bool entered = bw_reader_enter(r);
    bw_err e = r->window.seq ? bw_window_open_seq(&w, r->dir_fd, r->slot, r->window.seq, BW_WINDOW_PREAD)
                             : bw_window_open_base(&w, r->dir_fd, r->window.base_offset, BW_WINDOW_PREAD);
    bw_reader_leave(r, entered);
    if (e) return e;
    if (w.inode != r->window.inode) { /* cleaned meanwhile: the position is that of another file */
        bw_window_close(&w);
        r->use_pread = true;
        r->located = false;
        if (r->next < r->expect) r->next = r->expect;
        return BW_ERR_EMPTY;
    }
    bw_window_close(&r->window);
    r->window = w;
    r->use_pread = true;
    r->buf_len = 0;
    return BW_OK;
}

const uint8_t *bw_reader_bytes(bw_reader *r, uint32_t pos, uint32_t len, uint32_t lim, bw_err *err)
{
    if (r->window.map) {
        if (__builtin_expect(pos + len <= r->window.populated, 1)) return r->window.map + pos;
        uint32_t allocated = lim;
        if (r->window.seq) { /* pages that the writer prepared beyond the tail come along; others are the writer's to make */
            bw_position c = atomic_load_explicit(&r->slot->prepared, memory_order_acquire);
            if (bw_position_seq(c) == r->window.seq && bw_position_pos(c) > lim) allocated = bw_position_pos(c);
            if (allocated > r->window.limit) allocated = r->window.limit; /* its margin is not mapped here */
        }
        int e = bw_window_populate(&r->window, pos, pos + len, allocated, false);
        if (e == EFAULT && allocated > lim) /* sealed and trimmed meanwhile */
            e = bw_window_populate(&r->window, pos, pos + len, lim, false);
        if (e == 0) return r->window.map + pos;
        if (e != EOPNOTSUPP) {
            *err = bw_fail_errno(e, "segment %020lld.log, byte %u: cannot read", (long long)r->window.base_offset, pos);
            return NULL;
        }
        if ((*err = fall_back_to_pread(r)) != BW_OK) return NULL;
    }
    if (pos < r->buf_from || pos + (uint64_t)len > r->buf_from + (uint64_t)r->buf_len) {
        *err = bytes_by_pread(r, pos, len, lim);
        if (*err) return NULL;
    }
    return r->buf + (pos - r->buf_from);
}

/* ---- READ ---- */

static bw_err corrupt(bw_reader *r, const char *what)
{
    return bw_fail(BW_ERR_CORRUPT, "partition %u, segment %020lld.log, byte %u, offset %lld: %s; run `busway verify`",
                   r->partition, (long long)r->window.base_offset, r->pos, (long long)r->expect, what);
}

bw_err bw_reader_out_of_range(bw_reader *r)
{
    return bw_fail(BW_ERR_OFFSET_OUT_OF_RANGE, "offset %lld is out of range: the log holds %lld to %lld", (long long)r->next,
                   (long long)atomic_load(&r->slot->log_start), (long long)bw_slot_end_offset(r->slot));
}

static bw_err slot_gone(bw_reader *r)
{
    uint32_t state = atomic_load_explicit(&r->slot->state, memory_order_acquire);
    if (state == BW_SLOT_DELETED) return bw_fail(BW_ERR_DELETED, "the topic was deleted");
    if (state == BW_SLOT_RETIRED || atomic_load_explicit(&r->control->header->retired, memory_order_acquire))
        return bw_fail(BW_ERR_RETIRED, "the control data was replaced; attach again");
    return BW_OK;
}

/* Nothing more below the limit in the current segment. EMPTY, or OUT_OF_RANGE when the wanted offset lies past the end. */
static bw_err at_end(bw_reader *r)
{
    if (r->next > r->expect && r->next > bw_slot_end_offset(r->slot)) return bw_reader_out_of_range(r);
    return BW_ERR_EMPTY;
}

/* On the writer's heels, where each look finds one batch more, the line goes to and fro for each batch, and the writer waits for it.
 * Who has found something at nearly every look for a while lets a few gather; who had to look often before something came, as in a
 * conversation, does not. */
static inline void rest_a_moment(void)
{
    for (int i = 0; i < CHASE_RESTS; i++) bw_cpu_relax();
}

static inline void note_look(bw_reader *r, bw_position mark)
{
    if (mark == r->seen) {
        if (++r->looks > CHASE_LOOKS) r->chase = 0;
        return;
    }
    if (r->looks <= CHASE_LOOKS) r->chase++;
    r->looks = 0;
    r->seen = mark;
}

/* The place of the next batch: an open window with pos < *lim. */
static bw_err find_place(bw_reader *r, uint32_t *lim)
{
    for (;;) {
        if (r->next < atomic_load_explicit(&r->slot->log_start, memory_order_acquire)) return bw_reader_out_of_range(r);
        /* The tail's line is the writer's; it is taken from it only when what was seen of it has been read. */
        if (r->located && r->window.seq && bw_position_of(r->window.seq, r->pos) < r->seen &&
            bw_position_seq(r->seen) == r->window.seq) {
            *lim = bw_position_pos(r->seen);
            return BW_OK;
        }
        if (r->chase >= CHASE_MANY) rest_a_moment();
        bw_position mark = bw_reader_watermark(r);
        if (r->bounded) r->bound = offset_bound(r);
        note_look(r, mark);
        if (!r->located && r->rest_at && mark <= r->rest_at) return BW_ERR_EMPTY;
        bw_err e = r->located ? BW_OK : bw_reader_locate(r, mark);
        if (e == BW_OK) e = bw_reader_segment_limit(r, mark, lim);
        if (e == BW_ERR_RETIRED && !r->located) continue; /* lost from the ring: locate again */
        if (e) return e;
        if (r->pos < *lim) return BW_OK;
        if (r->window.seq && r->window.seq == bw_position_seq(mark)) return at_end(r);
        e = bw_reader_advance(r, mark);
        if (e) return e;
    }
}

bool bw_reader_gap_is_sound(bw_reader *r, int64_t base_offset)
{
    if (base_offset >= r->gaps_below) { /* the cleaner may have raised it since: it was on the disk before this gap was */
        bool entered = bw_reader_enter(r);
        r->gaps_below = bw_offset_file_read(r->dir_fd, BW_GAPS_FILE);
        bw_reader_leave(r, entered);
    }
    return base_offset > r->expect && base_offset < r->gaps_below;
}

/* The batch at pos, which is below lim. EMPTY: a sealed segment without a seal ends here. */
static bw_err check_batch(bw_reader *r, uint32_t lim, bw_batch_ref *out)
{
    bw_err e = BW_OK;
    if (lim - r->pos < BW_BATCH_HEADER_BYTES) {
        if (r->window.seq == 0) return BW_ERR_EMPTY;
        return corrupt(r, "the segment ends within a batch header");
    }
    const uint8_t *p = bw_reader_bytes(r, r->pos, BW_BATCH_HEADER_BYTES, lim, &e);
    if (!p) return e;
    e = bw_batch_header_decode(p, lim - r->pos, false, &out->header);
    if (e == BW_ERR_EMPTY && r->window.seq == 0) return e;
    if (e == BW_ERR_EMPTY) return corrupt(r, "nothing was written where a batch must be");
    if (e) return bw_error_context(e, "partition %u, segment %020lld.log, byte %u", r->partition,
                                   (long long)r->window.base_offset, r->pos);
    const bw_batch_header *h = &out->header;
    if (__builtin_expect(h->base_offset != r->expect, 0) && !bw_reader_gap_is_sound(r, h->base_offset))
        return corrupt(r, "the batch has another base offset");
    if (h->leader_epoch < r->epoch) return corrupt(r, "the leader epoch goes back");
    out->size = bw_batch_size(h);
    out->data = bw_reader_bytes(r, r->pos, out->size, lim, &e);
    if (!out->data) return e;
    if (r->check_crcs && !bw_batch_crc_ok(out->data, out->size)) return corrupt(r, "wrong checksum");
    return BW_OK;
}

static void step_over(bw_reader *r, const bw_batch_ref *b)
{
    r->pos += b->size;
    r->epoch = b->header.leader_epoch;
    r->expect = bw_batch_last_offset(&b->header) + 1;
}

/* In front of the bound that came with what was seen: is there a newer one? EMPTY: no. */
static bw_err pass_bound(bw_reader *r)
{
    uint32_t lim;
    r->seen = 0;
    bw_err e = find_place(r, &lim);
    return !e && r->expect >= r->bound ? BW_ERR_EMPTY : e;
}

/* A batch that this reader must not be given, although it is below all limits. */
static inline bw_err is_left_out(bw_reader *r, const bw_batch_header *h, bool *out)
{
    *out = false;
    return __builtin_expect(h->attributes & r->decided, 0) ? bw_reader_is_aborted(r, h, out) : BW_OK;
}

bw_err bw_reader_next(bw_reader *r, bw_batch_ref *out)
{
    if (r->guard && bw_forked(r->guard)) return bw_fail(BW_ERR_FORKED, "this consumer belongs to the parent process");
    bw_err e = slot_gone(r);
    if (e) return e;
    for (;;) {
        uint32_t lim;
        bool skip;
        e = find_place(r, &lim);
        if (e) return e;
        if (__builtin_expect(r->expect >= r->bound, 0)) {
            if ((e = pass_bound(r))) return e;
            continue;
        }
        e = check_batch(r, lim, out);
        if (e == BW_ERR_EMPTY) { /* old segment without a seal: its end */
            r->sealed = r->pos;
            continue;
        }
        if (!e) e = is_left_out(r, &out->header, &skip);
        if (e) return e;
        step_over(r, out);
        if (r->expect <= r->next) continue; /* wholly before the wanted offset */
        r->next = r->expect;
        if (!skip) return BW_OK;
    }
}

bw_err bw_reader_run(bw_reader *r, size_t max_bytes, bw_run *out)
{
    bw_batch_ref b;
    bw_err e = bw_reader_next(r, &b);
    if (e) return e;
    uint32_t first = r->pos - b.size;
    *out = (bw_run){b.data, b.size, b.header.base_offset, r->next, 1};
    uint32_t lim;
    if (!r->located || bw_reader_segment_limit(r, bw_reader_watermark(r), &lim) != BW_OK) return BW_OK;
    if (r->bounded) r->bound = offset_bound(r); /* behind that watermark */
    while (r->pos < lim && out->len < max_bytes && r->expect < r->bound) {
        if (!r->window.map && r->pos + (uint64_t)BW_BATCH_HEADER_BYTES > r->buf_from + (uint64_t)r->buf_len) break;
        bw_batch_header h;
        bool skip;
        if (!r->window.map) { /* a run stays within what is buffered, so that its first byte stays where it is */
            const uint8_t *p = r->buf + (r->pos - r->buf_from);
            if (bw_batch_header_decode(p, lim - r->pos, false, &h) != BW_OK) break;
            if (r->pos + (uint64_t)bw_batch_size(&h) > r->buf_from + (uint64_t)r->buf_len) break;
        } else {
            bw_err ignored;
            const uint8_t *p = bw_reader_bytes(r, r->pos, BW_BATCH_HEADER_BYTES, lim, &ignored);
            if (!p || bw_batch_header_decode(p, lim - r->pos, false, &h) != BW_OK) break;
        }
        if (out->len + bw_batch_size(&h) > max_bytes) break;
        if (check_batch(r, lim, &b) != BW_OK) break; /* the next call reports it */
        if (is_left_out(r, &b.header, &skip) != BW_OK || skip) break;
        step_over(r, &b);
        r->next = r->expect;
        out->len += b.size;
        out->next_offset = r->next;
        out->batches++;
    }
    out->data = r->window.map ? r->window.map + first : r->buf + (first - r->buf_from);
    return BW_OK;
}
