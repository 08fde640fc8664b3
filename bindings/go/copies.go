package busway

// Copies of what was read. The records of a batch lie behind each other in the log (or in the memory that they were decompressed into), so that one
// copy of all of it, from the first key to the last header, serves all records: they are slices of it, with nothing behind their ends that they
// could be appended into. It is allocated without being zeroed first.

/*
#include "shim.h"
*/
import "C"

import (
	"time"
	"unsafe"
)

// Record is a copy that may be kept for ever. Headers that can't be read are left out; EachHeader says so.
func (v View) Record() Record {
	v.check()
	var out [1]Record
	copyRecords(out[:], unsafe.Slice(v.raw, 1), v.batch.topic, v.batch.partition, nil)
	return out[0]
}

// Records is a copy of all records, which may be kept for ever: two allocations, however many they are, and one more when there are headers.
func (b *Batch) Records() []Record { return b.AppendRecords(nil) }

// AppendRecords appends a copy of all records to dst; their bytes are one new piece of memory, which is kept as long as one of them is.
func (b *Batch) AppendRecords(dst []Record) []Record {
	if len(b.raw) == 0 {
		return dst
	}
	b.check()
	at := len(dst)
	if cap(dst)-at < len(b.raw) {
		grown := make([]Record, at, at+len(b.raw))
		copy(grown, dst)
		dst = grown
	}
	dst = dst[:at+len(b.raw)]
	copyRecords(dst[at:], b.raw, b.Topic, b.Partition, nil)
	return dst
}

func (b *Batch) check() {
	first := b.At(0)
	first.check()
}

// Copies is memory for copies that is used again, for who has no use for them behind the next ones: nothing is left to the collector. The zero
// Copies is empty; one goroutine at a time.
type Copies struct {
	records []Record
	copier  copier
}

// Of is a copy of all records of a batch. It does not depend on the log, and is good until the next Of.
func (m *Copies) Of(b *Batch) []Record {
	if len(b.raw) == 0 {
		return nil
	}
	b.check()
	if cap(m.records) < len(b.raw) {
		m.records = make([]Record, len(b.raw))
	}
	out := m.records[:len(b.raw)]
	copyRecords(out, b.raw, b.Topic, b.Partition, &m.copier)
	return out
}

// copier is the copy of some records' bytes.
type copier struct {
	bytes   []byte
	from    uintptr  // where they lie in the log
	headers []Header // room for those to come
}

// take copies what lies between the first and the last byte of these records, into the memory of the last copy if there is one.
func (c *copier) take(raw []C.bw_record_view) {
	var first, end unsafe.Pointer
	for i := 0; i < len(raw) && first == nil; i++ {
		r := &raw[i]
		switch {
		case r.key != nil:
			first = unsafe.Pointer(r.key)
		case r.value != nil:
			first = unsafe.Pointer(r.value)
		case r.headers_len > 0:
			first = unsafe.Pointer(r.headers_raw)
		}
	}
	for i := len(raw) - 1; i >= 0 && end == nil; i-- {
		r := &raw[i]
		switch {
		case r.headers_len > 0:
			end = unsafe.Add(unsafe.Pointer(r.headers_raw), int(r.headers_len))
		case r.value != nil:
			end = unsafe.Add(unsafe.Pointer(r.value), int(r.value_len))
		case r.key != nil:
			end = unsafe.Add(unsafe.Pointer(r.key), int(r.key_len))
		}
	}
	c.from = uintptr(first)
	c.headers = c.headers[:0]
	c.bytes = c.bytes[:0]
	if size := uintptr(end) - uintptr(first); first != nil && size > 0 {
		c.bytes = append(c.bytes, unsafe.Slice((*byte)(first), int(size))...)
	} else if c.bytes == nil {
		c.bytes = []byte{} // an empty value is none that is not there
	}
}

// keep is the copy of n bytes at p; nil stays nil.
func (c *copier) keep(p *C.uint8_t, n C.uint32_t) []byte {
	at := uintptr(unsafe.Pointer(p)) - c.from
	if end := at + uintptr(n); p != nil && at <= end && end <= uintptr(len(c.bytes)) {
		return c.bytes[at:end:end]
	}
	return apart(p, n)
}

// apart is a copy of what lies elsewhere.
func apart(p *C.uint8_t, n C.uint32_t) []byte {
	if p == nil {
		return nil
	}
	return append([]byte{}, unsafe.Slice((*byte)(p), int(n))...)
}

// copyRecords fills out, which is as long as raw. Field by field: while the collector marks, each pointer that is written costs, and a whole Record
// the most.
func copyRecords(out []Record, raw []C.bw_record_view, topic string, partition int32, c *copier) {
	var own copier
	if c == nil {
		c = &own
	}
	c.take(raw)
	ms := int64(raw[0].timestamp_ms)
	when := time.UnixMilli(ms)
	for i := range out {
		r, to := &raw[i], &out[i]
		if int64(r.timestamp_ms) != ms {
			ms = int64(r.timestamp_ms)
			when = time.UnixMilli(ms)
		}
		if r.key != nil || to.Key != nil {
			to.Key = c.keep(r.key, r.key_len)
		}
		to.Value = c.keep(r.value, r.value_len)
		to.Time = when
		to.Topic, to.Partition, to.Offset = topic, partition, int64(r.offset)
		if r.header_count > 0 || to.Headers != nil {
			if len(c.headers) == 0 {
				c.room(raw[i:])
			}
			to.Headers = c.headersOf(r)
		}
	}
}

// room for all headers: each has two bytes at least.
func (c *copier) room(raw []C.bw_record_view) {
	n := 0
	for i := range raw {
		if most := int(raw[i].headers_len / 2); int(raw[i].header_count) < most {
			n += int(raw[i].header_count)
		} else {
			n += most
		}
	}
	if cap(c.headers) < n {
		c.headers = make([]Header, 0, n)
	}
}

// headersOf: names are strings in the copy, which nobody can write to: no slice of theirs is given to anyone.
func (c *copier) headersOf(r *C.bw_record_view) []Header {
	it := headerBytes{c.keep(r.headers_raw, r.headers_len)}
	first := len(c.headers)
	for i := 0; i < int(r.header_count); i++ {
		name, value, ok := it.next()
		if !ok {
			break
		}
		c.headers = append(c.headers, Header{*(*string)(unsafe.Pointer(&name)), value})
	}
	if len(c.headers) == first {
		return nil
	}
	return c.headers[first:len(c.headers):len(c.headers)]
}
