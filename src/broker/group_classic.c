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

bool bw_classic_is_leader(const bw_group *g, const bw_member *m) { return g->leader && strcmp(g->leader, m->id) == 0; }

bw_err bw_classic_set_leader(bw_group *g, const char *id)
{
    char *copy = id ? bw_group_dup(bw_str_of(id)) : NULL;
    if (id && !copy) return BW_ERR_NO_MEMORY;
    free(g->leader);
    g->leader = copy;
    return BW_OK;
}

/* ---- answers ---- */

void bw_classic_answer_join_error(bw_group *g, void *token, bw_str member, bw_err e)
{
    char id[BW_MEMBER_ID_MAX + 1];
    size_t len = member.len > BW_MEMBER_ID_MAX ? BW_MEMBER_ID_MAX : member.len;
    if (len) memcpy(id, member.data, len);
    id[len] = 0;
    bw_joined a = {.error = e, .member = id, .generation = -1, .protocol_type = "", .protocol = "", .leader = ""};
    g->ops->joined(g->context, g, token, &a);
}

void bw_classic_fail_join(bw_group *g, bw_member *m, bw_err e)
{
    void *token = m->join_token;
    if (!token) return;
    m->join_token = NULL;
    g->awaiting_join--;
    bw_classic_answer_join_error(g, token, bw_str_of(m->id), e);
}

void bw_classic_fail_sync(bw_group *g, bw_member *m, bw_err e)
{
    void *token = m->sync_token;
    if (!token) return;
    m->sync_token = NULL;
    g->ops->synced(g->context, g, token, e, NULL);
}

void bw_classic_answer_join(bw_group *g, bw_member *m, void *token, const char *leader, bool with_members)
{
    bw_joined a = {.member = m->id, .generation = g->epoch, .protocol_type = or_empty(g->protocol_type), .protocol = or_empty(g->protocol),
                   .leader = or_empty(leader), .members = with_members ? g->members : NULL,
                   .member_count = with_members ? g->member_count : 0};
    m->epoch = g->epoch;
    g->ops->joined(g->context, g, token, &a);
}

void bw_classic_heard(bw_group *g, bw_member *m, int64_t now_ms)
{
    m->expected = false;
    m->deadline_ms = bw_group_after(now_ms, m->session_ms);
    bw_group_wake_at(g, m->deadline_ms);
}

void bw_classic_owe_sync(bw_group *g, bw_member *m, bool owes)
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

bool bw_classic_all_speak(const bw_group *g, const char *name)
{
    for (uint32_t i = 0; i < g->member_count; i++)
        if (!member_speaks(g->members[i], name)) return false;
    return true;
}

/* Each member votes for the first of its protocols that all speak; of equally many votes the one that the first member prefers. */
const char *bw_classic_elect_protocol(const bw_group *g)
{
    const char *best = NULL;
    uint32_t best_votes = 0;
    const bw_member *first = g->member_count ? g->members[0] : NULL;
    for (size_t i = 0; first && i < first->protocol_count; i++) {
        const char *name = first->protocols[i].name;
        uint32_t votes = 0;
        if (!bw_classic_all_speak(g, name)) continue;
        for (uint32_t k = 0; k < g->member_count; k++)
            for (size_t n = 0; n < g->members[k]->protocol_count; n++) {
                const char *choice = g->members[k]->protocols[n].name;
                if (!bw_classic_all_speak(g, choice)) continue;
                votes += strcmp(choice, name) == 0;
                break;
            }
        if (!best || votes > best_votes) best = name, best_votes = votes;
    }
    return best;
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
    for (uint32_t i = 0; i < g->member_count; i++) bw_classic_owe_sync(g, g->members[i], false);
    const char *chosen = bw_classic_elect_protocol(g);
    char *copy = chosen ? bw_group_dup(bw_str_of(chosen)) : NULL;
    free(g->protocol);
    g->protocol = copy;
    if (!g->member_count) {
        g->state = BW_GROUP_EMPTY;
        g->empty_since_ms = now_ms;
        bw_classic_set_leader(g, NULL);
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
        if (g->members[i]->join_token) return bw_classic_set_leader(g, g->members[i]->id) == BW_OK;
    return false;
}

static void forget_member(bw_group *g, bw_member *m, bw_err why, const char *reason, int64_t now_ms)
{
    bw_classic_fail_join(g, m, bw_fail(BW_ERR_UNKNOWN_MEMBER_ID, "group %s: member %s was removed: %s; join anew", g->id, m->id, reason));
    bw_classic_fail_sync(g, m, bw_fail(BW_ERR_UNKNOWN_MEMBER_ID, "group %s: member %s was removed: %s; join anew", g->id, m->id, reason));
    bw_classic_owe_sync(g, m, false);
    bool led = bw_classic_is_leader(g, m);
    g->ops->removed(g->context, g, m, why, reason);
    bw_member_drop(g, m, now_ms);
    if (led) bw_classic_set_leader(g, g->member_count ? g->members[0]->id : NULL);
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
        bw_classic_heard(g, m, now_ms);
        bw_classic_owe_sync(g, m, true);
        if (token) bw_classic_answer_join(g, m, token, g->leader, bw_classic_is_leader(g, m));
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
            bw_classic_fail_sync(g, g->members[i], bw_fail(BW_ERR_REBALANCE_IN_PROGRESS, "group %s is rebalancing: join again", g->id));
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

void bw_classic_maybe_rebalance(bw_group *g, int64_t now_ms)
{
    if (g->state == BW_GROUP_PREPARING) try_complete_join(g, now_ms);
    else if (g->state != BW_GROUP_DEAD) prepare_rebalance(g, now_ms);
}

void bw_classic_remove(bw_group *g, bw_member *m, bw_err why, const char *reason, int64_t now_ms)
{
    forget_member(g, m, why, reason, now_ms);
    if (g->state != BW_GROUP_EMPTY && g->state != BW_GROUP_DEAD) bw_classic_maybe_rebalance(g, now_ms);
}

/* ---- the others ---- */

bw_err bw_classic_leave_pending(bw_group *g, bw_str member, int64_t now_ms)
{
    if (!bw_classic_take_pending(g, member)) return BW_ERR_NOT_FOUND;
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
        if (any) bw_classic_maybe_rebalance(g, now_ms);
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
    if (!e && g->state == BW_GROUP_COMPLETING && bw_classic_is_leader(g, m)) e = take_assignments(g, r);
    if (e) {
        g->ops->synced(g->context, g, token, e, NULL);
        return;
    }
    bw_classic_owe_sync(g, m, false);
    bw_classic_heard(g, m, now_ms);
    if (g->state == BW_GROUP_STABLE) {
        g->ops->synced(g->context, g, token, BW_OK, m);
        return;
    }
    bw_classic_fail_sync(g, m, bw_fail(BW_ERR_REBALANCE_IN_PROGRESS, "group %s: member %s synced once more", g->id, m->id));
    m->sync_token = token;
    if (!bw_classic_is_leader(g, m)) return;
    g->state = BW_GROUP_STABLE;
    g->ops->save(g->context, g, NULL);
    for (uint32_t i = 0; i < g->member_count; i++) g->ops->save(g->context, g, g->members[i]);
    for (uint32_t i = 0; i < g->member_count; i++) {
        bw_member *other = g->members[i];
        void *waiting = other->sync_token;
        if (!waiting) continue;
        other->sync_token = NULL;
        bw_classic_heard(g, other, now_ms);
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
    bw_classic_heard(g, m, now_ms);
    if (g->state == BW_GROUP_PREPARING) return bw_fail(BW_ERR_REBALANCE_IN_PROGRESS, "group %s is rebalancing: join again", g->id);
    return BW_OK;
}
