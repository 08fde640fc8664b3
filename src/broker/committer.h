/* broker/committer.h: changes of metadata for which somebody waits, many in one transaction of the store.
 *
 * A commit is a list of entries to be put or removed, whole or not at all. Who has one submits it from the broker thread; the committer
 * thread takes all that came while the transaction before was on its way to the disk and does them as one, in their order; `done` is
 * called in the broker thread, in that order too, when it is on the disk (or failed: the thread's message says why). So the cost of
 * a sync is shared by all who wait for it, and nobody's turn waits for a disk. The thread is made at the first commit.
 * Stop: commits that were submitted are done; their `done` runs while the broker drains (sessions are closed by then or never answer).
 * Memory: who submits bounds how much he has under way; bw_committer_backlog tells all. */
#ifndef BW_BROKER_COMMITTER_H
#define BW_BROKER_COMMITTER_H

#include "broker/core.h"

typedef struct bw_commit {
    struct bw_commit *next;
    void (*done)(bw_broker *b, struct bw_commit *c, bw_err e); /* owns c from there on: bw_commit_fini, free */
    bw_buf entries; /* encoded; by bw_commit_put alone */
    uint32_t count;
    bw_event event;
    bw_err error;  /* of the transaction; in its first commit */
    char *message; /* likewise; malloc'd */
} bw_commit;

/* bw_commit_put: keys of 1 to BW_META_KEY_MAX bytes; both are copied. bw_commit_remove: nothing happens when it is not there. NO_MEMORY,
 * INVALID_ARGUMENT; the commit is then as before. */
bw_err bw_commit_put(bw_commit *c, int table, const void *key, size_t key_len, const void *value, size_t value_len);
bw_err bw_commit_remove(bw_commit *c, int table, const void *key, size_t key_len);
void bw_commit_fini(bw_commit *c);

/* bw_committer_submit: broker thread. On an error (no thread) c is still the caller's and done is not called. */
bw_err bw_committer_submit(bw_broker *b, bw_commit *c);
/* bw_committer_backlog: bytes of entries that were submitted and are not done. */
size_t bw_committer_backlog(const bw_broker *b);
/* bw_committer_done: the event's handler. */
void bw_committer_done(bw_broker *b, bw_commit *first);
void bw_committer_stop(bw_broker *b);
void bw_committer_free(bw_committer *m);

#endif
