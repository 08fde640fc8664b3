/* client/groups.c: groups from outside: the calls of busway/group.h: one request each. */
#include "client/admin.h"

#include "client/backend.h"

#include <busway/group.h>
#include <stdlib.h>
#include <string.h>

static bw_err check(const bw_bus *bus, const char *group)
{
    if (!bus) return bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no bus");
    BW_CHECK_FORK(bus);
    if (!group) return bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no group");
    return BW_OK;
}

static bw_request group_request(bw_api_key type, const char *group)
{
    bw_request q;
    bw_request_init(&q, type);
    q.group.id = bw_str_of(group);
    return q;
}

bw_err bw_groups_list(bw_bus *bus, char **json)
{
    bw_err e = check(bus, "");
    if (!e && !json) e = bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no place for the answer");
    if (e) return e;
    BW_DISPATCH(bus, groups_list(bus, json));
    bw_request q = group_request(BW_API_LIST_GROUPS, "");
    return bw_admin_document(bus, &q, json);
}

bw_err bw_group_describe(bw_bus *bus, const char *group, char **json)
{
    bw_err e = check(bus, group);
    if (!e && !json) e = bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no place for the answer");
    if (e) return e;
    BW_DISPATCH(bus, group_describe(bus, group, json));
    bw_request q = group_request(BW_API_DESCRIBE_GROUP, group);
    return bw_admin_document(bus, &q, json);
}

bw_err bw_group_delete(bw_bus *bus, const char *group)
{
    bw_err e = check(bus, group);
    if (e) return e;
    BW_DISPATCH(bus, group_delete(bus, group));
    bw_request q = group_request(BW_API_DELETE_GROUP, group);
    return bw_admin_ask(bus, &q);
}

/* ---- offsets ---- */

/* Somebody who is no member is refused as such while the group has members: to an administrator that is the reason. */
static bw_err as_seen(bw_err e) { return e == BW_ERR_UNKNOWN_MEMBER_ID ? BW_ERR_NON_EMPTY_GROUP : e; }

/* Each part's outcome; the first one that failed, with its message. */
static bw_err take_outcomes(const bw_answer *a, const char *group, bw_group_offset *offsets, size_t count)
{
    bw_err first = BW_OK;
    if (a->group.part_count != count)
        return bw_fail(BW_ERR_PROTOCOL, "group '%s': an answer of %zu parts to a request of %zu", group, a->group.part_count, count);
    for (size_t i = 0; i < count; i++) {
        const bw_offset_part *p = &a->group.parts[i];
        offsets[i].error = as_seen((bw_err)p->error);
        if (first || !p->error) continue;
        first = offsets[i].error;
        if (p->message.len) bw_fail(first, "group '%s': %.*s", group, (int)p->message.len, p->message.data);
        else bw_fail(first, "group '%s', topic '%s' partition %d: %s", group, offsets[i].topic, offsets[i].partition, bw_err_text(first));
    }
    return first;
}

static bw_err ask_parts(bw_bus *bus, bw_api_key type, const char *group, bw_group_offset *offsets, size_t count)
{
    bw_err e = check(bus, group);
    if (!e && (count == 0 || !offsets)) e = bw_fail(BW_ERR_INVALID_ARGUMENT, "group '%s': there are no partitions", group);
    for (size_t i = 0; i < count && !e; i++)
        if (!offsets[i].topic) e = bw_fail(BW_ERR_INVALID_ARGUMENT, "group '%s': partition %zu of the list has no topic", group, i);
    if (e) return e;
    if (type == BW_API_OFFSET_COMMIT) BW_DISPATCH(bus, group_offsets_alter(bus, group, offsets, count));
    BW_DISPATCH(bus, group_offsets_delete(bus, group, offsets, count));
    bw_offset_part *parts = calloc(count, sizeof *parts);
    if (!parts) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a request");
    for (size_t i = 0; i < count; i++)
        parts[i] = (bw_offset_part){.topic = bw_str_of(offsets[i].topic), .partition = offsets[i].partition, .leader_epoch = -1, .timestamp = -1,
                                    .offset = type == BW_API_OFFSET_COMMIT ? offsets[i].offset : -1,
                                    .metadata = bw_str_of(type == BW_API_OFFSET_COMMIT ? offsets[i].metadata : NULL)};
    bw_request q = group_request(type, group);
    q.group.parts = parts;
    q.group.part_count = count;
    bw_reply reply;
    e = bw_bus_request(bus, &q, bw_bus_request_deadline(bus), &reply);
    if (e) {
        e = as_seen(e);
        for (size_t i = 0; i < count; i++) offsets[i].error = e;
        if (e == BW_ERR_NON_EMPTY_GROUP) bw_fail(e, "group '%s' has members, which would go on from where they are: stop them first", group);
    } else e = take_outcomes(&reply.answer, group, offsets, count);
    bw_reply_fini(&reply);
    free(parts);
    return e;
}

bw_err bw_group_offsets_alter(bw_bus *bus, const char *group, bw_group_offset *offsets, size_t count)
{
    return ask_parts(bus, BW_API_OFFSET_COMMIT, group, offsets, count);
}

bw_err bw_group_offsets_delete(bw_bus *bus, const char *group, bw_group_offset *offsets, size_t count)
{
    return ask_parts(bus, BW_API_OFFSET_DELETE, group, offsets, count);
}
