/* What names a pattern means, and what is refused because of what it would cost. */
#include "format/pattern.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

static bool means(const char *pattern, const char *name)
{
    regex_t r;
    size_t cost = 0;
    assert_int_equal(bw_pattern_compile(pattern, strlen(pattern), &r, &cost), BW_OK);
    bool yes = bw_pattern_means(&r, name);
    regfree(&r);
    return yes;
}

static void test_pattern_means_whole_names_but_the_daemons_own(void **state)
{
    (void)state;
    assert_true(means("m\\..*", "m.one"));
    assert_false(means("m\\..*", "xm.one"));
    assert_true(means("a|b", "b"));
    assert_false(means("a|b", "ab"));
    assert_true(means(".*", "_mine"));
    assert_false(means(".*", "__offsets"));
}

static void test_pattern_that_costs_too_much_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"", "(a", "(a*)*", "(|a)+", "((a{100}){100}){100}", "a{9999}", "(a)\\1",
                                      "((((a+)+)+)+)+((((b+)+)+)+)+((((c+)+)+)+)+"};
    char longest[BW_PATTERN_BYTES_MAX + 2];
    memset(longest, 'a', sizeof longest);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        regex_t r;
        size_t cost = 0;
        if (bw_pattern_compile(bad[i], strlen(bad[i]), &r, &cost) != BW_ERR_INVALID_ARGUMENT) fail_msg("'%s' was taken", bad[i]);
    }
    regex_t r;
    size_t cost = 0;
    assert_int_equal(bw_pattern_compile(longest, sizeof longest - 1, &r, &cost), BW_ERR_INVALID_ARGUMENT);
    assert_int_equal(bw_pattern_compile(longest, sizeof longest - 2, &r, &cost), BW_OK);
    regfree(&r);
    cost = BW_PATTERN_COST_MAX; /* those before it in the list have taken all there is */
    assert_int_equal(bw_pattern_compile("a", 1, &r, &cost), BW_ERR_INVALID_ARGUMENT);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pattern_means_whole_names_but_the_daemons_own),
        cmocka_unit_test(test_pattern_that_costs_too_much_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
