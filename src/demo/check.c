/* demo/check.c: the verdict, from the journals alone.
 *
 *   1. each acknowledged record was read by both readers at the topic, partition and offset it was acknowledged for, unchanged
 *   2. each reader saw every partition from offset 0 without a gap, and nothing twice, in the order it was sent
 *   3. both readers saw the same log
 *   4. every line of the package manager's log is in the bus once, although its producer died */
#include "demo/demo.h"
#include "demo/source.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

typedef struct log_view {
    demo_entry *entries; /* sorted by topic, partition, offset */
    size_t count;
    size_t gaps, doubles, disorder;
} log_view;

static int by_place(const void *a, const void *b)
{
    const demo_entry *x = a, *y = b;
    if (x->topic != y->topic) return x->topic < y->topic ? -1 : 1;
    if (x->partition != y->partition) return x->partition < y->partition ? -1 : 1;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

static int by_latency(const void *a, const void *b)
{
    const demo_entry *x = a, *y = b;
    return (x->latency_ns > y->latency_ns) - (x->latency_ns < y->latency_ns);
}

static int by_seq(const void *a, const void *b)
{
    const demo_entry *x = a, *y = b;
    if (x->topic != y->topic) return x->topic < y->topic ? -1 : 1;
    return (x->seq > y->seq) - (x->seq < y->seq);
}

static const char *human(char out[24], int64_t ns)
{
    if (ns < 1000)
        snprintf(out, 24, "%" PRId64 " ns", ns);
    else if (ns < 1000000)
        snprintf(out, 24, "%.1f us", (double)ns / 1e3);
    else
        snprintf(out, 24, "%.1f ms", (double)ns / 1e6);
    return out;
}

static void latency_row(demo_entry *entries, size_t count, const char *name)
{
    static const double at[] = {0.5, 0.9, 0.99, 0.999, 1};
    printf("  %-22s", name);
    qsort(entries, count, sizeof *entries, by_latency);
    for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
        char text[24];
        size_t k = count ? (size_t)(at[i] * (double)(count - 1)) : 0;
        printf(" %11s", count ? human(text, entries[k].latency_ns) : "-");
    }
    printf("\n");
}

/* Continuity and order of what one reader saw; sorts its entries by place. */
static void examine(log_view *v)
{
    qsort(v->entries, v->count, sizeof *v->entries, by_place);
    for (size_t i = 0; i < v->count; i++) {
        const demo_entry *e = &v->entries[i], *before = i ? e - 1 : NULL;
        bool same = before && before->topic == e->topic && before->partition == e->partition;
        int64_t expected = same ? before->offset + 1 : 0;
        if (e->offset > expected) v->gaps++;
        if (e->offset < expected) v->doubles++;
        if (same && e->seq <= before->seq) v->disorder++;
    }
}

static size_t not_in_place(const log_view *v, const demo_entry *acks, size_t count)
{
    size_t bad = 0;
    for (size_t i = 0; i < count; i++) {
        const demo_entry *e = v->count ? bsearch(&acks[i], v->entries, v->count, sizeof *v->entries, by_place) : NULL;
        if (!e || e->hash != acks[i].hash || e->seq != acks[i].seq) {
            if (bad++ < 5)
                demo_fail("%s: acknowledged %s %" PRId32 "/%" PRId64 " was %s", "check", demo_topic_names[acks[i].topic],
                          acks[i].partition, acks[i].offset, e ? "another record" : "not read");
        }
    }
    return bad;
}

/* How many source events are there twice, and how many lines are missing; sorts the entries by seq. */
static void count_events(log_view *v, size_t lines, size_t *twice, size_t *missing)
{
    size_t once = 0;
    *twice = 0;
    qsort(v->entries, v->count, sizeof *v->entries, by_seq);
    for (size_t i = 0; i < v->count; i++) {
        const demo_entry *e = &v->entries[i];
        if (i && by_seq(e - 1, e) == 0)
            ++*twice;
        else if (e->topic == DEMO_PACKAGES)
            once++;
    }
    *missing = lines - once;
}

static bool line(const demo *d, bool good, const char *what)
{
    if (d->colour)
        printf("  %s%s\033[0m %s\n", good ? "\033[32m" : "\033[31m", good ? "ok  " : "FAIL", what);
    else
        printf("  %s %s\n", good ? "ok  " : "FAIL", what);
    return good;
}

bool demo_check(demo *d, uint64_t killed_after)
{
    log_view views[DEMO_READERS] = {0};
    size_t ack_count, twice, missing;
    char text[512];
    bool good = true;
    demo_entry *acks = demo_journal_load(d, "acks", &ack_count);
    for (int i = 0; i < DEMO_READERS; i++) {
        views[i].entries = demo_journal_load(d, demo_reader_names[i], &views[i].count);
        examine(&views[i]);
    }
    printf("\nCheck\n");
    snprintf(text, sizeof text, "%zu records acknowledged, %" PRIu64 " of them before the producer was killed", ack_count,
             killed_after);
    good &= line(d, ack_count > 0 && killed_after > 0 && killed_after < ack_count, text);
    for (int i = 0; i < DEMO_READERS; i++) {
        size_t bad = not_in_place(&views[i], acks, ack_count);
        snprintf(text, sizeof text, "%s reader: %zu of %zu acknowledged records read in their place, unchanged",
                 demo_reader_names[i], ack_count - bad, ack_count);
        good &= line(d, bad == 0 && ack_count > 0, text);
        snprintf(text, sizeof text, "%s reader: %zu records, %zu gaps, %zu read twice, %zu out of order", demo_reader_names[i],
                 views[i].count, views[i].gaps, views[i].doubles, views[i].disorder);
        good &= line(d, views[i].gaps + views[i].doubles + views[i].disorder == 0, text);
    }
    bool same = views[0].count == views[1].count;
    for (size_t i = 0; same && i < views[0].count; i++)
        same = by_place(&views[0].entries[i], &views[1].entries[i]) == 0 && views[0].entries[i].hash == views[1].entries[i].hash;
    good &= line(d, same, "both readers saw the same log");
    size_t lines = atomic_load(&d->shared->lines);
    count_events(&views[DEMO_SOCKET], lines, &twice, &missing);
    snprintf(text, sizeof text,
             "the package manager's log: %zu lines, %zu missing, %zu events twice (the producer found its place again)", lines,
             missing, twice);
    good &= line(d, missing == 0 && twice == 0, text);
    printf("\nLatency, from before the send to after the read (both readers asleep until a record comes)\n  %-22s %11s %11s %11s "
           "%11s %11s\n",
           "path", "p50", "p90", "p99", "p99.9", "max");
    for (int i = 0; i < DEMO_READERS; i++)
        latency_row(views[i].entries, views[i].count,
                    i == DEMO_SOCKET                               ? "socket"
                    : atomic_load(&d->shared->reader[i].fell_back) ? "direct (refused here)"
                                                                   : "direct");
    for (int i = 0; i < DEMO_READERS; i++) free(views[i].entries);
    free(acks);
    return good;
}
