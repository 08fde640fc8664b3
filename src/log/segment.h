/* log/segment.h: the coordinator's segment list and its index builder. Internal to log/partition*.c.
 *
 * A segment lives as: spare (file "<seq>.spare", allocated, maybe published in the slot) -> active (writers rolled into it; the
 * coordinator links "<base>.log") -> rolled (final length known) -> sealed (durable, ".seal" written, file cut to its length,
 * descriptor closed) -> dropped (unlinked).
 *
 * Descriptors: opened before a segment's first store and kept until everything in it is synced, because only a descriptor that was
 * open when a writeback failed is told so.
 *
 * Locks: sync_mutex (one sync at a time), files_lock, mutex (all of struct bw_partition), the partition's shared lock, in this order. No sync
 * runs under mutex, so that a slow disk does not keep writers waiting for room. Shared lock: for a few stores, never for I/O. */
#ifndef BW_LOG_SEGMENT_H
#define BW_LOG_SEGMENT_H

#include "format/index.h"
#include "format/names.h"
#include "log/partition.h"
#include "log/txn_index.h"
#include "log/walk.h"

#include <pthread.h>

enum {
    BW_GRANT_FIRST = 64 << 10, /* bytes of a first grant */
    BW_GRANT_MOST = 64 << 20,  /* of one step */
    BW_GRANT_MARGIN = 64,      /* allocated bytes behind the capacity: a file that is written to never ends where the log ends, so
                                  that recovery knows a clean stop, which cuts it there */
    BW_SYNC_BYTES = 64 << 20,  /* unsynced bytes that start a sync */
    BW_LOCK_WAIT_MS = 20,      /* for the shared lock; tried again at the next tend */
    BW_TICK_MS = 900,          /* periodic work is done when tend is called at least this long after the last time */
    BW_WALK_ROOM = 16 << 10,
};

typedef struct bw_segment {
    int64_t base_offset;
    int64_t next_offset;    /* behind the last batch that was followed */
    uint32_t seq;           /* 0: older than this generation's control data */
    uint32_t length;        /* bytes followed */
    uint32_t final_length;  /* when rolled */
    uint32_t file_bytes;    /* allocated */
    uint32_t step;          /* bytes of the newest grant */
    uint32_t limit;         /* bytes that clients map */
    uint64_t inode;
    int fd;                 /* -1: not open; set by bw_segment_set_fd alone */
    bw_open_files *open_files; /* counts it; may be NULL */
    uint32_t users;         /* syncs that use fd at the moment */
    bool dropped;           /* to be freed by the last user */
    bool linked;            /* "<base>.log" exists */
    uint32_t spare_seq;     /* the sequence in that other name; seq is 0 once the segment has left the ring */
    bool spare_name;        /* "<seq>.spare" exists; goes when the folder was synced after the link */
    bool link_syncing;      /* a sync of the folder began after the link was made */
    bool rolled, sealed;
    bool cut_due;           /* recovery: closed, to be cut at its end */
    bool exact;             /* max_timestamp comes from the batches, not from a hint */
    int64_t max_timestamp;  /* -1: none */
    bw_merkle *merkle;      /* of a rolled segment that was followed whole; until it is sealed */
    int64_t mtime_ms;       /* of the file, when rolled */
    int64_t born_mono_ms;   /* monotonic time of the first data; 0: empty */
    uint64_t rate_before;   /* bytes a second that the segment before it was filled with; 0: not known */
    int64_t seen_mono_ms;   /* monotonic time at which this process first saw it */
} bw_segment;

/* Builds a segment's indexes and seal while its batches are followed. */
typedef struct bw_indexer {
    int64_t base_offset;
    uint32_t interval;
    uint32_t bytes_since;          /* since the last index entry */
    bool whole;                    /* followed from byte 0: the Merkle root is that of the file */
    bw_merkle merkle;
    int64_t max_timestamp, max_timestamp_offset, last_time_entry;
    uint32_t last_crc;
    bw_buf index, times;           /* entries not yet in the files */
    uint64_t index_bytes, time_bytes; /* entries in the files */
} bw_indexer;

void bw_indexer_begin(bw_indexer *ix, int64_t base_offset, uint32_t interval);
bw_err bw_indexer_add(bw_indexer *ix, const bw_walk *w);
bw_err bw_indexer_add_run(bw_indexer *ix, const bw_walk_run *run);
/* bw_indexer_restart: begin, without the files that may be there. */
void bw_indexer_restart(bw_indexer *ix, int dir_fd, int64_t base_offset, uint32_t interval);
/* bw_indexer_complete: the segment is final: last time entry, flush; when that fails the files are removed (they are hints). */
void bw_indexer_complete(bw_indexer *ix, int dir_fd);
/* bw_indexer_last_time: the segment is final: its last time entry. */
bw_err bw_indexer_last_time(bw_indexer *ix);
bw_err bw_indexer_flush(bw_indexer *ix, int dir_fd);
void bw_indexer_free(bw_indexer *ix);
/* bw_indexer_trim: gives back the memory of flushed entries. */
void bw_indexer_trim(bw_indexer *ix);

/* A deleted file that may be used again. */
typedef struct bw_reusable {
    int64_t base_offset;
    int64_t since_mono_ms;
    bool syncing, synced; /* the folder, since the rename */
} bw_reusable;
#define BW_REUSABLE 4u

typedef struct bw_dropped_file { int64_t base_offset; int64_t due_mono_ms; bool reusable; } bw_dropped_file;

struct bw_partition {
    pthread_mutex_t mutex, sync_mutex;
    pthread_rwlock_t files_lock; /* shared: several segment files are opened, one after the other; exclusive: they are swapped */
    char *dir_name;        /* in data_fd */
    int data_fd;
    _Atomic int64_t gaps_below; /* batches with a base offset below this may skip offsets; set at open, raised by the cleaner */
    int32_t number;
    int dir_fd;            /* by bw_partition_dir alone; closed when mutex is released */
    bool dir_kept;         /* somebody was given dir_fd */
    bw_open_files *open_files;
    uint32_t bus_number;
    bw_control *control;
    bw_tail_slot *slot;
    const bw_fork_guard *guard;
    bw_appender *appender; /* while the shared lock is held */
    bw_partition_config config;
    bw_segment **segments; /* oldest first, the last one is the active */
    size_t count, cap;
    size_t follow_at;      /* index of the segment that is followed */
    bw_indexer indexer;    /* of that segment */
    bw_segment *spare;
    bool spare_published;
    bool cut_unsynced;     /* the newest segment's file was cut at a stop */
    bool dir_dirty;        /* entries were made or removed since the folder's last sync */
    bool sync_room;        /* the newest segment is empty, its size perhaps not on the disk: synced before its room is given out */
    bool sync_grant;       /* the next growth must be on the disk before it is used (a cleanly cut file: see recovery) */
    bool seal_all;         /* an unsealed segment may lie behind sealed ones */
    bool no_space;
    bool just_created;     /* see bw_partition_open_options */
    bool roll_wanted;      /* retention wants the active segment closed */
    uint8_t rest;          /* bw_rest */
    _Atomic bool resting;  /* rest == BW_RESTING, for anybody */
    _Atomic bool starved;  /* wants to wake, but too many descriptors are open */
    bool verify_later;     /* see bw_partition_open_options */
    bool unverified;       /* taken over while a writer held the lock: (durable, tail] is still to be read from the medium */
    bool broken;           /* the visible log could not be followed: poisoned */
    int64_t last_tick_ms, tried_space_ms;
    uint64_t dirty_counted; /* bytes of this partition in the budget */
    bool dirty_denied;      /* room was wanted and the budget was used up: to be granted after a sync */
    int64_t sync_rest_until_ms; /* no sync for the mere number of bytes before this */
    int64_t open_wall_ms, open_mono_ms; /* the wall clock without the jumps that are known of */
    bw_recovery_point point;
    bool point_moved;
    /* producers and transactions, see partition_producers.c */
    bw_producers *producers;      /* of all batches that were followed */
    int64_t producers_next;       /* batches below this offset were noted */
    uint64_t snapshot_changes;    /* of the table when the newest snapshot was made */
    size_t snapshot_bytes;        /* of that one */
    uint64_t snapshot_log_bytes;  /* followed since */
    int64_t snapshot_mono_ms;
    bw_buf snapshot;              /* the one that belongs to `point`, until it is taken */
    /* txn.c; broker thread, but for what is atomic or under txn_mutex */
    _Atomic bool aborting;        /* an abort's marker may be in the log whose entry is not in the index yet */
    bw_aborted_list unindexed;
    int64_t unindexed_base;       /* of their segment */
    pthread_mutex_t txn_mutex;    /* leaf */
    int64_t *unsynced_indexes;    /* base offsets of segments whose .txnindex has grown */
    size_t unsynced_count, unsynced_cap;
    bool index_created;           /* and a file was made */
    bool has_indexes;             /* .txnindex files were seen when it was opened */
    bool swapping;         /* the cleaner is renaming: segments are not deleted */
    int64_t replicated_saved;    /* what BW_REPLICATED_FILE says */
    int64_t replicated_saved_ms;
    int64_t clean_upto;    /* cleaner checkpoint: all below is clean; -1: not read yet */
    int64_t clean_horizon_ms; /* all delete horizons of the last pass have passed then; 0: there are none */
    bw_dropped_file *dropped;
    size_t dropped_count, dropped_cap;
    bw_reusable reusable[BW_REUSABLE];
    size_t reusable_count;
};

static inline bw_segment *bw_partition_active(const bw_partition *p) { return p->segments[p->count - 1]; }
static inline uint32_t bw_u32_min(uint64_t a, uint64_t b) { return (uint32_t)(a < b ? a : b); }
/* bw_segment_room: bytes of the file that may be written to. */
static inline uint32_t bw_segment_room(const bw_segment *s)
{
    return s->file_bytes > BW_GRANT_MARGIN ? bw_u32_min(s->file_bytes - BW_GRANT_MARGIN, s->limit) : 0;
}
static inline uint32_t bw_segment_limit(uint32_t segment_bytes) { return bw_u32_min(segment_bytes, BW_POSITION_MAX - BW_GRANT_MARGIN); }

/* partition_segment.c: the folder. Nobody keeps its descriptor: it is opened when it is needed, and unlock closes it. */
void bw_partition_lock(bw_partition *p);
void bw_partition_unlock(bw_partition *p);
int bw_partition_dir(bw_partition *p); /* mutex held, or nobody else knows the partition yet; -1 and errno */
int bw_partition_open_folder(const bw_partition *p); /* a descriptor of one's own; any thread */

/* partition_segment.c: the list and its files; mutex held (or nobody else knows the partition yet). */
bw_segment *bw_segment_new(bw_partition *p, int64_t base_offset);
void bw_segment_set_fd(bw_segment *s, int fd); /* closes the one before */
void bw_segment_free(bw_segment *s);
bw_err bw_partition_push(bw_partition *p, bw_segment *s);
/* bw_partition_remove_at: out of the list; freed now or by its last user. */
void bw_partition_remove_at(bw_partition *p, size_t i);
/* bw_segment_open: its .log (or .spare), descriptor kept; file_bytes, inode, mtime set. */
bw_err bw_segment_open(bw_partition *p, bw_segment *s);
/* bw_segment_open_named: a segment's file by the names it may have, without its bw_segment: "<base>.log", or its spare's while seq is not 0.
 * The caller closes it. EMPTY: deleted meanwhile. */
bw_err bw_segment_open_named(int dir, int64_t base_offset, uint32_t seq, int flags, int *fd);
/* bw_segment_read_fd: the kept descriptor, or a fresh read-only one; *own: the caller closes it. */
bw_err bw_segment_read_fd(bw_partition *p, const bw_segment *s, int *fd, bool *own);
bw_err bw_segment_create_log(bw_partition *p, int64_t base_offset, uint32_t bytes, bw_segment **out);
bw_err bw_segment_write_seal(bw_partition *p, const bw_segment *s, const bw_merkle *m);
/* bw_segment_seal: walk it for the Merkle root, write the seal. The segment is rolled and durable. */
bw_err bw_segment_seal(bw_partition *p, bw_segment *s);
void bw_segment_unlink_hints(bw_partition *p, int64_t base_offset);
bw_err bw_partition_write_epochs(bw_partition *p, int32_t epoch, int64_t start_offset);
/* bw_partition_read_epoch: the newest entry; *lost: the file is not there, empty or broken. */
bw_err bw_partition_read_epoch(bw_partition *p, int32_t *epoch, bool *lost);
bw_err bw_partition_write_log_start(bw_partition *p, int64_t log_start);
int64_t bw_partition_read_log_start(bw_partition *p);

/* partition_files.c */
void bw_partition_adopt_rolls(bw_partition *p, bw_position tail);
bw_err bw_partition_grant(bw_partition *p, bw_position tail, int64_t now_mono_ms);
bw_err bw_partition_link_files(bw_partition *p);
void bw_partition_unlink_spare_names(bw_partition *p);
void bw_partition_seal_durable(bw_partition *p);
bw_err bw_partition_lock_slot(bw_partition *p);
void bw_partition_unlock_slot(bw_partition *p);

/* partition_rest.c: see bw_partition_rest_begin. */
typedef enum bw_rest { BW_AWAKE = 0, BW_SETTLING = 1 /* capacity is at the tail; descriptors still open */, BW_RESTING = 2 } bw_rest;
/* bw_partition_wake: if somebody asked for room, or a roll is due, or force: descriptors are open again. EMPTY: not wanted, or not now. */
bw_err bw_partition_wake(bw_partition *p, bw_position tail, int64_t now_mono_ms, bool force);
bool bw_partition_roll_due(const bw_partition *p, const bw_segment *a, uint32_t pos, int64_t now);
/* bw_partition_requested: the furthest byte of segment a that someone waits for; 0: nobody. */
uint32_t bw_partition_requested(const bw_partition *p, const bw_segment *a);

/* partition_reuse.c; mutex held. keep: instead of unlinking a deleted segment's file; renamed: it is "<base>.log.deleted" already. true: kept.
 * expire: now < 0: all go. */
bool bw_partition_keep_for_reuse(bw_partition *p, int64_t base_offset, bool renamed);
void bw_partition_reuse_expire(bw_partition *p, int64_t now_mono_ms);
/* bw_partition_reuse: one of them becomes the file of the spare s, under that name; false: none can. */
bool bw_partition_reuse(bw_partition *p, bw_segment *s, const char *spare_name);

/* partition_index.c */
/* bw_partition_follow: read the headers of everything visible up to tail, feed the indexer, finish rolled segments. */
bw_err bw_partition_follow(bw_partition *p, bw_position tail);
/* bw_partition_resume_index: the indexer for the active segment as found on disk, whose data ends at (length, next_offset);
 * next_offset -1: it is found. */
bw_err bw_partition_resume_index(bw_partition *p);

void bw_partition_store_config(bw_partition *p);

/* partition_replicated.c; mutex held. restore: at open, when the slot has its end; save: if it has moved, at most once a second. */
void bw_partition_restore_replicated(bw_partition *p, bool fresh);
void bw_partition_save_replicated(bw_partition *p, int64_t now_mono_ms);

/* partition_sync.c */
bool bw_partition_wants_sync_locked(bw_partition *p, bw_position tail);
void bw_partition_poison(bw_partition *p);
bool bw_partition_poison_marker(bw_partition *p);
/* bw_partition_note_point: point = tail's batch, as synced. mutex held. */
void bw_partition_note_point(bw_partition *p, int64_t next_offset, const bw_segment *s, uint32_t position, uint32_t last_crc);

/* partition_scan.c: what recovery and takeover need. */
typedef struct bw_found {
    int64_t *logs; /* base offsets, ascending */
    size_t log_count, log_cap;
    uint32_t *spares; /* sequences, ascending */
    size_t spare_count, spare_cap;
    size_t seals; /* seal files */
    bool failed;
} bw_found;
bw_err bw_partition_list(bw_partition *p, bw_found *out);
void bw_found_free(bw_found *f);
typedef struct bw_scan {
    uint64_t from;       /* in: start here */
    int64_t next_offset; /* in/out: expected there */
    int32_t leader_epoch;/* in/out */
    uint64_t until;      /* in: at most up to here */
    bool direct;         /* in: from the medium */
    bw_indexer *indexer; /* in: fed with each batch; may be NULL */
    bw_err end;          /* out: EMPTY (fresh bytes or `until`) or CORRUPT */
    uint32_t position;   /* out */
    uint32_t last_crc;   /* out; unchanged when there is no batch */
    int64_t max_timestamp; /* out: -1 when there is none */
    uint64_t batches;    /* out */
    bool gap;            /* out: offsets were skipped below gaps_below */
} bw_scan;
/* bw_segment_scan: checksums, order, epochs. BW_OK: see scan->end (with CORRUPT the message says what); IO, NO_MEMORY. */
bw_err bw_segment_scan(bw_partition *p, const bw_segment *s, bw_scan *scan);
bool bw_segment_read_seal(bw_partition *p, int64_t base_offset, bw_seal *seal);
/* bw_segment_load_sealed: sizes and hints of a segment whose seal is known, without opening it. CORRUPT: shorter than its seal. */
bw_err bw_segment_load_sealed(bw_partition *p, bw_segment *s, const bw_seal *seal);
/* bw_segment_estimate_age: born_mono_ms from its first batch's timestamp, clamped by the file's time. */
void bw_segment_estimate_age(bw_partition *p, bw_segment *s);
bw_err bw_segment_zero_tail(const bw_segment *s);
/* bw_segment_close_rolled: final at its length: sync, seal, close. The file's room behind it stays: see bw_segment_cut. */
bw_err bw_segment_close_rolled(bw_partition *p, bw_segment *s);
/* bw_segment_cut: the file of a closed segment to its length. In a recovery not before the epoch is on the disk: until then that room is
 * the only sign that records may have been seen which are lost. */
bw_err bw_segment_cut(bw_partition *p, bw_segment *s);

/* partition_producers.c; mutex held (or nobody else knows the partition yet) */
/* bw_partition_load_producers: the state at the end of what is followed, from the snapshot and what lies behind it in the log; the
 * indexes of aborted transactions behind it, too. */
bw_err bw_partition_load_producers(bw_partition *p, const bw_recovery_point *point, const uint8_t *snapshot, size_t len);
/* bw_partition_note_batch: the batch that w gave last, which has a producer id, is followed. */
bw_err bw_partition_note_batch(bw_partition *p, bw_walk *w);
/* The state moves with the recovery point: begin when all up to the point's offset is followed; sync, without the mutex, before the
 * point is noted; end, after it. */
typedef struct bw_state_job {
    bool moves;         /* the state of this offset may be stored */
    bool made;          /* with a new snapshot */
    bw_buf snapshot;
    uint64_t changes;
    int64_t *indexes;   /* to be synced */
    size_t index_count;
    bool folder;        /* and the folder */
} bw_state_job;
void bw_partition_state_begin(bw_partition *p, int64_t offset, bw_state_job *j);
void bw_partition_state_sync(int dir_fd, bw_state_job *j);
void bw_partition_state_end(bw_partition *p, int64_t offset, bw_state_job *j, bool stored);
/* bw_partition_unsynced_index: remember that this segment's index has grown; any thread. false: no memory. */
bool bw_partition_unsynced_index(bw_partition *p, int64_t base_offset, bool created);
void bw_partition_producers_fini(bw_partition *p);

/* partition_recover.c, partition_takeover.c */
bw_err bw_partition_recover(bw_partition *p, const bw_partition_open_options *o, bw_recovery_report *report);
bw_err bw_partition_take_over(bw_partition *p, const bw_partition_open_options *o, bw_recovery_report *report);
bw_err bw_partition_verify_takeover(bw_partition *p);

/* partition_dirty.c; mutex held */
/* bw_partition_unsynced: bytes up to tail that are not durable, of segments that were not deleted. */
uint64_t bw_partition_unsynced(const bw_partition *p, bw_position tail);
void bw_partition_count_dirty(bw_partition *p, uint64_t bytes);
/* bw_partition_grant_piece: how far beyond the tail room may be granted now; 0: not at all, and dirty_denied is set. */
uint32_t bw_partition_grant_piece(bw_partition *p);
/* bw_partition_dirty_presses: so much of the budget is used that these bytes should be synced now. */
bool bw_partition_dirty_presses(const bw_partition *p, uint64_t bytes);

/* partition_retain.c */
void bw_partition_reap(bw_partition *p, int64_t now_mono_ms, bool all);
void bw_partition_retain_bytes(bw_partition *p, uint32_t *deleted);
/* bw_partition_drop_deleted: segments wholly below the log start. */
void bw_partition_drop_deleted(bw_partition *p);

/* compact_swap.c */
/* bw_compact_recover: finishes what a death of the cleaner left half done, removes what it had not decided. For open. */
bw_err bw_compact_recover(bw_partition *p);

#endif
