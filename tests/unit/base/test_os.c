/* base/os.c: how files below a folder are opened. Under qemu-user there is no openat2, so that this also tests what is done without. */
#include "base/os.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[128];
static int dir_fd;

static void touch(const char *name)
{
    int fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, name, strlen(name)), (ssize_t)strlen(name));
    close(fd);
}

static int setup(void **state)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/bw-os.XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(folder)) return -1;
    dir_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(mkdirat(dir_fd, "a", 0700), 0);
    assert_int_equal(mkdirat(dir_fd, "a/b", 0700), 0);
    touch("plain");
    touch("a/b/deep");
    assert_int_equal(symlinkat("plain", dir_fd, "link"), 0);
    assert_int_equal(symlinkat("a", dir_fd, "linked"), 0);
    assert_int_equal(symlinkat("/etc", dir_fd, "outside"), 0);
    (void)state;
    return 0;
}

static int teardown(void **state)
{
    char command[192];
    (void)state;
    close(dir_fd);
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

static bool opens(const char *name)
{
    int fd = bw_os_open_beneath(dir_fd, name, O_RDONLY, 0);
    if (fd >= 0) {
        assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
        close(fd);
    }
    return fd >= 0;
}

static void test_open_beneath_opens_files_at_any_depth(void **state)
{
    (void)state;
    assert_true(opens("plain"));
    assert_true(opens("a"));
    assert_true(opens("a/b/deep"));
    assert_false(opens("a/b/none"));
    assert_int_equal(errno, ENOENT);
    assert_false(opens("plain/b"));
    assert_int_equal(errno, ENOTDIR);
}

static void test_open_beneath_never_follows_a_link(void **state)
{
    (void)state;
    assert_false(opens("link"));
    assert_false(opens("linked/b/deep"));
    assert_false(opens("outside/passwd"));
    assert_false(opens("outside"));
}

static void test_open_beneath_never_leaves_the_folder(void **state)
{
    (void)state;
    assert_false(opens("/etc/passwd"));
    assert_false(opens("../../etc/passwd"));
    assert_false(opens(".."));
    assert_false(opens("a/../../x"));
}

static void test_open_never_follows_a_link_in_the_last_place(void **state)
{
    (void)state;
    errno = 0;
    assert_int_equal(bw_os_open(dir_fd, "link", O_RDONLY, 0), -1);
    assert_int_equal(errno, ELOOP);
    int fd = bw_os_open(dir_fd, "plain", O_RDONLY, 0);
    assert_true(fd >= 0);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    close(fd);
}

static void test_open_beneath_makes_a_file_with_its_mode(void **state)
{
    struct stat st;
    (void)state;
    int fd = bw_os_open_beneath(dir_fd, "a/made", O_RDWR | O_CREAT | O_EXCL, 0640);
    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_mode & 07777 & ~0640, 0);
    close(fd);
    assert_int_equal(bw_os_open_beneath(dir_fd, "a/made", O_RDWR | O_CREAT | O_EXCL, 0640), -1);
    assert_int_equal(errno, EEXIST);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_open_beneath_opens_files_at_any_depth),
        cmocka_unit_test(test_open_beneath_never_follows_a_link),
        cmocka_unit_test(test_open_beneath_never_leaves_the_folder),
        cmocka_unit_test(test_open_never_follows_a_link_in_the_last_place),
        cmocka_unit_test(test_open_beneath_makes_a_file_with_its_mode),
    };
    return cmocka_run_group_tests_name("os", tests, setup, teardown);
}
