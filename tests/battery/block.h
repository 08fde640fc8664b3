/* tests/battery/block.h: power loss at the level of blocks: what the parts share.
 *
 * A disk is memory that a small FUSE file serves (block_disk.c); a loop device on that file carries an ext4 file system, and on
 * it lies the data directory of a real daemon. Every write that reaches the disk is logged in order, and every flush (the loop
 * device hands the file system's barriers and fsyncs down as FUSE fsync).
 *
 *   record   block_scene.c   a daemon, writers, readers and an administrator work for some seconds and are killed and started
 * again; what was tried and promised to them is noted with the log's length at that moment: an event choose   block_image.c   a
 * cut: all writes before the last flush, any subset of those since, whole, by page, or torn by sector try      block_try.c the
 * image is mounted (ext4 replays its journal), the broker brings it up, and the oracle (block_oracle.c) compares what is there
 * with the events that lie before the cut; in a share of the images the recovery is cut too, or a daemon's own program and its
 * clients look at it
 *
 * Memory that processes share is mapped before they are forked. Mounts live in a private namespace, loop devices clear
 * themselves: nothing is left when the program is killed. */
#ifndef BATTERY_BLOCK_H
#define BATTERY_BLOCK_H

#include "disk.h"

#include <stdatomic.h>
#include <sys/types.h>

enum {
    BLOCK_PAGE = 4096,
    BLOCK_DISK_BYTES = 48 << 20,
    BLOCK_PAGES = BLOCK_DISK_BYTES / BLOCK_PAGE,
    BLOCK_WRITES_MAX = 1 << 17,
    BLOCK_EVENTS_MAX = 1 << 18,
    BLOCK_PARTITIONS = 3, /* events-0, events-1, kept-0 */
    BLOCK_KEPT = 2,       /* the one with retention.bytes */
    BLOCK_TOPICS_MAX = 4096,
    BLOCK_FILLING_MAX = 2000,
};
#define BLOCK_LOG_BYTES  (UINT64_C(768) << 20)
#define BLOCK_TOPIC      "events"
#define BLOCK_TOPIC_KEPT "kept"

/* ---- the disk ---- */

typedef struct block_write {
    uint64_t data; /* where its bytes are in the log's data */
    uint64_t at;
    uint32_t len; /* 0: a flush */
} block_write;

typedef struct block_log {
    _Atomic uint64_t count, bytes;
    _Atomic bool full;
    block_write writes[BLOCK_WRITES_MAX];
    uint8_t data[BLOCK_LOG_BYTES]; /* sparse */
} block_log;

typedef struct block_disk {
    block_log *log;   /* shared; begun anew by who uses the disk */
    uint8_t *bytes;   /* shared: BLOCK_DISK_BYTES */
    uint8_t *touched; /* shared: a byte a page: written since it was cleared */
    pid_t server;
    char folder[128], device[64]; /* FUSE mount point; loop device */
    int device_fd;
} block_disk;

void *block_shared_memory(size_t bytes);
/* block_disk_start: false: this machine cannot; *why says what is missing. folder must exist. */
bool block_disk_start(block_disk *d, const char *folder, const char **why);
void block_disk_stop(block_disk *d);
/* block_mount, block_unmount: false with errno. */
bool block_mount(const block_disk *d, const char *where, const char *options);
bool block_unmount(const char *where);
/* block_empty_folder: makes it, or removes all that is in it. */
void block_empty_folder(const char *path);

/* ---- what was promised ---- */

typedef enum event_kind {
    EVENT_TRY = 1,      /* producer, sequence, count: about to be sent to partition */
    EVENT_ACK,          /* they are at offset on; visible */
    EVENT_DURABLE,      /* the same, and durable */
    EVENT_SEEN,         /* a reader was given what ends before offset, under leader epoch `sequence` */
    EVENT_SEEN_DURABLE, /* the same, reading what is durable */
    EVENT_START,        /* the log's start is at offset now */
    EVENT_DELETE_TRY,   /* records before offset are about to be deleted */
    EVENT_DELETE_DONE,
    EVENT_TOPIC_TRY, /* topic number `producer` */
    EVENT_TOPIC_MADE,
    EVENT_TOPIC_FILLED, /* one durable record in it */
    EVENT_TOPIC_DELETING,
    EVENT_TOPIC_DELETED,
} event_kind;

typedef struct event {
    uint64_t position; /* the disk log's length when it was noted */
    int64_t offset;
    uint32_t producer, sequence;
    uint16_t count;
    uint8_t kind, partition;
    _Atomic uint32_t ready;
} event;

typedef struct recording {
    block_log log;
    uint8_t first[BLOCK_DISK_BYTES]; /* the disk before the first write */
    uint8_t last[BLOCK_DISK_BYTES];  /* and behind the last */
    uint8_t touched[BLOCK_PAGES];
    _Atomic uint64_t event_count;
    event events[BLOCK_EVENTS_MAX];
    _Atomic uint32_t next_producer, next_topic;
    _Atomic uint32_t bad; /* a process of the scene saw something wrong, and said so */
    uint64_t seed;
    uint32_t kills, stops, cold;
    char file_system[128]; /* mkfs and mount options that were used */
    char mount_options[64];
} recording;

/* block_note: from any process of the scene. */
void block_note(recording *r, event_kind kind, int partition, uint32_t producer, uint32_t sequence, uint16_t count,
                int64_t offset);

/* A value: producer, sequence, and a filling that follows from both. */
size_t block_value_make(uint8_t *out, uint32_t producer, uint32_t sequence);
bool block_value_check(const uint8_t *value, size_t len, uint32_t *producer, uint32_t *sequence);

/* ---- the scene ---- */

typedef struct scene_options {
    const char *buswayd, *root; /* root: a folder for mount points and logs */
    uint64_t seed;
    uint32_t duration_ms;
} scene_options;
/* scene_record: false: it could not be done, or something was wrong already; said on stderr. */
bool scene_record(recording *r, const scene_options *o);

/* ---- images ---- */

typedef struct image_choice {
    uint64_t cut;     /* writes from here on never happened */
    uint64_t flushed; /* writes before are on the disk */
    int mode;         /* image_mode_name */
    uint64_t applied, torn;
} image_choice;
const char *image_mode_name(int mode);
/* image_cut: a position, often near a flush; from 1 to the log's length. */
uint64_t image_cut(rng *r, const block_log *log);
/* image_apply_flushed: what is surely on the disk; *from moves on to the last flush before cut. */
void image_apply_flushed(const block_log *log, uint64_t cut, uint64_t *from, uint8_t *bytes, uint8_t *also);
/* image_apply_subset: some of the writes since, to bytes; touched pages are marked. */
void image_apply_subset(const block_log *log, image_choice *c, rng *r, uint8_t *bytes, uint8_t *touched);

/* ---- the oracle ---- */

typedef struct oracle oracle;
oracle *oracle_new(const recording *r);
void oracle_free(oracle *o);
/* oracle_advance: the cut lies here now; never goes back. */
void oracle_advance(oracle *o, uint64_t cut);

typedef struct oracle_tally {
    _Atomic uint64_t records, durable, lost, topics;
} oracle_tally;
/* What one recovery of one image showed, given to the oracle as it is read. complain() is the caller's. */
typedef struct oracle_view {
    oracle *oracle;
    void (*complain)(void *opaque, const char *format, ...) __attribute__((format(printf, 2, 3)));
    void *opaque;
    oracle_tally *tally;
    int partition;
    int64_t start, end, next;
    int32_t epoch;
} oracle_view;
/* oracle_begin: a partition with these bounds; then each record in order; then oracle_end. extra_at: the offset of a record that
 * the trial itself appended, or -1. */
void oracle_begin(oracle_view *v, int partition, int64_t start, int64_t end, int32_t epoch);
void oracle_record(oracle_view *v, int64_t offset, const uint8_t *value, size_t len, int64_t extra_at);
void oracle_end(oracle_view *v);
typedef enum topic_must { TOPIC_MAY_BE, TOPIC_MUST_BE, TOPIC_MUST_BE_FILLED, TOPIC_MUST_NOT_BE, TOPIC_UNKNOWN } topic_must;
topic_must oracle_topic(const oracle *o, uint32_t number);
uint32_t oracle_topics(const oracle *o);

/* ---- trials ---- */

typedef struct block_tally {
    _Atomic uint64_t images, cut_recoveries, appended, verified, programs, scenes, writes, flushes, writes_dropped, torn, kills,
        stops, cold;
    _Atomic uint64_t failures;
    oracle_tally oracle;
} block_tally;

typedef struct trial_options {
    const char *buswayd, *root, *keep; /* keep: a folder for the recording of the first image that fails, or NULL */
    const recording *recording;
    block_tally *tally; /* shared */
    uint64_t seed, images;
    int64_t only;        /* only this image of them, or -1 */
    int worker, workers; /* every workers-th image */
    int64_t until_ms;
} trial_options;
/* trial_run: false: a violation, or the machine cannot. */
bool trial_run(const trial_options *o);

int64_t block_now_ms(void);

#endif
