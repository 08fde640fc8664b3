/* demo/demo.h: what the demonstration's processes share.
 *
 * busway-demo is one program in seven processes: the conductor (main.c), a producer that is killed on the way and started again, two
 * readers of the same records, one on shared memory, one through the socket, and three workers of a group that count them (group.c), one
 * of which is killed. They meet in a bus (dir:) and in this file's
 * demo_shared, a small mapped file of counters that the live line shows. What is *checked* at the end does not come from there
 * but from three journals: what the producer was told is acknowledged, and what each reader read where.
 *
 * Every record says who it is: header "seq" counts its source's events, header "ns" is the monotonic time of its sending. */
#ifndef BW_DEMO_DEMO_H
#define BW_DEMO_DEMO_H

#include <busway/busway.h>

#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>

enum { DEMO_PACKAGES, DEMO_SENSORS, DEMO_TOPICS };
enum { DEMO_DIRECT, DEMO_SOCKET, DEMO_READERS };

#define DEMO_PARTITIONS 4
#define DEMO_WORKERS    3
#define DEMO_BUCKETS    (64 * 16)

extern const char *const demo_topic_names[DEMO_TOPICS];
extern const char *const demo_reader_names[DEMO_READERS];

/* One partition, as the group's workers see it. Written by its owner. */
typedef struct demo_counted {
    _Atomic int owner;         /* whom the group gave it last; counts once given_ns is set */
    _Atomic int64_t given_ns;
    _Atomic uint64_t records;  /* committed counts */
} demo_counted;

/* Counters for the live line; each has one writer. Zeroed by the conductor before anybody else maps it. */
typedef struct demo_shared {
    _Atomic int stop;                            /* conductor: readers end when they have read `target` */
    _Atomic uint64_t target;                     /* conductor: records in the log, once the producer is done */
    _Atomic int64_t begun_ns, length_ns;         /* conductor: the schedule, so that a new producer goes on in it */
    _Atomic int producer_ready;                  /* producer: 1 it searched the log and goes on */
    _Atomic uint64_t acknowledged;               /* producer: over both lives */
    _Atomic uint64_t lines_done, lines;          /* producer */
    _Atomic uint64_t found_lines, found_sensors; /* producer: what the log held when it started */
    _Atomic int worker_ready[DEMO_WORKERS];
    _Atomic int workers_stop;                    /* conductor */
    demo_counted counted[DEMO_TOPICS][DEMO_PARTITIONS];
    char last_event[128];                        /* producer: for the eye only, may be torn */
    struct {
        _Atomic int ready;     /* 1 reading */
        _Atomic int fell_back; /* direct was refused: why_not says why */
        _Atomic uint64_t records;
        _Atomic uint64_t histogram[DEMO_BUCKETS];
        char transport[16];
        char why_not[512];
    } reader[DEMO_READERS];
} demo_shared;

/* A journal is a file of these, appended. latency_ns: readers only. */
typedef struct demo_entry {
    uint32_t topic;
    int32_t partition;
    int64_t offset;
    int64_t seq;
    uint64_t hash; /* of key, value and both headers */
    int64_t latency_ns;
} demo_entry;

typedef struct demo {
    char folder[256]; /* everything of this run */
    char url[320];
    demo_shared *shared;
    bool keep, colour, terminal;
    int seconds;
} demo;

int64_t demo_now_ns(void);
bool demo_shared_map(demo *d, bool create);
uint64_t demo_hash(const void *key, size_t key_len, const void *value, size_t value_len, int64_t seq, int64_t ns);
/* demo_fail: one line on stderr, returns 1. */
int demo_fail(const char *format, ...) BW_PRINTF(1, 2);
int demo_fail_bw(const char *what);

/* Latency buckets: 16 a power of two. */
unsigned demo_bucket(int64_t ns);
double demo_bucket_ns(unsigned bucket);

/* A record's own seq and ns; false when it has none. */
bool demo_record_identity(const bw_record_view *record, int64_t *seq, int64_t *ns);

/* The journal of who ("acks", "direct", "socket"): path; all whole entries, malloc'd (NULL when empty or unreadable). */
void demo_journal_path(const demo *d, const char *who, char *out, size_t size);
demo_entry *demo_journal_load(const demo *d, const char *who, size_t *count);

/* The roles: exit codes of the processes. */
int demo_producer_run(demo *d);
int demo_reader_run(demo *d, int which);
/* demo_check: compare the journals, print the verdict. true: everything is as promised. */
bool demo_check(demo *d, uint64_t killed_after);

/* group.c. demo_group_moved: has everything that worker had been given to others since: how many partitions, and how long after since_ns the
 * first and the last of them. */
int demo_worker_run(demo *d, int number);
uint64_t demo_group_counted(const demo_shared *s);
int demo_group_partitions(const demo_shared *s, int who);
bool demo_group_moved(const demo_shared *s, int who, int64_t since_ns, int *moved, int64_t *first_ns, int64_t *last_ns);

#endif
