package busway

/*
#include "shim.h"
*/
import "C"

import (
	"context"
	"time"
	"unsafe"
)

// TopicPartition is a partition and what belongs to it: an offset to commit, that was committed, or where reading starts.
type TopicPartition struct {
	Topic       string
	Partition   int32
	Offset      int64  // of the next record to read; OffsetInvalid: none
	LeaderEpoch int32  // of the last record before it; 0 or -1: not known
	Metadata    string // kept with a committed offset, for people
	Err         error  // the outcome for this partition
}

func (c *Consumer) place(op string, what int, topic string, partition int32, at int64) (int64, error) {
	if err := c.check(op); err != nil {
		return 0, err
	}
	name, err := cstring(op, topic)
	if err != nil {
		return 0, err
	}
	defer C.free(unsafe.Pointer(name))
	mine, err := c.begin(context.Background(), op)
	if err != nil {
		return 0, err
	}
	defer c.end(mine)
	if what <= C.BWGO_SEEK_TIME {
		c.dead()
	}
	r := C.bwgo_reader_place(C.int(what), c.r, name, C.int32_t(partition), C.int64_t(at))
	return int64(r.a), resultError(op, r)
}

// Assign adds a partition (AnyPartition: all of the topic) from an offset, or OffsetBeginning, OffsetEnd. ErrUnknownTopic, ErrUnknownPartition,
// ErrNotPermitted, ErrInvalidArgument (subscribed).
func (c *Consumer) Assign(topic string, partition int32, offset int64) error {
	_, err := c.place("assign", C.BWGO_ASSIGN, topic, partition, offset)
	return err
}

// Unassign takes a partition away again.
func (c *Consumer) Unassign(topic string, partition int32) error {
	_, err := c.place("unassign", C.BWGO_UNASSIGN, topic, partition, 0)
	return err
}

// Seek: the next Poll of that partition starts at offset, OffsetBeginning or OffsetEnd.
func (c *Consumer) Seek(topic string, partition int32, offset int64) error {
	_, err := c.place("seek", C.BWGO_SEEK, topic, partition, offset)
	return err
}

// SeekTime: to the first record of this time or later; to the end when there is none.
func (c *Consumer) SeekTime(topic string, partition int32, t time.Time) error {
	_, err := c.place("seek", C.BWGO_SEEK_TIME, topic, partition, t.UnixMilli())
	return err
}

// Position is the offset of the next record that a Poll would give.
func (c *Consumer) Position(topic string, partition int32) (int64, error) {
	return c.place("position", C.BWGO_POSITION, topic, partition, 0)
}

// Pause: the partition gives nothing and keeps its position.
func (c *Consumer) Pause(topic string, partition int32) error {
	_, err := c.place("pause", C.BWGO_PAUSE, topic, partition, 0)
	return err
}

// Resume ends a Pause.
func (c *Consumer) Resume(topic string, partition int32) error {
	_, err := c.place("resume", C.BWGO_RESUME, topic, partition, 0)
	return err
}

// Assignment is what it reads, with positions.
func (c *Consumer) Assignment() ([]TopicPartition, error) {
	if err := c.check("assignment"); err != nil {
		return nil, err
	}
	mine, err := c.begin(context.Background(), "assignment")
	if err != nil {
		return nil, err
	}
	defer c.end(mine)
	var parts *C.bw_topic_partition
	var count C.size_t
	if err := resultError("assignment", C.bwgo_reader_assignment(c.r, &parts, &count)); err != nil {
		return nil, err
	}
	defer C.bw_free(unsafe.Pointer(parts))
	return partsToGo(parts, int(count), nil), nil
}

// Fd is a descriptor that polls readable when TryPoll may give something. The consumer owns it. After it was readable call TryPoll until ErrTimedOut, then
// wait again. See also WithPoller.
func (c *Consumer) Fd() (uintptr, error) {
	if err := c.check("fd"); err != nil {
		return 0, err
	}
	mine, err := c.begin(context.Background(), "fd")
	if err != nil {
		return 0, err
	}
	defer c.end(mine)
	r := C.bwgo_reader_fd(c.r)
	return uintptr(r.n), resultError("fd", r)
}

func partsToGo(parts *C.bw_topic_partition, count int, failed error) []TopicPartition {
	out := make([]TopicPartition, count)
	for i, p := range unsafe.Slice(parts, count) {
		out[i] = TopicPartition{C.GoString(p.topic), int32(p.partition), int64(p.offset), int32(p.leader_epoch), "", failed}
		if p.metadata != nil {
			out[i].Metadata = C.GoString(p.metadata)
		}
		if p.error != 0 {
			out[i].Err = Code(p.error)
		}
	}
	return out
}

func partsToC(a *arena, parts []TopicPartition) *C.bw_topic_partition {
	all := (*C.bw_topic_partition)(a.room(len(parts), C.sizeof_bw_topic_partition))
	array := unsafe.Slice(all, len(parts))
	for i, p := range parts {
		epoch := p.LeaderEpoch
		if epoch == 0 {
			epoch = -1
		}
		array[i] = C.bw_topic_partition{topic: a.string(p.Topic), partition: C.int32_t(p.Partition), offset: C.int64_t(p.Offset),
			leader_epoch: C.int32_t(epoch), metadata: a.optional(p.Metadata)}
	}
	return all
}
