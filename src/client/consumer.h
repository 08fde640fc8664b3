/* client/consumer.h: the consumer inside. One thread at a time; only `woken`, the mailbox's word and event_fd are touched by others.
 *
 * Where an assigned partition is:
 *   READY   in the ready ring: may have something; poll takes from there, round-robin
 *   IDLE    direct, drained, nobody was asked to wake us: looked at with one load each poll while there are few
 *   ARMED   direct, drained, the next append rings the mailbox
 *   REST    paused, stopped by an error, or read through the socket (its data arrive by themselves)
 * Sleep: by the mailbox's futex when all partitions are direct; by poll(2) on event_fd and the socket otherwise, with the watch
 * thread turning the mailbox into event_fd. An event loop sleeps on the same, with a bell instead of the watch where the kernel has it
 * (consumer_fd.c). */
#ifndef BW_CLIENT_CONSUMER_H
#define BW_CLIENT_CONSUMER_H

#include "base/bell.h"
#include "client/bus.h"
#include "client/watch.h"
#include "format/record_batch.h"
#include "log/read.h"
#include "log/wait.h"

#include <busway/consumer.h>
#define HASH_NONFATAL_OOM 1 /* the library never ends the program: an element that was not added has no table */
#include <uthash.h>

enum {
    BW_WINDOWS_MAX = 1024,    /* segments that a consumer has mapped at a time */
    BW_LOOK_MAX = 8,          /* so many idle partitions are looked at by loads; more are armed */
    BW_SLEEP_CAP_MS = 1000,
    BW_SLEEP_CAP_ALONE_MS = 100, /* without a daemon */
    BW_SPINS = 40,
};
#define BW_PLAIN_MAX (64u << 20)           /* a decompressed batch */
#define BW_FETCH_TOTAL (32u << 20)         /* credit of all subscriptions of a consumer together */
#define BW_FETCH_LEAST (64u << 10)

typedef enum bw_where { BW_AT_REST = 0, BW_AT_READY, BW_AT_IDLE, BW_AT_ARMED } bw_where;

typedef struct bw_cpart bw_cpart;
typedef struct bw_cgroup bw_cgroup;

/* One DATA frame that was not consumed yet: a reference into a receive buffer. */
typedef struct bw_item {
    struct bw_item *next;
    bw_rx *rx;
    uint32_t subscription;
    const uint8_t *data;
    size_t len, at;
    bw_err error;
    char *message;
} bw_item;

struct bw_cpart {
    bw_cpart *prev, *next; /* in the ready ring or the idle list */
    bw_cpart *next_part, **before; /* all of the consumer, in the order of assignment */
    bw_consumer *consumer;
    char topic[BW_TOPIC_NAME_MAX + 1];
    int32_t partition;
    bw_where where;
    bool direct, paused, stopped;
    bool has_window; /* its reader may have a segment mapped */
    int64_t looked_again; /* mode=ro: offset behind the corrupt batch that the files were looked at for; 0: none */
    int64_t position;
    int32_t leader_epoch; /* of the batch given last; -1: none since the last seek */
    /* groups */
    bool wanting;         /* not opened yet; from `position`, which may be BEGINNING or END */
    bw_err untold;        /* for the next poll: why it can't be read */
    char *trouble;        /* its message */
    int64_t committed;    /* the position that was committed last; -1: none */
    bw_uuid topic_id;     /* all zero: not known */
    /* direct */
    bw_attach *attach;
    bw_reader *reader;
    bw_reader_limit limit; /* by the topic's read.limit */
    bw_tail_slot *slot;
    uint32_t number;
    UT_hash_handle by_number;
    bw_watch_entry watch;
    bool watched;
    /* through the socket */
    uint32_t subscription; /* 0: none */
    UT_hash_handle by_subscription;
    uint64_t window, owed; /* credit granted at first; consumed and not granted again yet */
    bw_item *held, **held_tail; /* came while paused */
};

/* Another mailbox is asked for. state: bw_renewal_state; the rest is valid when it CAME. */
typedef enum bw_renewal_state { BW_RENEWAL_NONE = 0, BW_RENEWAL_ASKED = 1, BW_RENEWAL_CAME = 2 } bw_renewal_state;
typedef struct bw_renewal {
    bw_pending pending; /* first */
    _Atomic uint32_t state;
    uint32_t number, epoch;
} bw_renewal;

struct bw_consumer {
    bw_bus *bus;
    void *foreign; /* another backend's (backend.h): nothing below counts but options; `group` is not NULL, and nobody reads it */
    bw_consumer *next; /* the bus's list */
    bw_consumer_options options;
    bw_cgroup *group; /* NULL: none (consumer_group.h) */
    bw_cpart *parts, **parts_tail, *numbered, *subscribed;
    bw_cpart *ready;  /* ring: the next to be polled */
    bw_cpart *idle;   /* list */
    uint32_t direct_count, ipc_count, idle_count, armed_count;
    uint32_t windows; /* parts that have one */
    _Atomic uint32_t woken;
    int event_fd;
    bw_buf plain; /* the decompressed records of the present batch */
    /* direct: the mailbox */
    bw_env *env;
    uint32_t mailbox;
    bw_mailbox *_Atomic box; /* NULL: none; read by bw_consumer_wake */
    uint32_t seen_word;
    uint32_t mail_epoch; /* of the bus's connection when the mailbox was given */
    bw_renewal renewal;
    bool by_watch;       /* armed with the watch's mailbox */
    bw_inbox inbox;
    uint32_t empty_polls;
    bw_deadline next_audit;
    /* through the socket */
    bw_conn conn;
    bool has_conn;
    uint32_t conn_epoch;
    uint32_t next_subscription;
    bw_item *items, **items_tail, *giving, *spare;
    bw_err away;       /* why it could not connect again, when the daemon is there and does not want us: BW_OK: it is not that */
    char away_why[300];
    bw_deadline reconnect_at;
    bool turn_ipc; /* both kinds: take turns */
    /* an event loop's descriptor */
    int epoll_fd, timer_fd;
    uint32_t epoll_epoch; /* of the connection whose socket is in the set */
    int64_t timer_at_ms;  /* by the monotonic clock; 0: off */
    bw_bell *bell;        /* rings event_fd when the mailbox's word is woken; NULL: the watch does, or nobody waits on the direct path */
    bw_mailbox *bell_box; /* where it hangs; NULL: nowhere yet */
    uint32_t bell_moves;  /* how often another thread came to poll */
    _Atomic uint64_t records, bytes, batches, sleeps;
    _Atomic uint64_t looks; /* at a partition that had nothing (more), outside of the audit of each second */
};

/* ---- consumer.c ---- */
static inline void bw_consumer_count_look(bw_consumer *c)
{
    atomic_store_explicit(&c->looks, atomic_load_explicit(&c->looks, memory_order_relaxed) + 1, memory_order_relaxed);
}
void bw_cpart_make_ready(bw_cpart *p);
/* bw_cpart_rest: out of every list. */
void bw_cpart_rest(bw_cpart *p);
void bw_cpart_make_idle(bw_cpart *p);
/* bw_cpart_fail: an error of one partition for poll: batch names it; stops it until a seek when stop. */
bw_err bw_cpart_fail(bw_cpart *p, bw_err e, bool stop, bw_batch *batch);
/* bw_cpart_reset: the position is outside [log_start, end]: by auto_offset_reset a new position (OK), or the error. */
bw_err bw_cpart_reset(bw_cpart *p, int64_t log_start, int64_t end, int64_t *position);
/* bw_cpart_fill: a batch for the caller; decompresses. EMPTY: nothing for users in it (control, empty, before the position). */
bw_err bw_cpart_fill(bw_cpart *p, const uint8_t *data, const bw_batch_header *h, bw_batch *out);

/* ---- consumer_assign.c ---- */
/* bw_cpart_create: a partition of this consumer, last in its list, not opened. NULL: no memory. */
bw_cpart *bw_cpart_create(bw_consumer *c, const char *topic, int32_t partition);
/* bw_cpart_open: the direct path, or the socket with the reason noted. */
bw_err bw_cpart_open(bw_cpart *p, int64_t offset);
void bw_cpart_remove(bw_cpart *p);
bw_cpart *bw_consumer_find(const bw_consumer *c, const char *topic, int32_t partition);

/* ---- consumer_direct.c ---- */
bw_err bw_cpart_open_direct(bw_cpart *p, bw_deadline deadline);
void bw_cpart_close_direct(bw_cpart *p);
void bw_cpart_seek_direct(bw_cpart *p, int64_t offset);
bw_err bw_cpart_give_direct(bw_cpart *p, bw_batch *batch);
/* bw_consumer_look: has anything idle or armed become ready? Loads only while there are few. */
bool bw_consumer_look(bw_consumer *c);
/* bw_consumer_take_mail: who was notified is ready; true: somebody was. */
bool bw_consumer_take_mail(bw_consumer *c);
/* bw_consumer_arm: arm everything idle and look once more; true: something is ready. */
bool bw_consumer_arm(bw_consumer *c);
void bw_consumer_audit(bw_consumer *c);
/* bw_consumer_sleep_direct: sleep on the mailbox; OK: look again. */
void bw_consumer_sleep_direct(bw_consumer *c, bw_deadline deadline);
bw_err bw_consumer_use_watch(bw_consumer *c);
/* ---- consumer_mailbox.c ---- */
bw_err bw_consumer_take_mailbox(bw_consumer *c, bw_env *env);
void bw_consumer_drop_mailbox(bw_consumer *c);
/* bw_consumer_renew_mailbox: after the daemon came back, which does not know our mailbox and may give it to others: asks for another, and
 * takes it when it has come. Never waits. */
void bw_consumer_renew_mailbox(bw_consumer *c);

/* ---- consumer_ipc.c ---- */
bw_err bw_cpart_open_ipc(bw_cpart *p, int64_t offset, bw_deadline deadline);
void bw_cpart_close_ipc(bw_cpart *p);
/* bw_cpart_resume_ipc: what came while it was paused goes first. */
void bw_cpart_resume_ipc(bw_cpart *p);
/* bw_consumer_give_ipc: the next batch that has arrived; EMPTY. Reads the socket without waiting when nothing is queued. */
bw_err bw_consumer_give_ipc(bw_consumer *c, bw_batch *batch);
/* bw_consumer_release: the batch given last is not needed any more. */
void bw_consumer_release(bw_consumer *c);
/* bw_consumer_reconnect: and subscribe again from where we are. */
bw_err bw_consumer_reconnect(bw_consumer *c, bw_deadline deadline);
/* bw_consumer_ensure_conn: a connection of its own, not yet up. */
bw_err bw_consumer_ensure_conn(bw_consumer *c);
void bw_consumer_sleep_poll(bw_consumer *c, bw_deadline deadline);
void bw_consumer_close_ipc(bw_consumer *c);

/* ---- consumer_fd.c ---- */
/* bw_consumer_fd_update: the descriptor shows what was read meanwhile, and follows a new connection. */
void bw_consumer_fd_update(bw_consumer *c);
void bw_consumer_fd_close(bw_consumer *c);
/* bw_consumer_hear: wake-ups of the direct path ring the eventfd from now on, once bw_consumer_listen was called. */
bw_err bw_consumer_hear(bw_consumer *c);
/* bw_consumer_listen: arm everything idle, so that the descriptor shows what comes; true: something is ready, or may be: look again. */
bool bw_consumer_listen(bw_consumer *c);
void bw_consumer_ring(bw_consumer *c);
void bw_consumer_unring(bw_consumer *c);

#endif
