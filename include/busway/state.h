/* busway/state.h: exactly once into your own state: a consumer's key-value state and its offset, in one transaction.
 *
 * Each partition has a store of its own (one LMDB environment, in <dir>/<group>/<topic>-<partition>), opened by whoever owns the partition.
 * The offset in it is the truth: reading starts there, whatever the daemon says is committed (the daemon's committed offset follows, for those
 * who look at lag). A handler changes keys; then its records' offset and its changes are committed together, or neither: after any
 * number of kills, of this process, of the daemon or of both, each record has had its effect on the state once. Effects elsewhere (a
 * file, another service) are not part of it: a handler may run again for records whose transaction did not come about.
 *
 * A new owner that finds the former one still alive (stopped, or slow) takes a copy of the store at its last commit and goes on
 * with that; whatever the former does when it wakes happens to the old one, which nobody reads any more, and it is told FENCED. The
 * generation of the group, kept in the store, says who is newer.
 *
 * Durability. By default a commit is on the disk when it returns, and the consumer reads only what is on the disk itself
 * (BW_READ_DURABLE), so that the state never knows of a record that a power cut can take away. With `fast` neither is waited for: still
 * exact over the death of every process; but after the machine stopped (power, kernel) without a clean close the store is refused (CORRUPT),
 * since its pages may be torn: remove its folder, and the state is built anew from the records that the log still has.
 *
 * Threads as bw_consumer: one at a time uses a bw_state and its consumer. Not for use in a forked child. Since 0.2. */
#ifndef BUSWAY_STATE_H
#define BUSWAY_STATE_H

#include <busway/consumer.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct bw_state bw_state;
typedef struct bw_state_txn bw_state_txn; /* a transaction on one partition's store */

#define BW_STATE_KEY_MAX 500u

typedef struct bw_state_options {
    size_t size;        /* sizeof(bw_state_options) */
    const char *dir;    /* NULL: <data directory>/state, where this process may write there */
    bool fast;          /* default false: durable */
    uint64_t map_bytes; /* of a new store; it grows by itself; default 16 MiB */
} bw_state_options;

#define BW_STATE_OPTIONS_INIT {sizeof(bw_state_options), NULL, false, UINT64_C(16) << 20}

/* bw_state_open: for a consumer with a group_id that is not subscribed or assigned yet; then subscribe, or assign by hand. It turns
 * automatic commits off and, but for `fast`, the read limit to durable. One a consumer. INVALID_ARGUMENT, UNSUPPORTED (no dir given and the
 * bus is not of this host), NOT_PERMITTED, NO_MEMORY. */
BW_API bw_err bw_state_open(bw_consumer *consumer, const bw_state_options *options, bw_state **out);
/* bw_state_close: closes the stores, and commits the daemon's copy of the offsets in the background. Before bw_consumer_close. NULL is allowed. */
BW_API void bw_state_close(bw_state *state);

/* Called for each record, in order; changes go through txn. Not BW_OK: the partition's transaction of this call is dropped. */
typedef bw_err (*bw_state_fn)(bw_state_txn *txn, const bw_batch *batch, const bw_record_view *record, void *opaque);
/* bw_state_process: poll, at most timeout_ms, for up to batch_max records, hand each to fn, and commit: one transaction for each partition
 * that gave some. *done (may be NULL): records whose effects are committed now. When a store must grow, its transaction is begun anew and fn sees
 * its records again. Returns BW_OK, TIMED_OUT (there was nothing), what fn returned (its partition is as before, and gives the
 * same records again), FENCED (another owner has the partition: nothing was committed), LOG_INCARNATION_MISMATCH (the state is of another life of
 * the topic), OFFSET_OUT_OF_RANGE (the log was cut below what the state has seen), BUSY (another consumer of this process, or one
 * assigned by hand, has the store), CORRUPT, DISK_FULL, IO, and everything bw_consumer_poll returns. */
BW_API bw_err bw_state_process(bw_state *state, int32_t timeout_ms, int32_t batch_max, bw_state_fn fn, void *opaque, int32_t *done);

/* Without callbacks. bw_state_begin: the next batch and a transaction for its partition; iterate with bw_batch_next, then commit (the offset
 * behind the batch moves with the changes) or abort (the batch comes again). One at a time. Errors as above. */
BW_API bw_err bw_state_begin(bw_state *state, int32_t timeout_ms, bw_state_txn **txn, bw_batch *batch);
/* bw_state_commit, bw_state_abort: txn is gone afterwards. BUSY: the store had to grow, nothing was committed, the batch comes again. */
BW_API bw_err bw_state_commit(bw_state_txn *txn);
BW_API void bw_state_abort(bw_state_txn *txn);
/* bw_state_read: a transaction that sees what is committed, for reading; ends by bw_state_abort. Of a partition that this consumer has.
 * NOT_FOUND: it has none such, or has not opened it yet. */
BW_API bw_err bw_state_read(bw_state *state, const char *topic, int32_t partition, bw_state_txn **txn);

/* Inside a transaction. Keys are 1 to BW_STATE_KEY_MAX bytes (INVALID_ARGUMENT). Memory that is returned belongs to the transaction and is
 * valid until the next put or del in it, or its end. */
/* bw_state_get: NOT_FOUND. */
BW_API bw_err bw_state_get(bw_state_txn *txn, const void *key, size_t key_len, const void **value, size_t *value_len);
/* bw_state_put: the value instead of what was there. BUSY: the store must grow; the transaction is lost and comes again: return. */
BW_API bw_err bw_state_put(bw_state_txn *txn, const void *key, size_t key_len, const void *value, size_t value_len);
/* bw_state_del: OK also when there was nothing. */
BW_API bw_err bw_state_del(bw_state_txn *txn, const void *key, size_t key_len);
/* bw_state_each: keys that begin with prefix, ascending, until fn returns false. fn changes nothing. */
typedef bool (*bw_state_entry_fn)(void *opaque, const void *key, size_t key_len, const void *value, size_t value_len);
BW_API bw_err bw_state_each(bw_state_txn *txn, const void *prefix, size_t prefix_len, bw_state_entry_fn fn, void *opaque);
/* bw_state_offset: the offset that the store stands at, -1: nothing was processed yet. */
BW_API int64_t bw_state_offset(const bw_state_txn *txn);

#ifdef __cplusplus
}
#endif
#endif
