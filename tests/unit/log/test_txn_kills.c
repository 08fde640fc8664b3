/* The daemon killed at each step of transactions: each is seen by committed readers whole or not at all.
 *
 * A child (this program again, with a kill point in its environment) plays the daemon: transactions of three batches each, two open at a
 * time, between plain ones, one of three aborted; syncs, snapshots, a takeover and a recovery on the way. It notes what it decided
 * before it writes the marker, as a coordinator does. The parent looks: first at what the death left, without any coordinator, then after
 * takeover or recovery, then when all that was open has been decided. */
#include "txn_fixture.h"

#include <busway/inspect.h>
#include <errno.h>
#include <signal.h>
#include <sys/mman.h>

enum { TXNS = 18, PARTS = 3, FIRST_ID = 100, NAMES_MAX = 256, SNAPSHOT_MOST = 8192 };

typedef struct stored {
    bw_recovery_point point;
    uint32_t len;
    uint8_t snapshot[SNAPSHOT_MOST];
} stored;

typedef struct journal {
    _Atomic int appended[TXNS]; /* parts that were acknowledged */
    _Atomic int decided[TXNS];  /* 1: written down, 2: the marker was acknowledged */
    _Atomic int fresh, current, finished;
    stored stores[2]; /* what LMDB would hold: changed as a whole */
    uint8_t generation[16], topic[16];
    char data[64], shm[64];
} journal;

static bool commits(int txn) { return txn % 3 != 0; }

static journal *map_journal(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    if (fd < 0 || ftruncate(fd, sizeof(journal)) != 0) abort();
    journal *j = mmap(NULL, sizeof *j, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (j == MAP_FAILED) abort();
    close(fd);
    return j;
}

/* ---- the child ---- */

static void keep(txn_fixture *t, journal *j)
{
    txn_store(t);
    int next = 1 - atomic_load(&j->current);
    j->stores[next].point = t->f.point;
    j->stores[next].len = (uint32_t)t->snapshot.len;
    if (t->snapshot.len > SNAPSHOT_MOST) abort();
    if (t->snapshot.len) memcpy(j->stores[next].snapshot, t->snapshot.data, t->snapshot.len);
    BW_KILL_POINT("snapshot.stored");
    atomic_store(&j->current, next);
}

static void reopen(txn_fixture *t, journal *j, bool fresh)
{
    txn_crash(t);
    atomic_store(&j->fresh, fresh);
    txn_open(t, fresh);
    memcpy(j->generation, t->f.generation, 16);
    atomic_store(&j->fresh, 0);
}

static void append_part(txn_fixture *t, journal *j, int txn, int part)
{
    txn_append(t, FIRST_ID + txn, 0, part, 1, true);
    atomic_store(&j->appended[txn], part + 1);
}

static void decide(txn_fixture *t, journal *j, int txn)
{
    append_part(t, j, txn, 2);
    atomic_store(&j->decided[txn], 1);
    txn_end(t, FIRST_ID + txn, 0, commits(txn));
    atomic_store(&j->decided[txn], 2);
}

static void adopt_paths(log_fixture *f, const journal *j)
{
    strcpy(f->data, j->data);
    strcpy(f->shm, j->shm);
    f->data_fd = open(f->data, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    f->shm_fd = open(f->shm, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    memcpy(f->topic.b, j->topic, 16);
    f->config = (bw_partition_config){.segment_bytes = 8 << 10, .segment_ms = -1, .retention_bytes = -1, .retention_ms = -1,
                                      .max_message_bytes = 1 << 20, .index_interval_bytes = 1024};
    f->next_ts = 1000000;
    bw_batch_builder_init(&f->builder);
}

static int live(const char *path)
{
    journal *j = map_journal(path);
    txn_fixture t = {0};
    adopt_paths(&t.f, j);
    if (bw_partition_create_files(t.f.data_fd, LOG_TOPIC, 0, &t.f.topic) != BW_OK) abort();
    t.f.created = true;
    t.f.point.known = true;
    j->stores[0].point = t.f.point;
    atomic_store(&j->fresh, 1);
    txn_open(&t, true);
    memcpy(j->generation, t.f.generation, 16);
    atomic_store(&j->fresh, 0);
    for (int i = 0; i < TXNS; i++) { /* odd ones while the one before is open */
        append_part(&t, j, i, 0);
        txn_append(&t, -1, 0, 0, 1, false);
        append_part(&t, j, i, 1);
        if (i % 2) decide(&t, j, i - 1);
        if (i % 2) decide(&t, j, i);
        if (i % 4 == 3) keep(&t, j);
        if (i == 8) reopen(&t, j, false);
        if (i == 13) reopen(&t, j, true);
    }
    keep(&t, j);
    atomic_store(&j->finished, 1);
    _exit(0);
}

/* ---- the parent ---- */

static char own_path[512], work[64];
static int case_number;

static int run_child(journal **out, const char *spec, const char *log)
{
    char path[128];
    snprintf(path, sizeof path, "%.40s/journal-%d", work, case_number);
    journal *j = *out = map_journal(path);
    snprintf(j->data, sizeof j->data, "%.40s/d%d", work, case_number);
    snprintf(j->shm, sizeof j->shm, "%.40s/s%d", work, case_number++);
    assert_int_equal(mkdir(j->data, 0755), 0);
    assert_int_equal(mkdir(j->shm, 0755), 0);
    bw_os_uuid(j->topic);
    pid_t child = fork();
    if (child == 0) {
        if (spec) setenv("BUSWAY_KILL", spec, 1);
        if (log) setenv("BUSWAY_KILL_LOG", log, 1);
        execl(own_path, own_path, "live", path, (char *)NULL);
        _exit(127);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

/* What a committed reader sees: of what was decided to be committed a part, in order (an open transaction may lie in between); of all
 * else nothing; when all is over: all of it. */
static void look(log_fixture *f, const journal *j, int dir_fd, bool over, const char *what)
{
    int seen[TXNS] = {0}, plain = 0;
    bw_reader *r;
    bw_reader_options o = {.control = f->control, .dir_fd = dir_fd, .use_pread = case_number % 2, .committed = true, .check_crcs = true};
    assert_int_equal(bw_reader_open(&o, &r), BW_OK);
    bw_batch_ref b;
    bw_err e;
    while ((e = bw_reader_next(r, &b)) == BW_OK) {
        if (b.header.attributes & BW_ATTR_CONTROL) continue;
        int txn = (int)b.header.producer_id - FIRST_ID;
        if (txn < 0) {
            plain++;
            continue;
        }
        assert_in_range(txn, 0, TXNS - 1);
        if (!commits(txn) || !atomic_load(&j->decided[txn])) fail_msg("%s: transaction %d is seen", what, txn);
        assert_int_equal(b.header.base_sequence, seen[txn]++);
    }
    if (e != BW_ERR_EMPTY) fail_msg("%s: %s: %s", what, bw_err_name(e), bw_error_message());
    bw_reader_close(r);
    for (int i = 0; i < TXNS; i++) {
        bool whole = over && commits(i) && atomic_load(&j->decided[i]);
        if (seen[i] != PARTS && whole) fail_msg("%s: %d batches of transaction %d are seen", what, seen[i], i);
    }
    if (over && atomic_load(&j->finished)) assert_int_equal(plain, TXNS);
}

/* What a coordinator does when it is back: end what was decided, abort the rest. */
static void on_finding(void *opaque, const bw_finding *f)
{
    if (f->is_error) fail_msg("%s: %s@%llu: %s", (const char *)opaque, f->path, (unsigned long long)f->position, f->message);
}

static void verify_log(log_fixture *f, const char *what)
{
    char path[256];
    bw_verify_totals totals;
    log_path(f, path, "");
    (void)bw_verify(path, on_finding, NULL, (void *)(uintptr_t)what, &totals);
}

static bool collect(void *opaque, const bw_producer_info *info)
{
    int *open = opaque;
    while (*open >= 0) open++;
    *open = (int)info->id - FIRST_ID;
    return true;
}

static void resolve(txn_fixture *t, const journal *j)
{
    int open[TXNS + 1];
    for (int i = 0; i <= TXNS; i++) open[i] = -1;
    bw_producers_each(t->table, true, 0, collect, open);
    for (int i = 0; open[i] >= 0; i++) txn_end(t, FIRST_ID + open[i], 0, atomic_load(&j->decided[open[i]]) && commits(open[i]));
    assert_int_equal(t->f.control->slots[0].first_unstable, INT64_MAX);
}

static void check_sequences(txn_fixture *t, const journal *j, const char *what)
{
    for (int i = 0; i < TXNS; i++)
        for (int part = 0; part < atomic_load(&j->appended[i]); part++) {
            bw_batch_header h = {.producer_id = FIRST_ID + i, .base_sequence = part, .attributes = BW_ATTR_TRANSACTIONAL};
            bw_producer_batch before;
            bw_err e;
            if (bw_producers_check(t->table, &h, &before, &e) != BW_SEQUENCE_DUPLICATE) fail_msg("%s: part %d of %d is not known", what, part, i);
        }
}

/* No coordinator yet. false: there is no control data to look at, the child was within a crash of its own. */
static bool look_at_remains(log_fixture *f, const journal *j, const char *what)
{
    if (atomic_load(&j->fresh) || bw_mail_attach(f->shm_fd, f->generation, &f->mail) != BW_OK) return false;
    if (bw_control_attach(f->shm_fd, f->generation, &f->topic, BW_CONTROL_WRITE, f->mail, &f->control) != BW_OK) return false;
    if (f->control->slots[0].state != BW_SLOT_OPEN) return false;
    int dir_fd = openat(f->data_fd, LOG_TOPIC "-0", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    look(f, j, dir_fd, false, what);
    close(dir_fd);
    return true;
}

static void inherit_and_check(journal *j, bool takeover, const char *what)
{
    txn_fixture t = {0};
    log_fixture *f = &t.f;
    adopt_paths(f, j);
    memcpy(f->generation, j->generation, 16);
    const stored *s = &j->stores[atomic_load(&j->current)];
    f->point = s->point;
    if (s->len) assert_int_equal(bw_buf_append(&t.snapshot, s->snapshot, s->len), BW_OK);
    takeover = look_at_remains(f, j, what) && takeover;
    txn_open(&t, !takeover);
    look(f, j, bw_partition_dir_fd(f->p), false, what);
    check_sequences(&t, j, what);
    resolve(&t, j);
    look(f, j, bw_partition_dir_fd(f->p), true, what);
    txn_store(&t);
    verify_log(f, what);
    txn_crash(&t);
    txn_open(&t, true);
    look(f, j, bw_partition_dir_fd(f->p), true, what);
    check_sequences(&t, j, what);
    char data[64], shm[64];
    strcpy(data, f->data);
    strcpy(shm, f->shm);
    txn_fini(&t);
    munmap(j, sizeof *j);
}

static int read_names(char names[NAMES_MAX][64], const char *path)
{
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    int n = 0;
    while (n < NAMES_MAX && fscanf(f, "%63s", names[n]) == 1) n++;
    fclose(f);
    return n;
}

static void test_transactions_undisturbed_are_whole(void **state)
{
    (void)state;
    for (int takeover = 0; takeover < 2; takeover++) {
        journal *j;
        assert_int_equal(run_child(&j, NULL, NULL), 0);
        assert_true(atomic_load(&j->finished));
        inherit_and_check(j, takeover, "undisturbed");
    }
}

static bool concerns(const char *name)
{
    static const char *const areas[] = {"txn.", "snapshot.", "append.published", "append.copied", "takeover.", "recover.producers",
                                        "recover.gaps", "recover.epoch", "sync.", "roll."};
    for (size_t i = 0; i < sizeof areas / sizeof *areas; i++)
        if (strncmp(name, areas[i], strlen(areas[i])) == 0) return true;
    return false;
}

static void test_transactions_killed_at_each_step_are_whole_or_not_at_all(void **state)
{
    (void)state;
    static const char *const needed[] = {"txn.begun", "txn.marked", "txn.indexed", "txn.counted", "txn.settled", "snapshot.made",
                                         "snapshot.index_synced", "snapshot.stored", "takeover.producers", "recover.producers"};
    static const int passes[] = {1, 2, 5, 9, 16, 23};
    char names[NAMES_MAX][64], log[96], spec[96];
    journal *j;
    snprintf(log, sizeof log, "%.40s/names", work);
    assert_int_equal(run_child(&j, NULL, log), 0);
    munmap(j, sizeof *j);
    int n = read_names(names, log), killed = 0;
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++) {
        int at = 0;
        while (at < n && strcmp(names[at], needed[i]) != 0) at++;
        if (at == n) fail_msg("kill point %s was not reached", needed[i]);
    }
    for (int i = 0; i < n; i++) {
        if (!concerns(names[i])) continue;
        for (size_t k = 0; k < sizeof passes / sizeof *passes; k++) {
            snprintf(spec, sizeof spec, "%.63s:%d", names[i], passes[k]);
            int status = run_child(&j, spec, NULL);
            if (!WIFSIGNALED(status) && status != 0) fail_msg("%s: status %x", spec, (unsigned)status);
            killed += WIFSIGNALED(status);
            inherit_and_check(j, (i + (int)k) % 3 != 0, spec);
            if (!WIFSIGNALED(status)) break; /* it is not passed so often */
        }
    }
    assert_true(killed > 60);
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "live") == 0) return live(argv[2]);
    ssize_t len = readlink("/proc/self/exe", own_path, sizeof own_path - 1);
    if (len < 0) return 1;
    own_path[len] = '\0';
    strcpy(work, "/dev/shm/bw-txns-XXXXXX");
    if (!mkdtemp(work)) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_transactions_undisturbed_are_whole),
        cmocka_unit_test(test_transactions_killed_at_each_step_are_whole_or_not_at_all),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", work);
    return system(command) ? 1 : failed;
}
