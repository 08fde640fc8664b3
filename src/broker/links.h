/* broker/links.h: what the broker does for links (src/link): mirrors, merges, streams. Broker thread, unless it says otherwise.
 *
 * A *mirror* is a topic with the origin's offsets, batches and epochs, which only its link writes to; its record (table links, key 'm' and
 * the topic's name) is stored before the topic is made: u8 version 1 · u8 length · name of the link · 16 origin · u64 incarnation · 16 id of
 * the source's topic.
 * A *merge* is any topic that links append to: vector.h. Its vector is stored (table merges, key: the topic's id, be32 partition) now and
 * then, never ahead of what is on the disk; what the log has behind `valid` is read from the log, from batches with the base sequence
 * BW_MERGE_SEQUENCE, which only links write. So a batch and the vector's knowledge of it are one. */
#ifndef BW_BROKER_LINKS_H
#define BW_BROKER_LINKS_H

#include "broker/core.h"
#include "broker/vector.h"

#define BW_LINK_NAME_BYTES 64u
#define BW_MERGE_SEQUENCE (-2) /* base sequence of batches that a merge has written; they have no producer id */

typedef struct bw_mirror {
    char link[BW_LINK_NAME_BYTES + 1];
    bw_uuid origin;
    uint64_t incarnation;
    bw_uuid source;
} bw_mirror;

/* link_topic.c */
/* bw_origin_load: who this daemon is: the bus's id, and its incarnation, a new one when the data directory was copied. Start. */
bw_err bw_origin_load(bw_broker *b);
bw_uuid bw_origin_id(const bw_broker *b);
/* bw_origin_keep: the incarnation is on the disk; before a peer is told of it. A daemon that never had a link need not write one down. */
bw_err bw_origin_keep(bw_broker *b);
uint64_t bw_origin_incarnation(const bw_broker *b);
/* bw_mirror_load: at the start, of a topic that was read from the store: t->mirror. */
bw_err bw_mirror_load(bw_broker *b, bw_topic *t);
/* bw_topic_set_mirror: NULL: no longer one. Stored when it returns; direct writers are fenced. */
bw_err bw_topic_set_mirror(bw_broker *b, bw_topic *t, const bw_mirror *m);
/* bw_topic_forget_links: it was promised to be deleted. */
void bw_topic_forget_links(bw_broker *b, bw_topic *t);
/* bw_mirror_refuse_write: MIRROR_READ_ONLY, naming the link; OK: it is none. */
static inline bool bw_topic_is_mirror(const bw_topic *t) { return __builtin_expect(t->mirror != NULL, 0); }
bw_err bw_mirror_refuse_write(const bw_topic *t);
/* bw_link_last_batch: the batch that ends at `offset` (exclusive). false: not there, or not so. */
bool bw_link_last_batch(bw_broker *b, bw_part *p, int64_t offset, bw_batch_header *out);
void bw_handle_link_hello(bw_broker *b, bw_op *op);
void bw_handle_link_topic(bw_broker *b, bw_op *op);
void bw_handle_link_position(bw_broker *b, bw_op *op);
/* bw_link_admin: LINK_ADD to LINK_REMOVE: by src/link, which has registered itself. */
void bw_handle_link_admin(bw_broker *b, bw_op *op);

/* link_append.c */
void bw_handle_link_append(bw_broker *b, bw_op *op);
void bw_link_drop_session(bw_broker *b, bw_session *s); /* appends and streams */
struct bw_linking {
    struct bw_link_append *appends, *appends_last; /* in order; the first is at work */
    struct bw_link_stream *streams;
    struct bw_feed *feeds; /* merges that it appends to */
    bool changed; /* topics came, went or grew since it last listed them */
};
struct bw_linking *bw_linking_of(bw_session *s); /* NULL: no memory; link_fetch.c */
/* bw_link_log_id: whose records a request brings; of_link: the place where its link keeps how far it has come. */
bw_log_id bw_link_log_id(const bw_request *r, const uint8_t source[16], int32_t partition, bool of_link);

/* link_feed.c */
/* bw_feed_claim: the session's link feeds the merge t. INVALID_ARGUMENT: another one does that filters otherwise. */
bw_err bw_feed_claim(bw_broker *b, bw_session *s, const bw_topic *t, const bw_link_request *r);
void bw_feeds_free(struct bw_linking *l);

/* link_fetch.c */
void bw_handle_link_fetch(bw_broker *b, bw_op *op);
void bw_link_streams_drop(bw_broker *b, bw_session *s);
void bw_link_streams_serve_session(bw_broker *b, bw_session *s);
void bw_tap_serve(bw_broker *b, bw_part *p);
bool bw_tap_waiting(const bw_part *p, bw_wait_class cls);
void bw_tap_end_part(bw_broker *b, bw_part *p); /* it goes */
void bw_link_topics_changed(bw_broker *b);      /* topics came, went or grew */

/* link_merge.c */
struct bw_merge {
    bw_vector vector;
    bool loaded, loading;
    bool busy;  /* an append is at it */
    bool dirty;
    bw_err error; /* of the load */
    bw_timer save;
    bw_vector saving; /* a copy that waits until it is durable; valid 0: none */
    bw_part *part;
};
/* bw_merge_ready: the vector is there. NULL: *e, or it is being read: come again. */
struct bw_merge *bw_merge_ready(bw_broker *b, bw_part *p, bw_err *e);
/* bw_merge_changed: to be stored soon. */
void bw_merge_changed(bw_broker *b, struct bw_merge *m);
/* bw_merge_spoil: it is to be read from store and log again. */
void bw_merge_spoil(struct bw_merge *m);
void bw_merge_free(bw_broker *b, bw_part *p);

/* One batch as it is to be appended. */
typedef struct bw_merged {
    uint8_t *batch;
    size_t len;
    int32_t count;
    int64_t max_timestamp;
} bw_merged;
typedef struct bw_merge_input {
    const uint8_t *data; /* batches of the source, whole and checked */
    size_t len;
    bw_log_id source;    /* of records without a mark */
    bw_uuid own;         /* records that were written here are dropped */
    size_t max_plain;
} bw_merge_input;
/* bw_merge_encode: what of the input is new to v, which is raised; malloc'd. Any thread. CORRUPT, NO_MEMORY, … */
bw_err bw_merge_encode(const bw_merge_input *in, bw_vector *v, bw_merged **out, size_t *count);
void bw_merged_free(bw_merged *list, size_t count);
/* bw_merge_note: a batch of the log: what its marks say, into v. */
bw_err bw_merge_note(const uint8_t *batch, const bw_batch_header *h, size_t max_plain, bw_buf *plain, bw_vector *v);

/* What src/link has for the broker. */
typedef struct bw_links_ops {
    void (*handle)(void *links, bw_op *op); /* LINK_ADD to LINK_REMOVE; finishes op */
    /* status: the member "links" of STATUS: an array; returns not 0 when there was no memory. */
    int (*status)(void *links, void *packer);
} bw_links_ops;
/* bw_broker_set_links: NULL: none any more. Any thread; takes a turn. */
void bw_broker_set_links(bw_broker *b, const bw_links_ops *ops, void *links);

#endif
