/* daemon/handover.c: see handover.h. A client of two requests, which waits for each answer. */
#include "daemon/handover.h"

#include "base/clock.h"
#include "base/killpoint.h"
#include "base/os.h"
#include "log/datadir.h"
#include "proto/message.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { START_LOCK_MS = 10000, ANSWER_MS = 5000, END_MS = 15000, ASK_AGAIN_MS = 20, NAP_NS = 1000000, ANSWER_MAX = 64 << 10 };

static void nap(void) { nanosleep(&(struct timespec){.tv_nsec = NAP_NS}, NULL); }

/* As those that start a private daemon take it (client/spawn.h). -1: there is no folder, or somebody holds it for too long. */
static int take_start_lock(const char *path)
{
    int fd = bw_os_open_named(path, O_RDONLY | O_DIRECTORY, 0);
    bw_deadline deadline = bw_deadline_in_ms(START_LOCK_MS);
    while (fd >= 0 && bw_os_flock(fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK || bw_deadline_left_ns(deadline) == 0) {
            bw_os_close(fd);
            return -1;
        }
        nap();
    }
    return fd;
}

/* ---- asking ---- */

static bw_err connect_to(const char *path, int *out)
{
    int fd = bw_os_unix_socket();
    if (fd < 0) return bw_fail_errno(errno, "no socket");
    if (strlen(path) >= sizeof ((struct sockaddr_un *)NULL)->sun_path) {
        bw_os_close(fd);
        return bw_fail(BW_ERR_UNSUPPORTED, "the socket's path %s is too long to be asked for the folder", path);
    }
    bw_deadline deadline = bw_deadline_in_ms(ANSWER_MS);
    while (bw_os_unix_connect(fd, path) < 0) {
        int saved = errno;
        if (saved == EAGAIN && bw_deadline_left_ns(deadline) > 0) {
            nap();
            continue;
        }
        bw_os_close(fd);
        return bw_fail(BW_ERR_NO_COORDINATOR, "no daemon answers at %s: %s", path, strerror(saved));
    }
    *out = fd;
    return BW_OK;
}

static bool wait_for(int fd, short events, bw_deadline deadline)
{
    struct pollfd p = {.fd = fd, .events = events};
    int64_t left = bw_deadline_left_ns(deadline);
    return poll(&p, 1, (int)((left + 999999) / 1000000)) == 1;
}

static bw_err send_request(int fd, bw_request *q, bw_deadline deadline)
{
    bw_buf frame = {0};
    bw_err e = bw_request_encode(q, &frame, true);
    for (size_t at = 0; !e && at < frame.len;) {
        struct iovec piece = {frame.data + at, frame.len - at};
        ssize_t n = bw_os_sendv(fd, &piece, 1);
        if (n >= 0) at += (size_t)n;
        else if (errno != EAGAIN || !wait_for(fd, POLLOUT, deadline)) e = bw_fail(BW_ERR_NO_COORDINATOR, "it does not read");
    }
    bw_buf_free(&frame);
    return e;
}

/* The answer's error becomes the result. */
static bw_err read_answer(int fd, bw_deadline deadline)
{
    static uint8_t room[ANSWER_MAX]; /* a daemon that starts has one thread */
    size_t have = 0, used, whole = BW_FRAME_PREFIX;
    bw_frame f;
    bw_err e;
    while ((e = bw_frame_parse(room, have, sizeof room - BW_FRAME_PREFIX, &f, &used, &whole)) == BW_ERR_EMPTY) {
        ssize_t n = bw_os_recv(fd, room + have, sizeof room - have, 0);
        if (n > 0) have += (size_t)n;
        else if (n == 0) return bw_fail(BW_ERR_NO_COORDINATOR, "it closed the connection");
        else if (errno != EAGAIN || !wait_for(fd, POLLIN, deadline)) return bw_fail(BW_ERR_NO_COORDINATOR, "it does not answer");
    }
    bw_answer a;
    if (!e) e = bw_answer_decode(&f, &a);
    if (e) return e;
    if (a.error) e = bw_fail((bw_err)a.error, "%.*s", (int)(a.message.len < 400 ? a.message.len : 400), a.message.len ? a.message.data : "");
    bw_answer_fini(&a);
    return e;
}

static bw_err ask(const char *socket)
{
    int fd = -1;
    bw_err e = connect_to(socket, &fd);
    if (e) return e;
    static const uint16_t types[] = {BW_API_HELLO, BW_API_HANDOVER};
    bw_deadline deadline = bw_deadline_in_ms(ANSWER_MS);
    for (uint32_t i = 0; !e && i < 2; i++) {
        bw_request q;
        bw_request_init(&q, types[i]);
        q.correlation = i + 1;
        q.version_min = BW_PROTOCOL_VERSION_MIN;
        q.version_max = BW_PROTOCOL_VERSION;
        q.client_id = bw_str_of("buswayd");
        q.client_pid = (int32_t)getpid();
        e = send_request(fd, &q, deadline);
        if (!e) e = read_answer(fd, deadline);
    }
    bw_os_close(fd);
    return e;
}

/* Will it be of no use to ask again? */
static bool is_final(bw_err e) { return e != BW_OK && e != BW_ERR_NO_COORDINATOR && e != BW_ERR_TIMED_OUT; }

/* Until nobody has the folder, or who has it keeps it. Whoever has it may be starting (and has not said yet who it is), ending already (and
 * does not listen any more), or be killed at any moment; so each is asked until it has said yes. */
static bw_err take_from_holder(const char *path)
{
    bw_datadir_holder h = {0};
    bw_err e = BW_OK;
    int agreed = 0; /* the pid of who did */
    bw_deadline deadline = bw_deadline_in_ms(END_MS), next_ask = 0;
    while (bw_datadir_is_held(path)) {
        if (bw_deadline_left_ns(deadline) == 0)
            return e ? bw_error_context(e, "the private daemon with pid %d, which serves %s, does not give it away", h.pid, path)
                     : bw_fail(BW_ERR_TIMED_OUT, "the daemon with pid %d, which serves %s, was asked for it and does not end", h.pid, path);
        if (bw_deadline_left_ns(next_ask) == 0 && bw_datadir_ask_holder(path, &h) == BW_OK && h.socket[0] && h.pid != agreed) {
            if (!h.is_private) return BW_OK; /* taking the folder says who has it */
            next_ask = bw_deadline_in_ms(ASK_AGAIN_MS);
            e = ask(h.socket);
            if (!e) agreed = h.pid;
            if (is_final(e)) return bw_error_context(e, "the private daemon with pid %d, which serves %s, does not give it away", h.pid, path);
            BW_KILL_POINT("handover.asked");
        }
        nap();
    }
    return BW_OK;
}

bw_err bw_handover_begin(const bw_daemon_config *config, int *start_lock)
{
    *start_lock = -1;
    if (config->is_private) return BW_OK; /* who starts it holds the lock */
    *start_lock = take_start_lock(config->data_dir);
    if (*start_lock < 0) return BW_OK;
    bw_err e = take_from_holder(config->data_dir);
    if (e) {
        bw_handover_end(*start_lock);
        *start_lock = -1;
    }
    return e;
}

void bw_handover_end(int start_lock)
{
    if (start_lock >= 0) bw_os_close(start_lock); /* the lock goes with it */
}
