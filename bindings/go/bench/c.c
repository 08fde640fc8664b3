/* c.c: see c.h. One producer or consumer each, opened outside of the time that is measured. */
#include "c.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

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

/* A batch's records, copied: their bytes in one piece of memory, which the next batch's replaces. */
static uint64_t copy_batch(bw_batch *b, bw_record_view **records, int32_t *capacity, uint8_t **bytes, int64_t *count)
{
    int32_t n = 0, got;
    size_t size = 0, at = 0;
    while ((got = bw_batch_records(b, *records + n, *capacity - n)) > 0) {
        n += got;
        if (n == *capacity) *records = realloc(*records, (size_t)(*capacity *= 2) * sizeof **records);
    }
    bw_record_view *r = *records;
    for (int32_t i = 0; i < n; i++) size += r[i].key_len + r[i].value_len + r[i].headers_len;
    free(*bytes);
    uint8_t *to = *bytes = malloc(size + 1);
    uint64_t own = 0;
    for (int32_t i = 0; i < n; i++) {
        const uint8_t **part[] = {&r[i].key, &r[i].value, &r[i].headers_raw};
        size_t len[] = {r[i].key_len, r[i].value_len, r[i].headers_len};
        for (int k = 0; k < 3; k++) {
            if (!*part[k]) continue;
            *part[k] = memcpy(to + at, *part[k], len[k]);
            at += len[k];
        }
    }
    for (int32_t i = 0; i < n; i++) own += r[i].value[0] + r[i].value[r[i].value_len - 1];
    *count += n;
    return own;
}

double bench_consume(const char *url, const char *topic, int64_t count, int copies)
{
    bw_bus *bus = NULL;
    bw_consumer *c = NULL;
    if (bw_bus_open(url, NULL, &bus)) return failed("open");
    if (bw_consumer_open(bus, NULL, &c)) return failed("consumer");
    if (bw_consumer_assign(c, topic, 0, BW_OFFSET_BEGINNING)) return failed("assign");
    int32_t capacity = 512;
    bw_record_view *records = malloc((size_t)capacity * sizeof *records);
    uint8_t *bytes = NULL;
    int64_t begun = now_ns(), read = 0;
    volatile uint64_t sum = 0;
    uint64_t own = 0;
    while (read < count) {
        bw_batch b;
        bw_record_view r;
        if (bw_consumer_poll(c, 10000, &b)) return failed("poll");
        if (copies) {
            own += copy_batch(&b, &records, &capacity, &bytes, &read);
            continue;
        }
        while (bw_batch_next(&b, &r) == 1) {
            own += r.value[0] + r.value[r.value_len - 1];
            read++;
        }
    }
    sum = own;
    (void)sum;
    double took = (double)(now_ns() - begun) / 1e9;
    free(records);
    free(bytes);
    bw_consumer_close(c);
    bw_bus_close(bus);
    return took;
}

/* ---- round trips ---- */

static void pause_for(int32_t us) /* busy: the other side is asleep meanwhile, and this processor has work */
{
    for (int64_t from = now_ns(); us && now_ns() - from < (int64_t)us * 1000;) {}
}

static void ready(void)
{
    fputs("ready\n", stdout);
    fflush(stdout);
}

static long futex(_Atomic uint32_t *word, int what, uint32_t value) { return syscall(SYS_futex, word, what, value, NULL, NULL, 0); }

static void await_word(_Atomic uint32_t *word, uint32_t value)
{
    for (uint32_t now; (now = atomic_load(word)) != value;) futex(word, FUTEX_WAIT, now);
}

static void set_word(_Atomic uint32_t *word, uint32_t value)
{
    atomic_store(word, value);
    futex(word, FUTEX_WAKE, 1);
}

int bench_futex(const char *path, int echo, int32_t count, int32_t pause_us, int64_t *out)
{
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    if (fd < 0 || ftruncate(fd, 4096)) return (int)failed("futex file");
    _Atomic uint32_t *words = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), *there = words, *back = words + 64;
    close(fd);
    if (words == MAP_FAILED) return (int)failed("futex map");
    if (echo) ready();
    for (int32_t i = 1; i <= count; i++) {
        if (echo) {
            await_word(there, (uint32_t)i);
            set_word(back, (uint32_t)i);
            continue;
        }
        pause_for(pause_us);
        int64_t begun = now_ns();
        set_word(there, (uint32_t)i);
        await_word(back, (uint32_t)i);
        out[i - 1] = now_ns() - begun;
    }
    munmap(words, 4096);
    return 0;
}

typedef struct side {
    bw_bus *bus;
    bw_producer *p;
    bw_consumer *c;
} side;

static bw_err one(side *s)
{
    bw_batch b;
    bw_record_view r;
    bw_err e = bw_consumer_poll(s->c, 10000, &b);
    return e ? e : bw_batch_next(&b, &r) == 1 ? BW_OK : BW_ERR_CORRUPT;
}

void *bench_side_open(const char *url, const char *from, const char *to)
{
    bw_record r = {.value = "warm", .value_len = 4, .timestamp_ms = BW_NO_TIMESTAMP};
    side *s = calloc(1, sizeof *s);
    bw_err e = bw_bus_open(url, NULL, &s->bus);
    if (!e) e = bw_producer_open(s->bus, NULL, &s->p);
    if (!e) e = bw_consumer_open(s->bus, NULL, &s->c);
    if (!e) e = bw_producer_send_sync(s->p, to, 0, &r, 10000, NULL);
    if (!e) e = bw_consumer_assign(s->c, from, 0, BW_OFFSET_END);
    if (e) failed("open");
    return e ? NULL : s;
}

int bench_side_run(void *opened, const char *to, int echo, int32_t count, int32_t pause_us, int64_t *out)
{
    side *s = opened;
    bw_record r = {.value = "ping", .value_len = 4, .timestamp_ms = BW_NO_TIMESTAMP};
    if (echo) ready();
    else if (one(s)) return (int)failed("the other's warm record");
    for (int32_t i = 0; i < count; i++) {
        if (echo) {
            if (one(s) || bw_producer_send_sync(s->p, to, 0, &r, 10000, NULL)) return (int)failed("echo");
            continue;
        }
        pause_for(pause_us);
        int64_t begun = now_ns();
        if (bw_producer_send_sync(s->p, to, 0, &r, 10000, NULL) || one(s)) return (int)failed("ping");
        out[i] = now_ns() - begun;
    }
    bw_consumer_close(s->c);
    bw_producer_close(s->p, 1000);
    bw_bus_close(s->bus);
    free(s);
    return 0;
}
