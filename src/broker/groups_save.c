/* broker/groups_save.c: records of groups and members in the store's table `groups`.
 *
 *   'g', group id                              the group's record (group_record.c)
 *   'm', u16 length of the group id, group id, member id   a member's record
 * A group's records of one poll are one batch, one transaction: all of it or nothing. One batch is on its way at a time, the next one
 * gathers meanwhile; batches have numbers, and who waits for a record waits for the number. A batch that fails (the disk is full) is
 * tried again until it succeeds or the daemon ends: nobody is told anything before. */
#include "broker/groups_core.h"

#include "base/killpoint.h"
#include "broker/offsets.h"

#include <stdio.h>
#include <stdlib.h>

#define RETRY_MS 200

static size_t key_of(const bw_group *g, const char *member, uint8_t out[BW_META_KEY_MAX])
{
    size_t group_len = strlen(g->id), member_len = member ? strlen(member) : 0, at = 0;
    if (!member) {
        out[at++] = 'g';
    } else {
        out[at++] = 'm';
        bw_put_be16(out + at, (uint16_t)group_len);
        at += 2;
    }
    if (at + group_len + member_len > BW_META_KEY_MAX) return 0;
    memcpy(out + at, g->id, group_len);
    if (member) memcpy(out + at + group_len, member, member_len);
    return at + group_len + member_len;
}

static bw_commit *gather(bw_entry *e)
{
    if (e->gathering) return &e->gathering->commit;
    e->gathering = calloc(1, sizeof *e->gathering);
    if (!e->gathering) return NULL;
    e->gathering->entry = e;
    e->gathering->number = e->batch;
    return &e->gathering->commit;
}

/* Without memory nothing that depends on the record is told: the member is saved again by the next flush. */
static void lost(bw_entry *e, const char *what)
{
    char text[300];
    bw_broker_event(e->broker, BW_LOG_ERROR, "group_record_lost", "group=%s what=%s", bw_event_text(e->g->id, text, sizeof text), what);
}

void bw_entry_save(bw_entry *e, bw_member *m)
{
    uint8_t key[BW_META_KEY_MAX];
    size_t key_len = key_of(e->g, m ? m->id : NULL, key);
    bw_commit *c = gather(e);
    bw_buf record = {0};
    bw_err err = !c || !key_len ? BW_ERR_NO_MEMORY : m ? bw_member_encode(e->g, m, &record) : bw_group_encode(e->g, &record);
    if (!err) err = bw_commit_put(c, BW_TABLE_GROUPS, key, key_len, record.data, record.len);
    bw_buf_free(&record);
    if (err) lost(e, m ? "member" : "group");
    if (m && bw_link_of(m)) bw_link_of(m)->batch = e->batch;
}

void bw_entry_save_removed(bw_entry *e, const bw_member *m)
{
    uint8_t key[BW_META_KEY_MAX];
    size_t key_len = key_of(e->g, m->id, key);
    bw_commit *c = gather(e);
    if (!c || !key_len || bw_commit_remove(c, BW_TABLE_GROUPS, key, key_len)) lost(e, "removal");
}

static void save_deleted(bw_entry *e)
{
    uint8_t key[BW_META_KEY_MAX];
    size_t key_len = key_of(e->g, NULL, key);
    bw_commit *c = gather(e);
    if (!c || !key_len || bw_commit_remove(c, BW_TABLE_GROUPS, key, key_len)) lost(e, "deletion");
}

/* ---- on its way ---- */

bw_err bw_entry_delete(bw_entry *e)
{
    char text[300];
    bw_err err = bw_group_bury(e->g);
    if (err) return err;
    bw_broker_event(e->broker, BW_LOG_INFO, "group_deleted", "group=%s", bw_event_text(e->g->id, text, sizeof text));
    e->deleting = true;
    save_deleted(e);
    bw_entry_submit(e);
    return BW_OK;
}

static void done(bw_broker *b, bw_commit *c, bw_err err)
{
    bw_batch_of *batch = (bw_batch_of *)(void *)c;
    bw_entry *e = batch->entry;
    if (e) e->flying = NULL;
    if (err && e && !b->draining) { /* what gathers comes behind it */
        char id[300], why[600];
        bw_broker_event(b, BW_LOG_ERROR, "group_save_failed", "group=%s reason=%s", bw_event_text(e->g->id, id, sizeof id),
                        bw_event_text(bw_error_message(), why, sizeof why));
        if (e->gathering) {
            bw_buf *more = &e->gathering->commit.entries;
            if (bw_buf_append(&c->entries, more->data, more->len) == BW_OK) {
                c->count += e->gathering->commit.count;
                batch->number = e->gathering->number;
            }
            bw_commit_fini(&e->gathering->commit);
            free(e->gathering);
        }
        batch->commit.error = BW_OK;
        e->gathering = batch;
        e->batch = batch->number;
        bw_timers_set(&b->timers, &e->retry, bw_deadline_in_ms(RETRY_MS));
        return;
    }
    uint64_t number = batch->number;
    bw_commit_fini(c);
    free(batch);
    if (!e || b->draining) return;
    BW_KILL_POINT("group.saved");
    e->saved = number;
    if (e->deleting && !e->gathering) {
        bw_entry_free(e);
        return;
    }
    bw_entry_submit(e);
    bw_entry_answer_later(e);
    bw_entry_tell(e);
}

void bw_entry_submit(bw_entry *e)
{
    if (e->flying || !e->gathering || e->retry.index) return;
    bw_batch_of *batch = e->gathering;
    batch->commit.done = done;
    BW_KILL_POINT("group.saving");
    bw_err err = bw_committer_submit(e->broker, &batch->commit);
    if (err) {
        bw_timers_set(&e->broker->timers, &e->retry, bw_deadline_in_ms(RETRY_MS));
        return;
    }
    e->flying = batch;
    e->gathering = NULL;
    e->batch = batch->number + 1;
}

/* ---- restore ---- */

typedef struct loading {
    bw_broker *b;
    bool members;
    bw_err e;
    uint64_t count, dropped;
} loading;

static bw_err restore_group(bw_broker *b, bw_str id, const void *value, size_t len)
{
    bw_entry *e;
    bw_err err = bw_entry_of(b, id, true, &e);
    if (!err) err = bw_group_decode(e->g, value, len);
    if (!err) bw_entry_due(e);
    return err;
}

/* What it has of topics that are gone. */
static void drop_gone(bw_broker *b, bw_saved_member *s)
{
    size_t kept = 0;
    for (size_t i = 0; i < s->part_count; i++) {
        const bw_topic *t = bw_topic_find(b, s->parts[i].topic);
        if (t && !t->deleting && bw_uuid_equal(&t->id, &s->parts[i].id)) s->parts[kept++] = s->parts[i];
    }
    s->part_count = kept;
}

static bw_err restore_member(loading *l, bw_entry *e, bw_saved_member *s)
{
    bw_broker *b = l->b;
    bw_topic_view *topics = NULL;
    size_t count = 0;
    bw_link *link = bw_link_new();
    bw_err err = link ? BW_OK : BW_ERR_NO_MEMORY;
    if (!err && e->g->kind != BW_GROUP_CLASSIC) {
        err = bw_wanted_decode(s->subscription, &link->wanted);
        if (!err) err = bw_wanted_resolve(b, &link->wanted, &topics, &count);
        drop_gone(b, s);
    }
    if (!err) err = bw_group_restore(e->g, s, topics, count, bw_groups_now());
    free(topics);
    if (err) {
        bw_link_free(b, link);
        return err;
    }
    bw_member *m = bw_group_with_id(e->g, s->id);
    m->user = link;
    bw_wanted_fini(&link->wanted); /* views of the member's own copy from here on */
    if (e->g->kind != BW_GROUP_CLASSIC) err = bw_wanted_decode((bw_str){(const char *)m->subscription.data, m->subscription.len}, &link->wanted);
    bool dead = false;
    if (m->process.pid) link->watch = bw_watch_get(b, &m->process, &dead);
    l->count++;
    l->dropped += dead;
    if (dead) bw_group_gone(e->g, m, true, bw_groups_now());
    bw_entry_due(e);
    return err;
}

static bool on_record(void *opaque, const void *key, size_t key_len, const void *value, size_t value_len)
{
    loading *l = opaque;
    const uint8_t *k = key;
    if (!key_len || (k[0] == 'm') != l->members) return true;
    if (!l->members) {
        l->e = restore_group(l->b, (bw_str){(const char *)k + 1, key_len - 1}, value, value_len);
        return !l->e;
    }
    size_t group_len = key_len > 3 ? bw_get_be16(k + 1) : 0;
    bw_entry *e = NULL;
    bw_saved_member s;
    if (key_len < 3 || group_len > key_len - 3) l->e = bw_fail(BW_ERR_CORRUPT, "metadata: a key of a group's member is damaged");
    else l->e = bw_entry_of(l->b, (bw_str){(const char *)k + 3, group_len}, false, &e);
    if (!l->e) l->e = bw_saved_member_decode(value, value_len, &s);
    if (l->e) return false;
    l->e = restore_member(l, e, &s);
    bw_saved_member_fini(&s);
    if (l->e == BW_ERR_CORRUPT || l->e == BW_ERR_INVALID_ARGUMENT) { /* it joins anew; the others go on */
        char why[600];
        bw_broker_event(l->b, BW_LOG_ERROR, "member_not_restored", "reason=%s", bw_event_text(bw_error_message(), why, sizeof why));
        l->e = BW_OK;
    }
    return !l->e;
}

bw_err bw_groups_restore(bw_broker *b, uint64_t *members)
{
    loading l = {.b = b};
    bw_err e = bw_store_each(b->store, BW_TABLE_GROUPS, "g", 1, on_record, &l);
    if (!e) e = l.e;
    l.members = true;
    if (!e) e = bw_store_each(b->store, BW_TABLE_GROUPS, "m", 1, on_record, &l);
    if (!e) e = l.e;
    if (e) return bw_error_context(e, "the groups' records");
    *members = l.count;
    if (l.count)
        bw_broker_event(b, BW_LOG_INFO, "groups_restored", "groups=%u members=%llu dead=%llu", HASH_COUNT(b->groups->entries),
                        (unsigned long long)l.count, (unsigned long long)l.dropped);
    return BW_OK;
}
