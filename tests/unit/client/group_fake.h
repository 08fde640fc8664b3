/* tests/unit/client/group_fake.h: a scripted daemon for members of groups: it answers, notes what it heard, pushes and hangs up as told. */
#ifndef BW_TESTS_CLIENT_GROUP_FAKE_H
#define BW_TESTS_CLIENT_GROUP_FAKE_H

#include "client/consumer_group.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <cmocka.h>

#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { PEERS = 8, PARTS = 16 };

typedef struct peer { int fd; bw_buf in; bool member; } peer;

/* The daemon. `lock` guards everything; what it heard is in `log`, one word a request. */
typedef struct fake {
    pthread_mutex_t lock;
    pthread_t thread;
    char path[128];
    int listener, stop[2];
    peer peers[PEERS];
    char log[8192];
    char assign[256]; /* "t/0@5,t/1@-1" */
    int32_t epoch, lease_ms;
    int64_t records;     /* each partition's end */
    bw_err join_error, beat_error, commit_error; /* the next one is answered so */
    int commit_errors;   /* so many */
    bool swallow;        /* commits are not answered */
    int joins, beats, commits;
} fake;

static void note(fake *f, const char *format, ...) BW_PRINTF(2, 3);
static void note(fake *f, const char *format, ...)
{
    size_t at = strlen(f->log);
    va_list args;
    va_start(args, format);
    vsnprintf(f->log + at, sizeof f->log - at, format, args);
    va_end(args);
}

static void say(int fd, bw_answer *a)
{
    bw_buf out = {0};
    assert_int_equal(bw_answer_encode(a, &out, false), BW_OK);
    if (send(fd, out.data, out.len, MSG_NOSIGNAL) < 0) {} /* it went away */
    bw_buf_free(&out);
}

static size_t parse_parts(const char *text, bw_offset_part *parts, char names[PARTS][16])
{
    size_t n = 0;
    for (const char *at = text; at && *at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL, n++) {
        int partition;
        long long offset;
        assert_int_equal(sscanf(at, "%15[^/]/%d@%lld", names[n], &partition, &offset), 3);
        parts[n] = (bw_offset_part){.topic = bw_str_of(names[n]), .partition = partition, .offset = offset, .leader_epoch = -1, .timestamp = -1};
    }
    return n;
}

static void note_parts(fake *f, const bw_group_request *g)
{
    for (size_t i = 0; i < g->part_count; i++)
        note(f, "%s%.*s/%d@%lld", i ? "," : "", (int)g->parts[i].topic.len, g->parts[i].topic.data, g->parts[i].partition,
             (long long)g->parts[i].offset);
}

static void push_data(fake *f, int fd, const bw_request *q, int64_t from)
{
    bw_buf payload = {0};
    for (int64_t o = from; o < f->records; o++) {
        bw_record r = {.value = "v", .value_len = 1, .timestamp_ms = 1};
        bw_batch_builder b;
        bw_batch_options bo = {.codec = BW_CODEC_NONE, .producer_id = -1, .producer_epoch = -1, .base_sequence = -1};
        uint8_t *batch;
        size_t len;
        bw_batch_builder_init(&b);
        assert_int_equal(bw_batch_builder_add(&b, &r), BW_OK);
        assert_int_equal(bw_batch_builder_finish(&b, &bo, &batch, &len), BW_OK);
        bw_batch_patch(batch, o, 3);
        assert_int_equal(bw_buf_append(&payload, batch, len), BW_OK);
        bw_batch_builder_fini(&b);
    }
    if (payload.len) {
        bw_answer a;
        bw_answer_init(&a, NULL);
        a.subscription = q->subscription;
        a.payload = payload.data;
        a.payload_len = payload.len;
        say(fd, &a);
    }
    bw_buf_free(&payload);
}

static void answer_group(fake *f, peer *p, const bw_request *q, bw_answer *a)
{
    const bw_group_request *g = &q->group;
    static bw_offset_part parts[PARTS];
    static char names[PARTS][16];
    switch (q->type) {
    case BW_API_GROUP_JOIN:
        assert_true(g->member.len > 0); /* its own choice, so that a join can be asked again */
        note(f, "join(%.*s,%d,", g->epoch < 0 ? 0 : (int)g->member.len, g->member.data, g->epoch);
        note_parts(f, g);
        note(f, ") ");
        a->error = f->join_error;
        f->join_error = BW_OK;
        f->joins++;
        p->member = true;
        a->group.member = bw_str_of(f->epoch > 100 ? "m2" : "m1");
        a->group.epoch = ++f->epoch;
        a->group.lease_ms = f->lease_ms;
        a->group.has_parts = true;
        a->group.part_count = parse_parts(f->assign, parts, names);
        a->group.parts = parts;
        break;
    case BW_API_GROUP_HEARTBEAT:
        note(f, g->has_owned ? "owns(" : "beat(");
        note_parts(f, g);
        note(f, ")%d ", g->epoch);
        a->error = f->beat_error;
        f->beat_error = BW_OK;
        f->beats++;
        a->group.epoch = f->epoch;
        a->group.lease_ms = f->lease_ms;
        break;
    case BW_API_OFFSET_COMMIT:
        note(f, "commit(");
        note_parts(f, g);
        note(f, ")%d ", g->epoch);
        f->commits++;
        if (f->commit_errors > 0) {
            f->commit_errors--;
            a->error = f->commit_error;
        }
        a->group.parts = g->parts;
        a->group.part_count = g->part_count;
        break;
    case BW_API_OFFSET_FETCH:
        for (size_t i = 0; i < g->part_count; i++) {
            g->parts[i].offset = 40 + g->parts[i].partition;
            g->parts[i].metadata = bw_str_of("noted");
        }
        a->group.parts = g->parts;
        a->group.part_count = g->part_count;
        break;
    default:
        if (q->type == BW_API_GROUP_LEAVE) note(f, "leave(%.*s) ", (int)g->member.len, g->member.data);
    }
}

static void answer(fake *f, peer *p, const bw_frame *frame)
{
    bw_request q;
    bw_answer a;
    assert_int_equal(bw_request_decode(frame, &q), BW_OK);
    bw_answer_init(&a, &q);
    a.version = BW_PROTOCOL_VERSION;
    a.data_dir = a.server_version = bw_str_of("x");
    if (q.type == BW_API_SUBSCRIBE) {
        a.offset = q.offset == BW_OFFSET_BEGINNING ? 0 : q.offset == BW_OFFSET_END ? f->records : q.offset;
        note(f, "read(%.*s/%d@%lld) ", (int)q.topic.len, q.topic.data, q.partition, (long long)q.offset);
    }
    answer_group(f, p, &q, &a);
    if (q.type != BW_API_CREDIT && !(q.type == BW_API_OFFSET_COMMIT && f->swallow)) say(p->fd, &a);
    if (q.type == BW_API_SUBSCRIBE) push_data(f, p->fd, &q, a.offset);
    bw_request_fini(&q);
}

static void peer_end(peer *p)
{
    close(p->fd);
    bw_buf_free(&p->in);
    *p = (peer){.fd = -1};
}

static void peer_read(fake *f, peer *p)
{
    assert_int_equal(bw_buf_reserve(&p->in, 65536), BW_OK);
    ssize_t n = recv(p->fd, p->in.data + p->in.len, 65536, MSG_DONTWAIT);
    if (n <= 0) {
        if (n == 0) peer_end(p);
        return;
    }
    p->in.len += (size_t)n;
    bw_frame frame;
    size_t used, need;
    while (p->fd >= 0 && bw_frame_parse(p->in.data, p->in.len, BW_FRAME_MAX_DEFAULT, &frame, &used, &need) == BW_OK) {
        answer(f, p, &frame);
        bw_buf_consume(&p->in, used);
    }
}

static void *run(void *opaque)
{
    fake *f = opaque;
    for (;;) {
        struct pollfd fds[PEERS + 2] = {{f->listener, POLLIN, 0}, {f->stop[0], POLLIN, 0}};
        pthread_mutex_lock(&f->lock);
        for (int i = 0; i < PEERS; i++) fds[i + 2] = (struct pollfd){f->peers[i].fd, POLLIN, 0};
        pthread_mutex_unlock(&f->lock);
        poll(fds, PEERS + 2, 20);
        if (fds[1].revents) return NULL;
        pthread_mutex_lock(&f->lock);
        for (int i = 0; i < PEERS; i++)
            if (f->peers[i].fd >= 0) peer_read(f, &f->peers[i]);
        if (fds[0].revents) {
            int i = 0;
            while (f->peers[i].fd >= 0) i++;
            f->peers[i] = (peer){.fd = accept(f->listener, NULL, NULL)};
        }
        pthread_mutex_unlock(&f->lock);
    }
}

static void fake_start(fake *f)
{
    static int number;
    const char *tmp = getenv("TMPDIR");
    *f = (fake){.epoch = 4, .lease_ms = 30000, .records = 100};
    pthread_mutex_init(&f->lock, NULL);
    for (int i = 0; i < PEERS; i++) f->peers[i].fd = -1;
    snprintf(f->path, sizeof f->path, "%s/group-%d-%d.sock", tmp ? tmp : "/tmp", (int)getpid(), number++);
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    memcpy(a.sun_path, f->path, strlen(f->path));
    f->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(f->listener, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(f->listener, 8), 0);
    assert_int_equal(pipe(f->stop), 0);
    pthread_create(&f->thread, NULL, run, f);
}

static void fake_stop(fake *f)
{
    assert_int_equal(write(f->stop[1], "", 1), 1);
    pthread_join(f->thread, NULL);
    for (int i = 0; i < PEERS; i++)
        if (f->peers[i].fd >= 0) peer_end(&f->peers[i]);
    close(f->listener);
    close(f->stop[0]);
    close(f->stop[1]);
    unlink(f->path);
}

/* To all members; an error instead of an assignment when there is one. */
static void fake_push(fake *f, const char *assign, bw_err e)
{
    bw_offset_part parts[PARTS];
    char names[PARTS][16];
    bw_answer a;
    pthread_mutex_lock(&f->lock);
    bw_answer_init_push(&a, BW_API_GROUP_ASSIGNMENT);
    a.error = e;
    a.message = bw_str_of(e ? "said the fake" : "");
    a.group.id = bw_str_of("g");
    a.group.member = bw_str_of("m1");
    a.group.epoch = ++f->epoch;
    a.group.has_parts = true;
    a.group.part_count = parse_parts(assign, parts, names);
    a.group.parts = parts;
    snprintf(f->assign, sizeof f->assign, "%s", assign);
    for (int i = 0; i < PEERS; i++)
        if (f->peers[i].fd >= 0 && f->peers[i].member) say(f->peers[i].fd, &a);
    pthread_mutex_unlock(&f->lock);
}

static void fake_hang_up(fake *f)
{
    pthread_mutex_lock(&f->lock);
    for (int i = 0; i < PEERS; i++)
        if (f->peers[i].fd >= 0) peer_end(&f->peers[i]);
    pthread_mutex_unlock(&f->lock);
}

static bool heard(fake *f, const char *what)
{
    pthread_mutex_lock(&f->lock);
    bool yes = strstr(f->log, what) != NULL;
    pthread_mutex_unlock(&f->lock);
    return yes;
}

/* The order in which things were said. */
static void assert_heard(fake *f, const char *first, const char *then)
{
    pthread_mutex_lock(&f->lock);
    const char *a = strstr(f->log, first);
    const char *b = a && then ? strstr(a + strlen(first), then) : a;
    if (!a || !b) print_error("not heard: %s%s%s; but: %s\n", first, then ? " then " : "", then ? then : "", f->log);
    pthread_mutex_unlock(&f->lock);
    assert_true(a && b);
}

#endif
