/* link/replicate.h: what a mirror's link does for replicas: it acknowledges to the source what the sink has on its disk (REPLICA_ACK), tells the
 * sink what enough peers have, lets its log begin where the source's does, and fences a source whose mirror was promoted. All in the link's
 * thread; both ends are daemons of Busway. */
#ifndef BW_LINK_REPLICATE_H
#define BW_LINK_REPLICATE_H

#include "link/copy.h"

/* bw_replicate_begin: the stream begins: every partition says once what the sink has; who isn't wanted is not asked again. */
bw_err bw_replicate_begin(bw_copy *c);
/* bw_replicate_note: the sink has all below p->next. */
void bw_replicate_note(bw_copy *c, bw_copy_part *p);
/* bw_replicate_start: log-start=follow: what the source's log does not begin with any more goes at the sink, as far as it has come. */
void bw_replicate_start(bw_copy *c, bw_copy_part *p);
/* bw_replicate_fence: the sink's `target` was promoted: the source's `topic` takes no more writes. Waits; NOT_CONNECTED, TIMED_OUT: the link is
 * lost; anything else was said as an event. */
bw_err bw_replicate_fence(bw_copy *c, const char *topic, const char *target, int32_t partitions);

#endif
