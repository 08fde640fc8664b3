/* demo/producer.c: sends this machine's events; may be killed at any instruction and started again.
 *
 * Where was I? Nothing is remembered outside the bus: a new life reads the log. For the package manager's log it finds which
 * lines are there and sends the others; for the sensors it goes on counting. The ack journal gets an entry only after the bus
 * said that the record is acknowledged, and before anything else is done with that knowledge.
 *
 * Lines go out asynchronously (batched by the library), samples one by one with the synchronous call. */
#include "demo/demo.h"
#include "demo/source.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SAMPLE_EACH_NS  25000000
#define SENSOR_PAUSE_NS 50000 /* between two sensors of one sample: they speak one after the other, not all at once */
#define JOURNAL_ROOM    256

typedef struct producer {
    demo *d;
    bw_bus *bus;
    bw_producer *producer;
    demo_lines lines;
    uint8_t *there; /* a byte a line: it is in the log */
    size_t next_line;
    int64_t next_sample_seq;
    demo_entry journal[JOURNAL_ROOM];
    size_t journal_len;
    int journal_fd;
    bool failed;
} producer;

/* A line on its way; freed in the callback. */
typedef struct sent {
    producer *p;
    int64_t seq;
    uint64_t hash;
} sent;

static void journal_flush(producer *p)
{
    const char *at = (const char *)p->journal;
    size_t left = p->journal_len * sizeof *p->journal;
    while (left) {
        ssize_t n = write(p->journal_fd, at, left);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            demo_fail("journal: %s", strerror(errno));
            p->failed = true;
            return;
        }
        at += n;
        left -= (size_t)n;
    }
    p->journal_len = 0;
}

static void acknowledged(producer *p, uint32_t topic, int64_t seq, uint64_t hash, const bw_delivery *delivery)
{
    if (delivery->error != BW_OK) {
        demo_fail("%s %" PRId64 " was not delivered: %s", demo_topic_names[topic], seq,
                  delivery->message ? delivery->message : bw_err_text(delivery->error));
        p->failed = true;
        return;
    }
    p->journal[p->journal_len++] = (demo_entry){topic, delivery->partition, delivery->offset, seq, hash, 0};
    if (p->journal_len == JOURNAL_ROOM) journal_flush(p);
    atomic_fetch_add_explicit(&p->d->shared->acknowledged, 1, memory_order_relaxed);
}

static void on_delivery(void *opaque, const bw_delivery *delivery)
{
    sent *s = opaque;
    acknowledged(s->p, DEMO_PACKAGES, s->seq, s->hash, delivery);
    free(s);
}

/* The identity headers in the caller's buffers. */
static void identity(bw_header headers[2], char text[2][24], int64_t seq, int64_t ns)
{
    snprintf(text[0], 24, "%" PRId64, seq);
    snprintf(text[1], 24, "%" PRId64, ns);
    headers[0] = (bw_header){"seq", 3, text[0], strlen(text[0])};
    headers[1] = (bw_header){"ns", 2, text[1], strlen(text[1])};
}

static void send_line(producer *p, size_t index)
{
    const demo_line *l = &p->lines.lines[index];
    int64_t ns = demo_now_ns();
    char text[2][24];
    bw_header headers[2];
    sent *s = malloc(sizeof *s);
    if (!s) {
        p->failed = true;
        return;
    }
    identity(headers, text, (int64_t)index, ns);
    *s = (sent){p, (int64_t)index, demo_hash(l->text + l->key, l->key_len, l->text, l->len, (int64_t)index, ns)};
    bw_record r = {.key = l->key_len ? l->text + l->key : NULL,
                   .key_len = l->key_len,
                   .value = l->text,
                   .value_len = l->len,
                   .headers = headers,
                   .header_count = 2,
                   .timestamp_ms = BW_NO_TIMESTAMP};
    bw_err e = bw_producer_send(p->producer, demo_topic_names[DEMO_PACKAGES], BW_PARTITION_ANY, &r, on_delivery, s, 10000);
    if (e != BW_OK) {
        demo_fail_bw("cannot send a line");
        free(s);
        p->failed = true;
    }
}

static void send_sample(void *opaque, const char *key, size_t key_len, const char *value, size_t value_len)
{
    producer *p = opaque;
    if (p->failed) return;
    int64_t ns = demo_now_ns(), seq = p->next_sample_seq++;
    char text[2][24];
    bw_header headers[2];
    bw_delivery delivery = {0};
    identity(headers, text, seq, ns);
    bw_record r = {.key = key,
                   .key_len = key_len,
                   .value = value,
                   .value_len = value_len,
                   .headers = headers,
                   .header_count = 2,
                   .timestamp_ms = BW_NO_TIMESTAMP};
    bw_err e = bw_producer_send_sync(p->producer, demo_topic_names[DEMO_SENSORS], BW_PARTITION_ANY, &r, 10000, &delivery);
    if (e != BW_OK) {
        demo_fail_bw("cannot send a sample");
        p->failed = true;
        return;
    }
    acknowledged(p, DEMO_SENSORS, seq, demo_hash(key, key_len, value, value_len, seq, ns), &delivery);
    journal_flush(p);
    nanosleep(&(struct timespec){0, SENSOR_PAUSE_NS}, NULL);
}

/* Read what the log holds of one topic; marks lines, or finds the highest sample. */
static bool search_topic(producer *p, bw_consumer *consumer, int topic)
{
    uint64_t there = 0, read = 0;
    for (int32_t i = 0; i < DEMO_PARTITIONS; i++) {
        bw_offset_range range;
        if (bw_offsets_range(p->bus, demo_topic_names[topic], i, &range) != BW_OK ||
            bw_consumer_assign(consumer, demo_topic_names[topic], i, BW_OFFSET_BEGINNING) != BW_OK)
            return false;
        there += (uint64_t)(range.end - range.log_start);
    }
    while (read < there) {
        bw_batch batch;
        bw_record_view r;
        bw_err e = bw_consumer_poll(consumer, 5000, &batch);
        if (e != BW_OK) return false;
        for (int64_t seq, ns; bw_batch_next(&batch, &r) == 1; read++) {
            if (!demo_record_identity(&r, &seq, &ns)) continue;
            if (topic == DEMO_PACKAGES && seq < (int64_t)p->lines.count) {
                p->there[seq] = 1;
                atomic_fetch_add(&p->d->shared->found_lines, 1);
            } else if (topic == DEMO_SENSORS) {
                if (seq >= p->next_sample_seq) p->next_sample_seq = seq + 1;
                atomic_fetch_add(&p->d->shared->found_sensors, 1);
            }
        }
    }
    return bw_consumer_unassign(consumer, demo_topic_names[topic], BW_PARTITION_ANY) == BW_OK;
}

static bool search_log(producer *p)
{
    bw_consumer *consumer = NULL;
    p->there = calloc(p->lines.count + 1, 1);
    bool ok = p->there && bw_consumer_open(p->bus, NULL, &consumer) == BW_OK;
    for (int t = 0; t < DEMO_TOPICS && ok; t++) ok = search_topic(p, consumer, t);
    if (!ok) demo_fail_bw("cannot read the log to find where to go on");
    bw_consumer_close(consumer);
    return ok;
}

static bool journal_open(producer *p)
{
    char path[320];
    struct stat st;
    demo_journal_path(p->d, "acks", path, sizeof path);
    p->journal_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    /* A kill in the middle of the write leaves part of an entry. */
    if (p->journal_fd < 0 || fstat(p->journal_fd, &st) != 0 ||
        ftruncate(p->journal_fd, st.st_size / (off_t)sizeof(demo_entry) * (off_t)sizeof(demo_entry)) != 0)
        return demo_fail("%s: %s", path, strerror(errno)), false;
    return true;
}

/* Lines that are due by now, of those not there yet. */
static void send_due_lines(producer *p, int64_t now)
{
    demo_shared *s = p->d->shared;
    double share = (double)(now - atomic_load(&s->begun_ns)) / (double)atomic_load(&s->length_ns);
    size_t due = share >= 1 ? p->lines.count : share <= 0 ? 0 : (size_t)(share * (double)p->lines.count);
    for (; p->next_line < due && !p->failed; p->next_line++) {
        if (!p->there[p->next_line]) send_line(p, p->next_line);
        if (p->next_line % 64 == 0) bw_producer_poll(p->producer, 0);
    }
    atomic_store_explicit(&s->lines_done, p->next_line, memory_order_relaxed);
    if (p->next_line > 0) snprintf(s->last_event, sizeof s->last_event, "%.120s", p->lines.lines[p->next_line - 1].text);
}

static void work(producer *p)
{
    demo_shared *s = p->d->shared;
    int64_t end = atomic_load(&s->begun_ns) + atomic_load(&s->length_ns), next_sample = 0;
    unsigned round = 0;
    for (int64_t now; !p->failed && ((now = demo_now_ns()) < end || p->next_line < p->lines.count);) {
        send_due_lines(p, now);
        if (now >= next_sample) {
            demo_sample(round++, send_sample, p);
            next_sample = now + SAMPLE_EACH_NS;
        }
        bw_producer_poll(p->producer, 1);
        journal_flush(p);
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    }
    bw_err e = bw_producer_flush(p->producer, 10000);
    if (e != BW_OK && !p->failed) {
        demo_fail_bw("cannot flush");
        p->failed = true;
    }
    journal_flush(p);
}

int demo_producer_run(demo *d)
{
    producer *p = calloc(1, sizeof *p);
    if (!p) return demo_fail("out of memory");
    prctl(PR_SET_TIMERSLACK, 1000UL); /* or the pauses would be twice as long */
    p->d = d;
    p->journal_fd = -1;
    atomic_store(&d->shared->found_lines, 0);
    atomic_store(&d->shared->found_sensors, 0);
    bw_bus_options options = BW_BUS_OPTIONS_INIT;
    options.client_id = "demo-producer";
    if (!demo_lines_load(&p->lines)) return demo_fail("out of memory");
    atomic_store(&d->shared->lines, p->lines.count);
    if (bw_bus_open(d->url, &options, &p->bus) != BW_OK) return demo_fail_bw("the producer cannot open the bus");
    bw_producer_options producer_options = BW_PRODUCER_OPTIONS_INIT;
    if (!journal_open(p) || !search_log(p)) return 1;
    if (bw_producer_open(p->bus, &producer_options, &p->producer) != BW_OK) return demo_fail_bw("cannot open a producer");
    atomic_store(&d->shared->producer_ready, 1);
    work(p);
    if (bw_producer_close(p->producer, 5000) != BW_OK && !p->failed) {
        demo_fail_bw("cannot close the producer");
        p->failed = true;
    }
    journal_flush(p);
    bw_bus_close(p->bus);
    close(p->journal_fd);
    demo_lines_free(&p->lines);
    free(p->there);
    int rc = p->failed;
    free(p);
    return rc;
}
