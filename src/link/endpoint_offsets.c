/* link/endpoint_offsets.c: groups' committed offsets of a daemon: read at the source, committed at the sink, by nobody's member. */
#include "link/endpoint_bus.h"
#include "link/spec.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

struct list {
    bw_group_offset *items;
    size_t count, cap;
};

static bw_err add(struct list *l, const char *group, const bw_offset_part *p)
{
    if (p->error || p->offset < 0 || p->topic.len > BW_TOPIC_NAME_MAX) return BW_OK;
    if (l->count == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 16;
        bw_group_offset *grown = realloc(l->items, cap * sizeof *grown);
        if (!grown) return bw_fail(BW_ERR_NO_MEMORY, "no memory for groups' offsets");
        l->items = grown;
        l->cap = cap;
    }
    bw_group_offset *o = &l->items[l->count++];
    *o = (bw_group_offset){.id = p->topic_id, .partition = p->partition, .epoch = p->leader_epoch, .offset = p->offset};
    snprintf(o->group, sizeof o->group, "%s", group);
    memcpy(o->topic, p->topic.data, p->topic.len);
    return BW_OK;
}

static bw_err read_group(bw_channel *c, const bw_link_spec *spec, const char *group, struct list *l, bw_deadline deadline)
{
    bw_request r;
    bw_reply reply;
    bw_request_init(&r, BW_API_OFFSET_FETCH);
    r.group.id = bw_str_of(group);
    bw_err e = bw_channel_request(c, &r, deadline, &reply);
    for (size_t i = 0; !e && i < reply.answer.group.part_count; i++) {
        const bw_offset_part *p = &reply.answer.group.parts[i];
        char name[BW_TOPIC_NAME_MAX + 1] = "";
        if (p->topic.len > BW_TOPIC_NAME_MAX) continue;
        memcpy(name, p->topic.data, p->topic.len);
        if (bw_patterns_match(&spec->topics, name, NULL)) e = add(l, group, p);
    }
    bw_reply_fini(&reply);
    return e;
}

bw_err bw_bus_offsets(bw_endpoint *ep, const bw_link_spec *spec, bw_group_offset **out, size_t *count, bw_deadline deadline)
{
    bw_channel *c = bw_bus_channel(ep);
    bw_request r;
    bw_reply reply;
    bw_buf text = {0};
    struct list l = {0};
    bw_request_init(&r, BW_API_LIST_GROUPS);
    bw_err e = bw_channel_request(c, &r, deadline, &reply);
    if (!e) e = bw_json_from_msgpack(reply.answer.doc, reply.answer.doc_len, &text);
    bw_reply_fini(&reply);
    json_t *doc = e ? NULL : json_loadb((const char *)text.data, text.len, 0, NULL), *group;
    bw_buf_free(&text);
    if (!e && !doc) e = bw_fail(BW_ERR_PROTOCOL, "the list of groups can't be read");
    for (size_t i = 0; !e && (group = json_array_get(doc, i)); i++) {
        const char *name = json_string_value(json_object_get(group, "group"));
        if (name && strlen(name) <= BW_GROUP_ID_MAX && bw_patterns_match(&spec->groups, name, NULL)) e = read_group(c, spec, name, &l, deadline);
    }
    json_decref(doc);
    if (e) free(l.items);
    else {
        *out = l.items;
        *count = l.count;
    }
    return e;
}

/* Those of one group lie together. */
bw_err bw_bus_commit(bw_endpoint *ep, const bw_group_offset *offsets, size_t count, bw_deadline deadline)
{
    bw_err e = BW_OK;
    for (size_t from = 0, to; !e && from < count; from = to) {
        for (to = from; to < count && !strcmp(offsets[to].group, offsets[from].group);) to++;
        bw_request r;
        bw_reply reply;
        bw_request_init(&r, BW_API_OFFSET_COMMIT);
        r.group.id = bw_str_of(offsets[from].group);
        r.group.epoch = -1;
        r.group.part_count = to - from;
        if (!(r.group.parts = calloc(to - from, sizeof *r.group.parts))) return bw_fail(BW_ERR_NO_MEMORY, "no memory for groups' offsets");
        for (size_t i = from; i < to; i++)
            r.group.parts[i - from] = (bw_offset_part){.topic = bw_str_of(offsets[i].topic), .partition = offsets[i].partition,
                                                       .offset = offsets[i].offset, .leader_epoch = offsets[i].epoch};
        e = bw_channel_request(bw_bus_channel(ep), &r, deadline, &reply);
        bw_reply_fini(&reply);
        bw_request_fini(&r);
        if (e == BW_ERR_NOT_CONNECTED || e == BW_ERR_TIMED_OUT) return e;
        e = BW_OK; /* a group that has members there is theirs */
    }
    return e;
}
