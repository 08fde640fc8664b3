/* cli/migrate_copy.c: a partition's records from one bus to another. See migrate.h. */
#include "cli/interrupt.h"
#include "cli/migrate.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HEADERS_MAX = 4096, TXN_RECORDS = 20000, TXN_BYTES = 16 << 20, WAIT_MS = 60000, POLL_FIRST_MS = 5, POLL_MOST_MS = 1000, EMPTY_POLLS = 30 };

/* Is there nothing but what aborted transactions left, as of a migration that was killed in its first? */
static bw_err is_empty(migrate *m, const char *topic, int32_t partition, const bw_offset_range *range, bool *empty)
{
    bw_consumer_options o = BW_CONSUMER_OPTIONS_INIT;
    bw_consumer *c = NULL;
    bw_batch b;
    int64_t at = range->log_start;
    *empty = true;
    o.isolation = BW_READ_COMMITTED;
    bw_err e = bw_consumer_open(m->to, &o, &c);
    if (!e) e = bw_consumer_assign(c, topic, partition, at);
    for (int polls = 0; !e && *empty && at < range->end && polls < EMPTY_POLLS; polls++) {
        e = bw_consumer_poll(c, POLL_MOST_MS, &b);
        *empty = e != BW_OK;
        if (e == BW_ERR_TIMED_OUT || e == BW_ERR_WOKEN) e = BW_OK;
        if (!e) e = bw_consumer_position(c, topic, partition, &at);
    }
    *empty &= at >= range->end;
    bw_consumer_close(c);
    return e;
}

int migrate_position_read(migrate *m, const char *topic, int32_t partition, migrate_position *out)
{
    bw_topic_partition asked = {.topic = topic, .partition = partition, .leader_epoch = -1};
    bw_offset_range range;
    *out = (migrate_position){-1, 0, 0};
    bw_err e = bw_consumer_committed(m->positions, &asked, 1, WAIT_MS);
    if (!e) e = asked.error;
    if (e) return cli_error_bw(m->c, e, "%s partition %" PRId32 " of the target", topic, partition);
    if (asked.offset >= 0 && asked.metadata &&
        sscanf(asked.metadata, "next=%" SCNd64 " first=%" SCNd64 " records=%" SCNd64, &out->next, &out->first, &out->records) == 3)
        return CLI_OK;
    e = bw_offsets_range(m->to, topic, partition, &range);
    if (e) return cli_error_bw(m->c, e, "%s partition %" PRId32 " of the target", topic, partition);
    bool empty;
    e = is_empty(m, topic, partition, &range, &empty);
    if (e) return cli_error_bw(m->c, e, "%s partition %" PRId32 " of the target", topic, partition);
    if (empty) return CLI_OK;
    return cli_error(m->c, CLI_FAILURE, "%s partition %" PRId32 " of the target has records that this migration did not write; delete the topic, "
                     "or give --name NAME if it was begun with another URL", topic, partition);
}

static bw_err send_batch(migrate *m, const char *topic, int32_t partition, bw_batch *b, int64_t end, migrate_position *p, uint64_t *records,
                         uint64_t *bytes)
{
    bw_header headers[HEADERS_MAX];
    bw_record_view v;
    int r = 0;
    bw_err e = BW_OK;
    while (!e && (r = bw_batch_next(b, &v)) == 1 && v.offset < end) {
        bw_record record;
        e = bw_record_from_view(&v, headers, HEADERS_MAX, &record);
        if (e) break;
        if (v.timestamp_ms < 0 || (m->to_cluster && v.timestamp_ms == 0)) record.timestamp_ms = m->to_cluster;
        e = bw_producer_send(m->producer, topic, partition, &record, NULL, NULL, WAIT_MS);
        if (e) break;
        ++*records;
        *bytes += v.key_len + v.value_len;
        p->next = v.offset + 1;
        p->records++;
    }
    return r < 0 ? BW_ERR_CORRUPT : e;
}

static bw_err commit(migrate *m, const char *topic, int32_t partition, int64_t offset, const migrate_position *p)
{
    char text[96];
    snprintf(text, sizeof text, "next=%" PRId64 " first=%" PRId64 " records=%" PRId64, p->next, p->first, p->records);
    bw_topic_partition part = {topic, partition, offset, -1, text, BW_OK};
    bw_group_metadata who = {m->group, "", NULL, -1};
    bw_err e = bw_transaction_send_offsets(m->producer, &who, &part, 1, WAIT_MS);
    if (!e) e = bw_transaction_commit(m->producer, WAIT_MS);
    for (int again = 0; e == BW_ERR_TIMED_OUT && again < 5; again++) e = bw_transaction_commit(m->producer, WAIT_MS);
    return e;
}

/* One transaction's worth; *more is false when the end was reached. */
static bw_err step(migrate *m, bw_consumer *c, const char *topic, int32_t partition, int64_t end, int64_t offset, migrate_position *p, bool *more)
{
    uint64_t records = 0, bytes = 0;
    int wait = POLL_FIRST_MS; /* as in migrate_check.c */
    int64_t at = p->next;
    bw_err e = bw_transaction_begin(m->producer);
    while (!e && at < end && records < TXN_RECORDS && bytes < TXN_BYTES && !cli_interrupted()) {
        bw_batch b;
        e = bw_consumer_poll(c, wait, &b);
        wait = e != BW_ERR_TIMED_OUT ? POLL_FIRST_MS : 2 * wait < POLL_MOST_MS ? 2 * wait : POLL_MOST_MS;
        if (!e) e = send_batch(m, topic, partition, &b, end, p, &records, &bytes);
        if (e == BW_ERR_TIMED_OUT || e == BW_ERR_WOKEN) e = BW_OK;
        if (!e) e = bw_consumer_position(c, topic, partition, &at); /* over the ends of transactions, too */
        migrate_bar(m);
    }
    if (at > p->next && !e) p->next = at < end ? at : end;
    if (!e) e = commit(m, topic, partition, offset, p);
    if (e) return e;
    m->copied += records;
    m->done += records;
    *more = p->next < end && !cli_interrupted();
    return BW_OK;
}

int migrate_copy(migrate *m, const char *topic, int32_t partition, migrate_position *p)
{
    bw_offset_range range, target;
    bw_consumer_options o = BW_CONSUMER_OPTIONS_INIT;
    bw_consumer *c = NULL;
    o.isolation = m->isolation;
    bw_err e = bw_offsets_range(m->from, topic, partition, &range);
    if (!e) e = bw_offsets_range(m->to, topic, partition, &target);
    if (e) return cli_error_bw(m->c, e, "%s partition %" PRId32, topic, partition);
    if (p->first < 0) p->first = p->next = range.log_start;
    if (p->next < range.log_start) {
        cli_note(m->c, "%s partition %" PRId32 ": retention took offsets %" PRId64 " to %" PRId64 " before they were copied", topic, partition,
                 p->next, range.log_start - 1);
        p->next = range.log_start;
    }
    if (p->next > range.end)
        return cli_error(m->c, CLI_FAILURE, "%s partition %" PRId32 ": the target has records up to offset %" PRId64 ", the source ends at %" PRId64
                         ": it is another log", topic, partition, p->next, range.end);
    e = bw_consumer_open(m->from, &o, &c);
    bool more = p->next < range.end;
    if (!e && more) e = bw_consumer_assign(c, topic, partition, p->next);
    if (!e) cli_interrupt_wake(c);
    while (!e && more) e = step(m, c, topic, partition, range.end, target.log_start, p, &more);
    cli_interrupt_wake(NULL);
    int rc = e ? cli_error_bw(m->c, e, "%s partition %" PRId32 " (what was copied stays; run it again to go on)", topic, partition) : CLI_OK;
    if (e) (void)bw_transaction_abort(m->producer, WAIT_MS);
    bw_consumer_close(c);
    if (rc == CLI_OK && cli_interrupted()) rc = CLI_INTERRUPTED;
    return rc;
}
