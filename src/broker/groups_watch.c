/* broker/groups_watch.c: the processes of local members and workers (queue.c), each watched once by a pidfd in the reactor, however many
 * members it has.
 *
 * A pid is reused: only when the process behind the descriptor began when the member's did, it is the member's. A watch that nobody
 * needs any more is taken off by the reactor's own thread (bw_reactor_remove is its alone), which frees it. */
#include "broker/groups_core.h"

#include "base/os.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

struct bw_watch {
    bw_source source; /* first */
    bw_call end;
    bw_broker *broker;
    bw_process process;
    uint32_t users;
    bool dead, not_hashed;
    uint64_t key[2]; /* pid, start */
    UT_hash_handle hh;
};

static void ready(bw_source *s, uint32_t events)
{
    bw_watch *w = (bw_watch *)(void *)s;
    (void)events;
    if (w->dead) return;
    w->dead = true;
    bw_reactor_ask(w->broker->reactor, s, 0);
    if (!w->users || !w->broker->groups) return;
    bw_process p = w->process;
    bw_queue_process_died(w->broker, p.pid, p.start_ticks);
    bw_groups_process_died(w->broker, &p); /* frees it, perhaps: its last user goes */
}

static void end(bw_call *c)
{
    bw_watch *w = (bw_watch *)(void *)((char *)c - offsetof(bw_watch, end));
    bw_reactor_remove(w->broker->reactor, &w->source);
    bw_os_close(w->source.fd);
    free(w);
}

bw_watch *bw_watch_get(bw_broker *b, const bw_process *p, bool *dead)
{
    bw_groups *all = b->groups;
    bw_watch *w = NULL;
    uint64_t key[2] = {(uint64_t)p->pid, p->start_ticks};
    *dead = false;
    if (p->pid <= 0) return NULL;
    if (memcmp(p->boot, all->boot, sizeof all->boot)) {
        *dead = true;
        return NULL;
    }
    if (all->watches) HASH_FIND(hh, all->watches, key, sizeof key, w);
    if (w && !w->dead) {
        w->users++;
        return w;
    }
    int fd = (int)syscall(SYS_pidfd_open, (pid_t)p->pid, 0);
    if (fd < 0) {
        *dead = errno == ESRCH;
        return NULL;
    }
    uint64_t start = bw_os_process_start_time((pid_t)p->pid);
    if (p->start_ticks && start && start != p->start_ticks) {
        *dead = true;
        bw_os_close(fd);
        return NULL;
    }
    w = calloc(1, sizeof *w);
    if (!w) {
        bw_os_close(fd);
        return NULL; /* its connection's end tells */
    }
    *w = (bw_watch){.source = {.ready = ready, .fd = fd}, .end = {.fn = end}, .broker = b, .process = *p, .users = 1, .key = {key[0], key[1]}};
    HASH_ADD_KEYPTR(hh, all->watches, w->key, sizeof w->key, w);
    if (w->not_hashed || bw_reactor_ask(b->reactor, &w->source, EPOLLIN)) {
        if (!w->not_hashed) HASH_DEL(all->watches, w);
        bw_os_close(fd);
        free(w);
        return NULL;
    }
    return w;
}

void bw_watch_drop(bw_broker *b, bw_watch *w)
{
    if (--w->users) return;
    HASH_DEL(b->groups->watches, w);
    bw_reactor_call(b->reactor, &w->end);
}
