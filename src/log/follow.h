/* log/follow.h: a partition's files, read without a coordinator and without writing anything.
 *
 * A follower keeps a tail slot of this process's own, in private memory, at what lies in the files: up to the last batch with a right
 * checksum. Readers (log/read.h) use the slot as they would the coordinator's. It never takes a lock and never maps a file; who writes
 * meanwhile is not disturbed. A batch that is written but not published yet may be seen; when its writer dies before that, it is cut
 * and the follower goes back.
 * One thread at a time uses a follower; any number of readers use the slot meanwhile. */
#ifndef BW_LOG_FOLLOW_H
#define BW_LOG_FOLLOW_H

#include "log/control.h"

typedef struct bw_follow bw_follow;

/* bw_follow_open: data_fd outlives it. slot (all zero, private) is filled and opened. UNKNOWN_PARTITION: there is no such folder;
 * NOT_PERMITTED, IO, NO_MEMORY. */
bw_err bw_follow_open(int data_fd, const char *topic, int32_t partition, bw_tail_slot *slot, bw_follow **out);
void bw_follow_close(bw_follow *f);
/* bw_follow_look: take in what was appended. thorough: and what was rolled, deleted or cut: costs a listing of the folder. *moved: the
 * slot has changed. IO. */
bw_err bw_follow_look(bw_follow *f, bool thorough, bool *moved);

typedef struct bw_follow_info {
    uint64_t size_bytes;
    uint32_t segments;
    int32_t leader_epoch;
} bw_follow_info;
void bw_follow_info_get(const bw_follow *f, bw_follow_info *out);
/* bw_follow_offset_for_time: as bw_partition_offset_for_time; reads the log from its start on. */
bw_err bw_follow_offset_for_time(bw_follow *f, int64_t ts, int64_t *offset, int64_t *found);

/* Control data in this process's private memory, to be closed by bw_control_close and bw_mail_close. */
bw_err bw_mail_private(bw_mail **out);
bw_err bw_control_private(const bw_uuid *topic, bw_mail *mail, bw_control **out);

#endif
