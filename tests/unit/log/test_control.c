/* Attaching to control data: everything that must agree is compared, and the error says what does not. */
#include "engine_fixture.h"

typedef struct change {
    size_t at; /* of a field in the header */
    bw_err error;
    const char *words; /* of the message */
} change;

static void test_attach_other_layout_libc_boot_or_generation_is_refused_with_the_reason(void **state)
{
    static const change changes[] = {
        {offsetof(bw_control_header, magic), BW_ERR_RETIRED, "not complete"},
        {offsetof(bw_control_header, layout), BW_ERR_UNSUPPORTED, "layout"},
        {offsetof(bw_control_header, mutex_size), BW_ERR_UNSUPPORTED, "mutex"},
        {offsetof(bw_control_header, word_size), BW_ERR_UNSUPPORTED, "word"},
        {offsetof(bw_control_header, page_size), BW_ERR_UNSUPPORTED, "pages"},
        {offsetof(bw_control_header, libc), BW_ERR_UNSUPPORTED, "libc"},
        {offsetof(bw_control_header, generation), BW_ERR_RETIRED, "generation"},
        {offsetof(bw_control_header, topic_id), BW_ERR_RETIRED, "generation"},
        {offsetof(bw_control_header, boot_id), BW_ERR_RETIRED, "reboot"},
        {offsetof(bw_control_header, owner_uid), BW_ERR_NOT_PERMITTED, "owner"},
        {offsetof(bw_control_header, pid_namespace), BW_ERR_NOT_PERMITTED, "PID namespace"},
        {offsetof(bw_control_header, retired), BW_ERR_RETIRED, "replaced"},
    };
    (void)state;
    engine g;
    engine_init(&g, 4096, 4096);
    bw_control *c;
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        uint8_t *field = (uint8_t *)g.control->header + changes[i].at;
        *field ^= 1;
        bw_err e = bw_control_attach(g.shm_fd, g.generation, &g.topic, BW_CONTROL_WRITE, g.mail, &c);
        if (e != changes[i].error || !strstr(bw_error_message(), changes[i].words))
            fail_msg("change %zu: %s: %s", i, bw_err_name(e), bw_error_message());
        *field ^= 1;
    }
    assert_int_equal(bw_control_attach(g.shm_fd, g.generation, &g.topic, BW_CONTROL_WRITE, g.mail, &c), BW_OK);
    bw_control_close(c);
    engine_fini(&g);
}

static void test_attach_writable_by_others_or_cut_is_refused(void **state)
{
    (void)state;
    engine g;
    engine_init(&g, 4096, 4096);
    char hex[33], name[48];
    bw_control *c;
    bw_uuid_hex(&g.topic, hex);
    snprintf(name, sizeof name, "%s.tail", hex);
    assert_int_equal(fchmodat(g.shm_fd, name, 0660, 0), 0);
    assert_int_equal(bw_control_attach(g.shm_fd, g.generation, &g.topic, BW_CONTROL_READ, g.mail, &c), BW_ERR_NOT_PERMITTED);
    assert_int_equal(fchmodat(g.shm_fd, name, 0640, 0), 0);
    snprintf(name, sizeof name, "%s.wait", hex);
    int fd = openat(g.shm_fd, name, O_RDWR);
    assert_int_equal(ftruncate(fd, 4096), 0);
    close(fd);
    assert_int_equal(bw_control_attach(g.shm_fd, g.generation, &g.topic, BW_CONTROL_READ, g.mail, &c), BW_ERR_UNSUPPORTED);
    engine_fini(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attach_other_layout_libc_boot_or_generation_is_refused_with_the_reason),
        cmocka_unit_test(test_attach_writable_by_others_or_cut_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
