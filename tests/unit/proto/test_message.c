/* Messages: each request and answer there and back, against msgpack-c's unpacker, cut at each byte, and lies. */
#include "proto/message.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <malloc.h>
#include <msgpack.h>
#include <stdlib.h>

/* Compares every field that any message has. */
static void assert_str_equal(bw_str a, bw_str b)
{
    assert_int_equal(a.len, b.len);
    if (a.len > 0) { assert_memory_equal(a.data, b.data, a.len); }
}

static void assert_requests_equal(const bw_request *a, const bw_request *b)
{
    assert_int_equal(a->type, b->type);
    assert_int_equal(a->correlation, b->correlation);
    assert_int_equal(a->version_min, b->version_min);
    assert_int_equal(a->version_max, b->version_max);
    assert_str_equal(a->client_id, b->client_id);
    assert_int_equal(a->client_pid, b->client_pid);
    assert_str_equal(a->topic, b->topic);
    assert_int_equal(a->partition, b->partition);
    assert_int_equal(a->partitions, b->partitions);
    assert_int_equal(a->config_count, b->config_count);
    for (size_t i = 0; i < a->config_count; i++) {
        assert_str_equal(a->configs[i].name, b->configs[i].name);
        assert_str_equal(a->configs[i].value, b->configs[i].value);
        assert_int_equal(a->configs[i].has_value, b->configs[i].has_value);
    }
    assert_int_equal(a->allow_auto_create, b->allow_auto_create);
    assert_int_equal(a->acks, b->acks);
    assert_int_equal(a->timeout_ms, b->timeout_ms);
    assert_int_equal(a->records, b->records);
    assert_int_equal(a->payload_len, b->payload_len);
    if (a->payload_len) { assert_memory_equal(a->payload, b->payload, a->payload_len); }
    assert_true(a->offset == b->offset);
    assert_true(a->timestamp == b->timestamp);
    assert_int_equal(a->read_limit, b->read_limit);
    assert_int_equal(a->max_wait_ms, b->max_wait_ms);
    assert_int_equal(a->min_bytes, b->min_bytes);
    assert_int_equal(a->max_bytes, b->max_bytes);
    assert_int_equal(a->part_count, b->part_count);
    for (size_t i = 0; i < a->part_count; i++) {
        assert_str_equal(a->parts[i].topic, b->parts[i].topic);
        assert_int_equal(a->parts[i].partition, b->parts[i].partition);
        assert_true(a->parts[i].offset == b->parts[i].offset);
        assert_int_equal(a->parts[i].max_bytes, b->parts[i].max_bytes);
    }
    assert_int_equal(a->subscription, b->subscription);
    assert_true(a->credit == b->credit);
    assert_str_equal(a->producer_name, b->producer_name);
    assert_int_equal(a->for_write, b->for_write);
    assert_int_equal(a->mailbox, b->mailbox);
    assert_str_equal(a->transport, b->transport);
    assert_str_equal(a->reason, b->reason);
    assert_str_equal(a->quota.user, b->quota.user);
    assert_str_equal(a->quota.client, b->quota.client);
    assert_str_equal(a->quota.pid, b->quota.pid);
}

static void assert_answers_equal(const bw_answer *a, const bw_answer *b)
{
    assert_int_equal(a->type, b->type);
    assert_int_equal(a->correlation, b->correlation);
    assert_int_equal(a->flags, b->flags);
    assert_int_equal(a->error, b->error);
    assert_str_equal(a->message, b->message);
    assert_int_equal(a->throttle_ms, b->throttle_ms);
    assert_int_equal(a->version, b->version);
    assert_int_equal(a->version_min, b->version_min);
    assert_int_equal(a->version_max, b->version_max);
    assert_str_equal(a->server_version, b->server_version);
    assert_str_equal(a->data_dir, b->data_dir);
    assert_str_equal(a->arena_dir, b->arena_dir);
    assert_memory_equal(a->generation, b->generation, 16);
    assert_int_equal(a->server_pid, b->server_pid);
    assert_true(a->server_uid == b->server_uid);
    assert_int_equal(a->frame_max, b->frame_max);
    assert_int_equal(a->topic_count, b->topic_count);
    for (size_t i = 0; i < a->topic_count; i++) {
        assert_str_equal(a->topics[i].name, b->topics[i].name);
        assert_memory_equal(&a->topics[i].id, &b->topics[i].id, 16);
        assert_int_equal(a->topics[i].partitions, b->topics[i].partitions);
        assert_int_equal(a->topics[i].log_append_time, b->topics[i].log_append_time);
        assert_str_equal(a->topics[i].compression, b->topics[i].compression);
        assert_int_equal(a->topics[i].message_max, b->topics[i].message_max);
        assert_int_equal(a->topics[i].error, b->topics[i].error);
    }
    assert_true(a->offset == b->offset);
    assert_true(a->timestamp == b->timestamp);
    assert_true(a->log_start == b->log_start && a->end == b->end && a->durable == b->durable);
    assert_int_equal(a->part_count, b->part_count);
    for (size_t i = 0; i < a->part_count; i++) {
        const bw_fetched_part *p = &a->parts[i], *q = &b->parts[i];
        assert_int_equal(p->error, q->error);
        assert_str_equal(p->message, q->message);
        assert_str_equal(p->topic, q->topic);
        assert_int_equal(p->partition, q->partition);
        assert_true(p->log_start == q->log_start && p->end == q->end && p->durable == q->durable);
        assert_int_equal(p->size, q->size);
    }
    assert_int_equal(a->subscription, b->subscription);
    assert_int_equal(a->payload_len, b->payload_len);
    if (a->payload_len) { assert_memory_equal(a->payload, b->payload, a->payload_len); }
    assert_true(a->producer_id == b->producer_id);
    assert_int_equal(a->producer_epoch, b->producer_epoch);
    assert_memory_equal(&a->topic_id, &b->topic_id, 16);
    assert_int_equal(a->partitions, b->partitions);
    assert_int_equal(a->mailbox, b->mailbox);
    assert_int_equal(a->doc_len, b->doc_len);
    if (a->doc_len) { assert_memory_equal(a->doc, b->doc, a->doc_len); }
}

static bw_frame frame_of(const bw_buf *b)
{
    bw_frame f;
    size_t used, need;
    assert_int_equal(bw_frame_parse(b->data, b->len, BW_FRAME_MAX_DEFAULT, &f, &used, &need), BW_OK);
    assert_int_equal(used, b->len);
    return f;
}

static bw_config_pair some_configs[2];
static bw_fetch_part some_parts[2];
static bw_topic_meta some_topics[2];
static bw_fetched_part some_fetched[2];
static const uint8_t some_doc[] = {0x82, 0xa1, 'a', 0x01, 0xa1, 'b', 0x92, 0xc0, 0xc3};

static bw_offset_part some_offsets[2];
static bw_subscription some_subscriptions[2];
static bw_group_protocol some_protocols[2];
static bw_group_member some_members[2];

static void fill_group_lists(void)
{
    some_offsets[0] = (bw_offset_part){.topic = bw_str_of("t"), .offset = -1, .leader_epoch = -1, .timestamp = -1};
    some_offsets[1] = (bw_offset_part){bw_str_of("u"), 3, INT64_C(1) << 50, 9, bw_str_of("why"), {{1, 2}}, 1700000000000, BW_ERR_INTERNAL,
                                       bw_str_of("no")};
    some_subscriptions[0] = (bw_subscription){bw_str_of("t"), false};
    some_subscriptions[1] = (bw_subscription){bw_str_of("a.*"), true};
    some_protocols[0] = (bw_group_protocol){bw_str_of("range"), {"\0\1\377", 3}};
    some_protocols[1] = (bw_group_protocol){bw_str_of("p"), {NULL, 0}};
    some_members[0] = (bw_group_member){bw_str_of("m1"), {NULL, 0}, {"\0", 1}};
    some_members[1] = (bw_group_member){bw_str_of("m2"), bw_str_of("i"), {NULL, 0}};
}

/* Fills the fields that type carries, with values that are not the defaults. */
static void fill_group_request(bw_group_request *g, uint16_t type)
{
    fill_group_lists();
    g->id = bw_str_of("g");
    if (type == BW_API_DESCRIBE_GROUP || type == BW_API_DELETE_GROUP) return;
    bool has_parts = type <= BW_API_GROUP_HEARTBEAT;
    if (has_parts) g->parts = some_offsets, g->part_count = 2;
    if (type == BW_API_OFFSET_FETCH || type == BW_API_OFFSET_DELETE) return;
    g->member = bw_str_of("m"), g->instance = bw_str_of("i");
    if (type != BW_API_JOIN_GROUP) g->epoch = 7;
    if (type == BW_API_OFFSET_COMMIT) g->durable = true;
    if (type == BW_API_GROUP_JOIN || type == BW_API_GROUP_HEARTBEAT)
        g->topics = some_subscriptions, g->topic_count = 2, g->mailbox = 12;
    if (type == BW_API_GROUP_JOIN) g->kind = 1, g->assignor = bw_str_of("sticky"), g->max_poll_interval_ms = 3;
    if (type == BW_API_GROUP_JOIN || type == BW_API_JOIN_GROUP) g->session_timeout_ms = 1, g->rebalance_timeout_ms = 2;
    if (type == BW_API_GROUP_HEARTBEAT) g->has_topics = g->has_owned = true;
    if (type == BW_API_JOIN_GROUP) g->protocols = some_protocols, g->protocol_count = 2, g->needs_member_id = true;
    if (type == BW_API_JOIN_GROUP || type == BW_API_SYNC_GROUP) g->protocol_type = bw_str_of("consumer");
    if (type == BW_API_SYNC_GROUP) g->protocol = bw_str_of("range"), g->assignments = some_members, g->assignment_count = 2;
    if (type == BW_API_JOIN_GROUP || type == BW_API_GROUP_LEAVE || type == BW_API_LEAVE_GROUP) g->reason = bw_str_of("r");
}

static void fill_group_answer(bw_group_answer *g, uint16_t type)
{
    fill_group_lists();
    if (type <= BW_API_OFFSET_DELETE) g->parts = some_offsets, g->part_count = 2;
    if (type == BW_API_GROUP_JOIN || type == BW_API_GROUP_HEARTBEAT || type == BW_API_GROUP_ASSIGNMENT)
        g->id = bw_str_of("g"), g->member = bw_str_of("m"), g->epoch = 4, g->lease_ms = 5, g->has_parts = true, g->parts = some_offsets,
        g->part_count = 2;
    if (type == BW_API_JOIN_GROUP)
        g->member = bw_str_of("m"), g->epoch = 4, g->leader = bw_str_of("l"), g->members = some_members, g->member_count = 2;
    if (type == BW_API_JOIN_GROUP || type == BW_API_SYNC_GROUP) g->protocol_type = bw_str_of("consumer"), g->protocol = bw_str_of("range");
    if (type == BW_API_SYNC_GROUP) g->assignment = (bw_str){"\0\2", 2};
}

static void fill_request(bw_request *r, uint16_t type)
{
    some_configs[0] = (bw_config_pair){bw_str_of("retention.ms"), bw_str_of("60000"), true};
    some_configs[1] = (bw_config_pair){bw_str_of("segment.bytes"), {NULL, 0}, false};
    some_parts[0] = (bw_fetch_part){bw_str_of("t"), 0, 0, 1048576};
    some_parts[1] = (bw_fetch_part){bw_str_of("topic-two"), 7, INT64_C(1) << 40, 4096};
    bw_request_init(r, (bw_api_key)type);
    r->correlation = 0xdeadbeef;
    switch (type) {
    case BW_API_HELLO: r->version_min = 2, r->version_max = 9, r->client_id = bw_str_of("kcat"), r->client_pid = 4711; return;
    case BW_API_METADATA: r->topic = bw_str_of("t"), r->allow_auto_create = false; return;
    case BW_API_CREATE_TOPIC:
    case BW_API_ALTER_TOPIC:
        r->topic = bw_str_of("t"), r->partitions = 12, r->configs = some_configs, r->config_count = 2;
        return;
    case BW_API_PRODUCE:
        r->topic = bw_str_of("t"), r->partition = 3, r->acks = 2, r->timeout_ms = 5, r->allow_auto_create = false;
        r->records = true, r->payload = (const uint8_t *)"batch", r->payload_len = 5;
        return;
    case BW_API_FETCH:
        r->read_limit = 1, r->max_wait_ms = 500, r->min_bytes = 100, r->max_bytes = 77, r->parts = some_parts, r->part_count = 2;
        r->records = true;
        return;
    case BW_API_SUBSCRIBE:
        r->subscription = 5, r->topic = bw_str_of("t"), r->partition = 1, r->offset = 99, r->read_limit = 1;
        r->credit = UINT64_MAX;
        return;
    case BW_API_CREDIT: r->subscription = 5, r->credit = 1 << 20; return;
    case BW_API_UNSUBSCRIBE: r->subscription = UINT32_MAX; return;
    case BW_API_LIST_OFFSETS: r->topic = bw_str_of("t"), r->partition = 1, r->timestamp = BW_OFFSET_BEGINNING; return;
    case BW_API_DELETE_RECORDS: r->topic = bw_str_of("t"), r->partition = 1, r->offset = BW_OFFSET_END; return;
    case BW_API_INIT_PRODUCER_ID:
        r->producer_name = bw_str_of("p1"), r->txn.id = bw_str_of("x"), r->txn.timeout_ms = 5, r->txn.producer_id = 7, r->txn.producer_epoch = 2;
        return;
    case BW_API_ATTACH: r->topic = bw_str_of("t"), r->for_write = true; return;
    case BW_API_RELEASE_MAILBOX: r->mailbox = 17; return;
    case BW_API_REPORT: r->topic = bw_str_of("t"), r->transport = bw_str_of("ipc"), r->reason = bw_str_of("other uid"); return;
    case BW_API_DELETE_TOPIC:
    case BW_API_DESCRIBE_TOPICS:
    case BW_API_DETACH: r->topic = bw_str_of("t"); return;
    case BW_API_OFFSET_COMMIT:
    case BW_API_OFFSET_FETCH:
    case BW_API_OFFSET_DELETE:
    case BW_API_GROUP_JOIN:
    case BW_API_GROUP_HEARTBEAT:
    case BW_API_GROUP_LEAVE:
    case BW_API_JOIN_GROUP:
    case BW_API_SYNC_GROUP:
    case BW_API_HEARTBEAT:
    case BW_API_LEAVE_GROUP:
    case BW_API_DESCRIBE_GROUP:
    case BW_API_DELETE_GROUP: fill_group_request(&r->group, type); return;
    case BW_API_TXN_OFFSET_COMMIT:
        fill_group_lists();
        r->txn.id = bw_str_of("x"), r->txn.producer_id = 9, r->txn.producer_epoch = 3, r->group.id = bw_str_of("g");
        r->group.member = bw_str_of("m"), r->group.instance = bw_str_of("i"), r->group.epoch = 5;
        r->group.parts = some_offsets, r->group.part_count = 2;
        return;
    case BW_API_END_TXN:
        r->txn.id = bw_str_of("x"), r->txn.producer_id = 9, r->txn.producer_epoch = 3, r->txn.commit = r->txn.durable = true;
        r->txn.records = 100;
        return;
    case BW_API_DESCRIBE_TRANSACTION:
    case BW_API_ABORT_TRANSACTION: r->txn.id = bw_str_of("x"); return;
    case BW_API_DESCRIBE_PRODUCERS: r->topic = bw_str_of("t"), r->partition = 2; return;
    case BW_API_PRODUCER_LAST: r->topic = bw_str_of("t"), r->partition = 2, r->producer_name = bw_str_of("p1"); return;
    case BW_API_SET_QUOTA: r->configs = some_configs, r->config_count = 2; /* fall through */
    case BW_API_LIST_QUOTAS: r->quota = (bw_quota_entity){bw_str_of("1000"), bw_str_of("kcat"), bw_str_of(BW_QUOTA_DEFAULT)}; return;
    default: return; /* MAILBOX, STATUS, LIST_GROUPS: nothing */
    }
}

static void fill_answer(bw_answer *a, uint16_t type)
{
    bw_request to = {.type = type, .correlation = 3};
    some_topics[0] = (bw_topic_meta){bw_str_of("a"), {{1, 2, 3}}, 4, true, bw_str_of("zstd"), 1048588, 0};
    some_topics[1] = (bw_topic_meta){bw_str_of("b"), {{0}}, 0, false, {NULL, 0}, 0, BW_ERR_UNKNOWN_TOPIC};
    some_fetched[0] = (bw_fetched_part){0, {NULL, 0}, bw_str_of("t"), 0, 0, 10, 5, 2};
    some_fetched[1] = (bw_fetched_part){BW_ERR_OFFSET_OUT_OF_RANGE, bw_str_of("no"), bw_str_of("u"), 1, 4, 5, -1, 3};
    if (bw_api_is_push((uint16_t)type)) bw_answer_init_push(a, (bw_api_key)type);
    else bw_answer_init(a, &to);
    a->throttle_ms = 17;
    switch (type) {
    case BW_API_HELLO:
        a->version = 1, a->version_min = 1, a->version_max = 2, a->server_version = bw_str_of("0.1.0"), a->data_dir = bw_str_of("/d");
        a->arena_dir = bw_str_of("/dev/shm/x"), memset(a->generation, 7, 16), a->server_pid = 12, a->server_uid = UINT64_MAX;
        a->frame_max = BW_FRAME_MAX_DEFAULT;
        return;
    case BW_API_METADATA: a->topics = some_topics, a->topic_count = 2; return;
    case BW_API_PRODUCE:
    case BW_API_LIST_OFFSETS: a->timestamp = 1700000000000; /* fall through */
    case BW_API_SUBSCRIBE:
    case BW_API_DELETE_RECORDS: a->offset = 1, a->log_start = 2, a->end = 3, a->durable = 4; return;
    case BW_API_DATA:
        a->offset = 1, a->log_start = 2, a->end = 3, a->durable = 4, a->subscription = 8; /* fall through */
    case BW_API_FETCH:
        a->parts = some_fetched, a->part_count = 2, a->payload = (const uint8_t *)"12345", a->payload_len = 5;
        return;
    case BW_API_INIT_PRODUCER_ID: a->producer_id = 1, a->producer_epoch = 2; return;
    case BW_API_TXN_OFFSET_COMMIT: fill_group_lists(), a->group.parts = some_offsets, a->group.part_count = 2; return;
    case BW_API_PRODUCER_LAST: a->producer_id = 1, a->producer_epoch = 2, a->sequence = 0, a->offset = 12; return;
    case BW_API_ATTACH: memset(&a->topic_id, 9, 16), a->partitions = 3; return;
    case BW_API_MAILBOX: a->mailbox = 2; return;
    case BW_API_STATUS:
    case BW_API_LIST_GROUPS:
    case BW_API_DESCRIBE_GROUP:
    case BW_API_LIST_TRANSACTIONS:
    case BW_API_DESCRIBE_TRANSACTION:
    case BW_API_DESCRIBE_PRODUCERS:
    case BW_API_LIST_QUOTAS:
    case BW_API_DESCRIBE_TOPICS: a->doc = some_doc, a->doc_len = sizeof some_doc; return;
    default: fill_group_answer(&a->group, type); return;
    }
}

/* msgpack-c finds exactly one map in the header. */
static void assert_header_is_a_map(const bw_frame *f)
{
    msgpack_unpacked u;
    size_t at = 0;
    msgpack_unpacked_init(&u);
    assert_int_equal(msgpack_unpack_next(&u, (const char *)f->header, f->header_len, &at), MSGPACK_UNPACK_SUCCESS);
    assert_int_equal(at, f->header_len);
    assert_int_equal(u.data.type, MSGPACK_OBJECT_MAP);
    for (uint32_t i = 0; i < u.data.via.map.size; i++) {
        assert_int_equal(u.data.via.map.ptr[i].key.type, MSGPACK_OBJECT_STR);
    }
    msgpack_unpacked_destroy(&u);
}

static void test_message_every_request_round_trips(void **state)
{
    (void)state;
    for (uint16_t type = 1; type < BW_API_KEY_COUNT; type++) {
        if (!bw_api_name(type)) { continue; } /* a number that is not given out */
        bw_request r, back;
        bw_buf b = {0}, again = {0};
        if (bw_api_is_push((uint16_t)type)) { continue; }
        for (int defaults = 0; defaults < 2; defaults++) {
            b.len = 0;
            if (defaults) {
                bw_request_init(&r, (bw_api_key)type);
            } else {
                fill_request(&r, type);
            }
            assert_int_equal(bw_request_encode(&r, &b, false), BW_OK);
            bw_frame f = frame_of(&b);
            assert_int_equal(f.flags, 0);
            assert_header_is_a_map(&f);
            if (defaults) { assert_int_equal(f.header_len, 1); } /* defaults are not sent */
            assert_int_equal(bw_request_decode(&f, &back), BW_OK);
            assert_requests_equal(&r, &back);
            again.len = 0;
            assert_int_equal(bw_request_encode(&back, &again, false), BW_OK);
            assert_int_equal(again.len, b.len);
            assert_memory_equal(again.data, b.data, b.len);
            bw_request_fini(&back);
        }
        bw_buf_free(&b);
        bw_buf_free(&again);
    }
}

static void test_message_every_answer_round_trips(void **state)
{
    (void)state;
    for (uint16_t type = 1; type < BW_API_KEY_COUNT; type++) {
        if (!bw_api_name(type)) { continue; } /* a number that is not given out */
        bw_answer a, back;
        bw_buf b = {0}, again = {0};
        for (int error = 0; error < 2; error++) {
            b.len = 0;
            fill_answer(&a, type);
            if (error) {
                bw_request to = {.type = type, .correlation = 3};
                if (bw_api_is_push((uint16_t)type)) bw_answer_init_push(&a, (bw_api_key)type);
            else bw_answer_init(&a, &to);
                a.error = BW_ERR_DISK_FULL, a.message = bw_str_of("disk full");
            }
            assert_int_equal(bw_answer_encode(&a, &b, false), BW_OK);
            bw_frame f = frame_of(&b);
            assert_int_equal(f.flags, bw_api_is_push((uint16_t)type) ? 0 : BW_FRAME_ANSWER);
            assert_header_is_a_map(&f);
            assert_int_equal(bw_answer_decode(&f, &back), BW_OK);
            assert_answers_equal(&a, &back);
            again.len = 0;
            assert_int_equal(bw_answer_encode(&back, &again, false), BW_OK);
            assert_int_equal(again.len, b.len);
            assert_memory_equal(again.data, b.data, b.len);
            bw_answer_fini(&back);
        }
        bw_buf_free(&b);
        bw_buf_free(&again);
    }
}

static void test_message_error_answer_keeps_only_what_errors_carry(void **state)
{
    (void)state;
    bw_answer a, back;
    bw_buf b = {0};
    fill_answer(&a, BW_API_HELLO);
    a.error = BW_ERR_UNSUPPORTED_VERSION;
    a.message = bw_str_of("m");
    assert_int_equal(bw_answer_encode(&a, &b, false), BW_OK);
    bw_frame f = frame_of(&b);
    assert_int_equal(bw_answer_decode(&f, &back), BW_OK);
    assert_int_equal(back.version_min, 1);
    assert_int_equal(back.version_max, 2);
    assert_int_equal(back.version, 0);
    assert_int_equal(back.data_dir.len, 0);
    b.len = 0;
    fill_answer(&a, BW_API_FETCH);
    a.error = BW_ERR_INTERNAL;
    assert_int_equal(bw_answer_encode(&a, &b, false), BW_OK);
    f = frame_of(&b);
    assert_int_equal(f.payload_len, 0);
    bw_buf_free(&b);
}

static void test_message_payload_elsewhere_is_counted(void **state)
{
    (void)state;
    bw_answer a;
    bw_buf whole = {0}, head = {0};
    fill_answer(&a, BW_API_FETCH);
    assert_int_equal(bw_answer_encode(&a, &whole, false), BW_OK);
    assert_int_equal(bw_answer_encode(&a, &head, true), BW_OK);
    assert_int_equal(head.len + a.payload_len, whole.len);
    assert_memory_equal(head.data, whole.data, head.len);
    bw_buf_free(&whole);
    bw_buf_free(&head);
}

static void test_message_cut_header_is_refused_and_leaks_nothing(void **state)
{
    (void)state;
    for (uint16_t type = 1; type < BW_API_KEY_COUNT; type++) {
        if (!bw_api_name(type)) { continue; } /* a number that is not given out */
        bw_request r;
        bw_answer a;
        bw_buf b = {0};
        fill_answer(&a, type);
        assert_int_equal(bw_answer_encode(&a, &b, false), BW_OK);
        bw_frame f = frame_of(&b);
        for (size_t len = 1; len < f.header_len; len++) {
            bw_frame cut = f;
            bw_answer back;
            uint8_t *exact = malloc(len);
            assert_non_null(exact);
            memcpy(exact, f.header, len);
            cut.header = exact;
            cut.header_len = len;
            assert_int_equal(bw_answer_decode(&cut, &back), BW_ERR_PROTOCOL);
            assert_null(back.parts);
            assert_null(back.topics);
            free(exact);
        }
        bw_buf_free(&b);
        if (bw_api_is_push((uint16_t)type)) { continue; }
        fill_request(&r, type);
        assert_int_equal(bw_request_encode(&r, &b, false), BW_OK);
        f = frame_of(&b);
        for (size_t len = 1; len < f.header_len; len++) {
            bw_frame cut = f;
            bw_request back;
            uint8_t *exact = malloc(len);
            assert_non_null(exact);
            memcpy(exact, f.header, len);
            cut.header = exact;
            cut.header_len = len;
            assert_int_equal(bw_request_decode(&cut, &back), BW_ERR_PROTOCOL);
            assert_null(back.configs);
            assert_null(back.parts);
            free(exact);
        }
        bw_buf_free(&b);
    }
}

static bw_err decode_header(uint16_t type, const char *header, size_t len, bw_request *out)
{
    bw_frame f = {.type = type, .header = (const uint8_t *)header, .header_len = len};
    return bw_request_decode(&f, out);
}
#define DECODE(type, literal, out) decode_header(type, literal, sizeof(literal) - 1, out)

static void test_message_unknown_keys_are_skipped(void **state)
{
    (void)state;
    bw_request r;
    assert_int_equal(DECODE(BW_API_METADATA, "\x83\xa3new\x92\x01\x81\xa1x\xc0\xa5topic\xa1t\xa5later\xc0", &r), BW_OK);
    assert_true(bw_str_is(r.topic, "t"));
    assert_true(r.allow_auto_create);
}

static void test_message_keys_in_any_order_are_read(void **state)
{
    (void)state;
    bw_request r;
    assert_int_equal(DECODE(BW_API_PRODUCE, "\x83\xa4" "acks\x02\xa9partition\x05\xa5topic\xa1t", &r), BW_OK);
    assert_int_equal(r.acks, 2);
    assert_int_equal(r.partition, 5);
    assert_true(bw_str_is(r.topic, "t"));
}

static void test_message_unknown_type_decodes_without_fields(void **state)
{
    (void)state;
    bw_request r;
    bw_frame f = {.type = 999, .correlation = 4, .header = (const uint8_t *)"\xc1", .header_len = 1};
    assert_int_equal(bw_request_decode(&f, &r), BW_OK);
    assert_int_equal(r.type, 999);
    assert_int_equal(r.correlation, 4);
    assert_null(bw_api_name(999));
    bw_answer a, back;
    bw_answer_init(&a, &r);
    a.error = BW_ERR_UNSUPPORTED;
    a.message = bw_str_of("unknown");
    bw_buf b = {0};
    assert_int_equal(bw_answer_encode(&a, &b, false), BW_OK);
    f = frame_of(&b);
    assert_int_equal(bw_answer_decode(&f, &back), BW_OK);
    assert_int_equal(back.type, 999);
    assert_int_equal(back.error, BW_ERR_UNSUPPORTED);
    assert_true(bw_str_is(back.message, "unknown"));
    bw_buf_free(&b);
}

static void test_message_no_header_means_defaults(void **state)
{
    (void)state;
    bw_request r;
    assert_int_equal(decode_header(BW_API_STATUS, NULL, 0, &r), BW_OK);
    assert_int_equal(decode_header(BW_API_METADATA, NULL, 0, &r), BW_OK);
    assert_true(r.allow_auto_create);
}

static void test_message_nonsense_is_refused(void **state)
{
    (void)state;
    bw_request r;
    assert_int_equal(DECODE(BW_API_METADATA, "\x90", &r), BW_ERR_PROTOCOL);                                     /* no map */
    assert_int_equal(DECODE(BW_API_METADATA, "\x80\xc0", &r), BW_ERR_PROTOCOL);                                 /* bytes behind */
    assert_int_equal(DECODE(BW_API_METADATA, "\x81\x01\x02", &r), BW_ERR_PROTOCOL);                             /* key no string */
    assert_int_equal(DECODE(BW_API_METADATA, "\x81\xa5topic\x07", &r), BW_ERR_PROTOCOL);                        /* wrong kind */
    assert_int_equal(DECODE(BW_API_METADATA, "\x82\xa5topic\xa1t\xa5topic\xa1u", &r), BW_ERR_PROTOCOL);         /* twice */
    assert_non_null(strstr(bw_error_message(), "METADATA"));
    assert_int_equal(DECODE(BW_API_PRODUCE, "\x81\xa4" "acks\xcd\x01\x00", &r), BW_ERR_PROTOCOL);               /* out of range */
    assert_int_equal(DECODE(BW_API_FETCH, "\x81\xa5parts\x91\x80", &r), BW_ERR_PROTOCOL);                       /* a part without a topic */
    assert_int_equal(DECODE(BW_API_FETCH, "\x82\xa5parts\x91\x81\xa5topic\xa1t\xa5parts\x91\x81\xa5topic\xa1t", &r), BW_ERR_PROTOCOL);
    assert_int_equal(DECODE(BW_API_CREATE_TOPIC, "\x81\xa7" "configs\x81\xa1x\x01", &r), BW_ERR_PROTOCOL);      /* value no string */
}

static void test_message_claimed_counts_buy_no_memory(void **state)
{
    (void)state;
    bw_request r;
    struct mallinfo2 before = mallinfo2();
    assert_int_equal(DECODE(BW_API_FETCH, "\x81\xa5parts\xdd\xff\xff\xff\xff", &r), BW_ERR_PROTOCOL);
    assert_int_equal(DECODE(BW_API_CREATE_TOPIC, "\x81\xa7" "configs\xdf\xff\xff\xff\xff", &r), BW_ERR_PROTOCOL);
    struct mallinfo2 after = mallinfo2();
    assert_int_equal(before.uordblks + before.hblkhd, after.uordblks + after.hblkhd);
    /* a megabyte of empty maps: each would cost 40 bytes; the first is refused before anything is taken for the rest */
    size_t len = 1 << 20;
    char *bytes = malloc(len);
    assert_non_null(bytes);
    memset(bytes, 0x80, len);
    memcpy(bytes, "\x81\xa5parts\xdd\x00\x0f\xff\xf0", 12);
    before = mallinfo2();
    assert_int_equal(decode_header(BW_API_FETCH, bytes, len, &r), BW_ERR_PROTOCOL);
    after = mallinfo2();
    assert_int_equal(before.uordblks + before.hblkhd, after.uordblks + after.hblkhd);
    free(bytes);
}

static void test_message_long_lists_of_little_are_refused(void **state)
{
    (void)state;
    enum { ITEM = 9 }; /* {"topic": "t"}, which costs 40 bytes */
    bw_request r;
    size_t len = 12 + 100000 * ITEM;
    char *bytes = malloc(len);
    assert_non_null(bytes);
    memcpy(bytes, "\x81\xa5parts\xdd\x00\x01\x86\xa0", 12);
    for (int i = 0; i < 100000; i++) memcpy(bytes + 12 + i * ITEM, "\x81\xa5topic\xa1t", ITEM);
    assert_int_equal(decode_header(BW_API_FETCH, bytes, len, &r), BW_ERR_PROTOCOL);
    assert_non_null(strstr(bw_error_message(), "say too little"));
    memcpy(bytes + 8, "\x00\x00\x0f\xa0", 4); /* 4,000 of them are not many */
    assert_int_equal(decode_header(BW_API_FETCH, bytes, 12 + 4000 * ITEM, &r), BW_OK);
    assert_int_equal(r.part_count, 4000);
    bw_request_fini(&r);
    free(bytes);
}

static void test_message_answer_parts_beyond_the_payload_are_refused(void **state)
{
    (void)state;
    bw_answer a, back;
    bw_buf b = {0};
    fill_answer(&a, BW_API_FETCH);
    some_fetched[1].size = 4; /* 2 + 4 > 5 */
    assert_int_equal(bw_answer_encode(&a, &b, false), BW_OK);
    bw_frame f = frame_of(&b);
    assert_int_equal(bw_answer_decode(&f, &back), BW_ERR_PROTOCOL);
    assert_null(back.parts);
    bw_buf_free(&b);
}

static void test_message_document_must_be_one_value(void **state)
{
    (void)state;
    bw_answer a;
    bw_buf b = {0};
    fill_answer(&a, BW_API_STATUS);
    a.doc = (const uint8_t *)"\x01\x02", a.doc_len = 2;
    assert_int_equal(bw_answer_encode(&a, &b, false), BW_ERR_INTERNAL);
    a.doc = (const uint8_t *)"\x92\x01", a.doc_len = 2;
    assert_int_equal(bw_answer_encode(&a, &b, false), BW_ERR_INTERNAL);
    assert_int_equal(b.len, 0);
    bw_buf_free(&b);
}

static void assert_bytes(const bw_buf *b, const char *expected, size_t len)
{
    assert_int_equal(b->len, len);
    assert_memory_equal(b->data, expected, len);
}
#define ASSERT_BYTES(b, literal) assert_bytes(b, literal, sizeof(literal) - 1)

/* The examples of PROTOCOL.md, byte by byte. */
static void test_message_bytes_are_as_documented(void **state)
{
    (void)state;
    bw_request r;
    bw_answer a;
    bw_buf b = {0};
    uint8_t batch[80] = {0};
    bw_request_init(&r, BW_API_HELLO);
    r.correlation = 1;
    r.client_id = bw_str_of("demo");
    assert_int_equal(bw_request_encode(&r, &b, false), BW_OK);
    ASSERT_BYTES(&b, "\x00\x00\x00\x19\x00\x01\x00\x00\x00\x00\x00\x01\x00\x00\x00\x0d\x81\xa6" "client\xa4" "demo");
    b.len = 0;
    bw_request_init(&r, BW_API_PRODUCE);
    r.correlation = 2;
    r.topic = bw_str_of("t");
    r.partition = 3;
    r.payload = batch;
    r.payload_len = sizeof batch;
    assert_int_equal(bw_request_encode(&r, &b, true), BW_OK);
    ASSERT_BYTES(&b, "\x00\x00\x00\x70\x00\x07\x00\x00\x00\x00\x00\x02\x00\x00\x00\x14\x82\xa5topic\xa1t\xa9partition\x03");
    b.len = 0;
    bw_answer_init(&a, &r);
    a.offset = 300;
    assert_int_equal(bw_answer_encode(&a, &b, false), BW_OK);
    ASSERT_BYTES(&b, "\x00\x00\x00\x17\x00\x07\x00\x01\x00\x00\x00\x02\x00\x00\x00\x0b\x81\xa6offset\xcd\x01\x2c");
    b.len = 0;
    bw_request_init(&r, BW_API_CREDIT);
    r.subscription = 5;
    r.credit = 1 << 20;
    assert_int_equal(bw_request_encode(&r, &b, false), BW_OK);
    ASSERT_BYTES(&b, "\x00\x00\x00\x27\x00\x0a\x00\x00\x00\x00\x00\x00\x00\x00\x00\x1b\x82\xacsubscription\x05\xa6" "credit\xce\x00\x10\x00\x00");
    bw_buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_message_every_request_round_trips),
        cmocka_unit_test(test_message_every_answer_round_trips),
        cmocka_unit_test(test_message_error_answer_keeps_only_what_errors_carry),
        cmocka_unit_test(test_message_payload_elsewhere_is_counted),
        cmocka_unit_test(test_message_cut_header_is_refused_and_leaks_nothing),
        cmocka_unit_test(test_message_unknown_keys_are_skipped),
        cmocka_unit_test(test_message_keys_in_any_order_are_read),
        cmocka_unit_test(test_message_unknown_type_decodes_without_fields),
        cmocka_unit_test(test_message_no_header_means_defaults),
        cmocka_unit_test(test_message_nonsense_is_refused),
        cmocka_unit_test(test_message_claimed_counts_buy_no_memory),
        cmocka_unit_test(test_message_long_lists_of_little_are_refused),
        cmocka_unit_test(test_message_answer_parts_beyond_the_payload_are_refused),
        cmocka_unit_test(test_message_document_must_be_one_value),
        cmocka_unit_test(test_message_bytes_are_as_documented),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
