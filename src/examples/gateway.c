/* gateway.c: an IoT gateway: sensors -> bus -> aggregates -> a queue of uploads -> the cloud. Each part is a process of its own, any of
 * them, and the bus's daemon, may be killed at any moment and started again: no reading is lost or counted twice, and no upload is.
 *
 *     gateway setup URL                       makes the topics "readings" and "uploads"
 *     gateway sensor URL NUMBER COUNT RATE    takes COUNT readings, RATE a second (0: as fast as it goes), then ends
 *     gateway aggregate URL NAME              readings -> one upload a sensor and round; several share the work; NAME is its own
 *     gateway upload URL HOST:PORT            each upload by HTTP: PUT /uploads/<partition>-<offset>; several share the work
 *
 * How each part goes on behind a kill:
 *   sensor     has a name: the bus knows the last reading that it wrote under it (bw_producer_last_sequence), and the next one follows.
 *   aggregate  reads, writes and says how far it read in one transaction: all of it happened, or nothing.
 *   upload     takes uploads from a queue. What it held when it died is given to another, so the cloud may be asked twice: the request
 *              says "If-None-Match: *", and the second one is answered 412, which is as good.
 * The same program exists in Python and in Go (bindings/README.md); parts of all three work together. */
#include <busway/busway.h>

#include <inttypes.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PATIENCE_MS = 60000, PARTITIONS = 4, ROUND_MS = 100, SENSORS_MAX = 1000 };

static void check(bw_err e, const char *what)
{
    if (e == BW_OK) return;
    fprintf(stderr, "gateway: %s: %s: %s\n", what, bw_err_name(e), bw_error_message());
    exit(1);
}

static void pause_ms(long ms)
{
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&t, NULL);
}

static int64_t clock_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int setup(bw_bus *bus)
{
    const bw_config_entry seconds[] = {{"retention.ms", "604800000"}};
    bw_err e = bw_topic_create(bus, "readings", PARTITIONS, seconds, 1);
    if (e != BW_ERR_TOPIC_EXISTS) check(e, "topic readings");
    e = bw_topic_create(bus, "uploads", 2, seconds, 1);
    if (e != BW_ERR_TOPIC_EXISTS) check(e, "topic uploads");
    return 0;
}

/* A record's bytes end without a NUL. */
static const char *text_of(const void *bytes, size_t len, char room[64])
{
    snprintf(room, 64, "%.*s", (int)(len < 63 ? len : 63), bytes ? (const char *)bytes : "");
    return room;
}

/* ---- sensor ---- */

/* A real one would ask its hardware. Thousandths of a degree. */
static int64_t measure(int sensor, int64_t number) { return 20000 + (number * 7919 + sensor * 131) % 5000; }

/* The number of the reading that comes next: one behind the last that is on the bus under this name. */
static int64_t next_reading(bw_bus *bus, bw_producer *producer, int32_t partition)
{
    int32_t sequence;
    int64_t offset, number = 0;
    bw_err e = bw_producer_last_sequence(producer, "readings", partition, &sequence, &offset);
    if (e == BW_ERR_UNKNOWN_PRODUCER_ID || (e == BW_OK && offset < 0)) return 0;
    check(e, "where was I");
    bw_consumer *consumer;
    bw_batch batch;
    bw_record_view r;
    char text[64];
    check(bw_consumer_open(bus, NULL, &consumer), "open the consumer");
    check(bw_consumer_assign(consumer, "readings", partition, offset), "assign");
    check(bw_consumer_poll(consumer, PATIENCE_MS, &batch), "read the last reading");
    if (bw_batch_next(&batch, &r) != 1 || r.offset != offset ||
        sscanf(text_of(r.value, r.value_len, text), "%" SCNd64, &number) != 1) {
        fprintf(stderr, "gateway: the record at %" PRId64 " is no reading\n", offset);
        exit(1);
    }
    bw_consumer_close(consumer);
    return number + 1;
}

static int sensor(bw_bus *bus, int number, int64_t count, int rate)
{
    char name[32], text[64];
    int32_t partition = number % PARTITIONS;
    snprintf(name, sizeof name, "sensor-%d", number);
    bw_producer *producer;
    bw_producer_options o = BW_PRODUCER_OPTIONS_INIT;
    o.name = name;
    check(bw_producer_open(bus, &o, &producer), "open the producer");
    for (int64_t i = next_reading(bus, producer, partition); i < count; i++) {
        int n = snprintf(text, sizeof text, "%" PRId64 " %" PRId64, i, measure(number, i));
        bw_record r = {.key = name, .key_len = strlen(name), .value = text, .value_len = (size_t)n, .timestamp_ms = BW_NO_TIMESTAMP};
        check(bw_producer_send_sync(producer, "readings", partition, &r, PATIENCE_MS, NULL), "send");
        if (rate > 0) pause_ms(1000 / rate);
    }
    check(bw_producer_close(producer, PATIENCE_MS), "close the producer");
    return 0;
}

/* ---- aggregate ---- */

typedef struct sums { int sensor; int64_t first, last, count, least, most, sum; } sums;

/* A round: what was read since the last commit. */
typedef struct aggregator {
    bw_producer *producer;
    bw_consumer *consumer;
    sums of[SENSORS_MAX];
    size_t sensors;
    bw_topic_partition next[PARTITIONS]; /* of those read in it: where the next round begins */
    bool reads[PARTITIONS];
    bool void_now; /* a partition of it was taken away */
} aggregator;

static void add(aggregator *a, const bw_record_view *r)
{
    int sensor;
    int64_t number, value;
    char key[64], text[64];
    if (sscanf(text_of(r->key, r->key_len, key), "sensor-%d", &sensor) != 1 ||
        sscanf(text_of(r->value, r->value_len, text), "%" SCNd64 " %" SCNd64, &number, &value) != 2)
        return; /* none of ours */
    size_t i = 0;
    while (i < a->sensors && a->of[i].sensor != sensor) i++;
    if (i == SENSORS_MAX) check(BW_ERR_INVALID_RECORD, "too many sensors");
    sums *s = &a->of[i];
    if (i == a->sensors) {
        a->sensors++;
        *s = (sums){sensor, number, number, 0, value, value, 0};
    }
    s->last = number;
    s->count++;
    s->sum += value;
    if (value < s->least) s->least = value;
    if (value > s->most) s->most = value;
}

static bw_err put_uploads(aggregator *a)
{
    char key[32], text[256];
    bw_err e = BW_OK;
    for (size_t i = 0; i < a->sensors && !e; i++) {
        const sums *s = &a->of[i];
        int k = snprintf(key, sizeof key, "sensor-%d", s->sensor);
        int n = snprintf(text, sizeof text,
                         "{\"sensor\":%d,\"first\":%" PRId64 ",\"last\":%" PRId64 ",\"count\":%" PRId64 ",\"min\":%" PRId64 ",\"max\":%" PRId64
                         ",\"sum\":%" PRId64 "}",
                         s->sensor, s->first, s->last, s->count, s->least, s->most, s->sum);
        bw_record r = {.key = key, .key_len = (size_t)k, .value = text, .value_len = (size_t)n, .timestamp_ms = BW_NO_TIMESTAMP};
        e = bw_producer_send(a->producer, "uploads", BW_PARTITION_ANY, &r, NULL, NULL, PATIENCE_MS);
    }
    return e;
}

/* One round in one transaction. An error: abort, and nothing of it has happened. */
static bw_err commit_round(aggregator *a)
{
    bw_group_metadata member;
    bw_topic_partition next[PARTITIONS];
    size_t n = 0;
    for (int i = 0; i < PARTITIONS; i++)
        if (a->reads[i]) next[n++] = a->next[i];
    bw_err e = bw_transaction_begin(a->producer);
    if (!e) e = put_uploads(a);
    if (!e) e = bw_consumer_group_metadata(a->consumer, &member);
    if (!e) e = bw_transaction_send_offsets(a->producer, &member, next, n, PATIENCE_MS);
    if (!e) e = bw_transaction_commit(a->producer, PATIENCE_MS);
    while (e == BW_ERR_TIMED_OUT) e = bw_transaction_commit(a->producer, PATIENCE_MS); /* it has no other end */
    return e;
}

static void add_batch(aggregator *a, bw_batch *batch)
{
    bw_record_view r;
    if (batch->partition >= PARTITIONS) check(BW_ERR_UNKNOWN_PARTITION, "the topic readings was made by somebody else");
    while (bw_batch_next(batch, &r) == 1) add(a, &r);
    a->reads[batch->partition] = true;
    a->next[batch->partition] = (bw_topic_partition){
        .topic = "readings", .partition = batch->partition, .offset = batch->last_offset + 1, .leader_epoch = -1};
}

/* Runs inside a poll. What another member does from now on must not be done here, too. */
static void rebalanced(bw_consumer *consumer, bw_rebalance event, const bw_topic_partition *parts, size_t count, void *opaque)
{
    aggregator *a = opaque;
    (void)consumer;
    for (size_t i = 0; i < count && event != BW_REBALANCE_ASSIGNED; i++) a->void_now |= a->reads[parts[i].partition];
}

/* Back to what the group has committed, for all that is ours. */
static void rewind_all(bw_consumer *consumer)
{
    bw_topic_partition *parts;
    size_t n;
    check(bw_consumer_assignment(consumer, &parts, &n), "assignment");
    check(bw_consumer_committed(consumer, parts, n, PATIENCE_MS), "committed offsets");
    for (size_t i = 0; i < n; i++) {
        int64_t to = parts[i].offset == BW_OFFSET_INVALID ? BW_OFFSET_BEGINNING : parts[i].offset;
        bw_err e = parts[i].error ? parts[i].error : bw_consumer_seek(consumer, parts[i].topic, parts[i].partition, to);
        if (e != BW_ERR_UNKNOWN_PARTITION) check(e, "seek"); /* unknown: it was taken away meanwhile */
    }
    bw_free(parts);
}

/* What a member of a group meets when others come and go, or the daemon does. */
static bool passes(bw_err e)
{
    return e == BW_ERR_TIMED_OUT || e == BW_ERR_NOT_CONNECTED || e == BW_ERR_NO_COORDINATOR || e == BW_ERR_FENCED_MEMBER_EPOCH ||
           e == BW_ERR_UNKNOWN_MEMBER_ID;
}

/* Reads for a round's time. What it was fenced from, or lost, is another's: REBALANCE_IN_PROGRESS. */
static bw_err gather(aggregator *a)
{
    bw_batch batch;
    a->sensors = 0;
    a->void_now = false;
    memset(a->reads, 0, sizeof a->reads);
    for (int64_t end = clock_ms() + ROUND_MS, left = ROUND_MS; left > 0; left = end - clock_ms()) {
        bw_err e = bw_consumer_poll(a->consumer, (int32_t)left, &batch);
        if (a->void_now) return BW_ERR_REBALANCE_IN_PROGRESS;
        if (passes(e)) continue;
        check(e, "poll");
        add_batch(a, &batch);
    }
    return BW_OK;
}

static _Noreturn void aggregate(bw_bus *bus, const char *name)
{
    static aggregator a;
    bw_producer_options writes = BW_PRODUCER_OPTIONS_INIT;
    bw_consumer_options reads = BW_CONSUMER_OPTIONS_INIT;
    const char *input = "readings";
    writes.transactional_id = name;
    writes.transaction_timeout_ms = 10000;
    check(bw_producer_open(bus, &writes, &a.producer), "open the producer");
    check(bw_transactions_init(a.producer, PATIENCE_MS), "init transactions"); /* ends what an earlier run left */
    reads.group_id = "aggregate";
    reads.on_rebalance = rebalanced;
    reads.rebalance_opaque = &a;
    reads.auto_offset_reset = BW_RESET_EARLIEST;
    reads.enable_auto_commit = false; /* the transaction does that */
    check(bw_consumer_open(bus, &reads, &a.consumer), "open the consumer");
    check(bw_consumer_subscribe(a.consumer, &input, 1), "subscribe");
    for (;;) {
        bw_err e = gather(&a);
        if (!e && a.sensors) e = commit_round(&a);
        if (!e) continue;
        fprintf(stderr, "gateway: %s: begins again: %s: %s\n", name, bw_err_name(e), bw_error_message());
        e = bw_transaction_abort(a.producer, PATIENCE_MS);
        if (e != BW_ERR_INVALID_TXN_STATE) check(e, "abort"); /* there is none when gathering failed */
        rewind_all(a.consumer);
    }
}

/* ---- upload ---- */

/* A connection, or -1. */
static int connect_to(const char *host, const char *port)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    int fd = -1;
    if (getaddrinfo(host, port, &hints, &found)) return -1;
    for (struct addrinfo *a = found; a && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, a->ai_socktype, a->ai_protocol);
        if (fd >= 0 && connect(fd, a->ai_addr, a->ai_addrlen)) {
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(found);
    return fd;
}

/* One PUT; the status, or -1 when there was none. */
static int put(const char *host, const char *port, const bw_message *m)
{
    char head[400], answer[64] = "";
    size_t got = 0;
    int status = -1, fd = connect_to(host, port);
    if (fd < 0) return -1;
    int n = snprintf(head, sizeof head,
                     "PUT /uploads/%d-%" PRId64 " HTTP/1.1\r\nHost: %s\r\nIf-None-Match: *\r\nContent-Type: application/json\r\n"
                     "Content-Length: %u\r\nConnection: close\r\n\r\n",
                     (int)m->partition, m->record.offset, host, m->record.value_len);
    if (send(fd, head, (size_t)n, MSG_NOSIGNAL) == n &&
        send(fd, m->record.value, m->record.value_len, MSG_NOSIGNAL) == (ssize_t)m->record.value_len) {
        ssize_t k;
        while (got < sizeof answer - 1 && (k = recv(fd, answer + got, sizeof answer - 1 - got, 0)) > 0) got += (size_t)k;
        if (sscanf(answer, "HTTP/1.%*d %d", &status) != 1) status = -1;
    }
    close(fd);
    return status;
}

static _Noreturn void upload(bw_bus *bus, const char *host, const char *port)
{
    const char *topic = "uploads";
    bw_queue_options o = BW_QUEUE_OPTIONS_INIT;
    bw_queue *queue;
    o.group = "upload";
    o.topics = &topic;
    o.topic_count = 1;
    o.isolation = BW_QUEUE_COMMITTED; /* nothing of a transaction that is aborted yet */
    o.lease_ms = 30000;
    o.max_deliveries = 1000; /* only what the cloud refuses is a dead letter, never what a dead uploader held */
    o.max_records = 10;
    check(bw_queue_open(bus, &o, &queue), "open the queue");
    for (;;) {
        bw_message m;
        bw_err e = bw_queue_poll(queue, 1000, &m);
        if (e == BW_ERR_TIMED_OUT || e == BW_ERR_NOT_CONNECTED || e == BW_ERR_NO_COORDINATOR) continue;
        check(e, "poll the queue");
        int status;
        while ((status = put(host, port, &m)) < 0 || status >= 500) { /* the cloud is away: ours it stays */
            e = bw_queue_renew(queue, &m);
            if (e) break;
            pause_ms(200);
        }
        if (status < 0 || status >= 500) continue; /* the lease was lost: somebody else has it */
        if (status == 200 || status == 201 || status == 412) e = bw_queue_ack_sync(queue, &m, PATIENCE_MS);
        else e = bw_queue_reject(queue, &m);
        if (e) fprintf(stderr, "gateway: upload %" PRId64 " comes again: %s: %s\n", m.record.offset, bw_err_name(e), bw_error_message());
    }
}

int main(int argc, char **argv)
{
    const char *part = argc > 2 ? argv[1] : "";
    bw_bus *bus = NULL;
    if (argc > 2) check(bw_bus_open(argv[2], NULL, &bus), "open the bus");
    int rc = -1;
    if (!strcmp(part, "setup") && argc == 3) rc = setup(bus);
    if (!strcmp(part, "sensor") && argc == 6) rc = sensor(bus, atoi(argv[3]), atoll(argv[4]), atoi(argv[5]));
    if (rc >= 0) {
        bw_bus_close(bus);
        return rc;
    }
    if (!strcmp(part, "aggregate") && argc == 4) aggregate(bus, argv[3]);
    char *colon = argc == 4 ? strrchr(argv[3], ':') : NULL;
    if (!strcmp(part, "upload") && colon) {
        *colon = '\0';
        upload(bus, argv[3], colon + 1);
    }
    bw_bus_close(bus);
    fprintf(stderr, "usage: gateway setup URL | sensor URL NUMBER COUNT RATE | aggregate URL NAME | upload URL HOST:PORT\n");
    return 2;
}
