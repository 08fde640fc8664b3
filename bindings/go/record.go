package busway

/*
#include "shim.h"
*/
import "C"

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"
)

// AnyPartition lets the producer choose: by the key, as Kafka's Java client does it; without a key one at a time in turn.
const AnyPartition int32 = C.BW_PARTITION_ANY

// Special offsets, where an offset is asked for.
const (
	OffsetEnd       int64 = C.BW_OFFSET_END
	OffsetBeginning int64 = C.BW_OFFSET_BEGINNING
	OffsetInvalid   int64 = C.BW_OFFSET_INVALID // none
)

// TimestampType says who set the time of a record.
type TimestampType int

// Timestamp types.
const (
	NoTimestamp   TimestampType = C.BW_TIMESTAMP_NONE
	CreateTime    TimestampType = C.BW_TIMESTAMP_CREATE     // its producer
	LogAppendTime TimestampType = C.BW_TIMESTAMP_LOG_APPEND // the log, when it was appended
)

// Header is a record's header. A nil value is null.
type Header struct {
	Name  string
	Value []byte
}

// Record is a record by value: what is sent, and a copy of what was read. nil and empty (Key, Value) are kept apart, as in Kafka.
type Record struct {
	Key     []byte
	Value   []byte
	Headers []Header
	Time    time.Time // zero, when sending: now; milliseconds count

	// Where it was read; sending does not look at these.
	Topic     string
	Partition int32
	Offset    int64
}

// Header returns the value of the last header of this name.
func (r *Record) Header(name string) ([]byte, bool) {
	for i := len(r.Headers) - 1; i >= 0; i-- {
		if r.Headers[i].Name == name {
			return r.Headers[i].Value, true
		}
	}
	return nil, false
}

// ---- packing: records become three flat arrays, that one call hands over ----

type packer struct {
	records []C.bwgo_packed
	headers []C.bwgo_packed_header
	bytes   []byte
}

const packerKeeps = 4 << 20 // a larger buffer is not kept for the next call

var packers = sync.Pool{New: func() any { return new(packer) }}

func newPacker() *packer {
	k := packers.Get().(*packer)
	k.records, k.headers, k.bytes = k.records[:0], k.headers[:0], k.bytes[:0]
	return k
}

func (k *packer) free() {
	if cap(k.bytes) <= packerKeeps {
		packers.Put(k)
	}
}

func (k *packer) add(r *Record) bool {
	if len(r.Key) > math.MaxInt32 || len(r.Value) > math.MaxInt32 {
		return false
	}
	p := C.bwgo_packed{timestamp_ms: C.BW_NO_TIMESTAMP, key_len: -1, value_len: -1}
	if !r.Time.IsZero() {
		p.timestamp_ms = C.int64_t(r.Time.UnixMilli())
	}
	if r.Key != nil {
		p.key_len = C.int32_t(len(r.Key))
		k.bytes = append(k.bytes, r.Key...)
	}
	if r.Value != nil {
		p.value_len = C.int32_t(len(r.Value))
		k.bytes = append(k.bytes, r.Value...)
	}
	if len(r.Headers) > 0 && !k.addHeaders(r, &p) {
		return false
	}
	k.records = append(k.records, p)
	return true
}

func (k *packer) addHeaders(r *Record, p *C.bwgo_packed) bool {
	p.header_count = C.int32_t(len(r.Headers))
	for i := range r.Headers {
		h := &r.Headers[i]
		if len(h.Name) > math.MaxInt32 || len(h.Value) > math.MaxInt32 {
			return false
		}
		n := C.bwgo_packed_header{name_len: C.int32_t(len(h.Name)), value_len: -1}
		k.bytes = append(k.bytes, h.Name...)
		if h.Value != nil {
			n.value_len = C.int32_t(len(h.Value))
			k.bytes = append(k.bytes, h.Value...)
		}
		k.headers = append(k.headers, n)
	}
	return true
}

// one packs a record; pack packs many. The error names the one that can't be sent.
func (k *packer) one(op string, r *Record) error {
	if !k.add(r) {
		return failure(op, ErrRecordTooLarge, "a key, value or header of over 2 GiB")
	}
	k.finish()
	return nil
}

func (k *packer) pack(op string, records []Record) error {
	for i := range records {
		if !k.add(&records[i]) {
			return failure(op, ErrRecordTooLarge, "a key, value or header of over 2 GiB")
		}
	}
	k.finish()
	return nil
}

// finish: so that each array has an address.
func (k *packer) finish() {
	if len(k.bytes) == 0 {
		k.bytes = append(k.bytes, 0)
	}
	if len(k.headers) == 0 {
		k.headers = append(k.headers, C.bwgo_packed_header{})
	}
}

// ---- views ----

// View is a record as it lies in the log: nothing was copied, and nothing is allocated. It is good until the next Poll, Seek, Assign,
// Unassign, Unsubscribe or Close of its consumer, whichever is first. Its methods panic when they are called later. What they returned before can't be
// checked: a []byte that is kept longer leads to memory that is used otherwise, or is not there any more. Copy what is to be kept: View.Record.
type View struct {
	raw   *C.bw_record_view
	batch *batchInfo
	born  uint64
}

// batchInfo is what the views of a consumer's present batch share.
type batchInfo struct {
	life      atomic.Uint64 // views are good as long as it is what they were made with
	topic     string
	partition int32
	times     TimestampType
}

func (v *View) check() {
	if v.batch == nil || v.batch.life.Load() != v.born {
		stale(v.batch == nil)
	}
}

func stale(never bool) {
	if never {
		panic("busway: a View that is no record: take it from a Batch")
	}
	panic("busway: a View was used after the next Poll, Seek, Assign or Close of its consumer; keep View.Record(), which is a copy")
}

// Valid says whether the view may still be used.
func (v View) Valid() bool { return v.batch != nil && v.batch.life.Load() == v.born }

// Key is the record's key, in the log; nil: null. Not to be written to.
func (v View) Key() []byte {
	v.check()
	return unsafe.Slice((*byte)(v.raw.key), int(v.raw.key_len))
}

// Value is the record's value, in the log; nil: null. Not to be written to.
func (v View) Value() []byte {
	v.check()
	return unsafe.Slice((*byte)(v.raw.value), int(v.raw.value_len))
}

// Offset is the record's place in its partition.
func (v View) Offset() int64 {
	v.check()
	return int64(v.raw.offset)
}

// UnixMilli is the record's timestamp in milliseconds.
func (v View) UnixMilli() int64 {
	v.check()
	return int64(v.raw.timestamp_ms)
}

// Time is the record's timestamp.
func (v View) Time() time.Time { return time.UnixMilli(v.UnixMilli()) }

// Topic is where it was read.
func (v View) Topic() string {
	v.check()
	return v.batch.topic
}

// Partition is where it was read.
func (v View) Partition() int32 {
	v.check()
	return v.batch.partition
}

// TimestampType says who set the time; of a queue's message it is not known: CreateTime.
func (v View) TimestampType() TimestampType {
	v.check()
	return v.batch.times
}

// HeaderCount is how many headers it has.
func (v View) HeaderCount() int {
	v.check()
	return int(v.raw.header_count)
}

// EachHeader calls fn with each header, in the log, until it returns false. ErrCorrupt: their bytes make no sense.
func (v View) EachHeader(fn func(name, value []byte) bool) error {
	v.check()
	it := headerBytes{unsafe.Slice((*byte)(v.raw.headers_raw), int(v.raw.headers_len))}
	for i := 0; i < int(v.raw.header_count); i++ {
		name, value, ok := it.next()
		if !ok {
			return failure("headers", ErrCorrupt, "the headers of a record can't be read")
		}
		if !fn(name, value) {
			return nil
		}
	}
	return nil
}

// headerBytes reads encoded headers: varint length and name, varint length (-1: null) and value.
type headerBytes struct{ rest []byte }

func (h *headerBytes) varint() (int64, bool) {
	var v uint64
	for i := 0; i < len(h.rest) && i < 5; i++ {
		b := h.rest[i]
		v |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			h.rest = h.rest[i+1:]
			return int64(v>>1) ^ -int64(v&1), true
		}
	}
	return 0, false
}

func (h *headerBytes) take(n int64) ([]byte, bool) {
	if n < 0 || n > int64(len(h.rest)) {
		return nil, false
	}
	b := h.rest[:n:n]
	h.rest = h.rest[n:]
	return b, true
}

func (h *headerBytes) next() (name, value []byte, ok bool) {
	n, ok := h.varint()
	if !ok {
		return nil, nil, false
	}
	if name, ok = h.take(n); !ok {
		return nil, nil, false
	}
	if n, ok = h.varint(); !ok || n < -1 {
		return nil, nil, false
	}
	if n == -1 {
		return name, nil, true
	}
	value, ok = h.take(n)
	return name, value, ok
}

// Batch is a run of records of one partition, in order: what one Poll gives. The zero Batch has none. It is as good as its views are.
type Batch struct {
	raw   []C.bw_record_view
	batch *batchInfo
	born  uint64

	Topic       string
	Partition   int32
	LeaderEpoch int32
	BaseOffset  int64 // of the batch as it was written; records before the position are not given
	LastOffset  int64

	TimestampType TimestampType
}

// Len is how many records it has.
func (b *Batch) Len() int { return len(b.raw) }

// At is record i.
func (b *Batch) At(i int) View { return View{&b.raw[i], b.batch, b.born} }

// Views appends all of them to dst.
func (b *Batch) Views(dst []View) []View {
	for i := range b.raw {
		dst = append(dst, View{&b.raw[i], b.batch, b.born})
	}
	return dst
}
