/* state/: the store of a partition's state: both or neither, growth, owners that are dead, alive, stopped; other lives; other boots. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/err.h"
#include "state/env.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[64];

static int setup(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/busway-state-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

static bw_err try_open(int64_t generation, int topic, bool fast, bw_state_env **out)
{
    char path[128];
    snprintf(path, sizeof path, "%s/group/t-0", folder);
    bw_state_env_options o = {.path = path, .generation = generation, .topic = {{(uint8_t)topic}}, .fast = fast, .map_bytes = 1 << 20};
    bw_err e = bw_state_env_open(&o, out);
    if (e) print_message("  open: %s\n", bw_error_message());
    return e;
}

static bw_state_env *open_env(int64_t generation)
{
    bw_state_env *e;
    assert_int_equal(try_open(generation, 1, false, &e), BW_OK);
    return e;
}

static bw_state_txn *begin(bw_state_env *e)
{
    bw_state_txn *t;
    assert_int_equal(bw_state_env_begin(e, true, NULL, &t), BW_OK);
    return t;
}

static bw_err put(bw_state_txn *t, const char *key, const char *value) { return bw_state_put(t, key, strlen(key), value, strlen(value)); }

/* "" when there is none. */
static const char *get(bw_state_env *e, const char *key)
{
    static char text[64];
    bw_state_txn *t;
    const void *v;
    size_t len;
    assert_int_equal(bw_state_env_begin(e, false, NULL, &t), BW_OK);
    bw_err err = bw_state_get(t, key, strlen(key), &v, &len);
    text[0] = 0;
    if (!err) snprintf(text, sizeof text, "%.*s", (int)len, (const char *)v);
    bw_state_env_abort(t);
    return text;
}

static void test_commit_moves_state_and_offset_and_abort_neither(void **state)
{
    (void)state;
    bw_state_env *e = open_env(1);
    assert_int_equal(bw_state_env_offset(e), -1);
    bw_state_txn *t = begin(e);
    assert_int_equal(put(t, "a", "1"), BW_OK);
    assert_int_equal(bw_state_env_commit(t, 10), BW_OK);
    t = begin(e);
    assert_int_equal(put(t, "a", "2"), BW_OK);
    assert_int_equal(bw_state_del(t, "b", 1), BW_OK);
    bw_state_env_abort(t);
    assert_string_equal(get(e, "a"), "1");
    assert_int_equal(bw_state_env_offset(e), 10);
    bw_state_env_close(e);
    e = open_env(1);
    assert_string_equal(get(e, "a"), "1");
    assert_int_equal(bw_state_env_offset(e), 10);
    bw_state_env_close(e);
}

struct seen {
    char text[64];
};
static bool see(void *opaque, const void *key, size_t key_len, const void *value, size_t value_len)
{
    (void)value, (void)value_len;
    struct seen *s = opaque;
    strncat(s->text, key, key_len);
    strcat(s->text, " ");
    return strlen(s->text) < 12;
}

static void test_keys_are_bounded_and_iterated_by_prefix(void **state)
{
    (void)state;
    bw_state_env *e = open_env(0);
    bw_state_txn *t = begin(e);
    char long_key[600];
    memset(long_key, 'k', sizeof long_key);
    assert_int_equal(bw_state_put(t, long_key, BW_STATE_KEY_MAX + 1, "v", 1), BW_ERR_INVALID_ARGUMENT);
    assert_int_equal(bw_state_put(t, "", 0, "v", 1), BW_ERR_INVALID_ARGUMENT);
    assert_int_equal(bw_state_put(t, long_key, BW_STATE_KEY_MAX, "v", 1), BW_OK);
    static const char *const keys[] = {"b2", "a", "b1", "b10", "c", "b3", "b4", "b5"};
    for (size_t i = 0; i < 8; i++) assert_int_equal(put(t, keys[i], "v"), BW_OK);
    struct seen s = {""};
    assert_int_equal(bw_state_each(t, "b", 1, see, &s), BW_OK);
    assert_string_equal(s.text, "b1 b10 b2 b3 ");
    assert_int_equal(bw_state_env_commit(t, 1), BW_OK);
    assert_int_equal(bw_state_env_begin(e, false, NULL, &t), BW_OK);
    assert_int_equal(put(t, "x", "y"), BW_ERR_INVALID_ARGUMENT); /* for reading */
    s.text[0] = 0;
    assert_int_equal(bw_state_each(t, "", 0, see, &s), BW_OK);
    assert_string_equal(s.text, "a b1 b10 b2 ");
    bw_state_env_abort(t);
    bw_state_env_close(e);
}

static void test_full_map_loses_the_transaction_and_grows(void **state)
{
    (void)state;
    bw_state_env *e = open_env(1);
    char value[4096];
    memset(value, 'v', sizeof value);
    int tries = 0;
    for (;; tries++) { /* 8 MiB at once into a map of one */
        assert_true(tries < 8);
        bw_state_txn *t = begin(e);
        bw_err err = BW_OK;
        for (int i = 0; !err && i < 2000; i++) err = bw_state_put(t, &i, sizeof i, value, sizeof value);
        if (err) assert_int_equal(err, BW_ERR_BUSY);
        assert_int_equal(bw_state_txn_is_lost(t), err != BW_OK);
        err = bw_state_env_commit(t, 2000);
        if (!err) break;
        assert_int_equal(err, BW_ERR_BUSY);
        assert_int_equal(bw_state_env_offset(e), -1);
    }
    assert_true(tries > 0);
    bw_state_env_close(e);
    e = open_env(1);
    assert_int_equal(bw_state_env_offset(e), 2000);
    bw_state_env_close(e);
}

/* A child that owns the store with generation 5, in a transaction that it commits when it is woken. Its exit: what the commit came to. */
static pid_t start_owner(int ready[2])
{
    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork();
    if (pid) return pid;
    bw_state_env *e;
    if (try_open(5, 1, false, &e)) _exit(99);
    bw_state_txn *t;
    if (bw_state_env_begin(e, true, NULL, &t) || put(t, "a", "zombie")) _exit(98);
    if (write(ready[1], "x", 1) != 1) _exit(97);
    raise(SIGSTOP);
    _exit((int)bw_state_env_commit(t, 100));
}

static void wait_stopped(pid_t pid, int ready[2])
{
    char x;
    int status;
    assert_int_equal(read(ready[0], &x, 1), 1);
    assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
    assert_true(WIFSTOPPED(status));
}

static void test_stopped_owner_is_waited_for_by_nobody_and_fenced_when_it_wakes(void **state)
{
    (void)state;
    bw_state_env *e = open_env(1), *none;
    bw_state_txn *t = begin(e);
    assert_int_equal(put(t, "a", "1"), BW_OK);
    assert_int_equal(bw_state_env_commit(t, 10), BW_OK);
    bw_state_env_close(e);
    int ready[2], status;
    pid_t pid = start_owner(ready);
    wait_stopped(pid, ready);
    assert_int_equal(try_open(0, 1, false, &none), BW_ERR_BUSY);
    assert_int_equal(try_open(4, 1, false, &none), BW_ERR_FENCED);
    assert_int_equal(try_open(5, 1, false, &none), BW_ERR_FENCED);
    assert_int_equal(try_open(6, 2, false, &none), BW_ERR_LOG_INCARNATION_MISMATCH);
    e = open_env(6);
    assert_int_equal(bw_state_env_offset(e), 10);
    t = begin(e);
    assert_int_equal(put(t, "b", "2"), BW_OK);
    assert_int_equal(bw_state_env_commit(t, 20), BW_OK);
    kill(pid, SIGCONT);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(WEXITSTATUS(status), BW_ERR_FENCED);
    t = begin(e);
    assert_int_equal(bw_state_env_commit(t, 30), BW_OK);
    bw_state_env_close(e);
    e = open_env(7);
    assert_string_equal(get(e, "a"), "1");
    assert_string_equal(get(e, "b"), "2");
    assert_int_equal(bw_state_env_offset(e), 30);
    bw_state_env_close(e);
}

static void test_killed_owner_leaves_what_it_had_committed(void **state)
{
    (void)state;
    int ready[2], status;
    pid_t pid = start_owner(ready);
    wait_stopped(pid, ready);
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    bw_state_env *e = open_env(1); /* the group was made anew: its generations begin again */
    assert_string_equal(get(e, "a"), "");
    bw_state_txn *t = begin(e);
    assert_int_equal(bw_state_env_commit(t, 1), BW_OK);
    bw_state_env_close(e);
}

static void test_second_opening_in_one_process_is_refused(void **state)
{
    (void)state;
    bw_state_env *e = open_env(1), *none;
    assert_int_equal(try_open(2, 1, false, &none), BW_ERR_BUSY);
    bw_state_txn *t = begin(e);
    assert_int_equal(bw_state_env_commit(t, 1), BW_OK);
    bw_state_env_close(e);
    e = open_env(2);
    bw_state_env_close(e);
}

static void test_other_life_of_the_topic_is_refused(void **state)
{
    (void)state;
    bw_state_env *e;
    bw_state_env_close(open_env(1));
    assert_int_equal(try_open(2, 2, false, &e), BW_ERR_LOG_INCARNATION_MISMATCH);
    assert_non_null(strstr(bw_error_message(), folder));
}

static void write_boot(const char *text)
{
    char path[160];
    snprintf(path, sizeof path, "%s/group/t-0/env-1/unsynced", folder);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
}

static void test_fast_store_survives_deaths_and_not_another_boot(void **state)
{
    (void)state;
    bw_state_env *e;
    char path[160];
    pid_t pid = fork();
    if (!pid) {
        bw_state_txn *t;
        if (try_open(1, 1, true, &e) || bw_state_env_begin(e, true, NULL, &t) || put(t, "a", "1") || bw_state_env_commit(t, 7)) _exit(1);
        raise(SIGKILL);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(try_open(1, 1, true, &e), BW_OK);
    assert_int_equal(bw_state_env_offset(e), 7);
    snprintf(path, sizeof path, "%s/group/t-0/env-1/unsynced", folder);
    assert_int_equal(access(path, F_OK), 0);
    bw_state_env_close(e); /* cleanly: synced */
    assert_int_equal(access(path, F_OK), -1);
    write_boot("00000000000000000000000000000000");
    assert_int_equal(try_open(1, 1, false, &e), BW_ERR_CORRUPT);
    assert_int_equal(try_open(1, 1, true, &e), BW_ERR_CORRUPT);
    assert_non_null(strstr(bw_error_message(), "remove the folder"));
}

static void test_takeover_that_was_cut_short_is_swept(void **state)
{
    (void)state;
    char path[160];
    bw_state_env_close(open_env(1));
    snprintf(path, sizeof path, "%s/group/t-0/env-2", folder);
    assert_int_equal(mkdir(path, 0700), 0);
    strcat(path, "/data.mdb");
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    assert_int_equal(write(fd, "half", 4), 4);
    close(fd);
    bw_state_env *e = open_env(2);
    assert_int_equal(access(path, F_OK), -1);
    bw_state_env_close(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_commit_moves_state_and_offset_and_abort_neither, setup, teardown),
        cmocka_unit_test_setup_teardown(test_keys_are_bounded_and_iterated_by_prefix, setup, teardown),
        cmocka_unit_test_setup_teardown(test_full_map_loses_the_transaction_and_grows, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stopped_owner_is_waited_for_by_nobody_and_fenced_when_it_wakes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_killed_owner_leaves_what_it_had_committed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_second_opening_in_one_process_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_other_life_of_the_topic_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fast_store_survives_deaths_and_not_another_boot, setup, teardown),
        cmocka_unit_test_setup_teardown(test_takeover_that_was_cut_short_is_swept, setup, teardown),
    };
    return cmocka_run_group_tests_name("state", tests, NULL, NULL);
}
