/* meta/copy.c: see copy.h. */
#include "meta/copy.h"

#include "base/err.h"
#include "base/killpoint.h"
#include "base/os.h"
#include "meta/files.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static void note(bw_copy *c, uint64_t sequence, uint64_t *list, uint32_t *count)
{
    if (*count < BW_COPY_FILES_MAX) list[(*count)++] = sequence;
    else snprintf(c->why, sizeof c->why, "there are more than %u files of a kind", BW_COPY_FILES_MAX);
}

static bool on_name(void *opaque, const char *name)
{
    bw_copy *c = opaque;
    uint64_t sequence;
    if (bw_file_number(name, BW_SNAPSHOT_KIND, &sequence)) note(c, sequence, c->snapshots, &c->snapshot_count);
    else if (bw_file_number(name, BW_JOURNAL_KIND, &sequence)) note(c, sequence, c->journals, &c->journal_count);
    return true;
}

static int ascending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static bool damaged(bw_copy *c, const char *why)
{
    if (!c->why[0]) snprintf(c->why, sizeof c->why, "%.290s", why);
    return false;
}

/* The journals from c->last on, as far as they are good. */
static bw_err follow(int dir_fd, bw_copy *c)
{
    uint64_t newest = c->journal_count ? c->journals[c->journal_count - 1] : 0;
    bool more = true;
    while (more) {
        uint64_t base = c->last.sequence;
        bw_journal_end end;
        bw_err e = bw_journal_read(dir_fd, base, NULL, NULL, &end);
        if (e == BW_ERR_NEWER_FORMAT) return e;
        if (e || !bw_state_same(&end.base, &c->last)) {
            damaged(c, e ? bw_error_message() : "a journal does not go on from where the snapshot ended");
            return BW_OK;
        }
        c->end = end;
        c->last = end.last;
        c->bytes += end.size;
        if (!end.clean) {
            char why[200];
            snprintf(why, sizeof why, "journal-%016llx: %s", (unsigned long long)base, end.why);
            damaged(c, why);
        }
        more = end.clean && base < newest;
        if (more && c->last.sequence == base) {
            damaged(c, "a journal is there that none leads to");
            more = false;
        }
    }
    return BW_OK;
}

bw_err bw_copy_look(int dir_fd, bw_copy *out)
{
    bw_copy *c = out;
    *c = (bw_copy){0};
    if (bw_os_list_dir(dir_fd, on_name, c)) return bw_fail_errno(errno, "cannot list the folder of the metadata");
    qsort(c->snapshots, c->snapshot_count, sizeof *c->snapshots, ascending);
    qsort(c->journals, c->journal_count, sizeof *c->journals, ascending);
    if (!c->snapshot_count) {
        if (c->journal_count) damaged(c, "there is no snapshot");
        return BW_OK;
    }
    for (uint32_t i = c->snapshot_count; i-- > 0 && !c->some;) {
        bw_err e = bw_snapshot_read(dir_fd, c->snapshots[i], NULL, NULL, &c->first, &c->snapshot_bytes);
        if (e == BW_ERR_NEWER_FORMAT || e == BW_ERR_NO_MEMORY) return e;
        if (e) damaged(c, bw_error_message());
        else c->some = true;
    }
    if (!c->some) return BW_OK;
    c->last = c->first;
    c->bytes = c->snapshot_bytes;
    bw_err e = follow(dir_fd, c);
    c->whole = !c->why[0];
    c->spare = c->snapshot_count > 1 || c->journal_count > 1;
    return e;
}

/* ---- replay ---- */

typedef struct replay {
    const bw_meta_state *since;
    bw_journal_fn transaction;
    void *opaque;
    bool met; /* `since` was one of the states */
} replay;

static bw_err on_record(void *opaque, const bw_meta_state *before, const bw_meta_state *after, const uint8_t *ops, size_t len)
{
    replay *r = opaque;
    if (r->since && before->sequence < r->since->sequence) return BW_OK;
    if (r->since && before->sequence == r->since->sequence) {
        if (!bw_state_same(before, r->since)) return bw_fail(BW_ERR_CORRUPT, "the journal tells of another history");
        r->met = true;
    }
    return r->transaction(r->opaque, before, after, ops, len);
}

bw_err bw_copy_replay(int dir_fd, const bw_copy *c, const bw_meta_state *since, bw_entry_fn entry, bw_journal_fn transaction, void *opaque)
{
    replay r = {since, transaction, opaque, since == NULL};
    bw_meta_state at = c->first;
    bw_err e = since ? BW_OK : bw_snapshot_read(dir_fd, c->first.sequence, entry, opaque, &at, NULL);
    while (!e && at.sequence < c->last.sequence) {
        bw_journal_end end;
        e = bw_journal_read(dir_fd, at.sequence, on_record, &r, &end);
        if (!e && end.last.sequence == at.sequence) e = bw_fail(BW_ERR_CORRUPT, "a journal changed while it was read");
        if (!e) at = end.last;
    }
    if (!e && !r.met) e = bw_fail(BW_ERR_CORRUPT, "the journal does not reach back to it");
    return e;
}

/* ---- files ---- */

typedef struct dropping {
    int dir_fd;
    uint64_t keep;
} dropping;

static bool drop_name(void *opaque, const char *name)
{
    const dropping *d = opaque;
    uint64_t sequence;
    if (!bw_file_number(name, BW_SNAPSHOT_KIND, &sequence) && !bw_file_number(name, BW_JOURNAL_KIND, &sequence)) return true;
    if (sequence >= d->keep && d->keep != UINT64_MAX) return true;
    (void)bw_os_unlink(d->dir_fd, name, 0);
    BW_KILL_POINT("meta.snapshot.dropping");
    return true;
}

void bw_copy_drop(int dir_fd, uint64_t keep)
{
    dropping d = {dir_fd, keep};
    (void)bw_os_list_dir(dir_fd, drop_name, &d);
}

bw_err bw_copy_aside(int dir_fd, const bw_copy *c, char first_aside[64])
{
    bw_err e = BW_OK;
    char name[BW_FILE_NAME_MAX], aside[BW_FILE_NAME_MAX];
    first_aside[0] = 0;
    for (uint32_t i = 0; !e && i < c->snapshot_count + c->journal_count; i++) {
        bool snapshot = i < c->snapshot_count;
        bw_file_name(name, snapshot ? BW_SNAPSHOT_KIND : BW_JOURNAL_KIND, snapshot ? c->snapshots[i] : c->journals[i - c->snapshot_count]);
        e = bw_file_aside(dir_fd, name, aside);
        if (!e && !first_aside[0]) snprintf(first_aside, 64, "%s", aside);
    }
    return e;
}
