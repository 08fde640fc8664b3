/* log/window.c: open, map and populate segment files. */
#include "log/window.h"

#include "base/clock.h"
#include "base/os.h"
#include "format/names.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

#ifndef MADV_DONTFORK
#define MADV_DONTFORK 10
#endif

enum {
    CHUNK_MIN = 4096,
    CHUNK_MAX = 1 << 20,
    FAST_NS = 10000000,
    DISK_NS = 400000,      /* a populated chunk that took longer was not in the page cache */
    DISK_CHUNK = 256 << 10,
    DISK_AHEAD = 4 << 20,  /* of a reader from the disk; at 1 GB/s the disk has 4 ms for it */
    ADVICE_PIECE = 128 << 10, /* the kernel reads no more for one advice than the device's read-ahead */
    OPEN_TRIES = 50, /* link(base) and unlink(spare) of the coordinator race with us for microseconds */
};

void bw_window_close(bw_window *w)
{
    if (w->map) bw_os_munmap(w->map, w->map_bytes);
    if (w->fd >= 0) bw_os_close(w->fd);
    bw_window was = *w;
    *w = (bw_window){.fd = -1};
    bw_window_inherit(w, &was);
}

void bw_window_inherit(bw_window *w, const bw_window *before)
{
    w->chunk = before->chunk;
    w->chunk_at_ns = before->chunk_at_ns;
    w->from_disk = before->from_disk;
    w->calm = before->calm;
}

static int flags_of(bw_window_mode mode)
{
    return mode == BW_WINDOW_WRITE || mode == BW_WINDOW_PWRITE ? O_RDWR : O_RDONLY;
}

/* Takes over fd. */
static bw_err window_fill(bw_window *w, int fd, uint32_t limit, bw_window_mode mode, const char *name)
{
    w->limit = limit;
    if (w->chunk < CHUNK_MIN) w->chunk = CHUNK_MIN;
    if (mode == BW_WINDOW_PREAD || mode == BW_WINDOW_PWRITE || limit == 0) {
        w->fd = fd;
        return BW_OK;
    }
    int prot = mode == BW_WINDOW_WRITE ? PROT_READ | PROT_WRITE : PROT_READ;
    size_t bytes = mode == BW_WINDOW_WRITE ? (size_t)limit + BW_TAIL_CLEAR : limit;
    void *p = bw_os_mmap(NULL, bytes, prot, MAP_SHARED, fd, 0);
    int saved = errno;
    bw_os_close(fd);
    if (p == MAP_FAILED) {
        bw_window_close(w); /* a window that names a segment has its bytes */
        return bw_fail_errno(saved, "cannot map segment %s (%u bytes)", name, limit);
    }
    w->map = p;
    w->map_bytes = bytes;
    if (w->calm) bw_os_madvise(p, bytes, MADV_RANDOM);
    return BW_OK;
}

bw_err bw_window_open_seq(bw_window *w, int dir_fd, bw_tail_slot *slot, uint32_t seq, bw_window_mode mode)
{
    bw_window_close(w);
    char name[BW_SEGMENT_NAME_MAX] = "";
    for (int i = 0; i < OPEN_TRIES; i++) {
        bw_ring_entry *e = bw_ring_at(slot, seq);
        uint32_t s = atomic_load_explicit(&e->seq, memory_order_acquire);
        int64_t base = (int64_t)atomic_load_explicit(&e->base_offset, memory_order_acquire);
        uint64_t inode = atomic_load_explicit(&e->inode, memory_order_acquire);
        uint32_t limit = atomic_load_explicit(&e->limit, memory_order_acquire);
        atomic_thread_fence(memory_order_acquire);
        if (s != seq || atomic_load_explicit(&e->seq, memory_order_relaxed) != s)
            return bw_fail(BW_ERR_NOT_FOUND, "segment %u is no longer among the newest", seq);
        if (inode == 0) return bw_fail(BW_ERR_NOT_FOUND, "segment %u was cleaned", seq);
        for (int spare = 0; spare < 2; spare++) {
            if (spare) bw_spare_name(name, seq);
            else bw_segment_name(name, base, ".log");
            int fd = bw_os_open_beneath(dir_fd, name, flags_of(mode), 0);
            if (fd < 0 && errno == ENOENT) continue;
            if (fd < 0) return bw_fail_errno(errno, "cannot open segment %s", name);
            struct stat st;
            bool same = bw_os_fstat(fd, &st) == 0 && (uint64_t)st.st_ino == inode;
            /* The cleaner takes the inode from the entry before another file gets the name, perhaps one with the same number. */
            if (!same || atomic_load_explicit(&e->inode, memory_order_acquire) != inode) {
                bw_os_close(fd);
                continue;
            }
            w->seq = seq;
            w->inode = inode;
            w->base_offset = base;
            return window_fill(w, fd, limit, mode, name);
        }
    }
    bw_segment_name(name, (int64_t)atomic_load(&bw_ring_at(slot, seq)->base_offset), ".log");
    return bw_fail(BW_ERR_NOT_FOUND, "segment %s is not in its folder", name);
}

bw_err bw_window_open_base(bw_window *w, int dir_fd, int64_t base_offset, bw_window_mode mode)
{
    bw_window_close(w);
    char name[BW_SEGMENT_NAME_MAX];
    bw_segment_name(name, base_offset, ".log");
    int fd = bw_os_open_beneath(dir_fd, name, flags_of(mode), 0);
    if (fd < 0) return bw_fail_errno(errno, "cannot open segment %s", name);
    struct stat st;
    if (bw_os_fstat(fd, &st) < 0) {
        int saved = errno;
        bw_os_close(fd);
        return bw_fail_errno(saved, "cannot stat segment %s", name);
    }
    if (st.st_size > (off_t)BW_POSITION_MAX) {
        bw_os_close(fd);
        return bw_fail(BW_ERR_UNSUPPORTED, "segment %s has %lld bytes; at most %u are supported", name, (long long)st.st_size,
                       BW_POSITION_MAX);
    }
    w->base_offset = base_offset;
    w->inode = (uint64_t)st.st_ino;
    return window_fill(w, fd, (uint32_t)st.st_size, mode, name);
}

void bw_window_calm(bw_window *w)
{
    w->chunk = 0;
    w->chunk_at_ns = 0;
    if (w->calm || !w->map) return;
    w->calm = true;
    bw_os_madvise(w->map, w->map_bytes, MADV_RANDOM);
}

/* A reader far behind the writer: its pages are on the disk only. They are asked for ahead, without waiting, up to `end`. */
static void advise_ahead(bw_window *w, uint32_t at, uint32_t end)
{
    if (w->advised < at) w->advised = at;
    uint64_t upto = (uint64_t)at + DISK_AHEAD;
    if (upto > end) upto = end;
    if (upto < end && upto < w->advised + (uint64_t)DISK_AHEAD / 4) return;
    for (uint64_t from = w->advised & ~(uint64_t)(CHUNK_MIN - 1); from < upto; from += ADVICE_PIECE)
        bw_os_madvise(w->map + from, upto - from < ADVICE_PIECE ? (size_t)(upto - from) : ADVICE_PIECE, MADV_WILLNEED);
    w->advised = (uint32_t)upto;
}

int bw_window_populate(bw_window *w, uint32_t from, uint32_t need, uint32_t allocated, bool for_write)
{
    if (need <= w->populated) return 0;
    int64_t now = bw_clock_mono_ns();
    if (w->chunk_at_ns && now - w->chunk_at_ns < FAST_NS) {
        if (w->chunk < CHUNK_MAX) w->chunk *= 2;
    } else if (w->chunk > CHUNK_MIN) {
        w->chunk /= 2;
    } else {
        w->chunk = CHUNK_MIN;
    }
    w->chunk_at_ns = now;
    if (w->from_disk && w->chunk > DISK_CHUNK) w->chunk = DISK_CHUNK;
    uint32_t start = w->populated > from ? w->populated : from;
    uint64_t to = ((uint64_t)start + w->chunk) / w->chunk * w->chunk; /* ends on a chunk, where large folios end too */
    if (to < need) to = need;
    if (to > allocated) to = allocated;
    if (to <= start) return 0;
    if (w->from_disk) advise_ahead(w, start, allocated);
#ifdef MADV_HUGEPAGE
    if (for_write && w->chunk == CHUNK_MAX && !w->large_folios) { /* advice only: refused, the pages are small */
        w->large_folios = true;
        if (w->calm) bw_os_madvise(w->map, w->map_bytes, MADV_NORMAL);
        w->calm = false;
        bw_os_madvise(w->map, w->map_bytes, MADV_HUGEPAGE);
    }
#endif
    int e = bw_os_populate(w->map + start, (size_t)(to - start), for_write);
    if (e == 0) w->populated = (uint32_t)to;
    if (!for_write && w->from_disk) w->from_disk = to < allocated || w->seq == 0;
    else if (!for_write) w->from_disk = bw_clock_mono_ns() - now > DISK_NS;
    return e;
}
