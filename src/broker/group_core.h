/* broker/group_core.h: what the files group*.c share. */
#ifndef BW_BROKER_GROUP_CORE_H
#define BW_BROKER_GROUP_CORE_H

#include "base/err.h"
#include "broker/group.h"

#include <stdlib.h>
#include <string.h>

#define BW_STR_ARG(s) (int)((s).len > 200 ? 200 : (s).len), (s).data ? (s).data : ""

static inline int64_t bw_group_after(int64_t now_ms, int64_t ms) { return now_ms > BW_GROUP_NEVER - ms ? BW_GROUP_NEVER : now_ms + ms; }
/* bw_group_wake_at: poll no later than at_ms. */
static inline void bw_group_wake_at(bw_group *g, int64_t at_ms) { if (at_ms < g->next_ms) g->next_ms = at_ms; }

char *bw_group_dup(bw_str s); /* NULL: no memory */
bw_err bw_blob_set(bw_blob *b, bw_str s);

/* bw_group_session: the time-out asked for, or the default for 0. INVALID_SESSION_TIMEOUT. */
bw_err bw_group_session(const bw_group *g, int32_t *session_ms);
/* bw_group_room: for one member more. GROUP_MAX_SIZE_REACHED. */
bw_err bw_group_room(const bw_group *g, uint32_t members);

typedef struct bw_member_new {
    bw_str id, instance, client, host;
    bw_process process;
    int32_t session_ms, rebalance_ms, lease_ms;
    size_t bytes; /* that it will need beside its ids */
} bw_member_new;
/* bw_member_add: in the group's tables, with nothing. LIMIT_REACHED, NO_MEMORY. */
bw_err bw_member_add(bw_group *g, const bw_member_new *n, int64_t now_ms, bw_member **out);
/* bw_member_drop: out of the tables, freed. It owns nothing any more. */
void bw_member_drop(bw_group *g, bw_member *m, int64_t now_ms);
/* bw_member_account: it needs `bytes` now. LIMIT_REACHED: the group would have too much; as before. */
bw_err bw_member_account(bw_group *g, bw_member *m, size_t bytes);

/* group_assigned.c */
void bw_assigned_poll(bw_group *g, int64_t now_ms);
void bw_assigned_remove(bw_group *g, bw_member *m, bw_err why, const char *reason, int64_t now_ms);
void bw_assigned_free(bw_group *g);
bw_err bw_assigned_may_commit(bw_group *g, const bw_member *m, int32_t epoch, bw_str topic, int32_t partition);
void bw_assigned_state(bw_group *g);

/* group_target.c: who should own what, and handing over. */
void bw_part_give(bw_group *g, bw_group_part *p, bw_member *m);
void bw_part_free_owner(bw_group *g, bw_group_part *p); /* nobody owns it now */
void bw_member_touch(bw_group *g, bw_member *m, bool push);
/* bw_group_retarget: NO_MEMORY: nothing changed. */
bw_err bw_group_retarget(bw_group *g, int64_t now_ms);
/* bw_group_flush: a new epoch for everybody whose assignment changed; saves, then pushes. */
void bw_group_flush(bw_group *g, int64_t now_ms);

/* group_topics.c: the topics that members subscribe to (CONSUMER, QUEUE). */
bw_err bw_group_topics_set(bw_group *g, bw_member *m, const bw_topic_view *topics, size_t count, bool *changed, int64_t now_ms);
void bw_group_topics_leave(bw_group *g, bw_member *m);
bw_err bw_group_topic_intern(bw_group *g, bw_uuid id, bw_str name, uint32_t partitions, bw_group_topic **out);
void bw_group_topic_drop_unused(bw_group *g, bw_group_topic *t);
bw_group_topic *bw_group_topic_named(const bw_group *g, bw_str name);
void bw_group_assign_soon(bw_group *g, int64_t now_ms);

/* group_classic.c and group_classic_join.c */
void bw_classic_poll(bw_group *g, int64_t now_ms);
bool bw_classic_expired(const bw_member *m, int64_t now_ms);
void bw_classic_remove(bw_group *g, bw_member *m, bw_err why, const char *reason, int64_t now_ms);
void bw_classic_free(bw_group *g);
void bw_classic_forget_pending(bw_group *g);
bw_err bw_classic_may_commit(const bw_group *g, int32_t generation);
bw_err bw_classic_leave_pending(bw_group *g, bw_str member, int64_t now_ms); /* NOT_FOUND: it is not one */
bool bw_classic_take_pending(bw_group *g, bw_str id);
void bw_classic_answer_join_error(bw_group *g, void *token, bw_str member, bw_err e);
void bw_classic_fail_join(bw_group *g, bw_member *m, bw_err e);
void bw_classic_fail_sync(bw_group *g, bw_member *m, bw_err e);
void bw_classic_answer_join(bw_group *g, bw_member *m, void *token, const char *leader, bool with_members);
void bw_classic_heard(bw_group *g, bw_member *m, int64_t now_ms);
void bw_classic_owe_sync(bw_group *g, bw_member *m, bool owes);
bool bw_classic_is_leader(const bw_group *g, const bw_member *m);
bw_err bw_classic_set_leader(bw_group *g, const char *id);
void bw_classic_maybe_rebalance(bw_group *g, int64_t now_ms);
const char *bw_classic_elect_protocol(const bw_group *g);
bool bw_classic_all_speak(const bw_group *g, const char *name);

#endif
