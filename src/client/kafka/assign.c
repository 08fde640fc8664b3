/* client/kafka/assign.c: which partitions a consumer reads by hand, and from where. BW_OFFSET_BEGINNING and END are asked for at once, so that a
 * position is always a number. */
#include "client/kafka/consumer.h"

#include <stdlib.h>
#include <string.h>

static bw_err not_assigned(const char *topic, int32_t partition)
{
    return bw_fail(BW_ERR_NOT_FOUND, "topic %s partition %d is not assigned to this consumer", topic, partition);
}

static bw_err check_by_hand(const bw_kconsumer *k)
{
    if (k->topics)
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "this consumer is subscribed and its group assigns; unsubscribe before assigning by hand");
    return bw_kconsumer_check_call(k, "assigning by hand");
}

/* Partitions [first, last] begin at offset. */
static bw_err assign_range(bw_kconsumer *k, const char *topic, int32_t first, int32_t last, int64_t offset, bw_deadline deadline)
{
    rd_kafka_topic_partition_list_t *list = RK(topic_partition_list_new)(last - first + 1);
    for (int32_t p = first; p <= last; p++) RK(topic_partition_list_add)(list, topic, p)->offset = offset;
    bw_err e = offset < 0 ? bw_kafka_offsets(k->bus, k->rk, list, deadline) : BW_OK;
    rd_kafka_topic_partition_list_t *fresh = RK(topic_partition_list_new)(list->cnt);
    for (int i = 0; i < list->cnt && !e; i++) {
        bw_kpart *p = bw_kpart_find(k, topic, first + i);
        bool there = p != NULL;
        if (!there && !(p = bw_kpart_add(k, topic, first + i))) {
            e = bw_fail(BW_ERR_NO_MEMORY, "no memory for topic %s partition %d", topic, first + i);
            break;
        }
        p->position = list->elems[i].offset;
        p->stopped = p->untold = false;
        if (there && p->live) e = bw_kpart_restart(k, p);
        else RK(topic_partition_list_add)(fresh, topic, first + i)->offset = p->position;
    }
    if (fresh->cnt) {
        rd_kafka_error_t *error = e ? NULL : RK(incremental_assign)(k->rk, fresh);
        bool failed = e || error;
        if (error) e = bw_kafka_fail_object(error, "topic %s", topic);
        for (int i = 0; i < fresh->cnt; i++) {
            bw_kpart *p = bw_kpart_find(k, topic, fresh->elems[i].partition);
            if (p && failed) bw_kpart_remove(k, p);
            else if (p) p->live = true;
        }
    }
    RK(topic_partition_list_destroy)(fresh);
    RK(topic_partition_list_destroy)(list);
    return e;
}

bw_err bw_kafka_assign(bw_consumer *c, const char *topic, int32_t partition, int64_t offset)
{
    bw_kconsumer *k = bw_kconsumer_of(c);
    bw_deadline deadline = bw_bus_request_deadline(c->bus);
    int32_t count = 0;
    bw_err e = check_by_hand(k);
    if (!e) e = bw_kafka_partitions(k->bus, k->rk, topic, false, deadline, &count);
    if (e) return e;
    if (partition == BW_PARTITION_ANY) return assign_range(k, topic, 0, count - 1, offset, deadline);
    if (partition < 0 || partition >= count)
        return bw_fail(BW_ERR_UNKNOWN_PARTITION, "topic %s has no partition %d; it has %d", topic, partition, count);
    return assign_range(k, topic, partition, partition, offset, deadline);
}

bw_err bw_kafka_unassign(bw_consumer *c, const char *topic, int32_t partition)
{
    bw_kconsumer *k = bw_kconsumer_of(c);
    bw_err e = check_by_hand(k);
    if (e) return e;
    bw_kgroup_store(k, true);
    rd_kafka_topic_partition_list_t *list = RK(topic_partition_list_new)(1);
    bw_kpart *p, *next;
    bool any = false;
    HASH_ITER(hh, k->parts, p, next)
    {
        if (strcmp(p->topic, topic) != 0 || (partition != BW_PARTITION_ANY && p->partition != partition)) continue;
        if (p->live) RK(topic_partition_list_add)(list, p->topic, p->partition);
        bw_kpart_remove(k, p);
        any = true;
    }
    rd_kafka_error_t *error = list->cnt ? RK(incremental_unassign)(k->rk, list) : NULL;
    RK(topic_partition_list_destroy)(list);
    return any ? bw_kafka_fail_object(error, "topic %s", topic) : not_assigned(topic, partition);
}

/* ---- positions ---- */

static bw_err seek(bw_kconsumer *k, bw_kpart *p, int64_t offset)
{
    bw_err e = BW_OK;
    if (offset < 0) {
        rd_kafka_topic_partition_list_t *list = RK(topic_partition_list_new)(1);
        RK(topic_partition_list_add)(list, p->topic, p->partition)->offset = offset;
        e = bw_kafka_offsets(k->bus, k->rk, list, bw_bus_request_deadline(k->bus->bus));
        offset = list->elems[0].offset;
        RK(topic_partition_list_destroy)(list);
        if (e) return e;
    }
    p->position = offset;
    p->stopped = p->untold = false;
    e = bw_kpart_restart(k, p);
    if (!e && !k->calling) bw_kgroup_store(k, true);
    return e;
}

bw_err bw_kafka_seek(bw_consumer *c, const char *topic, int32_t partition, int64_t offset)
{
    bw_kconsumer *k = bw_kconsumer_of(c);
    bw_kpart *p = bw_kpart_find(k, topic, partition);
    return p ? seek(k, p, offset) : not_assigned(topic, partition);
}

bw_err bw_kafka_seek_time(bw_consumer *c, const char *topic, int32_t partition, int64_t timestamp_ms)
{
    bw_kconsumer *k = bw_kconsumer_of(c);
    bw_kpart *p = bw_kpart_find(k, topic, partition);
    int64_t offset = 0;
    if (!p) return not_assigned(topic, partition);
    bw_err e = bw_offset_for_time(c->bus, topic, partition, timestamp_ms, &offset, NULL);
    return e ? e : seek(k, p, offset);
}

bw_err bw_kafka_position(bw_consumer *c, const char *topic, int32_t partition, int64_t *offset)
{
    bw_kpart *p = bw_kpart_find(bw_kconsumer_of(c), topic, partition);
    if (!p) return not_assigned(topic, partition);
    if (offset) *offset = p->position;
    return BW_OK;
}

bw_err bw_kafka_pause(bw_consumer *c, const char *topic, int32_t partition, bool paused)
{
    bw_kconsumer *k = bw_kconsumer_of(c);
    bw_kpart *p = bw_kpart_find(k, topic, partition);
    if (!p) return not_assigned(topic, partition);
    if (p->paused == paused) return BW_OK;
    p->paused = paused;
    if (!p->live) return BW_OK;
    rd_kafka_topic_partition_list_t *list = bw_kpart_list(k, p, false);
    if (paused) RK(pause_partitions)(k->rk, list);
    else RK(resume_partitions)(k->rk, list);
    RK(topic_partition_list_destroy)(list);
    if (paused) {
        bool held = k->held != NULL;
        bw_kconsumer_drop(k, p);
        if (held && !k->held) p->restart = true;
        return BW_OK;
    }
    return p->restart ? bw_kpart_restart(k, p) : BW_OK;
}

bw_err bw_kafka_assignment(bw_consumer *c, bw_topic_partition **parts, size_t *count)
{
    const bw_kconsumer *k = bw_kconsumer_of(c);
    size_t n = HASH_COUNT(k->parts), bytes = 0, i = 0;
    for (const bw_kpart *p = k->parts; p; p = p->hh.next) bytes += sizeof **parts + strlen(p->topic) + 1;
    bw_topic_partition *list = malloc(bytes ? bytes : 1);
    if (!list) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a list of %zu partitions", n);
    char *at = (char *)(list + n);
    for (const bw_kpart *p = k->parts; p; p = p->hh.next) {
        list[i++] = (bw_topic_partition){.topic = at, .partition = p->partition, .leader_epoch = -1, .offset = p->position};
        at = stpcpy(at, p->topic) + 1;
    }
    *parts = list;
    *count = n;
    return BW_OK;
}
