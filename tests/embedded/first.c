/* embedded/first.c: how long from the start of a process to its first record, in a folder that is not there yet. */
#include "embedded/embedded.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* In the program that was started anew: opens, sends, and says when. */
static int send_first(const char *url, const char *began)
{
    bw_bus *bus = em_bus(url, BW_TRANSPORT_AUTO);
    int64_t opened = em_now_ns();
    bw_producer *p = NULL;
    bw_record r = {.value = "x", .value_len = 1, .timestamp_ms = BW_NO_TIMESTAMP};
    if (bw_producer_open(bus, NULL, &p) || bw_producer_send_sync(p, "t", 0, &r, 5000, NULL)) em_die("%s", bw_error_message());
    int64_t sent = em_now_ns(), from = strtoll(began, NULL, 10);
    printf("%lld %lld\n", (long long)(opened - from), (long long)(sent - from));
    bw_producer_close(p, 1000);
    bw_bus_close(bus);
    return 0;
}

static void one_time(const em_place *p, em_times *opened, em_times *sent)
{
    int ends[2];
    if (pipe(ends)) em_die("pipe: %s", strerror(errno));
    fflush(stdout);
    char began[32];
    snprintf(began, sizeof began, "%lld", (long long)em_now_ns());
    pid_t pid = vfork();
    if (pid == 0) {
        dup2(ends[1], 1);
        execl("/proc/self/exe", "embedded", "first-child", p->url, began, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    char text[128] = "";
    ssize_t n = read(ends[0], text, sizeof text - 1);
    close(ends[0]);
    int status;
    waitpid(pid, &status, 0);
    long long a, b;
    if (n <= 0 || status || sscanf(text, "%lld %lld", &a, &b) != 2) em_die("the process that sends the first record: %s", text);
    em_times_add(opened, a);
    em_times_add(sent, b);
}

void em_first_times(int times, em_times *opened, em_times *sent)
{
    for (int i = 0; i < times; i++) {
        em_place p;
        em_place_make(&p, "?idle-exit=100ms");
        if (rmdir(p.dir)) em_die("rmdir %s", p.dir); /* from nothing */
        one_time(&p, opened, sent);
        em_place_remove(&p);
    }
    em_times_print(opened, "process start to an open bus");
    em_times_print(sent, "process start to the first record");
    printf("      fastest %.1f ms\n", (double)em_times_part(sent, 0) / 1e6);
}

int em_case_first(int argc, char **argv)
{
    if (argc == 2) return send_first(argv[0], argv[1]);
    int times = argc > 0 ? atoi(argv[0]) : 20;
    em_times opened = {0}, sent = {0};
    em_first_times(times, &opened, &sent);
    bool good = em_verdict(em_times_part(&sent, 0.5) < INT64_C(2000000000), "a first record from nothing, %d times", times);
    em_times_free(&opened);
    em_times_free(&sent);
    return good ? 0 : 1;
}
