/* listen/busway/internal.h: shared by the files of this folder. */
#ifndef BW_LISTEN_BUSWAY_INTERNAL_H
#define BW_LISTEN_BUSWAY_INTERNAL_H

#include "listen/busway/listener.h"
#include "transport/rep.h"
#include "transport/stream.h"

#include <pthread.h>

#define BW_LISTEN_URLS_MAX 16u
#define BW_HELLO_TIMEOUT_MS 10000
#define BW_FETCH_BYTES_MAX (16u << 20) /* of one FETCH's answer; a single larger batch passes */

struct bw_listener {
    bw_broker *broker;
    const bw_daemon_config *config;
    uint32_t frame_max;
    bool allow_long_path;
    int64_t gid; /* of the sockets; -1: the daemon's own */
    bw_stream_listener *streams[BW_LISTEN_URLS_MAX];
    size_t stream_count;
    uint32_t tls_streams; /* a bit for each of the streams that has a certificate */
    uint64_t tls_look;    /* remote.c; the thread that starts and reloads */
    bw_rep *rep;
    bw_buf scratch; /* broker thread: encoding of answers */
    pthread_mutex_t lock;
    struct bw_exchange *exchanges; /* REP requests under way */
    bool stopping;
};

extern const bw_stream_ops bw_connection_ops;
extern const bw_rep_ops bw_exchange_ops;

/* bw_exchanges_close: from now on every REP request ends at once; those that wait for data too. */
void bw_exchanges_close(bw_listener *l);

/* request.c: what does not need the broker. Any thread. */

/* bw_request_refuse: OK: the request may go to the broker. Otherwise *a is the answer to send (its texts are static or the thread's
 * message). introduced: a HELLO came before, or none is needed. */
bw_err bw_request_refuse(const bw_request *r, bool introduced, bw_answer *a);
/* bw_answer_refuse: *a answers r with the code and the thread's message. */
void bw_answer_refuse(const bw_request *r, bw_err err, bw_answer *a);
/* bw_answer_complete: what the listener knows better than the broker, in a HELLO's answer. */
void bw_answer_complete(bw_answer *a, uint32_t frame_max);
/* bw_request_bound_fetch: cap a FETCH's max_bytes at BW_FETCH_BYTES_MAX. Returns what it may bring. */
size_t bw_request_bound_fetch(bw_request *r);
void bw_listen_peer(const bw_stream_peer *from, bw_peer *out, bool with_start_time);

/* remote.c: listeners for other hosts */

bool bw_remote_is_tls(const char *url);
/* bw_remote_check: may this one of config->listeners be opened, as far as words go? INVALID_CONFIG. */
bw_err bw_remote_check(const bw_daemon_config *c, const char *url);
/* bw_remote_open_tls: from the configured files. INVALID_CONFIG. */
bw_err bw_remote_open_tls(bw_listener *l, bw_tls_context **out);

/* records.c: records as msgpack, for programs without Kafka's batch format. */

/* bw_records_to_batch: doc is an array of maps {key, value, headers, timestamp}; one batch is appended to out.
 * PROTOCOL, INVALID_ARGUMENT, NO_MEMORY. */
bw_err bw_records_to_batch(const uint8_t *doc, size_t len, int64_t now_ms, bw_buf *out);
/* bw_records_from_batches: batches (len bytes) as an array of maps {offset, timestamp, key, value, headers}, without those below `from`;
 * whole batches until about `max` bytes. CORRUPT, RECORD_TOO_LARGE, NO_MEMORY. */
bw_err bw_records_from_batches(const uint8_t *batches, size_t len, int64_t from, size_t max, bw_buf *out);

#endif
