/* log/partition.h: the coordinator's side of one partition: everything that touches files other than an append.
 *
 * Open and recover; grant capacity and spares; after a roll link, index, seal and trim; sync; retention; look-ups by time.
 * All functions may be called from any thread of the coordinator (an inner mutex guards the segment list; no I/O happens under
 * the shared partition lock). Direct writers keep appending meanwhile: the slot in the arena is the truth about the tail. */
#ifndef BW_LOG_PARTITION_H
#define BW_LOG_PARTITION_H

#include "format/names.h"
#include "log/append.h"
#include "log/control.h"
#include "log/producers.h"
#include "log/read.h"

typedef struct bw_partition bw_partition;

/* What all partitions of a daemon together may have written and not yet synced; partition_dirty.c. The owner sets most. */
typedef struct bw_dirty_budget {
    int64_t most;
    _Atomic int64_t bytes;
} bw_dirty_budget;

typedef struct bw_partition_config {
    uint32_t segment_bytes;        /* segment.bytes, up to 2^31 - 1 */
    int64_t segment_ms;            /* segment.ms; -1 never */
    int64_t retention_bytes;       /* retention.bytes; -1 unlimited */
    int64_t retention_ms;          /* retention.ms; -1 unlimited */
    uint32_t max_message_bytes;    /* max.message.bytes */
    uint32_t index_interval_bytes; /* index.interval.bytes */
    bool log_append_time;          /* message.timestamp.type */
    int64_t file_delete_delay_ms;  /* file.delete.delay.ms */
    bool reuse_segments;           /* files of deleted segments may become new ones: partition_reuse.c */
    bw_dirty_budget *dirty;        /* outlives the partition; NULL: no bound */
    bool compact;                  /* cleanup.policy has compact: see log/compact.h for these */
    double min_dirty_ratio;
    int64_t min_compaction_lag_ms, max_compaction_lag_ms, delete_retention_ms;
    uint32_t replicas;             /* replicas: peers that must have a record before it counts as replicated; 0: nobody asks */
    uint8_t read_limit;            /* read.limit: bw_reader_limit; the least that readers get */
    bool mirror;                   /* its leader epochs are its origin's: log/copy.h */
    int64_t disk_reserve_bytes;    /* no new capacity while the file system has less than this free; 0: none */
} bw_partition_config;

/* Kept in LMDB by the caller; written only after the sync that it describes. */
typedef struct bw_recovery_point {
    bool known;            /* it was kept; false with offset and position 0: nothing is known about these files */
    int32_t leader_epoch;
    int64_t next_offset;   /* everything below is on the disk */
    int64_t segment_base;
    uint32_t position;     /* in that segment */
    uint32_t last_crc;     /* of the last batch below, 0 when none */
    bool poisoned;
    /* The state of producers and transactions at state_offset (<= next_offset) is in the snapshot kept beside the point, whose checksum
     * is state_crc; 0: there was none, and no snapshot. What came behind it is in the log. -1: not known: the whole log is walked. */
    int64_t state_offset;
    uint32_t state_crc;
} bw_recovery_point;

typedef struct bw_recovery_report {
    bool recovered;         /* the log was scanned (control data was made anew) */
    bool cut;               /* bytes past the recovery point were cut */
    bool foreign;           /* ends below its recovery point: restored from a copy; new incarnation */
    int64_t end_offset;
    int64_t cut_from_bytes; /* bytes dropped */
    int32_t leader_epoch;
    uint32_t quarantined;   /* corrupt segments below the recovery point, kept as "<base>.log.corrupt" */
    char detail[200];       /* what was found first, for the event; "" when nothing was wrong */
} bw_recovery_report;

/* bw_partition_create_files: make the folder with its metadata file, an empty first segment and leader-epoch-checkpoint; directory
 * entries synced. BUSY if it exists. */
/* bw_partition_create_many: of partitions [first, first + count); a thousand a second and more. After an
 * error none of them is there. */
bw_err bw_partition_create_many(int data_fd, const char *topic, int32_t first, uint32_t count, const bw_uuid *id);
bw_err bw_partition_create_files(int data_fd, const char *topic, int32_t partition, const bw_uuid *id);

/* How many segment files may be open, of all partitions that share this. */
typedef struct bw_open_files {
    _Atomic uint32_t count;
    uint32_t most; /* a resting partition does not wake while there are so many; awake ones may go beyond */
} bw_open_files;

typedef struct bw_partition_open_options {
    int data_fd; /* outlives the partition */
    const char *topic;
    int32_t partition;
    bw_control *control;      /* mapped for writing; slot `partition` is filled by open when fresh */
    uint32_t bus_number;
    bool fresh_slot;          /* true: control data is new: recover from files. false: same boot and generation: take over */
    bw_recovery_point point;  /* all zero when unknown */
    const uint8_t *snapshot;  /* that was kept beside it, or NULL; used during the call */
    size_t snapshot_len;
    bool just_created;        /* by bw_partition_create_files: nobody can have seen anything yet */
    bw_partition_config config;
    const bw_fork_guard *guard;
    int64_t clock_ahead_ms;   /* bw_datadir_clock_ahead_ms */
    bw_open_files *open_files; /* may be NULL */
    bool verify_later;        /* a takeover leaves its syncs to the first bw_partition_sync, which the caller asks for soon */
} bw_partition_open_options;

/* bw_partition_open: recovery or takeover as in design: below the point a bad checksum is corruption (quarantine: the segment
 * is renamed aside, an error to readers of that range), above it the log is cut at the first bad batch, zeroed to the end of its
 * allocation, and the leader epoch goes up. Segments made by Kafka are accepted as they are. */
bw_err bw_partition_open(const bw_partition_open_options *options, bw_partition **out, bw_recovery_report *report);
/* bw_partition_close: trim: nobody writes any more (writers.lock held exclusively): sync, cut the active segment's file to the
 * tail, sync; the recovery point is then the end. */
bw_err bw_partition_close(bw_partition *p, bool trim, bw_recovery_point *point);
/* bw_partition_close_keep: the same; *snapshot as in bw_partition_recovery_point. */
bw_err bw_partition_close_keep(bw_partition *p, bool trim, bw_recovery_point *point, bw_buf *snapshot);
/* bw_partition_trim: before a close with trim, for many: all of the cutting but its sync, which one journal commit then does for all. */
bw_err bw_partition_trim(bw_partition *p);
/* bw_partition_delete_files: after the slot was marked deleted: rename the folder aside ("<name>.<uuid>-delete") and remove it. */
bw_err bw_partition_delete_files(int data_fd, const char *topic, int32_t partition);

/* bw_partition_tend: look at the slot and do what is wanted: capacity, spare, after-roll work, segment.ms roll, index of new
 * batches, sync when asked or when 64 MiB are unsynced. Cheap when nothing is wanted. *synced: durable moved. */
bw_err bw_partition_tend(bw_partition *p, bool *synced);
/* The two halves of tend, for a coordinator that syncs in a thread of its own, so that a slow disk keeps no writer waiting for
 * room: tend_files does all but the sync; wants_sync says that bw_partition_sync is due. Both may run while a sync runs. */
bw_err bw_partition_tend_files(bw_partition *p);
bool bw_partition_wants_sync(bw_partition *p);
/* bw_partition_sync: make everything visible now durable. POISONED for ever after a failure. */
bw_err bw_partition_sync(bw_partition *p);
bool bw_partition_has_unsynced(const bw_partition *p);
/* Files of deleted segments can be used again when their new names are on the disk: sync_folder makes it so, beside any other sync; one
 * thread at a time. POISONED as a sync. */
bool bw_partition_wants_folder(bw_partition *p);
bw_err bw_partition_sync_folder(bw_partition *p);
/* A partition that nobody uses holds no descriptor. rest_begin: writers have to ask for room from now on (BUSY: not now); then
 * bw_partition_sync; then rest_end closes (BUSY: somebody asked meanwhile, it stays awake). Several may be between begin and end. It
 * wakes by itself, in tend, when somebody asks for room; starved: it would, but too many files are open. */
bw_err bw_partition_rest_begin(bw_partition *p);
bw_err bw_partition_rest_end(bw_partition *p);
bool bw_partition_is_resting(const bw_partition *p);
bool bw_partition_is_starved(const bw_partition *p);
/* bw_partition_retain: delete whole segments by retention.bytes / retention.ms (now is wall ms, clamped by append time so that a
 * clock jump purges nothing). *deleted counts segments. */
bw_err bw_partition_retain(bw_partition *p, int64_t now_ms, uint32_t *deleted);
bw_err bw_partition_delete_records(bw_partition *p, int64_t before, int64_t *log_start);
bw_err bw_partition_set_config(bw_partition *p, const bw_partition_config *config);

/* bw_partition_offset_for_time: first record with timestamp >= ts (exact, by scanning from the time index); *offset = end and
 * *found = -1 when none. */
bw_err bw_partition_offset_for_time(bw_partition *p, int64_t ts, int64_t *offset, int64_t *found);

typedef struct bw_partition_info {
    int64_t log_start, end_offset, durable_offset, replicated_offset;
    uint64_t size_bytes; /* used, not allocated */
    uint32_t segments;
    int32_t leader_epoch;
    bw_slot_state state;
} bw_partition_info;
void bw_partition_info_get(bw_partition *p, bw_partition_info *out);
/* The current recovery point: true when it moved since the last call. *snapshot (empty before; the caller frees it; NULL: left there for
 * the next call): when it has bytes, a new snapshot of the producer state, to be stored in one transaction with the point. When that
 * fails: bw_partition_point_lost. */
bool bw_partition_recovery_point(bw_partition *p, bw_recovery_point *out, bw_buf *snapshot);
void bw_partition_point_lost(bw_partition *p);
/* bw_partition_dir_fd: the folder's descriptor, kept open from now on. */
int bw_partition_dir_fd(bw_partition *p);
/* The third watermark, partition_replicated.c. raise: peers have acknowledged all below offset; bounded by the log's end, never back.
 * true: it has moved, and who waits for it was woken. Any thread. */
bool bw_partition_raise_replicated(bw_partition *p, int64_t offset);
int64_t bw_partition_replicated(const bw_partition *p);
/* bw_partition_begin_epoch: a new leader epoch at the log's end, where nobody appends now; on the disk when it returns. OK also when the
 * log has that epoch, or a later one. */
bw_err bw_partition_begin_epoch(bw_partition *p, int32_t epoch);
/* bw_partition_quiesce: after the slot's fence was raised: whoever was inside an append is out, and nobody comes in by the old fence.
 * LOCK_HELD: again. */
bw_err bw_partition_quiesce(bw_partition *p);
/* What tells one life of the log from another: which leader epoch began at which offset (an epoch begins where recovery may have lost
 * records), oldest first, malloc'd, at most 4096; and the first epoch of the present life: before it the log was another one. 0 while
 * it was never restored from a copy. */
typedef struct bw_partition_history {
    bw_epoch_entry *epochs;
    size_t count;
    int32_t life_epoch;
} bw_partition_history;
bw_err bw_partition_history_get(bw_partition *p, bw_partition_history *out);
bw_tail_slot *bw_partition_slot(const bw_partition *p);

/* ---- producers and transactions (log/producers.h, log/txn.h); these read headers of what is not followed yet: not on the broker thread ---- */

/* bw_partition_producers: a copy of the state of all that is visible. The caller frees it. NO_MEMORY, POISONED, IO. */
bw_err bw_partition_producers(bw_partition *p, bw_producers **out);
/* bw_partition_producer_last: what the log knows of one producer, of those that append directly too. NOT_FOUND. */
bw_err bw_partition_producer_last(bw_partition *p, int64_t producer_id, bw_producer_info *out);
/* bw_partition_expire_producers: forget who has written nothing for so long. */
void bw_partition_expire_producers(bw_partition *p, int64_t silent_ms);
/* bw_slot_last_stable: no record at or above it may be given to those who read committed records only. Any process. */
int64_t bw_slot_last_stable(const bw_tail_slot *s);

#endif
