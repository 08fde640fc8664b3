/* broker/quota.c: see quota.h. Invariant: a bucket is in the table until nobody uses it and nothing is owed. */
#include "broker/quota.h"

#include "base/bytes.h"
#include "base/err.h"

#include <stdio.h>
#include <stdlib.h>

#define HASH_NONFATAL_OOM 1
#define uthash_nonfatal_oom(t) ((t)->not_hashed = true)
#include <uthash.h>

#define VALUE_VERSION 1u
#define SWEEP_AT 64u /* buckets that nobody uses */

typedef struct entry {
    bw_quota_entry q;
    uint8_t key[BW_QUOTA_KEY_MAX];
    bool not_hashed;
    UT_hash_handle hh;
} entry;

struct bw_quota_bucket {
    bw_bucket bucket;
    bw_quota_name name;
    uint32_t users;
    uint8_t key[BW_QUOTA_KEY_MAX + 1]; /* and the kind */
    bool not_hashed;
    UT_hash_handle hh;
};

struct bw_quotas {
    entry *entries;
    bw_quota_bucket *buckets;
    uint32_t unused; /* buckets that nobody uses */
    uint64_t generation;
};

const char *bw_quota_kind_name(bw_quota_kind kind)
{
    static const char *const names[BW_QUOTA_KINDS] = {"producer_byte_rate", "consumer_byte_rate", "request_rate"};
    return names[kind];
}

bw_quotas *bw_quotas_new(void)
{
    bw_quotas *q = calloc(1, sizeof *q);
    if (q) q->generation = 1;
    return q;
}

void bw_quotas_free(bw_quotas *q)
{
    if (!q) return;
    entry *e, *e_next;
    bw_quota_bucket *b, *b_next;
    HASH_ITER(hh, q->entries, e, e_next)
    {
        HASH_DEL(q->entries, e);
        free(e);
    }
    HASH_ITER(hh, q->buckets, b, b_next)
    {
        HASH_DEL(q->buckets, b);
        free(b);
    }
    free(q);
}

size_t bw_quotas_count(const bw_quotas *q) { return HASH_COUNT(q->entries); }
uint64_t bw_quotas_generation(const bw_quotas *q) { return q->generation; }

/* ---- entities ---- */

static bool is_number(bw_str s, size_t most)
{
    if (s.len == 0 || s.len > most || (s.len > 1 && s.data[0] == '0')) return false;
    for (size_t i = 0; i < s.len; i++)
        if (s.data[i] < '0' || s.data[i] > '9') return false;
    return true;
}

static bw_err take_text(bw_str from, char *to, size_t size, const char *what, bool number)
{
    bool is_default = bw_str_is(from, BW_QUOTA_DEFAULT);
    if (from.len && !is_default && number && !is_number(from, size - 1))
        return bw_fail(BW_ERR_INVALID_QUOTA, "%s '%.*s': allowed: a number or %s", what,
                       (int)(from.len > 40 ? 40 : from.len), from.data, BW_QUOTA_DEFAULT);
    if (from.len >= size || memchr(from.len ? from.data : "", 0, from.len))
        return bw_fail(BW_ERR_INVALID_QUOTA, "%s: allowed: at most %zu bytes, none of them NUL", what, size - 1);
    if (from.len) memcpy(to, from.data, from.len);
    to[from.len] = 0;
    return BW_OK;
}

bw_err bw_quota_name_of(const bw_quota_entity *e, bw_quota_name *out)
{
    memset(out, 0, sizeof *out);
    bw_err err = take_text(e->user, out->user, sizeof out->user, "user", true);
    if (!err) err = take_text(e->client, out->client, sizeof out->client, "client id", false);
    if (!err) err = take_text(e->pid, out->pid, sizeof out->pid, "pid", true);
    if (err) return err;
    if (!out->user[0] && !out->client[0] && !out->pid[0])
        return bw_fail(BW_ERR_INVALID_QUOTA, "a quota without an entity; allowed: user, client id, both, or pid, each a value or %s",
                       BW_QUOTA_DEFAULT);
    if (out->pid[0] && (out->user[0] || out->client[0]))
        return bw_fail(BW_ERR_INVALID_QUOTA, "a quota of a pid stands alone: allowed: user, client id, both, or pid");
    return BW_OK;
}

const char *bw_quota_describe(const bw_quota_name *n, char *out, size_t size)
{
    if (n->pid[0]) snprintf(out, size, "pid %s", n->pid);
    else if (n->user[0] && n->client[0]) snprintf(out, size, "user %s client '%s'", n->user, n->client);
    else if (n->user[0]) snprintf(out, size, "user %s", n->user);
    else snprintf(out, size, "client '%s'", n->client);
    return out;
}

static bw_err parse_rate(const char *name, bw_str text, int64_t *out)
{
    bool ok = is_number(text, 16);
    *out = 0;
    for (size_t i = 0; ok && i < text.len; i++) *out = *out * 10 + (text.data[i] - '0');
    if (ok && *out >= 1 && *out <= BW_QUOTA_RATE_MAX) return BW_OK;
    return bw_fail(BW_ERR_INVALID_QUOTA, "%s = '%.*s' is not valid; allowed: a whole number a second, 1 to %lld, or nothing to remove it", name,
                   (int)(text.len > 40 ? 40 : text.len), text.len ? text.data : "", (long long)BW_QUOTA_RATE_MAX);
}

bw_err bw_quota_apply(bw_quota_entry *e, const bw_config_pair *rates, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        int k = 0;
        while (k < BW_QUOTA_KINDS && !bw_str_is(rates[i].name, bw_quota_kind_name((bw_quota_kind)k))) k++;
        if (k == BW_QUOTA_KINDS)
            return bw_fail(BW_ERR_INVALID_QUOTA, "unknown rate '%.*s'; there are: producer_byte_rate, consumer_byte_rate, request_rate",
                           (int)(rates[i].name.len > 60 ? 60 : rates[i].name.len), rates[i].name.data);
        bw_err err = BW_OK;
        if (!rates[i].has_value) e->rates[k] = 0;
        else err = parse_rate(bw_quota_kind_name((bw_quota_kind)k), rates[i].value, &e->rates[k]);
        if (err) return err;
    }
    return BW_OK;
}

/* ---- records ---- */

size_t bw_quota_key(const bw_quota_name *n, uint8_t out[BW_QUOTA_KEY_MAX])
{
    const char *const texts[] = {n->user, n->client, n->pid};
    size_t at = 0;
    for (int i = 0; i < 3; i++) {
        size_t len = strlen(texts[i]) + 1;
        memcpy(out + at, texts[i], len);
        at += len;
    }
    return at;
}

void bw_quota_value(const bw_quota_entry *e, uint8_t out[BW_QUOTA_VALUE_BYTES])
{
    out[0] = VALUE_VERSION;
    for (int k = 0; k < BW_QUOTA_KINDS; k++) bw_put_be64(out + 1 + 8 * k, (uint64_t)e->rates[k]);
}

bw_err bw_quota_decode(const void *key, size_t key_len, const void *value, size_t value_len, bw_quota_entry *out)
{
    const uint8_t *v = value;
    bw_str texts[3];
    const char *at = key, *end = at + key_len;
    for (int i = 0; i < 3; i++) {
        const char *nul = at < end ? memchr(at, 0, (size_t)(end - at)) : NULL;
        if (!nul) return bw_fail(BW_ERR_CORRUPT, "a stored quota has a cut key");
        texts[i] = (bw_str){at, (size_t)(nul - at)};
        at = nul + 1;
    }
    bw_quota_entity e = {texts[0], texts[1], texts[2]};
    if (at != end || value_len != BW_QUOTA_VALUE_BYTES || v[0] != VALUE_VERSION || bw_quota_name_of(&e, &out->name))
        return bw_fail(BW_ERR_CORRUPT, "a stored quota can't be read");
    for (int k = 0; k < BW_QUOTA_KINDS; k++) {
        out->rates[k] = (int64_t)bw_get_be64(v + 1 + 8 * k);
        if (out->rates[k] < 0 || out->rates[k] > BW_QUOTA_RATE_MAX) return bw_fail(BW_ERR_CORRUPT, "a stored quota has a rate that can't be");
    }
    return BW_OK;
}

/* ---- the table ---- */

static entry *find(const bw_quotas *q, const bw_quota_name *name)
{
    uint8_t key[BW_QUOTA_KEY_MAX];
    size_t len = bw_quota_key(name, key);
    entry *e = NULL;
    HASH_FIND(hh, q->entries, key, len, e);
    return e;
}

const bw_quota_entry *bw_quotas_get(const bw_quotas *q, const bw_quota_name *name)
{
    const entry *e = find(q, name);
    return e ? &e->q : NULL;
}

/* Buckets in use take their new rates; who uses one that is no longer his leaves it when he sees the generation. */
static void new_rates(bw_quotas *q, int64_t now_ns)
{
    bw_quota_bucket *b, *next;
    HASH_ITER(hh, q->buckets, b, next)
    {
        bw_quota_name name;
        bw_quota_kind kind = (bw_quota_kind)b->key[0];
        const bw_quota_entry *e = bw_quotas_find(q, kind, &b->name, &name);
        if (e && e->rates[kind] != b->bucket.rate) bw_bucket_set_rate(&b->bucket, now_ns, e->rates[kind]);
    }
}

bw_err bw_quotas_put(bw_quotas *q, const bw_quota_entry *with, int64_t now_ns)
{
    entry *e = find(q, &with->name);
    bool any = with->rates[0] || with->rates[1] || with->rates[2];
    if (any && !e) {
        if (HASH_COUNT(q->entries) >= BW_QUOTAS_MAX) return bw_fail(BW_ERR_LIMIT_REACHED, "there are %u quotas; remove some first", BW_QUOTAS_MAX);
        if (!(e = calloc(1, sizeof *e))) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a quota");
        size_t len = bw_quota_key(&with->name, e->key);
        HASH_ADD_KEYPTR(hh, q->entries, e->key, len, e);
        if (e->not_hashed) {
            free(e);
            return bw_fail(BW_ERR_NO_MEMORY, "no memory for a quota");
        }
    }
    if (any) e->q = *with;
    else if (e) {
        HASH_DEL(q->entries, e);
        free(e);
    }
    q->generation++;
    new_rates(q, now_ns);
    return BW_OK;
}

void bw_quotas_each(const bw_quotas *q, void (*fn)(void *opaque, const bw_quota_entry *entry), void *opaque)
{
    for (const entry *e = q->entries; e; e = e->hh.next) fn(opaque, &e->q);
}

/* ---- who has which ---- */

/* What one place of an entity is matched by: nothing, the value, or the default. */
typedef enum place { NONE, VALUE, ANY } place;
static const struct {
    place user, client, pid;
} order[] = {
    {NONE, NONE, VALUE}, {VALUE, VALUE, NONE}, {VALUE, ANY, NONE}, {VALUE, NONE, NONE}, {ANY, VALUE, NONE},
    {ANY, ANY, NONE},    {ANY, NONE, NONE},    {NONE, VALUE, NONE}, {NONE, ANY, NONE},  {NONE, NONE, ANY},
};

/* false: who has no such value. asked: what to look for; name: whose bucket that is. */
static bool fill(place how, const char *value, char *asked, char *name)
{
    *asked = *name = 0;
    if (how == NONE) return true;
    if (!*value) return false;
    strcpy(asked, how == ANY ? BW_QUOTA_DEFAULT : value);
    strcpy(name, value);
    return true;
}

const bw_quota_entry *bw_quotas_find(const bw_quotas *q, bw_quota_kind kind, const bw_quota_name *who, bw_quota_name *name)
{
    for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
        bw_quota_name asked;
        if (!fill(order[i].user, who->user, asked.user, name->user) || !fill(order[i].client, who->client, asked.client, name->client) ||
            !fill(order[i].pid, who->pid, asked.pid, name->pid))
            continue;
        const entry *e = find(q, &asked);
        if (e && e->q.rates[kind]) return &e->q;
    }
    return NULL;
}

static void sweep(bw_quotas *q, int64_t now_ns)
{
    bw_quota_bucket *b, *next;
    HASH_ITER(hh, q->buckets, b, next)
    {
        if (b->users || bw_bucket_wait_ns(&b->bucket, now_ns)) continue;
        HASH_DEL(q->buckets, b);
        free(b);
        q->unused--;
    }
}

bw_quota_bucket *bw_quotas_bucket(bw_quotas *q, bw_quota_kind kind, const bw_quota_name *who, int64_t now_ns)
{
    bw_quota_name name;
    const bw_quota_entry *e = bw_quotas_find(q, kind, who, &name);
    if (!e) return NULL;
    uint8_t key[BW_QUOTA_KEY_MAX + 1];
    key[0] = (uint8_t)kind;
    size_t len = 1 + bw_quota_key(&name, key + 1);
    bw_quota_bucket *b = NULL;
    HASH_FIND(hh, q->buckets, key, len, b);
    if (b) {
        if (!b->users++) q->unused--;
        if (b->bucket.rate != e->rates[kind]) bw_bucket_set_rate(&b->bucket, now_ns, e->rates[kind]);
        return b;
    }
    if (q->unused >= SWEEP_AT) sweep(q, now_ns);
    if (!(b = calloc(1, sizeof *b))) return NULL;
    b->bucket = (bw_bucket){e->rates[kind], now_ns};
    b->name = name;
    b->users = 1;
    memcpy(b->key, key, len);
    HASH_ADD_KEYPTR(hh, q->buckets, b->key, len, b);
    if (!b->not_hashed) return b;
    free(b);
    return NULL;
}

void bw_quota_bucket_release(bw_quotas *q, bw_quota_bucket *b, int64_t now_ns)
{
    if (--b->users) return;
    q->unused++;
    if (bw_bucket_wait_ns(&b->bucket, now_ns)) return;
    HASH_DEL(q->buckets, b);
    free(b);
    q->unused--;
}

bw_bucket *bw_quota_bucket_of(bw_quota_bucket *b) { return &b->bucket; }
const bw_quota_name *bw_quota_bucket_name(const bw_quota_bucket *b) { return &b->name; }
