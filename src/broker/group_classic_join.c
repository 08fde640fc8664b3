/* broker/group_classic_join.c: JoinGroup: who may come, new members, those that come back, and static ones under a new id. What follows
 * from it is in group_classic.c. */
#include "broker/group_core.h"

#include <stdio.h>

#define NEW_MEMBER_JOIN_MS 300000 /* as Kafka: one that joined and is not answered for so long is given up */

static bool supports(const bw_group *g, const bw_classic_join *j)
{
    if (!j->protocol_count || !j->protocol_type.len) return false;
    if (!g->member_count) return true;
    if (!g->protocol_type || !bw_str_is(j->protocol_type, g->protocol_type)) return false;
    for (size_t i = 0; i < j->protocol_count; i++)
        for (size_t k = 0; k < g->members[0]->protocol_count; k++) {
            const char *name = g->members[0]->protocols[k].name;
            if (bw_str_is(j->protocols[i].name, name) && bw_classic_all_speak(g, name)) return true;
        }
    return false;
}

static bool same_protocols(const bw_member *m, const bw_classic_join *j)
{
    if (m->protocol_count != j->protocol_count) return false;
    for (size_t i = 0; i < j->protocol_count; i++) {
        const bw_member_protocol *p = &m->protocols[i];
        const bw_group_protocol *q = &j->protocols[i];
        if (!bw_str_is(q->name, p->name) || p->metadata.len != q->metadata.len ||
            (q->metadata.len && memcmp(p->metadata.data, q->metadata.data, q->metadata.len) != 0))
            return false;
    }
    return true;
}

static size_t protocol_bytes(const bw_group_protocol *p, size_t count)
{
    size_t n = 0;
    for (size_t i = 0; i < count; i++) n += sizeof(bw_member_protocol) + p[i].name.len + p[i].metadata.len;
    return n;
}

static bw_err set_protocols(bw_group *g, bw_member *m, const bw_group_protocol *from, size_t count)
{
    size_t old = 0;
    for (size_t i = 0; i < m->protocol_count; i++)
        old += sizeof(bw_member_protocol) + strlen(m->protocols[i].name) + m->protocols[i].metadata.len;
    bw_err e = bw_member_account(g, m, m->bytes - old + protocol_bytes(from, count));
    bw_member_protocol *list = e ? NULL : calloc(count + 1, sizeof *list);
    if (!e && !list) e = bw_fail(BW_ERR_NO_MEMORY, "no memory for the protocols of a member of group %s", g->id);
    size_t n = 0;
    for (; !e && n < count; n++) {
        list[n].name = bw_group_dup(from[n].name);
        e = list[n].name ? bw_blob_set(&list[n].metadata, from[n].metadata) : BW_ERR_NO_MEMORY;
    }
    bw_member_protocol *unused = e ? list : m->protocols;
    size_t unused_count = e ? n : m->protocol_count;
    for (size_t i = 0; i < unused_count; i++) {
        free(unused[i].name);
        free(unused[i].metadata.data);
    }
    free(unused);
    if (e) return e;
    m->protocols = list;
    m->protocol_count = count;
    return BW_OK;
}

/* ---- join ---- */

static void await_join(bw_group *g, bw_member *m, void *token)
{
    if (m->join_token) bw_classic_fail_join(g, m, bw_fail(BW_ERR_REBALANCE_IN_PROGRESS, "group %s: member %s joined once more", g->id, m->id));
    m->join_token = token;
    g->awaiting_join++;
}

static void add_member(bw_group *g, const bw_classic_join *j, bw_str id, void *token, int64_t now_ms)
{
    bw_member_new n = {id, j->instance, j->client, j->host, j->process, j->session_ms, j->rebalance_ms, 0, 0};
    bw_member *m;
    char *type = g->member_count ? NULL : bw_group_dup(j->protocol_type);
    bw_err e = g->member_count || type ? bw_member_add(g, &n, now_ms, &m) : BW_ERR_NO_MEMORY;
    if (!e) {
        e = set_protocols(g, m, j->protocols, j->protocol_count);
        if (!e && !g->leader) e = bw_classic_set_leader(g, m->id);
        if (e) bw_member_drop(g, m, now_ms);
    }
    if (e) {
        free(type);
        bw_classic_answer_join_error(g, token, id, e);
        return;
    }
    if (type) {
        free(g->protocol_type);
        g->protocol_type = type;
    }
    g->kind = BW_GROUP_CLASSIC;
    g->kind_fixed = true;
    m->is_new = true;
    m->deadline_ms = bw_group_after(now_ms, NEW_MEMBER_JOIN_MS);
    bw_group_wake_at(g, m->deadline_ms);
    if (g->state == BW_GROUP_PREPARING && g->initial) g->member_added = true;
    await_join(g, m, token);
    bw_classic_maybe_rebalance(g, now_ms);
}

static void update_and_rebalance(bw_group *g, bw_member *m, const bw_classic_join *j, void *token, int64_t now_ms)
{
    bw_err e = set_protocols(g, m, j->protocols, j->protocol_count);
    if (e) {
        bw_classic_answer_join_error(g, token, bw_str_of(m->id), e);
        return;
    }
    m->session_ms = j->session_ms;
    m->rebalance_ms = j->rebalance_ms;
    await_join(g, m, token);
    bw_classic_heard(g, m, now_ms);
    bw_classic_maybe_rebalance(g, now_ms);
}

/* A static member is back under a new id: the former one is fenced, its assignment is the new one's. */
static void replace_static(bw_group *g, bw_member *old, const bw_classic_join *j, void *token, int64_t now_ms)
{
    bw_member_new n = {j->new_id, j->instance, j->client, j->host, j->process, j->session_ms, j->rebalance_ms, 0, 0};
    bw_member *m;
    bw_err e = bw_member_add(g, &n, now_ms, &m);
    char *former_leader = g->leader ? bw_group_dup(bw_str_of(g->leader)) : NULL;
    if (!e) {
        e = set_protocols(g, m, j->protocols, j->protocol_count);
        if (!e && g->leader && !former_leader) e = BW_ERR_NO_MEMORY;
        if (!e && bw_classic_is_leader(g, old)) e = bw_classic_set_leader(g, m->id);
        if (e) bw_member_drop(g, m, now_ms);
    }
    if (e) {
        free(former_leader);
        bw_classic_answer_join_error(g, token, j->new_id, e);
        return;
    }
    bw_err fenced = BW_ERR_FENCED_INSTANCE_ID;
    bw_classic_fail_join(g, old, bw_fail(fenced, "group %s: another process uses group.instance.id %s now", g->id, old->instance));
    bw_classic_fail_sync(g, old, bw_fail(fenced, "group %s: another process uses group.instance.id %s now", g->id, old->instance));
    m->assignment = old->assignment;
    old->assignment = (bw_blob){0};
    bw_classic_owe_sync(g, m, old->owes_sync);
    bw_classic_owe_sync(g, old, false);
    m->epoch = old->epoch;
    char *name = old->instance;
    HASH_DELETE(by_instance, g->by_instance, old);
    old->instance = NULL;
    g->ops->removed(g->context, g, old, fenced, "another process uses its group.instance.id");
    bw_member_drop(g, old, now_ms);
    free(name);
    bw_classic_heard(g, m, now_ms);
    const char *next = bw_classic_elect_protocol(g);
    if (g->state == BW_GROUP_STABLE && next && g->protocol && strcmp(next, g->protocol) == 0) {
        g->ops->save(g->context, g, m);
        /* As Kafka for clients that cannot skip the assignment: the leader of before is named, so that nobody assigns. */
        bw_classic_answer_join(g, m, token, former_leader, false);
    } else {
        await_join(g, m, token);
        bw_classic_maybe_rebalance(g, now_ms);
    }
    free(former_leader);
}

static bw_err require_member_id(bw_group *g, const bw_classic_join *j, int64_t now_ms)
{
    bw_pending_member *p = calloc(1, sizeof *p);
    if (!p || !(p->id = bw_group_dup(j->new_id))) {
        free(p);
        return bw_fail(BW_ERR_NO_MEMORY, "no memory for a member of group %s", g->id);
    }
    p->deadline_ms = bw_group_after(now_ms, j->session_ms);
    HASH_ADD_KEYPTR(hh, g->pending, p->id, j->new_id.len, p);
    if (p->not_hashed) {
        free(p->id);
        free(p);
        return bw_fail(BW_ERR_NO_MEMORY, "no memory for a member of group %s", g->id);
    }
    g->kind = BW_GROUP_CLASSIC; /* now the group has its pending member's kind */
    bw_group_wake_at(g, p->deadline_ms);
    return bw_fail(BW_ERR_MEMBER_ID_REQUIRED, "group %s: join again with member id %s", g->id, p->id);
}

bool bw_classic_take_pending(bw_group *g, bw_str id)
{
    bw_pending_member *p = NULL;
    if (id.len && g->pending) HASH_FIND(hh, g->pending, id.data, id.len, p);
    if (!p) return false;
    HASH_DEL(g->pending, p);
    free(p->id);
    free(p);
    return true;
}

/* A member that is known joins again. */
static void rejoin(bw_group *g, const bw_classic_join *j, void *token, int64_t now_ms)
{
    bw_member *m;
    bw_err e = bw_group_find(g, j->member, j->instance, &m);
    if (e) {
        bw_classic_answer_join_error(g, token, j->member, e);
        return;
    }
    bool alike = same_protocols(m, j);
    if (g->state == BW_GROUP_COMPLETING && alike) { /* its answer was lost: once more */
        bw_classic_heard(g, m, now_ms);
        bw_classic_answer_join(g, m, token, g->leader, bw_classic_is_leader(g, m));
    } else if (g->state == BW_GROUP_STABLE && alike && !bw_classic_is_leader(g, m)) {
        bw_classic_heard(g, m, now_ms);
        bw_classic_answer_join(g, m, token, g->leader, false);
    } else {
        update_and_rebalance(g, m, j, token, now_ms);
    }
}

/* Room for one that is not a member, or does not wait yet. */
static bw_err acceptable(const bw_group *g, bw_str member)
{
    const bw_member *m = bw_group_with_id(g, member);
    if (g->state == BW_GROUP_EMPTY) return BW_OK;
    if (g->state == BW_GROUP_PREPARING) return m && m->join_token ? BW_OK : bw_group_room(g, g->awaiting_join);
    return m ? BW_OK : bw_group_room(g, g->member_count);
}

void bw_group_classic_join(bw_group *g, const bw_classic_join *join, void *token, int64_t now_ms)
{
    bw_classic_join j = *join;
    bw_err e = g->state == BW_GROUP_DEAD ? bw_fail(BW_ERR_GROUP_ID_NOT_FOUND, "group %s is being deleted", g->id)
                                         : bw_group_session(g, &j.session_ms);
    if (j.rebalance_ms <= 0) j.rebalance_ms = j.session_ms;
    if (!e && ((g->member_count && g->kind != BW_GROUP_CLASSIC) || (g->kind_fixed && g->kind == BW_GROUP_QUEUE) || !supports(g, &j)))
        e = bw_fail(BW_ERR_INCONSISTENT_GROUP_PROTOCOL, "group %s: protocol type \"%.*s\" and its %zu protocols do not fit the group's members",
                    g->id, BW_STR_ARG(j.protocol_type), j.protocol_count);
    bw_member *full = !e ? bw_group_with_id(g, j.member) : NULL;
    if (!e) e = acceptable(g, j.member);
    if (e == BW_ERR_GROUP_MAX_SIZE_REACHED && full) {
        char why[512];
        snprintf(why, sizeof why, "%s", bw_error_message());
        bw_classic_remove(g, full, e, "the group is full", now_ms);
        bw_error_set_message(e, why);
    }
    if (e) {
        bw_classic_answer_join_error(g, token, j.member, e);
        return;
    }
    if (j.member.len && bw_classic_take_pending(g, j.member)) {
        add_member(g, &j, j.member, token, now_ms);
    } else if (j.member.len) {
        rejoin(g, &j, token, now_ms);
    } else if (j.instance.len) {
        bw_member *old = bw_group_with_instance(g, j.instance);
        if (old) replace_static(g, old, &j, token, now_ms);
        else add_member(g, &j, j.new_id, token, now_ms);
    } else if (j.needs_member_id) {
        bw_classic_answer_join_error(g, token, j.new_id, require_member_id(g, &j, now_ms));
    } else {
        add_member(g, &j, j.new_id, token, now_ms);
    }
}
