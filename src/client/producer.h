/* client/producer.h: the producer inside.
 *
 * A producer knows topics (bw_ptopic) and their partitions (bw_ppart), made at first use and kept until it closes, so that the hot
 * path finds them without a lock. A partition is *direct* (it owns an appender) or goes through the daemon (it owns a queue of
 * batches with sequence numbers).
 *
 * Locks, in this order: ptopic.lock (attach, refresh) < ppart.lock (the appender) < ppart.queue_lock (batches waiting or in flight)
 * < producer.mutex (topic list, pool, deliveries, active list, waiting senders) < conn.mutex. ppart.lock is held across appends,
 * which wait; queue_lock and mutex are never held across anything that waits. */
#ifndef BW_CLIENT_PRODUCER_H
#define BW_CLIENT_PRODUCER_H

#include "client/bus.h"
#include "format/record_batch.h"
#include "log/append.h"

#include <busway/producer.h>

typedef struct bw_ptopic bw_ptopic;
typedef struct bw_ppart bw_ppart;
typedef struct bw_ptxn bw_ptxn; /* transaction.h */

enum {
    BW_IN_FLIGHT_MAX = 5,             /* batches of one partition; the daemon remembers as many */
    BW_APPENDER_WINDOWS_MAX = 1024,   /* of a producer; beyond that those not used lately are given back */
    BW_APPEND_SLICE_MS = 100,         /* of an append that waits, before the way is looked at again */
    BW_RETRY_BACKOFF_MS = 50,
    BW_ATTEMPTS_MAX = 10,             /* of a batch that is refused for its sequence */
};
#define BW_PLAIN_BATCH_MAX (64u << 20) /* bytes of a batch before compression */

typedef enum bw_pbatch_state {
    BW_PBATCH_WAITING = 0, /* not sent, or to be sent again */
    BW_PBATCH_IN_FLIGHT = 1,
    BW_PBATCH_DURABLE = 2, /* direct: appended, waits for the disk */
    BW_PBATCH_DONE = 3,
} bw_pbatch_state;

/* One record of an asynchronous batch. */
typedef struct bw_pentry {
    bw_delivery_fn callback;
    void *opaque;
    int64_t timestamp_ms;
} bw_pentry;

/* One batch from its first record to its last callback. Owned by: the ppart's lists (queue_lock), then the delivery list (mutex);
 * a synchronous one by its caller's frame between. */
typedef struct bw_pbatch {
    struct bw_pbatch *next;
    bw_ppart *part;
    bw_batch_builder builder;
    uint8_t *data; /* the encoded batch: in the builder, or `owned` */
    size_t len;
    uint8_t *owned;
    int32_t count;
    int64_t max_timestamp;
    bw_deadline send_at, expires; /* linger; delivery.timeout.ms */
    bw_pbatch_state state;
    bool sync, abandoned; /* abandoned: its synchronous caller has gone; the outcome interests nobody */
    bool in_doubt;        /* was in flight when the connection went: keeps its sequence */
    bool acked_early;     /* acks none: the caller was told already */
    bool wants_callback;
    int32_t attempts;
    int64_t producer_id;
    int16_t producer_epoch;
    int32_t sequence;
    bw_pending pending;
    _Atomic bool finished; /* sync: set last */
    bw_err error;
    char *message;
    int64_t base_offset, timestamp_ms;
    bw_position end; /* direct, durable */
    uint64_t memory; /* counted in producer.memory: records until acknowledged, entries until called back */
    bw_pentry *entries;
    int32_t entry_cap;
} bw_pbatch;

/* One thread's way into a partition past its lock (base/bias.h); made at the first time and kept until the producer closes. */
typedef struct bw_pseat {
    struct bw_pseat *next;
    uintptr_t thread; /* pthread_self() */
    uint64_t id;      /* what ppart.seat_word is while it holds */
    _Atomic uint32_t busy;
} bw_pseat;

/* A reservation that is out. */
typedef struct bw_held {
    bw_ppart *part;
    bw_record meta; /* leads into `copy` */
    size_t value_max;
    bool direct;
    bool any; /* the partition was chosen by stickiness */
    bw_pseat *seat;         /* this thread is inside by it; NULL: it holds part->lock (direct) */
    bw_append_place at;     /* with a seat */
    uint8_t *place; /* of the batch */
    uint8_t *buffer; /* when not direct; malloc'd */
    void *copy; /* malloc'd, or NULL */
} bw_held;

struct bw_ppart {
    bw_ptopic *topic;
    bw_producer *producer;
    int32_t partition;
    _Atomic bool direct;
    _Atomic uint32_t way; /* the topic's, when its own was opened */

    pthread_mutex_t lock; /* the appender, the builder, the reservation; monotonic clock */
    bw_attach *attach;
    bw_appender *appender;
    bw_tail_slot *slot;
    bw_batch_builder builder, in_place; /* in_place: over the log itself */
    bw_held *held; /* a reservation is out */
    bw_held quick; /* its room, when it was made by a seat */
    _Atomic uint64_t seat_word;  /* 0, or the id of `seat`: its thread may pass without the lock. Changed under the lock */
    _Atomic(bw_pseat *) seat;
    bw_pseat *seats;
    uint64_t seats_given;
    uintptr_t last_thread; /* a guess whether a seat is worth it: who locked last, how often in a row */
    uint32_t streak, streak_wanted;
    bw_stamp_clock clock;
    uint64_t rested_at;   /* sent_batches when the windows were last looked through */
    _Atomic uint64_t sent_records, sent_bytes, sent_batches; /* direct; written under the lock, read by anyone */

    pthread_mutex_t queue_lock;
    bw_stamp_clock queue_clock;
    bw_pbatch *open;        /* asynchronous records gather here */
    bw_pbatch *ready, *ready_tail; /* asynchronous batches that are full, not encoded yet */
    bw_pbatch *head, *tail; /* through the daemon: sent in this order */
    bw_pbatch *durable_head, *durable_tail;
    uint32_t in_flight;
    int64_t producer_id; /* -1: none yet */
    int16_t producer_epoch;
    int32_t direct_sequence; /* under lock: of the next direct batch of a producer that has a name */
    int32_t next_sequence, acked_sequence; /* acked: the sequence behind the last acknowledged batch */
    bool resync;         /* a batch was refused: number the rest anew when nothing is in flight */
    _Atomic bool needs_id; /* take a new producer id when nothing is in flight or in doubt */
    bw_deadline retry_at;  /* 0: now */
    char why[256]; /* what the last attempt that is tried again came to; the thread's, "" for none */
    _Atomic bool attention; /* somebody who may wait should call bw_ppart_care */
    bw_buf frame;          /* a request being encoded */
    bool active;         /* in the producer's active list; under producer.mutex */
    bw_ppart *next_active;
};

struct bw_ptopic {
    bw_ptopic *next;
    bw_producer *producer;
    pthread_mutex_t lock;
    bw_attach *attach; /* NULL: through the daemon */
    _Atomic int32_t partitions, sticky;
    _Atomic int32_t codec; /* -1: the producer's */
    _Atomic uint32_t message_max;
    _Atomic bool log_append_time;
    _Atomic bool gone; /* deleted: the next use asks again */
    _Atomic bw_deadline look_again; /* a quota sent it through the socket: when to ask whether it still does; 0: none did */
    _Atomic uint32_t way;  /* raised when the direct path was got back */
    int64_t refreshed_ms;
    size_t name_len;
    char name[BW_TOPIC_NAME_MAX + 1];
    _Atomic(bw_ppart *) parts[];
};

struct bw_producer {
    bw_bus *bus;
    void *foreign; /* another backend's (backend.h): `last` stays NULL and nothing below counts but options and name */
    bw_producer *next; /* the bus's list */
    bw_producer_options options;
    char *name;
    bw_ptxn *txn; /* NULL: no transactional_id */
    _Atomic(bw_ptopic *) last;
    _Atomic bool closed;

    pthread_mutex_t mutex;
    pthread_cond_t changed; /* monotonic: deliveries came, memory was freed, nothing is outstanding */
    bw_ptopic *topics;
    bw_pbatch *pool;
    uint32_t pool_count;
    bw_pbatch *done_head, *done_tail; /* with callbacks to run */
    bw_ppart *active;
    uint32_t waiters;
    int event_fd; /* bw_producer_fd; -1: nobody asked. Under the mutex */
    _Atomic uint64_t memory;
    _Atomic uint64_t undelivered_memory; /* the part of it that a poll would free */
    _Atomic uint64_t outstanding; /* asynchronous batches without an outcome */
    _Atomic uint32_t flushing;
    _Atomic uint32_t windows; /* segments that the partitions' appenders have mapped */
    int64_t producer_id; /* for partitions that have none yet; -1 */
    int16_t producer_epoch;
};

/* ---- producer_topic.c ---- */
/* bw_producer_topic: find or make. The fast path is one load and a compare. */
bw_err bw_producer_topic(bw_producer *p, const char *topic, bw_deadline deadline, bw_ptopic **out);
bw_err bw_ptopic_part(bw_ptopic *t, int32_t partition, bw_deadline deadline, bw_ppart **out);
/* bw_ptopic_refresh: ask the daemon again. */
bw_err bw_ptopic_refresh(bw_ptopic *t, bool create, bw_deadline deadline);
/* bw_ppart_reopen: after FENCED, RETIRED, DELETED under ppart.lock: attach again, or turn to the socket. OK: try again (look at
 * `direct`). */
bw_err bw_ppart_reopen(bw_ppart *part, bw_err why, bw_deadline deadline);
/* bw_ppart_turn_back: through the socket because of a quota: ask now and then, and go back to the direct path when nothing is under way. */
void bw_ppart_turn_back(bw_ppart *part);
static inline bool bw_ppart_may_turn_back(bw_ppart *part)
{
    bw_ptopic *t = part->topic;
    return atomic_load_explicit(&t->look_again, memory_order_relaxed) != 0 ||
           atomic_load_explicit(&part->way, memory_order_relaxed) != atomic_load_explicit(&t->way, memory_order_relaxed);
}
void bw_ptopic_free(bw_ptopic *t);

/* ---- producer_append.c: the direct path ---- */
/* bw_ppart_append: append with retries; ppart.lock is held. first 0-deadline attempts cost no clock. timeout as in the API.
 * UNSUPPORTED with !part->direct: the partition has turned to the socket. */
bw_err bw_ppart_append(bw_ppart *part, const uint8_t *data, size_t len, int32_t count, int64_t max_timestamp, bw_deadline deadline,
                       bw_append_result *out);
/* bw_producer_take_name: the id of the producer's name, its epoch raised by this start; asked once. */
bw_err bw_producer_take_name(bw_producer *p, bw_deadline deadline);
/* bw_ppart_stamp: under ppart.lock: a producer with a name puts id, epoch and sequence into what it appends directly, so that its name can
 * be asked for (bw_producer_last_sequence). bw_ppart_stamped: it is in the log. */
static inline void bw_ppart_stamp(const bw_ppart *part, uint8_t *data, size_t len)
{
    const bw_producer *p = part->producer;
    if (__builtin_expect(p->name != NULL, 0)) bw_batch_set_producer(data, len, p->producer_id, p->producer_epoch, part->direct_sequence);
}
static inline void bw_ppart_stamped(bw_ppart *part, int32_t count)
{
    part->direct_sequence = (int32_t)(((uint32_t)part->direct_sequence + (uint32_t)count) & 0x7fffffffu);
}
/* bw_ppart_lock: ppart.lock within the deadline, and nobody inside by a seat; LOCK_HELD, BUSY (this thread's reservation).
 * Takes no clock when free. */
bw_err bw_ppart_lock(bw_ppart *part, bw_deadline deadline);
/* bw_ppart_offer_seat: under ppart.lock, after an append: a thread that has the partition for itself gets a seat. */
void bw_ppart_offer_seat(bw_ppart *part);
/* bw_ppart_sit: past the lock, when the seat is this thread's; until bw_bias_leave(&seat->busy). NULL: take the lock. */
static inline bw_pseat *bw_ppart_sit(bw_ppart *part)
{
    bw_pseat *seat = atomic_load_explicit(&part->seat, memory_order_acquire);
    if (!seat || seat->thread != (uintptr_t)pthread_self()) return NULL;
    if (atomic_load_explicit(&seat->busy, memory_order_relaxed) != 0) return NULL; /* inside already: a reservation is out */
    return bw_bias_enter(&part->seat_word, seat->id, &seat->busy) ? seat : NULL;
}
static inline void bw_ppart_count(bw_ppart *part, int32_t count, size_t len)
{
    atomic_store_explicit(&part->sent_records, atomic_load_explicit(&part->sent_records, memory_order_relaxed) + (uint64_t)count,
                          memory_order_relaxed);
    atomic_store_explicit(&part->sent_bytes, atomic_load_explicit(&part->sent_bytes, memory_order_relaxed) + len,
                          memory_order_relaxed);
    atomic_store_explicit(&part->sent_batches, atomic_load_explicit(&part->sent_batches, memory_order_relaxed) + 1,
                          memory_order_relaxed);
}
/* bw_direct_ask_durable: tell the coordinator that somebody waits for this to be on the disk. */
void bw_direct_ask_durable(bw_attach *a, int32_t partition, bw_position end);
/* bw_ppart_wait_durable: without part->lock, but with a reference of its own to the attachment, which it gives back. POISONED,
 * TIMED_OUT. */
bw_err bw_ppart_wait_durable(bw_ppart *part, bw_attach *a, bw_position end, bw_deadline deadline);
/* bw_ppart_retry: what to do about e of a direct call: OK: call again; else the error for the caller. */
bw_err bw_ppart_retry(bw_ppart *part, bw_err e, bw_deadline deadline);

/* ---- producer_batch.c ---- */
bw_pbatch *bw_pbatch_get(bw_producer *p, bw_ppart *part);
void bw_pbatch_put(bw_producer *p, bw_pbatch *b);
/* bw_pbatch_complete: the outcome of a batch that is in no list any more: frees memory, wakes, queues callbacks or sets finished.
 * message NULL: the text of e. No lock is held. */
void bw_pbatch_complete(bw_pbatch *b, bw_err e, int64_t base_offset, int64_t timestamp_ms, const char *message);
bw_err bw_pbatch_finish(bw_pbatch *b, bw_ptopic *t, int64_t now_ms);
void bw_producer_activate(bw_producer *p, bw_ppart *part);
bw_codec bw_ptopic_codec(const bw_ptopic *t);

/* ---- producer_fd.c ---- under the mutex: deliveries came, were taken; the end. */
void bw_producer_ring(bw_producer *p);
void bw_producer_unring(bw_producer *p);

/* ---- producer_ipc.c: the way through the daemon ---- */
/* bw_ppart_enqueue: put a finished batch at the end of the queue and send what may be sent. */
void bw_ppart_enqueue(bw_ppart *part, bw_pbatch *b);
/* bw_ppart_drive: send what may be sent now. Any thread, no lock held. */
void bw_ppart_drive(bw_ppart *part);
/* bw_ppart_care: what drive can't do since it waits: connect again, get a producer id. Bounded by the deadline. */
bw_err bw_ppart_care(bw_ppart *part, bw_deadline deadline);
/* bw_ppart_refuse: care ended with what no waiting mends (the thread's message says what): batches that wait, and were never sent, end so. */
void bw_ppart_refuse(bw_ppart *part, bw_err e);
/* bw_ppart_withdraw: everything of the queue out of it, nothing in flight any more; to be completed by the caller. */
bw_pbatch *bw_ppart_withdraw(bw_ppart *part);
/* bw_ppart_take_back: complete with e everything that has no outcome. false: some of it had been sent. (producer.c) */
bool bw_ppart_take_back(bw_ppart *part, bw_err e, const char *message);
/* bw_ppart_expire: complete the asynchronous batches whose time is over; the earliest end of the others. */
bw_deadline bw_ppart_expire(bw_ppart *part, bw_deadline now);
/* bw_ppart_send_wait: enqueue a synchronous batch and wait for its outcome. The batch is given back to the pool. */
bw_err bw_ppart_send_wait(bw_ppart *part, bw_pbatch *b, bw_deadline deadline, bw_delivery *out);

/* ---- producer_async.c ---- */
/* bw_producer_serve: one round of the library's thread; when to come again. */
bw_deadline bw_producer_serve(bw_producer *p, bw_deadline now);

bw_err bw_producer_check(bw_producer *p, const char *topic);
int32_t bw_producer_choose(bw_ptopic *t, int32_t partition, const bw_record *record);

#endif
