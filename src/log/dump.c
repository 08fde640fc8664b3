/* log/dump.c: bw_dump: the batches and records of one segment file. */
#include "log/inspect.h"

#include "base/err.h"
#include "base/os.h"
#include "format/control_batch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

enum { PLAIN_MAX = 1 << 30 };

typedef struct dump_job {
    const bw_dump_batch *batch;
    bw_dump_fn fn;
    void *opaque;
    bool stopped;
} dump_job;

static bool dump_record(void *opaque, const bw_record_view *record)
{
    dump_job *j = opaque;
    j->stopped = !j->fn(j->opaque, j->batch, record);
    return !j->stopped;
}

/* Of a sound control batch. */
static bw_dump_marker marker_of(bw_walk *w)
{
    const uint8_t *data;
    bw_marker m;
    bool is_marker = (w->header.attributes & BW_ATTR_CONTROL) && bw_walk_batch(w, &data) == BW_OK && bw_marker_read(data, &w->header, &m) == BW_OK;
    return !is_marker ? BW_DUMP_NO_MARKER : m.commit ? BW_DUMP_COMMIT : BW_DUMP_ABORT;
}

static bw_dump_batch describe(const bw_walk *w, bool crc_ok)
{
    const bw_batch_header *h = &w->header;
    return (bw_dump_batch){
        .position = w->at, .size = w->size, .base_offset = h->base_offset, .last_offset = bw_batch_last_offset(h),
        .count = h->record_count, .leader_epoch = h->leader_epoch, .attributes = h->attributes,
        .codec = (bw_codec)(h->attributes & BW_ATTR_CODEC_MASK),
        .timestamp_type = h->attributes & BW_ATTR_LOG_APPEND_TIME ? BW_TIMESTAMP_LOG_APPEND : BW_TIMESTAMP_CREATE,
        .base_timestamp_ms = h->base_timestamp, .max_timestamp_ms = h->max_timestamp, .producer_id = h->producer_id,
        .producer_epoch = h->producer_epoch, .base_sequence = h->base_sequence, .crc = h->crc, .crc_ok = crc_ok,
        .is_transactional = (h->attributes & BW_ATTR_TRANSACTIONAL) != 0, .is_control = (h->attributes & BW_ATTR_CONTROL) != 0,
    };
}

bw_err bw_inspect_dump(bw_walk *w, bool records, size_t plain_max, bw_dump_fn fn, void *opaque)
{
    bw_buf plain = {0};
    bool bad_records = false;
    bw_err e;
    w->next_offset = -1; /* what is there is shown, in whatever order */
    while ((e = bw_walk_next(w)) == BW_OK) {
        bw_dump_batch batch = describe(w, true);
        batch.marker = marker_of(w);
        dump_job j = {&batch, fn, opaque, false};
        uint64_t count;
        if (!fn(opaque, &batch, NULL)) break;
        if (records) e = bw_inspect_records(w, plain_max, &plain, dump_record, &j, &count);
        if (e) (void)bw_error_context(e, "byte %llu, offset %lld", (unsigned long long)w->at, (long long)w->header.base_offset);
        bad_records = e != BW_OK;
        if (e || j.stopped) break;
        w->next_offset = -1;
        w->leader_epoch = INT32_MIN;
    }
    if (e == BW_ERR_CORRUPT && !bad_records) { /* show the header of a batch whose bytes are wrong, then say why */
        char why[400];
        bw_walk probe = *w;
        snprintf(why, sizeof why, "%s", bw_error_message());
        probe.check_crc = false;
        if (bw_walk_next(&probe) == BW_OK) {
            bw_dump_batch batch = describe(&probe, false);
            (void)fn(opaque, &batch, NULL);
        }
        e = bw_error_set_message(BW_ERR_CORRUPT, why);
    }
    bw_buf_free(&plain);
    return e == BW_ERR_EMPTY ? BW_OK : e;
}

bw_err bw_dump(const char *segment_path, bool records, bw_dump_fn fn, void *opaque)
{
    if (!segment_path || !fn) return bw_fail(BW_ERR_INVALID_ARGUMENT, "bw_dump needs a file and a function");
    int fd = bw_os_open_named(segment_path, O_RDONLY, 0);
    if (fd < 0) return bw_fail_errno(errno, "cannot open %s", segment_path);
    struct stat st;
    bw_walk w;
    bw_err e = BW_OK;
    if (bw_os_fstat(fd, &st) != 0) e = bw_fail_errno(errno, "cannot stat %s", segment_path);
    else if (!S_ISREG(st.st_mode)) e = bw_fail(BW_ERR_INVALID_ARGUMENT, "%s is not a plain file; give a .log file", segment_path);
    if (!e) e = bw_walk_init_fd(&w, fd, false, (uint64_t)st.st_size, NULL, 0);
    if (!e) {
        w.gaps_below = INT64_MAX; /* a dump shows what is there */
        e = bw_inspect_dump(&w, records, PLAIN_MAX, fn, opaque);
        bw_walk_fini(&w);
    }
    bw_os_close(fd);
    return e ? bw_error_context(e, "%s", segment_path) : BW_OK;
}
