package busway

/*
#include "shim.h"
*/
import "C"

import (
	"context"
	"runtime"
	"time"
	"unsafe"
)

// Reservation is a record whose value is written in place: in the log itself, where the path is direct. Other writers of the partition
// wait meanwhile, so commit or abort it soon, in the goroutine that reserved it, which is bound to its thread until then.
type Reservation struct {
	Value []byte // room for the value
	p     *Producer
	raw   *C.bw_reservation
	tid   int32
	topic string
}

// Reserve makes room for a value of up to max bytes. Key, headers and time are meta's.
func (p *Producer) Reserve(ctx context.Context, topic string, partition int32, meta Record, max int) (*Reservation, error) {
	if max < 0 {
		return nil, failure("reserve", ErrInvalidArgument, "a negative size")
	}
	if err := p.enter("reserve"); err != nil {
		return nil, err
	}
	t, own, err := p.topic("reserve", topic)
	if err != nil {
		p.gate.leave()
		return nil, err
	}
	defer t.free(own)
	k := newPacker()
	defer k.free()
	meta.Value = nil
	if err := k.one("reserve", &meta); err != nil {
		p.gate.leave()
		return nil, err
	}
	runtime.LockOSThread()
	raw := (*C.bw_reservation)(C.calloc(1, C.sizeof_bw_reservation))
	until := time.Now().Add(p.timeout)
	for {
		err = ctx.Err()
		if err == nil {
			r := C.bwgo_reserve(p.c, t.c, C.int32_t(partition), &k.records[0], &k.headers[0], (*C.uint8_t)(unsafe.Pointer(&k.bytes[0])),
				C.size_t(max), millis(ctx, slice), raw)
			err = resultError("reserve", r)
			again := Code(r.code) == ErrLockHeld || Code(r.code) == ErrTimedOut
			if again && time.Now().Before(until) && !p.gate.isShut() {
				continue
			}
		}
		break
	}
	if err != nil {
		C.free(unsafe.Pointer(raw))
		runtime.UnlockOSThread()
		p.gate.leave()
		return nil, byContext(ctx, err)
	}
	p.reserved.Add(1)
	p.gate.leave()
	return &Reservation{unsafe.Slice((*byte)(raw.value), max), p, raw, threadID(), topic}, nil
}

func (r *Reservation) end(op string) error {
	switch {
	case r == nil || r.p == nil:
		return errNil(op, "reservation", "Producer.Reserve")
	case r.raw == nil:
		return failure(op, ErrInvalidArgument, "the reservation was committed or aborted before")
	case r.tid != threadID():
		return failure(op, ErrInvalidArgument, "a reservation is committed or aborted by the goroutine that made it")
	}
	return nil
}

func (r *Reservation) done() {
	C.free(unsafe.Pointer(r.raw))
	r.raw, r.Value = nil, nil
	runtime.UnlockOSThread()
	r.p.reserved.Add(-1)
}

// Commit makes the first n bytes of Value the record's value.
func (r *Reservation) Commit(n int) (Delivery, error) {
	if err := r.end("commit"); err != nil {
		return failed("", err)
	}
	if n < 0 || n > len(r.Value) {
		return failed(r.topic, failure("commit", ErrInvalidArgument, "more bytes than were reserved"))
	}
	defer r.done()
	result := C.bwgo_reservation_commit(r.p.c, r.raw, C.size_t(n), toMillis(r.p.timeout))
	if err := resultError("commit", result); err != nil {
		return failed(r.topic, err)
	}
	return Delivery{Topic: r.topic, Count: 1, Partition: int32(result.n), Offset: int64(result.a), Time: time.UnixMilli(int64(result.b))}, nil
}

// Abort: nothing was written. After Commit or Abort it does nothing, so that it can be deferred.
func (r *Reservation) Abort() {
	if r.end("abort") != nil {
		return
	}
	defer r.done()
	C.bw_producer_abort(C.bwgo_producer_handle(r.p.c), r.raw)
}
