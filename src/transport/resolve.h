/* transport/resolve.h: a host's addresses, by the system's resolver, which may take a minute and can't be told to give up: whoever must be able
 * to gives it to a thread and leaves. */
#ifndef BW_TRANSPORT_RESOLVE_H
#define BW_TRANSPORT_RESOLVE_H

#include "base/stop.h"
#include "transport/tcp.h"

#include <netdb.h>

/* bw_resolve: freeaddrinfo the list. flags: of getaddrinfo. stop: NULL: waits as long as the resolver does. NO_COORDINATOR: there is none; not
 * in time. CLOSED: stopped. NO_MEMORY. */
bw_err bw_resolve(const bw_tcp_place *place, int flags, const bw_stop *stop, bw_deadline deadline, struct addrinfo **out);

#endif
