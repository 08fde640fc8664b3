package busway

/*
#include "shim.h"
*/
import "C"

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"
)

// Delivery is the outcome of a record (or of a batch: the first's offset).
type Delivery struct {
	Err       error // nil: it is there
	Topic     string
	Partition int32
	Offset    int64     // -1 with AcksNone, and on error
	Time      time.Time // as stored
	Count     int       // how many: of a batch
}

// Producer appends records to topics. Any number of goroutines may use it at a time.
//
// Send, SendBatch and SendMany wait for the outcome. SendAsync and SendManyAsync do not: the outcome reaches a function inside Poll, Flush or Close, in plain
// Go and in the goroutine that called. Without a function the first error comes out of Flush and Close.
type Producer struct{ *producer }

type producer struct {
	gate    gate
	bus     *bus
	c       *C.bwgo_producer
	timeout time.Duration
	acks    Acks

	last   atomic.Pointer[cachedTopic]
	mu     sync.Mutex // topics, calls, next
	topics map[string]*cachedTopic
	calls  map[uint64]*sending
	next   uint64

	told    sync.Mutex // ready, firstErr
	ready   []outcome
	lost    error // the first of those that nobody is told
	closing sync.Mutex
	txn     chan struct{} // the turn of calls of transactions

	reserved atomic.Int32 // reservations that are out
}

// sending is a SendAsync or SendManyAsync whose outcomes are to be told.
type sending struct {
	fn    func(index int, d Delivery)
	topic string
	left  int
}

type outcome struct {
	fn    func(int, Delivery)
	index int
	d     Delivery
}

type cachedTopic struct {
	name string
	c    *C.char
}

const topicsKept = 4096

// Producer opens a producer.
func (b *Bus) Producer(options ...ProducerOption) (*Producer, error) {
	if err := b.enter("producer"); err != nil {
		return nil, err
	}
	defer b.gate.leave()
	config := producerConfig{timeout: 30 * time.Second}
	config.c = C.bw_producer_options{size: C.sizeof_bw_producer_options, acks: C.BW_ACKS_VISIBLE, batch_size: 16384,
		buffer_memory: 32 << 20, delivery_timeout_ms: 120000, enable_idempotence: true, transaction_timeout_ms: 60000}
	for _, o := range options {
		if o != nil {
			o(&config)
		}
	}
	a := arena{op: "producer"}
	defer a.free()
	config.c.name, config.c.transactional_id = a.given(config.name), a.given(config.txnID)
	if a.fail != nil {
		return nil, a.fail
	}
	p := &producer{gate: newGate(), bus: b.bus, timeout: config.timeout, acks: Acks(config.c.acks),
		topics: map[string]*cachedTopic{}, calls: map[uint64]*sending{}, txn: make(chan struct{}, 1)}
	copied := (*C.bw_producer_options)(a.room(1, unsafe.Sizeof(config.c)))
	*copied = config.c
	if err := resultError("producer", C.bwgo_producer_open(b.c, copied, &p.c)); err != nil {
		return nil, err
	}
	b.adopt(p)
	return &Producer{p}, nil
}

func (p *Producer) enter(op string) error {
	if p == nil || p.producer == nil {
		return errNil(op, "producer", "Bus.Producer")
	}
	if !p.gate.enter() {
		return errClosed(op, "producer")
	}
	return nil
}

// Close sends what is buffered, tells the outcomes, and closes. What could not be delivered within WithSendTimeout gets ErrTimedOut, and so does
// the caller. A second Close does nothing; ErrBusy: a
// reservation is out.
func (p *Producer) Close() error {
	if p == nil || p.producer == nil {
		return errNil("close", "producer", "Bus.Producer")
	}
	return p.producer.shutdown()
}

func (p *producer) shutdown() error {
	p.closing.Lock()
	defer p.closing.Unlock()
	if p.gate.isShut() {
		return nil
	}
	if p.reserved.Load() > 0 {
		return failure("close", ErrBusy, "a reservation is out: commit or abort it first")
	}
	p.gate.shut()
	<-p.gate.out
	for p.reserved.Load() > 0 { // made in the meantime
		time.Sleep(time.Millisecond)
	}
	err := resultError("close", C.bwgo_producer_close(p.c, toMillis(p.timeout)))
	p.collect()
	p.bus.forget(p)
	C.bwgo_producer_free(p.c)
	p.mu.Lock()
	for _, t := range p.topics {
		C.free(unsafe.Pointer(t.c))
	}
	p.topics = nil
	p.mu.Unlock()
	p.tell()
	if lost := p.takeLost(); err == nil {
		err = lost
	}
	return err
}

// topic is its name for C, good until the producer is closed. The caller is inside the gate.
func (p *producer) topic(op, name string) (t *cachedTopic, own bool, err error) {
	if t = p.last.Load(); t != nil && t.name == name {
		return t, false, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if t = p.topics[name]; t != nil {
		p.last.Store(t)
		return t, false, nil
	}
	c, err := cstring(op, name)
	if err != nil {
		return nil, false, err
	}
	t = &cachedTopic{name, c}
	if len(p.topics) >= topicsKept {
		return t, true, nil
	}
	p.topics[name] = t
	p.last.Store(t)
	return t, false, nil
}

func (t *cachedTopic) free(own bool) {
	if own {
		C.free(unsafe.Pointer(t.c))
	}
}

// Send appends one record and waits for its outcome. When ctx ends first, it returns at once, and the record may be there or not: an error that
// is both ErrTimedOut and the context's.
func (p *Producer) Send(ctx context.Context, topic string, partition int32, r Record) (Delivery, error) {
	k := newPacker()
	if err := k.one("send", &r); err != nil {
		k.free()
		return failed(topic, err)
	}
	return p.send(ctx, "send", topic, partition, k)
}

// SendBatch appends the records as one batch, whole or not at all, to one partition, and waits for the outcome: the first's offset. It is one
// crossing to C, whatever their number. Several need a partition.
func (p *Producer) SendBatch(ctx context.Context, topic string, partition int32, records []Record) (Delivery, error) {
	if len(records) == 0 {
		return failed(topic, failure("send batch", ErrInvalidArgument, "a batch has at least one record"))
	}
	k := newPacker()
	if err := k.pack("send batch", records); err != nil {
		k.free()
		return failed(topic, err)
	}
	return p.send(ctx, "send batch", topic, partition, k)
}

func failed(topic string, err error) (Delivery, error) {
	return Delivery{Err: err, Topic: topic, Partition: -1, Offset: -1}, err
}

func (p *Producer) send(ctx context.Context, op, topic string, partition int32, k *packer) (Delivery, error) {
	if err := p.enter(op); err != nil {
		k.free()
		return failed(topic, err)
	}
	if err := ctx.Err(); err != nil {
		k.free()
		p.gate.leave()
		return failed(topic, err)
	}
	if ctx.Done() == nil {
		d := p.sendHeld(op, topic, partition, k, toMillis(p.timeout))
		p.gate.leave()
		k.free()
		return d, d.Err
	}
	if d := p.sendHeld(op, topic, partition, k, C.BWGO_NOW); d.Err != errBusyNow { // it waits for nothing: no goroutine
		p.gate.leave()
		k.free()
		return d, d.Err
	}
	ms := millis(ctx, p.timeout)
	inner := p.producer
	d, err := bounded(ctx, op, func() Delivery {
		defer inner.gate.leave()
		defer k.free()
		return inner.sendHeld(op, topic, partition, k, ms)
	}, nil)
	if err == nil {
		err = byContext(ctx, d.Err)
	}
	if err != nil {
		return failed(topic, err)
	}
	return d, nil
}

// errBusyNow: it would have to wait, and nothing was done.
var errBusyNow error = ErrBusy

// sendHeld is one crossing; the caller is inside the gate.
func (p *producer) sendHeld(op, topic string, partition int32, k *packer, ms C.int32_t) Delivery {
	t, own, err := p.topic(op, topic)
	if err != nil {
		d, _ := failed(topic, err)
		return d
	}
	r := C.bwgo_send_batch(p.c, t.c, C.int32_t(partition), &k.records[0], C.int32_t(len(k.records)), &k.headers[0],
		(*C.uint8_t)(unsafe.Pointer(&k.bytes[0])), ms)
	t.free(own)
	switch {
	case r.code == 0:
		return Delivery{Topic: topic, Partition: int32(r.n), Offset: int64(r.a), Time: time.UnixMilli(int64(r.b)), Count: len(k.records)}
	case ms == C.BWGO_NOW && r.code == C.BW_ERR_BUSY:
		return Delivery{Err: errBusyNow}
	}
	d, _ := failed(topic, resultError(op, r))
	return d
}

// Placed is what became of one record of SendMany.
type Placed struct {
	Offset    int64 // -1 with AcksNone, or when it was not appended
	Partition int32 // -1 when it was not appended
	Code      Code  // 0: it is there
}

// SendMany appends any number of records of one topic, each to the partition given or, with AnyPartition, to the one of its key, in as few batches as
// WithBatchSize allows, in this order within each partition, and waits for the outcome. It is one crossing to C. The first error ends it: what was
// appended before stays, and the result says which.
func (p *Producer) SendMany(ctx context.Context, topic string, partition int32, records []Record) ([]Placed, error) {
	const op = "send many"
	if len(records) == 0 {
		return nil, p.check(op)
	}
	k := newPacker()
	if err := k.pack(op, records); err != nil {
		k.free()
		return nil, err
	}
	if err := p.enter(op); err != nil {
		k.free()
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		k.free()
		p.gate.leave()
		return nil, err
	}
	placed := make([]Placed, len(records))
	inner, ms := p.producer, millis(ctx, p.timeout)
	err, waited := bounded(ctx, op, func() error {
		defer inner.gate.leave()
		defer k.free()
		t, own, err := inner.topic(op, topic)
		if err != nil {
			return err
		}
		defer t.free(own)
		return resultError(op, C.bwgo_send_all(inner.c, t.c, C.int32_t(partition), &k.records[0], C.int32_t(len(k.records)), &k.headers[0],
			(*C.uint8_t)(unsafe.Pointer(&k.bytes[0])), ms, (*C.bw_placed)(unsafe.Pointer(&placed[0]))))
	}, nil)
	if waited != nil {
		return nil, waited
	}
	return placed, byContext(ctx, err)
}

// Fd is a descriptor for event loops that polls readable when TryPoll may have outcomes to tell; the producer owns it.
func (p *Producer) Fd() (uintptr, error) {
	if err := p.enter("fd"); err != nil {
		return 0, err
	}
	defer p.gate.leave()
	r := C.bwgo_producer_fd(p.c)
	return uintptr(r.n), resultError("fd", r)
}

// LastSequence: of a producer with a name: the last record in the partition's log that was sent under this name, by this or an earlier run: its
// sequence number (-1: there is none) and its offset.
func (p *Producer) LastSequence(ctx context.Context, topic string, partition int32) (sequence int32, offset int64, err error) {
	r, err := p.call(ctx, "last sequence", func() C.bwgo_result {
		t, own, err := p.topic("last sequence", topic)
		if err != nil {
			return C.bwgo_result{code: C.BW_ERR_INVALID_ARGUMENT}
		}
		defer t.free(own)
		return C.bwgo_last_sequence(p.c, t.c, C.int32_t(partition))
	})
	return int32(r.n), int64(r.a), err
}

// call is a bounded call of C, within the gate until it ends.
func (p *Producer) call(ctx context.Context, op string, f func() C.bwgo_result) (C.bwgo_result, error) {
	if err := p.enter(op); err != nil {
		return C.bwgo_result{n: -1, a: -1}, err
	}
	if ctx.Err() != nil {
		p.gate.leave()
		return C.bwgo_result{n: -1, a: -1}, ctx.Err()
	}
	inner := p.producer
	r, err := bounded(ctx, op, func() C.bwgo_result {
		defer inner.gate.leave()
		return f()
	}, func(r C.bwgo_result) { takeString(r.message) })
	if err == nil {
		err = byContext(ctx, resultError(op, r))
	}
	return r, err
}
