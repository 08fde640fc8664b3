/* base/fs_kind.h: what kind of file system a folder lies on, and what Busway may do there.
 *
 * Direct writers share maps of files, the daemon relies on locks and on what a sync says. On a network file system two hosts could each
 * believe to be the only coordinator: nothing is served there. Where only the maps may not be coherent (FUSE, virtiofs, 9p, what is not
 * known), the daemon serves through its socket, and says so. */
#ifndef BW_BASE_FS_KIND_H
#define BW_BASE_FS_KIND_H

#include <stdint.h>

typedef enum bw_fs_kind {
    BW_FS_LOCAL = 0,   /* everything */
    BW_FS_DOUBTFUL = 1, /* through the socket only */
    BW_FS_NETWORK = 2, /* reading alone (mode=ro) */
} bw_fs_kind;

/* bw_fs_kind_of: of statfs(2)'s f_type. name, if given, gets a static text ("ext4", "nfs", …; "unknown"). Pure. */
bw_fs_kind bw_fs_kind_of(uint32_t type, const char **name);

#endif
