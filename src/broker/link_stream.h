/* broker/link_stream.h: one stream of LINK_FETCH; shared by link_fetch.c (reads, answers) and link_filter.c (filters, compresses). Broker
 * thread; while `working` the filters' texts are read by the worker, too, and nobody changes them. */
#ifndef BW_BROKER_LINK_STREAM_H
#define BW_BROKER_LINK_STREAM_H

#include "broker/links.h"

typedef struct bw_link_text {
    char *data; /* NULL: none */
    size_t len;
} bw_link_text;

/* A partition that a stream reads. */
struct bw_tap {
    struct bw_link_stream *stream;
    bw_part *part; /* NULL: it failed */
    struct bw_tap *prev, *next; /* at the part */
    char name[BW_TOPIC_NAME_MAX + 1];
    uint8_t id[16];
    int32_t partition, priority;
    int64_t offset, start_told; /* the log's start, as the other side knows it */
    double bytes_each; /* of an offset, about */
    bw_err error;
    char *why;
    bool told;
};

struct bw_link_stream {
    bw_session *session;
    struct bw_link_stream *next;
    uint32_t id;
    int8_t mode, limit;
    bw_codec codec;
    bw_link_text key_prefix, header_value;
    char *header;
    bw_uuid target; /* its own records are not sent back to it, */
    bool skip_own;  /* if it said who it is */
    bool filters;
    bool has_merged; /* the answer being made has batches that a merge wrote */
    bool blocked, working, ended;
    bw_op *ops, *ops_last;
    bw_timer timer; /* max_wait of the first */
    int64_t lag_ms; /* when those that wait behind others were last told how far they lag */
    size_t turn, count;
    struct bw_tap *taps; /* by priority */
};

/* link_fetch.c */
void bw_link_stream_serve(bw_broker *b, struct bw_link_stream *st);
void bw_link_stream_answer(bw_broker *b, struct bw_link_stream *st, bw_op *op, bw_link_part *parts, size_t n, bw_codec codec, size_t plain,
                           const bw_buf *payload);
/* bw_link_stream_worked: the worker is done and its fetch was answered. */
void bw_link_stream_worked(bw_broker *b, struct bw_link_stream *st);

/* link_filter.c */
/* bw_link_stream_work: filter and compress in the worker, then answer op. payload is taken; parts are freed later. false: no memory. */
bool bw_link_stream_work(bw_broker *b, struct bw_link_stream *st, bw_op *op, bw_link_part *parts, size_t n, bw_buf *payload);

/* What is left out. Pure. */
typedef struct bw_link_filter {
    const bw_link_text *key_prefix, *header_value;
    const char *header;
    const bw_uuid *target; /* NULL: nothing because of its origin */
    bool mirror;
} bw_link_filter;
/* bw_link_filter_run: the batches of one part; what stays is appended to out. CORRUPT, NO_MEMORY, … */
bw_err bw_link_filter_run(const bw_link_filter *f, const uint8_t *data, size_t len, size_t max_plain, bw_buf *out);

#endif
