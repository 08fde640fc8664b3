/* broker/txn_state.c: the rules of a transactional id: who may do what, and what each record changes. Messages say what to do. */
#include "broker/txn_state.h"

#include <stdlib.h>

const char *bw_txn_phase_name(bw_txn_phase phase)
{
    static const char *const names[] = {"Empty", "Ongoing", "PrepareCommit", "PrepareAbort", "CompleteCommit", "CompleteAbort", "Dead"};
    return (unsigned)phase < sizeof names / sizeof names[0] ? names[phase] : "?";
}

static void offset_fini(bw_txn_offset *o)
{
    free(o->group);
    free(o->topic);
    free(o->metadata);
    free(o->member);
    free(o->instance);
}

static void clear(bw_txn_state *s)
{
    for (uint32_t i = 0; i < s->offset_count; i++) offset_fini(&s->offsets[i]);
    s->part_count = s->offset_count = 0;
}

void bw_txn_state_fini(bw_txn_state *s)
{
    clear(s);
    free(s->parts);
    free(s->offsets);
    s->parts = NULL;
    s->offsets = NULL;
    s->part_cap = s->offset_cap = 0;
}

void bw_txn_record_fini(bw_txn_record *r)
{
    for (uint32_t i = 0; r->offsets && i < r->offset_count; i++) offset_fini(&r->offsets[i]);
    free(r->parts);
    free(r->offsets);
    r->parts = NULL;
    r->offsets = NULL;
    r->part_count = r->offset_count = 0;
}

/* ---- what may be done ---- */

static bw_err fenced(const bw_txn_state *s, const char *id, int16_t epoch)
{
    return bw_fail(BW_ERR_PRODUCER_FENCED, "transactional id '%s': epoch %d was replaced by %d: a newer producer goes by this id, or the "
                   "transaction timed out; close this one", id, epoch, s->epoch);
}

bw_err bw_txn_state_check(const bw_txn_state *s, const char *id, int64_t producer_id, int16_t epoch)
{
    if (producer_id != s->producer_id)
        return bw_fail(BW_ERR_INVALID_PRODUCER_ID_MAPPING, "transactional id '%s' has producer id %lld, not %lld: it is another's "
                       "transaction; call bw_transactions_init", id, (long long)s->producer_id, (long long)producer_id);
    if (epoch < s->epoch) return fenced(s, id, epoch);
    if (epoch > s->epoch)
        return bw_fail(BW_ERR_INVALID_PRODUCER_EPOCH, "transactional id '%s': epoch %d was never given out, the newest is %d; call "
                       "bw_transactions_init", id, epoch, s->epoch);
    return BW_OK;
}

static bw_err still_ending(const bw_txn_state *s, const char *id)
{
    return bw_fail(BW_ERR_CONCURRENT_TRANSACTIONS, "transactional id '%s': its transaction is still being %s; try again", id,
                   s->phase == BW_TXN_PREPARE_COMMIT ? "committed" : "aborted");
}

bw_txn_init bw_txn_state_init(const bw_txn_state *s, const char *id, int64_t producer_id, int16_t epoch, bw_err *e)
{
    *e = BW_OK;
    if (producer_id >= 0 && producer_id != s->producer_id) {
        *e = fenced(s, id, epoch);
        return BW_TXN_INIT_REFUSED;
    }
    if (producer_id >= 0 && epoch != s->epoch) {
        bool its = epoch == s->epoch_before && epoch >= 0;
        if (its && bw_txn_is_prepared(s)) *e = still_ending(s, id);
        else if (its && (s->phase == BW_TXN_EMPTY || s->phase == BW_TXN_COMPLETE_ABORT))
            return s->epoch < INT16_MAX - 1 ? BW_TXN_INIT_REPEAT : BW_TXN_INIT_RAISE;
        else *e = bw_txn_state_check(s, id, producer_id, epoch);
        return BW_TXN_INIT_REFUSED;
    }
    if (s->phase == BW_TXN_ONGOING) return BW_TXN_INIT_ABORT_FIRST;
    if (!bw_txn_is_prepared(s)) return BW_TXN_INIT_RAISE;
    *e = still_ending(s, id);
    return BW_TXN_INIT_REFUSED;
}

bool bw_txn_state_raise(bw_txn_state *s, int16_t asked_epoch)
{
    if (s->epoch >= INT16_MAX - 1) return false; /* the last is for an abort by time-out */
    s->epoch++;
    s->epoch_before = asked_epoch;
    s->phase = BW_TXN_EMPTY;
    clear(s);
    return true;
}

bw_err bw_txn_state_may_write(const bw_txn_state *s, const char *id, int64_t producer_id, int16_t epoch)
{
    bw_err e = bw_txn_state_check(s, id, producer_id, epoch);
    if (!e && bw_txn_is_prepared(s)) e = still_ending(s, id);
    return e;
}

bw_txn_end_outcome bw_txn_state_end(const bw_txn_state *s, const char *id, int64_t producer_id, int16_t epoch, bool commit, bool early, bw_err *e)
{
    *e = bw_txn_state_check(s, id, producer_id, epoch);
    if (*e) return BW_TXN_END_REFUSED;
    const char *what = commit ? "commit" : "abort";
    switch (s->phase) {
    case BW_TXN_ONGOING: return BW_TXN_END_DECIDE;
    case BW_TXN_PREPARE_COMMIT:
    case BW_TXN_PREPARE_ABORT:
        if (commit == (s->phase == BW_TXN_PREPARE_COMMIT)) *e = still_ending(s, id);
        break;
    case BW_TXN_COMPLETE_COMMIT:
    case BW_TXN_COMPLETE_ABORT:
        if (commit != (s->phase == BW_TXN_COMPLETE_COMMIT)) break;
        if (!early) return BW_TXN_END_REPEAT;
        *e = bw_fail(BW_ERR_CONCURRENT_TRANSACTIONS, "transactional id '%s': no record of this transaction has come; see what became of them", id);
        break;
    default: break;
    }
    if (!*e)
        *e = bw_fail(BW_ERR_INVALID_TXN_STATE, "transactional id '%s': %s in state %s: there is no transaction to %s", id, what,
                     bw_txn_phase_name(s->phase), what);
    return BW_TXN_END_REFUSED;
}

/* ---- what records do ---- */

bool bw_txn_has_part(const bw_txn_state *s, const bw_uuid *topic, uint32_t partition)
{
    for (uint32_t i = 0; i < s->part_count; i++)
        if (s->parts[i].partition == partition && bw_uuid_equal(&s->parts[i].topic, topic)) return true;
    return false;
}

static bool room(void **list, uint32_t *cap, uint32_t need, size_t size)
{
    if (need <= *cap) return true;
    uint32_t grown = *cap ? *cap * 2 : 8;
    if (grown < need) grown = need;
    void *p = realloc(*list, grown * size);
    if (!p) return false;
    *list = p;
    *cap = grown;
    return true;
}

/* The first record of a transaction: what the one before left goes. */
static void begin(bw_txn_state *s, int64_t at_ms)
{
    if (s->phase == BW_TXN_ONGOING) return;
    clear(s);
    s->phase = BW_TXN_ONGOING;
    s->began_ms = at_ms;
    s->serial++;
}

static bw_err apply_add(bw_txn_state *s, const bw_txn_record *r)
{
    uint32_t have = s->phase == BW_TXN_ONGOING ? s->part_count : 0;
    if (have + r->part_count > BW_TXN_PARTS_MAX)
        return bw_fail(BW_ERR_LIMIT_REACHED, "a transaction has at most %u partitions; commit more often", BW_TXN_PARTS_MAX);
    if (!room((void **)&s->parts, &s->part_cap, have + r->part_count, sizeof *s->parts))
        return bw_fail(BW_ERR_NO_MEMORY, "no memory for a transaction's partitions");
    begin(s, r->at_ms);
    for (uint32_t i = 0; i < r->part_count; i++) {
        if (bw_txn_has_part(s, &r->parts[i].topic, r->parts[i].partition)) continue;
        s->parts[s->part_count++] = (bw_txn_part){r->parts[i].topic, r->parts[i].partition, -1, false};
    }
    return BW_OK;
}

static bool same_offset(const bw_txn_offset *a, const bw_txn_offset *b)
{
    return a->partition == b->partition && bw_uuid_equal(&a->topic_id, &b->topic_id) && !strcmp(a->topic, b->topic) && !strcmp(a->group, b->group);
}

static bw_err apply_offsets(bw_txn_state *s, const bw_txn_record *r)
{
    uint32_t have = s->phase == BW_TXN_ONGOING ? s->offset_count : 0;
    if (have + r->offset_count > BW_TXN_OFFSETS_MAX)
        return bw_fail(BW_ERR_LIMIT_REACHED, "a transaction has at most %u offsets; commit more often", BW_TXN_OFFSETS_MAX);
    bw_err e = bw_fail(BW_ERR_NO_MEMORY, "no memory for a transaction's offsets");
    if (!room((void **)&s->offsets, &s->offset_cap, have + r->offset_count, sizeof *s->offsets)) return e;
    bw_txn_offset *copies = calloc(r->offset_count + 1, sizeof *copies);
    bool whole = copies != NULL;
    for (uint32_t i = 0; whole && i < r->offset_count; i++) {
        copies[i] = r->offsets[i]; /* its texts are replaced, all of them */
        copies[i].group = strdup(r->offsets[i].group);
        copies[i].topic = strdup(r->offsets[i].topic);
        copies[i].metadata = strdup(r->offsets[i].metadata);
        copies[i].member = strdup(r->offsets[i].member);
        copies[i].instance = strdup(r->offsets[i].instance);
        whole = copies[i].group && copies[i].topic && copies[i].metadata && copies[i].member && copies[i].instance;
    }
    if (!whole) {
        for (uint32_t i = 0; copies && i < r->offset_count; i++) offset_fini(&copies[i]);
        free(copies);
        return e;
    }
    begin(s, r->at_ms);
    for (uint32_t i = 0; i < r->offset_count; i++) {
        uint32_t at = 0;
        while (at < s->offset_count && !same_offset(&s->offsets[at], &copies[i])) at++;
        if (at < s->offset_count) offset_fini(&s->offsets[at]);
        else s->offset_count++;
        s->offsets[at] = copies[i];
    }
    free(copies);
    return BW_OK;
}

static void apply_prepare(bw_txn_state *s, const bw_txn_record *r)
{
    if (r->epoch != s->epoch) s->epoch_before = r->recoverable ? s->epoch : -1;
    s->epoch = r->epoch;
    s->phase = r->commit ? BW_TXN_PREPARE_COMMIT : BW_TXN_PREPARE_ABORT;
    for (uint32_t i = 0; i < r->part_count; i++)
        for (uint32_t k = 0; k < s->part_count; k++)
            if (s->parts[k].partition == r->parts[i].partition && bw_uuid_equal(&s->parts[k].topic, &r->parts[i].topic))
                s->parts[k].end = r->parts[i].end;
}

bw_err bw_txn_apply(bw_txn_state *s, const bw_txn_record *r)
{
    bw_err e = BW_OK;
    switch (r->kind) {
    case BW_TXN_ADD: e = apply_add(s, r); break;
    case BW_TXN_OFFSETS: e = apply_offsets(s, r); break;
    case BW_TXN_PREPARE: apply_prepare(s, r); break;
    case BW_TXN_COMPLETE:
        clear(s);
        s->phase = r->commit ? BW_TXN_COMPLETE_COMMIT : BW_TXN_COMPLETE_ABORT;
        break;
    }
    if (!e) s->changed_ms = r->at_ms;
    return e;
}
