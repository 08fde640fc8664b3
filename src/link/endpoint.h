/* link/endpoint.h: what a link copies from, and what it copies to.
 *
 * The loop (copy.c) knows nothing but this: it asks the source for the next *chunk* of its stream and gives it to the sink, several under
 * way at a time, in order; positions come from the sink alone, so that a death of either side, or of the link, loses and doubles
 * nothing. A chunk is not looked into: filtering, compression and whatever changes the records is the ends' own.
 *
 *   source   list · begin (parts and where each goes on) · fetch (the next chunk; waits for one) · offsets
 *   sink     hello · prepare (a topic is made ready; where each partition goes on) · append (a chunk) · commit (a group's offsets)
 *
 * Two things are endpoints here: a daemon of Busway (endpoint_bus.c, over channel.h: this one or a peer), and a Kafka cluster. One end of
 * a link is always this daemon.
 *
 * Threads: an endpoint belongs to its link's thread. fetch and append are asynchronous: their call is the caller's again when done was
 * called, which happens within wait or dispatch; the others wait themselves, at most until their deadline.
 * Errors: NOT_CONNECTED, TIMED_OUT, NO_COORDINATOR: connect again, later. What concerns one part is in the part (error, message): the
 * others go on. Everything else is the link's: it stops with that error in its status and tries again slowly. */
#ifndef BW_LINK_ENDPOINT_H
#define BW_LINK_ENDPOINT_H

#include "base/clock.h"
#include "base/err.h"
#include "base/stop.h"
#include "base/uuid.h"
#include "broker/broker.h"
#include "broker/group.h"
#include "format/names.h"
#include "proto/message.h"

typedef struct bw_endpoint bw_endpoint;
typedef struct bw_link_spec bw_link_spec; /* link/spec.h */

/* Who a log is of: a data directory's id, and which life of it. */
typedef struct bw_origin {
    bw_uuid id;
    uint64_t incarnation;
} bw_origin;

/* One partition of a chunk, or of a stream. */
typedef struct bw_piece {
    char topic[BW_TOPIC_NAME_MAX + 1]; /* at the source */
    bw_uuid id;                        /* of the source's topic; zeros: it has none */
    int32_t partition;
    int64_t offset, next;  /* of the source: from where, and where the next chunk goes on; batches of other offsets aren't in between */
    int64_t base;          /* begin: the sink's last batch in front of offset: base offset (-1: none), epoch, checksum */
    int32_t epoch;
    uint32_t crc;
    uint32_t size;         /* bytes in the payload */
    int64_t log_start, end;
    uint64_t left;         /* bytes that are still to come, about */
    uint64_t incarnation;  /* of the source, when these records were written */
    int32_t priority;      /* begin: the highest come first, equals by turns */
    int64_t timestamp;     /* newest in it, ms; -1: none */
    bw_err error;          /* fetch: OFFSET_OUT_OF_RANGE (log_start says from where), UNKNOWN_TOPIC, LOGS_DIVERGED, CORRUPT, …
                              append: OUT_OF_ORDER_SEQUENCE (offset: what is expected; nothing of the part was appended), … */
    char message[256];
} bw_piece;

/* What goes from source to sink. Payload: whole record batches of the pieces, one piece behind the other, `plain` bytes, compressed as a
 * whole with `codec`. Of mirrors the batches are the origin's; of merges they may be anything that its sink understands: a sink of
 * another kind than the source asks for BW_CODEC_NONE and reads batches of committed records at their source's offsets. */
typedef struct bw_chunk {
    bw_piece *pieces;
    size_t count;
    bw_codec codec;
    uint32_t plain;
    const uint8_t *payload;
    size_t len;
    bool changed; /* the source's topics have changed: list them again */
} bw_chunk;

/* fetch: chunk is the endpoint's, valid during done. append: chunk is the caller's, not needed any more when append has returned; in done
 * `chunk` has the pieces with their outcome. e: as above; chunk NULL. wire: bytes that this took on the wire, 0 for this daemon's own end. */
typedef struct bw_transfer {
    void (*done)(struct bw_transfer *t, bw_err e, const bw_chunk *chunk, uint64_t wire);
    void *opaque;
    void *own; /* the endpoint's */
} bw_transfer;

typedef struct bw_source_topic {
    char name[BW_TOPIC_NAME_MAX + 1];
    bw_uuid id;
    int32_t partitions;
    bool mirror;         /* at the source it is a mirror itself */
} bw_source_topic;

/* Where a partition of the target goes on: next offset of the source's; and its last batch, to be compared by the source (mirrors). */
typedef struct bw_sink_part {
    int64_t offset;
    int64_t base;
    int32_t epoch;
    uint32_t crc;
} bw_sink_part;

typedef struct bw_group_offset {
    char group[BW_GROUP_ID_MAX + 1];
    char topic[BW_TOPIC_NAME_MAX + 1];
    bw_uuid id;
    int32_t partition, epoch;
    int64_t offset;
} bw_group_offset;

typedef struct bw_endpoint_ops {
    void (*close)(bw_endpoint *ep);
    bw_err (*connect)(bw_endpoint *ep, bw_deadline deadline);
    void (*drop)(bw_endpoint *ep); /* what is under way is told NOT_CONNECTED before it returns */
    bool (*is_up)(bw_endpoint *ep);
    /* Wait until done was called for something, extra_fd is readable or the deadline. TIMED_OUT, NOT_CONNECTED. */
    bw_err (*wait)(bw_endpoint *ep, int extra_fd, bw_deadline deadline);
    size_t (*dispatch)(bw_endpoint *ep); /* without waiting */
    /* Readable while there is something to dispatch; -1: none (only its own wait tells). */
    int (*fd)(bw_endpoint *ep);
    /* Who it is; `mine` is the other end's. LINK_LOOP: the same. An end without an id (a cluster) fills one that stays the same. */
    bw_err (*hello)(bw_endpoint *ep, const bw_origin *mine, bw_origin *out, bw_deadline deadline);

    /* As a source. list: all topics, malloc'd. */
    bw_err (*list)(bw_endpoint *ep, bw_source_topic **out, size_t *count, bw_deadline deadline);
    /* configs: what differs from the source's defaults, as {name, value}; malloc'd block, texts inside. */
    bw_err (*configs)(bw_endpoint *ep, const char *topic, bw_config_pair **out, size_t *count, bw_deadline deadline);
    /* begin: of every fetch from now on; the most important first. Fetches that are under way end with a chunk of the old stream or
     * without pieces. */
    bw_err (*begin)(bw_endpoint *ep, const bw_piece *pieces, size_t count);
    /* fetch: at most about max_bytes of payload; empty chunk after max_wait_ms without news. */
    bw_err (*fetch)(bw_endpoint *ep, bw_transfer *t, uint32_t max_bytes, int32_t max_wait_ms);
    /* offsets: what groups that match have committed for the topics, malloc'd. NULL: this kind of endpoint cannot. */
    bw_err (*offsets)(bw_endpoint *ep, const bw_link_spec *spec, bw_group_offset **out, size_t *count, bw_deadline deadline);

    /* As a sink. prepare: topic `target`; `from` is the source's topic; parts: malloc'd, as many as the source has. configs may be NULL. */
    bw_err (*prepare)(bw_endpoint *ep, const char *target, const bw_source_topic *from, const bw_origin *origin,
                      const bw_config_pair *configs, size_t config_count, bw_sink_part **parts, bw_deadline deadline);
    /* append: pieces' topic is the target's. Chunks are appended in the order of the calls; when a piece fails those of the same
     * partition behind it fail too, with OUT_OF_ORDER_SEQUENCE. */
    bw_err (*append)(bw_endpoint *ep, const bw_chunk *chunk, bw_transfer *t);
    bw_err (*commit)(bw_endpoint *ep, const bw_group_offset *offsets, size_t count, bw_deadline deadline);
} bw_endpoint_ops;

struct bw_endpoint {
    const bw_endpoint_ops *ops;
    bool is_bus; /* a daemon of Busway (endpoint_bus.h) */
    const bw_stop *stop; /* ends every wait with CLOSED; NULL: nobody stops it */
    const bw_link_spec *spec; /* outlives it */
    uint64_t wire_out, wire_in; /* bytes so far */
};

/* bw_endpoint_open_local: this daemon. stop (both): ends every wait, with CLOSED; outlives the endpoint. */
bw_err bw_endpoint_open_local(bw_broker *b, const bw_link_spec *spec, const bw_stop *stop, bw_endpoint **out);
/* bw_endpoint_open_peer: what spec's URL says: a daemon (ipc:, dir:, tcp:, tls+tcp:) or a cluster (kafka:). UNSUPPORTED, INVALID_ARGUMENT. */
bw_err bw_endpoint_open_peer(const bw_link_spec *spec, const bw_stop *stop, bw_endpoint **out);

#endif
