/* broker/group_classic.c: Kafka's classic protocol, as its group coordinator does it.
 *
 *   Empty → PreparingRebalance   somebody joins; the first ones wait for group.initial.rebalance.delay.ms
 *   PreparingRebalance → CompletingRebalance   all have joined again, or the rebalance time-out is over and who has not is removed
 *                                (static members stay). The generation rises; the leader is told everybody's metadata
 *   CompletingRebalance → Stable the leader's SyncGroup came; everybody's is answered with his part of it
 *   any of these → PreparingRebalance   a member comes, goes, or says other things than before; who waits in SyncGroup is told
 *                                REBALANCE_IN_PROGRESS
 * A member that waits in a join or a sync is alive; else its session time-out runs. */
#include "broker/group_core.h"

#include <stdio.h>

#define NEW_MEMBER_JOIN_MS 300000 /* as Kafka: one that joined and is not answered for so long is given up */

void bw_classic_forget_pending(bw_group *g)
{
    bw_pending_member *p, *next;
    HASH_ITER(hh, g->pending, p, next) {
        HASH_DEL(g->pending, p);
        free(p->id);
        free(p);
    }
}

void bw_classic_free(bw_group *g)
{
    bw_classic_forget_pending(g);
    free(g->protocol_type);
    free(g->protocol);
    free(g->leader);
}

bw_str bw_member_metadata(const bw_group *g, const bw_member *m)
{
    for (size_t i = 0; g->protocol && i < m->protocol_count; i++)
        if (strcmp(m->protocols[i].name, g->protocol) == 0)
            return (bw_str){(const char *)m->protocols[i].metadata.data, m->protocols[i].metadata.len};
    return (bw_str){NULL, 0};
}

static const char *or_empty(const char *s) { return s ? s : ""; }

static bool is_leader(const bw_group *g, const bw_member *m) { return g->leader && strcmp(g->leader, m->id) == 0; }

static bw_err set_leader(bw_group *g, const char *id)
{
    char *copy = id ? bw_group_dup(bw_str_of(id)) : NULL;
    if (id && !copy) return BW_ERR_NO_MEMORY;
    free(g->leader);
    g->leader = copy;
    return BW_OK;
}

/* ---- answers ---- */

static void answer_join_error(bw_group *g, void *token, bw_str member, bw_err e)
{
    char id[BW_MEMBER_ID_MAX + 1];
    size_t len = member.len > BW_MEMBER_ID_MAX ? BW_MEMBER_ID_MAX : member.len;
    if (len) memcpy(id, member.data, len);
    id[len] = 0;
    bw_joined a = {.error = e, .member = id, .generation = -1, .protocol_type = "", .protocol = "", .leader = ""};
    g->ops->joined(g->context, g, token, &a);
}

static void fail_join(bw_group *g, bw_member *m, bw_err e)
{
    void *token = m->join_token;
    if (!token) return;
    m->join_token = NULL;
    g->awaiting_join--;
    answer_join_error(g, token, bw_str_of(m->id), e);
}

static void fail_sync(bw_group *g, bw_member *m, bw_err e)
{
    void *token = m->sync_token;
    if (!token) return;
    m->sync_token = NULL;
    g->ops->synced(g->context, g, token, e, NULL);
}

static void answer_join(bw_group *g, bw_member *m, void *token, const char *leader, bool with_members)
{
    bw_joined a = {.member = m->id, .generation = g->epoch, .protocol_type = or_empty(g->protocol_type), .protocol = or_empty(g->protocol),
                   .leader = or_empty(leader), .members = with_members ? g->members : NULL,
                   .member_count = with_members ? g->member_count : 0};
    m->epoch = g->epoch;
    g->ops->joined(g->context, g, token, &a);
}

static void heard(bw_group *g, bw_member *m, int64_t now_ms)
{
    m->expected = false;
    m->deadline_ms = bw_group_after(now_ms, m->session_ms);
    bw_group_wake_at(g, m->deadline_ms);
}

static void owe_sync(bw_group *g, bw_member *m, bool owes)
{
    if (m->owes_sync == owes) return;
    m->owes_sync = owes;
    if (owes) g->owing_sync++;
    else g->owing_sync--;
}

bool bw_classic_expired(const bw_member *m, int64_t now_ms)
{
    return m->deadline_ms <= now_ms && (m->is_new || (!m->join_token && !m->sync_token));
}

/* ---- protocols ---- */

static bool member_speaks(const bw_member *m, const char *name)
{
    for (size_t i = 0; i < m->protocol_count; i++)
        if (strcmp(m->protocols[i].name, name) == 0) return true;
    return false;
}

static bool all_speak(const bw_group *g, const char *name)
{
    for (uint32_t i = 0; i < g->member_count; i++)
        if (!member_speaks(g->members[i], name)) return false;
    return true;
}

static bool supports(const bw_group *g, const bw_classic_join *j)
{
    if (!j->protocol_count || !j->protocol_type.len) return false;
    if (!g->member_count) return true;
    if (!g->protocol_type || !bw_str_is(j->protocol_type, g->protocol_type)) return false;
    for (size_t i = 0; i < j->protocol_count; i++)
        for (size_t k = 0; k < g->members[0]->protocol_count; k++) {
            const char *name = g->members[0]->protocols[k].name;
            if (bw_str_is(j->protocols[i].name, name) && all_speak(g, name)) return true;
        }
    return false;
}

/* Each member votes for the first of its protocols that all speak; of equally many votes the one that the first member prefers. */
static const char *elect_protocol(const bw_group *g)
{
    const char *best = NULL;
    uint32_t best_votes = 0;
    const bw_member *first = g->member_count ? g->members[0] : NULL;
    for (size_t i = 0; first && i < first->protocol_count; i++) {
        const char *name = first->protocols[i].name;
        uint32_t votes = 0;
        if (!all_speak(g, name)) continue;
        for (uint32_t k = 0; k < g->member_count; k++)
            for (size_t n = 0; n < g->members[k]->protocol_count; n++) {
                const char *choice = g->members[k]->protocols[n].name;
                if (!all_speak(g, choice)) continue;
                votes += strcmp(choice, name) == 0;
                break;
            }
        if (!best || votes > best_votes) best = name, best_votes = votes;
    }
    return best;
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

/* ---- rebalance ---- */

static int32_t rebalance_timeout(const bw_group *g)
{
    int32_t most = 0;
    for (uint32_t i = 0; i < g->member_count; i++)
        if (g->members[i]->rebalance_ms > most) most = g->members[i]->rebalance_ms;
    return most;
}

static void next_generation(bw_group *g, int64_t now_ms)
{
    g->epoch = g->epoch == INT32_MAX ? 1 : g->epoch + 1;
    g->rebalances++;
    for (uint32_t i = 0; i < g->member_count; i++) owe_sync(g, g->members[i], false);
    const char *chosen = elect_protocol(g);
    char *copy = chosen ? bw_group_dup(bw_str_of(chosen)) : NULL;
    free(g->protocol);
    g->protocol = copy;
    if (!g->member_count) {
        g->state = BW_GROUP_EMPTY;
        g->empty_since_ms = now_ms;
        set_leader(g, NULL);
    } else {
        g->state = BW_GROUP_COMPLETING;
    }
}

/* A leader who did not join again is replaced by one who did. false: nobody did. */
static bool elect_leader(bw_group *g)
{
    bw_member *leader = g->leader ? bw_group_with_id(g, bw_str_of(g->leader)) : NULL;
    if (leader && leader->join_token) return true;
    for (uint32_t i = 0; i < g->member_count; i++)
        if (g->members[i]->join_token) return set_leader(g, g->members[i]->id) == BW_OK;
    return false;
}

static void forget_member(bw_group *g, bw_member *m, bw_err why, const char *reason, int64_t now_ms)
{
    fail_join(g, m, bw_fail(BW_ERR_UNKNOWN_MEMBER_ID, "group %s: member %s was removed: %s; join anew", g->id, m->id, reason));
    fail_sync(g, m, bw_fail(BW_ERR_UNKNOWN_MEMBER_ID, "group %s: member %s was removed: %s; join anew", g->id, m->id, reason));
    owe_sync(g, m, false);
    bool led = is_leader(g, m);
    g->ops->removed(g->context, g, m, why, reason);
    bw_member_drop(g, m, now_ms);
    if (led) set_leader(g, g->member_count ? g->members[0]->id : NULL);
}

static void complete_join(bw_group *g, int64_t now_ms)
{
    g->initial = false;
    g->join_until_ms = BW_GROUP_NEVER;
    for (uint32_t i = g->member_count; i-- > 0;) { /* static members are waited for as long as their session */
        bw_member *m = g->members[i];
        if (!m->join_token && !m->instance) forget_member(g, m, BW_ERR_REBALANCE_IN_PROGRESS, "it did not join in time", now_ms);
    }
    if (g->member_count && !elect_leader(g)) { /* only static members, none of them joined */
        g->join_until_ms = bw_group_after(now_ms, rebalance_timeout(g));
        bw_group_wake_at(g, g->join_until_ms);
        return;
    }
    next_generation(g, now_ms);
    g->ops->save(g->context, g, NULL);
    for (uint32_t i = 0; i < g->member_count; i++) g->ops->save(g->context, g, g->members[i]);
    for (uint32_t i = 0; i < g->member_count; i++) {
        bw_member *m = g->members[i];
        void *token = m->join_token;
        m->join_token = NULL;
        m->is_new = false;
        heard(g, m, now_ms);
        owe_sync(g, m, true);
        if (token) answer_join(g, m, token, g->leader, is_leader(g, m));
    }
    g->awaiting_join = 0;
    if (!g->member_count) return;
    g->sync_until_ms = bw_group_after(now_ms, rebalance_timeout(g));
    bw_group_wake_at(g, g->sync_until_ms);
}

static void try_complete_join(bw_group *g, int64_t now_ms)
{
    if (g->state == BW_GROUP_PREPARING && !g->initial && g->awaiting_join == g->member_count && !g->pending) complete_join(g, now_ms);
}

static void prepare_rebalance(bw_group *g, int64_t now_ms)
{
    if (g->state == BW_GROUP_COMPLETING)
        for (uint32_t i = 0; i < g->member_count; i++) {
            free(g->members[i]->assignment.data);
            g->members[i]->assignment = (bw_blob){0};
            fail_sync(g, g->members[i], bw_fail(BW_ERR_REBALANCE_IN_PROGRESS, "group %s is rebalancing: join again", g->id));
        }
    g->sync_until_ms = BW_GROUP_NEVER;
    int32_t most = rebalance_timeout(g), delay = g->limits->initial_delay_ms;
    g->initial = g->state == BW_GROUP_EMPTY;
    if (g->initial) {
        if (delay > most) delay = most;
        g->initial_left_ms = most - delay;
        g->member_added = false;
        g->join_until_ms = bw_group_after(now_ms, delay);
    } else {
        g->join_until_ms = bw_group_after(now_ms, most);
    }
    bw_group_wake_at(g, g->join_until_ms);
    g->state = BW_GROUP_PREPARING;
    try_complete_join(g, now_ms);
}

static void maybe_rebalance(bw_group *g, int64_t now_ms)
{
    if (g->state == BW_GROUP_PREPARING) try_complete_join(g, now_ms);
    else if (g->state != BW_GROUP_DEAD) prepare_rebalance(g, now_ms);
}

void bw_classic_remove(bw_group *g, bw_member *m, bw_err why, const char *reason, int64_t now_ms)
{
    forget_member(g, m, why, reason, now_ms);
    if (g->state != BW_GROUP_EMPTY && g->state != BW_GROUP_DEAD) maybe_rebalance(g, now_ms);
}

/* ---- join ---- */

static void await_join(bw_group *g, bw_member *m, void *token)
{
    if (m->join_token) fail_join(g, m, bw_fail(BW_ERR_REBALANCE_IN_PROGRESS, "group %s: member %s joined once more", g->id, m->id));
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
        if (!e && !g->leader) e = set_leader(g, m->id);
        if (e) bw_member_drop(g, m, now_ms);
    }
    if (e) {
        free(type);
        answer_join_error(g, token, id, e);
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
    maybe_rebalance(g, now_ms);
}

static void update_and_rebalance(bw_group *g, bw_member *m, const bw_classic_join *j, void *token, int64_t now_ms)
{
    bw_err e = set_protocols(g, m, j->protocols, j->protocol_count);
    if (e) {
        answer_join_error(g, token, bw_str_of(m->id), e);
        return;
    }
    m->session_ms = j->session_ms;
    m->rebalance_ms = j->rebalance_ms;
    await_join(g, m, token);
    heard(g, m, now_ms);
    maybe_rebalance(g, now_ms);
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
        if (!e && is_leader(g, old)) e = set_leader(g, m->id);
        if (e) bw_member_drop(g, m, now_ms);
    }
    if (e) {
        free(former_leader);
        answer_join_error(g, token, j->new_id, e);
        return;
    }
    bw_err fenced = BW_ERR_FENCED_INSTANCE_ID;
    fail_join(g, old, bw_fail(fenced, "group %s: another process uses group.instance.id %s now", g->id, old->instance));
    fail_sync(g, old, bw_fail(fenced, "group %s: another process uses group.instance.id %s now", g->id, old->instance));
    m->assignment = old->assignment;
    old->assignment = (bw_blob){0};
    owe_sync(g, m, old->owes_sync);
    owe_sync(g, old, false);
    m->epoch = old->epoch;
    char *name = old->instance;
    HASH_DELETE(by_instance, g->by_instance, old);
    old->instance = NULL;
    g->ops->removed(g->context, g, old, fenced, "another process uses its group.instance.id");
    bw_member_drop(g, old, now_ms);
    free(name);
    heard(g, m, now_ms);
    const char *next = elect_protocol(g);
    if (g->state == BW_GROUP_STABLE && next && g->protocol && strcmp(next, g->protocol) == 0) {
        g->ops->save(g->context, g, m);
        /* As Kafka for clients that cannot skip the assignment: the leader of before is named, so that nobody assigns. */
        answer_join(g, m, token, former_leader, false);
    } else {
        await_join(g, m, token);
        maybe_rebalance(g, now_ms);
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

static bool take_pending(bw_group *g, bw_str id)
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
        answer_join_error(g, token, j->member, e);
        return;
    }
    bool alike = same_protocols(m, j);
    if (g->state == BW_GROUP_COMPLETING && alike) { /* its answer was lost: once more */
        heard(g, m, now_ms);
        answer_join(g, m, token, g->leader, is_leader(g, m));
    } else if (g->state == BW_GROUP_STABLE && alike && !is_leader(g, m)) {
        heard(g, m, now_ms);
        answer_join(g, m, token, g->leader, false);
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
        answer_join_error(g, token, j.member, e);
        return;
    }
    if (j.member.len && take_pending(g, j.member)) {
        add_member(g, &j, j.member, token, now_ms);
    } else if (j.member.len) {
        rejoin(g, &j, token, now_ms);
    } else if (j.instance.len) {
        bw_member *old = bw_group_with_instance(g, j.instance);
        if (old) replace_static(g, old, &j, token, now_ms);
        else add_member(g, &j, j.new_id, token, now_ms);
    } else if (j.needs_member_id) {
        answer_join_error(g, token, j.new_id, require_member_id(g, &j, now_ms));
    } else {
        add_member(g, &j, j.new_id, token, now_ms);
    }
}

/* ---- the others ---- */

bw_err bw_classic_leave_pending(bw_group *g, bw_str member, int64_t now_ms)
{
    if (!take_pending(g, member)) return BW_ERR_NOT_FOUND;
    try_complete_join(g, now_ms);
    return BW_OK;
}

bw_err bw_classic_may_commit(const bw_group *g, int32_t generation)
{
    (void)generation;
    if (g->state == BW_GROUP_COMPLETING)
        return bw_fail(BW_ERR_REBALANCE_IN_PROGRESS, "group %s is rebalancing: its members have no partitions yet", g->id);
    return BW_OK;
}

void bw_classic_poll(bw_group *g, int64_t now_ms)
{
    bw_pending_member *p, *next;
    HASH_ITER(hh, g->pending, p, next) {
        if (p->deadline_ms > now_ms) {
            bw_group_wake_at(g, p->deadline_ms);
            continue;
        }
        HASH_DEL(g->pending, p);
        free(p->id);
        free(p);
        try_complete_join(g, now_ms);
    }
    if (g->join_until_ms <= now_ms) {
        g->join_until_ms = BW_GROUP_NEVER;
        if (g->initial && g->member_added && g->initial_left_ms > 0) { /* others came while we waited: wait on, within the bound */
            int32_t delay = g->limits->initial_delay_ms < g->initial_left_ms ? g->limits->initial_delay_ms : g->initial_left_ms;
            g->member_added = false;
            g->initial_left_ms -= delay;
            g->join_until_ms = bw_group_after(now_ms, delay);
        } else if (g->state == BW_GROUP_PREPARING) {
            complete_join(g, now_ms);
        }
    }
    if (g->sync_until_ms <= now_ms) {
        g->sync_until_ms = BW_GROUP_NEVER;
        bool any = false;
        for (uint32_t i = g->member_count; i-- > 0;) {
            if (!g->members[i]->owes_sync) continue;
            any = true;
            forget_member(g, g->members[i], BW_ERR_REBALANCE_IN_PROGRESS, "it did not send SyncGroup in time", now_ms);
        }
        if (any) maybe_rebalance(g, now_ms);
    }
    bw_group_wake_at(g, g->join_until_ms);
    bw_group_wake_at(g, g->sync_until_ms);
}

/* ---- sync and heartbeat ---- */

static bw_err check_sync(const bw_group *g, const bw_group_request *r, bw_member **m)
{
    bw_err e = g->state == BW_GROUP_DEAD ? bw_fail(BW_ERR_GROUP_ID_NOT_FOUND, "group %s is being deleted", g->id)
                                         : bw_group_find(g, r->member, r->instance, m);
    if (e) return e;
    if (g->kind != BW_GROUP_CLASSIC) return bw_fail(BW_ERR_INCONSISTENT_GROUP_PROTOCOL, "group %s is not a classic group", g->id);
    if (r->epoch != g->epoch)
        return bw_fail(BW_ERR_ILLEGAL_GENERATION, "group %s is in generation %d, member %s syncs in %d: join again", g->id, g->epoch,
                       (*m)->id, r->epoch);
    if ((r->protocol_type.len && (!g->protocol_type || !bw_str_is(r->protocol_type, g->protocol_type))) ||
        (r->protocol.len && (!g->protocol || !bw_str_is(r->protocol, g->protocol))))
        return bw_fail(BW_ERR_INCONSISTENT_GROUP_PROTOCOL, "group %s uses protocol %s of type %s: join again", g->id, or_empty(g->protocol),
                       or_empty(g->protocol_type));
    if (g->state == BW_GROUP_PREPARING) return bw_fail(BW_ERR_REBALANCE_IN_PROGRESS, "group %s is rebalancing: join again", g->id);
    return BW_OK;
}

/* The leader's assignments, each checked against the group's bound on memory before any is taken. */
static bw_err take_assignments(bw_group *g, const bw_group_request *r)
{
    size_t total = g->bytes;
    for (size_t i = 0; i < r->assignment_count; i++) total += r->assignments[i].metadata.len;
    if (total > g->limits->max_bytes)
        return bw_fail(BW_ERR_LIMIT_REACHED, "group %s: with these assignments its metadata would take %zu bytes, more than %zu "
                       "(group.max.metadata.bytes)", g->id, total, g->limits->max_bytes);
    for (uint32_t i = 0; i < g->member_count; i++) {
        free(g->members[i]->assignment.data);
        g->members[i]->assignment = (bw_blob){0};
    }
    for (size_t i = 0; i < r->assignment_count; i++) {
        bw_member *m = bw_group_with_id(g, r->assignments[i].member);
        if (!m) continue; /* it has left meanwhile */
        bw_err e = bw_blob_set(&m->assignment, r->assignments[i].metadata);
        if (e) return e;
    }
    return BW_OK;
}

void bw_group_classic_sync(bw_group *g, const bw_group_request *r, void *token, int64_t now_ms)
{
    bw_member *m = NULL;
    bw_err e = check_sync(g, r, &m);
    if (!e && g->state == BW_GROUP_COMPLETING && is_leader(g, m)) e = take_assignments(g, r);
    if (e) {
        g->ops->synced(g->context, g, token, e, NULL);
        return;
    }
    owe_sync(g, m, false);
    heard(g, m, now_ms);
    if (g->state == BW_GROUP_STABLE) {
        g->ops->synced(g->context, g, token, BW_OK, m);
        return;
    }
    fail_sync(g, m, bw_fail(BW_ERR_REBALANCE_IN_PROGRESS, "group %s: member %s synced once more", g->id, m->id));
    m->sync_token = token;
    if (!is_leader(g, m)) return;
    g->state = BW_GROUP_STABLE;
    g->ops->save(g->context, g, NULL);
    for (uint32_t i = 0; i < g->member_count; i++) g->ops->save(g->context, g, g->members[i]);
    for (uint32_t i = 0; i < g->member_count; i++) {
        bw_member *other = g->members[i];
        void *waiting = other->sync_token;
        if (!waiting) continue;
        other->sync_token = NULL;
        heard(g, other, now_ms);
        g->ops->synced(g->context, g, waiting, BW_OK, other);
    }
}

bw_err bw_group_classic_beat(bw_group *g, bw_str member, bw_str instance, int32_t generation, int64_t now_ms)
{
    bw_member *m;
    bw_err e = bw_group_find(g, member, instance, &m);
    if (e) return e;
    if (g->kind != BW_GROUP_CLASSIC) return bw_fail(BW_ERR_INCONSISTENT_GROUP_PROTOCOL, "group %s is not a classic group", g->id);
    if (generation != g->epoch)
        return bw_fail(BW_ERR_ILLEGAL_GENERATION, "group %s is in generation %d, member %s in %d: join again", g->id, g->epoch, m->id, generation);
    heard(g, m, now_ms);
    if (g->state == BW_GROUP_PREPARING) return bw_fail(BW_ERR_REBALANCE_IN_PROGRESS, "group %s is rebalancing: join again", g->id);
    return BW_OK;
}
