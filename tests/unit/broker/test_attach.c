/* broker/attach.c: what the broker does for a direct writer that is gone. */
#include "fixture.h"

#include "log/wait.h"

#include <fcntl.h>
#include <string.h>

/* The broker's mail, mapped as a client maps it. */
static bw_mail *map_mail(fixture *fx, fake *f)
{
    bw_request r = rq(BW_API_HELLO, NULL);
    answer a;
    char path[256];
    bw_mail *mail;
    assert_int_equal(fake_call(fx, f, &r, &a), BW_OK);
    if (a.a.arena_dir.len == 0) {
        answer_free(&a);
        return NULL;
    }
    snprintf(path, sizeof path, "%.*s", (int)a.a.arena_dir.len, a.a.arena_dir.data);
    int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(dir >= 0);
    assert_int_equal(bw_mail_attach(dir, a.a.generation, &mail), BW_OK);
    close(dir);
    answer_free(&a);
    return mail;
}

static uint32_t own_box(fixture *fx, fake *f)
{
    bw_request r = rq(BW_API_MAILBOX, NULL);
    answer a;
    assert_int_equal(fake_call(fx, f, &r, &a), BW_OK);
    uint32_t n = a.a.mailbox;
    answer_free(&a);
    return n;
}

static void attach_and_leave(fixture *fx, const char *topic, bool for_write)
{
    fake f;
    fake_open(fx, &f);
    bw_request r = rq(BW_API_ATTACH, topic);
    r.for_write = for_write;
    assert_int_equal(fake_ask(fx, &f, &r), BW_OK);
    fake_close(fx, &f);
}

/* A writer may have died between publishing and waking: nobody knows whom it took the interest of. */
static void test_writer_gone_wakes_every_mailbox_for_each_partition(void **state)
{
    fixture *fx = *state;
    fake reader;
    uint32_t numbers[64];
    fake_open(fx, &reader);
    assert_int_equal(rq_create(fx, &reader, "w", 3, NULL, NULL), BW_OK);
    assert_int_equal(rq_create(fx, &reader, "other", 2, NULL, NULL), BW_OK);
    bw_mail *mail = map_mail(fx, &reader);
    if (!mail) {
        print_message("SKIP: no direct path here\n");
        skip();
    }
    bw_mailbox *box = bw_mail_box(mail, own_box(fx, &reader));
    (void)bw_mailbox_drain(box, numbers, 64);
    uint32_t before = atomic_load(&box->word);
    attach_and_leave(fx, "w", false); /* a reader's end concerns nobody */
    assert_int_equal(bw_mailbox_drain(box, numbers, 64), 0);
    attach_and_leave(fx, "w", true);
    assert_int_equal(bw_mailbox_drain(box, numbers, 64), 3);
    assert_int_not_equal(atomic_load(&box->word), before); /* who was about to sleep does not */
    bw_mail_close(mail);
    fake_close(fx, &reader);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_writer_gone_wakes_every_mailbox_for_each_partition, fx_setup, fx_teardown),
    };
    return cmocka_run_group_tests_name("attach", tests, NULL, NULL);
}
