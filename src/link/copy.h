/* link/copy.h: the loop that copies from a source to a sink (endpoint.h), and what it knows of its partitions.
 *
 *   connect both, say hello -> arrange: list the source's topics, make the sink's ready, which says where each partition goes on ->
 *   stream: chunks, several under way, each fetched and then appended -> arranged anew when topics came or went, or when the sink expected
 *   something else -> … until it is told to stop, or an end is lost.
 * Positions are the sink's alone. What this keeps is how far the sink will be when all that is under way has arrived (`sent`), and counts.
 *
 * Threads: bw_copy_run and all callbacks are the link's thread; bw_copy_look is any thread's; what it reads is written under the mutex. */
#ifndef BW_LINK_COPY_H
#define BW_LINK_COPY_H

#include "link/channel.h"
#include "link/endpoint.h"
#include "link/spec.h"

#include <pthread.h>
#include <stdatomic.h>
#include <uthash.h>

enum { BW_COPY_FLIGHTS = 4 };

typedef struct bw_copy_key {
    char topic[BW_TOPIC_NAME_MAX + 1];
    int32_t partition;
} bw_copy_key;

/* A partition that is copied. */
typedef struct bw_copy_part {
    bw_copy_key key; /* at the source; zeroed behind the name's end */
    char target[BW_TOPIC_NAME_MAX + 1];
    bw_uuid id;
    int32_t priority;
    int64_t next, sent;  /* of the source: the sink has all below; will have */
    int64_t resume;      /* retention has taken what is below; 0: nothing */
    int64_t end;         /* of the source, as last heard; -1: not yet */
    int64_t log_start;
    uint64_t left;       /* bytes between, about */
    int64_t timestamp;   /* the newest that was copied, ms; -1 */
    uint64_t records, bytes;
    int64_t lost;        /* offsets that retention took before they were copied */
    bw_err error;        /* it stands still; the others go on */
    char message[256];
    bw_sink_part sink;
    /* replicate.c */
    struct bw_copy *copy;
    bw_ask replica_ask;
    bool acknowledging;  /* it is under way */
    bool told;           /* since the stream began */
    int32_t wanted;      /* what counts at the source: 0 nothing, 1 visible, 2 durable */
    int64_t acknowledged, acknowledged_durable; /* offsets that the source was told */
    int64_t replicated;  /* as the source says */
    bw_ask start_ask;
    bool starting;       /* it is under way */
    int64_t started;     /* the sink's log start, as far as it was moved from here */
    bool present;        /* in the present arrangement */
    bool not_hashed;     /* no memory to register it */
    UT_hash_handle hh;
} bw_copy_part;

typedef struct bw_copy bw_copy;

typedef struct bw_copy_flight {
    bw_transfer fetch, append;
    bw_copy *copy;
    enum { BW_FLIGHT_IDLE, BW_FLIGHT_FETCHES, BW_FLIGHT_APPENDS } state;
    bw_piece *pieces; /* that are being appended */
    size_t count;
    size_t plain;
    int64_t began_ns;
} bw_copy_flight;

struct bw_copy {
    const bw_link_spec *spec;
    void (*event)(void *opaque, bw_log_level level, const char *event, const char *fields);
    void *opaque;
    _Atomic bool stop; /* by any thread; poke the local endpoint */
    pthread_mutex_t mutex;
    bw_copy_part *parts; /* uthash; under the mutex when changed */
    bool up;             /* both ends are connected */
    bool arranged;       /* and it streams */
    bw_origin origin;    /* of the peer */
    char missing[BW_TOPIC_NAME_MAX + 1]; /* a topic that is asked for by name and not at the source; "": none */
    uint64_t wire, chunks, restarts; /* bytes that went over the wire in chunks */
    /* the link's thread alone */
    bw_endpoint *source, *sink, *local, *peer;
    bw_origin source_origin, sink_origin;
    bw_copy_flight flights[BW_COPY_FLIGHTS];
    bool restart, discard, progress;
    bw_err failed;
    char why[512];
    uint32_t chunk_bytes;
    int64_t pay_ns;      /* the rate limit: not before */
    int64_t last_ns;     /* when the last chunk was through */
    int64_t up_ns;       /* since when both ends are connected; 0: they are not */
    int64_t took_ns;     /* the last chunk */
    int64_t life_ns;     /* so long connections live that are lost, about; 0: none was */
    int64_t groups_ns;   /* when offsets of groups are due */
    int64_t again_ns;    /* when partitions that stand still are tried again; 0: there are none */
    uint32_t fruitless;  /* arrangements without anything copied */
};

void bw_copy_init(bw_copy *c, const bw_link_spec *spec);
void bw_copy_fini(bw_copy *c);
/* bw_copy_run: until stop (OK) or an end is lost, or the link cannot work (the error, with its message). Both endpoints are open; nothing is
 * under way on them when it has returned and they were dropped or closed, which the caller does: bw_copy_settle after that. */
bw_err bw_copy_run(bw_copy *c, bw_endpoint *local, bw_endpoint *peer);
/* bw_copy_settle: the endpoints are gone. */
void bw_copy_settle(bw_copy *c);

#endif
