/* meta/copier.c: new snapshots, so that the journal stays short. See copy.h for what is there at each moment.
 *
 * Between two transactions a read transaction is begun and the journal exchanged for an empty one that goes on from there; the snapshot is
 * then written from the read transaction by a thread that lives for this only, while changes go on. The old snapshot and journals go
 * when the new snapshot is durable under its name. If it can't be written, nothing is lost: the chain is longer. */
#include "meta/store_internal.h"

#include "base/err.h"
#include "base/killpoint.h"
#include "base/os.h"

#include <stdlib.h>

#define STACK_BYTES ((size_t)256 * 1024)
#define COPY_AT_MAX (UINT64_C(1) << 32)

static bw_err add_entry(void *opaque, const bw_meta_op *op)
{
    return bw_snapshot_add(opaque, op->table, op->key, op->key_len, op->stored, op->stored_len);
}

static bw_err write_snapshot(bw_store *s, MDB_txn *txn, const bw_meta_state *state)
{
    bw_snapshot_writer w;
    bw_err e = bw_snapshot_begin(s->dir_fd, state, &w);
    if (e) return e;
    if ((e = bw_env_each(&s->e, txn, add_entry, &w))) {
        bw_snapshot_abandon(&w);
        return e;
    }
    uint64_t bytes = w.at + w.buf.len;
    if ((e = bw_snapshot_finish(&w))) return e;
    s->copy_bytes = bytes * 2 > s->journal_limit ? bytes * 2 : s->journal_limit;
    return BW_OK;
}

/* Under map_lock and write_lock: from here on changes go to a journal of their own. */
static bw_err exchange(bw_store *s, MDB_txn **txn)
{
    bw_journal next;
    int rc = mdb_txn_begin(s->e.env, NULL, MDB_RDONLY, txn);
    if (rc) return bw_env_fail(rc, s->path, "cannot read the metadata for a snapshot");
    bw_err e = bw_journal_create(s->dir_fd, &s->state, &next);
    if (e) {
        mdb_txn_abort(*txn);
        return e;
    }
    bw_journal_close(&s->journal);
    s->journal = next;
    return BW_OK;
}

static bw_err make_copy(bw_store *s)
{
    MDB_txn *txn;
    pthread_rwlock_rdlock(&s->map_lock);
    pthread_mutex_lock(&s->write_lock);
    bw_meta_state state = s->state;
    bw_err e = exchange(s, &txn);
    pthread_mutex_unlock(&s->write_lock);
    if (!e) {
        e = write_snapshot(s, txn, &state);
        mdb_txn_abort(txn);
    }
    pthread_rwlock_unlock(&s->map_lock);
    if (e) return e;
    bw_copy_drop(s->dir_fd, state.sequence);
    BW_KILL_POINT("meta.snapshot.dropped");
    pthread_mutex_lock(&s->write_lock);
    s->copy_at = s->copy_bytes;
    pthread_mutex_unlock(&s->write_lock);
    atomic_fetch_add(&s->snapshots, 1);
    return BW_OK;
}

bw_err bw_copier_begin(bw_store *s) { return make_copy(s); }

static void *copier_main(void *store)
{
    bw_store *s = store;
    if (make_copy(s)) atomic_fetch_add(&s->snapshot_failures, 1);
    atomic_store(&s->copying, false);
    return NULL;
}

void bw_copier_wake(bw_store *s)
{
    if (s->journal.at < s->copy_at || s->state.sequence == s->journal.base || atomic_load(&s->copying)) return;
    if (s->copier_started) pthread_join(s->copier, NULL);
    s->copier_started = false;
    s->copy_at = s->copy_at < COPY_AT_MAX ? s->copy_at * 2 : s->copy_at; /* when it fails: later and later */
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    atomic_store(&s->copying, true);
    s->copier_started = pthread_create(&s->copier, &attr, copier_main, s) == 0;
    if (!s->copier_started) atomic_store(&s->copying, false);
    pthread_attr_destroy(&attr);
}

void bw_copier_stop(bw_store *s)
{
    if (s->copier_started) pthread_join(s->copier, NULL);
    s->copier_started = false;
}
