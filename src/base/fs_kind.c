/* base/fs_kind.c: the table of file systems; see fs_kind.h. */
#include "base/fs_kind.h"

#include <stddef.h>

static const struct {
    uint32_t type;
    bw_fs_kind kind;
    const char *name;
} file_systems[] = {
    {0xEF53, BW_FS_LOCAL, "ext4"},
    {0x58465342, BW_FS_LOCAL, "xfs"},
    {0x9123683E, BW_FS_LOCAL, "btrfs"},
    {0x2FC12FC1, BW_FS_LOCAL, "zfs"},
    {0x01021994, BW_FS_LOCAL, "tmpfs"},
    {0xF2F52010, BW_FS_LOCAL, "f2fs"},
    {0x794C7630, BW_FS_LOCAL, "overlay"},
    {0x858458F6, BW_FS_LOCAL, "ramfs"},
    {0xCA451A4E, BW_FS_LOCAL, "bcachefs"},
    {0x01021997, BW_FS_DOUBTFUL, "9p"},
    {0x65735546, BW_FS_DOUBTFUL, "fuse or virtiofs"},
    {0x6969, BW_FS_NETWORK, "nfs"},
    {0xFF534D42, BW_FS_NETWORK, "cifs"},
    {0xFE534D42, BW_FS_NETWORK, "smb2"},
    {0x517B, BW_FS_NETWORK, "smb"},
    {0x00C36400, BW_FS_NETWORK, "ceph"},
    {0x47504653, BW_FS_NETWORK, "gpfs"},
    {0x0BD00BD0, BW_FS_NETWORK, "lustre"},
    {0x5346414F, BW_FS_NETWORK, "afs"},
    {0x6B414653, BW_FS_NETWORK, "kafs"},
    {0x01161970, BW_FS_NETWORK, "gfs2"},
    {0x7461636F, BW_FS_NETWORK, "ocfs2"},
    {0x19830326, BW_FS_NETWORK, "fhgfs"},
};

bw_fs_kind bw_fs_kind_of(uint32_t type, const char **name)
{
    if (name) *name = "unknown";
    for (size_t i = 0; i < sizeof file_systems / sizeof file_systems[0]; i++) {
        if (file_systems[i].type != type) continue;
        if (name) *name = file_systems[i].name;
        return file_systems[i].kind;
    }
    return BW_FS_DOUBTFUL; /* what is not known to keep shared maps coherent */
}
