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

// SendAsync takes one record, and returns; fn (may be nil) gets the outcome inside a later Poll, Flush or Close. It waits for room in the
// producer's memory as long as ctx allows, and no longer than WithSendTimeout: ErrQueueFull.
func (p *Producer) SendAsync(ctx context.Context, topic string, partition int32, r Record, fn func(Delivery)) error {
	var each func(int, Delivery)
	if fn != nil {
		each = func(_ int, d Delivery) { fn(d) }
	}
	k := newPacker()
	defer k.free()
	if err := k.one("send", &r); err != nil {
		return err
	}
	_, err := p.sendMany(ctx, topic, partition, k, each)
	return err
}

// SendManyAsync takes all records in one crossing to C, and returns; the library makes batches of them. fn (may be nil) gets the outcome of each, with
// its number, inside a later Poll, Flush or Close. It returns how many were taken, from the first on: less than all with an error.
func (p *Producer) SendManyAsync(ctx context.Context, topic string, partition int32, records []Record, fn func(index int, d Delivery)) (int, error) {
	if len(records) == 0 {
		return 0, p.check("send")
	}
	k := newPacker()
	defer k.free()
	if err := k.pack("send", records); err != nil {
		return 0, err
	}
	return p.sendMany(ctx, topic, partition, k, fn)
}

func (p *Producer) check(op string) error {
	err := p.enter(op)
	if err == nil {
		p.gate.leave()
	}
	return err
}

func (p *Producer) sendMany(ctx context.Context, topic string, partition int32, k *packer, fn func(int, Delivery)) (int, error) {
	if err := p.enter("send"); err != nil {
		return 0, err
	}
	defer p.gate.leave()
	t, own, err := p.topic("send", topic)
	if err != nil {
		return 0, err
	}
	defer t.free(own)
	all := len(k.records)
	p.mu.Lock()
	p.next++
	number := p.next
	p.calls[number] = &sending{fn, topic, all}
	p.mu.Unlock()
	quiet := C.int(0)
	if fn == nil {
		quiet = 1
	}
	sent, err := p.push(ctx, t, partition, k, number, quiet)
	if fn == nil { // successes are not told, failures name no call
		p.mu.Lock()
		delete(p.calls, number)
		p.mu.Unlock()
	} else if sent < all {
		p.settle(number, all-sent)
	}
	return sent, err
}

// push hands the records over, as many at a time as there is room for.
func (p *producer) push(ctx context.Context, t *cachedTopic, partition int32, k *packer, number uint64, quiet C.int) (int, error) {
	var until time.Time
	sent, header, at := 0, 0, 0
	for {
		wait := C.int32_t(0)
		if !until.IsZero() {
			wait = toMillis(slice)
		}
		r := C.bwgo_send_many(p.c, t.c, C.int32_t(partition), &k.records[sent], C.int32_t(len(k.records)-sent), &k.headers[header],
			(*C.uint8_t)(unsafe.Pointer(&k.bytes[at])), wait, C.uint64_t(number), C.int32_t(sent), quiet)
		for i := sent; i < sent+int(r.n); i++ {
			header, at = k.after(i, header, at)
		}
		sent += int(r.n)
		if r.code == 0 || Code(r.code) != ErrQueueFull {
			return sent, resultError("send", r)
		}
		if until.IsZero() {
			until = time.Now().Add(p.timeout)
		}
		C.bwgo_producer_poll(p.c, 0) // outcomes that wait hold memory, too
		err := ctx.Err()
		if err == nil && time.Now().Before(until) {
			C.free(unsafe.Pointer(r.message))
			continue
		}
		full := resultError("send", r)
		if err != nil {
			full.(*Error).cause = err
		}
		return sent, full
	}
}

// after: where the bytes and headers behind record i are; never behind the end of the arrays, which are not empty.
func (k *packer) after(i, header, at int) (int, int) {
	r := &k.records[i]
	n := func(l C.int32_t) int {
		if l < 0 {
			return 0
		}
		return int(l)
	}
	at += n(r.key_len) + n(r.value_len)
	for j := 0; j < int(r.header_count); j++ {
		at += n(k.headers[header].name_len) + n(k.headers[header].value_len)
		header++
	}
	if header >= len(k.headers) {
		header = len(k.headers) - 1
	}
	if at >= len(k.bytes) {
		at = len(k.bytes) - 1
	}
	return header, at
}

// settle: so many outcomes of a call fewer to come.
func (p *producer) settle(number uint64, n int) {
	p.mu.Lock()
	if s := p.calls[number]; s != nil {
		if s.left -= n; s.left <= 0 {
			delete(p.calls, number)
		}
	}
	p.mu.Unlock()
}

// Poll tells outcomes of what was sent without waiting; it waits for the first as long as ctx allows. Returns how many were told.
func (p *Producer) Poll(ctx context.Context) (int, error) {
	if err := p.enter("poll"); err != nil {
		return 0, err
	}
	defer p.gate.leave()
	for {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		C.bwgo_producer_poll(p.c, sliceMillis(ctx))
		p.collect()
		if n := p.tell(); n > 0 {
			return n, nil
		}
		if p.gate.isShut() {
			return 0, errClosed("poll", "producer")
		}
	}
}

// TryPoll tells the outcomes that are there, without waiting. Returns how many.
func (p *Producer) TryPoll() (int, error) {
	if err := p.enter("poll"); err != nil {
		return 0, err
	}
	defer p.gate.leave()
	C.bwgo_producer_poll(p.c, 0)
	p.collect()
	return p.tell(), nil
}

// Flush sends what is buffered and tells outcomes until nothing is under way. Returns the first error of a record for which there is no function.
func (p *Producer) Flush(ctx context.Context) error {
	if err := p.enter("flush"); err != nil {
		return err
	}
	defer p.gate.leave()
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		r := C.bwgo_producer_flush(p.c, sliceMillis(ctx))
		p.collect()
		p.tell()
		if r.code == 0 {
			return p.takeLost()
		}
		err := resultError("flush", r)
		if Code(r.code) != ErrTimedOut {
			return err
		}
		if p.gate.isShut() {
			return errClosed("flush", "producer")
		}
	}
}

// collect brings the outcomes over from C.
func (p *producer) collect() {
	p.told.Lock()
	defer p.told.Unlock()
	var buffer [256]C.bwgo_done
	for {
		n := int(C.bwgo_producer_take(p.c, &buffer[0], C.int32_t(len(buffer))))
		if n == 0 {
			return
		}
		p.mu.Lock()
		for i := range buffer[:n] {
			p.note(&buffer[i])
		}
		p.mu.Unlock()
	}
}

// note: under told and mu.
func (p *producer) note(d *C.bwgo_done) {
	number := uint64(d.call)
	out := outcome{index: int(d.index), d: Delivery{Partition: int32(d.partition), Offset: int64(d.offset), Time: time.UnixMilli(int64(d.timestamp_ms)), Count: 1}}
	if d.code != 0 {
		out.d.Err = failure("send", Code(d.code), takeString(d.message))
	}
	s := p.calls[number]
	if s == nil || s.fn == nil {
		if p.lost == nil {
			p.lost = out.d.Err
		}
		return
	}
	if s.left--; s.left == 0 {
		delete(p.calls, number)
	}
	out.fn, out.d.Topic = s.fn, s.topic
	p.ready = append(p.ready, out)
}

// tell calls the functions, outside of all locks. What a panic leaves is told by the next.
func (p *producer) tell() (told int) {
	p.told.Lock()
	now := p.ready
	p.ready = nil
	p.told.Unlock()
	if len(now) == 0 {
		return 0
	}
	defer func() {
		if told < len(now) {
			p.told.Lock()
			p.ready = append(now[told:len(now):len(now)], p.ready...)
			p.told.Unlock()
		}
	}()
	for told < len(now) {
		o := &now[told]
		told++
		o.fn(o.index, o.d)
	}
	return told
}

func (p *producer) takeLost() error {
	p.told.Lock()
	defer p.told.Unlock()
	err := p.lost
	p.lost = nil
	return err
}
