/* tests/battery/block_scene.c: what is done to a data directory while its disk is recorded.
 *
 * A daemon with small segments and short intervals; writers on both transports (batches, one record, reserved in place,
 * asynchronous; waiting for visible or durable); a reader of each limit; an administrator who makes, fills and deletes topics and
 * deletes records. Meanwhile the daemon and the writers are killed and started again, the daemon is stopped cleanly, or
 * everything is killed and the control data removed, so that the logs are recovered from their files. Now and then dirty pages
 * are pushed out without a flush, as the kernel does in its own time. Everything ends cleanly. */
#include "block.h"

#include <busway/busway.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CALL_MS = 3000, BATCH_MAX = 12, IN_FLIGHT = 24, READY_MS = 30000, END_MS = 60000 };
enum {
    DAEMON,
    DIRECT_BATCHES,
    DIRECT_DURABLE,
    DIRECT_RESERVES,
    SOCKET_ASYNC,
    SOCKET_DURABLE,
    READER,
    READER_DURABLE,
    ADMIN,
    ROLES
};

typedef struct scene {
    recording *r;
    const scene_options *o;
    block_disk disk;
    rng random;
    pid_t pids[ROLES];
    bool calm; /* hardly anybody waits for durable: many writes between two flushes */
    char url[2][200], mount[128], data[160], runtime[128], log[160];
} scene;

static volatile sig_atomic_t stopping;
static void on_term(int sig)
{
    (void)sig;
    stopping = 1;
}

static bool run_program(const char *const argv[])
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        int null = open("/dev/null", O_WRONLY);
        dup2(null, 1);
        execvp(argv[0], (char **)(uintptr_t)argv);
        _exit(127);
    }
    return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* ---- writers ---- */

typedef struct writer {
    recording *r;
    bw_bus *bus;
    bw_producer *producer;
    rng random;
    uint32_t id, sequence;
    bool durable;
    int outstanding;
} writer;

typedef struct sent {
    writer *w;
    uint32_t sequence;
    int partition;
} sent;

static const char *topic_of(int partition) { return partition == BLOCK_KEPT ? BLOCK_TOPIC_KEPT : BLOCK_TOPIC; }
static int number_of(int partition) { return partition == BLOCK_KEPT ? 0 : partition; }

static void outcome(const writer *w, int partition, uint32_t sequence, uint16_t count, bw_err e, int64_t offset,
                    const char *message)
{
    if (!e)
        block_note(w->r, w->durable ? EVENT_DURABLE : EVENT_ACK, partition, w->id, sequence, count, offset);
    else
        fprintf(stderr, "producer %u sequence %u: %s: %s\n", w->id, sequence, bw_err_name(e), message ? message : "");
    if (e == BW_ERR_CORRUPT || e == BW_ERR_POISONED || e == BW_ERR_IO || e == BW_ERR_INTERNAL || e == BW_ERR_LOCK_LOST) {
        fprintf(stderr, "VIOLATION while it was recorded: producer %u: %s: %s\n", w->id, bw_err_name(e), message ? message : "");
        atomic_store(&w->r->bad, 1);
    }
    if (e) usleep(2000);
}

static void on_delivery(void *opaque, const bw_delivery *d)
{
    sent *s = opaque;
    s->w->outstanding--;
    outcome(s->w, s->partition, s->sequence, 1, d->error, d->offset, d->message);
    free(s);
}

static void send_async(writer *w, int partition)
{
    uint8_t value[8 + BLOCK_FILLING_MAX];
    sent *s = malloc(sizeof *s);
    if (!s) return;
    *s = (sent){w, w->sequence++, partition};
    bw_record r = {.value = value, .value_len = block_value_make(value, w->id, s->sequence), .timestamp_ms = BW_NO_TIMESTAMP};
    block_note(w->r, EVENT_TRY, partition, w->id, s->sequence, 1, -1);
    w->outstanding++;
    if (bw_producer_send(w->producer, topic_of(partition), number_of(partition), &r, on_delivery, s, CALL_MS)) {
        w->outstanding--;
        free(s);
        usleep(2000);
    }
    while (w->outstanding > IN_FLIGHT && !stopping) bw_producer_poll(w->producer, 20);
    bw_producer_poll(w->producer, 0);
}

static void send_reserved(writer *w, int partition)
{
    uint8_t value[8 + BLOCK_FILLING_MAX];
    uint32_t sequence = w->sequence++;
    size_t len = block_value_make(value, w->id, sequence);
    bw_reservation place;
    bw_delivery d = {.offset = -1};
    block_note(w->r, EVENT_TRY, partition, w->id, sequence, 1, -1);
    bw_err e = bw_producer_reserve(w->producer, topic_of(partition), number_of(partition), NULL,
                                   len + rng_below(&w->random, 1500), CALL_MS, &place);
    if (!e) {
        memset(place.value, 0xee, place.value_max);
        memcpy(place.value, value, len);
        if (rng_chance(&w->random, 8)) {
            bw_producer_abort(w->producer, &place);
            return;
        }
        e = bw_producer_commit(w->producer, &place, len, CALL_MS, &d);
    }
    outcome(w, partition, sequence, 1, e, d.offset, bw_error_message());
}

static void send_batch(writer *w, int partition, int most)
{
    static uint8_t values[BATCH_MAX][8 + BLOCK_FILLING_MAX];
    bw_record records[BATCH_MAX];
    int count = 1 + (int)rng_below(&w->random, (uint32_t)most);
    uint32_t first = w->sequence;
    for (int i = 0; i < count; i++) {
        size_t len = block_value_make(values[i], w->id, w->sequence++);
        records[i] = (bw_record){.value = values[i], .value_len = len, .timestamp_ms = BW_NO_TIMESTAMP};
    }
    bw_delivery d = {.offset = -1};
    block_note(w->r, EVENT_TRY, partition, w->id, first, (uint16_t)count, -1);
    bw_err e =
        bw_producer_send_batch(w->producer, topic_of(partition), number_of(partition), records, (size_t)count, CALL_MS, &d);
    outcome(w, partition, first, (uint16_t)count, e, d.offset, bw_error_message());
}

static bw_bus *open_bus(const char *url)
{
    bw_bus_options o = BW_BUS_OPTIONS_INIT;
    bw_bus *bus = NULL;
    o.connect_timeout_ms = 1000;
    o.request_timeout_ms = 5000;
    while (!stopping && bw_bus_open(url, &o, &bus)) usleep(5000);
    return bus;
}

static void be_writer(scene *s, int role)
{
    writer w = {.r = s->r, .id = atomic_fetch_add(&s->r->next_producer, 1) + 1, .random = s->random};
    bool socket = role == SOCKET_ASYNC || role == SOCKET_DURABLE;
    bw_producer_options o = BW_PRODUCER_OPTIONS_INIT;
    w.bus = open_bus(s->url[!socket]);
    w.durable = role == DIRECT_DURABLE || role == SOCKET_DURABLE || (role == SOCKET_ASYNC && w.id % 2);
    if (s->calm && role != DIRECT_DURABLE) w.durable = false;
    o.acks = w.durable ? BW_ACKS_DURABLE : BW_ACKS_VISIBLE;
    o.delivery_timeout_ms = 10000;
    if (!w.bus || bw_producer_open(w.bus, &o, &w.producer)) return;
    while (!stopping && !atomic_load(&s->r->log.full)) {
        int partition = (int)rng_below(&w.random, BLOCK_PARTITIONS);
        if (role == SOCKET_ASYNC)
            send_async(&w, partition);
        else if (role == DIRECT_RESERVES)
            send_reserved(&w, partition);
        else
            send_batch(&w, partition, role == DIRECT_BATCHES ? BATCH_MAX : 3);
        if (rng_chance(&w.random, 3)) usleep(rng_below(&w.random, 6000));
        if (s->calm && w.durable) usleep(rng_below(&w.random, 400000));
    }
    bw_producer_close(w.producer, CALL_MS);
    bw_bus_close(w.bus);
}

/* ---- readers and the administrator ---- */

static void note_starts(recording *r, bw_bus *bus)
{
    bw_offset_range range;
    if (bw_offsets_range(bus, BLOCK_TOPIC_KEPT, 0, &range) == BW_OK)
        block_note(r, EVENT_START, BLOCK_KEPT, 0, 0, 0, range.log_start);
}

static bool take_batch(const scene *s, bw_batch *b, bool durable)
{
    int partition = strcmp(b->topic, BLOCK_TOPIC_KEPT) == 0 ? BLOCK_KEPT : b->partition;
    bw_record_view v;
    uint32_t number, sequence;
    int got;
    while ((got = bw_batch_next(b, &v)) == 1)
        if (!block_value_check(v.value, v.value_len, &number, &sequence)) got = -1;
    if (got == 0)
        block_note(s->r, durable ? EVENT_SEEN_DURABLE : EVENT_SEEN, partition, 0, (uint32_t)b->leader_epoch, 0,
                   b->last_offset + 1);
    return got == 0;
}

static void be_reader(scene *s, bool durable)
{
    bw_bus *bus = open_bus(s->url[durable]);
    bw_consumer_options o = BW_CONSUMER_OPTIONS_INIT;
    bw_consumer *c = NULL;
    o.read_limit = durable ? BW_READ_DURABLE : BW_READ_VISIBLE;
    o.auto_offset_reset = BW_RESET_EARLIEST;
    if (!bus || bw_consumer_open(bus, &o, &c)) return;
    while (!stopping && bw_consumer_assign(c, BLOCK_TOPIC, BW_PARTITION_ANY, BW_OFFSET_BEGINNING)) usleep(5000);
    while (!stopping && bw_consumer_assign(c, BLOCK_TOPIC_KEPT, 0, BW_OFFSET_BEGINNING)) usleep(5000);
    int64_t next_look = 0;
    for (bool last = false; !last;) {
        bw_batch b;
        last = stopping;
        bw_err e = bw_consumer_poll(c, 20, &b);
        if (e == BW_ERR_CORRUPT || (!e && !take_batch(s, &b, durable))) {
            fprintf(stderr, "VIOLATION while it was recorded: a reader: %s: %s\n", bw_err_name(e), bw_error_message());
            atomic_store(&s->r->bad, 1);
        }
        if (e == BW_ERR_OFFSET_OUT_OF_RANGE)
            bw_consumer_seek(c, b.topic, b.partition, BW_OFFSET_BEGINNING);
        else if (e && e != BW_ERR_TIMED_OUT)
            usleep(5000);
        if (durable || (block_now_ms() < next_look && !last)) continue;
        for (int i = 0; i < 2; i++) note_starts(s->r, bus);
        next_look = block_now_ms() + 20;
    }
    bw_consumer_close(c);
    bw_bus_close(bus);
}

static void make_topic(scene *s, bw_bus *bus, bw_producer *producer)
{
    uint32_t n = atomic_fetch_add(&s->r->next_topic, 1);
    char name[32];
    bw_record record = {.value = "in it", .value_len = 5, .timestamp_ms = BW_NO_TIMESTAMP};
    if (n >= BLOCK_TOPICS_MAX) return;
    snprintf(name, sizeof name, "made-%u", n);
    const bw_config_entry config = {"segment.bytes", "65536"};
    block_note(s->r, EVENT_TOPIC_TRY, 0, n, 0, 0, 0);
    if (bw_topic_create(bus, name, 1 + (int)rng_below(&s->random, 2), &config, 1)) return;
    block_note(s->r, EVENT_TOPIC_MADE, 0, n, 0, 0, 0);
    if (bw_producer_send_sync(producer, name, 0, &record, CALL_MS, NULL) == BW_OK)
        block_note(s->r, EVENT_TOPIC_FILLED, 0, n, 0, 0, 0);
    if (rng_chance(&s->random, 3)) return;
    block_note(s->r, EVENT_TOPIC_DELETING, 0, n, 0, 0, 0);
    if (bw_topic_delete(bus, name) == BW_OK) block_note(s->r, EVENT_TOPIC_DELETED, 0, n, 0, 0, 0);
}

static void delete_records(scene *s, bw_bus *bus)
{
    bw_offset_range range;
    int partition = (int)rng_below(&s->random, 2);
    if (bw_offsets_range(bus, BLOCK_TOPIC, partition, &range) || range.end <= range.log_start) return;
    int64_t before = range.log_start + (int64_t)rng_below(&s->random, (uint32_t)(range.end - range.log_start)) / 2 + 1, start;
    block_note(s->r, EVENT_DELETE_TRY, partition, 0, 0, 0, before);
    if (bw_delete_records(bus, BLOCK_TOPIC, partition, before, &start) == BW_OK)
        block_note(s->r, EVENT_DELETE_DONE, partition, 0, 0, 0, before);
}

static void be_admin(scene *s)
{
    bw_bus *bus = open_bus(s->url[0]);
    bw_producer_options o = BW_PRODUCER_OPTIONS_INIT;
    bw_producer *producer = NULL;
    o.acks = BW_ACKS_DURABLE;
    if (!bus || bw_producer_open(bus, &o, &producer)) return;
    while (!stopping) {
        if (rng_chance(&s->random, 6))
            delete_records(s, bus);
        else
            make_topic(s, bus, producer);
        usleep(1000 + rng_below(&s->random, s->calm ? 400000 : 60000));
    }
    bw_producer_close(producer, CALL_MS);
    bw_bus_close(bus);
}

/* ---- the director ---- */

static void child_begins(const scene *s)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGTERM, on_term);
    signal(SIGPIPE, SIG_IGN);
    int log = open(s->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644), null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    dup2(null, 0);
    dup2(log, 2);
}

static void start_daemon(scene *s)
{
    int ready[2];
    char fd[16], byte[8], listen[220], flush[64];
    if (pipe(ready)) abort();
    snprintf(fd, sizeof fd, "%d", ready[1]);
    snprintf(listen, sizeof listen, "ipc://%s/bus.sock", s->runtime);
    snprintf(flush, sizeof flush, "log.flush.interval.ms=%d", s->calm ? 700 : 60);
    fflush(NULL);
    s->pids[DAEMON] = fork();
    if (s->pids[DAEMON] == 0) {
        child_begins(s);
        close(ready[0]);
        execl(s->o->buswayd, "buswayd", "--data-dir", s->data, "--runtime-dir", s->runtime, "--listen", listen, "--listen-rep",
              "none", "--ready-fd", fd, "--log-level", "warn", "--set", flush, "--set", "log.retention.check.interval.ms=200",
              (char *)NULL);
        _exit(127);
    }
    close(ready[1]);
    if (read(ready[0], byte, sizeof byte) <= 0) {
        fprintf(stderr, "VIOLATION while it was recorded: the daemon does not come up; %s says why\n", s->log);
        atomic_store(&s->r->bad, 1);
    }
    close(ready[0]);
}

static void start_role(scene *s, int role)
{
    if (role == DAEMON) {
        start_daemon(s);
        return;
    }
    (void)rng_next(&s->random);
    fflush(NULL);
    s->pids[role] = fork();
    if (s->pids[role] != 0) return;
    child_begins(s);
    s->random.state ^= (uint64_t)role << 32;
    if (role <= SOCKET_DURABLE)
        be_writer(s, role);
    else if (role == ADMIN)
        be_admin(s);
    else
        be_reader(s, role == READER_DURABLE);
    _exit(0);
}

static void end_role(scene *s, int role, int sig)
{
    int status;
    pid_t pid = s->pids[role];
    if (!pid) return;
    kill(pid, sig);
    int64_t until = block_now_ms() + END_MS;
    while (waitpid(pid, &status, WNOHANG) == 0) {
        usleep(1000);
        if (block_now_ms() < until) continue;
        fprintf(stderr, "scene: role %d does not end; %s may say why\n", role, s->log);
        kill(pid, SIGKILL);
        until = INT64_MAX;
    }
    s->pids[role] = 0;
}

static void start_all(scene *s)
{
    for (int i = 0; i < ROLES; i++)
        if (!s->pids[i]) start_role(s, i);
}

static void strike(scene *s)
{
    uint32_t dice = rng_below(&s->random, 20);
    if (dice < 5) {
        s->r->kills++;
        end_role(s, DAEMON, SIGKILL);
    } else if (dice < 8) {
        s->r->stops++;
        end_role(s, DAEMON, SIGTERM);
    } else if (dice < 14) {
        s->r->kills++;
        end_role(s, DIRECT_BATCHES + (int)rng_below(&s->random, 5), SIGKILL);
    } else if (dice < 16) { /* everybody: the logs are recovered from their files */
        s->r->cold++;
        for (int i = ROLES; i-- > 0;) end_role(s, i, SIGKILL);
        block_empty_folder(s->runtime);
    } else if (dice < 17) { /* a clean stop with nobody attached: the files are cut to their length */
        s->r->stops++;
        for (int i = ROLES; i-- > 0;) end_role(s, i, SIGTERM);
    }
    start_all(s);
}

/* Some file's dirty pages go to the disk, without a flush. */
static void push_out(scene *s)
{
    char path[420];
    DIR *dir = opendir(s->data);
    const struct dirent *e;
    while (dir && (e = readdir(dir))) {
        if (e->d_name[0] == '.' || rng_below(&s->random, 3)) continue;
        snprintf(path, sizeof path, "%s/%s", s->data, e->d_name);
        DIR *folder = opendir(path);
        while (folder && (e = readdir(folder))) {
            if (e->d_name[0] == '.' || rng_below(&s->random, 2)) continue;
            int fd = openat(dirfd(folder), e->d_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
            if (fd >= 0) (void)sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
            if (fd >= 0) close(fd);
        }
        if (folder) closedir(folder);
    }
    if (dir) closedir(dir);
}

static void play(scene *s)
{
    int64_t until = block_now_ms() + s->o->duration_ms, strike_at = block_now_ms() + 100;
    while (block_now_ms() < until && !atomic_load(&s->r->log.full) && !atomic_load(&s->r->bad)) {
        usleep(10000);
        if (rng_chance(&s->random, 4)) push_out(s);
        if (block_now_ms() < strike_at) continue;
        strike(s);
        strike_at = block_now_ms() + 30 + rng_below(&s->random, 250);
    }
    for (int i = ROLES; i-- > 0;) end_role(s, i, SIGTERM);
}

/* ---- the disk of the scene ---- */

/* Not data=writeback: there ext4 gives the blocks of a removed file to others before the removal is on the disk, so that after a cut a
 * segment that retention had removed is back with other files' bytes in it, and the log is cut there. */
static bool make_file_system(scene *s)
{
    char image[160];
    const char *block = rng_chance(&s->random, 3) ? "1024" : "4096";
    static const char *const modes[] = {"data=ordered", "data=ordered", "data=ordered,commit=1", "data=journal"};
    const char *const argv[] = {"mkfs.ext4",
                                "-q",
                                "-F",
                                "-b",
                                block,
                                "-N",
                                "4096",
                                "-J",
                                "size=4",
                                "-E",
                                "lazy_itable_init=0,lazy_journal_init=0,nodiscard",
                                image,
                                NULL};
    snprintf(image, sizeof image, "%s/fresh.img", s->o->root);
    snprintf(s->r->mount_options, sizeof s->r->mount_options, "%s", modes[rng_below(&s->random, 4)]);
    snprintf(s->r->file_system, sizeof s->r->file_system, "ext4, blocks of %s bytes, %s", block, s->r->mount_options);
    int fd = open(image, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    bool good = fd >= 0 && ftruncate(fd, BLOCK_DISK_BYTES) == 0 && run_program(argv) &&
                pread(fd, s->r->first, BLOCK_DISK_BYTES, 0) == BLOCK_DISK_BYTES;
    if (fd >= 0) close(fd);
    unlink(image);
    memcpy(s->r->last, s->r->first, BLOCK_DISK_BYTES);
    return good;
}

static bool make_topics(const scene *s)
{
    bw_bus *bus = open_bus(s->url[0]);
    const bw_config_entry config[] = {{"segment.bytes", "65536"}, {"file.delete.delay.ms", "300"}};
    const bw_config_entry kept[] = {{"segment.bytes", "65536"}, {"retention.bytes", "200000"}, {"file.delete.delay.ms", "0"}};
    bool good = bus && bw_topic_create(bus, BLOCK_TOPIC, 2, config, 2) == BW_OK &&
                bw_topic_create(bus, BLOCK_TOPIC_KEPT, 1, kept, 3) == BW_OK;
    if (!good) fprintf(stderr, "scene: topics: %s\n", bw_error_message());
    bw_bus_close(bus);
    return good;
}

bool scene_record(recording *r, const scene_options *o)
{
    static scene s;
    char folder[128];
    const char *why;
    s = (scene){.r = r, .o = o, .random = {.state = o->seed * UINT64_C(0x9e3779b97f4a7c15) + 7}};
    snprintf(s.mount, sizeof s.mount, "%s/mount", o->root);
    snprintf(s.data, sizeof s.data, "%s/data", s.mount);
    snprintf(s.runtime, sizeof s.runtime, "%s/run", o->root);
    snprintf(s.log, sizeof s.log, "%s/scene.log", o->root);
    snprintf(s.url[0], sizeof s.url[0], "ipc://%s/bus.sock?transport=ipc", s.runtime);
    snprintf(s.url[1], sizeof s.url[1], "ipc://%s/bus.sock?transport=direct", s.runtime);
    snprintf(folder, sizeof folder, "%s/fuse", o->root);
    r->seed = o->seed;
    s.calm = rng_chance(&s.random, 2);
    s.disk = (block_disk){.log = &r->log, .bytes = r->last, .touched = r->touched};
    if (!make_file_system(&s)) {
        fprintf(stderr, "scene: mkfs.ext4 failed\n");
        return false;
    }
    if (!block_disk_start(&s.disk, folder, &why)) {
        fprintf(stderr, "scene: %s: %s\n", why, strerror(errno));
        return false;
    }
    bool good = block_mount(&s.disk, s.mount, r->mount_options);
    if (!good) perror("scene: mount");
    if (good) {
        block_empty_folder(s.runtime);
        start_daemon(&s);
        good = !atomic_load(&r->bad) && make_topics(&s);
        start_all(&s);
        if (good) play(&s);
        for (int i = ROLES; i-- > 0;) end_role(&s, i, SIGKILL);
        if (!block_unmount(s.mount)) {
            perror("scene: umount");
            good = false;
        }
    }
    block_disk_stop(&s.disk);
    return good && !atomic_load(&r->bad);
}
