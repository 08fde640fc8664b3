/* broker/core.h: the broker's inside, shared by the files of this folder only.
 *
 * Threads
 *   broker thread   sleeps on BW_MAILBOX_BROKER and timers;
 *   socket thread   sleeps on the connections. These two take turns (transport/reactor.h); who has the turn owns sessions, requests,
 *                   subscriptions, appenders, readers, producer tables, the registry of topics: where this folder says "broker
 *                   thread" it means him. A turn never syncs data, never scans a log.
 *   keeper thread   space, rolls, indexes, retention of all partitions. Sleeps on BW_MAILBOX_COORDINATOR, at most 1 s.
 *   syncer thread   syncs. Sleeps on BW_MAILBOX_SYNCER, which clients mark themselves.
 *   opener thread   opens partitions, and lets them rest when too many files are open (that syncs too).
 *   points thread   recovery points to LMDB, so that no sync of data waits for LMDB's.
 *   committer       metadata for which clients wait, many in one transaction (committer.h); made when it is first needed.
 *   cleaner thread  made with the first compacted topic: compaction, one partition after the other.
 *   worker thread   made when it is first needed: long file work of single requests (deletes, searches by time, scans).
 *   any thread      puts events into `queue` and pokes the broker thread.
 * Between them: `parts` (which partitions there are) under parts_lock, with a count of users in each bw_part; events; atomics. */
#ifndef BW_BROKER_CORE_H
#define BW_BROKER_CORE_H

#include "broker/broker.h"
#include "broker/quota.h"
#include "broker/timer.h"
#include "log/datadir.h"
#include "log/partition.h"
#include "meta/store.h"
#include "transport/reactor.h"

#include <pthread.h>

#define HASH_NONFATAL_OOM 1
#define uthash_nonfatal_oom(t) ((t)->not_hashed = true)
#include <uthash.h>

#define BW_TICK_MS 1000
#define BW_PART_READERS (2 * BW_LIMIT_COUNT) /* by limit; uncommitted, committed */

typedef struct bw_topic bw_topic;
typedef struct bw_part bw_part;
typedef struct bw_producers bw_producers;
typedef struct bw_sub bw_sub;
typedef struct bw_produce bw_produce;
typedef struct bw_fetch bw_fetch;
typedef struct bw_fetch_link bw_fetch_link;
typedef struct bw_job bw_job;
typedef struct bw_attachment bw_attachment;
typedef struct bw_committer bw_committer;
typedef struct bw_offsets bw_offsets;
struct bw_queues;
struct bw_queue_part;
struct bw_queue_member;
struct bw_queue_death;
struct bw_tap;
struct bw_merge;
struct bw_linking;
struct bw_mirror;
struct bw_links_ops;
typedef struct bw_txns bw_txns;
typedef struct bw_groups bw_groups;

/* ---- what is asked ---- */

/* One request on its way. Held by the broker until it was answered and its memory is not used any more. */
typedef struct bw_op {
    bw_session *session; /* counted */
    bw_request request;
    void *token;
    struct bw_op *next; /* while it waits at a part, or for a quota */
    int64_t held_ns;    /* since when a quota holds it */
    int32_t throttle_ms; /* how long one did */
} bw_op;

typedef enum bw_event_kind { BW_EVENT_OPENED, BW_EVENT_REQUEST, BW_EVENT_WRITABLE, BW_EVENT_CLOSED,
                             BW_EVENT_JOB_DONE, BW_EVENT_PART_OPENED, BW_EVENT_COMMITTED } bw_event_kind;

typedef struct bw_event {
    struct bw_event *next;
    bw_event_kind kind;
    bw_session *session;
    bw_op *op;
    bw_job *job;
    bw_part *part;
    struct bw_commit *commit; /* the first of a transaction, its outcome in `why` */
} bw_event;

/* Of a session: quota_admit.h. */
typedef struct bw_throttle {
    uint64_t generation; /* of the quotas that the buckets are from; 0: none */
    bw_quota_bucket *buckets[BW_QUOTA_KINDS];
    bw_op *held[2], *held_last[2]; /* PRODUCE, others */
    uint32_t held_count;
    int32_t told_ms; /* for the next that is sent */
    bw_timer timer;
    int64_t muted_ns; /* since when nothing is sent to it; 0: it is not muted */
    uint64_t throttled_ms; /* in all */
} bw_throttle;

struct bw_session {
    bw_broker *broker;
    const bw_session_ops *ops;
    void *listener;
    bw_peer peer;
    bw_role role;
    uint64_t number;
    int64_t since_wall_ms;
    bool closed;
    uint32_t refs; /* broker thread: ops and jobs under way, and 1 while it is open */
    _Atomic bool writable_queued;
    char client_id[64];
    char transport[16], reason[160]; /* the last REPORT */
    bw_sub *subs;
    bw_fetch *fetches;
    bw_attachment *attached;
    struct bw_queue_member *workers; /* in queue groups */
    struct bw_linking *linking;      /* links.h; NULL: it is no link's */
    uint64_t mailboxes[BW_MAILBOXES / 64]; /* bit: this session's */
    int pid_fd;
    bool proving;   /* a password of it is being compared: one at a time */
    char user[64];  /* who it has proved to be, remotely; "" */
    bool in_groups; /* it is, or was, some member's connection */
    uint32_t parked; /* its requests that wait at a part */
    bool over_limit; /* one connection too many: everything is refused */
    bw_throttle throttle;
    uint64_t requests, produced_bytes, sent_bytes;
    bw_event open_event, close_event, writable_event; /* so that these never need memory */
    struct bw_session *prev, *next;
};

/* ---- what there is ---- */

typedef enum bw_part_stage { BW_PART_UNOPENED = 0, BW_PART_OPEN = 1, BW_PART_FAILED = 2 /* why says why */ } bw_part_stage;

/* The last compaction of a partition. */
typedef struct bw_cleaned {
    int64_t at_ms, took_ms; /* wall clock, when it ended */
    double dirty_ratio;     /* before */
    int64_t upto;
    uint64_t bytes_before, bytes_after, records_before, records_after, runs;
} bw_cleaned;

struct bw_part {
    bw_topic *topic;
    uint32_t index;
    uint32_t bus_number;
    _Atomic uint32_t users; /* the table's, the keeper's rounds, jobs */
    _Atomic uint32_t stage;    /* leaves UNOPENED once; log and why are set before */
    _Atomic(bw_partition *) log; /* NULL: not open */
    char *why;
    bw_partition_history history; /* set before stage */
    bool fresh, just_created;  /* how it is to be opened: from the files, not from the slot; made by this process */
    bool open_queued;          /* under opener_lock, as open_next */
    bw_part *open_next;
    _Atomic bool ops_wait;
    bw_event opened_event;
    _Atomic int64_t used_ms;   /* monotonic: when the keeper last saw it in use */
    bw_position seen_tail;     /* keeper */
    /* broker thread */
    bw_op *waiting, *waiting_last; /* requests that came while it was not open */
    bw_appender *appender;
    bw_reader *readers[BW_PART_READERS]; /* by isolation and read limit, for FETCH */
    int64_t reader_used_ms[BW_PART_READERS];
    bw_produce *gathered, *gathered_last; /* came in this turn, not tried yet */
    bw_part *gathering_next;
    bw_produce *parked, *parked_last; /* wait for space, for the lock or for the producer table; in order */
    bw_timer retry;
    bw_produce *undurable, *undurable_last; /* appended; wait for durable; ends ascend */
    bw_produce *unreplicated, *unreplicated_last; /* appended; wait for the peers; offsets ascend */
    struct bw_replica *replicas; /* what peers have acknowledged: replica.c */
    struct bw_replica_wait *replica_waits; /* peers who wait until it is durable here */
    int64_t replicated_there;              /* mirrors: what the origin says that enough peers have */
    bw_fetch_link *fetches;
    bw_sub *subs;
    struct bw_offset_target *offsets; /* what is committed; NULL: nothing, or not looked for yet */
    struct bw_hold *holds;            /* commits that wait for durable */
    struct bw_queue_part *queues;  /* of the groups that hand out its records */
    struct bw_queue_death *deaths; /* dead letters appended to it that are not durable */
    struct bw_tap *taps;             /* streams of links that read it */
    struct bw_merge *merge;          /* links.h; NULL: no link has appended to it */
    int64_t copied_upto;             /* mirrors: what is below, of the origin, is here, or was left out */
    bw_producers *producers; /* NULL: not read from the log yet */
    bool producers_loading;
    bool txn_waits;            /* the end of a transaction waits for it (txn.h) */
    bool txn_look;             /* its open transactions are to be looked through */
    bool armed, in_again, in_unarmed;
    bool has_io;               /* its appender and readers may have files open */
    bw_part *again_next, *unarmed_next;
    uint64_t in_batches, in_bytes, out_bytes;
    /* keeper and syncer */
    _Atomic int64_t synced_ms;  /* when it was last seen with nothing unsynced */
    _Atomic bool sync_due;      /* the coordinator wants a sync although nobody may have asked */
    bool cleaning_failed;       /* cleaner: and it was logged */
    bw_cleaned *cleaned;        /* under cleaner_lock; NULL: never */
    _Atomic bool folder_due;    /* its folder is to be synced: bw_partition_sync_folder */
    _Atomic bool failing;       /* its last tending failed and was logged */
};

struct bw_topic {
    char name[BW_TOPIC_NAME_MAX + 1];
    bw_uuid id;
    int64_t created_ms;
    bw_topic_config config;
    bw_meta_config *overrides;
    size_t override_count;
    bw_control *control;
    bw_part **parts;
    uint32_t part_count;   /* opened */
    uint32_t wanted_parts; /* as stored, while starting */
    struct bw_mirror *mirror; /* links.h; NULL: it is none */
    struct bw_lead *lead;     /* replica.h; NULL: it was never promoted here */
    bool deleting;
    bool not_hashed; /* no memory to register it */
    UT_hash_handle by_name, by_id;
};

/* Long file work of one request. run: worker thread. done: broker thread; frees the job. */
struct bw_job {
    bw_job *next;
    void (*run)(bw_broker *b, bw_job *job);
    void (*done)(bw_broker *b, bw_job *job);
    bw_op *op; /* may be NULL */
    bw_part *part;
    bw_topic *topic;
    bw_err error;
    char message[512];
    int64_t in, out[2];
    void *data;
    bw_event event;
};

struct bw_broker {
    struct bw_user *users; /* users.h */
    uint32_t user_count;
    struct bw_auth *auth; /* NULL: no thread yet */
    bw_daemon_config config;
    int64_t started_mono_ms, started_wall_ms;
    uint64_t uid;
    int64_t socket_gid; /* -1: none */
    bw_datadir *dir;
    bw_store *store;
    bw_fork_guard guard;
    /* control data; broker thread after start */
    bool ready;          /* control data is there: data can be written and read */
    bool fresh;          /* it was made anew by this start */
    bool registry_loaded;
    char not_ready[1024]; /* why not */
    char no_direct[512];  /* why nobody may use the direct path; empty: it is there */
    char arena_path[4096];
    int arena_fd;
    bw_mail *mail;
    /* events */
    pthread_mutex_t queue_lock; /* queue, and mail while it is set */
    pthread_cond_t queue_cond;  /* while there is no mail */
    bw_event *queue, *queue_last;
    _Atomic bool stopping;
    pthread_t broker_thread, socket_thread, keeper_thread, syncer_thread, points_thread, worker_thread;
    bool broker_running, socket_running, keeper_running, worker_running;
    bw_reactor *reactor;
    bw_deadline rest_until; /* the broker thread sleeps until then; within a turn */
    /* broker thread */
    bw_topic *topics_by_name, *topics_by_id;
    bw_session *sessions;
    bw_quotas *quotas;
    uint64_t session_count, next_session;
    bw_timers timers;
    bw_part *again;   /* to be served once more before sleeping */
    bw_part *gathering; /* with batches that came in this turn */
    bw_part *unarmed; /* something waits, but no wake was asked for yet */
    bw_timer bring_up;
    bw_timer tick;
    bw_buf payload, scratch, doc;
    uint32_t io_parts;  /* parts that have_io */
    uint8_t mailbox_state[BW_MAILBOXES];
    int64_t mailbox_free_at_ms[BW_MAILBOXES];
    bw_attachment *lost; /* writers whose connection ended, maybe still alive */
    _Atomic int64_t idle_since_ms; /* 0: there is a session */
    /* parts_lock */
    pthread_mutex_t parts_lock;
    bw_part **parts; /* by bus number */
    uint32_t parts_cap, parts_count;
    uint32_t parts_full; /* no free number below */
    uint32_t open_cursor; /* of the opener's background round */
    uint32_t bus_floor; /* numbers below belong to control data that was taken over */
    /* worker */
    pthread_mutex_t job_lock;
    pthread_cond_t job_cond;
    bw_job *jobs, *jobs_last;
    bool worker_stop;
    bw_txns *txns;           /* broker thread; NULL: no transaction yet */
    bw_committer *committer; /* broker thread; NULL: nothing was committed yet */
    bw_offsets *offsets;     /* offsets.h */
    bw_groups *groups;       /* groups.h; NULL: not restored yet */
    /* of the cleaner */
    pthread_t cleaner_thread;
    pthread_mutex_t cleaner_lock;
    pthread_cond_t cleaner_cond;
    bool cleaner_running, cleaner_stop, cleaner_hurry;
    const struct bw_links_ops *links; /* broker thread; of src/link */
    void *links_opaque;
    uint64_t incarnation;             /* of the data directory: links.h */
    bool incarnation_untold;          /* and not on the disk */
    struct bw_queues *queues; /* broker thread; NULL: no queue group was asked for yet */
    /* of the opener */
    pthread_t opener_thread;
    pthread_mutex_t opener_lock;
    pthread_cond_t opener_cond;
    bw_part *open_first, *open_last;
    bool opener_running, opener_stop, open_more;
    _Atomic bool rest_due;
    bw_open_files open_files;
    uint32_t rest_above, rest_to; /* open files */
    bool draining; /* after the broker thread's end */
    /* of the points thread */
    pthread_mutex_t points_lock;
    pthread_cond_t points_cond;
    bool points_due, folders_due, points_stop;
    /* keeper; read by others */
    _Atomic bool keeper_stopping, syncer_stopping, points_moved;
    _Atomic bool low_space;
    _Atomic int64_t free_bytes, reserve_bytes;
    bw_dirty_budget dirty; /* most: set at start; 0: no limit */
    int64_t clock_ahead_ms; /* since bring-up */
    _Atomic uint64_t syncs, keeper_rounds;
};

/* events.c */
void bw_broker_event(bw_broker *b, bw_log_level level, const char *event, const char *format, ...) BW_PRINTF(4, 5);

/* loop.c */
void bw_broker_push(bw_broker *b, bw_event *e);
void *bw_broker_thread_main(void *broker);
void *bw_broker_socket_main(void *broker);
void bw_broker_wake(bw_broker *b); /* the broker thread takes a turn; any thread */
void bw_broker_again(bw_broker *b, bw_part *p); /* serve it again before sleeping */
void bw_broker_forget(bw_broker *b, bw_part *p);
void bw_broker_tick_on(bw_broker *b);
void bw_broker_on_tick(void *broker, bw_timer *timer);
void bw_part_serve(bw_broker *b, bw_part *p); /* everything that waits on it */

/* session.c */
void bw_session_ref(bw_session *s);
void bw_session_unref(bw_session *s);
void bw_session_dispatch(bw_broker *b, bw_event *e);
void bw_session_writable(bw_broker *b, bw_session *s);
/* bw_op_reply: send; a->type, correlation are the op's. Nothing when the session is closed. */
void bw_op_reply(bw_op *op, bw_answer *a);
/* bw_op_finish: reply (a may be NULL) and let go of the op's memory. */
void bw_op_finish(bw_op *op, bw_answer *a);
/* bw_op_fail: finish with a code and the thread's message. */
void bw_op_fail(bw_op *op, bw_err e);
void bw_op_ok(bw_op *op);

/* admin.c */
bw_role bw_broker_role_of(bw_broker *b, const bw_peer *peer);
void bw_broker_handle(bw_broker *b, bw_op *op);
void bw_broker_handle_admitted(bw_broker *b, bw_op *op); /* no quota holds it */

/* admin_topics.c */
void bw_handle_create_topic(bw_broker *b, bw_op *op);
void bw_handle_delete_topic(bw_broker *b, bw_op *op);
void bw_handle_alter_topic(bw_broker *b, bw_op *op);
void bw_handle_list_offsets(bw_broker *b, bw_op *op);
void bw_handle_delete_records(bw_broker *b, bw_op *op);
void bw_handle_metadata(bw_broker *b, bw_op *op);

/* topics.c: the registry */
bw_topic *bw_topic_find(bw_broker *b, bw_str name);
/* bw_topic_of: find, or make when allowed and configured. UNKNOWN_TOPIC, INVALID_TOPIC, and creation's errors. */
bw_err bw_topic_of(bw_broker *b, bw_str name, bool may_create, bw_topic **out);
bw_err bw_part_of(bw_broker *b, bw_str name, int32_t partition, bool may_create, bw_part **out);
bw_err bw_topic_create_new(bw_broker *b, bw_str name, int32_t partitions, const bw_config_pair *configs, size_t count, bw_topic **out);
bw_err bw_topic_alter_config(bw_broker *b, bw_topic *t, int32_t partitions, const bw_config_pair *configs, size_t count);
/* bw_topic_delete: promise it in LMDB, refuse everything from now on, and leave the files to the worker; op is answered after. */
bw_err bw_topic_delete_start(bw_broker *b, bw_topic *t, bw_op *op);
void bw_topic_meta_fill(const bw_topic *t, bw_meta_topic *out); /* out->configs is t's */
bw_err bw_topic_from_meta(bw_broker *b, const bw_meta_topic *m, bw_topic **out);
void bw_topic_free(bw_broker *b, bw_topic *t);

/* part.c: one partition of the registry */
/* bw_topic_open_parts: parts [t->part_count, upto) are registered and published, unopened; new_files: and made, and opened if few. */
bw_err bw_topic_open_parts(bw_broker *b, bw_topic *t, uint32_t upto, bool new_files);
/* bw_part_open: recovery or takeover; log and stage are set. Opener, or the broker thread for a new topic. */
bw_err bw_part_open(bw_broker *b, bw_part *p);
void bw_part_stop_io(bw_broker *b, bw_part *p); /* close appender and readers */
/* bw_part_use_io: before reading or appending; when many have files open those of all others are closed. Broker thread. */
void bw_part_use_io(bw_broker *b, bw_part *p);
bool bw_part_remove(bw_broker *b, bw_part *p);  /* out of the table; false: it was not there */
void bw_part_free(bw_part *p);
void bw_part_release(bw_part *p);
bool bw_part_close_idle_readers(bw_part *p); /* true: some are still open */
bw_part *bw_part_by_number(bw_broker *b, uint32_t bus_number);
bw_err bw_part_appender(bw_broker *b, bw_part *p, bw_appender **out);
bw_err bw_part_open_reader(bw_broker *b, bw_part *p, int limit, bool committed, bw_reader **out);
bw_err bw_part_reader(bw_broker *b, bw_part *p, int limit, bool committed, bw_reader **out);
/* bw_parts_hold: a counted snapshot of all partitions; bw_parts_drop gives it back. */
size_t bw_parts_hold(bw_broker *b, bw_part ***out);
bw_part *bw_part_hold_number(bw_broker *b, uint32_t bus_number);
void bw_parts_drop(bw_part **parts, size_t count);
void bw_part_range(const bw_part *p, int64_t *log_start, int64_t *end, int64_t *durable);

/* adopt.c */
bw_err bw_broker_adopt(bw_broker *b);
/* bw_broker_finish_deletes: folders and records of deletions that a crash cut short. */
bw_err bw_broker_finish_deletes(bw_broker *b, bw_meta_topic *topics, size_t count);

/* bringup.c: control data and all partitions */
bw_err bw_broker_bring_up(bw_broker *b);
void bw_broker_take_down(bw_broker *b);

/* produce.c */
void bw_handle_produce(bw_broker *b, bw_op *op);
/* bw_produce_flush: try what has gathered. Before anything else is done that could see the difference. */
void bw_produce_flush(bw_broker *b);
void bw_produce_flush_data(bw_broker *b); /* the batches alone */
void bw_produce_serve(bw_broker *b, bw_part *p); /* parked and undurable ones */
void bw_produce_drop_session(bw_broker *b, bw_session *s);
void bw_produce_fail_all(bw_broker *b, bw_part *p, bw_err e);
bool bw_produce_waiting(const bw_part *p);
/* bw_part_have_producers: true: p->producers is there. Otherwise it is being read and the partition will be served again, or *e. */
bool bw_part_have_producers(bw_broker *b, bw_part *p, bw_err *e);

/* fetch.c, subscribe.c */
void bw_handle_fetch(bw_broker *b, bw_op *op);
void bw_fetch_serve(bw_broker *b, bw_part *p);
/* bw_fetch_end_part, bw_sub_end_part: the partition goes: what still waits on it, blocked or without credit, is told with the thread's
 * message and ends. */
void bw_fetch_end_part(bw_broker *b, bw_part *p);
void bw_sub_end_part(bw_part *p, bw_err e);
void bw_fetch_serve_session(bw_broker *b, bw_session *s); /* its backlog shrank */
void bw_fetch_drop_session(bw_broker *b, bw_session *s);
void bw_handle_subscribe(bw_broker *b, bw_op *op);
void bw_handle_credit(bw_broker *b, bw_op *op);
void bw_handle_unsubscribe(bw_broker *b, bw_op *op);
void bw_sub_serve(bw_broker *b, bw_part *p);
void bw_sub_rest(bw_part *p); /* its readers give back their windows */
void bw_sub_serve_session(bw_broker *b, bw_session *s);
void bw_sub_drop_session(bw_broker *b, bw_session *s);
bool bw_sub_waiting(const bw_part *p, bw_wait_class cls);
bool bw_fetch_waiting(const bw_part *p, bw_wait_class cls);
/* bw_fetch_limit_check: is a request's read_limit allowed? NOT_PERMITTED, INVALID_ARGUMENT. bw_fetch_limit: what its reader gets, by the
 * topic's read.limit. */
bw_err bw_fetch_limit_check(const bw_op *op);
bw_reader_limit bw_fetch_limit(const bw_part *p, int8_t read_limit);
/* bw_resolve_offset: BEGINNING and END to numbers, for a read limit. */
int64_t bw_resolve_offset(const bw_part *p, int64_t offset, int8_t read_limit);

/* attach.c */
void bw_handle_attach(bw_broker *b, bw_op *op);
void bw_handle_detach(bw_broker *b, bw_op *op);
void bw_handle_mailbox(bw_broker *b, bw_op *op);
void bw_handle_release_mailbox(bw_broker *b, bw_op *op);
void bw_attach_session_closed(bw_broker *b, bw_session *s);
bool bw_attach_tick(bw_broker *b); /* true: call again in a second */
void bw_attach_forget_topic(bw_broker *b, const bw_uuid *id);
void bw_attach_mail_taken_over(bw_broker *b, bw_mail *mail);
uint32_t bw_attach_writers(const bw_session *s);
uint32_t bw_attach_readers(const bw_session *s);
/* bw_attach_fence_writers: every partition of the topics that s writes to directly: all who do ask anew. How many topics. */
uint32_t bw_attach_fence_writers(bw_broker *b, const bw_session *s);

/* queue*.c: queue groups */
void bw_handle_queue_join(bw_broker *b, bw_op *op);
void bw_handle_queue_fetch(bw_broker *b, bw_op *op);
void bw_handle_queue_ack(bw_broker *b, bw_op *op);
void bw_handle_queue_leave(bw_broker *b, bw_op *op);
void bw_handle_queue_describe(bw_broker *b, bw_op *op);
typedef void (*bw_queue_each_fn)(void *opaque, bw_str group, uint32_t members, uint32_t partitions);
bw_err bw_queue_groups_each(bw_broker *b, bw_queue_each_fn fn, void *opaque); /* those that are not being deleted */
void bw_handle_queue_peek(bw_broker *b, bw_op *op);
void bw_handle_queue_settle(bw_broker *b, bw_op *op);
void bw_handle_queue_delete(bw_broker *b, bw_op *op);
void bw_queue_serve_part(bw_broker *b, bw_part *p); /* news of it, or something became durable */
bool bw_queue_waiting(const bw_part *p, bw_wait_class cls);
void bw_queue_rest_part(bw_part *p); /* its readers give back their windows */
bool bw_queue_close_idle(bw_part *p); /* true: some are still open */
void bw_queue_stop_part(bw_broker *b, bw_part *p); /* it goes, or the daemon ends */
void bw_queue_drop_session(bw_broker *b, bw_session *s);
void bw_queue_process_died(bw_broker *b, int64_t pid, uint64_t start_ticks); /* though somebody keeps its connection open */
void bw_queue_forget_topic(bw_broker *b, bw_topic *t); /* it is deleted, and what is stored of it */
void bw_queue_topic_grew(bw_broker *b, bw_topic *t);
bool bw_queue_group_exists(bw_broker *b, bw_str name);
void bw_queues_free(bw_broker *b);

/* status.c */
void bw_handle_status(bw_broker *b, bw_op *op);
void bw_handle_describe(bw_broker *b, bw_op *op);

/* syncer.c */
/* bw_syncer_want: a sync of what is visible now, soon. Any thread. */
void bw_syncer_want(bw_broker *b, bw_part *p);
void bw_syncer_save_points(bw_broker *b);
/* bw_syncer_want_folder: p's folder, not its data; by the points thread. Keeper. */
void bw_syncer_want_folder(bw_broker *b, bw_part *p);
bw_err bw_syncer_start(bw_broker *b);
void bw_syncer_stop(bw_broker *b);

/* opener.c */
/* bw_opener_want: open it soon. Any thread that holds p, or the broker thread. */
void bw_opener_want(bw_broker *b, bw_part *p);
/* bw_opener_open_now: at the start, before there is an opener. */
void bw_opener_open_now(bw_broker *b, bw_part *p);
/* bw_opener_look_again: there are unopened partitions at this number or above, for the background. */
void bw_opener_look_again(bw_broker *b, uint32_t from);
/* bw_opener_make_room: some partitions shall rest. Any thread. */
void bw_opener_make_room(bw_broker *b);
bool bw_opener_is_short(bw_broker *b);
/* bw_opener_park: true: the request waits until what it needs is open, and is handled then. Broker thread, as what follows. */
bool bw_opener_park(bw_broker *b, bw_op *op);
void bw_opener_release(bw_broker *b, bw_part *p);
/* bw_opener_withdraw: a subscription that still waits is not wanted any more. */
void bw_opener_withdraw(bw_broker *b, const bw_session *s, uint32_t subscription);
bw_err bw_opener_start(bw_broker *b);
void bw_opener_stop(bw_broker *b);
void bw_opener_drop_ops(bw_broker *b);

/* keeper.c */
/* bw_keeper_say: an event when file work of a partition begins to fail, and when it is well again. Keeper and syncer. */
void bw_keeper_say(bw_broker *b, bw_part *p, bw_err e, const char *event);
bw_err bw_keeper_start(bw_broker *b);
void bw_keeper_stop(bw_broker *b);

/* cleaner.c */
/* bw_cleaner_want: there is a compacted topic, or its configuration has changed: the thread looks at once. Broker thread. */
void bw_cleaner_want(bw_broker *b);
void bw_cleaner_stop(bw_broker *b);
/* bw_cleaner_get: false: the partition was never compacted. */
bool bw_cleaner_get(bw_broker *b, const bw_part *p, bw_cleaned *out);

/* broker.c */
bw_err bw_broker_start_thread(pthread_t *thread, void *(*fn)(void *), void *arg);

/* worker.c */
bw_err bw_worker_submit(bw_broker *b, bw_job *job);
void bw_worker_stop(bw_broker *b);
void bw_job_set_error(bw_job *job, bw_err e);

#endif
