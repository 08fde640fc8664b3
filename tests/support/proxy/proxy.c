/* tests/support/proxy/proxy.c: netproxy, a bad network in user space, for tests: TCP connections to it go on to another address over a line with
 * delay, a rate, loss (as stalls: see line.h) and cuts at random bytes and times. One thread, everything random from one seed.
 *
 *   netproxy --to HOST:PORT|/path/of/a/socket [--listen HOST:PORT] [--seed N] [--RULE VALUE]…
 *
 * The rules are the fields of line_rules: delay-ms, jitter-ms, rate-kbit, loss, cut-bytes, cut-ms, down-ms. Without --listen: a free port of
 * 127.0.0.1. It prints "port N" when it listens. Then it takes commands from standard input, one a line, and answers each with one line:
 *   cut               cut all connections          down, up     refuse connections, having cut those that are; take them again
 *   stall, go         forward nothing; go on       set RULE V   change a rule
 *   stats             "connections N cuts N up N down N up-packets N down-packets N lost N open N"; up is from the client to --to
 * The end of standard input ends it. A cut connection ends as a reset or as an end, by chance, after a number of bytes that falls anywhere. */
#include "support/proxy/line.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { PAIRS_MAX = 512, QUEUE_MAX = 256 << 10, PIECES_MAX = 4096, READ_MAX = 64 << 10, SLOW_ROOM = 16 << 10 };

typedef struct piece {
    int64_t due_ns;
    size_t len, at;
    char *data;
} piece;

typedef struct way { /* one direction of a connection */
    piece pieces[PIECES_MAX];
    unsigned first, count;
    size_t queued;
    int64_t last_ns; /* order: nothing arrives before this */
    bool ended, shut, blocked;
} way;

typedef struct pair {
    int fd[2]; /* the client's, the server's */
    bool connecting;
    way ways[2]; /* up: from the client; down */
    int64_t left_bytes, cut_ns; /* INT64_MAX: never */
} pair;

static struct {
    struct sockaddr_storage to;
    socklen_t to_len;
    int listener;
    dice dice;
    line_rules rules;
    line lines[2];
    pair *pairs[PAIRS_MAX];
    int count;
    bool down, stalled;
    int64_t up_ns; /* 0: not waiting for it */
    uint64_t connections, cuts;
    char command[256];
    size_t command_len;
    bool over;
} x = {.listener = -1};

static void die(const char *what)
{
    fprintf(stderr, "netproxy: %s%s%s\n", what, errno ? ": " : "", errno ? strerror(errno) : "");
    exit(2);
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void parse_place(const char *text, struct sockaddr_storage *out, socklen_t *len)
{
    char host[108];
    memset(out, 0, sizeof *out);
    if (*text == '/') {
        struct sockaddr_un *un = (struct sockaddr_un *)out;
        un->sun_family = AF_UNIX;
        if (strlen(text) >= sizeof un->sun_path) die("the socket's path is too long");
        strcpy(un->sun_path, text);
        *len = sizeof *un;
        return;
    }
    const char *colon = strrchr(text, ':');
    struct sockaddr_in *in = (struct sockaddr_in *)out;
    if (!colon || (size_t)(colon - text) >= sizeof host) die("an address is HOST:PORT, HOST an IPv4 address");
    memcpy(host, text, (size_t)(colon - text));
    host[colon - text] = 0;
    in->sin_family = AF_INET;
    in->sin_port = htons((uint16_t)atoi(colon + 1));
    if (inet_pton(AF_INET, strcmp(host, "localhost") ? host : "127.0.0.1", &in->sin_addr) != 1) die("HOST is an IPv4 address");
    *len = sizeof *in;
}

/* ---- connections ---- */

static void pair_close(int i, bool reset)
{
    pair *p = x.pairs[i];
    struct linger none = {1, 0};
    for (int side = 0; side < 2; side++) {
        if (reset) setsockopt(p->fd[side], SOL_SOCKET, SO_LINGER, &none, sizeof none);
        close(p->fd[side]);
        way *w = &p->ways[side];
        for (; w->count; w->count--, w->first = (w->first + 1) % PIECES_MAX) free(w->pieces[w->first].data);
    }
    free(p);
    x.pairs[i] = x.pairs[--x.count];
}

static void line_down(int64_t for_ns)
{
    if (x.listener >= 0) shutdown(x.listener, SHUT_RDWR); /* connecting is refused; the port stays ours */
    x.down = true;
    x.up_ns = for_ns ? now_ns() + for_ns : 0;
}

static void line_up(void)
{
    if (x.down && listen(x.listener, SOMAXCONN) < 0) die("listen again");
    x.down = false;
    x.up_ns = 0;
}

static void pair_cut(int i)
{
    x.cuts++;
    pair_close(i, dice_next(&x.dice) & 1);
    if (x.rules.down_ms <= 0 || x.down) return;
    while (x.count) pair_close(0, true);
    line_down(dice_about(&x.dice, x.rules.down_ms * 1e6));
}

static void tune(int fd)
{
    int yes = 1, room = SLOW_ROOM;
    fcntl(fd, F_SETFL, O_NONBLOCK);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    if (x.rules.rate_kbit > 0 && x.rules.rate_kbit < 100000) { /* the kernel shall not be the line */
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    }
}

static void take(void)
{
    int client = accept4(x.listener, NULL, NULL, SOCK_CLOEXEC);
    if (client < 0) return;
    int server = socket(x.to.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    pair *p = server < 0 || x.count == PAIRS_MAX ? NULL : calloc(1, sizeof *p);
    if (p) {
        tune(client);
        tune(server);
        p->connecting = connect(server, (struct sockaddr *)&x.to, x.to_len) != 0;
    }
    if (!p || (p->connecting && errno != EINPROGRESS)) {
        close(client);
        if (server >= 0) close(server);
        free(p);
        return;
    }
    p->fd[0] = client;
    p->fd[1] = server;
    p->left_bytes = x.rules.cut_bytes > 0 ? dice_about(&x.dice, x.rules.cut_bytes) : INT64_MAX;
    p->cut_ns = x.rules.cut_ms > 0 ? now_ns() + dice_about(&x.dice, x.rules.cut_ms * 1e6) : INT64_MAX;
    x.pairs[x.count++] = p;
    x.connections++;
}

/* false: the connection is over. */
static bool receive(pair *p, int side)
{
    char space[READ_MAX];
    way *w = &p->ways[side];
    ssize_t n = recv(p->fd[side], space, sizeof space, 0);
    if (n < 0) return errno == EAGAIN;
    if (n == 0) w->ended = true;
    int64_t now = now_ns();
    for (size_t at = 0, len; at < (size_t)n; at += len) {
        len = (size_t)n - at < LINE_PACKET ? (size_t)n - at : LINE_PACKET;
        piece *next = &w->pieces[(w->first + w->count) % PIECES_MAX];
        int64_t due = line_arrival(&x.lines[side], &x.rules, &x.dice, now, len);
        if (due > w->last_ns) w->last_ns = due;
        *next = (piece){.due_ns = w->last_ns, .len = len, .data = malloc(len)};
        if (!next->data) die("no memory");
        memcpy(next->data, space + at, len);
        w->count++;
        w->queued += len;
    }
    return true;
}

/* What is due. 1: go on; 0: both ends are done; -1: cut it. */
static int forward(pair *p, int side, int64_t now)
{
    way *w = &p->ways[side];
    int to = p->fd[!side];
    w->blocked = false;
    while (w->count && w->pieces[w->first].due_ns <= now) {
        piece *f = &w->pieces[w->first];
        size_t len = f->len - f->at;
        if ((int64_t)len > p->left_bytes) len = (size_t)p->left_bytes;
        ssize_t n = len ? send(to, f->data + f->at, len, MSG_NOSIGNAL) : 0;
        if (n < 0) {
            if (errno != EAGAIN) return 0;
            w->blocked = true;
            return 1;
        }
        f->at += (size_t)n;
        w->queued -= (size_t)n;
        if (p->left_bytes != INT64_MAX && (p->left_bytes -= n) <= 0) return -1;
        if (f->at < f->len) continue;
        free(f->data);
        w->first = (w->first + 1) % PIECES_MAX;
        w->count--;
    }
    if (w->ended && !w->count && !w->shut) {
        shutdown(to, SHUT_WR);
        w->shut = true;
    }
    return p->ways[0].shut && p->ways[1].shut ? 0 : 1;
}

static bool has_room(const way *w) { return !w->ended && w->queued < QUEUE_MAX && w->count + READ_MAX / LINE_PACKET + 1 < PIECES_MAX; }

/* false: it was closed. */
static bool serve(int i, const struct pollfd *fds, int64_t now)
{
    pair *p = x.pairs[i];
    if (now >= p->cut_ns) {
        pair_cut(i);
        return false;
    }
    if (p->connecting && fds[1].revents) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(p->fd[1], SOL_SOCKET, SO_ERROR, &error, &size);
        if (error) {
            pair_close(i, true);
            return false;
        }
        p->connecting = false;
    }
    for (int side = 0; side < 2; side++) {
        bool fine = !((fds[side].revents & (POLLIN | POLLHUP | POLLERR)) && has_room(&p->ways[side]) && (side == 0 || !p->connecting)) ||
                    receive(p, side);
        int go = !fine ? 0 : p->connecting ? 1 : forward(p, side, now);
        if (go > 0) continue;
        if (go < 0) pair_cut(i);
        else pair_close(i, !fine);
        return false;
    }
    return true;
}

/* ---- commands ---- */

static bool set_rule(const char *name, const char *value)
{
    const struct { const char *name; double *at; } all[] = {
        {"delay-ms", &x.rules.delay_ms}, {"jitter-ms", &x.rules.jitter_ms}, {"rate-kbit", &x.rules.rate_kbit}, {"loss", &x.rules.loss},
        {"cut-bytes", &x.rules.cut_bytes}, {"cut-ms", &x.rules.cut_ms}, {"down-ms", &x.rules.down_ms},
    };
    char *end;
    double v = strtod(value, &end);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (strcmp(all[i].name, name) != 0 || end == value || *end || v < 0) continue;
        *all[i].at = v;
        return true;
    }
    return false;
}

static void stats(void)
{
    const line *up = &x.lines[0], *down = &x.lines[1];
    printf("connections %llu cuts %llu up %llu down %llu up-packets %llu down-packets %llu lost %llu open %d\n", (unsigned long long)x.connections,
           (unsigned long long)x.cuts, (unsigned long long)up->bytes, (unsigned long long)down->bytes, (unsigned long long)up->packets,
           (unsigned long long)down->packets, (unsigned long long)(up->lost + down->lost), x.count);
}

static void obey(char *text)
{
    char name[64], value[64];
    if (strcmp(text, "stats") == 0) {
        stats();
        return;
    }
    bool known = true;
    if (strcmp(text, "cut") == 0 || strcmp(text, "down") == 0) {
        x.cuts += (uint64_t)x.count;
        while (x.count) pair_close(0, dice_next(&x.dice) & 1);
        if (*text == 'd') line_down(0);
    } else if (strcmp(text, "up") == 0) line_up();
    else if (strcmp(text, "stall") == 0) x.stalled = true;
    else if (strcmp(text, "go") == 0) x.stalled = false;
    else known = sscanf(text, "set %63s %63s", name, value) == 2 && set_rule(name, value);
    puts(known ? "ok" : "unknown");
}

static void read_commands(void)
{
    ssize_t n = read(0, x.command + x.command_len, sizeof x.command - 1 - x.command_len);
    if (n <= 0) {
        x.over = true;
        return;
    }
    x.command_len += (size_t)n;
    char *end;
    while ((end = memchr(x.command, '\n', x.command_len))) {
        *end = 0;
        obey(x.command);
        fflush(stdout);
        x.command_len -= (size_t)(end + 1 - x.command);
        memmove(x.command, end + 1, x.command_len);
    }
    if (x.command_len == sizeof x.command - 1) die("a command is too long");
}

/* ---- the loop ---- */

static int64_t prepare(struct pollfd *fds)
{
    int64_t next = x.up_ns ? x.up_ns : INT64_MAX;
    fds[0] = (struct pollfd){.fd = 0, .events = POLLIN};
    fds[1] = (struct pollfd){.fd = x.down ? -1 : x.listener, .events = POLLIN};
    for (int i = 0; i < x.count; i++) {
        const pair *p = x.pairs[i];
        if (!x.stalled && p->cut_ns < next) next = p->cut_ns;
        for (int side = 0; side < 2; side++) {
            const way *in = &p->ways[side], *out = &p->ways[!side];
            short events = (short)((has_room(in) ? POLLIN : 0) | (out->blocked || (side && p->connecting) ? POLLOUT : 0));
            fds[2 + 2 * i + side] = (struct pollfd){.fd = x.stalled || !events ? -1 : p->fd[side], .events = events};
            if (!x.stalled && in->count && !in->blocked && !p->connecting && in->pieces[in->first].due_ns < next)
                next = in->pieces[in->first].due_ns;
        }
    }
    return next;
}

static void run(void)
{
    static struct pollfd fds[2 + 2 * PAIRS_MAX];
    while (!x.over) {
        int64_t next = prepare(fds), left = next - now_ns();
        if (left < 0) left = 0;
        struct timespec t = {left / 1000000000, left % 1000000000};
        int before = x.count;
        if (ppoll(fds, (nfds_t)(2 + 2 * before), next == INT64_MAX ? NULL : &t, NULL) < 0 && errno != EINTR) die("poll");
        if (fds[0].revents) {
            read_commands();
            continue;
        }
        if (x.up_ns && now_ns() >= x.up_ns) line_up();
        for (int i = before - 1; i >= 0 && !x.stalled && x.count > i; i--) serve(i, &fds[2 + 2 * i], now_ns());
        if (fds[1].revents && !x.down) take();
    }
}

int main(int argc, char **argv)
{
    const char *to = NULL, *at = "127.0.0.1:0";
    x.dice.state = 1;
    errno = 0;
    for (int i = 1; i < argc; i += 2) {
        if (i + 1 == argc || strncmp(argv[i], "--", 2) != 0) die("each option takes a value; see the head of proxy.c");
        if (strcmp(argv[i], "--to") == 0) to = argv[i + 1];
        else if (strcmp(argv[i], "--listen") == 0) at = argv[i + 1];
        else if (strcmp(argv[i], "--seed") == 0) x.dice.state = strtoull(argv[i + 1], NULL, 0);
        else if (!set_rule(argv[i] + 2, argv[i + 1])) die("unknown option, or its value is no number");
    }
    if (!to) die("--to is missing");
    parse_place(to, &x.to, &x.to_len);
    struct sockaddr_storage here;
    socklen_t len;
    int yes = 1;
    parse_place(at, &here, &len);
    for (int named = ((struct sockaddr_in *)&here)->sin_port != 0; named < 2; named++) { /* one that was bound by its number keeps it when down */
        x.listener = socket(here.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (x.listener < 0 || setsockopt(x.listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes)) die("socket");
        if (bind(x.listener, (struct sockaddr *)&here, len)) die("bind");
        getsockname(x.listener, (struct sockaddr *)&here, &len);
        if (!named) close(x.listener);
    }
    fcntl(x.listener, F_SETFL, O_NONBLOCK);
    if (listen(x.listener, SOMAXCONN)) die("listen");
    signal(SIGPIPE, SIG_IGN);
    printf("port %d\n", ntohs(((struct sockaddr_in *)&here)->sin_port));
    fflush(stdout);
    run();
    return 0;
}
