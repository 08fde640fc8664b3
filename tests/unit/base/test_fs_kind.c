/* What is allowed on which file system: statfs(2)'s numbers as they are in the kernel's headers. */
#include "base/fs_kind.h"
#include "base/os.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void is(uint32_t type, bw_fs_kind kind, const char *name)
{
    const char *found = NULL;
    assert_int_equal(bw_fs_kind_of(type, &found), kind);
    assert_string_equal(found, name);
    assert_int_equal(bw_fs_kind_of(type, NULL), kind);
}

static void test_fs_kind_of_local_file_systems_is_local(void **state)
{
    (void)state;
    is(EXT4_SUPER_MAGIC, BW_FS_LOCAL, "ext4");
    is(XFS_SUPER_MAGIC, BW_FS_LOCAL, "xfs");
    is(BTRFS_SUPER_MAGIC, BW_FS_LOCAL, "btrfs");
    is(TMPFS_MAGIC, BW_FS_LOCAL, "tmpfs");
    is(OVERLAYFS_SUPER_MAGIC, BW_FS_LOCAL, "overlay");
    is(F2FS_SUPER_MAGIC, BW_FS_LOCAL, "f2fs");
}

static void test_fs_kind_of_network_file_systems_is_network(void **state)
{
    (void)state;
    is(NFS_SUPER_MAGIC, BW_FS_NETWORK, "nfs");
    is(CIFS_SUPER_MAGIC, BW_FS_NETWORK, "cifs");
    is(SMB2_SUPER_MAGIC, BW_FS_NETWORK, "smb2");
    is(SMB_SUPER_MAGIC, BW_FS_NETWORK, "smb");
    is(CEPH_SUPER_MAGIC, BW_FS_NETWORK, "ceph");
    is(AFS_SUPER_MAGIC, BW_FS_NETWORK, "afs");
    is(AFS_FS_MAGIC, BW_FS_NETWORK, "kafs");
    is(OCFS2_SUPER_MAGIC, BW_FS_NETWORK, "ocfs2");
}

static void test_fs_kind_of_others_is_doubtful(void **state)
{
    (void)state;
    is(FUSE_SUPER_MAGIC, BW_FS_DOUBTFUL, "fuse or virtiofs");
    is(V9FS_MAGIC, BW_FS_DOUBTFUL, "9p");
    is(0x12345678, BW_FS_DOUBTFUL, "unknown");
}

static void test_os_fs_kind_with_an_injected_type_says_it(void **state)
{
    (void)state;
    const char *name;
    int fd = open("/dev/shm", O_RDONLY | O_DIRECTORY);
    assert_true(fd >= 0);
    assert_int_equal(bw_os_fs_kind(fd, &name), BW_FS_LOCAL);
    assert_string_equal(name, "tmpfs");
    setenv("BUSWAY_FS_TYPE", "6969", 1);
    assert_int_equal(bw_os_fs_kind(fd, &name), BW_FS_NETWORK);
    assert_string_equal(name, "nfs");
    assert_false(bw_os_fs_is_local(fd, NULL));
    unsetenv("BUSWAY_FS_TYPE");
    assert_true(bw_os_fs_is_local(fd, NULL));
    assert_int_equal(bw_os_fs_kind(-1, &name), BW_FS_DOUBTFUL);
    assert_string_equal(name, "unknown");
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fs_kind_of_local_file_systems_is_local),
        cmocka_unit_test(test_fs_kind_of_network_file_systems_is_network),
        cmocka_unit_test(test_fs_kind_of_others_is_doubtful),
        cmocka_unit_test(test_os_fs_kind_with_an_injected_type_says_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
