/* log/partition_sync.c, partition_takeover.c: which files and folders are synced, and in which order with what is promised. The calls are
 * watched as they are made (bw_os_observe). */
#include "call_watch.h"
#include "log_fixture.h"

enum { SEGMENT = 65536 };

/* The inodes of the segments from seg(from) to seg(to), by the ring. */
static int segments_between(const bw_tail_slot *s, bw_position from, bw_position to, uint64_t inodes[BW_RING])
{
    int n = 0;
    for (uint32_t seq = bw_position_seq(from); seq <= bw_position_seq(to); seq++) {
        const bw_ring_entry *e = &s->ring[seq % BW_RING];
        assert_int_equal(atomic_load(&e->seq), seq);
        inodes[n++] = atomic_load(&e->inode);
    }
    return n;
}

static void until_rolled(log_fixture *f, uint32_t segments)
{
    const bw_tail_slot *s = bw_partition_slot(f->p);
    uint32_t target = bw_position_seq(atomic_load(&s->tail)) + segments;
    for (int i = 0; i < 400 && bw_position_seq(atomic_load(&s->tail)) < target; i++) log_append_many(f, 1, 1, 8000);
    assert_int_equal(bw_position_seq(atomic_load(&s->tail)), target);
}

static void test_sync_covers_every_segment_since_the_last_and_their_folder(void **state)
{
    log_fixture f;
    uint64_t inodes[BW_RING];
    (void)state;
    log_init(&f, SEGMENT);
    log_open(&f, true);
    const bw_tail_slot *s = bw_partition_slot(f.p);
    log_append_many(&f, 1, 1, 100);
    assert_int_equal(bw_partition_sync(f.p), BW_OK);
    until_rolled(&f, 2);
    bw_position durable = atomic_load(&s->durable), tail = atomic_load(&s->tail);
    int n = segments_between(s, durable, tail, inodes);
    assert_int_equal(n, 3);
    watch(bw_partition_slot(f.p));
    assert_int_equal(bw_partition_sync(f.p), BW_OK);
    unwatch();
    assert_int_equal(atomic_load(&s->durable), tail);
    for (int i = 0; i < n; i++) {
        int at = find_call(BW_OS_fdatasync, inodes[i], 0);
        if (at < 0) fail_msg("segment %d of %d was not synced", i, n);
        assert_int_equal(seen.calls[at].durable, durable); /* nothing was promised before it */
    }
    int folder = find_call(BW_OS_fsync, inode_of(bw_partition_dir_fd(f.p)), 0);
    assert_true(folder >= 0);
    assert_int_equal(seen.calls[folder].durable, durable);
    /* The spare's other name goes only when the log's name is on the disk. */
    int gone = find_call(BW_OS_unlink, 0, 0);
    assert_true(gone < 0 || gone > folder);
    log_close(&f, false);
    log_fini(&f);
}

static void test_sync_leaves_spare_names_until_the_folder_is_synced(void **state)
{
    log_fixture f;
    (void)state;
    log_init(&f, SEGMENT);
    log_open(&f, true);
    log_append_many(&f, 1, 1, 100);
    assert_int_equal(bw_partition_sync(f.p), BW_OK);
    watch(bw_partition_slot(f.p));
    until_rolled(&f, 1);
    assert_int_equal(bw_partition_tend(f.p, NULL), BW_OK);
    uint64_t folder = inode_of(bw_partition_dir_fd(f.p));
    int linked = find_call(BW_OS_link, 0, 0);
    assert_true(linked >= 0);
    for (int i = linked; i < seen.count; i++)
        if (seen.calls[i].what == BW_OS_unlink && strstr(seen.calls[i].name, ".spare")) {
            int synced = find_call(BW_OS_fsync, folder, linked);
            assert_true(synced >= 0 && synced < i);
        }
    assert_int_equal(bw_partition_sync(f.p), BW_OK);
    unwatch();
    assert_int_equal(log_count_files(&f, ".spare", NULL) + log_count_files(&f, ".log", NULL) >= 2, 1);
    log_close(&f, false);
    log_fini(&f);
}

static void test_takeover_syncs_what_was_visible_before_it_is_durable(void **state)
{
    log_fixture f;
    uint64_t inodes[BW_RING];
    (void)state;
    log_init(&f, SEGMENT);
    log_open(&f, true);
    log_append_many(&f, 1, 1, 100);
    assert_int_equal(bw_partition_sync(f.p), BW_OK);
    until_rolled(&f, 1);
    bw_tail_slot *s = bw_partition_slot(f.p);
    bw_position durable = atomic_load(&s->durable), tail = atomic_load(&s->tail);
    int n = segments_between(s, durable, tail, inodes);
    log_crash(&f);
    assert_int_equal(atomic_load(&s->durable), durable);
    watch(s);
    log_open(&f, false);
    unwatch();
    assert_int_equal(atomic_load(&s->durable), tail);
    for (int i = 0; i < n; i++) {
        int at = find_call(BW_OS_fdatasync, inodes[i], 0);
        if (at < 0) fail_msg("segment %d of %d was not synced by the takeover", i, n);
        assert_int_equal(seen.calls[at].durable, durable);
    }
    assert_true(find_call(BW_OS_fsync, inode_of(bw_partition_dir_fd(f.p)), 0) >= 0);
    log_close(&f, false);
    log_fini(&f);
}

static void test_takeover_of_a_published_spare_syncs_what_is_rolled_into_it(void **state)
{
    log_fixture f;
    uint64_t inodes[BW_RING];
    (void)state;
    log_init(&f, SEGMENT);
    log_open(&f, true);
    bw_tail_slot *s = bw_partition_slot(f.p);
    for (int i = 0; i < 40 && atomic_load(&s->spare_seq) != 2; i++) {
        log_append_many(&f, 1, 1, 8000);
        assert_int_equal(bw_partition_tend(f.p, NULL), BW_OK);
    }
    assert_int_equal(atomic_load(&s->spare_seq), 2);
    assert_int_equal(bw_position_seq(atomic_load(&s->tail)), 1);
    log_crash(&f);
    log_open(&f, false);
    /* Writers roll into it before the new coordinator looks again. */
    bw_appender *a = log_appender(&f, false);
    for (int i = 0; i < 40 && bw_position_seq(atomic_load(&s->tail)) == 1; i++) {
        bw_err e = log_try_append(&f, a, 1, 8000, 0, NULL);
        if (e == BW_ERR_NO_COORDINATOR) assert_int_equal(bw_partition_tend(f.p, NULL), BW_OK);
        else assert_int_equal(e, BW_OK);
    }
    bw_appender_close(a);
    assert_int_equal(bw_position_seq(atomic_load(&s->tail)), 2);
    bw_position durable = atomic_load(&s->durable), tail = atomic_load(&s->tail);
    int n = segments_between(s, durable, tail, inodes);
    watch(bw_partition_slot(f.p));
    assert_int_equal(bw_partition_sync(f.p), BW_OK);
    unwatch();
    assert_int_equal(atomic_load(&s->durable), tail);
    for (int i = 0; i < n; i++)
        if (find_call(BW_OS_fdatasync, inodes[i], 0) < 0) fail_msg("segment %d of %d was not synced", i, n);
    log_close(&f, false);
    log_fini(&f);
}

static void test_seal_is_made_only_of_what_is_durable(void **state)
{
    log_fixture f;
    (void)state;
    log_init(&f, SEGMENT);
    log_open(&f, true);
    log_append_many(&f, 1, 1, 100);
    until_rolled(&f, 2);
    for (int i = 0; i < 3; i++) assert_int_equal(bw_partition_tend(f.p, NULL), BW_OK);
    assert_int_equal(bw_position_seq(atomic_load(&bw_partition_slot(f.p)->durable)), 1);
    assert_int_equal(log_count_files(&f, ".seal", NULL), 0);
    assert_int_equal(bw_partition_sync(f.p), BW_OK);
    for (int i = 0; i < 3; i++) assert_int_equal(bw_partition_tend(f.p, NULL), BW_OK);
    assert_int_equal(log_count_files(&f, ".seal", NULL), 2);
    log_close(&f, false);
    log_fini(&f);
}

static void test_growth_of_a_cleanly_cut_file_is_synced_before_it_is_granted(void **state)
{
    log_fixture f;
    (void)state;
    log_init(&f, 1 << 20);
    log_open(&f, true);
    log_append_many(&f, 3, 1, 1000);
    log_close(&f, true); /* a clean stop: the file ends where the log ends */
    log_open(&f, true);
    bw_tail_slot *s = bw_partition_slot(f.p);
    bw_position capacity = atomic_load(&s->capacity);
    assert_int_equal(bw_position_pos(capacity), bw_position_pos(atomic_load(&s->tail)));
    watch(bw_partition_slot(f.p));
    log_append_many(&f, 1, 1, 1000);
    unwatch();
    int grown = find_call(BW_OS_fallocate, 0, 0);
    assert_true(grown >= 0);
    int synced = find_call(BW_OS_fsync, seen.calls[grown].inode, grown);
    assert_true(synced > grown);
    log_close(&f, false);
    log_fini(&f);
}

static struct { int fd, kept, pipe[2], calls; } failing;

/* The first fdatasync fails: for its time the descriptor is that of a pipe. */
static void fail_first_sync(void *opaque, const bw_os_event *e)
{
    if (e->call == BW_OS_fdatasync && !e->done && failing.calls++ == 0) {
        failing.fd = e->fd;
        failing.kept = dup(e->fd);
        assert_int_equal(pipe(failing.pipe), 0);
        assert_int_equal(dup2(failing.pipe[0], e->fd), e->fd);
    } else if (e->call == BW_OS_fdatasync && e->done && failing.fd >= 0) {
        assert_true(e->result < 0);
        assert_int_equal(dup2(failing.kept, failing.fd), failing.fd);
        close(failing.kept);
        close(failing.pipe[0]);
        close(failing.pipe[1]);
        failing.fd = -1;
    }
    note(opaque, e);
}

static void test_sync_that_failed_is_final(void **state)
{
    log_fixture f;
    (void)state;
    log_init(&f, SEGMENT);
    log_open(&f, true);
    bw_tail_slot *s = bw_partition_slot(f.p);
    log_append_many(&f, 3, 1, 100);
    bw_position durable = atomic_load(&s->durable);
    failing.fd = -1;
    failing.calls = 0;
    watch(s);
    bw_os_observe(fail_first_sync, NULL);
    assert_int_equal(bw_partition_sync(f.p), BW_ERR_POISONED);
    assert_int_equal(failing.fd, -1);
    assert_int_equal(atomic_load(&s->state), BW_SLOT_POISONED);
    assert_int_equal(atomic_load(&s->durable), durable);
    int once = failing.calls;
    assert_int_equal(bw_partition_sync(f.p), BW_ERR_POISONED); /* the next one would succeed: half of the pages may be lost */
    unwatch();
    assert_int_equal(failing.calls, once);
    assert_int_equal(atomic_load(&s->durable), durable);
    bw_appender *a = log_appender(&f, false);
    assert_int_equal(log_try_append(&f, a, 1, 10, 0, NULL), BW_ERR_POISONED);
    bw_appender_close(a);
    log_close(&f, false);
    log_fini(&f);
}

static struct { log_fixture *f; bool done; uint32_t deleted; } meanwhile;

/* Retention comes between the syncs of two segments. */
static void retain_then_note(void *opaque, const bw_os_event *e)
{
    if (e->call == BW_OS_fdatasync && !e->done && !meanwhile.done) {
        meanwhile.done = true;
        assert_int_equal(bw_partition_retain(meanwhile.f->p, 0, &meanwhile.deleted), BW_OK);
    }
    note(opaque, e);
}

static void test_sync_of_what_retention_deletes_meanwhile_syncs_the_deletion(void **state)
{
    log_fixture f;
    (void)state;
    log_init(&f, SEGMENT);
    log_open(&f, true);
    const bw_tail_slot *s = bw_partition_slot(f.p);
    log_append_many(&f, 1, 1, 100);
    until_rolled(&f, 3);
    assert_int_equal(bw_partition_tend(f.p, NULL), BW_OK);
    bw_position durable = atomic_load(&s->durable);
    f.config.retention_bytes = 1;
    bw_partition_set_config(f.p, &f.config);
    meanwhile.f = &f;
    meanwhile.done = false;
    watch(s);
    bw_os_observe(retain_then_note, NULL);
    assert_int_equal(bw_partition_sync(f.p), BW_OK);
    unwatch();
    assert_true(meanwhile.done && meanwhile.deleted > 0);
    int last = -1, gone = -1;
    for (int i = 0; i < seen.count; i++) {
        if (seen.calls[i].what == BW_OS_unlink && strstr(seen.calls[i].name, ".log")) gone = i;
        if (seen.calls[i].what == BW_OS_fsync && seen.calls[i].inode == inode_of(bw_partition_dir_fd(f.p))) last = i;
    }
    assert_true(gone >= 0 && last > gone);
    assert_int_equal(seen.calls[last].durable, durable); /* and only then the log is durable */
    log_close(&f, false);
    log_fini(&f);
}

static void test_salvaged_batches_are_on_the_disk_before_they_have_their_name(void **state)
{
    log_fixture f;
    char name[BW_SEGMENT_NAME_MAX];
    struct stat st;
    (void)state;
    log_init(&f, 1 << 20);
    log_open(&f, true);
    log_append_many(&f, 20, 1, 50);
    assert_int_equal(bw_partition_sync(f.p), BW_OK);
    bw_recovery_point point;
    assert_true(bw_partition_recovery_point(f.p, &point, NULL));
    f.point = point;
    log_append_many(&f, 7, 1, 50);
    log_crash(&f);
    bw_segment_name(name, 0, ".log");
    log_flip(&f, name, point.position / 2);
    watch(NULL);
    log_open(&f, true);
    unwatch();
    assert_int_equal(f.report.quarantined, 1);
    bw_segment_name(name, 20, ".log");
    assert_int_equal(fstatat(bw_partition_dir_fd(f.p), name, &st, 0), 0);
    int named = -1;
    for (int i = 0; i < seen.count && named < 0; i++)
        if (seen.calls[i].what == BW_OS_rename && strcmp(seen.calls[i].name, name) == 0) named = i;
    int written = find_call(BW_OS_pwrite, st.st_ino, 0), synced = find_call(BW_OS_fsync, st.st_ino, 0);
    assert_true(written >= 0 && written < synced && synced < named);
    log_close(&f, false);
    log_fini(&f);
}

/* Two rolled segments wait for their names, because the older one could not have its: it is named first, when it can, so that by their
 * names they are one log at any moment. */
static void test_rolled_segments_get_their_names_oldest_first(void **state)
{
    log_fixture f;
    char name[BW_SEGMENT_NAME_MAX], path[256];
    (void)state;
    log_init(&f, 8192);
    log_open(&f, true);
    const bw_tail_slot *s = bw_partition_slot(f.p);
    bw_segment_name(name, 2, ".log");
    log_path(&f, path, name);
    int taken = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(taken >= 0);
    close(taken);
    for (uint32_t seq = 1; seq < 3; seq++) {
        assert_int_equal(bw_partition_tend(f.p, NULL) == BW_OK, seq == 1);
        bw_appender *a = log_appender(&f, false);
        for (int i = 0; i < 10 && bw_position_seq(atomic_load(&s->tail)) == seq; i++)
            if (log_try_append(&f, a, 1, 3000, 5, NULL) != BW_OK) (void)bw_partition_tend(f.p, NULL);
        bw_appender_close(a);
        assert_int_equal(bw_position_seq(atomic_load(&s->tail)), seq + 1);
        assert_int_equal(atomic_load(&s->ring[(seq + 1) % BW_RING].base_offset), 2 * seq);
    }
    assert_int_equal(unlink(path), 0);
    watch(NULL);
    assert_int_equal(bw_partition_tend(f.p, NULL), BW_OK);
    unwatch();
    int first = find_call(BW_OS_link, 0, 0), second = find_call(BW_OS_link, 0, first + 1);
    assert_true(first >= 0 && second > first);
    assert_string_equal(seen.calls[first].name, name);
    bw_segment_name(name, 4, ".log");
    assert_string_equal(seen.calls[second].name, name);
    log_close(&f, false);
    log_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sync_covers_every_segment_since_the_last_and_their_folder),
        cmocka_unit_test(test_sync_leaves_spare_names_until_the_folder_is_synced),
        cmocka_unit_test(test_takeover_syncs_what_was_visible_before_it_is_durable),
        cmocka_unit_test(test_takeover_of_a_published_spare_syncs_what_is_rolled_into_it),
        cmocka_unit_test(test_seal_is_made_only_of_what_is_durable),
        cmocka_unit_test(test_sync_that_failed_is_final),
        cmocka_unit_test(test_sync_of_what_retention_deletes_meanwhile_syncs_the_deletion),
        cmocka_unit_test(test_salvaged_batches_are_on_the_disk_before_they_have_their_name),
        cmocka_unit_test(test_rolled_segments_get_their_names_oldest_first),
        cmocka_unit_test(test_growth_of_a_cleanly_cut_file_is_synced_before_it_is_granted),
    };
    return cmocka_run_group_tests_name("sync_order", tests, NULL, NULL);
}
