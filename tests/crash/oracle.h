/* tests/crash/oracle.h: what was tried, acknowledged, refused and read; says what contradicts it. One a round. */
#ifndef CRASH_ORACLE_H
#define CRASH_ORACLE_H

#include "crash/crash.h"

typedef struct oracle oracle;

oracle *oracle_new(void);
void oracle_free(oracle *o);
/* Takes one message of a child. Violations are printed at once and counted. */
void oracle_take(oracle *o, const crash_message *m);
/* A complete reading of the log, everything at rest, begins: each CRASH_READ until oracle_complete belongs to it. */
void oracle_begin_complete(oracle *o);
/* At the end of it: everything acknowledged was read, what was refused was not, each producer's records are in order. */
void oracle_complete(oracle *o, const int64_t end[CRASH_PARTITIONS]);
/* The offset behind the last one that a reader was given. */
int64_t oracle_end(const oracle *o, int partition);
/* What was read at an offset; false: nothing was. */
bool oracle_at(const oracle *o, int partition, int64_t offset, uint32_t *writer, uint32_t *sequence);
/* Calls fn for each acknowledged record. */
void oracle_each_acked(const oracle *o, void (*fn)(void *opaque, int partition, int64_t offset, uint32_t writer, uint32_t sequence),
                       void *opaque);
/* Topics: everything at rest; CRASH_TOPIC_SEEN messages came for those that are there. */
void oracle_check_topics(oracle *o);

typedef struct oracle_counts { uint64_t tried, acked, refused, in_log, reads, topics_made, topics_deleted, violations; } oracle_counts;
void oracle_count(const oracle *o, oracle_counts *out);
void oracle_violation(oracle *o, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
