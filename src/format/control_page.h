/* format/control_page.h: the layout of the control data that processes share on tmpfs. Pure: no I/O.
 *
 * Files, in <runtime>/<generation>/ (or /dev/shm/busway-<uid>/<generation>/ when the runtime folder is not on tmpfs):
 *   <topic-uuid-hex>.tail  0640  header page, then one 512-byte tail slot a partition. Writers (the owner's uid) map it RW,
 *                                readers read-only. Everything that must be right lies here.
 *   <topic-uuid-hex>.wait  0660  header page, then one 512-byte wait slot a partition. HINTS ONLY: whoever may read may write it.
 *   mail                   0660  header page, then mailboxes of BW_MAILBOX_STRIDE bytes. HINTS ONLY.
 *   writers                0600  header page, then owner records, then bias records (log/owners.h): which writers live, and who is
 *                                inside a partition whose lock is biased to it. Must be right, as the tail slots.
 * The files are sparse with a fixed virtual size; slots are allocated (fallocate) by the coordinator before their number is
 * published in header.slots, so that touching a published slot cannot fault.
 *
 * Tail slot, native (little) endian:
 *   line 0   0 mutex[48]  48 holder_pid  52 holder_step  56 repair_pending  60 bus_number
 *   line 1  64 intent_end 72 intent_base 80 intent_count 84 last_appender 88 intent_old_ts 96 intent_new_ts 104 next_offset
 *          112 max_timestamp 120 bias                                                        under the lock
 *   line 2 128 tail 136 first_unstable                                                       what readers poll
 *   line 3-5 192 ring[6] of { seq u32, final_position u32, base_offset u64, inode u64, limit u32, pad }
 *   line 6 384 state 388 leader_epoch 392 fence 400 log_start 408 capacity 416 spare_seq 420 spare_bytes
 *          424 spare_inode 432 segment_max 436 message_max 440 spare_limit 444 flags            rare
 *   line 7 448 durable 456 durable_offset 464 sync_request 472 replicated (an offset) 480 state_word 488 capacity_request 496 prepared
 *          504 aborts
 * Lines are taken in pairs of 128 bytes by the processor's prefetcher: what only writers touch (0, 1), what readers poll (2; the
 * ring beside it is still) and what both look at (6, 7) are different pairs, and an append writes only one word of the second: the tail.
 * A *position* is one 64-bit word: segment sequence << 32 | byte position. The sequence starts at 1 and is never reused within a
 * generation; byte positions stay below 2 GiB (Kafka's index is int32). */
#ifndef BW_FORMAT_CONTROL_PAGE_H
#define BW_FORMAT_CONTROL_PAGE_H

#include "base/uuid.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define BW_CONTROL_MAGIC UINT64_C(0x314c5254434a5742) /* "BWJCTRL1" */
#define BW_CONTROL_LAYOUT 4u                          /* raised when any offset or mailbox below changes */
#define BW_CONTROL_HEADER_BYTES 65536u                /* the largest page size there is, so that slots are page-aligned */
#define BW_SLOT_BYTES 512u
#define BW_PARTITIONS_MAX 16384u  /* slots of one topic */
#define BW_BUS_PARTITIONS_MAX 131072u /* bits of a mailbox */
#define BW_MAILBOXES 1024u
#define BW_MAILBOX_COORDINATOR 0u /* the keeper: needs spare, capacity */
#define BW_MAILBOX_BROKER 1u      /* the daemon's own fetches */
#define BW_MAILBOX_SYNCER 2u      /* somebody waits for durable: sync_request was raised */
#define BW_RING 6u
#define BW_POSITION_MAX 0x7fffffffu

typedef uint64_t bw_position;
static inline bw_position bw_position_of(uint32_t seq, uint32_t pos) { return ((uint64_t)seq << 32) | pos; }
static inline uint32_t bw_position_seq(bw_position p) { return (uint32_t)(p >> 32); }
static inline uint32_t bw_position_pos(bw_position p) { return (uint32_t)p; }
/* bw_position_raise: *word becomes at least `to`: a target that several post (sync_request, capacity_request). */
static inline void bw_position_raise(_Atomic uint64_t *word, bw_position to)
{
    uint64_t now = atomic_load_explicit(word, memory_order_relaxed);
    while (now < to && !atomic_compare_exchange_weak_explicit(word, &now, to, memory_order_acq_rel, memory_order_relaxed)) {}
}

typedef struct bw_control_header {
    uint64_t magic;
    uint32_t layout;
    uint32_t mutex_size; /* sizeof(pthread_mutex_t) */
    uint32_t mutex_align;
    uint32_t word_size; /* sizeof(void *) */
    uint32_t page_size;
    uint32_t kind; /* bw_control_kind */
    uint8_t generation[16];
    bw_uuid topic_id;
    uint8_t boot_id[16];
    uint64_t pid_namespace;
    uint64_t owner_uid;
    _Atomic uint32_t slots; /* published slots (partitions), or mailboxes */
    _Atomic uint32_t retired; /* 1: control data was replaced or the topic deleted; attach again */
    char libc[32];            /* gnu_get_libc_version() of the maker */
    uint32_t asymmetric;      /* 1: whoever is about to sleep, or takes a bias away, calls membarrier(2), and publishers need no fence */
    uint32_t pad;
} bw_control_header;

typedef enum bw_control_kind { BW_CONTROL_TAIL = 1, BW_CONTROL_WAIT = 2, BW_CONTROL_MAIL = 3, BW_CONTROL_OWNERS = 4 } bw_control_kind;

typedef enum bw_slot_state {
    BW_SLOT_OPEN = 0,
    BW_SLOT_POISONED = 1, /* read-only: a sync failed */
    BW_SLOT_DELETED = 2,
    BW_SLOT_RETIRED = 3,
    BW_SLOT_UNOPENED = 4, /* nothing else in the slot but bus_number holds yet: the coordinator makes it from the files when it is asked */
} bw_slot_state;

enum {
    BW_SLOT_LOG_APPEND_TIME = 1u, /* flags: message.timestamp.type */
    BW_SLOT_NO_SPACE = 2u,        /* flags: the coordinator could not allocate; set and cleared by it, followed by a STATE wake */
    BW_SLOT_READ_REPLICATED = 4u, /* flags: read.limit=replicated: readers that are opened from now on see only what is replicated */
    BW_SLOT_READ_DURABLE = 8u,    /* flags: read.limit=durable */
    BW_SLOT_REPLICAS = 16u,       /* flags: replicas > 0: `replicated` is kept */
};

typedef struct bw_ring_entry {
    _Atomic uint32_t seq;
    _Atomic uint32_t final_position; /* 0 while active */
    _Atomic uint64_t base_offset;
    _Atomic uint64_t inode; /* 0: the file was replaced (log/compact.h): by name */
    _Atomic uint32_t limit; /* segment.bytes when it was made */
    uint32_t pad;
} bw_ring_entry;

typedef struct bw_tail_slot {
    /* line 0 */
    union { pthread_mutex_t mutex; uint8_t mutex_room[48]; };
    _Atomic uint32_t holder_pid; /* diagnostics only */
    _Atomic uint32_t holder_step;
    _Atomic uint32_t repair_pending; /* written under the lock */
    _Atomic uint32_t bus_number;     /* bit in every mailbox; set by the coordinator */
    /* line 1: under the lock (or inside the bias) */
    _Atomic uint64_t intent_end; /* position; 0: no append under way */
    _Atomic int64_t intent_base;
    _Atomic uint32_t intent_count;
    _Atomic uint32_t last_appender; /* who appended last: a guess whether the bias is worth it */
    _Atomic int64_t intent_old_ts;
    _Atomic int64_t intent_new_ts;
    _Atomic int64_t next_offset;
    _Atomic int64_t max_timestamp;
    _Atomic uint64_t bias; /* 0, or whom the lock is biased to (log/owners.h); changed under the mutex, and to 0 by its owner */
    /* line 2 */
    _Atomic uint64_t tail; /* P1, P2: the linearisation point of append and roll */
    _Atomic int64_t first_unstable; /* no open transaction has a record below it; INT64_MAX: none is open. To be loaded after the tail */
    uint8_t pad2[48];
    /* lines 3 to 5 */
    bw_ring_entry ring[BW_RING];
    /* line 6 */
    _Atomic uint32_t state; /* bw_slot_state */
    _Atomic uint32_t leader_epoch;
    _Atomic uint64_t fence; /* raised when writers must attach again (configuration, recovery) */
    _Atomic int64_t log_start;
    _Atomic uint64_t capacity; /* position: allocated bytes of the active segment */
    _Atomic uint32_t spare_seq; /* the spare is for this sequence; 0: none */
    _Atomic uint32_t spare_bytes;
    _Atomic uint64_t spare_inode;
    _Atomic uint32_t segment_max; /* segment.bytes */
    _Atomic uint32_t message_max; /* max.message.bytes */
    _Atomic uint32_t spare_limit;
    _Atomic uint32_t flags;
    /* line 7 */
    _Atomic uint64_t durable;
    _Atomic int64_t durable_offset;
    _Atomic uint64_t sync_request;
    _Atomic uint64_t replicated; /* offset: all below it is on as many peers as the topic asks for; never goes back while the control data
                                   lives; raised by the coordinator alone, followed by a STATE wake (log/partition_replicated.c) */
    _Atomic uint32_t state_word; /* raised and futex-woken by every bw_wake of class STATE: writers sleep on it */
    uint32_t pad4a;
    _Atomic uint64_t capacity_request; /* the furthest end that a waiting writer needs; past the segment's limit: a spare. Raised
                                          before the coordinator is notified; a hint, a stale one is harmless */
    _Atomic uint64_t prepared; /* position up to which a writer has populated pages: a hint, readers map them ahead of the tail */
    _Atomic uint64_t aborts; /* raised when an aborted transaction has its entry in the .txnindex, before first_unstable passes it */
} bw_tail_slot;

static_assert(sizeof(pthread_mutex_t) <= 48, "mutex does not fit its room");
static_assert(offsetof(bw_tail_slot, holder_pid) == 48, "layout");
static_assert(offsetof(bw_tail_slot, bus_number) == 60, "layout");
static_assert(offsetof(bw_tail_slot, intent_end) == 64, "layout");
static_assert(offsetof(bw_tail_slot, intent_new_ts) == 96, "layout");
static_assert(offsetof(bw_tail_slot, bias) == 120, "layout");
static_assert(offsetof(bw_tail_slot, tail) == 128, "layout");
static_assert(offsetof(bw_tail_slot, first_unstable) == 136, "layout");
static_assert(offsetof(bw_tail_slot, state) == 384, "layout");
static_assert(offsetof(bw_tail_slot, capacity) == 408, "layout");
static_assert(offsetof(bw_tail_slot, spare_inode) == 424, "layout");
static_assert(offsetof(bw_tail_slot, flags) == 444, "layout");
static_assert(offsetof(bw_tail_slot, durable) == 448, "layout");
static_assert(offsetof(bw_tail_slot, capacity_request) == 488, "layout");
static_assert(offsetof(bw_tail_slot, prepared) == 496, "layout");
static_assert(offsetof(bw_tail_slot, aborts) == 504, "layout");
static_assert(offsetof(bw_tail_slot, ring) == 192, "layout");
static_assert(sizeof(bw_ring_entry) == 32, "layout");
static_assert(sizeof(bw_tail_slot) == BW_SLOT_BYTES, "layout");

static inline bw_ring_entry *bw_ring_at(bw_tail_slot *s, uint32_t seq) { return &s->ring[seq % BW_RING]; }

/* What a sleeper waits for. */
typedef enum bw_wait_class { BW_WAIT_TAIL = 0, BW_WAIT_STATE = 1 /* durable, first_unstable, state, capacity */ } bw_wait_class;

typedef struct bw_wait_slot {
    struct {
        _Atomic uint64_t summary;                     /* bit i: interest[i] may be non-zero */
        _Atomic uint64_t interest[BW_MAILBOXES / 64]; /* bit: mailbox wants a wake */
    } cls[2];
    uint8_t pad[BW_SLOT_BYTES - 2 * (8 + BW_MAILBOXES / 8)];
} bw_wait_slot;
static_assert(sizeof(bw_wait_slot) == BW_SLOT_BYTES, "layout");

typedef struct bw_mailbox {
    _Atomic uint32_t word;  /* bit 0: asleep; counted in twos by wakers */
    _Atomic uint32_t poked; /* 1: another thread of the owner has work for it */
    uint8_t pad[56];
    _Atomic uint64_t l1[BW_BUS_PARTITIONS_MAX / 64 / 64]; /* bit j: l0[j] may be non-zero */
    uint8_t pad1[64 * 3];
    _Atomic uint64_t l0[BW_BUS_PARTITIONS_MAX / 64]; /* bit: that bus partition may be ready */
} bw_mailbox;
#define BW_MAILBOX_STRIDE 20480u

/* A thread that got a bias: it holds the mutex as long as it lives. */
typedef struct bw_owner_record {
    union { pthread_mutex_t alive; uint8_t alive_room[48]; };
    _Atomic uint32_t pid; /* for messages */
    uint8_t pad[12];
} bw_owner_record;
/* One appender's place to say that it is inside; two lines, so that neighbours don't meet in one prefetch. */
typedef struct bw_bias_record {
    _Atomic uint32_t busy;
    _Atomic uint32_t owner; /* 0: free; n: of owner record n - 1; BW_BIAS_DEAD */
    _Atomic uint64_t given; /* how often a bias was given by it: part of the id, so that no id is given twice */
    uint8_t pad[112];
} bw_bias_record;
#define BW_OWNERS 1024u
#define BW_BIASES 512u
#define BW_BIAS_DEAD UINT32_MAX
static_assert(sizeof(bw_owner_record) == 64 && sizeof(bw_bias_record) == 128, "layout");
static_assert(sizeof(bw_mailbox) <= BW_MAILBOX_STRIDE, "layout");

#endif
