/* client/compare.c: bw_compare: two copies of a topic, compared by the hashes of ranges (log/ranges.h), and the mirror mended.
 *
 * A range is asked for in at most 1,024 parts on both sides at once. Where a part differs it is taken apart in the same way; where it is
 * small, its batches are listed. So one differing batch among ten million costs two rounds of hashes, a list and the batch. Both sides
 * answer after so many bytes and say how far they came: the shorter one counts. Nothing that a side says is believed beyond its bounds. */
#include "client/bus.h"
#include "proto/replica_items.h"

#include <busway/replica.h>
#include <stdio.h>
#include <stdlib.h>

enum { PARTS = 1024, LIST_BATCHES = 512, MOST = 1000, ANSWER_MS = 120000, FETCH_MAX = 32 << 20 };

/* One of the two: what was asked last, and its answer. */
typedef struct side {
    bw_bus *bus;
    const char *topic;
    bw_request request;
    bw_reply reply;
    bw_err error;
    char message[512];
    bw_range_item *hashes;  /* PARTS */
    bw_batch_item *batches; /* BW_RANGE_BATCHES_MAX */
    uint32_t count;
} side;

typedef struct compare {
    side mirror, origin;
    const bw_compare_options *options;
    bw_compare_totals *totals;
    int32_t partition;
    uint64_t done, total; /* offsets */
    uint32_t most;
    bool too_many;
} compare;

/* ---- asking both ---- */

static void *ask_one(void *arg)
{
    side *s = arg;
    s->error = bw_bus_request(s->bus, &s->request, bw_deadline_in_ms(ANSWER_MS), &s->reply);
    if (s->error) snprintf(s->message, sizeof s->message, "%s", bw_error_message());
    return NULL;
}

static bw_err outcome(const side *s, const char *which)
{
    if (!s->error) return BW_OK;
    bw_error_set_message(s->error, s->message);
    return bw_error_context(s->error, "the %s", which);
}

static bw_err ask_both(compare *c)
{
    pthread_t other;
    bool beside = pthread_create(&other, NULL, ask_one, &c->origin) == 0;
    ask_one(&c->mirror);
    if (beside) pthread_join(other, NULL);
    else ask_one(&c->origin);
    bw_err e = outcome(&c->mirror, "mirror");
    return e ? e : outcome(&c->origin, "origin");
}

static void forget(compare *c)
{
    bw_reply_fini(&c->mirror.reply);
    bw_reply_fini(&c->origin.reply);
    memset(&c->mirror.reply, 0, sizeof c->mirror.reply);
    memset(&c->origin.reply, 0, sizeof c->origin.reply);
}

static void set_request(compare *c, side *s, bw_api_key type, int64_t from, int64_t upto, int64_t step)
{
    bw_request_init(&s->request, type);
    s->request.topic = bw_str_of(s->topic);
    s->request.partition = c->partition;
    s->request.replica.from = from;
    s->request.replica.upto = upto;
    s->request.replica.step = step;
    s->request.replica.check = !c->options->quick;
    s->request.replica.scan_max = UINT64_C(64) << 20;
}

static bw_err odd_answer(const char *what) { return bw_fail(BW_ERR_PROTOCOL, "a daemon's answer to %s is not as it should be", what); }

static bw_err read_hashes(side *s, int64_t from, int64_t upto, int64_t step)
{
    return bw_range_items(s->reply.answer.replica.ranges, (uint32_t)((upto - from - 1) / step + 1), s->hashes, &s->count);
}

static bw_err read_batches(side *s, int64_t from, int64_t upto)
{
    const bw_replica_answer *a = &s->reply.answer.replica;
    if (a->next <= from || a->next > upto) return odd_answer("RANGE_BATCHES");
    return bw_batch_items(a->ranges, from, a->next, s->batches, &s->count);
}

/* ---- one difference ---- */

/* The origin's batches [from, upto), `bytes` of them; data leads into the reply. */
static bw_err fetch_from_origin(compare *c, int64_t from, uint64_t bytes, bw_reply *reply)
{
    bw_fetch_part part = {.topic = bw_str_of(c->origin.topic), .partition = c->partition, .offset = from, .max_bytes = (uint32_t)bytes};
    bw_request q;
    bw_err e = BW_OK;
    for (int8_t limit = 3; limit >= 0; limit = (int8_t)(limit - 3)) { /* all; who may not ask for that: what is visible */
        bw_request_init(&q, BW_API_FETCH);
        q.parts = &part;
        q.part_count = 1;
        q.max_bytes = (uint32_t)bytes;
        q.read_limit = limit;
        e = bw_bus_request(c->origin.bus, &q, bw_deadline_in_ms(ANSWER_MS), reply);
        if (e != BW_ERR_NOT_PERMITTED) break;
        bw_reply_fini(reply);
    }
    if (e) return e;
    const bw_answer *a = &reply->answer;
    if (a->part_count != 1) return odd_answer("FETCH");
    if (a->parts[0].error) return bw_fail((bw_err)a->parts[0].error, "%.*s", (int)a->parts[0].message.len, a->parts[0].message.data);
    return a->payload_len >= bytes ? BW_OK : bw_fail(BW_ERR_IO, "the origin gave %zu of %llu bytes", a->payload_len, (unsigned long long)bytes);
}

static bw_err mend(compare *c, int64_t from, int64_t upto, uint64_t bytes)
{
    bw_reply reply = {0}, done = {0};
    if (bytes > FETCH_MAX) return bw_fail(BW_ERR_LOGS_DIVERGED, "%llu bytes differ: more than is mended in place", (unsigned long long)bytes);
    bw_err e = fetch_from_origin(c, from, bytes, &reply);
    if (!e) {
        set_request(c, &c->mirror, BW_API_MEND, from, upto, 0);
        c->mirror.request.payload = reply.answer.payload;
        c->mirror.request.payload_len = (size_t)bytes;
        c->mirror.request.replica.force = c->options->force;
        e = bw_bus_request(c->mirror.bus, &c->mirror.request, bw_deadline_in_ms(ANSWER_MS), &done);
        bw_reply_fini(&done);
    }
    bw_reply_fini(&reply);
    return e;
}

typedef struct run {
    int64_t from, upto;
    uint64_t origin_bytes;
    uint32_t mirror_count, origin_count;
    bool mirror_damaged, origin_damaged;
} run;

static bw_err report(compare *c, int64_t from, int64_t upto, bw_difference_kind kind, bw_err why)
{
    bw_difference d = {.topic = c->mirror.topic, .partition = c->partition, .from = from, .upto = upto, .kind = kind,
                       .mended = c->options->repair && why == BW_OK, .message = why ? bw_error_message() : ""};
    c->totals->differences++;
    c->totals->mended += d.mended;
    if (c->options->difference) c->options->difference(c->options->opaque, &d);
    if (c->totals->differences >= c->most) c->too_many = true;
    /* What ends the whole comparison. */
    return why == BW_ERR_NOT_CONNECTED || why == BW_ERR_NO_COORDINATOR || why == BW_ERR_NOT_PERMITTED || why == BW_ERR_FORKED ? why : BW_OK;
}

static bw_err settle_run(compare *c, const run *r)
{
    bw_difference_kind kind = r->origin_damaged || r->origin_count == 0 ? BW_DIFFERENCE_ORIGIN
                              : r->mirror_damaged                       ? BW_DIFFERENCE_DAMAGED
                              : r->mirror_count == 0                    ? BW_DIFFERENCE_MISSING
                                                                        : BW_DIFFERENCE_BYTES;
    bw_err e = BW_OK;
    if (kind == BW_DIFFERENCE_ORIGIN) e = bw_fail(BW_ERR_CORRUPT, "the origin's own batches are damaged or missing");
    else if (c->options->repair) e = mend(c, r->from, r->upto, r->origin_bytes);
    return report(c, r->from, r->upto, kind, e);
}

/* Runs of differing batches begin and end where both sides have a batch that begins, or at the list's ends. */
static bw_err compare_lists(compare *c)
{
    const side *m = &c->mirror, *o = &c->origin;
    uint32_t i = 0, k = 0;
    bw_err e = BW_OK;
    while (!e && !c->too_many && (i < m->count || k < o->count)) {
        if (i < m->count && k < o->count) {
            const bw_batch_item *x = &m->batches[i], *y = &o->batches[k];
            if (x->base == y->base && x->next == y->next && x->hash == y->hash && x->bytes == y->bytes && !x->flags && !y->flags) {
                i++;
                k++;
                continue;
            }
        }
        run r = {.from = i < m->count && (k >= o->count || m->batches[i].base < o->batches[k].base) ? m->batches[i].base : o->batches[k].base};
        do { /* up to where both have the same bound again */
            bool take = k >= o->count || (i < m->count && m->batches[i].base < o->batches[k].base);
            if (take || (i < m->count && k < o->count && m->batches[i].base == o->batches[k].base)) {
                r.mirror_damaged |= m->batches[i].flags & BW_RANGE_DAMAGED;
                r.mirror_count++;
                if (m->batches[i].next > r.upto) r.upto = m->batches[i].next;
                i++;
            }
            if (!take) {
                r.origin_damaged |= o->batches[k].flags & BW_RANGE_DAMAGED;
                r.origin_bytes += o->batches[k].bytes;
                r.origin_count++;
                if (o->batches[k].next > r.upto) r.upto = o->batches[k].next;
                k++;
            }
        } while ((i < m->count || k < o->count) &&
                 !(i < m->count && k < o->count && m->batches[i].base == o->batches[k].base));
        e = settle_run(c, &r);
    }
    return e;
}

static bw_err compare_batches(compare *c, int64_t from, int64_t upto)
{
    bw_err e = BW_OK;
    while (!e && !c->too_many && from < upto) {
        set_request(c, &c->mirror, BW_API_RANGE_BATCHES, from, upto, 1);
        set_request(c, &c->origin, BW_API_RANGE_BATCHES, from, upto, 1);
        e = ask_both(c);
        if (!e) e = read_batches(&c->mirror, from, upto);
        if (!e) e = read_batches(&c->origin, from, upto);
        if (!e) { /* as far as both came */
            int64_t m = c->mirror.reply.answer.replica.next, o = c->origin.reply.answer.replica.next, end = m < o ? m : o;
            while (c->mirror.count && c->mirror.batches[c->mirror.count - 1].next > end) c->mirror.count--;
            while (c->origin.count && c->origin.batches[c->origin.count - 1].next > end) c->origin.count--;
            forget(c);
            e = compare_lists(c);
            from = end;
        } else forget(c);
    }
    return e;
}

/* ---- ranges ---- */

static void advance(compare *c, int64_t offsets)
{
    c->done += (uint64_t)offsets;
    if (c->options->progress) c->options->progress(c->options->opaque, c->done, c->total);
}

static bw_err compare_range(compare *c, int64_t from, int64_t upto, bool top);

/* The differing ones among the first `count` parts; neighbours are taken together. */
static bw_err compare_parts(compare *c, int64_t from, int64_t upto, int64_t step, uint32_t count)
{
    typedef struct odd { int64_t from, upto; bool small; } odd;
    odd *list = malloc(count * sizeof *list);
    uint32_t n = 0;
    if (!list) return bw_fail(BW_ERR_NO_MEMORY, "no memory to compare");
    for (uint32_t i = 0; i < count; i++) {
        const bw_range_item *x = &c->mirror.hashes[i], *y = &c->origin.hashes[i];
        if (x->hash == y->hash && x->batches == y->batches && x->bytes == y->bytes && !x->damaged && !y->damaged) continue;
        int64_t begin = from + (int64_t)i * step, end = upto - begin < step ? upto : begin + step;
        bool is_small = (x->batches <= LIST_BATCHES && y->batches <= LIST_BATCHES) || step == 1;
        list[n++] = (odd){begin, end, is_small};
    }
    bw_err e = BW_OK;
    for (uint32_t i = 0; !e && !c->too_many && i < n; i++)
        e = list[i].small ? compare_batches(c, list[i].from, list[i].upto) : compare_range(c, list[i].from, list[i].upto, false);
    free(list);
    return e;
}

static bw_err compare_range(compare *c, int64_t from, int64_t upto, bool top)
{
    int64_t step = (upto - from - 1) / PARTS + 1;
    bw_err e = BW_OK;
    while (!e && !c->too_many && from < upto) {
        set_request(c, &c->mirror, BW_API_RANGE_HASHES, from, upto, step);
        set_request(c, &c->origin, BW_API_RANGE_HASHES, from, upto, step);
        e = ask_both(c);
        if (!e) e = read_hashes(&c->mirror, from, upto, step);
        if (!e) e = read_hashes(&c->origin, from, upto, step);
        forget(c);
        if (e) break;
        uint32_t count = c->mirror.count < c->origin.count ? c->mirror.count : c->origin.count;
        int64_t end = upto - from <= (int64_t)count * step ? upto : from + (int64_t)count * step;
        for (uint32_t i = 0; top && i < count; i++) {
            c->totals->batches += c->mirror.hashes[i].batches;
            c->totals->bytes += c->mirror.hashes[i].bytes;
        }
        e = compare_parts(c, from, end, step, count);
        if (top) advance(c, end - from);
        from = end;
    }
    return e;
}

/* ---- partitions ---- */

typedef struct bounds { int64_t mirror_start, mirror_end, origin_start, origin_end; } bounds;

static bw_err ask_bounds(compare *c, bounds *out)
{
    for (int i = 0; i < 2; i++) {
        side *s = i ? &c->origin : &c->mirror;
        bw_request_init(&s->request, BW_API_LIST_OFFSETS);
        s->request.topic = bw_str_of(s->topic);
        s->request.partition = c->partition;
        s->request.timestamp = BW_OFFSET_END;
    }
    bw_err e = ask_both(c);
    if (!e)
        *out = (bounds){c->mirror.reply.answer.log_start, c->mirror.reply.answer.end, c->origin.reply.answer.log_start, c->origin.reply.answer.end};
    forget(c);
    if (!e && (out->mirror_start < 0 || out->origin_start < 0)) e = odd_answer("LIST_OFFSETS");
    return e;
}

static int64_t common(const bounds *b, int64_t *from)
{
    *from = b->mirror_start > b->origin_start ? b->mirror_start : b->origin_start;
    int64_t upto = b->mirror_end < b->origin_end ? b->mirror_end : b->origin_end;
    return upto > *from ? upto - *from : 0;
}

static bw_err compare_partition(compare *c, const bounds *b)
{
    int64_t from, length = common(b, &from);
    bw_err e = BW_OK;
    c->totals->partitions++;
    if (b->origin_end > b->mirror_end) c->totals->behind += (uint64_t)(b->origin_end - b->mirror_end);
    if (length) e = compare_range(c, from, from + length, true);
    if (!e && !c->too_many && b->mirror_end > b->origin_end) {
        bw_fail(BW_ERR_LOGS_DIVERGED, "the origin's log ends at offset %lld", (long long)b->origin_end);
        e = report(c, b->origin_end, b->mirror_end, BW_DIFFERENCE_BEYOND, BW_ERR_LOGS_DIVERGED);
    }
    return e;
}

static bw_err compare_all(compare *c)
{
    bw_topic_info m, o;
    bw_err e = bw_bus_topic_info(c->mirror.bus, c->mirror.topic, false, bw_bus_request_deadline(c->mirror.bus), &m);
    if (e) return bw_error_context(e, "the mirror");
    e = bw_bus_topic_info(c->origin.bus, c->origin.topic, false, bw_bus_request_deadline(c->origin.bus), &o);
    if (e) return bw_error_context(e, "the origin");
    int32_t count = m.partitions < o.partitions ? m.partitions : o.partitions;
    bounds *list = calloc((size_t)count, sizeof *list);
    if (!list) return bw_fail(BW_ERR_NO_MEMORY, "no memory to compare");
    for (c->partition = 0; !e && c->partition < count; c->partition++) {
        int64_t from;
        e = ask_bounds(c, &list[c->partition]);
        if (!e) c->total += (uint64_t)common(&list[c->partition], &from);
    }
    for (c->partition = 0; !e && !c->too_many && c->partition < count; c->partition++) e = compare_partition(c, &list[c->partition]);
    free(list);
    if (!e && m.partitions != o.partitions) {
        c->partition = count;
        bw_fail(BW_ERR_LOGS_DIVERGED, "the mirror has %d partitions, the origin %d", m.partitions, o.partitions);
        e = report(c, 0, 0, m.partitions > count ? BW_DIFFERENCE_BEYOND : BW_DIFFERENCE_MISSING, BW_ERR_LOGS_DIVERGED);
    }
    if (e) return e;
    if (c->too_many) return bw_fail(BW_ERR_LOGS_DIVERGED, "%u differences: the comparison was ended", c->most);
    if (c->totals->mended == c->totals->differences) return BW_OK;
    return bw_fail(BW_ERR_LOGS_DIVERGED, "%llu differences are left", (unsigned long long)(c->totals->differences - c->totals->mended));
}

bw_err bw_compare(bw_bus *mirror, const char *topic, bw_bus *origin, const char *origin_topic, const bw_compare_options *given,
                  bw_compare_totals *totals)
{
    bw_compare_options o = BW_COMPARE_OPTIONS_INIT;
    bw_compare_totals ignored;
    if (!mirror || !origin || !topic) return bw_fail(BW_ERR_INVALID_ARGUMENT, "bw_compare: two buses and a topic");
    BW_CHECK_FORK(mirror);
    BW_CHECK_FORK(origin);
    if (mirror->backend || origin->backend) return bw_fail(BW_ERR_UNSUPPORTED, "a Kafka cluster has no hashes of its logs to compare by");
    if (given) {
        if (given->size == 0) return bw_fail(BW_ERR_INVALID_ARGUMENT, "compare options: size is not set; begin with BW_COMPARE_OPTIONS_INIT");
        memcpy(&o, given, given->size < sizeof o ? given->size : sizeof o);
    }
    if (!totals) totals = &ignored;
    *totals = (bw_compare_totals){0};
    compare c = {.mirror = {.bus = mirror, .topic = topic}, .origin = {.bus = origin, .topic = origin_topic ? origin_topic : topic},
                 .options = &o, .totals = totals, .most = o.most ? o.most : MOST};
    uint64_t out = atomic_load(&origin->conn.bytes_out), in = atomic_load(&origin->conn.bytes_in);
    side *sides[] = {&c.mirror, &c.origin};
    bw_err e = BW_OK;
    for (int i = 0; i < 2; i++) {
        sides[i]->hashes = malloc(PARTS * sizeof(bw_range_item));
        sides[i]->batches = malloc(BW_RANGE_BATCHES_MAX * sizeof(bw_batch_item));
        if (!sides[i]->hashes || !sides[i]->batches) e = bw_fail(BW_ERR_NO_MEMORY, "no memory to compare");
    }
    if (!e) e = compare_all(&c);
    for (int i = 0; i < 2; i++) {
        free(sides[i]->hashes);
        free(sides[i]->batches);
    }
    totals->sent_bytes = atomic_load(&origin->conn.bytes_out) - out;
    totals->received_bytes = atomic_load(&origin->conn.bytes_in) - in;
    return e;
}
