/* broker/queue_dead.c: dead letters: a record that nobody can work off goes to a topic of its own, and only then it is archived.
 *
 *   1 the state says DYING (stored: it is not handed out again)  2 the record is appended to the dead-letter topic
 *   3 that append is on the disk  4 the state says settled, stored with the next commit
 * A daemon that dies between 2 and 4 appends it once more: two letters with the same topic, partition and offset in their headers; none is
 * ever missing. What can't be appended (the topic can't be made, the disk is full) stays DYING and is tried again.
 *
 * Key, value and headers are the record's own; behind them come these, with Kafka's names (KIP-1191): __dlq.errors.topic, .partition,
 * .offset, .group, .delivery.count, .message. All are text. */
#include "broker/queue.h"

#include "base/killpoint.h"
#include "log/append.h"

#include <stdio.h>
#include <stdlib.h>

#define RETRY_MS 500
#define APPEND_PATIENCE_NS 500000
#define OWN_HEADERS 6u
#define HEADERS_MAX 10000u

/* ---- where to ---- */

static bw_err dead_letter_part(bw_broker *b, bw_queue_part *q, bw_part **out)
{
    char name[BW_TOPIC_NAME_MAX + 8];
    const char *given = q->group->settings.dead_letter;
    if (given[0]) snprintf(name, sizeof name, "%s", given);
    else snprintf(name, sizeof name, "%s.dlq", q->part->topic->name);
    bw_topic *t = bw_topic_find(b, bw_str_of(name));
    if (!t) { /* asked for by the group: auto.create.topics.enable is about other things */
        bw_err e = bw_topic_create_new(b, bw_str_of(name), (int32_t)q->part->topic->part_count, NULL, 0, &t);
        if (e) return e;
    }
    bw_part *p = t->parts[q->index % t->part_count];
    if (atomic_load(&p->stage) == BW_PART_UNOPENED) bw_opener_want(b, p);
    return bw_part_of(b, bw_str_of(name), (int32_t)p->index, false, out);
}

/* ---- the letter ---- */

typedef struct letter {
    bw_header *headers;
    size_t count;
    char partition[16], offset[24], deliveries[16];
} letter;

static void add_header(letter *l, const char *name, const char *value)
{
    l->headers[l->count++] = (bw_header){name, strlen(name), value, strlen(value)};
}

static bw_err write_headers(letter *l, const bw_queue_part *q, const bw_record_view *v, const bw_queue_entry *entry)
{
    if (v->header_count > HEADERS_MAX) return bw_fail(BW_ERR_RECORD_TOO_LARGE, "a record with %u headers", v->header_count);
    l->headers = malloc((v->header_count + OWN_HEADERS) * sizeof *l->headers);
    if (!l->headers) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a dead letter");
    bw_header_iter it;
    bw_header_iter_init(&it, v);
    while (l->count < v->header_count && bw_header_iter_next(&it, &l->headers[l->count]) == 1) {
        const bw_header *h = &l->headers[l->count];
        if (h->name_len == sizeof BW_DELAY_HEADER - 1 && !memcmp(h->name, BW_DELAY_HEADER, h->name_len)) continue; /* it was delivered */
        l->count++;
    }
    snprintf(l->partition, sizeof l->partition, "%u", q->index);
    snprintf(l->offset, sizeof l->offset, "%lld", (long long)v->offset);
    snprintf(l->deliveries, sizeof l->deliveries, "%u", entry->deliveries);
    add_header(l, "__dlq.errors.topic", q->part->topic->name);
    add_header(l, "__dlq.errors.partition", l->partition);
    add_header(l, "__dlq.errors.offset", l->offset);
    add_header(l, "__dlq.errors.group", q->group->name);
    add_header(l, "__dlq.errors.delivery.count", l->deliveries);
    add_header(l, "__dlq.errors.message", entry->reason == BW_QUEUE_REJECTED ? "rejected by a worker" : "max deliveries reached");
    return BW_OK;
}

static bw_err append(bw_broker *b, bw_part *p, const bw_record_view *v, const letter *l, bw_append_result *result)
{
    bw_batch_builder builder;
    bw_batch_options options = BW_BATCH_OPTIONS_INIT;
    bw_record r = {v->key, v->key_len, v->value, v->value_len, l->headers, l->count, bw_clock_wall_ms()};
    uint8_t *batch;
    size_t len;
    bw_appender *appender;
    bw_batch_builder_init(&builder);
    bw_err e = bw_batch_builder_add(&builder, &r);
    if (!e) e = bw_batch_builder_finish(&builder, &options, &batch, &len);
    if (!e) e = bw_part_appender(b, p, &appender);
    if (!e) e = bw_append(appender, batch, len, 1, r.timestamp_ms, bw_clock_mono_ns() + APPEND_PATIENCE_NS, result);
    bw_batch_builder_fini(&builder);
    return e;
}

static bw_err send_letter(bw_broker *b, bw_queue_part *q, const bw_record_view *v, const bw_queue_entry *entry)
{
    letter l = {0};
    bw_part *p;
    bw_append_result result;
    bw_queue_death *d = calloc(1, sizeof *d);
    bw_err e = d ? dead_letter_part(b, q, &p) : bw_fail(BW_ERR_NO_MEMORY, "no memory for a dead letter");
    if (!e) e = write_headers(&l, q, v, entry);
    if (!e) e = append(b, p, v, &l, &result);
    free(l.headers);
    if (e) {
        free(d);
        return e;
    }
    BW_KILL_POINT("queue.letter");
    *d = (bw_queue_death){.part = q, .offset = v->offset, .end = result.end, .next = p->deaths};
    p->deaths = d;
    bw_queue_state_take(&q->state, v->offset);
    bw_position_raise(&p->topic->control->slots[p->index].sync_request, result.end);
    bw_syncer_want(b, p);
    bw_broker_again(b, p); /* to be armed */
    return BW_OK;
}

void bw_queue_bury(bw_broker *b, bw_queue_part *q)
{
    int64_t offset = -1, upto;
    const bw_queue_entry *entry;
    if (q->dead_timer.index || b->draining || !bw_queue_part_ready(b, q)) return;
    while (bw_queue_state_dying(&q->state, offset + 1, &offset, &entry)) {
        bw_record_view v;
        q->dirty = true;
        bw_err e = bw_queue_read(b, q, &q->old, offset, &v, &upto);
        if (e == BW_ERR_EMPTY || e == BW_ERR_OFFSET_OUT_OF_RANGE || (!e && v.offset != offset)) {
            bw_queue_state_lose(&q->state, offset); /* retention or compaction was quicker */
            continue;
        }
        if (!e) e = send_letter(b, q, &v, entry);
        if (!e) continue;
        char why[700];
        if (!q->failing)
            bw_broker_event(b, BW_LOG_WARN, "dead_letter_failed", "group=%s topic=%s partition=%u offset=%lld reason=%s", q->group->name,
                            q->part->topic->name, q->index, (long long)offset, bw_event_text(bw_error_message(), why, sizeof why));
        q->failing = true;
        bw_timers_set(&b->timers, &q->dead_timer, bw_deadline_in_ms(RETRY_MS));
        return;
    }
}

/* ---- what became durable ---- */

void bw_queue_serve_part(bw_broker *b, bw_part *p)
{
    const bw_tail_slot *s = &p->topic->control->slots[p->index];
    uint64_t durable = atomic_load_explicit(&s->durable, memory_order_acquire);
    bw_queue_death *list = p->deaths;
    p->deaths = NULL;
    while (list) {
        bw_queue_death *d = list;
        list = d->next;
        if (d->end > durable && atomic_load_explicit(&s->state, memory_order_acquire) != BW_SLOT_OPEN) { /* it will never be */
            bw_queue_state_untake(&d->part->state, d->offset);
            if (!d->part->dead_timer.index) bw_timers_set(&b->timers, &d->part->dead_timer, bw_deadline_in_ms(RETRY_MS));
            free(d);
            continue;
        }
        if (d->end > durable) {
            d->next = p->deaths;
            p->deaths = d;
            continue;
        }
        bw_queue_part *q = d->part;
        bw_queue_state_bury(&q->state, d->offset);
        q->dead_lettered++;
        q->dirty = true;
        free(d);
        BW_KILL_POINT("queue.buried");
        bw_queue_commit(b, q);
        bw_queue_serve(b, q);
    }
    for (bw_queue_part *q = p->queues, *next; q; q = next) {
        next = q->next_of_part;
        bw_queue_serve(b, q);
    }
}

void bw_queue_deaths_forget(bw_broker *b, bw_queue_part *q)
{
    if (q->state.dying == q->state.untaken) return;
    for (uint32_t i = 0; i < b->parts_count; i++) {
        bw_queue_death **at = b->parts[i] ? &b->parts[i]->deaths : NULL;
        while (at && *at) {
            bw_queue_death *d = *at;
            if (d->part != q) {
                at = &d->next;
                continue;
            }
            *at = d->next;
            free(d);
        }
    }
}
