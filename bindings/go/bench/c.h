/* c.h: the same work in C, for bench's ratios. Where a call returns seconds, -1 is an error, which bench_why tells. */
#ifndef BUSWAY_GO_BENCH_C_H
#define BUSWAY_GO_BENCH_C_H

#include <busway/busway.h>

extern char bench_why[1024];

/* Sends count records of value_len bytes, `batch` at a time (1: bw_producer_send_sync; many: bw_producer_send_many). */
double bench_produce(const char *url, const char *topic, int64_t count, int32_t batch, int32_t value_len, int many);
/* Reads count records of partition 0 from the beginning, and touches both ends of each value; copies: of a copy of each record. */
double bench_consume(const char *url, const char *topic, int64_t count, int copies);

/* Round trips between two processes that sleep. Each runs one side: the echo says "ready" on stdout and answers count times; the other side
 * pauses, sends, waits, and writes the ns of each trip to out. 0, or -1. */
int bench_futex(const char *path, int echo, int32_t count, int32_t pause_us, int64_t *out); /* two words in a mapped file: no library */
void *bench_side_open(const char *url, const char *from, const char *to);
int bench_side_run(void *side, const char *to, int echo, int32_t count, int32_t pause_us, int64_t *out); /* closes it */

#endif
