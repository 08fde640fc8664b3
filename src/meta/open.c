/* meta/open.c: start: two copies of the metadata, LMDB's file and snapshot + journal, are looked at; one that is damaged is made anew
 * from the other.
 *
 *   LMDB's file   copy          then
 *   good          whole         same state: go on. Copy ahead (a death between the journal's sync and LMDB's): the journal's
 *                               transactions are applied. LMDB ahead (the journal's end is lost): new copy
 *   good          damaged       new copy from LMDB, unless the copy knows later transactions (but one): then both are damaged
 *   good          missing       new copy
 *   damaged       whole         LMDB's file is put aside and built anew from the copy; so too when the two tell of different histories
 *   missing       whole         built anew
 *   missing       damaged       built anew as far as the copy is good: somebody took LMDB's file away, as the next line says
 *   damaged       not whole     CORRUPT: says what is damaged and what can be done. Nothing is changed
 *   missing       missing       a new store
 *
 * LMDB's file is looked at by a child process meanwhile (check.h). What was damaged stays beside as "<name>.damaged-<n>", and the
 * broker tells of it (bw_store_repair). Nothing is served before all this is over. */
#include "meta/store_internal.h"

#include "base/err.h"
#include "base/killpoint.h"
#include "base/os.h"
#include "meta/check.h"
#include "meta/files.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

static void tell(bw_store *s, bool damaged, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void tell(bw_store *s, bool damaged, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    size_t at = strlen(s->repair.what);
    if (at) at += (size_t)snprintf(s->repair.what + at, sizeof s->repair.what - at, "; ");
    if (at < sizeof s->repair.what) vsnprintf(s->repair.what + at, sizeof s->repair.what - at, format, list);
    va_end(list);
    s->repair.repaired = true;
    s->repair.damaged |= damaged;
}

static bw_err open_env(bw_store *s, uint64_t map_bytes)
{
    int rc = bw_env_open(s->path, MDB_NOMETASYNC, 0, true, &s->e);
    if (rc) return bw_env_fail(rc, s->path, "cannot open the metadata");
    /* The stored size counts when it is larger: LMDB keeps it in its meta page and takes it on open. */
    MDB_envinfo info;
    mdb_env_info(s->e.env, &info);
    uint64_t want = map_bytes < BW_MAP_MIN ? BW_MAP_MIN : map_bytes > BW_MAP_MAX ? BW_MAP_MAX : map_bytes;
    s->map_bytes = info.me_mapsize;
    if (want > s->map_bytes) {
        if ((rc = mdb_env_set_mapsize(s->e.env, want))) return bw_env_fail(rc, s->path, "cannot map the metadata");
        s->map_bytes = want;
    }
    return BW_OK;
}

static bw_err both_damaged(bw_store *s, const bw_check_verdict *v, const bw_copy *c)
{
    char snapshot[200];
    snprintf(snapshot, sizeof snapshot, "%s%llu", c->some ? "good up to transaction " : "no good up to transaction ",
             (unsigned long long)c->last.sequence);
    return bw_fail(BW_ERR_CORRUPT, "the metadata in %s is damaged in both its copies: " BW_DATA_FILE " (%s) and snapshot with journal (%s). "
                   "Restore the folder from a backup. Or, losing later transactions, move " BW_DATA_FILE " away: snapshot and journal are %s. "
                   "Or move the whole folder away: topics are then adopted from their folders, without their configurations",
                   s->path, v->why[0] ? v->why : "it does not know the last transactions", c->why[0] ? c->why : "another history", snapshot);
}

/* ---- LMDB's file anew ---- */

static bw_err rebuild(bw_store *s, const bw_check_verdict *v, const bw_copy *c, const char *why, uint64_t map_bytes)
{
    char aside[BW_FILE_NAME_MAX] = "";
    struct stat st; /* it may be gone, whatever the verdict: the process that was to look may have died before it did */
    bool there = v->kind != BW_CHECK_ABSENT && (bw_os_stat_at(s->dir_fd, BW_DATA_FILE, &st) == 0 || errno != ENOENT);
    bw_err e = there ? bw_file_aside(s->dir_fd, BW_DATA_FILE, aside) : BW_OK;
    BW_KILL_POINT("meta.rebuild.aside");
    if (!e) e = bw_env_build(s->dir_fd, s->path, c, map_bytes);
    if (e) return bw_error_context(e, "the metadata's " BW_DATA_FILE " is to be built anew from its snapshot");
    tell(s, true, BW_DATA_FILE ": %.200s; built anew from snapshot and journal up to transaction %llu%s%s", why,
         (unsigned long long)c->last.sequence, aside[0] ? "; the old file is " : "", aside);
    return BW_OK;
}

typedef struct catching_up {
    bw_store *s;
    MDB_txn *txn;
} catching_up;

static bw_err apply_transaction(void *opaque, const bw_meta_state *before, const bw_meta_state *after, const uint8_t *ops, size_t len)
{
    catching_up *u = opaque;
    (void)before;
    (void)after;
    return bw_env_apply(&u->s->e, u->txn, ops, len);
}

/* LMDB is at `from`; the journal knows what came then. CORRUPT: it does not, or it comes out wrong. */
static bw_err catch_up(bw_store *s, const bw_copy *c, const bw_meta_state *from)
{
    catching_up u = {.s = s};
    bw_meta_state sum;
    int rc = mdb_txn_begin(s->e.env, NULL, 0, &u.txn);
    if (rc) return bw_env_fail(rc, s->path, "cannot apply the journal");
    bw_err e = bw_copy_replay(s->dir_fd, c, from, NULL, apply_transaction, &u);
    if (!e && (rc = bw_env_put_state(&s->e, u.txn, &c->last))) e = bw_env_fail(rc, s->path, "cannot apply the journal");
    if (!e) e = bw_env_verify(&s->e, u.txn, &sum);
    if (e) {
        mdb_txn_abort(u.txn);
        return e;
    }
    BW_KILL_POINT("meta.journal.applied");
    rc = mdb_txn_commit(u.txn);
    return rc ? bw_env_fail(rc, s->path, "cannot apply the journal") : BW_OK;
}

/* ---- the copy anew ---- */

static bw_err renew_copy(bw_store *s, const bw_copy *c)
{
    char aside[64] = "";
    bw_err e = BW_OK;
    bool files = c->snapshot_count + c->journal_count > 0;
    if (files && (e = bw_copy_aside(s->dir_fd, c, aside))) return e;
    BW_KILL_POINT("meta.snapshot.aside");
    if ((e = bw_copier_begin(s))) return bw_error_context(e, "a new snapshot of the metadata is to be made");
    if (files) tell(s, c->last.sequence != s->state.sequence, "snapshot and journal: %.200s; made anew from " BW_DATA_FILE
                    "; the old files are %s …", c->why, aside);
    else if (s->state.sequence > 1) tell(s, true, "snapshot and journal were missing; made anew from " BW_DATA_FILE);
    return BW_OK;
}

static bw_err keep_copy(bw_store *s, const bw_copy *c)
{
    s->copy_bytes = c->snapshot_bytes * 2 > s->journal_limit ? c->snapshot_bytes * 2 : s->journal_limit;
    s->copy_at = s->copy_bytes;
    if (c->spare) bw_copy_drop(s->dir_fd, c->first.sequence); /* a death before the old ones went */
    return bw_journal_go_on(s->dir_fd, &c->end, &s->journal);
}

/* ---- the decision ---- */

static bw_err open_good(bw_store *s, const bw_check_verdict *v, bw_copy *c, uint64_t map_bytes)
{
    bool behind = v->state.sequence < c->last.sequence;
    /* Power that fails while a record is written tears it, and LMDB, whose last commit may still be in the cache, is one behind. */
    if (c->some && !c->whole && v->state.sequence + 1 < c->last.sequence) return both_damaged(s, v, c);
    if (c->some && v->state.sequence == c->last.sequence && !bw_state_same(&v->state, &c->last)) return both_damaged(s, v, c);
    bw_err e = open_env(s, map_bytes);
    if (!e && c->some && behind) {
        e = catch_up(s, c, &v->state);
        if (e == BW_ERR_DISK_FULL || e == BW_ERR_CORRUPT) { /* from scratch: with room enough, and a history that is known */
            char why[200];
            snprintf(why, sizeof why, "it is at transaction %llu and the journal does not lead on from there (%.100s)",
                     (unsigned long long)v->state.sequence, bw_error_message());
            bw_env_close(&s->e);
            e = rebuild(s, v, c, why, map_bytes);
            if (!e) e = open_env(s, map_bytes);
        } else if (!e && c->last.sequence > v->state.sequence + 1)
            tell(s, false, BW_DATA_FILE " was %llu transactions behind; they were applied from the journal",
                 (unsigned long long)(c->last.sequence - v->state.sequence));
    }
    if (e) return e;
    s->state = behind && c->some ? c->last : v->state;
    if (c->whole && s->state.sequence == c->last.sequence) return keep_copy(s, c);
    if (!c->why[0])
        snprintf(c->why, sizeof c->why, "they end at transaction %llu of %llu", (unsigned long long)c->last.sequence,
                 (unsigned long long)s->state.sequence);
    return renew_copy(s, c);
}

static bw_err open_damaged(bw_store *s, const bw_check_verdict *v, bw_copy *c, uint64_t map_bytes)
{
    bool absent = v->kind == BW_CHECK_ABSENT;
    if (!c->some || (!absent && !c->whole)) return both_damaged(s, v, c);
    bw_err e = rebuild(s, v, c, absent ? "it was missing" : v->why, map_bytes);
    if (!e) e = open_env(s, map_bytes);
    if (e) return e;
    s->state = c->last;
    if (!c->whole) return renew_copy(s, c);
    return keep_copy(s, c);
}

static bw_err open_new(bw_store *s, const bw_check_verdict *v, uint64_t map_bytes)
{
    bool old = v->kind == BW_CHECK_FORMAT1;
    bw_err e = old ? bw_env_convert(s->dir_fd, s->path, map_bytes) : bw_env_build(s->dir_fd, s->path, NULL, map_bytes);
    if (!e) e = open_env(s, map_bytes);
    if (e) return e;
    MDB_txn *txn;
    int rc = mdb_txn_begin(s->e.env, NULL, MDB_RDONLY, &txn);
    if (rc) return bw_env_fail(rc, s->path, "cannot read the metadata");
    e = bw_env_verify(&s->e, txn, &s->state);
    mdb_txn_abort(txn);
    if (!e) e = bw_copier_begin(s);
    if (!e && old) tell(s, false, "the metadata was brought from format 1 to format %u: its values have checksums now", BW_META_FORMAT);
    return e;
}

bw_err bw_store_bring_up(bw_store *s, uint64_t map_bytes)
{
    bw_check check;
    bw_check_verdict v;
    bw_copy c;
    bw_err e = bw_check_start(s->dir_fd, s->path, s->alone, &check);
    if (e) return e;
    bw_err looked = bw_copy_look(s->dir_fd, &c); /* while the child looks at LMDB's file */
    char why[400];
    snprintf(why, sizeof why, "%s", looked ? bw_error_message() : "");
    bw_check_end(&check, &v);
    if (looked) return bw_error_context(bw_error_set_message(looked, why), "%s", s->path);
    bool files = c.snapshot_count + c.journal_count > 0;
    if (v.kind == BW_CHECK_FORMAT1 && files) {
        v.kind = BW_CHECK_DAMAGED;
        snprintf(v.why, sizeof v.why, "it is of format 1, and older than the files beside it");
    }
    switch (v.kind) {
    case BW_CHECK_UNABLE: return bw_fail(v.error, "the metadata in %s can't be checked: %s", s->path, v.why);
    case BW_CHECK_NEWER: return bw_fail(v.error, "%s: %s", s->path, v.why);
    case BW_CHECK_GOOD: return open_good(s, &v, &c, map_bytes);
    case BW_CHECK_FORMAT1: return open_new(s, &v, map_bytes);
    case BW_CHECK_ABSENT: return files ? open_damaged(s, &v, &c, map_bytes) : open_new(s, &v, map_bytes);
    case BW_CHECK_DAMAGED: return open_damaged(s, &v, &c, map_bytes);
    }
    return BW_ERR_INTERNAL;
}
