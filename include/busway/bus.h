/* busway/bus.h: a bus is one process's connection to a Busway: a folder, a daemon.
 *
 * URLs
 *   dir:/path            embedded: nothing to start. The library starts a private, detached
 *                        `buswayd --idle-exit 30s` for that folder; the next process finds it; whoever needs it starts
 *                        another when it was killed: a thread of the bus, while it has producers, consumers or queues. A
 *                        daemon that was started by itself for that folder is used instead. `dir:./x` is relative to the
 *                        working directory. Options: ?idle-exit=30s
 *   dir:/path?coordinator=self   for programs that may not start others: where nobody serves the folder, this process does,
 *                        in threads of its own (libbusway-coordinator.so), until the bus is closed
 *   dir:/path?mode=ro    the folder's files alone: no coordinator, nothing written, no lock taken. For a copy, a backup, a
 *                        read-only mount, another user's folder, or one that is being written to (read up to its last whole
 *                        batch; a record whose writer died before it was acknowledged may be seen, and vanish). Consumers by
 *                        assignment (read_uncommitted, visible), offsets and times, descriptions and status; everything
 *                        else is READ_ONLY
 *   ipc:///run/x/bus.sock  a daemon that already runs
 *   tcp://host:7290, tls+tcp://host:7290   a daemon on another host that has a listener: everything but the direct path and mailboxes.
 *                        Who you are: tls+tcp://user@host?password-file=F (or $BUSWAY_PASSWORD), ?token-file=F (or $BUSWAY_TOKEN),
 *                        ?certificate=F&key=F. ?ca=F: whose signature counts (default: the system's); ?server-name=N; ?heartbeat=60s;
 *                        ?insecure=yes: a secret may go over a network that is not encrypted
 *   kafka://b1:9092,b2:9092   an Apache Kafka cluster, through librdkafka (2.0 or newer; loaded when it is first needed): producers,
 *                        consumers, groups, transactions, administration, by the same calls. Options are librdkafka's own, passed on
 *                        (?security.protocol=sasl_ssl&sasl.mechanism=SCRAM-SHA-512&sasl.username=U&ssl.ca.location=F, %XX for a byte), or
 *                        ?config=FILE with a NAME=VALUE a line, for passwords; those that these headers have an option for are refused.
 *                        acks visible and durable: all replicas (visible without idempotence: the leader). A batch is whole only in
 *                        a transaction. A consumer without a group_id is "busway" to the cluster and commits nothing. Not there, with
 *                        UNSUPPORTED and the reason: reserve, state, queues, quotas, links, a timestamp of 0
 *   (NULL)               $BUSWAY_URL; else ipc:///run/busway/bus.sock if /run/busway exists; else
 *                        dir:${XDG_DATA_HOME:-~/.local/share}/busway, which is said through the log callback
 * Every URL takes ?transport=auto|direct|ipc.
 *
 * Threads: a bus may be used from any thread. It has no thread of its own until the first asynchronous send, but one of a folder (dir:)
 * has one that sleeps until the daemon goes.
 * Fork: every handle refuses in the child (BW_ERR_FORKED); a bus opened in the child works. */
#ifndef BUSWAY_BUS_H
#define BUSWAY_BUS_H

#include <busway/error.h>
#include <busway/record.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct bw_bus bw_bus;

typedef enum bw_transport {
    BW_TRANSPORT_AUTO = 0,   /* direct where permitted, else ipc */
    BW_TRANSPORT_DIRECT = 1, /* direct or an error that says why not */
    BW_TRANSPORT_IPC = 2,    /* everything through the daemon's socket */
} bw_transport;

typedef enum bw_log_level { BW_LOG_ERROR = 3, BW_LOG_WARN = 4, BW_LOG_INFO = 6, BW_LOG_DEBUG = 7 } bw_log_level;

/* Called from whichever thread hit the event; must not call back into the library. The library itself never prints. */
typedef void (*bw_log_fn)(void *opaque, bw_log_level level, const char *message);

typedef struct bw_bus_options {
    size_t size; /* sizeof(bw_bus_options); set by BW_BUS_OPTIONS_INIT */
    bw_transport transport;
    int32_t connect_timeout_ms; /* default 5000; also the wait for an embedded daemon to come up */
    int32_t request_timeout_ms; /* default 30000; bound of each administrative request */
    const char *client_id;      /* shown by `busway status`; default: the program's name */
    bw_log_fn log;
    void *log_opaque;
    const char *daemon_path; /* buswayd for dir: URLs; default: $BUSWAYD, beside the program or library, then $PATH */
} bw_bus_options;

#define BW_BUS_OPTIONS_INIT {sizeof(bw_bus_options), BW_TRANSPORT_AUTO, 5000, 30000, NULL, NULL, NULL, NULL}

/* bw_bus_open: connect. url NULL: see above; options NULL: the defaults. *out is owned by the caller: bw_bus_close.
 * Errors: INVALID_ARGUMENT (URL), NO_COORDINATOR (nobody answers), NOT_PERMITTED, UNSUPPORTED_VERSION (both numbers in the
 * message), NEWER_FORMAT, ALREADY_RUNNING, DISK_FULL, IO. Since 0.1. */
BW_API bw_err bw_bus_open(const char *url, const bw_bus_options *options, bw_bus **out);

/* bw_bus_close: close; every producer and consumer of it must be closed before. NULL is allowed. */
BW_API void bw_bus_close(bw_bus *bus);

/* bw_bus_stats: what this bus does, as one JSON object: url, transport ("direct" or "ipc") and why not direct per topic,
 * counters of records, bytes, waits and system calls. The caller frees it with bw_free. NULL when memory is short. */
BW_API char *bw_bus_stats(bw_bus *bus);

/* bw_free: frees what a call of this library returned as "free with bw_free". */
BW_API void bw_free(void *memory);

#ifdef __cplusplus
}
#endif
#endif
