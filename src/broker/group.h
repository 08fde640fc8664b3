/* broker/group.h: one group as a pure state machine: no I/O, no clock of its own, no threads. Time is an argument (monotonic ms), and
 * what should be done outside is told through bw_group_ops. Three kinds (bw_group_kind), fixed by who joins first:
 *
 *   CLASSIC    Kafka's join, sync, heartbeat, leave: all join, one of them assigns, all fetch what he assigned (group_classic.c).
 *   CONSUMER   the group assigns, and a partition moves only after its owner said that it gave it up (group_assigned.c).
 *   QUEUE      members only: each may read every partition of the topics it subscribes to.
 *
 * What must hold, always:
 *   - a partition has at most one owner (CONSUMER): from the moment it is given until its owner said that it has stopped, died, left, or
 *     lost its lease;
 *   - epoch only rises. Every assignment a member is told has an epoch of its own (a new one of the group's), so that "I have done
 *     what the assignment of epoch E says" is unambiguous. It is the classic protocol's generation too;
 *   - a commit is good only from the present owner, with an epoch not older than that in which it got the partition;
 *   - bw_group_next_ms is never later than the next moment at which something must happen.
 *
 * Calls that change something only note it; what follows from it is done by bw_group_poll, which the caller calls when next_ms has
 * come (at once, when it is not later than now): new target, epochs, ops->save for what must be on the disk before ops->assigned's
 * pushes may go out. So many changes of one moment are one rebalance.
 * The callbacks must not call back into the group. Fields of the structs are read by anybody, written by group*.c only (`user` apart). */
#ifndef BW_BROKER_GROUP_H
#define BW_BROKER_GROUP_H

#include "broker/assignor.h"
#include "proto/message.h"

#define HASH_NONFATAL_OOM 1
#define uthash_nonfatal_oom(t) ((t)->not_hashed = true)
#include <uthash.h>

#define BW_GROUP_ID_MAX 249u      /* bytes */
#define BW_MEMBER_ID_MAX 320u     /* bytes; of an instance id 249 */
#define BW_GROUP_NEVER INT64_MAX
#define BW_EPOCH_LEAVES_FOR_NOW (-2) /* GROUP_LEAVE of a static member: keep its partitions for the session time-out */

typedef struct bw_group bw_group;
typedef struct bw_member bw_member;
typedef struct bw_group_topic bw_group_topic;

/* Where a local member's process is; pid 0: not known (a member on another host). */
typedef struct bw_process {
    int64_t pid;
    uint64_t start_ticks;
    uint8_t boot[16];
} bw_process;

typedef enum bw_group_state {
    BW_GROUP_EMPTY = 0,
    BW_GROUP_PREPARING = 1,  /* CLASSIC: waits until all have joined */
    BW_GROUP_COMPLETING = 2, /* CLASSIC: waits for the leader's assignment; CONSUMER: partitions are being handed over */
    BW_GROUP_STABLE = 3,
    BW_GROUP_DEAD = 4 /* to be freed; every call is refused */
} bw_group_state;
const char *bw_group_state_name(bw_group_state state, bw_group_kind kind); /* Kafka's names */

/* One partition of a topic that somebody subscribes to (CONSUMER). */
typedef struct bw_group_part {
    bw_group_topic *topic;
    bw_member *owner, *target;
    int32_t since;   /* the epoch in which the owner got it */
    int32_t revoked; /* the epoch in which the owner was told to give it up; 0: it was not */
    uint32_t claim;  /* the number of the last owned list that named it */
    struct bw_group_part *previous, *next; /* of its owner */
} bw_group_part;

struct bw_group_topic {
    bw_uuid id;
    char *name;
    uint32_t partitions;
    uint32_t subscribers;
    uint32_t owned; /* of parts */
    uint32_t number; /* while an assignment is computed */
    bw_group_part *parts;
    bool not_hashed;
    UT_hash_handle hh;
};

typedef struct bw_blob { uint8_t *data; size_t len; } bw_blob;
typedef struct bw_member_protocol { char *name; bw_blob metadata; } bw_member_protocol;

struct bw_member {
    char *id, *instance; /* instance NULL: dynamic */
    char *client, *host;
    bw_process process;
    void *user;          /* the registry's */
    uint32_t index;      /* in the group's members */
    int32_t session_ms, rebalance_ms, lease_ms;
    int64_t deadline_ms; /* lease or session: removed if nothing was heard until then */
    bool away;           /* static, or remote and cut off: not there now; deadline_ms is when it is given up */
    bool expected;       /* restored from the disk, not heard of yet */
    int32_t epoch;       /* of the newest assignment it was given (CLASSIC: the group's) */
    size_t bytes;        /* that count against the group's limit */
    /* CONSUMER, QUEUE */
    bw_blob subscription; /* the registry's: what it asked for */
    bw_group_topic **topics;
    size_t topic_count;
    bw_group_part *parts; /* that it owns, those being revoked included */
    uint32_t part_count, revoking;
    int64_t revoke_until_ms; /* while revoking: when it loses its lease for not answering */
    bool unsaved, unpushed;
    /* CLASSIC */
    bw_member_protocol *protocols;
    size_t protocol_count;
    bw_blob assignment;
    void *join_token, *sync_token; /* requests that wait for an answer; NULL: none */
    bool is_new, owes_sync;
    bool not_hashed;
    UT_hash_handle by_id, by_instance;
};

/* CLASSIC: a member id that was given out with MEMBER_ID_REQUIRED and not used yet. */
typedef struct bw_pending_member {
    char *id;
    int64_t deadline_ms;
    bool not_hashed;
    UT_hash_handle hh;
} bw_pending_member;

/* The answer to a classic join. Views, for the call only. */
typedef struct bw_joined {
    bw_err error; /* with the thread's message */
    const char *member;
    int32_t generation;
    const char *protocol_type, *protocol, *leader; /* "" when there is none */
    bw_member *const *members; /* for the leader: all, with what each said about the chosen protocol (bw_member_metadata) */
    size_t member_count;
} bw_joined;

typedef struct bw_group_ops {
    /* m's record, or the group's (m NULL), must be on the disk before what follows it in this poll is told to anybody. */
    void (*save)(void *context, bw_group *g, bw_member *m);
    /* Tell m what it may read (bw_member_each_part) in m->epoch. */
    void (*assigned)(void *context, bw_group *g, bw_member *m);
    /* m is no member any more: forget it, on the disk too; the last call about it. why OK: it left. */
    void (*removed)(void *context, bw_group *g, bw_member *m, bw_err why, const char *reason);
    /* CLASSIC: answers. For synced, m is NULL with an error; its assignment is the answer. */
    void (*joined)(void *context, bw_group *g, void *token, const bw_joined *answer);
    void (*synced)(void *context, bw_group *g, void *token, bw_err e, const bw_member *m);
} bw_group_ops;

typedef struct bw_group_limits {
    uint32_t max_members;       /* group.max.size */
    size_t max_bytes;           /* of a group's metadata, subscriptions and assignments */
    int32_t min_session_ms, max_session_ms;
    int32_t initial_delay_ms;   /* group.initial.rebalance.delay.ms */
} bw_group_limits;

struct bw_group {
    char *id;
    bw_group_kind kind;
    bool kind_fixed; /* somebody has joined once */
    bw_group_state state;
    int32_t epoch;
    const bw_group_limits *limits;
    const bw_group_ops *ops;
    void *context;
    void *user; /* the registry's */
    bw_member **members;
    uint32_t member_count, member_cap;
    bw_member *by_id, *by_instance;
    size_t bytes;
    int64_t next_ms;          /* a lower bound of the members' and the group's deadlines */
    int64_t empty_since_ms;   /* while it has no members */
    /* CONSUMER, QUEUE */
    bw_assignor_kind assignor;
    bw_group_topic *topics;
    uint32_t topic_count;
    uint32_t claims;          /* owned lists so far */
    uint32_t revoking;        /* parts */
    int64_t assign_at_ms;     /* the target is to be computed; NEVER: it is up to date */
    bool unsaved;
    uint32_t dirty;           /* members unsaved or unpushed */
    uint64_t rebalances;
    /* CLASSIC */
    char *protocol_type, *protocol; /* NULL: none */
    char *leader;
    bw_pending_member *pending;
    uint32_t awaiting_join, owing_sync;
    int64_t join_until_ms, sync_until_ms; /* NEVER: no such wait */
    int32_t initial_left_ms;  /* while the first members are waited for */
    bool initial, member_added;
};

/* ---- all kinds (group.c) ---- */

/* bw_group_create: empty, of no kind yet. INVALID_GROUP_ID (empty, too long, a zero byte), NO_MEMORY. limits, ops: not owned. */
bw_err bw_group_create(bw_str id, const bw_group_limits *limits, const bw_group_ops *ops, void *context, int64_t now_ms, bw_group **out);
/* bw_group_free: tells nobody anything. */
void bw_group_free(bw_group *g);
/* bw_group_with_id, bw_group_with_instance: NULL: nobody. */
bw_member *bw_group_with_id(const bw_group *g, bw_str id);
bw_member *bw_group_with_instance(const bw_group *g, bw_str instance);
/* bw_group_find: the member that says it is id (and instance). UNKNOWN_MEMBER_ID; FENCED_INSTANCE_ID: the instance is another's now. */
bw_err bw_group_find(const bw_group *g, bw_str id, bw_str instance, bw_member **out);
/* bw_group_next_ms: call bw_group_poll then. May be early. */
int64_t bw_group_next_ms(const bw_group *g);
/* bw_group_poll: everything that is due. */
void bw_group_poll(bw_group *g, int64_t now_ms);
/* bw_group_remove: at once. why: what it is told. */
void bw_group_remove(bw_group *g, bw_member *m, bw_err why, const char *reason, int64_t now_ms);
/* bw_group_gone: its process died (dead), or only its connection. A dynamic member that died is removed; others are away and have the
 * session time-out to come back. */
void bw_group_gone(bw_group *g, bw_member *m, bool dead, int64_t now_ms);
/* bw_group_may_commit: partition of topic, by the member in this epoch (generation). member empty and epoch < 0: somebody who is no member;
 * OK only while the group is empty. UNKNOWN_MEMBER_ID, FENCED_INSTANCE_ID, STALE_MEMBER_EPOCH, FENCED_MEMBER_EPOCH (not its partition any
 * more), ILLEGAL_GENERATION, REBALANCE_IN_PROGRESS. Renews the member's lease. */
bw_err bw_group_may_commit(bw_group *g, bw_str member, bw_str instance, int32_t epoch, bw_str topic, int32_t partition, int64_t now_ms);
/* bw_group_bury: nobody is in it: DEAD. NON_EMPTY_GROUP. */
bw_err bw_group_bury(bw_group *g);

/* ---- CONSUMER and QUEUE (group_assigned.c) ---- */

typedef struct bw_topic_view { bw_uuid id; const char *name; uint32_t partitions; } bw_topic_view;

typedef struct bw_member_join {
    bw_str member;   /* empty: a new one; with epoch -1: a new one that chose its id, or one that does not know that it was taken in */
    bw_str instance;
    int32_t epoch;   /* of one that comes back; -1 */
    bw_group_kind kind;
    bw_str assignor; /* empty: the group's */
    int32_t session_ms, rebalance_ms, lease_ms; /* 0: 45 s, 5 min (or the lease), 5 min */
    bw_str subscription;
    const bw_topic_view *topics; /* what it comes to now */
    size_t topic_count;
    const bw_offset_part *owned; /* what one that comes back still reads */
    size_t owned_count;
    bw_str client, host;
    bw_process process;
    bw_str new_id; /* for a new one: unique */
} bw_member_join;

/* bw_group_admit: a member comes, comes back (member set), or takes the place of its instance's former one (who is removed with
 * FENCED_INSTANCE_ID). The answer is the next ops->assigned for it. INVALID_SESSION_TIMEOUT, INCONSISTENT_GROUP_PROTOCOL,
 * UNSUPPORTED_ASSIGNOR, GROUP_MAX_SIZE_REACHED, LIMIT_REACHED, UNKNOWN_MEMBER_ID (also: that id is another process's),
 * FENCED_INSTANCE_ID, FENCED_MEMBER_EPOCH, NO_MEMORY. */
bw_err bw_group_admit(bw_group *g, const bw_member_join *j, int64_t now_ms, bw_member **out);
/* bw_group_beat: the lease is renewed; owned (NULL: not said) is what it still reads: what it was told to give up in an epoch not after
 * `epoch`, and does not name, is free. UNKNOWN_MEMBER_ID, FENCED_INSTANCE_ID, FENCED_MEMBER_EPOCH (an epoch it was never given). */
bw_err bw_group_beat(bw_group *g, bw_str member, bw_str instance, int32_t epoch, const bw_offset_part *owned, size_t owned_count,
                     bool has_owned, int64_t now_ms, bw_member **out);
/* bw_group_resubscribe: topics is what its subscription comes to now; subscription NULL data: as before. LIMIT_REACHED, NO_MEMORY: as before. */
bw_err bw_group_resubscribe(bw_group *g, bw_member *m, bw_str subscription, const bw_topic_view *topics, size_t topic_count, int64_t now_ms);
/* bw_group_topic_grown: it has more partitions. bw_group_topic_gone: it was deleted: nobody owns any of it, nothing is waited for. */
bw_err bw_group_topic_grown(bw_group *g, const bw_uuid *id, uint32_t partitions, int64_t now_ms);
void bw_group_topic_gone(bw_group *g, const bw_uuid *id, int64_t now_ms);
/* bw_member_each_part: what it may read, grouped by topic for a QUEUE, else in no order. */
typedef void (*bw_part_fn)(void *opaque, const bw_group_topic *topic, uint32_t partition);
void bw_member_each_part(const bw_group *g, const bw_member *m, bw_part_fn fn, void *opaque);
size_t bw_member_part_count(const bw_group *g, const bw_member *m);

/* ---- CLASSIC (group_classic.c) ---- */

typedef struct bw_classic_join {
    bw_str member, instance, client, host, protocol_type, new_id;
    bool needs_member_id;
    int32_t session_ms, rebalance_ms;
    const bw_group_protocol *protocols;
    size_t protocol_count;
    bw_process process;
} bw_classic_join;

/* bw_group_classic_join: the answer comes through ops->joined, now or later, once for each call. */
void bw_group_classic_join(bw_group *g, const bw_classic_join *j, void *token, int64_t now_ms);
/* bw_group_classic_sync: likewise through ops->synced. */
void bw_group_classic_sync(bw_group *g, const bw_group_request *r, void *token, int64_t now_ms);
bw_err bw_group_classic_beat(bw_group *g, bw_str member, bw_str instance, int32_t generation, int64_t now_ms);
/* bw_group_leave: of all kinds. epoch BW_EPOCH_LEAVES_FOR_NOW: a static member of a CONSUMER group keeps its place for a while. */
bw_err bw_group_leave(bw_group *g, bw_str member, bw_str instance, int32_t epoch, const char *reason, int64_t now_ms);
/* bw_member_metadata: what it said about the group's protocol. */
bw_str bw_member_metadata(const bw_group *g, const bw_member *m);

/* ---- records (group_record.c): what a restart needs ---- */

/* bw_group_encode, bw_member_encode: append the record. NO_MEMORY. */
bw_err bw_group_encode(const bw_group *g, bw_buf *out);
bw_err bw_member_encode(const bw_group *g, const bw_member *m, bw_buf *out);
/* bw_group_decode: into a group just created. CORRUPT, NEWER_FORMAT. */
bw_err bw_group_decode(bw_group *g, const void *data, size_t len);

typedef struct bw_saved_part { bw_str topic; bw_uuid id; uint32_t partition; int32_t since, revoked; } bw_saved_part;
/* A member's record, views into it; fini frees the lists. */
typedef struct bw_saved_member {
    bw_str id, instance, client, host;
    bw_process process;
    int32_t session_ms, rebalance_ms, lease_ms, epoch;
    bw_str subscription;
    bw_str assignment;
    bw_group_protocol *protocols;
    size_t protocol_count;
    bw_saved_part *parts;
    size_t part_count;
} bw_saved_member;
bw_err bw_saved_member_decode(const void *data, size_t len, bw_saved_member *out);
void bw_saved_member_fini(bw_saved_member *s);
/* bw_group_restore: the member is expected: what it had stays its own until it comes back, is removed, or its lease ends. topics: what
 * its subscription comes to now. CORRUPT when two own one partition, or two have one id; NO_MEMORY. */
bw_err bw_group_restore(bw_group *g, const bw_saved_member *s, const bw_topic_view *topics, size_t topic_count, int64_t now_ms);

#endif
