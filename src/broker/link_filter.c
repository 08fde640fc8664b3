/* broker/link_filter.c: what a stream leaves out, and its compression; by the worker thread.
 *
 * A batch keeps its base offset, its span, its producer and its transactional bits (format/batch_filter.h). Of a mirror, control batches and
 * the transactional ones stay even when no record of them does: they are transactions' ends and beginnings. Any other batch of which no
 * record stays is left out: a gap. */
#include "broker/link_stream.h"

#include "format/batch_filter.h"
#include "format/codec.h"

#include <stdio.h>
#include <stdlib.h>

static bool has_header(const bw_link_filter *f, const bw_record_view *r)
{
    bw_header_iter it;
    bw_header h;
    size_t len = strlen(f->header);
    bw_header_iter_init(&it, r);
    while (bw_header_iter_next(&it, &h) == 1) {
        if (h.name_len != len || memcmp(h.name, f->header, len)) continue;
        if (!f->header_value->data || (h.value_len == f->header_value->len && !memcmp(h.value, f->header_value->data, h.value_len))) return true;
    }
    return false;
}

static bool was_written_by(const bw_uuid *origin, const bw_record_view *r)
{
    bw_header_iter it;
    bw_header h;
    bw_mark mark;
    bw_header_iter_init(&it, r);
    while (bw_header_iter_next(&it, &h) == 1)
        if (h.name_len == sizeof BW_ORIGIN_HEADER - 1 && !memcmp(h.name, BW_ORIGIN_HEADER, h.name_len) &&
            bw_mark_parse(h.value, h.value_len, &mark))
            return bw_uuid_equal(&mark.log.origin, origin);
    return false;
}

struct run {
    const bw_link_filter *f;
    bool merged; /* the batch was written by a merge */
};

static bw_filter_verdict decide(void *opaque, const bw_record_view *r)
{
    const struct run *x = opaque;
    const bw_link_filter *f = x->f;
    if (f->key_prefix->data && (!r->key || r->key_len < f->key_prefix->len || memcmp(r->key, f->key_prefix->data, f->key_prefix->len)))
        return BW_FILTER_DROP;
    if (f->header && !has_header(f, r)) return BW_FILTER_DROP;
    return f->target && x->merged && was_written_by(f->target, r) ? BW_FILTER_DROP : BW_FILTER_KEEP;
}

bw_err bw_link_filter_run(const bw_link_filter *f, const uint8_t *data, size_t len, size_t max_plain, bw_buf *out)
{
    bw_batch_filter filter = {0};
    bw_err e = BW_OK;
    bw_batch_header h;
    for (size_t at = 0; !e && at < len; at += e ? 0 : bw_batch_size(&h)) {
        if ((e = bw_batch_header_decode(data + at, len - at, false, &h))) break;
        const uint8_t *kept = data + at;
        size_t kept_len = bw_batch_size(&h);
        struct run x = {f, h.base_sequence == BW_MERGE_SEQUENCE && h.producer_id < 0};
        bool records = true, control = h.attributes & BW_ATTR_CONTROL;
        if (!control && (f->key_prefix->data || f->header || x.merged)) {
            e = bw_batch_filter_run(&filter, data + at, &h, max_plain, -1, decide, &x, &kept, &kept_len);
            records = filter.records_kept > 0;
        }
        bool needed = records || (f->mirror && (h.attributes & BW_ATTR_TRANSACTIONAL));
        if (!e && (control ? f->mirror : needed)) e = bw_buf_append(out, kept, kept_len);
    }
    bw_batch_filter_fini(&filter);
    return e == BW_ERR_EMPTY ? bw_fail(BW_ERR_CORRUPT, "a run of batches does not end with one") : e;
}

struct work {
    bw_job job;
    struct bw_link_stream *stream;
    bw_op *op;
    bw_link_part *parts;
    size_t count, plain;
    bw_codec codec;
    bw_buf payload;
};

static bw_err filter_parts(bw_broker *b, struct work *w)
{
    struct bw_link_stream *st = w->stream;
    bw_link_filter f = {&st->key_prefix, &st->header_value, st->header, st->skip_own && st->mode == BW_LINK_MERGE ? &st->target : NULL,
                        st->mode == BW_LINK_MIRROR};
    bw_buf out = {0};
    size_t at = 0;
    bw_err e = BW_OK;
    for (size_t i = 0; !e && i < w->count; i++) {
        size_t before = out.len;
        e = bw_link_filter_run(&f, w->payload.data + at, w->parts[i].size, b->config.socket_request_max_bytes, &out);
        at += w->parts[i].size;
        w->parts[i].size = (uint32_t)(out.len - before);
    }
    bw_buf_free(&w->payload);
    w->payload = out;
    return e;
}

static void run(bw_broker *b, bw_job *job)
{
    struct work *w = (struct work *)(void *)job;
    struct bw_link_stream *st = w->stream;
    bw_err e = st->filters || (st->skip_own && st->mode == BW_LINK_MERGE) ? filter_parts(b, w) : BW_OK;
    w->plain = w->payload.len;
    if (!e && st->codec != BW_CODEC_NONE && w->plain) {
        bw_buf packed = {0};
        e = bw_codec_compress(st->codec, w->payload.data, w->payload.len, &packed);
        if (!e && packed.len < w->payload.len) {
            bw_buf_free(&w->payload);
            w->payload = packed;
            w->codec = st->codec;
        } else bw_buf_free(&packed);
    }
    if (e) bw_job_set_error(job, e);
}

static void done(bw_broker *b, bw_job *job)
{
    struct work *w = (struct work *)(void *)job;
    if (job->error) {
        bw_error_set_message(job->error, job->message);
        bw_op_fail(w->op, job->error);
    } else bw_link_stream_answer(b, w->stream, w->op, w->parts, w->count, w->codec, w->plain, &w->payload);
    bw_link_stream_worked(b, w->stream);
    bw_buf_free(&w->payload);
    free(w->parts);
    free(w);
}

bool bw_link_stream_work(bw_broker *b, struct bw_link_stream *st, bw_op *op, bw_link_part *parts, size_t n, bw_buf *payload)
{
    struct work *w = calloc(1, sizeof *w);
    if (!w) return false;
    *w = (struct work){.job = {.run = run, .done = done}, .stream = st, .op = op, .parts = parts, .count = n, .payload = *payload};
    if (bw_worker_submit(b, &w->job)) {
        free(w);
        return false;
    }
    *payload = (bw_buf){0};
    st->working = true;
    return true;
}
