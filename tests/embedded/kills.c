/* embedded/kills.c: the private daemon killed again and again, at any moment, while processes work with its folder.
 *
 * After a kill this process only looks: others must bring up another daemon. A quarter of the kills hit one that is still starting. */
#include "embedded/embedded.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WORKERS = 6 };

typedef struct run {
    em_place place;
    em_shared *shared;
    bw_bus *bus;
    uint64_t random;
    em_times listens, answers, earlies;
    int kills, early;
} run;

static pid_t await_listener(const run *r, pid_t not_this)
{
    for (int64_t until = em_now_ns() + 20000000000; em_now_ns() < until; em_sleep_ns(100000)) {
        pid_t pid = em_listener(&r->place);
        if (pid && pid != not_this) return pid;
    }
    em_die("20 s after the kill of %d nobody listens in %s", (int)not_this, r->place.dir);
}

/* One that has the folder but may not have come up. */
static void kill_early(run *r, pid_t before)
{
    em_sleep_ns((int64_t)(em_random(&r->random) % 12000) * 1000);
    pid_t pid = em_coordinator(&r->place);
    if (pid && pid != before && em_kill(&r->place, pid) == 0) r->early++;
}

/* Something took long: what the daemons said. */
static void show_log(const run *r)
{
    char command[400];
    snprintf(command, sizeof command, "tail -30 '%s/run/buswayd.log'", r->place.dir);
    if (system(command) != 0) puts("no log");
}

static void kill_once(run *r)
{
    em_sleep_ns((int64_t)(em_random(&r->random) % 40000) * 1000);
    pid_t pid = em_listener(&r->place);
    if (!pid) pid = await_listener(r, 0);
    int64_t at = em_now_ns();
    atomic_store(&r->shared->killed_ns, at);
    if (em_kill(&r->place, pid)) return;
    r->kills++;
    if (em_random(&r->random) % 4 == 0) {
        kill_early(r, pid);
        int64_t early_ns = em_now_ns();
        await_listener(r, pid);
        em_times_add(&r->earlies, em_now_ns() - early_ns);
        if (em_now_ns() - early_ns > 1000000000) show_log(r);
        return;
    }
    await_listener(r, pid);
    em_times_add(&r->listens, em_now_ns() - at);
    char *json = NULL;
    if (bw_status(r->bus, &json)) em_die("after a kill: %s", bw_error_message());
    bw_free(json);
    em_times_add(&r->answers, em_now_ns() - at);
}

static void await_start(const run *r)
{
    const em_shared *s = r->shared;
    for (int64_t until = em_now_ns() + 20000000000;; em_sleep_ns(1000000)) {
        if (atomic_load(&s->direct.acked) && atomic_load(&s->durable.acked) && atomic_load(&s->socket.acked) && atomic_load(&s->reader.acked) &&
            atomic_load(&s->commits.acked))
            return;
        if (em_now_ns() > until) em_die("not every worker had begun after 20 s");
    }
}

static bool judge(run *r)
{
    em_shared *s = r->shared;
    bool good = em_check_reports(s);
    bw_bus *bus = em_bus(r->place.url, BW_TRANSPORT_AUTO);
    good &= em_check_log(bus, "direct", &s->direct, "direct writer");
    good &= em_check_log(bus, "durable", &s->durable, "durable writer");
    good &= em_check_log(bus, "socket", &s->socket, "writer through the socket");
    good &= em_check_commit(bus, &s->commits);
    bw_bus_close(bus);
    em_times_print(&r->listens, "kill to another daemon's listening");
    em_times_print(&r->answers, "kill to its first answer");
    em_times_print(&r->earlies, "a starting one killed, to listening");
    em_print_gaps(&s->direct, "direct writer", true);
    em_print_gaps(&s->reader, "direct reader", true);
    em_print_gaps(&s->control, "control: no bus at all", false);
    em_print_gaps(&s->durable, "durable writer", false);
    em_print_gaps(&s->socket, "writer through the socket", false);
    em_print_gaps(&s->commits, "commits", false);
    return good;
}

int em_case_kills(int argc, char **argv)
{
    static run r;
    int kills = argc > 0 ? atoi(argv[0]) : 100;
    r.random = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    em_place_make(&r.place, "?idle-exit=2s");
    r.shared = mmap(NULL, sizeof *r.shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (r.shared == MAP_FAILED) em_die("no memory");
    static const em_work works[WORKERS] = {em_work_direct, em_work_durable, em_work_socket, em_work_reader, em_work_commits, em_work_control};
    pid_t pids[WORKERS];
    for (int i = 0; i < WORKERS; i++) pids[i] = em_start(works[i], &r.place, r.shared);
    r.bus = em_bus(r.place.url, BW_TRANSPORT_IPC);
    await_start(&r);
    bool good = true;
    while (good && r.kills + r.early < kills) {
        kill_once(&r);
        int status;
        for (int i = 0; i < WORKERS && good; i++)
            if (waitpid(pids[i], &status, WNOHANG) != 0) good = em_verdict(false, "worker %d ended before its time", i);
    }
    em_sleep_ns(100000000);
    atomic_store(&r.shared->stop, true);
    for (int i = 0; i < WORKERS; i++) {
        int status = 0;
        if (waitpid(pids[i], &status, 0) > 0) good &= status == 0 || em_verdict(false, "worker %d: status %d", i, status);
    }
    bw_bus_close(r.bus);
    printf("      %d daemons killed, %d of them before they served\n", r.kills + r.early, r.early);
    good &= judge(&r);
    em_place_remove(&r.place);
    em_times_free(&r.listens);
    em_times_free(&r.answers);
    return good ? 0 : 1;
}
