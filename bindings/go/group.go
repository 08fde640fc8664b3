package busway

/*
#include "shim.h"
*/
import "C"

import (
	"context"
	"unsafe"
)

// Rebalance is what a group does to a member.
type Rebalance int

// Rebalance events.
const (
	Assigned Rebalance = C.BW_REBALANCE_ASSIGNED // more to read, from the offset given; the callback may seek
	Revoked  Rebalance = C.BW_REBALANCE_REVOKED  // to be given up when the callback returns; it may commit
	Lost     Rebalance = C.BW_REBALANCE_LOST     // gone, somebody else may have them
)

func (r Rebalance) String() string {
	switch r {
	case Assigned:
		return "assigned"
	case Revoked:
		return "revoked"
	}
	return "lost"
}

// Subscribe makes the consumer a member of its group for these topics, instead of those before; it takes effect in the next Poll. A name that
// begins with '^' is a POSIX extended regular expression.
func (c *Consumer) Subscribe(topics ...string) error {
	if err := c.check("subscribe"); err != nil {
		return err
	}
	a := arena{op: "subscribe"}
	defer a.free()
	list := a.strings(topics)
	if a.fail != nil {
		return a.fail
	}
	mine, err := c.begin(context.Background(), "subscribe")
	if err != nil {
		return err
	}
	defer c.end(mine)
	return resultError("subscribe", C.bwgo_reader_subscribe(c.r, list, C.size_t(len(topics))))
}

// Unsubscribe leaves the group, with a commit (WithAutoCommit); the consumer may subscribe or assign anew.
func (c *Consumer) Unsubscribe() error {
	if err := c.check("unsubscribe"); err != nil {
		return err
	}
	mine, err := c.begin(context.Background(), "unsubscribe")
	if err != nil {
		return err
	}
	defer c.end(mine)
	c.dead()
	return resultError("unsubscribe", C.bwgo_reader_unsubscribe(c.r))
}

// Subscription is what it is subscribed to.
func (c *Consumer) Subscription() ([]string, error) {
	if err := c.check("subscription"); err != nil {
		return nil, err
	}
	mine, err := c.begin(context.Background(), "subscription")
	if err != nil {
		return nil, err
	}
	defer c.end(mine)
	var list **C.char
	var count C.size_t
	if err := resultError("subscription", C.bwgo_reader_subscription(c.r, &list, &count)); err != nil {
		return nil, err
	}
	defer C.bw_free(unsafe.Pointer(list))
	out := make([]string, int(count))
	for i, s := range unsafe.Slice(list, int(count)) {
		out[i] = C.GoString(s)
	}
	return out, nil
}

// Commit commits these offsets (of the next record to read), or, without any, the positions of all partitions, in the group, and waits for the
// outcome. nil: it survives the death of any process (WithDurableCommits: the loss of power). The error is the first of a partition. Each one's
// outcome is in Err of parts. When ctx ends first the outcome is not known.
func (c *Consumer) Commit(ctx context.Context, parts ...TopicPartition) error {
	return c.withParts(ctx, "commit", parts, func(all *C.bw_topic_partition, n C.size_t, ms C.int32_t) C.bwgo_result {
		return C.bwgo_reader_commit(c.r, all, n, ms)
	}, false)
}

// CommitRecord commits that everything up to and with this record was processed.
func (c *Consumer) CommitRecord(ctx context.Context, r Record) error {
	return c.Commit(ctx, TopicPartition{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset + 1})
}

// Committed fills in the group's committed offset (OffsetInvalid: none), leader epoch and metadata of each of the partitions.
func (c *Consumer) Committed(ctx context.Context, parts []TopicPartition) error {
	return c.withParts(ctx, "committed", parts, func(all *C.bw_topic_partition, n C.size_t, ms C.int32_t) C.bwgo_result {
		return C.bwgo_reader_committed(c.r, all, n, ms)
	}, true)
}

// withParts is a bounded call with partitions. When ctx ends it early, it keeps the turn until it is through.
func (c *Consumer) withParts(ctx context.Context, op string, parts []TopicPartition,
	f func(*C.bw_topic_partition, C.size_t, C.int32_t) C.bwgo_result, fill bool) error {
	if err := c.check(op); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	a := &arena{op: op}
	all := partsToC(a, parts)
	if a.fail != nil {
		a.free()
		return a.fail
	}
	mine, err := c.begin(ctx, op)
	if err != nil {
		a.free()
		return err
	}
	type outcomes struct {
		err   error
		parts []TopicPartition
	}
	inner, ms, n := c.consumer, millis(ctx, c.timeout), len(parts)
	if !mine { // in a callback: this thread is the consumer's
		ctx = context.Background()
	}
	r, err := bounded(ctx, op, func() outcomes {
		defer inner.end(mine)
		defer a.free()
		err := resultError(op, f(all, C.size_t(n), ms))
		return outcomes{err, partsToGo(all, n, nil)}
	}, nil)
	if err != nil {
		return err
	}
	for i, p := range r.parts {
		parts[i].Err = p.Err
		if fill {
			parts[i].Offset, parts[i].LeaderEpoch, parts[i].Metadata = p.Offset, p.LeaderEpoch, p.Metadata
		}
	}
	return byContext(ctx, r.err)
}

// CommitAsync is Commit without waiting. fn (may be nil) gets the outcome behind a later Poll, Commit, Unsubscribe or Close, in the goroutine that
// calls it. ErrQueueFull: too many are on their way; poll.
func (c *Consumer) CommitAsync(fn func(parts []TopicPartition, err error), parts ...TopicPartition) error {
	if err := c.check("commit"); err != nil {
		return err
	}
	a := arena{op: "commit"}
	defer a.free()
	all := partsToC(&a, parts)
	if a.fail != nil {
		return a.fail
	}
	mine, err := c.begin(context.Background(), "commit")
	if err != nil {
		return err
	}
	defer c.end(mine)
	c.next++
	if fn != nil {
		c.calls[c.next] = fn
	}
	err = resultError("commit", C.bwgo_reader_commit_async(c.r, all, C.size_t(len(parts)), C.uint64_t(c.next)))
	if err != nil {
		delete(c.calls, c.next)
	}
	return err
}

type toldCommit struct {
	fn    func([]TopicPartition, error)
	parts []TopicPartition
	err   error
}

// takeCommits: outcomes of CommitAsync that came. Nil nearly always.
func (c *consumer) takeCommits() (told []toldCommit) {
	for c.r != nil && c.r.commits != nil {
		done := c.r.commits
		c.r.commits = done.next
		call := uint64(done.call)
		if fn := c.calls[call]; fn != nil {
			delete(c.calls, call)
			t := toldCommit{fn: fn}
			if done.code != 0 {
				t.err = failure("commit", Code(done.code), C.GoString(done.message))
			}
			t.parts = partsToGo(C.bwgo_commit_parts(done), int(done.count), nil)
			told = append(told, t)
		}
		C.free(unsafe.Pointer(done.message))
		C.free(unsafe.Pointer(done))
	}
	return told
}

// GroupMetadata is who a consumer is in its group, for a transaction that commits its offsets.
type GroupMetadata struct {
	GroupID, MemberID, InstanceID string
	MemberEpoch                   int32 // -1: not a member
}

// GroupMetadata: see Transaction.SendOffsets. ErrInvalidArgument: it has no group.
func (c *Consumer) GroupMetadata() (GroupMetadata, error) {
	if err := c.check("group metadata"); err != nil {
		return GroupMetadata{}, err
	}
	mine, err := c.begin(context.Background(), "group metadata")
	if err != nil {
		return GroupMetadata{}, err
	}
	defer c.end(mine)
	a := arena{}
	defer a.free()
	m := (*C.bw_group_metadata)(a.room(1, C.sizeof_bw_group_metadata))
	if err := resultError("group metadata", C.bwgo_reader_group(c.r, m)); err != nil {
		return GroupMetadata{}, err
	}
	out := GroupMetadata{C.GoString(m.group_id), C.GoString(m.member_id), "", int32(m.member_epoch)}
	if m.group_instance_id != nil {
		out.InstanceID = C.GoString(m.group_instance_id)
	}
	return out, nil
}
