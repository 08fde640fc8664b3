/* client/bus.h: the bus inside: URL, connection, direct environment, the library's thread.
 *
 * Lock order: a producer's or consumer's locks, then bus->direct.mutex, then bus->conn.mutex. bus->mutex guards the list of
 * producers and the thread; nothing else is taken under it but producers' locks by the thread. */
#ifndef BW_CLIENT_BUS_H
#define BW_CLIENT_BUS_H

#include "base/os.h"
#include "client/conn.h"
#include "client/direct.h"
#include "client/url.h"

#include <busway/bus.h>

typedef struct bw_fd_watch bw_fd_watch;
struct bw_readonly;
struct bw_self;
struct bw_standby;
struct bw_backend;

enum { BW_DISK_WAITS_MAX = 16 };
/* How the library's thread sleeps: by a poll that its eventfd ends, or on futexes, thread_sleeps among them. */
typedef enum bw_thread_sleep { BW_THREAD_AWAKE = 0, BW_THREAD_POLLS = 1, BW_THREAD_WAITS = 2 } bw_thread_sleep;

struct bw_bus {
    bw_fork_guard guard;
    const struct bw_backend *backend; /* NULL: a daemon, as nearly always; else backend.h, which has its own in `foreign` */
    void *foreign;
    bw_url url;
    char url_text[PATH_MAX + 64];
    char socket_path[PATH_MAX];
    bw_transport transport;
    int32_t connect_timeout_ms, request_timeout_ms;
    char *client_id, *daemon_path;
    bw_log_fn log;
    void *log_opaque;
    bw_conn conn;
    bw_direct direct;
    struct bw_readonly *readonly; /* mode=ro: there is no connection (client/readonly.h); NULL otherwise */
    _Atomic int64_t next_look_ms; /* wall time of the next look at the connection by those who never use it */
    _Atomic uint32_t handles;     /* producers and consumers that are open */
    _Atomic bool unanswered;      /* something was sent that the daemon does not answer */

    pthread_mutex_t mutex;
    pthread_cond_t idle; /* the thread is done with a producer */
    struct bw_producer *producers; /* all that are open */
    struct bw_consumer *consumers;
    struct bw_producer *serving;   /* the thread is in it */
    pthread_t thread;
    _Atomic bool thread_runs;
    bool thread_stop;
    int thread_fd;                 /* eventfd that wakes it */
    _Atomic uint32_t thread_sleeps, thread_work; /* work: raised by everyone who has something for it. sleeps: bw_thread_sleep */
    bw_os_futex disk_waits[BW_DISK_WAITS_MAX];   /* the thread's: what the disk will wake it by, and how many; more: it looks */
    uint32_t disk_wait_count;
    struct bw_self *self;          /* coordinator=self: what this bus carries, if it does; under the folder's start lock */
    struct bw_standby *_Atomic standby;    /* of a dir: bus with handles; NULL: none (client/standby.h) */
    bw_fd_watch *watch;            /* feeds consumers' descriptors; NULL until the first */

    _Atomic uint64_t records_out, bytes_out, batches_out, records_in, bytes_in, batches_in /* of those that closed */, waits, looks, reconnects;
};

#define BW_CHECK_FORK(bus)                                                                                                     \
    do {                                                                                                                       \
        if (bw_forked(&(bus)->guard)) return bw_bus_forked();                                                                  \
    } while (0)
bw_err bw_bus_forked(void);

void bw_bus_log(bw_bus *bus, bw_log_level level, const char *format, ...) BW_PRINTF(3, 4);
/* bw_bus_connect_conn: bring a connection of this bus up; may_start: starts the daemon of a dir: bus, or waits for the thread that stands
 * by to do it, so that a caller with little time leaves no half-started one behind. */
bw_err bw_bus_connect_conn(bw_bus *bus, bw_conn *conn, bool may_start, bw_deadline deadline);
/* bw_bus_connect: the bus's own, and join again what is attached. Cheap when it is up. */
bw_err bw_bus_connect(bw_bus *bus, bool may_start, bw_deadline deadline);
/* bw_bus_bring_up: the same by the thread that stands by (client/standby.h): starts one itself. */
bw_err bw_bus_bring_up(bw_bus *bus, bw_deadline deadline);
/* bw_bus_request: connect if needed and ask; what changes nothing is asked again over a new connection. */
bw_err bw_bus_request(bw_bus *bus, bw_request *request, bw_deadline deadline, bw_reply *reply);
/* bw_bus_look: at most once a second: notice that the daemon went and come back to a new one (never starts one; where a thread stands by
 * for that, it does). now_ms: wall. */
static inline bool bw_bus_look_due(bw_bus *bus, int64_t now_ms)
{
    return __builtin_expect(now_ms >= atomic_load_explicit(&bus->next_look_ms, memory_order_relaxed), 0);
}
void bw_bus_look(bw_bus *bus, int64_t now_ms);
bw_deadline bw_bus_request_deadline(const bw_bus *bus);
/* bw_bus_conn_options: of a connection of this bus; push and opaque are the caller's. */
static inline bw_conn_options bw_bus_conn_options(const bw_bus *bus)
{
    return (bw_conn_options){.client_id = bus->client_id, .remote = bus->url.remote ? &bus->url.at : NULL, .patience_ms = bus->connect_timeout_ms};
}

/* bw_bus_socket_kind: "ipc", "tcp", "tls": which socket what is not direct goes through. */
static inline const char *bw_bus_socket_kind(const bw_bus *bus) { return bus->url.at.tls ? "tls" : bus->url.remote ? "tcp" : "ipc"; }

/* bw_bus_count_handle: a producer, consumer or queue was opened. */
void bw_bus_count_handle(bw_bus *bus);

/* bw_bus_mailbox: ask the daemon for a mailbox of our own. PROTOCOL when it gives one that is nobody's to give. */
bw_err bw_bus_mailbox(bw_bus *bus, uint32_t *number);

/* What METADATA says of one topic. */
typedef struct bw_topic_info {
    bw_uuid id;
    int32_t partitions;
    bool log_append_time;
    int codec; /* bw_codec, or -1: the producer's choice */
    uint32_t message_max;
} bw_topic_info;
bw_err bw_bus_topic_info(bw_bus *bus, const char *topic, bool create, bw_deadline deadline, bw_topic_info *out);

#endif
