/* The coordinator and its writer killed at each step, and each system call failing: nothing acknowledged is lost, doubled or moved.
 *
 * A child (this program again, with a kill point or a fault in its environment) writes a log through its whole life: creation,
 * growth, rolls, syncs, seals, retention, a crash with a torn end, recovery, takeover, a clean stop. After each append it notes,
 * outside the library, what was acknowledged. The parent then takes over, or recovers from the files, and checks. */
#include "log_fixture.h"

#include <busway/inspect.h>
#include <errno.h>
#include <signal.h>
#include <sys/mman.h>

enum { NAMES_MAX = 256, PATIENCE_MS = 60000 };

/* Shared with the child through a file: what it had done when it died. */
typedef struct journal {
    _Atomic int64_t acknowledged; /* offset behind the last append that returned */
    _Atomic int64_t attempted;    /* …that was begun */
    _Atomic int64_t durable;      /* behind the last record that a sync promised */
    _Atomic int64_t deleted;      /* log start asked for */
    _Atomic int created, fresh, finished;
    bw_recovery_point point; /* as LMDB would hold it */
    uint8_t generation[16];
    uint8_t topic[16];
    char data[64], shm[64];
} journal;

/* ---- the child ---- */

static journal *map_journal(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    if (fd < 0 || ftruncate(fd, sizeof(journal)) != 0) abort();
    journal *j = mmap(NULL, sizeof *j, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (j == MAP_FAILED) abort();
    close(fd);
    return j;
}

typedef struct life {
    journal *j;
    log_fixture f;
    bw_appender *a;
    int stage;    /* where the life ends: 0 at its natural end */
    bool failing; /* a fault was set: calls may fail, the life goes on as far as it can */
} life;

static void life_end(const life *l, const char *where, bw_err e)
{
    if (l->failing) _exit(0); /* a clean error is a good end */
    fprintf(stderr, "%s: %s: %s\n", where, bw_err_name(e), bw_error_message());
    _exit(9);
}

static void life_attach(life *l)
{
    bw_appender_options o = {.control = l->f.control, .dir_fd = bw_partition_dir_fd(l->f.p)};
    bw_err e = bw_appender_open(&o, &l->a);
    if (e) life_end(l, "appender", e);
}

static void life_open(life *l, bool fresh)
{
    log_fixture *f = &l->f;
    f->point = l->j->point;
    if (fresh) {
        if (f->control) bw_control_close(f->control);
        if (f->mail) bw_mail_close(f->mail);
        f->control = NULL;
        f->mail = NULL;
        bw_os_uuid(f->generation);
        memcpy(l->j->generation, f->generation, 16);
        atomic_store(&l->j->fresh, 1);
        char command[128];
        snprintf(command, sizeof command, "rm -rf %s/*", l->j->shm);
        if (system(command) != 0) abort();
        bw_err e = bw_mail_create(f->shm_fd, f->generation, &f->mail);
        if (!e) e = bw_control_create(f->shm_fd, f->generation, &f->topic, f->mail, 1, &f->control);
        if (e) life_end(l, "arenas", e);
    }
    bw_partition_open_options o = {.data_fd = f->data_fd, .topic = LOG_TOPIC, .control = f->control, .bus_number = 3,
                                   .fresh_slot = fresh, .point = f->point, .just_created = f->created, .config = f->config};
    f->created = false;
    bw_err e = bw_partition_open(&o, &f->p, &f->report);
    if (e) life_end(l, "open", e);
    bw_control_publish(f->control, 1);
    atomic_store(&l->j->fresh, 0);
    life_attach(l);
}

static void life_append(life *l, int n)
{
    log_fixture *f = &l->f;
    for (int i = 0; i < n; i++) {
        bw_append_result r;
        bw_err e;
        atomic_store(&l->j->attempted, atomic_load(&l->j->acknowledged) + 3);
        for (int tries = 0;; tries++) {
            bw_err t = bw_partition_tend_files(f->p);
            if (t && !l->failing) life_end(l, "tend", t);
            e = log_try_append(f, l->a, 3, 700, 0, &r);
            if (e == BW_OK || (e != BW_ERR_NO_COORDINATOR && e != BW_ERR_DISK_FULL) || tries > 20) break;
            usleep(l->failing ? 30000 : 100);
        }
        if (e) life_end(l, "append", e);
        if (r.base_offset != atomic_load(&l->j->acknowledged)) _exit(8); /* offsets go on where they were */
        atomic_store(&l->j->acknowledged, r.base_offset + 3);
    }
}

static void life_sync(life *l)
{
    int64_t end = atomic_load(&l->j->acknowledged);
    bw_err e = bw_partition_sync(l->f.p);
    if (e) life_end(l, "sync", e);
    atomic_store(&l->j->durable, end);
    bw_recovery_point pt;
    if (bw_partition_recovery_point(l->f.p, &pt, NULL)) l->j->point = pt;
    e = bw_partition_tend_files(l->f.p);
    if (e && !l->failing) life_end(l, "tend", e);
}

/* As if the process had died: the control data is left as it is. */
static void life_crash(life *l)
{
    bw_appender_close(l->a);
    log_crash(&l->f);
}

static void life_tear(life *l)
{
    bw_position tail = l->f.control->slots[0].tail;
    int64_t base = (int64_t)bw_ring_at(&l->f.control->slots[0], bw_position_seq(tail))->base_offset;
    char name[BW_SEGMENT_NAME_MAX], path[256];
    bw_segment_name(name, base, ".log");
    log_path(&l->f, path, name);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd >= 0 && pwrite(fd, "a torn batch", 12, bw_position_pos(tail) + 20) != 12) abort();
    if (fd >= 0) close(fd);
}

static void end_of_stage(const life *l, int stage)
{
    if (l->stage == stage) _exit(0);
}

static void live(life *l)
{
    log_fixture *f = &l->f;
    journal *j = l->j;
    strcpy(f->data, j->data);
    strcpy(f->shm, j->shm);
    f->data_fd = open(f->data, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    f->shm_fd = open(f->shm, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    memcpy(f->topic.b, j->topic, 16);
    f->config = (bw_partition_config){.segment_bytes = 64 << 10, .segment_ms = -1, .retention_bytes = -1, .retention_ms = -1,
                                      .max_message_bytes = 1 << 20, .index_interval_bytes = 4096, .file_delete_delay_ms = 0};
    f->next_ts = 1000000;
    bw_batch_builder_init(&f->builder);
    bw_err e = bw_partition_create_files(f->data_fd, LOG_TOPIC, 0, &f->topic);
    if (e) life_end(l, "create", e);
    f->created = true;
    atomic_store(&j->created, 1);
    life_open(l, true);
    life_append(l, 10);
    life_sync(l);
    life_append(l, 70); /* two rolls */
    life_sync(l);
    end_of_stage(l, 1);
    life_append(l, 35);
    life_crash(l);
    life_open(l, false); /* takeover */
    life_append(l, 35);
    life_sync(l);
    int64_t start;
    atomic_store(&j->deleted, 100);
    e = bw_partition_delete_records(f->p, 100, &start);
    if (e && !l->failing) life_end(l, "delete", e);
    f->config.retention_bytes = 200000;
    (void)bw_partition_set_config(f->p, &f->config); /* fences writers: attach again */
    bw_appender_close(l->a);
    life_attach(l);
    e = bw_partition_retain(f->p, bw_clock_wall_ms(), NULL);
    if (e && !l->failing) life_end(l, "retain", e);
    end_of_stage(l, 2);
    life_append(l, 20);
    life_crash(l);
    life_tear(l);
    life_open(l, true); /* recovery, with a torn end and perhaps a spare */
    life_append(l, 60);
    life_sync(l);
    bw_appender_close(l->a);
    e = bw_partition_close(f->p, true, &j->point);
    if (e) life_end(l, "close", e);
    f->p = NULL;
    life_open(l, true); /* recovery of a clean log */
    life_append(l, 5);
    atomic_store(&j->finished, 1);
    _exit(0);
}

/* ---- the parent ---- */

static char own_path[512], work[64];
static int case_number;

typedef struct outcome { journal *j; int status; char root[128]; } outcome;

static outcome run_child(const char *variable, const char *value, int stage)
{
    outcome o;
    char path[192], argument[224];
    snprintf(o.root, sizeof o.root, "%s/%d", work, case_number++);
    assert_int_equal(mkdir(o.root, 0755), 0);
    snprintf(path, sizeof path, "%s/journal", o.root);
    o.j = map_journal(path);
    snprintf(o.j->shm, sizeof o.j->shm, "/dev/shm/bw-kills-%d-%d", (int)getpid(), case_number);
    assert_int_equal(mkdir(o.j->shm, 0755), 0);
    /* A process's death leaves the page cache whole on any file system; most cases spare the disk its syncs. */
    if (case_number % 4 == 0) snprintf(o.j->data, sizeof o.j->data, "%.40s/%d/data", work, case_number - 1);
    else snprintf(o.j->data, sizeof o.j->data, "%.40s-data", o.j->shm);
    assert_int_equal(mkdir(o.j->data, 0755), 0);
    bw_os_uuid(o.j->topic);
    snprintf(argument, sizeof argument, "%s", path);
    pid_t child = fork();
    if (child == 0) {
        if (variable) setenv(variable, value, 1);
        char at[2] = {(char)('0' + stage), '\0'};
        execl(own_path, own_path, "live", argument, variable && strcmp(variable, "BUSWAY_FAULT") == 0 ? "failing" : "", at, (char *)NULL);
        _exit(127);
    }
    int64_t deadline = bw_clock_mono_ms() + PATIENCE_MS;
    while (waitpid(child, &o.status, WNOHANG) == 0) {
        if (bw_clock_mono_ms() > deadline) {
            kill(child, SIGKILL);
            waitpid(child, &o.status, 0);
            fail_msg("%s: the child hung", value);
        }
        usleep(500);
    }
    return o;
}

static void clean_up(outcome *o)
{
    char command[320];
    snprintf(command, sizeof command, "rm -rf %s %s %s", o->root, o->j->shm, o->j->data);
    munmap(o->j, sizeof *o->j);
    assert_int_equal(system(command), 0);
}

/* Opens what the child left: by takeover when its control data is complete (and wanted), else by recovery. */
static void inherit(log_fixture *f, outcome *o, bool takeover, const char *what)
{
    journal *j = o->j;
    memset(f, 0, sizeof *f);
    strcpy(f->data, j->data);
    strcpy(f->shm, j->shm);
    f->data_fd = open(f->data, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    f->shm_fd = open(f->shm, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    memcpy(f->topic.b, j->topic, 16);
    memcpy(f->generation, j->generation, 16);
    f->config = (bw_partition_config){.segment_bytes = 64 << 10, .segment_ms = -1, .retention_bytes = -1, .retention_ms = -1,
                                      .max_message_bytes = 1 << 20, .index_interval_bytes = 4096};
    f->point = j->point;
    f->next_ts = 2000000;
    bw_batch_builder_init(&f->builder);
    takeover = takeover && !atomic_load(&j->fresh) && bw_mail_attach(f->shm_fd, f->generation, &f->mail) == BW_OK &&
               bw_control_attach(f->shm_fd, f->generation, &f->topic, BW_CONTROL_WRITE, f->mail, &f->control) == BW_OK;
    if (takeover && f->control->slots[0].state != BW_SLOT_OPEN) takeover = false; /* poisoned, or the child's own staged crash */
    bw_err e = log_try_open(f, !takeover);
    if (e) fail_msg("%s: open: %s: %s", what, bw_err_name(e), bw_error_message());
}

static void on_finding(void *opaque, const bw_finding *f)
{
    char *text = opaque;
    if (!text[0]) snprintf(text, 400, "%.150s@%llu: %.200s", f->path, (unsigned long long)f->position, f->message);
}

static void check_log(log_fixture *f, journal *j, const char *what)
{
    int64_t end = bw_slot_end_offset(&f->control->slots[0]), start = f->control->slots[0].log_start;
    int64_t acknowledged = atomic_load(&j->acknowledged), attempted = atomic_load(&j->attempted);
    if (end < acknowledged || end > (attempted > acknowledged ? attempted : acknowledged))
        fail_msg("%s: ends at %lld; acknowledged %lld, attempted %lld; %s", what, (long long)end, (long long)acknowledged,
                 (long long)attempted, f->report.detail);
    if (f->report.quarantined || f->report.foreign) fail_msg("%s: %s", what, f->report.detail);
    bw_err why;
    int64_t read = log_read_from(f, start, &why);
    if (read != end || why != BW_ERR_EMPTY) fail_msg("%s: read to %lld of %lld: %s", what, (long long)read, (long long)end, bw_error_message());
    log_append_many(f, 40, 3, 700);
    assert_int_equal(log_read_from(f, start, NULL), end + 120);
    log_close(f, true);
    bw_verify_totals t;
    char found[400] = "";
    if (bw_verify(f->data, on_finding, NULL, found, &t) != BW_OK) fail_msg("%s: %s", what, found);
    log_open(f, true);
    assert_int_equal(f->report.cut, 0);
    assert_int_equal(log_read_from(f, start, NULL), end + 120);
    bw_partition_close(f->p, false, NULL);
    bw_control_close(f->control);
    bw_mail_close(f->mail);
    bw_batch_builder_fini(&f->builder);
    close(f->data_fd);
    close(f->shm_fd);
}

static void inherit_and_check(outcome *o, bool takeover, const char *what)
{
    log_fixture f;
    if (!atomic_load(&o->j->created)) return; /* a half-made folder is removed by who made the topic */
    inherit(&f, o, takeover, what);
    check_log(&f, o->j, what);
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

static void test_partition_life_without_a_kill_is_whole(void **state)
{
    (void)state;
    outcome o = run_child(NULL, "undisturbed", 0);
    assert_true(WIFEXITED(o.status));
    assert_int_equal(WEXITSTATUS(o.status), 0);
    assert_int_equal(atomic_load(&o.j->finished), 1);
    inherit_and_check(&o, true, "undisturbed");
    clean_up(&o);
}

static void test_partition_killed_at_each_point_loses_nothing_acknowledged(void **state)
{
    (void)state;
    static char names[NAMES_MAX][64];
    char log[128], spec[96];
    snprintf(log, sizeof log, "%s/points", work);
    outcome whole = run_child("BUSWAY_KILL_LOG", log, 0);
    assert_int_equal(atomic_load(&whole.j->finished), 1);
    clean_up(&whole);
    int n = read_names(names, log), killed = 0;
    assert_true(n > 40);
    static const char *const needed[] = {"grow.allocated", "spare.allocated", "spare.filled", "spare.published", "roll.linked",
                                         "roll.unlinked", "roll.capacity", "sync.segment", "sync.stored", "seal.written", "seal.trimmed",
                                         "takeover.synced", "recover.zeroed", "recover.epoch", "retain.log_gone", "close.trimmed",
                                         "grow.synced", "append.copied", "index.finished"};
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++) {
        int at = 0;
        while (at < n && strcmp(names[at], needed[i]) != 0) at++;
        if (at == n) fail_msg("kill point %s was not reached", needed[i]);
    }
#if defined(__SANITIZE_ADDRESS__)
    static const int passes[] = {1};
#else
    static const int passes[] = {1, 3};
#endif
    for (int i = 0; i < n; i++) {
        for (size_t k = 0; k < sizeof passes / sizeof *passes; k++) {
            snprintf(spec, sizeof spec, "%.60s:%d", names[i], passes[k]);
            outcome o = run_child("BUSWAY_KILL", spec, 0);
            if (WIFEXITED(o.status) && WEXITSTATUS(o.status) != 0) fail_msg("%s: the child ended with %d", spec, WEXITSTATUS(o.status));
            killed += WIFSIGNALED(o.status);
            inherit_and_check(&o, (i + (int)k) % 2 == 0, spec);
            clean_up(&o);
        }
    }
    assert_true(killed >= n);
}

static void test_partition_each_failing_call_is_a_clean_error(void **state)
{
    (void)state;
    static const struct { const char *call; int error, most; } faults[] = {
        {"fdatasync", EIO, 6}, {"fsync", EIO, 8}, {"fallocate", ENOSPC, 10}, {"open", EMFILE, 40}, {"pread", EIO, 40},
        {"pwrite", ENOSPC, 30}, {"rename", EIO, 4},  {"link", ENOSPC, 4},      {"unlink", EIO, 10}, {"ftruncate", EIO, 5},
        {"mmap", ENOMEM, 6},   {"madvise", ENOMEM, 6}, {"opendir", ENOMEM, 4}, {"fstat", EIO, 20},
    };
    char spec[96];
    int step = 1;
#if defined(__SANITIZE_ADDRESS__)
    step = 4;
#endif
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        for (int k = 1; k <= faults[i].most; k += k < 6 ? step : 3 * step) {
            snprintf(spec, sizeof spec, "%s:%d:%d", faults[i].call, k, faults[i].error);
            outcome o = run_child("BUSWAY_FAULT", spec, k % 3);
            if (!WIFEXITED(o.status) || WEXITSTATUS(o.status) != 0) fail_msg("%s: status %x", spec, o.status);
            inherit_and_check(&o, k % 2 == 0, spec);
            clean_up(&o);
        }
    }
}

static void test_partition_failed_sync_poisons_and_is_never_retried(void **state)
{
    (void)state;
    /* The child's third fdatasync is that of its first own sync or of a small file; each one that fails in a sync must poison. */
    int poisoned = 0;
    for (int k = 1; k <= 12; k++) {
        char spec[64];
        snprintf(spec, sizeof spec, "fdatasync:%d:5", k);
        outcome o = run_child("BUSWAY_FAULT", spec, 2);
        assert_true(WIFEXITED(o.status) && WEXITSTATUS(o.status) == 0);
        char marker[192];
        struct stat st;
        snprintf(marker, sizeof marker, "%s/%s-0/poisoned", o.j->data, LOG_TOPIC);
        if (stat(marker, &st) == 0) {
            poisoned++;
            log_fixture f;
            memset(&f, 0, sizeof f);
            int shm = open(o.j->shm, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
            bw_uuid topic;
            memcpy(topic.b, o.j->topic, 16);
            assert_int_equal(bw_mail_attach(shm, o.j->generation, &f.mail), BW_OK);
            assert_int_equal(bw_control_attach(shm, o.j->generation, &topic, BW_CONTROL_READ, f.mail, &f.control), BW_OK);
            bw_tail_slot *s = &f.control->slots[0];
            assert_int_equal(s->state, BW_SLOT_POISONED);
            assert_true(s->durable_offset >= atomic_load(&o.j->durable)); /* no promise was taken back… */
            assert_true(s->durable < s->tail || k > 1);                   /* …and none was made by the failed sync */
            bw_control_close(f.control);
            bw_mail_close(f.mail);
            close(shm);
        }
        clean_up(&o);
    }
    assert_true(poisoned >= 2);
}

static int set_up(void **state)
{
    (void)state;
    strcpy(work, "/tmp/bw-kills-XXXXXX");
    return mkdtemp(work) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s /dev/shm/bw-kills-%d-*", work, (int)getpid());
    return system(command);
}

int main(int argc, char **argv)
{
    if (argc >= 5 && strcmp(argv[1], "live") == 0) {
        static life l;
        l.stage = argv[4][0] - '0';
        l.j = map_journal(argv[2]);
        l.failing = strcmp(argv[3], "failing") == 0;
        live(&l);
    }
    ssize_t n = readlink("/proc/self/exe", own_path, sizeof own_path - 1);
    if (n < 0) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_partition_life_without_a_kill_is_whole),
        cmocka_unit_test(test_partition_killed_at_each_point_loses_nothing_acknowledged),
        cmocka_unit_test(test_partition_each_failing_call_is_a_clean_error),
        cmocka_unit_test(test_partition_failed_sync_poisons_and_is_never_retried),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
