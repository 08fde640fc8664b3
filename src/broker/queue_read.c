/* broker/queue_read.c: records of a queue group's partition, from the log.
 *
 * Two cursors a part: `fresh` goes forward with the window's end, `old` looks up what is delivered again, was put off or dies. A plain
 * batch is decoded where the reader has it; a compressed one is unpacked into the cursor. */
#include "broker/queue.h"

#include "format/codec.h"
#include "format/names.h"

static bw_err open_reader(bw_broker *b, bw_queue_part *q, bw_queue_cursor *c)
{
    bw_part *p = q->part;
    bw_part_use_io(b, p);
    q->used_ms = bw_clock_mono_ms();
    if (c->reader) return BW_OK;
    char folder[BW_PARTITION_DIR_MAX];
    bw_partition_dir_name(folder, p->topic->name, (int32_t)p->index);
    bw_reader_options o = {.control = p->topic->control, .partition = p->index, .dir_fd = b->dir->fd, .folder = folder,
                           .limit = BW_LIMIT_VISIBLE, .committed = q->group->settings.committed, .check_crcs = true, .use_pread = true,
                           .guard = &b->guard};
    bw_err e = bw_reader_open(&o, &c->reader);
    if (!e) bw_broker_tick_on(b);
    return e;
}

void bw_queue_cursor_rest(bw_queue_cursor *c)
{
    c->in_batch = c->have = false;
    if (c->reader) bw_reader_rest(c->reader);
    bw_buf_free(&c->plain);
}

void bw_queue_cursor_close(bw_queue_cursor *c)
{
    bw_reader_close(c->reader);
    bw_buf_free(&c->plain);
    *c = (bw_queue_cursor){0};
}

static void rewind_batch(bw_queue_cursor *c)
{
    bw_record_iter_init(&c->it, &c->header, c->records, c->records_len);
    c->have = false;
}

/* The next batch with records for users. */
static bw_err next_batch(bw_queue_cursor *c)
{
    bw_batch_ref batch;
    c->in_batch = c->have = false;
    do {
        bw_err e = bw_reader_next(c->reader, &batch);
        if (e) return e;
    } while ((batch.header.attributes & BW_ATTR_CONTROL) || batch.header.record_count == 0);
    c->header = batch.header;
    c->records = batch.data + BW_BATCH_HEADER_BYTES;
    c->records_len = batch.size - BW_BATCH_HEADER_BYTES;
    bw_codec codec = (bw_codec)(batch.header.attributes & BW_ATTR_CODEC_MASK);
    if (codec != BW_CODEC_NONE) {
        c->plain.len = 0;
        bw_err e = bw_codec_decompress(codec, c->records, c->records_len, BW_QUEUE_PLAIN_MAX, &c->plain);
        if (e) return e;
        c->records = c->plain.data;
        c->records_len = c->plain.len;
    }
    rewind_batch(c);
    c->in_batch = true;
    return BW_OK;
}

/* Forward in the batch to the first record at or behind offset. EMPTY: not in this one. */
static bw_err forward(bw_queue_cursor *c, int64_t offset)
{
    int r;
    c->have = false;
    while ((r = bw_record_iter_next(&c->it, &c->view)) == 1) {
        if (c->view.offset < offset) continue;
        c->have = true;
        c->asked = offset;
        return BW_OK;
    }
    return r ? BW_ERR_CORRUPT : BW_ERR_EMPTY;
}

bw_err bw_queue_read(bw_broker *b, bw_queue_part *q, bw_queue_cursor *c, int64_t offset, bw_record_view *out, int64_t *upto)
{
    bw_err e = open_reader(b, q, c);
    if (e) return e;
    bool here = c->in_batch && offset >= c->header.base_offset && offset <= bw_batch_last_offset(&c->header);
    if (c->have && offset >= c->asked && offset <= c->view.offset) {
        *out = c->view;
        return BW_OK;
    }
    if (here && c->have && offset < c->asked) rewind_batch(c);
    if (here && !c->have && c->it.left < c->header.record_count) rewind_batch(c);
    e = here ? forward(c, offset) : BW_ERR_EMPTY;
    if (e == BW_ERR_EMPTY && !here && bw_reader_position(c->reader) != offset) bw_reader_seek(c->reader, offset);
    while (e == BW_ERR_EMPTY) {
        if ((e = next_batch(c))) break;
        e = forward(c, offset);
    }
    if (!e) *out = c->view;
    else if (e != BW_ERR_EMPTY || c->in_batch) c->in_batch = c->have = false;
    *upto = bw_reader_position(c->reader);
    return e;
}
