/* What other hosts send, and what is kept of their users. First byte: 0 a value of the table of users; 1 a host and port; 2 the first bytes on a
 * port for TLS; 3 a password's hash and a password. What is accepted says the same when it is written and read again. */
#include "fuzz/fuzz.h"

#include "broker/users.h"
#include "transport/tcp.h"
#include "transport/tls.h"

#include <sys/socket.h>
#include <unistd.h>

static void user(const uint8_t *data, size_t size)
{
    bw_user u, again;
    uint8_t value[BW_USER_HASH_MAX + 16];
    size_t key = size ? data[0] % 80u : 0;
    if (size < 1 + key || bw_users_decode(data + 1, key, data + 1 + key, size - 1 - key, &u) != BW_OK) return;
    FUZZ_CHECK(strlen(u.name) <= BW_USER_NAME_MAX && strlen(u.hash) < BW_USER_HASH_MAX && u.role <= BW_ROLE_ADMIN);
    if (!u.name[0]) return;
    FUZZ_CHECK(bw_users_decode(u.name, strlen(u.name), value, bw_users_encode(&u, value), &again) == BW_OK);
    FUZZ_CHECK(u.kind == again.kind && u.role == again.role && u.created_ms == again.created_ms && strcmp(u.hash, again.hash) == 0);
}

static void place(const uint8_t *data, size_t size)
{
    bw_tcp_place p, again;
    char text[BW_TCP_TEXT_MAX];
    if (bw_tcp_place_parse((const char *)data, size, &p) != BW_OK) return;
    FUZZ_CHECK(p.host[0] && strlen(p.host) <= BW_TCP_HOST_MAX);
    bw_tcp_place_print(&p, text);
    FUZZ_CHECK(bw_tcp_place_parse(text, strlen(text), &again) == BW_OK);
    FUZZ_CHECK(p.port == again.port && strcmp(p.host, again.host) == 0);
}

static void knock(const uint8_t *data, size_t size)
{
    static bw_tls_context *context;
    bw_tls_options o = {.server = true};
    bw_tls *tls;
    int fd[2];
    short events;
    fuzz_pause();
    if (!context && bw_tls_context_open(&o, &context) != BW_OK) abort();
    if (size > 60000 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd) != 0) return fuzz_resume();
    FUZZ_CHECK(size == 0 || write(fd[1], data, size) == (ssize_t)size);
    shutdown(fd[1], SHUT_WR);
    fuzz_resume();
    fuzz_allow(512u << 10);
    if (bw_tls_open(context, fd[0], NULL, &tls) == BW_OK) {
        bw_err e = bw_tls_handshake(tls, &events);
        FUZZ_CHECK(e != BW_OK); /* no bytes that were made beforehand can be a handshake */
        FUZZ_CHECK(e == BW_ERR_EMPTY || bw_error_message()[0]);
        bw_tls_close(tls);
    }
    close(fd[0]);
    close(fd[1]);
}

static void compare(const uint8_t *data, size_t size)
{
    char a[64], b[64];
    size_t half = size / 2 < 63 ? size / 2 : 63;
    memcpy(a, data, half);
    memcpy(b, data + half, half);
    a[half] = b[half] = 0;
    FUZZ_CHECK(bw_secret_equal(a, b) == (strcmp(a, b) == 0));
}

static int fuzz_input(const uint8_t *data, size_t size)
{
    if (!size) return 0;
    switch (data[0] % 4) {
    case 0: user(data + 1, size - 1); break;
    case 1: place(data + 1, size - 1); break;
    case 2: knock(data + 1, size - 1); break;
    default: compare(data + 1, size - 1);
    }
    return 0;
}
