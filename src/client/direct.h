/* client/direct.h: the direct path of a bus: may this process map, and the maps.
 *
 * An *environment* is what belongs to one generation of the data directory's control data: the directory, the arena folder, the
 * mail file. An *attachment* is one topic's control data, mapped for reading or for writing. Both are counted and unmapped only
 * when nothing uses them any more; a lock can't be held then. While an attachment for writing lives, the process holds the data
 * directory's writers.lock shared. */
#ifndef BW_CLIENT_DIRECT_H
#define BW_CLIENT_DIRECT_H

#include "base/clock.h"
#include "log/control.h"
#include "log/datadir.h"
#include "log/owners.h"

#include <busway/bus.h>
#include <pthread.h>

typedef struct bw_env {
    uint32_t refs, writers;
    bw_datadir *dir;
    int arena_fd;
    bw_mail *mail;
    bw_owners *owners; /* NULL: locks are not biased here */
    uint8_t generation[16];
    uint64_t owner_uid;
    struct bw_readonly *readonly; /* of a bus opened with mode=ro: control data of its own (client/readonly.h) */
} bw_env;

typedef struct bw_attach {
    struct bw_attach *next;
    _Atomic uint32_t refs; /* falls to 0 under the mutex only; who has one may take another without it */
    bw_env *env;
    bw_control *control;
    bw_control_mode mode;
    bw_uuid id;
    int32_t partitions;
    bool stale; /* found retired: nobody attaches to it any more */
    char topic[BW_TOPIC_NAME_MAX + 1];
} bw_attach;

/* Which way a topic goes, and why; for bw_bus_stats and the daemon's status. */
typedef struct bw_route {
    struct bw_route *next;
    bool for_write, direct;
    char topic[BW_TOPIC_NAME_MAX + 1];
    char reason[256];
} bw_route;

typedef struct bw_direct {
    pthread_mutex_t mutex;
    bw_env *env; /* of the present generation, or NULL */
    bw_attach *attaches;
    bw_route *routes;
} bw_direct;

void bw_direct_init(bw_direct *d);
void bw_direct_fini(bw_direct *d);

/* bw_direct_attach: for a topic that exists. Any error is the reason why the direct path is not to be had; bw_direct_may_fall_back
 * says whether the daemon's socket is the answer to it. The caller gives it back with bw_direct_release. */
bw_err bw_direct_attach(bw_bus *bus, const char *topic, bw_control_mode mode, bw_deadline deadline, bw_attach **out);
void bw_direct_release(bw_bus *bus, bw_attach *a);
static inline void bw_attach_ref(bw_attach *a) { atomic_fetch_add_explicit(&a->refs, 1, memory_order_relaxed); }
bool bw_direct_may_fall_back(const bw_bus *bus, bw_err e);
/* bw_direct_env_ref: count a user of an environment up or down. Under direct.mutex. */
void bw_direct_env_ref(bw_env *env, int by);
/* bw_direct_confirm: the daemon still lets this process write to the topic (or read from it). THROTTLED, and what an attach may be refused with. */
bw_err bw_direct_confirm(bw_bus *bus, const bw_attach *a, bw_deadline deadline);
/* bw_direct_mark_stale: it was retired; the next attach maps anew. */
void bw_direct_mark_stale(bw_bus *bus, bw_attach *a);
/* bw_direct_note: remember and report to the daemon which way a topic goes; reason NULL when direct. */
void bw_direct_note(bw_bus *bus, const char *topic, bool for_write, const char *reason);
/* bw_direct_rejoin: tell a new daemon what is attached here. */
void bw_direct_rejoin(bw_bus *bus);

#endif
