/* client/queue_ack.c: what a worker says of records: gathered, neighbours as one item, sent without waiting, answered later. */
#include "client/queue.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { UNDER_WAY_MOST = 4096 };

struct bw_queue_sending {
    bw_pending pending; /* first */
    bw_queue_sending *next;
    bw_queue *queue;
    int64_t records;
};

void bw_queue_sendings_free(bw_queue *q)
{
    while (q->spare) {
        bw_queue_sending *s = q->spare;
        q->spare = s->next;
        free(s);
    }
}

/* ---- answers ---- */

static void note_error(bw_queue *q, bw_err e, bw_str message)
{
    if (q->ack_error) return;
    q->ack_error = e;
    snprintf(q->ack_message, sizeof q->ack_message, "%.*s", (int)(message.len < 500 ? message.len : 500), message.data ? message.data : "");
}

static void answered(bw_pending *p, bw_err e, const bw_frame *frame)
{
    bw_queue_sending *s = (bw_queue_sending *)p;
    bw_queue *q = s->queue;
    bw_answer a;
    q->under_way--;
    if (!e && (e = bw_answer_decode(frame, &a))) note_error(q, e, bw_str_of(bw_error_message()));
    else if (e) q->lost += s->records;
    else {
        if (a.error) note_error(q, (bw_err)a.error, a.message);
        if (a.error) q->lost += s->records;
        for (size_t i = 0; i < a.queue.item_count; i++) /* what goes back unseen may be anybody's by now */
            if (a.queue.items[i].verb != BW_QUEUE_RETURN) q->refused += a.queue.items[i].refused;
        bw_answer_fini(&a);
    }
    s->next = q->spare;
    q->spare = s;
}

/* ---- sending ---- */

static bool has_room(void *opaque) { return ((bw_queue *)opaque)->under_way <= UNDER_WAY_MOST / 2; }
static bool is_all(void *opaque) { return ((bw_queue *)opaque)->under_way == 0; }

static bw_err submit(bw_queue *q, bw_queue_item *items, size_t count, int64_t records)
{
    bw_queue_sending *s = q->spare;
    if (s) q->spare = s->next;
    else s = malloc(sizeof *s);
    if (!s) return bw_fail(BW_ERR_NO_MEMORY, "no memory for an acknowledgement");
    *s = (bw_queue_sending){.pending = {.done = answered}, .queue = q, .records = records};
    bw_request r;
    bw_request_init(&r, BW_API_QUEUE_ACK);
    r.queue.group = bw_str_of(q->group);
    r.queue.member = q->member;
    r.queue.items = items;
    r.queue.item_count = count;
    r.correlation = s->pending.correlation = bw_conn_correlate(&q->conn);
    q->frame.len = 0;
    bw_err e = bw_request_encode(&r, &q->frame, true);
    if (!e) {
        q->under_way++;
        e = bw_conn_submit(&q->conn, &s->pending, &q->frame, NULL, 0);
        if (e) q->under_way--;
    }
    if (!e) return BW_OK;
    s->next = q->spare;
    q->spare = s;
    return e;
}

bw_err bw_queue_send(bw_queue *q)
{
    if (!q->item_count) return BW_OK;
    int64_t records = q->item_records;
    size_t count = q->item_count;
    q->item_count = 0;
    q->item_records = 0;
    bw_err e = q->member && q->epoch == atomic_load(&q->conn.epoch) ? submit(q, q->items, count, records)
                                                                    : bw_fail(BW_ERR_NOT_CONNECTED, "the connection to the daemon was lost");
    if (e) q->lost += records; /* told by the next flush */
    if (e == BW_ERR_NOT_CONNECTED) return BW_OK;
    if (!e && q->under_way > UNDER_WAY_MOST) e = bw_conn_wait(&q->conn, has_room, q, -1, bw_bus_request_deadline(q->bus));
    return e == BW_ERR_NOT_CONNECTED ? BW_OK : e;
}

bw_err bw_queue_say(bw_queue *q, const char *topic, int32_t partition, int64_t first, int64_t last, bw_queue_verb verb)
{
    bw_queue_item *before = q->item_count ? &q->items[q->item_count - 1] : NULL;
    if (before && before->verb == (int8_t)verb && before->partition == partition && before->last + 1 == first && before->topic.data == topic) {
        before->last = last;
    } else {
        if (q->item_count == q->item_cap) {
            size_t cap = q->item_cap ? q->item_cap * 2 : 64;
            bw_queue_item *grown = realloc(q->items, cap * sizeof *grown);
            if (!grown) return bw_fail(BW_ERR_NO_MEMORY, "no memory for an acknowledgement");
            q->items = grown;
            q->item_cap = cap;
        }
        q->items[q->item_count++] = (bw_queue_item){bw_str_of(topic), partition, first, last, (int8_t)verb, 0, 0};
    }
    q->item_records += last - first + 1;
    return BW_OK;
}

static bw_err say_all(bw_queue *q, const bw_message *m, size_t count, bw_queue_verb verb)
{
    if (!q || (count && !m)) return bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no queue or no message");
    BW_CHECK_FORK(q->bus);
    bw_err e = BW_OK;
    for (size_t i = 0; i < count && !e; i++) {
        if (!m[i].topic) return bw_fail(BW_ERR_INVALID_ARGUMENT, "message %zu is none", i);
        e = bw_queue_say(q, m[i].topic, m[i].partition, m[i].record.offset, m[i].record.offset, verb);
        if (!e && q->item_records >= q->options.ack_records) e = bw_queue_send(q);
    }
    return e;
}

bw_err bw_queue_ack(bw_queue *q, const bw_message *m) { return say_all(q, m, 1, BW_QUEUE_ACCEPT); }
bw_err bw_queue_release(bw_queue *q, const bw_message *m) { return say_all(q, m, 1, BW_QUEUE_RELEASE); }
bw_err bw_queue_reject(bw_queue *q, const bw_message *m) { return say_all(q, m, 1, BW_QUEUE_REJECT); }
bw_err bw_queue_ack_batch(bw_queue *q, const bw_message *m, size_t n) { return say_all(q, m, n, BW_QUEUE_ACCEPT); }
bw_err bw_queue_release_batch(bw_queue *q, const bw_message *m, size_t n) { return say_all(q, m, n, BW_QUEUE_RELEASE); }
bw_err bw_queue_reject_batch(bw_queue *q, const bw_message *m, size_t n) { return say_all(q, m, n, BW_QUEUE_REJECT); }

bw_err bw_queue_renew(bw_queue *q, const bw_message *m)
{
    bw_err e = say_all(q, m, 1, BW_QUEUE_RENEW);
    return e ? e : bw_queue_send(q);
}

bw_err bw_queue_flush(bw_queue *q, int32_t timeout_ms)
{
    if (!q) return bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no queue");
    BW_CHECK_FORK(q->bus);
    bw_err e = bw_queue_send(q);
    if (!e && q->under_way) e = bw_conn_wait(&q->conn, is_all, q, -1, bw_deadline_in_ms(timeout_ms));
    if (e && e != BW_ERR_NOT_CONNECTED) return e == BW_ERR_TIMED_OUT ? bw_fail(e, "%u acknowledgements have no answer yet", q->under_way) : e;
    int64_t lost = q->lost, refused = q->refused;
    bw_err error = q->ack_error;
    q->lost = q->refused = 0;
    q->ack_error = BW_OK;
    if (error) return bw_fail(error, "queue group %s: %s", q->group, q->ack_message[0] ? q->ack_message : bw_err_text(error));
    if (lost)
        return bw_fail(BW_ERR_NOT_CONNECTED, "queue group %s: %lld acknowledgements have no answer; their records may be delivered again",
                       q->group, (long long)lost);
    if (refused)
        return bw_fail(BW_ERR_INVALID_RECORD_STATE, "queue group %s: %lld records were not this worker's any more: their lease had ended, or they "
                       "were acknowledged before", q->group, (long long)refused);
    return BW_OK;
}

bw_err bw_queue_ack_sync(bw_queue *q, const bw_message *m, int32_t timeout_ms)
{
    bw_err e = bw_queue_ack(q, m);
    return e ? e : bw_queue_flush(q, timeout_ms);
}

void bw_queue_return_rest(bw_queue *q)
{
    bw_queue_fetched *f = &q->now;
    if (!f->rx || bw_clock_mono_ns() >= f->until) return;
    for (size_t i = f->run; i < f->answer.queue.run_count; i++) {
        const bw_queue_run *r = &f->answer.queue.runs[i];
        for (size_t t = 0; t < q->options.topic_count; t++)
            if (bw_str_is(r->topic, q->topics[t]))
                (void)bw_queue_say(q, q->topics[t], r->partition, i == f->run ? f->next : r->first, r->last, BW_QUEUE_RETURN);
    }
}
