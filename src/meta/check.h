/* meta/check.h: is LMDB's file sound? A child process looks, because what rots may crash or hang whoever reads it. Internal to meta/.
 *
 * The child keeps nothing of its parent but the pipe (no lock, no socket), dies with it, has its processor time limited and leaves no core.
 * It walks the pages without LMDB (pages.h), then opens the file read-only with LMDB, without lock file, and reads every entry.
 * A crash, a hang or an error of the child means that the file is damaged; that the child could not work (no memory, no process) does not. */
#ifndef BW_META_CHECK_H
#define BW_META_CHECK_H

#include "meta/entry.h"

#include <sys/types.h>

typedef enum bw_check_kind {
    BW_CHECK_ABSENT, /* no file, or an empty one */
    BW_CHECK_GOOD,   /* state is what all entries add up to */
    BW_CHECK_DAMAGED,
    BW_CHECK_FORMAT1, /* written by a version without checksums */
    BW_CHECK_NEWER,
    BW_CHECK_UNABLE, /* nothing can be said: error */
} bw_check_kind;

typedef struct bw_check_verdict {
    bw_check_kind kind;
    bw_err error;
    bw_meta_state state;
    char why[300];
} bw_check_verdict;

typedef struct bw_check {
    pid_t pid;
    int fd;
    bw_check_verdict *own; /* no child: it was done at once */
} bw_check;

/* bw_check_start: the child begins; the caller may do other things meanwhile. path: the metadata's folder. alone: without a child, in this
 * process, which must not make any: the walk over the pages is then what keeps LMDB from a file that would crash it. NO_MEMORY, BUSY. */
bw_err bw_check_start(int dir_fd, const char *path, bool alone, bw_check *c);
/* bw_check_end: wait for it. Always ends the child. */
void bw_check_end(bw_check *c, bw_check_verdict *out);
/* bw_check_file: the child's work, in this process. */
void bw_check_file(int dir_fd, const char *path, bw_check_verdict *out);

#endif
