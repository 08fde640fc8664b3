/* tests/unit/log/log_fixture.h: a real partition in a temporary folder with arenas on /dev/shm, its coordinator, and helpers to
 * write and read it. The log survives log_reopen, with the control data kept (takeover) or made anew (recovery). */
#ifndef LOG_FIXTURE_H
#define LOG_FIXTURE_H

#include "base/lock.h"
#include "format/names.h"
#include "format/record_batch.h"
#include "log/datadir.h"
#include "log/partition.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define LOG_TOPIC "t"

typedef struct log_fixture {
    char data[64], shm[64];
    int data_fd, shm_fd;
    uint8_t generation[16];
    bw_uuid topic;
    bw_mail *mail;
    bw_control *control;
    bw_partition *p;
    bw_partition_config config;
    bw_recovery_point point;
    bw_recovery_report report;
    bw_batch_builder builder;
    pthread_t keeper;
    atomic_bool keeping, stop;
    bool created; /* and not opened since */
    int64_t next_ts;
} log_fixture;

static const char *log_data_place = "/tmp/bw-log-XXXXXX"; /* a test whose promises are not the disk's may take memory */

static inline void log_new_arenas(log_fixture *f)
{
    if (f->control) bw_control_close(f->control);
    if (f->mail) bw_mail_close(f->mail);
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s/*", f->shm);
    assert_int_equal(system(command), 0);
    bw_os_uuid(f->generation);
    assert_int_equal(bw_mail_create(f->shm_fd, f->generation, &f->mail), BW_OK);
    assert_int_equal(bw_control_create(f->shm_fd, f->generation, &f->topic, f->mail, 1, &f->control), BW_OK);
}

static inline bw_err log_try_open(log_fixture *f, bool fresh)
{
    if (fresh) log_new_arenas(f);
    bw_partition_open_options o = {.data_fd = f->data_fd, .topic = LOG_TOPIC, .partition = 0, .control = f->control, .bus_number = 3,
                                   .fresh_slot = fresh, .point = f->point, .just_created = f->created, .config = f->config};
    f->created = false;
    bw_err e = bw_partition_open(&o, &f->p, &f->report);
    if (e == BW_OK) bw_control_publish(f->control, 1);
    else f->p = NULL;
    return e;
}

static inline void log_open(log_fixture *f, bool fresh)
{
    bw_err e = log_try_open(f, fresh);
    if (e) fail_msg("open: %s: %s", bw_err_name(e), bw_error_message());
}

static inline void log_init(log_fixture *f, uint32_t segment_bytes)
{
    memset(f, 0, sizeof *f);
    snprintf(f->data, sizeof f->data, "%s", log_data_place);
    strcpy(f->shm, "/dev/shm/bw-log-XXXXXX");
    assert_non_null(mkdtemp(f->data));
    assert_non_null(mkdtemp(f->shm));
    f->data_fd = open(f->data, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    f->shm_fd = open(f->shm, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bw_os_uuid(f->topic.b);
    f->config = (bw_partition_config){.segment_bytes = segment_bytes, .segment_ms = -1, .retention_bytes = -1, .retention_ms = -1,
                                      .max_message_bytes = 1 << 20, .index_interval_bytes = 4096};
    f->next_ts = 1000000;
    bw_batch_builder_init(&f->builder);
    assert_int_equal(bw_partition_create_files(f->data_fd, LOG_TOPIC, 0, &f->topic), BW_OK);
    f->created = true;
}

static inline void *log_keeper_main(void *arg)
{
    log_fixture *f = arg;
    uint32_t numbers[8];
    bw_mailbox *box = bw_mail_box(f->mail, BW_MAILBOX_COORDINATOR);
    while (!atomic_load(&f->stop)) {
        (void)bw_mailbox_sleep(box, bw_deadline_in_ms(20));
        (void)bw_mailbox_drain(box, numbers, 8);
        (void)bw_partition_tend(f->p, NULL);
    }
    return NULL;
}

static inline void log_start_keeper(log_fixture *f)
{
    atomic_store(&f->stop, false);
    assert_int_equal(pthread_create(&f->keeper, NULL, log_keeper_main, f), 0);
    atomic_store(&f->keeping, true);
}

static inline void log_stop_keeper(log_fixture *f)
{
    if (!atomic_load(&f->keeping)) return;
    atomic_store(&f->stop, true);
    pthread_join(f->keeper, NULL);
    atomic_store(&f->keeping, false);
}

/* Ends the coordinator: trim: a clean stop; the recovery point is kept. */
static inline void log_close(log_fixture *f, bool trim)
{
    log_stop_keeper(f);
    bw_err e = bw_partition_close(f->p, trim, &f->point);
    if (e) fail_msg("close: %s: %s", bw_err_name(e), bw_error_message());
    f->p = NULL;
}

/* Ends the coordinator as a crash would: nothing is synced, trimmed, indexed or sealed on the way; the point stays what it was. */
static inline void log_crash(log_fixture *f)
{
    log_stop_keeper(f);
    bw_partition_slot(f->p)->state = BW_SLOT_DELETED; /* close then leaves everything alone */
    bw_partition_close(f->p, false, NULL);
    f->control->slots[0].state = BW_SLOT_OPEN;
    f->p = NULL;
}

static inline void log_fini(log_fixture *f)
{
    log_stop_keeper(f);
    if (f->p) bw_partition_close(f->p, false, NULL);
    if (f->control) bw_control_close(f->control);
    if (f->mail) bw_mail_close(f->mail);
    bw_batch_builder_fini(&f->builder);
    close(f->data_fd);
    close(f->shm_fd);
    char command[160];
    snprintf(command, sizeof command, "rm -rf %s %s", f->data, f->shm);
    assert_int_equal(system(command), 0);
}

static inline bw_appender *log_appender(log_fixture *f, bool use_pwrite)
{
    bw_appender *a;
    bw_appender_options o = {.control = f->control, .dir_fd = bw_partition_dir_fd(f->p), .use_pwrite = use_pwrite};
    assert_int_equal(bw_appender_open(&o, &a), BW_OK);
    return a;
}

/* One batch of `count` records of value_len bytes; timestamps go up by one a batch. */
static inline const uint8_t *log_batch(log_fixture *f, int count, size_t value_len, bw_codec codec, size_t *len)
{
    char *value = malloc(value_len + 1);
    bw_batch_builder_reset(&f->builder);
    for (int i = 0; i < count; i++) {
        memset(value, 'a' + (int)((f->next_ts + i) % 26), value_len);
        bw_record r = {.value = value, .value_len = value_len, .timestamp_ms = f->next_ts};
        assert_int_equal(bw_batch_builder_add(&f->builder, &r), BW_OK);
    }
    free(value);
    uint8_t *out;
    bw_batch_options o = BW_BATCH_OPTIONS_INIT;
    o.codec = codec;
    assert_int_equal(bw_batch_builder_finish(&f->builder, &o, &out, len), BW_OK);
    return out;
}

static inline bw_err log_try_append(log_fixture *f, bw_appender *a, int count, size_t value_len, int timeout_ms, bw_append_result *r)
{
    size_t len;
    bw_append_result ignored;
    const uint8_t *batch = log_batch(f, count, value_len, BW_CODEC_NONE, &len);
    return bw_append(a, batch, len, count, f->next_ts++, bw_deadline_in_ms(timeout_ms), r ? r : &ignored);
}

/* n batches of `count` records, with the keeper running or tending by hand. */
static inline void log_append_many(log_fixture *f, int n, int count, size_t value_len)
{
    bw_appender *a = log_appender(f, false);
    for (int i = 0; i < n; i++) {
        if (!atomic_load(&f->keeping)) assert_int_equal(bw_partition_tend(f->p, NULL), BW_OK);
        bw_err e = log_try_append(f, a, count, value_len, 0, NULL);
        for (int tries = 0; (e == BW_ERR_NO_COORDINATOR || e == BW_ERR_LOCK_HELD) && tries < 2000; tries++) { /* on a busy machine */
            if (!atomic_load(&f->keeping)) assert_int_equal(bw_partition_tend(f->p, NULL), BW_OK);
            f->next_ts--;
            e = log_try_append(f, a, count, value_len, 5, NULL);
        }
        if (e) fail_msg("append: %s: %s", bw_err_name(e), bw_error_message());
    }
    bw_appender_close(a);
}

/* Reads from `from`; returns the offset behind the last record; asserts that batches join. stop_error: why it ended. */
static inline int64_t log_read_from(log_fixture *f, int64_t from, bw_err *stop_error)
{
    bw_reader *r;
    bw_reader_options o = {.control = f->control, .dir_fd = bw_partition_dir_fd(f->p), .check_crcs = true};
    assert_int_equal(bw_reader_open(&o, &r), BW_OK);
    bw_reader_seek(r, from);
    bw_batch_ref b;
    int64_t next = from;
    bw_err e;
    while ((e = bw_reader_next(r, &b)) == BW_OK) {
        assert_true(b.header.base_offset <= next);
        next = bw_batch_last_offset(&b.header) + 1;
    }
    bw_reader_close(r);
    if (stop_error) *stop_error = e;
    else if (e != BW_ERR_EMPTY) fail_msg("read at %lld: %s: %s", (long long)next, bw_err_name(e), bw_error_message());
    return next;
}

static inline void log_path(log_fixture *f, char out[256], const char *name) { snprintf(out, 256, "%s/%s-0/%s", f->data, LOG_TOPIC, name); }

static inline bool log_exists(log_fixture *f, const char *name)
{
    char path[256];
    struct stat st;
    log_path(f, path, name);
    return stat(path, &st) == 0;
}

static inline int64_t log_size(log_fixture *f, const char *name)
{
    char path[256];
    struct stat st;
    log_path(f, path, name);
    assert_int_equal(stat(path, &st), 0);
    return st.st_size;
}

/* Files in the partition's folder whose names end with suffix; first: the first one's name, in order. */
static inline int log_count_files(log_fixture *f, const char *suffix, char first[64])
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s-0", f->data, LOG_TOPIC);
    DIR *d = opendir(path);
    assert_non_null(d);
    int n = 0;
    if (first) first[0] = '\0';
    struct dirent *e;
    while ((e = readdir(d))) {
        size_t a = strlen(e->d_name), b = strlen(suffix);
        if (a < b || strcmp(e->d_name + a - b, suffix) != 0) continue;
        n++;
        if (first && (!first[0] || strcmp(e->d_name, first) < 0)) snprintf(first, 64, "%.63s", e->d_name);
    }
    closedir(d);
    return n;
}

static inline void log_flip(log_fixture *f, const char *name, off_t at)
{
    char path[256];
    uint8_t byte;
    log_path(f, path, name);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 0x40;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

#endif
