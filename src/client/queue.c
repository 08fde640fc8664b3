/* client/queue.c: open, poll and close a worker of a queue group; see queue.h. */
#include "client/queue.h"

#include "client/backend.h"
#include "client/readonly.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { RECONNECT_NAP_NS = 5000000, FETCH_BYTES = 1 << 20, GRACE_MS = 1000, WAIT_MOST_MS = 30000 };

/* ---- open ---- */

static bw_err check_options(const bw_bus *bus, const bw_queue_options *given, bw_queue_options *o)
{
    bw_queue_options init = BW_QUEUE_OPTIONS_INIT;
    *o = init;
    if (!bus || !given) return bw_fail(BW_ERR_INVALID_ARGUMENT, "a queue needs a bus and options: its group and topics");
    memcpy(o, given, given->size < sizeof *o ? given->size : sizeof *o);
    if (!o->group || !o->group[0]) return bw_fail(BW_ERR_INVALID_GROUP_ID, "a queue needs the name of its group");
    if (!o->topics || !o->topic_count) return bw_fail(BW_ERR_INVALID_ARGUMENT, "queue group %s: a worker names at least one topic", o->group);
    for (size_t i = 0; i < o->topic_count; i++)
        if (!o->topics[i]) return bw_fail(BW_ERR_INVALID_ARGUMENT, "queue group %s: topic %zu has no name", o->group, i);
    if (o->max_records < 1 || o->ack_records < 1)
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "max_records = %d, ack_records = %d; at least 1", o->max_records, o->ack_records);
    return BW_OK;
}

static void queue_free(bw_queue *q)
{
    for (size_t i = 0; q->topics && i < q->options.topic_count; i++) free(q->topics[i]);
    free(q->topics);
    free(q->group);
    free(q->dead_letter);
    free(q->items);
    bw_queue_sendings_free(q);
    bw_buf_free(&q->frame);
    free(q);
}

static bw_err copy_names(bw_queue *q)
{
    const bw_queue_options *o = &q->options;
    q->group = strdup(o->group);
    q->dead_letter = o->dead_letter_topic ? strdup(o->dead_letter_topic) : NULL;
    q->topics = calloc(o->topic_count, sizeof *q->topics);
    bool ok = q->group && q->topics && (q->dead_letter || !o->dead_letter_topic);
    for (size_t i = 0; ok && i < o->topic_count; i++) ok = (q->topics[i] = strdup(o->topics[i])) != NULL;
    return ok ? BW_OK : bw_fail(BW_ERR_NO_MEMORY, "no memory for a queue");
}

static bw_err join(bw_queue *q, bw_deadline deadline)
{
    const bw_queue_options *o = &q->options;
    bw_queue_topic *topics = calloc(o->topic_count, sizeof *topics);
    if (!topics) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a request");
    for (size_t i = 0; i < o->topic_count; i++) topics[i].topic = bw_str_of(q->topics[i]);
    bw_request r;
    bw_request_init(&r, BW_API_QUEUE_JOIN);
    r.queue.group = bw_str_of(q->group);
    r.queue.topics = topics;
    r.queue.topic_count = o->topic_count;
    r.queue.lease_ms = o->lease_ms;
    r.queue.max_deliveries = o->max_deliveries;
    r.queue.max_in_flight = o->max_in_flight;
    r.queue.dead_letter = bw_str_of(q->dead_letter);
    r.queue.dead_letters = o->archive ? BW_QUEUE_DEAD_ARCHIVE : q->dead_letter ? BW_QUEUE_DEAD_TOPIC : BW_QUEUE_DEAD_DEFAULT;
    r.queue.isolation = (int8_t)o->isolation;
    r.queue.reset = (int8_t)o->start;
    bw_reply reply;
    bw_err e = bw_conn_request(&q->conn, &r, deadline, &reply);
    if (!e) {
        q->member = reply.answer.queue.member;
        q->lease_ms = reply.answer.queue.lease_ms;
        q->epoch = atomic_load(&q->conn.epoch);
    }
    bw_reply_fini(&reply);
    free(topics);
    return e;
}

static void fetched_drop(bw_queue *q, bw_queue_fetched *f)
{
    if (f->rx) bw_rx_unref(&q->conn, f->rx);
    bw_answer_fini(&f->answer);
    memset(f, 0, sizeof *f);
}

/* Connected and a member; joins anew after the connection was lost. */
static bw_err ensure(bw_queue *q, bw_deadline deadline)
{
    if (bw_conn_is_up(&q->conn) && q->member && q->epoch == atomic_load(&q->conn.epoch)) return BW_OK;
    bw_deadline until = bw_deadline_first(deadline, bw_deadline_in_ms(q->bus->connect_timeout_ms));
    q->member = 0;
    fetched_drop(q, &q->now);
    fetched_drop(q, &q->come);
    q->lost += q->item_records; /* the daemon has given them to others */
    q->item_count = 0;
    q->item_records = 0;
    for (;;) {
        bw_err e = bw_bus_connect_conn(q->bus, &q->conn, true, until);
        if (!e) e = join(q, until);
        if (!e) return BW_OK;
        bool again = e == BW_ERR_NO_COORDINATOR || e == BW_ERR_NOT_CONNECTED || e == BW_ERR_BUSY;
        if (!again || bw_deadline_left_ns(until) == 0) return e;
        nanosleep(&(struct timespec){.tv_nsec = RECONNECT_NAP_NS}, NULL);
    }
}

bw_err bw_queue_open(bw_bus *bus, const bw_queue_options *options, bw_queue **out)
{
    bw_queue_options o;
    bw_err e = out ? check_options(bus, options, &o) : bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no place for the queue");
    if (e) return e;
    BW_CHECK_FORK(bus);
    if (bus->readonly) return bw_readonly_refuse(bus, "bw_queue_open");
    if (bus->backend) return bw_backend_refuse_request(BW_API_QUEUE_JOIN);
    bw_queue *q = calloc(1, sizeof *q);
    if (!q) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a queue");
    q->bus = bus;
    q->options = o;
    bw_conn_options c = bw_bus_conn_options(bus);
    e = copy_names(q);
    if (!e) e = bw_conn_init(&q->conn, &c);
    if (e) {
        queue_free(q);
        return e;
    }
    e = ensure(q, bw_deadline_in_ms(bus->request_timeout_ms));
    if (e) {
        bw_conn_fini(&q->conn);
        queue_free(q);
        return e;
    }
    bw_bus_count_handle(bus);
    *out = q;
    return BW_OK;
}

/* ---- what was fetched ---- */

static const char *topic_of(const bw_queue *q, bw_str name)
{
    for (size_t i = 0; i < q->options.topic_count; i++)
        if (bw_str_is(name, q->topics[i])) return q->topics[i];
    return NULL;
}

static bool take_bytes(bw_cursor *c, const uint8_t **data, uint32_t *len)
{
    uint32_t n = bw_cursor_be32(c);
    *data = NULL;
    *len = 0;
    if (n == UINT32_MAX) return !c->bad;
    *data = bw_cursor_take(c, n);
    *len = n;
    return !c->bad;
}

/* 1: *m is the next record; 0: there is none; -1: what came makes no sense. */
static int fetched_next(bw_queue *q, bw_message *m)
{
    bw_queue_fetched *f = &q->now;
    if (!f->rx || f->run >= f->answer.queue.run_count) return 0;
    const bw_queue_run *run = &f->answer.queue.runs[f->run];
    bw_cursor c = bw_cursor_over(f->at, (size_t)(f->end - f->at));
    uint32_t len = bw_cursor_be32(&c);
    const uint8_t *body = bw_cursor_take(&c, len);
    if (!body) return -1;
    f->at = c.at;
    c = bw_cursor_over(body, len);
    bw_record_view *v = &m->record;
    v->offset = (int64_t)bw_cursor_be64(&c);
    v->timestamp_ms = (int64_t)bw_cursor_be64(&c);
    take_bytes(&c, &v->key, &v->key_len);
    take_bytes(&c, &v->value, &v->value_len);
    v->header_count = bw_cursor_be32(&c);
    v->headers_raw = c.at;
    v->headers_len = (uint32_t)bw_cursor_left(&c);
    m->topic = topic_of(q, run->topic);
    m->partition = run->partition;
    m->deliveries = (int32_t)run->deliveries;
    if (c.bad || !m->topic || v->offset != f->next || v->header_count > v->headers_len) return -1;
    if (f->next == run->last) {
        f->run++;
        if (f->run < f->answer.queue.run_count) f->next = f->answer.queue.runs[f->run].first;
    } else {
        f->next++;
    }
    return 1;
}

/* ---- fetch ---- */

static void fetched(bw_pending *p, bw_err e, const bw_frame *frame)
{
    bw_queue *q = p->opaque;
    q->fetching = false;
    q->fetch_error = e;
    q->fetch_message[0] = 0;
    if (e) return;
    fetched_drop(q, &q->come);
    if ((q->fetch_error = bw_answer_decode(frame, &q->come.answer))) {
        snprintf(q->fetch_message, sizeof q->fetch_message, "%s", bw_error_message());
        return;
    }
    bw_answer *a = &q->come.answer;
    if (a->error) {
        q->fetch_error = (bw_err)a->error;
        snprintf(q->fetch_message, sizeof q->fetch_message, "%.*s", (int)(a->message.len < 500 ? a->message.len : 500), a->message.data);
        bw_answer_fini(a);
        return;
    }
    if (!a->queue.run_count) return;
    q->come.rx = q->conn.rx; /* the frame lies there */
    bw_rx_ref(q->come.rx);
    q->come.at = a->payload;
    q->come.end = a->payload + a->payload_len;
    q->come.next = a->queue.runs[0].first;
    q->come.until = q->asked_at == BW_DEADLINE_NEVER ? BW_DEADLINE_NEVER : bw_deadline_in_ms(q->lease_ms);
}

static bw_err ask(bw_queue *q, bw_deadline deadline)
{
    int64_t left = bw_deadline_left_ns(deadline) / 1000000;
    bw_request r;
    bw_request_init(&r, BW_API_QUEUE_FETCH);
    r.queue.group = bw_str_of(q->group);
    r.queue.member = q->member;
    r.queue.max_records = (uint32_t)q->options.max_records;
    r.queue.max_bytes = FETCH_BYTES;
    r.queue.max_wait_ms = left < WAIT_MOST_MS ? (int32_t)left : WAIT_MOST_MS;
    q->fetch = (bw_pending){.done = fetched, .opaque = q};
    r.correlation = q->fetch.correlation = bw_conn_correlate(&q->conn);
    q->frame.len = 0;
    bw_err e = bw_request_encode(&r, &q->frame, true);
    q->asked_at = bw_clock_mono_ns();
    if (!e) {
        q->fetching = true;
        e = bw_conn_submit(&q->conn, &q->fetch, &q->frame, NULL, 0);
        if (e) q->fetching = false;
    }
    return e;
}

static bool has_come(void *opaque)
{
    bw_queue *q = opaque;
    return !q->fetching || atomic_load(&q->woken);
}

/* One fetch: OK: something may have come. */
static bw_err fetch(bw_queue *q, bw_deadline deadline)
{
    bw_err e = ensure(q, deadline);
    if (!e) e = bw_queue_send(q); /* so that others see it while we wait */
    if (!e && !q->fetching) e = ask(q, deadline);
    if (e) return e;
    bw_deadline now = bw_clock_mono_ns(); /* the answer comes at the deadline: a little later it is a slow daemon */
    bw_deadline until = deadline == BW_DEADLINE_NEVER ? deadline : (deadline > now ? deadline : now) + GRACE_MS * INT64_C(1000000);
    e = bw_conn_wait(&q->conn, has_come, q, -1, until);
    if (e && e != BW_ERR_TIMED_OUT) return e;
    if (q->fetching) return BW_OK; /* woken, or it is still under way: the next poll has it */
    if (q->fetch_error == BW_ERR_UNKNOWN_MEMBER_ID) { /* the group was deleted: join anew */
        q->member = 0;
        return BW_OK;
    }
    if (!q->fetch_error) return BW_OK;
    return q->fetch_message[0] ? bw_error_set_message(q->fetch_error, q->fetch_message)
                               : bw_fail(q->fetch_error, "queue group %s: the connection to the daemon was lost", q->group);
}

/* What has arrived becomes what is given out. */
static bool turn_over(bw_queue *q)
{
    fetched_drop(q, &q->now);
    if (!q->come.rx) return false;
    q->now = q->come;
    memset(&q->come, 0, sizeof q->come);
    return true;
}

static int next_message(bw_queue *q, bw_message *m)
{
    if (q->now.rx && bw_clock_mono_ns() >= q->now.until) fetched_drop(q, &q->now); /* others may have it by now */
    return fetched_next(q, m);
}

bw_err bw_queue_poll_batch(bw_queue *q, int32_t timeout_ms, bw_message *messages, size_t max, size_t *count)
{
    if (!q || !messages || !max || !count) return bw_fail(BW_ERR_INVALID_ARGUMENT, "a poll needs a queue and room for a message");
    BW_CHECK_FORK(q->bus);
    bw_deadline deadline = bw_deadline_in_ms(timeout_ms);
    *count = 0;
    for (;;) {
        if (atomic_exchange(&q->woken, 0)) return bw_fail(BW_ERR_WOKEN, "woken");
        int r = 0;
        if (!bw_conn_is_up(&q->conn)) fetched_drop(q, &q->now); /* the daemon has given it to others */
        while (*count < max && (r = next_message(q, &messages[*count])) == 1) ++*count;
        if (*count) return BW_OK;
        if (r < 0) {
            bw_conn_drop(&q->conn);
            return bw_fail(BW_ERR_PROTOCOL, "queue group %s: what the daemon sent can't be understood; the connection is made anew", q->group);
        }
        if (turn_over(q)) continue;
        bw_err e = fetch(q, deadline);
        if (e == BW_ERR_NOT_CONNECTED && bw_deadline_left_ns(deadline) > 0) continue;
        if (e) return e;
        if (!q->come.rx && bw_deadline_left_ns(deadline) == 0 && !atomic_load(&q->woken))
            return bw_fail(BW_ERR_TIMED_OUT, "queue group %s has no record now", q->group);
    }
}

bw_err bw_queue_poll(bw_queue *q, int32_t timeout_ms, bw_message *message)
{
    size_t count;
    return bw_queue_poll_batch(q, timeout_ms, message, 1, &count);
}

void bw_queue_wake(bw_queue *q)
{
    if (!q || bw_forked(&q->bus->guard)) return;
    atomic_store(&q->woken, 1);
    bw_conn_poke(&q->conn);
}

/* ---- close ---- */

bw_err bw_queue_close(bw_queue *q)
{
    if (!q || bw_forked(&q->bus->guard)) return BW_OK;
    bw_err e = BW_OK;
    if (q->member && bw_conn_is_up(&q->conn)) {
        bw_deadline deadline = bw_deadline_in_ms(q->bus->request_timeout_ms);
        bw_queue_return_rest(q);
        if (turn_over(q)) bw_queue_return_rest(q);
        e = bw_queue_flush(q, q->bus->request_timeout_ms);
        bw_request r;
        bw_request_init(&r, BW_API_QUEUE_LEAVE);
        r.queue.group = bw_str_of(q->group);
        r.queue.member = q->member;
        bw_reply reply;
        char why[512];
        snprintf(why, sizeof why, "%s", e ? bw_error_message() : "");
        (void)bw_conn_request(&q->conn, &r, deadline, &reply); /* the end of the connection says the same */
        bw_reply_fini(&reply);
        if (e) bw_error_set_message(e, why);
    } else if (q->item_count || q->lost || q->under_way) {
        e = bw_fail(BW_ERR_NOT_CONNECTED, "queue group %s: the last acknowledgements have no answer; their records may be delivered again", q->group);
    }
    fetched_drop(q, &q->now);
    fetched_drop(q, &q->come);
    if (q->fetching) bw_conn_cancel(&q->conn, &q->fetch);
    atomic_fetch_sub(&q->bus->handles, 1);
    bw_conn_drop(&q->conn);
    bw_conn_fini(&q->conn);
    queue_free(q);
    return e;
}
