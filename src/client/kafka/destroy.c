/* client/kafka/destroy.c: the end of a librdkafka instance, which must not hold its program up.
 *
 * librdkafka 2.0 never ends the destruction of a consumer one of whose partitions' topics was deleted meanwhile: the partition keeps its broker,
 * and the broker's thread is waited for. So that is done in a thread of its own, which is waited for as long as it may take; after that it is
 * left to itself, and the instance's memory and two sleeping threads with it. By then it has no connection and calls nobody: what it could
 * log goes nowhere from the beginning on. */
#include "client/kafka/kafka.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>

enum { DESTROY_MS = 3000 };

typedef struct ending {
    rd_kafka_t *rk;
    int flags;
    void (*destroy)(rd_kafka_t *rk, int flags);
} ending;

static void *end(void *opaque)
{
    ending of = *(ending *)opaque;
    free(opaque);
    of.destroy(of.rk, of.flags);
    return NULL;
}

void bw_kafka_destroy(rd_kafka_t *rk, int flags)
{
    sigset_t all, old;
    pthread_t thread;
    struct timespec until;
    ending *of = malloc(sizeof *of);
    RK(set_log_level)(rk, 0); /* the bus, to which it would go, may go before it */
    if (!of) {
        RK(destroy_flags)(rk, flags);
        return;
    }
    *of = (ending){rk, flags, bw_rdk.destroy_flags};
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int r = pthread_create(&thread, NULL, end, of);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (r) {
        end(of);
        return;
    }
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += DESTROY_MS / 1000;
    if (pthread_clockjoin_np(thread, NULL, CLOCK_MONOTONIC, &until)) pthread_detach(thread);
}
