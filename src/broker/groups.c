/* broker/groups.c: the table of groups, their timers, and what a group's state machine asks for.
 *
 * A group that something happened to is due: at the end of the turn it is polled until it is at rest, and what was gathered of its records
 * sets out. So what many requests of one turn change is one rebalance and one commit. */
#include "broker/groups_core.h"

#include "base/os.h"
#include "broker/offsets.h"
#include "log/wait.h"

#include <stdio.h>
#include <stdlib.h>

#define FORGET_MS 60000
#define FORGET_LOOK_MS 600000

/* ---- entries ---- */

static void fire(void *broker, bw_timer *timer)
{
    (void)broker;
    bw_entry_due((bw_entry *)(void *)((char *)timer - offsetof(bw_entry, timer)));
}

static void fire_retry(void *broker, bw_timer *timer)
{
    (void)broker;
    bw_entry *e = (bw_entry *)(void *)((char *)timer - offsetof(bw_entry, retry));
    bw_entry_submit(e);
}

static void fire_again(void *broker, bw_timer *timer)
{
    (void)broker;
    bw_entry_tell((bw_entry *)(void *)((char *)timer - offsetof(bw_entry, again)));
}

void bw_entry_due(bw_entry *e)
{
    if (e->due) return;
    bw_groups *all = e->broker->groups;
    e->due = true;
    e->due_next = all->due;
    all->due = e;
}

static bw_err entry_make(bw_broker *b, bw_str id, bw_entry **out)
{
    bw_groups *all = b->groups;
    uint32_t most = b->config.max_groups ? (uint32_t)b->config.max_groups : UINT32_MAX;
    if (HASH_COUNT(all->entries) >= most)
        return bw_fail(BW_ERR_LIMIT_REACHED, "there are %u groups, as many as there may be (max.groups): delete some that nobody uses", most);
    bw_entry *e = calloc(1, sizeof *e);
    if (!e) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a group");
    bw_err err = bw_group_create(id, &all->limits, &bw_groups_ops, e, bw_groups_now(), &e->g);
    if (!err) {
        HASH_ADD_KEYPTR(hh, all->entries, e->g->id, id.len, e);
        if (e->not_hashed) err = bw_fail(BW_ERR_NO_MEMORY, "no memory for a group");
    }
    if (err) {
        bw_group_free(e->g);
        free(e);
        return err;
    }
    e->broker = b;
    e->g->user = e;
    e->batch = 1;
    e->later_last = &e->later;
    e->timer.fire = fire;
    e->retry.fire = fire_retry;
    e->again.fire = fire_again;
    *out = e;
    return BW_OK;
}

bw_err bw_entry_of(bw_broker *b, bw_str id, bool make, bw_entry **out)
{
    bw_entry *e = NULL;
    *out = NULL;
    if (!b->groups) return bw_fail(BW_ERR_BUSY, "the groups are not there yet; try again");
    if (id.len && b->groups->entries) HASH_FIND(hh, b->groups->entries, id.data, id.len, e);
    if (e && e->deleting) return bw_fail(make ? BW_ERR_BUSY : BW_ERR_GROUP_ID_NOT_FOUND, "group %s is being deleted", e->g->id);
    if (!e && make && bw_queue_group_exists(b, id))
        return bw_fail(BW_ERR_INCONSISTENT_GROUP_PROTOCOL, "%.*s is a queue group: a group of another kind needs another name", (int)id.len, id.data);
    if (!e && make) {
        bw_err err = entry_make(b, id, &e);
        if (err) return err;
    }
    if (!e) return bw_fail(BW_ERR_GROUP_ID_NOT_FOUND, "there is no group %.*s", (int)(id.len > 249 ? 249 : id.len), id.data ? id.data : "");
    *out = e;
    return BW_OK;
}

void bw_entry_free(bw_entry *e)
{
    bw_broker *b = e->broker;
    bw_groups *all = b->groups;
    for (bw_entry **at = &all->due; *at; at = &(*at)->due_next)
        if (*at == e) {
            *at = e->due_next;
            break;
        }
    bw_timers_clear(&b->timers, &e->timer);
    bw_timers_clear(&b->timers, &e->retry);
    bw_timers_clear(&b->timers, &e->again);
    while (e->later) {
        bw_later *l = e->later;
        e->later = l->next;
        bw_op_finish(l->op, NULL);
        free(l->leader);
        free(l);
    }
    for (uint32_t i = 0; i < e->g->member_count; i++) bw_link_free(b, bw_link_of(e->g->members[i]));
    if (e->gathering) bw_commit_fini(&e->gathering->commit);
    free(e->gathering);
    if (e->flying) e->flying->entry = NULL; /* its end frees it */
    HASH_DEL(all->entries, e);
    bw_group_free(e->g);
    free(e);
}

bw_link *bw_link_new(void)
{
    bw_link *l = calloc(1, sizeof *l);
    if (!l) bw_fail(BW_ERR_NO_MEMORY, "no memory for a member");
    return l;
}

void bw_link_free(bw_broker *b, bw_link *l)
{
    if (!l) return;
    if (l->join) bw_op_finish(l->join, NULL);
    if (l->watch) bw_watch_drop(b, l->watch);
    bw_wanted_fini(&l->wanted);
    free(l);
}

/* Ids of members as Kafka's: the client's name (or the instance's) and a random part. */
void bw_new_member_id(const bw_session *s, bw_str instance, char *out, size_t size)
{
    bw_uuid id;
    char hex[33];
    if (bw_os_uuid(id.b)) memset(&id, 0, sizeof id);
    bw_uuid_hex(&id, hex);
    int len = instance.len ? (int)(instance.len > 64 ? 64 : instance.len) : (int)strlen(s->client_id);
    const char *name = instance.len ? instance.data : s->client_id;
    snprintf(out, size, "%.*s%s%s", len, name, len ? "-" : "member-", hex);
}

/* ---- the state machine's wishes ---- */

static void on_save(void *context, bw_group *g, bw_member *m)
{
    (void)g;
    bw_entry_save(context, m);
}

static void on_assigned(void *context, bw_group *g, bw_member *m)
{
    (void)context, (void)g;
    if (bw_link_of(m)) bw_link_of(m)->owed = true;
}

static void on_removed(void *context, bw_group *g, bw_member *m, bw_err why, const char *reason)
{
    bw_entry *e = context;
    bw_broker *b = e->broker;
    char id[400], text[300], how[300];
    bw_entry_save_removed(e, m);
    if (why) bw_entry_tell_fenced(e, m, why, reason);
    bw_broker_event(b, why ? BW_LOG_INFO : BW_LOG_DEBUG, "member_removed", "group=%s member=%s reason=%s",
                    bw_event_text(g->id, text, sizeof text), bw_event_text(m->id, id, sizeof id),
                    bw_event_text(reason && *reason ? reason : "it left", how, sizeof how));
    bw_link_free(b, m->user);
    m->user = NULL;
    if (g->member_count == 1) bw_offsets_group_idle(b, bw_str_of(g->id));
    bw_entry_due(e);
}

static void on_joined(void *context, bw_group *g, void *token, const bw_joined *a)
{
    (void)g;
    bw_entry_answer_joined(context, token, a);
}

static void on_synced(void *context, bw_group *g, void *token, bw_err err, const bw_member *m)
{
    (void)g;
    bw_entry_answer_synced(context, token, err, m);
}

const bw_group_ops bw_groups_ops = {on_save, on_assigned, on_removed, on_joined, on_synced};

/* ---- turns ---- */

/* A group that nobody is in and for which nothing is committed is forgotten after a while. Those with queues are kept: theirs are kept. */
static int64_t forget_at(bw_entry *e, int64_t now)
{
    const bw_group *g = e->g;
    if (g->member_count || g->pending || e->deleting || g->kind == BW_GROUP_QUEUE) return BW_GROUP_NEVER;
    if (now < g->empty_since_ms + FORGET_MS) return g->empty_since_ms + FORGET_MS;
    if (bw_offsets_group_known(e->broker, bw_str_of(g->id))) return now + FORGET_LOOK_MS;
    bw_entry_delete(e);
    return BW_GROUP_NEVER;
}

void bw_groups_turn(bw_broker *b)
{
    bw_groups *all = b->groups;
    while (all && all->due) {
        bw_entry *e = all->due;
        all->due = e->due_next;
        e->due = false;
        int64_t now = bw_groups_now(), next;
        for (int i = 0; i < 8 && bw_group_next_ms(e->g) <= now; i++) bw_group_poll(e->g, now);
        next = bw_group_next_ms(e->g);
        int64_t forget = forget_at(e, now);
        if (forget < next) next = forget;
        if (next == BW_GROUP_NEVER) bw_timers_clear(&b->timers, &e->timer);
        else if (bw_timers_set(&b->timers, &e->timer, next > now ? next * 1000000 : (now + 1) * 1000000))
            bw_broker_event(b, BW_LOG_ERROR, "group_timer_lost", "reason=%s", "NO_MEMORY");
        bw_entry_submit(e);
    }
    if (all) bw_groups_ring(b);
}

void bw_groups_session_closed(bw_broker *b, bw_session *s)
{
    bw_entry *e, *more;
    if (!b->groups || b->draining || atomic_load(&b->stopping)) {
        if (!b->groups) return;
        HASH_ITER(hh, b->groups->entries, e, more) /* members are not dead because the daemon ends */
            for (uint32_t i = 0; i < e->g->member_count; i++) {
                bw_link *l = bw_link_of(e->g->members[i]);
                if (l && l->session == s) l->session = NULL;
            }
        return;
    }
    if (!s->in_groups) return;
    HASH_ITER(hh, b->groups->entries, e, more)
        for (uint32_t i = e->g->member_count; i-- > 0;) {
            if (i >= e->g->member_count) continue;
            bw_member *m = e->g->members[i];
            bw_link *l = bw_link_of(m);
            if (!l || l->session != s) continue;
            l->session = NULL;
            bw_group_gone(e->g, m, s->peer.pid > 0, bw_groups_now());
            bw_entry_due(e);
        }
}

void bw_groups_process_died(bw_broker *b, const bw_process *p)
{
    bw_entry *e, *more;
    HASH_ITER(hh, b->groups->entries, e, more)
        for (uint32_t i = e->g->member_count; i-- > 0;) {
            if (i >= e->g->member_count) continue;
            bw_member *m = e->g->members[i];
            if (m->process.pid != p->pid || m->process.start_ticks != p->start_ticks) continue;
            if (bw_link_of(m)) bw_link_of(m)->session = NULL;
            bw_group_gone(e->g, m, true, bw_groups_now());
            bw_entry_due(e);
        }
}

/* ---- for others ---- */

bw_group *bw_groups_find(bw_broker *b, bw_str id)
{
    bw_entry *e = NULL;
    if (b->groups && b->groups->entries && id.len) HASH_FIND(hh, b->groups->entries, id.data, id.len, e);
    return e && !e->deleting ? e->g : NULL;
}

bw_err bw_groups_may_commit(bw_broker *b, bw_str group, bw_str member, bw_str instance, int32_t epoch, bw_str topic, int32_t partition)
{
    bw_group *g = bw_groups_find(b, group);
    if (g) return bw_group_may_commit(g, member, instance, epoch, topic, partition, bw_groups_now());
    if (!member.len && !instance.len && epoch < 0) return BW_OK;
    return bw_fail(epoch >= 0 && !member.len ? BW_ERR_ILLEGAL_GENERATION : BW_ERR_UNKNOWN_MEMBER_ID,
                   "group %.*s has no members: a commit by member %.*s in epoch %d; join anew", (int)group.len, group.data,
                   (int)(member.len > 200 ? 200 : member.len), member.data ? member.data : "", epoch);
}

bool bw_groups_has_members(bw_broker *b, bw_str group)
{
    const bw_group *g = bw_groups_find(b, group);
    return g && g->member_count;
}

void bw_groups_count(const bw_broker *b, bw_groups_counters *out)
{
    *out = (bw_groups_counters){0};
    if (!b->groups) return;
    bw_entry *e, *more;
    HASH_ITER(hh, b->groups->entries, e, more) {
        out->groups++;
        out->members += e->g->member_count;
        out->rebalances += e->g->rebalances;
    }
}

/* ---- start and end ---- */

/* Members sleep on their mailboxes, or try to connect now and then; the listener opens a moment after this. */
static void poke_everybody(void *broker, bw_timer *timer)
{
    static const int after_ms[] = {5, 20, 60, 150};
    bw_broker *b = broker;
    uint32_t boxes = b->mail ? atomic_load(&b->mail->header->slots) : 0;
    for (uint32_t i = BW_MAILBOX_SYNCER + 1; i < boxes && i < BW_MAILBOXES; i++) bw_mailbox_poke(bw_mail_box(b->mail, i));
    if (b->groups->pokes < sizeof after_ms / sizeof *after_ms)
        bw_timers_set(&b->timers, timer, bw_deadline_in_ms(after_ms[b->groups->pokes++]));
}

bw_err bw_groups_begin(bw_broker *b)
{
    if (b->groups) return BW_OK;
    bw_groups *all = calloc(1, sizeof *all);
    if (!all) return bw_fail(BW_ERR_NO_MEMORY, "no memory for the groups");
    const bw_daemon_config *c = &b->config;
    all->limits = (bw_group_limits){.max_members = c->group_max_size ? (uint32_t)c->group_max_size : UINT32_MAX,
                                    .max_bytes = (size_t)c->group_max_metadata_bytes,
                                    .min_session_ms = (int32_t)c->group_min_session_ms, .max_session_ms = (int32_t)c->group_max_session_ms,
                                    .initial_delay_ms = (int32_t)c->group_initial_delay_ms};
    if (bw_os_boot_id(all->boot)) memset(all->boot, 0, sizeof all->boot);
    b->groups = all;
    uint64_t members = 0;
    bw_err e = bw_groups_restore(b, &members);
    all->poke.fire = poke_everybody;
    if (!e && members) poke_everybody(b, &all->poke);
    if (e) bw_groups_free(b);
    return e;
}

void bw_groups_free(bw_broker *b)
{
    if (!b->groups) return;
    bw_entry *e, *more;
    bw_timers_clear(&b->timers, &b->groups->poke);
    HASH_ITER(hh, b->groups->entries, e, more) bw_entry_free(e);
    free(b->groups);
    b->groups = NULL;
}
