/* bench/peers/peer.h: what the C peers share: arguments, clock, records, the lines that peers.py reads.
 *
 * usage of every peer: PROGRAM ROLE WHERE BATCH RECORD_BYTES RECORDS WARM POINTS PARTITIONS
 *   write  sends WARM + RECORDS records, BATCH in one go
 *   read   prints "ready", receives them, touches both ends of each, prints {"rate":…,"points":[…]}: the clock runs from the
 * record after WARM; POINTS > 0 also gives the rate of each of so many equal parts pong   prints "ready", answers WARM + RECORDS
 * records of one each ping   sends one, waits for the answer, RECORDS times after WARM; prints {"percentiles":[[p,ns],…]} */
#ifndef PEER_H
#define PEER_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct peer {
    const char *role, *where;
    uint64_t batch, record_bytes, records, warm, points, partitions;
    uint64_t done, sum; /* records received; what was seen of them, so that looking is not optimised away */
    uint64_t start_ns, end_ns;
    uint64_t *sample; /* ends of the parts, or round trips */
    uint64_t samples;
} peer;

static inline uint64_t peer_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline void peer_die(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

static inline void peer_init(peer *p, int argc, char **argv)
{
    if (argc != 9) peer_die("usage", "PROGRAM ROLE WHERE BATCH RECORD_BYTES RECORDS WARM POINTS PARTITIONS");
    *p = (peer){.role = argv[1], .where = argv[2]};
    uint64_t *to[] = {&p->batch, &p->record_bytes, &p->records, &p->warm, &p->points, &p->partitions};
    for (int i = 0; i < 6; i++) *to[i] = strtoull(argv[3 + i], NULL, 10);
    p->sample = calloc(p->records + p->points + 1, sizeof *p->sample);
    if (!p->sample || !p->batch) peer_die("start", "out of memory, or a batch of 0");
}

static inline int peer_is(const peer *p, const char *role) { return strcmp(p->role, role) == 0; }

static inline void peer_ready(void)
{
    puts("ready");
    fflush(stdout);
}

/* `count` records of record_bytes each that do not compress. */
static inline uint8_t *peer_records(const peer *p, uint64_t count)
{
    uint8_t *r = malloc(count * p->record_bytes);
    uint32_t x = 1;
    if (!r) peer_die("records", "out of memory");
    for (uint64_t i = 0; i < count * p->record_bytes; i++) {
        x = x * 1664525u + 1013904223u;
        r[i] = (uint8_t)(x >> 24);
    }
    return r;
}

/* One record came. */
static inline void peer_take(peer *p, const uint8_t *value, size_t len)
{
    if (len) p->sum += value[0] + value[len - 1];
    p->done++;
    if (p->done == p->warm) p->start_ns = peer_now_ns();
    if (p->points && p->done > p->warm && (p->done - p->warm) % (p->records / p->points) == 0)
        p->sample[p->samples++] = peer_now_ns();
    if (p->done == p->warm + p->records) p->end_ns = peer_now_ns();
}

/* A message of whole records came. */
static inline void peer_take_all(peer *p, const uint8_t *message, size_t len)
{
    for (size_t at = 0; at + p->record_bytes <= len; at += p->record_bytes) peer_take(p, message + at, p->record_bytes);
}

static inline int peer_wants(const peer *p) { return p->done < p->warm + p->records; }

static inline void peer_report_rate(const peer *p)
{
    uint64_t before = p->start_ns;
    printf("{\"rate\":%.1f,\"sum\":%llu,\"points\":[", (double)p->records * 1e9 / (double)(p->end_ns - p->start_ns),
           (unsigned long long)p->sum);
    for (uint64_t i = 0; i < p->samples; i++) {
        printf("%s%.1f", i ? "," : "", (double)(p->records / p->points) * 1e9 / (double)(p->sample[i] - before));
        before = p->sample[i];
    }
    puts("]}");
    fflush(stdout);
}

static inline int peer_by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static inline void peer_report_times(const peer *p)
{
    static const double at[] = {1, 5, 10, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 99.99};
    qsort(p->sample, p->samples, sizeof *p->sample, peer_by_value);
    printf("{\"percentiles\":[");
    for (size_t i = 0; i < sizeof at / sizeof at[0]; i++)
        printf("%s[%g,%llu]", i ? "," : "", at[i], (unsigned long long)p->sample[(uint64_t)((double)p->samples * at[i] / 100)]);
    puts("]}");
    fflush(stdout);
}

/* The loop of ping: `turn` sends one record and comes back with the answer. */
static inline void peer_ping(peer *p, void (*turn)(peer *p, void *of), void *of)
{
    for (uint64_t i = 0; i < p->warm + p->records; i++) {
        uint64_t before = peer_now_ns();
        turn(p, of);
        if (i >= p->warm) p->sample[p->samples++] = peer_now_ns() - before;
    }
    peer_report_times(p);
}

#endif
