/* broker/group.c: what groups of all kinds have in common: their members, limits, leases, and the gate for commits.
 *
 * Deadlines: a member's deadline_ms moves forward each time it is heard of; next_ms is not touched by that, so that it is only a lower
 * bound, found anew when it has come. A group of quiet members is looked through once in a lease's time, not at each heartbeat. */
#include "broker/group_core.h"

#define SESSION_DEFAULT_MS 45000
#define MEMBER_BYTES 512u /* of the structs */

const char *bw_group_state_name(bw_group_state state, bw_group_kind kind)
{
    static const char *const classic[] = {"Empty", "PreparingRebalance", "CompletingRebalance", "Stable", "Dead"};
    static const char *const assigned[] = {"Empty", "Assigning", "Reconciling", "Stable", "Dead"};
    return (unsigned)state > BW_GROUP_DEAD ? "Unknown" : kind == BW_GROUP_CLASSIC ? classic[state] : assigned[state];
}

char *bw_group_dup(bw_str s)
{
    char *copy = malloc(s.len + 1);
    if (!copy) {
        bw_fail(BW_ERR_NO_MEMORY, "no memory for %zu bytes of a group", s.len + 1);
        return NULL;
    }
    if (s.len) memcpy(copy, s.data, s.len);
    copy[s.len] = 0;
    return copy;
}

bw_err bw_blob_set(bw_blob *b, bw_str s)
{
    uint8_t *copy = malloc(s.len + 1);
    if (!copy) return bw_fail(BW_ERR_NO_MEMORY, "no memory for %zu bytes of a group", s.len + 1);
    if (s.len) memcpy(copy, s.data, s.len);
    free(b->data);
    *b = (bw_blob){copy, s.len};
    return BW_OK;
}

bw_err bw_group_create(bw_str id, const bw_group_limits *limits, const bw_group_ops *ops, void *context, int64_t now_ms, bw_group **out)
{
    *out = NULL;
    if (!id.len) return bw_fail(BW_ERR_INVALID_GROUP_ID, "the group id is empty: give the group a name (group.id)");
    if (id.len > BW_GROUP_ID_MAX || memchr(id.data, 0, id.len))
        return bw_fail(BW_ERR_INVALID_GROUP_ID, "a group id of %zu bytes: at most %u, without zero bytes", id.len, BW_GROUP_ID_MAX);
    bw_group *g = calloc(1, sizeof *g);
    char *name = g ? bw_group_dup(id) : NULL;
    if (!name) {
        free(g);
        return bw_fail(BW_ERR_NO_MEMORY, "no memory for group %.*s", BW_STR_ARG(id));
    }
    g->id = name;
    g->limits = limits;
    g->ops = ops;
    g->context = context;
    g->assignor = BW_ASSIGNOR_COOPERATIVE_STICKY;
    g->next_ms = g->assign_at_ms = g->join_until_ms = g->sync_until_ms = BW_GROUP_NEVER;
    g->empty_since_ms = now_ms;
    *out = g;
    return BW_OK;
}

static void member_free(bw_member *m)
{
    for (size_t i = 0; i < m->protocol_count; i++) {
        free(m->protocols[i].name);
        free(m->protocols[i].metadata.data);
    }
    free(m->protocols);
    free(m->assignment.data);
    free(m->subscription.data);
    free(m->topics);
    free(m->id);
    free(m->instance);
    free(m->client);
    free(m->host);
    free(m);
}

void bw_group_free(bw_group *g)
{
    if (!g) return;
    HASH_CLEAR(by_id, g->by_id);
    HASH_CLEAR(by_instance, g->by_instance);
    for (uint32_t i = 0; i < g->member_count; i++) member_free(g->members[i]);
    free(g->members);
    bw_assigned_free(g);
    bw_classic_free(g);
    free(g->id);
    free(g);
}

/* ---- members ---- */

bw_member *bw_group_with_id(const bw_group *g, bw_str id)
{
    bw_member *m = NULL;
    if (id.len && g->by_id) HASH_FIND(by_id, g->by_id, id.data, id.len, m);
    return m;
}

bw_member *bw_group_with_instance(const bw_group *g, bw_str instance)
{
    bw_member *m = NULL;
    if (instance.len && g->by_instance) HASH_FIND(by_instance, g->by_instance, instance.data, instance.len, m);
    return m;
}

bw_err bw_group_find(const bw_group *g, bw_str id, bw_str instance, bw_member **out)
{
    bw_member *m = bw_group_with_id(g, id), *holder = bw_group_with_instance(g, instance);
    *out = NULL;
    if (instance.len && holder && holder != m)
        return bw_fail(BW_ERR_FENCED_INSTANCE_ID, "group %s: instance %.*s is member %s now, not %.*s: another process uses this "
                       "group.instance.id", g->id, BW_STR_ARG(instance), holder->id, BW_STR_ARG(id));
    if (!m || (instance.len && !m->instance))
        return bw_fail(BW_ERR_UNKNOWN_MEMBER_ID, "group %s has no member %.*s (it left, or its lease ended): join anew", g->id, BW_STR_ARG(id));
    *out = m;
    return BW_OK;
}

bw_err bw_group_session(const bw_group *g, int32_t *session_ms)
{
    if (*session_ms == 0) *session_ms = SESSION_DEFAULT_MS;
    if (*session_ms >= g->limits->min_session_ms && *session_ms <= g->limits->max_session_ms) return BW_OK;
    return bw_fail(BW_ERR_INVALID_SESSION_TIMEOUT, "group %s: a session time-out of %d ms: the daemon takes %d to %d "
                   "(group.min.session.timeout.ms, group.max.session.timeout.ms)", g->id, *session_ms, g->limits->min_session_ms,
                   g->limits->max_session_ms);
}

bw_err bw_group_room(const bw_group *g, uint32_t members)
{
    if (members < g->limits->max_members) return BW_OK;
    return bw_fail(BW_ERR_GROUP_MAX_SIZE_REACHED, "group %s has %u members, the most it may have (group.max.size)", g->id, members);
}

bw_err bw_member_account(bw_group *g, bw_member *m, size_t bytes)
{
    if (bytes > m->bytes && g->bytes + (bytes - m->bytes) > g->limits->max_bytes)
        return bw_fail(BW_ERR_LIMIT_REACHED, "group %s: its members' metadata would take %zu bytes, more than %zu (group.max.metadata.bytes)",
                       g->id, g->bytes + (bytes - m->bytes), g->limits->max_bytes);
    g->bytes = g->bytes - m->bytes + bytes;
    m->bytes = bytes;
    return BW_OK;
}

static bw_err members_reserve(bw_group *g)
{
    if (g->member_count < g->member_cap) return BW_OK;
    uint32_t cap = g->member_cap ? g->member_cap * 2 : 8;
    bw_member **grown = realloc(g->members, cap * sizeof *grown);
    if (!grown) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a member of group %s", g->id);
    g->members = grown;
    g->member_cap = cap;
    return BW_OK;
}

bw_err bw_member_add(bw_group *g, const bw_member_new *n, int64_t now_ms, bw_member **out)
{
    *out = NULL;
    if (!n->id.len || n->id.len > BW_MEMBER_ID_MAX || n->instance.len > BW_GROUP_ID_MAX || memchr(n->id.data, 0, n->id.len) ||
        (n->instance.len && memchr(n->instance.data, 0, n->instance.len)))
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "group %s: a member id of %zu and an instance id of %zu bytes: at most %u and %u, without zero "
                       "bytes", g->id, n->id.len, n->instance.len, BW_MEMBER_ID_MAX, BW_GROUP_ID_MAX);
    bw_err e = members_reserve(g);
    bw_member *m = e ? NULL : calloc(1, sizeof *m);
    if (!m) return e ? e : bw_fail(BW_ERR_NO_MEMORY, "no memory for a member of group %s", g->id);
    m->id = bw_group_dup(n->id);
    m->instance = n->instance.len ? bw_group_dup(n->instance) : NULL;
    m->client = bw_group_dup(n->client);
    m->host = bw_group_dup(n->host);
    if (!m->id || !m->client || !m->host || (n->instance.len && !m->instance)) e = BW_ERR_NO_MEMORY;
    if (!e) e = bw_member_account(g, m, MEMBER_BYTES + n->id.len + n->instance.len + n->client.len + n->host.len + n->bytes);
    if (!e) {
        HASH_ADD_KEYPTR(by_id, g->by_id, m->id, n->id.len, m);
        if (m->not_hashed) e = bw_fail(BW_ERR_NO_MEMORY, "no memory for a member of group %s", g->id);
    }
    if (!e && m->instance) {
        HASH_ADD_KEYPTR(by_instance, g->by_instance, m->instance, n->instance.len, m);
        if (m->not_hashed) {
            HASH_DELETE(by_id, g->by_id, m);
            e = bw_fail(BW_ERR_NO_MEMORY, "no memory for a member of group %s", g->id);
        }
    }
    if (e) {
        g->bytes -= m->bytes;
        member_free(m);
        return e;
    }
    m->process = n->process;
    m->session_ms = n->session_ms;
    m->rebalance_ms = n->rebalance_ms;
    m->lease_ms = n->lease_ms;
    m->index = g->member_count;
    m->deadline_ms = bw_group_after(now_ms, n->lease_ms ? n->lease_ms : n->session_ms);
    bw_group_wake_at(g, m->deadline_ms);
    g->members[g->member_count++] = m;
    *out = m;
    return BW_OK;
}

void bw_member_drop(bw_group *g, bw_member *m, int64_t now_ms)
{
    HASH_DELETE(by_id, g->by_id, m);
    if (m->instance) HASH_DELETE(by_instance, g->by_instance, m);
    bw_member *last = g->members[--g->member_count];
    g->members[m->index] = last;
    last->index = m->index;
    g->bytes -= m->bytes;
    if (m->unsaved || m->unpushed) g->dirty--;
    if (!g->member_count) g->empty_since_ms = now_ms;
    member_free(m);
}

/* ---- what happens to members ---- */

void bw_group_remove(bw_group *g, bw_member *m, bw_err why, const char *reason, int64_t now_ms)
{
    if (g->kind == BW_GROUP_CLASSIC) bw_classic_remove(g, m, why, reason, now_ms);
    else bw_assigned_remove(g, m, why, reason, now_ms);
}

void bw_group_gone(bw_group *g, bw_member *m, bool dead, int64_t now_ms)
{
    if (dead && !m->instance) {
        bw_group_remove(g, m, BW_ERR_UNKNOWN_MEMBER_ID, "its process died", now_ms);
        return;
    }
    if (g->kind == BW_GROUP_CLASSIC) return; /* its session time-out runs */
    int64_t until = bw_group_after(now_ms, m->session_ms);
    if (!m->away || until < m->deadline_ms) m->deadline_ms = until;
    m->away = true;
    m->expected = false;
    bw_group_wake_at(g, m->deadline_ms);
}

bw_err bw_group_leave(bw_group *g, bw_str member, bw_str instance, int32_t epoch, const char *reason, int64_t now_ms)
{
    bw_member *m;
    if (g->kind == BW_GROUP_CLASSIC && !instance.len) {
        bw_err pending = bw_classic_leave_pending(g, member, now_ms);
        if (pending == BW_OK) return BW_OK;
    }
    if (!member.len && instance.len) { /* by an admin, as Kafka allows */
        m = bw_group_with_instance(g, instance);
        if (!m) return bw_fail(BW_ERR_UNKNOWN_MEMBER_ID, "group %s has no instance %.*s", g->id, BW_STR_ARG(instance));
    } else {
        bw_err e = bw_group_find(g, member, instance, &m);
        if (e) return e;
    }
    if (epoch == BW_EPOCH_LEAVES_FOR_NOW && m->instance && g->kind != BW_GROUP_CLASSIC) bw_group_gone(g, m, true, now_ms);
    else bw_group_remove(g, m, BW_OK, reason, now_ms);
    return BW_OK;
}

bw_err bw_group_may_commit(bw_group *g, bw_str member, bw_str instance, int32_t epoch, bw_str topic, int32_t partition, int64_t now_ms)
{
    if (!member.len && !instance.len && epoch < 0) {
        if (!g->member_count && g->state != BW_GROUP_DEAD) return BW_OK;
        return bw_fail(BW_ERR_UNKNOWN_MEMBER_ID, "group %s has members: only they commit; stop them first, or use another group", g->id);
    }
    bw_member *m;
    bw_err e = bw_group_find(g, member, instance, &m);
    if (e) return e;
    e = g->kind == BW_GROUP_CLASSIC && epoch != g->epoch
            ? bw_fail(BW_ERR_ILLEGAL_GENERATION, "group %s is in generation %d, member %s commits in %d: join again", g->id, g->epoch, m->id, epoch)
        : g->kind == BW_GROUP_CLASSIC ? bw_classic_may_commit(g, epoch)
                                      : bw_assigned_may_commit(g, m, epoch, topic, partition);
    if (e || m->away) return e;
    int64_t until = bw_group_after(now_ms, m->lease_ms ? m->lease_ms : m->session_ms);
    if (until > m->deadline_ms) m->deadline_ms = until;
    return BW_OK;
}

bw_err bw_group_bury(bw_group *g)
{
    if (g->member_count || g->pending)
        return bw_fail(BW_ERR_NON_EMPTY_GROUP, "group %s has %u members: stop them before it is deleted", g->id, g->member_count);
    g->state = BW_GROUP_DEAD;
    g->next_ms = BW_GROUP_NEVER;
    return BW_OK;
}

/* ---- time ---- */

int64_t bw_group_next_ms(const bw_group *g)
{
    /* What is to be told is told at once, unless a new target, which would be told a second time, is near. */
    if (g->kind != BW_GROUP_CLASSIC && (g->dirty || g->unsaved) && g->assign_at_ms == BW_GROUP_NEVER) return INT64_MIN;
    return g->next_ms;
}

static void expire_members(bw_group *g, int64_t now_ms)
{
    for (uint32_t i = g->member_count; i-- > 0;) {
        if (i >= g->member_count) continue; /* others went with one */
        bw_member *m = g->members[i];
        if (g->kind == BW_GROUP_CLASSIC) {
            if (bw_classic_expired(m, now_ms)) bw_classic_remove(g, m, BW_ERR_UNKNOWN_MEMBER_ID, "its session timed out", now_ms);
            else if (m->deadline_ms > now_ms) bw_group_wake_at(g, m->deadline_ms);
        } else if (m->deadline_ms <= now_ms) {
            bw_group_remove(g, m, BW_ERR_FENCED_MEMBER_EPOCH, m->away ? "it was away for longer than its session time-out"
                            : m->expected ? "it did not come back after the daemon's restart"
                                          : "it was not heard of for its max.poll.interval.ms", now_ms);
        } else if (m->revoke_until_ms && m->revoke_until_ms <= now_ms) {
            bw_group_remove(g, m, BW_ERR_FENCED_MEMBER_EPOCH, "it did not give up partitions within its rebalance time-out", now_ms);
        } else {
            bw_group_wake_at(g, m->deadline_ms);
            if (m->revoke_until_ms) bw_group_wake_at(g, m->revoke_until_ms);
        }
    }
}

void bw_group_poll(bw_group *g, int64_t now_ms)
{
    if (g->state == BW_GROUP_DEAD) return;
    if (now_ms >= g->next_ms) {
        g->next_ms = BW_GROUP_NEVER;
        expire_members(g, now_ms);
    }
    if (g->kind == BW_GROUP_CLASSIC) bw_classic_poll(g, now_ms);
    else bw_assigned_poll(g, now_ms);
}
