/* meta/snapshot.c: see snapshot.h. */
#include "meta/snapshot.h"

#include "base/crc32c.h"
#include "base/err.h"
#include "base/killpoint.h"
#include "base/os.h"
#include "meta/files.h"

#include <errno.h>
#include <fcntl.h>

#define FLUSH_BYTES ((size_t)128 * 1024)
#define HEADER_BYTES (8 + BW_STATE_BYTES)
#define TEMPORARY "snapshot.tmp"

static const uint8_t magic[8] = {'B', 'W', 'S', 'N', 'A', 'P', 'S', 'H'};

static bw_err flush(bw_snapshot_writer *w)
{
    if (bw_os_pwrite(w->fd, w->buf.data, w->buf.len, (off_t)w->at) < 0) return bw_fail_errno(errno, "cannot write a snapshot of the metadata");
    w->crc = bw_crc32c_extend(w->crc, w->buf.data, w->buf.len);
    w->at += w->buf.len;
    w->buf.len = 0;
    return BW_OK;
}

bw_err bw_snapshot_begin(int dir_fd, const bw_meta_state *state, bw_snapshot_writer *w)
{
    uint8_t header[HEADER_BYTES];
    memcpy(header, magic, sizeof magic);
    bw_state_encode(state, header + 8);
    *w = (bw_snapshot_writer){.dir_fd = dir_fd, .state = *state};
    w->fd = bw_os_open_beneath(dir_fd, TEMPORARY, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    BW_KILL_POINT("meta.snapshot.begun");
    bw_err e = w->fd < 0 ? bw_fail_errno(errno, "cannot create " TEMPORARY) : bw_buf_append(&w->buf, header, sizeof header);
    if (e) bw_snapshot_abandon(w);
    return e;
}

bw_err bw_snapshot_add(bw_snapshot_writer *w, int table, const void *key, size_t key_len, const void *stored, size_t stored_len)
{
    bw_err e = bw_op_append(&w->buf, table, key, key_len, stored, stored_len, false);
    return e || w->buf.len < FLUSH_BYTES ? e : flush(w);
}

void bw_snapshot_abandon(bw_snapshot_writer *w)
{
    if (w->fd >= 0) {
        bw_os_close(w->fd);
        (void)bw_os_unlink(w->dir_fd, TEMPORARY, 0);
    }
    bw_buf_free(&w->buf);
    w->fd = -1;
}

bw_err bw_snapshot_finish(bw_snapshot_writer *w)
{
    char name[BW_FILE_NAME_MAX];
    uint8_t crc[4];
    bw_file_name(name, BW_SNAPSHOT_KIND, w->state.sequence);
    bw_err e = flush(w);
    bw_put_be32(crc, w->crc);
    if (!e && bw_os_pwrite(w->fd, crc, sizeof crc, (off_t)w->at) < 0) e = bw_fail_errno(errno, "cannot write " TEMPORARY);
    BW_KILL_POINT("meta.snapshot.written");
    if (!e && bw_os_fsync(w->fd)) e = bw_fail_errno(errno, "cannot sync " TEMPORARY);
    BW_KILL_POINT("meta.snapshot.synced");
    if (!e && bw_os_rename(w->dir_fd, TEMPORARY, w->dir_fd, name)) e = bw_fail_errno(errno, "cannot rename " TEMPORARY " to %s", name);
    BW_KILL_POINT("meta.snapshot.renamed");
    if (!e && bw_os_sync_dir(w->dir_fd)) e = bw_fail_errno(errno, "cannot sync the folder of %s", name);
    bw_snapshot_abandon(w);
    return e;
}

/* ---- reading ---- */

static bw_err cut(const bw_source *s) { return s->failed ? BW_ERR_IO : bw_fail(BW_ERR_CORRUPT, "it is cut"); }

static bw_err read_entry(bw_source *s, bw_entry_fn fn, void *opaque, uint32_t *crc, bw_meta_state *sum)
{
    const uint8_t *head = bw_source_take(s, BW_OP_HEAD_BYTES);
    if (!head) return cut(s);
    uint8_t kept[BW_OP_HEAD_BYTES];
    memcpy(kept, head, sizeof kept);
    size_t body = (size_t)bw_get_be16(kept + 1) + bw_get_be32(kept + 3);
    *crc = bw_crc32c_extend(*crc, kept, sizeof kept);
    const uint8_t *p = bw_source_take(s, body);
    if (!p) return cut(s);
    *crc = bw_crc32c_extend(*crc, p, body);
    bw_meta_op op = {.table = kept[0], .key = p, .key_len = bw_get_be16(kept + 1), .stored = p + bw_get_be16(kept + 1),
                     .stored_len = bw_get_be32(kept + 3)};
    if (op.table >= BW_TABLE_COUNT || !bw_entry_check(op.table, op.key, op.key_len, op.stored, op.stored_len, &op.hash))
        return bw_fail(BW_ERR_CORRUPT, "an entry of table '%s' fails its checksum", bw_table_name(op.table));
    bw_state_count(sum, op.hash, true);
    return fn ? fn(opaque, &op) : BW_OK;
}

static bw_err read_all(bw_source *s, uint64_t sequence, bw_entry_fn fn, void *opaque, bw_meta_state *state)
{
    const uint8_t *p = bw_source_take(s, HEADER_BYTES);
    if (!p) return cut(s);
    if (memcmp(p, magic, sizeof magic) != 0) return bw_fail(BW_ERR_CORRUPT, "it does not begin as one");
    uint32_t crc = bw_crc32c(p, HEADER_BYTES);
    bw_err e = bw_state_decode(p + 8, BW_STATE_BYTES, state);
    if (!e && state->sequence != sequence) e = bw_fail(BW_ERR_CORRUPT, "it is another one under this name");
    bw_meta_state sum = {.sequence = sequence};
    while (!e && bw_source_left(s) > 4) e = read_entry(s, fn, opaque, &crc, &sum);
    if (e) return e;
    if (!(p = bw_source_take(s, 4))) return cut(s);
    if (bw_get_be32(p) != crc || !bw_state_same(&sum, state)) return bw_fail(BW_ERR_CORRUPT, "it fails its checksum");
    return BW_OK;
}

bw_err bw_snapshot_read(int dir_fd, uint64_t sequence, bw_entry_fn fn, void *opaque, bw_meta_state *state, uint64_t *bytes)
{
    char name[BW_FILE_NAME_MAX];
    bw_source s;
    bw_file_name(name, BW_SNAPSHOT_KIND, sequence);
    bw_err e = bw_source_open(dir_fd, name, &s);
    if (e) return e;
    if (bytes) *bytes = s.size;
    e = read_all(&s, sequence, fn, opaque, state);
    bw_source_close(&s);
    return e ? bw_error_context(e, "%s", name) : BW_OK;
}
