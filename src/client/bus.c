/* client/bus.c: open and close a bus, keep its connection, ask the daemon.
 *
 * The connection is made when it is needed and found lost when it is used; users of the direct path, who use it never, look once
 * a second (bw_bus_look). A new connection tells the daemon what is attached here before anything else. */
#include "client/bus.h"

#include "client/async.h"
#include "client/backend.h"
#include "client/readonly.h"
#include "client/self.h"
#include "client/spawn.h"
#include "client/standby.h"
#include "client/watch.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LOOK_EVERY_MS = 1000, PART_WAIT_MS = 2000, RECONNECT_NAP_NS = 20000000, AGAIN_NAP_NS = 2000000, STARTS_MAX = 3 };

bw_err bw_bus_forked(void)
{
    return bw_fail(BW_ERR_FORKED, "this handle belongs to the parent process; open a bus in this one");
}

void bw_bus_log(bw_bus *bus, bw_log_level level, const char *format, ...)
{
    if (!bus->log) return;
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    bus->log(bus->log_opaque, level, text);
}

bw_deadline bw_bus_request_deadline(const bw_bus *bus) { return bw_deadline_in_ms(bus->request_timeout_ms); }

/* ---- connecting ---- */

/* Is the daemon that answered the one of this folder? Another one may listen by now where the folder's last coordinator did. */
static bool serves_folder(const bw_bus *bus, bw_conn *conn)
{
    bw_datadir *d = NULL;
    if (bw_datadir_open_client(bus->url.path, &d)) return false;
    pthread_mutex_lock(&conn->mutex);
    bool same = memcmp(d->generation, conn->hello->generation, sizeof d->generation) == 0;
    pthread_mutex_unlock(&conn->mutex);
    bw_datadir_close(d);
    return same;
}

/* To the socket in the folder, or to that of the daemon that has taken the folder over, wherever it is. *refused: nobody is at either. */
static bw_err reach(bw_bus *bus, bw_conn *conn, bw_deadline deadline, bool *refused)
{
    bw_err e = bw_conn_connect(conn, bus->socket_path, deadline, refused);
    if (!e || !*refused || !bus->url.embedded) return e;
    bw_datadir_holder *h = malloc(sizeof *h);
    bool other = h && bw_datadir_ask_holder(bus->url.path, h) == BW_OK && h->socket[0] && strcmp(h->socket, bus->socket_path) != 0;
    if (other) {
        e = bw_conn_connect(conn, h->socket, deadline, refused);
        if (!e && !serves_folder(bus, conn)) {
            bw_conn_drop(conn);
            *refused = true;
            e = BW_ERR_NO_COORDINATOR;
        }
    }
    free(h);
    if (e && *refused) return bw_fail(BW_ERR_NO_COORDINATOR, "no daemon answers at %s", bus->socket_path);
    return e;
}

/* Under the start lock: a coordinator of our own, in this process or in another. */
static bw_err start_own(bw_bus *bus, bw_deadline deadline)
{
    if (bus->url.self_coordinator) return bw_self_start(bus);
    bw_spawn_options o = {bus->url.path, bus->url.idle_exit, bus->daemon_path};
    return bw_spawn_daemon(&o, deadline);
}

static bw_err start_daemon(bw_bus *bus, bw_conn *conn, bw_deadline deadline, int *starts)
{
    int lock = -1;
    bool refused;
    bw_err e = bw_start_lock(bus->url.path, deadline, &lock);
    if (e) return e;
    e = reach(bus, conn, deadline, &refused); /* another process may have started it meanwhile */
    if (e && refused) {
        ++*starts;
        e = start_own(bus, deadline);
        if (!e || e == BW_ERR_ALREADY_RUNNING) {
            bw_err c = reach(bus, conn, deadline, &refused);
            if (!c) e = BW_OK;
            else if (!e) e = c;
        }
    }
    bw_start_unlock(lock);
    return e;
}

/* starts: this thread starts a coordinator if there is none. Otherwise, of a folder with a thread that stands by, that one does. */
static bw_err connect_conn(bw_bus *bus, bw_conn *conn, bool starts, bool waits, bw_deadline deadline)
{
    if (bus->backend) return bw_backend_refuse("this call", "it needs a Busway daemon");
    if (bus->readonly) return bw_readonly_refuse(bus, "what needs a coordinator");
    bw_deadline until = bw_deadline_first(deadline, bw_deadline_in_ms(bus->connect_timeout_ms));
    for (int tries = 0; !bw_conn_is_up(conn);) {
        bool refused = false;
        bw_err e = reach(bus, conn, deadline, &refused);
        if (e && refused && bus->url.embedded && starts) e = start_daemon(bus, conn, until, &tries);
        /* Of a folder: it was killed before it had answered, or while it started, or is just ending and has the folder still. */
        bool again = (e == BW_ERR_NO_COORDINATOR && tries < STARTS_MAX) || e == BW_ERR_ALREADY_RUNNING;
        if (!e || !again || !bus->url.embedded || !(starts || waits) || bw_deadline_left_ns(until) == 0)
            return e && waits ? bw_standby_explain(bus, e) : e;
        nanosleep(&(struct timespec){.tv_nsec = AGAIN_NAP_NS}, NULL);
    }
    return BW_OK;
}

bw_err bw_bus_connect_conn(bw_bus *bus, bw_conn *conn, bool may_start, bw_deadline deadline)
{
    bool other = atomic_load(&bus->standby) != NULL;
    return bw_conn_is_up(conn) ? BW_OK : connect_conn(bus, conn, may_start && !other, may_start && other, deadline);
}

static bw_err connected(bw_bus *bus, bw_err e, uint32_t before)
{
    if (e || before == 0 || atomic_load(&bus->conn.epoch) == before) return e;
    atomic_fetch_add(&bus->reconnects, 1);
    bw_bus_log(bus, BW_LOG_INFO, "connected again to the daemon at %s", bus->socket_path);
    bw_direct_rejoin(bus);
    return BW_OK;
}

bw_err bw_bus_connect(bw_bus *bus, bool may_start, bw_deadline deadline)
{
    if (bus->readonly || bw_conn_is_up(&bus->conn)) return BW_OK;
    uint32_t before = atomic_load(&bus->conn.epoch);
    return connected(bus, bw_bus_connect_conn(bus, &bus->conn, may_start, deadline), before);
}

bw_err bw_bus_bring_up(bw_bus *bus, bw_deadline deadline)
{
    uint32_t before = atomic_load(&bus->conn.epoch);
    return connected(bus, connect_conn(bus, &bus->conn, true, false, deadline), before);
}

void bw_bus_look(bw_bus *bus, int64_t now_ms)
{
    int64_t due = atomic_load(&bus->next_look_ms);
    if (now_ms < due || !atomic_compare_exchange_strong(&bus->next_look_ms, &due, now_ms + LOOK_EVERY_MS)) return;
    if (!atomic_load(&bus->standby) && !bw_conn_check(&bus->conn)) bw_bus_connect(bus, false, bw_deadline_in_ms(100));
}

void bw_bus_count_handle(bw_bus *bus)
{
    if (atomic_fetch_add(&bus->handles, 1) == 0) bw_standby_start(bus);
}

/* Requests that may be asked twice: their answer is the same. */
static bool may_repeat(uint16_t type)
{
    switch (type) {
    case BW_API_CREATE_TOPIC:
    case BW_API_DELETE_TOPIC:
    case BW_API_ALTER_TOPIC:
    case BW_API_PRODUCE:
    case BW_API_QUEUE_SETTLE:
    case BW_API_QUEUE_DELETE:
        return false;
    default:
        return true;
    }
}

bw_err bw_bus_request(bw_bus *bus, bw_request *q, bw_deadline deadline, bw_reply *reply)
{
    if (bus->readonly) return bw_readonly_request(bus, q, reply);
    if (bus->backend) {
        *reply = (bw_reply){0};
        return bw_backend_refuse_request(q->type);
    }
    bw_deadline connect_until = bw_deadline_first(deadline, bw_deadline_in_ms(bus->connect_timeout_ms));
    for (;;) {
        bw_err e = bw_bus_connect(bus, true, deadline);
        bool asked = false;
        if (!e) {
            e = bw_conn_request(&bus->conn, q, deadline, reply);
            if (e != BW_ERR_NOT_CONNECTED) return e;
            bw_reply_fini(reply);
            asked = true;
        }
        memset(&reply->answer, 0, sizeof reply->answer);
        reply->frame = NULL;
        bool again = (asked && may_repeat(q->type)) || (!asked && (e == BW_ERR_NO_COORDINATOR || e == BW_ERR_NOT_CONNECTED));
        if (!again || bw_deadline_left_ns(connect_until) == 0)
            return asked ? bw_error_context(e, "the outcome of %s is not known", bw_api_name(q->type)) : e;
        if (!asked) nanosleep(&(struct timespec){.tv_nsec = RECONNECT_NAP_NS}, NULL);
    }
}

bw_err bw_bus_topic_info(bw_bus *bus, const char *topic, bool create, bw_deadline deadline, bw_topic_info *out)
{
    bw_request q;
    bw_request_init(&q, BW_API_METADATA);
    q.topic = bw_str_of(topic);
    q.allow_auto_create = create;
    bw_reply reply;
    bw_err e = bw_bus_request(bus, &q, deadline, &reply);
    if (!e && reply.answer.topic_count != 1)
        e = bw_fail(BW_ERR_PROTOCOL, "METADATA for topic %s was answered with %zu topics", topic, reply.answer.topic_count);
    if (!e) {
        const bw_topic_meta *t = &reply.answer.topics[0];
        if (t->error) e = bw_fail((bw_err)t->error, "topic %s: %s", topic, bw_err_text((bw_err)t->error));
        else if (t->partitions < 1 || t->partitions > (int32_t)BW_PARTITIONS_MAX)
            e = bw_fail(BW_ERR_PROTOCOL, "topic %s is said to have %d partitions", topic, t->partitions);
        else {
            *out = (bw_topic_info){t->id, t->partitions, t->log_append_time, -1, t->message_max};
            static const char *const names[] = {"uncompressed", "gzip", "snappy", "lz4", "zstd"};
            for (int i = 0; i < 5; i++)
                if (bw_str_is(t->compression, names[i])) out->codec = i;
            if (bw_str_is(t->compression, "none")) out->codec = BW_CODEC_NONE;
        }
    }
    bw_reply_fini(&reply);
    return e;
}

/* ---- open and close ---- */

static bw_err copy_options(bw_bus *bus, const bw_bus_options *given)
{
    bw_bus_options o = BW_BUS_OPTIONS_INIT;
    if (given) {
        if (given->size < sizeof given->size || given->size > 4096)
            return bw_fail(BW_ERR_INVALID_ARGUMENT, "bus options: size is not set; begin with BW_BUS_OPTIONS_INIT");
        memcpy(&o, given, given->size < sizeof o ? given->size : sizeof o);
    }
    if (o.transport < BW_TRANSPORT_AUTO || o.transport > BW_TRANSPORT_IPC || o.connect_timeout_ms < 1 || o.request_timeout_ms < 1)
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "bus options: transport must be known, time-outs at least 1 ms");
    bus->transport = bus->url.transport_given ? bus->url.transport : o.transport;
    if (bus->url.remote) {
        if (bus->transport == BW_TRANSPORT_DIRECT)
            return bw_fail(BW_ERR_UNSUPPORTED, "transport=direct: shared memory does not reach to the daemon at %s; use auto", bus->url.path);
        bus->transport = BW_TRANSPORT_IPC;
    }
    bus->connect_timeout_ms = o.connect_timeout_ms;
    bus->request_timeout_ms = o.request_timeout_ms;
    bus->log = o.log;
    bus->log_opaque = o.log_opaque;
    bus->client_id = strdup(o.client_id && *o.client_id ? o.client_id : program_invocation_short_name);
    bus->daemon_path = o.daemon_path ? strdup(o.daemon_path) : NULL;
    if (!bus->client_id || (o.daemon_path && !bus->daemon_path)) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a bus");
    return BW_OK;
}

static bw_err set_paths(bw_bus *bus)
{
    bw_url_print(&bus->url, bus->url_text, sizeof bus->url_text);
    int n = snprintf(bus->socket_path, sizeof bus->socket_path, "%s%s", bus->url.path, bus->url.embedded ? "/run/bus.sock" : "");
    if (n < 0 || (size_t)n >= sizeof bus->socket_path) return bw_fail(BW_ERR_INVALID_ARGUMENT, "the bus's path is too long");
    return BW_OK;
}

static void bus_free(bw_bus *bus)
{
    free(bus->client_id);
    free(bus->daemon_path);
    if (bus->guard.word) bw_fork_guard_fini(&bus->guard);
    free(bus);
}

bw_err bw_bus_open(const char *url, const bw_bus_options *options, bw_bus **out)
{
    if (!out) return bw_fail(BW_ERR_INVALID_ARGUMENT, "bw_bus_open: there is no place for the bus");
    *out = NULL;
    bw_bus *bus = calloc(1, sizeof *bus);
    if (!bus) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a bus");
    bool own_folder = false;
    bw_err e = url && *url ? bw_url_parse(url, &bus->url) : bw_url_choose(&bus->url, &own_folder);
    if (!e) e = copy_options(bus, options);
    if (!e && bus->url.kafka) e = bw_backend_kafka(&bus->backend);
    if (!e) e = set_paths(bus);
    if (!e && bw_fork_guard_init(&bus->guard) < 0) e = bw_fail(BW_ERR_NO_MEMORY, "no memory for a bus");
    bw_conn_options conn_options = bw_bus_conn_options(bus);
    if (!e) e = bw_conn_init(&bus->conn, &conn_options);
    if (e) {
        bus_free(bus);
        return e;
    }
    bus->thread_fd = -1;
    pthread_mutex_init(&bus->mutex, NULL);
    pthread_cond_init(&bus->idle, NULL);
    bw_direct_init(&bus->direct);
    if (own_folder) bw_bus_log(bus, BW_LOG_WARN, "no URL was given: using %s", bus->url_text);
    bw_deadline deadline = bw_deadline_in_ms(bus->connect_timeout_ms);
    e = bus->backend ? bus->backend->bus_open(bus, deadline) : bus->url.read_only ? bw_readonly_open(bus) : bw_bus_connect(bus, true, deadline);
    if (e) {
        bw_bus_close(bus);
        return e;
    }
    *out = bus;
    return BW_OK;
}

void bw_bus_close(bw_bus *bus)
{
    if (!bus) return;
    if (bw_forked(&bus->guard)) { /* locks and maps are the parent's: only the descriptors go */
        bw_conn_abandon(&bus->conn);
        return;
    }
    if (bus->backend) bus->backend->bus_close(bus);
    bw_standby_stop(bus);
    bw_async_stop(bus);
    bw_watch_stop(bus);
    if (atomic_load(&bus->unanswered)) bw_conn_part(&bus->conn, bw_deadline_in_ms(PART_WAIT_MS));
    bw_direct_fini(&bus->direct);
    bw_readonly_close(bus);
    bw_conn_fini(&bus->conn);
    bw_self_stop(bus); /* last: it serves this bus, too */
    pthread_mutex_destroy(&bus->mutex);
    pthread_cond_destroy(&bus->idle);
    bus_free(bus);
}

void bw_free(void *memory) { free(memory); }

bw_err bw_bus_mailbox(bw_bus *bus, uint32_t *number)
{
    bw_request q;
    bw_request_init(&q, BW_API_MAILBOX);
    bw_reply reply;
    bw_err e = bw_bus_request(bus, &q, bw_bus_request_deadline(bus), &reply);
    if (!e) *number = reply.answer.mailbox;
    bw_reply_fini(&reply);
    if (!e && (*number <= BW_MAILBOX_SYNCER || *number >= BW_MAILBOXES))
        e = bw_fail(BW_ERR_PROTOCOL, "the daemon gave mailbox %u, which can't be", *number);
    return e;
}
