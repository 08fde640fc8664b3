/* tests/battery/faults_client.c: what the fault battery does to a bus, and how it looks afterwards whether the bus kept its word.
 *
 * The acknowledgements file has a line a promise: "R topic partition offset number" a record, "T topic" a topic made, "D topic"
 * one deleted ("t topic": it may be there again); "s topic partition offset": records before offset may have been deleted, for that was asked for. */
#include "battery/faults.h"

#include <busway/busway.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BATCH = 8, CALL_MS = 800, GIVE_UP = 2, PARTS = 3, NUMBERS = 4096 };

static const struct { const char *topic; int partition; } parts[PARTS] = {{"a", 0}, {"a", 1}, {"b", 0}};

typedef struct run {
    int acks_fd;
    int violations;
    uint32_t next[PARTS];    /* numbers given out */
    bool poisoned[PARTS];    /* said so once: must go on saying so */
    int64_t acked[PARTS][NUMBERS]; /* number to offset, -1: not acknowledged */
} run;

size_t faults_value(char *out, const char *topic, int partition, uint32_t number)
{
    size_t n = (size_t)snprintf(out, FAULTS_VALUE_MAX, "%s/%d/%u ", topic, partition, number);
    size_t len = n + 60 + number * 7 % 90;
    for (; n < len; n++) out[n] = (char)('a' + (number + n) % 26);
    return len;
}

static void violation(run *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void violation(run *r, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "VIOLATION: ");
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
    r->violations++;
}

static void promise(run *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void promise(run *r, const char *format, ...)
{
    char line[128];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (write(r->acks_fd, line, (size_t)n) != n) violation(r, "the acknowledgements file cannot be written");
}

/* An outcome: errors are shown, and must have a message. */
static bw_err came_to(run *r, bw_err e, const char *what)
{
    if (!e) return e;
    const char *text = bw_error_message();
    fprintf(stderr, "%s: %s: %s\n", what, bw_err_name(e), text);
    if (!*text) violation(r, "%s failed with %s and says nothing", what, bw_err_name(e));
    if (e == BW_ERR_INTERNAL || strcmp(bw_err_name(e), "UNKNOWN") == 0) violation(r, "%s: an error that is none: %s", what, text);
    return e;
}

static void outcome(run *r, int part, uint32_t first, int count, bw_err e, int64_t offset)
{
    if (e == BW_ERR_POISONED) r->poisoned[part] = true;
    if (e) return;
    if (r->poisoned[part]) violation(r, "%s-%d was poisoned, yet takes records", parts[part].topic, parts[part].partition);
    for (int i = 0; i < count; i++) {
        r->acked[part][first + (uint32_t)i] = offset + i;
        promise(r, "R %s %d %lld %u\n", parts[part].topic, parts[part].partition, (long long)offset + i, first + (uint32_t)i);
    }
}

/* ---- producing ---- */

static void send_batches(run *r, bw_producer *p, int batches, const char *what)
{
    static char values[BATCH][FAULTS_VALUE_MAX];
    int failed[PARTS] = {0};
    for (int b = 0; b < batches; b++) {
        int part = b % PARTS;
        if (failed[part] >= GIVE_UP) continue;
        bw_record records[BATCH];
        uint32_t first = r->next[part];
        for (int i = 0; i < BATCH; i++) {
            size_t len = faults_value(values[i], parts[part].topic, parts[part].partition, r->next[part]++);
            records[i] = (bw_record){.value = values[i], .value_len = len, .timestamp_ms = BW_NO_TIMESTAMP};
        }
        bw_delivery d = {.offset = -1};
        bw_err e = bw_producer_send_batch(p, parts[part].topic, parts[part].partition, records, BATCH, CALL_MS, &d);
        failed[part] += came_to(r, e, what) != BW_OK;
        outcome(r, part, first, BATCH, e, d.offset);
    }
}

static void send_reserved(run *r, bw_producer *p)
{
    for (int part = 0; part < PARTS; part++) {
        char value[FAULTS_VALUE_MAX];
        uint32_t number = r->next[part]++;
        size_t len = faults_value(value, parts[part].topic, parts[part].partition, number);
        bw_reservation place;
        bw_err e = bw_producer_reserve(p, parts[part].topic, parts[part].partition, NULL, sizeof value, CALL_MS, &place);
        if (came_to(r, e, "reserve")) continue;
        memcpy(place.value, value, len);
        bw_delivery d = {.offset = -1};
        e = bw_producer_commit(p, &place, len, CALL_MS, &d);
        came_to(r, e, "commit");
        outcome(r, part, number, 1, e, d.offset);
    }
}

typedef struct sent { run *r; int part; uint32_t number; bool done; } sent;

static void on_delivery(void *opaque, const bw_delivery *d)
{
    sent *s = opaque;
    if (s->done) violation(s->r, "a delivery callback ran twice");
    s->done = true;
    if (d->error) {
        fprintf(stderr, "delivery: %s: %s\n", bw_err_name(d->error), d->message ? d->message : "");
        if (!d->message || !*d->message) violation(s->r, "a delivery failed with %s and says nothing", bw_err_name(d->error));
    }
    outcome(s->r, s->part, s->number, 1, d->error, d->offset);
}

static void send_async(run *r, bw_producer *p)
{
    enum { SENDS = 24 };
    static sent sends[2][SENDS];
    static int round;
    sent *mine = sends[round++ & 1];
    int refused = 0;
    for (int i = 0; i < SENDS; i++) {
        char value[FAULTS_VALUE_MAX];
        int part = i % PARTS;
        mine[i] = (sent){r, part, r->next[part]++, false};
        size_t len = faults_value(value, parts[part].topic, parts[part].partition, mine[i].number);
        bw_record record = {.value = value, .value_len = len, .timestamp_ms = BW_NO_TIMESTAMP};
        bw_err e = bw_producer_send(p, parts[part].topic, parts[part].partition, &record, on_delivery, &mine[i], CALL_MS);
        if (came_to(r, e, "send")) mine[i].done = true;
        refused += mine[i].done && e != BW_OK;
        if (refused > GIVE_UP) { /* each may take its time */
            while (++i < SENDS) mine[i] = (sent){r, 0, 0, true};
        }
    }
    came_to(r, bw_producer_flush(p, 3000), "flush");
    bw_producer_close(p, 500);
    for (int i = 0; i < SENDS; i++)
        if (!mine[i].done) violation(r, "a send's callback never ran, not even when its producer was closed");
}

static bw_producer *producer(run *r, bw_bus *bus, bw_acks acks)
{
    bw_producer_options o = BW_PRODUCER_OPTIONS_INIT;
    o.acks = acks;
    o.delivery_timeout_ms = 2000;
    bw_producer *p = NULL;
    return came_to(r, bw_producer_open(bus, &o, &p), "open producer") ? NULL : p;
}

static void produce(run *r, bw_bus *bus, int batches)
{
    bw_producer *p = producer(r, bus, BW_ACKS_VISIBLE);
    if (p) {
        send_batches(r, p, batches, "send visible");
        send_reserved(r, p);
        bw_producer_close(p, 500);
    }
    if ((p = producer(r, bus, BW_ACKS_DURABLE))) {
        send_batches(r, p, PARTS, "send durable");
        bw_producer_close(p, 500);
    }
    if ((p = producer(r, bus, BW_ACKS_VISIBLE))) send_async(r, p);
    if ((p = producer(r, bus, BW_ACKS_NONE))) { /* may be lost; must not hurt */
        bw_record record = {.value = "none", .value_len = 4, .timestamp_ms = BW_NO_TIMESTAMP};
        came_to(r, bw_producer_send_sync(p, "b", 0, &record, CALL_MS, NULL), "send without acknowledgement");
        bw_producer_close(p, 500);
    }
}

/* ---- reading ---- */

static bool check_record(run *r, int part, const bw_record_view *v)
{
    char want[FAULTS_VALUE_MAX], name[32];
    uint32_t number = 0;
    if (v->value_len == 4 && memcmp(v->value, "none", 4) == 0) return true;
    int n = snprintf(name, sizeof name, "%s/%d/", parts[part].topic, parts[part].partition);
    if (v->value_len > (uint32_t)n && memcmp(v->value, name, (size_t)n) == 0) number = (uint32_t)atol((const char *)v->value + n);
    size_t len = faults_value(want, parts[part].topic, parts[part].partition, number);
    if (v->value_len != len || memcmp(want, v->value, len) != 0) {
        violation(r, "%s offset %lld: not what was written", name, (long long)v->offset);
        return false;
    }
    if (number < NUMBERS && r->acked[part][number] >= 0 && r->acked[part][number] != v->offset)
        violation(r, "%s%u was acknowledged at %lld and is at %lld", name, number, (long long)r->acked[part][number],
                  (long long)v->offset);
    return true;
}

/* Reads a partition from its beginning to `to`; *upto is where it came. What is read is checked. */
static bw_err read_part(run *r, bw_bus *bus, int part, bw_read_limit limit, int64_t from, int64_t to, int64_t *upto)
{
    bw_consumer_options o = BW_CONSUMER_OPTIONS_INIT;
    o.read_limit = limit;
    bw_consumer *c = NULL;
    *upto = from;
    bw_err e = bw_consumer_open(bus, &o, &c);
    if (!e) e = bw_consumer_assign(c, parts[part].topic, parts[part].partition, from);
    while (!e && *upto < to) {
        bw_batch batch;
        bw_record_view v;
        int more = 0;
        if ((e = bw_consumer_poll(c, CALL_MS, &batch))) break;
        while ((more = bw_batch_next(&batch, &v)) == 1) {
            if (v.offset != *upto) violation(r, "%s-%d: offset %lld follows %lld", parts[part].topic, parts[part].partition,
                                             (long long)v.offset, (long long)*upto - 1);
            check_record(r, part, &v);
            *upto = v.offset + 1;
        }
        if (more < 0) violation(r, "a batch that was served does not decode");
    }
    if (e == BW_ERR_CORRUPT) violation(r, "told corrupt: %s", bw_error_message());
    bw_err said = came_to(r, e, "read");
    bw_consumer_close(c);
    return said;
}

static void read_all(run *r, bw_bus *bus)
{
    for (int part = 0; part < PARTS; part++) {
        bw_offset_range range;
        int64_t upto;
        bw_err e = came_to(r, bw_offsets_range(bus, parts[part].topic, parts[part].partition, &range), "range");
        if (e == BW_ERR_NO_COORDINATOR || e == BW_ERR_TIMED_OUT) return; /* each further one would take its time as well */
        if (e) continue;
        read_part(r, bus, part, BW_READ_VISIBLE, range.log_start, range.end, &upto);
        read_part(r, bus, part, BW_READ_DURABLE, range.log_start, range.durable, &upto);
    }
}

/* ---- the two roles ---- */

static bw_bus *bus_of(run *r, const char *url, bw_transport transport)
{
    bw_bus_options o = BW_BUS_OPTIONS_INIT;
    o.transport = transport;
    o.connect_timeout_ms = 1500;
    o.request_timeout_ms = 2000;
    bw_bus *bus = NULL;
    return came_to(r, bw_bus_open(url, &o, &bus), transport == BW_TRANSPORT_IPC ? "open ipc" : "open direct") ? NULL : bus;
}

static void make_topic(run *r, bw_bus *bus, const char *topic, int partitions)
{
    static const bw_config_entry config[] = {{"segment.bytes", "8192"}, {"max.message.bytes", "4096"},
                                             {"index.interval.bytes", "512"}, {"file.delete.delay.ms", "0"}};
    bw_err e = bw_topic_create(bus, topic, partitions, config, sizeof config / sizeof *config);
    if (!came_to(r, e, "create topic")) promise(r, "T %s\n", topic);
}

static void administer(run *r, bw_bus *bus)
{
    int64_t start = 0, offset, found;
    char *json = NULL;
    promise(r, "s b 0 40\n");
    bw_err e = came_to(r, bw_delete_records(bus, "b", 0, 40, &start), "delete records");
    if (e == BW_ERR_NO_COORDINATOR || e == BW_ERR_TIMED_OUT) return;
    came_to(r, bw_offset_for_time(bus, "a", 0, 1, &offset, &found), "look up a time");
    if (!came_to(r, bw_topics_describe(bus, NULL, &json), "describe")) bw_free(json);
    if (!came_to(r, bw_status(bus, &json), "status")) bw_free(json);
    if (!came_to(r, bw_topic_delete(bus, "gone"), "delete topic")) promise(r, "D gone\n");
}

static run *run_make(const char *acks_path)
{
    static run r;
    memset(r.acked, 0xff, sizeof r.acked);
    r.acks_fd = open(acks_path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    return &r;
}

typedef struct promises { bool made[2], deleted; int64_t start_at_most[PARTS]; } promises;

static void load(run *r, const char *path, promises *p)
{
    FILE *f = fopen(path, "r");
    char line[128], topic[16];
    while (f && fgets(line, sizeof line, f)) {
        int partition;
        long long offset;
        unsigned number;
        if (sscanf(line, "R %15s %d %lld %u", topic, &partition, &offset, &number) == 4)
            r->acked[*topic == 'a' ? partition : 2][number] = offset;
        else if (sscanf(line, "T %15s", topic) == 1 && strlen(topic) == 1) p->made[*topic - 'a'] = true;
        else if (line[0] == 'D') p->deleted = true;
        else if (line[0] == 't') p->deleted = false;
        else if (sscanf(line, "s %15s %d %lld", topic, &partition, &offset) == 3) p->start_at_most[2] = offset;
    }
    if (f) fclose(f);
}

int faults_scenario(const char *url, const char *acks_path)
{
    run *r = run_make(acks_path);
    promises before = {.deleted = false};
    load(r, acks_path, &before);
    for (int part = 0; part < PARTS; part++) r->next[part] = before.made[0] || before.made[1] ? NUMBERS / 2 : 0; /* the second life */
    bw_bus *direct = bus_of(r, url, BW_TRANSPORT_DIRECT), *ipc = bus_of(r, url, BW_TRANSPORT_IPC);
    bw_bus *any = ipc ? ipc : direct;
    if (any) {
        make_topic(r, any, "a", FAULTS_A_PARTITIONS);
        make_topic(r, any, "b", 1);
        promise(r, "t gone\n");
        make_topic(r, any, "gone", 1);
    }
    if (direct) produce(r, direct, 18 * PARTS);
    if (ipc) produce(r, ipc, 3 * PARTS);
    if (direct) read_all(r, direct);
    if (ipc) read_all(r, ipc);
    if (any) administer(r, any);
    bw_bus_close(ipc);
    bw_bus_close(direct);
    return r->violations ? 1 : 0;
}

static void verify_part(run *r, bw_bus *bus, int part, int64_t start_at_most)
{
    bw_offset_range range;
    int64_t upto;
    const char *topic = parts[part].topic;
    bw_err e = bw_offsets_range(bus, topic, parts[part].partition, &range);
    if (e) {
        violation(r, "%s-%d has no range: %s", topic, parts[part].partition, bw_error_message());
        return;
    }
    if (range.log_start > start_at_most)
        violation(r, "%s-%d starts at %lld, deleted was up to %lld", topic, parts[part].partition, (long long)range.log_start,
                  (long long)start_at_most);
    for (uint32_t n = 0; n < NUMBERS; n++)
        if (r->acked[part][n] >= range.end)
            violation(r, "%s/%d/%u, acknowledged at %lld, is gone: the log ends at %lld", topic, parts[part].partition, n,
                      (long long)r->acked[part][n], (long long)range.end);
    if (read_part(r, bus, part, BW_READ_VISIBLE, range.log_start, range.end, &upto) || upto < range.end)
        violation(r, "%s-%d is read up to %lld of %lld", topic, parts[part].partition, (long long)upto, (long long)range.end);
    bw_producer *p = producer(r, bus, BW_ACKS_DURABLE);
    bw_record record = {.value = "none", .value_len = 4, .timestamp_ms = BW_NO_TIMESTAMP};
    if (p && (e = bw_producer_send_sync(p, topic, parts[part].partition, &record, 5000, NULL)))
        violation(r, "%s-%d takes no record after the restart: %s: %s", topic, parts[part].partition, bw_err_name(e),
                  bw_error_message());
    bw_producer_close(p, 500);
}

int faults_verify(const char *url, const char *acks_path)
{
    run *r = run_make(acks_path);
    promises p = {.start_at_most = {0}};
    load(r, acks_path, &p);
    bw_bus *bus = bus_of(r, url, BW_TRANSPORT_DIRECT);
    if (!bus) return violation(r, "no bus after a restart without faults"), 1;
    for (int part = 0; part < PARTS; part++) {
        int32_t count;
        bw_err e = bw_topic_partitions(bus, parts[part].topic, &count);
        if ((e || count <= parts[part].partition) && !p.made[*parts[part].topic - 'a']) continue; /* was never promised */
        verify_part(r, bus, part, p.start_at_most[part]);
    }
    int32_t count;
    bw_err e = bw_topic_partitions(bus, "gone", &count);
    if (p.deleted && e != BW_ERR_UNKNOWN_TOPIC) violation(r, "a topic whose deletion was acknowledged is there");
    bw_bus_close(bus);
    return r->violations ? 1 : 0;
}
