/* client/admin.h: requests of the administrative calls (admin.c, groups.c). */
#ifndef BW_CLIENT_ADMIN_H
#define BW_CLIENT_ADMIN_H

#include "client/bus.h"

/* bw_admin_ask: a request whose answer says nothing but yes. */
bw_err bw_admin_ask(bw_bus *bus, bw_request *q);
/* bw_admin_document: the answer's document as JSON, freed with bw_free. */
bw_err bw_admin_document(bw_bus *bus, bw_request *q, char **json);

#endif
