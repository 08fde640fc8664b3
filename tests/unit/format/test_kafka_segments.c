/* Segments made by Apache Kafka 3.9 (tests/compat/kafka-3.9, see its README): each batch and record read here is what Kafka's own
 * reader says of it, its indexes and small files are sound to us. Run from the top of the repository, or with
 * BUSWAY_KAFKA_SEGMENTS naming the folder. */
#include "samples.h"

#include "base/crc32c.h"
#include "format/codec.h"
#include "format/index.h"
#include "format/names.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdlib.h>

#define FOLDERS 7

static const char *segments_root(void)
{
    const char *root = getenv("BUSWAY_KAFKA_SEGMENTS");
    return root ? root : "tests/compat/kafka-3.9";
}

/* A whole file; fails the test when it is not there. */
static bw_buf file_read(const char *folder, const char *name)
{
    char path[1024];
    bw_buf out = {NULL, 0, 0};
    snprintf(path, sizeof path, "%s/%s/%s", segments_root(), folder, name);
    FILE *f = fopen(path, "rb");
    if (!f) fail_msg("%s is missing; run the tests from the top of the repository", path);
    for (size_t got = 1; got > 0; out.len += got) {
        assert_int_equal(bw_buf_reserve(&out, 4096), BW_OK);
        got = fread(out.data + out.len, 1, 4096, f);
    }
    fclose(f);
    return out;
}

static void print_field(FILE *out, const uint8_t *data, size_t len)
{
    if (!data)
        fprintf(out, "null");
    else if (len == 0)
        fprintf(out, "-");
    else if (len > 64)
        fprintf(out, "#%zu:%08" PRIx32, len, bw_crc32c(data, len));
    else
        for (size_t i = 0; i < len; i++) fprintf(out, "%02x", data[i]);
}

static void print_batch(FILE *out, const bw_batch_header *h)
{
    char flags[4] = "", *at = flags;
    if (h->attributes & BW_ATTR_TRANSACTIONAL) *at++ = 't';
    if (h->attributes & BW_ATTR_CONTROL) *at++ = 'c';
    if (h->attributes & 0x40) *at++ = 'd';
    *at = '\0';
    fprintf(out, "batch %" PRId64 " %" PRId64 " %d %d %s %s %s %" PRId64 " %d %d %" PRId64 " %u\n", h->base_offset,
            bw_batch_last_offset(h), h->record_count, h->leader_epoch,
            bw_codec_name((bw_codec)(h->attributes & BW_ATTR_CODEC_MASK)),
            h->attributes & BW_ATTR_LOG_APPEND_TIME ? "append" : "create", *flags ? flags : "-", h->producer_id,
            h->producer_epoch, h->base_sequence, h->max_timestamp, bw_batch_size(h));
}

static void print_record(FILE *out, const bw_record_view *v)
{
    bw_header_iter it;
    bw_header h;
    int more;
    fprintf(out, "record %" PRId64 " %" PRId64 " ", v->offset, v->timestamp_ms);
    print_field(out, v->key, v->key_len);
    fputc(' ', out);
    print_field(out, v->value, v->value_len);
    fputc(' ', out);
    if (v->header_count == 0) fprintf(out, "none");
    bw_header_iter_init(&it, v);
    for (uint32_t i = 0; (more = bw_header_iter_next(&it, &h)) > 0; i++) {
        fprintf(out, "%s%.*s=", i ? "," : "", (int)h.name_len, h.name);
        print_field(out, h.value, h.value_len);
    }
    assert_int_equal(more, 0);
    fputc('\n', out);
}

/* The log in the words of `expected`. */
static void print_log(FILE *out, const bw_buf *log)
{
    size_t at = 0;
    while (at < log->len) {
        bw_batch_header h;
        assert_int_equal(bw_batch_header_decode(log->data + at, log->len - at, false, &h), BW_OK);
        assert_true(bw_batch_crc_ok(log->data + at, bw_batch_size(&h)));
        assert_int_equal(bw_batch_check_records(log->data + at, &h, 1 << 20), BW_OK);
        print_batch(out, &h);
        bw_buf plain = {NULL, 0, 0};
        size_t packed = bw_batch_size(&h) - BW_BATCH_HEADER_BYTES;
        if (packed > 0)
            assert_int_equal(bw_codec_decompress((bw_codec)(h.attributes & BW_ATTR_CODEC_MASK),
                                                 log->data + at + BW_BATCH_HEADER_BYTES, packed, 1 << 20, &plain),
                             BW_OK);
        bw_record_iter it;
        bw_record_view v;
        int more;
        bw_record_iter_init(&it, &h, plain.data, plain.len);
        while ((more = bw_record_iter_next(&it, &v)) > 0) print_record(out, &v);
        assert_int_equal(more, 0);
        bw_buf_free(&plain);
        at += bw_batch_size(&h);
    }
    assert_int_equal(at, log->len);
}

/* Every entry leads to a batch whose last offset it names (Kafka's rule for .index); every time entry is a time of the log. */
static void check_indexes(const bw_buf *log, const bw_buf *index, const bw_buf *times, int64_t base)
{
    size_t entries = bw_index_entries(index->data, index->len, log->len);
    assert_int_equal(entries, index->len / BW_INDEX_ENTRY_BYTES);
    for (size_t i = 0; i < entries; i++) {
        bw_batch_header h;
        int64_t offset = base + bw_get_be32(index->data + 8 * i);
        uint32_t position = bw_index_floor(index->data, entries, base, offset);
        assert_int_equal(position, bw_get_be32(index->data + 8 * i + 4));
        assert_int_equal(bw_batch_header_decode(log->data + position, log->len - position, false, &h), BW_OK);
        assert_true(bw_batch_last_offset(&h) == offset);
    }
    size_t time_entries = bw_timeindex_entries(times->data, times->len);
    assert_true(time_entries > 0);
    assert_int_equal(time_entries, times->len / BW_TIMEINDEX_ENTRY_BYTES);
}

static void check_folder(const char *folder)
{
    char topic[BW_TOPIC_NAME_MAX + 1], name[BW_SEGMENT_NAME_MAX];
    int32_t partition;
    assert_true(bw_partition_dir_parse(folder, topic, &partition));
    assert_int_equal(partition, 0);
    int64_t base = strncmp(folder, "codec-", 6) == 0 ? 100 : 0;

    bw_segment_name(name, base, ".log");
    bw_buf log = file_read(folder, name), expected = file_read(folder, "expected");
    char *got = NULL;
    size_t got_len = 0;
    FILE *out = open_memstream(&got, &got_len);
    assert_non_null(out);
    print_log(out, &log);
    assert_int_equal(fclose(out), 0);
    assert_int_equal(bw_buf_append(&expected, "", 1), BW_OK);
    assert_string_equal(got, (const char *)expected.data);
    assert_int_equal(got_len, expected.len - 1);

    bw_segment_name(name, base, ".index");
    bw_buf index = file_read(folder, name);
    bw_segment_name(name, base, ".timeindex");
    bw_buf times = file_read(folder, name);
    check_indexes(&log, &index, &times, base);

    bw_uuid id;
    bw_epoch_entry *epochs;
    size_t count;
    bw_buf metadata = file_read(folder, "partition.metadata"), checkpoint = file_read(folder, "leader-epoch-checkpoint");
    assert_int_equal(bw_partition_metadata_decode((const char *)metadata.data, metadata.len, &id), BW_OK);
    assert_int_equal(bw_epoch_checkpoint_decode((const char *)checkpoint.data, checkpoint.len, &epochs, &count), BW_OK);
    assert_true(count == 1 && epochs[0].epoch == 5 && epochs[0].start_offset == base);
    free(epochs);
    free(got);
    bw_buf *all[] = {&log, &expected, &index, &times, &metadata, &checkpoint};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) bw_buf_free(all[i]);
}

static void test_kafka_segments_every_record_is_as_kafka_reads_it(void **state)
{
    (void)state;
    DIR *dir = opendir(segments_root());
    int folders = 0;
    if (!dir) fail_msg("%s is missing; run the tests from the top of the repository", segments_root());
    for (struct dirent *e; (e = readdir(dir));) {
        char topic[BW_TOPIC_NAME_MAX + 1];
        int32_t partition;
        if (!bw_partition_dir_parse(e->d_name, topic, &partition)) continue;
        check_folder(e->d_name);
        folders++;
    }
    closedir(dir);
    assert_int_equal(folders, FOLDERS);
}

/* Kafka's own bytes come out again when its records are built here, where nothing is compressed. */
static void test_kafka_segments_plain_batches_are_rebuilt_byte_for_byte(void **state)
{
    (void)state;
    bw_buf log = file_read("codec-none-0", "00000000000000000100.log");
    bw_batch_builder b;
    int batches = 0;
    bw_batch_builder_init(&b);
    for (size_t at = 0; at < log.len; batches++) {
        bw_batch_header h;
        bw_record_iter it;
        bw_record_view v;
        uint8_t *batch;
        size_t len;
        assert_int_equal(bw_batch_header_decode(log.data + at, log.len - at, false, &h), BW_OK);
        bool append_time = h.attributes & BW_ATTR_LOG_APPEND_TIME;
        bw_batch_options options = {BW_CODEC_NONE,   append_time ? h.max_timestamp : BW_NO_TIMESTAMP,
                                    h.producer_id,   h.producer_epoch,
                                    h.base_sequence, false};
        h.attributes = 0; /* each record's own time */
        bw_record_iter_init(&it, &h, log.data + at + BW_BATCH_HEADER_BYTES, bw_batch_size(&h) - BW_BATCH_HEADER_BYTES);
        bw_batch_builder_reset(&b);
        while (bw_record_iter_next(&it, &v) > 0) {
            bw_header headers[4];
            bw_header_iter hit;
            bw_header_iter_init(&hit, &v);
            for (uint32_t i = 0; i < v.header_count; i++) assert_int_equal(bw_header_iter_next(&hit, &headers[i]), 1);
            bw_record r = {v.key, v.key_len, v.value, v.value_len, headers, v.header_count, v.timestamp_ms};
            assert_int_equal(bw_batch_builder_add(&b, &r), BW_OK);
        }
        assert_int_equal(bw_batch_builder_finish(&b, &options, &batch, &len), BW_OK);
        bw_batch_patch(batch, h.base_offset, h.leader_epoch);
        assert_int_equal(len, bw_batch_size(&h));
        assert_memory_equal(batch, log.data + at, len);
        at += len;
    }
    assert_int_equal(batches, 5);
    bw_batch_builder_fini(&b);
    bw_buf_free(&log);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kafka_segments_every_record_is_as_kafka_reads_it),
        cmocka_unit_test(test_kafka_segments_plain_batches_are_rebuilt_byte_for_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
