/* client/consumer_assign.c: which partitions a consumer reads, and from where. */
#include "client/consumer_group.h"

#include "client/backend.h"

#include "format/names.h"

#include <busway/admin.h>
#include <stdlib.h>
#include <string.h>

static bw_err check(bw_consumer *c, const char *topic)
{
    if (!c) return bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no consumer");
    BW_CHECK_FORK(c->bus);
    if (!topic) return bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no topic name");
    if (!c->foreign) bw_consumer_release(c);
    return BW_OK;
}

static bw_err check_offset(int64_t offset)
{
    if (offset >= 0 || offset == BW_OFFSET_BEGINNING || offset == BW_OFFSET_END) return BW_OK;
    return bw_fail(BW_ERR_INVALID_ARGUMENT, "offset %lld is neither an offset nor BW_OFFSET_BEGINNING or BW_OFFSET_END", (long long)offset);
}

bw_cpart *bw_consumer_find(const bw_consumer *c, const char *topic, int32_t partition)
{
    bw_cpart *p = c->parts;
    while (p && (p->partition != partition || strcmp(p->topic, topic) != 0)) p = p->next_part;
    return p;
}

static bw_err find_or_fail(bw_consumer *c, const char *topic, int32_t partition, bw_cpart **out)
{
    bw_err e = check(c, topic);
    if (e) return e;
    *out = bw_consumer_find(c, topic, partition);
    return *out ? BW_OK : bw_fail(BW_ERR_NOT_FOUND, "topic %s partition %d is not assigned to this consumer", topic, partition);
}

bw_err bw_cpart_open(bw_cpart *p, int64_t offset)
{
    bw_bus *bus = p->consumer->bus;
    bw_deadline deadline = bw_bus_request_deadline(bus);
    bw_err e = bw_cpart_open_direct(p, deadline);
    if (!e) {
        bw_direct_note(bus, p->topic, false, NULL);
        if (p->consumer->ipc_count) e = bw_consumer_use_watch(p->consumer);
        else if (p->consumer->epoll_fd >= 0) e = bw_consumer_hear(p->consumer);
        if (!e) {
            bw_cpart_seek_direct(p, offset);
            return BW_OK;
        }
        bw_cpart_close_direct(p);
    }
    if (!bw_direct_may_fall_back(bus, e)) return e;
    bw_direct_note(bus, p->topic, false, bw_error_message());
    return bw_cpart_open_ipc(p, offset, deadline);
}

static bw_err seek(bw_cpart *p, int64_t offset)
{
    p->untold = BW_OK;
    p->leader_epoch = -1;
    if (p->direct) {
        bw_cpart_seek_direct(p, offset);
        return BW_OK;
    }
    bw_consumer *c = p->consumer;
    if (p->held_tail || !c->group || c->group->state == BW_MEMBER_OUT)
        return bw_cpart_open_ipc(p, offset, bw_bus_request_deadline(c->bus));
    p->position = offset; /* of a group, and not opened yet */
    p->wanting = c->group->wanting = true;
    p->stopped = false;
    c->group->due_ms = 0;
    return BW_OK;
}

bw_cpart *bw_cpart_create(bw_consumer *c, const char *topic, int32_t partition)
{
    bw_cpart *p = calloc(1, sizeof *p);
    if (!p) return NULL;
    p->consumer = c;
    p->partition = partition;
    p->leader_epoch = -1;
    p->committed = -1;
    memcpy(p->topic, topic, strlen(topic) + 1);
    p->before = c->parts_tail;
    *p->before = p; /* in the order of assignment */
    c->parts_tail = &p->next_part;
    return p;
}

void bw_cpart_remove(bw_cpart *p)
{
    bw_consumer *c = p->consumer;
    *p->before = p->next_part;
    if (p->next_part) p->next_part->before = p->before;
    else c->parts_tail = p->before;
    bw_cpart_rest(p);
    if (p->direct) bw_cpart_close_direct(p);
    else bw_cpart_close_ipc(p);
    free(p->trouble);
    free(p);
}

static bw_err assign_one(bw_consumer *c, const char *topic, int32_t partition, int64_t offset, const bw_uuid *id)
{
    bw_cpart *p = bw_consumer_find(c, topic, partition);
    if (p) return seek(p, offset);
    p = bw_cpart_create(c, topic, partition);
    if (!p) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a partition");
    p->topic_id = *id;
    bw_err e = bw_cpart_open(p, offset);
    if (!e) return BW_OK;
    bw_cpart_remove(p);
    return bw_error_context(e, "topic %s partition %d", topic, partition);
}

bw_err bw_consumer_assign(bw_consumer *c, const char *topic, int32_t partition, int64_t offset)
{
    bw_err e = check(c, topic);
    if (!e) e = check_offset(offset);
    if (!e) e = bw_topic_name_check(topic, strlen(topic));
    if (e) return e;
    BW_DISPATCH(c->bus, assign(c, topic, partition, offset));
    e = bw_group_check_by_hand(c);
    bw_topic_info info;
    if (!e) e = bw_bus_topic_info(c->bus, topic, false, bw_bus_request_deadline(c->bus), &info);
    if (e) return e;
    if (partition != BW_PARTITION_ANY && (partition < 0 || partition >= info.partitions))
        return bw_fail(BW_ERR_UNKNOWN_PARTITION, "topic %s has no partition %d; it has %d", topic, partition, info.partitions);
    int32_t from = partition == BW_PARTITION_ANY ? 0 : partition, to = partition == BW_PARTITION_ANY ? info.partitions : partition + 1;
    for (int32_t i = from; i < to && !e; i++) e = assign_one(c, topic, i, offset, &info.id);
    bw_consumer_fd_update(c);
    return e;
}

bw_err bw_consumer_unassign(bw_consumer *c, const char *topic, int32_t partition)
{
    bw_err e = check(c, topic);
    if (e) return e;
    BW_DISPATCH(c->bus, unassign(c, topic, partition));
    if ((e = bw_group_check_by_hand(c))) return e;
    bool any = false;
    for (bw_cpart *p = c->parts, *next; p; p = next) {
        next = p->next_part;
        if (strcmp(p->topic, topic) != 0 || (partition != BW_PARTITION_ANY && p->partition != partition)) continue;
        bw_cpart_remove(p);
        any = true;
    }
    bw_consumer_fd_update(c);
    return any ? BW_OK : bw_fail(BW_ERR_NOT_FOUND, "topic %s partition %d is not assigned to this consumer", topic, partition);
}

bw_err bw_consumer_seek(bw_consumer *c, const char *topic, int32_t partition, int64_t offset)
{
    bw_cpart *p;
    bw_err e = check(c, topic);
    if (e) return e;
    if (c->foreign) return (e = check_offset(offset)) ? e : c->bus->backend->seek(c, topic, partition, offset);
    e = find_or_fail(c, topic, partition, &p);
    if (!e) e = check_offset(offset);
    if (!e) e = seek(p, offset);
    if (!e) bw_consumer_fd_update(c);
    return e;
}

bw_err bw_consumer_seek_time(bw_consumer *c, const char *topic, int32_t partition, int64_t timestamp_ms)
{
    bw_cpart *p;
    int64_t offset;
    bw_err e = check(c, topic);
    if (e) return e;
    BW_DISPATCH(c->bus, seek_time(c, topic, partition, timestamp_ms));
    e = find_or_fail(c, topic, partition, &p);
    if (!e) e = bw_offset_for_time(c->bus, topic, partition, timestamp_ms, &offset, NULL);
    if (!e) e = seek(p, offset);
    if (!e) bw_consumer_fd_update(c);
    return e;
}

bw_err bw_consumer_position(bw_consumer *c, const char *topic, int32_t partition, int64_t *offset)
{
    if (!c) return bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no consumer");
    BW_CHECK_FORK(c->bus);
    BW_DISPATCH(c->bus, position(c, topic ? topic : "", partition, offset));
    bw_cpart *p = topic ? bw_consumer_find(c, topic, partition) : NULL;
    if (!p) return bw_fail(BW_ERR_NOT_FOUND, "topic %s partition %d is not assigned to this consumer", topic ? topic : "", partition);
    if (offset) *offset = p->position >= 0 ? p->position : BW_OFFSET_INVALID;
    return BW_OK;
}

bw_err bw_consumer_pause(bw_consumer *c, const char *topic, int32_t partition)
{
    bw_cpart *p;
    bw_err e = check(c, topic);
    if (e) return e;
    BW_DISPATCH(c->bus, pause(c, topic, partition, true));
    e = find_or_fail(c, topic, partition, &p);
    if (e) return e;
    p->paused = true;
    bw_cpart_rest(p);
    return BW_OK;
}

bw_err bw_consumer_resume(bw_consumer *c, const char *topic, int32_t partition)
{
    bw_cpart *p;
    bw_err e = check(c, topic);
    if (e) return e;
    BW_DISPATCH(c->bus, pause(c, topic, partition, false));
    e = find_or_fail(c, topic, partition, &p);
    if (e || !p->paused) return e;
    p->paused = false;
    if (p->direct) bw_cpart_make_ready(p);
    else if (p->held_tail) bw_cpart_resume_ipc(p);
    bw_consumer_fd_update(c);
    return BW_OK;
}
