/* client/consumer_group.h: a consumer's membership in its group, and its commits.
 *
 * Everything happens in the consumer's thread, inside poll, commit, unsubscribe and close; there is no other. All of it goes over the
 * consumer's own connection (consumer->conn), also when its partitions are read from the mapped log: a member's session *is* the
 * connection on which it joined, its end is the member's death, and only this consumer's calls pump it, so that no other thread of the
 * bus can take an assignment off the socket while this one sleeps. The daemon rings the member's mailbox after each push: a poll loop
 * on the direct path looks at that word and at a coarse clock, and at the socket only when one of the two says so.
 *
 * What arrives (pushes, answers) is only noted by the pump's callbacks; bw_group_work, between two batches, acts on it: that is where
 * partitions are opened and given up, and where the program's callbacks run.
 *
 * States. OUT: not subscribed. WANTS: to be joined when the connection is up (also again, after it was lost: with id, epoch and what is
 * owned). JOINING: GROUP_JOIN is on its way. MEMBER. FENCED: an error says that everything is lost; to be told, then WANTS, without id. */
#ifndef BW_CLIENT_CONSUMER_GROUP_H
#define BW_CLIENT_CONSUMER_GROUP_H

#include "client/consumer.h"

enum {
    BW_COMMITS_MAX = 65536,       /* commits on their way */
    BW_COMMIT_PARTS_MAX = 131072, /* partitions of one */
    BW_GROUP_CLOSE_MS = 2000,
};

typedef enum bw_member_state { BW_MEMBER_OUT = 0, BW_MEMBER_WANTS, BW_MEMBER_JOINING, BW_MEMBER_IN, BW_MEMBER_FENCED } bw_member_state;

/* One commit: a request, from the call to the callback. In the order of the calls in group->commits until it is told. */
typedef struct bw_commit {
    bw_pending pending; /* first */
    struct bw_commit *next;
    struct bw_cgroup *group;
    enum { BW_COMMIT_QUEUED = 0, BW_COMMIT_SENT, BW_COMMIT_DONE } state;
    bool sent_once, waited_for /* somebody waits and frees it */, automatic;
    struct bw_commit *follow;    /* some of it is in this later one, too, which went out before this was sent again: its outcome counts */
    int32_t epoch;               /* it was sent with; -1: of nobody */
    bw_err error;
    char *message;
    bw_commit_fn callback;
    void *opaque;
    size_t count;
    bw_uuid *ids; /* of the topics; behind parts */
    bool *skip;   /* not to be sent again */
    bw_topic_partition parts[]; /* strings lie behind */
} bw_commit;

/* A request of the membership: at most one of each kind on its way. */
typedef struct bw_group_ask {
    bw_pending pending; /* first */
    struct bw_cgroup *group;
    int64_t sent_ms;    /* coarse */
    bool owned;         /* it says what is owned */
} bw_group_ask;

struct bw_cgroup {
    bw_consumer *consumer;
    bw_member_state state;
    char *id, *instance, *assignor; /* instance, assignor: "" none */
    bool wants_auto_commit, durable;
    /* what is subscribed */
    char **topics;
    size_t topic_count;
    bool topics_changed; /* since the daemon was told */
    /* who we are */
    char member[128]; /* "": no id yet */
    int32_t epoch;    /* -1: no member */
    int32_t lease_ms;
    uint32_t conn_epoch; /* of the connection that we joined on */
    uint32_t told_mailbox;
    int64_t renewed_ms;  /* when the last request that was answered well was sent */
    bw_group_ask join, beat;
    /* what arrived and was not acted on yet */
    uint8_t *assigned; /* header of the newest frame with an assignment; malloc'd */
    size_t assigned_len;
    uint16_t assigned_type;
    bool owed;         /* to say what is owned */
    bool releasing;    /* partitions are being given up, and the daemon has not answered yet that it knows */
    bool doubtful;     /* `assigned` came meanwhile: it may give back what we gave up, from an offset before our last commits */
    bool wanting, untold; /* some partitions are */
    bw_err fenced;     /* why */
    bw_err refused;    /* a join was, for good; told by the next poll */
    char *reason;      /* the message of fenced or refused */
    /* when to look again, on the coarse clock */
    int64_t due_ms;   /* for a poll */
    int64_t alarm_ms; /* for who waits for the socket, too */
    int64_t join_at_ms, commit_at_ms, conn_at_ms;
    uint32_t conn_tries;
    int probe_fd;     /* -1: none. Asks whether a new daemon answers yet */
    int64_t probe_until_ms;
    bool calling; /* inside a callback of the program */
    bool closing;
    char told_topic[BW_TOPIC_NAME_MAX + 1]; /* what poll's batch named when the partition was gone */
    /* commits */
    bw_commit *commits, **commits_tail, *auto_commit;
    uint32_t commit_count, unsent; /* unsent: of those, QUEUED */
    uint32_t in_flight;            /* of those, SENT */
    bool followed;                 /* some have `follow` */
    char **fetched; /* metadata of the last bw_consumer_committed */
    size_t fetched_count;
};

/* ---- consumer_group.c ---- */
/* bw_group_check_options: of options with a group_id. INVALID_GROUP_ID, INVALID_ARGUMENT, UNSUPPORTED_ASSIGNOR. */
bw_err bw_group_check_options(const bw_consumer_options *o);
/* bw_names_copy: an array of strings with the strings behind it, one block; NULL: no memory. */
char **bw_names_copy(const char *const *names, size_t count);
/* bw_group_open: for options with a group_id. */
bw_err bw_group_open(bw_consumer *c);
/* bw_cgroup_leave: commit, tell REVOKED, leave; until the deadline at the latest. The subscription ends. */
void bw_cgroup_leave(bw_cgroup *g, bw_deadline deadline);
void bw_group_close(bw_consumer *c);
/* bw_group_check_by_hand: assigning by hand is not for those who subscribed. */
bw_err bw_group_check_by_hand(const bw_consumer *c);
/* bw_group_check_call: the program's callbacks may not call everything. */
bw_err bw_group_check_call(const bw_consumer *c, const char *what);
/* bw_group_forget: all partitions are LOST; batch names one of them. */
void bw_group_forget(bw_cgroup *g, bw_batch *batch);
/* bw_group_tell: run the program's callback for these partitions. */
void bw_group_tell(bw_cgroup *g, bw_rebalance event, bw_cpart *const *parts, size_t count);

/* ---- consumer_group_session.c ---- */
/* bw_group_pushed: what the daemon sent by itself; called by the pump. false: no memory. */
bool bw_group_pushed(bw_cgroup *g, const bw_frame *frame);
/* bw_group_fence: the daemon says that everything is lost. */
void bw_group_fence(bw_cgroup *g, bw_err e, const char *message);
/* bw_group_advance: connect, join, send commits, as far as it goes without waiting for an answer. NOT_CONNECTED: not now. */
bw_err bw_group_advance(bw_cgroup *g);
/* bw_group_advance_until: connecting, too, has no longer than that. */
bw_err bw_group_advance_until(bw_cgroup *g, bw_deadline deadline);
void bw_group_end_probe(bw_cgroup *g);
/* bw_group_note_connection: has the session ended with its connection? */
void bw_group_note_connection(bw_cgroup *g);
/* bw_cgroup_beat: renew the lease, and say what has changed with us. One at a time; nothing is waited for. */
bw_err bw_cgroup_beat(bw_cgroup *g);
/* bw_group_verify_lease: ask whether the lease, which is over by our clock, is. OK: the state says; or there is no daemon. TIMED_OUT. */
bw_err bw_group_verify_lease(bw_cgroup *g, int32_t timeout_ms);
static inline bool bw_group_lease_is_over(const bw_cgroup *g) { return bw_clock_coarse_ms() - g->renewed_ms >= g->lease_ms; }
/* bw_group_doubt_lease: ask before anything more is given. */
static inline void bw_group_doubt_lease(bw_cgroup *g)
{
    g->renewed_ms = bw_clock_coarse_ms() - g->lease_ms;
    g->due_ms = 0;
}
static inline uint32_t bw_group_mailbox(bw_consumer *c) { return atomic_load_explicit(&c->box, memory_order_relaxed) ? c->mailbox : 0; }
static inline bool bw_group_is_fence(bw_err e)
{
    return e == BW_ERR_FENCED_MEMBER_EPOCH || e == BW_ERR_UNKNOWN_MEMBER_ID || e == BW_ERR_FENCED_INSTANCE_ID || e == BW_ERR_ILLEGAL_GENERATION;
}
/* bw_group_may_commit: commits go out now: as a member, or for partitions assigned by hand. */
static inline bool bw_group_may_commit(const bw_cgroup *g) { return g->state == BW_MEMBER_OUT || g->state == BW_MEMBER_IN; }

/* ---- consumer_group_member.c ---- */
/* bw_group_work: all that is due: the socket, joining, leases, assignments, callbacks, commits by interval. OK, or what poll shall return.
 * timeout_ms: of the poll, for what can't be put off: a lease that may have ended. */
bw_err bw_group_work(bw_cgroup *g, int32_t timeout_ms, bw_batch *batch);
/* bw_group_until: the latest moment at which a sleep must end. */
bw_deadline bw_group_until(bw_cgroup *g, bw_deadline deadline);
/* bw_group_is_due: is there anything for bw_group_work? What a poll pays for being in a group. */
static inline bool bw_group_is_due(bw_consumer *c)
{
    bw_mailbox *box = atomic_load_explicit(&c->box, memory_order_relaxed);
    if (box && __builtin_expect(atomic_load_explicit(&box->poked, memory_order_relaxed) != 0, 0)) return true;
    return __builtin_expect(bw_clock_coarse_ms() >= c->group->due_ms, 0);
}

/* bw_group_should_look: a poll that found nothing looks at the socket: who is not rung, who waits for an answer, whose descriptor must not
 * stay readable. */
static inline bool bw_group_should_look(const bw_consumer *c)
{
    const bw_cgroup *g = c->group;
    if (!c->has_conn || (g->state == BW_MEMBER_OUT && !g->in_flight)) return false;
    if (c->epoll_fd >= 0 || (c->direct_count == 0 && c->ipc_count == 0)) return true;
    return g->in_flight || g->join.pending.correlation || g->beat.pending.correlation;
}

/* ---- consumer_group_commit.c ---- */
/* bw_group_check: commits and what is committed are a group's. */
bw_err bw_group_check(bw_consumer *c);
/* bw_group_commit_positions: what was read and is not committed yet, of these partitions or (NULL) all. OK also when there is nothing;
 * *out (may be NULL) is the commit, or NULL. */
bw_err bw_group_commit_positions(bw_cgroup *g, bw_cpart *const *parts, size_t count, bw_commit **out);
/* bw_group_thin_out: before anything is sent again: what must not be is left out. NO_MEMORY: nothing may be sent. */
bw_err bw_group_thin_out(bw_cgroup *g);
/* bw_group_send_commits: send what waits for a connection. */
void bw_group_send_commits(bw_cgroup *g);
/* bw_group_tell_commits: run the callbacks of those that have their outcome, in order. */
void bw_group_tell_commits(bw_cgroup *g);
/* bw_group_settle: until no commit is on its way; TIMED_OUT. */
bw_err bw_group_settle(bw_cgroup *g, bw_deadline deadline);
/* bw_group_fail_commits: those that have no outcome get this one. */
void bw_group_fail_commits(bw_cgroup *g, bw_err e, const char *message);

#endif
