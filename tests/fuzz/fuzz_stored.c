/* What the store and the transactions' log hold of offsets, transactions and quotas: any bytes as a key, a value, a record. What is taken
 * encodes again to what decodes to the same. First byte: which. */
#include "fuzz/fuzz.h"

#include "broker/offsets_layout.h"
#include "broker/quota.h"
#include "broker/txn_state.h"

#define REFUSED(e) FUZZ_CHECK((e) == BW_ERR_CORRUPT || (e) == BW_ERR_NEWER_FORMAT)

static void take_offset_key(const uint8_t *data, size_t size)
{
    bw_offset_key k, again;
    uint8_t out[BW_OFFSET_KEY_MAX];
    bw_err e = bw_offset_key_decode(data, size, &k);
    if (e) {
        REFUSED(e);
        return;
    }
    FUZZ_CHECK(k.group.len <= BW_OFFSET_GROUP_MAX);
    size_t len = bw_offset_key_encode(&k, out);
    FUZZ_CHECK(len == size && memcmp(out, data, len) == 0);
    FUZZ_CHECK(bw_offset_key_decode(out, len, &again) == BW_OK && again.of_group == k.of_group && again.partition == k.partition);
}

static void take_offset_value(const uint8_t *data, size_t size)
{
    bw_offset_stored v;
    uint8_t out[BW_OFFSET_VALUE_HEAD];
    int64_t idle_ms;
    bw_err e = bw_offset_value_decode(data, size, &v);
    if (e) REFUSED(e);
    else {
        bw_offset_value_encode(&v, out);
        FUZZ_CHECK(size == sizeof out + v.metadata.len && memcmp(out, data, sizeof out) == 0);
        FUZZ_CHECK(v.metadata.len == 0 || (const uint8_t *)v.metadata.data == data + sizeof out);
    }
    e = bw_offset_idle_decode(data, size, &idle_ms);
    if (e) REFUSED(e);
    else {
        bw_offset_idle_encode(idle_ms, out);
        FUZZ_CHECK(size == BW_OFFSET_IDLE_BYTES && memcmp(out, data, size) == 0);
    }
}

static void take_txn_record(const uint8_t *data, size_t size)
{
    bw_txn_record r = {0}, again = {0};
    bw_err e = bw_txn_record_decode(data, size, &r);
    if (e) REFUSED(e);
    else {
        fuzz_pause();
        bw_buf first = {0}, second = {0};
        FUZZ_CHECK(bw_txn_record_encode(&r, &first) == BW_OK && bw_txn_record_decode(first.data, first.len, &again) == BW_OK);
        FUZZ_CHECK(bw_txn_record_encode(&again, &second) == BW_OK && second.len == first.len);
        FUZZ_CHECK(first.len == 0 || memcmp(first.data, second.data, first.len) == 0);
        bw_buf_free(&first);
        bw_buf_free(&second);
        bw_txn_record_fini(&again);
        fuzz_resume();
    }
    bw_txn_record_fini(&r);
}

static void take_txn_state(const uint8_t *data, size_t size)
{
    bw_txn_state s = {0}, again = {0};
    bw_err e = bw_txn_state_decode(data, size, &s);
    if (e) REFUSED(e);
    else {
        fuzz_pause();
        bw_buf first = {0}, second = {0};
        FUZZ_CHECK(bw_txn_state_encode(&s, &first) == BW_OK && bw_txn_state_decode(first.data, first.len, &again) == BW_OK);
        FUZZ_CHECK(bw_txn_state_encode(&again, &second) == BW_OK && second.len == first.len && memcmp(first.data, second.data, first.len) == 0);
        bw_buf_free(&first);
        bw_buf_free(&second);
        bw_txn_state_fini(&again);
        fuzz_resume();
    }
    bw_txn_state_fini(&s);
}

/* The first byte of what is left: the key's length. */
static void take_quota(const uint8_t *data, size_t size)
{
    bw_quota_entry q;
    uint8_t key[BW_QUOTA_KEY_MAX], value[BW_QUOTA_VALUE_BYTES];
    if (!size || data[0] > size - 1) return;
    bw_err e = bw_quota_decode(data + 1, data[0], data + 1 + data[0], size - 1 - data[0], &q);
    if (e) {
        REFUSED(e);
        return;
    }
    size_t len = bw_quota_key(&q.name, key);
    bw_quota_value(&q, value);
    FUZZ_CHECK(len == data[0] && memcmp(key, data + 1, len) == 0);
    FUZZ_CHECK(size - 1 - data[0] == sizeof value && memcmp(value, data + 1 + data[0], sizeof value) == 0);
}

static int fuzz_input(const uint8_t *data, size_t size)
{
    static void (*const take[])(const uint8_t *, size_t) = {take_offset_key, take_offset_value, take_txn_record, take_txn_state, take_quota};
    if (size) take[data[0] % (sizeof take / sizeof *take)](data + 1, size - 1);
    return 0;
}
