/* c.h: the same work in C, in the same process, for bench's ratios. Each returns seconds, or -1 with bw_error_message in `why`. */
#ifndef BUSWAY_GO_BENCH_C_H
#define BUSWAY_GO_BENCH_C_H

#include <busway/busway.h>

extern char bench_why[1024];

/* Sends count records of value_len bytes, `batch` at a time (1: bw_producer_send_sync; many: bw_producer_send_many). */
double bench_produce(const char *url, const char *topic, int64_t count, int32_t batch, int32_t value_len, int many);
/* Reads count records of partition 0 from the beginning, and touches both ends of each value. */
double bench_consume(const char *url, const char *topic, int64_t count);
/* Round trips of one record between two threads that sleep: ns of each into out. */
double bench_echo(const char *url, const char *there, const char *back, int32_t count, int32_t pause_us, int64_t *out);

#endif
