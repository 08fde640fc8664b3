/* tests/crash/admin.c: an administrator: makes, alters and deletes topics, and in one topic of its own writes and deletes records,
 * so that the kill points of those ways are passed. A topic that was made is there until its deletion began; one that was deleted
 * never comes back. */
#include "crash/crash.h"

#include <busway/busway.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FILL_BATCHES = 12, FILL_BYTES = 16000, WIDE_PARTITIONS = 40 };
#define FILL_TOPIC "filled"
#define WIDE_TOPIC "wide"

static void tell(crash_kind kind, uint32_t number)
{
    crash_report(&(crash_message){.kind = (uint8_t)kind, .producer = number});
}

static void name_of(char out[32], uint32_t number) { snprintf(out, 32, "made-%u", number); }

static bw_bus *open_bus(const char *url)
{
    bw_bus_options o = BW_BUS_OPTIONS_INIT;
    bw_bus *bus;
    o.connect_timeout_ms = 1000;
    o.request_timeout_ms = 5000;
    return bw_bus_open(url, &o, &bus) == BW_OK ? bus : NULL;
}

static void make_and_delete(bw_bus *bus, crash_random *random, uint32_t number)
{
    char name[32];
    name_of(name, number);
    const bw_config_entry config = {"segment.bytes", "65536"}, change = {"retention.ms", "3600000"};
    tell(CRASH_TOPIC_TRY, number);
    if (bw_topic_create(bus, name, 1 + (int)crash_below(random, 3), &config, 1) != BW_OK) return;
    tell(CRASH_TOPIC_MADE, number);
    (void)bw_topic_alter(bus, name, 4, &change, 1);
    if (crash_below(random, 4) == 0) return; /* stays */
    tell(CRASH_TOPIC_DELETING, number);
    if (bw_topic_delete(bus, name) == BW_OK) tell(CRASH_TOPIC_DELETED, number);
}

/* Fills a few segments and deletes them. */
static void fill_and_delete_records(bw_bus *bus)
{
    static uint8_t value[FILL_BYTES];
    const bw_config_entry config[] = {{"segment.bytes", "65536"}, {"file.delete.delay.ms", "0"}};
    bw_err e = bw_topic_create(bus, FILL_TOPIC, 1, config, 2);
    if (e && e != BW_ERR_TOPIC_EXISTS) return;
    bw_producer_options o = BW_PRODUCER_OPTIONS_INIT;
    o.delivery_timeout_ms = 5000;
    bw_producer *producer;
    if (bw_producer_open(bus, &o, &producer) != BW_OK) return;
    bw_record r = {.value = value, .value_len = sizeof value, .timestamp_ms = BW_NO_TIMESTAMP};
    bw_delivery d = {.offset = 0};
    e = BW_OK;
    for (int i = 0; i < FILL_BATCHES && !e; i++) e = bw_producer_send_sync(producer, FILL_TOPIC, 0, &r, 5000, &d);
    bw_producer_close(producer, 5000);
    int64_t start;
    if (!e && bw_delete_records(bus, FILL_TOPIC, 0, d.offset, &start) == BW_OK && start != d.offset)
        crash_bad("records before %lld were deleted, the log starts at %lld", (long long)d.offset, (long long)start);
}

/* A topic of many partitions, each written to now and then: more files than a daemon may keep open. */
static void write_wide(bw_bus *bus, crash_random *random)
{
    const bw_config_entry config = {"segment.bytes", "65536"};
    bw_err e = bw_topic_create(bus, WIDE_TOPIC, WIDE_PARTITIONS, &config, 1);
    if (e && e != BW_ERR_TOPIC_EXISTS) return;
    bw_producer_options o = BW_PRODUCER_OPTIONS_INIT;
    o.delivery_timeout_ms = 5000;
    bw_producer *producer;
    if (bw_producer_open(bus, &o, &producer) != BW_OK) return;
    bw_record r = {.value = "wide", .value_len = 4, .timestamp_ms = BW_NO_TIMESTAMP};
    uint32_t first = crash_below(random, WIDE_PARTITIONS);
    for (uint32_t i = 0; i < WIDE_PARTITIONS && !e && !crash_stopping(); i++)
        e = bw_producer_send_sync(producer, WIDE_TOPIC, (int32_t)((first + i) % WIDE_PARTITIONS), &r, 5000, NULL);
    bw_producer_close(producer, 5000);
}

int crash_admin(int argc, char **argv)
{
    if (argc < 3) return 2;
    crash_random random;
    crash_seed(&random, (uint64_t)atoll(argv[1]));
    uint32_t number = (uint32_t)atol(argv[2]);
    while (!crash_stopping()) {
        bw_bus *bus = open_bus(argv[0]);
        for (int i = 0; bus && i < 8 && !crash_stopping(); i++) {
            if (crash_below(&random, 4) == 0) fill_and_delete_records(bus);
            else if (getenv("CRASH_FILES") && crash_below(&random, 4) == 0) write_wide(bus, &random);
            else make_and_delete(bus, &random, number++);
            usleep(20000);
        }
        bw_bus_close(bus);
        usleep(5000);
    }
    crash_report(&(crash_message){.kind = CRASH_DONE});
    return 0;
}

int crash_topics(int argc, char **argv)
{
    if (argc < 1) return 2;
    bw_bus *bus = open_bus(argv[0]);
    char *json = NULL;
    if (!bus || bw_topics_describe(bus, NULL, &json) != BW_OK) {
        crash_bad("cannot list the topics: %s", bw_error_message());
        bw_bus_close(bus);
        return 0;
    }
    for (const char *at = json; (at = strstr(at, "\"made-")) != NULL; at += 6) {
        uint32_t number;
        if (sscanf(at, "\"made-%u\"", &number) == 1) tell(CRASH_TOPIC_SEEN, number);
    }
    bw_free(json);
    bw_bus_close(bus);
    crash_report(&(crash_message){.kind = CRASH_DONE});
    return 0;
}
