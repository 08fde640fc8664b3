package busway

/*
#include "shim.h"
*/
import "C"

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"
)

// Acks is what a send waits for.
type Acks int

// Acknowledgements.
const (
	AcksNone    Acks = C.BW_ACKS_NONE    // handed over
	AcksVisible Acks = C.BW_ACKS_VISIBLE // every reader sees it; it survives the death of any process
	AcksDurable Acks = C.BW_ACKS_DURABLE // on the disk; it survives power loss
)

// Codec compresses batches.
type Codec int

// Codecs.
const (
	CodecNone   Codec = C.BW_CODEC_NONE
	CodecGzip   Codec = C.BW_CODEC_GZIP
	CodecSnappy Codec = C.BW_CODEC_SNAPPY
	CodecLZ4    Codec = C.BW_CODEC_LZ4
	CodecZstd   Codec = C.BW_CODEC_ZSTD
)

type producerConfig struct {
	c             C.bw_producer_options
	name, txnID   string
	timeout       time.Duration
}

// A ProducerOption is one of Bus.Producer's, under Kafka's names where the thing is Kafka's.
type ProducerOption func(*producerConfig)

// WithAcks is what a send waits for (acks); default: AcksVisible.
func WithAcks(a Acks) ProducerOption {
	return func(c *producerConfig) { c.c.acks = C.bw_acks(a) }
}

// WithBatchSize bounds a batch of SendAsync and SendMany, in bytes (batch.size); default: 16384.
func WithBatchSize(bytes uint32) ProducerOption {
	return func(c *producerConfig) { c.c.batch_size = C.uint32_t(bytes) }
}

// WithLinger is how long a batch waits for more records (linger.ms); default: 0.
func WithLinger(d time.Duration) ProducerOption {
	return func(c *producerConfig) {
		c.c.linger_ms = 0
		if d > 0 {
			c.c.linger_ms = C.uint32_t(toMillis(d))
		}
	}
}

// WithBufferMemory bounds what is sent and not acknowledged, in bytes (buffer.memory); default: 32 MiB.
func WithBufferMemory(bytes uint64) ProducerOption {
	return func(c *producerConfig) { c.c.buffer_memory = C.uint64_t(bytes) }
}

// WithDeliveryTimeout is how long a record that was sent without waiting is tried (delivery.timeout.ms); default: 2 min.
func WithDeliveryTimeout(d time.Duration) ProducerOption {
	return func(c *producerConfig) { c.c.delivery_timeout_ms = toMillis(d) }
}

// WithCompression compresses batches, if the topic's compression.type leaves it to the producer; default: CodecNone.
func WithCompression(codec Codec) ProducerOption {
	return func(c *producerConfig) { c.c.compression = C.bw_codec(codec) }
}

// WithProducerName makes Producer.LastSequence possible: a stable name.
func WithProducerName(name string) ProducerOption { return func(c *producerConfig) { c.name = name } }

// WithIdempotence: what is sent again after a lost answer is in the log once (enable.idempotence); default: true.
func WithIdempotence(on bool) ProducerOption {
	return func(c *producerConfig) { c.c.enable_idempotence = C.bool(on) }
}

// WithTransactionalID makes transactions possible (transactional.id): the same at each start of the program.
func WithTransactionalID(id string) ProducerOption { return func(c *producerConfig) { c.txnID = id } }

// WithTransactionTimeout is after what time the daemon aborts a transaction (transaction.timeout.ms); default: 60 s.
func WithTransactionTimeout(d time.Duration) ProducerOption {
	return func(c *producerConfig) { c.c.transaction_timeout_ms = toMillis(d) }
}

// WithSendTimeout bounds calls of the producer that wait, when their context does not do so earlier; default: 30 s.
func WithSendTimeout(d time.Duration) ProducerOption { return func(c *producerConfig) { c.timeout = d } }

// Delivery is the outcome of a record (or of a batch: the first's offset).
type Delivery struct {
	Err       error // nil: it is there
	Topic     string
	Partition int32
	Offset    int64 // -1 with AcksNone, and on error
	Time      time.Time
}

// Producer appends records to topics. Any number of goroutines may use it at a time.
//
// Send and SendBatch wait for the outcome. SendAsync and SendMany do not: the outcome reaches a function inside Poll, Flush or Close, in plain
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

	reserved atomic.Int32 // reservations that are out
}

// sending is a SendAsync or SendMany whose outcomes are to be told.
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
	config.c.name, config.c.transactional_id = a.optional(config.name), a.optional(config.txnID)
	if a.fail != nil {
		return nil, a.fail
	}
	p := &producer{gate: gate{out: make(chan struct{})}, bus: b.bus, timeout: config.timeout, acks: Acks(config.c.acks),
		topics: map[string]*cachedTopic{}, calls: map[uint64]*sending{}}
	copied := (*C.bw_producer_options)(a.room(1, unsafe.Sizeof(config.c)))
	*copied = config.c
	if err := resultError("producer", C.bwgo_producer_open(b.c, copied, &p.c)); err != nil {
		return nil, err
	}
	b.adopt(p)
	outer := &Producer{p}
	runtime.SetFinalizer(outer, func(p *Producer) { go p.producer.shutdown() })
	return outer, nil
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
	runtime.SetFinalizer(p, nil)
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
	if ctx.Done() == nil {
		d := p.sendNow(op, topic, partition, k, toMillis(p.timeout))
		return d, d.Err
	}
	if ctx.Err() != nil {
		k.free()
		p.gate.leave()
		return failed(topic, ctx.Err())
	}
	ms := millis(ctx, p.timeout)
	inner := p.producer
	d, err := bounded(ctx, op, func() Delivery { return inner.sendNow(op, topic, partition, k, ms) }, nil)
	if err == nil {
		err = d.Err
		if d.Err != nil && ctx.Err() != nil {
			err = unknownOutcome(ctx, op)
		}
	}
	if err != nil {
		return failed(topic, err)
	}
	return d, nil
}

// sendNow leaves the gate and frees the packer.
func (p *producer) sendNow(op, topic string, partition int32, k *packer, ms C.int32_t) Delivery {
	defer p.gate.leave()
	t, own, err := p.topic(op, topic)
	if err != nil {
		k.free()
		d, _ := failed(topic, err)
		return d
	}
	r := C.bwgo_send_batch(p.c, t.c, C.int32_t(partition), &k.records[0], C.int32_t(len(k.records)), &k.headers[0],
		(*C.uint8_t)(unsafe.Pointer(&k.bytes[0])), ms)
	t.free(own)
	k.free()
	if r.code != 0 {
		d, _ := failed(topic, resultError(op, r))
		return d
	}
	return Delivery{Topic: topic, Partition: int32(r.n), Offset: int64(r.a), Time: time.UnixMilli(int64(r.b))}
}

// ---- without waiting ----

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

// SendMany takes all records in one crossing to C, and returns; the library makes batches of them. fn (may be nil) gets the outcome of each, with
// its number, inside a later Poll, Flush or Close. It returns how many were taken, from the first on: less than all with an error.
func (p *Producer) SendMany(ctx context.Context, topic string, partition int32, records []Record, fn func(index int, d Delivery)) (int, error) {
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
	out := outcome{index: int(d.index), d: Delivery{Partition: int32(d.partition), Offset: int64(d.offset), Time: time.UnixMilli(int64(d.timestamp_ms))}}
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
		err = resultError(op, r)
	}
	return r, err
}

// ---- in place ----

// Reservation is a record whose value is written in place: in the log itself, where the path is direct. Other writers of the partition
// wait meanwhile, so commit or abort it soon, in the goroutine that reserved it, which is bound to its thread until then.
type Reservation struct {
	Value []byte // room for the value
	p     *Producer
	raw   *C.bw_reservation
	tid   uintptr
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
		return nil, err
	}
	p.reserved.Add(1)
	p.gate.leave()
	return &Reservation{unsafe.Slice((*byte)(raw.value), max), p, raw, threadID()}, nil
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
		return failed("", failure("commit", ErrInvalidArgument, "more bytes than were reserved"))
	}
	defer r.done()
	result := C.bwgo_commit(r.p.c, r.raw, C.size_t(n), toMillis(r.p.timeout))
	if err := resultError("commit", result); err != nil {
		return failed("", err)
	}
	return Delivery{Partition: int32(result.n), Offset: int64(result.a), Time: time.UnixMilli(int64(result.b))}, nil
}

// Abort: nothing was written. After Commit or Abort it does nothing, so that it can be deferred.
func (r *Reservation) Abort() {
	if r.end("abort") != nil {
		return
	}
	defer r.done()
	C.bw_producer_abort(C.bwgo_producer_handle(r.p.c), r.raw)
}
