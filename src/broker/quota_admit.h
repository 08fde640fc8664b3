/* broker/quota_admit.h: what quotas do to sessions. Broker thread only.
 *
 * A request that would go over a rate is *held*: it waits in its session, in order among those of its kind, until its bucket allows it, and
 * its bytes go on counting against the connection's credit, so that after some MiB the connection is not read from. Answers of FETCH and what
 * is pushed wait in their places instead (fetch.c, subscribe.c ask bw_quota_must_wait) and go on when the session's timer fires. The answer says
 * for how long it was held (throttle_ms). HELLO, heartbeats, credit and the quotas' own requests are never held.
 * Writers and readers on the direct path pass no daemon; so whoever has a byte rate is refused the attachment (THROTTLED) and comes through
 * the socket; when a rate is set, the partitions that he writes to are fenced, so that he asks again. A map that is there for reading
 * can't be taken back: who reads directly when a consumer_byte_rate is set goes on until it attaches anew; the event quota_set counts them. */
#ifndef BW_BROKER_QUOTA_ADMIT_H
#define BW_BROKER_QUOTA_ADMIT_H

#include "broker/core.h"

/* bw_quota_load: from the store, at the start. */
bw_err bw_quota_load(bw_broker *b);
/* bw_quota_hold: true: the request waits, and comes back through bw_broker_handle_admitted. */
bool bw_quota_hold(bw_broker *b, bw_op *op);
/* bw_quota_must_wait: nothing may be sent to the session now; its fetches and subscriptions are served again when it may. */
bool bw_quota_must_wait(bw_broker *b, bw_session *s);
/* bw_quota_sent: bytes of payload go out with a; its throttle_ms is set. op NULL: pushed. */
void bw_quota_sent(bw_session *s, const bw_op *op, bw_answer *a);
/* bw_quota_check_attach: THROTTLED. */
bw_err bw_quota_check_attach(bw_broker *b, bw_session *s, bool for_write);
void bw_quota_session_closed(bw_broker *b, bw_session *s);
void bw_quota_introduced(bw_session *s); /* its client id is known now */
/* bw_quota_pack: an array of maps, appended to b->doc; `only` NULL: all. Not 0: no memory. */
int bw_quota_pack(bw_broker *b, const bw_quota_entity *only);
void bw_handle_set_quota(bw_broker *b, bw_op *op);
void bw_handle_list_quotas(bw_broker *b, bw_op *op);

#endif
