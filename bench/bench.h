/* bench/bench.h: what every benchmark here shares: cases, the memory that the processes of one run share, process control.
 *
 * A run of a case is some forked processes (roles), one shared area between them and figures that come out of it. The process
 * that orchestrates never maps a log, opens a bus or touches nng itself, so that a run leaves nothing behind for the next.
 *
 * Fairness, the same for the bare limit and for Busway:
 *   - the same batches, the same bytes of payload, the same number of records, the same core for writer and for reader;
 *   - steady state: the clock starts when the reader has read `warm_records`, after the first segments were deleted;
 *   - the writer is held within BENCH_LEAD_BYTES of the slowest reader by the same counter, looked at once a MiB;
 *   - as much memory as the run will use is touched and freed just before it (see bench_touch_memory). */
#ifndef BENCH_BENCH_H
#define BENCH_BENCH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#define BENCH_READERS_MAX   8
#define BENCH_WRITERS_MAX   16
#define BENCH_SAMPLES_MAX   400000u
#define BENCH_SEGMENT_BYTES (64u << 20)
#define BENCH_SEGMENTS_KEPT 4u
#define BENCH_LEAD_BYTES    (96u << 20) /* most that a writer is ahead of the slowest reader */
#define BENCH_STEP_BYTES    (1u << 20)  /* how often progress is told and looked at; also the populate chunk of the limit */
#define BENCH_CACHE_LINE    64
#define BENCH_DURABLE_DEPTH 64u
#define BENCH_PARTITIONS_MAX 8

typedef enum bench_kind {
    BENCH_E2E,       /* records/s from the writer's call to the reader's iteration of each record */
    BENCH_FAN,       /* the same without holding the writer: its own rate, and the sum of the readers' */
    BENCH_WRITERS,   /* several writers, no reader: records/s of all of them */
    BENCH_RTT_SPIN,  /* one record each way on two partitions, both sides polling */
    BENCH_RTT_SLEEP, /* the same, both sides asleep until woken */
    BENCH_ONE_WAY,   /* one record to a reader that is asleep, by the time that the writer put into it */
    BENCH_CALLS,     /* system calls of a writer while its reader polls, and while it sleeps */
    BENCH_REQUEST,   /* one produce request and its answer through the socket */
    BENCH_DURABLE,   /* one batch after the other, each on the disk before the next; the limit: pwrite and fdatasync */
    BENCH_DURABLE_MANY, /* BENCH_DURABLE_DEPTH batches not acknowledged */
    BENCH_COMMIT,      /* one committed offset after the other; the limit: an LMDB commit */
    BENCH_COMMIT_MANY, /* clients that each have many commits not answered */
    BENCH_COMPACT,     /* a compaction pass over a log of few keys */
    BENCH_TXN,         /* producers that each commit one transaction after the other */
    BENCH_TXN_DURABLE,
    BENCH_IDEMPOTENT,  /* asynchronous sends through the socket; way BENCH_BATCH: without producer ids */
    BENCH_KINDS
} bench_kind;

typedef enum bench_way { BENCH_BATCH, BENCH_RESERVE, BENCH_ASYNC } bench_way; /* how Busway's writer writes */

typedef enum bench_beside { /* what a case is compared with */
    BENCH_BESIDE_LIMIT,
    BENCH_BESIDE_ECHO,
    BENCH_BESIDE_ONE, /* Busway itself with one reader, one writer, one partition */
    BENCH_BESIDE_NONE
} bench_beside;

typedef struct bench_case {
    bench_kind kind;
    const char *transport; /* "direct" or "ipc" */
    bench_way way;
    uint32_t record_bytes;
    uint32_t batch; /* records in one batch of the log */
    uint32_t partitions;
    uint32_t readers;
    uint32_t writers;
    bool two_cores; /* one way: the sleeper has a core of its own */
    bench_beside beside;
    uint64_t bytes;       /* rates: bytes of log that are timed */
    uint64_t warm_bytes;  /* rates: bytes of log before that */
    uint32_t round_trips; /* others: how many are timed */
} bench_case;

/* What one run of one case gives. */
typedef struct bench_figures {
    double rate;                   /* records/s: of the readers, summed; of the writers for BENCH_WRITERS; batches/s for durable, commits/s */
    double writer_rate;            /* records/s of the writer itself: BENCH_FAN */
    double p50_ns, p99_ns, p999_ns, mean_ns;
    double peak_bytes;             /* BENCH_COMPACT: of the daemon's resident memory */
    double futex_calls;            /* BENCH_CALLS: of all appends with a polling reader */
    double calls_per_1000;         /* median of the windows of 1,000 appends */
    double calls;                  /* of all appends */
    double calls_asleep_per_1000;  /* with a sleeping reader: shows that the count counts */
    uint32_t samples;              /* in bench_shared.sample_ns, sorted */
    uint64_t samples_every;        /* rates in points: records between two samples, which are times */
} bench_figures;

typedef struct bench_reader_slot {
    _Alignas(BENCH_CACHE_LINE) _Atomic uint64_t records;  /* told once in BENCH_STEP_BYTES */
    _Alignas(BENCH_CACHE_LINE) uint64_t start_ns, end_ns; /* of the timed part; read after the process ended */
    uint64_t checksum;                                    /* of what was read: keeps the walk from being optimised away */
} bench_reader_slot;

typedef struct bench_writer_slot {
    _Alignas(BENCH_CACHE_LINE) uint64_t start_ns, end_ns; /* of the timed part; read after the process ended */
    uint64_t calls_asleep;                                /* calls: of the appends before a sleeping reader */
} bench_writer_slot;

/* What the system calls of a writer were; see calls.c. */
#define BENCH_CALL_NUMBERS 512u
typedef struct bench_calls {
    uint32_t window[BENCH_SAMPLES_MAX / 1000];
    uint32_t of[BENCH_CALL_NUMBERS];
    uint32_t all;
} bench_calls;

/* A log of the bare limit: one tail word, final positions of past segments, the sleeper's flag. See limit.c. */
typedef struct bench_limit_log {
    _Alignas(BENCH_CACHE_LINE) _Atomic uint64_t tail; /* segment << 32 | position */
    _Alignas(BENCH_CACHE_LINE) _Atomic uint32_t asleep;
    _Alignas(BENCH_CACHE_LINE) uint32_t final_position[16]; /* of segment s at s % 16; written before the tail moves on */
} bench_limit_log;

/* Shared by the processes of one run. */
typedef struct bench_shared {
    _Atomic uint32_t arrived; /* roles that are ready */
    _Atomic uint32_t failed;  /* a role gave up: all others stop */
    char error[512];          /* why; by the first that failed */
    uint32_t roles;
    bench_limit_log log[2];
    bench_reader_slot reader[BENCH_READERS_MAX];
    bench_writer_slot writer[BENCH_WRITERS_MAX];
    _Alignas(BENCH_CACHE_LINE) _Atomic uint64_t claimed; /* writers: records that someone writes or has written */
    bench_calls calls;
    uint64_t compact_records, compact_ns, compact_peak_bytes;
    uint32_t samples;
    uint64_t sample_ns[BENCH_SAMPLES_MAX];
} bench_shared;

/* One run's parameters as its roles see them. */
typedef struct bench_run {
    const bench_case *c;
    bench_shared *shared;
    const char *dir;     /* a fresh folder on the disk, empty at the start, removed by the caller */
    const char *bus_url; /* Busway's runs */
    const char *topic;   /* Busway's runs */
    uint64_t records;    /* rates: in all */
    uint64_t warm_records;
    uint32_t encoded_bytes; /* of one batch in the log */
    uint64_t point_records; /* e2e: the reader notes the time each so many records from the warm ones on; 0: it does not */
    bool keep;              /* nothing is deleted behind */
} bench_run;

typedef bool (*bench_role_fn)(const bench_run *run, uint32_t index);

typedef struct bench_role {
    bench_role_fn fn;
    int core; /* -1: anywhere */
} bench_role;

/* ---- bench.c ---- */

uint64_t bench_now_ns(void);
/* bench_fail: record why this run can't give a figure; false, to be returned by the role. */
__attribute__((format(printf, 2, 3))) bool bench_fail(bench_shared *s, const char *fmt, ...);
/* bench_arrive: say that this role is ready and wait for all; false when another failed. */
bool bench_arrive(bench_shared *s);
/* bench_relax: one turn of a spinning wait. `turns` counts them; false when another role failed. */
bool bench_relax(bench_shared *s, uint32_t *turns);
/* bench_hold: hold the writer while it is BENCH_LEAD_BYTES ahead of the slowest reader. */
bool bench_hold(const bench_run *run, uint64_t records_written);
/* bench_note_read: the reader's clock and progress; call after each batch with the records read so far. */
static inline void bench_note_read(const bench_run *run, bench_reader_slot *slot, uint64_t before, uint64_t now, uint64_t step)
{
    if (before < run->warm_records && now >= run->warm_records) slot->start_ns = bench_now_ns();
    if (run->point_records && now >= run->warm_records &&
        (before < run->warm_records || (before - run->warm_records) / run->point_records != (now - run->warm_records) / run->point_records))
        run->shared->sample_ns[run->shared->samples++] = bench_now_ns();
    if (before / step != now / step || now >= run->records) atomic_store_explicit(&slot->records, now, memory_order_release);
}
uint64_t bench_step_records(const bench_run *run); /* records in BENCH_STEP_BYTES, at least 1 */
/* bench_pause: sleep for so many microseconds, and no more by the kernel's slack. */
void bench_pause(uint32_t us);

/* One way: the writer's pause before record i, in which the reader falls asleep; the reader's note of what the record took; and
 * whether the reader slept before nearly each. */
bool bench_one_way_pause(const bench_run *run, uint32_t i);
void bench_one_way_note(const bench_run *run, uint32_t i, uint64_t ns);
bool bench_one_way_check(const bench_run *run);

/* bench_roles_run: fork one process a role and wait for all, at most timeout_s. False with the reason in shared->error. */
bool bench_roles_run(const bench_run *run, const bench_role *roles, uint32_t count, unsigned timeout_s);
bench_shared *bench_shared_make(void);
void bench_shared_reset(bench_shared *s);
void bench_remove_tree(const char *dir);
/* bench_touch_memory: touch and free that much memory, so that the next run does not pay for the host giving it back. */
void bench_touch_memory(uint64_t bytes);
void bench_figures_take(const bench_run *run, bench_figures *out);

/* ---- batch.c: Kafka v2 batches without the library ---- */

#define BENCH_BATCH_HEADER   61u
#define BENCH_BATCH_CRC_AT   17u
#define BENCH_BATCH_CRC_FROM 21u
/* bench_batch_build: `count` records of value_len bytes each, null keys; malloc'd. */
uint8_t *bench_batch_build(uint32_t count, uint32_t value_len, uint32_t *len);
void bench_value_fill(uint8_t *value, uint32_t len, uint32_t seed);
uint32_t bench_batch_crc(const uint8_t *batch, uint32_t len);
/* bench_batch_read: decode and check one batch of at most `left` bytes at expected_base, walk its records, add to *sum what it
 * saw. Its whole length, 0 when it is not right. */
uint32_t bench_batch_read(const uint8_t *at, uint32_t left, int64_t expected_base, uint32_t *count, uint64_t *sum);
void bench_put_be32(uint8_t *p, uint32_t v);
void bench_put_be64(uint8_t *p, uint64_t v);

/* ---- the things measured: false with the reason in shared->error ---- */

bool bench_limit_run(bench_run *run, bench_figures *out); /* limit.c */
bool bench_echo_run(bench_run *run, bench_figures *out);  /* echo.c */
bool bench_bus_run(bench_run *run, bench_figures *out);   /* bus.c: creates and deletes run->topic */
/* bench_cache_run: cache.c: a log of that many bytes through a small page cache, and its report. */
bool bench_cache_run(bench_shared *shared, const char *dir, const char *program, uint64_t bytes);
bool bench_durable_bare_role(const bench_run *run, uint32_t index); /* durable.c: the roles of its cases */
bool bench_durable_one_role(const bench_run *run, uint32_t index);
bool bench_durable_many_role(const bench_run *run, uint32_t index);
bool bench_commit_bare_role(const bench_run *run, uint32_t index); /* commit.c: the roles of its cases */
bool bench_commit_one_role(const bench_run *run, uint32_t index);
bool bench_commit_many_role(const bench_run *run, uint32_t index);
bool bench_txn_role(const bench_run *run, uint32_t index);
bool bench_idempotent_role(const bench_run *run, uint32_t index);
bool bench_compact_role(const bench_run *run, uint32_t index); /* compact.c */

/* ---- rows.c: the cases, and what of each is a row of the report ---- */

typedef struct bench_row {
    const char *name;   /* of the figure */
    size_t field;       /* in bench_figures */
    const char *unit;   /* "records/s", "ns", "calls" */
    bool at_least;      /* a bound below (rates), else above */
    double ratio_bound; /* on figure / figure beside; 0: none */
    double value_bound; /* on the figure itself; < 0: none */
} bench_row;

#define BENCH_ROWS_MAX 4
typedef struct bench_entry {
    bench_case c;
    const char *title; /* what a person calls it */
    bench_row row[BENCH_ROWS_MAX];
} bench_entry;

extern const bench_entry bench_entries[];
extern const size_t bench_entry_count;
/* bench_case_id: e2e/direct/100x100/r1 and the like: what --case looks in. */
void bench_case_id(const bench_case *c, char *out, size_t size);

/* ---- single.c: one run of one case ---- */

typedef struct bench_single {
    bench_case c;
    bool limit, keep;
    uint32_t points;
} bench_single;

/* bench_single_parse: false when the text is not a case; see single.c. */
bool bench_single_parse(const char *spec, bench_single *s);
void bench_single_report(const bench_single *s, const bench_figures *f, const bench_shared *shared);

/* ---- scale.c: `--case scale`, a run of its own; only: one of its steps, "" for all ---- */

bool bench_scale_run(const char *program, const char *dir, const char *only, bool quick, FILE *json, bool table);

/* ---- groups.c: `--case groups`, a run of its own ---- */

bool bench_groups_run(const char *program, const char *dir, bool quick, FILE *json, bool table);

/* ---- queue.c: `--case queue`, a run of its own ---- */

bool bench_queue_run(const char *program, const char *dir, bool quick, FILE *json, bool table);

/* ---- link.c: `--case link`, a run of its own ---- */

bool bench_link_run(const char *program, const char *dir, bool quick, FILE *json, bool table);

/* ---- remote.c: `--case remote`, a run of its own ---- */

bool bench_remote_run(const char *program, const char *dir, bool quick, FILE *json, bool table);

/* ---- state.c: `--case state`, a run of its own ---- */

bool bench_state_run(const char *program, const char *dir, bool quick, FILE *json, bool table);

/* ---- daemon.c: a private buswayd ---- */

typedef struct bench_daemon {
    pid_t pid;
    char runtime[64];
    char url[128];
} bench_daemon;

/* bench_daemon_start: with its data below dir; false and the reason in why. */
bool bench_daemon_start(bench_daemon *d, const char *program, const char *dir, char *why, size_t why_size);
void bench_daemon_stop(bench_daemon *d);
/* bench_daemon_pin: all its threads on one core, or anywhere (-1). */
void bench_daemon_pin(const bench_daemon *d, int core);

#endif
