/* client/consumer_state.c: state mode: the stores of a consumer's partitions (state/env.h), and how records and offsets meet in them.
 *
 * A partition's store is a *slot*: opened when the group gives the partition (so that reading starts at the store's offset) or, for what was
 * assigned by hand, at its first batch; closed when the partition goes. While a call gathers records, each slot that gave some has a
 * transaction of its own; they are committed at its end. A slot whose transaction did not come about is *rewound*: the
 * consumer seeks to the store's offset, and the records come again. A seek ends the present batch, so what was left of it is rewound too.
 * Invariant: between two calls no slot has a transaction (but bw_state_begin's), and the consumer's position in each slot's partition is the
 * store's offset, or there is a rest of a batch that begins there. */
#include "client/backend.h"
#include "client/readonly.h"
#include "client/consumer_group.h"
#include "state/env.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { FOLLOW_MS = 1000, REDO_MAX = 64 };

typedef struct slot {
    struct slot *next;
    bw_state *state;
    char topic[BW_TOPIC_NAME_MAX + 1];
    int32_t partition;
    bw_state_env *env;
    bw_state_txn *txn;
    bool sought; /* the consumer was sent to the store's offset */
    bool rewind;
    int64_t first; /* by hand, nothing committed yet: where it began */
    int64_t upto;  /* where the transaction leads */
    int32_t count; /* records in it */
    int64_t told;  /* the offset that the daemon knows */
} slot;

struct bw_state {
    bw_consumer *consumer;
    char *dir; /* with the group */
    bool fast, in_handler;
    uint64_t map_bytes;
    bw_rebalance_fn on_rebalance; /* the program's */
    void *rebalance_opaque;
    slot *slots;
    bw_batch batch; /* a rest of it is to be processed */
    slot *batch_slot; /* NULL: there is none */
    slot *begun;      /* by bw_state_begin */
    int64_t followed_ms;
};

/* ---- slots ---- */

static slot **slot_at(bw_state *s, const char *topic, int32_t partition)
{
    slot **at = &s->slots;
    while (*at && ((*at)->partition != partition || strcmp((*at)->topic, topic) != 0)) at = &(*at)->next;
    return at;
}

static void end_txn(slot *p)
{
    if (p->txn) bw_state_env_abort(p->txn);
    p->txn = NULL;
    p->count = 0;
}

static void slot_close(bw_state *s, slot **at)
{
    slot *p = *at;
    *at = p->next;
    end_txn(p);
    if (s->batch_slot == p) s->batch_slot = NULL;
    if (s->begun == p) s->begun = NULL;
    bw_state_env_close(p->env);
    free(p);
}

static bw_err topic_id(bw_state *s, const char *topic, int32_t partition, bw_uuid *out)
{
    static const bw_uuid none;
    const bw_cpart *part = bw_consumer_find(s->consumer, topic, partition);
    bw_topic_info info;
    *out = part && part->attach ? part->attach->id : none;
    if (!bw_uuid_equal(out, &none)) return BW_OK;
    bw_bus *bus = s->consumer->bus;
    bw_err e = bw_bus_topic_info(bus, topic, false, bw_bus_request_deadline(bus), &info);
    if (!e) *out = info.id;
    return e;
}

static int64_t generation(const bw_state *s)
{
    bw_group_metadata m;
    if (bw_consumer_group_metadata(s->consumer, &m) != BW_OK || m.member_epoch < 0) return 0;
    return m.member_epoch;
}

static bw_err slot_open(bw_state *s, const char *topic, int32_t partition, slot **out)
{
    char path[PATH_MAX];
    bw_state_env_options o = {.path = path, .generation = generation(s), .fast = s->fast, .map_bytes = s->map_bytes};
    if (snprintf(path, sizeof path, "%s/%s-%d", s->dir, topic, (int)partition) >= (int)sizeof path)
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "the path of the state is too long: %.200s…", path);
    slot *p = calloc(1, sizeof *p);
    if (!p) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a partition's state");
    bw_err e = topic_id(s, topic, partition, &o.topic);
    if (!e) e = bw_state_env_open(&o, &p->env);
    if (e) {
        free(p);
        return e;
    }
    p->state = s;
    p->partition = partition;
    snprintf(p->topic, sizeof p->topic, "%s", topic);
    p->told = -1;
    p->next = s->slots;
    s->slots = p;
    *out = p;
    return BW_OK;
}

/* Where reading has to go on; BW_OFFSET_INVALID: where it is (assigned by hand, and nothing processed yet). */
static int64_t start_of(const slot *p)
{
    const bw_consumer *c = p->state->consumer;
    int64_t offset = bw_state_env_offset(p->env);
    if (offset >= 0) return offset;
    if (!c->group->topics) return BW_OFFSET_INVALID;
    return c->options.auto_offset_reset == BW_RESET_LATEST ? BW_OFFSET_END : BW_OFFSET_BEGINNING;
}

static bw_err slot_seek(slot *p)
{
    int64_t start = start_of(p);
    p->sought = true;
    return start == BW_OFFSET_INVALID ? BW_OK : bw_consumer_seek(p->state->consumer, p->topic, p->partition, start);
}

/* ---- the daemon's copy of the offsets ---- */

static void follow(bw_state *s, bool now)
{
    int64_t time = bw_clock_coarse_ms();
    size_t n = 0;
    if (!now && time - s->followed_ms < FOLLOW_MS) return;
    s->followed_ms = time;
    for (const slot *p = s->slots; p; p = p->next) n += bw_state_env_offset(p->env) > p->told;
    bw_topic_partition *parts = n ? malloc(n * sizeof *parts) : NULL;
    if (!parts) return;
    n = 0;
    for (slot *p = s->slots; p; p = p->next) {
        if (bw_state_env_offset(p->env) <= p->told) continue;
        p->told = bw_state_env_offset(p->env);
        parts[n++] = (bw_topic_partition){.topic = p->topic, .partition = p->partition, .offset = p->told, .leader_epoch = -1};
    }
    bw_consumer_commit_async(s->consumer, parts, n, NULL, NULL); /* for people: what does not arrive follows with the next */
    free(parts);
}

/* ---- the group gives and takes ---- */

static void take_partition(bw_state *s, const char *topic, int32_t partition)
{
    slot **at = slot_at(s, topic, partition), *p = *at;
    if (!p && slot_open(s, topic, partition, &p) != BW_OK) return; /* its first batch tries again, and says why */
    if (slot_seek(p) != BW_OK) p->sought = false;
}

static void give_up(bw_state *s, bw_rebalance event, const char *topic, int32_t partition)
{
    slot **at = slot_at(s, topic, partition), *p = *at;
    if (!p) return;
    if (event == BW_REBALANCE_REVOKED && p->txn && p != s->begun && !p->rewind) { /* nobody else has it yet */
        bw_state_env_commit(p->txn, p->upto);
        p->txn = NULL;
    }
    slot_close(s, at);
}

static void on_rebalance(bw_consumer *c, bw_rebalance event, const bw_topic_partition *parts, size_t count, void *opaque)
{
    bw_state *s = opaque;
    if (event != BW_REBALANCE_ASSIGNED && s->on_rebalance) s->on_rebalance(c, event, parts, count, s->rebalance_opaque);
    for (size_t i = 0; i < count; i++) {
        if (event == BW_REBALANCE_ASSIGNED) take_partition(s, parts[i].topic, parts[i].partition);
        else give_up(s, event, parts[i].topic, parts[i].partition);
    }
    if (event == BW_REBALANCE_ASSIGNED && s->on_rebalance) s->on_rebalance(c, event, parts, count, s->rebalance_opaque);
}

/* ---- open and close ---- */

/* Group ids may have any character; file names may not. */
static bw_err join_group(bw_state *s, const char *dir, const char *group)
{
    size_t len = strlen(dir), at = 0;
    char *out = malloc(len + 2 + 3 * strlen(group) + 1);
    if (!out) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a state");
    at = (size_t)sprintf(out, "%s/", dir);
    for (const char *p = group; *p; p++) {
        bool plain = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') || *p == '_' || *p == '-' ||
                     (*p == '.' && p != group);
        at += (size_t)sprintf(out + at, plain ? "%c" : "%%%02x", plain ? *p : (unsigned char)*p);
    }
    s->dir = out;
    return BW_OK;
}

static bw_err default_dir(bw_bus *bus, char *out, size_t size)
{
    if (bus->url.remote)
        return bw_fail(BW_ERR_UNSUPPORTED, "the daemon's folder is on another host (%s): give bw_state_options.dir, a folder here", bus->url.path);
    bw_err e = bw_readonly_refuse(bus, "a state in the data directory");
    if (!e) e = bw_bus_connect(bus, true, bw_bus_request_deadline(bus));
    if (e) return e;
    pthread_mutex_lock(&bus->conn.mutex);
    int n = snprintf(out, size, "%s/state", bus->conn.hello->data_dir);
    uint64_t owner = bus->conn.hello->server_uid;
    pthread_mutex_unlock(&bus->conn.mutex);
    if (n < 0 || (size_t)n >= size) return bw_fail(BW_ERR_UNSUPPORTED, "the data directory's path is too long; give bw_state_options.dir");
    if (geteuid() == owner && access(out, W_OK) == 0) return BW_OK;
    char *slash = strrchr(out, '/');
    *slash = 0;
    bool may = geteuid() == owner && access(out, W_OK) == 0;
    *slash = '/';
    return may ? BW_OK : bw_fail(BW_ERR_NOT_PERMITTED, "%s is not this process's to write; give bw_state_options.dir", out);
}

bw_err bw_state_open(bw_consumer *c, const bw_state_options *options, bw_state **out)
{
    bw_state_options o = BW_STATE_OPTIONS_INIT;
    char dir[PATH_MAX];
    if (!c || !out) return bw_fail(BW_ERR_INVALID_ARGUMENT, "bw_state_open: there is no consumer or no place for the state");
    *out = NULL;
    BW_CHECK_FORK(c->bus);
    if (c->foreign) return bw_backend_refuse("state mode", "its stores follow the generations of a daemon's group; use a transaction");
    if (options && (options->size < sizeof options->size || options->size > 4096))
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "state options: size is not set; begin with BW_STATE_OPTIONS_INIT");
    if (options) memcpy(&o, options, options->size < sizeof o ? options->size : sizeof o);
    if (!c->group) return bw_fail(BW_ERR_INVALID_ARGUMENT, "state belongs to a group: open the consumer with a group_id");
    if (c->parts || c->group->topics || c->options.on_rebalance == on_rebalance)
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "open the state once, and before anything is subscribed or assigned");
    bw_err e = o.dir ? BW_OK : default_dir(c->bus, dir, sizeof dir);
    bw_state *s = e ? NULL : calloc(1, sizeof *s);
    if (!e && !s) e = bw_fail(BW_ERR_NO_MEMORY, "no memory for a state");
    if (!e) e = join_group(s, o.dir ? o.dir : dir, c->group->id);
    if (e) {
        free(s);
        return e;
    }
    s->consumer = c;
    s->fast = o.fast;
    s->map_bytes = o.map_bytes;
    s->on_rebalance = c->options.on_rebalance;
    s->rebalance_opaque = c->options.rebalance_opaque;
    c->options.on_rebalance = on_rebalance;
    c->options.rebalance_opaque = s;
    c->group->wants_auto_commit = false; /* the store's offset counts; the daemon's follows it */
    if (!o.fast) c->options.read_limit = BW_READ_DURABLE;
    *out = s;
    return BW_OK;
}

void bw_state_close(bw_state *s)
{
    if (!s || bw_forked(&s->consumer->bus->guard)) return;
    for (slot *p = s->slots; p; p = p->next) end_txn(p);
    follow(s, true);
    while (s->slots) slot_close(s, &s->slots);
    s->consumer->options.on_rebalance = s->on_rebalance;
    s->consumer->options.rebalance_opaque = s->rebalance_opaque;
    free(s->dir);
    free(s);
}

/* ---- the next batch ---- */

/* Is the batch what the store waits for? OK: yes. EMPTY: another will come. */
static bw_err check_place(slot *p, const bw_batch *b)
{
    int64_t first = b->it_from > b->base_offset ? b->it_from : b->base_offset, offset = bw_state_env_offset(p->env);
    if (p->txn) offset = p->upto;
    if (!p->sought && first != offset && start_of(p) != BW_OFFSET_INVALID) {
        bw_err e = slot_seek(p);
        return e ? e : BW_ERR_EMPTY;
    }
    p->sought = true;
    if (offset < 0) p->first = first;
    if (offset < 0 || first >= offset) return BW_OK;
    return bw_fail(BW_ERR_OFFSET_OUT_OF_RANGE, "topic %s partition %d: the state has seen what is before offset %lld, and reading is at %lld: "
                   "the log was cut, or somebody sought", p->topic, (int)p->partition, (long long)offset, (long long)first);
}

/* A batch to process, in s->batch. */
static bw_err next_batch(bw_state *s, int32_t timeout_ms)
{
    bw_deadline deadline = bw_deadline_in_ms(timeout_ms);
    for (;;) {
        int64_t left = timeout_ms < 0 ? -1 : (bw_deadline_left_ns(deadline) + 999999) / 1000000;
        bw_err e = bw_consumer_poll(s->consumer, timeout_ms == 0 ? 0 : (int32_t)left, &s->batch);
        if (e && (e != BW_ERR_NO_OFFSET || !s->batch.topic)) return e;
        slot *p = *slot_at(s, s->batch.topic, s->batch.partition);
        bool sought = e == BW_ERR_NO_OFFSET; /* no offset is committed with the daemon: ours counts */
        if (!p && (e = slot_open(s, s->batch.topic, s->batch.partition, &p)) != BW_OK) {
            bw_error_context(e, "topic %s partition %d", s->batch.topic, (int)s->batch.partition);
            bw_consumer_seek(s->consumer, s->batch.topic, s->batch.partition, s->batch.it_from); /* nothing of it is passed over */
            return e;
        }
        e = sought ? slot_seek(p) : check_place(p, &s->batch);
        if (e && e != BW_ERR_EMPTY) return e;
        if (e || sought) continue;
        s->batch_slot = p;
        return BW_OK;
    }
}

/* Those marked, and with them what is left of the present batch, which no seek leaves alone. */
static void rewind_slots(bw_state *s)
{
    bool any = false;
    for (slot *p = s->slots; p; p = p->next) any |= p->rewind;
    if (!any) return;
    if (s->batch_slot) s->batch_slot->rewind = true;
    s->batch_slot = NULL;
    for (slot *p = s->slots; p; p = p->next) {
        if (!p->rewind) continue;
        p->rewind = false;
        if (start_of(p) == BW_OFFSET_INVALID) /* by hand, nothing committed yet: where it began */
            bw_consumer_seek(s->consumer, p->topic, p->partition, p->first);
        else if (slot_seek(p) != BW_OK) p->sought = false;
    }
}

/* ---- process ---- */

/* Records of the present batch for fn. *error: what fn said. */
static void feed(bw_state *s, int32_t most, bw_state_fn fn, void *opaque, int32_t *gathered, bw_err *error)
{
    slot *p = s->batch_slot;
    bw_record_view r;
    int more = 1;
    if (!p->txn && (*error = bw_state_env_begin(p->env, true, p, &p->txn)) != BW_OK) {
        p->rewind = true;
        return;
    }
    while (*gathered < most && !*error && (more = bw_batch_next(&s->batch, &r)) == 1) {
        s->in_handler = true;
        *error = fn(p->txn, &s->batch, &r, opaque);
        s->in_handler = false;
        if (bw_state_txn_is_lost(p->txn)) {
            *error = BW_OK;
            p->rewind = true;
            return;
        }
        p->upto = r.offset + 1;
        p->count++;
        ++*gathered;
    }
    if (more < 0) *error = bw_fail(BW_ERR_CORRUPT, "topic %s partition %d: a record can't be read", p->topic, (int)p->partition);
    if (*error) p->rewind = true;
    else if (more == 0) {
        p->upto = s->batch.last_offset + 1;
        s->batch_slot = NULL;
    }
}

/* Every transaction to its end. Returns the first error; BUSY of a store that grows is none. */
static bw_err commit_all(bw_state *s, int32_t *done)
{
    bw_err first = BW_OK;
    char why[512] = "";
    for (slot **at = &s->slots, *p; (p = *at) != NULL;) {
        bw_err e = BW_OK;
        int32_t count = p->count;
        if (p->txn && p->rewind) end_txn(p);
        else if (p->txn) {
            e = bw_state_env_commit(p->txn, p->upto);
            p->txn = NULL;
            p->count = 0;
            if (!e) *done += count;
            else p->rewind = true;
        }
        if (e && e != BW_ERR_BUSY && !first) {
            first = e;
            snprintf(why, sizeof why, "%s", bw_error_message());
        }
        if (e == BW_ERR_FENCED) slot_close(s, at);
        else at = &p->next;
    }
    if (first) bw_error_set_message(first, why);
    return first;
}

static bw_err process_once(bw_state *s, int32_t timeout_ms, int32_t most, bw_state_fn fn, void *opaque, int32_t *done)
{
    int32_t gathered = 0;
    bw_err error = BW_OK, polled = BW_OK, committed;
    char why[512] = "";
    while (gathered < most && !error) {
        if (!s->batch_slot && (polled = next_batch(s, gathered ? 0 : timeout_ms)) != BW_OK) break;
        feed(s, most, fn, opaque, &gathered, &error);
        if (!error && s->batch_slot && s->batch_slot->rewind) break;
    }
    if (polled && (!gathered || (polled != BW_ERR_TIMED_OUT && polled != BW_ERR_WOKEN))) error = polled;
    if (error) snprintf(why, sizeof why, "%s", bw_error_message());
    committed = commit_all(s, done);
    if (committed && !error) {
        error = committed;
        snprintf(why, sizeof why, "%s", bw_error_message());
    }
    rewind_slots(s);
    follow(s, false);
    return error ? bw_error_set_message(error, why) : BW_OK;
}

static bw_err check(bw_state *s)
{
    if (!s) return bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no state");
    BW_CHECK_FORK(s->consumer->bus);
    if (s->in_handler) return bw_fail(BW_ERR_INVALID_ARGUMENT, "not from within a handler");
    if (s->begun) return bw_fail(BW_ERR_INVALID_ARGUMENT, "a transaction is open: commit or abort it first");
    return BW_OK;
}

bw_err bw_state_process(bw_state *s, int32_t timeout_ms, int32_t batch_max, bw_state_fn fn, void *opaque, int32_t *done)
{
    int32_t count = 0;
    bw_err e = check(s);
    if (done) *done = 0;
    if (!e && (!fn || batch_max < 1)) e = bw_fail(BW_ERR_INVALID_ARGUMENT, "no handler, or a batch of %d records", (int)batch_max);
    for (int i = 0; !e && !count && i < REDO_MAX; i++) e = process_once(s, timeout_ms, batch_max, fn, opaque, &count);
    if (done) *done = count;
    return e;
}

/* ---- without callbacks ---- */

bw_err bw_state_begin(bw_state *s, int32_t timeout_ms, bw_state_txn **txn, bw_batch *batch)
{
    bw_err e = check(s);
    if (!e && (!txn || !batch)) e = bw_fail(BW_ERR_INVALID_ARGUMENT, "no place for the transaction or the batch");
    if (!e && !s->batch_slot) e = next_batch(s, timeout_ms);
    if (e) return e;
    slot *p = s->batch_slot;
    if ((e = bw_state_env_begin(p->env, true, p, &p->txn)) != BW_OK) {
        p->rewind = true;
        rewind_slots(s);
        return e;
    }
    s->begun = p;
    *txn = p->txn;
    *batch = s->batch;
    return BW_OK;
}

bw_err bw_state_commit(bw_state_txn *t)
{
    slot *p = t ? bw_state_txn_user(t) : NULL;
    if (!t || !bw_state_txn_writes(t)) {
        if (t) bw_state_env_abort(t);
        return t ? BW_OK : bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no transaction");
    }
    bw_state *s = p->state;
    if (s->begun != p) return bw_fail(BW_ERR_INVALID_ARGUMENT, "bw_state_process commits by itself");
    bw_err e = bw_state_env_commit(t, s->batch.last_offset + 1);
    p->txn = NULL;
    s->begun = s->batch_slot = NULL;
    if (e == BW_ERR_FENCED) slot_close(s, slot_at(s, p->topic, p->partition));
    else if (e) p->rewind = true;
    if (e) {
        char why[512];
        snprintf(why, sizeof why, "%s", bw_error_message());
        rewind_slots(s);
        bw_error_set_message(e, why);
    }
    follow(s, false);
    return e;
}

void bw_state_abort(bw_state_txn *t)
{
    slot *p = t ? bw_state_txn_user(t) : NULL;
    if (!t) return;
    if (!bw_state_txn_writes(t)) {
        bw_state_env_abort(t);
        return;
    }
    bw_state *s = p->state;
    if (s->begun != p) return; /* bw_state_process ends it: return an error from the handler */
    end_txn(p);
    s->begun = NULL;
    p->rewind = true;
    rewind_slots(s);
}

bw_err bw_state_read(bw_state *s, const char *topic, int32_t partition, bw_state_txn **txn)
{
    if (!s || !topic || !txn) return bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no state, no topic or no place for the transaction");
    BW_CHECK_FORK(s->consumer->bus);
    slot *p = *slot_at(s, topic, partition);
    if (!p) return bw_fail(BW_ERR_NOT_FOUND, "topic %s partition %d: its state is not open here", topic, (int)partition);
    return bw_state_env_begin(p->env, false, p, txn);
}
