/* bench/single.c: one run of one case, described on the command line, one line of JSON out: what `make bench-peers` is made of.
 *
 * SPEC is a list of key=value between commas: of=limit|direct|ipc, kind=e2e|rtt_spin|rtt_sleep|commit, way=batch|reserve|async,
 * record_bytes, batch, partitions, bytes (of records that are timed), warm (bytes before that), round_trips, points (e2e: the rate of
 * each of so many equal parts), keep=1 (nothing is deleted behind). */
#include "bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool number_into(const char *key, uint64_t value, bench_single *s)
{
    const struct {
        const char *name;
        uint32_t *to;
    } small[] = {{"record_bytes", &s->c.record_bytes},
                 {"batch", &s->c.batch},
                 {"partitions", &s->c.partitions},
                 {"round_trips", &s->c.round_trips},
                 {"points", &s->points}};
    for (size_t i = 0; i < sizeof small / sizeof small[0]; i++) {
        if (strcmp(key, small[i].name) != 0) continue;
        *small[i].to = (uint32_t)value;
        return value <= UINT32_MAX;
    }
    if (strcmp(key, "bytes") == 0) return s->c.bytes = value, true;
    if (strcmp(key, "warm") == 0) return s->c.warm_bytes = value, true;
    if (strcmp(key, "keep") == 0) return s->keep = value != 0, true;
    return false;
}

static bool one_pair(const char *key, const char *value, bench_single *s)
{
    if (strcmp(key, "of") == 0) {
        s->limit = strcmp(value, "limit") == 0;
        s->c.transport = strcmp(value, "ipc") == 0 ? "ipc" : "direct";
        return s->limit || strcmp(value, s->c.transport) == 0;
    }
    if (strcmp(key, "way") == 0) {
        static const char *const ways[] = {[BENCH_BATCH] = "batch", [BENCH_RESERVE] = "reserve", [BENCH_ASYNC] = "async"};
        for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++)
            if (strcmp(value, ways[i]) == 0) return s->c.way = i, true;
        return false;
    }
    if (strcmp(key, "kind") == 0) {
        s->c.kind = strcmp(value, "rtt_spin") == 0    ? BENCH_RTT_SPIN
                    : strcmp(value, "rtt_sleep") == 0 ? BENCH_RTT_SLEEP
                    : strcmp(value, "commit") == 0    ? BENCH_COMMIT
                                                      : BENCH_E2E;
        return s->c.kind != BENCH_E2E || strcmp(value, "e2e") == 0;
    }
    char *end;
    uint64_t n = strtoull(value, &end, 10);
    return *value && !*end && number_into(key, n, s);
}

bool bench_single_parse(const char *spec, bench_single *s)
{
    char copy[512], *save = NULL;
    *s = (bench_single){.c = {.kind = BENCH_E2E,
                              .transport = "direct",
                              .record_bytes = 100,
                              .batch = 100,
                              .partitions = 1,
                              .readers = 1,
                              .writers = 1,
                              .beside = BENCH_BESIDE_LIMIT}};
    if (snprintf(copy, sizeof copy, "%s", spec) >= (int)sizeof copy) return false;
    for (char *pair = strtok_r(copy, ",", &save); pair; pair = strtok_r(NULL, ",", &save)) {
        char *value = strchr(pair, '=');
        if (!value) return false;
        *value++ = 0;
        if (!one_pair(pair, value, s)) return false;
    }
    if (s->c.kind != BENCH_E2E) s->c.partitions = 2, s->c.batch = 1;
    /* Bytes were of records; a case's are of the log. */
    uint32_t len = 0;
    uint8_t *batch = s->c.batch && s->c.batch <= 100000 && s->c.record_bytes <= 1u << 20
                         ? bench_batch_build(s->c.batch, s->c.record_bytes, &len)
                         : NULL;
    if (!batch) return false;
    free(batch);
    uint64_t one = (uint64_t)s->c.batch * s->c.record_bytes;
    s->c.bytes = s->c.bytes / one * len;
    s->c.warm_bytes = (s->c.warm_bytes / one + 1) * len;
    return s->c.partitions >= 1 && s->c.partitions <= BENCH_PARTITIONS_MAX && s->c.round_trips + s->points < BENCH_SAMPLES_MAX &&
           (s->c.kind == BENCH_E2E ? s->c.bytes : s->c.round_trips) > 0;
}

void bench_single_report(const bench_single *s, const bench_figures *f, const bench_shared *shared)
{
    static const double at[] = {1, 5, 10, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 99.99};
    const uint64_t *sample = shared->sample_ns;
    if (s->c.kind == BENCH_E2E) {
        printf("{\"rate\":%.1f,\"points\":[", f->rate);
        for (uint32_t i = 1; i < f->samples; i++) /* the first ends where the clock starts */
            printf("%s%.1f", i > 1 ? "," : "", (double)f->samples_every * 1e9 / (double)(sample[i] - sample[i - 1]));
    } else {
        printf("{\"percentiles\":[");
        for (size_t i = 0; i < sizeof at / sizeof at[0]; i++)
            printf("%s[%g,%llu]", i ? "," : "", at[i], (unsigned long long)sample[(uint64_t)((double)f->samples * at[i] / 100)]);
    }
    puts("]}");
}
