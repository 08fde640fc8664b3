/* tests/crash/crash.h: the crash suite: what its parts share.
 *
 * One program, several roles. The parent (drive.c) runs a daemon, writers, readers and an administrator as processes of their own,
 * kills them with SIGKILL at random moments and at named kill points, starts them again, and keeps the oracle (oracle.c). A child
 * reports through a pipe, one whole message a write, so that what was acknowledged to a process that died is known.
 *
 * Every record says who wrote it: (producer, sequence), and a filling that follows from both. A producer number is one life of
 * one writer process; it is never used again. */
#ifndef CRASH_CRASH_H
#define CRASH_CRASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CRASH_PARTITIONS = 2, CRASH_PIPE_FD = 3, CRASH_FILLING_MAX = 700, CRASH_TOPICS_MAX = 4096 };
#define CRASH_TOPIC "events"

typedef enum crash_kind {
    CRASH_TRY = 1,       /* producer, sequence, count: about to be sent to partition */
    CRASH_ACK = 2,       /* count of them are in the log from offset on */
    CRASH_REFUSED = 3,   /* the library said that nothing was appended */
    CRASH_READ = 4,      /* a reader was given producer, sequence at offset */
    CRASH_BAD = 5,       /* the child saw something wrong; its log says what */
    CRASH_TOPIC_TRY = 6, /* topic number `producer` is about to be created; then its next states */
    CRASH_TOPIC_MADE = 7,
    CRASH_TOPIC_DELETING = 8,
    CRASH_TOPIC_DELETED = 9,
    CRASH_TOPIC_SEEN = 10, /* a listing found it */
    CRASH_DONE = 11,       /* came to its end; a reader: partition, offset of the end */
    CRASH_POISONED = 12,   /* was told that the partition is poisoned */
} crash_kind;

typedef struct crash_message {
    uint8_t kind;
    uint8_t partition;
    uint16_t count;
    uint32_t producer;
    uint32_t sequence;
    uint32_t pad;
    int64_t offset;
} crash_message;

/* xorshift; the state is never 0. */
typedef struct crash_random { uint64_t state; } crash_random;
static inline uint64_t crash_next(crash_random *r)
{
    r->state ^= r->state << 13;
    r->state ^= r->state >> 7;
    r->state ^= r->state << 17;
    return r->state;
}
static inline uint32_t crash_below(crash_random *r, uint32_t n) { return (uint32_t)(crash_next(r) >> 33) % n; }
static inline void crash_seed(crash_random *r, uint64_t seed)
{
    r->state = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
    for (int i = 0; i < 8; i++) crash_next(r);
}

/* A record's value: 4 bytes producer, 4 bytes sequence, then a filling. Returns its length. */
size_t crash_value_make(uint8_t *out, uint32_t producer, uint32_t sequence);
bool crash_value_check(const uint8_t *value, size_t len, uint32_t *producer, uint32_t *sequence);

/* Children: report (ends the process when the parent is gone), and say what was wrong. */
void crash_report(const crash_message *m);
void crash_bad(const char *format, ...) __attribute__((format(printf, 1, 2)));
int64_t crash_now_ms(void); /* monotonic, without the time in which the machine stood still */
bool crash_stood_still(void); /* such a time there was: waits that ended by the clock say nothing */
bool crash_stopping(void); /* SIGTERM came */

/* Roles; argv as given behind the role's name. */
int crash_writer(int argc, char **argv); /* url style producer seed */
int crash_reader(int argc, char **argv); /* url visible|durable start,start to-end(0|1) */
int crash_fill(int argc, char **argv);     /* url producer */
int crash_groups(int argc, char **argv);       /* groups.c: the storm of groups, and one of its members */
int crash_group_member(int argc, char **argv);
int crash_survey(int argc, char **argv);   /* url */
int crash_poison(int argc, char **argv);   /* url producer */
int crash_poisoned(int argc, char **argv); /* ipc-url direct-url producer mask */
int crash_admin(int argc, char **argv);  /* url seed first-number: makes and deletes topics, fills one and deletes its records */
int crash_topics(int argc, char **argv); /* url: reports the topics that are there */
int crash_drive(int argc, char **argv);

#endif
