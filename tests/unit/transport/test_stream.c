/* Framed streams against raw sockets: reassembly, bounds, back-pressure, closing, where a socket may be put. */
#include "base/clock.h"
#include "base/err.h"
#include "transport/stream.h"
#include "unit/transport/reactor_thread.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* What the listener's owner saw, of all connections together. */
typedef struct seen {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bw_stream *stream;
    bw_stream_peer peer;
    int accepted, frames, malformed, drained, closed, destroyed;
    size_t payload_bytes;
    uint32_t last_correlation;
    bool in_order;
    bool echo;       /* answer each frame with itself */
    bool hold;       /* keep the tokens */
    bool turn_away;
    bw_stream_token *held[4096];
    int held_count;
    char message[256];
} seen;

typedef struct one_link { seen *seen; bw_stream *stream; } one_link;

static seen *seen_create(void)
{
    seen *s = calloc(1, sizeof *s);
    assert_non_null(s);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    s->in_order = true;
    return s;
}

static void *on_accepted(void *owner, bw_stream *stream, const bw_stream_peer *peer)
{
    seen *s = owner;
    pthread_mutex_lock(&s->lock);
    s->accepted++;
    s->stream = stream;
    s->peer = *peer;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    if (s->turn_away) { return NULL; }
    one_link *k = malloc(sizeof *k);
    if (k) { *k = (one_link){s, stream}; }
    return k;
}

static void on_frame(void *user, const bw_frame *f, bw_stream_token *token)
{
    one_link *k = user;
    seen *s = k->seen;
    if (s->echo) { bw_stream_send(k->stream, f->header - BW_FRAME_PREFIX, BW_FRAME_PREFIX + f->header_len, f->payload, f->payload_len); }
    pthread_mutex_lock(&s->lock);
    s->in_order = s->in_order && f->correlation == s->last_correlation + 1; /* tests of order have one connection */
    s->last_correlation = f->correlation;
    s->frames++;
    s->payload_bytes += f->payload_len;
    for (size_t i = 0; i < f->payload_len; i += 997) { s->in_order = s->in_order && f->payload[i] == (uint8_t)f->correlation; }
    bool hold = s->hold;
    if (hold) { s->held[s->held_count++] = token; }
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    bw_stream_established(k->stream);
    if (!hold) { bw_stream_consumed(token); }
}

static void count_up(seen *s, int *counter)
{
    pthread_mutex_lock(&s->lock);
    ++*counter;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

static void on_malformed(void *user, bw_err err)
{
    one_link *k = user;
    seen *s = k->seen;
    if (err == BW_ERR_PROTOCOL) { snprintf(s->message, sizeof s->message, "%s", bw_error_message()); }
    bw_stream_send(k->stream, "bye", 3, NULL, 0);
    count_up(s, &s->malformed);
}

static void on_drained(void *user)
{
    seen *s = ((one_link *)user)->seen;
    count_up(s, &s->drained);
}

static void on_closed(void *user)
{
    one_link *k = user;
    count_up(k->seen, &k->seen->closed);
    bw_stream_release(k->stream);
}

static void on_destroy(void *user)
{
    one_link *k = user;
    count_up(k->seen, &k->seen->destroyed);
    free(k);
}

static const bw_stream_ops ops = {on_accepted, on_frame, on_malformed, on_drained, on_closed, on_destroy, NULL, NULL};

/* Waits up to 5 s for a counter. */
static void wait_for(seen *s, const int *counter, int value)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 5;
    pthread_mutex_lock(&s->lock);
    while (*counter < value && pthread_cond_timedwait(&s->changed, &s->lock, &until) == 0) { }
    int got = *counter;
    pthread_mutex_unlock(&s->lock);
    assert_true(got >= value);
}

static int value_of(seen *s, const int *counter)
{
    pthread_mutex_lock(&s->lock);
    int v = *counter;
    pthread_mutex_unlock(&s->lock);
    return v;
}

static bool in_order(seen *s)
{
    pthread_mutex_lock(&s->lock);
    bool yes = s->in_order;
    pthread_mutex_unlock(&s->lock);
    return yes;
}

static char folder[64];
static reactor_thread unix_reactor; /* .reactor NULL: the streams are nng's */

static const char *path_in_folder(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static bw_stream_listener *listen_at(seen *s, const char *path, size_t frame_max, size_t credit)
{
    char url[400];
    snprintf(url, sizeof url, "ipc://%s", path);
    bw_stream_listen_options o = {.url = url, .gid = -1, .frame_max = frame_max, .credit = credit, .ops = &ops, .owner = s,
                                  .reactor = unix_reactor.reactor};
    bw_stream_listener *l = NULL;
    bw_err err = bw_stream_listen(&o, &l);
    if (err != BW_OK) { print_error("%s\n", bw_error_message()); }
    assert_int_equal(err, BW_OK);
    return l;
}

static int connect_to(const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    struct timeval patience = {5, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    return fd;
}

static void write_all(int fd, const void *data, size_t len)
{
    const char *p = data;
    while (len > 0) {
        ssize_t n = send(fd, p, len, MSG_NOSIGNAL);
        assert_true(n > 0);
        p += n;
        len -= (size_t)n;
    }
}

static void read_all(int fd, void *data, size_t len)
{
    char *p = data;
    while (len > 0) {
        ssize_t n = recv(fd, p, len, 0);
        assert_true(n > 0);
        p += n;
        len -= (size_t)n;
    }
}

/* A frame whose payload bytes are all the low byte of its correlation. */
static void append_frame(bw_buf *b, uint32_t correlation, size_t payload)
{
    size_t mark;
    assert_int_equal(bw_frame_begin(b, 7, 0, correlation, &mark), BW_OK);
    assert_int_equal(bw_buf_append(b, "\x80", 1), BW_OK);
    bw_frame_header_done(b, mark);
    assert_int_equal(bw_buf_reserve(b, payload), BW_OK);
    memset(b->data + b->len, (int)(correlation & 0xff), payload);
    b->len += payload;
    bw_frame_end(b, mark, 0);
}

static void end(seen *s, bw_stream_listener *l)
{
    assert_true(bw_stream_listener_destroy(l, 5000));
    int expected = s->turn_away ? 0 : value_of(s, &s->accepted);
    assert_int_equal(value_of(s, &s->destroyed), expected);
    assert_int_equal(value_of(s, &s->closed), expected);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->changed);
    free(s);
}

static void test_stream_byte_by_byte_gives_whole_frames(void **state)
{
    (void)state;
    seen *s = seen_create();
    s->echo = true;
    bw_stream_listener *l = listen_at(s, path_in_folder("a.sock"), 1 << 20, 0);
    int fd = connect_to(path_in_folder("a.sock"));
    bw_buf b = {0};
    for (uint32_t i = 1; i <= 3; i++) { append_frame(&b, i, i * 20); }
    for (size_t i = 0; i < b.len; i++) { write_all(fd, b.data + i, 1); }
    uint8_t *back = malloc(b.len);
    assert_non_null(back);
    read_all(fd, back, b.len);
    assert_memory_equal(back, b.data, b.len);
    wait_for(s, &s->frames, 3);
    assert_true(in_order(s));
    assert_true(s->peer.uid == (int64_t)getuid() && s->peer.gid == (int64_t)getgid() && s->peer.pid == (int64_t)getpid());
    close(fd);
    wait_for(s, &s->closed, 1);
    free(back);
    bw_buf_free(&b);
    end(s, l);
}

typedef struct writer { int fd; bw_buf data; } writer;

static void *write_in_background(void *arg)
{
    writer *w = arg;
    size_t at = 0;
    while (at < w->data.len) {
        ssize_t n = send(w->fd, w->data.data + at, w->data.len - at, MSG_NOSIGNAL);
        if (n <= 0) { break; }
        at += (size_t)n;
    }
    return NULL;
}

/* Frames of all sizes, from nothing to megabytes, echoed: the pipes are full both ways. */
static void test_stream_frames_of_all_sizes_come_back(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 1000, 1007, 1008, 4079, 4080, 5000, 65536, 262144, 3000000, 1, 100, 1500000, 7};
    seen *s = seen_create();
    s->echo = true;
    bw_stream_listener *l = listen_at(s, path_in_folder("b.sock"), 4 << 20, 0);
    writer w = {.fd = connect_to(path_in_folder("b.sock"))};
    for (uint32_t i = 1; i <= 150; i++) { append_frame(&w.data, i, i % 37 == 0 ? sizes[i % 15] : sizes[i % 10]); }
    for (uint32_t i = 151; i <= 165; i++) { append_frame(&w.data, i, sizes[i - 151]); }
    pthread_t thread;
    pthread_create(&thread, NULL, write_in_background, &w);
    uint8_t *back = malloc(w.data.len);
    assert_non_null(back);
    read_all(w.fd, back, w.data.len);
    pthread_join(thread, NULL);
    assert_memory_equal(back, w.data.data, w.data.len);
    wait_for(s, &s->frames, 165);
    assert_true(in_order(s));
    close(w.fd);
    free(back);
    bw_buf_free(&w.data);
    end(s, l);
}

static void test_stream_oversize_frame_is_refused_by_its_length(void **state)
{
    (void)state;
    seen *s = seen_create();
    bw_stream_listener *l = listen_at(s, path_in_folder("c.sock"), 1000, 0);
    int fd = connect_to(path_in_folder("c.sock"));
    char bye[4];
    bw_buf b = {0};
    append_frame(&b, 1, 10);
    write_all(fd, b.data, b.len);
    write_all(fd, "\xff\xff\xff\xff", 4);
    read_all(fd, bye, 3);
    assert_memory_equal(bye, "bye", 3);
    assert_int_equal(recv(fd, bye, 1, 0), 0); /* closed behind it */
    wait_for(s, &s->closed, 1);
    assert_int_equal(value_of(s, &s->frames), 1);
    assert_int_equal(value_of(s, &s->malformed), 1);
    assert_non_null(strstr(s->message, "limit is 1000"));
    close(fd);
    bw_buf_free(&b);
    end(s, l);
}

static void test_stream_over_its_credit_is_not_read_from(void **state)
{
    (void)state;
    enum { FRAME = 10000, CREDIT = 100000, FRAMES = 2000 };
    seen *s = seen_create();
    s->hold = true;
    bw_stream_listener *l = listen_at(s, path_in_folder("d.sock"), 1 << 20, CREDIT);
    writer w = {.fd = connect_to(path_in_folder("d.sock"))};
    for (uint32_t i = 1; i <= FRAMES; i++) { append_frame(&w.data, i, FRAME); }
    pthread_t thread;
    pthread_create(&thread, NULL, write_in_background, &w);
    wait_for(s, &s->frames, CREDIT / FRAME);
    usleep(100000);
    int frames = value_of(s, &s->frames);
    assert_true(frames * FRAME <= CREDIT + (512 << 10)); /* the credit, and what one receive may have brought */
    assert_true(bw_stream_listener_busy(l) == 1);
    /* Taking everything lets it flow to its end. */
    for (int done = 0; done < FRAMES;) {
        wait_for(s, &s->frames, done + 1);
        pthread_mutex_lock(&s->lock);
        int n = s->held_count;
        bw_stream_token *taken[4096];
        memcpy(taken, s->held, (size_t)n * sizeof *taken);
        s->held_count = 0;
        pthread_mutex_unlock(&s->lock);
        for (int i = 0; i < n; i++) { bw_stream_consumed(taken[i]); }
        done += n;
    }
    pthread_join(thread, NULL);
    assert_int_equal(value_of(s, &s->frames), FRAMES);
    assert_true(in_order(s));
    assert_int_equal(bw_stream_listener_busy(l), 0);
    close(w.fd);
    bw_buf_free(&w.data);
    end(s, l);
}

static void test_stream_slow_reader_makes_a_backlog_and_drains(void **state)
{
    (void)state;
    enum { PIECE = 100000, PIECES = 50 };
    seen *s = seen_create();
    bw_stream_listener *l = listen_at(s, path_in_folder("e.sock"), 1 << 20, 0);
    int fd = connect_to(path_in_folder("e.sock"));
    wait_for(s, &s->accepted, 1);
    char *piece = malloc(PIECE);
    assert_non_null(piece);
    for (int i = 0; i < PIECES; i++) {
        memset(piece, i, PIECE);
        assert_int_equal(bw_stream_send(s->stream, piece, PIECE / 2, piece + PIECE / 2, PIECE / 2), BW_OK);
    }
    assert_true(bw_stream_backlog(s->stream) > PIECE * PIECES / 2);
    int drained = value_of(s, &s->drained); /* the socket may have taken the first rest at its second try */
    for (int i = 0; i < PIECES; i++) {
        read_all(fd, piece, PIECE);
        for (int j = 0; j < PIECE; j += 501) { assert_int_equal(piece[j], i); }
    }
    wait_for(s, &s->drained, drained + 1);
    for (int i = 0; i < 5000 && bw_stream_backlog(s->stream) > 0; i++) { usleep(1000); } /* drained comes below the low water mark */
    assert_int_equal(bw_stream_backlog(s->stream), 0);
    close(fd);
    wait_for(s, &s->closed, 1);
    free(piece);
    end(s, l);
}

/* Everything at once, many times: peers that vanish in the middle of frames, sends to them, held tokens. */
static void test_stream_vanishing_peers_leave_nothing_behind(void **state)
{
    (void)state;
    seen *s = seen_create();
    s->echo = true;
    bw_stream_listener *l = listen_at(s, path_in_folder("f.sock"), 1 << 20, 0);
    bw_buf b = {0};
    for (uint32_t i = 1; i <= 20; i++) { append_frame(&b, i, 3000 * i); }
    for (int round = 0; round < 200; round++) {
        int fd = connect_to(path_in_folder("f.sock"));
        size_t upto = (size_t)round * 997 % b.len;
        ssize_t n = send(fd, b.data, upto, MSG_NOSIGNAL | MSG_DONTWAIT);
        (void)n;
        if (round % 3 == 0) { shutdown(fd, SHUT_WR); }
        close(fd);
    }
    wait_for(s, &s->closed, 200);
    bw_buf_free(&b);
    end(s, l);
}

static void test_stream_token_outlives_its_connection(void **state)
{
    (void)state;
    seen *s = seen_create();
    s->hold = true;
    bw_stream_listener *l = listen_at(s, path_in_folder("g.sock"), 1 << 20, 0);
    int fd = connect_to(path_in_folder("g.sock"));
    bw_buf b = {0};
    append_frame(&b, 1, 100000);
    write_all(fd, b.data, b.len);
    wait_for(s, &s->frames, 1);
    close(fd);
    wait_for(s, &s->closed, 1);
    assert_int_equal(value_of(s, &s->destroyed), 0);
    assert_false(bw_stream_listener_destroy(l, 20)); /* still referenced */
    bw_stream_consumed(s->held[0]);
    wait_for(s, &s->destroyed, 1);
    bw_buf_free(&b);
    end(s, l);
}

static void test_stream_turned_away_is_closed(void **state)
{
    (void)state;
    seen *s = seen_create();
    s->turn_away = true;
    bw_stream_listener *l = listen_at(s, path_in_folder("h.sock"), 1 << 20, 0);
    int fd = connect_to(path_in_folder("h.sock"));
    char c;
    assert_int_equal(recv(fd, &c, 1, 0), 0);
    close(fd);
    end(s, l);
}

static void test_stream_silent_peer_is_closed_after_the_hello_timeout(void **state)
{
    (void)state;
    seen *s = seen_create();
    char url[400];
    snprintf(url, sizeof url, "ipc://%s", path_in_folder("i.sock"));
    bw_stream_listen_options o = {.url = url, .gid = -1, .frame_max = 1000, .hello_timeout_ms = 50, .ops = &ops, .owner = s,
                                  .reactor = unix_reactor.reactor};
    bw_stream_listener *l = NULL;
    assert_int_equal(bw_stream_listen(&o, &l), BW_OK);
    int silent = connect_to(path_in_folder("i.sock"));
    char c;
    assert_int_equal(recv(silent, &c, 1, 0), 0);
    wait_for(s, &s->closed, 1);
    close(silent);
    int talking = connect_to(path_in_folder("i.sock"));
    bw_buf b = {0};
    append_frame(&b, 1, 0);
    write_all(talking, b.data, b.len);
    wait_for(s, &s->frames, 1);
    usleep(150000);
    assert_int_equal(value_of(s, &s->closed), 1); /* it has introduced itself */
    close(talking);
    bw_buf_free(&b);
    end(s, l);
}

/* ---- where a socket may be put ---- */

static bw_err try_listen(seen *s, const char *url, bool allow_long)
{
    bw_stream_listen_options o = {.url = url, .allow_long_path = allow_long, .gid = -1, .frame_max = 1000, .ops = &ops, .owner = s,
                                  .reactor = unix_reactor.reactor};
    bw_stream_listener *l = NULL;
    bw_err err = bw_stream_listen(&o, &l);
    if (err == BW_OK) { assert_true(bw_stream_listener_destroy(l, 5000)); }
    return err;
}

static void test_socket_foreign_file_is_left_alone(void **state)
{
    (void)state;
    seen *s = seen_create();
    char url[400], text[8] = "";
    const char *path = path_in_folder("precious");
    snprintf(url, sizeof url, "ipc://%s", path);
    int fd = open(path, O_CREAT | O_WRONLY, 0600);
    assert_int_equal(write(fd, "kept", 4), 4);
    close(fd);
    assert_int_equal(try_listen(s, url, false), BW_ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(bw_error_message(), "no socket"));
    fd = open(path, O_RDONLY);
    assert_true(fd >= 0);
    assert_int_equal(read(fd, text, 4), 4);
    assert_string_equal(text, "kept");
    close(fd);
    unlink(path);
    assert_int_equal(symlink("/etc/passwd", path), 0);
    assert_int_equal(try_listen(s, url, false), BW_ERR_INVALID_ARGUMENT);
    unlink(path);
    free(s);
}

static void test_socket_that_answers_is_left_alone(void **state)
{
    (void)state;
    seen *s = seen_create(), *other = seen_create();
    char url[400];
    snprintf(url, sizeof url, "ipc://%s", path_in_folder("live.sock"));
    bw_stream_listener *l = listen_at(s, path_in_folder("live.sock"), 1000, 0);
    assert_int_equal(try_listen(other, url, false), BW_ERR_BUSY);
    assert_non_null(strstr(bw_error_message(), "another process answers"));
    close(connect_to(path_in_folder("live.sock")));
    wait_for(s, &s->accepted, 2); /* the try's, and ours */
    wait_for(s, &s->closed, 2);
    end(s, l);
    free(other);
}

static void test_socket_that_is_stale_is_replaced(void **state)
{
    (void)state;
    seen *s = seen_create();
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path, sizeof a.sun_path, "%s", path_in_folder("stale.sock"));
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    close(fd);
    bw_stream_listener *l = listen_at(s, path_in_folder("stale.sock"), 1000, 0);
    struct stat st;
    assert_int_equal(stat(path_in_folder("stale.sock"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0660);
    close(connect_to(path_in_folder("stale.sock")));
    wait_for(s, &s->closed, 1);
    end(s, l);
    assert_int_equal(access(path_in_folder("stale.sock"), F_OK), -1); /* removed with the listener */
}

static void test_socket_folder_is_made_private(void **state)
{
    (void)state;
    seen *s = seen_create();
    mode_t old = umask(0);
    bw_stream_listener *l = listen_at(s, path_in_folder("made/x.sock"), 1000, 0);
    umask(old);
    struct stat st;
    assert_int_equal(stat(path_in_folder("made"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0750);
    end(s, l);
    rmdir(path_in_folder("made"));
}

static void test_socket_path_over_107_bytes_is_explained_or_worked_around(void **state)
{
    (void)state;
    seen *s = seen_create();
    char dir[300], url[400];
    snprintf(dir, sizeof dir, "%s/", folder);
    size_t len = strlen(dir);
    memset(dir + len, 'd', 120);
    dir[len + 120] = '\0';
    snprintf(url, sizeof url, "ipc://%s/bus.sock", dir);
    assert_int_equal(try_listen(s, url, false), BW_ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(bw_error_message(), "107"));
    bw_stream_listen_options o = {.url = url, .allow_long_path = true, .gid = -1, .frame_max = 1000, .ops = &ops, .owner = s,
                                  .reactor = unix_reactor.reactor};
    bw_stream_listener *l = NULL;
    assert_int_equal(bw_stream_listen(&o, &l), BW_OK);
    assert_int_equal(chdir(dir), 0);
    close(connect_to("bus.sock"));
    wait_for(s, &s->closed, 1);
    end(s, l);
    assert_int_equal(access("bus.sock", F_OK), -1);
    assert_int_equal(chdir("/"), 0);
    rmdir(dir);
}

static void test_socket_url_without_a_name_is_refused(void **state)
{
    (void)state;
    seen *s = seen_create();
    assert_int_equal(try_listen(s, "ipc://relative.sock", false), BW_ERR_INVALID_ARGUMENT);
    assert_int_equal(try_listen(s, "ipc:///tmp/", false), BW_ERR_INVALID_ARGUMENT);
    assert_int_equal(try_listen(s, "ipc:///nowhere/at/all/bus.sock", false), BW_ERR_NOT_FOUND);
    free(s);
}

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/bw-test-stream-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int drop_folder(void **state)
{
    (void)state;
    return rmdir(folder);
}

static int begin_unix(void **state) { return make_folder(state) == 0 && reactor_thread_start(&unix_reactor) ? 0 : -1; }

static int end_unix(void **state)
{
    reactor_thread_stop(&unix_reactor);
    unix_reactor.reactor = NULL;
    return drop_folder(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stream_byte_by_byte_gives_whole_frames),
        cmocka_unit_test(test_stream_frames_of_all_sizes_come_back),
        cmocka_unit_test(test_stream_oversize_frame_is_refused_by_its_length),
        cmocka_unit_test(test_stream_over_its_credit_is_not_read_from),
        cmocka_unit_test(test_stream_slow_reader_makes_a_backlog_and_drains),
        cmocka_unit_test(test_stream_vanishing_peers_leave_nothing_behind),
        cmocka_unit_test(test_stream_token_outlives_its_connection),
        cmocka_unit_test(test_stream_turned_away_is_closed),
        cmocka_unit_test(test_stream_silent_peer_is_closed_after_the_hello_timeout),
        cmocka_unit_test(test_socket_foreign_file_is_left_alone),
        cmocka_unit_test(test_socket_that_answers_is_left_alone),
        cmocka_unit_test(test_socket_that_is_stale_is_replaced),
        cmocka_unit_test(test_socket_folder_is_made_private),
        cmocka_unit_test(test_socket_path_over_107_bytes_is_explained_or_worked_around),
        cmocka_unit_test(test_socket_url_without_a_name_is_refused),
    };
    int failed = cmocka_run_group_tests_name("nng", tests, make_folder, drop_folder);
    return failed + cmocka_run_group_tests_name("unix", tests, begin_unix, end_unix);
}
