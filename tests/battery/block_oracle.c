/* tests/battery/block_oracle.c: what must hold of the logs that come back after a cut.
 *
 * No power fails while the scene is recorded, so an offset that was acknowledged or read there is one record for ever, and every
 * image holds a beginning of that one log. What must be there, and where a log may begin, depends on the events before the cut:
 *
 *   - all that was acknowledged as durable, and all that a reader of what is durable was given, is there (or deleted since);
 *   - each record is one that was tried before the cut, is there once, at the offset it was acknowledged at, in its producer's
 * order;
 *   - offsets have no gap; what was reported as deleted stays deleted; nothing is deleted that nobody wanted to;
 *   - when something is lost that a reader was given, the leader epoch is higher than the one it was given under. */
#include "block.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PRODUCERS_MAX = 4096 };

typedef struct entry {
    uint64_t tried; /* position + 1; 0: never */
    int64_t offset; /* -1: not known to have landed */
    uint32_t seen;  /* number of the view that saw it */
    uint8_t partition;
} entry;

typedef struct author {
    entry *entries;
    uint32_t count;
    int64_t newest[BLOCK_PARTITIONS]; /* sequence that the current view saw last */
    uint32_t newest_view;
} author;

typedef struct place {
    uint32_t producer, sequence;
} place; /* producer 0: not known */

struct oracle {
    const recording *r;
    uint64_t cut, at; /* events before `at` lie before the cut */
    uint64_t count;
    author producers[PRODUCERS_MAX];
    place *log[BLOCK_PARTITIONS];
    int64_t log_len[BLOCK_PARTITIONS];
    int64_t durable[BLOCK_PARTITIONS], deleted[BLOCK_PARTITIONS], deleting[BLOCK_PARTITIONS], seen[BLOCK_PARTITIONS];
    int32_t seen_epoch[BLOCK_PARTITIONS];
    topic_must topics[BLOCK_TOPICS_MAX];
    uint32_t topic_count, view;
};

static void *need(void *p)
{
    if (p) return p;
    perror("oracle");
    abort();
}

void block_note(recording *r, event_kind kind, int partition, uint32_t producer, uint32_t sequence, uint16_t count,
                int64_t offset)
{
    uint64_t i = atomic_fetch_add(&r->event_count, 1);
    if (i >= BLOCK_EVENTS_MAX) {
        atomic_store(&r->log.full, true);
        return;
    }
    event *e = &r->events[i];
    e->position = atomic_load(&r->log.count);
    e->offset = offset;
    e->producer = producer;
    e->sequence = sequence;
    e->count = count;
    e->kind = (uint8_t)kind;
    e->partition = (uint8_t)partition;
    atomic_store(&e->ready, 1);
}

static size_t filling_len(uint32_t producer, uint32_t sequence)
{
    return (producer * 2654435761u ^ sequence * 40503u) % BLOCK_FILLING_MAX;
}

size_t block_value_make(uint8_t *out, uint32_t producer, uint32_t sequence)
{
    size_t n = filling_len(producer, sequence);
    memcpy(out, &producer, 4);
    memcpy(out + 4, &sequence, 4);
    for (size_t i = 0; i < n; i++) out[8 + i] = (uint8_t)(producer * 31 + sequence * 7 + i * (1 + sequence % 5));
    return 8 + n;
}

bool block_value_check(const uint8_t *value, size_t len, uint32_t *producer, uint32_t *sequence)
{
    uint8_t want[8 + BLOCK_FILLING_MAX];
    if (len < 8) return false;
    memcpy(producer, value, 4);
    memcpy(sequence, value + 4, 4);
    return len == block_value_make(want, *producer, *sequence) && memcmp(want, value, len) == 0;
}

/* ---- the events as tables ---- */

static entry *entry_of(oracle *o, uint32_t number, uint32_t sequence)
{
    if (number >= PRODUCERS_MAX) return NULL;
    author *p = &o->producers[number];
    if (sequence >= p->count) {
        uint32_t n = sequence < 64 ? 128 : sequence * 2;
        p->entries = need(realloc(p->entries, n * sizeof *p->entries));
        memset(p->entries + p->count, 0, (n - p->count) * sizeof *p->entries);
        for (uint32_t i = p->count; i < n; i++) p->entries[i].offset = -1;
        p->count = n;
    }
    return &p->entries[sequence];
}

static void put_place(oracle *o, int partition, int64_t offset, place what)
{
    if (offset >= o->log_len[partition]) {
        int64_t n = offset < 512 ? 1024 : offset * 2;
        o->log[partition] = need(realloc(o->log[partition], (size_t)n * sizeof(place)));
        memset(o->log[partition] + o->log_len[partition], 0, (size_t)(n - o->log_len[partition]) * sizeof(place));
        o->log_len[partition] = n;
    }
    place *p = &o->log[partition][offset];
    if (p->producer && (p->producer != what.producer || p->sequence != what.sequence))
        fprintf(stderr, "VIOLATION while it was recorded: partition %d offset %lld was acknowledged to two records\n", partition,
                (long long)offset);
    *p = what;
}

static void take_record(oracle *o, const event *e)
{
    for (uint32_t i = 0; i < e->count; i++) {
        entry *x = entry_of(o, e->producer, e->sequence + i);
        if (!x) continue;
        x->partition = e->partition;
        if (e->kind == EVENT_TRY) {
            x->tried = e->position + 1;
            continue;
        }
        x->offset = e->offset + i;
        put_place(o, e->partition, e->offset + i, (place){e->producer, e->sequence + i});
    }
}

oracle *oracle_new(const recording *r)
{
    oracle *o = need(calloc(1, sizeof *o));
    o->r = r;
    o->count = atomic_load(&r->event_count);
    if (o->count > BLOCK_EVENTS_MAX) o->count = BLOCK_EVENTS_MAX;
    o->view = 1;
    for (uint64_t i = 0; i < o->count; i++) {
        const event *e = &r->events[i];
        if (e->ready && e->kind <= EVENT_DURABLE) take_record(o, e);
    }
    for (uint32_t i = 0; i < BLOCK_TOPICS_MAX; i++) o->topics[i] = TOPIC_UNKNOWN;
    return o;
}

void oracle_free(oracle *o)
{
    for (int i = 0; i < PRODUCERS_MAX; i++) free(o->producers[i].entries);
    for (int i = 0; i < BLOCK_PARTITIONS; i++) free(o->log[i]);
    free(o);
}

static void more(int64_t *value, int64_t x)
{
    if (x > *value) *value = x;
}

static void take_topic(oracle *o, const event *e)
{
    uint32_t n = e->producer;
    if (n >= BLOCK_TOPICS_MAX) return;
    if (n >= o->topic_count) o->topic_count = n + 1;
    if (e->kind == EVENT_TOPIC_TRY || e->kind == EVENT_TOPIC_DELETING) o->topics[n] = TOPIC_MAY_BE;
    if (e->kind == EVENT_TOPIC_MADE) o->topics[n] = TOPIC_MUST_BE;
    if (e->kind == EVENT_TOPIC_FILLED) o->topics[n] = TOPIC_MUST_BE_FILLED;
    if (e->kind == EVENT_TOPIC_DELETED) o->topics[n] = TOPIC_MUST_NOT_BE;
}

static void take_event(oracle *o, const event *e)
{
    int p = e->partition;
    switch (e->kind) {
    case EVENT_DURABLE:
        more(&o->durable[p], e->offset + e->count);
        break;
    case EVENT_SEEN_DURABLE:
        more(&o->durable[p], e->offset);
        break;
    case EVENT_SEEN:
        if (e->offset <= o->seen[p] && (int32_t)e->sequence <= o->seen_epoch[p]) break;
        o->seen[p] = e->offset;
        o->seen_epoch[p] = (int32_t)e->sequence;
        break;
    case EVENT_DELETE_TRY:
        more(&o->deleting[p], e->offset);
        break;
    case EVENT_DELETE_DONE:
        more(&o->deleted[p], e->offset);
        break;
    case EVENT_TOPIC_TRY:
    case EVENT_TOPIC_MADE:
    case EVENT_TOPIC_FILLED:
    case EVENT_TOPIC_DELETING:
    case EVENT_TOPIC_DELETED:
        take_topic(o, e);
        break;
    default:
        break;
    }
}

/* Events are nearly in the order of their positions; one that is late by a few is taken late, which asks for less, never for
 * more, but for what makes something allowed: those are noted before they are true. */
void oracle_advance(oracle *o, uint64_t cut)
{
    o->cut = cut;
    while (o->at < o->count && o->r->events[o->at].position <= cut) {
        if (o->r->events[o->at].ready) take_event(o, &o->r->events[o->at]);
        o->at++;
    }
}

/* Where the log of the topic with retention may begin at most: what was seen at the second look behind the cut (the first may
 * have begun before it). */
static int64_t latest_start(const oracle *o, int partition)
{
    bool second = false;
    if (partition != BLOCK_KEPT) return o->deleting[partition];
    for (uint64_t i = o->at; i < o->count; i++) {
        const event *e = &o->r->events[i];
        if (!e->ready || e->kind != EVENT_START || e->partition != partition || e->position < o->cut) continue;
        if (second) return e->offset;
        second = true;
    }
    return INT64_MAX;
}

uint32_t oracle_topics(const oracle *o) { return o->topic_count; }
topic_must oracle_topic(const oracle *o, uint32_t number)
{
    return number < BLOCK_TOPICS_MAX ? o->topics[number] : TOPIC_UNKNOWN;
}

/* ---- a view ---- */

#define COMPLAIN(...) v->complain(v->opaque, __VA_ARGS__)

void oracle_begin(oracle_view *v, int partition, int64_t start, int64_t end, int32_t epoch)
{
    const oracle *o = v->oracle;
    if (partition == 0) v->oracle->view++;
    v->partition = partition;
    v->start = v->next = start;
    v->end = end;
    v->epoch = epoch;
    if (end < o->durable[partition])
        COMPLAIN("partition %d ends at %lld, durable was %lld", partition, (long long)end, (long long)o->durable[partition]);
    if (start < o->deleted[partition])
        COMPLAIN("partition %d begins at %lld, deleted was what lies before %lld", partition, (long long)start,
                 (long long)o->deleted[partition]);
    if (start > latest_start(o, partition))
        COMPLAIN("partition %d begins at %lld: nobody deleted that much", partition, (long long)start);
    if (end < o->seen[partition]) {
        atomic_fetch_add(&v->tally->lost, (uint64_t)(o->seen[partition] - end));
        if (epoch <= o->seen_epoch[partition])
            COMPLAIN("partition %d ends at %lld, a reader had %lld under epoch %d, and the epoch is %d", partition,
                     (long long)end, (long long)o->seen[partition], o->seen_epoch[partition], epoch);
    }
    if (o->durable[partition] > start) atomic_fetch_add(&v->tally->durable, (uint64_t)(o->durable[partition] - start));
}

void oracle_record(oracle_view *v, int64_t offset, const uint8_t *value, size_t len, int64_t extra_at)
{
    oracle *o = v->oracle;
    uint32_t number, sequence;
    int p = v->partition;
    if (offset != v->next) COMPLAIN("partition %d: offset %lld where %lld was next", p, (long long)offset, (long long)v->next);
    v->next = offset + 1;
    if (offset == extra_at) return;
    atomic_fetch_add(&v->tally->records, 1);
    if (!block_value_check(value, len, &number, &sequence)) {
        COMPLAIN("partition %d offset %lld: bytes that nobody wrote", p, (long long)offset);
        return;
    }
    author *w = number < PRODUCERS_MAX ? &o->producers[number] : NULL;
    entry *e = w && sequence < w->count ? &w->entries[sequence] : NULL;
    if (!e || !e->tried || e->tried - 1 > o->cut || e->partition != p) {
        COMPLAIN("partition %d offset %lld: producer %u sequence %u was not sent there before the cut", p, (long long)offset,
                 number, sequence);
        return;
    }
    /* A batch in doubt when the daemon was killed is sent again. The daemon knows it by what the log says of its producer; where retention
     * has deleted that already it is appended once more. */
    if (p == BLOCK_KEPT && e->offset > offset) return;
    if (e->seen == o->view)
        COMPLAIN("partition %d offset %lld: producer %u sequence %u is there twice", p, (long long)offset, number, sequence);
    e->seen = o->view;
    if (e->offset >= 0 && e->offset != offset)
        COMPLAIN("partition %d: producer %u sequence %u was acknowledged at %lld, it is at %lld", p, number, sequence,
                 (long long)e->offset, (long long)offset);
    const place *known = offset < o->log_len[p] ? &o->log[p][offset] : NULL;
    if (known && known->producer && (known->producer != number || known->sequence != sequence))
        COMPLAIN("partition %d offset %lld: was producer %u sequence %u, it is producer %u sequence %u", p, (long long)offset,
                 known->producer, known->sequence, number, sequence);
    if (w->newest_view != o->view) {
        for (int i = 0; i < BLOCK_PARTITIONS; i++) w->newest[i] = -1;
        w->newest_view = o->view;
    }
    if ((int64_t)sequence <= w->newest[p])
        COMPLAIN("partition %d offset %lld: producer %u sequence %u behind %lld", p, (long long)offset, number, sequence,
                 (long long)w->newest[p]);
    w->newest[p] = sequence;
}

void oracle_end(oracle_view *v)
{
    if (v->next != v->end)
        COMPLAIN("partition %d ends at %lld, read up to %lld", v->partition, (long long)v->end, (long long)v->next);
}
