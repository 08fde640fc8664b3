/* meta/files.c: see files.h. */
#include "meta/files.h"

#include "base/err.h"
#include "base/os.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>

#define WINDOW ((size_t)128 * 1024)
#define ASIDE_MAX 1000

bw_err bw_source_open(int dir_fd, const char *name, bw_source *out)
{
    struct stat st;
    *out = (bw_source){.fd = bw_os_open_beneath(dir_fd, name, O_RDONLY | O_NONBLOCK, 0)};
    if (out->fd < 0) return bw_fail_errno(errno, "cannot open %s", name);
    if (bw_os_fstat(out->fd, &st) || !S_ISREG(st.st_mode)) {
        bw_source_close(out);
        return bw_fail(BW_ERR_IO, "%s is no plain file", name);
    }
    out->size = (uint64_t)st.st_size;
    return BW_OK;
}

void bw_source_close(bw_source *s)
{
    if (s->fd >= 0) bw_os_close(s->fd);
    s->fd = -1;
    bw_buf_free(&s->window);
}

const uint8_t *bw_source_take(bw_source *s, size_t len)
{
    if (s->failed || len > bw_source_left(s)) return NULL;
    size_t have = s->window.len - s->pos;
    if (have < len) {
        bw_buf_consume(&s->window, s->pos);
        s->pos = 0;
        size_t want = len - have > WINDOW ? len - have : WINDOW;
        if (want > s->size - s->read) want = (size_t)(s->size - s->read);
        s->failed = bw_buf_reserve(&s->window, want) != BW_OK;
        ssize_t n = s->failed ? -1 : bw_os_pread(s->fd, s->window.data + have, want, (off_t)s->read);
        if (n != (ssize_t)want) {
            if (!s->failed) bw_fail_errno(n < 0 ? errno : EIO, "cannot read a file of the metadata");
            s->failed = true;
            return NULL;
        }
        s->window.len += want;
        s->read += want;
    }
    const uint8_t *p = s->window.data + s->pos;
    s->pos += len;
    s->at += len;
    return p;
}

bool bw_source_zeros(bw_source *s)
{
    while (bw_source_left(s)) {
        size_t n = bw_source_left(s) < 4096 ? (size_t)bw_source_left(s) : 4096;
        const uint8_t *p = bw_source_take(s, n);
        if (!p || *p || memcmp(p, p + 1, n - 1) != 0) return false;
    }
    return true;
}

void bw_file_name(char out[BW_FILE_NAME_MAX], const char *kind, uint64_t sequence)
{
    snprintf(out, BW_FILE_NAME_MAX, "%.20s-%016" PRIx64, kind, sequence);
}

bool bw_file_number(const char *name, const char *kind, uint64_t *sequence)
{
    char again[BW_FILE_NAME_MAX];
    size_t n = strlen(kind);
    if (strncmp(name, kind, n) != 0 || sscanf(name + n, "-%16" SCNx64, sequence) != 1) return false;
    bw_file_name(again, kind, *sequence);
    return strcmp(name, again) == 0;
}

bw_err bw_file_aside(int dir_fd, const char *name, char aside[BW_FILE_NAME_MAX])
{
    struct stat st;
    for (int n = 1; n < ASIDE_MAX; n++) {
        snprintf(aside, BW_FILE_NAME_MAX, "%.40s.damaged-%d", name, n);
        if (!bw_os_stat_at(dir_fd, aside, &st)) continue;
        if (errno != ENOENT) break;
        if (bw_os_rename(dir_fd, name, dir_fd, aside) || bw_os_sync_dir(dir_fd)) break;
        return BW_OK;
    }
    return bw_fail_errno(errno, "cannot put the damaged file %s aside", name);
}
