/* link/copy_internal.h: shared by copy.c (the stream) and copy_arrange.c (what is copied to where; groups' offsets) only. */
#ifndef BW_LINK_COPY_INTERNAL_H
#define BW_LINK_COPY_INTERNAL_H

#include "link/copy.h"

void bw_copy_say(bw_copy *c, bw_log_level level, const char *event, const bw_copy_part *p, const char *more);
/* bw_copy_part_of: by the source's name, or the target's. NULL: it is not copied. */
bw_copy_part *bw_copy_part_of(bw_copy *c, const char *topic, int32_t partition, bool target);
bool bw_copy_is_lost(bw_err e);
/* bw_copy_turn: wait for both ends, once. */
bw_err bw_copy_turn(bw_copy *c, bw_deadline deadline);

/* bw_copy_arrange: which topics, where each partition goes on; the source's stream begins there. */
bw_err bw_copy_arrange(bw_copy *c);
/* bw_copy_groups: what groups have committed at the source, as far as the sink has the records. */
bw_err bw_copy_groups(bw_copy *c);

#endif
