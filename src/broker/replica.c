/* broker/replica.c: REPLICA_ACK, EPOCHS, and the third watermark.
 *
 * A peer that mirrors a partition tells what of it readers there can see, and what is on its disk. The watermark is the replicas-th
 * largest of these: of the durable ones, and at most what is on the disk here, with replicas.acks = durable; of the visible ones with
 * visible. It is raised in the slot (log/partition_replicated.c), which wakes who waits for it: producers with acks = replicated here, and
 * readers of what is replicated everywhere.
 *
 * What a peer acknowledges counts only when its log is a prefix of this one: its last leader epoch is known here, and its end is not behind
 * the end of that epoch. A peer that knows a newer epoch than this log follows another origin: this one is told so (FENCED) and changes
 * nothing. So a log that was promoted elsewhere never has anything acknowledged as replicated by those who follow the new one. */
#include "broker/replica.h"

#include "broker/document.h"
#include "proto/replica_items.h"

#include <stdlib.h>

static bw_tail_slot *slot_of(const bw_part *p) { return &p->topic->control->slots[p->index]; }

bool bw_replica_wants_disk(const bw_part *p) { return p->topic->config.replicas_acks[0] == 'd'; }

/* The replicas-th largest of what peers have; -1: there are fewer peers. */
static int64_t acknowledged(const bw_part *p)
{
    int64_t best[16];
    size_t n = 0, want = (size_t)p->topic->config.replicas;
    bool disk = bw_replica_wants_disk(p);
    if (want == 0 || want > sizeof best / sizeof *best) return -1;
    for (const bw_replica *r = p->replicas; r; r = r->next) {
        int64_t have = disk ? r->durable : r->visible;
        size_t at = n < want ? n++ : want;
        if (at == want && have <= best[want - 1]) continue;
        if (at == want) at--;
        for (; at > 0 && best[at - 1] < have; at--) best[at] = best[at - 1];
        best[at] = have;
    }
    return n < want ? -1 : best[want - 1];
}

bool bw_replica_waiting(const bw_part *p)
{
    if (!p->replicas || !bw_replica_wants_disk(p)) return false;
    const bw_tail_slot *s = slot_of(p);
    int64_t have = acknowledged(p), now = (int64_t)atomic_load_explicit(&s->replicated, memory_order_acquire);
    return have > now && atomic_load_explicit(&s->durable_offset, memory_order_acquire) < have &&
           atomic_load_explicit(&s->state, memory_order_acquire) == BW_SLOT_OPEN;
}

void bw_replica_settle(bw_broker *b, bw_part *p)
{
    if (!p->replicas || !p->log) return;
    bw_tail_slot *s = slot_of(p);
    int64_t have = acknowledged(p);
    if (bw_replica_wants_disk(p)) {
        int64_t durable = atomic_load_explicit(&s->durable_offset, memory_order_acquire);
        if (have > durable) {
            have = durable;
            bw_syncer_want(b, p);
            bw_broker_again(b, p); /* to be armed for the disk */
        }
    }
    if (have > 0 && bw_partition_raise_replicated(p->log, have)) bw_broker_again(b, p);
}

void bw_replica_free(bw_part *p)
{
    while (p->replicas) {
        bw_replica *gone = p->replicas;
        p->replicas = gone->next;
        free(gone);
    }
}

/* ---- REPLICA_ACK ---- */

static bool is_hex(bw_str s)
{
    for (size_t i = 0; i < s.len; i++)
        if (!((s.data[i] >= '0' && s.data[i] <= '9') || (s.data[i] >= 'a' && s.data[i] <= 'f'))) return false;
    return s.len > 0 && s.len <= 64;
}

/* Where leader epoch `epoch` ends here: the start of the next one, or the log's end; -1: it is not known here. */
static bw_err epoch_end(const bw_part *p, int32_t epoch, int64_t *end)
{
    bw_partition_history h;
    bw_err e = bw_partition_history_get(p->log, &h);
    if (e) return e;
    *end = h.count == 0 || epoch < h.epochs[0].epoch ? -1 : bw_slot_end_offset(slot_of(p));
    for (size_t i = h.count; *end >= 0 && i-- > 0 && h.epochs[i].epoch > epoch;) *end = h.epochs[i].start_offset;
    free(h.epochs);
    return BW_OK;
}

static bw_err check_peer(const bw_part *p, const bw_replica_request *q)
{
    const bw_tail_slot *s = slot_of(p);
    int32_t epoch = (int32_t)atomic_load_explicit(&s->leader_epoch, memory_order_acquire);
    int64_t end = bw_slot_end_offset(s);
    if (!is_hex(q->peer)) return bw_fail(BW_ERR_INVALID_ARGUMENT, "a peer's id is 1 to 64 hexadecimal digits");
    if (q->visible < 0 || q->durable < 0 || q->durable > q->visible)
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "a peer cannot have %lld visible and %lld durable", (long long)q->visible, (long long)q->durable);
    if (q->epoch > epoch)
        return bw_fail(BW_ERR_ORIGIN_FENCED, "topic '%s' partition %u: the peer follows leader epoch %d, this log has %d: another was promoted",
                       p->topic->name, p->index, q->epoch, epoch);
    if (q->visible == 0) return BW_OK;
    if (q->epoch < epoch) {
        bw_err e = epoch_end(p, q->epoch, &end);
        if (e) return e;
    }
    if (q->visible <= end) return BW_OK;
    return bw_fail(BW_ERR_LOGS_DIVERGED, "topic '%s' partition %u: the peer has records up to %lld of leader epoch %d, which ends at %lld "
                   "here: its tail is not of this log", p->topic->name, p->index, (long long)q->visible, q->epoch, (long long)end);
}

static bw_err note_peer(bw_part *p, const bw_replica_request *q)
{
    bw_replica *r = p->replicas;
    size_t count = 0;
    for (; r && !bw_str_is(q->peer, r->peer); r = r->next) count++;
    if (!r) {
        if (count >= BW_REPLICA_PEERS_MAX) return bw_fail(BW_ERR_LIMIT_REACHED, "a partition has at most %d peers", BW_REPLICA_PEERS_MAX);
        if (!(r = calloc(1, sizeof *r))) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a peer");
        memcpy(r->peer, q->peer.data, q->peer.len);
        r->next = p->replicas;
        p->replicas = r;
    }
    r->visible = q->visible; /* may go back: a peer that has lost its disk says so */
    r->durable = q->durable;
    r->seen_ms = bw_clock_mono_ms();
    return BW_OK;
}

void bw_handle_replica_ack(bw_broker *b, bw_op *op)
{
    const bw_request *r = &op->request;
    bw_part *p;
    bw_err e = bw_part_of(b, r->topic, r->partition, false, &p);
    if (!e && !p->log) e = bw_fail(BW_ERR_IO, "topic '%s' partition %u is not open: %s", p->topic->name, p->index, p->why ? p->why : "see the log");
    if (!e) e = check_peer(p, &r->replica);
    if (!e) e = note_peer(p, &r->replica);
    if (!e) {
        bw_replica_settle(b, p);
        bw_replica_answer_when(b, p, op, bw_replica_wants_disk(p) ? r->replica.durable : 0); /* what counts waits for the disk here, too */
        return;
    }
    bw_answer a;
    bw_answer_init(&a, r);
    a.error = (int32_t)e;
    a.message = bw_str_of(bw_error_message());
    if (e == BW_ERR_ORIGIN_FENCED || e == BW_ERR_LOGS_DIVERGED) {
        a.replica.epoch = (int32_t)atomic_load_explicit(&slot_of(p)->leader_epoch, memory_order_acquire);
        bw_part_range(p, &a.log_start, &a.end, &a.durable);
    }
    bw_op_finish(op, &a);
}

/* ---- EPOCHS ---- */

void bw_handle_epochs(bw_broker *b, bw_op *op)
{
    bw_part *p;
    bw_partition_history h = {0};
    bw_err e = bw_part_of(b, op->request.topic, op->request.partition, false, &p);
    if (!e && !p->log) e = bw_fail(BW_ERR_IO, "topic '%s' partition %u is not open", p->topic->name, p->index);
    if (!e) e = bw_partition_history_get(p->log, &h);
    b->scratch.len = 0;
    if (!e) e = bw_buf_reserve(&b->scratch, h.count * BW_EPOCH_ITEM_BYTES);
    if (e) {
        free(h.epochs);
        bw_op_fail(op, e);
        return;
    }
    for (size_t i = 0; i < h.count; i++) (void)bw_epoch_item_put(&b->scratch, &h.epochs[i]); /* there is room */
    free(h.epochs);
    bw_answer a;
    bw_answer_init(&a, &op->request);
    a.replica.epoch = (int32_t)atomic_load_explicit(&slot_of(p)->leader_epoch, memory_order_acquire);
    a.replica.ranges = (bw_str){(const char *)b->scratch.data, b->scratch.len};
    bw_part_range(p, &a.log_start, &a.end, &a.durable);
    bw_op_finish(op, &a);
}

/* ---- description ---- */

int bw_replica_put(msgpack_packer *pk, const bw_part *p, const bw_partition_info *info)
{
    size_t n = 0;
    for (const bw_replica *r = p->replicas; r; r = r->next) n++;
    int bad = put_text(pk, "replicated") | msgpack_pack_map(pk, 2) | key_int(pk, "offset", info->replicated_offset);
    bad |= put_text(pk, "peers") | msgpack_pack_array(pk, n);
    for (const bw_replica *r = p->replicas; r; r = r->next) {
        bad |= msgpack_pack_map(pk, 4) | key_text(pk, "peer", r->peer) | key_int(pk, "visible", r->visible);
        bad |= key_int(pk, "durable", r->durable) | key_int(pk, "heard_ms_ago", bw_clock_mono_ms() - r->seen_ms);
    }
    return bad;
}
