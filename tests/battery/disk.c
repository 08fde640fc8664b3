/* tests/battery/disk.c: see disk.h.
 *
 * Invariants: page.version[0] is on the disk (NULL: zeros), the last version is the present content; file.size is the present size,
 * file.synced_size the one without any operation still in the list. Operations that a sync made sure of (`sure`) are folded into the
 * base as soon as all before them are. */
#include "disk.h"

#include "memfs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGES_MAX = 64, VERSIONS_MAX = 6, NAME_BYTES = 80, FILES_MAX = 1024, NAMES_MAX = 512 };

typedef struct page {
    uint8_t *version[VERSIONS_MAX];
    int count, synced; /* synced: versions from here on came after the sync that is under way */
} page;

typedef struct file {
    uint64_t inode;
    int fd;
    uint32_t size, synced_size, pages_used;
    const uint8_t *map; /* PAGES_MAX pages; nothing behind size may be touched */
    page pages[PAGES_MAX];
} file;

typedef struct name { char text[NAME_BYTES]; uint64_t inode, key; } name;
typedef struct names { name item[NAMES_MAX]; int count; } names;

typedef enum op_kind { OP_ADD, OP_REMOVE, OP_MOVE, OP_SIZE } op_kind;
typedef struct op {
    op_kind kind;
    bool sure;
    bool logged; /* the file was synced since: the name may be on the disk without what was done before it */
    char text[NAME_BYTES], to[NAME_BYTES];
    uint64_t inode, key, to_key; /* keys: memfs_key of the names */
    uint32_t size;
} op;

struct disk {
    int dir_fd;
    uint64_t dir_inode;
    file *files[FILES_MAX];
    int file_count;
    names base, now;
    op *ops;
    size_t op_count, op_cap, op_synced;
    bool existed; /* the name that is being opened */
};

static void *need(void *p)
{
    if (p) return p;
    perror("disk model");
    abort();
}

static void must(bool good, const char *what)
{
    if (good) return;
    fprintf(stderr, "disk model: %s: %s\n", what, strerror(errno));
    abort();
}

/* ---- names ---- */

static name *names_find_key(names *n, uint64_t key)
{
    for (int i = 0; i < n->count; i++)
        if (n->item[i].key == key) return &n->item[i];
    return NULL;
}

static name *names_find(names *n, const char *text) { return names_find_key(n, memfs_key(text)); }

static void names_remove(names *n, uint64_t key)
{
    name *x = names_find_key(n, key);
    if (x) *x = n->item[--n->count];
}

static void names_add(names *n, const char *text, uint64_t key, uint64_t inode)
{
    name *x = names_find_key(n, key);
    if (!x) {
        must(n->count < NAMES_MAX, "too many names");
        x = &n->item[n->count++];
    }
    memcpy(x->text, text, NAME_BYTES);
    x->key = key;
    x->inode = inode;
}

static void names_apply(names *n, const op *o)
{
    if (o->kind == OP_ADD) names_add(n, o->text, o->key, o->inode);
    if (o->kind == OP_REMOVE || o->kind == OP_MOVE) names_remove(n, o->key);
    if (o->kind == OP_MOVE) names_add(n, o->to, o->to_key, o->inode);
}

/* ---- files ---- */

static file *find_file(disk *d, uint64_t inode)
{
    for (int i = 0; i < d->file_count; i++)
        if (d->files[i]->inode == inode) return d->files[i];
    return NULL;
}

static file *file_of_fd(disk *d, int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 ? find_file(d, st.st_ino) : NULL;
}

static bool is_folder(const disk *d, int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 && S_ISDIR(st.st_mode) && st.st_ino == d->dir_inode;
}

static void page_add(page *p, const uint8_t *bytes)
{
    static const uint8_t zeros[DISK_PAGE];
    const uint8_t *last = p->version[p->count - 1];
    if (memcmp(last ? last : zeros, bytes, DISK_PAGE) == 0) return;
    if (p->count == VERSIONS_MAX) { /* one in between is forgotten; never the synced one nor the newest */
        int gone = p->synced == 1 ? 2 : 1;
        free(p->version[gone]);
        memmove(&p->version[gone], &p->version[gone + 1], (size_t)(VERSIONS_MAX - 1 - gone) * sizeof p->version[0]);
        p->count--;
        if (p->synced > gone) p->synced--;
    }
    p->version[p->count++] = memcpy(need(malloc(DISK_PAGE)), bytes, DISK_PAGE);
}

static void look_at(file *f)
{
    uint8_t last[DISK_PAGE] = {0};
    must(f->size < PAGES_MAX * DISK_PAGE, "a file is too large for the model");
    uint32_t whole = f->size / DISK_PAGE, rest = f->size % DISK_PAGE, pages = whole + (rest > 0);
    if (pages > f->pages_used) f->pages_used = pages;
    for (uint32_t i = 0; i < whole; i++) page_add(&f->pages[i], f->map + (size_t)i * DISK_PAGE);
    for (uint32_t i = whole; i < f->pages_used; i++) {
        memset(last, 0, sizeof last);
        if (i == whole && rest) memcpy(last, f->map + (size_t)i * DISK_PAGE, rest);
        page_add(&f->pages[i], last);
    }
}

/* All versions before `keep` are gone for good. */
static void page_settle(page *p, int keep)
{
    for (int i = 0; i < keep; i++) free(p->version[i]);
    memmove(&p->version[0], &p->version[keep], (size_t)(p->count - keep) * sizeof p->version[0]);
    p->count -= keep;
}

static file *add_file(disk *d, const char *text)
{
    struct stat st;
    file *f = need(calloc(1, sizeof *f));
    f->fd = openat(d->dir_fd, text, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    must(f->fd >= 0 && fstat(f->fd, &st) == 0, text);
    f->map = mmap(NULL, PAGES_MAX * DISK_PAGE, PROT_READ, MAP_SHARED, f->fd, 0);
    must(f->map != MAP_FAILED, "mmap");
    f->inode = st.st_ino;
    for (int i = 0; i < PAGES_MAX; i++) f->pages[i].count = 1;
    must(d->file_count < FILES_MAX, "too many files");
    d->files[d->file_count++] = f;
    return f;
}

static void free_file(file *f)
{
    for (int i = 0; i < PAGES_MAX; i++) page_settle(&f->pages[i], f->pages[i].count);
    munmap((void *)(uintptr_t)f->map, PAGES_MAX * DISK_PAGE);
    close(f->fd);
    free(f);
}

/* ---- operations ---- */

static op *add_op(disk *d, op_kind kind, const char *text, const char *to, uint64_t inode, uint32_t size)
{
    if (d->op_count == d->op_cap) {
        d->op_cap = d->op_cap ? 2 * d->op_cap : 64;
        d->ops = need(realloc(d->ops, d->op_cap * sizeof *d->ops));
    }
    op *o = &d->ops[d->op_count++];
    *o = (op){.kind = kind, .inode = inode, .size = size};
    snprintf(o->text, sizeof o->text, "%s", text ? text : "");
    snprintf(o->to, sizeof o->to, "%s", to ? to : "");
    o->key = memfs_key(o->text);
    o->to_key = memfs_key(o->to);
    names_apply(&d->now, o);
    return o;
}

static bool referenced(const disk *d, uint64_t inode)
{
    for (int i = 0; i < d->base.count; i++)
        if (d->base.item[i].inode == inode) return true;
    for (size_t i = 0; i < d->op_count; i++)
        if (d->ops[i].inode == inode) return true;
    return false;
}

static void fold(disk *d)
{
    size_t n = 0;
    while (n < d->op_count && d->ops[n].sure) {
        names_apply(&d->base, &d->ops[n]);
        file *f = d->ops[n].kind == OP_SIZE ? find_file(d, d->ops[n].inode) : NULL;
        if (f) f->synced_size = d->ops[n].size;
        n++;
    }
    if (n == 0) return;
    memmove(d->ops, d->ops + n, (d->op_count - n) * sizeof *d->ops);
    d->op_count -= n;
    d->op_synced = d->op_synced > n ? d->op_synced - n : 0;
    for (int i = 0; i < d->file_count;) {
        if (referenced(d, d->files[i]->inode)) {
            i++;
            continue;
        }
        free_file(d->files[i]);
        d->files[i] = d->files[--d->file_count];
    }
}

static void note_size(disk *d, file *f)
{
    struct stat st;
    must(fstat(f->fd, &st) == 0, "fstat");
    if ((uint32_t)st.st_size == f->size) return;
    f->size = (uint32_t)st.st_size;
    (void)add_op(d, OP_SIZE, NULL, NULL, f->inode, f->size);
}

static void hear_sync(disk *d, const bw_os_event *e)
{
    file *f = file_of_fd(d, e->fd);
    if (f && !e->done) {
        look_at(f);
        for (uint32_t i = 0; i < f->pages_used; i++) f->pages[i].synced = f->pages[i].count - 1;
        d->op_synced = d->op_count;
    } else if (f && e->result == 0) {
        for (uint32_t i = 0; i < f->pages_used; i++) page_settle(&f->pages[i], f->pages[i].synced);
        for (uint32_t i = 0; i < f->pages_used; i++) f->pages[i].synced = 0;
        for (size_t i = 0; i < d->op_synced; i++) {
            if (d->ops[i].inode != f->inode) continue;
            d->ops[i].sure |= d->ops[i].kind == OP_SIZE;
            d->ops[i].logged = true;
        }
        fold(d);
    } else if (!f && is_folder(d, e->fd)) {
        if (!e->done) d->op_synced = d->op_count;
        for (size_t i = 0; e->done && e->result == 0 && i < d->op_synced; i++) d->ops[i].sure |= d->ops[i].kind != OP_SIZE;
        if (e->done) fold(d);
    }
}

static void hear_open(disk *d, const bw_os_event *e)
{
    struct stat st;
    if (!e->done) {
        d->existed = names_find(&d->now, e->name) != NULL;
        return;
    }
    if (e->result < 0 || fstat((int)e->result, &st) != 0 || !S_ISREG(st.st_mode)) return;
    file *f = d->existed ? find_file(d, st.st_ino) : add_file(d, e->name);
    must(f != NULL, "an opened file is not known");
    if (!d->existed) (void)add_op(d, OP_ADD, e->name, NULL, f->inode, 0);
    note_size(d, f);
    look_at(f);
}

static void hear_names(disk *d, const bw_os_event *e)
{
    const name *x = names_find(&d->now, e->name);
    if (!e->done || e->result != 0 || !is_folder(d, e->fd)) return;
    must(x != NULL, "a name is not known");
    if (e->call == BW_OS_unlink) (void)add_op(d, OP_REMOVE, e->name, NULL, x->inode, 0);
    if (e->call == BW_OS_rename) (void)add_op(d, OP_MOVE, e->name, e->name2, x->inode, 0);
    if (e->call == BW_OS_link) (void)add_op(d, OP_ADD, e->name2, NULL, x->inode, 0);
}

void disk_hear(disk *d, const bw_os_event *e)
{
    file *f;
    switch (e->call) {
    case BW_OS_open:
        if (is_folder(d, e->fd)) hear_open(d, e);
        break;
    case BW_OS_pwrite:
    case BW_OS_fallocate:
    case BW_OS_ftruncate:
        f = e->done ? file_of_fd(d, e->fd) : NULL;
        if (f) {
            note_size(d, f);
            look_at(f);
        }
        break;
    case BW_OS_fdatasync:
    case BW_OS_fsync:
        hear_sync(d, e);
        break;
    case BW_OS_link:
    case BW_OS_rename:
    case BW_OS_unlink:
        hear_names(d, e);
        break;
    default:
        break;
    }
}

void disk_look(disk *d)
{
    for (int i = 0; i < d->file_count; i++) look_at(d->files[i]);
}

disk *disk_new(const char *folder)
{
    struct stat st;
    disk *d = need(calloc(1, sizeof *d));
    d->dir_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    must(d->dir_fd >= 0 && fstat(d->dir_fd, &st) == 0, folder);
    d->dir_inode = st.st_ino;
    DIR *dir = need(fdopendir(dup(d->dir_fd)));
    rewinddir(dir);
    const struct dirent *entry;
    while ((entry = readdir(dir))) {
        if (entry->d_name[0] == '.') continue;
        must(fstatat(d->dir_fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0, entry->d_name);
        file *f = find_file(d, st.st_ino);
        if (!f) {
            f = add_file(d, entry->d_name);
            f->size = f->synced_size = (uint32_t)st.st_size;
            look_at(f);
            for (uint32_t i = 0; i < f->pages_used; i++) page_settle(&f->pages[i], f->pages[i].count - 1);
        }
        char text[NAME_BYTES] = "";
        must(strlen(entry->d_name) < sizeof text, "a long name");
        memcpy(text, entry->d_name, strlen(entry->d_name));
        names_add(&d->base, text, memfs_key(text), f->inode);
    }
    closedir(dir);
    d->now = d->base;
    return d;
}

void disk_free(disk *d)
{
    if (!d) return;
    for (int i = 0; i < d->file_count; i++) free_file(d->files[i]);
    close(d->dir_fd);
    free(d->ops);
    free(d);
}

uint32_t disk_dirty_pages(const disk *d)
{
    uint32_t n = 0;
    for (int i = 0; i < d->file_count; i++)
        for (uint32_t k = 0; k < d->files[i]->pages_used; k++) n += d->files[i]->pages[k].count > 1;
    return n;
}

/* ---- images ---- */

static void clear_folder(const char *folder)
{
    DIR *dir = need(opendir(folder));
    const struct dirent *entry;
    while ((entry = readdir(dir)))
        if (entry->d_name[0] != '.') (void)unlinkat(dirfd(dir), entry->d_name, 0);
    closedir(dir);
}

/* A new name may come alone when its file was synced (btrfs and f2fs log it with the file), and a file's size may lag behind. All else
 * reaches the disk by a commit of the file system's journal or tree: with it comes all that was done before it. */
static bool comes_alone(const op *o)
{
    return o->kind == OP_SIZE || (o->logged && o->kind != OP_REMOVE);
}

/* Which operations are in this image: applied to the names and, by way of the files' image sizes, to the sizes. */
static void choose_operations(disk *d, rng *r, disk_choice choice, names *out, uint32_t sizes[FILES_MAX])
{
    size_t least = 0;
    for (size_t i = 0; i < d->op_count; i++)
        if (d->ops[i].sure) least = i + 1;
    size_t until = least + rng_below(r, (uint32_t)(d->op_count - least + 1));
    if (rng_chance(r, 3)) until = rng_chance(r, 2) ? least : d->op_count;
    uint32_t likely = rng_below(r, 5); /* of 4 */
    bool all_so_far = true;
    *out = d->base;
    for (int i = 0; i < d->file_count; i++) sizes[i] = d->files[i]->synced_size;
    for (size_t i = 0; i < d->op_count; i++) {
        const op *o = &d->ops[i];
        bool in = o->sure || (choice.order == DISK_ORDERED ? i < until : rng_below(r, 4) < likely);
        if (!o->sure && choice.order == DISK_ANY && !comes_alone(o)) in = in && all_so_far;
        all_so_far &= in || o->kind == OP_SIZE;
        if (!in) continue;
        names_apply(out, o);
        for (int k = 0; o->kind == OP_SIZE && k < d->file_count; k++)
            if (d->files[k]->inode == o->inode) sizes[k] = o->size;
    }
}

/* out NULL: nobody will see it. */
static void choose_page(const page *p, rng *r, const disk_choice *choice, uint32_t likely, uint32_t *dirty_at, uint8_t *out)
{
    int pick = 0, newest = p->count - 1;
    bool torn = false;
    if (newest > 0) {
        uint32_t bit = (*dirty_at)++;
        if (choice->exact) {
            pick = choice->mask >> bit & 1 ? newest : 0;
        } else {
            pick = rng_below(r, 4) < likely ? newest : 0;
            if (rng_chance(r, 4)) pick = (int)rng_below(r, (uint32_t)p->count);
            torn = rng_chance(r, 4);
        }
    }
    for (int at = 0, n = torn ? DISK_SECTOR : DISK_PAGE; out && at < DISK_PAGE; at += n) {
        const uint8_t *v = p->version[torn ? (int)rng_below(r, (uint32_t)p->count) : pick];
        if (v) memcpy(out + at, v + at, (size_t)n);
        else memset(out + at, 0, (size_t)n);
    }
}

static void make_link(int dir_fd, const char *from, const char *to)
{
    if (dir_fd < 0) memfs_link(from, to);
    else must(linkat(dir_fd, from, dir_fd, to, 0) == 0, "link");
}

static void write_file(int dir_fd, const char *text, const uint8_t *bytes, uint32_t size)
{
    if (dir_fd < 0) {
        memfs_put(text, bytes, size);
        return;
    }
    int fd = openat(dir_fd, text, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    must(fd >= 0 && pwrite(fd, bytes, size, 0) == (ssize_t)size, text);
    close(fd);
}

void disk_image(disk *d, const char *folder, rng *r, disk_choice choice)
{
    static uint8_t bytes[PAGES_MAX * DISK_PAGE];
    static names in;
    uint32_t sizes[FILES_MAX];
    if (folder) clear_folder(folder);
    int dir_fd = folder ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    must(!folder || dir_fd >= 0, folder);
    choose_operations(d, r, choice, &in, sizes);
    uint32_t likely = rng_below(r, 5), dirty_at = 0;
    for (int i = 0; i < d->file_count; i++) {
        const file *f = d->files[i];
        const char *first = NULL;
        bool named = false;
        for (int k = 0; k < in.count; k++) named |= in.item[k].inode == f->inode;
        must(sizes[i] <= sizeof bytes, "size");
        for (uint32_t k = 0; k < f->pages_used; k++)
            choose_page(&f->pages[k], r, &choice, likely, &dirty_at, named && k * DISK_PAGE < sizes[i] ? bytes + (size_t)k * DISK_PAGE : NULL);
        if (!named) continue;
        if (sizes[i] > f->pages_used * DISK_PAGE) memset(bytes + (size_t)f->pages_used * DISK_PAGE, 0, sizes[i] - f->pages_used * DISK_PAGE);
        for (int k = 0; k < in.count; k++) {
            if (in.item[k].inode != f->inode) continue;
            if (!first) write_file(dir_fd, in.item[k].text, bytes, sizes[i]);
            else make_link(dir_fd, first, in.item[k].text);
            first = in.item[k].text;
        }
    }
    if (folder) close(dir_fd);
}
