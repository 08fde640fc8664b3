/* shim_private.h: what the shim's files share, and the Go functions that they call (callbacks.go). */
#ifndef BUSWAY_GO_SHIM_PRIVATE_H
#define BUSWAY_GO_SHIM_PRIVATE_H

#include "shim.h"

/* The outcome with this thread's message. */
bwgo_result bwgo_result_of(bw_err e);
/* What a poll came to: the records of r->batch are decoded, or the message is kept. */
int32_t bwgo_reader_take(bwgo_reader *r, bw_err e);

/* Exported by callbacks.go; `handle` is a runtime/cgo.Handle. They return 0 for "stop". */
void bwgoRebalance(uintptr_t handle, int event, bw_topic_partition *parts, size_t count);
int bwgoProcess(uintptr_t handle, bw_state_txn *txn, bw_batch *batch, bw_record_view *record);
int bwgoRedrive(uintptr_t handle, int64_t moved, int64_t skipped);
void bwgoFinding(uintptr_t handle, char *path, uint64_t position, int64_t offset, int is_error, char *message);
void bwgoProgress(uintptr_t handle, uint64_t done, uint64_t total);
int bwgoDump(uintptr_t handle, bw_dump_batch *batch, bw_record_view *record);

#endif
