/* broker/assignor_plan.h: what the assignors share: members by rank (their place in the order) and, for each topic, who subscribes.
 * For the files assignor*.c only. */
#ifndef BW_BROKER_ASSIGNOR_PLAN_H
#define BW_BROKER_ASSIGNOR_PLAN_H

#include "broker/assignor.h"

#include <stdbool.h>

typedef struct bw_assign_plan {
    const bw_assign_topic *topics;
    uint32_t topic_count;
    const bw_assign_member *members;
    uint32_t member_count;
    uint32_t part_count;
    uint32_t *order;      /* rank -> member */
    uint32_t *first;      /* topic -> its first partition; topic_count + 1 of them */
    uint32_t *sub_first;  /* topic -> its first subscriber in subs; topic_count + 1 of them */
    uint32_t *subs;       /* ranks, ascending within a topic */
    uint32_t *owner;      /* partition -> rank */
} bw_assign_plan;

static inline uint32_t bw_plan_subscribers(const bw_assign_plan *p, uint32_t topic) { return p->sub_first[topic + 1] - p->sub_first[topic]; }

/* bw_assign_sticky: fill owner. NO_MEMORY. */
bw_err bw_assign_sticky(bw_assign_plan *p);

#endif
