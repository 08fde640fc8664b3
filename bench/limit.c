/* bench/limit.c: the bare limit. What this machine can do at all with a log between two processes; Busway is measured against it.
 *
 * In it:
 *   - segment files of 64 MiB on the same disk as Busway's, created and fallocated by the writer when it needs the next one; it
 *     unlinks the oldest so that four are kept behind the one it writes, as retention.bytes of four segments does. Both sides map
 * each segment once and unmap it when they leave it.
 *   - the writer, for each batch: CRC-32C over the prebuilt Kafka v2 batch, memcpy into the map, patch of base offset and
 * checksum, one release store of the tail word. Before it writes into the next MiB it populates that MiB (MADV_POPULATE_WRITE);
 *     its map asks for large folios (MADV_HUGEPAGE), which make and free the same pages a third cheaper.
 *   - the reader, for each batch: one acquire load of the tail word when it has reached the last one it saw; header, CRC-32C and
 * a walk over every record (batch.c). Where a whole MiB is below the tail it populates that MiB at once (MADV_POPULATE_READ).
 *   - round trips: one record each way on two such logs; spinning on the tail word (a core each), or asleep in a futex on it
 * (both on one core: waking an idle virtual core costs the hypervisor's 25 us and would hide all else);
 *   - one way: a record to a reader that is asleep, on the writer's core or on one of its own. Not in it: a lock, repair
 * after a killed writer, encoding of records, offsets that anyone may ask for, indexes, a sync, a third process, anything of the
 * library. */
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

typedef struct side { /* a writer's or a reader's place in one log */
    const bench_run *run;
    bench_limit_log *log;
    unsigned number; /* of the log */
    uint8_t *map;    /* of segment `segment` */
    uint32_t segment, position, populated;
    int64_t next_offset;
    uint64_t seen_tail;
    bool may_sleep;
} side;

static bool segment_name(const side *s, uint32_t segment, char out[PATH_MAX])
{
    return snprintf(out, PATH_MAX, "%s/%u-%010u.log", s->run->dir, s->number, segment) < PATH_MAX;
}

static bool map_segment(side *s, bool for_write)
{
    char name[PATH_MAX];
    if (!segment_name(s, s->segment, name)) return bench_fail(s->run->shared, "path too long: %s", s->run->dir);
    int fd = open(name, (for_write ? O_RDWR | O_CREAT | O_EXCL : O_RDONLY) | O_CLOEXEC, 0600);
    if (fd < 0) return bench_fail(s->run->shared, "open %s: %s", name, strerror(errno));
    if (for_write && fallocate(fd, 0, 0, BENCH_SEGMENT_BYTES) != 0) {
        int saved = errno;
        close(fd);
        return bench_fail(s->run->shared, "fallocate %s: %s", name, strerror(saved));
    }
    void *p = mmap(NULL, BENCH_SEGMENT_BYTES, for_write ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (p == MAP_FAILED) return bench_fail(s->run->shared, "mmap %s: %s", name, strerror(errno));
    if (for_write) madvise(p, BENCH_SEGMENT_BYTES, MADV_HUGEPAGE); /* where it is not known, smaller pages */
    s->map = p;
    s->position = 0;
    s->populated = 0;
    return true;
}

static bool writer_roll(side *s)
{
    s->log->final_position[s->segment % 16] = s->position;
    munmap(s->map, BENCH_SEGMENT_BYTES);
    s->segment++;
    if (s->segment > BENCH_SEGMENTS_KEPT && !s->run->keep) { /* those behind the one that is written */
        char name[PATH_MAX];
        if (segment_name(s, s->segment - BENCH_SEGMENTS_KEPT - 1, name)) unlink(name);
    }
    return map_segment(s, true);
}

static void wake_sleeper(bench_limit_log *log)
{
    atomic_thread_fence(memory_order_seq_cst);
    if (!atomic_load_explicit(&log->asleep, memory_order_relaxed)) return;
    atomic_store_explicit(&log->asleep, 0, memory_order_relaxed);
    syscall(SYS_futex, (uint32_t *)(void *)&log->tail, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static bool append(side *s, const uint8_t *batch, uint32_t len, uint32_t count)
{
    if (s->position + len > BENCH_SEGMENT_BYTES && !writer_roll(s)) return false;
    while (s->position + len > s->populated) {
        if (madvise(s->map + s->populated, BENCH_STEP_BYTES, MADV_POPULATE_WRITE) != 0)
            return bench_fail(s->run->shared, "populate for writing: %s", strerror(errno));
        s->populated += BENCH_STEP_BYTES;
    }
    uint8_t *at = s->map + s->position;
    uint32_t crc = bench_batch_crc(batch, len);
    memcpy(at, batch, len);
    bench_put_be64(at, (uint64_t)s->next_offset);
    bench_put_be32(at + BENCH_BATCH_CRC_AT, crc);
    s->position += len;
    s->next_offset += count;
    atomic_store_explicit(&s->log->tail, (uint64_t)s->segment << 32 | s->position, memory_order_release);
    if (s->may_sleep) wake_sleeper(s->log);
    return true;
}

/* Wait until the tail is past what this reader has read. */
static bool wait_tail(side *s)
{
    uint32_t turns = 0;
    for (;;) {
        uint64_t tail = atomic_load_explicit(&s->log->tail, memory_order_acquire);
        if (tail > s->seen_tail) {
            s->seen_tail = tail;
            return true;
        }
        if (!s->may_sleep) {
            if (!bench_relax(s->run->shared, &turns)) return false;
            continue;
        }
        if (atomic_load_explicit(&s->run->shared->failed, memory_order_relaxed)) return false;
        atomic_store_explicit(&s->log->asleep, 1, memory_order_relaxed);
        atomic_thread_fence(memory_order_seq_cst);
        struct timespec cap = {1, 0};
        if (atomic_load_explicit(&s->log->tail, memory_order_relaxed) == tail)
            syscall(SYS_futex, (uint32_t *)(void *)&s->log->tail, FUTEX_WAIT, (uint32_t)tail, &cap, NULL, 0);
    }
}

/* Read one batch; its records, 0 on failure. */
static uint32_t read_batch(side *s, uint64_t *sum)
{
    for (;;) {
        uint32_t limit = 0;
        if (s->segment < s->seen_tail >> 32) {
            limit = s->log->final_position[s->segment % 16];
            if (s->position >= limit) {
                munmap(s->map, BENCH_SEGMENT_BYTES);
                s->segment++;
                if (!map_segment(s, false)) return 0;
                continue;
            }
        } else {
            limit = (uint32_t)s->seen_tail;
            if (s->position >= limit) {
                if (!wait_tail(s)) return 0;
                continue;
            }
        }
        if (s->position >= s->populated) {
            uint32_t chunk = s->position / BENCH_STEP_BYTES * BENCH_STEP_BYTES;
            if (limit - chunk >= BENCH_STEP_BYTES) madvise(s->map + chunk, BENCH_STEP_BYTES, MADV_POPULATE_READ);
            s->populated = chunk + BENCH_STEP_BYTES;
        }
        uint32_t count = 0, len = bench_batch_read(s->map + s->position, limit - s->position, s->next_offset, &count, sum);
        if (!len) {
            bench_fail(s->run->shared, "bare limit: bad batch in segment %u at %u", s->segment, s->position);
            return 0;
        }
        s->position += len;
        s->next_offset += count;
        return count;
    }
}

static bool side_open(side *s, const bench_run *run, unsigned number, bool for_write, bool may_sleep)
{
    *s = (side){.run = run, .log = &run->shared->log[number], .number = number, .may_sleep = may_sleep};
    return map_segment(s, for_write);
}

/* Roles of the rate: 0 writes, the others read. */
static bool e2e_role(const bench_run *run, uint32_t index)
{
    uint64_t step = bench_step_records(run), done = 0;
    side s;
    if (index == 0) {
        uint32_t len;
        uint8_t *batch = bench_batch_build(run->c->batch, run->c->record_bytes, &len);
        if (!batch) return bench_fail(run->shared, "out of memory");
        if (!side_open(&s, run, 0, true, false) || !bench_arrive(run->shared)) return false;
        while (done < run->records) {
            if (!append(&s, batch, len, run->c->batch)) return false;
            done += run->c->batch;
            if (done % step == 0 && !bench_hold(run, done)) return false;
        }
        return true;
    }
    if (!bench_arrive(run->shared) || !side_open(&s, run, 0, false, false)) return false;
    bench_reader_slot *slot = &run->shared->reader[index - 1];
    while (done < run->records) {
        uint32_t n = read_batch(&s, &slot->checksum);
        if (!n) return false;
        bench_note_read(run, slot, done, done + n, step);
        done += n;
    }
    slot->end_ns = bench_now_ns();
    return true;
}

/* Roles of the round trip: 0 asks on log 0 and times, 1 answers on log 1. */
static bool rtt_role(const bench_run *run, uint32_t index)
{
    bool may_sleep = run->c->kind == BENCH_RTT_SLEEP;
    uint32_t len, warm = run->c->round_trips / 10;
    uint64_t sum = 0;
    uint8_t *batch = bench_batch_build(1, run->c->record_bytes, &len);
    if (!batch) return bench_fail(run->shared, "out of memory");
    side out, in;
    if (!side_open(&out, run, index, true, may_sleep) || !bench_arrive(run->shared)) return false;
    if (!side_open(&in, run, 1 - index, false, may_sleep)) return false;
    uint64_t before = bench_now_ns();
    for (uint32_t i = 0; i < warm + run->c->round_trips; i++) {
        if (index == 1) {
            if (!read_batch(&in, &sum) || !append(&out, batch, len, 1)) return false;
            continue;
        }
        if (!append(&out, batch, len, 1) || !read_batch(&in, &sum)) return false;
        uint64_t now = bench_now_ns();
        if (i >= warm) run->shared->sample_ns[run->shared->samples++] = now - before;
        before = now;
    }
    run->shared->reader[index].checksum = sum;
    return true;
}

/* Roles of one way: 0 appends when 1 has had the time to fall asleep; the record's value begins with the time of its append. */
static bool one_way_role(const bench_run *run, uint32_t index)
{
    bench_shared *shared = run->shared;
    uint32_t len, all = run->c->round_trips + run->c->round_trips / 10;
    uint64_t sum = 0, sent;
    side s;
    if (index == 0) {
        uint8_t *batch = bench_batch_build(1, run->c->record_bytes, &len);
        if (!batch) return bench_fail(shared, "out of memory");
        if (!side_open(&s, run, 0, true, true) || !bench_arrive(shared)) return false;
        for (uint32_t i = 0; i < all; i++) {
            if (!bench_one_way_pause(run, i)) return false;
            sent = bench_now_ns();
            memcpy(batch + len - 1 - run->c->record_bytes, &sent, sizeof sent); /* behind the value: the count of headers */
            if (!append(&s, batch, len, 1)) return false;
        }
        return true;
    }
    if (!bench_arrive(shared) || !side_open(&s, run, 0, false, true)) return false;
    for (uint32_t i = 0; i < all; i++) {
        if (!read_batch(&s, &sum)) return false;
        memcpy(&sent, s.map + s.position - 1 - run->c->record_bytes, sizeof sent);
        bench_one_way_note(run, i, bench_now_ns() - sent);
    }
    shared->reader[0].checksum = sum;
    return bench_one_way_check(run);
}

bool bench_limit_run(bench_run *run, bench_figures *out)
{
    bool ok;
    if (run->c->kind == BENCH_E2E) {
        bench_role roles[BENCH_READERS_MAX + 1];
        for (uint32_t i = 0; i <= run->c->readers; i++) roles[i] = (bench_role){e2e_role, i == 0 ? 0 : 1};
        ok = bench_roles_run(run, roles, run->c->readers + 1, 60);
    } else if (run->c->kind == BENCH_ONE_WAY) {
        bench_role roles[2] = {{one_way_role, 0}, {one_way_role, run->c->two_cores ? 1 : 0}};
        ok = bench_roles_run(run, roles, 2, 60);
    } else if (run->c->kind >= BENCH_COMMIT) {
        bench_role role = {bench_commit_bare_role, -1};
        ok = bench_roles_run(run, &role, 1, 60);
    } else if (run->c->kind >= BENCH_DURABLE) {
        bench_role role = {bench_durable_bare_role, -1};
        ok = bench_roles_run(run, &role, 1, 60);
    } else {
        bench_role roles[2] = {{rtt_role, 0}, {rtt_role, run->c->kind == BENCH_RTT_SLEEP ? 0 : 1}};
        ok = bench_roles_run(run, roles, 2, 60);
    }
    if (ok) bench_figures_take(run, out);
    return ok;
}
