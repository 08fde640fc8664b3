/* memory.c: does the memory of a C program grow while records go through it? memory.py and memory.go do the same in Python and Go.
 *
 *     memory URL RECORDS
 *
 * Sends and reads RECORDS records of 100 bytes with a key and a header, a thousand at a time, each thousand in another way (batch, many, one
 * by one, asynchronous, reserved), and opens a second producer and consumer each hundred thousand. Prints "at N anon KIB" each tenth, where
 * KIB is this process's own memory (RssAnon: the log's pages are not its own). The test compares the lines: tests/integration/memory.sh. */
#include <busway/busway.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { AT_ONCE = 1000, SIZE = 100, PATIENCE_MS = 60000, OPEN_EACH = 100 };

static void check(bw_err e, const char *what)
{
    if (e == BW_OK) return;
    fprintf(stderr, "memory.c: %s: %s: %s\n", what, bw_err_name(e), bw_error_message());
    exit(1);
}

static long anon_kib(void)
{
    char line[256];
    long kib = -1;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "RssAnon: %ld", &kib) == 1) break;
    if (f) fclose(f);
    return kib;
}

static void delivered(void *opaque, const bw_delivery *d)
{
    check(d->error, "delivery");
    ++*(int *)opaque;
}

static void send_some(bw_producer *p, int way, bw_record *records)
{
    int told = 0;
    bw_reservation room;
    switch (way) {
    case 0: check(bw_producer_send_batch(p, "t", 0, records, AT_ONCE, PATIENCE_MS, NULL), "send_batch"); break;
    case 1: check(bw_producer_send_many(p, "t", 0, records, AT_ONCE, PATIENCE_MS, NULL), "send_many"); break;
    case 2:
        for (int i = 0; i < AT_ONCE; i++) check(bw_producer_send_sync(p, "t", 0, &records[i], PATIENCE_MS, NULL), "send_sync");
        break;
    case 3:
        for (int i = 0; i < AT_ONCE; i++) check(bw_producer_send(p, "t", 0, &records[i], delivered, &told, PATIENCE_MS), "send");
        check(bw_producer_flush(p, PATIENCE_MS), "flush");
        if (told != AT_ONCE) check(BW_ERR_INTERNAL, "outcomes are missing");
        break;
    default:
        for (int i = 0; i < AT_ONCE; i++) {
            check(bw_producer_reserve(p, "t", 0, &records[i], SIZE, PATIENCE_MS, &room), "reserve");
            memcpy(room.value, records[i].value, SIZE);
            check(bw_producer_commit(p, &room, SIZE, PATIENCE_MS, NULL), "commit");
        }
    }
}

static void read_some(bw_consumer *c)
{
    bw_batch b;
    bw_record_view r[256];
    bw_header_iter it;
    bw_header h;
    int32_t n;
    for (int got = 0; got < AT_ONCE;) {
        check(bw_consumer_poll(c, PATIENCE_MS, &b), "poll");
        while ((n = bw_batch_records(&b, r, 256)) > 0) {
            got += n;
            for (int32_t i = 0; i < n; i++) {
                if (r[i].value_len != SIZE) check(BW_ERR_CORRUPT, "a value's length");
                bw_header_iter_init(&it, &r[i]);
                if (bw_header_iter_next(&it, &h) != 1) check(BW_ERR_CORRUPT, "a header is missing");
            }
        }
        if (n < 0) check(BW_ERR_CORRUPT, "a batch");
    }
}

/* What is opened must be freed with it. */
static void open_and_close(bw_bus *bus)
{
    bw_producer *p;
    bw_consumer *c;
    char *text;
    check(bw_producer_open(bus, NULL, &p), "open");
    check(bw_consumer_open(bus, NULL, &c), "open");
    check(bw_consumer_assign(c, "t", 0, BW_OFFSET_END), "assign");
    bw_free(bw_bus_stats(bus));
    check(bw_topics_describe(bus, NULL, &text), "describe");
    bw_free(text);
    if (bw_consumer_assign(c, "no such topic", 0, BW_OFFSET_END) == BW_OK) check(BW_ERR_INTERNAL, "it should not be there");
    bw_consumer_close(c);
    check(bw_producer_close(p, PATIENCE_MS), "close");
}

int main(int argc, char **argv)
{
    static char value[SIZE];
    static bw_record records[AT_ONCE];
    static bw_header header = {"h", 1, "v", 1};
    static const bw_config_entry config[] = {{"retention.bytes", "67108864"}, {"segment.bytes", "16777216"}};
    if (argc != 3) return fprintf(stderr, "usage: memory URL RECORDS\n"), 2;
    int64_t total = atoll(argv[2]), tenth = total / 10;
    bw_bus *bus;
    bw_producer *p;
    bw_consumer *c;
    memset(value, 'v', sizeof value);
    for (int i = 0; i < AT_ONCE; i++)
        records[i] = (bw_record){.key = "key", .key_len = 3, .value = value, .value_len = SIZE, .headers = &header, .header_count = 1,
                                 .timestamp_ms = BW_NO_TIMESTAMP};
    check(bw_bus_open(argv[1], NULL, &bus), "open the bus");
    check(bw_topic_create(bus, "t", 1, config, 2), "topic");
    check(bw_producer_open(bus, NULL, &p), "open the producer");
    check(bw_consumer_open(bus, NULL, &c), "open the consumer");
    check(bw_consumer_assign(c, "t", 0, 0), "assign");
    for (int64_t n = 0, round = 0, said = 0; n < total; round++) {
        send_some(p, (int)(round % 5), records);
        read_some(c);
        if (round % OPEN_EACH == 0) open_and_close(bus);
        n += AT_ONCE;
        if (n / tenth == said) continue;
        said = n / tenth;
        printf("at %" PRId64 " anon %ld\n", n, anon_kib());
        fflush(stdout);
    }
    bw_consumer_close(c);
    check(bw_producer_close(p, PATIENCE_MS), "close");
    bw_bus_close(bus);
    return 0;
}
