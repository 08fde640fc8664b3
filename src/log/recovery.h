/* log/recovery.h: the state of one recovery from files. Internal to log/partition_recover*.c. */
#ifndef BW_LOG_RECOVERY_H
#define BW_LOG_RECOVERY_H

#include "log/segment.h"

typedef struct recovery {
    bw_partition *p;
    bw_recovery_point point;
    const uint8_t *snapshot; /* of producers, beside it */
    size_t snapshot_len;
    bw_recovery_report *report;
    bw_found found;
    bool known;   /* the recovery point holds for these files */
    bool direct;  /* poisoned: believe only the medium */
    bool cut;     /* the log ends here: what follows is dropped */
    bool adopted; /* nothing is known of it: it may come from Kafka, compacted */
    bool gap;     /* it has gaps, all of them sound */
    bool garbage; /* unreadable bytes lie behind the end of the last segment */
    int64_t expected; /* base offset of the next segment; -1: any */
    int64_t floor;      /* no new segment starts below this offset */
    int32_t epoch;      /* the highest known */
    bool epoch_lost;    /* its file must be made anew */
    int32_t scan_epoch; /* of the last batch scanned */
    uint32_t last_crc;
    bool indexed;       /* the indexer holds the last segment, from byte 0 on */
} recovery;

/* bw_recovery_note: keep the thread's message as the report's detail, if it is the first. */
void bw_recovery_note(recovery *r);
/* bw_recovery_place_spare: a spare with a valid first batch becomes "<base>.log", any other is removed. */
bw_err bw_recovery_place_spare(recovery *r, uint32_t seq);
/* bw_recovery_quarantine: segment i is renamed to "<base>.log.corrupt[.n]" and leaves the list. */
bw_err bw_recovery_quarantine(recovery *r, size_t i);
/* bw_recovery_salvage: segment i holds the point and is corrupt below it: what is sound behind the point goes to a new segment, in
 * i's place; i is quarantined. */
bw_err bw_recovery_salvage(recovery *r, size_t i);
/* bw_recovery_drop_from: segment i and all that follow are deleted: above the point and behind a cut. */
bw_err bw_recovery_drop_from(recovery *r, size_t i);

#endif
