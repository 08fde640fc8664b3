/* state_counter.c: count by key, exactly once, into state of one's own.
 *
 *     state_counter URL GROUP TOPIC [SECONDS]
 *
 * Start as many as there are partitions, kill them as you like: each record is counted once. The counters and the offset that they stand
 * for are committed together (<data directory>/state/GROUP/TOPIC-n), so there is nothing to be made good after a death. */
#include <busway/busway.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void check(bw_err e, const char *what)
{
    if (e == BW_OK) return;
    fprintf(stderr, "%s: %s: %s\n", what, bw_err_name(e), bw_error_message());
    exit(1);
}

/* The handler: what it changes through txn comes about with the offset behind the record, or not at all. */
static bw_err count(bw_state_txn *txn, const bw_batch *batch, const bw_record_view *record, void *opaque)
{
    (void)batch, (void)opaque;
    const void *before;
    size_t len;
    unsigned long long n = 0;
    if (!record->key || record->key_len == 0) return BW_OK;
    if (bw_state_get(txn, record->key, record->key_len, &before, &len) == BW_OK && len == sizeof n) memcpy(&n, before, sizeof n);
    n++;
    return bw_state_put(txn, record->key, record->key_len, &n, sizeof n);
}

static bool print(void *opaque, const void *key, size_t key_len, const void *value, size_t value_len)
{
    unsigned long long n = 0;
    (void)opaque;
    if (value_len == sizeof n) memcpy(&n, value, sizeof n);
    printf("%.*s %llu\n", (int)key_len, (const char *)key, n);
    return true;
}

/* What may happen while partitions move or the daemon is started again: the next call goes on. */
static bool goes_on(bw_err e)
{
    return e == BW_OK || e == BW_ERR_TIMED_OUT || e == BW_ERR_FENCED || e == BW_ERR_BUSY || e == BW_ERR_NOT_CONNECTED || e == BW_ERR_NO_COORDINATOR ||
           e == BW_ERR_FENCED_MEMBER_EPOCH || e == BW_ERR_UNKNOWN_MEMBER_ID;
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: state_counter URL GROUP TOPIC [SECONDS]\n");
        return 2;
    }
    const char *topic = argv[3];
    time_t end = argc > 4 ? time(NULL) + atoi(argv[4]) : 0;
    bw_bus *bus;
    bw_consumer *consumer;
    bw_state *state;
    bw_consumer_options reads = BW_CONSUMER_OPTIONS_INIT;
    reads.group_id = argv[2];
    reads.auto_offset_reset = BW_RESET_EARLIEST;
    check(bw_bus_open(argv[1], NULL, &bus), "open the bus");
    check(bw_consumer_open(bus, &reads, &consumer), "open the consumer");
    check(bw_state_open(consumer, NULL, &state), "open the state");
    check(bw_consumer_subscribe(consumer, &topic, 1), "subscribe");

    long long counted = 0;
    while (!end || time(NULL) < end) {
        int32_t done;
        bw_err e = bw_state_process(state, 500, 1000, count, NULL, &done);
        if (!goes_on(e)) check(e, "process");
        counted += done;
    }

    bw_topic_partition *mine;
    size_t n;
    check(bw_consumer_assignment(consumer, &mine, &n), "assignment");
    for (size_t i = 0; i < n; i++) {
        bw_state_txn *txn;
        if (bw_state_read(state, mine[i].topic, mine[i].partition, &txn) != BW_OK) continue;
        printf("# %s-%d, up to offset %lld\n", mine[i].topic, (int)mine[i].partition, (long long)bw_state_offset(txn));
        check(bw_state_each(txn, "", 0, print, NULL), "read the state");
        bw_state_abort(txn);
    }
    fprintf(stderr, "counted %lld records\n", counted);
    bw_free(mine);
    bw_state_close(state);
    bw_consumer_close(consumer);
    bw_bus_close(bus);
    return 0;
}
