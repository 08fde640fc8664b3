/* link/links_internal.h: one link as its daemon has it; shared by links.c (requests, the store), link_thread.c (its thread) and
 * links_doc.c (descriptions). */
#ifndef BW_LINK_LINKS_INTERNAL_H
#define BW_LINK_LINKS_INTERNAL_H

#include "broker/links.h"
#include "link/copy.h"
#include "link/links.h"

typedef enum bw_link_state { BW_LINK_STARTS, BW_LINK_PAUSED, BW_LINK_CONNECTS, BW_LINK_COPIES, BW_LINK_WAITS } bw_link_state;

typedef struct bw_link {
    struct bw_link *next; /* broker thread */
    bw_links *links;
    bw_link_spec spec;
    bw_copy copy;
    pthread_t thread;
    bool runs;             /* thread is there */
    _Atomic bool stop, paused, finished;
    bw_stop waits;         /* raised: its thread shall leave whatever it waits for */
    pthread_mutex_t mutex; /* what follows */
    pthread_cond_t cond;   /* monotonic */
    bw_link_state state;
    bw_err error;          /* of the last end; OK while it goes well */
    char message[512];
    uint32_t failures;     /* in a row */
    int64_t since_ms;      /* wall clock: in this state */
    uint64_t connects;
} bw_link;

struct bw_links {
    bw_broker *broker;
    const bw_daemon_config *config;
    bw_link *list;  /* broker thread; by name */
    bw_link *dying; /* stopped, to be joined */
};

/* link_thread.c */
bw_err bw_link_start(bw_link *k);
/* bw_link_poke: it looks at stop and paused. Any thread. */
void bw_link_poke(bw_link *k);

/* links_doc.c; broker thread. Not 0: no memory. */
int bw_link_put(bw_link *k, void *packer, bool with_parts);

#endif
