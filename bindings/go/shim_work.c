/* shim_work.c: state mode, on the consumer's reader, and queues. See shim.h.
 *
 * A state's transaction is bound to the thread that began it, which Go sees to. A handler of bwgo_state_process enters Go once a record;
 * what it throws is kept there, and its code only says "stop". */
#include "shim.h"
#include "shim_private.h"

/* ---- state ---- */

bwgo_result bwgo_state_open(bwgo_reader *r, const char *dir, int fast, uint64_t map_bytes, bw_state **out)
{
    bw_state_options o = BW_STATE_OPTIONS_INIT;
    o.dir = dir;
    o.fast = fast != 0;
    if (map_bytes) o.map_bytes = map_bytes;
    return bwgo_result_of(bw_state_open(r->consumer, &o, out));
}

int32_t bwgo_state_begin(bwgo_reader *r, bw_state *s, int32_t timeout_ms, bw_state_txn **txn)
{
    r->count = 0;
    r->broken = 0;
    return bwgo_reader_take(r, bw_state_begin(s, timeout_ms, txn, &r->batch));
}

bwgo_result bwgo_state_commit(bw_state_txn *txn) { return bwgo_result_of(bw_state_commit(txn)); }

bwgo_result bwgo_state_read(bw_state *s, const char *topic, int32_t partition, bw_state_txn **txn)
{
    return bwgo_result_of(bw_state_read(s, topic, partition, txn));
}

static bw_err on_process(bw_state_txn *txn, const bw_batch *batch, const bw_record_view *record, void *opaque)
{
    return (bw_err)bwgoProcess((uintptr_t)opaque, txn, (bw_batch *)batch, (bw_record_view *)record);
}

bwgo_result bwgo_state_process(bw_state *s, int32_t timeout_ms, int32_t max, uintptr_t handle)
{
    int32_t done = 0;
    bwgo_result r = bwgo_result_of(bw_state_process(s, timeout_ms, max, on_process, (void *)handle, &done));
    r.n = done;
    return r;
}

bwgo_result bwgo_state_get(bw_state_txn *txn, const void *key, size_t key_len, const void **value, size_t *value_len)
{
    return bwgo_result_of(bw_state_get(txn, key, key_len, value, value_len));
}

bwgo_result bwgo_state_put(bw_state_txn *txn, const void *key, size_t key_len, const void *value, size_t value_len)
{
    return bwgo_result_of(bw_state_put(txn, key, key_len, value, value_len));
}

bwgo_result bwgo_state_del(bw_state_txn *txn, const void *key, size_t key_len) { return bwgo_result_of(bw_state_del(txn, key, key_len)); }

typedef struct entries {
    bwgo_entry *all;
    size_t count, capacity;
    bool no_memory;
} entries;

static bool on_entry(void *opaque, const void *key, size_t key_len, const void *value, size_t value_len)
{
    entries *e = opaque;
    if (e->count == e->capacity) {
        size_t capacity = e->capacity ? e->capacity * 2 : 64;
        bwgo_entry *grown = realloc(e->all, capacity * sizeof *grown);
        if (!grown) {
            e->no_memory = true;
            return false;
        }
        e->all = grown;
        e->capacity = capacity;
    }
    e->all[e->count++] = (bwgo_entry){key, value, key_len, value_len};
    return true;
}

bwgo_result bwgo_state_each(bw_state_txn *txn, const void *prefix, size_t prefix_len, bwgo_entry **out)
{
    entries e = {NULL, 0, 0, false};
    bwgo_result r = bwgo_result_of(bw_state_each(txn, prefix, prefix_len, on_entry, &e));
    if (!r.code && e.no_memory) r.code = BW_ERR_NO_MEMORY;
    r.a = (int64_t)e.count;
    *out = e.all;
    return r;
}

/* ---- queue ---- */

bwgo_result bwgo_queue_open(bw_bus *bus, bw_queue_options *options, bw_queue **out)
{
    return bwgo_result_of(bw_queue_open(bus, options, out));
}

bwgo_result bwgo_queue_close(bw_queue *q) { return bwgo_result_of(bw_queue_close(q)); }

bwgo_result bwgo_queue_poll(bw_queue *q, int32_t timeout_ms, bw_message *messages, size_t max)
{
    size_t count = 1;
    bw_err e = max == 1 ? bw_queue_poll(q, timeout_ms, messages) : bw_queue_poll_batch(q, timeout_ms, messages, max, &count);
    if (e) count = 0;
    bwgo_result r = e == BW_ERR_TIMED_OUT || e == BW_ERR_WOKEN ? (bwgo_result){.code = (int32_t)e} : bwgo_result_of(e);
    r.n = (int32_t)count;
    return r;
}

bwgo_result bwgo_queue_settle_batch(int what, bw_queue *q, bw_message *messages, size_t count)
{
    bw_err e = BW_OK;
    bool one = count == 1;
    switch (what) {
    case BWGO_ACK: e = one ? bw_queue_ack(q, messages) : bw_queue_ack_batch(q, messages, count); break;
    case BWGO_RELEASE: e = one ? bw_queue_release(q, messages) : bw_queue_release_batch(q, messages, count); break;
    case BWGO_REJECT: e = one ? bw_queue_reject(q, messages) : bw_queue_reject_batch(q, messages, count); break;
    default:
        for (size_t i = 0; !e && i < count; i++) e = bw_queue_renew(q, &messages[i]);
    }
    return bwgo_result_of(e);
}

bwgo_result bwgo_queue_flush(bw_queue *q, int32_t timeout_ms) { return bwgo_result_of(bw_queue_flush(q, timeout_ms)); }

bwgo_result bwgo_queue_ack_sync(bw_queue *q, bw_message *message, int32_t timeout_ms)
{
    return bwgo_result_of(bw_queue_ack_sync(q, message, timeout_ms));
}

int64_t bwgo_deliver_at(int64_t at_ms, uint8_t room[8], char name[64])
{
    bw_header h;
    bw_header_deliver_at(at_ms, room, &h);
    size_t len = h.name_len < 64 ? h.name_len : 64;
    memcpy(name, h.name, len);
    return (int64_t)len;
}
