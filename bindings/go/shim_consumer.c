/* shim_consumer.c: a batch in one call; state mode on the same reader. See shim.h.
 *
 * Callbacks: a rebalance must be answered before it is over, so it enters Go, in the thread and goroutine that polls. The outcomes of
 * asynchronous commits need not: they are listed, and told by Go after the call. */
#include "shim.h"
#include "shim_private.h"

#include <stdio.h>

enum { VIEWS_FIRST = 512 };

static void on_rebalance(bw_consumer *consumer, bw_rebalance event, const bw_topic_partition *parts, size_t count, void *opaque)
{
    bwgo_reader *r = opaque;
    (void)consumer;
    bwgoRebalance(r->handle, (int)event, (bw_topic_partition *)parts, count);
}

bwgo_result bwgo_reader_open(bw_bus *bus, bw_consumer_options *options, uintptr_t handle, bwgo_reader **out)
{
    bwgo_reader *r = calloc(1, sizeof *r);
    if (!r) return (bwgo_result){.code = BW_ERR_NO_MEMORY};
    r->handle = handle;
    r->views = malloc(VIEWS_FIRST * sizeof *r->views);
    r->capacity = r->views ? VIEWS_FIRST : 0;
    if (handle) {
        options->on_rebalance = on_rebalance;
        options->rebalance_opaque = r;
    }
    bwgo_result result = r->views ? bwgo_result_of(bw_consumer_open(bus, options, &r->consumer)) : (bwgo_result){.code = BW_ERR_NO_MEMORY};
    if (result.code) bwgo_reader_free(r);
    else *out = r;
    return result;
}

void bwgo_reader_close(bwgo_reader *r)
{
    bw_consumer_close(r->consumer);
    r->consumer = NULL;
}

void bwgo_reader_free(bwgo_reader *r)
{
    while (r->commits) {
        bwgo_commit *c = r->commits;
        r->commits = c->next;
        free(c->message);
        free(c);
    }
    free(r->views);
    free(r);
}

/* ---- read ---- */

static int32_t failed(bwgo_reader *r, bw_err e)
{
    snprintf(r->message, sizeof r->message, "%s", bw_error_message());
    return (int32_t)e;
}

/* All records of the batch: the array grows with those that were really there, whatever the batch claims. */
static void decode(bwgo_reader *r)
{
    for (;;) {
        int32_t n = bw_batch_records(&r->batch, r->views + r->count, r->capacity - r->count);
        if (n < 0) r->broken = 1;
        if (n <= 0) return;
        r->count += n;
        if (r->count < r->capacity) continue;
        bw_record_view *grown = realloc(r->views, (size_t)r->capacity * 2 * sizeof *grown);
        if (!grown) {
            r->broken = 1;
            return;
        }
        r->views = grown;
        r->capacity *= 2;
    }
}

static void note_topic(bwgo_reader *r)
{
    const char *topic = r->batch.topic ? r->batch.topic : "";
    if (strcmp(topic, r->topic) == 0) return;
    snprintf(r->topic, sizeof r->topic, "%s", topic);
    r->topic_changed = 1;
}

int32_t bwgo_reader_poll(bwgo_reader *r, int32_t timeout_ms)
{
    r->count = 0;
    r->broken = 0;
    bw_err e = bw_consumer_poll(r->consumer, timeout_ms, &r->batch);
    if (e == BW_ERR_TIMED_OUT || e == BW_ERR_WOKEN) return (int32_t)e;
    note_topic(r);
    if (e) return failed(r, e);
    decode(r);
    return BW_OK;
}

bwgo_result bwgo_reader_place(int what, bwgo_reader *r, const char *topic, int32_t partition, int64_t at)
{
    bw_consumer *c = r->consumer;
    int64_t position = 0;
    bw_err e;
    switch (what) {
    case BWGO_ASSIGN: e = bw_consumer_assign(c, topic, partition, at); break;
    case BWGO_UNASSIGN: e = bw_consumer_unassign(c, topic, partition); break;
    case BWGO_SEEK: e = bw_consumer_seek(c, topic, partition, at); break;
    case BWGO_SEEK_TIME: e = bw_consumer_seek_time(c, topic, partition, at); break;
    case BWGO_POSITION: e = bw_consumer_position(c, topic, partition, &position); break;
    case BWGO_PAUSE: e = bw_consumer_pause(c, topic, partition); break;
    default: e = bw_consumer_resume(c, topic, partition); break;
    }
    bwgo_result result = bwgo_result_of(e);
    result.a = position;
    return result;
}

bwgo_result bwgo_reader_subscribe(bwgo_reader *r, char **topics, size_t count)
{
    return bwgo_result_of(bw_consumer_subscribe(r->consumer, (const char *const *)topics, count));
}

bwgo_result bwgo_reader_unsubscribe(bwgo_reader *r) { return bwgo_result_of(bw_consumer_unsubscribe(r->consumer)); }

bwgo_result bwgo_reader_assignment(bwgo_reader *r, bw_topic_partition **parts, size_t *count)
{
    return bwgo_result_of(bw_consumer_assignment(r->consumer, parts, count));
}

bwgo_result bwgo_reader_subscription(bwgo_reader *r, char ***topics, size_t *count)
{
    return bwgo_result_of(bw_consumer_subscription(r->consumer, (const char ***)topics, count));
}

/* ---- commits ---- */

bwgo_result bwgo_reader_commit(bwgo_reader *r, bw_topic_partition *parts, size_t count, int32_t timeout_ms)
{
    return bwgo_result_of(bw_consumer_commit(r->consumer, parts, count, timeout_ms));
}

typedef struct asked { /* what a commit's callback is given */
    bwgo_reader *reader;
    uint64_t call;
} asked;

static void on_commit(bw_consumer *consumer, bw_err error, const bw_topic_partition *parts, size_t count, void *opaque)
{
    asked *a = opaque;
    bwgo_reader *r = a->reader;
    (void)consumer;
    size_t bytes = sizeof(bwgo_commit) + count * sizeof *parts;
    for (size_t i = 0; i < count; i++) bytes += strlen(parts[i].topic) + 1;
    bwgo_commit *c = calloc(1, bytes);
    if (c) {
        char *text = (char *)&c->parts[count];
        c->call = a->call;
        c->code = (int32_t)error;
        c->count = (int32_t)count;
        c->message = error ? strdup(bw_error_message()) : NULL;
        for (size_t i = 0; i < count; i++) {
            size_t len = strlen(parts[i].topic) + 1;
            c->parts[i] = parts[i];
            c->parts[i].metadata = NULL;
            c->parts[i].topic = memcpy(text, parts[i].topic, len);
            text += len;
        }
        if (r->commits) r->commits_last->next = c;
        else r->commits = c;
        r->commits_last = c;
    }
    free(a);
}

bwgo_result bwgo_reader_commit_async(bwgo_reader *r, bw_topic_partition *parts, size_t count, uint64_t call)
{
    asked *a = malloc(sizeof *a);
    if (!a) return (bwgo_result){.code = BW_ERR_NO_MEMORY};
    *a = (asked){r, call};
    bwgo_result result = bwgo_result_of(bw_consumer_commit_async(r->consumer, parts, count, on_commit, a));
    if (result.code) free(a);
    return result;
}

bwgo_result bwgo_reader_committed(bwgo_reader *r, bw_topic_partition *parts, size_t count, int32_t timeout_ms)
{
    return bwgo_result_of(bw_consumer_committed(r->consumer, parts, count, timeout_ms));
}

bwgo_result bwgo_reader_group(bwgo_reader *r, bw_group_metadata *out)
{
    return bwgo_result_of(bw_consumer_group_metadata(r->consumer, out));
}

bwgo_result bwgo_reader_fd(bwgo_reader *r)
{
    int fd = bw_consumer_fd(r->consumer);
    bwgo_result result = {.n = fd};
    if (fd < 0) {
        result.code = BW_ERR_IO;
        result.message = strdup(bw_error_message());
    }
    return result;
}

/* ---- state ---- */

bwgo_result bwgo_state_open(bwgo_reader *r, const char *dir, int fast, uint64_t map_bytes, bw_state **out)
{
    bw_state_options o = BW_STATE_OPTIONS_INIT;
    o.dir = dir;
    o.fast = fast != 0;
    if (map_bytes) o.map_bytes = map_bytes;
    return bwgo_result_of(bw_state_open(r->consumer, &o, out));
}

int32_t bwgo_state_begin(bwgo_reader *r, bw_state *s, int32_t timeout_ms, bw_state_txn **txn)
{
    r->count = 0;
    r->broken = 0;
    bw_err e = bw_state_begin(s, timeout_ms, txn, &r->batch);
    if (e == BW_ERR_TIMED_OUT || e == BW_ERR_WOKEN) return (int32_t)e;
    if (e) return failed(r, e);
    note_topic(r);
    decode(r);
    return BW_OK;
}

bwgo_result bwgo_state_commit(bw_state_txn *txn) { return bwgo_result_of(bw_state_commit(txn)); }

bwgo_result bwgo_state_read(bw_state *s, const char *topic, int32_t partition, bw_state_txn **txn)
{
    return bwgo_result_of(bw_state_read(s, topic, partition, txn));
}

/* The handler's own error is kept in Go; its code only says "stop". */
static bw_err on_process(bw_state_txn *txn, const bw_batch *batch, const bw_record_view *record, void *opaque)
{
    return (bw_err)bwgoProcess((uintptr_t)opaque, txn, (bw_batch *)batch, (bw_record_view *)record);
}

bwgo_result bwgo_state_process(bw_state *s, int32_t timeout_ms, int32_t max, uintptr_t handle)
{
    int32_t done = 0;
    bwgo_result r = bwgo_result_of(bw_state_process(s, timeout_ms, max, on_process, (void *)handle, &done));
    r.n = done;
    return r;
}

bwgo_result bwgo_state_get(bw_state_txn *txn, const void *key, size_t key_len, const void **value, size_t *value_len)
{
    return bwgo_result_of(bw_state_get(txn, key, key_len, value, value_len));
}

bwgo_result bwgo_state_put(bw_state_txn *txn, const void *key, size_t key_len, const void *value, size_t value_len)
{
    return bwgo_result_of(bw_state_put(txn, key, key_len, value, value_len));
}

bwgo_result bwgo_state_del(bw_state_txn *txn, const void *key, size_t key_len) { return bwgo_result_of(bw_state_del(txn, key, key_len)); }

typedef struct entries {
    bwgo_entry *all;
    size_t count, capacity;
    bool no_memory;
} entries;

static bool on_entry(void *opaque, const void *key, size_t key_len, const void *value, size_t value_len)
{
    entries *e = opaque;
    if (e->count == e->capacity) {
        size_t capacity = e->capacity ? e->capacity * 2 : 64;
        bwgo_entry *grown = realloc(e->all, capacity * sizeof *grown);
        if (!grown) {
            e->no_memory = true;
            return false;
        }
        e->all = grown;
        e->capacity = capacity;
    }
    e->all[e->count++] = (bwgo_entry){key, value, key_len, value_len};
    return true;
}

bwgo_result bwgo_state_each(bw_state_txn *txn, const void *prefix, size_t prefix_len, bwgo_entry **out)
{
    entries e = {NULL, 0, 0, false};
    bwgo_result r = bwgo_result_of(bw_state_each(txn, prefix, prefix_len, on_entry, &e));
    if (!r.code && e.no_memory) r.code = BW_ERR_NO_MEMORY;
    r.a = (int64_t)e.count;
    *out = e.all;
    return r;
}

/* ---- queue ---- */

bwgo_result bwgo_queue_open(bw_bus *bus, bw_queue_options *options, bw_queue **out)
{
    return bwgo_result_of(bw_queue_open(bus, options, out));
}

bwgo_result bwgo_queue_close(bw_queue *q) { return bwgo_result_of(bw_queue_close(q)); }

bwgo_result bwgo_queue_poll(bw_queue *q, int32_t timeout_ms, bw_message *messages, size_t max)
{
    size_t count = 0;
    bwgo_result r = bwgo_result_of(bw_queue_poll_batch(q, timeout_ms, messages, max, &count));
    r.n = (int32_t)count;
    return r;
}

bwgo_result bwgo_queue_settle_batch(int what, bw_queue *q, bw_message *messages, size_t count)
{
    bw_err e = BW_OK;
    switch (what) {
    case BWGO_ACK: e = bw_queue_ack_batch(q, messages, count); break;
    case BWGO_RELEASE: e = bw_queue_release_batch(q, messages, count); break;
    case BWGO_REJECT: e = bw_queue_reject_batch(q, messages, count); break;
    default:
        for (size_t i = 0; !e && i < count; i++) e = bw_queue_renew(q, &messages[i]);
    }
    return bwgo_result_of(e);
}

bwgo_result bwgo_queue_flush(bw_queue *q, int32_t timeout_ms) { return bwgo_result_of(bw_queue_flush(q, timeout_ms)); }
