/* Produces and fetches over the REP socket with nothing but nng and msgpack-c: what rep_pynng.py does, for where Python or its packages
 * are not there. Built and run by rep.sh: rep_nng ipc:///…/rep.sock */
#include <msgpack.h>
#include <nng/nng.h>
#include <nng/protocol/reqrep0/req.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PRODUCE = 7, FETCH = 8, RECORDS = 100 };

#define CHECK(condition)                                                                                                       \
    do {                                                                                                                       \
        if (!(condition)) {                                                                                                    \
            fprintf(stderr, "rep_nng.c:%d: does not hold: %s\n", __LINE__, #condition);                                        \
            exit(1);                                                                                                           \
        }                                                                                                                      \
    } while (0)

static void put_text(msgpack_packer *pk, const char *text)
{
    msgpack_pack_str(pk, strlen(text));
    msgpack_pack_str_body(pk, text, strlen(text));
}

static void put_be(unsigned char *p, unsigned bytes, unsigned long v)
{
    while (bytes-- > 0) {
        p[bytes] = (unsigned char)v;
        v >>= 8;
    }
}

typedef struct answer {
    char *message;
    size_t len;
    msgpack_unpacked header;
    const char *payload;
    size_t payload_len;
} answer;

static const msgpack_object *get(const msgpack_object *map, const char *key)
{
    CHECK(map->type == MSGPACK_OBJECT_MAP);
    for (uint32_t i = 0; i < map->via.map.size; i++) {
        const msgpack_object *k = &map->via.map.ptr[i].key;
        if (k->via.str.size == strlen(key) && memcmp(k->via.str.ptr, key, strlen(key)) == 0) { return &map->via.map.ptr[i].val; }
    }
    return NULL;
}

static answer call(nng_socket s, unsigned api, const msgpack_sbuffer *header, const msgpack_sbuffer *payload)
{
    size_t len = 12 + header->size + (payload ? payload->size : 0), at = 0;
    unsigned char *m = calloc(1, len);
    CHECK(m);
    put_be(m, 2, api);
    put_be(m + 4, 4, 1);
    put_be(m + 8, 4, header->size);
    memcpy(m + 12, header->data, header->size);
    if (payload) { memcpy(m + 12 + header->size, payload->data, payload->size); }
    answer a = {0};
    CHECK(nng_send(s, m, len, 0) == 0);
    CHECK(nng_recv(s, &a.message, &a.len, NNG_FLAG_ALLOC) == 0);
    free(m);
    const unsigned char *p = (const unsigned char *)a.message;
    CHECK(a.len >= 12 && p[1] == api && (p[3] & 1) && p[7] == 1);
    size_t header_len = (size_t)p[8] << 24 | (size_t)p[9] << 16 | (size_t)p[10] << 8 | p[11];
    CHECK(header_len <= a.len - 12);
    msgpack_unpacked_init(&a.header);
    CHECK(msgpack_unpack_next(&a.header, a.message + 12, header_len, &at) == MSGPACK_UNPACK_SUCCESS && at == header_len);
    const msgpack_object *message = get(&a.header.data, "message");
    if (get(&a.header.data, "error")) {
        fprintf(stderr, "error: %.*s\n", message ? (int)message->via.str.size : 0, message ? message->via.str.ptr : "");
        exit(1);
    }
    a.payload = a.message + 12 + header_len;
    a.payload_len = a.len - 12 - header_len;
    return a;
}

static void answer_free(answer *a)
{
    msgpack_unpacked_destroy(&a->header);
    nng_free(a->message, a->len);
}

static uint64_t produce(nng_socket s)
{
    msgpack_sbuffer header, records;
    msgpack_packer pk;
    char text[16];
    msgpack_sbuffer_init(&header);
    msgpack_sbuffer_init(&records);
    msgpack_packer_init(&pk, &header, msgpack_sbuffer_write);
    msgpack_pack_map(&pk, 3);
    put_text(&pk, "topic"), put_text(&pk, "from-c");
    put_text(&pk, "acks"), msgpack_pack_int(&pk, 2);
    put_text(&pk, "records"), msgpack_pack_true(&pk);
    msgpack_packer_init(&pk, &records, msgpack_sbuffer_write);
    msgpack_pack_array(&pk, RECORDS);
    for (int i = 0; i < RECORDS; i++) {
        snprintf(text, sizeof text, "v%d", i);
        msgpack_pack_map(&pk, i % 2 ? 1 : 2);
        put_text(&pk, "value"), put_text(&pk, text);
        if (i % 2 == 0) { put_text(&pk, "key"), put_text(&pk, "even"); }
    }
    answer a = call(s, PRODUCE, &header, &records);
    uint64_t first = get(&a.header.data, "offset")->via.u64;
    answer_free(&a);
    msgpack_sbuffer_destroy(&header);
    msgpack_sbuffer_destroy(&records);
    return first;
}

static void fetch(nng_socket s, uint64_t first)
{
    msgpack_sbuffer header;
    msgpack_packer pk;
    char text[16];
    size_t at = 0;
    msgpack_sbuffer_init(&header);
    msgpack_packer_init(&pk, &header, msgpack_sbuffer_write);
    msgpack_pack_map(&pk, 3);
    put_text(&pk, "records"), msgpack_pack_true(&pk);
    put_text(&pk, "max_wait_ms"), msgpack_pack_int(&pk, 1000);
    put_text(&pk, "parts"), msgpack_pack_array(&pk, 1), msgpack_pack_map(&pk, 2);
    put_text(&pk, "topic"), put_text(&pk, "from-c");
    put_text(&pk, "offset"), msgpack_pack_uint64(&pk, first + 1); /* from the middle of the batch */
    answer a = call(s, FETCH, &header, NULL);
    msgpack_unpacked got;
    msgpack_unpacked_init(&got);
    CHECK(msgpack_unpack_next(&got, a.payload, a.payload_len, &at) == MSGPACK_UNPACK_SUCCESS && at == a.payload_len);
    CHECK(got.data.type == MSGPACK_OBJECT_ARRAY && got.data.via.array.size == RECORDS - 1);
    for (uint32_t i = 0; i < RECORDS - 1; i++) {
        const msgpack_object *r = &got.data.via.array.ptr[i], *value = get(r, "value"), *key = get(r, "key");
        snprintf(text, sizeof text, "v%u", i + 1);
        CHECK(get(r, "offset")->via.u64 == first + 1 + i);
        CHECK(value->type == MSGPACK_OBJECT_BIN && value->via.bin.size == strlen(text) && memcmp(value->via.bin.ptr, text, strlen(text)) == 0);
        CHECK((key->type == MSGPACK_OBJECT_NIL) == (i % 2 == 0));
    }
    msgpack_unpacked_destroy(&got);
    answer_free(&a);
    msgpack_sbuffer_destroy(&header);
}

int main(int argc, char **argv)
{
    nng_socket s;
    CHECK(argc == 2);
    CHECK(nng_req0_open(&s) == 0);
    CHECK(nng_socket_set_ms(s, NNG_OPT_RECVTIMEO, 10000) == 0);
    CHECK(nng_dial(s, argv[1], NULL, 0) == 0);
    uint64_t first = produce(s);
    fetch(s, first);
    printf("%d records produced and fetched from offset %llu\n", RECORDS, (unsigned long long)first);
    nng_close(s);
    return 0;
}
