/* The data directory: format, generation, locks; the arena folder on tmpfs. */
#include "log_fixture.h"

#include <limits.h>
#include <sys/file.h>

static void make_temp(char out[64]) { strcpy(out, "/tmp/bw-dir-XXXXXX"); assert_non_null(mkdtemp(out)); }

static void remove_all(const char *path)
{
    char command[PATH_MAX + 16];
    snprintf(command, sizeof command, "rm -rf %s", path);
    assert_int_equal(system(command), 0);
}

static void write_text(const char *dir, const char *name, const char *text)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    fputs(text, f);
    fclose(f);
}

static void test_datadir_create_makes_format_and_generation(void **state)
{
    (void)state;
    char base[64], path[96];
    make_temp(base);
    snprintf(path, sizeof path, "%s/a/b", base);
    bw_datadir *d, *c;
    assert_int_equal(bw_datadir_open_coordinator(path, false, &d), BW_ERR_NOT_FOUND);
    assert_int_equal(bw_datadir_open_coordinator(path, true, &d), BW_OK);
    assert_int_equal(bw_datadir_open_client(path, &c), BW_OK);
    assert_memory_equal(c->generation, d->generation, 16);
    uint8_t zero[16] = {0};
    assert_memory_not_equal(d->generation, zero, 16);
    bw_datadir_close(c);
    uint8_t first[16];
    memcpy(first, d->generation, 16);
    bw_datadir_close(d);
    assert_int_equal(bw_datadir_open_coordinator(path, false, &d), BW_OK); /* and keeps it */
    assert_memory_equal(d->generation, first, 16);
    bw_datadir_close(d);
    remove_all(base);
}

static void test_datadir_second_coordinator_is_refused_with_the_pid(void **state)
{
    (void)state;
    char base[64], pid[32];
    make_temp(base);
    bw_datadir *d, *e;
    assert_int_equal(bw_datadir_open_coordinator(base, true, &d), BW_OK);
    assert_int_equal(bw_datadir_open_coordinator(base, true, &e), BW_ERR_ALREADY_RUNNING);
    snprintf(pid, sizeof pid, "pid %d", (int)getpid());
    assert_non_null(strstr(bw_error_message(), pid));
    bw_datadir_close(d);
    assert_int_equal(bw_datadir_open_coordinator(base, true, &e), BW_OK);
    bw_datadir_close(e);
    remove_all(base);
}

static void test_datadir_newer_format_is_refused_with_both_numbers(void **state)
{
    (void)state;
    char base[64];
    make_temp(base);
    write_text(base, "busway.format", "busway data format 7\n");
    bw_datadir *d;
    assert_int_equal(bw_datadir_open_coordinator(base, true, &d), BW_ERR_NEWER_FORMAT);
    assert_non_null(strstr(bw_error_message(), "7"));
    assert_non_null(strstr(bw_error_message(), "1"));
    assert_int_equal(bw_datadir_open_client(base, &d), BW_ERR_NEWER_FORMAT);
    write_text(base, "busway.format", "something else\n");
    assert_int_equal(bw_datadir_open_coordinator(base, true, &d), BW_ERR_CORRUPT);
    remove_all(base);
}

static void test_datadir_writable_by_everybody_is_refused(void **state)
{
    (void)state;
    char base[64];
    make_temp(base);
    assert_int_equal(chmod(base, 0777), 0);
    bw_datadir *d;
    assert_int_equal(bw_datadir_open_coordinator(base, true, &d), BW_ERR_NOT_PERMITTED);
    remove_all(base);
}

static void test_datadir_writers_lock_names_its_holders(void **state)
{
    (void)state;
    char base[64];
    make_temp(base);
    bw_datadir *d, *c;
    assert_int_equal(bw_datadir_open_coordinator(base, true, &d), BW_OK);
    int go[2], done[2];
    assert_int_equal(pipe(go), 0);
    assert_int_equal(pipe(done), 0);
    pid_t child = fork();
    if (child == 0) {
        char byte;
        close(done[1]);
        if (bw_datadir_open_client(base, &c) != BW_OK) _exit(1);
        if (bw_datadir_lock_writers_shared(c, 100) != BW_OK) _exit(2);
        if (write(go[1], "x", 1) != 1) _exit(3);
        (void)!read(done[0], &byte, 1);
        _exit(0);
    }
    char byte, pid[32];
    assert_int_equal(read(go[0], &byte, 1), 1);
    assert_int_equal(bw_datadir_lock_writers_exclusive(d), BW_ERR_BUSY);
    snprintf(pid, sizeof pid, "%d", (int)child);
    assert_non_null(strstr(bw_error_message(), pid));
    assert_int_equal(bw_datadir_open_client(base, &c), BW_OK);
    assert_int_equal(bw_datadir_lock_writers_shared(c, 0), BW_OK); /* writers do not exclude each other */
    bw_datadir_unlock_writers(c);
    close(done[1]);
    waitpid(child, NULL, 0);
    assert_int_equal(bw_datadir_lock_writers_exclusive(d), BW_OK);
    assert_int_equal(bw_datadir_lock_writers_shared(c, 20), BW_ERR_BUSY);
    bw_datadir_unlock_writers(d);
    assert_int_equal(bw_datadir_lock_writers_shared(c, 20), BW_OK);
    bw_datadir_close(c);
    bw_datadir_close(d);
    remove_all(base);
}

static void test_datadir_open_removes_half_deleted_folders(void **state)
{
    (void)state;
    char base[64], path[128];
    make_temp(base);
    snprintf(path, sizeof path, "%s/t-0.00112233445566778899aabbccddeeff-delete", base);
    assert_int_equal(mkdir(path, 0755), 0);
    write_text(path, "x.log", "x");
    bw_datadir *d;
    assert_int_equal(bw_datadir_open_coordinator(base, true, &d), BW_OK);
    struct stat st;
    assert_int_not_equal(stat(path, &st), 0);
    bw_datadir_close(d);
    remove_all(base);
}

/* As far as arenas go: a folder and a generation. */
static bw_datadir made_up(const char *path)
{
    bw_datadir d = {.fd = open(path, O_RDONLY | O_CLOEXEC), .path = (char *)(uintptr_t)path};
    assert_true(d.fd >= 0);
    bw_os_uuid(d.generation);
    return d;
}

static void test_arena_dir_on_disk_goes_to_dev_shm(void **state)
{
    (void)state;
    char base[64], path[PATH_MAX], again[PATH_MAX];
    make_temp(base);
    int fd, fd2;
    bw_datadir generation = made_up(base), other = made_up(base);
    bool tmp_is_tmpfs = bw_os_fs_is_tmpfs(open("/tmp", O_RDONLY | O_CLOEXEC));
    assert_int_equal(bw_arena_dir_open(base, &generation, false, path, sizeof path, &fd), BW_ERR_NOT_FOUND);
    assert_int_equal(bw_arena_dir_open(base, &generation, true, path, sizeof path, &fd), BW_OK);
    if (!tmp_is_tmpfs) assert_int_equal(strncmp(path, "/dev/shm/busway-", 16), 0);
    assert_true(bw_os_fs_is_tmpfs(fd));
    assert_int_equal(bw_arena_dir_open(base, &generation, false, again, sizeof again, &fd2), BW_OK);
    assert_string_equal(path, again);
    close(fd2);
    /* A newer generation of the same data directory removes the older one, and marks what is mapped there as retired. */
    bw_mail *mail;
    assert_int_equal(bw_mail_create(fd, generation.generation, &mail), BW_OK);
    close(fd);
    assert_int_equal(bw_arena_dir_open(base, &other, true, again, sizeof again, &fd2), BW_OK);
    bw_arena_dir_remove_others(again);
    struct stat st;
    assert_int_not_equal(stat(path, &st), 0);
    assert_int_equal(stat(again, &st), 0);
    assert_int_equal(atomic_load(&mail->header->retired), 1);
    bw_mail_close(mail);
    close(fd2);
    bw_arena_dir_remove(again);
    assert_int_not_equal(stat(again, &st), 0);
    close(generation.fd);
    close(other.fd);
    remove_all(base);
}

static void test_arena_dir_of_another_data_directory_is_left_alone(void **state)
{
    (void)state;
    char a[64], b[64], path_a[PATH_MAX], path_b[PATH_MAX];
    int fa, fb;
    make_temp(a);
    make_temp(b);
    bw_datadir ga = made_up(a), gb = made_up(b);
    /* Even when they share a runtime folder. */
    assert_int_equal(bw_arena_dir_open(a, &ga, true, path_a, sizeof path_a, &fa), BW_OK);
    assert_int_equal(bw_arena_dir_open(a, &gb, true, path_b, sizeof path_b, &fb), BW_OK);
    bw_arena_dir_remove_others(path_b);
    struct stat st;
    assert_int_equal(stat(path_a, &st), 0);
    close(fa);
    close(fb);
    bw_arena_dir_remove(path_a);
    bw_arena_dir_remove(path_b);
    close(ga.fd);
    close(gb.fd);
    remove_all(a);
    remove_all(b);
}

static void test_arena_dir_on_tmpfs_stays_in_the_runtime_folder(void **state)
{
    (void)state;
    char base[64] = "/dev/shm/bw-run-XXXXXX", path[PATH_MAX];
    int fd;
    assert_non_null(mkdtemp(base));
    bw_datadir generation = made_up(base);
    assert_int_equal(bw_arena_dir_open(base, &generation, true, path, sizeof path, &fd), BW_OK);
    assert_int_equal(strncmp(path, base, strlen(base)), 0);
    close(fd);
    close(generation.fd);
    remove_all(base);
}

/* A generation's control data in a runtime folder that others share: held by *fd. */
static void make_arena(const char *runtime, const char *folder, bw_datadir *d, char path[PATH_MAX], int *fd)
{
    char hex[34];
    bw_uuid id;
    *d = made_up(folder);
    memcpy(id.b, d->generation, sizeof id.b);
    bw_uuid_hex(&id, hex);
    strcat(hex, "\n");
    write_text(folder, "generation", hex);
    assert_int_equal(bw_arena_dir_open(runtime, d, true, path, PATH_MAX, fd), BW_OK);
}

static void test_arena_dir_sweep_removes_what_nobody_holds_and_nobody_can_come_to(void **state)
{
    (void)state;
    enum { OWN, LIVES, DEAD, GONE, GONE_BUT_HELD, REGENERATED, UNSAID, HALF, ALL };
    char runtime[64] = "/dev/shm/bw-run-XXXXXX", base[64], folders[ALL][PATH_MAX], paths[ALL][PATH_MAX], half[PATH_MAX + 16];
    bw_datadir d[ALL], again;
    struct stat st;
    int fds[ALL];
    assert_non_null(mkdtemp(runtime));
    make_temp(base);
    for (int i = 0; i < ALL; i++) {
        snprintf(folders[i], sizeof folders[i], "%.60s/%d", base, i);
        assert_int_equal(mkdir(folders[i], 0700), 0);
        make_arena(runtime, folders[i], &d[i], paths[i], &fds[i]);
        if (i != OWN && i != LIVES && i != GONE_BUT_HELD) close(fds[i]);
    }
    remove_all(folders[GONE]);
    remove_all(folders[GONE_BUT_HELD]);
    char path[PATH_MAX], file[PATH_MAX + 16];
    int fd;
    make_arena(runtime, folders[REGENERATED], &again, path, &fd);
    close(fd);
    snprintf(file, sizeof file, "%s/folder", paths[UNSAID]); /* as daemons of an earlier version leave it */
    assert_int_equal(unlink(file), 0);
    remove_all(folders[UNSAID]);
    snprintf(half, sizeof half, "%s-delete", paths[HALF]); /* who swept it was killed */
    assert_int_equal(rename(paths[HALF], half), 0);
    assert_int_equal(bw_arena_dir_sweep(paths[OWN]), 3);
    static const bool stays[ALL] = {[OWN] = true, [LIVES] = true, [DEAD] = true, [GONE_BUT_HELD] = true, [UNSAID] = true};
    for (int i = 0; i < ALL; i++)
        if ((stat(paths[i], &st) == 0) != stays[i]) fail_msg("the %d. %s", i, stays[i] ? "was removed" : "is still there");
    assert_int_not_equal(stat(half, &st), 0);
    assert_int_equal(stat(path, &st), 0);
    close(fds[GONE_BUT_HELD]);
    assert_int_equal(bw_arena_dir_sweep(paths[OWN]), 1);
    assert_int_not_equal(stat(paths[GONE_BUT_HELD], &st), 0);
    for (int i = 0; i < ALL; i++) close(d[i].fd);
    close(again.fd);
    close(fds[OWN]);
    close(fds[LIVES]);
    remove_all(runtime);
    remove_all(base);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_datadir_create_makes_format_and_generation),
        cmocka_unit_test(test_datadir_second_coordinator_is_refused_with_the_pid),
        cmocka_unit_test(test_datadir_newer_format_is_refused_with_both_numbers),
        cmocka_unit_test(test_datadir_writable_by_everybody_is_refused),
        cmocka_unit_test(test_datadir_writers_lock_names_its_holders),
        cmocka_unit_test(test_datadir_open_removes_half_deleted_folders),
        cmocka_unit_test(test_arena_dir_on_disk_goes_to_dev_shm),
        cmocka_unit_test(test_arena_dir_of_another_data_directory_is_left_alone),
        cmocka_unit_test(test_arena_dir_on_tmpfs_stays_in_the_runtime_folder),
        cmocka_unit_test(test_arena_dir_sweep_removes_what_nobody_holds_and_nobody_can_come_to),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
