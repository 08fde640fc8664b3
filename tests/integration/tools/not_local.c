/* Preloaded into a client (LD_PRELOAD): what lies beneath $NOT_LOCAL says that it is on FUSE, as a data directory on sshfs would. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

int fstatfs(int fd, struct statfs *s)
{
    int (*real)(int, struct statfs *) = (int (*)(int, struct statfs *))dlsym(RTLD_NEXT, "fstatfs");
    const char *beneath = getenv("NOT_LOCAL");
    char link[64], path[4096];
    int rc = real ? real(fd, s) : -1;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (rc == 0 && beneath && n > 0 && (size_t)n >= strlen(beneath) && memcmp(path, beneath, strlen(beneath)) == 0) s->f_type = 0x65735546;
    return rc;
}
