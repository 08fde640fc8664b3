/* proto/message.c: making and freeing of requests and answers. What each carries: message_fields.c. */
#include "proto/message_fields.h"

#include <stdlib.h>

void bw_request_init(bw_request *r, bw_api_key type)
{
    memset(r, 0, sizeof *r);
    r->type = (uint16_t)type;
    const bw_shape *s = bw_request_shape((uint16_t)type);
    if (s) { bw_shape_defaults(s, r); }
}

void bw_request_fini(bw_request *r)
{
    free(r->configs);
    free(r->parts);
    r->configs = NULL;
    r->config_count = 0;
    r->parts = NULL;
    r->part_count = 0;
    bw_group_request *g = &r->group;
    free(g->topics);
    free(g->parts);
    free(g->protocols);
    free(g->assignments);
    g->topics = NULL;
    g->parts = NULL;
    g->protocols = NULL;
    g->assignments = NULL;
    g->topic_count = g->part_count = g->protocol_count = g->assignment_count = 0;
    free(r->queue.topics);
    free(r->queue.items);
    r->queue.topics = NULL;
    r->queue.items = NULL;
    r->queue.topic_count = r->queue.item_count = 0;
    free(r->link.parts);
    r->link.parts = NULL;
    r->link.part_count = 0;
}

static void answer_init(bw_answer *a, uint16_t type, uint32_t correlation)
{
    memset(a, 0, sizeof *a);
    a->type = type;
    a->correlation = correlation;
    const bw_shape *s = bw_answer_shape(type);
    if (s) { bw_shape_defaults(s, a); }
}

void bw_answer_init(bw_answer *a, const bw_request *to) { answer_init(a, to ? to->type : BW_API_DATA, to ? to->correlation : 0); }

void bw_answer_init_push(bw_answer *a, bw_api_key type) { answer_init(a, (uint16_t)type, 0); }

void bw_answer_fini(bw_answer *a)
{
    free(a->topics);
    free(a->parts);
    a->topics = NULL;
    a->topic_count = 0;
    a->parts = NULL;
    a->part_count = 0;
    free(a->group.parts);
    free(a->group.members);
    a->group.parts = NULL;
    a->group.members = NULL;
    a->group.part_count = a->group.member_count = 0;
    free(a->queue.runs);
    free(a->queue.items);
    a->queue.runs = NULL;
    a->queue.items = NULL;
    a->queue.run_count = a->queue.item_count = 0;
    free(a->link.parts);
    a->link.parts = NULL;
    a->link.part_count = 0;
}

const char *bw_api_name(uint16_t type)
{
    const bw_shape *s = bw_answer_shape(type);
    return s ? s->name : NULL;
}
