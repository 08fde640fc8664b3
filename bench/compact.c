/* bench/compact.c: compaction of a log in which each of KEYS keys was written many times.
 *
 * The log is written through the direct path as a topic that is not compacted, and synced; then the policy is changed, upon which the
 * daemon's cleaner begins at once. The rate is records looked at a second of the pass, as the daemon tells it (topic describe); the peak is
 * of the daemon's resident memory from then on (VmHWM, put back before). Then all is read: the last value of each key must be there, and
 * below the cleaned offset no key twice. */
#include "bench.h"

#include <busway/busway.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define KEYS     100000u
#define WAIT_MS  60000
#define LOOK_US  20000
#define SETTLE_S 2 /* for seals: the keeper looks each second */

typedef struct compact_job {
    const bench_run *run;
    bw_bus *bus;
    uint64_t *last;  /* of each key: the number of the record that wrote it last, from 1 */
    uint64_t *read;  /* of each key: the last that was read */
    uint8_t *below;  /* of each key: how often below the cleaned offset, at most 255 */
} compact_job;

static bool failed(const bench_run *run, const char *what)
{
    return bench_fail(run->shared, "%s: %s", what, bw_error_message());
}

static bool write_log(compact_job *j)
{
    const bench_run *run = j->run;
    bw_producer *producer;
    uint32_t batch = run->c->batch, x = 1;
    bw_record *records = calloc(batch, sizeof *records);
    uint8_t *room = malloc(batch * (4 + (size_t)run->c->record_bytes));
    if (!records || !room || bw_producer_open(j->bus, NULL, &producer) != BW_OK) return failed(run, "producer");
    memset(room, 'x', batch * (4 + (size_t)run->c->record_bytes));
    bool good = true;
    for (uint64_t done = 0; good && done < run->c->round_trips; done += batch) {
        for (uint32_t i = 0; i < batch; i++) {
            uint8_t *key = room + i * (4 + (size_t)run->c->record_bytes), *value = key + 4;
            x = x * 1664525 + 1013904223;
            uint32_t k = (uint32_t)((uint64_t)x * KEYS >> 32);
            bench_put_be32(key, k);
            bench_put_be64(value, done + i + 1);
            j->last[k] = done + i + 1;
            records[i] = (bw_record){.key = key, .key_len = 4, .value = value, .value_len = run->c->record_bytes,
                                     .timestamp_ms = BW_NO_TIMESTAMP};
        }
        good = bw_producer_send_batch(producer, run->topic, 0, records, batch, WAIT_MS, NULL) == BW_OK || failed(run, "send");
    }
    free(records);
    free(room);
    return (bw_producer_close(producer, WAIT_MS) == BW_OK || failed(run, "close the producer")) && good;
}

/* A number of the topic's description; -1: it is not there. */
static long long described(const compact_job *j, const char *name)
{
    char *json, quoted[64], *at;
    if (bw_topics_describe(j->bus, j->run->topic, &json) != BW_OK) return failed(j->run, "describe"), -2;
    snprintf(quoted, sizeof quoted, "\"%s\":", name);
    at = strstr(json, quoted);
    long long v = at ? strtoll(at + strlen(quoted), NULL, 10) : -1;
    bw_free(json);
    return v;
}

static bool wait_for(const compact_job *j, const char *name, long long least)
{
    uint64_t until = bench_now_ns() + WAIT_MS * UINT64_C(1000000);
    for (long long v; (v = described(j, name)) < least; usleep(LOOK_US)) {
        if (v == -2) return false;
        if (bench_now_ns() > until) return bench_fail(j->run->shared, "%s is %lld after %d s, not %lld", name, v, WAIT_MS / 1000, least);
    }
    return true;
}

/* ---- the daemon's memory ---- */

static long daemon_pid(const compact_job *j)
{
    char *json;
    if (bw_status(j->bus, &json) != BW_OK) return -1;
    const char *at = strstr(json, "\"pid\":");
    long pid = at ? strtol(at + 6, NULL, 10) : -1;
    bw_free(json);
    return pid;
}

static bool forget_peak(long pid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%ld/clear_refs", pid);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool good = fd >= 0 && write(fd, "5", 1) == 1;
    if (fd >= 0) close(fd);
    return good;
}

static uint64_t peak_bytes(long pid)
{
    char path[64], line[256];
    unsigned long long kib = 0;
    snprintf(path, sizeof path, "/proc/%ld/status", pid);
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "VmHWM: %llu kB", &kib) == 1) break;
    if (f) fclose(f);
    return kib * 1024;
}

/* ---- the check ---- */

static bool read_batch(compact_job *j, bw_batch *b, long long clean)
{
    bw_record_view r;
    int more;
    while ((more = bw_batch_next(b, &r)) == 1) {
        uint32_t k = KEYS;
        uint64_t n = 0;
        if (r.key_len == 4) k = (uint32_t)r.key[0] << 24 | (uint32_t)r.key[1] << 16 | (uint32_t)r.key[2] << 8 | r.key[3];
        for (int i = 0; i < 8 && r.value_len >= 8; i++) n = n << 8 | r.value[i];
        if (k >= KEYS) return bench_fail(j->run->shared, "offset %lld has a key that was never written", (long long)r.offset);
        j->read[k] = n;
        if (r.offset < clean && j->below[k] < 255) j->below[k]++;
    }
    return more == 0 || bench_fail(j->run->shared, "a batch is broken");
}

static bool check_log(compact_job *j)
{
    long long clean = described(j, "clean_offset"), end = described(j, "end_offset");
    bw_consumer *consumer;
    int64_t at = 0;
    if (bw_consumer_open(j->bus, NULL, &consumer) != BW_OK || bw_consumer_assign(consumer, j->run->topic, 0, 0) != BW_OK)
        return failed(j->run, "consumer");
    bool good = true;
    while (good && at < end) {
        bw_batch b;
        good = bw_consumer_poll(consumer, WAIT_MS, &b) == BW_OK || failed(j->run, "poll");
        if (good) good = read_batch(j, &b, clean);
        if (good) good = bw_consumer_position(consumer, j->run->topic, 0, &at) == BW_OK || failed(j->run, "position");
    }
    bw_consumer_close(consumer);
    for (uint32_t k = 0; good && k < KEYS; k++) {
        if (j->read[k] != j->last[k])
            good = bench_fail(j->run->shared, "key %u: record %llu was its last, %llu is read", k, (unsigned long long)j->last[k],
                              (unsigned long long)j->read[k]);
        else if (j->below[k] > 1) good = bench_fail(j->run->shared, "key %u is there %u times below the cleaned offset", k, j->below[k]);
    }
    return good;
}

static bool measure(compact_job *j)
{
    const bench_run *run = j->run;
    bw_config_entry keep = {"retention.bytes", "-1"}, compact = {"cleanup.policy", "compact"};
    if (bw_topic_alter(j->bus, run->topic, 0, &keep, 1) != BW_OK) return failed(run, "alter");
    if (!write_log(j) || !wait_for(j, "durable_offset", run->c->round_trips)) return false;
    sleep(SETTLE_S);
    long pid = daemon_pid(j);
    if (pid <= 0 || !forget_peak(pid)) return bench_fail(run->shared, "the daemon's memory cannot be followed: %s", strerror(errno));
    if (bw_topic_alter(j->bus, run->topic, 0, &compact, 1) != BW_OK) return failed(run, "alter");
    if (!wait_for(j, "runs", 1)) return false;
    run->shared->compact_records = (uint64_t)described(j, "records_before");
    run->shared->compact_ns = (uint64_t)described(j, "took_ms") * 1000000;
    run->shared->compact_peak_bytes = peak_bytes(pid);
    if (run->shared->compact_records < run->c->round_trips / 2)
        return bench_fail(run->shared, "only %llu records were cleaned", (unsigned long long)run->shared->compact_records);
    return check_log(j);
}

bool bench_compact_role(const bench_run *run, uint32_t index)
{
    compact_job j = {.run = run, .last = calloc(KEYS, 8), .read = calloc(KEYS, 8), .below = calloc(KEYS, 1)};
    (void)index;
    if (!j.last || !j.read || !j.below) return bench_fail(run->shared, "no memory");
    if (bw_bus_open(run->bus_url, NULL, &j.bus) != BW_OK) return failed(run, "open the bus");
    bool good = measure(&j);
    bw_bus_close(j.bus);
    free(j.last);
    free(j.read);
    free(j.below);
    return good;
}
