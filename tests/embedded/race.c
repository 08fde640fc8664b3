/* embedded/race.c: many processes open one folder, that is not there yet, at the same moment: one coordinator, and all are served. */
#include "embedded/embedded.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PROCESSES_MAX = 500 };

typedef struct gate {
    _Atomic bool open;
    _Atomic int ready, leave;
    _Atomic int pids[PROCESSES_MAX];
    _Atomic int64_t took_ns[PROCESSES_MAX];
    char why[PROCESSES_MAX][200];
} gate;

static pid_t server_of(bw_bus *bus)
{
    char *json = NULL;
    if (bw_status(bus, &json)) return 0;
    const char *at = strstr(json, "\"pid\":");
    pid_t pid = at ? (pid_t)atol(at + 6) : 0;
    bw_free(json);
    return pid;
}

static void runner(const em_place *p, gate *g, int number)
{
    bw_bus *bus = NULL;
    bw_producer *producer = NULL;
    bw_record r = {.value = "x", .value_len = 1, .timestamp_ms = BW_NO_TIMESTAMP};
    bw_bus_options o = BW_BUS_OPTIONS_INIT;
    o.connect_timeout_ms = 30000;
    atomic_fetch_add(&g->ready, 1);
    while (!atomic_load(&g->open)) em_sleep_ns(100000);
    int64_t at = em_now_ns();
    bw_err e = bw_bus_open(p->url, &o, &bus);
    if (!e) e = bw_producer_open(bus, NULL, &producer);
    if (!e) e = bw_producer_send_sync(producer, "t", 0, &r, 30000, NULL);
    atomic_store(&g->took_ns[number], em_now_ns() - at);
    if (e) snprintf(g->why[number], sizeof g->why[number], "%s: %.150s", bw_err_name(e), bw_error_message());
    else atomic_store(&g->pids[number], server_of(bus));
    atomic_fetch_add(&g->leave, 1);
    while (atomic_load(&g->open)) em_sleep_ns(1000000); /* all stay until all were served */
    if (producer) bw_producer_close(producer, 1000);
    if (bus) bw_bus_close(bus);
}

int em_case_race(int argc, char **argv)
{
    int count = argc > 0 ? atoi(argv[0]) : 50, wrong = 0, first = 0;
    if (count < 1 || count > PROCESSES_MAX) em_die("1 to %d processes", PROCESSES_MAX);
    gate *g = mmap(NULL, sizeof *g, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    em_place p;
    em_times took = {0};
    em_place_make(&p, "?idle-exit=300ms");
    if (g == MAP_FAILED || rmdir(p.dir)) em_die("no memory or folder");
    fflush(stdout);
    for (int i = 0; i < count; i++) {
        pid_t pid = fork();
        if (pid < 0) em_die("fork: %s", strerror(errno));
        if (pid == 0) {
            runner(&p, g, i);
            _exit(0);
        }
    }
    while (atomic_load(&g->ready) < count) em_sleep_ns(1000000);
    atomic_store(&g->open, true);
    while (atomic_load(&g->leave) < count) em_sleep_ns(1000000);
    for (int i = 0; i < count; i++) {
        int pid = atomic_load(&g->pids[i]);
        if (!first) first = pid;
        if (pid && pid == first) em_times_add(&took, atomic_load(&g->took_ns[i]));
        else if (wrong++ < 5) printf("      process %d: server %d, not %d; %s\n", i, pid, first, g->why[i]);
    }
    atomic_store(&g->open, false);
    while (wait(NULL) > 0) {}
    em_times_print(&took, "open and send, all at once");
    bool good = em_verdict(wrong == 0, "%d processes on a new folder: one coordinator, all served", count);
    bool gone = false;
    for (int i = 0; i < 500 && !gone; i++, em_sleep_ns(10000000)) gone = em_coordinator(&p) == 0;
    good &= em_verdict(gone, "it went when the last of them had gone");
    bw_bus *bus = em_bus(p.url, BW_TRANSPORT_AUTO);
    bw_offset_range range = {0};
    bw_err e = bw_offsets_range(bus, "t", 0, &range);
    good &= em_verdict(e == BW_OK && range.end == count, "%lld records of %d are there", (long long)range.end, count);
    bw_bus_close(bus);
    em_place_remove(&p);
    em_times_free(&took);
    return good ? 0 : 1;
}
