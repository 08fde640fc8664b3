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
	copyRecords(out[:], unsafe.Slice(v.raw, 1), v.batch.topic, v.batch.partition)
	return out[0]
}

// Records is a copy of all records, which may be kept for ever: two allocations, however many they are, and one more when there are headers.
func (b *Batch) Records() []Record { return b.AppendRecords(nil) }

// AppendRecords appends a copy of all records to dst; their bytes are one new piece of memory, which is kept as long as one of them is.
func (b *Batch) AppendRecords(dst []Record) []Record {
	if len(b.raw) == 0 {
		return dst
	}
	first := b.At(0)
	first.check()
	at := len(dst)
	if cap(dst)-at < len(b.raw) {
		grown := make([]Record, at, at+len(b.raw))
		copy(grown, dst)
		dst = grown
	}
	dst = dst[:at+len(b.raw)]
	copyRecords(dst[at:], b.raw, b.Topic, b.Partition)
	return dst
}

// copier is the copy of some records' bytes.
type copier struct {
	bytes   []byte
	from    uintptr  // where they lie in the log
	headers []Header // room for those to come
}

// newCopier copies what lies between the first and the last byte of these records.
func newCopier(raw []C.bw_record_view) copier {
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
	c := copier{bytes: []byte{}, from: uintptr(first)}
	if size := uintptr(end) - uintptr(first); first != nil && size > 0 {
		c.bytes = append([]byte(nil), unsafe.Slice((*byte)(first), int(size))...)
	}
	return c
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

// copyRecords fills out, which is as long as raw.
func copyRecords(out []Record, raw []C.bw_record_view, topic string, partition int32) {
	c := newCopier(raw)
	ms := int64(raw[0].timestamp_ms)
	when := time.UnixMilli(ms)
	for i := range out {
		r := &raw[i]
		if int64(r.timestamp_ms) != ms {
			ms = int64(r.timestamp_ms)
			when = time.UnixMilli(ms)
		}
		out[i] = Record{Key: c.keep(r.key, r.key_len), Value: c.keep(r.value, r.value_len), Time: when, Topic: topic, Partition: partition,
			Offset: int64(r.offset)}
		if r.header_count > 0 {
			if c.headers == nil {
				c.headers = make([]Header, 0, countHeaders(raw[i:]))
			}
			out[i].Headers = c.headersOf(r)
		}
	}
}

// countHeaders is how many there are at most: each has two bytes at least.
func countHeaders(raw []C.bw_record_view) int {
	n := 0
	for i := range raw {
		if most := int(raw[i].headers_len / 2); int(raw[i].header_count) < most {
			n += int(raw[i].header_count)
		} else {
			n += most
		}
	}
	return n
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
