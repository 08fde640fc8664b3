/* broker/assignor.h: who of a group reads which partition. Pure functions: no state, no I/O, no clock.
 *
 * Rules, as Kafka's clients have them:
 *   range               topic by topic: members in order, each a run of consecutive partitions, the first ones one more.
 *   roundrobin          all partitions, topics by name, dealt to the members in order; who does not subscribe to a topic is skipped.
 *   sticky              loads as equal as subscriptions allow, and of those assignments one that moves few partitions.
 *   cooperative-sticky  the same assignment; that a partition is given up before another gets it is the group's work.
 * Order of members: those with an instance id first, by it; the others by member id, as Java compares strings.
 *
 * What must hold of every result: a partition has an owner exactly if somebody subscribes to its topic; the owner does; the sticky
 * ones: no chain of moves from member to member would bring the loads closer together (so no load differs from another by more than
 * one where all subscribe to the same). */
#ifndef BW_BROKER_ASSIGNOR_H
#define BW_BROKER_ASSIGNOR_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

typedef enum bw_assignor_kind {
    BW_ASSIGNOR_RANGE = 0,
    BW_ASSIGNOR_ROUNDROBIN = 1,
    BW_ASSIGNOR_STICKY = 2,
    BW_ASSIGNOR_COOPERATIVE_STICKY = 3
} bw_assignor_kind;

#define BW_NOBODY UINT32_MAX

typedef struct bw_assign_topic {
    const char *name;
    uint32_t partitions;
} bw_assign_topic;

typedef struct bw_assign_part { uint32_t topic, partition; } bw_assign_part;

typedef struct bw_assign_member {
    const char *id;
    const char *instance;        /* NULL: none */
    const uint32_t *topics;      /* indexes, in any order */
    size_t topic_count;
    const bw_assign_part *owned; /* what it says it had; for the sticky ones. What is not there any more is passed over */
    size_t owned_count;
    int32_t generation;          /* of `owned`: of two claims the newer counts, of two equally new ones neither */
} bw_assign_member;

/* bw_assignor_name, bw_assignor_by_name: "range", "roundrobin", "sticky", "cooperative-sticky". UNSUPPORTED_ASSIGNOR. */
const char *bw_assignor_name(bw_assignor_kind kind);
bw_err bw_assignor_by_name(const char *name, size_t len, bw_assignor_kind *out);

/* bw_assign: owners[first partition of the topic + partition] is the index of a member, or BW_NOBODY; topics lie one after the other
 * in the order they are given in. NO_MEMORY. */
bw_err bw_assign(bw_assignor_kind kind, const bw_assign_topic *topics, size_t topic_count, const bw_assign_member *members,
                 size_t member_count, uint32_t *owners);

/* bw_assign_compare_ids: as Java compares strings (UTF-16 units), on UTF-8. */
int bw_assign_compare_ids(const char *a, const char *b);

#endif
