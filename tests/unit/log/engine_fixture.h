/* tests/unit/log/engine_fixture.h: one partition with hand-made files and control data, no coordinator: the test plays it. */
#ifndef ENGINE_FIXTURE_H
#define ENGINE_FIXTURE_H

#include "base/lock.h"
#include "format/names.h"
#include "format/record_batch.h"
#include "log/append.h"
#include "log/read.h"
#include "log/window.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

typedef struct engine {
    char data[64], shm[64];
    int dir_fd, shm_fd;
    uint8_t generation[16];
    bw_uuid topic;
    bw_mail *mail;
    bw_control *control;
    bw_tail_slot *slot;
    bw_fork_guard guard;
} engine;

static inline uint64_t engine_make_file(engine *g, const char *name, uint32_t bytes)
{
    int fd = bw_os_open(g->dir_fd, name, O_RDWR | O_CREAT | O_EXCL, 0640);
    assert_true(fd >= 0);
    if (bytes) assert_int_equal(bw_os_fallocate(fd, 0, 0, bytes + BW_TAIL_CLEAR), 0); /* with the margin behind the capacity */
    struct stat st;
    assert_int_equal(bw_os_fstat(fd, &st), 0);
    close(fd);
    return st.st_ino;
}

/* A partition whose first segment has `limit` bytes of which `capacity` are allocated. */
static inline void engine_init(engine *g, uint32_t capacity, uint32_t limit)
{
    memset(g, 0, sizeof *g);
    strcpy(g->data, "/tmp/bw-engine-XXXXXX");
    strcpy(g->shm, "/dev/shm/bw-engine-XXXXXX");
    assert_non_null(mkdtemp(g->data));
    assert_non_null(mkdtemp(g->shm));
    g->dir_fd = open(g->data, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    g->shm_fd = open(g->shm, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bw_os_uuid(g->generation);
    bw_os_uuid(g->topic.b);
    assert_int_equal(bw_mail_create(g->shm_fd, g->generation, &g->mail), BW_OK);
    assert_int_equal(bw_control_create(g->shm_fd, g->generation, &g->topic, g->mail, 1, &g->control), BW_OK);
    bw_tail_slot *s = g->slot = &g->control->slots[0];
    assert_int_equal(bw_lock_init(&s->mutex), 0);
    char name[BW_SEGMENT_NAME_MAX];
    bw_segment_name(name, 0, ".log");
    bw_ring_entry *e = bw_ring_at(s, 1);
    e->inode = engine_make_file(g, name, capacity);
    e->limit = limit;
    e->seq = 1;
    s->bus_number = 7;
    s->tail = s->durable = bw_position_of(1, 0);
    s->capacity = bw_position_of(1, capacity);
    s->first_unstable = INT64_MAX;
    s->segment_max = limit;
    s->message_max = 1 << 20;
    bw_control_publish(g->control, 1);
    assert_int_equal(bw_fork_guard_init(&g->guard), 0);
}

/* Publishes a spare for the sequence behind the tail's. */
static inline void engine_spare(engine *g, uint32_t bytes, uint32_t limit)
{
    uint32_t seq = bw_position_seq(g->slot->tail) + 1;
    char name[BW_SEGMENT_NAME_MAX];
    bw_spare_name(name, seq);
    g->slot->spare_inode = engine_make_file(g, name, bytes);
    g->slot->spare_bytes = bytes;
    g->slot->spare_limit = limit;
    atomic_store_explicit(&g->slot->spare_seq, seq, memory_order_release);
}

static inline void engine_fini(engine *g)
{
    bw_control_close(g->control);
    bw_mail_close(g->mail);
    bw_fork_guard_fini(&g->guard);
    close(g->dir_fd);
    close(g->shm_fd);
    char command[160];
    snprintf(command, sizeof command, "rm -rf %s %s", g->data, g->shm);
    assert_int_equal(system(command), 0);
}

static inline bw_appender *engine_appender(engine *g, bool use_pwrite)
{
    bw_appender *a;
    bw_appender_options o = {.control = g->control, .dir_fd = g->dir_fd, .use_pwrite = use_pwrite};
    assert_int_equal(bw_appender_open(&o, &a), BW_OK);
    return a;
}

static inline bw_reader *engine_reader(engine *g, bool use_pread, bw_reader_limit limit)
{
    bw_reader *r;
    bw_reader_options o = {.control = g->control, .dir_fd = g->dir_fd, .use_pread = use_pread, .limit = limit, .check_crcs = true};
    assert_int_equal(bw_reader_open(&o, &r), BW_OK);
    return r;
}

/* Encodes one batch of `count` records whose value is `value_len` times `fill`. */
static inline const uint8_t *engine_batch(bw_batch_builder *b, int count, size_t value_len, char fill, size_t *len)
{
    char *value = malloc(value_len + 1);
    memset(value, fill, value_len);
    bw_batch_builder_reset(b);
    for (int i = 0; i < count; i++) {
        bw_record r = {.value = value, .value_len = value_len, .timestamp_ms = 1000 + i};
        assert_int_equal(bw_batch_builder_add(b, &r), BW_OK);
    }
    free(value);
    uint8_t *out;
    bw_batch_options o = BW_BATCH_OPTIONS_INIT;
    assert_int_equal(bw_batch_builder_finish(b, &o, &out, len), BW_OK);
    return out;
}

static inline bw_err engine_append(bw_appender *a, bw_batch_builder *b, int count, size_t value_len, char fill, int timeout_ms,
                                   bw_append_result *r)
{
    size_t len;
    const uint8_t *batch = engine_batch(b, count, value_len, fill, &len);
    return bw_append(a, batch, len, count, 1000 + count - 1, bw_deadline_in_ms(timeout_ms), r);
}

/* Reads from offset 0 to the end; checks continuity; returns records seen, batches in *batches. */
static inline int64_t engine_read_all(engine *g, bool use_pread, int *batches)
{
    bw_reader *r = engine_reader(g, use_pread, BW_LIMIT_VISIBLE);
    bw_reader_seek(r, 0);
    bw_batch_ref b;
    int64_t next = 0;
    int n = 0;
    bw_err e;
    while ((e = bw_reader_next(r, &b)) == BW_OK) {
        assert_int_equal(b.header.base_offset, next);
        next = bw_batch_last_offset(&b.header) + 1;
        n++;
    }
    if (e != BW_ERR_EMPTY) fail_msg("read: %s: %s", bw_err_name(e), bw_error_message());
    bw_reader_close(r);
    if (batches) *batches = n;
    return next;
}

#endif
