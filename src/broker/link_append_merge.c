/* broker/link_append_merge.c: a part of LINK_APPEND into a merge: what is new of it, at new offsets.
 *
 * encoded against a copy of the vector (worker) -> appended -> the copy becomes the vector. Marks in the batches say what they are, so that
 * the log alone tells after a death how far each origin is here. */
#include "broker/link_append.h"

#include "base/killpoint.h"
#include "broker/produce_internal.h"

enum { SPAN_BYTES = 1 << 20 };

static bw_tail_slot *slot_of(const bw_part *p) { return &p->topic->control->slots[p->index]; }

bw_log_id bw_link_log_id(const bw_request *r, const uint8_t source[16], int32_t partition, bool of_link)
{
    bw_log_id id = {.incarnation = r->link.incarnation, .partition = partition};
    uint64_t hash = 14695981039346656037u; /* FNV-1a: each link has a place of its own */
    for (size_t i = 0; i < r->link.name.len; i++) hash = (hash ^ (uint8_t)r->link.name.data[i]) * 1099511628211u;
    if (of_link) id.incarnation ^= hash;
    memcpy(id.origin.b, r->link.origin, 16);
    memcpy(id.topic.b, source, 16);
    return id;
}

static bw_err append_merged(bw_broker *b, bw_part *p, struct bw_link_append *x)
{
    bw_append_piece pieces[64];
    size_t most = atomic_load_explicit(&slot_of(p)->segment_max, memory_order_relaxed) / 2;
    bw_err e = BW_OK;
    while (!e && x->done < x->merged_count) {
        size_t n = 0, bytes = 0;
        int64_t newest = INT64_MIN;
        while (x->done + n < x->merged_count && n < 64) {
            const bw_merged *m = &x->merged[x->done + n];
            if (n && (bytes + m->len > most || bytes + m->len > SPAN_BYTES)) break;
            pieces[n++] = (bw_append_piece){m->batch, m->len, m->count};
            bytes += m->len;
            if (m->max_timestamp > newest) newest = m->max_timestamp;
        }
        bw_appender *appender;
        bw_append_result result;
        for (int i = 0; i < 2; i++) {
            if ((e = bw_part_appender(b, p, &appender))) return e;
            bw_produce_before_append(b, p);
            if (p->taps) bw_broker_again(b, p);
            e = bw_append_many(appender, pieces, n, newest, bw_clock_mono_ns() + BW_PRODUCE_PATIENCE_NS, &result);
            if (e != BW_ERR_FENCED) break;
            bw_appender_close(p->appender);
            p->appender = NULL;
        }
        if (e) break;
        x->done += n;
        p->in_batches += n;
        p->in_bytes += bytes;
        BW_KILL_POINT("link.merged");
    }
    return e;
}

static bw_link_step merge_encoded(bw_broker *b, struct bw_link_append *x, bw_part *p, struct bw_merge *m)
{
    const bw_link_part *q = &x->op->request.link.parts[x->index];
    bw_err e = append_merged(b, p, x);
    if (e && bw_link_append_may_retry(x, e)) {
        m->busy = true; /* the copy of the vector stays the newest */
        return PART_RETRY;
    }
    m->busy = false;
    if (e && x->done) bw_merge_spoil(m); /* some of it is in the log */
    if (e) bw_link_append_part_error(x, e);
    else {
        bw_log_id id = bw_link_log_id(&x->op->request, q->id, q->partition, true);
        int64_t log_start, end, durable;
        e = bw_vector_raise(&x->vector, BW_VECTOR_LINK, &id, q->next);
        bw_part_range(p, &log_start, &end, &durable);
        x->vector.valid = end;
        bw_vector old = m->vector;
        m->vector = x->vector;
        x->vector = old;
        bw_merge_changed(b, m);
        x->parts[x->index].offset = x->parts[x->index].next = q->next;
    }
    return PART_DONE;
}

bw_link_step bw_link_append_merge(bw_broker *b, struct bw_link_append *x, bw_part *p)
{
    const bw_request *r = &x->op->request;
    const bw_link_part *q = &r->link.parts[x->index];
    bw_err e = BW_OK;
    if (bw_topic_is_mirror(p->topic)) e = bw_mirror_refuse_write(p->topic);
    struct bw_merge *m = e ? NULL : bw_merge_ready(b, p, &e);
    if (!m && !e) return PART_RETRY;
    if (!e && x->task == TASK_ENCODE && x->vector.valid) return merge_encoded(b, x, p, m);
    if (!e && m->busy) return PART_RETRY;
    bw_log_id id = bw_link_log_id(r, q->id, q->partition, true);
    int64_t expected = e ? 0 : bw_vector_next(&m->vector, BW_VECTOR_LINK, &id);
    x->parts[x->index].offset = expected;
    if (!e && q->offset > expected)
        e = bw_fail(BW_ERR_OUT_OF_ORDER_SEQUENCE, "topic '%s' partition %u: the link goes on at offset %lld, what came begins at %lld",
                    p->topic->name, p->index, (long long)expected, (long long)q->offset);
    if (!e) e = bw_vector_copy(&m->vector, &x->vector);
    if (e) {
        bw_link_append_part_error(x, e);
        return PART_DONE;
    }
    if (!x->vector.valid) x->vector.valid = 1; /* an empty log's: it says here that there is one */
    x->input = (bw_merge_input){x->data + x->at, q->size, bw_link_log_id(r, q->id, q->partition, false), bw_origin_id(b),
                                b->config.socket_request_max_bytes};
    m->busy = true;
    bw_link_step o = bw_link_append_work(b, x, p, TASK_ENCODE);
    if (o != PART_WORKS) m->busy = false;
    return o;
}
