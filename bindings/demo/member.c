/* member.c: the C member of the demonstration's group (`make demo-bindings`); member.py and member.go are the same in Python and Go.
 *
 *     member URL GROUP INPUT OUTPUT NAME
 *
 * Reads INPUT as a member of GROUP and writes each record to the same partition of OUTPUT, under NAME as key; the copies and the place that
 * was read to are one transaction. Until it is killed. On stdout, a line each: "assigned 0,3 NS", "revoked …", "lost …" with the wall clock
 * in ns, "committed N" for each transaction. */
#include <busway/busway.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { PATIENCE_MS = 60000 };

static void check(bw_err e, const char *what)
{
    if (e == BW_OK) return;
    fprintf(stderr, "member.c: %s: %s: %s\n", what, bw_err_name(e), bw_error_message());
    exit(1);
}

static void on_rebalance(bw_consumer *consumer, bw_rebalance event, const bw_topic_partition *parts, size_t count, void *opaque)
{
    static const char *const words[] = {"assigned", "revoked", "lost"};
    struct timespec t;
    (void)consumer, (void)opaque;
    clock_gettime(CLOCK_REALTIME, &t);
    printf("%s ", words[event]);
    for (size_t i = 0; i < count; i++) printf("%s%d", i ? "," : "", (int)parts[i].partition);
    printf(" %" PRId64 "\n", (int64_t)t.tv_sec * 1000000000 + t.tv_nsec);
}

/* One batch, one transaction. An error: abort, and nothing of it has happened. */
static bw_err copy(bw_producer *producer, bw_consumer *consumer, bw_batch *batch, const char *output, const char *name, int *copied)
{
    bw_record_view in;
    bw_group_metadata member;
    bw_topic_partition next = {.topic = batch->topic, .partition = batch->partition, .offset = batch->last_offset + 1, .leader_epoch = -1};
    bw_err e = bw_transaction_begin(producer);
    for (*copied = 0; !e && bw_batch_next(batch, &in) == 1; ++*copied) {
        bw_record out = {.key = name, .key_len = strlen(name), .value = in.value, .value_len = in.value_len, .timestamp_ms = BW_NO_TIMESTAMP};
        e = bw_producer_send(producer, output, batch->partition, &out, NULL, NULL, PATIENCE_MS);
    }
    if (!e) e = bw_consumer_group_metadata(consumer, &member);
    if (!e) e = bw_transaction_send_offsets(producer, &member, &next, 1, PATIENCE_MS);
    if (!e) e = bw_transaction_commit(producer, PATIENCE_MS);
    while (e == BW_ERR_TIMED_OUT) e = bw_transaction_commit(producer, PATIENCE_MS); /* it has no other end */
    return e;
}

/* Back to what the group has committed, for all that is ours. */
static void rewind_all(bw_consumer *consumer)
{
    bw_topic_partition *parts;
    size_t n;
    check(bw_consumer_assignment(consumer, &parts, &n), "assignment");
    check(bw_consumer_committed(consumer, parts, n, PATIENCE_MS), "committed offsets");
    for (size_t i = 0; i < n; i++)
        bw_consumer_seek(consumer, parts[i].topic, parts[i].partition, parts[i].offset == BW_OFFSET_INVALID ? BW_OFFSET_BEGINNING : parts[i].offset);
    bw_free(parts);
}

int main(int argc, char **argv)
{
    if (argc != 6) {
        fprintf(stderr, "usage: member URL GROUP INPUT OUTPUT NAME\n");
        return 2;
    }
    const char *input = argv[3], *output = argv[4], *name = argv[5];
    setvbuf(stdout, NULL, _IOLBF, 0);
    bw_bus *bus;
    check(bw_bus_open(argv[1], NULL, &bus), "open the bus");

    bw_producer *producer;
    bw_producer_options writes = BW_PRODUCER_OPTIONS_INIT;
    writes.transactional_id = name;
    writes.transaction_timeout_ms = 3000; /* readers wait so long for what a killed one left open */
    check(bw_producer_open(bus, &writes, &producer), "open the producer");
    check(bw_transactions_init(producer, PATIENCE_MS), "init transactions");

    bw_consumer *consumer;
    bw_consumer_options reads = BW_CONSUMER_OPTIONS_INIT;
    reads.group_id = argv[2];
    reads.auto_offset_reset = BW_RESET_EARLIEST;
    reads.enable_auto_commit = false; /* the transaction does that */
    reads.on_rebalance = on_rebalance;
    check(bw_consumer_open(bus, &reads, &consumer), "open the consumer");
    check(bw_consumer_subscribe(consumer, &input, 1), "subscribe");

    for (;;) {
        int copied;
        bw_batch batch;
        bw_err e = bw_consumer_poll(consumer, 1000, &batch);
        if (e && bw_err_is_retriable(e)) continue;
        if (e == BW_ERR_FENCED_MEMBER_EPOCH || e == BW_ERR_UNKNOWN_MEMBER_ID) continue; /* it joins anew */
        check(e, "poll");
        e = copy(producer, consumer, &batch, output, name, &copied);
        if (!e) {
            printf("committed %d\n", copied);
            continue;
        }
        fprintf(stderr, "member.c: begins again: %s: %s\n", bw_err_name(e), bw_error_message());
        check(bw_transaction_abort(producer, PATIENCE_MS), "abort");
        rewind_all(consumer);
    }
}
