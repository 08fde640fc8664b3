/* broker/groups_core.h: the registry of groups' inside; for the files groups*.c only. */
#ifndef BW_BROKER_GROUPS_CORE_H
#define BW_BROKER_GROUPS_CORE_H

#include "broker/committer.h"
#include "broker/groups.h"

#include <regex.h>

#define BW_PATTERNS_MAX 64u

typedef struct bw_watch bw_watch;
typedef struct bw_entry bw_entry;

/* What a member subscribed to, as it lies in its record: u8 version (1), u16 count, each u8 is a pattern, u16 length, bytes. */
typedef struct bw_wanted {
    bw_subscription *list; /* views into the record */
    regex_t *patterns;     /* of each that is one */
    size_t count;
} bw_wanted;

/* A member's outside. */
typedef struct bw_link {
    bw_session *session; /* NULL: not connected; not counted: it is open, its end is told */
    bw_op *join;         /* waits to be told what the member has; NULL: pushes go out as GROUP_ASSIGNMENT */
    uint64_t batch;      /* of the newest of its records */
    bool owed;           /* it is to be told */
    uint32_t mailbox;
    bw_watch *watch;
    bw_wanted wanted;
} bw_link;

/* A classic answer that waits for a batch. */
typedef struct bw_later {
    struct bw_later *next;
    uint64_t batch;
    bw_op *op;
    int32_t generation;
    bool with_members;
    char *leader;
    char member[]; /* its id */
} bw_later;

/* One batch of records of a group on its way. */
typedef struct bw_batch_of {
    bw_commit commit; /* first */
    bw_entry *entry;
    uint64_t number;
} bw_batch_of;

struct bw_entry {
    bw_broker *broker;
    bw_group *g;
    bw_timer timer, retry, again;
    uint64_t saved;          /* the newest batch that is on the disk */
    bool due;
    bw_entry *due_next;
    uint64_t batch;          /* the number of the one that gathers */
    bw_batch_of *gathering, *flying;
    bw_later *later, **later_last;
    bool deleting;
    UT_hash_handle hh;
    bool not_hashed;
};

struct bw_groups {
    bw_entry *entries;
    bw_entry *due;
    bw_group_limits limits;
    bw_watch *watches;
    uint8_t boot[16];
    uint64_t ring[BW_MAILBOXES / 64]; /* mailboxes to be poked when what was pushed in this turn has left */
    bool rings;
    bw_timer poke; /* after a restart: those who sleep look whether there is a daemon again */
    unsigned pokes;
};

/* groups.c */
extern const bw_group_ops bw_groups_ops;
/* bw_entry_of: make: a group that is not there is made. GROUP_ID_NOT_FOUND, INVALID_GROUP_ID, LIMIT_REACHED, NO_MEMORY. */
bw_err bw_entry_of(bw_broker *b, bw_str id, bool make, bw_entry **out);
/* bw_entry_due: something has changed: poll it at the end of the turn. */
void bw_entry_due(bw_entry *e);
void bw_entry_free(bw_entry *e);
bw_link *bw_link_new(void);
void bw_link_free(bw_broker *b, bw_link *l);
void bw_new_member_id(const bw_session *s, bw_str instance, char *out, size_t size);
static inline bw_link *bw_link_of(const bw_member *m) { return m->user; }
static inline int64_t bw_groups_now(void) { return bw_clock_mono_ms(); }

/* groups_save.c: records. */
void bw_entry_save(bw_entry *e, bw_member *m); /* NULL: the group's */
void bw_entry_save_removed(bw_entry *e, const bw_member *m);
void bw_entry_submit(bw_entry *e); /* what was gathered sets out, if nothing is on its way */
bw_err bw_groups_restore(bw_broker *b, uint64_t *members);
/* bw_entry_delete: a group without members goes, with its records. NON_EMPTY_GROUP. */
bw_err bw_entry_delete(bw_entry *e);

/* groups_members.c */
void bw_entry_tell(bw_entry *e); /* those whose records are on the disk */
void bw_entry_tell_fenced(bw_entry *e, bw_member *m, bw_err why, const char *reason);
/* bw_groups_ring: wake those who were pushed to. */
void bw_groups_ring(bw_broker *b);
bw_process bw_groups_process(const bw_session *s);

/* groups_classic.c */
void bw_entry_answer_joined(bw_entry *e, bw_op *op, const bw_joined *a);
void bw_entry_answer_synced(bw_entry *e, bw_op *op, bw_err err, const bw_member *m);
void bw_entry_answer_later(bw_entry *e);

/* groups_topics.c */
bw_err bw_wanted_encode(const bw_subscription *list, size_t count, bw_buf *out);
/* bw_wanted_decode: with its patterns compiled. CORRUPT, INVALID_ARGUMENT, NO_MEMORY. */
bw_err bw_wanted_decode(bw_str record, bw_wanted *out);
void bw_wanted_fini(bw_wanted *w);
/* bw_wanted_resolve: what it comes to now: views of topics; malloc'd. */
bw_err bw_wanted_resolve(bw_broker *b, const bw_wanted *w, bw_topic_view **out, size_t *count);

/* groups_watch.c */
bw_watch *bw_watch_get(bw_broker *b, const bw_process *p, bool *dead); /* NULL: not watched: no pid, none left, or *dead */
void bw_watch_drop(bw_broker *b, bw_watch *w);
void bw_groups_process_died(bw_broker *b, const bw_process *p);

#endif
