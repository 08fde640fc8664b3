/* log/txn_index.c: read, append to and restore .txnindex files. Files are opened by name for each use: they are small and rarely touched. */
#include "log/txn_index.h"

#include "base/killpoint.h"
#include "base/os.h"
#include "format/names.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

enum { FILE_MOST = 1 << 30, PIECE = 64 * BW_TXN_ENTRY_BYTES };

void bw_aborted_put(uint8_t out[BW_TXN_ENTRY_BYTES], const bw_aborted *a)
{
    bw_put_be16(out, 0);
    bw_put_be64(out + 2, (uint64_t)a->producer_id);
    bw_put_be64(out + 10, (uint64_t)a->first);
    bw_put_be64(out + 18, (uint64_t)a->last);
    bw_put_be64(out + 26, (uint64_t)a->stable);
}

bool bw_aborted_take(const uint8_t *data, size_t len, size_t i, int64_t before, bw_aborted *out)
{
    if (i >= len / BW_TXN_ENTRY_BYTES) return false;
    const uint8_t *at = data + i * BW_TXN_ENTRY_BYTES;
    *out = (bw_aborted){(int64_t)bw_get_be64(at + 2), (int64_t)bw_get_be64(at + 10), (int64_t)bw_get_be64(at + 18),
                        (int64_t)bw_get_be64(at + 26)};
    return bw_get_be16(at) == 0 && out->producer_id >= 0 && out->first >= 0 && out->first < out->last && out->last > before &&
           out->last < INT64_MAX && out->stable >= 0 && out->stable <= out->last + 1;
}

void bw_aborted_list_free(bw_aborted_list *l)
{
    free(l->items);
    *l = (bw_aborted_list){0};
}

bw_err bw_aborted_list_add(bw_aborted_list *l, const bw_aborted *a)
{
    if (l->count == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 16;
        bw_aborted *more = realloc(l->items, cap * sizeof *more);
        if (!more) return bw_fail(BW_ERR_NO_MEMORY, "no memory for %zu aborted transactions", cap);
        l->items = more;
        l->cap = cap;
    }
    l->items[l->count++] = *a;
    return BW_OK;
}

static int open_index(int dir_fd, int64_t base_offset, int flags, char name[BW_SEGMENT_NAME_MAX])
{
    bw_segment_name(name, base_offset, BW_TXN_INDEX_SUFFIX);
    return bw_os_open_beneath(dir_fd, name, flags, 0644);
}

/* All sound entries from byte `from` on. *odd: what stands there is none. */
static bw_err read_entries(int fd, const char *name, uint64_t from, int64_t before, bw_aborted_list *list, uint64_t *end, bool *odd)
{
    uint8_t piece[PIECE];
    *odd = false;
    *end = from;
    for (;;) {
        ssize_t n = bw_os_pread(fd, piece, sizeof piece, (off_t)*end);
        if (n < 0) return bw_fail_errno(errno, "cannot read %s", name);
        size_t i = 0;
        bw_aborted a;
        for (; bw_aborted_take(piece, (size_t)n, i, before, &a); i++) {
            bw_err e = bw_aborted_list_add(list, &a);
            if (e) return e;
            before = a.last;
        }
        *end += i * BW_TXN_ENTRY_BYTES;
        *odd = i < (size_t)n / BW_TXN_ENTRY_BYTES;
        if (*odd || (size_t)n < sizeof piece || *end > FILE_MOST) return BW_OK;
    }
}

bw_err bw_txn_index_read(int dir_fd, int64_t base_offset, uint64_t from, int64_t before, bw_aborted_list *list, uint64_t *end)
{
    char name[BW_SEGMENT_NAME_MAX];
    struct stat st;
    bool odd = false;
    int fd = open_index(dir_fd, base_offset, O_RDONLY, name);
    *end = 0;
    if (fd < 0 && errno == ENOENT) return BW_ERR_NOT_FOUND;
    if (fd < 0) return bw_fail_errno(errno, "cannot open %s", name);
    bw_err e = bw_os_fstat(fd, &st) != 0 ? bw_fail_errno(errno, "cannot stat %s", name) : BW_OK;
    if (!e && from > (uint64_t)st.st_size) e = bw_fail(BW_ERR_CORRUPT, "%s is shorter than it was", name);
    if (!e) e = read_entries(fd, name, from, before, list, end, &odd);
    if (!e && odd)
        e = bw_fail(BW_ERR_CORRUPT, "%s, byte %llu: no entry of an aborted transaction; run `busway verify`, and start the daemon again, which "
                    "makes it anew", name, (unsigned long long)*end);
    bw_os_close(fd);
    return e;
}

static bw_err write_entries(int fd, const char *name, uint64_t at, const bw_aborted *entries, size_t n)
{
    uint8_t piece[PIECE];
    for (size_t done = 0; done < n;) {
        size_t k = 0;
        for (; k < PIECE / BW_TXN_ENTRY_BYTES && done + k < n; k++) bw_aborted_put(piece + k * BW_TXN_ENTRY_BYTES, &entries[done + k]);
        if (bw_os_pwrite(fd, piece, k * BW_TXN_ENTRY_BYTES, (off_t)at) < 0) return bw_fail_errno(errno, "cannot write %s", name);
        at += k * BW_TXN_ENTRY_BYTES;
        done += k;
    }
    return BW_OK;
}

bw_err bw_txn_index_append(int dir_fd, int64_t base_offset, const bw_aborted *entries, size_t n, bool *created)
{
    char name[BW_SEGMENT_NAME_MAX];
    struct stat st;
    *created = false;
    int fd = open_index(dir_fd, base_offset, O_WRONLY, name);
    if (fd < 0 && errno == ENOENT) {
        fd = open_index(dir_fd, base_offset, O_WRONLY | O_CREAT, name);
        *created = fd >= 0;
    }
    if (fd < 0) return bw_fail_errno(errno, "cannot open %s", name);
    bw_err e = bw_os_fstat(fd, &st) != 0 ? bw_fail_errno(errno, "cannot stat %s", name) : BW_OK;
    uint64_t at = e ? 0 : (uint64_t)st.st_size / BW_TXN_ENTRY_BYTES * BW_TXN_ENTRY_BYTES; /* over the half of one that a full disk left */
    if (!e) e = write_entries(fd, name, at, entries, n);
    bw_os_close(fd);
    return e;
}

/* The sound entries of the file that end below `from`, and how many there are in all. */
static bw_err read_kept(int dir_fd, int64_t base_offset, int64_t from, bw_aborted_list *list, size_t *kept, uint64_t *bytes)
{
    char name[BW_SEGMENT_NAME_MAX];
    struct stat st;
    uint64_t end;
    bool odd;
    *kept = 0;
    *bytes = 0;
    int fd = open_index(dir_fd, base_offset, O_RDONLY, name);
    if (fd < 0) return errno == ENOENT ? BW_OK : bw_fail_errno(errno, "cannot open %s", name);
    bw_err e = bw_os_fstat(fd, &st) != 0 ? bw_fail_errno(errno, "cannot stat %s", name) : BW_OK;
    if (!e) e = read_entries(fd, name, 0, base_offset - 1, list, &end, &odd);
    if (!e) *bytes = (uint64_t)st.st_size;
    bw_os_close(fd);
    while (!e && *kept < list->count && list->items[*kept].last < from) ++*kept;
    return e;
}

static bool same(const bw_aborted *a, const bw_aborted *b)
{
    return a->producer_id == b->producer_id && a->first == b->first && a->last == b->last && a->stable == b->stable;
}

bw_err bw_txn_index_restore(int dir_fd, int64_t base_offset, int64_t from, const bw_aborted *entries, size_t n, bool *changed)
{
    char name[BW_SEGMENT_NAME_MAX];
    bw_aborted_list list = {0};
    size_t kept, equal = 0;
    uint64_t bytes;
    *changed = false;
    bw_err e = read_kept(dir_fd, base_offset, from, &list, &kept, &bytes);
    while (!e && equal < n && kept + equal < list.count && same(&list.items[kept + equal], &entries[equal])) equal++;
    bool right = !e && equal == n && (kept + n) * BW_TXN_ENTRY_BYTES == bytes;
    bw_aborted_list_free(&list);
    if (e || right) return e;
    int fd = open_index(dir_fd, base_offset, O_WRONLY | O_CREAT, name);
    if (fd < 0) return bw_fail_errno(errno, "cannot open %s", name);
    uint64_t at = (kept + equal) * BW_TXN_ENTRY_BYTES; /* entries that stay are never away for a reader */
    e = write_entries(fd, name, at, entries + equal, n - equal);
    BW_KILL_POINT("txn.restored");
    if (!e && bw_os_ftruncate(fd, (off_t)((kept + n) * BW_TXN_ENTRY_BYTES)) != 0) e = bw_fail_errno(errno, "cannot cut %s", name);
    bw_os_close(fd);
    *changed = !e;
    return e;
}

bw_err bw_txn_index_sync(int dir_fd, int64_t base_offset)
{
    char name[BW_SEGMENT_NAME_MAX];
    int fd = open_index(dir_fd, base_offset, O_RDWR, name);
    if (fd < 0) return errno == ENOENT ? BW_OK : bw_fail_errno(errno, "cannot open %s", name);
    bw_err e = bw_os_fsync(fd) != 0 ? bw_fail_errno(errno, "cannot sync %s", name) : BW_OK;
    bw_os_close(fd);
    return e;
}
