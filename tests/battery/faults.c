/* tests/battery/faults.c: every call site of the operating system fails, once and for ever, in the daemon or in its client.
 *
 * First each of who (faults.h) runs under callshim.c without faults, so that the call sites are known: those of Busway, of LMDB, of
 * nng, and of what the C library does for them. Then a case is (who, site, errno, once or for ever): the scenario (faults_client.c)
 * runs; nobody may crash or hang; what fails says why. Then the daemon starts without faults: everything acknowledged is there, every
 * partition takes records, the folder verifies clean, and no partition's log was synced again after a sync of it had failed.
 *
 * nng 1.5.2 does not survive the want of memory or threads while it starts, nor an error of its own wake-up descriptors: a call that
 * fails inside of it may take the daemon along (these cases are counted). That is as a kill is: the rest must hold all the same.
 *
 * Environment: FAULTS_SECONDS (50; 0: every site, once and for ever, the errors by turns), FAULTS_SEED (1), FAULTS_LANES (2: cases at
 * a time), FAULTS_PROGRESS (a file: the cases are tried one after the other, in an order by the seed when there are FAULTS_SECONDS, and
 * those that were passed are kept there: a later run of the same programs, FAULTS_BUILD, goes on after them; once all are, anew),
 * FAULTS_CASE="who id:errno:at[:forever]" or "who call:k:errno[:forever]" (the seam of base/os.h) one case, FAULTS_LIST=1 only the sites,
 * FAULTS_KEEP=1 keeps the folder, FAULTS_PRELOAD the interposing library. */
#include "battery/faults.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LANES_MAX = 16, TRACES = 3 };

typedef struct fault_case {
    who who;
    char call[20], where[SITE_WHERE_MAX];
    uint64_t id;
    int error;
    unsigned at;
    bool forever, passed; /* in a run before */
} fault_case;

static struct {
    fault_case *cases;
    size_t count, cap, sites[WHO_COUNT];
    int seconds, progress_fd; /* -1: none */
    size_t passed_before;
    int64_t begun_ms;
    struct { atomic_ulong next, done, hit, taken, violations; } *shared;
} t;

/* ---- which cases ---- */

/* What the call may plausibly say; 0 ends. EINTR only once: for ever it is a busy loop by definition. */
static const int *errors_of(const char *call)
{
    static const struct { const char *call; int errors[4]; } table[] = {
        {"open", {EMFILE, EIO, ENOSPC}}, {"openat", {EMFILE, EIO, ENOSPC}}, {"openat2", {EMFILE, EIO, ENOSPC}}, {"pread", {EIO, ENOMEM}},
        {"read", {EIO, EINTR}}, {"readv", {ECONNRESET, EINTR}}, {"pwrite", {EIO, ENOSPC}}, {"pwritev", {EIO, ENOSPC}},
        {"write", {EIO, ENOSPC, EINTR}}, {"writev", {EIO, ENOSPC, EINTR}}, {"fallocate", {ENOSPC, EIO, EINTR}},
        {"ftruncate", {EIO, ENOSPC}}, {"fdatasync", {EIO, ENOSPC}}, {"fsync", {EIO}}, {"msync", {EIO}}, {"mmap", {ENOMEM, EACCES}},
        {"madvise", {ENOMEM, EIO, EINVAL}}, {"mkdir", {ENOSPC, EACCES}}, {"mkdirat", {ENOSPC, EACCES}}, {"linkat", {ENOSPC, EIO}},
        {"renameat", {EIO, ENOSPC}}, {"opendir", {EMFILE}}, {"fdopendir", {ENOMEM}}, {"readdir", {EIO}}, {"flock", {EIO, EINTR}},
        {"fcntl", {EMFILE, EINTR}}, {"socket", {EMFILE, ENOMEM}}, {"accept", {EMFILE, ENOMEM, EINTR}}, {"bind", {ENOMEM}},
        {"connect", {ECONNREFUSED, EACCES, EINTR}}, {"sendmsg", {EPIPE, ENOMEM, EINTR}}, {"sendto", {EPIPE, ENOMEM, EINTR}},
        {"recv", {ECONNRESET, ENOMEM, EINTR}}, {"recvmsg", {ECONNRESET, ENOMEM, EINTR}}, {"poll", {EINTR}}, {"ppoll", {EINTR}},
        {"epoll_wait", {EINTR}}, {"epoll_ctl", {ENOMEM}}, {"epoll_create1", {EMFILE}}, {"eventfd", {EMFILE}}, {"pipe", {EMFILE}},
        {"pipe2", {EMFILE}}, {"timerfd_create", {EMFILE}}, {"timerfd_settime", {EINVAL}}, {"pthread_create", {EAGAIN}},
        {"pthread_key_create", {EAGAIN}}, {"getrandom", {EINTR}}, {"futex", {EINTR}}, {"pidfd_open", {EMFILE}}, {"fopen", {EMFILE}},
        {"malloc", {ENOMEM}}, {"calloc", {ENOMEM}}, {"realloc", {ENOMEM}}, {"aligned_alloc", {ENOMEM}}, {"posix_memalign", {ENOMEM}},
        {"fchownat", {EPERM}}, {"getcwd", {ENOENT}}, {"getsockopt", {ENOBUFS}}, {"setsockopt", {ENOBUFS}}, {"getsockname", {ENOBUFS}},
        {"getpeername", {ENOBUFS, ENOTCONN}},
    };
    static const int others[] = {EIO, 0};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (strcmp(table[i].call, call) == 0) return table[i].errors;
    return others;
}

static int errors_count(const char *call)
{
    int n = 0;
    while (errors_of(call)[n]) n++;
    return n;
}

static void add_case(const fault_case *c)
{
    if (t.count == t.cap) {
        t.cap = t.cap ? 2 * t.cap : 1024;
        t.cases = realloc(t.cases, t.cap * sizeof *t.cases);
        if (!t.cases) abort();
    }
    t.cases[t.count++] = *c;
}

/* Once with each error; for ever with one that is not EINTR, by turns. */
static void add_cases_of(who w, const site *s)
{
    const int *errors = errors_of(s->call);
    uint64_t id = atomic_load(&s->id);
    fault_case c = {.who = w, .id = id, .at = 1};
    snprintf(c.call, sizeof c.call, "%s", s->call);
    snprintf(c.where, sizeof c.where, "%s", s->where);
    int lasting = 0, n = errors_count(s->call);
    for (int i = 0; i < n; i++) {
        lasting += errors[i] != EINTR;
        c.error = errors[i];
        if (i < 2 || errors[i] == EINTR) add_case(&c);
    }
    if (!lasting) return;
    c.error = errors[(id >> 32) % (uint64_t)lasting]; /* EINTR is the last in each row */
    c.forever = true;
    add_case(&c);
}

static bool known(who w, uint64_t id)
{
    for (size_t i = 0; i < t.count; i++)
        if (t.cases[i].who == w && t.cases[i].id == id) return true;
    return false;
}

static int by_text(const void *x, const void *y)
{
    const fault_case *a = x, *b = y;
    if (a->who != b->who) return a->who < b->who ? -1 : 1;
    int c = strcmp(a->where, b->where);
    return c ? c : a->id < b->id ? -1 : a->id > b->id;
}

/* Runs each of who without faults, several times: which sites are passed depends a little on time. */
static bool trace(bench *b)
{
    for (int w = 0; w < WHO_COUNT; w++) {
        for (int i = 0; i < TRACES; i++) {
            if (!bench_run(b, (who)w, "", false)) {
                printf("FAIL  %s, without any fault: %s\n", who_names[w], b->why);
                bench_show_log(b);
                return false;
            }
            if (atomic_load(&b->table->overflow)) return printf("FAIL  more than %d call sites\n", SITES_MAX), false;
            for (int s = 0; s < SITES_MAX; s++) {
                const site *at = &b->table->sites[s];
                if (!atomic_load(&at->id) || known((who)w, atomic_load(&at->id))) continue;
                add_cases_of((who)w, at);
                t.sites[w]++;
            }
        }
        printf("%s: %zu call sites\n", who_names[w], t.sites[w]);
        if (!t.sites[w]) return printf("FAIL  no call site is seen: is %s there?\n", b->preload), false;
    }
    qsort(t.cases, t.count, sizeof *t.cases, by_text);
    return true;
}

static void list_cases(void)
{
    uint64_t last = 0;
    for (size_t i = 0; i < t.count; i++) {
        const fault_case *c = &t.cases[i];
        if (c->id != last) printf("%s %016llx %s %s\n", who_names[c->who], (unsigned long long)c->id, c->call, c->where);
        last = c->id;
    }
}

/* ---- what runs before did ---- */

static void note_passed(const fault_case *c)
{
    char line[96];
    int n = snprintf(line, sizeof line, "passed %s %llx %d %s\n", who_names[c->who], (unsigned long long)c->id, c->error,
                     c->forever ? "forever" : "once");
    if (t.progress_fd >= 0 && write(t.progress_fd, line, (size_t)n) != n) printf("(no progress is kept: %s)\n", strerror(errno));
}

static void mark_passed(const char *line)
{
    char name[8], how[8];
    unsigned long long id;
    int error;
    if (sscanf(line, "passed %7s %llx %d %7s", name, &id, &error, how) != 4) return;
    for (size_t i = 0; i < t.count; i++) {
        fault_case *c = &t.cases[i];
        if (c->id != id || c->error != error || c->forever != (how[0] == 'f') || c->passed || strcmp(who_names[c->who], name) != 0) continue;
        c->passed = true;
        t.passed_before++;
        return;
    }
}

static void open_progress(const char *path, const char *build)
{
    char line[128], want[128];
    snprintf(want, sizeof want, "faults of %.100s\n", build ? build : "?");
    FILE *f = fopen(path, "r");
    bool same = f && fgets(line, sizeof line, f) && strcmp(line, want) == 0;
    while (same && fgets(line, sizeof line, f)) mark_passed(line);
    if (f) fclose(f);
    if (t.passed_before == t.count) { /* it was finished: this is another run */
        for (size_t i = 0; i < t.count; i++) t.cases[i].passed = false;
        t.passed_before = 0;
        same = false;
    }
    t.progress_fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | (same ? 0 : O_TRUNC), 0600);
    if (t.progress_fd < 0 || (!same && write(t.progress_fd, want, strlen(want)) < 0)) printf("(no progress is kept: %s)\n", strerror(errno));
    if (t.passed_before) printf("going on: %zu of %zu cases were passed before\n", t.passed_before, t.count);
}

/* ---- running them ---- */

/* Names for the frames that are in programs of ours. */
static void show_where(const char *buswayd, const char *where)
{
    char text[SITE_WHERE_MAX], command[512], library[300];
    const char *slash = strrchr(buswayd, '/');
    snprintf(text, sizeof text, "%s", where);
    snprintf(library, sizeof library, "%.*s/libbusway.so", slash ? (int)(slash - buswayd) : 1, slash ? buswayd : ".");
    for (char *save, *frame = strtok_r(text, "<", &save); frame; frame = strtok_r(NULL, "<", &save)) {
        char *plus = strchr(frame, '+');
        const char *file = strncmp(frame, "buswayd+", 8) == 0 ? buswayd : strncmp(frame, "libbusway", 9) == 0 ? library : NULL;
        if (!file || !plus) continue;
        fflush(stdout);
        snprintf(command, sizeof command, "addr2line -fpse %s $(printf %%x $((%s - 1))) 2>/dev/null | sed 's/^/      at /'", file, plus + 1);
        if (system(command) != 0) return;
    }
}

static void run_case(bench *b, const fault_case *c)
{
    char fault[64];
    snprintf(fault, sizeof fault, "%llx:%d:%u%s", (unsigned long long)c->id, c->error, c->at, c->forever ? ":forever" : "");
    b->may_take_daemon = c->who != CLIENT && strncmp(c->where, "libnng", 6) == 0;
    bool good = bench_run(b, c->who, fault, false);
    unsigned failed = 0;
    atomic_fetch_add(&t.shared->taken, b->taken[0] != 0);
    for (int i = 0; i < SITES_MAX; i++)
        if (atomic_load(&b->table->sites[i].id) == c->id) failed = atomic_load(&b->table->sites[i].failed);
    atomic_fetch_add(&t.shared->done, 1);
    atomic_fetch_add(&t.shared->hit, failed > 0);
    if (good && c->at == 1) note_passed(c);
    if (good) return;
    atomic_fetch_add(&t.shared->violations, 1);
    printf("FAIL  FAULTS_CASE=\"%s %s\" (%s: %s, failed %u): %s\n", who_names[c->who], fault, c->call, strerror(c->error), failed, b->why);
    show_where(b->buswayd, c->where);
    printf("      %s\n", c->where);
    bench_show_log(b);
    fflush(stdout);
}

static uint64_t random_state;
static unsigned long below(unsigned long n)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (unsigned long)(random_state >> 11) % n;
}

static void lane(bench *b)
{
    bool in_turn = !t.seconds || t.progress_fd >= 0;
    for (;;) {
        unsigned long i = atomic_fetch_add(&t.shared->next, 1);
        if ((t.seconds && bench_now_ms() - t.begun_ms > t.seconds * 1000LL) || (in_turn && i >= t.count)) return;
        fault_case c = t.cases[in_turn ? i : below(t.count)];
        if (in_turn && c.passed) continue;
        if (!in_turn && below(3) == 0) c.at = 1 + (unsigned)below(12); /* a later pass, now and then */
        run_case(b, &c);
        if (!t.seconds && i % 500 == 499) printf("%lu of %zu, %lu violations\n", i + 1, t.count, atomic_load(&t.shared->violations));
    }
}

static void seed_random(uint64_t seed)
{
    random_state = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
    for (int k = 0; k < 8; k++) below(2);
}

static void shuffle(void)
{
    for (size_t i = t.count; i > 1; i--) {
        size_t k = below(i);
        fault_case c = t.cases[i - 1];
        t.cases[i - 1] = t.cases[k];
        t.cases[k] = c;
    }
}

static void run_lanes(const bench *b, int lanes, uint64_t seed)
{
    for (int i = 0; i < lanes; i++) {
        fflush(stdout);
        pid_t pid = fork();
        if (pid < 0) abort();
        if (pid > 0) continue;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        bench own = *b;
        bench_open(&own, i + 1);
        seed_random(seed * 64 + (uint64_t)i);
        lane(&own);
        bench_close(&own, false);
        _exit(0);
    }
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) >= 0; usleep(50000)) {
        (void)bench_now_ms(); /* which must be asked often */
        if (pid == 0 || status == 0) continue;
        printf("FAIL  a lane of this battery ended with status %d\n", status);
        atomic_fetch_add(&t.shared->violations, 1);
    }
}

static void given_case(bench *b, const char *text)
{
    char name[8];
    int used = 0;
    if (sscanf(text, "%7s %n", name, &used) < 1) abort();
    for (int w = 0; w < WHO_COUNT; w++) {
        if (strcmp(who_names[w], name) != 0) continue;
        bool good = bench_run(b, (who)w, text + used, strspn(text + used, "0123456789abcdef") != strcspn(text + used, ":"));
        atomic_fetch_add(&t.shared->done, 1);
        unsigned failed = 0;
        for (int i = 0; i < SITES_MAX; i++) failed += atomic_load(&b->table->sites[i].failed);
        atomic_fetch_add(&t.shared->hit, failed > 0);
        if (good) continue;
        atomic_fetch_add(&t.shared->violations, 1);
        printf("FAIL  %s: %s\n", text, b->why);
        bench_show_log(b);
    }
}

/* Met before, and mended: first in every run. */
static void known_cases(bench *b)
{
    static const char *const cases[] = {
        "client mmap:8:13",           /* a segment that could not be mapped was taken for one that is written by pwrite */
        "client madvise:1:95:forever" /* a kernel without MADV_POPULATE_WRITE: no buffer for what pwrite is to write */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) given_case(b, cases[i]);
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "scenario") == 0) return faults_scenario(argv[2], argv[3]);
    if (argc == 4 && strcmp(argv[1], "verify") == 0) return faults_verify(argv[2], argv[3]);
    const char *seconds = getenv("FAULTS_SECONDS"), *seed = getenv("FAULTS_SEED"), *one = getenv("FAULTS_CASE"), *lanes = getenv("FAULTS_LANES");
    const char *progress = getenv("FAULTS_PROGRESS");
    bench b = {.buswayd = getenv("BUSWAYD"), .preload = getenv("FAULTS_PRELOAD")};
    if (!b.buswayd || !b.preload) return fprintf(stderr, "BUSWAYD and FAULTS_PRELOAD are not set: see faults.sh\n"), 2;
    t.begun_ms = bench_now_ms();
    t.seconds = seconds ? atoi(seconds) : 50;
    t.progress_fd = -1;
    t.shared = mmap(NULL, sizeof *t.shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (t.shared == MAP_FAILED) abort();
    setvbuf(stdout, NULL, _IOLBF, 0);
    int many = lanes ? atoi(lanes) : 2;
    bench_open(&b, 0);
    if (one) {
        given_case(&b, one);
    } else if (!trace(&b)) {
        atomic_fetch_add(&t.shared->violations, 1);
    } else if (getenv("FAULTS_LIST")) {
        list_cases();
    } else {
        if (progress && *progress) open_progress(progress, getenv("FAULTS_BUILD"));
        seed_random(seed ? (uint64_t)atoll(seed) : 1);
        if (t.seconds && t.progress_fd >= 0) shuffle();
        known_cases(&b);
        run_lanes(&b, many < 1 ? 1 : many > LANES_MAX ? LANES_MAX : many, (uint64_t)(seed ? atoll(seed) : 1));
    }
    bench_close(&b, getenv("FAULTS_KEEP") != NULL);
    unsigned long done = atomic_load(&t.shared->done), violations = atomic_load(&t.shared->violations);
    size_t sites = 0;
    for (int w = 0; w < WHO_COUNT; w++) sites += t.sites[w];
    if (sites) printf("%zu call sites make %zu cases, %zu of them passed before\n", sites, t.count, t.passed_before);
    bool whole = t.count && violations == 0 && (!t.seconds || t.progress_fd >= 0) && atomic_load(&t.shared->next) >= t.count;
    if (whole) printf("all of them are passed\n");
    printf("%lu cases of failing calls%s, seed %s; the fault was met in %lu; in %lu nng took the daemon with it, and nothing was lost; "
           "%lld s\n",
           done, t.seconds ? "" : " (all)", seed ? seed : "1", atomic_load(&t.shared->hit), atomic_load(&t.shared->taken),
           (long long)(bench_now_ms() - t.begun_ms) / 1000);
    printf("%lu passed, %lu failed\n", done - (violations < done ? violations : done), violations);
    return violations != 0;
}
