/* base/bell.c: a futex word that rings an eventfd, by io_uring. See bell.h.
 *
 * `hangs`: wait number `serial` is queued in the kernel, or its end has not been taken from the ring. A wait that was woken is work for the
 * ring's own thread, which the kernel tells by IORING_SQ_TASKRUN and by the eventfd; bw_os_ring_enter does it, and puts the end into the
 * ring. That would ring the eventfd again, so it is muffled meanwhile (IORING_CQ_EVENTFD_DISABLED); what was woken then is found by looking
 * at the ring once more. */
#include "base/bell.h"

#include "base/os.h"

#include <errno.h>
#include <linux/io_uring.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { OP_FUTEX_WAIT = 51, FUTEX_32_BITS = 2, ENTRIES = 1 }; /* in Linux since 6.7, in Debian 12's headers not yet */

struct bw_bell {
    int fd;
    bool enabled; /* bound to a thread */
    bool hangs;
    uint64_t serial;
    uint8_t *rings;
    size_t rings_len;
    struct io_uring_sqe *entries;
    size_t entries_len;
    struct io_uring_params at;
};

static _Atomic uint32_t *word_at(const bw_bell *b, uint32_t offset) { return (_Atomic uint32_t *)(void *)(b->rings + offset); }

static bool map_rings(bw_bell *b)
{
    size_t sq = b->at.sq_off.array + b->at.sq_entries * sizeof(uint32_t);
    size_t cq = b->at.cq_off.cqes + b->at.cq_entries * sizeof(struct io_uring_cqe);
    b->rings_len = sq > cq ? sq : cq;
    b->entries_len = b->at.sq_entries * sizeof(struct io_uring_sqe);
    void *rings = bw_os_mmap(NULL, b->rings_len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, b->fd, IORING_OFF_SQ_RING);
    if (rings == MAP_FAILED) return false;
    b->rings = rings;
    void *entries = bw_os_mmap(NULL, b->entries_len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, b->fd, IORING_OFF_SQES);
    if (entries == MAP_FAILED) return false;
    b->entries = entries;
    return true;
}

bw_bell *bw_bell_open(int event_fd)
{
    bw_bell *b = calloc(1, sizeof *b);
    if (!b) return NULL;
    b->at.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_R_DISABLED;
    b->fd = bw_os_ring_setup(ENTRIES, &b->at);
    bool good = b->fd >= 0 && bw_os_ring_knows(b->fd, OP_FUTEX_WAIT);
    if (good && !(b->at.features & IORING_FEAT_SINGLE_MMAP)) {
        errno = ENOSYS;
        good = false;
    }
    good = good && map_rings(b) && bw_os_ring_register(b->fd, IORING_REGISTER_EVENTFD, &event_fd, 1) == 0;
    if (good) return b;
    int why = errno;
    bw_bell_close(b);
    errno = why;
    return NULL;
}

/* Something ended: as work that waits for this thread, or already in the ring. */
static bool has_ended(const bw_bell *b)
{
    return (atomic_load_explicit(word_at(b, b->at.sq_off.flags), memory_order_acquire) & IORING_SQ_TASKRUN) ||
           atomic_load_explicit(word_at(b, b->at.cq_off.head), memory_order_relaxed) !=
               atomic_load_explicit(word_at(b, b->at.cq_off.tail), memory_order_acquire);
}

static void put(bw_bell *b, const _Atomic uint32_t *word, uint32_t expected)
{
    _Atomic uint32_t *tail = word_at(b, b->at.sq_off.tail);
    uint32_t at = atomic_load_explicit(tail, memory_order_relaxed), mask = b->at.sq_entries - 1;
    struct io_uring_sqe *e = &b->entries[at & mask];
    memset(e, 0, sizeof *e);
    e->opcode = OP_FUTEX_WAIT;
    e->fd = FUTEX_32_BITS; /* its flags, shared between processes */
    e->addr = (uint64_t)(uintptr_t)word;
    e->addr2 = expected;
    e->addr3 = UINT32_MAX; /* any waker's mask */
    e->user_data = ++b->serial;
    atomic_store_explicit(word_at(b, b->at.sq_off.array + (at & mask) * (uint32_t)sizeof(uint32_t)), at & mask, memory_order_relaxed);
    atomic_store_explicit(tail, at + 1, memory_order_release);
}

/* Takes the ends from the ring; how the newest wait ended, if it did: 0, or an errno. */
static int take(bw_bell *b)
{
    _Atomic uint32_t *head = word_at(b, b->at.cq_off.head);
    uint32_t at = atomic_load_explicit(head, memory_order_relaxed), mask = b->at.cq_entries - 1;
    uint32_t tail = atomic_load_explicit(word_at(b, b->at.cq_off.tail), memory_order_acquire);
    const struct io_uring_cqe *ends = (const struct io_uring_cqe *)(const void *)(b->rings + b->at.cq_off.cqes);
    int how = 0;
    for (; at != tail; at++) {
        if (ends[at & mask].user_data != b->serial) continue;
        b->hangs = false;
        how = -ends[at & mask].res;
    }
    atomic_store_explicit(head, at, memory_order_release);
    return how;
}

/* Into the kernel with the eventfd muffled: hand over so many entries, have ended waits put into the ring. */
static int enter(bw_bell *b, unsigned count)
{
    _Atomic uint32_t *flags = word_at(b, b->at.cq_off.flags);
    atomic_store_explicit(flags, IORING_CQ_EVENTFD_DISABLED, memory_order_relaxed);
    int why = bw_os_ring_enter(b->fd, count, IORING_ENTER_GETEVENTS) < 0 ? errno : 0;
    atomic_store_explicit(flags, 0, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst); /* with the kernel's: either it rings, or has_ended sees it */
    return why;
}

int bw_bell_hang(bw_bell *b, const _Atomic uint32_t *word, uint32_t expected)
{
    if (b->hangs && !has_ended(b)) return 0;
    if (!b->enabled && bw_os_ring_register(b->fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0)) return errno;
    b->enabled = true;
    put(b, word, expected);
    int why = enter(b, 1);
    if (why) {
        _Atomic uint32_t *tail = word_at(b, b->at.sq_off.tail);
        uint32_t taken = atomic_load_explicit(word_at(b, b->at.sq_off.head), memory_order_acquire);
        atomic_store_explicit(tail, taken, memory_order_release); /* what was not taken is not there */
        return why;
    }
    b->hangs = true;
    why = take(b);
    if (b->hangs && has_ended(b)) {
        int e = enter(b, 0);
        if (e) return e;
        why = take(b);
    }
    return b->hangs ? 0 : why ? why : EAGAIN;
}

void bw_bell_close(bw_bell *b)
{
    if (!b) return;
    if (b->entries) bw_os_munmap(b->entries, b->entries_len);
    if (b->rings) bw_os_munmap(b->rings, b->rings_len);
    bw_os_close(b->fd);
    free(b);
}
