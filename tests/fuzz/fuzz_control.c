/* tests/fuzz/fuzz_control.c: the control page. The input patches 8-byte words of a valid tail slot, of the wait slot, of a
 * mailbox and of the arena's header; then this process attaches, reads, wakes and drains as a reader does. Whatever lies there:
 * no crash, no byte past the file, no batch with a wrong checksum. */
#include "fuzz/fuzz.h"

#include "base/lock.h"
#include "format/names.h"
#include "format/record_batch.h"
#include "log/read.h"
#include "log/wait.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[64];
static int dir_fd;
static uint8_t generation[16];
static bw_uuid topic;
static bw_mail *mail;
static bw_control *made;
static bw_tail_slot good_slot;
static bw_control_header good_header;

static void cleanup(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    if (system(command) != 0) abort();
}

static void need(bool ok)
{
    if (!ok) {
        fprintf(stderr, "fuzz_control: cannot set up: %s\n", bw_error_message());
        abort();
    }
}

static uint32_t write_segment(void)
{
    char name[BW_SEGMENT_NAME_MAX];
    bw_segment_name(name, 0, ".log");
    int fd = bw_os_open(dir_fd, name, O_RDWR | O_CREAT, 0600);
    need(fd >= 0);
    bw_batch_builder b;
    bw_batch_builder_init(&b);
    off_t at = 0;
    for (int i = 0; i < 8; i++) {
        bw_batch_builder_reset(&b);
        bw_record r = {.value = "0123456789", .value_len = 10, .timestamp_ms = i};
        for (int k = 0; k < 3; k++) need(bw_batch_builder_add(&b, &r) == BW_OK);
        uint8_t *batch;
        size_t len;
        bw_batch_options o = BW_BATCH_OPTIONS_INIT;
        need(bw_batch_builder_finish(&b, &o, &batch, &len) == BW_OK);
        bw_batch_patch(batch, i * 3, 0);
        need(bw_os_pwrite(fd, batch, len, at) == (ssize_t)len);
        at += (off_t)len;
    }
    need(bw_os_fallocate(fd, 0, 0, 65536) == 0);
    struct stat st;
    need(bw_os_fstat(fd, &st) == 0);
    bw_ring_at(made->slots, 1)->inode = st.st_ino;
    close(fd);
    bw_batch_builder_fini(&b);
    return (uint32_t)at;
}

int LLVMFuzzerInitialize(int *argc, char ***argv);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    strcpy(folder, "/dev/shm/bw-fuzz-XXXXXX");
    need(mkdtemp(folder) != NULL);
    atexit(cleanup);
    dir_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    need(bw_os_uuid(generation) == 0 && bw_os_uuid(topic.b) == 0);
    need(bw_mail_create(dir_fd, generation, &mail) == BW_OK);
    need(bw_control_create(dir_fd, generation, &topic, mail, 1, &made) == BW_OK);
    bw_tail_slot *s = made->slots;
    need(bw_lock_init(&s->mutex) == 0);
    uint32_t end = write_segment();
    bw_ring_at(s, 1)->limit = 65536;
    bw_ring_at(s, 1)->seq = 1;
    s->tail = s->durable = bw_position_of(1, end);
    s->next_offset = s->durable_offset = 24;
    s->capacity = bw_position_of(1, 65536);
    s->first_unstable = INT64_MAX;
    bw_control_publish(made, 1);
    memcpy(&good_slot, s, sizeof good_slot);
    memcpy(&good_header, made->header, sizeof good_header);
    return 0;
}

static void patch(void *base, size_t size, uint32_t at, uint64_t value)
{
    at %= (uint32_t)(size / 8);
    memcpy((uint8_t *)base + at * 8, &value, 8);
}

static void read_all(bw_control *c, int flags)
{
    bw_reader_options o = {
        .control = c, .dir_fd = dir_fd, .limit = (bw_reader_limit)(flags % 3), .check_crcs = true, .use_pread = flags & 4};
    bw_reader *r;
    uint32_t unopened = BW_SLOT_UNOPENED; /* would be waited for, 10 s, as it should: nobody opens it here */
    atomic_compare_exchange_strong(&made->slots[0].state, &unopened, BW_SLOT_OPEN);
    if (bw_reader_open(&o, &r) != BW_OK) return;
    bw_reader_seek(r, flags >> 4);
    for (int i = 0; i < 40; i++) {
        bw_batch_ref b;
        if (bw_reader_next(r, &b) != BW_OK) break;
        if (!bw_batch_crc_ok(b.data, b.size)) abort();
    }
    bw_reader_ready(r);
    bw_reader_close(r);
}

static int fuzz_input(const uint8_t *data, size_t len)
{
    if (len < 2 || len > 512) return 0;
    memcpy(made->slots, &good_slot, sizeof good_slot);
    memcpy(made->header, &good_header, sizeof good_header);
    memset(made->waits, 0, sizeof(bw_wait_slot));
    bw_mailbox *box = bw_mail_box(mail, BW_MAILBOX_BROKER);
    memset(box, 0, sizeof *box);
    int flags = data[0] | data[1] << 8;
    for (size_t i = 2; i + 12 <= len; i += 12) {
        uint32_t what;
        uint64_t value;
        memcpy(&what, data + i, 4);
        memcpy(&value, data + i + 4, 8);
        switch (what >> 30) {
        case 0:
            patch(made->slots, sizeof good_slot, what, value);
            break;
        case 1:
            patch(made->waits, sizeof(bw_wait_slot), what, value);
            break;
        case 2:
            patch(box, sizeof *box, what, value);
            break;
        default:
            patch(made->header, sizeof good_header, what, value);
        }
    }
    bw_control *c;
    if (bw_control_attach(dir_fd, generation, &topic, BW_CONTROL_READ, mail, &c) == BW_OK) {
        /* a reader trusts the published count: the owner alone can write it */
        if (atomic_load(&c->header->slots) == 1) read_all(c, flags);
        bw_control_close(c);
    }
    bw_slot_end_offset(made->slots);
    uint32_t numbers[16];
    size_t n;
    for (int i = 0; i < 20000 && (n = bw_mailbox_drain(box, numbers, 16)) > 0; i++)
        while (n--)
            if (numbers[n] >= BW_BUS_PARTITIONS_MAX) abort();
    bw_wake(made, 0, BW_WAIT_TAIL);
    return 0;
}
