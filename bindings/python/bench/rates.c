/* rates.c: what C does itself, beside Python: the same work on the same kind of bus, one case a run.
 *
 *     rates URL TOPIC CASE COUNT      prints operations a second (round trips: µs)
 *
 * Cases: send_many, send (100 B); view, gather (reads the topic from its beginning); echo (answers pings until it is killed), ping. */
#include <busway/busway.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void must(bw_err e)
{
    if (!e) return;
    fprintf(stderr, "rates: %s\n", bw_error_message());
    exit(1);
}

static double produce(bw_bus *bus, const char *topic, bool many, long count)
{
    enum { CHUNK = 8192 };
    static bw_record records[CHUNK];
    char value[100];
    bw_producer *p;
    memset(value, 'x', sizeof value);
    for (int i = 0; i < CHUNK; i++) records[i] = (bw_record){.value = value, .value_len = sizeof value, .timestamp_ms = BW_NO_TIMESTAMP};
    must(bw_producer_open(bus, NULL, &p));
    must(bw_producer_send_sync(p, topic, 0, records, 1000, NULL));
    double begun = now();
    for (long i = 0; i < count;) {
        long n = many ? count - i < CHUNK ? count - i : CHUNK : 1;
        if (many) must(bw_producer_send_many(p, topic, 0, records, (size_t)n, -1, NULL));
        else must(bw_producer_send_sync(p, topic, 0, records, 1000, NULL));
        i += n;
    }
    double took = now() - begun;
    must(bw_producer_close(p, 1000));
    return (double)count / took;
}

static double consume(bw_bus *bus, const char *topic, bool gather, long count)
{
    bw_consumer *c;
    bw_batch batch;
    bw_record_view r;
    enum { ROW = 1024, ROWS = 4096 };
    static char rows[ROWS][ROW];
    long n = 0;
    uint64_t sum = 0;
    must(bw_consumer_open(bus, NULL, &c));
    must(bw_consumer_assign(c, topic, 0, BW_OFFSET_BEGINNING));
    double begun = now();
    while (n < count) {
        must(bw_consumer_poll(c, 1000, &batch));
        while (bw_batch_next(&batch, &r) == 1) {
            if (gather) memcpy(rows[n % ROWS], r.value, r.value_len < ROW ? r.value_len : ROW);
            else sum += r.value_len;
            n++;
        }
    }
    double took = now() - begun;
    bw_consumer_close(c);
    if (!gather && sum == 0) exit(1);
    return (double)n / took;
}

/* Partition 0: pings; 1: answers. */
static double ping(bw_bus *bus, const char *topic, bool echo, long count)
{
    bw_producer *p;
    bw_consumer *c;
    bw_batch batch;
    bw_record one = {.value = "ping", .value_len = 4, .timestamp_ms = BW_NO_TIMESTAMP};
    must(bw_producer_open(bus, NULL, &p));
    must(bw_consumer_open(bus, NULL, &c));
    must(bw_consumer_assign(c, topic, echo ? 0 : 1, BW_OFFSET_END));
    must(bw_producer_send_sync(p, topic, 2, &one, 1000, NULL));
    bw_err e = bw_consumer_poll(c, 0, &batch);
    if (echo) {
        printf("ready\n");
        fflush(stdout);
    }
    double begun = now();
    for (long i = 0; echo || i < count; i++) {
        if (!echo) must(bw_producer_send_sync(p, topic, 0, &one, 1000, NULL));
        while ((e = bw_consumer_poll(c, 1000, &batch)) == BW_ERR_TIMED_OUT) {}
        must(e);
        if (echo) must(bw_producer_send_sync(p, topic, 1, &one, 1000, NULL));
    }
    return (now() - begun) / (double)count * 1e6;
}

int main(int argc, char **argv)
{
    bw_bus *bus;
    if (argc != 5) return fprintf(stderr, "rates URL TOPIC CASE COUNT\n"), 2;
    const char *topic = argv[2], *what = argv[3];
    long count = atol(argv[4]);
    double rate = 0;
    must(bw_bus_open(argv[1], NULL, &bus));
    if (strncmp(what, "send", 4) == 0) rate = produce(bus, topic, strcmp(what, "send_many") == 0, count);
    else if (strcmp(what, "view") == 0 || strcmp(what, "gather") == 0) rate = consume(bus, topic, *what == 'g', count);
    else rate = ping(bus, topic, strcmp(what, "echo") == 0, count);
    printf("%.6g\n", rate);
    return 0;
}
