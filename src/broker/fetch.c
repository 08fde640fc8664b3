/* broker/fetch.c: FETCH: whole batches of several partitions in one answer, at once or when min_bytes are there or max_wait is over.
 *
 * A fetch that must wait hangs at each of its partitions by a link. It is looked at again when one of them changes, and then reads
 * anew: nothing is held between looks. Any partition's error ends the wait. A fetch of a connection that has much to read already waits
 * until it has read it: what a client that does not read makes the daemon hold is that and one answer. */
#include "broker/quota_admit.h"

#include <busway/consumer.h>

#include <stdlib.h>

#define PARTS_MAX 4096
#define WAIT_MAX_MS 3600000
#define BACKLOG_MAX (1u << 20)

struct bw_fetch_link {
    bw_fetch *fetch;
    bw_part *part; /* NULL: error says why */
    bw_err error;
    char *why;
    int64_t offset;
    bw_fetch_link *prev, *next; /* at the part */
    bool linked;
};

struct bw_fetch {
    bw_op *op;
    bw_timer timer;
    bw_fetch *prev, *next; /* of the session */
    size_t count;
    bool blocked; /* by the backlog */
    bool due;     /* its max_wait is over */
    bool forced;  /* it ends now */
    bw_fetch_link links[];
};

static const bw_tail_slot *slot_of(const bw_part *p) { return &p->topic->control->slots[p->index]; }

bw_err bw_fetch_limit_check(const bw_op *op)
{
    int8_t limit = op->request.read_limit;
    if (limit == BW_LIMIT_ALL && op->session->role < BW_ROLE_ADMIN)
        return bw_fail(BW_ERR_NOT_PERMITTED, "read_limit = 3, all whatever read.limit says, is for links and administrators");
    if (limit >= BW_LIMIT_VISIBLE && limit < BW_LIMIT_COUNT) return BW_OK;
    return bw_fail(BW_ERR_INVALID_ARGUMENT, "read_limit = %d; allowed: 0 visible, 1 durable, 2 replicated", limit);
}

bw_reader_limit bw_fetch_limit(const bw_part *p, int8_t read_limit) { return bw_limit_of(slot_of(p), (bw_reader_limit)read_limit); }

int64_t bw_resolve_offset(const bw_part *p, int64_t offset, int8_t read_limit)
{
    if (offset == BW_OFFSET_BEGINNING) return atomic_load_explicit(&slot_of(p)->log_start, memory_order_acquire);
    return offset == BW_OFFSET_END ? bw_limit_end(slot_of(p), bw_fetch_limit(p, read_limit)) : offset;
}

static void unlink_all(bw_broker *b, bw_fetch *f)
{
    bw_timers_clear(&b->timers, &f->timer);
    for (size_t i = 0; i < f->count; i++) {
        bw_fetch_link *l = &f->links[i];
        if (l->linked) {
            if (l->prev) l->prev->next = l->next;
            else l->part->fetches = l->next;
            if (l->next) l->next->prev = l->prev;
            l->linked = false;
        }
        free(l->why);
        l->why = NULL;
    }
}

static void leave_session(bw_fetch *f)
{
    if (f->prev) f->prev->next = f->next;
    else f->op->session->fetches = f->next;
    if (f->next) f->next->prev = f->prev;
}

static void fetch_end(bw_broker *b, bw_fetch *f, bw_answer *a)
{
    if (a) bw_op_reply(f->op, a);
    leave_session(f);
    unlink_all(b, f);
    bw_op_finish(f->op, NULL);
    free(f);
}

/* Reads batches of one partition into b->payload, at most `room` bytes but at least one batch when `must`. */
static void read_part(bw_broker *b, bw_fetch_link *l, size_t room, bool must, bw_fetched_part *out)
{
    bw_reader *r;
    size_t before = b->payload.len, end = before + room;
    const bw_request *q = &l->fetch->op->request;
    bw_err e = bw_part_reader(b, l->part, q->read_limit, q->isolation == BW_READ_COMMITTED, &r);
    if (!e && bw_reader_position(r) != l->offset) bw_reader_seek(r, l->offset);
    while (!e && (b->payload.len < end || (must && b->payload.len == before))) {
        bw_run run;
        size_t left = end > b->payload.len ? end - b->payload.len : 1;
        if ((e = bw_reader_run(r, left, &run))) break;
        if (run.len > left && !(must && b->payload.len == before)) break;
        e = bw_buf_append(&b->payload, run.data, run.len);
    }
    if (e == BW_ERR_EMPTY || (e && b->payload.len > before)) e = BW_OK; /* what is good before a bad place is given first */
    bw_part_range(l->part, &out->log_start, &out->end, &out->durable);
    out->size = (uint32_t)(b->payload.len - before);
    l->part->out_bytes += out->size;
    if (!e) return;
    out->error = (int32_t)e;
    l->error = e;
    free(l->why);
    l->why = strdup(bw_error_message());
    out->message = bw_str_of(l->why ? l->why : bw_err_text(e));
}

/* true: answered (and f is gone). */
static bool fetch_try(bw_broker *b, bw_fetch *f, bool last)
{
    const bw_request *q = &f->op->request;
    bw_session *s = f->op->session;
    last = f->due = f->due || last;
    f->blocked = !f->forced && (s->ops->backlog(s->listener) >= BACKLOG_MAX || bw_quota_must_wait(b, s));
    if (f->blocked) return false;
    bw_fetched_part *parts = calloc(f->count ? f->count : 1, sizeof *parts);
    if (!parts) {
        if (!last) return false;
        bw_answer a;
        bw_answer_init(&a, q);
        a.error = BW_ERR_NO_MEMORY;
        fetch_end(b, f, &a);
        return true;
    }
    b->payload.len = 0;
    bool failed = false;
    for (size_t i = 0; i < f->count; i++) {
        bw_fetch_link *l = &f->links[i];
        parts[i].topic = q->parts[i].topic;
        parts[i].partition = q->parts[i].partition;
        parts[i].log_start = parts[i].end = parts[i].durable = -1;
        size_t left = q->max_bytes > b->payload.len ? q->max_bytes - b->payload.len : 0;
        if (l->part) read_part(b, l, left < q->parts[i].max_bytes ? left : q->parts[i].max_bytes, b->payload.len == 0, &parts[i]);
        else {
            parts[i].error = (int32_t)l->error;
            parts[i].message = bw_str_of(l->why ? l->why : bw_err_text(l->error));
        }
        failed |= parts[i].error != 0;
    }
    bool enough = b->payload.len >= (q->min_bytes ? q->min_bytes : 1) || b->payload.len >= q->max_bytes;
    bool done = last || failed || enough || !f->count;
    if (done) {
        bw_answer a;
        bw_answer_init(&a, q);
        a.parts = parts;
        a.part_count = f->count;
        a.payload = b->payload.data;
        a.payload_len = b->payload.len;
        fetch_end(b, f, &a);
        if (b->payload.cap > (4u << 20)) bw_buf_free(&b->payload);
    }
    free(parts);
    return done;
}

static void on_max_wait(void *broker, bw_timer *timer)
{
    fetch_try(broker, (bw_fetch *)(void *)((char *)timer - offsetof(bw_fetch, timer)), true);
}

static void find_parts(bw_broker *b, bw_fetch *f)
{
    const bw_request *q = &f->op->request;
    for (size_t i = 0; i < f->count; i++) {
        bw_fetch_link *l = &f->links[i];
        l->fetch = f;
        l->error = bw_part_of(b, q->parts[i].topic, q->parts[i].partition, false, &l->part);
        if (l->error) {
            l->part = NULL;
            l->why = strdup(bw_error_message());
        } else l->offset = bw_resolve_offset(l->part, q->parts[i].offset, q->read_limit);
    }
}

static void hang(bw_broker *b, bw_fetch *f)
{
    for (size_t i = 0; i < f->count; i++) {
        bw_fetch_link *l = &f->links[i];
        if (!l->part) continue;
        l->prev = NULL;
        l->next = l->part->fetches;
        if (l->next) l->next->prev = l;
        l->part->fetches = l;
        l->linked = true;
        bw_broker_again(b, l->part);
    }
    int32_t wait = f->op->request.max_wait_ms;
    if (f->due) return; /* only blocked */
    f->timer.fire = on_max_wait;
    bw_timers_set(&b->timers, &f->timer, bw_deadline_in_ms(wait > WAIT_MAX_MS ? WAIT_MAX_MS : wait));
}

void bw_handle_fetch(bw_broker *b, bw_op *op)
{
    const bw_request *q = &op->request;
    bw_err e = BW_OK;
    if (q->part_count > PARTS_MAX)
        e = bw_fail(BW_ERR_INVALID_ARGUMENT, "a fetch of %zu partitions; at most %d in one", q->part_count, PARTS_MAX);
    else if (q->isolation != BW_READ_UNCOMMITTED && q->isolation != BW_READ_COMMITTED)
        e = bw_fail(BW_ERR_INVALID_ARGUMENT, "isolation = %d; allowed: 0 read uncommitted, 1 read committed", q->isolation);
    else e = bw_fetch_limit_check(op);
    bw_fetch *f = e ? NULL : calloc(1, sizeof *f + q->part_count * sizeof f->links[0]);
    if (!e && !f) e = bw_fail(BW_ERR_NO_MEMORY, "no memory for a fetch");
    if (e) {
        bw_op_fail(op, e);
        return;
    }
    f->op = op;
    f->count = q->part_count;
    f->next = op->session->fetches;
    if (f->next) f->next->prev = f;
    op->session->fetches = f;
    find_parts(b, f);
    if (!fetch_try(b, f, q->max_wait_ms <= 0)) hang(b, f);
}

/* Has anything come behind the link's offset? Cheap; a fetch is read anew only then. */
static bool has_news(const bw_fetch_link *l)
{
    const bw_tail_slot *s = slot_of(l->part);
    if (atomic_load(&s->state) != BW_SLOT_OPEN) return true;
    const bw_request *q = &l->fetch->op->request;
    int64_t end = bw_limit_end(s, bw_fetch_limit(l->part, q->read_limit));
    if (q->isolation == BW_READ_COMMITTED) {
        int64_t unstable = atomic_load(&s->first_unstable);
        if (unstable < end) end = unstable;
    }
    return l->offset < atomic_load_explicit(&s->log_start, memory_order_acquire) || end > l->offset;
}

void bw_fetch_serve(bw_broker *b, bw_part *p)
{
    bw_fetch_link *l = p->fetches;
    while (l) {
        bw_fetch_link *next = l->next;
        bw_fetch *f = l->fetch;
        while (next && next->fetch == f) next = next->next; /* f may be gone after the try, with all its links */
        if (has_news(l)) fetch_try(b, f, false);
        l = next;
    }
}

void bw_fetch_end_part(bw_broker *b, bw_part *p)
{
    while (p->fetches) {
        bw_fetch *f = p->fetches->fetch;
        f->forced = true;
        fetch_try(b, f, true);
    }
}

void bw_fetch_serve_session(bw_broker *b, bw_session *s)
{
    for (bw_fetch *f = s->fetches, *next; f; f = next) {
        next = f->next;
        if (f->blocked) fetch_try(b, f, false);
    }
}

void bw_fetch_drop_session(bw_broker *b, bw_session *s)
{
    while (s->fetches) fetch_end(b, s->fetches, NULL);
}

bool bw_fetch_waiting(const bw_part *p, bw_wait_class cls)
{
    for (const bw_fetch_link *l = p->fetches; l; l = l->next)
        if (bw_limit_wait_class(bw_fetch_limit(p, l->fetch->op->request.read_limit)) == cls) return true;
    return false;
}
