/* broker/broker.h: what the daemon does, without sockets: the listener decodes, calls this, and encodes the answers.
 *
 * Threads. Requests are handled in *turns* (transport/reactor.h), in the order of each session: by the thread that serves the reactor's
 * sockets, or by the one that sleeps on the broker's mailbox (BW_MAILBOX_BROKER). "The broker thread" below is the one whose turn it
 * is; it never syncs data files. One *keeper thread* does the file work (log/partition.h: tend, sync, retain)
 * and sleeps on BW_MAILBOX_COORDINATOR, at most 1 s. LMDB is written by both, never from a network callback. */
#ifndef BW_BROKER_BROKER_H
#define BW_BROKER_BROKER_H

#include "broker/config.h"
#include "proto/message.h"
#include "transport/reactor.h"

#include <sys/types.h>

typedef struct bw_broker bw_broker;

/* Who is at the other end, as the kernel says. pid_fd -1 when there is none (tcp, gone). */
typedef struct bw_peer {
    int64_t uid, gid;
    pid_t pid;
    uint64_t start_time;
    bool remote;       /* on another host, as far as anybody knows: uid, gid and pid say nothing */
    char subject[128]; /* a remote one: whom its verified certificate names, or "" */
    char address[128]; /* "ipc pid 123", "tcp 192.0.2.1:4711", "tls …", for logs and status */
} bw_peer;

typedef enum bw_role { BW_ROLE_NONE = 0, BW_ROLE_READER = 1 /* consume */, BW_ROLE_CLIENT = 2 /* produce, consume */, BW_ROLE_ADMIN = 3 } bw_role;

/* bw_session_role: what its peer may do now. Broker thread (within `reply`). */
typedef struct bw_session bw_session;
bw_role bw_session_role(const bw_session *s);
/* bw_role_name, bw_role_of_name: "none", "reader", "client", "admin"; -1: it is none of them. */
const char *bw_role_name(bw_role role);
int bw_role_of_name(const char *name, size_t len);

/* bw_event_text: text as a value of an event's fields: quoted and escaped when it must be. Returns out. */
const char *bw_event_text(const char *text, char *out, size_t size);

/* A connection (or one REP message's sender). Made by the listener, owned by the broker between attach and the callback `gone`. */
typedef struct bw_session bw_session;
typedef struct bw_session_ops {
    /* Send one answer (or DATA). Encodes before it returns: nothing of `a` is kept. Called by the broker thread only; must not
     * block. payload may be passed as several pieces by bw_answer.payload only once. */
    void (*reply)(void *listener_session, const bw_answer *a);
    /* The request's memory is no longer needed; its bytes count no more against the connection's limit. */
    void (*consumed)(void *listener_session, void *request_token);
    /* Bytes queued to be written to the peer: the broker pushes no DATA above a bound. */
    size_t (*backlog)(void *listener_session);
    /* The broker forgot the session; free it. */
    void (*gone)(void *listener_session);
} bw_session_ops;

bw_err bw_broker_start(const bw_daemon_config *config, bw_broker **out);
/* bw_broker_stop: answer what is queued, stop both threads, close partitions (trim when no direct writer is attached), LMDB. */
void bw_broker_stop(bw_broker *b);
/* bw_broker_idle_ms: how long there has been no session; for --idle-exit. 0 while there is one. */
int64_t bw_broker_idle_ms(bw_broker *b);

/* bw_broker_reactor: for sockets that are to be served in the broker's turns; lives as long as the broker. */
bw_reactor *bw_broker_reactor(bw_broker *b);

/* Listener calls, any thread, never block: */
bw_session *bw_broker_session_open(bw_broker *b, const bw_session_ops *ops, void *listener_session, const bw_peer *peer);
/* bw_broker_submit: hand over a decoded request (moved: the broker calls bw_request_fini). token comes back through `consumed`
 * when nothing of the request's memory is used any more. */
void bw_broker_submit(bw_broker *b, bw_session *s, const bw_request *request, void *token);
/* bw_broker_submit_here: the same, and takes the turn: what can be done at once was done by this thread when it returns (answers come to the
 * session meanwhile), and nobody had to be woken for it. It may block for as long as a turn takes; not from within one. */
void bw_broker_submit_here(bw_broker *b, bw_session *s, const bw_request *request, void *token);
/* bw_broker_writable: the session's backlog shrank. */
void bw_broker_writable(bw_broker *b, bw_session *s);
/* bw_broker_session_closed: the peer is gone. After it `gone` comes, once. */
void bw_broker_session_closed(bw_broker *b, bw_session *s);

#endif
