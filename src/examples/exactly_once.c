/* exactly_once.c: read, process, write: each record of the input has its result in the output once, whatever is killed, and when.
 *
 *     exactly_once URL GROUP INPUT OUTPUT PARTITION
 *
 * The results and the position in the input are one transaction. Killed before its commit: neither is there, and the next run begins
 * where the last committed one ended. The transactional id belongs to the partition: when a second program is started for it, the first
 * one is fenced, even if it was only asleep. Whoever reads the output reads it with isolation committed. */
#include <busway/busway.h>
#include <stdio.h>
#include <stdlib.h>

enum { PATIENCE_MS = 60000 };

static const char *group, *input, *output;
static int partition;

static void check(bw_err e, const char *what)
{
    if (e == BW_OK) return;
    fprintf(stderr, "%s: %s: %s\n", what, bw_err_name(e), bw_error_message());
    exit(1);
}

/* What this program is about: here the result is the record itself. */
static void process(const bw_record_view *in, bw_record *out)
{
    *out = (bw_record){.key = in->key, .key_len = in->key_len, .value = in->value, .value_len = in->value_len,
                       .timestamp_ms = BW_NO_TIMESTAMP};
}

/* Begin, or begin again, at what was committed. */
static void rewind_input(bw_consumer *consumer)
{
    bw_topic_partition at = {.topic = input, .partition = partition};
    check(bw_consumer_committed(consumer, &at, 1, PATIENCE_MS), "committed offset");
    check(at.error, "committed offset");
    check(bw_consumer_seek(consumer, input, partition, at.offset == BW_OFFSET_INVALID ? BW_OFFSET_BEGINNING : at.offset), "seek");
}

/* One batch of the input in one transaction. An error: nothing has happened, if the transaction is aborted. */
static bw_err work(bw_consumer *consumer, bw_producer *producer, bw_batch *batch)
{
    bw_record_view in;
    bw_group_metadata member;
    bw_err e = bw_transaction_begin(producer);
    while (!e && bw_batch_next(batch, &in) == 1) {
        bw_record out;
        process(&in, &out);
        e = bw_producer_send(producer, output, partition, &out, NULL, NULL, PATIENCE_MS);
    }
    bw_topic_partition next = {.topic = input, .partition = partition, .offset = batch->last_offset + 1, .leader_epoch = -1};
    if (!e) e = bw_consumer_group_metadata(consumer, &member);
    if (!e) e = bw_transaction_send_offsets(producer, &member, &next, 1, PATIENCE_MS);
    if (!e) e = bw_transaction_commit(producer, PATIENCE_MS);
    return e;
}

int main(int argc, char **argv)
{
    if (argc != 6) {
        fprintf(stderr, "usage: exactly_once URL GROUP INPUT OUTPUT PARTITION\n");
        return 2;
    }
    group = argv[2], input = argv[3], output = argv[4], partition = atoi(argv[5]);
    char id[300];
    snprintf(id, sizeof id, "%s-%s-%d", group, input, partition);

    bw_bus *bus;
    check(bw_bus_open(argv[1], NULL, &bus), "open the bus");

    bw_producer *producer;
    bw_producer_options sends = BW_PRODUCER_OPTIONS_INIT;
    sends.transactional_id = id;
    check(bw_producer_open(bus, &sends, &producer), "open the producer");
    check(bw_transactions_init(producer, PATIENCE_MS), "init transactions"); /* first: ends what an earlier run left */

    bw_consumer *consumer;
    bw_consumer_options reads = BW_CONSUMER_OPTIONS_INIT;
    reads.group_id = group;
    reads.enable_auto_commit = false; /* the transaction does that */
    reads.isolation = BW_READ_COMMITTED;
    check(bw_consumer_open(bus, &reads, &consumer), "open the consumer");
    check(bw_consumer_assign(consumer, input, partition, BW_OFFSET_BEGINNING), "assign");
    rewind_input(consumer);

    for (;;) {
        bw_batch batch;
        bw_err e = bw_consumer_poll(consumer, 1000, &batch);
        if (e == BW_ERR_TIMED_OUT || e == BW_ERR_NOT_CONNECTED) continue;
        check(e, "poll");
        if ((e = work(consumer, producer, &batch)) == BW_OK) continue;
        fprintf(stderr, "aborted: %s: %s\n", bw_err_name(e), bw_error_message());
        check(bw_transaction_abort(producer, PATIENCE_MS), "abort"); /* PRODUCER_FENCED: another one does our work */
        rewind_input(consumer);
    }
}
