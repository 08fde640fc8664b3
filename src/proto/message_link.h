/* proto/message_link.h: what the requests of links between daemons carry, and their answers; a part of bw_request and bw_answer.
 *
 * LINK_ADD to LINK_REMOVE manage links (LINK_ADD and LINK_ALTER carry the options as `configs`). With the others a link does its work; it
 * asks the daemon at either of its ends, itself included, the same way:
 *   LINK_HELLO     who are you: origin ids are exchanged; a link to itself is LINK_LOOP
 *   LINK_TOPIC     at the target: make the topic ready; its partitions, and where each goes on
 *   LINK_FETCH     at the source: the next batches of a *stream*, which the daemon keeps for this connection. `begin` gives its parts
 *                  and where each begins; further requests are answered one after the other, each going on where the one before ended, so
 *                  that several may be under way. Parts that come first are read first. The payload is that of all parts, `plain` bytes,
 *                  compressed as a whole with `codec`
 *   LINK_APPEND    at the target: the same parts and payload; all of a part or nothing of it is appended
 *   LINK_POSITION  how far a partition goes, and the last batch of it or of what lies in front of `offset` */
#ifndef BW_PROTO_MESSAGE_LINK_H
#define BW_PROTO_MESSAGE_LINK_H

typedef enum bw_link_mode {
    BW_LINK_MIRROR = 0, /* the batches as they are, at their offsets, into a topic that nobody else writes to */
    BW_LINK_MERGE = 1,  /* each committed record once, at a new offset, with its origin in a header */
} bw_link_mode;

typedef struct bw_link_part {
    bw_str topic;           /* LINK_FETCH: of the source; LINK_APPEND: of the target */
    int32_t partition;
    uint8_t id[16];         /* of the source's topic: LINK_FETCH's answer, LINK_APPEND */
    int64_t offset;         /* where it begins; LINK_TOPIC, LINK_POSITION: where it goes on; after an error: the one expected */
    int64_t next;           /* of the source: behind what the payload has, and what was left out of it */
    int64_t base;           /* base offset, leader epoch and checksum of the batch in front of `offset`; -1: not known */
    int32_t epoch;
    uint32_t crc;
    uint32_t size;          /* of its bytes in the payload */
    int64_t log_start, end; /* of the source */
    uint64_t left;          /* bytes between next and end, about */
    uint64_t incarnation;   /* LINK_FETCH, LINK_APPEND: of the source, when these records were written */
    int32_t priority;       /* LINK_FETCH with begin: the highest are read first, equals by turns */
    int64_t timestamp;      /* the newest in the payload, ms; -1: none */
    int32_t error;          /* bw_err */
    bw_str message;
} bw_link_part;

typedef struct bw_link_request {
    bw_str name;            /* all: of the link */
    uint8_t origin[16];     /* LINK_HELLO: of the daemon that asks; LINK_TOPIC, LINK_APPEND: of the source; LINK_FETCH: of the target,
                             * whose own records are left out of a merge; zeros: none are */
    uint64_t incarnation;   /* likewise */
    int8_t mode;            /* bw_link_mode */
    uint8_t source[16];     /* LINK_TOPIC: id of the source's topic */
    bool create;            /* LINK_TOPIC: the topic may be made; as `partitions` and `configs` say */
    uint32_t stream;        /* LINK_FETCH: chosen by the client, unique in the connection */
    bool begin;
    bw_link_part *parts;    /* LINK_FETCH with begin, LINK_APPEND, LINK_POSITION */
    size_t part_count;
    int8_t codec;           /* LINK_FETCH: wanted; LINK_APPEND: of the payload */
    uint32_t plain;         /* LINK_APPEND: bytes of the payload, decompressed */
    bw_str key_prefix;      /* LINK_FETCH with begin, LINK_TOPIC (what the link asks for): only records whose key begins so */
    bw_str header;          /* only records with this header, */
    bw_str header_value;    /* of this value, unless it is empty */
} bw_link_request;

typedef struct bw_link_answer {
    uint8_t origin[16];     /* LINK_HELLO: of the daemon that answers */
    uint64_t incarnation;
    bw_link_part *parts;    /* LINK_TOPIC, LINK_FETCH, LINK_APPEND, LINK_POSITION */
    size_t part_count;
    int8_t codec;           /* LINK_FETCH */
    uint32_t plain;
    bool changed;           /* topics came, went or grew since `begin`: look for them */
} bw_link_answer;

#endif
