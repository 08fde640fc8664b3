/* log/smallfile.c: small whole files. The order that makes a replacement crash-safe: content, sync, rename, sync of the folder. */
#include "log/smallfile.h"

#include "base/crc32c.h"
#include "base/killpoint.h"
#include "base/os.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

bw_err bw_smallfile_read(int dir_fd, const char *name, char *text, size_t size, size_t *len)
{
    int fd = bw_os_open_beneath(dir_fd, name, O_RDONLY | O_NONBLOCK, 0);
    if (fd < 0) return bw_fail_errno(errno, "cannot open %s", name);
    ssize_t n = bw_os_pread(fd, text, size, 0);
    int saved = errno;
    bw_os_close(fd);
    if (n < 0) return bw_fail_errno(saved, "cannot read %s", name);
    if ((size_t)n >= size) return bw_fail(BW_ERR_CORRUPT, "%s is longer than %zu bytes", name, size - 1);
    text[n] = '\0';
    *len = (size_t)n;
    return BW_OK;
}

bw_err bw_smallfile_write(int dir_fd, const char *name, const void *data, size_t len, bool sync)
{
    int fd = bw_os_open_beneath(dir_fd, name, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0) return bw_fail_errno(errno, "cannot create %s", name);
    bool good = bw_os_pwrite(fd, data, len, 0) >= 0 && (!sync || bw_os_fdatasync(fd) == 0);
    int saved = errno;
    bw_os_close(fd);
    if (good) return BW_OK;
    (void)bw_os_unlink(dir_fd, name, 0);
    return bw_fail_errno(saved, "cannot write %s", name);
}

bw_err bw_smallfile_replace(int dir_fd, const char *name, const void *data, size_t len)
{
    char temporary[NAME_MAX + 1];
    snprintf(temporary, sizeof temporary, "%s.tmp", name);
    bw_err e = bw_smallfile_write(dir_fd, temporary, data, len, true);
    if (e) return e;
    BW_KILL_POINT("smallfile.written");
    if (bw_os_rename(dir_fd, temporary, dir_fd, name) != 0) return bw_fail_errno(errno, "cannot rename %s to %s", temporary, name);
    BW_KILL_POINT("smallfile.renamed");
    if (bw_os_sync_dir(dir_fd) != 0) return bw_fail_errno(errno, "cannot sync the folder of %s", name);
    return BW_OK;
}

bw_err bw_smallfile_put(int dir_fd, const char *name, const void *data, size_t len)
{
    char temporary[NAME_MAX + 1];
    snprintf(temporary, sizeof temporary, "%s.tmp", name);
    bw_err e = bw_smallfile_write(dir_fd, temporary, data, len, false);
    if (!e && bw_os_rename(dir_fd, temporary, dir_fd, name) != 0) e = bw_fail_errno(errno, "cannot rename %s to %s", temporary, name);
    return e;
}

static bool unlink_entry(void *opaque, const char *name)
{
    (void)bw_os_unlink(*(const int *)opaque, name, 0);
    return true;
}

static int offset_text(char text[64], int64_t offset)
{
    int n = snprintf(text, 64, "0\n%" PRId64 "\n", offset);
    return n + snprintf(text + n, (size_t)(64 - n), "%08x\n", bw_crc32c(text, (size_t)n));
}

bw_err bw_offset_file_write(int dir_fd, const char *name, int64_t offset)
{
    char text[64];
    return bw_smallfile_replace(dir_fd, name, text, (size_t)offset_text(text, offset));
}

bw_err bw_offset_file_put(int dir_fd, const char *name, int64_t offset)
{
    char text[64];
    return bw_smallfile_put(dir_fd, name, text, (size_t)offset_text(text, offset));
}

bw_err bw_offset_file_check(int dir_fd, const char *name, int64_t *offset)
{
    char text[64], again[64];
    size_t len;
    bw_err e = bw_smallfile_read(dir_fd, name, text, sizeof text, &len);
    if (e) return e;
    if (sscanf(text, "0\n%" SCNd64, offset) != 1 || *offset < 0 || (size_t)offset_text(again, *offset) != len || memcmp(text, again, len) != 0)
        return bw_fail(BW_ERR_CORRUPT, "%s fails its checksum", name);
    return BW_OK;
}

int64_t bw_offset_file_read(int dir_fd, const char *name)
{
    int64_t offset;
    return bw_offset_file_check(dir_fd, name, &offset) == BW_OK ? offset : 0;
}

bw_err bw_folder_remove(int dir_fd, const char *name)
{
    int fd = bw_os_open_beneath(dir_fd, name, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0) return bw_fail_errno(errno, "cannot open folder %s", name);
    int listed = bw_os_list_dir(fd, unlink_entry, &fd);
    bw_os_close(fd);
    BW_KILL_POINT("delete.emptied");
    if (listed != 0 || bw_os_unlink(dir_fd, name, AT_REMOVEDIR) != 0) return bw_fail_errno(errno, "cannot remove folder %s", name);
    if (bw_os_sync_dir(dir_fd) != 0) return bw_fail_errno(errno, "cannot sync the folder that held %s", name);
    return BW_OK;
}
