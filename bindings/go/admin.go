package busway

/*
#include "shim.h"
*/
import "C"

import (
	"context"
	"encoding/json"
	"time"
	"unsafe"
)

// Admin is administration: topics, offsets, groups, queues, transactions, quotas. Its calls are bounded by WithRequestTimeout, or earlier by their
// context; when that ends one early, its outcome is not known: an error that is both ErrTimedOut and the context's. Those that describe
// return JSON; see busway/admin.h, group.h, queue.h and transaction.h for its members, and Decode.
type Admin struct{ b *Bus }

// Admin needs no Close.
func (b *Bus) Admin() *Admin { return &Admin{b} }

// JSON is what the calls that describe return.
type JSON = json.RawMessage

// Decode is json.Unmarshal of what a call that describes returned:
//
//	topics, err := busway.Decode[[]Topic](admin.DescribeTopics(ctx, ""))
func Decode[T any](text JSON, err error) (out T, _ error) {
	if err == nil {
		err = json.Unmarshal(text, &out)
	}
	return out, err
}

// call is a bounded call of C with strings of C's; it is within the gate until it ends.
func (a *Admin) call(ctx context.Context, op string, f func(*bus, *arena) C.bwgo_result) (C.bwgo_result, error) {
	if a == nil {
		return C.bwgo_result{}, errNil(op, "admin", "Bus.Admin")
	}
	if err := a.b.enter(op); err != nil {
		return C.bwgo_result{}, err
	}
	inner := a.b.bus
	if err := ctx.Err(); err != nil {
		inner.gate.leave()
		return C.bwgo_result{}, err
	}
	type outcomes struct {
		r   C.bwgo_result
		err error
	}
	c, err := bounded(ctx, op, func() outcomes {
		defer inner.gate.leave()
		room := &arena{op: op}
		defer room.free()
		r := f(inner, room)
		if room.fail != nil {
			return outcomes{r, room.fail}
		}
		return outcomes{r, resultError(op, r)}
	}, nil)
	if err == nil {
		err = byContext(ctx, c.err)
	}
	return c.r, err
}

// badName is what a call returns when a string can't be given to C: the arena knows why.
var badName = C.bwgo_result{code: C.BW_ERR_INVALID_ARGUMENT}

func (a *Admin) json(ctx context.Context, op string, what C.int, s1, s2, s3 string, partition, max int32) (JSON, error) {
	out := make(chan JSON, 1)
	_, err := a.call(ctx, op, func(b *bus, room *arena) C.bwgo_result {
		c1, c2, c3 := room.optional(s1), room.optional(s2), room.optional(s3)
		if room.fail != nil {
			return badName
		}
		var text *C.char
		r := C.bwgo_json(what, b.c, c1, c2, c3, C.int32_t(partition), C.int32_t(max), &text)
		if text != nil {
			out <- JSON(C.GoString(text))
			C.bw_free(unsafe.Pointer(text))
		}
		return r
	})
	if err != nil {
		return nil, err
	}
	return <-out, nil
}

// Status is the daemon's state: version, pid, uptime, folders, connections and why not direct, partitions, disk space, memory.
func (a *Admin) Status(ctx context.Context) (JSON, error) {
	return a.json(ctx, "status", C.BWGO_STATUS, "", "", "", 0, 0)
}

// ---- topics ----

// ConfigEntry is a setting of a topic, or a rate of a quota: Set, Unset.
type ConfigEntry struct {
	Name, Value string
	unset       bool
}

// Set is a setting under Kafka's name: Set("retention.ms", "60000").
func Set(name, value string) ConfigEntry { return ConfigEntry{name, value, false} }

// Unset is back to the default, or for a quota: no limit.
func Unset(name string) ConfigEntry { return ConfigEntry{name, "", true} }

func (a *arena) config(entries []ConfigEntry) *C.bw_config_entry {
	all := (*C.bw_config_entry)(a.room(len(entries), C.sizeof_bw_config_entry))
	array := unsafe.Slice(all, len(entries))
	for i, e := range entries {
		array[i].name = a.string(e.Name)
		if !e.unset {
			array[i].value = a.string(e.Value)
		}
	}
	return all
}

func (a *Admin) topic(ctx context.Context, op string, what C.int, topic string, partitions int32, config []ConfigEntry) (int32, error) {
	r, err := a.call(ctx, op, func(b *bus, room *arena) C.bwgo_result {
		name, all := room.string(topic), room.config(config)
		if room.fail != nil {
			return badName
		}
		return C.bwgo_topic(what, b.c, name, C.int32_t(partitions), all, C.size_t(len(config)))
	})
	return int32(r.n), err
}

// CreateTopic makes a topic; partitions 0: the daemon's num.partitions. It survives power loss when this returns. ErrTopicExists, ErrInvalidTopic,
// ErrInvalidConfig, ErrNotPermitted, ErrDiskFull.
func (a *Admin) CreateTopic(ctx context.Context, topic string, partitions int32, config ...ConfigEntry) error {
	_, err := a.topic(ctx, "create topic", C.BWGO_CREATE, topic, partitions, config)
	return err
}

// AlterTopic changes settings; partitions > 0 raises their number.
func (a *Admin) AlterTopic(ctx context.Context, topic string, partitions int32, config ...ConfigEntry) error {
	_, err := a.topic(ctx, "alter topic", C.BWGO_ALTER, topic, partitions, config)
	return err
}

// DeleteTopic removes a topic and its records.
func (a *Admin) DeleteTopic(ctx context.Context, topic string) error {
	_, err := a.topic(ctx, "delete topic", C.BWGO_DELETE, topic, 0, nil)
	return err
}

// Partitions is how many partitions a topic has.
func (a *Admin) Partitions(ctx context.Context, topic string) (int32, error) {
	return a.topic(ctx, "partitions", C.BWGO_PARTITIONS, topic, 0, nil)
}

// DescribeTopics describes a topic, or all ("").
func (a *Admin) DescribeTopics(ctx context.Context, topic string) (JSON, error) {
	return a.json(ctx, "describe topics", C.BWGO_TOPICS, topic, "", "", 0, 0)
}

// DeleteRecords: what lies before an offset (OffsetEnd: everything) is gone for readers at once. Returns the new start. ErrOffsetOutOfRange.
func (a *Admin) DeleteRecords(ctx context.Context, topic string, partition int32, before int64) (logStart int64, err error) {
	r, err := a.call(ctx, "delete records", func(b *bus, room *arena) C.bwgo_result {
		name := room.string(topic)
		if room.fail != nil {
			return badName
		}
		return C.bwgo_delete_records(b.c, name, C.int32_t(partition), C.int64_t(before))
	})
	return int64(r.a), err
}

// OffsetRange is what a partition has.
type OffsetRange struct {
	LogStart int64 // first offset there
	End      int64 // next offset to be written
	Durable  int64 // next offset not yet known to be on the disk
}

// Offsets is the range of a partition.
func (a *Admin) Offsets(ctx context.Context, topic string, partition int32) (OffsetRange, error) {
	var out OffsetRange
	var set = make(chan OffsetRange, 1)
	_, err := a.call(ctx, "offsets", func(b *bus, room *arena) C.bwgo_result {
		name, raw := room.string(topic), (*C.bw_offset_range)(room.room(1, C.sizeof_bw_offset_range))
		if room.fail != nil {
			return badName
		}
		r := C.bwgo_offsets_range(b.c, name, C.int32_t(partition), raw)
		set <- OffsetRange{int64(raw.log_start), int64(raw.end), int64(raw.durable)}
		return r
	})
	if err == nil {
		out = <-set
	}
	return out, err
}

// OffsetEnd is the offset behind the last record that a reader with this limit may see now. ErrInvalidConfig: ReadReplicated, and the topic asks for no
// replicas.
func (a *Admin) OffsetEnd(ctx context.Context, topic string, partition int32, limit ReadLimit) (int64, error) {
	r, err := a.call(ctx, "offset end", func(b *bus, room *arena) C.bwgo_result {
		name := room.string(topic)
		if room.fail != nil {
			return badName
		}
		return C.bwgo_offset_end(b.c, name, C.int32_t(partition), C.int(limit))
	})
	return int64(r.a), err
}

// OffsetForTime is the first record of this time or later, and its time; when there is none the end, and a zero time.
func (a *Admin) OffsetForTime(ctx context.Context, topic string, partition int32, t time.Time) (offset int64, found time.Time, err error) {
	r, err := a.call(ctx, "offset for time", func(b *bus, room *arena) C.bwgo_result {
		name := room.string(topic)
		if room.fail != nil {
			return badName
		}
		return C.bwgo_offset_for_time(b.c, name, C.int32_t(partition), C.int64_t(t.UnixMilli()))
	})
	if err == nil && r.b >= 0 {
		found = time.UnixMilli(int64(r.b))
	}
	return int64(r.a), found, err
}

// DescribeProducers is who wrote to a partition.
func (a *Admin) DescribeProducers(ctx context.Context, topic string, partition int32) (JSON, error) {
	return a.json(ctx, "describe producers", C.BWGO_PRODUCERS, topic, "", "", partition, 0)
}

// ---- quotas ----

// QuotaDefault stands for each that has no quota of his own.
const QuotaDefault = C.BW_QUOTA_DEFAULT

// SetQuota sets rates (producer_byte_rate, consumer_byte_rate, request_rate; Unset: no longer) of a user, a client id, both, or a process; "": does
// not matter. ErrInvalidQuota says what is allowed.
func (a *Admin) SetQuota(ctx context.Context, user, clientID, pid string, rates ...ConfigEntry) error {
	_, err := a.call(ctx, "set quota", func(b *bus, room *arena) C.bwgo_result {
		u, c, p, all := room.optional(user), room.optional(clientID), room.optional(pid), room.config(rates)
		if room.fail != nil {
			return badName
		}
		return C.bwgo_quota_set(b.c, u, c, p, all, C.size_t(len(rates)))
	})
	return err
}

// Quotas lists quotas; what is not "" must match.
func (a *Admin) Quotas(ctx context.Context, user, clientID, pid string) (JSON, error) {
	return a.json(ctx, "quotas", C.BWGO_QUOTAS, user, clientID, pid, 0, 0)
}
