/* daemon/notify.h: tell who started the daemon how it is: systemd's protocol, without systemd. */
#ifndef BW_DAEMON_NOTIFY_H
#define BW_DAEMON_NOTIFY_H

#include "base/err.h"

/* bw_notify_service: one datagram, like "READY=1", to $NOTIFY_SOCKET (a path, or '@' and an abstract name). Nothing when it is unset. */
void bw_notify_service(const char *text);
/* bw_notify_ready_fd: "READY\n" to fd, then close it. -1: nothing. */
void bw_notify_ready_fd(int fd);

/* bw_notify_failed_fd: "ERROR <code> <the thread's message>\n" instead. */
void bw_notify_failed_fd(int fd, bw_err e);

#endif
