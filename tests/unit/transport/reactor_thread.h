/* A reactor and the thread that waits on it, for tests of what is served by one. */
#ifndef TESTS_UNIT_TRANSPORT_REACTOR_THREAD_H
#define TESTS_UNIT_TRANSPORT_REACTOR_THREAD_H

#include "transport/reactor.h"

#include <pthread.h>
#include <stdatomic.h>

typedef struct reactor_thread {
    bw_reactor *reactor;
    pthread_t thread;
    atomic_bool stop;
} reactor_thread;

static inline void *reactor_thread_main(void *arg)
{
    reactor_thread *t = arg;
    while (!atomic_load(&t->stop)) {
        bw_reactor_wait(t->reactor, -1, NULL, NULL);
        bw_reactor_leave(t->reactor);
    }
    return NULL;
}

static inline bool reactor_thread_start(reactor_thread *t)
{
    atomic_store(&t->stop, false);
    return bw_reactor_open(&t->reactor) == BW_OK && pthread_create(&t->thread, NULL, reactor_thread_main, t) == 0;
}

static inline void reactor_thread_stop(reactor_thread *t)
{
    atomic_store(&t->stop, true);
    bw_reactor_wake(t->reactor);
    pthread_join(t->thread, NULL);
    bw_reactor_close(t->reactor);
}

#endif
