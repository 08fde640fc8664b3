/* client/conn_pump.h: the two halves of a connection share these; nobody else includes it. */
#ifndef BW_CLIENT_CONN_PUMP_H
#define BW_CLIENT_CONN_PUMP_H

#include "client/conn.h"

/* All are called with the mutex held. */
/* bw_conn_take_pump: become the pumper; false: the deadline. */
bool bw_conn_take_pump(bw_conn *c, bw_deadline deadline);
void bw_conn_give_pump(bw_conn *c);
/* bw_conn_pump: wait for and handle what comes, once. Drops the mutex meanwhile; the caller is the pumper. TIMED_OUT;
 * NOT_CONNECTED: the connection was lost and everything pending was told. */
bw_err bw_conn_pump(bw_conn *c, int extra_fd, bw_deadline deadline);
/* bw_conn_lose: close and fail what is pending (the mutex is dropped for the callbacks). The caller is the pumper. */
void bw_conn_lose(bw_conn *c);
/* bw_conn_send_locked: register p and send. */
bw_err bw_conn_send_locked(bw_conn *c, bw_pending *p, const bw_buf *frame, const void *payload, size_t payload_len);
/* bw_conn_sleep: wait on `changed` until the deadline; false: over. */
bool bw_conn_sleep(bw_conn *c, bw_deadline deadline);

#endif
