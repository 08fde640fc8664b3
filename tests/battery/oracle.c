/* tests/battery/oracle.c: what must hold of a log that was recovered after a power cut.
 *
 *   - it opens; nothing is taken for corrupt or foreign; all that was reported durable is there, at its offset, byte for byte;
 *   - nothing appears that was not appended there in this life; offsets are continuous; deleted records stay deleted;
 *   - if anything that a reader may have seen is lost, the leader epoch is higher than the one it was seen under;
 *   - appends go on at the end; recovered once more, it is the same.
 *
 * One image of 32 lies on a real file system (and `busway verify` looks at half of those); the others in memory (memfs.h). */
#include "world.h"

#include "memfs.h"

#include "log/read.h"

#include <busway/inspect.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct trial {
    world *w;
    bw_recovery_point point;
    rng before;        /* the generator as it was when the image was made */
    disk_choice choice;
    int data_fd;       /* where the image is */
    bool good;
    int64_t start, end;
    int32_t epoch;
} trial;

static void complain(trial *t, const char *format, ...)
{
    world *w = t->w;
    va_list list;
    va_start(list, format);
    fprintf(stderr, "VIOLATION seed %llu life %llu image %llu: ", (unsigned long long)w->seed, (unsigned long long)w->tally->lives,
            (unsigned long long)w->tally->images);
    vfprintf(stderr, format, list);
    va_end(list);
    fprintf(stderr, "\n  segment %u, durable %lld visible %lld deleted %lld start %lld epoch %d; point: offset %lld segment %lld byte %u;"
            " %s%s\n", w->config.segment_bytes, (long long)w->m.durable, (long long)w->m.visible, (long long)w->m.deleted,
            (long long)w->m.start, w->m.epoch, (long long)t->point.next_offset, (long long)t->point.segment_base, t->point.position,
            t->choice.order == DISK_ANY ? "any order" : "ordered", w->recovering ? ", during a recovery" : "");
    if (w->tally->failures++ == 0 && getenv("BATTERY_KEEP")) {
        rng again = t->before;
        char command[512];
        disk_image(w->disk, w->folders[WORLD_IMAGE], &again, t->choice);
        snprintf(command, sizeof command, "rm -rf %s; cp -a %s %s", getenv("BATTERY_KEEP"), w->folders[WORLD_IMAGE], getenv("BATTERY_KEEP"));
        if (system(command) == 0) fprintf(stderr, "  the image is in %s\n", getenv("BATTERY_KEEP"));
    }
    t->good = false;
}

/* A reserved batch gets its base offset and epoch when it is committed. Both lie outside its checksum, and may lie in two sectors: of an
 * unsynced one the disk may have the first and not the second. The batch is the right one, its epoch that of the builder, 0. */
static bool same_bytes(const batch *want, const bw_batch_ref *b, bool unsynced)
{
    enum { EPOCH_AT = 12, EPOCH_END = 16 };
    static const uint8_t none[EPOCH_END - EPOCH_AT];
    bool same = memcmp(want->bytes, b->data, EPOCH_AT) == 0 && memcmp(want->bytes + EPOCH_END, b->data + EPOCH_END, b->size - EPOCH_END) == 0;
    const uint8_t *epoch = b->data + EPOCH_AT;
    return same && (memcmp(want->bytes + EPOCH_AT, epoch, sizeof none) == 0 || (unsynced && memcmp(epoch, none, sizeof none) == 0));
}

/* Reads all of the recovered log and compares it with the record; extra: one batch appended by the trial itself. */
static void compare(trial *t, const batch *extra)
{
    world *w = t->w;
    bw_reader *r;
    bw_reader_options o = {.control = w->image.control, .dir_fd = -1, .check_crcs = true, .use_pread = true};
    o.dir_fd = bw_os_open_beneath(t->data_fd, WORLD_TOPIC "-0", O_RDONLY | O_DIRECTORY, 0);
    if (o.dir_fd < 0 || bw_reader_open(&o, &r)) world_die("reader");
    bw_os_close(o.dir_fd);
    bw_reader_seek(r, t->start);
    int64_t next = -1;
    size_t at = 0;
    bw_batch_ref b;
    bw_err e;
    while (t->good && (e = bw_reader_next(r, &b)) == BW_OK) {
        int64_t base = b.header.base_offset;
        if (next >= 0 && base != next) complain(t, "offset %lld follows %lld", (long long)base, (long long)next);
        next = bw_batch_last_offset(&b.header) + 1;
        while (at < w->m.count && w->m.batches[at].base < base) at++;
        const batch *want = at < w->m.count && w->m.batches[at].base == base ? &w->m.batches[at] : NULL;
        if (extra && base == extra->base) want = extra;
        if (!want) complain(t, "a batch at offset %lld that was never appended there", (long long)base);
        else if (want->len != b.size || !same_bytes(want, &b, base >= w->m.durable))
            complain(t, "offset %lld: other bytes than were appended", (long long)base);
    }
    if (t->good && e != BW_ERR_EMPTY) complain(t, "reading at %lld: %s: %s", (long long)next, bw_err_name(e), bw_error_message());
    if (t->good && next >= 0 && next != t->end) complain(t, "the log ends at %lld, read up to %lld", (long long)t->end, (long long)next);
    if (t->good && next < 0 && t->start != t->end) complain(t, "nothing to read in %lld to %lld", (long long)t->start, (long long)t->end);
    bw_reader_close(r);
}

static bw_partition *recover(trial *t, const char *which)
{
    world *w = t->w;
    memory_forget(&w->image);
    bw_partition *p = NULL;
    bw_recovery_report report;
    bw_partition_open_options o = {.data_fd = t->data_fd, .topic = WORLD_TOPIC, .control = w->image.control, .bus_number = 1,
                                   .fresh_slot = true, .point = t->point, .config = w->config};
    bw_err e = bw_partition_open(&o, &p, &report);
    if (e) {
        complain(t, "%s recovery: %s: %s", which, bw_err_name(e), bw_error_message());
        return NULL;
    }
    if (report.quarantined || report.foreign)
        complain(t, "%s recovery takes it for %s: %s", which, report.foreign ? "foreign" : "corrupt", report.detail);
    bw_partition_info info;
    bw_partition_info_get(p, &info);
    t->start = info.log_start;
    t->end = info.end_offset;
    t->epoch = info.leader_epoch;
    return p;
}

static void close_as_killed(memory *m, bw_partition *p)
{
    if (!p) return;
    m->slot->state = BW_SLOT_DELETED;
    bw_partition_close(p, false, NULL);
    m->slot->state = BW_SLOT_OPEN;
}

static void check_promises(trial *t)
{
    const model *m = &t->w->m;
    if (t->end < m->durable) complain(t, "ends at %lld: durable records are lost", (long long)t->end);
    int64_t most = m->count ? m->batches[m->count - 1].next : m->visible;
    if (most < m->deleted) most = m->deleted;
    if (t->end > most) complain(t, "ends at %lld, more than was ever appended", (long long)t->end);
    if (t->start < m->deleted) complain(t, "starts at %lld: deleted records came back", (long long)t->start);
    if (t->start > m->start && m->start < m->durable) complain(t, "starts at %lld, later than any deletion", (long long)t->start);
    if (t->epoch < m->epoch) complain(t, "the epoch went back to %d", t->epoch);
    if (t->end < m->visible) {
        t->w->tally->lost_records += (uint64_t)(m->visible - t->end);
        if (t->epoch == m->epoch) complain(t, "ends at %lld: records that were seen are lost, and the epoch stays", (long long)t->end);
    }
    if (t->epoch > m->epoch) t->w->tally->raised++;
}

/* One more batch after recovery; extra->bytes is the builder's. */
static void append_extra(trial *t, bw_partition *p, batch *extra)
{
    world *w = t->w;
    bw_batch_options o = BW_BATCH_OPTIONS_INIT;
    bw_record record = {.value = "after the power came back", .value_len = 25, .timestamp_ms = 1};
    uint8_t *bytes;
    size_t len;
    bw_append_result result;
    bw_appender *a;
    bw_appender_options ao = {.control = w->image.control, .dir_fd = bw_partition_dir_fd(p), .use_pwrite = true};
    bw_batch_builder_reset(&w->image_builder);
    if (bw_batch_builder_add(&w->image_builder, &record) || bw_batch_builder_finish(&w->image_builder, &o, &bytes, &len)) world_die("batch");
    if (bw_appender_open(&ao, &a)) world_die("appender");
    bw_err e = BW_ERR_NO_COORDINATOR;
    for (int i = 0; i < 4 && e == BW_ERR_NO_COORDINATOR; i++) {
        (void)bw_partition_tend(p, NULL);
        e = bw_append(a, bytes, len, 1, 1, bw_deadline_in_ms(0), &result);
    }
    if (e) complain(t, "no append after recovery: %s: %s", bw_err_name(e), bw_error_message());
    else if (result.base_offset != t->end) complain(t, "appended at %lld, the end was %lld", (long long)result.base_offset, (long long)t->end);
    else if ((e = bw_partition_sync(p)) != BW_OK) complain(t, "no sync after recovery: %s", bw_error_message());
    bw_batch_patch(bytes, t->end, t->epoch);
    *extra = (batch){.base = t->end, .next = t->end + 1, .len = (uint32_t)len, .bytes = bytes};
    bw_appender_close(a);
}

static void count_finding(void *opaque, const bw_finding *f)
{
    trial *t = opaque;
    if (f->is_error) complain(t, "verify: %s at %llu: %s", f->path, (unsigned long long)f->position, f->message);
}

static void try_image(world *w, disk_choice choice)
{
    bool real = rng_chance(&w->r, 32);
    trial t = {.w = w, .before = w->r, .choice = choice, .good = true};
    if (w->points.count) t.point = w->points.item[w->points.count - 1];
    t.data_fd = real ? w->data_fds[WORLD_IMAGE] : memfs_reset(WORLD_TOPIC "-0");
    disk_image(w->disk, real ? w->folders[WORLD_IMAGE] : NULL, &w->r, choice);
    if (w->points.count == 2 && rng_chance(&w->r, 4)) t.point = w->points.item[0];
    w->tally->images++;
    bw_partition *p = recover(&t, "first");
    if (p && t.good) check_promises(&t);
    if (p && t.good) compare(&t, NULL);
    batch extra;
    bool appended = p && t.good && rng_chance(&w->r, 2);
    if (appended) {
        append_extra(&t, p, &extra);
        t.end++;
    }
    close_as_killed(&w->image, p);
    if (!p || !t.good) return;
    int64_t start = t.start, end = t.end;
    int32_t epoch = t.epoch;
    if (real && rng_chance(&w->r, 2)) {
        bw_verify_totals totals;
        (void)bw_verify(w->folders[WORLD_IMAGE], count_finding, NULL, &t, &totals);
    }
    if (!rng_chance(&w->r, 3)) return;
    w->tally->second++;
    p = recover(&t, "second");
    if (p && t.good && (t.start != start || t.end != end || t.epoch < epoch))
        complain(&t, "recovered to %lld..%lld epoch %d, the second time to %lld..%lld epoch %d", (long long)start, (long long)end, epoch,
                 (long long)t.start, (long long)t.end, t.epoch);
    if (p && t.good) compare(&t, appended ? &extra : NULL);
    close_as_killed(&w->image, p);
}

void world_note(world *w)
{
    if (!w->p) return;
    bw_tail_slot *s = w->own.slot;
    if (s->durable_offset > w->m.durable) w->m.durable = s->durable_offset;
    if (s->log_start > w->m.start) w->m.start = s->log_start;
}

static disk_choice random_choice(world *w) { return (disk_choice){.order = rng_chance(&w->r, 2) ? DISK_ANY : DISK_ORDERED}; }

void world_cut(world *w)
{
    if (w->tally->images >= w->image_budget || w->tally->failures >= 5) return;
    world_note(w);
    disk_look(w->disk);
    bw_os_observe(NULL, NULL);
    w->tally->cuts++;
    w->tally->recovery_cuts += w->recovering;
    uint32_t dirty = disk_dirty_pages(w->disk);
    if (dirty <= DISK_EXHAUSTIVE_PAGES && (dirty <= 3 || rng_chance(&w->r, 1u << (dirty - 2)))) {
        w->tally->exhaustive_cuts++;
        for (uint32_t mask = 0; mask < 1u << dirty && w->tally->failures < 5; mask++) {
            try_image(w, (disk_choice){.order = rng_chance(&w->r, 2) ? DISK_ANY : DISK_ORDERED, .exact = true, .mask = mask});
            w->tally->exhaustive_images++;
        }
    }
    for (int i = 0; i < 6 && w->tally->failures < 5; i++) try_image(w, random_choice(w));
}

void world_reboot(world *w)
{
    disk_look(w->disk);
    int next = !w->at;
    disk_image(w->disk, w->folders[next], &w->r, random_choice(w));
    disk_free(w->disk);
    w->at = next;
    w->disk = disk_new(w->folders[next]);
    if (w->points.count == 2) w->points = (points){.item = {w->points.item[1]}, .count = 1};
}
