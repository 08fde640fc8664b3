/* broker/quota.c, quota_bucket.h: rates over time, entities, who has which quota, records. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/err.h"
#include "broker/quota.h"

#include <stdio.h>
#include <stdlib.h>

#define SECOND INT64_C(1000000000)

static void test_bucket_any_interval_uses_at_most_rate_window_and_one(void **state)
{
    (void)state;
    bw_bucket b = {1000000, 5 * SECOND};
    unsigned seed = 7;
    int64_t now = 5 * SECOND, window = SECOND / 2;
    static int64_t at[4096], amount[4096];
    int n = 0;
    while (n < 4096) {
        now += rand_r(&seed) % (n % 100 == 0 ? 2 * SECOND : 3 * SECOND / 1000);
        int64_t more = 1 + rand_r(&seed) % 9000;
        if (bw_bucket_wait_ns(&b, now)) continue;
        bw_bucket_charge(&b, now, window, (uint64_t)more);
        at[n] = now;
        amount[n++] = more;
    }
    for (int from = 0; from < n; from += 17) {
        double sum = 0;
        for (int to = from; to < n; to++) {
            sum += (double)amount[to];
            double most = 1e6 * (double)(at[to] - at[from] + window) / 1e9 + (double)amount[to];
            assert_true(sum <= most + 1.0 + (to - from)); /* a nanosecond of rounding each */
        }
    }
}

static void test_bucket_under_load_uses_the_whole_rate(void **state)
{
    (void)state;
    bw_bucket b = {2500000, 0};
    int64_t now = 0, used = 0;
    while (now < 10 * SECOND) {
        int64_t wait = bw_bucket_wait_ns(&b, now);
        now += wait ? wait + 700000 : 0; /* a late timer loses nothing */
        bw_bucket_charge(&b, now, SECOND, 16384);
        used += 16384;
    }
    assert_in_range(used, 24750000, 25250000);
}

static void test_bucket_new_has_nothing_saved_and_huge_amounts_do_not_wrap(void **state)
{
    (void)state;
    bw_bucket b = {10, SECOND};
    assert_int_equal(bw_bucket_wait_ns(&b, SECOND), 0);
    bw_bucket_charge(&b, SECOND, SECOND, 10);
    assert_int_equal(bw_bucket_wait_ns(&b, SECOND), SECOND);
    bw_bucket_charge(&b, SECOND, SECOND, UINT64_MAX);
    assert_int_equal(bw_bucket_wait_ns(&b, SECOND), BW_BUCKET_AHEAD_MAX_NS);
    bw_bucket_charge(&b, SECOND, SECOND, UINT64_MAX);
    assert_int_equal(bw_bucket_wait_ns(&b, SECOND), BW_BUCKET_AHEAD_MAX_NS);
}

static void test_bucket_new_rate_keeps_what_is_owed(void **state)
{
    (void)state;
    bw_bucket b = {1000, 0};
    bw_bucket_charge(&b, 0, SECOND, 4000);
    int64_t owed = bw_bucket_wait_ns(&b, SECOND);
    bw_bucket_set_rate(&b, SECOND, 500);
    assert_int_equal(bw_bucket_wait_ns(&b, SECOND), 2 * owed);
}

/* ---- entities ---- */

static bw_err name_of(const char *user, const char *client, const char *pid, bw_quota_name *out)
{
    bw_quota_entity e = {bw_str_of(user), bw_str_of(client), bw_str_of(pid)};
    return bw_quota_name_of(&e, out);
}

static void test_entity_bad_one_is_refused_with_what_is_allowed(void **state)
{
    (void)state;
    bw_quota_name n;
    char many[80];
    memset(many, 'x', sizeof many - 1);
    many[sizeof many - 1] = 0;
    static const char *const bad[][3] = {{"", "", ""}, {"root", "", ""}, {"-1", "", ""}, {"01", "", ""},
                                         {"", "", "1x"}, {"1", "", "2"}, {"", "c", "2"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(name_of(bad[i][0], bad[i][1], bad[i][2], &n), BW_ERR_INVALID_QUOTA);
        assert_non_null(strstr(bw_error_message(), "allowed"));
    }
    assert_int_equal(name_of("", many, "", &n), BW_ERR_INVALID_QUOTA);
    bw_quota_entity nul = {.client = {"a\0b", 3}};
    assert_int_equal(bw_quota_name_of(&nul, &n), BW_ERR_INVALID_QUOTA);
    assert_int_equal(name_of("0", BW_QUOTA_DEFAULT, "", &n), BW_OK);
}

static void test_rate_zero_negative_or_nonsense_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"0", "-1", "", "1.5", "x", "1 ", "99999999999999999999", "00"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        bw_quota_entry e = {.rates = {0}};
        bw_config_pair p = {bw_str_of("producer_byte_rate"), bw_str_of(bad[i]), true};
        assert_int_equal(bw_quota_apply(&e, &p, 1), BW_ERR_INVALID_QUOTA);
        assert_non_null(strstr(bw_error_message(), "1 to"));
    }
    bw_quota_entry e = {.rates = {0, 7, 0}};
    bw_config_pair two[] = {{bw_str_of("request_rate"), bw_str_of("12"), true}, {bw_str_of("consumer_byte_rate"), {NULL, 0}, false}};
    assert_int_equal(bw_quota_apply(&e, two, 2), BW_OK);
    assert_int_equal(e.rates[BW_QUOTA_REQUEST], 12);
    assert_int_equal(e.rates[BW_QUOTA_CONSUME], 0);
    bw_config_pair other = {bw_str_of("bytes"), bw_str_of("1"), true};
    assert_int_equal(bw_quota_apply(&e, &other, 1), BW_ERR_INVALID_QUOTA);
}

/* ---- precedence ---- */

static void put(bw_quotas *q, const char *user, const char *client, const char *pid, int64_t rate)
{
    bw_quota_entry e = {.rates = {rate, 0, 0}};
    assert_int_equal(name_of(user, client, pid, &e.name), BW_OK);
    assert_int_equal(bw_quotas_put(q, &e, 0), BW_OK);
}

static int64_t rate_of(const bw_quotas *q, const char *user, const char *client, const char *pid, bw_quota_name *whose)
{
    bw_quota_name who = {.user = ""};
    strcpy(who.user, user);
    strcpy(who.client, client);
    strcpy(who.pid, pid);
    const bw_quota_entry *e = bw_quotas_find(q, BW_QUOTA_PRODUCE, &who, whose);
    return e ? e->rates[BW_QUOTA_PRODUCE] : 0;
}

/* From the least specific to the most: each new one takes over. */
static void test_precedence_most_specific_entity_holds(void **state)
{
    (void)state;
#define D BW_QUOTA_DEFAULT
    static const char *const order[][3] = {{"", "", D}, {"", D, ""}, {"", "c", ""}, {D, "", ""}, {D, D, ""},
                                           {D, "c", ""}, {"1", "", ""}, {"1", D, ""}, {"1", "c", ""}, {"", "", "42"}};
    static const char *const whose[][3] = {{"", "", "42"}, {"", "c", ""}, {"", "c", ""}, {"1", "", ""}, {"1", "c", ""},
                                           {"1", "c", ""}, {"1", "", ""}, {"1", "c", ""}, {"1", "c", ""}, {"", "", "42"}};
    bw_quotas *q = bw_quotas_new();
    assert_non_null(q);
    for (int i = 0; i < 10; i++) {
        bw_quota_name n;
        put(q, order[i][0], order[i][1], order[i][2], 100 + i);
        assert_int_equal(rate_of(q, "1", "c", "42", &n), 100 + i);
        assert_string_equal(n.user, whose[i][0]);
        assert_string_equal(n.client, whose[i][1]);
        assert_string_equal(n.pid, whose[i][2]);
    }
    bw_quota_name n;
    assert_int_equal(rate_of(q, "1", "other", "7", &n), 107);
    assert_int_equal(rate_of(q, "2", "c", "7", &n), 105);
    assert_int_equal(rate_of(q, "2", "other", "7", &n), 104);
    assert_int_equal(rate_of(q, "", "c", "7", &n), 102); /* no uid: over a network */
    assert_int_equal(rate_of(q, "", "", "7", &n), 100);
    /* A rate of another kind does not stand in the way. */
    bw_quota_entry e = {.rates = {0, 9, 0}};
    assert_int_equal(name_of("1", "c", "", &e.name), BW_OK);
    assert_int_equal(bw_quotas_put(q, &e, 0), BW_OK);
    assert_int_equal(rate_of(q, "1", "c", "7", &n), 107);
    bw_quotas_free(q);
}

static void test_bucket_is_shared_by_those_for_whom_one_entity_holds(void **state)
{
    (void)state;
    bw_quotas *q = bw_quotas_new();
    put(q, "1", "", "", 1000);
    put(q, "", D, "", 50);
    bw_quota_name a = {.user = "1", .client = "a"}, b = {.user = "1", .client = "b"};
    bw_quota_name c = {.user = "2", .client = "a"}, d = {.user = "3", .client = "b"};
    bw_quota_bucket *ba = bw_quotas_bucket(q, BW_QUOTA_PRODUCE, &a, 0), *bb = bw_quotas_bucket(q, BW_QUOTA_PRODUCE, &b, 0);
    bw_quota_bucket *bc = bw_quotas_bucket(q, BW_QUOTA_PRODUCE, &c, 0), *bd = bw_quotas_bucket(q, BW_QUOTA_PRODUCE, &d, 0);
    assert_ptr_equal(ba, bb);
    assert_ptr_not_equal(bc, bd);
    assert_null(bw_quotas_bucket(q, BW_QUOTA_CONSUME, &a, 0));
    bw_bucket_charge(bw_quota_bucket_of(bc), 0, 0, 500); /* ten seconds */
    bw_quota_bucket_release(q, bc, SECOND);
    bc = bw_quotas_bucket(q, BW_QUOTA_PRODUCE, &c, SECOND); /* connected anew: it owes what it owed */
    assert_int_equal(bw_bucket_wait_ns(bw_quota_bucket_of(bc), SECOND), 9 * SECOND);
    put(q, "", D, "", 100);
    assert_int_equal(bw_quota_bucket_of(bc)->rate, 100);
    bw_quota_bucket_release(q, bc, SECOND);
    bw_quota_bucket_release(q, bd, SECOND);
    bw_quota_bucket_release(q, ba, SECOND);
    bw_quota_bucket_release(q, bb, SECOND);
    bw_quotas_free(q);
}

static void test_record_round_trips_and_damage_is_refused(void **state)
{
    (void)state;
    bw_quota_entry e = {.rates = {1, 0, BW_QUOTA_RATE_MAX}}, back;
    assert_int_equal(name_of("1000", "kcat", "", &e.name), BW_OK);
    uint8_t key[BW_QUOTA_KEY_MAX], value[BW_QUOTA_VALUE_BYTES];
    size_t len = bw_quota_key(&e.name, key);
    bw_quota_value(&e, value);
    assert_int_equal(bw_quota_decode(key, len, value, sizeof value, &back), BW_OK);
    assert_memory_equal(&back.rates, &e.rates, sizeof e.rates);
    assert_string_equal(back.name.client, "kcat");
    for (size_t cut = 0; cut < len; cut++) assert_int_equal(bw_quota_decode(key, cut, value, sizeof value, &back), BW_ERR_CORRUPT);
    for (size_t cut = 0; cut < sizeof value; cut++) assert_int_equal(bw_quota_decode(key, len, value, cut, &back), BW_ERR_CORRUPT);
    value[1] = 0xff;
    assert_int_equal(bw_quota_decode(key, len, value, sizeof value, &back), BW_ERR_CORRUPT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bucket_any_interval_uses_at_most_rate_window_and_one),
        cmocka_unit_test(test_bucket_under_load_uses_the_whole_rate),
        cmocka_unit_test(test_bucket_new_has_nothing_saved_and_huge_amounts_do_not_wrap),
        cmocka_unit_test(test_bucket_new_rate_keeps_what_is_owed),
        cmocka_unit_test(test_entity_bad_one_is_refused_with_what_is_allowed),
        cmocka_unit_test(test_rate_zero_negative_or_nonsense_is_refused),
        cmocka_unit_test(test_precedence_most_specific_entity_holds),
        cmocka_unit_test(test_bucket_is_shared_by_those_for_whom_one_entity_holds),
        cmocka_unit_test(test_record_round_trips_and_damage_is_refused),
    };
    return cmocka_run_group_tests_name("quota", tests, NULL, NULL);
}
