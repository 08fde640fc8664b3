/* client/consumer_group.c: subscribing, leaving, the program's callbacks; what a consumer is in its group. See consumer_group.h. */
#include "client/consumer_group.h"

#include "client/backend.h"

#include "format/names.h"
#include "format/pattern.h"

#include <stdlib.h>
#include <string.h>

enum { GROUP_ID_MAX = 249, TOPICS_MAX = 65536, LEAVE_MS = 500 };

/* ---- open and close ---- */

bw_err bw_group_check_options(const bw_consumer_options *o)
{
    if (!*o->group_id || strlen(o->group_id) > GROUP_ID_MAX)
        return bw_fail(BW_ERR_INVALID_GROUP_ID, "a group id has 1 to %d characters", GROUP_ID_MAX);
    if (o->group_instance_id && (!*o->group_instance_id || strlen(o->group_instance_id) > GROUP_ID_MAX))
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "a group_instance_id has 1 to %d characters; NULL: none", GROUP_ID_MAX);
    if (o->auto_commit_interval_ms < 1 || o->session_timeout_ms < 1 || o->max_poll_interval_ms < 1 || o->rebalance_timeout_ms < 1)
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "consumer options: intervals and time-outs of a group are at least 1 ms");
    static const char *const known[] = {"range", "roundrobin", "sticky", "cooperative-sticky"};
    bool any = !o->assignor || !*o->assignor;
    for (size_t i = 0; i < sizeof known / sizeof known[0] && !any; i++) any = strcmp(o->assignor, known[i]) == 0;
    if (any) return BW_OK;
    return bw_fail(BW_ERR_UNSUPPORTED_ASSIGNOR, "assignor %.64s: there are range, roundrobin, sticky and cooperative-sticky", o->assignor);
}

static void group_free(bw_cgroup *g)
{
    free(g->id);
    free(g->instance);
    free(g->assignor);
    free(g->topics);
    free(g->assigned);
    free(g->reason);
    for (size_t i = 0; i < g->fetched_count; i++) free(g->fetched[i]);
    free(g->fetched);
    free(g);
}

bw_err bw_group_open(bw_consumer *c)
{
    bw_consumer_options *o = &c->options;
    bw_err e = bw_group_check_options(o);
    if (e) return e;
    bw_cgroup *g = calloc(1, sizeof *g);
    if (!g) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a group's member");
    g->consumer = c;
    g->epoch = g->probe_fd = -1;
    g->commits_tail = &g->commits;
    g->wants_auto_commit = o->enable_auto_commit;
    g->durable = o->commit_durable;
    g->id = strdup(o->group_id);
    g->instance = strdup(o->group_instance_id ? o->group_instance_id : "");
    g->assignor = strdup(o->assignor ? o->assignor : "");
    g->commit_at_ms = bw_clock_coarse_ms() + o->auto_commit_interval_ms;
    o->group_id = o->group_instance_id = o->assignor = NULL; /* the caller's memory */
    if (!g->id || !g->instance || !g->assignor) {
        group_free(g);
        return bw_fail(BW_ERR_NO_MEMORY, "no memory for a group's member");
    }
    c->group = g;
    return BW_OK;
}

void bw_group_close(bw_consumer *c)
{
    bw_cgroup *g = c->group;
    bw_group_end_probe(g);
    if (c->has_conn) bw_conn_drop(&c->conn); /* nothing is on its way any more */
    bw_group_fail_commits(g, BW_ERR_CLOSED, "the consumer was closed before the commit was answered");
    bw_group_tell_commits(g);
    group_free(g);
    c->group = NULL;
}

/* ---- checks ---- */

bw_err bw_group_check_by_hand(const bw_consumer *c)
{
    if (!c->group) return BW_OK;
    if (c->group->state != BW_MEMBER_OUT)
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "this consumer is subscribed and its group assigns; unsubscribe before assigning by hand");
    return bw_group_check_call(c, "assigning by hand");
}

bw_err bw_group_check_call(const bw_consumer *c, const char *what)
{
    if (!c->group || !c->group->calling) return BW_OK;
    return bw_fail(BW_ERR_INVALID_ARGUMENT, "%s is not possible inside a callback of the same consumer", what);
}

static bw_err check_subscriber(bw_consumer *c, const char *what)
{
    if (!c) return bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no consumer");
    BW_CHECK_FORK(c->bus);
    if (c->foreign) return BW_OK;
    if (!c->group) return bw_fail(BW_ERR_INVALID_ARGUMENT, "subscribing is a group's: open the consumer with a group_id");
    return bw_group_check_call(c, what);
}

/* ---- the program's callbacks ---- */

void bw_group_tell(bw_cgroup *g, bw_rebalance event, bw_cpart *const *parts, size_t count)
{
    bw_consumer *c = g->consumer;
    bw_rebalance_fn fn = c->options.on_rebalance;
    if (!fn || count == 0) return;
    bw_topic_partition *list = malloc(count * sizeof *list);
    if (!list) {
        bw_bus_log(c->bus, BW_LOG_ERROR, "group %s: no memory to tell the program of %zu partitions", g->id, count);
        return;
    }
    for (size_t i = 0; i < count; i++)
        list[i] = (bw_topic_partition){.topic = parts[i]->topic, .partition = parts[i]->partition, .leader_epoch = parts[i]->leader_epoch,
                                       .offset = parts[i]->position >= 0 ? parts[i]->position : BW_OFFSET_INVALID};
    g->calling = true;
    fn(c, event, list, count, c->options.rebalance_opaque);
    g->calling = false;
    free(list);
}

/* All partitions as an array, NULL when there are none or memory is short. */
static bw_cpart **all_parts(const bw_consumer *c, size_t *count)
{
    size_t n = 0;
    for (bw_cpart *p = c->parts; p; p = p->next_part) n++;
    bw_cpart **list = n ? malloc(n * sizeof *list) : NULL;
    *count = 0;
    if (!list) return NULL;
    for (bw_cpart *p = c->parts; p; p = p->next_part) list[(*count)++] = p;
    return list;
}

static void tell_all(bw_cgroup *g, bw_rebalance event)
{
    size_t count;
    bw_cpart **list = all_parts(g->consumer, &count);
    bw_group_tell(g, event, list, count);
    free(list);
}

void bw_group_forget(bw_cgroup *g, bw_batch *batch)
{
    bw_consumer *c = g->consumer;
    *batch = (bw_batch){.partition = -1};
    if (!c->parts) return;
    memcpy(g->told_topic, c->parts->topic, sizeof g->told_topic);
    batch->topic = g->told_topic;
    batch->partition = c->parts->partition;
    tell_all(g, BW_REBALANCE_LOST);
    while (c->parts) bw_cpart_remove(c->parts);
}

/* ---- subscribing ---- */

static bw_err check_topic(const char *name)
{
    if (!name || !*name) return bw_fail(BW_ERR_INVALID_TOPIC, "a topic to subscribe to has no name");
    if (name[0] != '^') return bw_topic_name_check(name, strlen(name));
    regex_t compiled;
    size_t cost = 0;
    bw_err e = bw_pattern_compile(name, strlen(name), &compiled, &cost);
    if (!e) regfree(&compiled);
    return e;
}

char **bw_names_copy(const char *const *names, size_t count)
{
    size_t bytes = count * sizeof(char *);
    for (size_t i = 0; i < count; i++) bytes += strlen(names[i]) + 1;
    char **copy = malloc(bytes ? bytes : 1);
    if (!copy) return NULL;
    char *at = (char *)(copy + count);
    for (size_t i = 0; i < count; i++) {
        copy[i] = at;
        at = stpcpy(at, names[i]) + 1;
    }
    return copy;
}

bw_err bw_consumer_subscribe(bw_consumer *c, const char *const *topics, size_t count)
{
    bw_err e = check_subscriber(c, "bw_consumer_subscribe");
    if (e) return e;
    if (!topics || count == 0 || count > TOPICS_MAX)
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "subscribe to 1 to %d topics; to give them up, unsubscribe", TOPICS_MAX);
    for (size_t i = 0; i < count; i++)
        if ((e = check_topic(topics[i]))) return e;
    BW_DISPATCH(c->bus, subscribe(c, topics, count));
    bw_cgroup *g = c->group;
    if (g->state == BW_MEMBER_OUT && c->parts)
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "partitions are assigned by hand; unassign them before subscribing");
    char **copy = bw_names_copy(topics, count);
    if (!copy) return bw_fail(BW_ERR_NO_MEMORY, "no memory to subscribe to %zu topics", count);
    if ((e = bw_consumer_ensure_conn(c))) {
        free(copy);
        return e;
    }
    free(g->topics);
    g->topics = copy;
    g->topic_count = count;
    g->topics_changed = true;
    if (g->state == BW_MEMBER_OUT) {
        g->state = BW_MEMBER_WANTS;
        g->join_at_ms = 0;
    }
    g->due_ms = 0;
    bw_consumer_fd_update(c);
    if (c->epoll_fd >= 0) bw_consumer_ring(c); /* poll once: to join */
    return BW_OK;
}

static bool join_is_answered(void *opaque) { return ((bw_cgroup *)opaque)->join.pending.correlation == 0; }

/* A member whose process lives on would hold its partitions until the session time-out if it did not say that it goes. */
static void say_goodbye(bw_cgroup *g, bw_deadline deadline)
{
    bw_consumer *c = g->consumer;
    bw_deadline until = bw_deadline_first(deadline, bw_deadline_in_ms(LEAVE_MS));
    if (g->state == BW_MEMBER_JOINING) bw_conn_wait(&c->conn, join_is_answered, g, -1, until);
    if (!*g->member || g->state == BW_MEMBER_FENCED) return;
    if (!bw_conn_is_up(&c->conn)) bw_group_advance(g);
    bw_request q;
    bw_request_init(&q, BW_API_GROUP_LEAVE);
    q.group.id = bw_str_of(g->id);
    q.group.member = bw_str_of(g->member);
    q.group.instance = bw_str_of(g->instance);
    q.group.epoch = g->epoch;
    q.group.reason = bw_str_of("the consumer was closed, or unsubscribed");
    bw_reply reply;
    bw_conn_request(&c->conn, &q, until, &reply);
    bw_reply_fini(&reply);
}

void bw_cgroup_leave(bw_cgroup *g, bw_deadline deadline)
{
    bw_consumer *c = g->consumer;
    g->closing = true;
    if (c->has_conn) bw_conn_check(&c->conn);
    if (g->wants_auto_commit && g->state != BW_MEMBER_FENCED && c->parts) bw_group_commit_positions(g, NULL, 0, NULL);
    if (g->state == BW_MEMBER_FENCED) tell_all(g, BW_REBALANCE_LOST);
    else if (g->state != BW_MEMBER_OUT) tell_all(g, BW_REBALANCE_REVOKED);
    if (g->unsent || g->in_flight) bw_group_settle(g, deadline);
    bw_group_tell_commits(g);
    if (g->state == BW_MEMBER_OUT) return;
    while (c->parts) bw_cpart_remove(c->parts);
    if (c->has_conn && !*g->instance) say_goodbye(g, deadline);
}

/* What is on its way is of no interest any more: a session ends with its connection, and the next subscription begins another. */
static void leave_session(bw_cgroup *g)
{
    bw_consumer *c = g->consumer;
    bw_conn_drop(&c->conn);
    bw_group_fail_commits(g, BW_ERR_CLOSED, "the consumer unsubscribed before the commit was answered");
    bw_group_tell_commits(g);
    free(g->topics);
    free(g->assigned);
    free(g->reason);
    g->topics = NULL;
    g->topic_count = 0;
    g->assigned = NULL;
    g->reason = NULL;
    g->member[0] = 0;
    g->epoch = -1;
    g->state = BW_MEMBER_OUT;
    g->owed = g->topics_changed = g->wanting = g->untold = g->closing = false;
    g->refused = g->fenced = BW_OK;
    g->told_mailbox = 0;
}

bw_err bw_consumer_unsubscribe(bw_consumer *c)
{
    bw_err e = check_subscriber(c, "bw_consumer_unsubscribe");
    if (e) return e;
    BW_DISPATCH(c->bus, unsubscribe(c));
    if (c->group->state == BW_MEMBER_OUT) return bw_fail(BW_ERR_NOT_SUBSCRIBED, "this consumer is not subscribed");
    bw_consumer_release(c);
    bw_cgroup_leave(c->group, bw_deadline_in_ms(BW_GROUP_CLOSE_MS));
    leave_session(c->group);
    bw_consumer_fd_update(c);
    return BW_OK;
}

/* ---- what it is ---- */

static bw_err check_out(bw_consumer *c, const void *a, const void *b)
{
    if (!c || !a || !b) return bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no consumer, or no place for the answer");
    BW_CHECK_FORK(c->bus);
    return BW_OK;
}

bw_err bw_consumer_assignment(bw_consumer *c, bw_topic_partition **parts, size_t *count)
{
    bw_err e = check_out(c, parts, count);
    if (e) return e;
    BW_DISPATCH(c->bus, assignment(c, parts, count));
    size_t n = 0, bytes = 0;
    for (const bw_cpart *p = c->parts; p; p = p->next_part, n++) bytes += sizeof **parts + strlen(p->topic) + 1;
    bw_topic_partition *list = malloc(bytes ? bytes : 1);
    if (!list) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a list of %zu partitions", n);
    char *at = (char *)(list + n);
    size_t i = 0;
    for (const bw_cpart *p = c->parts; p; p = p->next_part) {
        list[i++] = (bw_topic_partition){.topic = at, .partition = p->partition, .leader_epoch = p->leader_epoch,
                                         .offset = p->position >= 0 ? p->position : BW_OFFSET_INVALID};
        at = stpcpy(at, p->topic) + 1;
    }
    *parts = list;
    *count = n;
    return BW_OK;
}

bw_err bw_consumer_subscription(bw_consumer *c, const char ***topics, size_t *count)
{
    bw_err e = check_out(c, topics, count);
    if (e) return e;
    BW_DISPATCH(c->bus, subscription(c, topics, count));
    size_t n = c->group ? c->group->topic_count : 0;
    char **copy = bw_names_copy(n ? (const char *const *)c->group->topics : NULL, n);
    if (!copy) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a list of %zu topics", n);
    *topics = (const char **)copy;
    *count = n;
    return BW_OK;
}

bw_err bw_consumer_group_metadata(bw_consumer *c, bw_group_metadata *out)
{
    bw_err e = check_out(c, out, out);
    if (e) return e;
    BW_DISPATCH(c->bus, group_metadata(c, out));
    const bw_cgroup *g = c->group;
    if (!g) return bw_fail(BW_ERR_INVALID_ARGUMENT, "this consumer has no group: open it with a group_id");
    *out = (bw_group_metadata){g->id, g->member, *g->instance ? g->instance : NULL, g->epoch};
    return BW_OK;
}
