/* c.c: see c.h. One producer or consumer each, opened outside of the time that is measured. */
#include "c.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

char bench_why[1024];

static double failed(const char *what)
{
    snprintf(bench_why, sizeof bench_why, "%s: %s", what, bw_error_message());
    return -1;
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

double bench_produce(const char *url, const char *topic, int64_t count, int32_t batch, int32_t value_len, int many)
{
    bw_bus *bus = NULL;
    bw_producer *p = NULL;
    if (bw_bus_open(url, NULL, &bus)) return failed("open");
    if (bw_producer_open(bus, NULL, &p)) return failed("producer");
    char *values = malloc((size_t)batch * (size_t)value_len);
    bw_record *records = calloc((size_t)batch, sizeof *records);
    for (int32_t i = 0; i < batch; i++) {
        char *v = values + (size_t)i * (size_t)value_len;
        memset(v, 'a' + i % 26, (size_t)value_len);
        records[i] = (bw_record){.value = v, .value_len = (size_t)value_len, .timestamp_ms = BW_NO_TIMESTAMP};
    }
    int64_t begun = now_ns();
    bw_err e = BW_OK;
    for (int64_t sent = 0; sent < count && !e; sent += batch) {
        if (many) e = bw_producer_send_many(p, topic, 0, records, (size_t)batch, 30000, NULL);
        else if (batch == 1) e = bw_producer_send_sync(p, topic, 0, records, 30000, NULL);
        else e = bw_producer_send_batch(p, topic, 0, records, (size_t)batch, 30000, NULL);
    }
    double took = e ? failed("send") : (double)(now_ns() - begun) / 1e9;
    bw_producer_close(p, 30000);
    bw_bus_close(bus);
    free(records);
    free(values);
    return took;
}

double bench_consume(const char *url, const char *topic, int64_t count)
{
    bw_bus *bus = NULL;
    bw_consumer *c = NULL;
    if (bw_bus_open(url, NULL, &bus)) return failed("open");
    if (bw_consumer_open(bus, NULL, &c)) return failed("consumer");
    if (bw_consumer_assign(c, topic, 0, BW_OFFSET_BEGINNING)) return failed("assign");
    int64_t begun = now_ns(), read = 0;
    volatile uint64_t sum = 0;
    uint64_t own = 0;
    while (read < count) {
        bw_batch b;
        bw_record_view r;
        if (bw_consumer_poll(c, 10000, &b)) return failed("poll");
        while (bw_batch_next(&b, &r) == 1) {
            own += r.value[0] + r.value[r.value_len - 1];
            read++;
        }
    }
    sum = own;
    (void)sum;
    double took = (double)(now_ns() - begun) / 1e9;
    bw_consumer_close(c);
    bw_bus_close(bus);
    return took;
}

/* ---- echo ---- */

typedef struct side {
    bw_bus *bus;
    bw_producer *p;
    bw_consumer *c;
} side;

static bw_err side_open(side *s, const char *url, const char *from, const char *to)
{
    bw_record r = {.value = "warm", .value_len = 4, .timestamp_ms = BW_NO_TIMESTAMP};
    bw_err e = bw_bus_open(url, NULL, &s->bus);
    if (!e) e = bw_producer_open(s->bus, NULL, &s->p);
    if (!e) e = bw_consumer_open(s->bus, NULL, &s->c);
    if (!e) e = bw_producer_send_sync(s->p, to, 0, &r, 10000, NULL);
    if (!e) e = bw_consumer_assign(s->c, from, 0, BW_OFFSET_END);
    return e;
}

static void side_close(side *s)
{
    bw_consumer_close(s->c);
    bw_producer_close(s->p, 1000);
    bw_bus_close(s->bus);
}

static bw_err one(side *s)
{
    bw_batch b;
    bw_record_view r;
    bw_err e = bw_consumer_poll(s->c, 10000, &b);
    return e ? e : bw_batch_next(&b, &r) == 1 ? BW_OK : BW_ERR_CORRUPT;
}

typedef struct echoing { side s; const char *to; int32_t count; } echoing;

static void *answer(void *opaque)
{
    echoing *e = opaque;
    bw_record r = {.value = "echo", .value_len = 4, .timestamp_ms = BW_NO_TIMESTAMP};
    for (int32_t i = 0; i < e->count; i++)
        if (one(&e->s) || bw_producer_send_sync(e->s.p, e->to, 0, &r, 10000, NULL)) break;
    return NULL;
}

double bench_echo(const char *url, const char *there, const char *back, int32_t count, int32_t pause_us, int64_t *out)
{
    side mine = {0};
    echoing other = {.to = back, .count = count};
    if (side_open(&mine, url, back, there) || side_open(&other.s, url, there, back)) return failed("open");
    bw_record r = {.value = "ping", .value_len = 4, .timestamp_ms = BW_NO_TIMESTAMP};
    pthread_t thread;
    int64_t all = now_ns();
    one(&mine); /* the other's warm record */
    pthread_create(&thread, NULL, answer, &other);
    for (int32_t i = 0; i < count; i++) {
        for (int64_t from = now_ns(); now_ns() - from < (int64_t)pause_us * 1000;) {} /* busy: the other side is asleep meanwhile */
        int64_t begun = now_ns();
        if (bw_producer_send_sync(mine.p, there, 0, &r, 10000, NULL) || one(&mine)) return failed("echo");
        out[i] = now_ns() - begun;
    }
    pthread_join(thread, NULL);
    side_close(&mine);
    side_close(&other.s);
    return (double)(now_ns() - all) / 1e9;
}
