/* broker/link_fetch.c: LINK_FETCH: the next batches of a stream: several partitions, those of the highest priority first, equals by turns.
 *
 * A stream is its session's: taps (a partition and the offset where it goes on) and a queue of fetches. One answer after the other is
 * made, each going on where the one before ended; what is to be filtered or compressed is done by the worker (link_filter.c), and the next
 * answer is read meanwhile by nobody: order is kept by having one at a time. A fetch without news waits at its stream until max_wait.
 * Mirrors get batches as they are, of open transactions and markers too; merges the committed ones. A partition's error is told once;
 * the others of the stream go on. */
#include "broker/link_stream.h"

#include "broker/quota_admit.h"

#include <busway/consumer.h>

#include <stdlib.h>

enum { STREAMS_MAX = 64, TAPS_MAX = 100000, BACKLOG_MAX = 16 << 20, FETCH_MAX = 8 << 20, WAIT_MAX_MS = 3600000 };

static struct bw_link_stream *find(const bw_session *s, uint32_t id)
{
    struct bw_link_stream *st = s->linking ? s->linking->streams : NULL;
    while (st && st->id != id) st = st->next;
    return st;
}

struct bw_linking *bw_linking_of(bw_session *s)
{
    if (!s->linking) s->linking = calloc(1, sizeof *s->linking);
    return s->linking;
}

/* ---- taps ---- */

static void tap_link(struct bw_tap *t)
{
    t->prev = NULL;
    t->next = t->part->taps;
    if (t->next) t->next->prev = t;
    t->part->taps = t;
}

static void tap_unlink(struct bw_tap *t)
{
    if (!t->part) return;
    if (t->prev) t->prev->next = t->next;
    else t->part->taps = t->next;
    if (t->next) t->next->prev = t->prev;
    t->part = NULL;
}

static void stream_free(struct bw_link_stream *st)
{
    for (size_t i = 0; i < st->count; i++) {
        tap_unlink(&st->taps[i]);
        free(st->taps[i].why);
    }
    free(st->taps);
    free(st->header);
    free(st->header_value.data);
    free(st->key_prefix.data);
    free(st);
}

static void stream_end(bw_broker *b, struct bw_link_stream *st)
{
    bw_timers_clear(&b->timers, &st->timer);
    while (st->ops) {
        bw_op *op = st->ops;
        st->ops = op->next;
        bw_answer a;
        bw_answer_init(&a, &op->request);
        bw_op_finish(op, &a);
    }
    struct bw_link_stream **at = &st->session->linking->streams;
    while (*at != st) at = &(*at)->next;
    *at = st->next;
    for (size_t i = 0; i < st->count; i++) tap_unlink(&st->taps[i]);
    if (st->working) st->ended = true; /* freed when the worker is done */
    else stream_free(st);
}

static void tap_fail(struct bw_tap *t, bw_err e)
{
    t->error = e;
    t->told = false;
    free(t->why);
    t->why = strdup(bw_error_message());
    tap_unlink(t);
}

/* A mirror's last batch must be in this log, as it is there. What retention or compaction has taken can't be compared. */
static bw_err compare_last(bw_broker *b, bw_part *p, const bw_link_part *q)
{
    bw_reader *r;
    bw_batch_ref ref;
    int64_t log_start, end, durable;
    bw_part_range(p, &log_start, &end, &durable);
    if (q->offset > end)
        return bw_fail(BW_ERR_LOGS_DIVERGED, "topic '%s' partition %u: the mirror has records up to offset %lld, the origin only up to %lld",
                       p->topic->name, p->index, (long long)q->offset, (long long)end);
    if (q->base < log_start || bw_topic_config_compacts(&p->topic->config)) return BW_OK;
    bw_err e = bw_part_reader(b, p, BW_LIMIT_ALL, false, &r);
    if (e) return e;
    bw_reader_seek(r, q->base);
    e = bw_reader_next(r, &ref);
    if (e && e != BW_ERR_EMPTY) return e;
    if (!e && ref.header.base_offset == q->base && ref.header.crc == q->crc && ref.header.leader_epoch == q->epoch) return BW_OK;
    return bw_fail(BW_ERR_LOGS_DIVERGED, "topic '%s' partition %u: the mirror's last batch, at offset %lld, is not the origin's",
                   p->topic->name, p->index, (long long)q->base);
}

static void tap_begin(bw_broker *b, struct bw_link_stream *st, struct bw_tap *t, const bw_link_part *q)
{
    t->stream = st;
    t->offset = q->offset < 0 ? 0 : q->offset;
    t->partition = q->partition;
    t->priority = q->priority;
    bw_err e = bw_part_of(b, q->topic, q->partition, false, &t->part);
    if (e) t->part = NULL;
    memcpy(t->name, q->topic.data, q->topic.len < sizeof t->name ? q->topic.len : sizeof t->name - 1);
    if (!e) {
        static const uint8_t none[16];
        memcpy(t->id, t->part->topic->id.b, 16);
        tap_link(t);
        if (memcmp(q->id, none, 16) && memcmp(q->id, t->id, 16))
            e = bw_fail(BW_ERR_UNKNOWN_TOPIC, "topic '%s' was deleted and made anew", t->name);
    }
    if (!e && st->mode == BW_LINK_MIRROR && q->base >= 0 && !st->filters) e = compare_last(b, t->part, q);
    if (e) {
        tap_fail(t, e);
        return;
    }
    t->start_told = atomic_load(&t->part->topic->control->slots[t->part->index].log_start);
    bw_partition_info info = {0};
    if (t->part->log) bw_partition_info_get(t->part->log, &info);
    if (info.end_offset > info.log_start) t->bytes_each = (double)info.size_bytes / (double)(info.end_offset - info.log_start);
}

/* ---- reading ---- */

static int64_t end_of(const struct bw_tap *t, int64_t *log_start, int64_t *end)
{
    int64_t durable;
    bw_part_range(t->part, log_start, end, &durable);
    if (t->stream->limit == BW_READ_DURABLE) *end = durable;
    if (t->stream->mode == BW_LINK_MERGE) {
        int64_t unstable = atomic_load(&t->part->topic->control->slots[t->part->index].first_unstable);
        if (unstable < *end) *end = unstable;
    }
    return *end;
}

static void note_batches(struct bw_link_stream *st, const bw_run *run, bw_link_part *out)
{
    for (size_t at = 0; at + BW_BATCH_HEADER_BYTES <= run->len;) {
        const uint8_t *h = run->data + at;
        int64_t newest = (int64_t)bw_get_be64(h + 35);
        if (newest > out->timestamp) out->timestamp = newest;
        st->has_merged |= (int32_t)bw_get_be32(h + 53) == BW_MERGE_SEQUENCE;
        at += (size_t)bw_get_be32(h + 8) + 12;
    }
}

/* Batches of one tap into `payload`; false: there was nothing new. */
static bool read_tap(bw_broker *b, struct bw_tap *t, size_t most, bw_buf *payload, bw_link_part *out)
{
    struct bw_link_stream *st = t->stream;
    *out = (bw_link_part){.topic = bw_str_of(t->name), .partition = t->partition, .offset = t->offset, .next = t->offset, .base = -1, .epoch = -1,
                          .log_start = -1, .end = -1, .timestamp = -1, .incarnation = b->incarnation, .error = (int32_t)t->error};
    memcpy(out->id, t->id, 16);
    if (t->error) {
        out->message = bw_str_of(t->why ? t->why : bw_err_text(t->error));
        bool first = !t->told;
        t->told = true;
        return first;
    }
    bw_reader *r;
    size_t before = payload->len;
    int64_t end = end_of(t, &out->log_start, &out->end);
    bool started = st->mode == BW_LINK_MIRROR && out->log_start != t->start_told; /* a mirror may want to follow */
    t->start_told = out->log_start;
    bool open = atomic_load(&t->part->topic->control->slots[t->part->index].state) == BW_SLOT_OPEN;
    if (!started && end <= t->offset && t->offset >= out->log_start && open) return false;
    /* Whatever read.limit says: of what is to be seen when peers have it, the peers must get everything. */
    bool durable = st->limit == BW_READ_DURABLE && bw_topic_config_read_limit(&t->part->topic->config) != BW_LIMIT_REPLICATED;
    bw_err e = bw_part_reader(b, t->part, durable ? BW_LIMIT_DURABLE : BW_LIMIT_ALL, st->mode == BW_LINK_MERGE, &r);
    if (!e && bw_reader_position(r) != t->offset) bw_reader_seek(r, t->offset);
    while (!e && (payload->len < most || payload->len == 0)) {
        bw_run run;
        if ((e = bw_reader_run(r, most > payload->len ? most - payload->len : 1, &run))) break;
        if (payload->len && payload->len + run.len > most + (most >> 1)) {
            bw_reader_seek(r, out->next);
            break;
        }
        if ((e = bw_buf_append(payload, run.data, run.len))) break;
        note_batches(st, &run, out);
        out->next = run.next_offset;
    }
    if (e == BW_ERR_EMPTY) { /* what was left out at the end, aborted batches, is passed too */
        if (bw_reader_position(r) > out->next) out->next = bw_reader_position(r);
        e = BW_OK;
    }
    if (e && payload->len == before) {
        tap_fail(t, e);
        out->error = (int32_t)e;
        out->message = bw_str_of(t->why ? t->why : bw_err_text(e));
        t->told = true;
        return true;
    }
    out->size = (uint32_t)(payload->len - before);
    t->part->out_bytes += out->size;
    if (out->next > t->offset && out->size) t->bytes_each = t->bytes_each * 0.7 + 0.3 * (double)out->size / (double)(out->next - t->offset);
    out->left = out->end > out->next ? (uint64_t)((double)(out->end - out->next) * t->bytes_each) : 0;
    bool news = started || out->next > t->offset;
    t->offset = out->next;
    return news;
}

/* Once a second: how far those lag that others go before. */
static size_t tell_lag(struct bw_link_stream *st, bw_link_part *parts, size_t n)
{
    int64_t now = bw_clock_mono_ms();
    if (now - st->lag_ms < 1000) return n;
    st->lag_ms = now;
    size_t had = n;
    for (size_t i = 0; i < st->count; i++) {
        struct bw_tap *t = &st->taps[i];
        bool there = t->part == NULL;
        for (size_t k = 0; !there && k < had; k++) there = parts[k].partition == t->partition && parts[k].topic.data == t->name;
        int64_t log_start, end;
        if (there || end_of(t, &log_start, &end) <= t->offset || n == st->count) continue;
        parts[n] = (bw_link_part){.topic = bw_str_of(t->name), .partition = t->partition, .offset = t->offset, .next = t->offset,
                                  .base = -1, .epoch = -1,
                                  .log_start = log_start, .end = end, .timestamp = -1, .left = (uint64_t)((double)(end - t->offset) * t->bytes_each)};
        memcpy(parts[n++].id, t->id, 16);
    }
    return n;
}

/* All taps in their order; how many parts. */
static size_t collect(bw_broker *b, struct bw_link_stream *st, size_t most, bw_buf *payload, bw_link_part *parts)
{
    size_t n = 0;
    for (size_t from = 0; from < st->count && (payload->len < most || !payload->len);) {
        size_t to = from + 1; /* taps are sorted: of one priority */
        while (to < st->count && st->taps[to].priority == st->taps[from].priority) to++;
        size_t turn = st->turn % (to - from);
        for (size_t i = 0; i < to - from && (payload->len < most || !payload->len); i++)
            n += read_tap(b, &st->taps[from + (turn + i) % (to - from)], most, payload, &parts[n]);
        from = to;
    }
    st->turn++;
    return n;
}

/* ---- answering ---- */

void bw_link_stream_answer(bw_broker *b, struct bw_link_stream *st, bw_op *op, bw_link_part *parts, size_t n, bw_codec codec, size_t plain,
                           const bw_buf *payload)
{
    bw_answer a;
    (void)b;
    bw_answer_init(&a, &op->request);
    a.link.parts = parts;
    a.link.part_count = n;
    a.link.codec = (int8_t)codec;
    a.link.plain = (uint32_t)plain;
    a.link.changed = st->session->linking && st->session->linking->changed;
    a.payload = payload->data;
    a.payload_len = payload->len;
    bw_op_finish(op, &a);
}

/* true: the first fetch was answered, or is at the worker. */
static bool serve_one(bw_broker *b, struct bw_link_stream *st, bool last)
{
    bw_op *op = st->ops;
    bw_session *s = st->session;
    st->blocked = s->ops->backlog(s->listener) >= BACKLOG_MAX || bw_quota_must_wait(b, s);
    if (st->blocked) return false;
    bw_link_part *parts = calloc(st->count ? st->count : 1, sizeof *parts);
    if (!parts) return false;
    size_t most = op->request.max_bytes < FETCH_MAX ? op->request.max_bytes : FETCH_MAX;
    b->payload.len = 0;
    st->has_merged = false;
    size_t n = collect(b, st, most, &b->payload, parts);
    bool done = n > 0 || last || s->linking->changed;
    if (done) {
        if (b->payload.len) n = tell_lag(st, parts, n);
        st->ops = op->next;
        if (!st->ops) st->ops_last = NULL;
        bw_timers_clear(&b->timers, &st->timer);
        bool work = b->payload.len && (st->codec != BW_CODEC_NONE || st->filters || (st->has_merged && st->skip_own));
        if (work && bw_link_stream_work(b, st, op, parts, n, &b->payload)) return true; /* parts are the worker's */
        if (work) bw_op_fail(op, BW_ERR_NO_MEMORY);
        else bw_link_stream_answer(b, st, op, parts, n, BW_CODEC_NONE, b->payload.len, &b->payload);
        if (b->payload.cap > (4u << 20)) bw_buf_free(&b->payload);
    }
    free(parts);
    return done;
}

static void on_wait(void *broker, bw_timer *timer)
{
    struct bw_link_stream *st = (struct bw_link_stream *)(void *)((char *)timer - offsetof(struct bw_link_stream, timer));
    if (st->ops && !st->working) serve_one(broker, st, true);
    bw_link_stream_serve(broker, st);
}

void bw_link_stream_serve(bw_broker *b, struct bw_link_stream *st)
{
    while (st->ops && !st->working) {
        int32_t wait = st->ops->request.max_wait_ms;
        if (serve_one(b, st, wait <= 0)) continue;
        st->timer.fire = on_wait;
        if (!st->timer.index) bw_timers_set(&b->timers, &st->timer, bw_deadline_in_ms(wait > WAIT_MAX_MS ? WAIT_MAX_MS : wait > 0 ? wait : 1));
        break;
    }
}

static int by_priority(const void *x, const void *y)
{
    const bw_link_part *a = x, *b = y;
    if (a->priority != b->priority) return a->priority < b->priority ? 1 : -1;
    return (a > b) - (a < b);
}

static char *copy_of(bw_str s) { return s.len ? bw_text_copy(s.data, s.len) : NULL; }

static bw_err begin(bw_broker *b, bw_op *op, struct bw_link_stream **out)
{
    bw_link_request *r = &op->request.link;
    size_t streams = 0;
    struct bw_link_stream *st = find(op->session, r->stream);
    if (r->part_count > TAPS_MAX) return bw_fail(BW_ERR_INVALID_ARGUMENT, "a stream of %zu partitions; at most %d", r->part_count, TAPS_MAX);
    if (r->codec < BW_CODEC_NONE || r->codec > BW_CODEC_ZSTD) return bw_fail(BW_ERR_UNKNOWN_CODEC, "codec %d is not known", r->codec);
    if (r->mode != BW_LINK_MIRROR && r->mode != BW_LINK_MERGE)
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "mode = %d; allowed: 0 mirror, 1 merge", r->mode);
    if (st) stream_end(b, st);
    if (!bw_linking_of(op->session)) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a stream");
    for (st = op->session->linking->streams; st; st = st->next) streams++;
    if (streams >= STREAMS_MAX) return bw_fail(BW_ERR_LIMIT_REACHED, "a connection has at most %d streams", STREAMS_MAX);
    st = calloc(1, sizeof *st);
    struct bw_tap *taps = calloc(r->part_count ? r->part_count : 1, sizeof *taps);
    if (!st || !taps) {
        free(st);
        free(taps);
        return bw_fail(BW_ERR_NO_MEMORY, "no memory for a stream");
    }
    static const uint8_t none[16];
    *st = (struct bw_link_stream){.session = op->session, .id = r->stream, .mode = r->mode, .codec = (bw_codec)r->codec,
                                  .limit = op->request.read_limit, .taps = taps, .count = r->part_count,
                                  .skip_own = memcmp(r->origin, none, 16) != 0};
    memcpy(st->target.b, r->origin, 16);
    st->key_prefix = (bw_link_text){copy_of(r->key_prefix), r->key_prefix.len};
    st->header = copy_of(r->header);
    st->header_value = (bw_link_text){copy_of(r->header_value), r->header_value.len};
    st->filters = st->key_prefix.data || st->header;
    st->next = op->session->linking->streams;
    op->session->linking->streams = st;
    if (r->part_count > 1) qsort(r->parts, r->part_count, sizeof *r->parts, by_priority);
    for (size_t i = 0; i < r->part_count; i++) tap_begin(b, st, &taps[i], &r->parts[i]);
    *out = st;
    return BW_OK;
}

void bw_handle_link_fetch(bw_broker *b, bw_op *op)
{
    struct bw_link_stream *st = find(op->session, op->request.link.stream);
    bw_err e = bw_origin_keep(b);
    if (!e && op->request.link.begin) e = begin(b, op, &st);
    else if (!e && !st) e = bw_fail(BW_ERR_INVALID_ARGUMENT, "stream %u was not begun in this connection", op->request.link.stream);
    if (e) {
        bw_op_fail(op, e);
        return;
    }
    op->next = NULL;
    if (st->ops) st->ops_last->next = op;
    else st->ops = op;
    st->ops_last = op;
    if (st->ops == op) bw_link_stream_serve(b, st);
    for (size_t i = 0; st->ops && i < st->count; i++)
        if (st->taps[i].part) bw_broker_again(b, st->taps[i].part); /* to be armed */
}

/* ---- being called ---- */

void bw_tap_serve(bw_broker *b, bw_part *p)
{
    for (struct bw_tap *t = p->taps, *next; t; t = next) {
        next = t->next;
        int64_t log_start, end;
        struct bw_link_stream *st = t->stream;
        if (!st->ops || st->working || st->blocked) continue;
        bool started = st->mode == BW_LINK_MIRROR && atomic_load(&p->topic->control->slots[p->index].log_start) != t->start_told;
        if (started || end_of(t, &log_start, &end) > t->offset || atomic_load(&p->topic->control->slots[p->index].state) != BW_SLOT_OPEN) {
            bw_link_stream_serve(b, st); /* may unlink taps of p, by errors alone: begin anew */
            next = p->taps == t || t->part == p ? t->next : NULL;
        }
    }
}

bool bw_tap_waiting(const bw_part *p, bw_wait_class cls)
{
    for (const struct bw_tap *t = p->taps; t; t = t->next)
        if (t->stream->ops && !t->stream->blocked && (t->stream->limit == BW_READ_DURABLE) == (cls == BW_WAIT_STATE)) return true;
    return false;
}

void bw_tap_end_part(bw_broker *b, bw_part *p)
{
    while (p->taps) {
        struct bw_tap *t = p->taps;
        bw_fail(BW_ERR_UNKNOWN_TOPIC, "topic '%s' was deleted", p->topic->name);
        tap_fail(t, BW_ERR_UNKNOWN_TOPIC);
        bw_link_stream_serve(b, t->stream);
    }
}

void bw_link_streams_serve_session(bw_broker *b, bw_session *s)
{
    for (struct bw_link_stream *st = s->linking->streams; st; st = st->next) {
        bw_link_stream_serve(b, st);
        for (size_t i = 0; st->ops && i < st->count; i++)
            if (st->taps[i].part) bw_broker_again(b, st->taps[i].part);
    }
}

void bw_link_topics_changed(bw_broker *b)
{
    for (bw_session *s = b->sessions; s; s = s->next) {
        if (!s->linking) continue;
        s->linking->changed = true;
        for (struct bw_link_stream *st = s->linking->streams; st; st = st->next) bw_link_stream_serve(b, st);
    }
}

void bw_link_streams_drop(bw_broker *b, bw_session *s)
{
    while (s->linking->streams) stream_end(b, s->linking->streams);
}

void bw_link_stream_worked(bw_broker *b, struct bw_link_stream *st)
{
    st->working = false;
    if (st->ended) {
        stream_free(st);
        return;
    }
    bw_link_stream_serve(b, st);
    for (size_t i = 0; st->ops && i < st->count; i++)
        if (st->taps[i].part) bw_broker_again(b, st->taps[i].part);
}
