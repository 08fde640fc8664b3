/* tests/tsan/test_mapping.c: writers, readers and a coordinator as threads on ONE mapping of a real log, for ThreadSanitizer.
 *
 * It works by virtual address, and the engine maps a segment once for each appender and reader: two maps would hide every race.
 * So this program takes the place of bw_os_mmap (linker option --wrap): one file is one map, whoever asks, and no map is ever
 * taken away, so that no address means two things.
 *
 * The same source, linked with an append.c whose release stores are relaxed (seed_race.h), must be reported. */
#include "base/lock.h"
#include "format/record_batch.h"
#include "log/partition.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { WRITERS = 3, READERS = 3, BATCHES = 6000, SEGMENT_BYTES = 65536, MAPS_MAX = 1024, CAPACITY_TRIES = 4000, PATIENCE_MS = 60000 };

#define CHECK(condition) do { if (!(condition)) stop_at(__LINE__, #condition); } while (0)
static void stop_at(int line, const char *condition)
{
    fprintf(stderr, "line %d: %s does not hold: %s\n", line, condition, bw_error_message());
    exit(1);
}

/* ---- one file, one map ---- */

void *__real_bw_os_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t at);
void *__wrap_bw_os_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t at);
int __wrap_bw_os_munmap(void *addr, size_t len);

static struct {
    pthread_mutex_t lock;
    struct { dev_t dev; ino_t ino; void *map; size_t len; } maps[MAPS_MAX];
    size_t count, shared;
} files = {.lock = PTHREAD_MUTEX_INITIALIZER};

void *__wrap_bw_os_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t at)
{
    struct stat st;
    if (fd < 0 || at != 0 || fstat(fd, &st) != 0 || !(flags & MAP_SHARED)) return __real_bw_os_mmap(addr, len, prot, flags, fd, at);
    void *map = NULL;
    pthread_mutex_lock(&files.lock);
    for (size_t i = 0; i < files.count; i++)
        if (files.maps[i].dev == st.st_dev && files.maps[i].ino == st.st_ino && files.maps[i].len >= len) {
            map = files.maps[i].map;
            files.shared++;
        }
    if (!map) {
        char path[40];
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        int again = open(path, O_RDWR | O_CLOEXEC); /* a reader's descriptor cannot be mapped for writing */
        map = __real_bw_os_mmap(addr, len, PROT_READ | PROT_WRITE, flags, again, at);
        close(again);
        if (map != MAP_FAILED && files.count < MAPS_MAX) {
            files.maps[files.count].dev = st.st_dev;
            files.maps[files.count].ino = st.st_ino;
            files.maps[files.count].map = map;
            files.maps[files.count++].len = len;
        }
    }
    pthread_mutex_unlock(&files.lock);
    return map;
}

int __wrap_bw_os_munmap(void *addr, size_t len)
{
    (void)addr;
    (void)len;
    return 0;
}

/* This sanitizer does not know pthread_mutex_clocklock: the same by the clock that it knows. */
int __wrap_pthread_mutex_clocklock(pthread_mutex_t *mutex, clockid_t clock, const struct timespec *until);
int __wrap_pthread_mutex_clocklock(pthread_mutex_t *mutex, clockid_t clock, const struct timespec *until)
{
    struct timespec now, real;
    clock_gettime(clock, &now);
    clock_gettime(CLOCK_REALTIME, &real);
    int64_t ns = (int64_t)(until->tv_sec - now.tv_sec + real.tv_sec) * 1000000000 + until->tv_nsec - now.tv_nsec + real.tv_nsec;
    return pthread_mutex_timedlock(mutex, &(struct timespec){ns / 1000000000, ns % 1000000000});
}

/* ---- the log ---- */

static struct {
    char data[64], shm[64];
    int data_fd, shm_fd;
    uint8_t generation[16];
    bw_uuid topic;
    bw_mail *mail;
    bw_control *control;
    bw_partition *partition;
    bw_owners *owners; /* NULL: no membarrier here */
    atomic_long past_the_lock;
    atomic_bool stop;
} bus;

static void make_log(void)
{
    snprintf(bus.data, sizeof bus.data, "/tmp/bw-tsan-XXXXXX");
    snprintf(bus.shm, sizeof bus.shm, "/dev/shm/bw-tsan-XXXXXX");
    CHECK(mkdtemp(bus.data) && mkdtemp(bus.shm));
    bus.data_fd = open(bus.data, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bus.shm_fd = open(bus.shm, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHECK(bw_os_uuid(bus.generation) == 0 && bw_os_uuid(bus.topic.b) == 0);
    CHECK(bw_partition_create_files(bus.data_fd, "t", 0, &bus.topic) == BW_OK);
    CHECK(bw_mail_create(bus.shm_fd, bus.generation, &bus.mail) == BW_OK);
    CHECK(bw_control_create(bus.shm_fd, bus.generation, &bus.topic, bus.mail, 1, &bus.control) == BW_OK);
    for (uint32_t i = 0; i < 2 + READERS; i++) CHECK(bw_mail_allocate(bus.shm_fd, bus.mail, i) == BW_OK);
    bw_recovery_report report;
    bw_partition_open_options o = {.data_fd = bus.data_fd, .topic = "t", .control = bus.control, .bus_number = 3, .fresh_slot = true};
    o.config = (bw_partition_config){.segment_bytes = SEGMENT_BYTES, .segment_ms = -1, .retention_bytes = -1, .retention_ms = -1,
                                     .max_message_bytes = 1 << 20, .index_interval_bytes = 4096};
    CHECK(bw_partition_open(&o, &bus.partition, &report) == BW_OK);
    bw_control_publish(bus.control, 1);
    (void)bw_owners_open(bus.mail, &bus.owners);
}

static void remove_log(void)
{
    char command[200];
    bw_partition_close(bus.partition, false, NULL);
    bw_owners_close(bus.owners);
    snprintf(command, sizeof command, "rm -rf '%s' '%s'", bus.data, bus.shm);
    CHECK(system(command) == 0);
}

/* ---- the threads ---- */

static void *coordinate(void *unused)
{
    bw_mailbox *box = bw_mail_box(bus.mail, BW_MAILBOX_COORDINATOR);
    uint32_t numbers[64];
    (void)unused;
    for (int i = 0; !atomic_load(&bus.stop); i++) {
        (void)bw_mailbox_sleep(box, bw_deadline_in_ms(5));
        (void)bw_mailbox_drain(box, numbers, 64);
        (void)bw_partition_tend(bus.partition, NULL);
        if (i % 32 == 0) (void)bw_partition_sync(bus.partition);
    }
    return NULL;
}

static void *write_batches(void *number)
{
    uint32_t me = (uint32_t)(uintptr_t)number;
    bw_appender *a;
    bw_appender_options o = {.control = bus.control, .dir_fd = bw_partition_dir_fd(bus.partition), .owners = bus.owners};
    CHECK(bw_appender_open(&o, &a) == BW_OK);
    bw_batch_builder b;
    bw_batch_builder_init(&b);
    for (uint32_t i = 0; i < BATCHES; i++) {
        uint32_t value[100];
        for (size_t k = 0; k < 100; k++) value[k] = k == 0 ? me : i;
        bw_record r = {.value = value, .value_len = 8 + (i * 37 + me) % 390, .timestamp_ms = 1000 + i};
        bw_batch_options bo = BW_BATCH_OPTIONS_INIT;
        bw_append_result result;
        uint8_t *batch;
        size_t len = 0;
        bw_batch_builder_reset(&b);
        CHECK(bw_batch_builder_add(&b, &r) == BW_OK && bw_batch_builder_finish(&b, &bo, &batch, &len) == BW_OK);
        if (bw_append_now(a, batch, len, 1, 1000 + i, &result)) {
            atomic_fetch_add_explicit(&bus.past_the_lock, 1, memory_order_relaxed);
            continue;
        }
        bw_err e = BW_ERR_NO_COORDINATOR;
        for (int tries = 0; (e == BW_ERR_NO_COORDINATOR || e == BW_ERR_LOCK_HELD) && tries < CAPACITY_TRIES; tries++)
            e = bw_append(a, batch, len, 1, 1000 + i, bw_deadline_in_ms(100), &result);
        CHECK(e == BW_OK);
    }
    bw_batch_builder_fini(&b);
    bw_appender_close(a);
    return NULL;
}

/* Reader 0 sleeps when there is nothing; the others spin, so that nothing but the log's own words orders them after the writers. */
static void *read_batches(void *number)
{
    uint32_t me = (uint32_t)(uintptr_t)number, mailbox = 2 + me, next_of[WRITERS] = {0};
    bw_reader *r;
    bw_reader_options o = {.control = bus.control, .dir_fd = bw_partition_dir_fd(bus.partition), .check_crcs = true,
                           .limit = me == 2 ? BW_LIMIT_DURABLE : BW_LIMIT_VISIBLE};
    CHECK(bw_reader_open(&o, &r) == BW_OK);
    bw_reader_seek(r, 0);
    int64_t next = 0;
    bw_deadline until = bw_deadline_in_ms(PATIENCE_MS);
    while (next < (int64_t)WRITERS * BATCHES) {
        bw_batch_ref b;
        bw_err e = bw_reader_next(r, &b);
        if (e == BW_ERR_EMPTY) {
            CHECK(bw_deadline_left_ns(until) > 0);
            if (me != 0) {
                sched_yield();
                continue;
            }
            bw_arm(bus.control, 0, BW_WAIT_TAIL, mailbox);
            bw_arm_fence(bus.control->asymmetric);
            if (bw_reader_ready(r)) continue;
            uint32_t numbers[64];
            (void)bw_mailbox_sleep(bw_mail_box(bus.mail, mailbox), bw_deadline_in_ms(1000));
            (void)bw_mailbox_drain(bw_mail_box(bus.mail, mailbox), numbers, 64);
            continue;
        }
        CHECK(e == BW_OK && b.header.base_offset == next);
        uint32_t words[2];
        bw_record_iter it;
        bw_record_view v;
        bw_record_iter_init(&it, &b.header, b.data + BW_BATCH_HEADER_BYTES, b.size - BW_BATCH_HEADER_BYTES);
        CHECK(bw_record_iter_next(&it, &v) == 1 && v.value_len >= sizeof words);
        memcpy(words, v.value, sizeof words);
        CHECK(words[0] < WRITERS && words[1] == next_of[words[0]]);
        next_of[words[0]]++;
        next++;
    }
    bw_reader_close(r);
    return NULL;
}

int main(void)
{
    pthread_t coordinator, writers[WRITERS], readers[READERS];
    make_log();
    CHECK(pthread_create(&coordinator, NULL, coordinate, NULL) == 0);
    for (uintptr_t i = 0; i < READERS; i++) CHECK(pthread_create(&readers[i], NULL, read_batches, (void *)i) == 0);
    for (uintptr_t i = 0; i < WRITERS; i++) CHECK(pthread_create(&writers[i], NULL, write_batches, (void *)i) == 0);
    for (int i = 0; i < WRITERS; i++) pthread_join(writers[i], NULL);
    for (int i = 0; i < READERS; i++) pthread_join(readers[i], NULL);
    atomic_store(&bus.stop, true);
    pthread_join(coordinator, NULL);
    bw_partition_info info;
    bw_partition_info_get(bus.partition, &info);
    printf("%d batches by %d writers, read by %d readers, %u segments; %zu maps asked for again\n", WRITERS * BATCHES, WRITERS, READERS,
           info.segments, files.shared);
    printf("%ld batches past the lock\n", atomic_load(&bus.past_the_lock));
    CHECK(!bus.owners || atomic_load(&bus.past_the_lock) > 100);
    CHECK(info.segments > 10 && files.shared > info.segments);
    remove_log();
    return 0;
}
