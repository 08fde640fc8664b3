/* link/copy.c: see copy.h. Streaming: chunks from source to sink; their order is the order of the source's answers. */
#include "link/copy.h"

#include "base/killpoint.h"
#include "link/copy_internal.h"
#include "link/replicate.h"

#include <stdio.h>
#include <stdlib.h>

enum { CHUNK_FIRST = 64 << 10, CHUNK_LEAST = 16 << 10, CHUNK_SLOW = 32 << 10, CHUNK_MOST = 1 << 20, IDLE_WAIT_MS = 600000, CONNECT_MS = 10000 };
#define SLOW_NS 200000000
#define SHORTEST_NS 20000000
#define QUICK_NS 5000000

void bw_copy_init(bw_copy *c, const bw_link_spec *spec)
{
    *c = (bw_copy){.spec = spec, .chunk_bytes = spec->rate ? CHUNK_LEAST : CHUNK_FIRST};
    pthread_mutex_init(&c->mutex, NULL);
}

void bw_copy_fini(bw_copy *c)
{
    bw_copy_part *p, *next;
    HASH_ITER(hh, c->parts, p, next)
    {
        HASH_DEL(c->parts, p);
        free(p);
    }
    pthread_mutex_destroy(&c->mutex);
}

void bw_copy_say(bw_copy *c, bw_log_level level, const char *event, const bw_copy_part *p, const char *more)
{
    char fields[900];
    snprintf(fields, sizeof fields, "link=%s topic=%s partition=%d %s", c->spec->name, p->key.topic, p->key.partition, more);
    if (c->event) c->event(c->opaque, level, event, fields);
}

bw_copy_part *bw_copy_part_of(bw_copy *c, const char *topic, int32_t partition, bool target)
{
    bw_copy_part *p;
    if (target) {
        for (p = c->parts; p; p = p->hh.next)
            if (p->key.partition == partition && p->present && !strcmp(p->target, topic)) return p;
        return NULL;
    }
    bw_copy_key key = {.partition = partition};
    snprintf(key.topic, sizeof key.topic, "%s", topic);
    HASH_FIND(hh, c->parts, &key, sizeof key, p);
    return p;
}

bool bw_copy_is_lost(bw_err e) { return e == BW_ERR_NOT_CONNECTED || e == BW_ERR_TIMED_OUT || e == BW_ERR_NO_COORDINATOR || e == BW_ERR_CLOSED; }

static void fail(bw_copy *c, bw_err e)
{
    if (c->failed) return;
    c->failed = e;
    snprintf(c->why, sizeof c->why, "%s", bw_error_message());
}

/* The partition stands still; the stream is arranged without it. */
static void part_fail(bw_copy *c, bw_copy_part *p, bw_err e, const char *message)
{
    enum { AGAIN_S = 30 };
    bool first = p->error != e;
    pthread_mutex_lock(&c->mutex);
    p->error = e;
    snprintf(p->message, sizeof p->message, "%s", message && *message ? message : bw_err_text(e));
    pthread_mutex_unlock(&c->mutex);
    c->restart = true;
    if (!c->again_ns) c->again_ns = bw_clock_mono_ns() + (int64_t)AGAIN_S * 1000000000;
    char more[420];
    snprintf(more, sizeof more, "error=%s reason=\"%.300s\"", bw_err_name(e), p->message);
    if (first) bw_copy_say(c, BW_LOG_ERROR, "link_part_stopped", p, more);
}

/* ---- a chunk arrives ---- */

static void overtaken(bw_copy *c, bw_copy_part *p, const bw_piece *piece)
{
    if (piece->log_start <= p->sent) { /* the source has less than the sink: it is another log, or it lost records */
        part_fail(c, p, BW_ERR_LOGS_DIVERGED, piece->message);
        return;
    }
    int64_t lost = piece->log_start - p->sent;
    bool gap = p->sent > 0;
    pthread_mutex_lock(&c->mutex);
    p->resume = piece->log_start;
    if (gap) p->lost += lost;
    pthread_mutex_unlock(&c->mutex);
    c->restart = true;
    char more[160];
    snprintf(more, sizeof more, "from=%lld to=%lld offsets=%lld reason=\"retention took them before they were copied\"", (long long)p->sent,
             (long long)piece->log_start, (long long)lost);
    if (gap) bw_copy_say(c, BW_LOG_WARN, "link_gap", p, more);
}

static void source_error(bw_copy *c, bw_copy_part *p, const bw_piece *piece)
{
    if (piece->error == BW_ERR_OFFSET_OUT_OF_RANGE) overtaken(c, p, piece);
    else if (piece->error == BW_ERR_UNKNOWN_TOPIC || piece->error == BW_ERR_DELETED || piece->error == BW_ERR_BUSY) c->restart = true;
    else part_fail(c, p, piece->error, piece->message);
}

/* What of a chunk is to be appended, for the sink; in order. */
static size_t take_pieces(bw_copy *c, const bw_chunk *chunk, bw_piece *out)
{
    size_t n = 0;
    for (size_t i = 0; i < chunk->count; i++) {
        const bw_piece *from = &chunk->pieces[i];
        bw_copy_part *p = bw_copy_part_of(c, from->topic, from->partition, false);
        if (!p || !p->present) { /* nobody asked for it: what lies behind it can't be told apart from it */
            fail(c, bw_fail(BW_ERR_PROTOCOL, "the source sent topic '%.100s' partition %d, which was not asked for", from->topic, from->partition));
            return 0;
        }
        if (from->error) {
            source_error(c, p, from);
            continue;
        }
        pthread_mutex_lock(&c->mutex);
        p->end = from->end;
        p->log_start = from->log_start;
        p->left = from->left;
        pthread_mutex_unlock(&c->mutex);
        bw_replicate_start(c, p);
        if (!from->size && from->next <= p->sent) continue;
        out[n] = *from;
        memcpy(out[n].topic, p->target, sizeof out[n].topic);
        out[n].offset = p->sent;
        p->sent = from->next;
        n++;
    }
    return n;
}

static void pay(bw_copy *c, size_t wire)
{
    int64_t now = bw_clock_mono_ns();
    c->wire += wire;
    if (!c->spec->rate) return;
    if (c->pay_ns < now) c->pay_ns = now;
    c->pay_ns += (int64_t)((double)wire * 1e9 / (double)c->spec->rate);
}

static void on_fetched(bw_transfer *t, bw_err e, const bw_chunk *chunk, uint64_t wire)
{
    bw_copy_flight *f = t->opaque;
    bw_copy *c = f->copy;
    f->state = BW_FLIGHT_IDLE;
    if (e && !c->discard) fail(c, e);
    if (e || c->discard || c->failed) return;
    c->restart |= chunk->changed;
    if (!chunk->count) return;
    f->pieces = calloc(chunk->count, sizeof *f->pieces);
    if (!f->pieces) {
        fail(c, bw_fail(BW_ERR_NO_MEMORY, "no memory for %zu parts", chunk->count));
        return;
    }
    f->count = take_pieces(c, chunk, f->pieces);
    pay(c, c->spec->push ? chunk->len : (size_t)wire);
    bw_chunk out = *chunk;
    out.pieces = f->pieces;
    out.count = f->count;
    f->plain = chunk->plain;
    f->state = BW_FLIGHT_APPENDS;
    e = f->count && !c->failed ? c->sink->ops->append(c->sink, &out, &f->append) : BW_OK;
    if (e) fail(c, e);
    if (f->count && !c->failed) return;
    f->state = BW_FLIGHT_IDLE;
    free(f->pieces);
    f->pieces = NULL;
}

/* A chunk takes a twentieth to a fifth of a second: large enough to cost little, small enough to be sent again after a cut. For the same
 * reason there are only two under way on a line that is slow. On one that is cut every few seconds, or has not shown that it is not, it takes
 * a fortieth of the time that a connection lives. */
static int64_t longest_chunk(const bw_copy *c)
{
    int64_t age = c->up_ns ? bw_clock_mono_ns() - c->up_ns : 0, part = (age > c->life_ns ? age : c->life_ns) / 40;
    return part > SLOW_NS ? SLOW_NS : part < SHORTEST_NS ? SHORTEST_NS : part;
}

static void adapt(bw_copy *c, const bw_copy_flight *f)
{
    int64_t slow = longest_chunk(c), fast = slow / 4;
    int64_t now = bw_clock_mono_ns(), since = f->began_ns > c->last_ns ? f->began_ns : c->last_ns, took = now - since;
    c->last_ns = now;
    c->took_ns = took;
    uint32_t most = CHUNK_MOST;
    if (c->spec->rate && c->spec->rate / 8 < most) most = (uint32_t)(c->spec->rate / 8);
    if (took < fast && f->plain >= c->chunk_bytes / 2) c->chunk_bytes *= 2;
    if (took > slow) c->chunk_bytes /= 2;
    if (c->chunk_bytes > most) c->chunk_bytes = most;
    if (c->chunk_bytes < CHUNK_LEAST) c->chunk_bytes = CHUNK_LEAST;
}

static void appended_piece(bw_copy *c, const bw_piece *sent, const bw_piece *got)
{
    bw_copy_part *p = bw_copy_part_of(c, sent->topic, sent->partition, true);
    if (!p) return;
    if (got->error == BW_ERR_OUT_OF_ORDER_SEQUENCE || bw_copy_is_lost(got->error) || got->error == BW_ERR_BUSY ||
        got->error == BW_ERR_UNKNOWN_TOPIC ||
        got->error == BW_ERR_DELETED) {
        c->restart = true;
        return;
    }
    if (got->error) {
        part_fail(c, p, got->error, got->message);
        return;
    }
    c->progress = true;
    pthread_mutex_lock(&c->mutex);
    if (p->error) p->error = BW_OK;
    p->records += (uint64_t)(sent->next - p->next);
    p->bytes += sent->size;
    p->next = sent->next;
    if (sent->timestamp > p->timestamp) p->timestamp = sent->timestamp;
    pthread_mutex_unlock(&c->mutex);
    bw_replicate_note(c, p);
    bw_replicate_start(c, p);
}

static void on_appended(bw_transfer *t, bw_err e, const bw_chunk *chunk, uint64_t wire)
{
    bw_copy_flight *f = t->opaque;
    bw_copy *c = f->copy;
    (void)wire;
    f->state = BW_FLIGHT_IDLE;
    if (!e && chunk->count != f->count) e = bw_fail(BW_ERR_PROTOCOL, "the sink answered for %zu parts of %zu", chunk->count, f->count);
    if (e) fail(c, e);
    for (size_t i = 0; !e && i < f->count; i++) appended_piece(c, &f->pieces[i], &chunk->pieces[i]);
    if (!e) adapt(c, f);
    c->chunks++;
    free(f->pieces);
    f->pieces = NULL;
    BW_KILL_POINT("link.copied");
}

/* ---- the stream ---- */

static bool appends(const bw_copy *c)
{
    for (int i = 0; i < BW_COPY_FLIGHTS; i++)
        if (c->flights[i].state == BW_FLIGHT_APPENDS) return true;
    return false;
}

static bw_err submit_fetches(bw_copy *c)
{
    int64_t now = bw_clock_mono_ns();
    bool slow = c->chunk_bytes <= CHUNK_SLOW || c->spec->rate || (c->took_ns > QUICK_NS && longest_chunk(c) < SLOW_NS);
    int most = slow ? 2 : BW_COPY_FLIGHTS, under_way = 0;
    for (int i = 0; i < BW_COPY_FLIGHTS; i++) under_way += c->flights[i].state != BW_FLIGHT_IDLE;
    for (int i = 0; i < BW_COPY_FLIGHTS && under_way < most && !c->restart && !c->failed; i++) {
        bw_copy_flight *f = &c->flights[i];
        if (f->state != BW_FLIGHT_IDLE || (c->spec->rate && now < c->pay_ns)) continue;
        f->state = BW_FLIGHT_FETCHES;
        f->began_ns = now;
        f->fetch = (bw_transfer){.done = on_fetched, .opaque = f};
        f->append = (bw_transfer){.done = on_appended, .opaque = f};
        bw_err e = c->source->ops->fetch(c->source, &f->fetch, c->chunk_bytes, IDLE_WAIT_MS);
        under_way++;
        if (!e) continue;
        f->state = BW_FLIGHT_IDLE;
        return e;
    }
    return BW_OK;
}

bw_err bw_copy_turn(bw_copy *c, bw_deadline deadline)
{
    bw_err e = c->peer->ops->wait(c->peer, c->local->ops->fd(c->local), deadline);
    c->local->ops->dispatch(c->local);
    if (e == BW_ERR_TIMED_OUT) e = BW_OK;
    if (!e && !c->peer->ops->is_up(c->peer)) e = bw_fail(BW_ERR_NOT_CONNECTED, "the connection to the peer was lost");
    if (!e && !c->local->ops->is_up(c->local)) e = bw_fail(BW_ERR_NOT_CONNECTED, "no memory for an answer of this daemon");
    return e;
}

static bw_deadline next_look(const bw_copy *c)
{
    bw_deadline d = bw_deadline_in_ms(60000);
    if (c->spec->rate && c->pay_ns > bw_clock_mono_ns() && c->pay_ns < d) d = c->pay_ns;
    if (c->again_ns && c->again_ns < d) d = c->again_ns;
    if (c->groups_ns && c->groups_ns < d) d = c->groups_ns;
    return d;
}

/* Until it is to be arranged anew, or ends. */
static bw_err stream(bw_copy *c)
{
    bw_err e = BW_OK;
    while (!e && !atomic_load(&c->stop) && !c->failed && !(c->restart && !appends(c))) {
        if ((e = submit_fetches(c)) || c->failed) break;
        e = bw_copy_turn(c, next_look(c));
        if (c->again_ns && bw_clock_mono_ns() >= c->again_ns) c->restart = true;
        if (!e && c->groups_ns && bw_clock_mono_ns() >= c->groups_ns) e = bw_copy_groups(c);
    }
    if (c->failed) e = bw_error_set_message(c->failed, c->why);
    return e;
}

static bw_err greet(bw_copy *c)
{
    bw_deadline deadline = bw_deadline_in_ms(CONNECT_MS);
    bw_origin mine, its;
    bw_err e = c->local->ops->connect(c->local, deadline);
    if (!e) e = c->peer->ops->connect(c->peer, deadline);
    if (!e) e = c->local->ops->hello(c->local, NULL, &mine, deadline);
    if (!e) e = c->peer->ops->hello(c->peer, &mine, &its, deadline);
    if (!e) e = c->local->ops->hello(c->local, &its, &mine, deadline); /* whose records it gets */
    if (e) return e;
    c->source_origin = c->spec->push ? mine : its;
    c->sink_origin = c->spec->push ? its : mine;
    pthread_mutex_lock(&c->mutex);
    c->origin = its;
    c->up = true;
    pthread_mutex_unlock(&c->mutex);
    return BW_OK;
}

bw_err bw_copy_run(bw_copy *c, bw_endpoint *local, bw_endpoint *peer)
{
    c->local = local;
    c->peer = peer;
    c->source = c->spec->push ? local : peer;
    c->sink = c->spec->push ? peer : local;
    c->failed = BW_OK;
    c->fruitless = 0;
    for (int i = 0; i < BW_COPY_FLIGHTS; i++) c->flights[i] = (bw_copy_flight){.copy = c};
    bw_err e = greet(c);
    c->up_ns = e ? 0 : bw_clock_mono_ns();
    while (!e && !atomic_load(&c->stop)) {
        c->restart = c->progress = false;
        c->discard = true;
        e = bw_copy_arrange(c);
        c->discard = false;
        if (!e) e = bw_replicate_begin(c);
        if (!e) e = stream(c);
        c->fruitless = c->progress ? 0 : c->fruitless + 1;
        c->restarts++;
    }
    if (c->up_ns && bw_copy_is_lost(e) && !atomic_load(&c->stop)) {
        int64_t lived = bw_clock_mono_ns() - c->up_ns;
        c->life_ns = c->life_ns ? c->life_ns / 4 * 3 + lived / 4 : lived;
        if (c->chunk_bytes > CHUNK_FIRST) c->chunk_bytes = CHUNK_FIRST;
    }
    c->up_ns = 0;
    return e;
}

void bw_copy_settle(bw_copy *c)
{
    for (int i = 0; i < BW_COPY_FLIGHTS; i++) {
        free(c->flights[i].pieces);
        c->flights[i] = (bw_copy_flight){.copy = c};
    }
    pthread_mutex_lock(&c->mutex);
    c->up = c->arranged = false;
    pthread_mutex_unlock(&c->mutex);
}
