/* transport/resolve.c: see resolve.h. The thread and who waits for it share the question; who comes last frees it. */
#include "transport/resolve.h"

#include "base/os.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct question {
    char host[BW_TCP_HOST_MAX + 1], port[8];
    struct addrinfo hints, *answer;
    int rc, saved_errno;
    bw_stop done; /* raised when rc and answer are there */
    _Atomic int users;
} question;

static void ask(question *q)
{
    const char *host = (q->hints.ai_flags & AI_PASSIVE) && strcmp(q->host, "*") == 0 ? NULL : q->host;
    q->rc = getaddrinfo(host, q->port, &q->hints, &q->answer);
    q->saved_errno = errno;
}

static void leave(question *q)
{
    if (atomic_fetch_sub(&q->users, 1) != 1) return;
    if (q->rc == 0 && q->answer) freeaddrinfo(q->answer);
    bw_stop_fini(&q->done);
    free(q);
}

static void *thread_main(void *opaque)
{
    question *q = opaque;
    ask(q);
    bw_stop_raise(&q->done);
    leave(q);
    return NULL;
}

/* A thread that nobody joins; signals are others'. */
static int start(question *q)
{
    pthread_t thread;
    pthread_attr_t attributes;
    sigset_t all, before;
    sigfillset(&all);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    atomic_store(&q->users, 2);
    int bad = pthread_create(&thread, &attributes, thread_main, q);
    if (bad) atomic_store(&q->users, 1);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return bad;
}

/* BW_OK: rc and answer are there. */
static bw_err ask_stoppable(question *q, const bw_stop *stop, bw_deadline deadline)
{
    q->hints.ai_flags |= AI_NUMERICHOST; /* an address needs no resolver */
    ask(q);
    if (q->rc != EAI_NONAME) return BW_OK;
    q->hints.ai_flags &= ~AI_NUMERICHOST;
    bw_err e = bw_stop_init(&q->done);
    int bad = e ? 0 : start(q);
    if (bad) e = bw_fail_errno(bad, "no thread to look up a host's name");
    short events = POLLIN;
    return e ? e : bw_stop_poll(stop, q->done.fd, &events, deadline);
}

bw_err bw_resolve(const bw_tcp_place *place, int flags, const bw_stop *stop, bw_deadline deadline, struct addrinfo **out)
{
    char text[BW_TCP_TEXT_MAX];
    bw_err e = BW_OK;
    question *q = calloc(1, sizeof *q);
    if (!q) return bw_fail(BW_ERR_NO_MEMORY, "no memory to look up a host's name");
    memcpy(q->host, place->host, sizeof q->host);
    snprintf(q->port, sizeof q->port, "%u", (unsigned)place->port);
    q->hints = (struct addrinfo){.ai_socktype = SOCK_STREAM, .ai_flags = flags | AI_NUMERICSERV};
    q->done.fd = -1;
    atomic_store(&q->users, 1);
    if (stop) e = ask_stoppable(q, stop, deadline);
    else ask(q);
    bw_tcp_place_print(place, text);
    if (e == BW_ERR_TIMED_OUT) e = bw_fail(BW_ERR_NO_COORDINATOR, "%s: the host's name was not found in time", text);
    else if (e == BW_ERR_CLOSED) e = bw_fail(e, "%s: told to stop while its name was looked up", text);
    else if (!e && q->rc)
        e = bw_fail(BW_ERR_NO_COORDINATOR, "%s: the host's name has no address: %s", text,
                    q->rc == EAI_SYSTEM ? strerror(q->saved_errno) : gai_strerror(q->rc));
    else if (!e) {
        *out = q->answer;
        q->answer = NULL;
    }
    leave(q);
    return e;
}
