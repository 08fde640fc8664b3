/* support/lossy.c: see lossy.h. netproxy lies beside $BUSWAYD. */
#include "support/lossy.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static void die(const char *what)
{
    fprintf(stderr, "netproxy: %s\n", what);
    abort();
}

void lossy_start(lossy *l, const char *to, unsigned seed, const char *const *arguments)
{
    const char *daemon = getenv("BUSWAYD"), *slash = daemon ? strrchr(daemon, '/') : NULL;
    char program[4096], number[16], line[64];
    char *argv[32] = {program, "--to", (char *)(uintptr_t)to, "--seed", number};
    int up[2], down[2], n = 5;
    if (!slash) die("$BUSWAYD must be the daemon's path");
    snprintf(program, sizeof program, "%.*s/netproxy", (int)(slash - daemon), daemon);
    snprintf(number, sizeof number, "%u", seed);
    for (; arguments && *arguments && n < 31; arguments++) argv[n++] = (char *)(uintptr_t)*arguments;
    if (pipe2(up, O_CLOEXEC) || pipe2(down, O_CLOEXEC)) die("no pipes");
    l->pid = fork();
    if (l->pid < 0) die("fork");
    if (l->pid == 0) {
        dup2(up[0], 0);
        dup2(down[1], 1);
        execv(program, argv);
        _exit(127);
    }
    close(up[0]);
    close(down[1]);
    l->in = fdopen(up[1], "w");
    l->out = fdopen(down[0], "r");
    if (!l->in || !l->out || !fgets(line, sizeof line, l->out) || sscanf(line, "port %d", &l->port) != 1) die("did not start");
}

void lossy_tell(lossy *l, const char *format, ...)
{
    char line[128];
    va_list list;
    va_start(list, format);
    vfprintf(l->in, format, list);
    va_end(list);
    if (fputc('\n', l->in) == EOF || fflush(l->in) || !fgets(line, sizeof line, l->out)) die("is gone");
    if (strcmp(line, "ok\n") != 0) die("does not know this command");
}

lossy_stats lossy_read(lossy *l)
{
    lossy_stats s = {0};
    char line[512];
    if (fputs("stats\n", l->in) == EOF || fflush(l->in) || !fgets(line, sizeof line, l->out)) die("is gone");
    if (sscanf(line, "connections %llu cuts %llu up %llu down %llu up-packets %llu down-packets %llu lost %llu open %d", &s.connections, &s.cuts,
               &s.up, &s.down, &s.up_packets, &s.down_packets, &s.lost, &s.open) != 8)
        die("tells no statistics");
    return s;
}

void lossy_stop(lossy *l)
{
    if (!l->pid) return;
    fclose(l->in);
    fclose(l->out);
    waitpid(l->pid, NULL, 0);
    l->pid = 0;
}

int free_port(void)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof in;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&in, len) || getsockname(fd, (struct sockaddr *)&in, &len)) die("no free port");
    close(fd);
    return ntohs(in.sin_port);
}
