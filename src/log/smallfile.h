/* log/smallfile.h: small whole files, replaced safely, and removal of a folder with plain files in it. Internal to log/. */
#ifndef BW_LOG_SMALLFILE_H
#define BW_LOG_SMALLFILE_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* bw_smallfile_read: the whole file, NUL-terminated, into text[size]. NOT_FOUND; CORRUPT when it does not fit; IO. */
bw_err bw_smallfile_read(int dir_fd, const char *name, char *text, size_t size, size_t *len);
/* bw_smallfile_replace: "<name>.tmp", sync, rename, sync of the folder. DISK_FULL, IO, NOT_PERMITTED. */
bw_err bw_smallfile_replace(int dir_fd, const char *name, const void *data, size_t len);
/* bw_smallfile_put: the same without any sync: a death leaves the old or the new; after a loss of power it may be empty or gone. */
bw_err bw_smallfile_put(int dir_fd, const char *name, const void *data, size_t len);
/* bw_offset_file_write / check: "0\n<offset>\n<checksum of these two lines, 8 hex digits>\n". check: NOT_FOUND, CORRUPT, IO.
 * read: 0 unless check finds it good. */
bw_err bw_offset_file_write(int dir_fd, const char *name, int64_t offset);
/* bw_offset_file_put: the same without any sync: old or new, or, after a loss of power, not good. */
bw_err bw_offset_file_put(int dir_fd, const char *name, int64_t offset);
bw_err bw_offset_file_check(int dir_fd, const char *name, int64_t *offset);
int64_t bw_offset_file_read(int dir_fd, const char *name);
#define BW_LOG_START_FILE "log-start-offset-checkpoint" /* only where records were deleted by request */
/* In a partition's folder: batches and segments that begin below this offset may skip offsets, because Kafka had compacted the log
 * before it was adopted. Not there: no offset may be missing. */
#define BW_GAPS_FILE "gaps-offset-checkpoint"
/* Likewise: the leader epoch from which on the log is what it is now: before it, it was another one (it ended below its recovery point). */
#define BW_LIFE_FILE "life-epoch-checkpoint"
/* Likewise: the offset up to which peers had acknowledged the log, when it was last looked at. Not there: nothing is known. */
#define BW_REPLICATED_FILE "replicated-offset-checkpoint"
/* bw_smallfile_write: into a new folder that nobody looks at yet; the folder is not synced. */
bw_err bw_smallfile_write(int dir_fd, const char *name, const void *data, size_t len, bool sync);
/* bw_folder_remove: unlink the plain files in a folder, then the folder itself; the parent is synced. Best effort on content. */
bw_err bw_folder_remove(int dir_fd, const char *name);

#endif
