/* broker/queue.h: queue groups inside: records of topics handed out one by one to any number of workers. Broker thread only.
 *
 *   group    by name: its settings, its workers, its waiting fetches, and a bw_queue_part for each partition of its topics
 *   part     the state of one partition (queue_state.h), what is put off (queue_delay.h), and what of both is not stored yet
 *   member   a worker: of one session; when that ends, what it holds is released at once
 *
 * Files: queue.c groups and members · queue_part.c partitions, timers, waking · queue_read.c records from the log · queue_fetch.c handing
 * out · queue_ack.c acknowledgements and commits · queue_dead.c dead letters · queue_store.c keys, reading back, removing ·
 * queue_admin.c what people ask.
 *
 * Storing. Each part has at most one commit under way: its whole state by runs, and the entries of what was put off or settled since. What
 * comes meanwhile gathers and goes with the next one, so that the disk sets the pace and any number of acknowledgements share a sync. An
 * acknowledgement is answered by the commit that has it: from then on its record is never delivered again. Deliveries of records
 * that are out for the second time are stored within PERSIST_MS; a first delivery is not: after the daemon's death it counts anew. */
#ifndef BW_BROKER_QUEUE_H
#define BW_BROKER_QUEUE_H

#include "broker/committer.h"
#include "broker/queue_delay.h"
#include "broker/queue_state.h"
#include "log/read.h"

#define BW_QUEUE_GROUP_MAX 249u
#define BW_QUEUE_TOPICS_MAX 1024u
#define BW_QUEUE_GROUPS_MAX 10000u
#define BW_QUEUE_MEMBERS_MAX 10000u    /* of one group */
#define BW_QUEUE_PUT_OFF_MAX 10000000u /* delayed records of one group and partition */
#define BW_QUEUE_RECORDS_MAX 10000u    /* of one fetch */
#define BW_QUEUE_BYTES_MAX (16u << 20)
#define BW_QUEUE_PLAIN_MAX (64u << 20) /* a decompressed batch */

typedef struct bw_queue_group bw_queue_group;
typedef struct bw_queue_part bw_queue_part;
typedef struct bw_queue_member bw_queue_member;
typedef struct bw_queue_wait bw_queue_wait;
typedef struct bw_queue_ack_op bw_queue_ack_op;
typedef struct bw_queue_death bw_queue_death;

typedef struct bw_queue_settings {
    int32_t lease_ms;
    uint16_t max_deliveries;
    uint32_t max_in_flight;
    bool archive, committed, latest;
    char dead_letter[BW_TOPIC_NAME_MAX + 1]; /* "": <topic>.dlq */
} bw_queue_settings;

/* Reads forward; a place behind is looked up. */
typedef struct bw_queue_cursor {
    bw_reader *reader;
    bw_buf plain;
    bw_batch_header header;
    const uint8_t *records;
    size_t records_len;
    bw_record_iter it;
    bool in_batch, have;
    bw_record_view view; /* have: the last one, which is the first at or behind `asked` */
    int64_t asked;
} bw_queue_cursor;

struct bw_queue_part {
    bw_queue_group *group;
    bw_part *part; /* NULL: it is gone, or the daemon ends */
    bw_uuid topic;
    uint32_t index;
    bool settled_in; /* the state was held against the log's ends in this life */
    bool failing;    /* the last read failed; said */
    bool limited;    /* BW_QUEUE_PUT_OFF_MAX */
    bool gone;       /* to be freed when its commit is done */
    bool dirty, committing;
    bw_queue_state state;
    bw_delays delays;
    uint64_t put_off; /* stored */
    bw_delay *parks;  /* put off and not stored yet */
    uint32_t park_count, park_cap, parks_sent, gone_sent;
    bw_queue_ack_op **waiting, **sent; /* acknowledgements for the next commit, and in the present one */
    uint32_t waiting_count, waiting_cap, sent_count, sent_cap;
    bw_queue_cursor fresh, old;
    int64_t used_ms;
    uint64_t dead_lettered;
    bw_timer lease_timer, due_timer, persist_timer, dead_timer;
    bw_queue_part *next, *next_of_part;
};

struct bw_queue_member {
    uint32_t number;
    bw_session *session;
    bw_queue_group *group;
    bw_uuid *topics;
    size_t topic_count;
    uint64_t fetched;
    struct bw_watch *watch; /* of its process; NULL: none, or it was gone already */
    bw_queue_member *next, *next_of_session;
};

/* A fetch that found nothing. */
struct bw_queue_wait {
    bw_op *op;
    bw_queue_member *member;
    bw_timer timer;
    bw_queue_wait *prev, *next;
};

struct bw_queue_group {
    char name[BW_QUEUE_GROUP_MAX + 1];
    bw_queue_settings settings;
    bw_queue_part *parts, *turn; /* turn: where the next fetch begins */
    bw_queue_member *members;
    uint32_t member_count, part_count;
    bw_queue_wait *waits, *waits_last;
    bw_op *deleting_op; /* who asked for it; NULL when it has failed */
    uint32_t sweeps;    /* under way */
    bool deleting;      /* its name is free when everything of it is gone from the disk */
    bool not_hashed;
    UT_hash_handle hh;
};

typedef struct bw_queues {
    bw_queue_group *groups;
    uint32_t next_member;
    bw_queue_run *runs; /* of the answer that is being made */
    uint32_t run_cap;
} bw_queues;

/* An acknowledgement that waits for `pending` commits. */
struct bw_queue_ack_op {
    bw_op *op;
    uint32_t pending;
    bw_err error;
    bw_queue_item *refused;
    size_t refused_count;
};

/* A record in the dead-letter topic that is not on the disk yet. */
struct bw_queue_death {
    bw_queue_part *part;
    int64_t offset;
    bw_position end;
    bw_queue_death *next;
};

static inline bw_queue_rules bw_queue_rules_of(const bw_queue_group *g)
{
    return (bw_queue_rules){g->settings.max_deliveries, g->settings.archive};
}

/* ---- queue.c ---- */
/* bw_queues_need: the groups are read back when they are first asked for. */
bw_err bw_queues_need(bw_broker *b);
bw_queue_group *bw_queue_group_find(bw_broker *b, bw_str name);
bw_err bw_queue_group_new(bw_broker *b, bw_str name, bw_queue_group **out);
void bw_queue_group_free(bw_broker *b, bw_queue_group *g);
bw_queue_member *bw_queue_member_find(const bw_session *s, uint32_t number, bw_str group);
void bw_queue_member_remove(bw_broker *b, bw_queue_member *m);

/* ---- queue_part.c ---- */
bw_err bw_queue_part_new(bw_queue_group *g, const bw_uuid *topic, uint32_t index, bw_part *part, int64_t start, bw_queue_part **out);
bw_queue_part *bw_queue_part_find(const bw_queue_group *g, const bw_uuid *topic, uint32_t index);
/* bw_queue_part_remove: out of every list; its acknowledgements are failed with DELETED; freed at once or by its commit. */
void bw_queue_part_remove(bw_broker *b, bw_queue_part *q);
void bw_queue_part_free(bw_queue_part *q);
/* bw_queue_part_ready: it is open and its state agrees with the log's ends. */
bool bw_queue_part_ready(bw_broker *b, bw_queue_part *q);
/* bw_queue_part_changed: records came back, or room: bury the dying, wake those who wait. */
void bw_queue_part_changed(bw_broker *b, bw_queue_part *q);
void bw_queue_part_leased(bw_broker *b, bw_queue_part *q, int64_t until_ns, bool again);
void bw_queue_part_arm_due(bw_broker *b, bw_queue_part *q);
/* bw_queue_part_admit_due: what is due becomes late. */
void bw_queue_part_admit_due(bw_broker *b, bw_queue_part *q, int64_t now_ms);

/* ---- queue_read.c ---- */
/* bw_queue_read: the first record at or behind offset. EMPTY: there is none; *upto: up to where there is none. The view is good
 * until the next call with this cursor. Errors of bw_reader_next. */
bw_err bw_queue_read(bw_broker *b, bw_queue_part *q, bw_queue_cursor *c, int64_t offset, bw_record_view *out, int64_t *upto);
void bw_queue_cursor_rest(bw_queue_cursor *c);
void bw_queue_cursor_close(bw_queue_cursor *c);

/* ---- queue_fetch.c ---- */
void bw_queue_wait_end(bw_broker *b, bw_queue_wait *w, bw_answer *a);
/* bw_queue_serve: give what q has to those who wait. */
void bw_queue_serve(bw_broker *b, bw_queue_part *q);

/* ---- queue_ack.c ---- */
/* bw_queue_commit: what is dirty goes to the disk, unless a commit is under way. */
void bw_queue_commit(bw_broker *b, bw_queue_part *q);
void bw_queue_acks_fail(bw_broker *b, bw_queue_part *q, bw_err e);
void bw_queue_settle_by_hand(bw_broker *b, bw_op *op, bw_queue_group *g);

/* ---- queue_dead.c ---- */
/* bw_queue_bury: records that die go to the dead-letter topic. */
void bw_queue_bury(bw_broker *b, bw_queue_part *q);
void bw_queue_deaths_forget(bw_broker *b, bw_queue_part *q);

/* ---- queue_admin.c ---- */
/* bw_queue_swept: one of the parts of a group that is being deleted is gone, or could not be removed. */
void bw_queue_swept(bw_broker *b, bw_queue_group *g, bw_err e);

/* ---- queue_store.c ---- */
#define BW_QUEUE_KEY_MAX 320u
size_t bw_queue_key_group(const bw_queue_group *g, uint8_t out[BW_QUEUE_KEY_MAX]);
size_t bw_queue_key_part(const bw_queue_part *q, char kind, uint8_t out[BW_QUEUE_KEY_MAX]);
size_t bw_queue_key_delay(const bw_queue_part *q, int64_t due_ms, int64_t offset, uint8_t out[BW_QUEUE_KEY_MAX]);
bw_err bw_queue_put_group(bw_commit *c, const bw_queue_group *g, const bw_queue_settings *s);
bw_err bw_queue_put_part(bw_commit *c, const bw_queue_part *q);
bw_err bw_queue_put_delay(bw_commit *c, const bw_queue_part *q, bw_delay d);
bw_err bw_queues_load(bw_broker *b);
/* bw_queue_refill: more of what was put off, from the metadata. */
void bw_queue_refill(bw_broker *b, bw_queue_part *q);
/* bw_queue_sweep: everything stored of a part goes, bit by bit, its state last. group: is told when it is done, NULL: nobody. */
void bw_queue_sweep(bw_broker *b, const bw_queue_part *q, bw_queue_group *group);

#endif
