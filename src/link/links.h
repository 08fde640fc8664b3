/* link/links.h: the links of a daemon: kept in its store, each with a thread of its own, managed by requests.
 *
 * Record (table links, key 'l' and the link's name): link/spec.h. Links of the configuration file are not stored; nobody alters them. */
#ifndef BW_LINK_LINKS_H
#define BW_LINK_LINKS_H

#include "broker/broker.h"

typedef struct bw_links bw_links;

/* bw_links_start: what is stored and what the configuration names begins to run, and the broker's requests LINK_… are answered. A link that
 * cannot work says so in its status; it is no error here. INVALID_CONFIG: the configuration names one wrongly; NO_MEMORY. */
bw_err bw_links_start(bw_broker *b, const bw_daemon_config *config, bw_links **out);
/* bw_links_stop: every link has ended, its sessions too; before bw_broker_stop. */
void bw_links_stop(bw_links *l);

#endif
