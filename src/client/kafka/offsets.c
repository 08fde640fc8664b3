/* client/kafka/offsets.c: where logs begin and end, which offset a time has, deleting records. */
#include "client/kafka/kafka.h"

#include <stdlib.h>
#include <string.h>

enum { AGAIN_MS = 5000, NAP_MS = 50 };

/* Until when to ask again: a leader that moves comes back; a topic that is new is known soon, and one that is not there never. 0: not. */
static bw_deadline passes(rd_kafka_resp_err_t error, bw_deadline soon, bw_deadline deadline)
{
    if (error == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) return soon;
    bool moves = error == RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION || error == RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE ||
                 error == RD_KAFKA_RESP_ERR_OFFSET_NOT_AVAILABLE;
    return moves ? deadline : 0;
}

static bw_err ask_once(bw_kbus *k, rd_kafka_t *rk, rd_kafka_topic_partition_list_t *list, bw_deadline soon, bw_deadline deadline,
                       bw_deadline *again)
{
    *again = 0;
    rd_kafka_resp_err_t r = RK(offsets_for_times)(rk, list, bw_kafka_left_ms(deadline));
    if (r) {
        *again = passes(r, soon, deadline);
        return bw_kafka_fail_wait(k, r, "asking for offsets");
    }
    for (int i = 0; i < list->cnt; i++) {
        const rd_kafka_topic_partition_t *p = &list->elems[i];
        if (!p->err) continue;
        *again = passes(p->err, soon, deadline);
        return bw_kafka_fail(p->err, NULL, "topic %s partition %d", p->topic, p->partition);
    }
    return BW_OK;
}

bw_err bw_kafka_offsets(bw_kbus *k, rd_kafka_t *rk, rd_kafka_topic_partition_list_t *list, bw_deadline deadline)
{
    if (list->cnt == 0) return BW_OK;
    bw_deadline soon = bw_deadline_first(deadline, bw_deadline_in_ms(AGAIN_MS));
    int64_t *wanted = calloc((size_t)list->cnt, sizeof *wanted);
    if (!wanted) return bw_fail(BW_ERR_NO_MEMORY, "no memory to ask for offsets");
    for (int i = 0; i < list->cnt; i++) wanted[i] = list->elems[i].offset;
    for (;;) {
        bw_deadline again;
        for (int i = 0; i < list->cnt; i++) {
            list->elems[i].offset = wanted[i];
            list->elems[i].err = RD_KAFKA_RESP_ERR_NO_ERROR;
        }
        bw_err e = ask_once(k, rk, list, soon, deadline, &again);
        if (!e || !again || bw_deadline_left_ns(again) == 0) {
            free(wanted);
            return e;
        }
        bw_kafka_nap(NAP_MS);
    }
}

/* One look-up; `at` as bw_kafka_offsets. -1: there is no record from that time on. */
static bw_err look_up(bw_kbus *k, rd_kafka_t *rk, const char *topic, int32_t partition, int64_t at, bw_deadline deadline, int64_t *offset)
{
    rd_kafka_topic_partition_list_t *list = RK(topic_partition_list_new)(1);
    RK(topic_partition_list_add)(list, topic, partition)->offset = at;
    bw_err e = bw_kafka_offsets(k, rk, list, deadline);
    *offset = list->elems[0].offset;
    RK(topic_partition_list_destroy)(list);
    return e;
}

/* A partition that is not there would be asked for until the time is over. */
static bw_err check_partition(bw_kbus *k, rd_kafka_t *rk, const char *topic, int32_t partition, bw_deadline deadline)
{
    int32_t count = 0;
    bw_err e = bw_kafka_partitions(k, rk, topic, false, deadline, &count);
    if (!e && (partition < 0 || partition >= count))
        e = bw_fail(BW_ERR_UNKNOWN_PARTITION, "topic %s has no partition %d; it has %d", topic, partition, count);
    return e;
}

bw_err bw_kafka_log_range(bw_kbus *k, rd_kafka_t *rk, const char *topic, int32_t partition, bw_deadline deadline, int64_t *start, int64_t *end)
{
    bw_err e = look_up(k, rk, topic, partition, BW_OFFSET_BEGINNING, deadline, start);
    return e ? e : look_up(k, rk, topic, partition, BW_OFFSET_END, deadline, end);
}

bw_err bw_kafka_offsets_range(bw_bus *bus, const char *topic, int32_t partition, bw_offset_range *out)
{
    bw_kbus *k = bw_kbus_of(bus);
    bw_deadline deadline = bw_bus_request_deadline(bus);
    int64_t start = 0, end = 0;
    bw_err e = check_partition(k, k->rk, topic, partition, deadline);
    if (!e) e = bw_kafka_log_range(k, k->rk, topic, partition, deadline, &start, &end);
    if (!e && out) *out = (bw_offset_range){start, end, end};
    return e;
}

/* librdkafka keeps the time of the record that it found to itself: the record says it. */
static bw_err read_time(bw_bus *bus, const char *topic, int32_t partition, int64_t offset, int64_t *found_ms)
{
    bw_consumer *c;
    bw_batch batch;
    bw_record_view record;
    bw_err e = bw_consumer_open(bus, NULL, &c);
    if (e) return e;
    e = bw_consumer_assign(c, topic, partition, offset);
    if (!e) e = bw_consumer_poll(c, bus->request_timeout_ms, &batch);
    if (!e && bw_batch_next(&batch, &record) == 1) *found_ms = record.timestamp_ms;
    bw_consumer_close(c);
    return e;
}

bw_err bw_kafka_offset_for_time(bw_bus *bus, const char *topic, int32_t partition, int64_t timestamp_ms, int64_t *offset, int64_t *found_ms)
{
    bw_kbus *k = bw_kbus_of(bus);
    bw_deadline deadline = bw_bus_request_deadline(bus);
    int64_t at = -1;
    bw_err e = check_partition(k, k->rk, topic, partition, deadline);
    if (!e) e = look_up(k, k->rk, topic, partition, timestamp_ms, deadline, &at);
    bool none = !e && at < 0;
    if (none) e = look_up(k, k->rk, topic, partition, BW_OFFSET_END, deadline, &at);
    if (e) return e;
    if (offset) *offset = at;
    if (!found_ms) return BW_OK;
    *found_ms = -1;
    return none ? BW_OK : read_time(bus, topic, partition, at, found_ms);
}

bw_err bw_kafka_delete_records(bw_bus *bus, const char *topic, int32_t partition, int64_t before_offset, int64_t *log_start)
{
    bw_kbus *k = bw_kbus_of(bus);
    bw_kafka_ask a;
    char what[BW_TOPIC_NAME_MAX + 48];
    snprintf(what, sizeof what, "topic %s partition %d: deleting records", topic, partition);
    bw_err e = check_partition(k, k->rk, topic, partition, bw_bus_request_deadline(bus));
    if (!e) e = bw_kafka_ask_init(k, RD_KAFKA_ADMIN_OP_DELETERECORDS, &a);
    if (e) return e;
    rd_kafka_topic_partition_list_t *list = RK(topic_partition_list_new)(1);
    RK(topic_partition_list_add)(list, topic, partition)->offset = before_offset; /* the end is -1 here and there */
    rd_kafka_DeleteRecords_t *request = RK(DeleteRecords_new)(list);
    RK(topic_partition_list_destroy)(list);
    RK(DeleteRecords)(k->rk, &request, 1, a.options, a.queue);
    e = bw_kafka_ask_wait(k, &a, what);
    if (!e) {
        const rd_kafka_topic_partition_list_t *done =
            RK(DeleteRecords_result_offsets)(RK(event_DeleteRecords_result)(a.event));
        if (done->cnt != 1) e = bw_fail(BW_ERR_PROTOCOL, "%s: an answer of %d partitions", what, done->cnt);
        else if (done->elems[0].err) e = bw_kafka_fail(done->elems[0].err, NULL, "%s", what);
        else if (log_start) *log_start = done->elems[0].offset;
    }
    RK(DeleteRecords_destroy)(request);
    bw_kafka_ask_fini(&a);
    return e;
}
