/* Requests over REP, with a broker that is made for it: no HELLO, refusals, records as msgpack, stopping. */
#include "unit/listen/fake_broker.h"

#include <msgpack.h>
#include <nng/nng.h>
#include <nng/protocol/reqrep0/req.h>

static nng_socket dial_rep(const fixture *x)
{
    char url[128];
    nng_socket s;
    snprintf(url, sizeof url, "ipc://%s/rep.sock", x->folder);
    assert_int_equal(nng_req0_open(&s), 0);
    assert_int_equal(nng_socket_set_ms(s, NNG_OPT_RECVTIMEO, 5000), 0);
    assert_int_equal(nng_dial(s, url, NULL, 0), 0);
    return s;
}

/* Sends a request, gives its answer; *memory is nng_free'd by the caller. */
static void ask(nng_socket s, const bw_request *r, bw_answer *a, void **memory, size_t *len)
{
    bw_buf b = {0};
    bw_frame f;
    assert_int_equal(bw_request_encode(r, &b, false), BW_OK);
    assert_int_equal(nng_send(s, b.data + 4, b.len - 4, 0), 0);
    assert_int_equal(nng_recv(s, memory, len, NNG_FLAG_ALLOC), 0);
    assert_int_equal(bw_frame_parse_message(*memory, *len, 1 << 24, &f), BW_OK);
    assert_int_equal(f.flags & BW_FRAME_ANSWER, BW_FRAME_ANSWER);
    assert_int_equal(f.correlation, r->correlation);
    assert_int_equal(bw_answer_decode(&f, a), BW_OK);
    bw_buf_free(&b);
}

static void test_rep_request_without_hello_is_answered(void **state)
{
    fixture *x = *state;
    nng_socket s = dial_rep(x);
    bw_request r;
    bw_answer a;
    void *memory;
    size_t len;
    for (uint32_t i = 1; i <= 50; i++) {
        bw_request_init(&r, BW_API_METADATA);
        r.correlation = i;
        ask(s, &r, &a, &memory, &len);
        assert_int_equal(a.error, BW_OK);
        nng_free(memory, len);
    }
    assert_true(x->broker.peer.uid == (int64_t)getuid());
    nng_close(s);
    wait_for(&x->broker, &x->broker.gone, 50);
}

static void test_rep_what_needs_a_connection_is_refused(void **state)
{
    fixture *x = *state;
    nng_socket s = dial_rep(x);
    static const bw_api_key types[] = {BW_API_SUBSCRIBE, BW_API_CREDIT,  BW_API_UNSUBSCRIBE,     BW_API_ATTACH,
                                       BW_API_DETACH,    BW_API_MAILBOX, BW_API_RELEASE_MAILBOX, BW_API_REPORT};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        bw_request r;
        bw_answer a;
        void *memory;
        size_t len;
        bw_request_init(&r, types[i]);
        ask(s, &r, &a, &memory, &len);
        assert_int_equal(a.error, BW_ERR_UNSUPPORTED);
        nng_free(memory, len);
    }
    assert_int_equal(x->broker.requests, 0);
    nng_close(s);
}

static void test_rep_malformed_message_is_answered(void **state)
{
    fixture *x = *state;
    nng_socket s = dial_rep(x);
    void *memory;
    size_t len;
    static const struct { const char *bytes; size_t len; } bad[] = {{"", 0}, {"x", 1}, {"\x00\x02\x00\x00\x00\x00\x00\x05\x00\x00\x00\x01\xc1", 13}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        bw_frame f;
        bw_answer a;
        assert_int_equal(nng_send(s, (void *)(uintptr_t)bad[i].bytes, bad[i].len, 0), 0);
        assert_int_equal(nng_recv(s, &memory, &len, NNG_FLAG_ALLOC), 0);
        assert_int_equal(bw_frame_parse_message(memory, len, 1 << 24, &f), BW_OK);
        assert_int_equal(bw_answer_decode(&f, &a), BW_OK);
        assert_int_equal(a.error, BW_ERR_PROTOCOL);
        nng_free(memory, len);
    }
    nng_close(s);
}

static void test_rep_produce_without_acks_is_answered_all_the_same(void **state)
{
    fixture *x = *state;
    nng_socket s = dial_rep(x);
    bw_request r;
    bw_answer a;
    void *memory;
    size_t len;
    bw_request_init(&r, BW_API_PRODUCE);
    r.topic = bw_str_of("t");
    r.acks = 0;
    ask(s, &r, &a, &memory, &len);
    assert_int_equal(a.error, BW_OK);
    assert_int_equal(a.offset, -1);
    nng_free(memory, len);
    nng_close(s);
}

static void pack_text(msgpack_packer *pk, const char *text)
{
    msgpack_pack_str(pk, strlen(text));
    msgpack_pack_str_body(pk, text, strlen(text));
}

static void test_rep_records_as_msgpack_make_a_batch_and_come_back(void **state)
{
    fixture *x = *state;
    nng_socket s = dial_rep(x);
    bw_request r;
    bw_answer a;
    void *memory;
    size_t len;
    msgpack_sbuffer doc;
    msgpack_packer pk;
    msgpack_sbuffer_init(&doc);
    msgpack_packer_init(&pk, &doc, msgpack_sbuffer_write);
    msgpack_pack_array(&pk, 3);
    msgpack_pack_map(&pk, 4);
    pack_text(&pk, "key"), pack_text(&pk, "k"), pack_text(&pk, "value"), pack_text(&pk, "v");
    pack_text(&pk, "timestamp"), msgpack_pack_int64(&pk, 1700000000000);
    pack_text(&pk, "headers"), msgpack_pack_map(&pk, 1), pack_text(&pk, "h"), msgpack_pack_nil(&pk);
    msgpack_pack_map(&pk, 1);
    pack_text(&pk, "value"), msgpack_pack_bin(&pk, 0);
    msgpack_pack_map(&pk, 1);
    pack_text(&pk, "unknown"), msgpack_pack_int(&pk, 1);
    bw_request_init(&r, BW_API_PRODUCE);
    r.topic = bw_str_of("t");
    r.records = true;
    r.payload = (uint8_t *)doc.data;
    r.payload_len = doc.size;
    ask(s, &r, &a, &memory, &len);
    assert_int_equal(a.error, BW_OK);
    nng_free(memory, len);
    bw_batch_header h;
    assert_int_equal(bw_batch_validate(x->broker.stored.data, x->broker.stored.len, 1 << 20, true, &h), BW_OK);
    assert_int_equal(h.record_count, 3);

    bw_fetch_part part = {bw_str_of("t"), 0, 1, 1000}; /* from the second on */
    bw_request_init(&r, BW_API_FETCH);
    r.records = true;
    r.parts = &part;
    r.part_count = 1;
    ask(s, &r, &a, &memory, &len);
    assert_int_equal(a.error, BW_OK);
    assert_int_equal(a.part_count, 1);
    assert_int_equal(a.parts[0].size, a.payload_len);
    msgpack_unpacked u;
    size_t at = 0;
    msgpack_unpacked_init(&u);
    assert_int_equal(msgpack_unpack_next(&u, (const char *)a.payload, a.payload_len, &at), MSGPACK_UNPACK_SUCCESS);
    assert_int_equal(at, a.payload_len);
    assert_int_equal(u.data.type, MSGPACK_OBJECT_ARRAY);
    assert_int_equal(u.data.via.array.size, 2);
    const msgpack_object_map *second = &u.data.via.array.ptr[0].via.map;
    assert_int_equal(second->ptr[0].val.via.u64, 1);                       /* offset */
    assert_int_equal(second->ptr[2].val.type, MSGPACK_OBJECT_NIL);         /* key: null */
    assert_int_equal(second->ptr[3].val.type, MSGPACK_OBJECT_BIN);         /* value: empty */
    assert_int_equal(second->ptr[3].val.via.bin.size, 0);
    assert_int_equal(u.data.via.array.ptr[1].via.map.ptr[3].val.type, MSGPACK_OBJECT_NIL);
    msgpack_unpacked_destroy(&u);
    bw_answer_fini(&a);
    nng_free(memory, len);
    msgpack_sbuffer_destroy(&doc);
    nng_close(s);
}

static void test_rep_broken_records_are_refused(void **state)
{
    fixture *x = *state;
    nng_socket s = dial_rep(x);
    static const struct { const char *bytes; size_t len; int32_t error; } bad[] = {
        {"", 0, BW_ERR_PROTOCOL},
        {"\x90", 1, BW_ERR_INVALID_ARGUMENT},
        {"\xdd\xff\xff\xff\xff", 5, BW_ERR_PROTOCOL},
        {"\x91\x81\xa3key\x01", 7, BW_ERR_PROTOCOL},
        {"\x91\x81\xa7headers\xdf\xff\xff\xff\xff", 15, BW_ERR_PROTOCOL},
        {"\x91\x80\xc0", 3, BW_ERR_PROTOCOL},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        bw_request r;
        bw_answer a;
        void *memory;
        size_t len;
        bw_request_init(&r, BW_API_PRODUCE);
        r.topic = bw_str_of("t");
        r.records = true;
        r.payload = (const uint8_t *)bad[i].bytes;
        r.payload_len = bad[i].len;
        ask(s, &r, &a, &memory, &len);
        assert_int_equal(a.error, bad[i].error);
        nng_free(memory, len);
    }
    assert_int_equal(x->broker.requests, 0);
    nng_close(s);
}

static void test_rep_stop_answers_parked_requests(void **state)
{
    fixture *x = *state;
    nng_socket s = dial_rep(x);
    bw_request r;
    bw_buf b = {0};
    bw_fetch_part part = {bw_str_of("t"), 0, 0, 1000};
    bw_request_init(&r, BW_API_FETCH);
    r.max_wait_ms = 60000;
    r.parts = &part;
    r.part_count = 1;
    assert_int_equal(bw_request_encode(&r, &b, false), BW_OK);
    assert_int_equal(nng_send(s, b.data + 4, b.len - 4, 0), 0);
    wait_for(&x->broker, &x->broker.requests, 1);
    int64_t start = bw_clock_mono_ms();
    bw_listener_stop(x->listener);
    x->listener = NULL;
    assert_true(bw_clock_mono_ms() - start < 3000);
    wait_for(&x->broker, &x->broker.gone, 1);
    bw_buf_free(&b);
    nng_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        T(test_rep_request_without_hello_is_answered),
        T(test_rep_what_needs_a_connection_is_refused),
        T(test_rep_malformed_message_is_answered),
        T(test_rep_produce_without_acks_is_answered_all_the_same),
        T(test_rep_records_as_msgpack_make_a_batch_and_come_back),
        T(test_rep_broken_records_are_refused),
        T(test_rep_stop_answers_parked_requests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
