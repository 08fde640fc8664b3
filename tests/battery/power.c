/* tests/battery/power.c: power loss, page by page. `power SEED IMAGES [SECONDS [PROGRESS]]`: worlds from SEED on until so many
 * images were tried (or, with SECONDS, until then). PROGRESS: a file that keeps what was tried, so that a later run goes on. Each
 * world is a partition with tiny segments that lives through appends (through a map, by pwrite, reserved in place, some while a sync
 * runs), syncs, rolls, seals, retention, deletion of records, compaction, clean stops, daemons killed, and power cuts, also in the middle of a
 * recovery. See oracle.c for what is checked, disk.h for what a cut leaves, memfs.h for why it is fast. */
#include "world.h"

#include "base/clock.h"
#include "log/compact.h"
#include "log/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- appends ---- */

/* A batch of random bytes; size > 0: of exactly that many bytes if it can be done. */
static uint8_t *make_batch(world *w, uint32_t size, int32_t *count, size_t *len)
{
    static uint8_t value[64 << 10];
    uint8_t *bytes = NULL;
    uint32_t want = rng_below(&w->r, 8) ? 20 + rng_below(&w->r, 1500) : 20 + rng_below(&w->r, 9000);
    uint32_t most = w->config.segment_bytes - 200;
    if (want > most) want = most;
    if (size) want = size > 100 && size < most ? size - 75 : 20;
    *count = size ? 1 : 1 + (int32_t)rng_below(&w->r, 3);
    for (size_t i = 0; i < want || i < size; i += 8) { /* fresh bytes to the end: one that was given up differs in every sector */
        uint64_t x = rng_next(&w->r);
        memcpy(value + i, &x, 8);
    }
    w->next_ts++;
    for (int tries = 0; tries < 6; tries++) {
        bw_batch_options o = BW_BATCH_OPTIONS_INIT;
        bw_batch_builder_reset(&w->builder);
        for (int i = 0; i < *count; i++) {
            bw_record r = {.value = value, .value_len = want / (uint32_t)*count, .timestamp_ms = w->next_ts};
            if (bw_batch_builder_add(&w->builder, &r)) world_die("batch");
        }
        if (bw_batch_builder_finish(&w->builder, &o, &bytes, len)) world_die("batch");
        if (!size || *len == size || (int64_t)want + size - (int64_t)*len < 1) break;
        want = (uint32_t)((int64_t)want + size - (int64_t)*len);
    }
    return bytes;
}

static void in_flight(world *w, const uint8_t *bytes, size_t len, int32_t count)
{
    int64_t base = w->own.slot->next_offset;
    model_add(&w->m, bytes, len, base, base + count, (int32_t)w->own.slot->leader_epoch);
    w->m.in_flight = true;
}

static void landed(world *w, bool good)
{
    w->m.in_flight = false;
    if (good) w->m.visible = w->m.batches[w->m.count - 1].next;
    else model_drop_last(&w->m);
}

static void reserve_and_commit(world *w, const uint8_t *bytes, size_t len, int32_t count, bool cuts)
{
    uint8_t *place;
    bw_append_result result;
    size_t more = rng_below(&w->r, 2) ? rng_below(&w->r, 300) : 0;
    bw_err e = bw_append_reserve(w->mapped, len + more, count, bw_deadline_in_ms(0), &place);
    if (e) return;
    in_flight(w, bytes, len, count);
    size_t half = rng_below(&w->r, (uint32_t)len + 1);
    memcpy(place, bytes, half);
    disk_look(w->disk);
    if (cuts && rng_chance(&w->r, 8)) world_cut(w);
    if (rng_chance(&w->r, 6)) { /* changed its mind */
        bw_append_abort(w->mapped);
        landed(w, false);
        return;
    }
    memcpy(place + half, bytes + half, len - half);
    if (more) memset(place + len, 0xee, more);
    disk_look(w->disk);
    if (cuts && rng_chance(&w->r, 8)) world_cut(w);
    bw_append_commit(w->mapped, len, w->next_ts, &result);
    landed(w, true);
}

static void append(world *w, bool cuts)
{
    if (w->busy) return;
    w->busy = true;
    bw_position tail = w->own.slot->tail;
    uint32_t left = w->config.segment_bytes - bw_u32_min(bw_position_pos(tail), w->config.segment_bytes);
    int32_t count;
    size_t len;
    uint8_t *bytes = make_batch(w, left > 90 && left < 9000 && rng_chance(&w->r, 3) ? left : 0, &count, &len);
    uint32_t how = rng_below(&w->r, 4);
    if (how == 0) {
        reserve_and_commit(w, bytes, len, count, cuts);
    } else {
        bw_append_result result;
        in_flight(w, bytes, len, count);
        bw_err e = bw_append(how == 1 ? w->plain : w->mapped, bytes, len, count, w->next_ts, bw_deadline_in_ms(0), &result);
        if (e && e != BW_ERR_NO_COORDINATOR) world_die("append");
        landed(w, !e);
    }
    if (bw_position_seq(w->own.slot->tail) != bw_position_seq(tail)) w->tally->rolls++;
    w->busy = false;
}

/* ---- a life ---- */

static void observe(void *opaque, const bw_os_event *e)
{
    world *w = opaque;
    disk_hear(w->disk, e);
    if (w->trace && e->done) { /* BATTERY_TRACE: to follow what led to a violation */
        static const char *const names[] = {
#define NAME(call) #call,
            BW_OS_CALLS(NAME)
#undef NAME
        };
        char link[64], path[256] = "";
        snprintf(link, sizeof link, "/proc/self/fd/%d", e->call == BW_OS_open ? (int)e->result : e->fd);
        if (readlink(link, path, sizeof path - 1) < 0) path[0] = 0;
        fprintf(stderr, "%llu %s %s %s %s at %lld len %lld = %lld; tail %llx durable %lld\n", (unsigned long long)w->tally->images,
                names[e->call], strrchr(path, '/') ? strrchr(path, '/') : path, e->name ? e->name : "", e->name2 ? e->name2 : "",
                (long long)e->at, (long long)e->len, (long long)e->result, (unsigned long long)w->own.slot->tail,
                (long long)w->own.slot->durable_offset);
    }
    if (e->done && e->call == BW_OS_rename && e->result == 0 && e->name2 && strstr(e->name2, ".spare")) w->tally->reused++;
    bool is_sync = e->call == BW_OS_fdatasync || e->call == BW_OS_fsync;
    if (w->syncing && is_sync && rng_chance(&w->r, 4)) append(w, false);
    if (rng_chance(&w->r, w->recovering ? 3 : is_sync || e->call != BW_OS_pwrite ? 12 : 40)) {
        world_cut(w);
        bw_os_observe(observe, w);
    }
}

static void watch(world *w) { bw_os_observe(observe, w); }

static void cut_here(world *w)
{
    world_cut(w);
    watch(w);
}

static void store_point(world *w)
{
    bw_recovery_point point;
    if (!bw_partition_recovery_point(w->p, &point, NULL)) return;
    if (w->points.count == 2) w->points.item[0] = w->points.item[1];
    else w->points.count++;
    w->points.item[w->points.count - 1] = point;
}

static void open_appenders(world *w)
{
    bw_appender_options o = {.control = w->own.control, .dir_fd = bw_partition_dir_fd(w->p)};
    if (bw_appender_open(&o, &w->mapped)) world_die("appender");
    o.use_pwrite = true;
    if (bw_appender_open(&o, &w->plain)) world_die("appender");
}

static void close_appenders(world *w)
{
    bw_appender_close(w->mapped);
    bw_appender_close(w->plain);
    w->mapped = w->plain = NULL;
}

static bool start(world *w, bool fresh)
{
    bw_recovery_report report;
    bw_partition_open_options o = {.data_fd = w->data_fds[w->at], .topic = WORLD_TOPIC, .control = w->own.control, .bus_number = 1,
                                   .fresh_slot = fresh, .config = w->config};
    if (w->points.count) o.point = w->points.item[w->points.count - 1];
    o.just_created = w->p == NULL && w->tally->lives == w->lives_before;
    if (fresh) memory_forget(&w->own);
    w->recovering = fresh;
    watch(w);
    bw_err e = bw_partition_open(&o, &w->p, &report);
    w->recovering = false;
    if (e || report.quarantined || report.foreign) {
        fprintf(stderr, "VIOLATION seed %llu: the log does not open: %s %s\n", (unsigned long long)w->seed, bw_error_message(), report.detail);
        w->tally->failures++;
        return false;
    }
    bw_partition_info info;
    bw_partition_info_get(w->p, &info);
    model *m = &w->m;
    if (info.end_offset < m->durable || info.log_start < m->deleted) {
        fprintf(stderr, "VIOLATION seed %llu: the log opens with %lld to %lld\n", (unsigned long long)w->seed, (long long)info.log_start,
                (long long)info.end_offset);
        w->tally->failures++;
        return false;
    }
    model_cut(m, info.end_offset);
    m->visible = info.end_offset;
    m->start = info.log_start;
    m->epoch = info.leader_epoch;
    open_appenders(w);
    return true;
}

static void delete_records(world *w)
{
    int64_t before = w->m.start + (int64_t)rng_below(&w->r, (uint32_t)(w->m.visible - w->m.start) + 1), log_start;
    if (before > w->m.start) w->m.start = before; /* under way: may be true from now on */
    if (bw_partition_delete_records(w->p, before, &log_start)) world_die("delete records");
    if (before > w->m.deleted) w->m.deleted = before;
    w->tally->deletions++;
}

static void sync_log(world *w)
{
    w->syncing = true;
    if (bw_partition_sync(w->p)) world_die("sync");
    w->syncing = false;
    world_note(w);
}

/* The records have no keys: all of them stay, as they are, and small segments become one: what is tried is the swap. */
static void compact(world *w)
{
    bw_compact_options o = {.max_lag_ms = INT64_MAX, .now_ms = bw_clock_wall_ms(), .max_plain = 1 << 20, .force = true};
    bw_compact_report r;
    w->p->config.segment_bytes *= 2; /* so that full ones are merged too */
    bw_err e = bw_partition_compact(w->p, &o, &r);
    w->p->config.segment_bytes /= 2;
    if (e && e != BW_ERR_EMPTY && e != BW_ERR_BUSY) world_die("compact");
    if (!e && r.segments_after < r.segments_before) w->tally->compactions++;
}

static void step(world *w)
{
    uint32_t deleted;
    switch (rng_below(&w->r, 26)) {
    case 0:
    case 1:
    case 2:
        sync_log(w);
        break;
    case 3:
    case 4:
        store_point(w);
        break;
    case 5:
        if (rng_chance(&w->r, 3)) delete_records(w);
        break;
    case 6:
        if (w->m.start < w->own.slot->next_offset) w->m.start = w->own.slot->next_offset; /* it may delete up to there */
        if (bw_partition_retain(w->p, bw_clock_wall_ms(), &deleted)) world_die("retain");
        w->m.start = w->own.slot->log_start > w->m.deleted ? w->own.slot->log_start : w->m.deleted;
        break;
    case 7:
        w->p->last_tick_ms = -BW_TICK_MS; /* a second has passed */
        break;
    case 8:
        if (rng_chance(&w->r, 3)) w->p->roll_wanted = true;
        break;
    case 9:
        if (bw_partition_wants_folder(w->p) && bw_partition_sync_folder(w->p)) world_die("sync the folder");
        break;
    case 10:
        compact(w);
        break;
    default:
        append(w, true);
        watch(w);
        break;
    }
    if (rng_below(&w->r, 3)) {
        /* tend may delete by retention.bytes */
        int64_t before = w->m.start;
        if (w->config.retention_bytes >= 0) w->m.start = w->own.slot->next_offset;
        if (bw_partition_tend(w->p, NULL)) world_die("tend");
        if (w->config.retention_bytes >= 0) w->m.start = before;
        world_note(w);
    }
    disk_look(w->disk);
    if (rng_chance(&w->r, 12)) cut_here(w);
}

/* true: the same machine goes on, with another daemon. */
static bool end_life(world *w)
{
    close_appenders(w);
    uint32_t how = rng_below(&w->r, 8);
    if (how == 0) { /* a clean stop */
        bw_recovery_point point;
        if (bw_partition_close(w->p, true, &point)) world_die("close");
        w->m.durable = w->m.visible;
        w->p = NULL;
        cut_here(w);
        w->points = (points){.item = {point}, .count = 1};
        w->tally->clean_stops++;
        if (rng_chance(&w->r, 2)) {
            bw_os_observe(NULL, NULL);
            world_reboot(w);
        }
        return start(w, true);
    }
    w->own.slot->state = BW_SLOT_DELETED; /* close then leaves everything alone */
    bw_partition_close(w->p, false, NULL);
    w->own.slot->state = BW_SLOT_OPEN;
    w->p = NULL;
    if (how == 1) { /* the daemon alone was killed */
        w->tally->takeovers++;
        return start(w, false);
    }
    if (how == 2) { /* and the control data was lost: recovery finds in the page cache what is not on the disk */
        w->tally->takeovers++;
        return start(w, true);
    }
    bw_os_observe(NULL, NULL);
    world_reboot(w);
    return start(w, true);
}

static void world_run(world *w)
{
    static const uint32_t sizes[] = {8 << 10, 16 << 10, 32 << 10, 64 << 10};
    w->r.state = w->seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
    w->config = (bw_partition_config){.segment_bytes = sizes[rng_below(&w->r, 4)], .segment_ms = -1, .retention_ms = -1,
                                      .max_message_bytes = 1 << 20, .index_interval_bytes = 1024};
    w->config.retention_bytes = rng_chance(&w->r, 3) ? (int64_t)w->config.segment_bytes * 2 : -1;
    w->config.reuse_segments = rng_chance(&w->r, 2);
    w->config.file_delete_delay_ms = rng_chance(&w->r, 2) ? 0 : 60000;
    bw_uuid id;
    bw_os_uuid(id.b);
    w->at = 0;
    for (int i = 0; i < 3; i++) {
        char command[200];
        snprintf(command, sizeof command, "rm -rf %s", w->folders[i]);
        if (system(command) || bw_partition_create_files(w->data_fds[i], WORLD_TOPIC, 0, &id)) world_die("create");
    }
    w->disk = disk_new(w->folders[0]);
    w->tally->worlds++;
    w->lives_before = w->tally->lives;
    bool open = start(w, true);
    if (open) store_point(w); /* as the broker does before anyone may write */
    for (int life = 0; open && life < 6; life++) {
        w->tally->lives++;
        uint32_t steps = 20 + rng_below(&w->r, 80);
        for (uint32_t i = 0; i < steps && w->tally->failures < 5; i++) step(w);
        if (w->tally->images >= w->image_budget || w->tally->failures) break;
        open = end_life(w);
    }
    bw_os_observe(NULL, NULL);
    if (w->mapped) close_appenders(w);
    if (w->p) {
        w->own.slot->state = BW_SLOT_DELETED;
        bw_partition_close(w->p, false, NULL);
        w->p = NULL;
    }
    disk_free(w->disk);
    w->disk = NULL;
    model_free(&w->m);
    w->points = (points){0};
}

static void world_init(world *w, const char *root)
{
    static const char *const names[] = {"a", "b", "image"};
    snprintf(w->root, sizeof w->root, "%s", root);
    for (int i = 0; i < 3; i++) {
        char data[112];
        snprintf(data, sizeof data, "%.80s/%s", root, names[i]);
        if (mkdir(data, 0700)) world_die(data);
        w->data_fds[i] = open(data, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        snprintf(w->folders[i], sizeof w->folders[i], "%s/" WORLD_TOPIC "-0", data);
    }
    memory_init(&w->own, root, "own");
    memory_init(&w->image, root, "memory");
    bw_batch_builder_init(&w->builder);
    bw_batch_builder_init(&w->image_builder);
    w->next_ts = 1000000;
}

/* The tally and the next seed; a file of another build's layout is begun anew. */
typedef struct progress { uint64_t seed, bytes; tally t; } progress;

static void load_progress(world *w, const char *path)
{
    progress g;
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd >= 0 && read(fd, &g, sizeof g) == (ssize_t)sizeof g && g.bytes == sizeof g) {
        *w->tally = g.t;
        w->seed = g.seed;
    }
    if (fd >= 0) close(fd);
}

static void save_progress(const world *w, const char *path)
{
    char fresh[256];
    progress g = {.seed = w->seed, .bytes = sizeof g, .t = *w->tally};
    if (!path) return;
    snprintf(fresh, sizeof fresh, "%s.new", path);
    int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0 || write(fd, &g, sizeof g) != (ssize_t)sizeof g || rename(fresh, path)) world_die(path);
    close(fd);
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: power SEED IMAGES [SECONDS [PROGRESS]]\n");
        return 2;
    }
    static world w;
    static tally t;
    char root[] = "/dev/shm/bw-power-XXXXXX", command[64];
    if (!mkdtemp(root)) world_die(root);
    int64_t begun = bw_clock_mono_ms(), seconds = argc > 3 ? strtoll(argv[3], NULL, 10) : INT64_MAX / 2000;
    w.seed = strtoull(argv[1], NULL, 10);
    w.image_budget = strtoull(argv[2], NULL, 10);
    w.tally = &t;
    w.trace = getenv("BATTERY_TRACE") != NULL;
    world_init(&w, root);
    const char *kept = argc > 4 ? argv[4] : NULL;
    load_progress(&w, kept);
    while (t.images < w.image_budget && !t.failures && bw_clock_mono_ms() - begun < seconds * 1000) {
        world_run(&w);
        w.seed++;
        if (!t.failures) save_progress(&w, kept); /* else the world is lived through again */
    }
    memory_fini(&w.own);
    memory_fini(&w.image);
    bw_batch_builder_fini(&w.builder);
    bw_batch_builder_fini(&w.image_builder);
    snprintf(command, sizeof command, "rm -rf %s", root);
    if (system(command)) world_die(command);
    printf("power: %llu images at %llu cuts (%llu in recoveries), %llu of them all 2^n of %llu cuts; %llu recovered twice\n"
           "power: %llu partitions, %llu lives, %llu rolls (%llu into files used before), %llu deletions, %llu compactions, "
           "%llu clean stops, %llu killed daemons; seeds up to %llu\n"
           "power: %llu unsynced records lost as they may be; the epoch rose in %llu images; %lld.%03lld s\n",
           (unsigned long long)t.images, (unsigned long long)t.cuts, (unsigned long long)t.recovery_cuts,
           (unsigned long long)t.exhaustive_images, (unsigned long long)t.exhaustive_cuts, (unsigned long long)t.second,
           (unsigned long long)t.worlds, (unsigned long long)t.lives, (unsigned long long)t.rolls, (unsigned long long)t.reused,
           (unsigned long long)t.deletions, (unsigned long long)t.compactions,
           (unsigned long long)t.clean_stops, (unsigned long long)t.takeovers, (unsigned long long)w.seed,
           (unsigned long long)t.lost_records, (unsigned long long)t.raised, (long long)(bw_clock_mono_ms() - begun) / 1000,
           (long long)(bw_clock_mono_ms() - begun) % 1000);
    printf("%d passed, %u failed\n", t.failures ? 0 : 1, t.failures);
    return t.failures ? 1 : 0;
}
