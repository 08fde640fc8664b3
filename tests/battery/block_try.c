/* tests/battery/block_try.c: images of a recording, one after the other, each mounted, brought up and compared.
 *
 * A worker has a disk of its own. It moves its base (what was surely on the disk) forward with the cuts, which ascend; an image
 * is the base with some of the writes since, made by copying the pages that differ. The broker brings the data directory up in a
 * child: as the daemon does at a start, with fresh control data, LMDB and all logs; the child compares and ends without a clean
 * stop, as if killed. Then, for some images, once more: to see that nothing changed (and that the record which the first child
 * appended is there), with buswayd itself and a client, or after a power cut in the middle of that first recovery. */
#include "block.h"

#include "base/lock.h"
#include "broker/core.h"
#include "format/record_batch.h"
#include "log/append.h"
#include "log/read.h"

#include <busway/busway.h>
#include <busway/inspect.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHILD_SECONDS = 300, DURABLE_MS = 200000, OPEN_LOOKS = 400000 };

typedef struct found {
    int64_t start, end, extra;
} found; /* what the first child saw, for the second */

typedef struct trial {
    const trial_options *o;
    block_disk disk;
    oracle *oracle;
    uint8_t *base, *twin; /* what is surely there; and, where `chosen`, the image before it was mounted */
    uint8_t chosen[BLOCK_PAGES];
    found *found; /* shared with the children: BLOCK_PARTITIONS */
    image_choice choice;
    uint64_t number, flushed;
    rng r;
    char mount[128], data[160], runtime[128];
    const char *stage;
    int64_t newest_id; /* of the producers in this image's logs */
} trial;

static void complain(void *opaque, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void complain(void *opaque, const char *format, ...)
{
    trial *t = opaque;
    char text[1024];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    if (atomic_fetch_add(&t->o->tally->failures, 1) >= 12) return;
    fprintf(stderr, "VIOLATION seed %llu image %llu (cut at write %llu of %llu, flushed %llu, %s; %s; %s): %s\n",
            (unsigned long long)t->o->seed, (unsigned long long)t->number, (unsigned long long)t->choice.cut,
            (unsigned long long)t->o->recording->log.count, (unsigned long long)t->choice.flushed,
            image_mode_name(t->choice.mode), t->o->recording->file_system, t->stage, text);
}

/* ---- what a bring-up showed ---- */

static void take_broker_event(void *opaque, bw_log_level level, const char *name, const char *fields)
{
    /* A store that lost power before its first snapshot says so, and makes one of LMDB's file. LMDB's file itself is never damaged. */
    if (strcmp(name, "metadata_repaired") == 0 && strstr(fields, "there is no snapshot; made anew from data.mdb")) return;
    if (level <= BW_LOG_ERROR || strcmp(name, "folder_not_adopted") == 0) complain(opaque, "%s %s", name, fields);
}

static bw_part *part_of(bw_broker *b, int partition)
{
    const char *name = partition == BLOCK_KEPT ? BLOCK_TOPIC_KEPT : BLOCK_TOPIC;
    uint32_t index = partition == BLOCK_KEPT ? 0 : (uint32_t)partition;
    bw_topic *t = bw_topic_find(b, bw_str_of(name));
    return t && index < t->part_count && t->parts[index]->log ? t->parts[index] : NULL;
}

static void read_partition(trial *t, bw_broker *b, bw_part *p, oracle_view *v, int64_t extra_at)
{
    bw_reader *r;
    bw_batch_ref batch;
    bw_err e = bw_part_open_reader(b, p, BW_LIMIT_VISIBLE, false, &r);
    if (e) {
        complain(t, "partition %d: no reader: %s", v->partition, bw_error_message());
        return;
    }
    bw_reader_seek(r, v->start);
    while (v->start < v->end && (e = bw_reader_next(r, &batch)) == BW_OK) {
        bw_record_iter it;
        bw_record_view record;
        int got;
        if (!bw_batch_crc_ok(batch.data, batch.size))
            complain(t, "partition %d: a batch with a wrong checksum is served", v->partition);
        if (batch.header.producer_id > t->newest_id) t->newest_id = batch.header.producer_id;
        bw_record_iter_init(&it, &batch.header, batch.data + BW_BATCH_HEADER_BYTES, batch.size - BW_BATCH_HEADER_BYTES);
        while ((got = bw_record_iter_next(&it, &record)) == 1)
            if (record.offset >= v->start) oracle_record(v, record.offset, record.value, record.value_len, extra_at);
        if (got < 0)
            complain(t, "partition %d: a batch at %lld that cannot be decoded", v->partition,
                     (long long)batch.header.base_offset);
    }
    if (v->start < v->end && e != BW_ERR_EMPTY)
        complain(t, "partition %d: reading: %s: %s", v->partition, bw_err_name(e), bw_error_message());
    bw_reader_close(r);
    oracle_end(v);
}

static void check_partitions(trial *t, bw_broker *b, bool again)
{
    oracle_view v = {.oracle = t->oracle, .complain = complain, .opaque = t, .tally = &t->o->tally->oracle};
    for (int i = 0; i < BLOCK_PARTITIONS; i++) {
        bw_part *p = part_of(b, i);
        found *f = &t->found[i];
        int64_t start = 0, end = 0, durable;
        if (p) bw_part_range(p, &start, &end, &durable);
        oracle_begin(&v, i, start, end, p ? (int32_t)bw_partition_slot(p->log)->leader_epoch : 0);
        if (again && (end != f->end || start < f->start))
            complain(t, "partition %d: %lld to %lld, the time before %lld to %lld", i, (long long)start, (long long)end,
                     (long long)f->start, (long long)f->end);
        if (p) read_partition(t, b, p, &v, again ? f->extra : -1);
        if (!again) *f = (found){start, end, -1};
    }
}

static void check_topics(trial *t, bw_broker *b)
{
    char name[32];
    for (uint32_t i = 0; i < oracle_topics(t->oracle); i++) {
        topic_must must = oracle_topic(t->oracle, i);
        snprintf(name, sizeof name, "made-%u", i);
        bw_topic *topic = bw_topic_find(b, bw_str_of(name));
        int64_t start, end = 0, durable;
        if (topic && topic->part_count && topic->parts[0]->log) bw_part_range(topic->parts[0], &start, &end, &durable);
        if (!topic && (must == TOPIC_MUST_BE || must == TOPIC_MUST_BE_FILLED)) complain(t, "topic %s is lost", name);
        if (topic && must == TOPIC_MUST_NOT_BE) complain(t, "topic %s is back", name);
        if (topic && must == TOPIC_MUST_BE_FILLED && end < 1) complain(t, "topic %s lost its record", name);
        if (topic && topic->config.segment_bytes != 65536) complain(t, "topic %s lost its configuration", name);
        if (topic) atomic_fetch_add(&t->o->tally->oracle.topics, 1);
    }
    bw_topic *topic, *tmp;
    HASH_ITER(by_name, b->topics_by_name, topic, tmp)
    {
        uint32_t n;
        bool ours = strcmp(topic->name, BLOCK_TOPIC) == 0 || strcmp(topic->name, BLOCK_TOPIC_KEPT) == 0;
        if (!ours && (sscanf(topic->name, "made-%u", &n) != 1 || oracle_topic(t->oracle, n) == TOPIC_UNKNOWN))
            complain(t, "topic %s was never made", topic->name);
    }
}

/* Folders of topics that are not there, and what is left of a creation or a deletion. */
static bool check_name(void *opaque, const char *name)
{
    void **both = opaque;
    char topic[BW_TOPIC_NAME_MAX + 1], *dash;
    snprintf(topic, sizeof topic, "%s", name);
    size_t n = strlen(name);
    bool left = (n > 4 && strcmp(name + n - 4, "-new") == 0) || (n > 7 && strcmp(name + n - 7, "-delete") == 0);
    dash = strrchr(topic, '-');
    bool folder = dash && dash[1] >= '0' && dash[1] <= '9' && strspn(dash + 1, "0123456789") == strlen(dash + 1);
    if (folder) *dash = 0;
    if (left || (folder && !bw_topic_find(both[1], bw_str_of(topic))))
        complain(both[0], "%s is left in the data directory", name);
    return true;
}

static void check_store(trial *t, bw_broker *b)
{
    int64_t id;
    void *both[2] = {t, b};
    if (bw_store_producer_id(b->store, &id))
        complain(t, "no producer id: %s", bw_error_message());
    else if (id <= t->newest_id)
        complain(t, "producer id %lld is given out, the log has batches of %lld", (long long)id, (long long)t->newest_id);
    (void)bw_os_list_dir(b->dir->fd, check_name, both);
}

/* One record more in each partition, and wait until it is durable. */
static void append_extra(trial *t, bw_broker *b)
{
    bw_batch_builder builder;
    bw_batch_options options = BW_BATCH_OPTIONS_INIT;
    bw_record record = {.value = "after the power came back", .value_len = 25, .timestamp_ms = 1};
    uint8_t *bytes;
    size_t len;
    bw_batch_builder_init(&builder);
    if (bw_batch_builder_add(&builder, &record) || bw_batch_builder_finish(&builder, &options, &bytes, &len)) abort();
    for (int i = 0; i < BLOCK_PARTITIONS; i++) {
        bw_part *p = part_of(b, i);
        if (!p) continue;
        bw_appender *a;
        bw_append_result result;
        bw_appender_options ao = {
            .control = p->topic->control, .partition = p->index, .dir_fd = bw_partition_dir_fd(p->log), .use_pwrite = true};
        bw_err e = bw_appender_open(&ao, &a);
        if (!e) e = bw_append(a, bytes, len, 1, 1, bw_deadline_in_ms(DURABLE_MS), &result);
        if (e || result.base_offset != t->found[i].end) {
            complain(t, "partition %d: no append behind %lld: %s", i, (long long)t->found[i].end, bw_error_message());
            continue;
        }
        bw_appender_close(a);
        if ((e = bw_partition_sync(p->log)) != BW_OK) complain(t, "partition %d: no sync: %s", i, bw_error_message());
        t->found[i].extra = t->found[i].end++;
    }
    bw_batch_builder_fini(&builder);
    atomic_fetch_add(&t->o->tally->appended, 1);
}

static void take_finding(void *opaque, const bw_finding *f)
{
    if (f->is_error) complain(opaque, "verify: %s at %llu: %s", f->path, (unsigned long long)f->position, f->message);
}

/* Partitions are opened in the background. */
static void wait_until_open(trial *t, bw_broker *b)
{
    int looks = 0; /* no wall clock: this machine may be stopped meanwhile */
    for (uint32_t i = 0; i < b->parts_count; i++) { /* nobody makes or deletes one meanwhile */
        const bw_part *p = b->parts[i];
        if (!p) continue;
        while (atomic_load(&p->stage) == BW_PART_UNOPENED && looks++ < OPEN_LOOKS) usleep(500);
        if (atomic_load(&p->stage) == BW_PART_UNOPENED) complain(t, "a partition of %s is not opened", p->topic->name);
    }
}

/* ---- children ---- */

typedef enum child_task { CHILD_FIRST, CHILD_FIRST_AND_APPEND, CHILD_AGAIN } child_task;

static void bring_up(trial *t, child_task task, bool clean, bool verify)
{
    bw_daemon_config c;
    bw_broker *b;
    bw_daemon_config_init(&c);
    c.log_level = BW_LOG_DEBUG;
    t->newest_id = -1;
    if (bw_daemon_config_set(&c, "data-dir", t->data) || bw_daemon_config_set(&c, "runtime-dir", t->runtime)) abort();
    c.event = take_broker_event;
    c.event_opaque = t;
    bw_err e = bw_broker_start(&c, &b);
    if (e) {
        complain(t, "the broker does not start: %s: %s", bw_err_name(e), bw_error_message());
        return;
    }
    wait_until_open(t, b);
    check_partitions(t, b, task == CHILD_AGAIN);
    check_topics(t, b);
    check_store(t, b);
    if (task == CHILD_FIRST_AND_APPEND) append_extra(t, b);
    if (clean) bw_broker_stop(b);
    if (!verify) return;
    bw_verify_totals totals;
    (void)bw_verify(t->data, take_finding, NULL, t, &totals);
    atomic_fetch_add(&t->o->tally->verified, 1);
}

static void fork_bring_up(trial *t, child_task task, bool clean, bool verify)
{
    int status;
    block_empty_folder(t->runtime);
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0) abort();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        alarm(CHILD_SECONDS);
        bring_up(t, task, clean, verify);
        _exit(0);
    }
    waitpid(pid, &status, 0);
    if (!WIFEXITED(status) || WEXITSTATUS(status))
        complain(t, "the process died: %s %d", WIFSIGNALED(status) ? "signal" : "exit code",
                 WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
}

/* buswayd itself, and a client that counts what it is given. */
static void run_program(trial *t)
{
    char url[220], listen[180], fd[16];
    int ready[2], status;
    int64_t count[BLOCK_PARTITIONS] = {0};
    block_empty_folder(t->runtime);
    snprintf(listen, sizeof listen, "ipc://%s/bus.sock", t->runtime);
    snprintf(url, sizeof url, "%s?transport=ipc", listen);
    if (pipe(ready)) abort();
    snprintf(fd, sizeof fd, "%d", ready[1]);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(ready[0]);
        execl(t->o->buswayd, "buswayd", "--data-dir", t->data, "--runtime-dir", t->runtime, "--listen", listen, "--listen-rep",
              "none", "--ready-fd", fd, "--log-level", "error", (char *)NULL);
        _exit(127);
    }
    close(ready[1]);
    bool up = read(ready[0], fd, sizeof fd) > 0;
    close(ready[0]);
    if (!up) complain(t, "buswayd does not come up");
    bw_bus *bus = NULL;
    bw_consumer *c = NULL;
    bw_consumer_options co = BW_CONSUMER_OPTIONS_INIT;
    co.auto_offset_reset = BW_RESET_EARLIEST;
    if (up && (bw_bus_open(url, NULL, &bus) || bw_consumer_open(bus, &co, &c))) complain(t, "no client: %s", bw_error_message());
    for (int i = 0; c && i < BLOCK_PARTITIONS; i++) {
        if (t->found[i].end == 0) continue;
        const char *topic = i == BLOCK_KEPT ? BLOCK_TOPIC_KEPT : BLOCK_TOPIC;
        int64_t next = t->found[i].start;
        bw_batch b;
        bw_err e = bw_consumer_assign(c, topic, i == BLOCK_KEPT ? 0 : i, BW_OFFSET_BEGINNING);
        while (!e && next < t->found[i].end && (e = bw_consumer_poll(c, DURABLE_MS, &b)) == BW_OK)
            next = b.last_offset + 1, count[i] += b.count;
        if (e || next != t->found[i].end)
            complain(t, "a client read partition %d up to %lld of %lld: %s", i, (long long)next, (long long)t->found[i].end,
                     bw_error_message());
        (void)bw_consumer_unassign(c, topic, i == BLOCK_KEPT ? 0 : i);
    }
    bw_consumer_close(c);
    bw_bus_close(bus);
    kill(pid, SIGTERM);
    waitpid(pid, &status, 0);
    if (!WIFEXITED(status) || WEXITSTATUS(status)) complain(t, "buswayd did not stop cleanly: status %x", (unsigned)status);
    atomic_fetch_add(&t->o->tally->programs, 1);
}

/* ---- one image ---- */

/* The served disk becomes `from` again, where it was touched. */
static void restore(trial *t, const uint8_t *from)
{
    for (size_t i = 0; i < BLOCK_PAGES; i++) {
        if (!t->disk.touched[i]) continue;
        memcpy(t->disk.bytes + i * BLOCK_PAGE, from + i * BLOCK_PAGE, BLOCK_PAGE);
        t->disk.touched[i] = 0;
    }
    atomic_store(&t->disk.log->count, 0);
    atomic_store(&t->disk.log->bytes, 0);
    atomic_store(&t->disk.log->full, false);
}

static bool mounted(trial *t)
{
    if (block_mount(&t->disk, t->mount, t->o->recording->mount_options)) return true;
    complain(t, "ext4 does not mount: %s", strerror(errno));
    return false;
}

static bool unmounted(trial *t)
{
    if (block_unmount(t->mount)) return true;
    complain(t, "umount: %s", strerror(errno));
    return false;
}

/* The power fails again while the first recovery runs: some of what it wrote, on the image that it began with. */
static bool cut_recovery(trial *t, uint64_t length)
{
    uint64_t from = 0;
    image_choice c = {.cut = 0};
    if (length == 0) return true;
    for (size_t i = 0; i < BLOCK_PAGES; i++)
        if (t->disk.touched[i])
            memcpy(t->disk.bytes + i * BLOCK_PAGE, (t->chosen[i] ? t->twin : t->base) + i * BLOCK_PAGE, BLOCK_PAGE);
    c.cut = 1 + rng_next(&t->r) % length;
    image_apply_flushed(t->disk.log, c.cut, &from, t->disk.bytes, NULL);
    c.flushed = from;
    image_apply_subset(t->disk.log, &c, &t->r, t->disk.bytes, t->disk.touched);
    t->stage = "after a cut in its recovery";
    atomic_fetch_add(&t->o->tally->cut_recoveries, 1);
    if (!mounted(t)) return false;
    fork_bring_up(t, CHILD_FIRST, false, rng_chance(&t->r, 2));
    return unmounted(t);
}

/* For `again`: the data directory as the cut left it. */
static void keep_image(const trial *t)
{
    char command[700];
    if (t->o->only < 0 || !t->o->keep) return;
    snprintf(command, sizeof command, "rm -rf '%s/image'; cp -a '%s' '%s/image'", t->o->keep, t->data, t->o->keep);
    if (system(command) == 0) printf("the image is in %s/image\n", t->o->keep);
}

static bool try_image(trial *t)
{
    block_tally *tally = t->o->tally;
    bool append = rng_chance(&t->r, 5), cut_again = !append && rng_chance(&t->r, 4),
         program = !append && !cut_again && rng_chance(&t->r, 20);
    bool again = append || rng_chance(&t->r, 6), clean = again && rng_chance(&t->r, 3);
    image_apply_subset(&t->o->recording->log, &t->choice, &t->r, t->disk.bytes, t->disk.touched);
    atomic_fetch_add(&tally->images, 1);
    atomic_fetch_add(&tally->writes_dropped, t->choice.cut - t->choice.flushed - t->choice.applied);
    atomic_fetch_add(&tally->torn, t->choice.torn);
    memcpy(t->chosen, t->disk.touched, sizeof t->chosen);
    for (size_t i = 0; cut_again && i < BLOCK_PAGES; i++)
        if (t->chosen[i]) memcpy(t->twin + i * BLOCK_PAGE, t->disk.bytes + i * BLOCK_PAGE, BLOCK_PAGE);
    t->stage = "first recovery";
    if (!mounted(t)) return false;
    keep_image(t);
    fork_bring_up(t, append ? CHILD_FIRST_AND_APPEND : CHILD_FIRST, clean, rng_chance(&t->r, 4));
    uint64_t length = atomic_load(&t->disk.log->count);
    if (again) {
        t->stage = clean ? "again after a clean stop" : "again";
        fork_bring_up(t, CHILD_AGAIN, false, false);
    }
    t->stage = "by buswayd";
    if (program) run_program(t);
    if (!unmounted(t)) return false;
    return !cut_again || cut_recovery(t, length);
}

static void keep_recording(const trial *t)
{
    char path[300];
    const recording *r = t->o->recording;
    if (!t->o->keep) return;
    snprintf(path, sizeof path, "%s/recording-%llu", t->o->keep, (unsigned long long)t->o->seed);
    if (access(path, F_OK) == 0) return;
    FILE *f = fopen(path, "w");
    if (!f) return;
    uint64_t head[3] = {r->log.count, r->log.bytes, r->event_count};
    bool good = fwrite(head, sizeof head, 1, f) == 1 && fwrite(r->log.writes, sizeof r->log.writes[0], head[0], f) == head[0] &&
                fwrite(r->log.data, 1, head[1], f) == head[1] && fwrite(r->first, 1, BLOCK_DISK_BYTES, f) == BLOCK_DISK_BYTES &&
                fwrite(r->events, sizeof r->events[0], head[2], f) == head[2] &&
                fwrite(r->file_system, 1, sizeof r->file_system, f) > 0 &&
                fwrite(r->mount_options, 1, sizeof r->mount_options, f) > 0;
    good = fclose(f) == 0 && good;
    if (good)
        fprintf(stderr, "  kept: %s; look at it again with: block again %s %llu IMAGES %llu\n", path, path,
                (unsigned long long)t->o->seed, (unsigned long long)t->number);
}

static int compare_cuts(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static uint64_t *choose_cuts(const trial_options *o)
{
    rng r = {.state = o->seed * 77 + 5};
    uint64_t *cuts = malloc(o->images * sizeof *cuts);
    if (!cuts) abort();
    for (uint64_t i = 0; i < o->images; i++) cuts[i] = image_cut(&r, &o->recording->log);
    qsort(cuts, o->images, sizeof *cuts, compare_cuts);
    return cuts;
}

static bool run_all(trial *t)
{
    const trial_options *o = t->o;
    const recording *rec = o->recording;
    uint64_t *cuts = choose_cuts(o);
    bool good = true;
    for (uint64_t i = 0; i < o->images && good && block_now_ms() < o->until_ms && atomic_load(&o->tally->failures) == 0; i++) {
        if (i % (uint64_t)o->workers != (uint64_t)o->worker || (o->only >= 0 && i != (uint64_t)o->only)) continue;
        restore(t, t->base);
        image_apply_flushed(&rec->log, cuts[i], &t->flushed, t->base, t->disk.bytes);
        oracle_advance(t->oracle, cuts[i]);
        t->number = i;
        t->r.state = o->seed * UINT64_C(1000003) + i;
        t->choice = (image_choice){.cut = cuts[i], .flushed = t->flushed};
        good = try_image(t);
        if (atomic_load(&o->tally->failures)) keep_recording(t);
    }
    free(cuts);
    return good;
}

bool trial_run(const trial_options *o)
{
    static trial t;
    char folder[128];
    const char *why;
    t = (trial){.o = o, .stage = ""};
    snprintf(t.mount, sizeof t.mount, "%s/mount-%d", o->root, o->worker);
    snprintf(t.data, sizeof t.data, "%s/data", t.mount);
    snprintf(t.runtime, sizeof t.runtime, "%s/run-%d", o->root, o->worker);
    snprintf(folder, sizeof folder, "%s/fuse-%d", o->root, o->worker);
    (void)mkdir(t.mount, 0700);
    (void)mkdir(folder, 0700);
    t.disk.log = block_shared_memory(sizeof *t.disk.log);
    t.disk.bytes = block_shared_memory(BLOCK_DISK_BYTES);
    t.disk.touched = block_shared_memory(BLOCK_PAGES);
    t.base = block_shared_memory(BLOCK_DISK_BYTES);
    t.twin = block_shared_memory(BLOCK_DISK_BYTES);
    t.found = block_shared_memory(BLOCK_PARTITIONS * sizeof *t.found);
    t.oracle = oracle_new(o->recording);
    memcpy(t.base, o->recording->first, BLOCK_DISK_BYTES);
    memcpy(t.disk.bytes, o->recording->first, BLOCK_DISK_BYTES);
    if (!block_disk_start(&t.disk, folder, &why)) {
        fprintf(stderr, "block: %s: %s\n", why, strerror(errno));
        return false;
    }
    bool good = run_all(&t);
    block_disk_stop(&t.disk);
    oracle_free(t.oracle);
    return good && atomic_load(&o->tally->failures) == 0;
}
