/* client/readonly.h: a bus opened with mode=ro: a folder's files alone.
 *
 * There is no coordinator and no connection: what a consumer by assignment, offsets, descriptions and status need is answered here from
 * the files; all else is READ_ONLY. Nothing is written and no lock is taken, so that the folder may be a copy, a backup, a read-only
 * mount, another user's, or one that is being written to.
 * The partitions that are read have a follower each (log/follow.h), which a thread of the bus keeps at the files' ends; consumers use
 * the direct path on the private control data that it fills, and are woken by it. Files are read with pread only: who truncates a copy
 * must not end the program.
 * Locks: readonly's mutex guards followers, mailboxes and the thread; it is taken last. */
#ifndef BW_CLIENT_READONLY_H
#define BW_CLIENT_READONLY_H

#include "client/bus.h"
#include "log/follow.h"

typedef struct bw_readonly bw_readonly;

/* bw_readonly_open: the folder of the bus's URL. NOT_FOUND (no folder, or nothing of Busway's in it), NOT_PERMITTED, NEWER_FORMAT, … */
bw_err bw_readonly_open(bw_bus *bus);
/* bw_readonly_close: no consumer is open any more. */
void bw_readonly_close(bw_bus *bus);

/* bw_readonly_refuse: READ_ONLY, naming what was asked and the folder; BW_OK when the bus is not read-only. */
bw_err bw_readonly_refuse(const bw_bus *bus, const char *what);
/* bw_readonly_request: as bw_bus_request. */
bw_err bw_readonly_request(bw_bus *bus, const bw_request *request, bw_reply *reply);
/* JSON texts, malloc'd. */
bw_err bw_readonly_describe(bw_bus *bus, const char *topic, char **json);
bw_err bw_readonly_status(bw_bus *bus, char **json);

/* bw_readonly_attach: the topic's control data, as bw_direct_attach gives it. UNKNOWN_TOPIC, READ_ONLY (for writing). */
bw_err bw_readonly_attach(bw_bus *bus, bw_attach *a);
/* bw_readonly_part: the slot of one partition is filled and followed from now on. */
bw_err bw_readonly_part(bw_bus *bus, const bw_attach *a, int32_t partition);
/* bw_readonly_detach: nobody reads this topic any more. Before its control data is closed. */
void bw_readonly_detach(bw_readonly *r, const bw_control *control);
/* bw_readonly_refresh: look at the folder itself now: segments may have vanished or been replaced under a reader. */
void bw_readonly_refresh(bw_bus *bus, const bw_attach *a, int32_t partition);
void bw_readonly_release_mailbox(bw_bus *bus, uint32_t number);

/* Between the two files. */
typedef struct bw_readonly_topic {
    char name[BW_TOPIC_NAME_MAX + 1];
    bw_uuid id; /* all zero when no partition says it */
    int32_t partitions;
} bw_readonly_topic;
/* bw_readonly_topics: name NULL: all, ascending; malloc'd. UNKNOWN_TOPIC when a name was given and is not there. */
bw_err bw_readonly_topics(const bw_readonly *r, const char *name, bw_readonly_topic **out, size_t *count);

struct bw_readonly {
    bw_bus *bus;
    int data_fd;
    bw_env env; /* refs never fall to 0 */
    pthread_mutex_t mutex;
    struct bw_followed *followed;
    uint32_t next_number;
    uint64_t mailboxes[BW_MAILBOXES / 64]; /* bit: given out */
    pthread_t thread;
    bool thread_runs;
    _Atomic uint32_t stop; /* and the futex that the thread sleeps on */
};

#endif
