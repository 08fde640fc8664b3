/* broker/groups.h: all groups of the daemon: what its other files may ask of them, and the requests.
 *
 * The groups' rules are in group.h; here are their members' connections and processes, timers, topics, and their records in the store
 * (table `groups`, groups_save.c). What a member is told was saved before: a push leaves when the commit that holds the records of all
 * members it concerns is on the disk.
 *
 * Death. A local member dies with its connection, or with its process, which a pidfd reports even where a child keeps the connection. A
 * member elsewhere has its session time-out to come back. A hung one has its lease.
 *
 * Restart. Members are restored with what they owned; those whose processes are gone are dropped at once, the others join again, with
 * id and epoch, and go on meanwhile. All mailboxes are poked once, so that they look at their connections now.
 *
 * Broker thread only. */
#ifndef BW_BROKER_GROUPS_H
#define BW_BROKER_GROUPS_H

#include "broker/core.h"
#include "broker/group.h"

/* bw_groups_begin: the topics are there: restore the groups. CORRUPT, NEWER_FORMAT, NO_MEMORY. */
bw_err bw_groups_begin(bw_broker *b);
void bw_groups_free(bw_broker *b);
/* bw_groups_turn: at the end of a round of the loop: what has changed is decided and set out to the disk. */
void bw_groups_turn(bw_broker *b);

/* What happens to topics: one is new; has more partitions; is being deleted. */
void bw_groups_topic_created(bw_broker *b, const bw_topic *t);
void bw_groups_topic_grown(bw_broker *b, const bw_topic *t);
void bw_groups_topic_deleted(bw_broker *b, const bw_topic *t);
void bw_groups_session_closed(bw_broker *b, bw_session *s);

/* bw_groups_find: NULL: there is no such group (it may have committed offsets all the same). */
bw_group *bw_groups_find(bw_broker *b, bw_str id);
/* bw_groups_may_commit: the gate for commits: bw_group_may_commit's errors; OK for somebody who is no member of a group without members. */
bw_err bw_groups_may_commit(bw_broker *b, bw_str group, bw_str member, bw_str instance, int32_t epoch, bw_str topic, int32_t partition);
bool bw_groups_has_members(bw_broker *b, bw_str group);
typedef struct bw_groups_counters { uint64_t groups, members, rebalances; } bw_groups_counters;
void bw_groups_count(const bw_broker *b, bw_groups_counters *out);

/* Requests. */
void bw_handle_group_join(bw_broker *b, bw_op *op);
void bw_handle_group_heartbeat(bw_broker *b, bw_op *op);
void bw_handle_group_leave(bw_broker *b, bw_op *op); /* LEAVE_GROUP too */
void bw_handle_join_group(bw_broker *b, bw_op *op);
void bw_handle_sync_group(bw_broker *b, bw_op *op);
void bw_handle_heartbeat(bw_broker *b, bw_op *op);

#endif
