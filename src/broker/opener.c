/* broker/opener.c: the opener thread: partitions are opened when they are first needed, and one after the other in the background; and
 * those that nobody uses rest when too many files are open.
 *
 * A start registers every partition and opens none. Control data that lives is valid all the while; in new control data a slot says
 * UNOPENED until its log was recovered, and who attaches to it asks the coordinator and waits (log/wait.h). A request for an unopened
 * partition waits at it, in order, and is handled when the partition is open: the broker thread never scans a log.
 *
 *   broker thread: request comes, stage is UNOPENED -> hang it at the part, ops_wait := true; look at the stage again
 *   opener:        stage := OPEN or FAILED; if ops_wait was true, an event to the broker thread
 *
 * Rest: a partition's files are open from the first write on (see log/partition_rest.c). Beyond rest_above open files the least lately
 * used ones are put to rest, many at a time: room withdrawn from all, each synced, each closed. A partition that is asked for room
 * meanwhile stays awake. One that wants to wake at the limit is starved until others rest. */
#include "broker/offsets.h"

#include "base/killpoint.h"
#include "base/os.h"
#include "log/wait.h"

#include <stdlib.h>
#include <sys/resource.h>

enum {
    FILES_OTHERS = 384,    /* descriptors that are left for all else */
    REST_AT_ONCE = 64,
};

static bw_tail_slot *slot_of(const bw_part *p) { return &p->topic->control->slots[p->index]; }

/* ---- asking ---- */

void bw_opener_want(bw_broker *b, bw_part *p)
{
    if (atomic_load(&p->stage) != BW_PART_UNOPENED) return;
    pthread_mutex_lock(&b->opener_lock);
    if (!p->open_queued) {
        p->open_queued = true;
        p->open_next = NULL;
        atomic_fetch_add(&p->users, 1);
        if (b->open_last) b->open_last->open_next = p;
        else b->open_first = p;
        b->open_last = p;
        pthread_cond_signal(&b->opener_cond);
    }
    pthread_mutex_unlock(&b->opener_lock);
}

void bw_opener_make_room(bw_broker *b)
{
    if (atomic_exchange(&b->rest_due, true)) return;
    pthread_mutex_lock(&b->opener_lock);
    pthread_cond_signal(&b->opener_cond);
    pthread_mutex_unlock(&b->opener_lock);
}

bool bw_opener_is_short(bw_broker *b) { return atomic_load(&b->open_files.count) > b->rest_above; }

/* ---- requests that wait; broker thread ---- */

static bw_part *must_wait(bw_broker *b, bw_part *p)
{
    if (atomic_load(&p->stage) == BW_PART_UNOPENED) bw_opener_want(b, p);
    else if (!p->waiting) return NULL;
    return p;
}

/* The last one, because they are opened in order: then all of it is open. */
static bw_part *topic_must_wait(bw_broker *b, const bw_topic *t)
{
    bw_part *last = NULL;
    for (uint32_t i = 0; i < t->part_count; i++) {
        bw_part *p = must_wait(b, t->parts[i]);
        if (p) last = p;
    }
    return last;
}

static bw_part *one_must_wait(bw_broker *b, bw_str topic, int32_t partition)
{
    bw_topic *t = bw_topic_find(b, topic);
    return t && !t->deleting && partition >= 0 && (uint32_t)partition < t->part_count ? must_wait(b, t->parts[partition]) : NULL;
}

struct group_wait {
    bw_broker *b;
    bw_part *last;
};
static void wait_for_committed(void *opaque, bw_part *part)
{
    struct group_wait *w = opaque;
    bw_part *p = must_wait(w->b, part);
    if (p) w->last = p;
}

/* All for which the group has committed offsets. */
static bw_part *group_must_wait(bw_broker *b, bw_str group)
{
    struct group_wait w = {b, NULL};
    bw_offsets_each_part(b, group, wait_for_committed, &w);
    return w.last;
}

static bw_part *op_must_wait(bw_broker *b, const bw_op *op)
{
    const bw_request *r = &op->request;
    bw_part *last = NULL, *p;
    bw_topic *t, *tmp;
    switch (r->type) {
    case BW_API_PRODUCE:
        if (r->allow_auto_create && !bw_topic_find(b, r->topic)) (void)bw_topic_of(b, r->topic, true, &t); /* says it again, if it fails */
        return one_must_wait(b, r->topic, r->partition);
    case BW_API_SUBSCRIBE:
    case BW_API_LIST_OFFSETS:
    case BW_API_DELETE_RECORDS:
    case BW_API_DESCRIBE_PRODUCERS:
    case BW_API_PRODUCER_LAST:
    case BW_API_RANGE_HASHES:
    case BW_API_RANGE_BATCHES:
    case BW_API_MEND:
    case BW_API_FENCE:
    case BW_API_REPLICA_STATE:
    case BW_API_REPLICA_ACK:
    case BW_API_EPOCHS:
        return one_must_wait(b, r->topic, r->partition);
    case BW_API_FETCH:
        for (size_t i = 0; i < r->part_count; i++)
            if ((p = one_must_wait(b, r->parts[i].topic, r->parts[i].partition))) last = p;
        return last;
    case BW_API_LINK_APPEND:
    case BW_API_LINK_FETCH:
    case BW_API_LINK_POSITION:
        for (size_t i = 0; i < r->link.part_count; i++)
            if ((p = one_must_wait(b, r->link.parts[i].topic, r->link.parts[i].partition))) last = p;
        return last;
    case BW_API_LINK_TOPIC:
    case BW_API_PROMOTE:
        return (t = bw_topic_find(b, r->topic)) && !t->deleting ? topic_must_wait(b, t) : NULL;
    case BW_API_OFFSET_COMMIT:
    case BW_API_OFFSET_FETCH:
    case BW_API_OFFSET_DELETE:
    case BW_API_TXN_OFFSET_COMMIT:
        for (size_t i = 0; i < r->group.part_count; i++)
            if ((p = one_must_wait(b, r->group.parts[i].topic, r->group.parts[i].partition))) last = p;
        return r->group.part_count || r->type != BW_API_OFFSET_FETCH ? last : group_must_wait(b, r->group.id);
    case BW_API_DESCRIBE_GROUP: return group_must_wait(b, r->group.id);
    case BW_API_QUEUE_JOIN:
        for (size_t i = 0; i < r->queue.topic_count; i++)
            if ((t = bw_topic_find(b, r->queue.topics[i].topic)) && !t->deleting && (p = topic_must_wait(b, t))) last = p;
        return last;
    case BW_API_DESCRIBE_TOPICS:
    case BW_API_ALTER_TOPIC:
        if (r->topic.len) return (t = bw_topic_find(b, r->topic)) && !t->deleting ? topic_must_wait(b, t) : NULL;
        HASH_ITER(by_name, b->topics_by_name, t, tmp)
        {
            if (!t->deleting && (p = topic_must_wait(b, t))) last = p;
        }
        return last;
    default:
        return NULL;
    }
}

bool bw_opener_park(bw_broker *b, bw_op *op)
{
    bw_part *p = op_must_wait(b, op);
    if (!p) return false;
    op->next = NULL;
    if (p->waiting_last) p->waiting_last->next = op;
    else p->waiting = op;
    p->waiting_last = op;
    op->session->parked++;
    atomic_store(&p->ops_wait, true);
    if (atomic_load(&p->stage) != BW_PART_UNOPENED && atomic_exchange(&p->ops_wait, false)) bw_opener_release(b, p);
    return true;
}

void bw_opener_release(bw_broker *b, bw_part *p)
{
    bw_op *op = p->waiting;
    p->waiting = p->waiting_last = NULL;
    while (op) {
        bw_op *next = op->next;
        op->session->parked--;
        if (op->session->closed || b->draining) bw_op_finish(op, NULL);
        else bw_broker_handle(b, op);
        op = next;
    }
}

void bw_opener_withdraw(bw_broker *b, const bw_session *s, uint32_t subscription)
{
    for (uint32_t i = 0; s->parked && i < b->parts_count; i++) {
        bw_part *p = b->parts[i];
        if (!p || !p->waiting) continue;
        bw_op **at = &p->waiting, *last = NULL;
        while (*at) {
            bw_op *op = *at;
            if (op->session != s || op->request.type != BW_API_SUBSCRIBE || op->request.subscription != subscription) {
                last = op;
                at = &op->next;
                continue;
            }
            *at = op->next;
            op->session->parked--;
            bw_op_ok(op);
        }
        p->waiting_last = last;
    }
}

/* ---- opening ---- */

static void open_one(bw_broker *b, bw_part *p, bool wanted)
{
    if (atomic_load(&slot_of(p)->state) != BW_SLOT_DELETED) bw_part_open(b, p);
    else atomic_store(&p->stage, BW_PART_FAILED);
    bool undecided = p->log && atomic_load(&slot_of(p)->first_unstable) != INT64_MAX;
    /* with a history, what is committed may have to be clamped */
    if (atomic_exchange(&p->ops_wait, false) || p->history.count || undecided || p->txn_waits) {
        p->opened_event = (bw_event){.kind = BW_EVENT_PART_OPENED, .part = p};
        bw_broker_push(b, &p->opened_event);
    }
    if (!p->log) return;
    /* What it was asked for meanwhile; what the coordinator before was asked for and did not live to grant, too. */
    if (wanted || !p->fresh) bw_notify(b->mail, BW_MAILBOX_COORDINATOR, p->bus_number);
    if (bw_partition_has_unsynced(p->log)) bw_syncer_want(b, p);
}

void bw_opener_open_now(bw_broker *b, bw_part *p) { open_one(b, p, true); }

/* The next one for the background, held; NULL: none. */
static bw_part *next_unopened(bw_broker *b, bool taken_over_only)
{
    bw_part *found = NULL;
    pthread_mutex_lock(&b->parts_lock);
    for (; !found && b->open_cursor < b->parts_count; b->open_cursor++) {
        bw_part *p = b->parts[b->open_cursor];
        if (!p || atomic_load(&p->stage) != BW_PART_UNOPENED || (taken_over_only && p->fresh)) continue;
        atomic_fetch_add(&p->users, 1);
        found = p;
    }
    pthread_mutex_unlock(&b->parts_lock);
    return found;
}

void bw_opener_look_again(bw_broker *b, uint32_t from)
{
    pthread_mutex_lock(&b->parts_lock);
    if (from < b->open_cursor) b->open_cursor = from;
    pthread_mutex_unlock(&b->parts_lock);
    pthread_mutex_lock(&b->opener_lock);
    b->open_more = true;
    pthread_cond_signal(&b->opener_cond);
    pthread_mutex_unlock(&b->opener_lock);
}

/* ---- rest ---- */

typedef struct candidate {
    bw_part *part;
    int64_t used_ms;
} candidate;

static int by_use(const void *x, const void *y)
{
    const candidate *a = x, *b = y;
    return (a->used_ms > b->used_ms) - (a->used_ms < b->used_ms);
}

/* All that hold files and may rest, the least lately used first. */
static size_t find_candidates(bw_part **parts, size_t n, candidate *out)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        if (bw_partition_is_resting(parts[i]->log) || atomic_load(&slot_of(parts[i])->state) != BW_SLOT_OPEN) continue;
        out[count++] = (candidate){parts[i], atomic_load_explicit(&parts[i]->used_ms, memory_order_relaxed)};
    }
    if (count) qsort(out, count, sizeof *out, by_use);
    return count;
}

static void rest_batch(bw_broker *b, bw_part **batch, size_t n)
{
    bool begun[REST_AT_ONCE];
    for (size_t i = 0; i < n; i++) begun[i] = bw_partition_rest_begin(batch[i]->log) == BW_OK;
    for (size_t i = 0; i < n; i++) {
        if (!begun[i] || !bw_partition_has_unsynced(batch[i]->log)) continue;
        bw_err e = bw_partition_sync(batch[i]->log);
        atomic_fetch_add(&b->syncs, 1);
        atomic_store(&b->points_moved, true);
        if (e) bw_keeper_say(b, batch[i], e, "sync_failed");
    }
    for (size_t i = 0; i < n; i++) {
        if (!begun[i]) continue;
        if (bw_partition_rest_end(batch[i]->log) == BW_ERR_BUSY) { /* the folder, or a writer was quicker */
            if (bw_partition_sync(batch[i]->log) == BW_OK) (void)bw_partition_rest_end(batch[i]->log);
        }
    }
}

static void notify_starved(bw_broker *b, bw_part **parts, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (bw_partition_is_starved(parts[i]->log)) bw_notify(b->mail, BW_MAILBOX_COORDINATOR, parts[i]->bus_number);
}

static void rest_some(bw_broker *b)
{
    bw_part **parts, *batch[REST_AT_ONCE];
    size_t n = bw_parts_hold(b, &parts);
    candidate *all = parts ? malloc((n + 1) * sizeof *all) : NULL;
    size_t count = all ? find_candidates(parts, n, all) : 0, at = 0;
    while (at < count && atomic_load(&b->open_files.count) > b->rest_to) {
        size_t k = 0;
        while (k < REST_AT_ONCE && at < count) batch[k++] = all[at++].part;
        rest_batch(b, batch, k);
        notify_starved(b, parts, n);
    }
    if (parts) notify_starved(b, parts, n);
    free(all);
    bw_parts_drop(parts, parts ? n : 0);
}

/* ---- the thread ---- */

/* What is to be done next: a wanted part (held), or NULL with *rest or *more. false: the end. */
static bool next_work(bw_broker *b, bw_part **wanted, bool *rest, bool *more)
{
    pthread_mutex_lock(&b->opener_lock);
    while (!b->open_first && !b->open_more && !b->opener_stop && !atomic_load(&b->rest_due))
        pthread_cond_wait(&b->opener_cond, &b->opener_lock);
    bw_part *p = b->open_first;
    if (p) {
        b->open_first = p->open_next;
        if (!b->open_first) b->open_last = NULL;
    }
    *wanted = p;
    *more = b->open_more;
    bool stop = b->opener_stop;
    pthread_mutex_unlock(&b->opener_lock);
    *rest = !stop && atomic_exchange(&b->rest_due, false);
    return p || *rest || *more || !stop;
}

static void open_in_background(bw_broker *b)
{
    pthread_mutex_lock(&b->opener_lock);
    bool stop = b->opener_stop;
    b->open_more = false;
    pthread_mutex_unlock(&b->opener_lock);
    bw_part *p = next_unopened(b, stop); /* control data that was taken over may go at a stop: what it says is needed */
    if (!p) return;
    open_one(b, p, false);
    bw_part_release(p);
    pthread_mutex_lock(&b->opener_lock);
    b->open_more = true;
    pthread_mutex_unlock(&b->opener_lock);
    BW_KILL_POINT("opener.background");
}

static void *opener_main(void *broker)
{
    bw_broker *b = broker;
    bw_part *p;
    bool rest, more;
    while (next_work(b, &p, &rest, &more)) {
        if (p) {
            if (atomic_load(&p->stage) == BW_PART_UNOPENED) open_one(b, p, true);
            bw_part_release(p);
            BW_KILL_POINT("opener.opened");
        }
        if (rest || (!p && more && bw_opener_is_short(b))) rest_some(b);
        if (!p && more) open_in_background(b);
    }
    return NULL;
}

bw_err bw_opener_start(bw_broker *b)
{
    struct rlimit limit;
    uint32_t most = (uint32_t)b->config.open_segments_max;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < (rlim_t)most + FILES_OTHERS)
        most = limit.rlim_cur > FILES_OTHERS + 64 ? (uint32_t)limit.rlim_cur - FILES_OTHERS : 64;
    b->open_files.most = most;
    b->rest_above = most - most / 8;
    b->rest_to = most - most / 4;
    b->open_more = true;
    bw_err e = bw_broker_start_thread(&b->opener_thread, opener_main, b);
    b->opener_running = !e;
    return e;
}

void bw_opener_stop(bw_broker *b)
{
    if (!b->opener_running) return;
    if (!b->fresh) bw_opener_look_again(b, 0);
    pthread_mutex_lock(&b->opener_lock);
    b->opener_stop = true;
    pthread_cond_signal(&b->opener_cond);
    pthread_mutex_unlock(&b->opener_lock);
    pthread_join(b->opener_thread, NULL);
    b->opener_running = false;
}

/* After the broker thread's end: what waits is let go unanswered. */
void bw_opener_drop_ops(bw_broker *b)
{
    for (uint32_t i = 0; i < b->parts_count; i++)
        if (b->parts[i]) bw_opener_release(b, b->parts[i]);
}
