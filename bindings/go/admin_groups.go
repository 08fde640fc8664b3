package busway

/*
#include "shim.h"
*/
import "C"

import (
	"context"
	"sync"
	"unsafe"
)

// ---- groups ----

// Groups lists the groups.
func (a *Admin) Groups(ctx context.Context) (JSON, error) {
	return a.json(ctx, "groups", C.BWGO_GROUPS, "", "", "", 0, 0)
}

// DescribeGroup is who is in a group, what it has committed, and its lag. ErrGroupIDNotFound.
func (a *Admin) DescribeGroup(ctx context.Context, group string) (JSON, error) {
	return a.json(ctx, "describe group", C.BWGO_GROUP, group, "", "", 0, 0)
}

// DeleteGroup removes a group without members, with all that it has committed. ErrGroupIDNotFound, ErrNonEmptyGroup.
func (a *Admin) DeleteGroup(ctx context.Context, group string) error {
	_, err := a.call(ctx, "delete group", func(b *bus, room *arena) C.bwgo_result {
		name := room.string(group)
		if room.fail != nil {
			return badName
		}
		return C.bwgo_group_delete(b.c, name)
	})
	return err
}

// AlterGroupOffsets sets what a group without members has committed; it is made when it is not there. Each partition is done or not by itself: Err of
// parts says so, and the error is the first one's. ErrNonEmptyGroup, ErrInvalidCommitOffset, ErrUnknownTopic, ErrUnknownPartition.
func (a *Admin) AlterGroupOffsets(ctx context.Context, group string, parts []TopicPartition) error {
	return a.groupOffsets(ctx, "alter group offsets", 1, group, parts)
}

// DeleteGroupOffsets forgets what a group has committed for these partitions.
func (a *Admin) DeleteGroupOffsets(ctx context.Context, group string, parts []TopicPartition) error {
	return a.groupOffsets(ctx, "delete group offsets", 0, group, parts)
}

func (a *Admin) groupOffsets(ctx context.Context, op string, alter C.int, group string, parts []TopicPartition) error {
	outcome := make(chan []Code, 1)
	given := append([]TopicPartition(nil), parts...)
	_, err := a.call(ctx, op, func(b *bus, room *arena) C.bwgo_result {
		name, all := room.string(group), (*C.bw_group_offset)(room.room(len(given), C.sizeof_bw_group_offset))
		array := unsafe.Slice(all, len(given))
		for i, p := range given {
			array[i] = C.bw_group_offset{topic: room.string(p.Topic), partition: C.int32_t(p.Partition), offset: C.int64_t(p.Offset),
				metadata: room.optional(p.Metadata)}
		}
		if room.fail != nil {
			return badName
		}
		r := C.bwgo_group_offsets(b.c, alter, name, all, C.size_t(len(given)))
		codes := make([]Code, len(given))
		for i := range array {
			codes[i] = Code(array[i].error)
		}
		outcome <- codes
		return r
	})
	select {
	case codes := <-outcome:
		for i, c := range codes {
			parts[i].Err = nil
			if c != 0 {
				parts[i].Err = c
			}
		}
	default:
	}
	return err
}

// ---- transactions ----

// Transactions lists the transactional ids.
func (a *Admin) Transactions(ctx context.Context) (JSON, error) {
	return a.json(ctx, "transactions", C.BWGO_TXNS, "", "", "", 0, 0)
}

// DescribeTransaction is what is going on under a transactional id. ErrTransactionalIDNotFound.
func (a *Admin) DescribeTransaction(ctx context.Context, id string) (JSON, error) {
	return a.json(ctx, "describe transaction", C.BWGO_TXN, id, "", "", 0, 0)
}

// AbortTransaction aborts any producer's, which is told ErrTransactionAbortable. ErrInvalidTxnState: none is going on. ErrNotPermitted.
func (a *Admin) AbortTransaction(ctx context.Context, id string) error {
	_, err := a.call(ctx, "abort transaction", func(b *bus, room *arena) C.bwgo_result {
		name := room.string(id)
		if room.fail != nil {
			return badName
		}
		return C.bwgo_txn_abort_admin(b.c, name)
	})
	return err
}

// ---- queues ----

// DescribeQueue describes a queue group, or all (""). ErrGroupIDNotFound.
func (a *Admin) DescribeQueue(ctx context.Context, group string) (JSON, error) {
	return a.json(ctx, "describe queue", C.BWGO_QUEUES, group, "", "", 0, 0)
}

// PeekQueue is up to max records that the group holds or knows of. Nothing is changed.
func (a *Admin) PeekQueue(ctx context.Context, group, topic string, partition, max int32) (JSON, error) {
	return a.json(ctx, "peek queue", C.BWGO_PEEK, group, topic, "", partition, max)
}

// QueueOutcome is what becomes of a record by hand.
type QueueOutcome int

// Outcomes.
const (
	QueueDone  QueueOutcome = C.BW_QUEUE_DONE  // acknowledged
	QueueAgain QueueOutcome = C.BW_QUEUE_AGAIN // released
	QueueDead  QueueOutcome = C.BW_QUEUE_DEAD  // rejected
)

// SettleQueue settles records [first, last] of a partition, whoever holds them, and returns how many.
func (a *Admin) SettleQueue(ctx context.Context, group, topic string, partition int32, first, last int64, outcome QueueOutcome) (int64, error) {
	r, err := a.call(ctx, "settle queue", func(b *bus, room *arena) C.bwgo_result {
		g, t := room.string(group), room.string(topic)
		if room.fail != nil {
			return badName
		}
		return C.bwgo_queue_settle(b.c, g, t, C.int32_t(partition), C.int64_t(first), C.int64_t(last), C.int(outcome))
	})
	return int64(r.a), err
}

// DeleteQueue removes a queue group without workers. ErrNonEmptyGroup.
func (a *Admin) DeleteQueue(ctx context.Context, group string) error {
	_, err := a.call(ctx, "delete queue", func(b *bus, room *arena) C.bwgo_result {
		name := room.string(group)
		if room.fail != nil {
			return badName
		}
		return C.bwgo_queue_delete(b.c, name)
	})
	return err
}

// redriving is what C tells how far it is. When its context has ended, nothing of the caller's is called any more.
type redriving struct {
	mu             sync.Mutex
	ctx            context.Context
	progress       func(moved, skipped int64) bool
	moved, skipped int64
	over           bool
	thrown         *panicked
}

func (r *redriving) told(moved, skipped int64) (more bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over {
		return false
	}
	r.moved, r.skipped = moved, skipped
	r.thrown = guarded(func() { more = r.ctx.Err() == nil && (r.progress == nil || r.progress(moved, skipped)) })
	return more
}

// RedriveQueue moves dead letters back to where they came from, at most max (0: all that are there). progress (may be nil) is told after each batch; false
// ends it. Returns how many were moved, and how many say no origin and were left. When ctx ends it returns what was told last; the batch that is on
// its way may still be moved. WithRequestTimeout does not bound the whole.
func (a *Admin) RedriveQueue(ctx context.Context, deadLetters string, max int64, progress func(moved, skipped int64) bool) (moved, skipped int64, err error) {
	const op = "redrive queue"
	r := &redriving{ctx: ctx, progress: progress}
	result, err := a.call(ctx, op, func(b *bus, room *arena) C.bwgo_result {
		name := room.string(deadLetters)
		if room.fail != nil {
			return badName
		}
		handle, forget := handleOf(r)
		defer forget()
		return C.bwgo_queue_redrive(b.c, name, C.int64_t(max), handle)
	})
	r.mu.Lock() // waits for progress
	r.over = true
	moved, skipped = int64(result.a), int64(result.b)
	if r.moved > moved || r.skipped > skipped {
		moved, skipped = r.moved, r.skipped
	}
	r.mu.Unlock()
	r.thrown.throw()
	if err == nil {
		err = ctx.Err()
	}
	return moved, skipped, err
}
