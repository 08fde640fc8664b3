/* bench/bus.h: Busway's writers and readers, shared by the files that measure them. Each names what failed in shared->error. */
#ifndef BENCH_BUS_H
#define BENCH_BUS_H

#include "bench.h"

#include <busway/busway.h>

#define BENCH_WAIT_MS 10000

/* A writer: its bus, its producer and the records that it sends again and again. */
typedef struct bench_writer {
    bw_bus *bus;
    bw_producer *producer;
    bw_record *records;
    uint8_t *values;
    uint32_t count;
} bench_writer;

/* A reader of one partition, or of all, and where it is. */
typedef struct bench_reader {
    bw_bus *bus;
    bw_consumer *consumer;
    int64_t next[BENCH_PARTITIONS_MAX];
    uint8_t first[8]; /* of the last value read */
} bench_reader;

bool bench_bus_failed(const bench_run *run, const char *what); /* false */
bool bench_bus_open(const bench_run *run, bw_bus **bus);
bool bench_writer_open(bench_writer *w, const bench_run *run);
bool bench_writer_close(bench_writer *w, const bench_run *run);
/* bench_writer_write: one batch of the log to a partition, in the case's way. */
bool bench_writer_write(bench_writer *w, const bench_run *run, int32_t partition);
bool bench_reader_open(bench_reader *r, const bench_run *run, int32_t partition); /* BW_PARTITION_ANY: all */
void bench_reader_close(bench_reader *r);
/* bench_reader_read: one batch and every record of it; their number, 0 on failure. */
uint32_t bench_reader_read(bench_reader *r, const bench_run *run, bool may_sleep, uint64_t *sum);

/* The roles of the cases; index 0 is a writer. */
bool bench_fan_role(const bench_run *run, uint32_t index);     /* fan.c */
bool bench_writers_role(const bench_run *run, uint32_t index); /* fan.c */
bool bench_one_way_role(const bench_run *run, uint32_t index); /* calls.c */
bool bench_calls_role(const bench_run *run, uint32_t index);   /* calls.c */
void bench_calls_take(const bench_run *run, bench_figures *out);

#endif
