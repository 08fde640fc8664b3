/* broker/offsets_cache.h: the inside of the committed offsets, shared by broker/offsets*.c only. Broker thread.
 *
 * group 1-n entry n-1 target (a partition of one life of a topic). An entry has up to three values: `value` is on the disk, `flying` is in
 * the round that is on its way there, `pending` in the one that gathers. It goes when it has none of the three. A target goes with its
 * last entry, unless its partition is in the registry: then it is the partition's (bw_part.offsets) until the topic is deleted. */
#ifndef BW_BROKER_OFFSETS_CACHE_H
#define BW_BROKER_OFFSETS_CACHE_H

#include "broker/group.h"
#include "broker/offsets.h"
#include "broker/offsets_layout.h"

typedef struct bw_offset_entry bw_offset_entry;
typedef struct bw_offset_target bw_offset_target;
typedef struct bw_offset_group bw_offset_group;

typedef struct bw_offset_value {
    int64_t offset; /* -1: none */
    int64_t commit_ms;
    int32_t leader_epoch, log_epoch;
    char *metadata; /* malloc'd; NULL: none */
    uint32_t metadata_len;
} bw_offset_value;

/* A change of an entry, or, without one, of the group's own entry in the store. */
typedef struct bw_offset_change {
    struct bw_offset_change *next;
    bw_offset_entry *entry;
    bw_offset_group *group;
    bw_offset_value value; /* offset -1: it goes */
} bw_offset_change;

struct bw_offset_entry {
    bw_offset_group *group;
    bw_offset_target *target;
    bw_offset_entry *previous, *next; /* of the target */
    bw_offset_value value;
    bw_offset_change *pending, *flying;
    uint64_t newest; /* number of the newest commit that was taken */
    bool not_hashed;
    UT_hash_handle hh; /* by target */
};

struct bw_offset_target {
    uint8_t key[20]; /* topic id, be32 partition */
    bw_part *part;   /* in the registry; NULL: not there */
    bw_offset_entry *entries;
    uint32_t count;
    bool settled; /* since the partition was opened, its entries were compared with the log's history */
    bool not_hashed;
    UT_hash_handle hh;
};

struct bw_offset_group {
    char *id;
    uint32_t len;
    bw_offset_entry *entries;
    int64_t idle_ms;   /* bw_offsets_clock: since when it has no members; -1: it has some; 0: it never had */
    bool idle_stored;  /* its own entry is in the store */
    bool idle_pending; /* or a change of it is in the round that gathers */
    uint32_t changes;  /* of its own entry, under way; or who else needs it to stay */
    bool not_hashed;
    UT_hash_handle hh;
};

typedef struct bw_offset_round {
    bw_commit commit;
    bw_offset_change *changes;
    bw_op *ops;
    bw_offsets_wait *waits;
} bw_offset_round;

typedef struct bw_held bw_held;

typedef struct bw_offsets {
    bw_offset_group *groups;
    bw_offset_target *targets;
    size_t entry_count, bytes;
    uint64_t order; /* number of the next commit */
    uint64_t commits, rounds;
    /* the round that gathers */
    bw_offset_change *changes, **changes_end;
    size_t change_count;
    bw_op *ops, **ops_end; /* to be answered with it, by bw_offsets_answer */
    bw_offsets_wait *waits, **waits_end;
    bw_buf extra;          /* entries of bw_offsets_with */
    uint32_t extra_count;
    bw_offset_round *flying;
    bw_held *held; /* commits that wait for durable */
    bw_timer expire;
} bw_offsets;

/* ---- offsets_cache.c ---- */

bw_offset_group *bw_offset_group_find(const bw_offsets *o, bw_str id);
/* bw_offset_group_get: LIMIT_REACHED, NO_MEMORY. */
bw_err bw_offset_group_get(bw_broker *b, bw_str id, bw_offset_group **out);
/* bw_offset_group_done: freed if nothing is left of it. */
void bw_offset_group_done(bw_offsets *o, bw_offset_group *g);
/* bw_offset_target_of: NULL: no memory; with may_make false also: there is none. */
bw_offset_target *bw_offset_target_of(bw_offsets *o, const bw_uuid *topic, uint32_t partition, bool may_make);
bw_offset_target *bw_offset_target_of_part(bw_offsets *o, bw_part *p, bool may_make);
/* bw_offset_target_done: freed if nothing is left of it. */
void bw_offset_target_done(bw_offsets *o, bw_offset_target *t);
bw_offset_entry *bw_offset_entry_find(const bw_offset_group *g, const bw_offset_target *t);
bw_err bw_offset_entry_get(bw_broker *b, bw_offset_group *g, bw_offset_target *t, bw_offset_entry **out);
/* bw_offset_entry_done: freed if it has no value left, and its group and target likewise. */
void bw_offset_entry_done(bw_offsets *o, bw_offset_entry *e);
/* bw_offset_entry_newest: the value that will be there when everything under way is on the disk. */
const bw_offset_value *bw_offset_entry_newest(const bw_offset_entry *e);
void bw_offset_value_free(bw_offsets *o, bw_offset_value *v);
bw_err bw_offset_value_set(bw_offsets *o, bw_offset_value *v, bw_str metadata);
/* bw_offsets_clock: wall time without the jumps since the start and those known before it: never goes back within a run. */
int64_t bw_offsets_clock(const bw_broker *b);

/* ---- offsets_round.c ---- */

/* bw_offset_change_entry: the entry's value in the round that gathers, with this metadata; the numbers are the caller's to fill in. An
 * earlier one of the same round is handed out again. NULL: no memory, nothing was changed. */
bw_offset_value *bw_offset_change_entry(bw_broker *b, bw_offset_entry *e, bw_str metadata);
/* bw_offset_change_group: idle_ms as it is now goes to the store; gone: it goes from there. */
void bw_offset_change_group(bw_broker *b, bw_offset_group *g);
/* bw_offset_answer_later: op is answered by bw_offset_answer when the round that gathers is on the disk. */
void bw_offset_answer_later(bw_broker *b, bw_op *op);

/* ---- offsets_settle.c ---- */

/* bw_offset_settle: the target's entries are those of the log as it is now. The partition must be open: BUSY, IO. */
bw_err bw_offset_settle(bw_broker *b, bw_offset_target *t);
/* bw_offset_epoch_end: where the log's epoch `epoch` ends; the log's end for the newest. */
int64_t bw_offset_epoch_end(const bw_part *p, int32_t epoch, int64_t log_end);
/* bw_offset_part_known: the target's partition in the registry, which it is then tied to; NULL: there is none. */
bw_part *bw_offset_part_known(bw_broker *b, bw_offset_target *t);
bw_err bw_offset_mismatch(const bw_part *p, int64_t offset); /* fails with LOG_INCARNATION_MISMATCH */

/* ---- offsets_commit.c ---- */

/* bw_offset_answer: OFFSET_COMMIT and OFFSET_DELETE: each part with its outcome. e: of the whole round. */
void bw_offset_answer(bw_broker *b, bw_op *op, bw_err e);
void bw_offset_part_failed(bw_offset_part *part, bw_err e); /* with the thread's message; freed by bw_offset_answer */

/* bw_offset_fetch_answer: OFFSET_FETCH, when nothing of what it asks for is under way. */
void bw_offset_fetch_answer(bw_broker *b, bw_op *op);

/* ---- offsets_members.c: what the groups of members say ---- */

/* bw_offset_may_commit: broker/groups.h. */
bw_err bw_offset_may_commit(bw_broker *b, const bw_group_request *g, bw_str topic, int32_t partition);
/* bw_offset_members_of: the group with its members; NULL: nobody ever joined it. */
const bw_group *bw_offset_members_of(bw_broker *b, bw_str group);
void bw_offset_each_with_members(bw_broker *b, void (*fn)(void *opaque, const bw_group *g), void *opaque);
/* bw_offset_members_forget: the group, which has no members, goes. NON_EMPTY_GROUP. */
bw_err bw_offset_members_forget(bw_broker *b, bw_str group);
/* bw_offset_member_peer: uid and since when (wall ms) a member is connected; -1 when it is not. */
void bw_offset_member_peer(const bw_member *m, int64_t *uid, int64_t *since_ms);

/* ---- offsets_expire.c ---- */

void bw_offsets_expire_start(bw_broker *b);
/* bw_offset_remove: what is committed goes with the round that gathers. NO_MEMORY. */
bw_err bw_offset_remove(bw_broker *b, bw_offset_entry *e);

#endif
