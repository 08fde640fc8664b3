/* log/smallfile.h: small whole files, replaced safely, and removal of a folder with plain files in it. Internal to log/. */
#ifndef BW_LOG_SMALLFILE_H
#define BW_LOG_SMALLFILE_H

#include "base/err.h"

#include <stddef.h>

/* bw_smallfile_read: the whole file, NUL-terminated, into text[size]. NOT_FOUND; CORRUPT when it does not fit; IO. */
bw_err bw_smallfile_read(int dir_fd, const char *name, char *text, size_t size, size_t *len);
/* bw_smallfile_replace: "<name>.tmp", sync, rename, sync of the folder. DISK_FULL, IO, NOT_PERMITTED. */
bw_err bw_smallfile_replace(int dir_fd, const char *name, const void *data, size_t len);
/* bw_folder_remove: unlink the plain files in a folder, then the folder itself; the parent is synced. Best effort on content. */
bw_err bw_folder_remove(int dir_fd, const char *name);

#endif
