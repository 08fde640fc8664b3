/* broker/groups_topics.c: what members subscribe to: names and patterns, and the topics that they come to.
 *
 * A name of a topic that is not there yet is kept: the topic is the member's when it is made. A pattern is a POSIX extended regular
 * expression for the whole name (format/pattern.h). Patterns come from clients and are compiled here. */
#include "broker/groups_core.h"

#include "format/names.h"
#include "format/pattern.h"

#include <stdio.h>
#include <stdlib.h>

#define VERSION 1u

/* ---- the record ---- */

bw_err bw_wanted_encode(const bw_subscription *list, size_t count, bw_buf *out)
{
    uint8_t head[3] = {VERSION};
    if (count > UINT16_MAX) return bw_fail(BW_ERR_LIMIT_REACHED, "a subscription to %zu topics: at most %u", count, UINT16_MAX);
    bw_put_be16(head + 1, (uint16_t)count);
    bw_err e = bw_buf_append(out, head, sizeof head);
    for (size_t i = 0; !e && i < count; i++) {
        uint8_t item[3] = {list[i].pattern};
        if (list[i].topic.len > UINT16_MAX) return bw_fail(BW_ERR_INVALID_TOPIC, "a topic's name of %zu bytes", list[i].topic.len);
        if (!list[i].pattern) e = bw_topic_name_check(list[i].topic.data, list[i].topic.len);
        bw_put_be16(item + 1, (uint16_t)list[i].topic.len);
        if (!e) e = bw_buf_append(out, item, sizeof item);
        if (!e) e = bw_buf_append(out, list[i].topic.data, list[i].topic.len);
    }
    return e;
}

bw_err bw_wanted_decode(bw_str record, bw_wanted *out)
{
    bw_cursor c = bw_cursor_over(record.data, record.len);
    *out = (bw_wanted){0};
    uint8_t version = bw_cursor_u8(&c);
    uint16_t count = bw_cursor_be16(&c);
    if (c.bad || version != VERSION || count > bw_cursor_left(&c) / 3)
        return bw_fail(BW_ERR_CORRUPT, "a member's subscription is damaged (version %u, %u topics)", version, count);
    out->list = calloc((size_t)count + 1, sizeof *out->list);
    bw_err e = out->list ? BW_OK : bw_fail(BW_ERR_NO_MEMORY, "no memory for a subscription");
    unsigned patterns = 0;
    size_t cost = 0;
    for (uint16_t i = 0; !e && i < count; i++) {
        bool pattern = bw_cursor_u8(&c) != 0;
        size_t len = bw_cursor_be16(&c);
        const uint8_t *name = bw_cursor_take(&c, len);
        if (!name) e = bw_fail(BW_ERR_CORRUPT, "a member's subscription is damaged");
        else out->list[i] = (bw_subscription){{(const char *)name, len}, pattern};
        patterns += pattern;
    }
    if (!e && patterns > BW_PATTERNS_MAX) e = bw_fail(BW_ERR_LIMIT_REACHED, "%u patterns in one subscription: at most %u", patterns, BW_PATTERNS_MAX);
    if (!e && patterns && !(out->patterns = calloc(count, sizeof *out->patterns))) e = bw_fail(BW_ERR_NO_MEMORY, "no memory for patterns");
    for (; !e && out->count < count; out->count++) {
        const bw_subscription *s = &out->list[out->count];
        if (s->pattern && (e = bw_pattern_compile(s->topic.data, s->topic.len, &out->patterns[out->count], &cost))) break;
    }
    if (e) bw_wanted_fini(out);
    return e;
}

void bw_wanted_fini(bw_wanted *w)
{
    for (size_t i = 0; w->patterns && i < w->count; i++)
        if (w->list[i].pattern) regfree(&w->patterns[i]);
    free(w->patterns);
    free(w->list);
    *w = (bw_wanted){0};
}

/* ---- topics ---- */

static bool wants(const bw_wanted *w, const char *name)
{
    for (size_t i = 0; i < w->count; i++) {
        if (!w->list[i].pattern && bw_str_is(w->list[i].topic, name)) return true;
        if (w->list[i].pattern && bw_pattern_means(&w->patterns[i], name)) return true;
    }
    return false;
}

static bw_topic_view view_of(const bw_topic *t)
{
    return (bw_topic_view){t->id, t->name, t->part_count ? t->part_count : t->wanted_parts};
}

bw_err bw_wanted_resolve(bw_broker *b, const bw_wanted *w, bw_topic_view **out, size_t *count)
{
    bw_topic *t, *more;
    size_t n = 0, patterns = 0;
    for (size_t i = 0; i < w->count; i++) patterns += w->list[i].pattern;
    size_t cap = patterns ? HASH_CNT(by_name, b->topics_by_name) : w->count;
    bw_topic_view *list = malloc((cap + 1) * sizeof *list);
    if (!list) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a subscription");
    if (!patterns) {
        for (size_t i = 0; i < w->count; i++)
            if ((t = bw_topic_find(b, w->list[i].topic)) && !t->deleting) list[n++] = view_of(t);
    } else {
        HASH_ITER(by_name, b->topics_by_name, t, more)
        {
            if (!t->deleting && wants(w, t->name)) list[n++] = view_of(t);
        }
    }
    *out = list;
    *count = n;
    return BW_OK;
}

/* ---- what happens to topics ---- */

static void resubscribe(bw_broker *b, bw_entry *e, bw_member *m)
{
    bw_topic_view *topics;
    size_t count;
    bw_err err = bw_wanted_resolve(b, &bw_link_of(m)->wanted, &topics, &count);
    if (!err) {
        err = bw_group_resubscribe(e->g, m, (bw_str){0}, topics, count, bw_groups_now());
        free(topics);
    }
    char id[300], why[600];
    if (err)
        bw_broker_event(b, BW_LOG_ERROR, "group_resubscribe_failed", "group=%s reason=%s", bw_event_text(e->g->id, id, sizeof id),
                        bw_event_text(bw_error_message(), why, sizeof why));
    bw_entry_due(e);
}

void bw_groups_topic_created(bw_broker *b, const bw_topic *t)
{
    bw_entry *e, *more;
    if (!b->groups) return;
    HASH_ITER(hh, b->groups->entries, e, more)
        for (uint32_t i = 0; e->g->kind != BW_GROUP_CLASSIC && i < e->g->member_count; i++) {
            bw_member *m = e->g->members[i];
            if (bw_link_of(m) && wants(&bw_link_of(m)->wanted, t->name)) resubscribe(b, e, m);
        }
}

void bw_groups_topic_grown(bw_broker *b, const bw_topic *t)
{
    bw_entry *e, *more;
    if (!b->groups) return;
    HASH_ITER(hh, b->groups->entries, e, more) {
        if (e->g->kind == BW_GROUP_CLASSIC) continue;
        char id[300];
        if (bw_group_topic_grown(e->g, &t->id, t->part_count, bw_groups_now()))
            bw_broker_event(b, BW_LOG_ERROR, "group_topic_failed", "group=%s topic=%s reason=NO_MEMORY", bw_event_text(e->g->id, id, sizeof id),
                            t->name);
        bw_entry_due(e);
    }
}

void bw_groups_topic_deleted(bw_broker *b, const bw_topic *t)
{
    bw_entry *e, *more;
    if (!b->groups) return;
    HASH_ITER(hh, b->groups->entries, e, more) {
        if (e->g->kind == BW_GROUP_CLASSIC) continue;
        bw_group_topic_gone(e->g, &t->id, bw_groups_now());
        bw_entry_due(e);
    }
}
