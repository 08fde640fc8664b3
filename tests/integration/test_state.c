/* State mode: a counter over a topic is right after any number of kills, of its workers and of the daemon; on both transports
 * ($BUSWAY_TEST_TRANSPORT).
 * $BW_STATE_KILLS (150): how many, on each transport.
 * test: limit=240, no-asan */
#include "support/bus.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WORKERS = 3, PARTS = 4, KEYS = 50, EACH_KILL = 200, PATIENCE_MS = 60000 };

typedef struct shared {
    _Atomic int stop;
    _Atomic long fenced, processed, failed, started;
    char why[256];
} shared;

static test_daemon d;
static shared *all;
static pid_t pids[WORKERS];

static int setup(void **state)
{
    (void)state;
    all = mmap(NULL, sizeof *all, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED) return -1;
    daemon_make(&d);
    daemon_start(&d);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (int i = 0; i < WORKERS; i++) {
        if (pids[i] > 0 && kill(pids[i], SIGKILL) == 0) waitpid(pids[i], NULL, 0);
        pids[i] = 0;
    }
    daemon_remove(&d);
    munmap(all, sizeof *all);
    return 0;
}

/* ---- the counter ---- */

static bw_err count(bw_state_txn *t, const bw_batch *batch, const bw_record_view *r, void *opaque)
{
    (void)batch, (void)opaque;
    const void *old;
    size_t len;
    uint64_t n = 0;
    if (bw_state_get(t, r->key, r->key_len, &old, &len) == BW_OK && len == sizeof n) memcpy(&n, old, len);
    n++;
    return bw_state_put(t, r->key, r->key_len, &n, sizeof n);
}

static bw_consumer *group_consumer(bw_bus *bus, int max_poll_ms)
{
    bw_consumer_options o = BW_CONSUMER_OPTIONS_INIT;
    bw_consumer *c;
    o.group_id = "counters/1";
    o.auto_offset_reset = BW_RESET_EARLIEST;
    if (max_poll_ms) o.max_poll_interval_ms = max_poll_ms;
    assert_ok(bw_consumer_open(bus, &o, &c));
    return c;
}

static bool goes_on(bw_err e)
{
    switch (e) {
    case BW_OK:
    case BW_ERR_TIMED_OUT:
    case BW_ERR_NO_COORDINATOR:
    case BW_ERR_NOT_CONNECTED:
    case BW_ERR_BUSY:
    case BW_ERR_FENCED:
    case BW_ERR_FENCED_MEMBER_EPOCH:
    case BW_ERR_UNKNOWN_MEMBER_ID:
    case BW_ERR_STALE_MEMBER_EPOCH:
    case BW_ERR_RETIRED: return true;
    default: return false;
    }
}

/* Counts until it is told to stop and there is nothing more. */
static void work(void)
{
    bw_bus *bus = test_bus(d.url);
    bw_consumer *c = group_consumer(bus, 1000);
    bw_state *s;
    const char *topic = "events";
    int32_t done;
    if (bw_state_open(c, NULL, &s) || bw_consumer_subscribe(c, &topic, 1)) _exit(3);
    all->started++;
    for (;;) {
        bool last = all->stop;
        bw_err e = bw_state_process(s, 200, 100, count, NULL, &done);
        all->processed += done;
        if (e == BW_ERR_FENCED || e == BW_ERR_FENCED_MEMBER_EPOCH) all->fenced++;
        if (!goes_on(e)) {
            snprintf(all->why, sizeof all->why, "%s: %s", bw_err_name(e), bw_error_message());
            all->failed++;
            _exit(4);
        }
        if (e && e != BW_ERR_TIMED_OUT) usleep(1000);
        if (last && e == BW_ERR_TIMED_OUT) break;
    }
    bw_state_close(s);
    bw_consumer_close(c);
    bw_bus_close(bus);
    _exit(0);
}

static void start_worker(int i)
{
    pids[i] = fork();
    if (pids[i] == 0) work();
}

static void kill_worker(int i)
{
    int status;
    kill(pids[i], SIGKILL);
    waitpid(pids[i], &status, 0);
    if (WIFEXITED(status)) fail_msg("a worker ended by itself with %d: %s", WEXITSTATUS(status), all->why);
    start_worker(i);
}

/* ---- the check ---- */

struct sum {
    uint64_t of[KEYS];
};

static bool add(void *opaque, const void *key, size_t key_len, const void *value, size_t value_len)
{
    char text[16] = "";
    uint64_t n;
    assert_true(key_len < sizeof text && value_len == sizeof n);
    memcpy(text, key, key_len);
    memcpy(&n, value, sizeof n);
    ((struct sum *)opaque)->of[atoi(text)] += n;
    return true;
}

/* What is left is counted here, then all is added up. */
static void check(const uint64_t sent[KEYS])
{
    bw_bus *bus = test_bus(d.url);
    bw_consumer *c = group_consumer(bus, 0);
    bw_state *s;
    bw_state_txn *t;
    struct sum sum = {{0}};
    assert_ok(bw_state_open(c, NULL, &s));
    assert_ok(bw_consumer_assign(c, "events", BW_PARTITION_ANY, BW_OFFSET_BEGINNING));
    int64_t until = now_ms() + PATIENCE_MS;
    for (int p = 0; p < PARTS; p++) {
        bw_offset_range range;
        assert_ok(bw_offsets_range(bus, "events", p, &range));
        for (;;) {
            int64_t at = -1;
            if (bw_state_read(s, "events", p, &t) == BW_OK) {
                at = bw_state_offset(t);
                bw_state_abort(t);
            }
            if (at == range.end) break;
            assert_true(at < range.end && now_ms() < until);
            /* One that is at its end already opens with its next record only: so that there is one. */
            if (bw_state_process(s, 300, 1000, count, NULL, NULL) == BW_ERR_TIMED_OUT && at < 0) assert_ok(bw_consumer_seek(c, "events", p, 0));
        }
        assert_ok(bw_state_read(s, "events", p, &t));
        assert_ok(bw_state_each(t, "", 0, add, &sum));
        bw_state_abort(t);
    }
    for (int k = 0; k < KEYS; k++)
        if (sum.of[k] != sent[k])
            fail_msg("key %d was counted %llu times, not %llu", k, (unsigned long long)sum.of[k], (unsigned long long)sent[k]);
    bw_state_close(s);
    bw_consumer_close(c);
    bw_bus_close(bus);
}

static void send_some(bw_producer *p, uint64_t sent[KEYS], unsigned *seed)
{
    char keys[EACH_KILL / PARTS][8];
    bw_record records[EACH_KILL / PARTS];
    for (int part = 0; part < PARTS; part++) {
        for (int i = 0; i < EACH_KILL / PARTS; i++) {
            int k = rand_r(seed) % KEYS;
            snprintf(keys[i], sizeof keys[i], "%d", k);
            records[i] = test_record(keys[i], "x");
            sent[k]++;
        }
        assert_ok(bw_producer_send_batch(p, "events", part, records, EACH_KILL / PARTS, 20000, NULL));
    }
}

static void test_state_counts_each_record_once_over_any_kills(void **state)
{
    (void)state;
    const char *wanted = getenv("BW_STATE_KILLS");
    int kills = wanted ? atoi(wanted) : 150, daemons = 0, stops = 0;
    unsigned seed = 5;
    uint64_t sent[KEYS] = {0};
    bw_bus *bus = test_bus(d.url);
    assert_ok(bw_topic_create(bus, "events", PARTS, NULL, 0));
    bw_producer *p = test_producer(bus, BW_ACKS_DURABLE);
    for (int i = 0; i < WORKERS; i++) start_worker(i);
    for (int i = 0; i < kills; i++) {
        send_some(p, sent, &seed);
        usleep((useconds_t)(rand_r(&seed) % 60000));
        if (i % 15 == 14) {
            daemon_stop(&d, SIGKILL);
            usleep((useconds_t)(rand_r(&seed) % 20000));
            daemon_start(&d);
            daemons++;
        } else if (i % 80 == 7) { /* one that hangs for longer than its lease */
            int k = rand_r(&seed) % WORKERS;
            kill(pids[k], SIGSTOP);
            usleep(1300000);
            kill(pids[k], SIGCONT);
            stops++;
        } else kill_worker(rand_r(&seed) % WORKERS);
    }
    all->stop = 1;
    int64_t until = now_ms() + PATIENCE_MS;
    for (int i = 0; i < WORKERS; i++) {
        int status;
        while (waitpid(pids[i], &status, WNOHANG) == 0) {
            if (now_ms() > until) fail_msg("a worker does not come to an end");
            usleep(5000);
        }
        pids[i] = 0;
        if (!WIFEXITED(status) || WEXITSTATUS(status)) fail_msg("a worker ended with %d: %s", status, all->why);
    }
    print_message("%d deaths, of them %d of the daemon, and %d stops; %ld starts, fenced %ld times, %ld records counted\n",
                  kills - stops, daemons, stops,
                  all->started, all->fenced, all->processed);
    assert_true(all->processed > 0);
    check(sent);
    bw_producer_close(p, 5000);
    bw_bus_close(bus);
}

/* ---- single things ---- */

static bw_err refuse_third(bw_state_txn *t, const bw_batch *batch, const bw_record_view *r, void *opaque)
{
    int *calls = opaque;
    ++*calls;
    bw_err e = count(t, batch, r, NULL);
    return *calls == 3 ? BW_ERR_UNSUPPORTED : e;
}

static uint64_t value_of(bw_state *s, const char *key)
{
    bw_state_txn *t;
    const void *v;
    size_t len;
    uint64_t n = 0;
    if (bw_state_read(s, "t", 0, &t) != BW_OK) return 0;
    if (bw_state_get(t, key, strlen(key), &v, &len) == BW_OK) memcpy(&n, v, sizeof n);
    bw_state_abort(t);
    return n;
}

static void test_handler_that_refuses_leaves_state_and_position(void **state)
{
    (void)state;
    bw_bus *bus = test_bus(d.url);
    bw_producer *p = test_producer(bus, BW_ACKS_DURABLE);
    bw_record r[5];
    for (int i = 0; i < 5; i++) r[i] = test_record("k", "v");
    assert_ok(bw_producer_send_batch(p, "t", 0, r, 5, 5000, NULL));
    bw_consumer *c = group_consumer(bus, 0);
    bw_state *s;
    int calls = 0, done;
    assert_ok(bw_state_open(c, NULL, &s));
    assert_ok(bw_consumer_assign(c, "t", 0, BW_OFFSET_BEGINNING));
    assert_err(bw_state_process(s, 5000, 2, refuse_third, &calls, &done), BW_OK);
    assert_int_equal(done, 2);
    assert_err(bw_state_process(s, 5000, 100, refuse_third, &calls, &done), BW_ERR_UNSUPPORTED);
    assert_int_equal(done, 0);
    assert_int_equal(value_of(s, "k"), 2);
    assert_ok(bw_state_process(s, 5000, 100, refuse_third, &calls, &done));
    assert_int_equal(done, 3);
    assert_int_equal(value_of(s, "k"), 5);
    /* The same without callbacks. */
    bw_state_txn *t;
    bw_batch b;
    bw_record_view v;
    assert_ok(bw_producer_send_batch(p, "t", 0, r, 2, 5000, NULL));
    for (int round = 0; round < 2; round++) {
        assert_ok(bw_state_begin(s, 5000, &t, &b));
        while (bw_batch_next(&b, &v) == 1) assert_ok(count(t, &b, &v, NULL));
        if (round) assert_ok(bw_state_commit(t));
        else bw_state_abort(t);
        assert_int_equal(value_of(s, "k"), round ? 7 : 5);
    }
    assert_err(bw_state_process(s, 0, 1, count, NULL, &done), BW_ERR_TIMED_OUT);
    bw_state_close(s);
    bw_consumer_close(c);
    /* Another program goes on where it was, wherever it asks to begin. */
    c = group_consumer(bus, 0);
    assert_ok(bw_state_open(c, NULL, &s));
    assert_ok(bw_consumer_assign(c, "t", 0, BW_OFFSET_BEGINNING));
    assert_err(bw_state_process(s, 300, 100, count, NULL, &done), BW_ERR_TIMED_OUT);
    assert_int_equal(value_of(s, "k"), 7);
    bw_state_close(s);
    bw_consumer_close(c);
    bw_producer_close(p, 5000);
    bw_bus_close(bus);
}

static bw_err fill(bw_state_txn *t, const bw_batch *batch, const bw_record_view *r, void *opaque)
{
    (void)batch;
    int *calls = opaque;
    ++*calls;
    char value[40000];
    memset(value, 'v', sizeof value);
    return bw_state_put(t, &r->offset, sizeof r->offset, value, sizeof value);
}

static void test_store_that_must_grow_counts_once(void **state)
{
    (void)state;
    bw_bus *bus = test_bus(d.url);
    bw_producer *p = test_producer(bus, BW_ACKS_DURABLE);
    bw_record r[200];
    for (int i = 0; i < 200; i++) r[i] = test_record("k", "v");
    assert_ok(bw_producer_send_batch(p, "t", 0, r, 200, 5000, NULL));
    bw_consumer *c = group_consumer(bus, 0);
    bw_state_options o = BW_STATE_OPTIONS_INIT;
    bw_state *s;
    int calls = 0, done;
    o.map_bytes = 1 << 20;
    assert_ok(bw_state_open(c, &o, &s));
    assert_ok(bw_consumer_assign(c, "t", 0, BW_OFFSET_BEGINNING));
    assert_ok(bw_state_process(s, 5000, 200, fill, &calls, &done));
    assert_int_equal(done, 200);
    assert_true(calls > 200);
    bw_state_close(s);
    bw_consumer_close(c);
    bw_producer_close(p, 5000);
    bw_bus_close(bus);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_handler_that_refuses_leaves_state_and_position, setup, teardown),
        cmocka_unit_test_setup_teardown(test_store_that_must_grow_counts_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_state_counts_each_record_once_over_any_kills, setup, teardown),
    };
    return cmocka_run_group_tests_name("state", tests, NULL, NULL);
}
