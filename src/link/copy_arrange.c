/* link/copy_arrange.c: what is copied to where: topics that match, their targets, and where each partition goes on. And what groups have
 * committed at the source (mirrors), now and then: an offset is passed on when the sink has everything in front of it. */
#include "link/copy_internal.h"
#include "link/replicate.h"

#include <stdio.h>
#include <stdlib.h>

enum { ASK_MS = 30000, GROUPS_BUSY_MS = 2000, GROUPS_IDLE_MS = 60000 };

static bw_deadline soon(void) { return bw_deadline_in_ms(ASK_MS); }

static bw_err add_part(bw_copy *c, const bw_source_topic *t, const char *target, int32_t partition, int32_t priority, const bw_sink_part *at)
{
    bw_copy_part *p = bw_copy_part_of(c, t->name, partition, false);
    bool fresh = !p;
    if (!p && !(p = calloc(1, sizeof *p))) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a partition");
    pthread_mutex_lock(&c->mutex);
    if (fresh) {
        snprintf(p->key.topic, sizeof p->key.topic, "%s", t->name);
        p->key.partition = partition;
        p->end = p->log_start = p->timestamp = -1;
        HASH_ADD(hh, c->parts, key, sizeof p->key, p);
    }
    snprintf(p->target, sizeof p->target, "%s", target);
    if (!bw_uuid_equal(&p->id, &t->id)) p->resume = 0;
    p->id = t->id;
    p->priority = priority;
    p->next = p->sent = at->offset;
    p->sink = *at;
    p->present = true;
    pthread_mutex_unlock(&c->mutex);
    return BW_OK;
}

/* A topic that cannot be made ready stands still, with its error, and the others go on. */
static bw_err topic_fails(bw_copy *c, const bw_source_topic *t, const char *target, int32_t priority, bw_err e)
{
    char why[256];
    bw_sink_part at = {0, -1, -1, 0};
    snprintf(why, sizeof why, "%s", bw_error_message());
    bw_err bad = add_part(c, t, target, 0, priority, &at);
    bw_copy_part *p = bad ? NULL : bw_copy_part_of(c, t->name, 0, false);
    if (!p) return bad;
    bool first = p->error != e;
    pthread_mutex_lock(&c->mutex);
    p->error = e;
    snprintf(p->message, sizeof p->message, "%s", why);
    pthread_mutex_unlock(&c->mutex);
    if (!c->again_ns) c->again_ns = bw_clock_mono_ns() + (int64_t)ASK_MS * 1000000;
    char more[420];
    snprintf(more, sizeof more, "error=%s reason=\"%.300s\"", bw_err_name(e), why);
    if (first) bw_copy_say(c, BW_LOG_ERROR, "link_part_stopped", p, more);
    return BW_OK;
}

static bw_err arrange_topic(bw_copy *c, const bw_source_topic *t, int32_t priority)
{
    char target[BW_TOPIC_NAME_MAX + 1];
    bw_config_pair *configs = NULL;
    size_t config_count = 0;
    bw_sink_part *at = NULL;
    bw_err e = bw_link_spec_target(c->spec, t->name, target, sizeof target);
    if (e) return topic_fails(c, t, "", priority, e);
    if (c->spec->topic_configs) e = c->source->ops->configs(c->source, t->name, &configs, &config_count, soon());
    if (e == BW_ERR_UNKNOWN_TOPIC) return BW_OK; /* it went meanwhile */
    if (!e) e = c->sink->ops->prepare(c->sink, target, t, &c->source_origin, configs, config_count, &at, soon());
    free(configs);
    if (e && bw_copy_is_lost(e)) return e;
    if (e) {
        bool promoted = e == BW_ERR_ORIGIN_FENCED;
        e = topic_fails(c, t, target, priority, e);
        return e || !promoted ? e : bw_replicate_fence(c, t->name, target, t->partitions);
    }
    for (int32_t i = 0; !e && i < t->partitions; i++) e = add_part(c, t, target, i, priority, &at[i]);
    free(at);
    return e;
}

static bw_err begin(bw_copy *c)
{
    size_t n = 0;
    bw_piece *pieces = calloc(HASH_COUNT(c->parts) + 1, sizeof *pieces);
    if (!pieces) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a stream");
    for (bw_copy_part *p = c->parts; p; p = p->hh.next) {
        if (!p->present || p->error) continue;
        bw_piece *out = &pieces[n++];
        *out = (bw_piece){.id = p->id, .partition = p->key.partition, .offset = p->next, .next = -1, .base = p->sink.base, .epoch = p->sink.epoch,
                          .crc = p->sink.crc, .log_start = -1, .end = -1, .timestamp = -1, .priority = p->priority};
        memcpy(out->topic, p->key.topic, sizeof out->topic);
        if (p->resume > p->next) { /* what is in between is gone */
            out->offset = p->resume;
            out->base = -1;
        }
    }
    bw_err e = c->source->ops->begin(c->source, pieces, n);
    free(pieces);
    return e;
}

/* Not at once again and again when nothing comes of it. */
static bw_err nap(bw_copy *c)
{
    if (c->fruitless < 2) return BW_OK;
    bw_deadline until = bw_deadline_in_ms(c->fruitless > 8 ? 5000 : 20 << c->fruitless);
    bw_err e = BW_OK;
    while (!e && !atomic_load(&c->stop) && bw_deadline_left_ns(until) > 0) e = bw_copy_turn(c, until);
    return e;
}

/* The first of the names that the source does not have: it may be a slip. */
static void note_missing(bw_copy *c, const bw_source_topic *list, size_t count)
{
    const char *missing = "";
    for (size_t i = 0; !*missing && i < c->spec->topics.count; i++) {
        const bw_pattern *p = &c->spec->topics.items[i];
        bool there = p->regex != NULL;
        for (size_t k = 0; !there && k < count; k++) there = !strcmp(list[k].name, p->text);
        if (!there) missing = p->text;
    }
    pthread_mutex_lock(&c->mutex);
    snprintf(c->missing, sizeof c->missing, "%s", missing);
    pthread_mutex_unlock(&c->mutex);
}

bw_err bw_copy_arrange(bw_copy *c)
{
    bw_source_topic *list = NULL;
    size_t count = 0;
    bw_err e = nap(c);
    if (!e) e = c->source->ops->list(c->source, &list, &count, soon());
    if (e) return e;
    bool again = c->again_ns && bw_clock_mono_ns() >= c->again_ns;
    pthread_mutex_lock(&c->mutex);
    for (bw_copy_part *p = c->parts; p; p = p->hh.next) {
        p->present = false;
        if (again) p->error = BW_OK;
    }
    pthread_mutex_unlock(&c->mutex);
    if (again) c->again_ns = 0;
    for (size_t i = 0; !e && i < count; i++) {
        int32_t priority = 0;
        if (!bw_patterns_match(&c->spec->topics, list[i].name, &priority)) continue;
        e = arrange_topic(c, &list[i], priority);
    }
    if (!e) note_missing(c, list, count);
    free(list);
    if (!e) e = begin(c);
    if (e) return e;
    if (c->spec->groups.count && c->spec->mode == BW_LINK_MIRROR) c->groups_ns = bw_clock_mono_ns();
    pthread_mutex_lock(&c->mutex);
    c->arranged = true;
    pthread_mutex_unlock(&c->mutex);
    return BW_OK;
}

bw_err bw_copy_groups(bw_copy *c)
{
    bw_group_offset *all = NULL;
    size_t count = 0, n = 0;
    c->groups_ns = bw_clock_mono_ns() + (int64_t)(c->progress ? GROUPS_BUSY_MS : GROUPS_IDLE_MS) * 1000000;
    if (!c->source->ops->offsets || !c->sink->ops->commit) return BW_OK;
    bw_err e = c->source->ops->offsets(c->source, c->spec, &all, &count, soon());
    for (size_t i = 0; !e && i < count; i++) {
        bw_copy_part *p = bw_copy_part_of(c, all[i].topic, all[i].partition, false);
        if (!p || !p->present || p->error || all[i].offset > p->next) continue;
        all[n] = all[i];
        memcpy(all[n].topic, p->target, sizeof all[n].topic);
        all[n].id = (bw_uuid){{0}};
        n++;
    }
    if (!e && n) e = c->sink->ops->commit(c->sink, all, n, soon());
    free(all);
    return bw_copy_is_lost(e) ? e : BW_OK;
}
