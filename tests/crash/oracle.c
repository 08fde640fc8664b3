/* tests/crash/oracle.c: two tables that must agree: for each partition, offset -> (producer, sequence), as readers were given it;
 * for each producer, sequence -> what became of it. An entry, once set, never changes. */
#include "crash/oracle.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VIOLATIONS_SHOWN = 20 };

typedef enum fate { NOT_SENT = 0, TRIED, ACKED, REFUSED } fate;

typedef struct entry {
    uint8_t fate;
    uint8_t partition;
    bool read;
    bool complete;   /* given by the complete reading */
    int64_t acked;   /* offset told to the producer */
    int64_t offset;  /* offset at which readers saw it */
} entry;

typedef struct producer {
    entry *entries;
    size_t count, cap;
} producer;

typedef struct place { uint32_t producer, sequence; } place;

struct oracle {
    producer *producers;
    size_t producer_count;
    place *log[CRASH_PARTITIONS];
    int64_t log_len[CRASH_PARTITIONS], log_cap[CRASH_PARTITIONS];
    uint8_t topics[CRASH_TOPICS_MAX]; /* the last crash_kind told of it */
    bool topic_seen[CRASH_TOPICS_MAX];
    bool completing;
    oracle_counts counts;
};

static void *grown(void *p, size_t old, size_t new, size_t size)
{
    char *q = realloc(p, new * size);
    if (!q) abort();
    memset(q + old * size, 0, (new - old) * size);
    return q;
}

oracle *oracle_new(void)
{
    oracle *o = calloc(1, sizeof *o);
    if (!o) abort();
    return o;
}

void oracle_free(oracle *o)
{
    for (size_t i = 0; i < o->producer_count; i++) free(o->producers[i].entries);
    free(o->producers);
    for (int p = 0; p < CRASH_PARTITIONS; p++) free(o->log[p]);
    free(o);
}

void oracle_violation(oracle *o, const char *format, ...)
{
    if (o->counts.violations++ >= VIOLATIONS_SHOWN) return;
    va_list args;
    va_start(args, format);
    printf("VIOLATION: ");
    vprintf(format, args);
    printf("\n");
    va_end(args);
    fflush(stdout);
}

static entry *entry_at(oracle *o, uint32_t number, uint32_t sequence)
{
    if (number >= o->producer_count) {
        size_t n = (size_t)number + 64;
        o->producers = grown(o->producers, o->producer_count, n, sizeof *o->producers);
        o->producer_count = n;
    }
    producer *p = &o->producers[number];
    if (sequence >= p->cap) {
        size_t n = p->cap ? 2 * p->cap : 256;
        while (n <= sequence) n *= 2;
        p->entries = grown(p->entries, p->cap, n, sizeof *p->entries);
        p->cap = n;
    }
    if (sequence >= p->count) p->count = (size_t)sequence + 1;
    return &p->entries[sequence];
}

static void take_try(oracle *o, const crash_message *m)
{
    for (uint32_t i = 0; i < m->count; i++) {
        entry *e = entry_at(o, m->producer, m->sequence + i);
        if (e->fate != NOT_SENT) oracle_violation(o, "producer %u tries sequence %u twice", m->producer, m->sequence + i);
        if (e->read && e->partition != m->partition)
            oracle_violation(o, "producer %u sequence %u went to partition %d, it is in %d", m->producer, m->sequence + i, m->partition,
                             e->partition);
        e->fate = TRIED;
        e->partition = m->partition;
        o->counts.tried++;
    }
}

static void take_ack(oracle *o, const crash_message *m)
{
    for (uint32_t i = 0; i < m->count; i++) {
        entry *e = entry_at(o, m->producer, m->sequence + i);
        int64_t offset = m->offset + i;
        if (e->fate != TRIED) oracle_violation(o, "producer %u sequence %u acknowledged, its state was %d", m->producer, m->sequence + i, e->fate);
        e->fate = ACKED;
        e->acked = offset;
        o->counts.acked++;
        if (e->read && e->offset != offset)
            oracle_violation(o, "producer %u sequence %u acknowledged at %d/%lld, read at %lld", m->producer, m->sequence + i,
                             m->partition, (long long)offset, (long long)e->offset);
    }
}

static void take_refusal(oracle *o, const crash_message *m)
{
    for (uint32_t i = 0; i < m->count; i++) {
        entry *e = entry_at(o, m->producer, m->sequence + i);
        e->fate = REFUSED;
        o->counts.refused++;
        if (e->read)
            oracle_violation(o, "producer %u sequence %u was refused, and is at %d/%lld", m->producer, m->sequence + i, e->partition,
                             (long long)e->offset);
    }
}

static void take_read(oracle *o, const crash_message *m)
{
    int p = m->partition;
    if (p >= CRASH_PARTITIONS || m->offset < 0) {
        oracle_violation(o, "a reader told of %d/%lld", p, (long long)m->offset);
        return;
    }
    o->counts.reads++;
    if (m->offset >= o->log_cap[p]) {
        int64_t n = o->log_cap[p] ? 2 * o->log_cap[p] : 4096;
        while (n <= m->offset) n *= 2;
        o->log[p] = grown(o->log[p], (size_t)o->log_cap[p], (size_t)n, sizeof *o->log[p]);
        o->log_cap[p] = n;
    }
    if (m->offset >= o->log_len[p]) o->log_len[p] = m->offset + 1;
    place *at = &o->log[p][m->offset];
    entry *e = entry_at(o, m->producer, m->sequence);
    if (at->producer && (at->producer != m->producer || at->sequence != m->sequence))
        oracle_violation(o, "%d/%lld was producer %u sequence %u, now it is producer %u sequence %u", p, (long long)m->offset,
                         at->producer, at->sequence, m->producer, m->sequence);
    *at = (place){m->producer, m->sequence};
    if (e->fate == REFUSED)
        oracle_violation(o, "producer %u sequence %u was refused, and is at %d/%lld", m->producer, m->sequence, p, (long long)m->offset);
    if (e->fate == NOT_SENT) e->partition = (uint8_t)p; /* the reader's pipe was faster than the writer's */
    if (e->partition != p) oracle_violation(o, "producer %u sequence %u is in partition %d, not %d", m->producer, m->sequence, p, e->partition);
    if (e->fate == ACKED && e->acked != m->offset)
        oracle_violation(o, "producer %u sequence %u acknowledged at %d/%lld, read at %lld", m->producer, m->sequence, p,
                         (long long)e->acked, (long long)m->offset);
    if (e->read && e->offset != m->offset)
        oracle_violation(o, "producer %u sequence %u is twice in partition %d: at %lld and at %lld", m->producer, m->sequence, p,
                         (long long)e->offset, (long long)m->offset);
    if (!e->read) o->counts.in_log++;
    e->read = true;
    e->offset = m->offset;
    if (o->completing) e->complete = true;
}

void oracle_take(oracle *o, const crash_message *m)
{
    switch (m->kind) {
    case CRASH_TRY: take_try(o, m); break;
    case CRASH_ACK: take_ack(o, m); break;
    case CRASH_REFUSED: take_refusal(o, m); break;
    case CRASH_READ: take_read(o, m); break;
    case CRASH_TOPIC_MADE: o->counts.topics_made++; /* fallthrough */
    case CRASH_TOPIC_TRY:
    case CRASH_TOPIC_DELETING:
    case CRASH_TOPIC_DELETED:
        if (m->producer < CRASH_TOPICS_MAX) o->topics[m->producer] = m->kind;
        if (m->kind == CRASH_TOPIC_DELETED) o->counts.topics_deleted++;
        break;
    case CRASH_TOPIC_SEEN:
        if (m->producer < CRASH_TOPICS_MAX) o->topic_seen[m->producer] = true;
        break;
    default: break;
    }
}

void oracle_begin_complete(oracle *o)
{
    o->completing = true;
    for (size_t i = 0; i < o->producer_count; i++)
        for (size_t s = 0; s < o->producers[i].count; s++) o->producers[i].entries[s].complete = false;
}

void oracle_complete(oracle *o, const int64_t end[CRASH_PARTITIONS])
{
    o->completing = false;
    for (size_t i = 0; i < o->producer_count; i++)
        for (size_t s = 0; s < o->producers[i].count; s++) {
            const entry *e = &o->producers[i].entries[s];
            if (e->read && e->fate == NOT_SENT)
                oracle_violation(o, "%d/%lld: producer %zu never sent sequence %zu", e->partition, (long long)e->offset, i, s);
            if (e->fate == ACKED && !e->complete)
                oracle_violation(o, "producer %zu sequence %zu was acknowledged at %d/%lld and is lost", i, s, e->partition,
                                 (long long)e->acked);
            if (e->read && !e->complete)
                oracle_violation(o, "producer %zu sequence %zu was read at %d/%lld and is gone", i, s, e->partition,
                                 (long long)e->offset);
        }
    uint32_t *newest = calloc(o->producer_count + 1, sizeof *newest);
    if (!newest) abort();
    for (int p = 0; p < CRASH_PARTITIONS; p++) {
        if (o->log_len[p] > end[p])
            oracle_violation(o, "partition %d ends at %lld, offsets up to %lld were read before", p, (long long)end[p],
                             (long long)o->log_len[p] - 1);
        memset(newest, 0, (o->producer_count + 1) * sizeof *newest);
        for (int64_t i = 0; i < o->log_len[p]; i++) {
            place at = o->log[p][i];
            if (!at.producer) oracle_violation(o, "%d/%lld was never given to a reader", p, (long long)i);
            if (at.producer && at.sequence + 1 <= newest[at.producer])
                oracle_violation(o, "%d/%lld: producer %u sequence %u comes behind %u", p, (long long)i, at.producer, at.sequence,
                                 newest[at.producer] - 1);
            if (at.producer) newest[at.producer] = at.sequence + 1;
        }
    }
    free(newest);
}

int64_t oracle_end(const oracle *o, int partition) { return o->log_len[partition]; }

bool oracle_at(const oracle *o, int partition, int64_t offset, uint32_t *writer, uint32_t *sequence)
{
    if (offset < 0 || offset >= o->log_len[partition] || !o->log[partition][offset].producer) return false;
    *writer = o->log[partition][offset].producer;
    *sequence = o->log[partition][offset].sequence;
    return true;
}

void oracle_each_acked(const oracle *o, void (*fn)(void *opaque, int partition, int64_t offset, uint32_t writer, uint32_t sequence),
                       void *opaque)
{
    for (uint32_t i = 0; i < o->producer_count; i++)
        for (uint32_t s = 0; s < o->producers[i].count; s++) {
            const entry *e = &o->producers[i].entries[s];
            if (e->fate == ACKED) fn(opaque, e->partition, e->acked, i, s);
        }
}

void oracle_check_topics(oracle *o)
{
    for (uint32_t i = 0; i < CRASH_TOPICS_MAX; i++) {
        if (o->topics[i] == CRASH_TOPIC_MADE && !o->topic_seen[i]) oracle_violation(o, "topic made-%u was made and is gone", i);
        if (o->topics[i] == CRASH_TOPIC_DELETED && o->topic_seen[i]) oracle_violation(o, "topic made-%u was deleted and is there", i);
        if (o->topics[i] == 0 && o->topic_seen[i]) oracle_violation(o, "topic made-%u is there and nobody made it", i);
    }
}

void oracle_count(const oracle *o, oracle_counts *out) { *out = o->counts; }
