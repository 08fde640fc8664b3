/* bench/durable.c: what it costs to know that a batch is on the disk.
 *
 * Bare: one process that does pwrite and fdatasync, one batch after the other, of the same bytes at the same positions as Busway's
 * producer, in a file that grows by fallocate in the same steps as Busway's segment does (64 KiB, then each twice the last, asked
 * for when half of the newest is used). The time of the fallocate is not counted; what it makes the next sync cost is.
 * Beside many: the same with one fdatasync for each BENCH_DURABLE_DEPTH batches.
 * One at a time: bw_producer_send_batch with acks durable; each call returns when the batch is on the disk.
 * Many: bw_producer_send with acks durable, a record at a time, with BENCH_DURABLE_DEPTH batches of `batch` records not acknowledged; the
 * figure is what was acknowledged a second. A batch is full when its last record was sent, so that all have the same bytes.
 * The round trips of the case are batches; a tenth more of them go first and are not timed. No process is pinned: the disk's
 * interrupt, the daemon and the producer are where the system puts them, as the bare process is. */
#include "bench.h"

#include <busway/busway.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WAIT_MS    20000
#define FIXED_MS   INT64_C(1700000000000) /* of every record, so that every batch has the same bytes */
#define FIRST_STEP (64u << 10)
#define MOST_STEP  (64u << 20)

/* ---- bare ---- */

typedef struct bare_file {
    int fd;
    uint64_t bytes, step;
} bare_file;

static bool bare_grow(const bench_run *run, bare_file *f, uint64_t position, uint32_t len)
{
    while (f->bytes < position + len || f->bytes - position < f->step / 2) {
        f->step = f->step == 0 ? FIRST_STEP : f->step * 2 > MOST_STEP ? MOST_STEP : f->step * 2;
        if (fallocate(f->fd, 0, (off_t)f->bytes, (off_t)f->step) != 0)
            return bench_fail(run->shared, "fallocate: %s", strerror(errno));
        f->bytes += f->step;
    }
    return true;
}

bool bench_durable_bare_role(const bench_run *run, uint32_t index)
{
    (void)index;
    char name[PATH_MAX];
    uint32_t len, warm = run->c->round_trips / 10;
    uint8_t *batch = bench_batch_build(run->c->batch, run->c->record_bytes, &len);
    bare_file f = {.fd = -1};
    if (snprintf(name, sizeof name, "%s/bare.log", run->dir) < (int)sizeof name)
        f.fd = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (!batch || f.fd < 0) return bench_fail(run->shared, "open %s: %s", name, strerror(errno));
    uint32_t group = run->c->kind == BENCH_DURABLE_MANY ? BENCH_DURABLE_DEPTH : 1;
    for (uint32_t i = 0; i < warm + run->c->round_trips; i++) {
        uint64_t position = (uint64_t)i * len;
        if (i <= warm) run->shared->writer[0].start_ns = bench_now_ns();
        if (!bare_grow(run, &f, position, len)) return false;
        uint64_t before = bench_now_ns();
        if (pwrite(f.fd, batch, len, (off_t)position) != (ssize_t)len || ((i + 1) % group == 0 && fdatasync(f.fd) != 0))
            return bench_fail(run->shared, "write and fdatasync: %s", strerror(errno));
        if (i >= warm && group == 1) run->shared->sample_ns[run->shared->samples++] = bench_now_ns() - before;
    }
    run->shared->writer[0].end_ns = bench_now_ns();
    close(f.fd);
    free(batch);
    return true;
}

/* ---- Busway ---- */

typedef struct producer {
    bw_bus *bus;
    bw_producer *producer;
    bw_record *records;
    uint8_t *values;
    uint64_t acknowledged; /* records; by the callback, in the thread that polls */
    bw_err failure;
} producer;

static bool failed(const bench_run *run, const char *what)
{
    return bench_fail(run->shared, "%s on topic %s: %s", what, run->topic, bw_error_message());
}

static bool producer_open(producer *p, const bench_run *run)
{
    const bench_case *c = run->c;
    bw_bus_options b = BW_BUS_OPTIONS_INIT;
    bw_producer_options o = BW_PRODUCER_OPTIONS_INIT;
    b.transport = strcmp(c->transport, "ipc") == 0 ? BW_TRANSPORT_IPC : BW_TRANSPORT_DIRECT;
    o.acks = BW_ACKS_DURABLE;
    o.batch_size = run->encoded_bytes;
    o.linger_ms = 1000; /* a batch goes when it is full */
    *p = (producer){.records = calloc(c->batch, sizeof *p->records), .values = malloc((size_t)c->batch * c->record_bytes)};
    if (!p->records || !p->values) return bench_fail(run->shared, "out of memory");
    for (uint32_t i = 0; i < c->batch; i++) {
        uint8_t *value = p->values + (size_t)i * c->record_bytes;
        bench_value_fill(value, c->record_bytes, i);
        p->records[i] = (bw_record){.value = value, .value_len = c->record_bytes, .timestamp_ms = FIXED_MS};
    }
    if (bw_bus_open(run->bus_url, &b, &p->bus) != BW_OK) return failed(run, "open the bus");
    return bw_producer_open(p->bus, &o, &p->producer) == BW_OK || failed(run, "open a producer");
}

static void producer_close(producer *p)
{
    bw_producer_close(p->producer, WAIT_MS);
    bw_bus_close(p->bus);
    free(p->records);
    free(p->values);
}

bool bench_durable_one_role(const bench_run *run, uint32_t index)
{
    (void)index;
    producer p;
    uint32_t warm = run->c->round_trips / 10;
    if (!producer_open(&p, run)) return false;
    for (uint32_t i = 0; i < warm + run->c->round_trips; i++) {
        uint64_t before = bench_now_ns();
        if (bw_producer_send_batch(p.producer, run->topic, 0, p.records, run->c->batch, WAIT_MS, NULL) != BW_OK)
            return failed(run, "send");
        if (i >= warm) run->shared->sample_ns[run->shared->samples++] = bench_now_ns() - before;
    }
    producer_close(&p);
    return true;
}

static void on_delivery(void *opaque, const bw_delivery *d)
{
    producer *p = opaque;
    p->acknowledged++;
    if (d->error) p->failure = d->error;
}

/* Until at most `most` records are not acknowledged; 0: what is not full goes as well. */
static bool wait_room(const bench_run *run, producer *p, uint64_t sent, uint64_t most)
{
    if (most == 0 && bw_producer_flush(p->producer, WAIT_MS) != BW_OK) return failed(run, "flush");
    while (sent - p->acknowledged > most)
        if (bw_producer_poll(p->producer, WAIT_MS) == 0) return bench_fail(run->shared, "no acknowledgement came");
    return p->failure == BW_OK || bench_fail(run->shared, "a batch failed: %s", bw_err_name(p->failure));
}

bool bench_durable_many_role(const bench_run *run, uint32_t index)
{
    (void)index;
    producer p;
    const bench_case *c = run->c;
    uint64_t most = (uint64_t)BENCH_DURABLE_DEPTH * c->batch, sent = 0, warm = c->round_trips / 10;
    if (!producer_open(&p, run)) return false;
    for (uint64_t i = 0; i < warm + c->round_trips; i++) {
        if (i == warm) {
            if (!wait_room(run, &p, sent, 0)) return false;
            run->shared->writer[0].start_ns = bench_now_ns();
        }
        if (!wait_room(run, &p, sent, most - c->batch)) return false;
        for (uint32_t k = 0; k < c->batch; k++)
            if (bw_producer_send(p.producer, run->topic, 0, &p.records[k], on_delivery, &p, WAIT_MS) != BW_OK) return failed(run, "send");
        sent += c->batch;
    }
    if (!wait_room(run, &p, sent, 0)) return false;
    run->shared->writer[0].end_ns = bench_now_ns();
    producer_close(&p);
    return true;
}
