/* tests/battery/faults.h: the roles of the fault battery's clients. See faults.c for the whole. */
#ifndef BATTERY_FAULTS_H
#define BATTERY_FAULTS_H

#include <stddef.h>
#include <stdint.h>

enum { FAULTS_A_PARTITIONS = 2, FAULTS_VALUE_MAX = 256 };

/* A record's value is text, "topic/partition/number", and a filling that follows from the number. Returns its length. */
size_t faults_value(char *out, const char *topic, int partition, uint32_t number);

/* faults_scenario: url acknowledgements-file: topics, records on both paths with each kind of acknowledgement, reads, look-ups,
 * deletions. Goes on after errors; each acknowledged record is a line in the file. Exit code 1 when it saw a promise broken. */
int faults_scenario(const char *url, const char *acks_path);
/* faults_verify: url acknowledgements-file: everything that was acknowledged is there, and every partition takes records. */
int faults_verify(const char *url, const char *acks_path);

#endif
