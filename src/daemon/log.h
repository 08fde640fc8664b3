/* daemon/log.h: events to standard error, one a line: "time level event key=value…", or as JSON. Any thread. */
#ifndef BW_DAEMON_LOG_H
#define BW_DAEMON_LOG_H

#include "broker/config.h"

/* A bw_event_fn; opaque is the bw_daemon_config (log_json, log_level). */
void bw_daemon_log(void *config, bw_log_level level, const char *event, const char *fields);
/* bw_daemon_log_format: the line, with its newline, as the above writes it; at most size bytes. Returns its length. */
size_t bw_daemon_log_format(bool json, int64_t wall_ms, bw_log_level level, const char *event, const char *fields, char *out, size_t size);

#endif
