/* log/walk.c: walk the record batches of one segment. Invariant: [buf_at, buf_at + buf_len) of the file is in buf. */
#include "log/walk.h"

#include "base/crc32c.h"
#include "base/err.h"
#include "base/os.h"

#include <errno.h>
#include <stdlib.h>

enum { ALIGN = 4096, ROOM = 256 * 1024, LARGE_BATCH = 4 * 1024, PEEK = 512 };

static void init_common(bw_walk *w)
{
    memset(w, 0, sizeof *w);
    w->fd = -1;
    w->check_crc = true;
    w->next_offset = -1;
    w->leader_epoch = INT32_MIN;
}

bw_err bw_walk_init_fd(bw_walk *w, int fd, bool direct, uint64_t end, void *room, size_t room_bytes)
{
    init_common(w);
    w->fd = fd;
    w->direct = direct;
    w->end = end;
    w->buf = room;
    w->cap = room_bytes & ~(size_t)(ALIGN - 1);
    if (!room) {
        w->cap = ROOM;
        w->owns_buf = true;
        w->buf = aligned_alloc(ALIGN, ROOM);
        if (!w->buf) return bw_fail(BW_ERR_NO_MEMORY, "no memory to read a segment");
    }
    return BW_OK;
}

void bw_walk_init_memory(bw_walk *w, const void *data, size_t len)
{
    init_common(w);
    w->memory = data;
    w->end = len;
}

void bw_walk_fini(bw_walk *w)
{
    if (w->owns_buf) free(w->buf);
    w->buf = NULL;
    w->owns_buf = false;
}

/* Reads from `at` on, at most cap bytes, at least `need` (<= cap - ALIGN) unless the file ends. */
static bw_err fill(bw_walk *w, uint64_t at, size_t need)
{
    uint64_t from = w->direct ? at & ~(uint64_t)(ALIGN - 1) : at;
    size_t want = w->cap;
    if (!w->check_crc && w->size > LARGE_BATCH && !w->direct && need <= PEEK) want = PEEK; /* only headers: skip the rest */
    uint64_t left = w->end - from;
    if (want > left) want = w->direct ? (size_t)((left + ALIGN - 1) & ~(uint64_t)(ALIGN - 1)) : (size_t)left;
    ssize_t n = bw_os_pread(w->fd, w->buf, want, (off_t)from);
    if (n < 0) return bw_fail_errno(errno, "cannot read at byte %llu", (unsigned long long)from);
    w->buf_at = from;
    w->buf_len = (size_t)n;
    return BW_OK;
}

/* *data, *len: bytes from `at`, at least min(need, what is left of the file), at most up to end. */
static bw_err look(bw_walk *w, uint64_t at, size_t need, const uint8_t **data, size_t *len)
{
    uint64_t left = at < w->end ? w->end - at : 0;
    if (need > left) need = (size_t)left;
    if (w->memory || left == 0) {
        *data = w->memory ? w->memory + at : w->buf;
        *len = (size_t)left;
        return BW_OK;
    }
    if (at < w->buf_at || at + need > w->buf_at + w->buf_len) {
        bw_err e = fill(w, at, need);
        if (e) return e;
    }
    size_t skip = (size_t)(at - w->buf_at);
    size_t have = w->buf_len > skip ? w->buf_len - skip : 0;
    *data = w->buf + skip;
    *len = have < left ? have : (size_t)left;
    return BW_OK;
}

/* The checksum of [from, to), in pieces. IO or CORRUPT (the file is shorter than it was). */
static bw_err checksum(bw_walk *w, uint64_t from, uint64_t to, uint32_t *crc)
{
    *crc = 0;
    while (from < to) {
        const uint8_t *data;
        size_t len;
        bw_err e = look(w, from, 1, &data, &len);
        if (e) return e;
        if (len == 0) return bw_fail(BW_ERR_CORRUPT, "the file ends at byte %llu, inside a batch", (unsigned long long)from);
        if (len > to - from) len = (size_t)(to - from);
        *crc = bw_crc32c_extend(*crc, data, len);
        from += len;
    }
    return BW_OK;
}

static bool is_gap(const bw_walk *w, const bw_batch_header *h)
{
    return w->next_offset >= 0 && h->base_offset > w->next_offset && h->base_offset < w->gaps_below;
}

static bw_err check_order(const bw_walk *w, const bw_batch_header *h)
{
    if (w->next_offset >= 0 && h->base_offset != w->next_offset && !is_gap(w, h))
        return bw_fail(BW_ERR_CORRUPT, "byte %llu: the batch has base offset %lld, expected %lld", (unsigned long long)w->position,
                       (long long)h->base_offset, (long long)w->next_offset);
    if (h->leader_epoch < w->leader_epoch)
        return bw_fail(BW_ERR_CORRUPT, "byte %llu: the batch has leader epoch %d, behind %d", (unsigned long long)w->position,
                       h->leader_epoch, w->leader_epoch);
    if (h->base_offset > INT64_MAX - h->last_offset_delta - 1)
        return bw_fail(BW_ERR_CORRUPT, "byte %llu: offset overflow", (unsigned long long)w->position);
    return BW_OK;
}

bw_err bw_walk_next(bw_walk *w)
{
    const uint8_t *data;
    size_t len;
    bw_batch_header h;
    bw_err e = look(w, w->position, BW_BATCH_HEADER_BYTES, &data, &len);
    if (e) return e;
    if (len < BW_BATCH_HEADER_BYTES) return BW_ERR_EMPTY;
    e = bw_batch_header_decode(data, BW_BATCH_HEADER_BYTES, true, &h);
    if (e == BW_ERR_EMPTY) return e;
    if (e) return bw_error_context(e, "byte %llu", (unsigned long long)w->position);
    if (bw_batch_size(&h) > w->end - w->position)
        return bw_fail(BW_ERR_CORRUPT, "byte %llu: a batch of %u bytes reaches past the end at %llu", (unsigned long long)w->position,
                       bw_batch_size(&h), (unsigned long long)w->end);
    e = check_order(w, &h);
    if (e) return e;
    uint8_t first[BW_BATCH_HEADER_BYTES];
    memcpy(first, data, sizeof first);
    if (w->check_crc) {
        uint32_t crc;
        e = checksum(w, w->position + BW_BATCH_CRC_FROM, w->position + bw_batch_size(&h), &crc);
        if (e) return e;
        if (crc != h.crc)
            return bw_fail(BW_ERR_CORRUPT, "byte %llu, offset %lld: the batch's checksum is %08x, its bytes give %08x",
                           (unsigned long long)w->position, (long long)h.base_offset, h.crc, crc);
    }
    memcpy(w->first, first, sizeof first);
    w->header = h;
    w->at = w->position;
    w->size = bw_batch_size(&h);
    w->position += w->size;
    w->gap_seen |= is_gap(w, &h);
    w->next_offset = bw_batch_last_offset(&h) + 1;
    w->leader_epoch = h.leader_epoch;
    return BW_OK;
}

/* One comparison of everything with everything that bw_batch_header_decode and check_order look at, without a branch for each. */
static inline bool is_plain(const uint8_t *p, int64_t next_offset, int32_t epoch, uint64_t left)
{
    const int64_t base_max = INT64_MAX - INT32_MAX - 1;
    uint64_t length_epoch = bw_get_be64(p + 8);
    int32_t length = (int32_t)(length_epoch >> 32), last_delta = (int32_t)bw_get_be32(p + 23);
    int64_t count = (int32_t)bw_get_be32(p + 57), records = (int64_t)length + 12 - BW_BATCH_HEADER_BYTES;
    bool placed = ((int64_t)bw_get_be64(p) == next_offset) & (next_offset <= base_max) & ((int32_t)length_epoch == epoch);
    bool sized = (records >= 0) & (length <= INT32_MAX - 12) & ((uint64_t)(uint32_t)length + 12 <= left);
    bool counted = (last_delta >= 0) & (count >= 0) & (count - 1 <= last_delta) & (count * BW_RECORD_BYTES_MIN <= records);
    bool kind = (p[16] == BW_BATCH_MAGIC) & ((p[22] & BW_ATTR_CODEC_MASK) == BW_CODEC_NONE) & (p[43] >> 7 == 1);
    return placed & sized & counted & kind;
}

size_t bw_walk_plain(bw_walk *w, bw_walk_run *run)
{
    const uint8_t *p;
    size_t len, n = 0;
    run->count = 0;
    if (w->check_crc || w->next_offset < 0 || w->position >= w->end) return 0;
    if (look(w, w->position, BW_BATCH_HEADER_BYTES, &p, &len) != BW_OK) return 0;
    uint64_t at = w->position;
    int64_t next = w->next_offset;
    while (n < BW_WALK_RUN && len >= BW_BATCH_HEADER_BYTES && is_plain(p, next, w->leader_epoch, w->end - at)) {
        uint32_t size = bw_get_be32(p + 8) + 12;
        next += (int64_t)bw_get_be32(p + 23) + 1;
        run->first[n] = p;
        run->of[n].last_offset = next - 1;
        run->of[n].max_timestamp = (int64_t)bw_get_be64(p + 35);
        run->of[n].at = (uint32_t)at;
        run->of[n].size = size;
        n++;
        at += size;
        if (size >= len) break;
        p += size;
        len -= size;
    }
    if (n == 0) return 0;
    w->at = run->of[n - 1].at;
    w->size = run->of[n - 1].size;
    w->position = at;
    w->next_offset = next;
    return run->count = n;
}

bw_err bw_walk_batch(bw_walk *w, const uint8_t **data)
{
    if (w->memory) {
        *data = w->memory + w->at;
        return BW_OK;
    }
    if (w->at < w->buf_at || w->at + w->size > w->buf_at + w->buf_len) {
        size_t need = (w->size + 2 * (size_t)ALIGN) & ~(size_t)(ALIGN - 1);
        if (need > w->cap) {
            if (!w->owns_buf) return bw_fail(BW_ERR_NO_MEMORY, "a batch of %u bytes does not fit the caller's buffer", w->size);
            uint8_t *bigger = aligned_alloc(ALIGN, need);
            if (!bigger) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a batch of %u bytes", w->size);
            free(w->buf);
            w->buf = bigger;
            w->cap = need;
            w->buf_len = 0;
        }
        bw_err e = fill(w, w->at, w->size);
        if (e) return e;
        if (w->at + w->size > w->buf_at + w->buf_len)
            return bw_fail(BW_ERR_CORRUPT, "the file ends inside the batch at byte %llu", (unsigned long long)w->at);
    }
    *data = w->buf + (w->at - w->buf_at);
    return BW_OK;
}

bw_err bw_walk_zero_from(bw_walk *w, uint64_t from, bool *zero, uint64_t *at)
{
    *zero = true;
    while (from < w->end) {
        const uint8_t *data;
        size_t len;
        bw_err e = look(w, from, 1, &data, &len);
        if (e) return e;
        if (len == 0) return BW_OK;
        if (data[0] != 0 || memcmp(data, data + 1, len - 1) != 0) {
            size_t i = 0;
            while (data[i] == 0) i++;
            *zero = false;
            *at = from + i;
            return BW_OK;
        }
        from += len;
    }
    return BW_OK;
}
