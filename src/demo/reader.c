/* demo/reader.c: reads everything from the beginning and writes down what it saw where, and how long it took to get there. */
#include "demo/demo.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct seen {
    demo_entry *entries;
    size_t count, room;
} seen;

static bool remember(seen *s, const demo_entry *e)
{
    if (s->count == s->room) {
        size_t room = s->room ? s->room * 2 : 65536;
        demo_entry *grown = realloc(s->entries, room * sizeof *grown);
        if (!grown) return false;
        s->entries = grown;
        s->room = room;
    }
    s->entries[s->count++] = *e;
    return true;
}

static bool journal_write(demo *d, int which, const seen *s)
{
    char path[320];
    demo_journal_path(d, demo_reader_names[which], path, sizeof path);
    FILE *f = fopen(path, "wbe");
    bool ok = f && fwrite(s->entries, sizeof *s->entries, s->count, f) == s->count;
    if (f && fclose(f) != 0) ok = false;
    if (!ok) demo_fail("%s: %s", path, strerror(errno));
    return ok;
}

static bw_err open_on(demo *d, int which, bw_transport transport, bw_bus **bus, bw_consumer **consumer)
{
    bw_bus_options options = BW_BUS_OPTIONS_INIT;
    options.client_id = which == DEMO_DIRECT ? "demo-reader-direct" : "demo-reader-socket";
    options.transport = transport;
    bw_err e = bw_bus_open(d->url, &options, bus);
    if (e == BW_OK) e = bw_consumer_open(*bus, NULL, consumer);
    for (int t = 0; t < DEMO_TOPICS && e == BW_OK; t++)
        e = bw_consumer_assign(*consumer, demo_topic_names[t], BW_PARTITION_ANY, BW_OFFSET_BEGINNING);
    return e;
}

/* Read on the wanted path; where shared memory is refused, say why and go on as any program would. */
static bool open_reader(demo *d, int which, bw_bus **bus, bw_consumer **consumer)
{
    bw_err e = open_on(d, which, which == DEMO_DIRECT ? BW_TRANSPORT_DIRECT : BW_TRANSPORT_IPC, bus, consumer);
    if (e != BW_OK && which == DEMO_DIRECT) {
        snprintf(d->shared->reader[which].why_not, sizeof d->shared->reader[which].why_not, "%s", bw_error_message());
        atomic_store(&d->shared->reader[which].fell_back, 1);
        bw_consumer_close(*consumer);
        bw_bus_close(*bus);
        *consumer = NULL;
        *bus = NULL;
        e = open_on(d, which, BW_TRANSPORT_AUTO, bus, consumer);
    }
    if (e != BW_OK) demo_fail_bw("a reader cannot start");
    return e == BW_OK;
}

static bool read_batch(demo *d, int which, seen *s, bw_batch *batch)
{
    demo_shared *shared = d->shared;
    uint32_t topic = strcmp(batch->topic, demo_topic_names[DEMO_PACKAGES]) == 0 ? DEMO_PACKAGES : DEMO_SENSORS;
    bw_record_view r;
    int more;
    int64_t now = demo_now_ns();
    while ((more = bw_batch_next(batch, &r)) == 1) {
        int64_t seq, ns;
        if (!demo_record_identity(&r, &seq, &ns))
            return demo_fail("a record without identity at %s %" PRId32 "/%" PRId64, batch->topic, batch->partition, r.offset),
                   false;
        demo_entry e = {topic,   batch->partition, r.offset, seq, demo_hash(r.key, r.key_len, r.value, r.value_len, seq, ns),
                        now - ns};
        if (!remember(s, &e)) return demo_fail("out of memory"), false;
        atomic_fetch_add_explicit(&shared->reader[which].histogram[demo_bucket(e.latency_ns)], 1, memory_order_relaxed);
    }
    if (more < 0) return demo_fail_bw("a broken batch"), false;
    atomic_store_explicit(&shared->reader[which].records, s->count, memory_order_relaxed);
    return true;
}

int demo_reader_run(demo *d, int which)
{
    demo_shared *shared = d->shared;
    bw_bus *bus = NULL;
    bw_consumer *consumer = NULL;
    seen s = {0};
    if (!open_reader(d, which, &bus, &consumer)) return 1;
    bool ok = true;
    atomic_store(&shared->reader[which].ready, 1);
    while (ok && !(atomic_load(&shared->stop) && s.count >= atomic_load(&shared->target))) {
        bw_batch batch;
        bw_err e = bw_consumer_poll(consumer, 50, &batch);
        if (e == BW_OK)
            ok = read_batch(d, which, &s, &batch);
        else if (e != BW_ERR_TIMED_OUT && e != BW_ERR_WOKEN) {
            demo_fail_bw("a reader failed");
            ok = false;
        }
        if (e == BW_ERR_TIMED_OUT && atomic_load(&shared->stop) == 2) break; /* the conductor gave up waiting */
    }
    ok = journal_write(d, which, &s) && ok;
    bw_consumer_close(consumer);
    bw_bus_close(bus);
    free(s.entries);
    return ok ? 0 : 1;
}
