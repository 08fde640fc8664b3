/* shim_consumer.c: a batch in one call, groups, commits. See shim.h.
 *
 * Callbacks: a rebalance must be answered before it is over, so it enters Go, in the thread and goroutine that polls. The outcomes of
 * asynchronous commits need not: they are listed, and told by Go after the call. */
#include "shim.h"
#include "shim_private.h"

#include <poll.h>
#include <stdio.h>
#include <time.h>

enum { VIEWS_FIRST = 512, POLLS_MOST = 1000 };

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

int32_t bwgo_reader_take(bwgo_reader *r, bw_err e)
{
    if (e == BW_ERR_TIMED_OUT || e == BW_ERR_WOKEN) return (int32_t)e;
    note_topic(r);
    if (e) return failed(r, e);
    decode(r);
    return BW_OK;
}

int32_t bwgo_reader_poll(bwgo_reader *r, int32_t timeout_ms)
{
    r->count = 0;
    r->broken = 0;
    return bwgo_reader_take(r, bw_consumer_poll(r->consumer, timeout_ms, &r->batch));
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int32_t bwgo_reader_spin(bwgo_reader *r, int64_t ns)
{
    int32_t code;
    int64_t begun = now_ns();
    do {
        code = bwgo_reader_poll(r, 0);
#if defined(__x86_64__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        __asm__ volatile("yield" ::: "memory");
#endif
    } while (code == BW_ERR_TIMED_OUT && now_ns() - begun < ns);
    return code;
}

int32_t bwgo_reader_poll_edge(bwgo_reader *r, int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    for (int i = 0; i < POLLS_MOST; i++) { /* what rings after that is told anew */
        int32_t code = bwgo_reader_poll(r, 0);
        if (code != BW_ERR_TIMED_OUT || poll(&p, 1, 0) <= 0) return code;
    }
    return BW_ERR_TIMED_OUT;
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
