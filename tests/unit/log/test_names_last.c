/* What appears under its name is whole, and on the disk when that counts: small files, partition folders, control files. The calls are
 * watched as they are made (bw_os_observe). */
#include "call_watch.h"
#include "log_fixture.h"

#include "log/smallfile.h"

static void test_smallfile_is_whole_on_the_disk_before_it_has_its_name(void **state)
{
    char folder[] = "/tmp/bw-small-XXXXXX";
    (void)state;
    assert_non_null(mkdtemp(folder));
    int dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    watch(NULL);
    assert_int_equal(bw_smallfile_replace(dir, "small", "text", 4), BW_OK);
    unwatch();
    int synced = find_call(BW_OS_fdatasync, 0, 0), written = find_call(BW_OS_pwrite, 0, 0), renamed = find_call(BW_OS_rename, 0, 0);
    int folder_synced = find_call(BW_OS_fsync, inode_of(dir), 0);
    assert_true(written >= 0 && written < synced && synced < renamed && renamed < folder_synced);
    assert_int_not_equal(seen.calls[written].inode, 0);
    assert_int_equal(find_call(BW_OS_pwrite, seen.calls[written].inode, written + 1), -1);
    assert_string_equal(seen.calls[renamed].name, "small");
    for (int i = 0; i < renamed; i++) /* nothing is done to the file that has the name */
        assert_string_not_equal(seen.calls[i].name, "small");
    close(dir);
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    assert_int_equal(system(command), 0);
}

/* The index of the call that gave a file or folder its name; every call before it must not have touched that name. */
static int named_at(const char *name)
{
    for (int i = 0; i < seen.count; i++) {
        if (strcmp(seen.calls[i].name, name) != 0) continue;
        assert_int_equal(seen.calls[i].what, BW_OS_rename);
        return i;
    }
    fail_msg("%s was never named", name);
    return -1;
}

static void test_partition_folder_is_whole_before_it_has_its_name(void **state)
{
    char folder[] = "/tmp/bw-names-XXXXXX";
    bw_uuid id = {{7}};
    struct stat st;
    (void)state;
    assert_non_null(mkdtemp(folder));
    int data = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    watch(NULL);
    assert_int_equal(bw_partition_create_files(data, "t", 0, &id), BW_OK);
    unwatch();
    int named = named_at("t-0");
    assert_int_equal(fstatat(data, "t-0", &st, 0), 0);
    int inner = find_call(BW_OS_fsync, st.st_ino, 0), outer = find_call(BW_OS_fsync, inode_of(data), 0);
    assert_true(inner >= 0 && inner < named);
    assert_true(outer > named);
    assert_int_equal(fstatat(data, "t-0/partition.metadata", &st, 0), 0);
    int content = find_call(BW_OS_fdatasync, st.st_ino, 0);
    assert_true(content >= 0 && content < inner);
    /* And its end: out of sight on the disk, before anything in it goes. */
    watch(NULL);
    assert_int_equal(bw_partition_delete_files(data, "t", 0), BW_OK);
    unwatch();
    int renamed = find_call(BW_OS_rename, 0, 0), synced = find_call(BW_OS_fsync, inode_of(data), 0), gone = find_call(BW_OS_unlink, 0, 0);
    assert_true(renamed >= 0 && renamed < synced && synced < gone);
    close(data);
    assert_int_equal(rmdir(folder), 0);
}

static struct { int fd; bool whole; } looked;

/* At the rename: is the header complete in the file that is about to get the name? */
static void look(void *opaque, const bw_os_event *e)
{
    bw_control_header h;
    (void)opaque;
    if (e->call != BW_OS_rename || e->done) return;
    int fd = openat(looked.fd, e->name, O_RDONLY | O_CLOEXEC);
    looked.whole = fd >= 0 && pread(fd, &h, sizeof h, 0) == (ssize_t)sizeof h && h.magic == BW_CONTROL_MAGIC;
    close(fd);
}

static void test_control_file_is_whole_before_it_has_its_name(void **state)
{
    char folder[] = "/dev/shm/bw-names-XXXXXX", tail[48], hex[33];
    uint8_t generation[16] = {3};
    bw_uuid topic = {{9}};
    bw_mail *mail;
    bw_control *control;
    (void)state;
    assert_non_null(mkdtemp(folder));
    looked.fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bw_uuid_hex(&topic, hex);
    snprintf(tail, sizeof tail, "%s.tail", hex);
    watch(NULL);
    assert_int_equal(bw_mail_create(looked.fd, generation, &mail), BW_OK);
    assert_int_equal(bw_control_create(looked.fd, generation, &topic, mail, 2, &control), BW_OK);
    unwatch();
    assert_true(named_at("mail") >= 0);
    assert_true(named_at(tail) >= 0);
    bw_control_close(control);
    bw_os_observe(look, NULL);
    assert_int_equal(bw_control_create(looked.fd, generation, &topic, mail, 2, &control), BW_OK);
    unwatch();
    assert_true(looked.whole);
    bw_control_close(control);
    bw_mail_close(mail);
    close(looked.fd);
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_smallfile_is_whole_on_the_disk_before_it_has_its_name),
        cmocka_unit_test(test_partition_folder_is_whole_before_it_has_its_name),
        cmocka_unit_test(test_control_file_is_whole_before_it_has_its_name),
    };
    return cmocka_run_group_tests_name("names_last", tests, NULL, NULL);
}
