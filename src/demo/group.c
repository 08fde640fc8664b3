/* demo/group.c: three workers that count the same records as a group, each count kept in the same transaction as the place in the log; one
 * of them is killed on the way. The counts must add up to the log, whoever was killed whenever.
 *
 * Times are the workers' own: when the group gave them a partition, when they first counted a record of it. */
#include "demo/demo.h"

#include <busway/state.h>

#include <string.h>
#include <sys/types.h>

typedef struct worker {
    demo *d;
    int number;
    bw_state *state;
} worker;

static int topic_of(const char *name)
{
    for (int t = 0; t < DEMO_TOPICS; t++)
        if (strcmp(name, demo_topic_names[t]) == 0) return t;
    return -1;
}

/* Inside a poll: the group gives or takes partitions. */
static void on_rebalance(bw_consumer *consumer, bw_rebalance event, const bw_topic_partition *parts, size_t count, void *opaque)
{
    worker *w = opaque;
    (void)consumer;
    int64_t now = demo_now_ns();
    for (size_t i = 0; i < count; i++) {
        int t = topic_of(parts[i].topic);
        if (t < 0 || parts[i].partition < 0 || parts[i].partition >= DEMO_PARTITIONS) continue;
        demo_counted *c = &w->d->shared->counted[t][parts[i].partition];
        if (event != BW_REBALANCE_ASSIGNED) continue;
        atomic_store(&c->given_ns, now);
        atomic_store(&c->owner, w->number);
    }
}

/* The state: one key, how many. */
static bw_err count_one(bw_state_txn *txn, const bw_batch *batch, const bw_record_view *record, void *opaque)
{
    const void *value;
    size_t len;
    uint64_t n = 0;
    (void)batch, (void)record, (void)opaque;
    bw_err e = bw_state_get(txn, "n", 1, &value, &len);
    if (e == BW_OK && len == sizeof n) memcpy(&n, value, sizeof n);
    else if (e != BW_ERR_NOT_FOUND) return e;
    n++;
    return bw_state_put(txn, "n", 1, &n, sizeof n);
}

/* What is committed, for everybody to see. */
static void publish(worker *w)
{
    demo_shared *s = w->d->shared;
    for (int t = 0; t < DEMO_TOPICS; t++)
        for (int p = 0; p < DEMO_PARTITIONS; p++) {
            bw_state_txn *txn;
            const void *value;
            size_t len;
            uint64_t n = 0;
            if (atomic_load(&s->counted[t][p].owner) != w->number) continue;
            if (bw_state_read(w->state, demo_topic_names[t], p, &txn) != BW_OK) continue;
            if (bw_state_get(txn, "n", 1, &value, &len) == BW_OK && len == sizeof n) memcpy(&n, value, sizeof n);
            bw_state_abort(txn);
            atomic_store(&s->counted[t][p].records, n);
        }
}

int demo_worker_run(demo *d, int number)
{
    worker w = {.d = d, .number = number};
    bw_bus *bus = NULL;
    bw_consumer *consumer = NULL;
    bw_bus_options bus_options = BW_BUS_OPTIONS_INIT;
    bw_consumer_options options = BW_CONSUMER_OPTIONS_INIT;
    bw_state_options state_options = BW_STATE_OPTIONS_INIT;
    char id[32];
    snprintf(id, sizeof id, "demo-worker-%d", number);
    bus_options.client_id = id;
    options.group_id = "counters";
    options.auto_offset_reset = BW_RESET_EARLIEST;
    options.on_rebalance = on_rebalance;
    options.rebalance_opaque = &w;
    state_options.fast = true; /* exact over the death of processes, which is what is shown here */
    bw_err e = bw_bus_open(d->url, &bus_options, &bus);
    if (e == BW_OK) e = bw_consumer_open(bus, &options, &consumer);
    if (e == BW_OK) e = bw_state_open(consumer, &state_options, &w.state);
    if (e == BW_OK) e = bw_consumer_subscribe(consumer, demo_topic_names, DEMO_TOPICS);
    if (e == BW_OK) atomic_store(&d->shared->worker_ready[number], 1);
    while (e == BW_OK && atomic_load(&d->shared->workers_stop) == 0) {
        int32_t done = 0;
        e = bw_state_process(w.state, 50, 1000, count_one, NULL, &done);
        publish(&w);
        if (e == BW_ERR_TIMED_OUT || e == BW_ERR_FENCED || bw_err_is_retriable(e)) e = BW_OK;
    }
    if (e != BW_OK) demo_fail_bw("a worker failed");
    bw_state_close(w.state);
    bw_consumer_close(consumer);
    bw_bus_close(bus);
    return e == BW_OK ? 0 : 1;
}

/* ---- the conductor's side ---- */

uint64_t demo_group_counted(const demo_shared *s)
{
    uint64_t sum = 0;
    for (int t = 0; t < DEMO_TOPICS; t++)
        for (int p = 0; p < DEMO_PARTITIONS; p++) sum += atomic_load(&s->counted[t][p].records);
    return sum;
}

int demo_group_partitions(const demo_shared *s, int who)
{
    int n = 0;
    for (int t = 0; t < DEMO_TOPICS; t++)
        for (int p = 0; p < DEMO_PARTITIONS; p++) n += atomic_load(&s->counted[t][p].owner) == who && atomic_load(&s->counted[t][p].given_ns) != 0;
    return n;
}

bool demo_group_moved(const demo_shared *s, int who, int64_t since_ns, int *moved, int64_t *first_ns, int64_t *last_ns)
{
    *moved = 0;
    *first_ns = INT64_MAX;
    *last_ns = 0;
    for (int t = 0; t < DEMO_TOPICS; t++)
        for (int p = 0; p < DEMO_PARTITIONS; p++) {
            int64_t given = atomic_load(&s->counted[t][p].given_ns);
            if (atomic_load(&s->counted[t][p].owner) == who) return false; /* nobody's yet */
            if (given < since_ns) continue;
            (*moved)++;
            if (given - since_ns < *first_ns) *first_ns = given - since_ns;
            if (given - since_ns > *last_ns) *last_ns = given - since_ns;
        }
    return *moved > 0;
}
