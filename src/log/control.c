/* log/control.c: make and map the shared control data.
 *
 * Invariants: a slot is backed by memory (fallocate) before its number is published in header.slots, so that no touch of a
 * published slot faults; a file has its name only when its header is complete; a file that does not pass every check is never mapped
 * for use. Arena files keep one virtual size for ever, so that a map made once covers every slot that may come. */
#include "log/control.h"

#include "base/killpoint.h"
#include "base/lock.h"
#include "base/os.h"

#include <errno.h>
#include <fcntl.h>
#include <gnu/libc-version.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_DONTFORK
#define MADV_DONTFORK 10
#endif

#define ARENA_BYTES (BW_CONTROL_HEADER_BYTES + (size_t)BW_PARTITIONS_MAX * BW_SLOT_BYTES)
#define OWNERS_BYTES (BW_CONTROL_HEADER_BYTES + BW_OWNERS * sizeof(bw_owner_record) + BW_BIASES * sizeof(bw_bias_record))
#define MAIL_BYTES (BW_CONTROL_HEADER_BYTES + (size_t)BW_MAILBOXES * BW_MAILBOX_STRIDE)

static void arena_name(char out[48], const bw_uuid *topic, const char *suffix)
{
    char hex[33];
    bw_uuid_hex(topic, hex);
    snprintf(out, 48, "%s%s", hex, suffix);
}

static void *map_file(int fd, size_t bytes, bool writable)
{
    void *p = bw_os_mmap(NULL, bytes, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED) return NULL;
    bw_os_madvise(p, bytes, MADV_DONTFORK);
    return p;
}

typedef struct control_file {
    const char *name;
    mode_t mode;
    size_t bytes;  /* virtual size */
    size_t backed; /* the header and what follows, up to here, is allocated */
    bw_control_kind kind;
    const uint8_t *generation;
    const bw_uuid *topic; /* NULL: the mail */
    uint32_t slots;       /* published from the start */
    bool asymmetric;
} control_file;

static void fill_header(bw_control_header *h, const control_file *f)
{
    h->layout = BW_CONTROL_LAYOUT;
    h->mutex_size = sizeof(pthread_mutex_t);
    h->mutex_align = _Alignof(pthread_mutex_t);
    h->word_size = sizeof(void *);
    h->page_size = (uint32_t)sysconf(_SC_PAGESIZE);
    h->kind = f->kind;
    memcpy(h->generation, f->generation, 16);
    if (f->topic) h->topic_id = *f->topic;
    h->asymmetric = f->asymmetric;
    bw_os_boot_id(h->boot_id);
    h->pid_namespace = bw_os_pid_namespace();
    h->owner_uid = geteuid();
    snprintf(h->libc, sizeof h->libc, "%s", gnu_get_libc_version());
    atomic_store_explicit(&h->slots, f->slots, memory_order_release);
    atomic_thread_fence(memory_order_release);
    h->magic = BW_CONTROL_MAGIC;
}

/* Allocates, maps and fills the file behind fd. */
static bw_err fill_file(int fd, const control_file *f, void **map)
{
    size_t more = f->backed - BW_CONTROL_HEADER_BYTES;
    /* Of the header only what is used: a read fault maps everything around that there is, and the rest would be memory for nothing. */
    if (bw_os_ftruncate(fd, (off_t)f->bytes) < 0 || bw_os_fallocate(fd, 0, 0, (off_t)sizeof(bw_control_header)) < 0 ||
        (more > 0 && bw_os_fallocate(fd, 0, BW_CONTROL_HEADER_BYTES, (off_t)more) < 0) || fchmod(fd, f->mode) < 0)
        return bw_fail_errno(errno, "cannot allocate control file %s (%zu bytes of shared memory)", f->name, f->backed);
    if (!(*map = map_file(fd, f->bytes, true))) return bw_fail_errno(errno, "cannot map control file %s", f->name);
    fill_header(*map, f);
    return BW_OK;
}

/* The file appears under its name only when its header is whole: whoever takes over after a death finds all of it or nothing. */
static bw_err create_file(int dir_fd, const control_file *f, void **map)
{
    char fresh[64];
    snprintf(fresh, sizeof fresh, "%s.new", f->name);
    if (bw_os_unlink(dir_fd, fresh, 0) < 0 && errno != ENOENT)
        return bw_fail_errno(errno, "cannot replace control file %s", fresh);
    int fd = bw_os_open(dir_fd, fresh, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (fd < 0) return bw_fail_errno(errno, "cannot make control file %s", fresh);
    *map = NULL;
    bw_err e = fill_file(fd, f, map);
    bw_os_close(fd);
    BW_KILL_POINT("control.filled");
    if (!e && bw_os_rename(dir_fd, fresh, dir_fd, f->name) < 0)
        e = bw_fail_errno(errno, "cannot name control file %s", f->name);
    if (!e) return BW_OK;
    if (*map) bw_os_munmap(*map, f->bytes);
    *map = NULL;
    bw_os_unlink(dir_fd, fresh, 0);
    return e;
}

static void mail_take(bw_mail *m, void *mail, void *owners)
{
    m->header = mail;
    m->base = mail ? (uint8_t *)mail + BW_CONTROL_HEADER_BYTES : NULL;
    m->map_bytes = MAIL_BYTES;
    if (!owners) return;
    m->owners_header = owners;
    m->owners = (bw_owner_record *)(void *)((uint8_t *)owners + BW_CONTROL_HEADER_BYTES);
    m->biases = (bw_bias_record *)(void *)(m->owners + BW_OWNERS);
}

bw_err bw_mail_create(int dir_fd, const uint8_t generation[16], bw_mail **out)
{
    bw_mail *m = calloc(1, sizeof *m);
    if (!m) return bw_fail(BW_ERR_NO_MEMORY, "no memory for the mail map");
    void *map = NULL, *owners = NULL;
    bool asymmetric = bw_os_membarrier_register();
    control_file o = {"writers", 0600, OWNERS_BYTES, OWNERS_BYTES, BW_CONTROL_OWNERS, generation, NULL, BW_OWNERS, asymmetric};
    control_file f = {"mail", 0660, MAIL_BYTES, BW_CONTROL_HEADER_BYTES + (BW_MAILBOX_SYNCER + 1) * BW_MAILBOX_STRIDE,
                      BW_CONTROL_MAIL, generation, NULL, BW_MAILBOX_SYNCER + 1, asymmetric};
    bw_err e = create_file(dir_fd, &o, &owners);
    if (!e) mail_take(m, NULL, owners);
    for (uint32_t i = 0; i < BW_OWNERS && !e; i++)
        if (bw_lock_init(&m->owners[i].alive)) e = bw_fail(BW_ERR_IO, "cannot make a robust mutex");
    if (!e) e = create_file(dir_fd, &f, &map);
    if (e) {
        if (owners) bw_os_munmap(owners, OWNERS_BYTES);
        free(m);
        return e;
    }
    mail_take(m, map, owners);
    *out = m;
    return BW_OK;
}

bw_err bw_mail_allocate(int dir_fd, bw_mail *m, uint32_t number)
{
    if (number >= BW_MAILBOXES) return bw_fail(BW_ERR_BUSY, "all %u mailboxes are in use; use transport=ipc", BW_MAILBOXES);
    uint32_t have = atomic_load_explicit(&m->header->slots, memory_order_relaxed);
    if (number < have) return BW_OK;
    int fd = bw_os_open(dir_fd, "mail", O_RDWR, 0);
    if (fd < 0) return bw_fail_errno(errno, "cannot open the mail file");
    off_t from = (off_t)BW_CONTROL_HEADER_BYTES + (off_t)have * BW_MAILBOX_STRIDE;
    int r = bw_os_fallocate(fd, 0, from, (off_t)(number + 1 - have) * BW_MAILBOX_STRIDE);
    int saved = errno;
    bw_os_close(fd);
    if (r < 0) return bw_fail_errno(saved, "no shared memory for mailbox %u", number);
    atomic_store_explicit(&m->header->slots, number + 1, memory_order_release);
    return BW_OK;
}

bw_err bw_control_create(int dir_fd, const uint8_t generation[16], const bw_uuid *topic, bw_mail *mail, uint32_t slots,
                         bw_control **out)
{
    if (slots > BW_PARTITIONS_MAX)
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "%u partitions: at most %u in one topic", slots, BW_PARTITIONS_MAX);
    bw_control *c = calloc(1, sizeof *c);
    if (!c) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a control map");
    c->mail = mail;
    c->mode = BW_CONTROL_WRITE;
    c->tail_bytes = c->wait_bytes = ARENA_BYTES;
    size_t backed = BW_CONTROL_HEADER_BYTES + (size_t)slots * BW_SLOT_BYTES;
    char tail_name[48], wait_name[48];
    arena_name(tail_name, topic, ".tail");
    arena_name(wait_name, topic, ".wait");
    bool asymmetric = mail->owners_header->asymmetric; /* the mail file is anyone's */
    control_file wait = {wait_name, 0660, ARENA_BYTES, backed, BW_CONTROL_WAIT, generation, topic, 0, asymmetric};
    control_file tail = {tail_name, 0640, ARENA_BYTES, backed, BW_CONTROL_TAIL, generation, topic, 0, asymmetric};
    bw_err e = create_file(dir_fd, &wait, &c->wait_map);
    if (!e) e = create_file(dir_fd, &tail, &c->tail_map);
    if (e) {
        bw_control_close(c);
        return e;
    }
    c->header = c->tail_map;
    c->asymmetric = asymmetric;
    c->slots = (bw_tail_slot *)(void *)((uint8_t *)c->tail_map + BW_CONTROL_HEADER_BYTES);
    c->waits = (bw_wait_slot *)(void *)((uint8_t *)c->wait_map + BW_CONTROL_HEADER_BYTES);
    *out = c;
    return BW_OK;
}

bw_err bw_control_grow(int dir_fd, bw_control *c, uint32_t slots)
{
    if (slots > BW_PARTITIONS_MAX)
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "%u partitions: at most %u in one topic", slots, BW_PARTITIONS_MAX);
    static const char *const suffix[] = {".wait", ".tail"};
    for (int i = 0; i < 2; i++) {
        char name[48];
        arena_name(name, &c->header->topic_id, suffix[i]);
        int fd = bw_os_open(dir_fd, name, O_RDWR, 0);
        if (fd < 0) return bw_fail_errno(errno, "cannot open control file %s", name);
        int r = bw_os_fallocate(fd, 0, BW_CONTROL_HEADER_BYTES, (off_t)((size_t)slots * BW_SLOT_BYTES));
        int saved = errno;
        bw_os_close(fd);
        if (r < 0) return bw_fail_errno(saved, "no shared memory for %u partitions in %s", slots, name);
    }
    return BW_OK;
}

void bw_control_publish(bw_control *c, uint32_t slots)
{
    atomic_store_explicit(&((bw_control_header *)c->wait_map)->slots, slots, memory_order_release);
    atomic_store_explicit(&c->header->slots, slots, memory_order_release);
}

void bw_control_remove(int dir_fd, const bw_uuid *topic)
{
    char name[48];
    arena_name(name, topic, ".tail");
    int fd = bw_os_open(dir_fd, name, O_RDWR, 0);
    if (fd >= 0) {
        struct stat st;
        bw_control_header *h = NULL;
        if (bw_os_fstat(fd, &st) == 0 && st.st_size >= (off_t)BW_CONTROL_HEADER_BYTES) h = map_file(fd, BW_CONTROL_HEADER_BYTES, true);
        if (h) {
            atomic_store_explicit(&h->retired, 1, memory_order_release);
            bw_os_munmap(h, BW_CONTROL_HEADER_BYTES);
        }
        bw_os_close(fd);
    }
    bw_os_unlink(dir_fd, name, 0);
    arena_name(name, topic, ".wait");
    bw_os_unlink(dir_fd, name, 0);
}

/* Does this process share what the header says? */
static bw_err check_header(const bw_control_header *h, const char *name, bw_control_kind kind, const uint8_t generation[16],
                           const bw_uuid *topic, const struct stat *st)
{
    uint8_t boot[16];
    if (h->magic != BW_CONTROL_MAGIC) return bw_fail(BW_ERR_RETIRED, "control file %s is not complete", name);
    if (h->layout != BW_CONTROL_LAYOUT)
        return bw_fail(BW_ERR_UNSUPPORTED, "control file %s has layout %u, this library %u", name, h->layout, BW_CONTROL_LAYOUT);
    if (h->mutex_size != sizeof(pthread_mutex_t) || h->mutex_align != _Alignof(pthread_mutex_t) || h->word_size != sizeof(void *))
        return bw_fail(BW_ERR_UNSUPPORTED, "control file %s was made with another word size or mutex (%u-bit words)", name,
                       h->word_size * 8);
    if (h->page_size != (uint32_t)sysconf(_SC_PAGESIZE))
        return bw_fail(BW_ERR_UNSUPPORTED, "control file %s was made with pages of %u bytes", name, h->page_size);
    if (strncmp(h->libc, gnu_get_libc_version(), sizeof h->libc) != 0)
        return bw_fail(BW_ERR_UNSUPPORTED, "the daemon uses libc %.31s, this program %s", h->libc, gnu_get_libc_version());
    if (h->kind != kind || memcmp(h->generation, generation, 16) != 0 || (topic && !bw_uuid_equal(&h->topic_id, topic)))
        return bw_fail(BW_ERR_RETIRED, "control file %s is of another generation", name);
    if (bw_os_boot_id(boot) < 0 || memcmp(boot, h->boot_id, 16) != 0)
        return bw_fail(BW_ERR_RETIRED, "control file %s is from before the last reboot", name);
    if (h->owner_uid != st->st_uid) return bw_fail(BW_ERR_NOT_PERMITTED, "control file %s has a foreign owner", name);
    return BW_OK;
}

static bw_err attach_file(int dir_fd, const char *name, bw_control_kind kind, const uint8_t generation[16], const bw_uuid *topic,
                          bool writable, size_t bytes, void **map)
{
    int fd = bw_os_open(dir_fd, name, writable ? O_RDWR : O_RDONLY, 0);
    if (fd < 0) return bw_fail_errno(errno, "cannot open control file %s for %s", name, writable ? "writing" : "reading");
    struct stat st;
    bw_err e = BW_OK;
    void *p = NULL;
    if (bw_os_fstat(fd, &st) < 0) e = bw_fail_errno(errno, "cannot stat control file %s", name);
    else if (!S_ISREG(st.st_mode) || st.st_size != (off_t)bytes)
        e = bw_fail(BW_ERR_UNSUPPORTED, "control file %s has %lld bytes, not %zu", name, (long long)st.st_size, bytes);
    else if (kind == BW_CONTROL_TAIL && (st.st_mode & 022))
        e = bw_fail(BW_ERR_NOT_PERMITTED, "control file %s is writable by others than its owner", name);
    else if (!(p = map_file(fd, bytes, writable)))
        e = bw_fail_errno(errno, "cannot map control file %s", name);
    else e = check_header(p, name, kind, generation, topic, &st);
    bw_os_close(fd);
    if (e && p) bw_os_munmap(p, bytes);
    if (!e) *map = p;
    return e;
}

bw_err bw_mail_attach(int dir_fd, const uint8_t generation[16], bw_mail **out)
{
    bw_mail *m = calloc(1, sizeof *m);
    if (!m) return bw_fail(BW_ERR_NO_MEMORY, "no memory for the mail map");
    void *map = NULL, *owners = NULL;
    bw_err e = attach_file(dir_fd, "mail", BW_CONTROL_MAIL, generation, NULL, true, MAIL_BYTES, &map);
    if (!e) {
        e = attach_file(dir_fd, "writers", BW_CONTROL_OWNERS, generation, NULL, true, OWNERS_BYTES, &owners);
        if (e == BW_ERR_NOT_PERMITTED) e = BW_OK; /* readers of another uid */
    }
    bool answers = bw_os_membarrier_register();
    if (!e && ((bw_control_header *)(owners ? owners : map))->asymmetric && !answers)
        e = bw_fail(BW_ERR_UNSUPPORTED, "membarrier(2) is refused here, which the daemon's control data needs (a sandbox?)");
    if (e) {
        if (map) bw_os_munmap(map, MAIL_BYTES);
        if (owners) bw_os_munmap(owners, OWNERS_BYTES);
        free(m);
        return e;
    }
    mail_take(m, map, owners);
    *out = m;
    return BW_OK;
}

bw_err bw_control_attach(int dir_fd, const uint8_t generation[16], const bw_uuid *topic, bw_control_mode mode, bw_mail *mail,
                         bw_control **out)
{
    bw_control *c = calloc(1, sizeof *c);
    if (!c) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a control map");
    c->mail = mail;
    c->mode = mode;
    c->tail_bytes = c->wait_bytes = ARENA_BYTES;
    char name[48];
    arena_name(name, topic, ".tail");
    bw_err e = attach_file(dir_fd, name, BW_CONTROL_TAIL, generation, topic, mode == BW_CONTROL_WRITE, ARENA_BYTES, &c->tail_map);
    if (!e) {
        arena_name(name, topic, ".wait");
        e = attach_file(dir_fd, name, BW_CONTROL_WAIT, generation, topic, true, ARENA_BYTES, &c->wait_map);
    }
    if (!e) {
        c->header = c->tail_map;
        c->asymmetric = c->header->asymmetric;
        c->slots = (bw_tail_slot *)(void *)((uint8_t *)c->tail_map + BW_CONTROL_HEADER_BYTES);
        c->waits = (bw_wait_slot *)(void *)((uint8_t *)c->wait_map + BW_CONTROL_HEADER_BYTES);
        if (mode == BW_CONTROL_WRITE && c->header->owner_uid != geteuid())
            e = bw_fail(BW_ERR_NOT_PERMITTED, "direct write needs the data owner's uid %llu, this is uid %u",
                        (unsigned long long)c->header->owner_uid, (unsigned)geteuid());
        else if (mode == BW_CONTROL_WRITE && c->header->pid_namespace != bw_os_pid_namespace())
            e = bw_fail(BW_ERR_NOT_PERMITTED, "direct write needs the daemon's PID namespace");
        else if (mode == BW_CONTROL_WRITE && !mail->owners)
            e = bw_fail(BW_ERR_NOT_PERMITTED, "direct write needs the writers file, which this process may not open");
        else if (c->header->retired)
            e = bw_fail(BW_ERR_RETIRED, "control data was replaced");
    }
    if (e) {
        bw_control_close(c);
        return e;
    }
    *out = c;
    return BW_OK;
}

void bw_mail_close(bw_mail *m)
{
    if (!m) return;
    bw_os_munmap(m->header, m->map_bytes);
    if (m->owners_header && !m->owners_pinned) bw_os_munmap(m->owners_header, OWNERS_BYTES);
    free(m);
}

void bw_control_close(bw_control *c)
{
    if (!c) return;
    if (c->tail_map) bw_os_munmap(c->tail_map, c->tail_bytes);
    if (c->wait_map) bw_os_munmap(c->wait_map, c->wait_bytes);
    free(c);
}

/* An append stores intent, tail, next_offset, then intent 0, each with release. So when intent is 0 and the tail is the same before
 * and after, next_offset belongs to that tail. */
int64_t bw_slot_end_offset(const bw_tail_slot *s)
{
    int64_t next = 0;
    for (int i = 0; i < 64; i++) {
        uint64_t before = atomic_load_explicit(&s->tail, memory_order_acquire);
        uint64_t intent = atomic_load_explicit(&s->intent_end, memory_order_acquire);
        next = atomic_load_explicit(&s->next_offset, memory_order_acquire);
        int64_t base = atomic_load_explicit(&s->intent_base, memory_order_acquire);
        uint32_t count = atomic_load_explicit(&s->intent_count, memory_order_acquire);
        atomic_thread_fence(memory_order_acquire);
        if (atomic_load_explicit(&s->tail, memory_order_relaxed) != before) continue;
        if (atomic_load_explicit(&s->intent_end, memory_order_relaxed) != intent) continue;
        if (intent == 0) return next;
        return intent > before ? base : base + count; /* of an append under way, or of a writer that died: published or not */
    }
    return next;
}
