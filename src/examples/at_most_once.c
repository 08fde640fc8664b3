/* at_most_once.c: say how far, then process. Nothing is done twice; after a death some may not be done at all.
 *
 *     at_most_once URL GROUP INPUT OUTPUT PARTITION
 *
 * The position is committed ahead of the work. Killed in between: the next run goes on behind it. Fit for what is better left out than
 * done twice: a siren, a measurement of which the next one comes in a moment. */
#include <busway/busway.h>
#include <stdio.h>
#include <stdlib.h>

enum { PATIENCE_MS = 60000 };

static void check(bw_err e, const char *what)
{
    if (e == BW_OK) return;
    fprintf(stderr, "%s: %s: %s\n", what, bw_err_name(e), bw_error_message());
    exit(1);
}

int main(int argc, char **argv)
{
    if (argc != 6) {
        fprintf(stderr, "usage: at_most_once URL GROUP INPUT OUTPUT PARTITION\n");
        return 2;
    }
    const char *group = argv[2], *input = argv[3], *output = argv[4];
    int partition = atoi(argv[5]);

    bw_bus *bus;
    check(bw_bus_open(argv[1], NULL, &bus), "open the bus");
    bw_producer *producer;
    check(bw_producer_open(bus, NULL, &producer), "open the producer");
    bw_consumer *consumer;
    bw_consumer_options reads = BW_CONSUMER_OPTIONS_INIT;
    reads.group_id = group;
    reads.enable_auto_commit = false;
    check(bw_consumer_open(bus, &reads, &consumer), "open the consumer");

    bw_topic_partition at = {.topic = input, .partition = partition};
    check(bw_consumer_assign(consumer, input, partition, BW_OFFSET_BEGINNING), "assign");
    check(bw_consumer_committed(consumer, &at, 1, PATIENCE_MS), "committed offset");
    if (at.offset != BW_OFFSET_INVALID) check(bw_consumer_seek(consumer, input, partition, at.offset), "seek");

    for (;;) {
        bw_batch batch;
        bw_record_view in;
        bw_err e = bw_consumer_poll(consumer, 1000, &batch);
        if (e == BW_ERR_TIMED_OUT || e == BW_ERR_NOT_CONNECTED) continue;
        check(e, "poll");
        at.offset = batch.last_offset + 1; /* 1: it is said */
        at.leader_epoch = -1;
        at.metadata = NULL;
        check(bw_consumer_commit(consumer, &at, 1, PATIENCE_MS), "commit");
        while (bw_batch_next(&batch, &in) == 1) { /* 2: then the work is done */
            bw_record out = {.value = in.value, .value_len = in.value_len, .timestamp_ms = BW_NO_TIMESTAMP};
            check(bw_producer_send_sync(producer, output, partition, &out, PATIENCE_MS, NULL), "send");
        }
    }
}
