/* embedded/work.c: writers, a reader, a committer, each a process; and one that does nothing but look how long it is kept waiting. */
#include "embedded/embedded.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

enum { PACE_NS = 100000, CALL_MS = 10000, GAP_NS = 1000000 };

static void broke(em_report *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void broke(em_report *r, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (!atomic_load(&r->failed)) vsnprintf(r->why, sizeof r->why, format, args);
    va_end(args);
    atomic_store(&r->failed, 1);
}

static void raise_to(_Atomic int64_t *most, int64_t v)
{
    if (v > atomic_load(most)) atomic_store(most, v);
}

typedef struct stopwatch {
    int64_t at, delay;
    struct rusage usage;
} stopwatch;

/* $EMBEDDED_WATCH: another thread looks where a call is that takes over 1 ms. It costs a wake-up each 300 us. */
static struct {
    _Atomic int64_t began;
    _Atomic int tid;
    char where[600];
} watched;

static void read_into(char *out, size_t size, int tid, const char *what)
{
    char path[64];
    size_t at = strlen(out);
    snprintf(path, sizeof path, "/proc/%d/%s", tid, what);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 || size - at < 2 ? -1 : read(fd, out + at, size - at - 2);
    if (fd >= 0) close(fd);
    n = n > 0 ? n : 0;
    out[at + (size_t)n] = 0;
    for (char *c = out + at; (c = strchr(c, '\n'));) *c = ' ';
}

static void *watch(void *opaque)
{
    (void)opaque;
    for (int64_t seen = 0;; em_sleep_ns(300000)) {
        int64_t began = atomic_load(&watched.began);
        if (!began || began == seen || em_now_ns() - began < GAP_NS) continue;
        seen = began;
        char where[sizeof watched.where] = "";
        unsigned long holder = 0;
        read_into(where, 140, atomic_load(&watched.tid), "syscall");
        if (sscanf(where, "202 %*x 0x9 0x%lx", &holder) == 1) { /* a mutex: who has it? */
            holder &= 0x3fffffff;
            read_into(where, 200, (int)holder, "comm");
            read_into(where, 300, (int)holder, "schedstat");
            read_into(where, sizeof where, (int)holder, "syscall");
            read_into(where, sizeof where, (int)holder, "stack");
        } else {
            read_into(where, sizeof where, atomic_load(&watched.tid), "stack");
        }
        memcpy(watched.where, where, sizeof where);
    }
    return NULL;
}

static void watch_me(void)
{
    pthread_t thread;
    if (!getenv("EMBEDDED_WATCH")) return;
    atomic_store(&watched.tid, (int)gettid());
    pthread_create(&thread, NULL, watch, NULL);
}

static stopwatch begin(void)
{
    stopwatch w = {.delay = em_delay_ns()};
    getrusage(RUSAGE_THREAD, &w.usage);
    w.at = em_now_ns();
    atomic_store_explicit(&watched.began, w.at, memory_order_relaxed);
    return w;
}

static void note_slow(const em_shared *s, em_report *r, const stopwatch *w, int64_t took, int64_t beyond)
{
    struct rusage u;
    getrusage(RUSAGE_THREAD, &u);
    int64_t n = atomic_fetch_add(&r->over, 1);
    if (u.ru_nvcsw > w->usage.ru_nvcsw) atomic_fetch_add(&r->asleep, 1);
    if (n >= EM_OVER_MAX) return;
    r->slow[n] = (em_slow){beyond, took, w->at - atomic_load(&s->killed_ns), u.ru_nvcsw - w->usage.ru_nvcsw,
                           u.ru_minflt - w->usage.ru_minflt, u.ru_majflt - w->usage.ru_majflt, ""};
    memcpy(r->slow[n].where, watched.where, sizeof watched.where);
    watched.where[0] = 0;
}

static void end(const em_shared *s, em_report *r, const stopwatch *w)
{
    int64_t took = em_now_ns() - w->at;
    atomic_store_explicit(&watched.began, 0, memory_order_relaxed);
    int64_t beyond = took > GAP_NS / 4 ? took - (em_delay_ns() - w->delay) : took;
    raise_to(&r->longest_ns, took);
    raise_to(&r->beyond_ns, beyond);
    atomic_fetch_add(&r->calls, 1);
    atomic_fetch_add(&r->inside_ns, took);
    if (beyond > GAP_NS) note_slow(s, r, w, took, beyond);
}

pid_t em_start(em_work work, const em_place *p, em_shared *shared)
{
    fflush(stdout);
    pid_t pid = fork();
    if (pid < 0) em_die("fork: %s", strerror(errno));
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        prctl(PR_SET_TIMERSLACK, 1);
        watch_me();
        work(p, shared);
        _exit(0);
    }
    return pid;
}

/* ---- writers: the value is a number that counts up, and the time ---- */

typedef struct entry {
    int64_t number, sent_ns;
} entry;

/* Where to go on: at the log's end, one past what was acknowledged when this process's predecessor was killed in a call. -1: wrong. */
static int64_t resume(bw_bus *bus, const char *topic, em_report *r)
{
    bw_offset_range range = {0};
    int64_t acked = atomic_load(&r->acked);
    bw_err e = bw_offsets_range(bus, topic, 0, &range);
    if (e && (e != BW_ERR_UNKNOWN_TOPIC || acked)) broke(r, "bw_offsets_range: %s", bw_error_message());
    else if (range.end != acked && range.end != acked + 1)
        broke(r, "%lld records were acknowledged, the log ends at %lld", (long long)acked, (long long)range.end);
    else return range.end;
    return -1;
}

static void write_on(const em_place *p, em_shared *s, em_report *r, const char *topic, bw_transport transport, bw_acks acks)
{
    bw_bus *bus = em_bus(p->url, transport);
    bw_producer_options o = BW_PRODUCER_OPTIONS_INIT;
    bw_producer *producer = NULL;
    o.acks = acks;
    if (bw_producer_open(bus, &o, &producer)) {
        broke(r, "bw_producer_open: %s", bw_error_message());
        return;
    }
    int64_t n = resume(bus, topic, r);
    for (bool first = true; n >= 0 && !atomic_load(&s->stop); first = false) {
        entry e = {n, em_now_ns()};
        bw_record record = {.value = &e, .value_len = sizeof e, .timestamp_ms = BW_NO_TIMESTAMP};
        bw_delivery d;
        stopwatch w = begin();
        bw_err err = bw_producer_send_sync(producer, topic, 0, &record, CALL_MS, &d);
        if (!first) end(s, r, &w);
        if (err) {
            broke(r, "record %lld: %s: %s", (long long)n, bw_err_name(err), bw_error_message());
            break;
        }
        if (d.offset != n) {
            broke(r, "record %lld is at offset %lld", (long long)n, (long long)d.offset);
            break;
        }
        atomic_store(&r->acked, ++n);
        em_sleep_ns(PACE_NS);
    }
    bw_producer_close(producer, 1000);
    bw_bus_close(bus);
}

void em_work_direct(const em_place *p, em_shared *s) { write_on(p, s, &s->direct, "direct", BW_TRANSPORT_DIRECT, BW_ACKS_VISIBLE); }
void em_work_durable(const em_place *p, em_shared *s) { write_on(p, s, &s->durable, "durable", BW_TRANSPORT_DIRECT, BW_ACKS_DURABLE); }
void em_work_socket(const em_place *p, em_shared *s) { write_on(p, s, &s->socket, "socket", BW_TRANSPORT_IPC, BW_ACKS_VISIBLE); }

/* ---- the reader of the direct writer's records ---- */

void em_work_reader(const em_place *p, em_shared *s)
{
    em_report *r = &s->reader;
    bw_bus *bus = em_bus(p->url, BW_TRANSPORT_DIRECT);
    bw_consumer *c = NULL;
    int64_t next = atomic_load(&r->acked), from = next;
    bw_err opened = bw_consumer_open(bus, NULL, &c);
    do opened = c ? bw_consumer_assign(c, "direct", 0, next) : opened;
    while (opened == BW_ERR_UNKNOWN_TOPIC && !atomic_load(&s->stop)); /* the writer has not begun */
    if (opened) {
        broke(r, "bw_consumer_assign: %s", bw_error_message());
        return;
    }
    while (!atomic_load(&s->stop) || next < atomic_load(&s->direct.acked)) {
        bw_batch b;
        bw_record_view v;
        stopwatch w = begin();
        bw_err e = bw_consumer_poll(c, 0, &b);
        if (next > from) end(s, r, &w);
        if (e == BW_ERR_TIMED_OUT) {
            if (next < atomic_load(&s->direct.acked)) continue; /* acknowledged is visible: the next look must find it */
            em_sleep_ns(PACE_NS / 2);
            continue;
        }
        if (e) {
            broke(r, "%s: %s", bw_err_name(e), bw_error_message());
            break;
        }
        while (bw_batch_next(&b, &v) == 1) {
            entry got;
            if (v.value_len != sizeof got) continue;
            memcpy(&got, v.value, sizeof got);
            if (got.number != next) broke(r, "record %lld where %lld was due", (long long)got.number, (long long)next);
            next = got.number + 1;
        }
        atomic_store(&r->acked, next);
    }
    bw_consumer_close(c);
    bw_bus_close(bus);
}

/* ---- commits ---- */

static bw_consumer *committer(bw_bus *bus)
{
    bw_consumer_options o = BW_CONSUMER_OPTIONS_INIT;
    bw_consumer *c = NULL;
    o.group_id = "g";
    o.enable_auto_commit = false;
    return bw_consumer_open(bus, &o, &c) ? NULL : c;
}

void em_work_commits(const em_place *p, em_shared *s)
{
    em_report *r = &s->commits;
    bw_bus *bus = em_bus(p->url, BW_TRANSPORT_AUTO);
    bw_consumer *c = committer(bus);
    if (!c) {
        broke(r, "bw_consumer_open: %s", bw_error_message());
        return;
    }
    for (int64_t n = atomic_load(&r->acked) + 1; !atomic_load(&s->stop);) {
        if (atomic_load(&s->direct.acked) <= n) { /* no further than the log's end */
            em_sleep_ns(PACE_NS);
            continue;
        }
        bw_topic_partition part = {.topic = "direct", .partition = 0, .offset = n, .leader_epoch = -1};
        stopwatch w = begin();
        bw_err e = bw_consumer_commit(c, &part, 1, CALL_MS);
        end(s, r, &w);
        if (e && !bw_err_is_retriable(e)) {
            broke(r, "commit %lld: %s: %s", (long long)n, bw_err_name(e), bw_error_message());
            break;
        }
        if (!e) atomic_store(&r->acked, n++);
        em_sleep_ns(10 * PACE_NS);
    }
    bw_consumer_close(c);
    bw_bus_close(bus);
}

void em_work_control(const em_place *p, em_shared *s)
{
    (void)p;
    while (!atomic_load(&s->stop)) {
        stopwatch w = begin();
        while (em_now_ns() - w.at < PACE_NS / 20) {}
        end(s, &s->control, &w);
        em_sleep_ns(PACE_NS);
    }
}

/* ---- afterwards ---- */

bool em_check_log(bw_bus *bus, const char *topic, const em_report *r, const char *who)
{
    bw_consumer *c = NULL;
    bw_offset_range range;
    int64_t acked = atomic_load(&r->acked), next = 0, wrong = 0;
    if (bw_offsets_range(bus, topic, 0, &range) || bw_consumer_open(bus, NULL, &c) || bw_consumer_assign(c, topic, 0, BW_OFFSET_BEGINNING))
        em_die("%s: %s", topic, bw_error_message());
    for (int64_t until = em_now_ns() + 30000000000; next < range.end && em_now_ns() < until;) {
        bw_batch b;
        bw_record_view v;
        if (bw_consumer_poll(c, 100, &b)) continue;
        while (bw_batch_next(&b, &v) == 1) {
            entry got = {-1, 0};
            if (v.value_len == sizeof got) memcpy(&got, v.value, sizeof got);
            wrong += got.number != next || v.offset != next;
            next++;
        }
    }
    bw_consumer_close(c);
    return em_verdict(wrong == 0 && next >= acked && next <= acked + 1, "%s: %lld records acknowledged, %lld in the log, each once and in order",
                      who, (long long)acked, (long long)next);
}

bool em_check_commit(bw_bus *bus, const em_report *r)
{
    bw_topic_partition part = {.topic = "direct", .partition = 0};
    bw_consumer *c = committer(bus);
    if (!c || bw_consumer_committed(c, &part, 1, CALL_MS)) em_die("bw_consumer_committed: %s", bw_error_message());
    int64_t acked = atomic_load(&r->acked), found = part.offset;
    bw_consumer_close(c);
    return em_verdict(found >= acked && found <= acked + 1, "commits: %lld acknowledged, %lld committed", (long long)acked, (long long)found);
}

bool em_check_reports(em_shared *s)
{
    const struct { em_report *r; const char *who; } all[] = {
        {&s->direct, "the direct writer"}, {&s->durable, "the durable writer"}, {&s->socket, "the writer through the socket"},
        {&s->reader, "the reader"}, {&s->commits, "the committer"}};
    bool good = true;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        bool fine = !atomic_load(&all[i].r->failed) && atomic_load(&all[i].r->acked) > 0;
        good &= em_verdict(fine, "%s met no error%s%s", all[i].who, all[i].r->why[0] ? ": " : "", all[i].r->why);
    }
    return good;
}

void em_print_gaps(const em_report *r, const char *who, bool each)
{
    printf("      %-28s %8lld calls, %7.1f ms within them, longest %8.3f ms; without waiting for a processor %8.3f ms, %lld over 1 ms\n", who,
           (long long)atomic_load(&r->calls), (double)atomic_load(&r->inside_ns) / 1e6, (double)atomic_load(&r->longest_ns) / 1e6,
           (double)atomic_load(&r->beyond_ns) / 1e6, (long long)atomic_load(&r->over));
    for (int i = 0; each && i < EM_OVER_MAX && i < atomic_load(&r->over); i++) {
        const em_slow *w = &r->slow[i];
        printf("          %.3f ms of %.3f, begun %.3f ms after a kill; slept %ld times, %ld pages mapped, %ld read\n", (double)w->beyond_ns / 1e6,
               (double)w->took_ns / 1e6, (double)w->after_ns / 1e6, w->sleeps, w->faults, w->reads);
        if (w->where[0]) printf("            %s\n", w->where);
    }
}
