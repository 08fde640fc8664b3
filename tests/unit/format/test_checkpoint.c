/* format/checkpoint.c: partition.metadata and leader-epoch-checkpoint, as Kafka writes them. */
#include "samples.h"

#include "format/names.h"

#include <stdlib.h>

static const bw_uuid sample_id = {
    {0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff}};
#define METADATA "version: 0\ntopic_id: ABEiM0RVZneImaq7zN3u_w\n"

static void test_partition_metadata_is_kafkas_text(void **state)
{
    (void)state;
    char text[64];
    bw_uuid id = {{0}};
    size_t len = bw_partition_metadata_encode(text, &sample_id);
    assert_int_equal(len, strlen(METADATA));
    assert_memory_equal(text, METADATA, len);
    assert_int_equal(bw_partition_metadata_decode(text, len, &id), BW_OK);
    assert_true(bw_uuid_equal(&id, &sample_id));
    assert_int_equal(bw_partition_metadata_decode(text, len - 1, &id), BW_OK); /* the last newline may be missing */
}

static void test_partition_metadata_cut_or_changed_is_refused(void **state)
{
    (void)state;
    static const char text[] = METADATA;
    bw_uuid id;
    guard g = guard_open(sizeof text);
    for (size_t cut = 0; cut < sizeof text - 2; cut++)
        assert_int_equal(bw_partition_metadata_decode((const char *)guard_copy(&g, text, cut), cut, &id), BW_ERR_CORRUPT);
    guard_close(&g);
    static const char *const bad[] = {
        "version: 0\ntopic_id: ABEiM0RVZneImaq7zN3u_w\n\n", "version: 0\ntopic_id: ABEiM0RVZneImaq7zN3u/w\n",
        "version: 0\ntopic_id:  BEiM0RVZneImaq7zN3u_w\n",   "version: 0 \ntopic_id: ABEiM0RVZneImaq7zN3u_w\n",
        "Version: 0\ntopic_id: ABEiM0RVZneImaq7zN3u_w\n",   "version: -1\ntopic_id: ABEiM0RVZneImaq7zN3u_w\n"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(bw_partition_metadata_decode(bad[i], strlen(bad[i]), &id), BW_ERR_CORRUPT);
}

static void test_partition_metadata_newer_version_names_both(void **state)
{
    (void)state;
    static const char text[] = "version: 3\nwho_knows: what\n";
    bw_uuid id;
    assert_int_equal(bw_partition_metadata_decode(text, strlen(text), &id), BW_ERR_NEWER_FORMAT);
    assert_non_null(strstr(bw_error_message(), "version 3"));
    assert_non_null(strstr(bw_error_message(), "version 0"));
}

static void test_epoch_checkpoint_reads_back(void **state)
{
    (void)state;
    static const bw_epoch_entry entries[] = {{0, 0}, {1, 500}, {7, 500}, {INT32_MAX, INT64_MAX}};
    for (size_t count = 0; count <= 4; count++) {
        bw_buf text = {NULL, 0, 0};
        bw_epoch_entry *got = NULL;
        size_t got_count = 99;
        assert_int_equal(bw_epoch_checkpoint_encode(entries, count, &text), BW_OK);
        assert_int_equal(bw_epoch_checkpoint_decode((const char *)text.data, text.len, &got, &got_count), BW_OK);
        assert_int_equal(got_count, count);
        for (size_t i = 0; i < count; i++)
            assert_true(got[i].epoch == entries[i].epoch && got[i].start_offset == entries[i].start_offset);
        free(got);
        bw_buf_free(&text);
    }
}

static void test_epoch_checkpoint_kafkas_text_is_read(void **state)
{
    (void)state;
    static const char text[] = "0\n2\n0 0\n3 1500\n";
    bw_epoch_entry *got;
    size_t count;
    assert_int_equal(bw_epoch_checkpoint_decode(text, strlen(text), &got, &count), BW_OK);
    assert_int_equal(count, 2);
    assert_true(got[1].epoch == 3 && got[1].start_offset == 1500);
    free(got);
}

static void test_epoch_checkpoint_broken_text_is_refused(void **state)
{
    (void)state;
    static const char text[] = "0\n2\n0 0\n31 1500\n";
    static const char *const bad[] = {"0\n1\n",
                                      "0\n0\n1 1\n",
                                      "0\n1\n-1 0\n",
                                      "0\n1\n0 -1\n",
                                      "0\n1\n2147483648 0\n",
                                      "0\n1\n0 9223372036854775808\n",
                                      "0\n1\n0  0\n",
                                      "0\n1\n0 0 \n",
                                      "0\n1\n0 0\n\n",
                                      "0\n9999999999999\n0 0\n",
                                      "0\n99999999999999999999999\n0 0\n",
                                      "x\n",
                                      "0\nx\n",
                                      "0 2\n",
                                      "0\n1\n0\n"};
    bw_epoch_entry *got = NULL;
    size_t count;
    guard g = guard_open(sizeof text);
    for (size_t cut = 0; cut < strlen(text) - 1; cut++) {
        const char *copy = (const char *)guard_copy(&g, text, cut);
        bw_err err = bw_epoch_checkpoint_decode(copy, cut, &got, &count);
        /* Cut inside the last number the rest is a number still; there the file's rename vouches for it. */
        if (err == BW_OK) {
            assert_true(cut > strlen("0\n2\n0 0\n31 "));
            free(got);
        } else {
            assert_int_equal(err, BW_ERR_CORRUPT);
        }
    }
    guard_close(&g);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(bw_epoch_checkpoint_decode(bad[i], strlen(bad[i]), &got, &count), BW_ERR_CORRUPT);
    assert_int_equal(bw_epoch_checkpoint_decode("1\n0\n", 4, &got, &count), BW_ERR_NEWER_FORMAT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_partition_metadata_is_kafkas_text),
        cmocka_unit_test(test_partition_metadata_cut_or_changed_is_refused),
        cmocka_unit_test(test_partition_metadata_newer_version_names_both),
        cmocka_unit_test(test_epoch_checkpoint_reads_back),
        cmocka_unit_test(test_epoch_checkpoint_kafkas_text_is_read),
        cmocka_unit_test(test_epoch_checkpoint_broken_text_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
