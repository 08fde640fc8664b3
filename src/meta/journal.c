/* meta/journal.c: see journal.h. */
#include "meta/journal.h"

#include "base/crc32c.h"
#include "base/err.h"
#include "base/killpoint.h"
#include "base/os.h"
#include "meta/files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

static const uint8_t magic[8] = {'B', 'W', 'J', 'O', 'U', 'R', 'N', 'L'};
static const uint8_t zeros[16384];

/* Zeros from at to the end of a chunk, four at least: there is always an end to be read. */
static bw_err write_zeros(bw_journal *j, uint64_t at)
{
    uint64_t to = (at + 4 + BW_JOURNAL_CHUNK - 1) / BW_JOURNAL_CHUNK * BW_JOURNAL_CHUNK;
    while (at < to) {
        size_t n = to - at < sizeof zeros ? (size_t)(to - at) : sizeof zeros;
        if (bw_os_pwrite(j->fd, zeros, n, (off_t)at) < 0) return bw_fail_errno(errno, "cannot extend the journal of the metadata");
        at += n;
    }
    j->zeroed = to;
    return BW_OK;
}

bw_err bw_journal_create(int dir_fd, const bw_meta_state *base, bw_journal *out)
{
    char name[BW_FILE_NAME_MAX], temporary[] = "journal.tmp";
    uint8_t header[BW_JOURNAL_HEADER_BYTES] = {0};
    bw_file_name(name, BW_JOURNAL_KIND, base->sequence);
    memcpy(header, magic, sizeof magic);
    bw_state_encode(base, header + 8);
    uint32_t seed = bw_crc32c(header, 40);
    bw_put_be32(header + 40, seed);
    *out = (bw_journal){.fd = bw_os_open_beneath(dir_fd, temporary, O_RDWR | O_CREAT | O_TRUNC, 0600), .base = base->sequence,
                        .at = sizeof header, .last = sizeof header, .seed = seed};
    if (out->fd < 0) return bw_fail_errno(errno, "cannot create %s", temporary);
    bw_err e = write_zeros(out, 0);
    if (!e && bw_os_pwrite(out->fd, header, sizeof header, 0) < 0) e = bw_fail_errno(errno, "cannot write %s", temporary);
    if (!e && bw_os_fsync(out->fd)) e = bw_fail_errno(errno, "cannot sync %s", temporary);
    BW_KILL_POINT("meta.journal.made");
    if (!e && bw_os_rename(dir_fd, temporary, dir_fd, name)) e = bw_fail_errno(errno, "cannot rename %s to %s", temporary, name);
    if (!e && bw_os_sync_dir(dir_fd)) e = bw_fail_errno(errno, "cannot sync the folder of %s", name);
    BW_KILL_POINT("meta.journal.renamed");
    if (e) bw_journal_close(out);
    return e;
}

void bw_journal_close(bw_journal *j)
{
    if (j->fd >= 0) bw_os_close(j->fd);
    j->fd = -1;
}

bw_err bw_journal_undo(bw_journal *j)
{
    bw_err e = bw_os_ftruncate(j->fd, (off_t)j->zeroed) ? bw_fail_errno(errno, "cannot cut the metadata's journal back") : BW_OK;
    j->at = j->last;
    for (uint64_t at = j->at; !e && at < j->zeroed; at += sizeof zeros) {
        size_t n = j->zeroed - at < sizeof zeros ? (size_t)(j->zeroed - at) : sizeof zeros;
        if (bw_os_pwrite(j->fd, zeros, n, (off_t)at) < 0) e = bw_fail_errno(errno, "cannot take a record of the metadata's journal back");
    }
    if (!e && bw_os_fdatasync(j->fd)) e = bw_fail_errno(errno, "cannot sync the metadata's journal");
    j->broken |= e != BW_OK;
    return e;
}

bw_err bw_journal_append(bw_journal *j, const bw_meta_state *after, bw_buf *record)
{
    uint8_t crc[4];
    if (j->broken)
        return bw_fail(BW_ERR_IO, "the metadata's journal could not be synced; nothing is stored until the daemon is started again");
    bw_put_be32(record->data, (uint32_t)(record->len - BW_RECORD_HEAD_BYTES));
    bw_state_encode(after, record->data + 4);
    bw_put_be32(crc, bw_crc32c_extend(j->seed, record->data, record->len));
    bw_err e = bw_buf_append(record, crc, sizeof crc);
    if (e) return e;
    j->last = j->at;
    if (bw_os_pwrite(j->fd, record->data, record->len, (off_t)j->at) < 0) e = bw_fail_errno(errno, "cannot write the metadata's journal");
    BW_KILL_POINT("meta.journal.written");
    uint64_t end = j->at + record->len;
    if (!e && end + 4 > j->zeroed) e = write_zeros(j, end);
    if (e) { /* what came of it is no whole record at best, and one that nobody was told of at worst */
        bw_err first = e;
        char why[400];
        snprintf(why, sizeof why, "%s", bw_error_message());
        (void)bw_journal_undo(j);
        return bw_error_set_message(first, why);
    }
    if (bw_os_fdatasync(j->fd)) {
        j->broken = true;
        return bw_fail_errno(errno, "cannot sync the metadata's journal; nothing is stored until the daemon is started again");
    }
    j->at = end;
    BW_KILL_POINT("meta.journal.synced");
    return BW_OK;
}

/* ---- reading ---- */

static bw_err read_header(bw_source *s, uint64_t base, bw_journal_end *end)
{
    const uint8_t *h = bw_source_take(s, BW_JOURNAL_HEADER_BYTES);
    if (!h) return s->failed ? BW_ERR_IO : bw_fail(BW_ERR_CORRUPT, "it is shorter than its header");
    end->seed = bw_get_be32(h + 40);
    if (memcmp(h, magic, sizeof magic) != 0 || end->seed != bw_crc32c(h, 40) || memcmp(h + 44, zeros, 20) != 0)
        return bw_fail(BW_ERR_CORRUPT, "its header fails the checksum");
    bw_err e = bw_state_decode(h + 8, BW_STATE_BYTES, &end->base);
    if (!e && end->base.sequence != base) e = bw_fail(BW_ERR_CORRUPT, "it is another journal under this name");
    end->last = end->base;
    return e;
}

static void not_clean(bw_journal_end *end, const char *why) { snprintf(end->why, sizeof end->why, "%s", why); }

static bw_err read_record(bw_source *s, bw_journal_fn fn, void *opaque, bw_journal_end *end, bool *more)
{
    *more = false;
    const uint8_t *p = bw_source_take(s, 4);
    uint32_t n = p ? bw_get_be32(p) : 0;
    if (!p || !n) {
        if (!p) not_clean(end, "it does not end in zeros");
        else if (!bw_source_zeros(s)) not_clean(end, "something lies behind its end");
        else end->clean = true;
        return s->failed ? BW_ERR_IO : BW_OK;
    }
    uint32_t crc = bw_crc32c_extend(end->seed, p, 4);
    size_t rest = BW_STATE_BYTES + (size_t)n;
    bw_meta_state after;
    if ((p = bw_source_take(s, rest + 4)) == NULL) {
        not_clean(end, "a record is cut");
        return s->failed ? BW_ERR_IO : BW_OK;
    }
    if (bw_get_be32(p + rest) != bw_crc32c_extend(crc, p, rest)) {
        not_clean(end, "a record fails its checksum");
        return BW_OK;
    }
    if (bw_state_decode(p, BW_STATE_BYTES, &after) || after.sequence != end->last.sequence + 1) {
        not_clean(end, "a record is out of order");
        return BW_OK;
    }
    bw_err e = fn ? fn(opaque, &end->last, &after, p + BW_STATE_BYTES, n) : BW_OK;
    end->last = after;
    end->at = s->at;
    *more = !e;
    return e;
}

bw_err bw_journal_read(int dir_fd, uint64_t base, bw_journal_fn fn, void *opaque, bw_journal_end *end)
{
    char name[BW_FILE_NAME_MAX];
    bw_source s;
    bool more = true;
    *end = (bw_journal_end){.at = BW_JOURNAL_HEADER_BYTES};
    bw_file_name(name, BW_JOURNAL_KIND, base);
    bw_err e = bw_source_open(dir_fd, name, &s);
    if (e) return e;
    end->size = s.size;
    e = read_header(&s, base, end);
    if (e) more = false;
    while (more) e = read_record(&s, fn, opaque, end, &more);
    if (!e && end->clean && s.size % BW_JOURNAL_CHUNK) {
        end->clean = false;
        not_clean(end, "its length is odd");
    }
    bw_source_close(&s);
    return e ? bw_error_context(e, "%s", name) : BW_OK;
}

bw_err bw_journal_go_on(int dir_fd, const bw_journal_end *end, bw_journal *out)
{
    char name[BW_FILE_NAME_MAX];
    bw_file_name(name, BW_JOURNAL_KIND, end->base.sequence);
    *out = (bw_journal){.fd = bw_os_open_beneath(dir_fd, name, O_RDWR, 0), .base = end->base.sequence, .at = end->at, .last = end->at,
                        .zeroed = end->size, .seed = end->seed};
    return out->fd < 0 ? bw_fail_errno(errno, "cannot open %s", name) : BW_OK;
}
