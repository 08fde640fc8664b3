/* Writes the seed inputs of the format and protocol fuzzers under the folder named on the command line; how tests/fuzz/corpus was made:
 *   cc -D_GNU_SOURCE -Isrc -Iinclude tests/fuzz/make_corpus.c build/debug/libcore.a -llz4 -lzstd -lsnappy -lz -lisal -o
 * make_corpus
 *   ./make_corpus tests/fuzz/corpus */
#include "broker/queue_state.h"
#include "format/codec.h"
#include "format/control_batch.h"
#include "format/index.h"
#include "format/names.h"
#include "format/record_batch.h"
#include "log/producers.h"
#include "log/txn_index.h"
#include "proto/message.h"

#include <lz4frame.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

static const char *root;

/* One file: a mode byte unless it is negative, then the bytes. */
static void seed(const char *fuzzer, const char *name, int mode, const void *data, size_t len)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", root, fuzzer);
    mkdir(path, 0755);
    snprintf(path, sizeof path, "%s/%s/%s", root, fuzzer, name);
    FILE *f = fopen(path, "wb");
    if (!f) {
        perror(path);
        exit(1);
    }
    if (mode >= 0) fputc(mode, f);
    fwrite(data, 1, len, f);
    if (fclose(f) != 0) exit(1);
}

static void seed_batches(void)
{
    bw_batch_builder b;
    bw_batch_builder_init(&b);
    bw_header headers[] = {{"trace", 5, "00-ab", 5}, {"null", 4, NULL, 0}};
    char value[150];
    memset(value, 'v', sizeof value);
    for (int codec = BW_CODEC_NONE; codec <= BW_CODEC_ZSTD; codec++) {
        bw_batch_options options = BW_BATCH_OPTIONS_INIT;
        uint8_t *batch;
        size_t len;
        char name[64];
        options.codec = (bw_codec)codec;
        bw_batch_builder_reset(&b);
        for (int i = 0; i < 4; i++) {
            bw_record r = {.key = i % 2 ? "key" : NULL,
                           .key_len = i % 2 ? 3 : 0,
                           .value = i == 2 ? NULL : value,
                           .value_len = i == 2 ? 0 : (size_t)i * 50,
                           .headers = headers,
                           .header_count = (size_t)i % 3,
                           .timestamp_ms = 1700000000000 + i * 100};
            if (bw_batch_builder_add(&b, &r) != BW_OK) exit(1);
        }
        if (bw_batch_builder_finish(&b, &options, &batch, &len) != BW_OK) exit(1);
        snprintf(name, sizeof name, "batch-%s", bw_codec_name((bw_codec)codec));
        seed("record_batch", name, 0, batch, len);
        snprintf(name, sizeof name, "mended-%s", bw_codec_name((bw_codec)codec));
        seed("record_batch", name, 1, batch, len);
        if (codec == BW_CODEC_NONE)
            seed("record_batch", "section", 2 + 8 * 4, batch + BW_BATCH_HEADER_BYTES, len - BW_BATCH_HEADER_BYTES);
        snprintf(name, sizeof name, "build-%s", bw_codec_name((bw_codec)codec));
        seed("record_batch", name, 3 + codec, "\x05hello\x20some\x83\x02val\x40k\xff\x10", 24);
        snprintf(name, sizeof name, "packed-%s", bw_codec_name((bw_codec)codec));
        seed("codec", name, codec | 0xf8, batch + BW_BATCH_HEADER_BYTES, len - BW_BATCH_HEADER_BYTES);
    }
    bw_batch_builder_fini(&b);
}

static void seed_indexes(void)
{
    uint8_t data[20 + 12 * 8] = {0};
    bw_put_be64(data, 5000);
    bw_put_be32(data + 8, 1 << 20);
    bw_put_be64(data + 12, 1300);
    for (int i = 0; i < 8; i++) bw_index_put(data + 20 + 8 * i, 1250, 1250 + 9 * (i + 1), 4200u * (uint32_t)(i + 1));
    seed("index", "offsets", -1, data, 20 + 8 * 8);
    bw_put_be64(data + 12, 1700000000350);
    for (int i = 0; i < 8; i++) bw_timeindex_put(data + 20 + 12 * i, 1250, 1700000000000 + 100 * i, 1250 + i);
    seed("index", "times", -1, data, sizeof data);
    memset(data + 20 + 36, 0, sizeof data - 20 - 36);
    seed("index", "padded", -1, data, sizeof data);
}

static void seed_transactions(void)
{
    bw_buf snapshot = {0};
    bw_producers *p = bw_producers_new();
    for (int i = 0; p && i < 12; i++) {
        bw_batch_header h = {.producer_id = i % 3, .base_sequence = i / 3, .attributes = i % 3 == 1 ? BW_ATTR_TRANSACTIONAL : 0};
        if (bw_producers_note(p, &h, i, -1, 0, i) != BW_OK) exit(1);
    }
    if (!p || bw_producers_encode(p, 12, 100, &snapshot) != BW_OK) exit(1);
    seed("txn", "snapshot", 0, snapshot.data, snapshot.len);
    bw_producers_free(p);
    bw_buf_free(&snapshot);
    uint8_t index[3 * BW_TXN_ENTRY_BYTES], marker[BW_MARKER_BYTES];
    for (int i = 0; i < 3; i++) bw_aborted_put(index + i * BW_TXN_ENTRY_BYTES, &(bw_aborted){7 + i, 100 * i, 100 * i + 50, 100 * i + 20});
    seed("txn", "index", 1, index, sizeof index);
    for (int commit = 0; commit < 2; commit++) {
        size_t len = bw_marker_write(marker, &(bw_marker){7, 2, commit, 1, 1700000000000});
        seed("txn", commit ? "commit" : "abort", 2, marker, len);
    }
}

static void seed_names(void)
{
    static const char *const texts[] = {"topic-0",
                                        "a.b_c-12",
                                        "00000000000000368769.log",
                                        "0000000012.spare",
                                        "00112233445566778899aabbccddeeff",
                                        "ABEiM0RVZneImaq7zN3u_w"};
    char name[32];
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        snprintf(name, sizeof name, "name-%zu", i);
        seed("names", name, 0, texts[i], strlen(texts[i]));
    }
    seed("names", "topic", 1, texts[1], strlen(texts[1]));
    seed("names", "metadata", 2, "version: 0\ntopic_id: ABEiM0RVZneImaq7zN3u_w\n", 44);
    seed("names", "checkpoint", 3, "0\n2\n0 0\n3 1500\n", 15);
    bw_seal s = {.length = 4096, .base_offset = 100, .next_offset = 200, .batches = 3, .root = 0x12345678};
    uint8_t data[BW_SEAL_BYTES];
    bw_seal_encode(data, &s);
    seed("names", "seal", 4, data, sizeof data);
    seed("names", "seal-fields", 5, data, sizeof data);
}

/* A message as fuzz_message takes it: type and direction, the payload's length, header, payload. */
static void seed_message(const char *name, uint16_t type, bool answer, const bw_buf *frame, size_t payload)
{
    uint8_t bytes[1024] = {(uint8_t)(type << 1 | answer), (uint8_t)payload};
    char file[64];
    size_t len = frame->len - BW_FRAME_PREFIX;
    if (len + 2 > sizeof bytes) exit(1);
    memcpy(bytes + 2, frame->data + BW_FRAME_PREFIX, len);
    snprintf(file, sizeof file, "%s-%s", name, answer ? "answer" : "request");
    seed("message", file, -1, bytes, len + 2);
}

static void seed_messages(void)
{
    static bw_config_pair configs[] = {{{"retention.ms", 12}, {"60000", 5}, true}, {{"segment.ms", 10}, {NULL, 0}, false}};
    static bw_fetch_part parts[] = {{{"t", 1}, 0, 0, 1048576}, {{"u", 1}, 7, 99, 4096}};
    static bw_topic_meta topics[] = {{{"t", 1}, {{1}}, 4, true, {"zstd", 4}, 1048588, 0}};
    static bw_fetched_part fetched[] = {{0, {NULL, 0}, {"t", 1}, 0, 0, 10, 5, 2}, {19, {"no", 2}, {"u", 1}, 1, 4, 5, -1, 3}};
    bw_buf all = {0};
    for (uint16_t type = 1; type < BW_API_KEY_COUNT; type++) {
        if (!bw_api_name(type)) { continue; } /* numbers have gaps */
        bw_request r;
        bw_answer a;
        bw_buf frame = {0};
        bw_request_init(&r, (bw_api_key)type);
        r.topic = r.client_id = r.producer_name = r.transport = r.reason = bw_str_of("text");
        r.partition = r.partitions = r.client_pid = r.version_min = r.version_max = 3;
        r.subscription = r.mailbox = 9;
        r.offset = r.timestamp = 70000;
        r.credit = 1 << 20;
        r.acks = r.read_limit = 2;
        r.max_wait_ms = r.timeout_ms = 500;
        r.records = r.for_write = true;
        r.configs = configs, r.config_count = 2;
        r.parts = parts, r.part_count = 2;
        if (bw_request_encode(&r, &frame, false) == BW_OK) {
            seed_message(bw_api_name(type), type, false, &frame, 0);
            bw_buf_append(&all, frame.data, frame.len);
        }
        frame.len = 0;
        if (bw_api_is_push((uint16_t)type)) bw_answer_init_push(&a, (bw_api_key)type);
        else bw_answer_init(&a, &r);
        a.message = a.server_version = a.data_dir = a.arena_dir = bw_str_of("text");
        a.version = a.version_min = a.version_max = a.server_pid = a.partitions = 1;
        a.generation[0] = a.topic_id.b[0] = 1;
        a.offset = a.timestamp = a.log_start = a.end = a.durable = a.producer_id = 5;
        a.topics = topics, a.topic_count = 1;
        a.parts = fetched, a.part_count = 2;
        a.doc = (const uint8_t *)"\x81\xa1x\x92\xc0\xcb\x3f\xf0\0\0\0\0\0\0", a.doc_len = 14;
        if (type == BW_API_FETCH || type == BW_API_DATA) a.payload = (const uint8_t *)"12345", a.payload_len = 5;
        if (bw_answer_encode(&a, &frame, false) != BW_OK) exit(1);
        seed_message(bw_api_name(type), type, true, &frame, a.payload_len);
        bw_buf_append(&all, frame.data, frame.len);
        bw_buf_free(&frame);
    }
    seed("frame", "all", 255, all.data, all.len);
    seed("msgpack", "document", -1, "\x82\xa1x\x92\xc0\xcb\x3f\xf0\0\0\0\0\0\0\xa1y\xc4\x02\xff\xfe", 20);
    seed("msgpack", "records", -1, "\x91\x84\xa3key\xa1k\xa5value\xc4\x01v\xa7headers\x91\x92\xa1h\xc0\xa9timestamp\xcd\x10\x00", 43);
    bw_buf_free(&all);
}

static void seed_queues(void)
{
    bw_queue_state s;
    bw_buf b = {0};
    bw_queue_rules rules = {5, false};
    bw_queue_state_init(&s, 1000);
    for (int64_t o = 1000; o < 1300; o++)
        if (bw_queue_state_admit(&s, o)) exit(1);
    for (int64_t o = 1000; o < 1200; o++) bw_queue_state_acquire(&s, o, 1, 1, 5);
    for (int64_t o = 1003; o < 1200; o += 7) bw_queue_state_ack(&s, o, 1, o % 2 ? BW_QUEUE_ACCEPT : BW_QUEUE_REJECT, 0, rules);
    if (bw_queue_state_encode(&s, 5, &b)) exit(1);
    seed("queue", "state", 0, b.data, b.len);
    bw_queue_state_fini(&s);
    bw_buf_free(&b);
    seed("queue", "digits", 1, "1732000000000", 13);
    seed("queue", "eight", 1, "\0\0\1\x93\x41\x2f\x3c\0", 8);
    seed("queue", "headers", 2, "\x14" "deliver-at" "\x1a" "1732000000000", 25);
}

/* Little that claims much: long lists of the smallest items, and a frame whose blocks are as large as lz4 has them. */
static void seed_large(void)
{
    static const struct { const char *name; uint8_t first; bool answer; const char *key; const char *item; } lists[] = {
        {"parts", BW_API_FETCH, false, "parts", "\x81\xa5topic\xa1t"},
        {"fetched", BW_API_FETCH, true, "parts", "\x81\xa5topic\xa1t"},
        {"topics", BW_API_METADATA, true, "topics", "\x81\xa4name\xa1t"},
        {"configs", BW_API_CREATE_TOPIC, false, "configs", "\xa1" "a\xc0"},
    };
    static uint8_t bytes[65536];
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        size_t key = strlen(lists[i].key), item = strlen(lists[i].item), at = 0;
        uint32_t count = (uint32_t)((sizeof bytes - 16 - key) / item);
        bool map = strcmp(lists[i].key, "configs") == 0;
        if (map) count = 1024;
        bytes[at++] = (uint8_t)(lists[i].first << 1 | lists[i].answer);
        bytes[at++] = 0;
        bytes[at++] = 0x81;
        bytes[at++] = (uint8_t)(0xa0 | key);
        memcpy(bytes + at, lists[i].key, key);
        at += key;
        bytes[at++] = map ? 0xdf : 0xdd;
        bw_put_be32(bytes + at, count);
        at += 4;
        for (uint32_t n = 0; n < count; n++, at += item) memcpy(bytes + at, lists[i].item, item);
        seed("message", lists[i].name, -1, bytes, at);
    }
    static const struct { const char *name; const char *item; size_t len; } values[] = {
        {"empty-records", "\x80", 1}, {"doubles", "\xcb\x80\0\0\0\0\0\0\x01", 9}, {"controls", "\xa1\x01", 2}, {"nulls", "\xc0", 1}};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        uint32_t count = (uint32_t)((sizeof bytes - 5) / values[i].len);
        bytes[0] = 0xdd;
        bw_put_be32(bytes + 1, count);
        for (uint32_t n = 0; n < count; n++) memcpy(bytes + 5 + n * values[i].len, values[i].item, values[i].len);
        seed("msgpack", values[i].name, -1, bytes, 5 + count * values[i].len);
    }
    for (int linked = 0; linked < 2; linked++) {
        LZ4F_cctx *c;
        LZ4F_preferences_t p = {.frameInfo = {.blockSizeID = LZ4F_max4MB, .blockMode = linked ? LZ4F_blockLinked : LZ4F_blockIndependent}};
        if (LZ4F_isError(LZ4F_createCompressionContext(&c, LZ4F_VERSION))) exit(1);
        size_t n = LZ4F_compressBegin(c, bytes, sizeof bytes, &p);
        n += LZ4F_compressUpdate(c, bytes + n, sizeof bytes - n, "some some some some some", 24, NULL);
        n += LZ4F_compressEnd(c, bytes + n, sizeof bytes - n, NULL);
        LZ4F_freeCompressionContext(c);
        seed("codec", linked ? "lz4-4m-linked" : "lz4-4m", BW_CODEC_LZ4 | 0xf8, bytes, n);
    }
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
        return 2;
    }
    root = argv[1];
    seed_batches();
    seed_indexes();
    seed_transactions();
    seed_names();
    seed_messages();
    seed_queues();
    seed_large();
    return 0;
}
