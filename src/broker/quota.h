/* broker/quota.h: which quotas there are, whose holds for whom, and the buckets behind them. Pure: no store, no sockets, the caller's clock.
 *
 * A quota has an entity (user, client id, both, or pid; each a value or <default>) and up to three rates. For each kind of rate the most
 * specific entity that has one holds, in Kafka's order, with processes added at both ends:
 *   pid · user + client · user + <default> · user · <default> + client · <default> + <default> · <default> user · client ·
 *   <default> client · <default> pid
 * All connections for which one entity holds share its bucket; under a <default> each value has its own. A bucket outlives its connections
 * while it is owed, so that to connect anew gains nothing.
 * Record in the table QUOTAS: key user 0 client 0 pid 0; value u8 1, be64 rate × 3 in the order of bw_quota_kind (0: none). */
#ifndef BW_BROKER_QUOTA_H
#define BW_BROKER_QUOTA_H

#include "broker/quota_bucket.h"
#include "proto/message.h"

typedef enum bw_quota_kind { BW_QUOTA_PRODUCE = 0, BW_QUOTA_CONSUME = 1, BW_QUOTA_REQUEST = 2, BW_QUOTA_KINDS = 3 } bw_quota_kind;

#define BW_QUOTA_KEY_MAX 160u
#define BW_QUOTA_VALUE_BYTES 25u
#define BW_QUOTAS_MAX 10000u
#define BW_QUOTA_RATE_MAX (INT64_C(1) << 50)

typedef struct bw_quotas bw_quotas;
typedef struct bw_quota_bucket bw_quota_bucket; /* of one entity and kind, counted by who uses it */

/* An entity whose texts end with NUL; "" where it does not matter. */
typedef struct bw_quota_name {
    char user[24], client[64], pid[16];
} bw_quota_name;

typedef struct bw_quota_entry {
    bw_quota_name name;
    int64_t rates[BW_QUOTA_KINDS]; /* 0: none */
} bw_quota_entry;

const char *bw_quota_kind_name(bw_quota_kind kind); /* "producer_byte_rate" */
bw_quotas *bw_quotas_new(void); /* NULL: no memory */
void bw_quotas_free(bw_quotas *q);
size_t bw_quotas_count(const bw_quotas *q);
/* bw_quotas_generation: another number after each change. */
uint64_t bw_quotas_generation(const bw_quotas *q);

/* bw_quota_name_of: check and copy. INVALID_QUOTA says what is allowed. */
bw_err bw_quota_name_of(const bw_quota_entity *e, bw_quota_name *out);
/* bw_quota_describe: "user 1000 client 'kcat'", for messages. Returns out. */
const char *bw_quota_describe(const bw_quota_name *n, char *out, size_t size);
/* bw_quota_apply: `rates` of a request onto the entry. INVALID_QUOTA: an unknown rate, or one that is not a whole number from 1. */
bw_err bw_quota_apply(bw_quota_entry *entry, const bw_config_pair *rates, size_t count);

/* bw_quotas_get: the entry of exactly this entity; NULL: none. */
const bw_quota_entry *bw_quotas_get(const bw_quotas *q, const bw_quota_name *name);
/* bw_quotas_put: set; without any rate: remove. LIMIT_REACHED, NO_MEMORY. */
bw_err bw_quotas_put(bw_quotas *q, const bw_quota_entry *entry, int64_t now_ns);
void bw_quotas_each(const bw_quotas *q, void (*fn)(void *opaque, const bw_quota_entry *entry), void *opaque);

/* bw_quotas_find: the entry that holds for `who` (values only), or NULL; *name: whose bucket it is. */
const bw_quota_entry *bw_quotas_find(const bw_quotas *q, bw_quota_kind kind, const bw_quota_name *who, bw_quota_name *name);
/* bw_quotas_bucket: that bucket, made when needed and counted; NULL: no quota holds, or no memory. */
bw_quota_bucket *bw_quotas_bucket(bw_quotas *q, bw_quota_kind kind, const bw_quota_name *who, int64_t now_ns);
void bw_quota_bucket_release(bw_quotas *q, bw_quota_bucket *b, int64_t now_ns);
bw_bucket *bw_quota_bucket_of(bw_quota_bucket *b);
const bw_quota_name *bw_quota_bucket_name(const bw_quota_bucket *b);

size_t bw_quota_key(const bw_quota_name *name, uint8_t out[BW_QUOTA_KEY_MAX]);
void bw_quota_value(const bw_quota_entry *entry, uint8_t out[BW_QUOTA_VALUE_BYTES]);
/* bw_quota_decode: CORRUPT. */
bw_err bw_quota_decode(const void *key, size_t key_len, const void *value, size_t value_len, bw_quota_entry *out);

#endif
