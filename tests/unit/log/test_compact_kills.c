/* The cleaner killed at each of its steps: the old segments or the new one, whole, to whoever takes over or recovers. */
#include "compact_fixture.h"

static const char *const points[] = {
    "compact.begin",   "compact.scanned",  "compact.mapped",   "compact.created", "compact.written",  "compact.synced",  "compact.indexed",
    "compact.sealed",  "compact.gaps",     "compact.named",    "compact.renamed", "compact.decided",  "compact.unsealed", "compact.replaced",
    "compact.hints",   "compact.resealed", "compact.covered",  "compact.settled", "compact.done",     "compact.checkpoint",
};

/* What the child leaves to the parent: the control data is not there in a forked child, so the child makes its own log. */
typedef struct legacy {
    oracle o;
    log_fixture f;
    int64_t synced;
} legacy;

static void live_and_die(legacy *l, const char *point, int pass)
{
    char spec[80];
    snprintf(spec, sizeof spec, "%s:%d", point, pass);
    setenv("BUSWAY_KILL", spec, 1);
    log_fixture f;
    oracle *o = begin(&f, 64 << 10);
    shape s = {4, 500, BW_CODEC_NONE, -1, 0, true};
    l->f = f; /* its folders: whatever comes, they are removed */
    write_round(&f, o, &s, 60, 2);
    uint32_t x = 1;
    for (int i = 0; i < 240; i++) { /* here and there, so that every segment loses something */
        int keys[4];
        for (int k = 0; k < 4; k++) keys[k] = (int)((x = x * 1103515245 + 12345) >> 16) % 300;
        write_batch(&f, o, &s, keys, NULL);
    }
    fill_active(&f, o);
    bw_partition_recovery_point(f.p, &f.point, NULL);
    l->o = *o;
    l->f = f;
    bw_compact_options c = options();
    bw_compact_report r;
    _exit(bw_partition_compact(f.p, &c, &r) == BW_OK ? 0 : 9);
}

/* true: it died at the point. */
static bool die_at(legacy *l, const char *point, int pass)
{
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) live_and_die(l, point, pass);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true((WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) || (WIFEXITED(status) && WEXITSTATUS(status) == 0));
    return WIFSIGNALED(status);
}

static void inherit(log_fixture *f, const legacy *l)
{
    *f = l->f;
    f->data_fd = open(f->data, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    f->shm_fd = open(f->shm, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    f->p = NULL;
    bw_batch_builder_init(&f->builder);
    assert_int_equal(bw_mail_attach(f->shm_fd, f->generation, &f->mail), BW_OK);
    assert_int_equal(bw_control_attach(f->shm_fd, f->generation, &f->topic, BW_CONTROL_WRITE, f->mail, &f->control), BW_OK);
}

static void test_compact_killed_anywhere_leaves_old_or_new_whole(void **state)
{
    (void)state;
    int kills = 0;
    legacy *l = mmap(NULL, sizeof *l, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(l != MAP_FAILED);
    for (size_t i = 0; i < sizeof points / sizeof *points; i++) {
        bool died = true;
        for (int pass = 1; died && pass <= 3; pass++) {
            for (int fresh = 0; fresh < 2; fresh++) {
                log_fixture f;
                died = die_at(l, points[i], pass);
                kills += died;
                if (pass == 1 && !died) fail_msg("%s was not passed", points[i]);
                inherit(&f, l);
                check_verify(&f); /* as it was left: notes, no errors */
                log_open(&f, fresh);
                if (fresh) assert_false(f.report.cut || f.report.foreign || f.report.quarantined);
                assert_int_equal(log_count_files(&f, ".cleaned", NULL) + log_count_files(&f, ".swap", NULL), 0);
                check_last_values(&f, &l->o, 0);
                check_verify(&f);
                bw_compact_report r = compact(&f, NULL);
                check_last_values(&f, &l->o, r.upto);
                check_verify(&f);
                log_fini(&f);
            }
        }
    }
    munmap(l, sizeof *l);
    print_message("%d kills\n", kills);
    assert_true(kills >= 80);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_compact_killed_anywhere_leaves_old_or_new_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
