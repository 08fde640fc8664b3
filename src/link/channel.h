/* link/channel.h: a way to ask a daemon: this one, in-process (a session of its broker, without a socket), or another one through a
 * connection. Both take the same requests and give the same answers, so that nothing above knows which it is.
 *
 * Threads: a channel belongs to one thread, which calls everything here; answers are handed out within bw_channel_wait,
 * bw_channel_dispatch and bw_channel_request, never anywhere else. Requests that were sent are answered in any order; of one partition in
 * theirs. When a connection is lost everything that waits is told NOT_CONNECTED, and the channel may be connected again. */
#ifndef BW_LINK_CHANNEL_H
#define BW_LINK_CHANNEL_H

#include "base/clock.h"
#include "broker/broker.h"
#include "client/conn.h"

typedef struct bw_channel bw_channel;

/* A request on its way. The caller's, until done was called. */
typedef struct bw_ask {
    struct bw_ask *next;
    /* e: NOT_CONNECTED, PROTOCOL, or what the answer says; the thread's message has why. a: valid during the call; NULL when there is none. */
    void (*done)(struct bw_ask *ask, bw_err e, const bw_answer *a);
    void *opaque;
    uint64_t wire_bytes; /* out: of the answer's frame */
    /* the channel's */
    bw_pending pending;
    bw_channel *channel;
    uint16_t type;
} bw_ask;

/* bw_channel_open_local: to the daemon that this is. It is always connected. name: for status ("link berlin"). stop (both): NULL, or what
 * ends every wait: CLOSED; it outlives the channel. NO_MEMORY. */
bw_err bw_channel_open_local(bw_broker *b, const char *name, const bw_stop *stop, bw_channel **out);
/* bw_channel_open_remote: nothing is connected yet. INVALID_ARGUMENT, UNSUPPORTED: the URL (ipc:, dir:, tcp:, tls+tcp:). */
bw_err bw_channel_open_remote(const char *url, const char *client_id, const bw_stop *stop, bw_channel **out);
/* bw_channel_close: what is under way ends (NOT_CONNECTED) and, for a local one, the broker has forgotten the session. */
void bw_channel_close(bw_channel *c);
bool bw_channel_is_local(const bw_channel *c);

bw_err bw_channel_connect(bw_channel *c, bw_deadline deadline);
bool bw_channel_is_up(bw_channel *c);
void bw_channel_drop(bw_channel *c);

/* bw_channel_submit: send; r and its payload are not kept. On an error done is not called. */
bw_err bw_channel_submit(bw_channel *c, bw_request *r, bw_ask *ask);
/* bw_channel_request: ask and wait; what else is answered meanwhile is handed out too. Always bw_reply_fini. Errors as bw_conn_request. */
bw_err bw_channel_request(bw_channel *c, bw_request *r, bw_deadline deadline, bw_reply *reply);

/* bw_channel_fd: of a local one: readable while answers are there to be dispatched. -1 for a remote one. */
int bw_channel_fd(const bw_channel *c);
/* bw_channel_dispatch: hand out what is there, without waiting. How many. */
size_t bw_channel_dispatch(bw_channel *c);
/* bw_channel_wait: until something was handed out, extra_fd (-1: none) is readable, or the deadline. BW_OK, TIMED_OUT, NOT_CONNECTED, CLOSED. */
bw_err bw_channel_wait(bw_channel *c, int extra_fd, bw_deadline deadline);

/* Bytes that went over the wire so far, frames and all; 0 for a local one. */
void bw_channel_bytes(bw_channel *c, uint64_t *out, uint64_t *in);

#endif
