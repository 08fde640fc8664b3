/* tests/unit/log/call_watch.h: the system calls that change files, as this thread makes them (bw_os_observe): what, on which file, by
 * which name, and where the durable watermark was then. */
#ifndef CALL_WATCH_H
#define CALL_WATCH_H

#include "base/os.h"
#include "format/control_page.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/stat.h>

#include <cmocka.h>

enum { CALLS_MAX = 4096 };

typedef struct call {
    bw_os_call what;
    uint64_t inode; /* of the file that a descriptor names */
    uint64_t durable;
    char name[48];
} call;

static struct {
    call calls[CALLS_MAX];
    int count;
    const bw_tail_slot *slot;
} seen;

static inline void note(void *opaque, const bw_os_event *e)
{
    struct stat st;
    (void)opaque;
    if (!e->done || e->result < 0 || seen.count == CALLS_MAX) return;
    call *c = &seen.calls[seen.count++];
    *c = (call){.what = e->call, .durable = seen.slot ? atomic_load(&seen.slot->durable) : 0};
    if (e->fd >= 0 && fstat(e->fd, &st) == 0) c->inode = st.st_ino;
    if (e->name) snprintf(c->name, sizeof c->name, "%s", e->name2 ? e->name2 : e->name);
}

/* slot: whose durable watermark is noted with each call; NULL: none. */
static inline void watch(const bw_tail_slot *slot)
{
    seen.count = 0;
    seen.slot = slot;
    bw_os_observe(note, NULL);
}

static inline void unwatch(void) { bw_os_observe(NULL, NULL); }

/* Index of the first call of that kind on that file at or behind `from`; -1: none. inode 0: any. */
static inline int find_call(bw_os_call what, uint64_t inode, int from)
{
    for (int i = from; i < seen.count; i++)
        if (seen.calls[i].what == what && (inode == 0 || seen.calls[i].inode == inode)) return i;
    return -1;
}

static inline uint64_t inode_of(int fd)
{
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    return st.st_ino;
}

#endif
