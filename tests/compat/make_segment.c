/* Writes segments with Busway's format layer, for Kafka's own tools to read: one folder a codec, batches of 1 to many, null and
 * empty keys and values, headers, append time, a producer's batches, and batches reserved in place. Beside each log lie its
 * indexes, and `expected`, one line a record, in the words of Kafka's DumpLogSegments.
 * And the folder "txn": markers of transactions and an index of aborted ones.
 *   make_segment DIR
 * Printable text only, so that the dump's lines can be compared as they are. */
#include "format/control_batch.h"
#include "format/index.h"
#include "format/names.h"
#include "format/record_batch.h"
#include "log/txn_index.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#define START_MS  INT64_C(1700000000000)
#define VALUE_MAX 70000u

typedef struct output {
    FILE *log;
    FILE *index;
    FILE *timeindex;
    FILE *expected;
    int64_t base_offset;
    int64_t offset;
    size_t position;
    size_t unindexed; /* bytes since the last index entry */
    int64_t max_timestamp;
    int64_t max_timestamp_offset;
    int64_t indexed_timestamp;
} output;

static void die(const char *what)
{
    fprintf(stderr, "make_segment: %s: %s\n", what, *bw_error_message() ? bw_error_message() : strerror(errno));
    exit(1);
}

static FILE *create(const char *folder, const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    if (!f) die(path);
    return f;
}

/* What DumpLogSegments prints for a record (tests/compat/run.sh takes the batch's size and position out of its lines). */
static void expect(output *o, const bw_record *r, int64_t timestamp, bool append_time, int32_t sequence)
{
    fprintf(o->expected, "| offset: %" PRId64 " %s: %" PRId64 " keySize: %lld valueSize: %lld sequence: %d headerKeys: [",
            o->offset, append_time ? "LogAppendTime" : "CreateTime", timestamp, r->key ? (long long)r->key_len : -1,
            r->value ? (long long)r->value_len : -1, sequence);
    for (size_t i = 0; i < r->header_count; i++)
        fprintf(o->expected, "%s%.*s", i ? "," : "", (int)r->headers[i].name_len, r->headers[i].name);
    fprintf(o->expected, "]");
    if (r->key) fprintf(o->expected, " key: %.*s", (int)r->key_len, (const char *)r->key);
    if (r->value) fprintf(o->expected, " payload: %.*s", (int)r->value_len, (const char *)r->value);
    fprintf(o->expected, "\n");
    o->offset++;
}

/* Kafka's rule: before a batch that follows BW_INDEX_INTERVAL_BYTES of unindexed ones, the batch's last offset and position; the
 * largest time so far with the last offset of the batch that has it. */
static void write_index(output *o, const bw_batch_header *h)
{
    uint8_t entry[BW_TIMEINDEX_ENTRY_BYTES];
    if (h->max_timestamp > o->max_timestamp) {
        o->max_timestamp = h->max_timestamp;
        o->max_timestamp_offset = bw_batch_last_offset(h);
    }
    if (o->unindexed > BW_INDEX_INTERVAL_BYTES) {
        bw_index_put(entry, o->base_offset, bw_batch_last_offset(h), (uint32_t)o->position);
        if (fwrite(entry, 1, BW_INDEX_ENTRY_BYTES, o->index) != BW_INDEX_ENTRY_BYTES) die("write");
        if (o->max_timestamp > o->indexed_timestamp) {
            bw_timeindex_put(entry, o->base_offset, o->max_timestamp, o->max_timestamp_offset);
            if (fwrite(entry, 1, BW_TIMEINDEX_ENTRY_BYTES, o->timeindex) != BW_TIMEINDEX_ENTRY_BYTES) die("write");
            o->indexed_timestamp = o->max_timestamp;
        }
        o->unindexed = 0;
    }
    o->unindexed += bw_batch_size(h);
}

static void write_batch(output *o, uint8_t *batch, size_t len, int64_t base_offset)
{
    bw_batch_header h;
    bw_batch_patch(batch, base_offset, 0);
    if (bw_batch_validate(batch, len, 64u << 20, true, &h) != BW_OK) die("own batch");
    write_index(o, &h);
    if (fwrite(batch, 1, len, o->log) != len) die("write");
    o->position += len;
}

static char value_text[VALUE_MAX];
static const bw_header sample_headers[] = {{"trace", 5, "00-abc", 6}, {"null", 4, NULL, 0}, {"empty", 5, "", 0}};

static bw_record sample(int i, char *key, size_t key_room)
{
    static const size_t lens[] = {1, 0, 10, 63, 64, 127, 128, 300, 8191, 8192, VALUE_MAX};
    int n = snprintf(key, key_room, "key-%d", i);
    bw_record r = {.key = i % 3 ? key : NULL,
                   .key_len = i % 3 && i % 5 ? (size_t)n : 0,
                   .value = i % 7 == 3 ? NULL : value_text,
                   .headers = sample_headers,
                   .header_count = (size_t)i % 4,
                   .timestamp_ms = START_MS + (int64_t)i * 250 - (i % 2) * 900};
    if (r.value) r.value_len = lens[(size_t)i % (sizeof lens / sizeof lens[0])];
    return r;
}

static void write_codec(output *o, bw_codec codec)
{
    static const int counts[] = {1, 2, 3, 10, 64, 300};
    bw_batch_builder b;
    int number = 0;
    int32_t sequence = 0;
    bw_batch_builder_init(&b);
    for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
        bw_batch_options options = BW_BATCH_OPTIONS_INIT;
        bool append_time = c == 2, produced = c >= 3;
        int64_t base = o->offset;
        uint8_t *batch;
        size_t len;
        options.codec = codec;
        if (append_time) options.log_append_time = START_MS + 77;
        if (produced) {
            options.producer_id = 4000;
            options.producer_epoch = 1;
            options.base_sequence = sequence;
        }
        bw_batch_builder_reset(&b);
        for (int i = 0; i < counts[c]; i++, number++) {
            char key[32];
            bw_record r = sample(number, key, sizeof key);
            if (bw_batch_builder_add(&b, &r) != BW_OK) die("add");
            expect(o, &r, append_time ? START_MS + 77 : r.timestamp_ms, append_time, produced ? sequence++ : -1);
        }
        if (bw_batch_builder_finish(&b, &options, &batch, &len) != BW_OK) die("finish");
        write_batch(o, batch, len, base);
    }
    bw_batch_builder_fini(&b);
}

/* A batch whose value was reserved for more than it came to: its lengths are padded varints. */
static void write_reserved(output *o, size_t value_max, size_t value_len)
{
    bw_record r = {.key = "reserved", .key_len = 8, .headers = sample_headers, .header_count = 3, .timestamp_ms = START_MS + 5};
    bw_batch_options options = BW_BATCH_OPTIONS_INIT;
    uint8_t *room = malloc(bw_batch_reserved_size(&r, value_max));
    if (!room) die("memory");
    memcpy(bw_batch_reserve_begin(room, &r, value_max), value_text, value_len);
    size_t len = bw_batch_reserve_finish(room, &r, value_max, value_len, &options);
    int64_t base = o->offset;
    r.value = value_text;
    r.value_len = value_len;
    expect(o, &r, r.timestamp_ms, false, -1);
    write_batch(o, room, len, base);
    free(room);
}

static void write_transactions(const char *folder)
{
    char name[BW_SEGMENT_NAME_MAX];
    if (mkdir(folder, 0755) != 0 && errno != EEXIST) die(folder);
    bw_segment_name(name, 0, ".log");
    FILE *log = create(folder, name), *expected = create(folder, "expected");
    bw_segment_name(name, 0, BW_TXN_INDEX_SUFFIX);
    FILE *index = create(folder, name);
    for (int i = 0; i < 6; i++) {
        bw_marker m = {.producer_id = 7 + i % 2, .producer_epoch = 3, .commit = i % 3 == 0, .coordinator_epoch = 40 + i,
                       .timestamp_ms = START_MS + i};
        uint8_t marker[BW_MARKER_BYTES], entry[BW_TXN_ENTRY_BYTES];
        size_t len = bw_marker_write(marker, &m);
        bw_batch_patch(marker, 10 + i, 0);
        bw_aborted a = {m.producer_id, i, 10 + i, 5 + i};
        bw_aborted_put(entry, &a);
        if (fwrite(marker, 1, len, log) != len) die("write");
        fprintf(expected, "| offset: %d CreateTime: %" PRId64 " keySize: 4 valueSize: 6 sequence: -1 headerKeys: [] endTxnMarker: %s "
                "coordinatorEpoch: %d\n", 10 + i, m.timestamp_ms, m.commit ? "COMMIT" : "ABORT", m.coordinator_epoch);
        if (m.commit) continue;
        if (fwrite(entry, 1, sizeof entry, index) != sizeof entry) die("write");
        fprintf(expected, "version: 0 producerId: %" PRId64 " firstOffset: %d lastOffset: %d lastStableOffset: %d\n", m.producer_id, i,
                10 + i, 5 + i);
    }
    if (fclose(log) != 0 || fclose(expected) != 0 || fclose(index) != 0) die(folder);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: %s DIR\n", argv[0]);
        return 2;
    }
    for (size_t i = 0; i < VALUE_MAX; i++) value_text[i] = (char)('a' + (i * i / 7 + i) % 26);
    for (int codec = BW_CODEC_NONE; codec <= BW_CODEC_ZSTD; codec++) {
        static const char *const names[] = {"none", "gzip", "snappy", "lz4", "zstd"};
        char folder[4096], name[BW_SEGMENT_NAME_MAX];
        output o = {.base_offset = codec * 1000, .offset = codec * 1000};
        snprintf(folder, sizeof folder, "%s/%s", argv[1], names[codec]);
        if (mkdir(folder, 0755) != 0 && errno != EEXIST) die(folder);
        bw_segment_name(name, o.offset, ".log");
        o.log = create(folder, name);
        o.expected = create(folder, "expected");
        bw_segment_name(name, o.offset, ".index");
        o.index = create(folder, name);
        bw_segment_name(name, o.offset, ".timeindex");
        o.timeindex = create(folder, name);
        write_codec(&o, (bw_codec)codec);
        write_reserved(&o, 60000, 5);
        write_reserved(&o, 200, 200);
        write_reserved(&o, 100, 0);
        FILE *const files[] = {o.log, o.index, o.timeindex, o.expected};
        for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
            if (fclose(files[i]) != 0) die(folder);
    }
    char folder[4096];
    snprintf(folder, sizeof folder, "%s/txn", argv[1]);
    write_transactions(folder);
    return 0;
}
