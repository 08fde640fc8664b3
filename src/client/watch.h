/* client/watch.h: the thread that turns mailbox wake-ups into readable descriptors, for consumers that sit in an event loop or
 * read on both paths at once.
 *
 * The watch owns one mailbox of the bus. A consumer that uses it arms its partitions with that mailbox and registers them here;
 * the thread sleeps on the mailbox's futex, puts the partition into the inbox of each consumer that registered it, and writes to
 * that consumer's eventfd. It audits like every sleeper: at most each second it looks at the tails itself. */
#ifndef BW_CLIENT_WATCH_H
#define BW_CLIENT_WATCH_H

#include "client/bus.h"

/* One consumer's partition. Owned by the consumer; in the watch's table between add and remove. */
typedef struct bw_watch_entry {
    struct bw_watch_entry *next;       /* in the table's chain */
    struct bw_watch_entry *next_ready; /* in the inbox */
    struct bw_inbox *inbox;
    const bw_tail_slot *slot;
    uint32_t number;
    const _Atomic uint64_t *word;  /* what moves when there is news: the tail, or another watermark of the slot */
    bool queued;                   /* in the inbox; under the watch's mutex */
    _Atomic bool armed;            /* set by the consumer before it arms */
    _Atomic uint64_t seen;         /* the watermark when it was armed */
    void *part;
} bw_watch_entry;

typedef struct bw_inbox {
    bw_watch_entry *ready; /* under the watch's mutex */
    _Atomic bool has_news;
    int event_fd;
} bw_inbox;

/* bw_watch_start: start the thread, with a mailbox of env, if it does not run. BUSY, NO_COORDINATOR, … */
bw_err bw_watch_start(bw_bus *bus, bw_env *env);
/* bw_watch_check: UNSUPPORTED when the watch that runs is of another environment. */
bw_err bw_watch_check(bw_bus *bus, const bw_env *env);
/* bw_watch_mailbox: the number to arm with; it changes when the daemon came back. */
uint32_t bw_watch_mailbox(bw_bus *bus);
/* bw_watch_stop: stop and join. No consumer uses it any more. */
void bw_watch_stop(bw_bus *bus);
void bw_watch_add(bw_bus *bus, bw_watch_entry *e);
/* bw_watch_remove: on return the thread does not look at e any more. */
void bw_watch_remove(bw_bus *bus, bw_watch_entry *e);
/* bw_watch_take: the entries that were notified, chained by next_ready; NULL: none. */
bw_watch_entry *bw_watch_take(bw_bus *bus, bw_inbox *inbox);

#endif
