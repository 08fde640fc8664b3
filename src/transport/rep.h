/* transport/rep.h: a plain nng REP socket: one request a message, one answer each, a few at once.
 *
 * For programs that have nng and msgpack but not Busway's library. A message is a frame without its length field.
 * Lifetime: an exchange lives from its request to bw_rep_answer, which must come exactly once, from any thread. */
#ifndef BW_TRANSPORT_REP_H
#define BW_TRANSPORT_REP_H

#include "transport/stream.h"

#define BW_REP_CONTEXTS 16u /* requests under way at once; more wait at their senders */

typedef struct bw_rep bw_rep;
typedef struct bw_rep_exchange bw_rep_exchange;

typedef struct bw_rep_ops {
    /* One request; its views are valid until bw_rep_answer. err not OK: what came is no request (f is empty but for what could be
     * read); an answer is due all the same. Must not block. */
    void (*request)(void *owner, bw_rep_exchange *x, bw_err err, const bw_frame *f, const bw_stream_peer *peer);
} bw_rep_ops;

typedef struct bw_rep_options {
    const char *url;
    bool allow_long_path;
    int64_t gid;
    size_t frame_max; /* larger messages: nng drops the connection */
    const bw_rep_ops *ops;
    void *owner;
} bw_rep_options;

/* bw_rep_listen: errors as bw_stream_listen. */
bw_err bw_rep_listen(const bw_rep_options *options, bw_rep **out);
/* bw_rep_answer: send a whole encoded frame (with its length field, which is left out on the wire), then payload. */
void bw_rep_answer(bw_rep_exchange *x, const void *frame, size_t frame_len, const void *payload, size_t payload_len);
/* bw_rep_busy: requests under way. */
size_t bw_rep_busy(bw_rep *r);
/* bw_rep_destroy: take no more requests, wait at most timeout_ms for those under way, free. false: some never came back; nothing is
 * freed then. Not from a callback. */
bool bw_rep_destroy(bw_rep *r, int64_t timeout_ms);

#endif
