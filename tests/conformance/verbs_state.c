/* verbs_state.c: a consumer's own state. */
#include "conformance/conformance.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TXN_OR_LEAVE(h)                           \
    handle *h = handle_on(w, step, KIND_TXN);     \
    if (!h) return BW_OK

static bw_err state_open(world *w, json_t *step, json_t **result)
{
    (void)result;
    bw_state_options o = BW_STATE_OPTIONS_INIT;
    handle *c = handle_find(w, KIND_CONSUMER, arg_text_or(step, "consumer", kind_name(KIND_CONSUMER)));
    if (!c) return BW_OK;
    o.fast = !json_is_false(json_object_get(step, "fast"));
    o.dir = arg_text_or(step, "dir", NULL);
    bw_state *s = NULL;
    bw_err e = bw_state_open(c->object, &o, &s);
    if (!e) handle_add(w, KIND_STATE, name_made(step, KIND_STATE), s);
    return e;
}

static bw_err state_close(world *w, json_t *step, json_t **result)
{
    (void)result;
    handle *h = handle_on(w, step, KIND_STATE);
    if (h) handle_close(w, h, NULL);
    return BW_OK;
}

static bw_err count_by_key(bw_state_txn *txn, const bw_batch *batch, const bw_record_view *record, void *opaque)
{
    (void)batch, (void)opaque;
    const void *before;
    size_t len;
    char digits[24] = "0";
    bw_err e = bw_state_get(txn, record->key, record->key_len, &before, &len);
    if (!e) snprintf(digits, sizeof digits, "%.*s", (int)len, (const char *)before);
    else if (e != BW_ERR_NOT_FOUND) return e;
    int n = snprintf(digits, sizeof digits, "%lld", atoll(digits) + 1);
    return bw_state_put(txn, record->key, record->key_len, digits, (size_t)n);
}

static bw_err refuse(bw_state_txn *txn, const bw_batch *batch, const bw_record_view *record, void *opaque)
{
    bw_err e = count_by_key(txn, batch, record, opaque);
    return e ? e : BW_ERR_INVALID_RECORD;
}

static bw_err state_process(world *w, json_t *step, json_t **result)
{
    handle *h = handle_on(w, step, KIND_STATE);
    if (!h) return BW_OK;
    bw_state_fn fn = !strcmp(arg_text(w, step, "handler"), "refuse") ? refuse : count_by_key;
    int32_t most = (int32_t)arg_int(step, "batch_max", 1000), timeout_ms = arg_timeout(step, 5000);
    int64_t total = arg_int(step, "total", 0), sum = 0, end = clock_ms() + timeout_ms;
    bw_err e;
    do {
        int32_t done = 0;
        e = bw_state_process(h->object, total ? 200 : timeout_ms, most, fn, NULL, &done);
        sum += done;
        if (total && (e == BW_ERR_TIMED_OUT || e == BW_ERR_BUSY) && clock_ms() < end) e = BW_OK;
    } while (!e && sum < total);
    *result = json_pack("{s:I}", "done", (json_int_t)sum);
    return e;
}

static bw_err state_begin(world *w, json_t *step, json_t **result)
{
    handle *h = handle_on(w, step, KIND_STATE);
    if (!h) return BW_OK;
    bw_state_txn *txn = NULL;
    bw_batch b = {0};
    bw_record_view r;
    bw_err e = bw_state_begin(h->object, arg_timeout(step, 5000), &txn, &b);
    if (e) return e;
    json_t *list = json_array();
    while (bw_batch_next(&b, &r) == 1) json_array_append_new(list, seen_record(&b, &r));
    *result = json_pack("{s:s, s:i, s:o}", "topic", b.topic, "partition", (int)b.partition, "records", list);
    handle_add(w, KIND_TXN, name_made(step, KIND_TXN), txn);
    return BW_OK;
}

static bw_err state_read(world *w, json_t *step, json_t **result)
{
    (void)result;
    handle *h = handle_on(w, step, KIND_STATE);
    if (!h) return BW_OK;
    bw_state_txn *txn = NULL;
    bw_err e = bw_state_read(h->object, arg_text(w, step, "topic"), arg_partition(step), &txn);
    if (!e) handle_add(w, KIND_TXN, name_made(step, KIND_TXN), txn);
    return e;
}

static bw_err state_get(world *w, json_t *step, json_t **result)
{
    TXN_OR_LEAVE(h);
    const void *key, *value = NULL;
    size_t key_len, len = 0;
    arg_bytes(w, json_object_get(step, "key"), &key, &key_len);
    bw_err e = bw_state_get(h->object, key, key_len, &value, &len);
    if (!e) *result = value_bytes(value, len);
    return e;
}

static bw_err state_put(world *w, json_t *step, json_t **result)
{
    (void)result;
    TXN_OR_LEAVE(h);
    const void *key, *value;
    size_t key_len, len;
    arg_bytes(w, json_object_get(step, "key"), &key, &key_len);
    arg_bytes(w, json_object_get(step, "value"), &value, &len);
    return bw_state_put(h->object, key, key_len, value, len);
}

static bw_err state_del(world *w, json_t *step, json_t **result)
{
    (void)result;
    TXN_OR_LEAVE(h);
    const void *key;
    size_t key_len;
    arg_bytes(w, json_object_get(step, "key"), &key, &key_len);
    return bw_state_del(h->object, key, key_len);
}

typedef struct entries { json_t *list; size_t most; } entries;

static bool one_entry(void *opaque, const void *key, size_t key_len, const void *value, size_t value_len)
{
    entries *out = opaque;
    json_array_append_new(out->list, json_pack("[oo]", value_bytes(key, key_len), value_bytes(value ? value : "", value_len)));
    return json_array_size(out->list) < out->most;
}

static bw_err state_each(world *w, json_t *step, json_t **result)
{
    TXN_OR_LEAVE(h);
    const void *prefix;
    size_t len;
    entries out = {json_array(), (size_t)arg_int(step, "most", INT32_MAX)};
    arg_bytes(w, json_object_get(step, "prefix"), &prefix, &len);
    *result = out.list;
    return bw_state_each(h->object, prefix ? prefix : "", len, one_entry, &out);
}

static bw_err state_offset(world *w, json_t *step, json_t **result)
{
    TXN_OR_LEAVE(h);
    *result = json_integer(bw_state_offset(h->object));
    return BW_OK;
}

static bw_err state_commit(world *w, json_t *step, json_t **result)
{
    (void)result;
    TXN_OR_LEAVE(h);
    bw_state_txn *txn = h->object;
    h->object = NULL;
    handle_close(w, h, NULL);
    return bw_state_commit(txn);
}

static bw_err state_abort(world *w, json_t *step, json_t **result)
{
    (void)result;
    TXN_OR_LEAVE(h);
    handle_close(w, h, NULL);
    return BW_OK;
}

const verb state_verbs[] = {
    {"state.open", state_open},
    {"state.close", state_close},
    {"state.process", state_process},
    {"state.begin", state_begin},
    {"state.read", state_read},
    {"state.get", state_get},
    {"state.put", state_put},
    {"state.del", state_del},
    {"state.each", state_each},
    {"state.offset", state_offset},
    {"state.commit", state_commit},
    {"state.abort", state_abort},
    {NULL, NULL},
};
