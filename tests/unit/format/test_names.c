/* format/names.h: topic names, folder and file names. */
#include "samples.h"

#include "format/names.h"

static void test_topic_name_legal_ones_pass(void **state)
{
    (void)state;
    char longest[BW_TOPIC_NAME_MAX + 1];
    memset(longest, 'x', sizeof longest);
    static const char *const good[] = {"a", "A-Z.0_9", "...", "-", "_", "__consumer_offsets", ".a", "a.", "0"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        assert_int_equal(bw_topic_name_check(good[i], strlen(good[i])), BW_OK);
    assert_int_equal(bw_topic_name_check(longest, BW_TOPIC_NAME_MAX), BW_OK);
}

static void test_topic_name_illegal_ones_say_what_and_where(void **state)
{
    (void)state;
    char too_long[BW_TOPIC_NAME_MAX + 1];
    memset(too_long, 'x', sizeof too_long);
    assert_int_equal(bw_topic_name_check("", 0), BW_ERR_INVALID_TOPIC);
    assert_int_equal(bw_topic_name_check(".", 1), BW_ERR_INVALID_TOPIC);
    assert_int_equal(bw_topic_name_check("..", 2), BW_ERR_INVALID_TOPIC);
    assert_int_equal(bw_topic_name_check(too_long, sizeof too_long), BW_ERR_INVALID_TOPIC);
    assert_non_null(strstr(bw_error_message(), "250"));
    assert_int_equal(bw_topic_name_check("a/b", 3), BW_ERR_INVALID_TOPIC);
    assert_non_null(strstr(bw_error_message(), "'/' at position 1"));
    assert_int_equal(bw_topic_name_check("ab\0", 3), BW_ERR_INVALID_TOPIC);
    assert_non_null(strstr(bw_error_message(), "0x00 at position 2"));
    assert_int_equal(bw_topic_name_check("caf\xc3\xa9", 5), BW_ERR_INVALID_TOPIC);
    assert_non_null(strstr(bw_error_message(), "0xc3 at position 3"));
    for (int c = 1; c < 256; c++) {
        char name[] = {'t', (char)c};
        bool legal =
            (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
        assert_int_equal(bw_topic_name_check(name, 2), legal ? BW_OK : BW_ERR_INVALID_TOPIC);
    }
}

static void test_topic_names_dot_and_underscore_collide(void **state)
{
    (void)state;
    assert_true(bw_topic_names_collide("a.b", "a_b"));
    assert_true(bw_topic_names_collide("a", "a"));
    assert_true(bw_topic_names_collide("._.", "___"));
    assert_false(bw_topic_names_collide("a.b", "a-b"));
    assert_false(bw_topic_names_collide("a.b", "a.bc"));
    assert_false(bw_topic_names_collide("a.bc", "a.b"));
    assert_false(bw_topic_names_collide("A", "a"));
}

static void test_partition_dir_reads_back(void **state)
{
    (void)state;
    char longest[BW_TOPIC_NAME_MAX + 1];
    memset(longest, 'x', BW_TOPIC_NAME_MAX);
    longest[BW_TOPIC_NAME_MAX] = '\0';
    const char *topics[] = {"t", "my-topic", "a-1", "...", "-", longest};
    static const int32_t partitions[] = {0, 1, 9, 10, 16383, INT32_MAX};
    for (size_t t = 0; t < 6; t++) {
        for (size_t p = 0; p < 6; p++) {
            char name[BW_PARTITION_DIR_MAX], topic[BW_TOPIC_NAME_MAX + 1];
            int32_t partition = -1;
            bw_partition_dir_name(name, topics[t], partitions[p]);
            assert_true(bw_partition_dir_parse(name, topic, &partition));
            assert_string_equal(topic, topics[t]);
            assert_int_equal(partition, partitions[p]);
        }
    }
}

static void test_partition_dir_foreign_names_are_refused(void **state)
{
    (void)state;
    char too_long[BW_PARTITION_DIR_MAX + 50];
    memset(too_long, 'x', sizeof too_long);
    memcpy(too_long + BW_TOPIC_NAME_MAX + 1, "-0", 3);
    const char *bad[] = {
        "",      "-",          "t",      "t-",    "-1",       "t-00",  "t-01",  "t-2147483648",    "t-99999999999999999999",
        "t--1-", "t-1x",       "t-1 ",   ".-0",   "..-0",     "a/b-0", "a b-0", "t-0.c2f1-delete", "t-+1",
        "t-0\n", "lost+found", too_long, "t-0x1", "meta.mdb", ".",     ".."};
    char topic[BW_TOPIC_NAME_MAX + 1] = "kept";
    int32_t partition = 77;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) assert_false(bw_partition_dir_parse(bad[i], topic, &partition));
    assert_string_equal(topic, "kept");
    assert_int_equal(partition, 77);
}

static void test_segment_name_reads_back(void **state)
{
    (void)state;
    static const int64_t offsets[] = {0, 1, 368769, INT64_MAX};
    static const char *const suffixes[] = {".log", ".index", ".timeindex", ".txnindex", ".seal"};
    char name[BW_SEGMENT_NAME_MAX];
    bw_segment_name(name, 368769, ".log");
    assert_string_equal(name, "00000000000000368769.log");
    for (size_t o = 0; o < 4; o++) {
        for (size_t s = 0; s < 5; s++) {
            int64_t offset = -1;
            bw_segment_name(name, offsets[o], suffixes[s]);
            assert_true(bw_segment_name_parse(name, suffixes[s], &offset));
            assert_true(offset == offsets[o]);
            assert_false(bw_segment_name_parse(name, ".other", &offset));
        }
    }
}

static void test_segment_name_foreign_names_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      "0.log",
                                      "0000000000000000000.log",
                                      "000000000000000000000.log",
                                      "0000000000000000000a.log",
                                      "00000000000000000000.logx",
                                      "00000000000000000000.lo",
                                      "00000000000000000000log",
                                      "-0000000000000000001.log",
                                      "09223372036854775808.log",
                                      "99999999999999999999.log",
                                      "00000000000000000000.log.deleted"};
    int64_t offset = 77;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) assert_false(bw_segment_name_parse(bad[i], ".log", &offset));
    assert_true(offset == 77);
}

static void test_spare_name_reads_back_and_foreign_ones_are_refused(void **state)
{
    (void)state;
    static const uint32_t seqs[] = {1, 2, 4294967295u};
    char name[BW_SEGMENT_NAME_MAX];
    uint32_t seq = 0;
    bw_spare_name(name, 12);
    assert_string_equal(name, "0000000012.spare");
    for (size_t i = 0; i < 3; i++) {
        bw_spare_name(name, seqs[i]);
        assert_true(bw_spare_name_parse(name, &seq));
        assert_true(seq == seqs[i]);
    }
    static const char *const bad[] = {
        "", "1.spare", "000000001.spare", "4294967296.spare", "0000000012.spares", "000000001x.spare"};
    seq = 77;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) assert_false(bw_spare_name_parse(bad[i], &seq));
    assert_int_equal(seq, 77);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_topic_name_legal_ones_pass),
        cmocka_unit_test(test_topic_name_illegal_ones_say_what_and_where),
        cmocka_unit_test(test_topic_names_dot_and_underscore_collide),
        cmocka_unit_test(test_partition_dir_reads_back),
        cmocka_unit_test(test_partition_dir_foreign_names_are_refused),
        cmocka_unit_test(test_segment_name_reads_back),
        cmocka_unit_test(test_segment_name_foreign_names_are_refused),
        cmocka_unit_test(test_spare_name_reads_back_and_foreign_ones_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
