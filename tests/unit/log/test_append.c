/* Append, roll and repair: what an appender leaves behind, also when it dies at each named point. */
#include "engine_fixture.h"

static void test_append_batches_are_read_back_in_order(void **state)
{
    for (int by_file = 0; by_file < 2; by_file++) {
        engine g;
        engine_init(&g, 1 << 20, 1 << 20);
        bw_appender *a = engine_appender(&g, by_file);
        bw_batch_builder b;
        bw_batch_builder_init(&b);
        int64_t next = 0;
        for (int i = 0; i < 200; i++) {
            bw_append_result r;
            int count = 1 + i % 17;
            assert_int_equal(engine_append(a, &b, count, (size_t)(i % 90), 'a', 0, &r), BW_OK);
            assert_int_equal(r.base_offset, next);
            next += count;
        }
        int batches;
        assert_int_equal(engine_read_all(&g, false, &batches), next);
        assert_int_equal(engine_read_all(&g, true, &batches), next);
        assert_int_equal(batches, 200);
        assert_int_equal(bw_slot_end_offset(g.slot), next);
        bw_batch_builder_fini(&b);
        bw_appender_close(a);
        engine_fini(&g);
    }
    (void)state;
}

/* Several at once, between single ones: read back in order, by one write, and none of them when there is no room for all. */
static void test_append_many_are_published_as_one(void **state)
{
    for (int by_file = 0; by_file < 2; by_file++) {
        engine g;
        engine_init(&g, 65536, 65536);
        bw_appender *a = engine_appender(&g, by_file);
        bw_batch_builder b[4];
        bw_append_piece pieces[4];
        bw_append_result r, single;
        int64_t next = 0;
        for (int i = 0; i < 4; i++) {
            uint8_t *data;
            bw_batch_options o = BW_BATCH_OPTIONS_INIT;
            bw_record record = {.value = "value", .value_len = 5, .timestamp_ms = 1000 + i};
            bw_batch_builder_init(&b[i]);
            for (int j = 0; j <= i; j++) assert_int_equal(bw_batch_builder_add(&b[i], &record), BW_OK);
            assert_int_equal(bw_batch_builder_finish(&b[i], &o, &data, &pieces[i].len), BW_OK);
            pieces[i].batch = data;
            pieces[i].count = i + 1;
        }
        bw_batch_builder one;
        bw_batch_builder_init(&one);
        for (int round = 0; round < 20; round++) {
            uint64_t writes = bw_os_calls_made(BW_OS_pwrite);
            assert_int_equal(bw_append_many(a, pieces, 4, 1003, 0, &r), BW_OK);
            assert_int_equal(bw_os_calls_made(BW_OS_pwrite) - writes, by_file);
            assert_int_equal(r.base_offset, next);
            assert_int_equal(bw_slot_end_offset(g.slot), next + 10);
            assert_int_equal(atomic_load(&g.slot->max_timestamp) >= 1003, 1);
            assert_int_equal(engine_append(a, &one, 1, 10, 'x', 0, &single), BW_OK);
            assert_int_equal(single.base_offset, next += 10);
            next++;
        }
        int batches;
        assert_int_equal(engine_read_all(&g, by_file, &batches), next);
        assert_int_equal(batches, 20 * 5);
        pieces[3].len = 65536; /* too much together: nothing of it is appended */
        assert_int_equal(bw_append_many(a, pieces, 4, 1003, 0, &r), BW_ERR_RECORD_TOO_LARGE);
        assert_int_equal(bw_append_many(a, pieces, 0, 1003, 0, &r), BW_ERR_INVALID_ARGUMENT);
        assert_int_equal(bw_slot_end_offset(g.slot), next);
        for (int i = 0; i < 4; i++) bw_batch_builder_fini(&b[i]);
        bw_batch_builder_fini(&one);
        bw_appender_close(a);
        engine_fini(&g);
    }
    (void)state;
}

static void test_append_nobody_asleep_makes_no_system_call(void **state)
{
    engine g;
    engine_init(&g, 1 << 20, 1 << 20);
    bw_appender *a = engine_appender(&g, false);
    bw_batch_builder b;
    bw_batch_builder_init(&b);
    bw_append_result r;
    for (int i = 0; i < 12; i++) assert_int_equal(engine_append(a, &b, 10, 100, 'x', 0, &r), BW_OK); /* pages, window */
    uint64_t futexes = bw_os_calls_made(BW_OS_futex), writes = bw_os_calls_made(BW_OS_pwrite);
    assert_int_equal(engine_append(a, &b, 1, 10, 'x', 0, &r), BW_OK);
    assert_int_equal(bw_os_calls_made(BW_OS_futex), futexes);
    assert_int_equal(bw_os_calls_made(BW_OS_pwrite), writes);
    bw_batch_builder_fini(&b);
    bw_appender_close(a);
    engine_fini(&g);
    (void)state;
}

static void test_append_without_capacity_or_coordinator_is_a_named_error(void **state)
{
    engine g;
    engine_init(&g, 4096, 1 << 20);
    bw_appender *a = engine_appender(&g, false);
    bw_batch_builder b;
    bw_batch_builder_init(&b);
    bw_append_result r;
    bw_err e = BW_OK;
    int n = 0;
    while ((e = engine_append(a, &b, 1, 1000, 'x', 20, &r)) == BW_OK) n++;
    assert_int_equal(e, BW_ERR_NO_COORDINATOR);
    assert_int_equal(n, 3);
    uint32_t numbers[4];
    assert_int_equal(bw_mailbox_drain(bw_mail_box(g.mail, BW_MAILBOX_COORDINATOR), numbers, 4), 1);
    assert_int_equal(numbers[0], 7);
    atomic_store(&g.slot->flags, BW_SLOT_NO_SPACE);
    assert_int_equal(engine_append(a, &b, 1, 1000, 'x', 20, &r), BW_ERR_DISK_FULL);
    assert_int_equal(engine_append(a, &b, 1, 2 << 20, 'x', 20, &r), BW_ERR_RECORD_TOO_LARGE);
    assert_int_equal(engine_read_all(&g, false, NULL), 3);
    bw_batch_builder_fini(&b);
    bw_appender_close(a);
    engine_fini(&g);
    (void)state;
}

static void test_append_full_segment_rolls_to_the_spare(void **state)
{
    engine g;
    engine_init(&g, 8192, 8192);
    bw_appender *a = engine_appender(&g, false);
    bw_batch_builder b;
    bw_batch_builder_init(&b);
    bw_append_result r;
    int64_t next = 0;
    for (int segment = 1; segment <= 9; segment++) { /* past the ring's six */
        engine_spare(&g, 8192, 8192);
        while (bw_position_seq(g.slot->tail) == (uint32_t)segment) {
            assert_int_equal(engine_append(a, &b, 3, 300, 'y', 50, &r), BW_OK);
            assert_int_equal(r.base_offset, next);
            next += 3;
        }
        char spare[BW_SEGMENT_NAME_MAX], log[BW_SEGMENT_NAME_MAX];
        bw_spare_name(spare, (uint32_t)segment + 1);
        bw_segment_name(log, (int64_t)bw_ring_at(g.slot, (uint32_t)segment + 1)->base_offset, ".log");
        if (segment % 2) assert_int_equal(bw_os_rename(g.dir_fd, spare, g.dir_fd, log), 0);
        else assert_int_equal(bw_os_link(g.dir_fd, spare, g.dir_fd, log), 0);
    }
    assert_int_equal(engine_read_all(&g, false, NULL), next);
    assert_int_equal(engine_read_all(&g, true, NULL), next);
    bw_reader *reader = engine_reader(&g, false, BW_LIMIT_VISIBLE);
    for (int64_t want = 0; want < next; want += 7) {
        bw_batch_ref ref;
        bw_reader_seek(reader, want);
        assert_int_equal(bw_reader_next(reader, &ref), BW_OK);
        assert_true(ref.header.base_offset <= want && bw_batch_last_offset(&ref.header) >= want);
    }
    bw_batch_ref ref;
    bw_reader_seek(reader, next);
    assert_int_equal(bw_reader_next(reader, &ref), BW_ERR_EMPTY);
    bw_reader_seek(reader, next + 1);
    assert_int_equal(bw_reader_next(reader, &ref), BW_ERR_OFFSET_OUT_OF_RANGE);
    g.slot->log_start = 5;
    bw_reader_seek(reader, 4);
    assert_int_equal(bw_reader_next(reader, &ref), BW_ERR_OFFSET_OUT_OF_RANGE);
    bw_reader_close(reader);
    bw_batch_builder_fini(&b);
    bw_appender_close(a);
    engine_fini(&g);
    (void)state;
}

static void test_read_an_old_segment_that_is_cut_while_it_is_read(void **state)
{
    for (int by_file = 0; by_file < 2; by_file++) {
        engine g;
        engine_init(&g, 8192, 8192);
        bw_appender *a = engine_appender(&g, false);
        bw_batch_builder b;
        bw_batch_builder_init(&b);
        bw_append_result r;
        int64_t next = 0;
        for (uint32_t segment = 1; segment <= BW_RING + 2; segment++) { /* the first one leaves the ring, unsealed and not cut */
            engine_spare(&g, 8192, 8192);
            while (bw_position_seq(g.slot->tail) == segment) {
                assert_int_equal(engine_append(a, &b, 3, 1200, 'y', 50, &r), BW_OK);
                next += 3;
            }
            char spare[BW_SEGMENT_NAME_MAX], log[BW_SEGMENT_NAME_MAX];
            bw_spare_name(spare, segment + 1);
            bw_segment_name(log, (int64_t)bw_ring_at(g.slot, segment + 1)->base_offset, ".log");
            assert_int_equal(bw_os_rename(g.dir_fd, spare, g.dir_fd, log), 0);
        }
        bw_reader *reader = engine_reader(&g, by_file, BW_LIMIT_VISIBLE);
        bw_batch_ref ref;
        bw_reader_seek(reader, 0);
        assert_int_equal(bw_reader_next(reader, &ref), BW_OK);
        int fd = openat(g.dir_fd, "00000000000000000000.log", O_RDWR);
        assert_int_equal(ftruncate(fd, 2 * ref.size), 0); /* its length: two batches */
        close(fd);
        int64_t seen = 3;
        bw_err e;
        while ((e = bw_reader_next(reader, &ref)) == BW_OK) {
            assert_int_equal(ref.header.base_offset, seen);
            seen += 3;
        }
        if (e != BW_ERR_EMPTY) fail_msg("%s", bw_error_message());
        assert_int_equal(seen, next);
        bw_reader_close(reader);
        bw_batch_builder_fini(&b);
        bw_appender_close(a);
        engine_fini(&g);
    }
    (void)state;
}

static void test_reserve_commit_and_abort(void **state)
{
    engine g;
    engine_init(&g, 1 << 16, 1 << 16);
    bw_appender *a = engine_appender(&g, false);
    bw_record meta = {.key = "k", .key_len = 1, .timestamp_ms = 42};
    bw_batch_options options = BW_BATCH_OPTIONS_INIT;
    bw_append_result r;
    for (int i = 0; i < 6; i++) {
        uint8_t *place;
        size_t most = bw_batch_reserved_size(&meta, 500);
        assert_int_equal(bw_append_reserve(a, most, 1, bw_deadline_in_ms(10), &place), BW_OK);
        uint8_t *value = bw_batch_reserve_begin(place, &meta, 500);
        memset(value, 'v', 500);
        if (i % 2) {
            bw_append_abort(a);
            continue;
        }
        size_t used = bw_batch_reserve_finish(place, &meta, 500, (size_t)i * 10, &options);
        bw_append_commit(a, used, 42, &r);
        assert_int_equal(r.base_offset, i / 2);
    }
    assert_int_equal(engine_read_all(&g, false, NULL), 3);
    uint8_t *place; /* behind the tail everything is zero again */
    assert_int_equal(bw_append_reserve(a, 1000, 1, bw_deadline_in_ms(10), &place), BW_OK);
    for (int i = 0; i < 1000; i++) assert_int_equal(place[i], 0);
    bw_append_abort(a);
    bw_appender_close(a);
    engine_fini(&g);
    (void)state;
}

static void test_lock_held_by_a_stopped_writer_is_named(void **state)
{
    engine g;
    engine_init(&g, 1 << 16, 1 << 16);
    pid_t child = fork();
    if (child == 0) {
        setenv("BUSWAY_KILL", "append.intent:1:stop", 1);
        /* The arenas are not inherited on purpose (MADV_DONTFORK): attach as another process does. */
        bw_mail *mail;
        bw_control *control;
        if (bw_mail_attach(g.shm_fd, g.generation, &mail) ||
            bw_control_attach(g.shm_fd, g.generation, &g.topic, BW_CONTROL_WRITE, mail, &control))
            _exit(1);
        g.control = control;
        bw_batch_builder b;
        bw_batch_builder_init(&b);
        bw_append_result r;
        _exit(engine_append(engine_appender(&g, false), &b, 1, 10, 'z', 1000, &r) == BW_OK ? 0 : 2);
    }
    int status;
    assert_int_equal(waitpid(child, &status, WUNTRACED), child);
    assert_true(WIFSTOPPED(status));
    bw_appender *a = engine_appender(&g, false);
    bw_batch_builder b;
    bw_batch_builder_init(&b);
    bw_append_result r;
    assert_int_equal(engine_append(a, &b, 1, 10, 'q', 30, &r), BW_ERR_LOCK_HELD);
    char pid[16];
    snprintf(pid, sizeof pid, "%d", (int)child);
    assert_non_null(strstr(bw_error_message(), pid));
    kill(child, SIGCONT);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(engine_append(a, &b, 1, 10, 'q', 1000, &r), BW_OK);
    assert_int_equal(r.base_offset, 1);
    bw_batch_builder_fini(&b);
    bw_appender_close(a);
    engine_fini(&g);
    (void)state;
}

/* Runs appends in a child that dies at `point`; returns how many it acknowledged through the pipe. */
static int run_victim(engine *g, const char *point, bool use_pwrite, bool reserve)
{
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    pid_t child = fork();
    if (child == 0) {
        setenv("BUSWAY_KILL", point, 1);
        bw_mail *mail;
        bw_control *control;
        if (bw_mail_attach(g->shm_fd, g->generation, &mail) ||
            bw_control_attach(g->shm_fd, g->generation, &g->topic, BW_CONTROL_WRITE, mail, &control))
            _exit(1);
        g->control = control;
        bw_appender *a = engine_appender(g, use_pwrite);
        bw_batch_builder b;
        bw_batch_builder_init(&b);
        bw_record meta = {.timestamp_ms = 1};
        bw_batch_options options = BW_BATCH_OPTIONS_INIT;
        for (;;) {
            bw_append_result r;
            if (reserve) {
                uint8_t *place;
                if (bw_append_reserve(a, bw_batch_reserved_size(&meta, 300), 1, bw_deadline_in_ms(1000), &place)) _exit(3);
                memset(bw_batch_reserve_begin(place, &meta, 300), 'r', 300);
                bw_append_commit(a, bw_batch_reserve_finish(place, &meta, 300, 100, &options), 1, &r);
            } else if (engine_append(a, &b, 2, 300, 'v', 1000, &r)) {
                _exit(2);
            }
            if (write(fds[1], &r.base_offset, 8) != 8) _exit(4);
        }
    }
    close(fds[1]);
    int status, n = 0;
    int64_t offset;
    while (read(fds[0], &offset, 8) == 8) n++;
    close(fds[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    if (!WIFSIGNALED(status)) fail_msg("victim at %s exited with %d instead of dying", point, WEXITSTATUS(status));
    return n;
}

static void test_death_at_each_point_loses_nothing_acknowledged(void **state)
{
    static const struct {
        const char *point;
        int published; /* is the batch at whose append it died in the log? */
    } cases[] = {
        {"append.locked:5", 0},  {"append.intent:5", 0},   {"append.copied:5", 0},  {"append.published:5", 1},
        {"append.offset:5", 1},  {"append.cleared:5", 1},  {"append.unlocked:5", 1}, {"append.woken:5", 1},
        {"roll.final:1", 0},     {"roll.entry:1", 0},      {"roll.seq:1", 0},       {"roll.capacity:1", 0},
        {"roll.tail:1", 0},      {"reserve.locked:5", 0},  {"reserve.zeroed:5", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (int by_file = 0; by_file < 2; by_file++) {
            bool reserve = strncmp(cases[i].point, "reserve", 7) == 0;
            if (reserve && by_file) continue;
            engine g;
            engine_init(&g, 8192, 8192);
            engine_spare(&g, 8192, 8192);
            int acked = run_victim(&g, cases[i].point, by_file, reserve);
            int per = reserve ? 1 : 2;
            /* the next writer repairs, and goes on at the right offset */
            pid_t child = fork();
            if (child == 0) {
                bw_mail *mail;
                bw_control *control;
                if (bw_mail_attach(g.shm_fd, g.generation, &mail) ||
                    bw_control_attach(g.shm_fd, g.generation, &g.topic, BW_CONTROL_WRITE, mail, &control))
                    _exit(1);
                g.control = control;
                bw_batch_builder b;
                bw_batch_builder_init(&b);
                bw_append_result r;
                if (engine_append(engine_appender(&g, false), &b, 1, 20, 'n', 1000, &r)) _exit(2);
                _exit(r.base_offset == per * (acked + cases[i].published) ? 0 : 3);
            }
            int status;
            assert_int_equal(waitpid(child, &status, 0), child);
            if (status) fail_msg("%s (by file %d): next writer ended with %d", cases[i].point, by_file, WEXITSTATUS(status));
            int64_t end = engine_read_all(&g, false, NULL);
            assert_int_equal(end, per * (acked + cases[i].published) + 1);
            assert_int_equal(g.slot->next_offset, end);
            assert_int_equal(g.slot->intent_end, 0);
            assert_int_equal(g.slot->repair_pending, 0);
            engine_fini(&g);
        }
    }
    (void)state;
}

static void test_state_and_fence_refuse(void **state)
{
    engine g;
    engine_init(&g, 1 << 16, 1 << 16);
    bw_appender *a = engine_appender(&g, false);
    bw_batch_builder b;
    bw_batch_builder_init(&b);
    bw_append_result r;
    g.slot->state = BW_SLOT_POISONED;
    assert_int_equal(engine_append(a, &b, 1, 1, 'a', 0, &r), BW_ERR_POISONED);
    g.slot->state = BW_SLOT_DELETED;
    assert_int_equal(engine_append(a, &b, 1, 1, 'a', 0, &r), BW_ERR_DELETED);
    g.slot->state = BW_SLOT_OPEN;
    g.slot->fence++;
    assert_int_equal(engine_append(a, &b, 1, 1, 'a', 0, &r), BW_ERR_FENCED);
    g.slot->fence--;
    g.control->header->retired = 1;
    assert_int_equal(engine_append(a, &b, 1, 1, 'a', 0, &r), BW_ERR_RETIRED);
    g.control->header->retired = 0;
    assert_int_equal(engine_append(a, &b, 1, 1, 'a', 0, &r), BW_OK);
    bw_batch_builder_fini(&b);
    bw_appender_close(a);
    engine_fini(&g);
    (void)state;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_death_at_each_point_loses_nothing_acknowledged), /* first: kill points read the environment once */
        cmocka_unit_test(test_lock_held_by_a_stopped_writer_is_named),
        cmocka_unit_test(test_append_batches_are_read_back_in_order),
        cmocka_unit_test(test_append_many_are_published_as_one),
        cmocka_unit_test(test_append_nobody_asleep_makes_no_system_call),
        cmocka_unit_test(test_append_without_capacity_or_coordinator_is_a_named_error),
        cmocka_unit_test(test_append_full_segment_rolls_to_the_spare),
        cmocka_unit_test(test_read_an_old_segment_that_is_cut_while_it_is_read),
        cmocka_unit_test(test_reserve_commit_and_abort),
        cmocka_unit_test(test_state_and_fence_refuse),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
