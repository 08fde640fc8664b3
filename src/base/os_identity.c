/* base/os_identity.c: who this process and this machine are, random ids, file system kinds, the fork guard. */
#include "base/os.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/vfs.h>
#include <unistd.h>

#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#endif

/* Reads a small file of /proc into buf, NUL-terminated; -1 on error. */
static ssize_t read_small(const char *path, char *buf, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    ssize_t n;
    do n = read(fd, buf, size - 1);
    while (n < 0 && errno == EINTR);
    close(fd);
    if (n >= 0) buf[n] = 0;
    return n;
}

uint64_t bw_os_process_start_time(pid_t pid)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    if (read_small(path, text, sizeof text) <= 0) return 0;
    char *p = strrchr(text, ')'); /* the program's name may hold anything */
    if (!p) return 0;
    p++;
    for (int field = 3; field < 22; field++) {
        p = strchr(p + 1, ' ');
        if (!p) return 0;
    }
    return strtoull(p, NULL, 10);
}

uint64_t bw_os_pid_namespace(void)
{
    struct stat st;
    return stat("/proc/self/ns/pid", &st) == 0 ? (uint64_t)st.st_ino : 0;
}

int bw_os_boot_id(uint8_t out[16])
{
    char text[64];
    if (read_small("/proc/sys/kernel/random/boot_id", text, sizeof text) < 36) return -1;
    size_t n = 0;
    unsigned value = 0, digits = 0;
    for (const char *p = text; *p && n < 16; p++) {
        unsigned d;
        if (*p >= '0' && *p <= '9') d = (unsigned)(*p - '0');
        else if (*p >= 'a' && *p <= 'f') d = (unsigned)(*p - 'a' + 10);
        else continue;
        value = value << 4 | d;
        if (++digits == 2) {
            out[n++] = (uint8_t)value;
            value = digits = 0;
        }
    }
    if (n == 16) return 0;
    errno = EINVAL;
    return -1;
}

int bw_os_random(void *out, size_t len)
{
    size_t done = 0;
    while (done < len) {
        ssize_t n = getrandom((char *)out + done, len - done, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return -1;
        done += (size_t)n;
    }
    return 0;
}

int bw_os_uuid(uint8_t out[16])
{
    if (bw_os_random(out, 16) < 0) return -1;
    out[6] = (uint8_t)((out[6] & 0x0f) | 0x40);
    out[8] = (uint8_t)((out[8] & 0x3f) | 0x80);
    return 0;
}

int bw_fork_guard_init(bw_fork_guard *g)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    void *p = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return -1;
    if (madvise(p, page, MADV_WIPEONFORK) < 0) {
        int e = errno;
        munmap(p, page);
        errno = e;
        return -1;
    }
    g->word = p;
    *g->word = 1;
    return 0;
}

void bw_fork_guard_fini(bw_fork_guard *g)
{
    if (g->word) munmap(g->word, (size_t)sysconf(_SC_PAGESIZE));
    g->word = NULL;
}

bw_fs_kind bw_os_fs_kind(int fd, const char **name)
{
    struct statfs s;
    if (name) *name = "unknown";
    if (fstatfs(fd, &s) < 0) return BW_FS_DOUBTFUL;
#ifdef BW_TESTING
    const char *other = getenv("BUSWAY_FS_TYPE"); /* hexadecimal: what can't be mounted in a test */
    if (other && *other) return bw_fs_kind_of((uint32_t)strtoul(other, NULL, 16), name);
#endif
    return bw_fs_kind_of((uint32_t)s.f_type, name);
}

bool bw_os_fs_is_local(int fd, const char **name) { return bw_os_fs_kind(fd, name) == BW_FS_LOCAL; }

bool bw_os_fs_is_tmpfs(int fd)
{
    struct statfs s;
    return fstatfs(fd, &s) == 0 && ((uint32_t)s.f_type == 0x01021994 || (uint32_t)s.f_type == 0x858458F6);
}

/* A number in a file; -1: none ("max"). */
static int64_t read_number(const char *path)
{
    long long n = -1;
    FILE *f = fopen(path, "re");
    if (f && fscanf(f, "%lld", &n) != 1) n = -1;
    if (f) fclose(f);
    return n;
}

/* The least limit of the cgroup `path` below `root` and of those above it. */
static int64_t limit_up(const char *root, char *path, const char *file, int64_t least)
{
    for (;;) {
        char name[1400];
        snprintf(name, sizeof name, "%s%s/%s", root, path, file);
        int64_t n = read_number(name);
        if (n > 0 && n < least) least = n;
        char *slash = strrchr(path, '/');
        if (!slash) return least;
        *slash = 0;
    }
}

int64_t bw_os_memory_limit(void)
{
    int64_t limit = (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
    char line[1200];
    FILE *f = fopen("/proc/self/cgroup", "re");
    while (f && fgets(line, sizeof line, f)) { /* id:controllers:path */
        char *controllers = strchr(line, ':'), *path = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!path) continue;
        *path++ = 0;
        path[strcspn(path, "\n")] = 0;
        controllers++;
        if (strcmp(path, "/") == 0) *path = 0;
        if (strcmp(controllers, "memory") == 0) limit = limit_up("/sys/fs/cgroup/memory", path, "memory.limit_in_bytes", limit);
        else if (*controllers == 0) limit = limit_up("/sys/fs/cgroup", path, "memory.max", limit);
    }
    if (f) fclose(f);
    return limit;
}
