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

type queueConfig struct {
	c       C.bw_queue_options
	dead    string
	timeout time.Duration
}

// A QueueOption is one of Bus.Queue's. But for the last ones they count for the whole group, from then on; what is not given stays as it is.
type QueueOption func(*queueConfig)

// WithLease is how long a worker may hold a record, 100 ms to a day; of a new group: 30 s.
func WithLease(d time.Duration) QueueOption {
	return func(c *queueConfig) { c.c.lease_ms = toMillis(d) }
}

// WithMaxDeliveries is after how many a record goes to the dead letters; of a new group: 5.
func WithMaxDeliveries(n int32) QueueOption {
	return func(c *queueConfig) { c.c.max_deliveries = C.int32_t(n) }
}

// WithMaxInFlight is how many records of a partition are out at a time; of a new group: 2000.
func WithMaxInFlight(n int32) QueueOption {
	return func(c *queueConfig) { c.c.max_in_flight = C.int32_t(n) }
}

// WithDeadLetters is the topic for what can't be processed; of a new group: <topic>.dlq.
func WithDeadLetters(topic string) QueueOption { return func(c *queueConfig) { c.dead = topic } }

// WithArchive: no dead-letter topic; such records are just not delivered again.
func WithArchive() QueueOption { return func(c *queueConfig) { c.c.archive = true } }

// WithQueueIsolation is what of transactions is handed out; of a new group: ReadUncommitted.
func WithQueueIsolation(i Isolation) QueueOption {
	return func(c *queueConfig) { c.c.isolation = C.bw_queue_isolation(i + 1) }
}

// WithQueueStart is where a partition begins that the group has not seen yet; of a new group: ResetEarliest.
func WithQueueStart(r OffsetReset) QueueOption {
	return func(c *queueConfig) { c.c.start = C.bw_offset_reset(r) }
}

// WithMaxRecords is how many this worker fetches at a time; default: 500. 1: nothing is held back from others.
func WithMaxRecords(n int32) QueueOption {
	return func(c *queueConfig) { c.c.max_records = C.int32_t(n) }
}

// WithAckRecords is how many acknowledgements of this worker are one request at most; default: 500.
func WithAckRecords(n int32) QueueOption {
	return func(c *queueConfig) { c.c.ack_records = C.int32_t(n) }
}

// WithQueueWait bounds Flush, when its context does not do so earlier; default: 30 s.
func WithQueueWait(d time.Duration) QueueOption { return func(c *queueConfig) { c.timeout = d } }

// Queue is a worker of a queue group: it gets records of the group's topics under a lease, and says of each what became of it. What was acknowledged
// and flushed is never delivered again; whatever else happens, a record is delivered at least once.
//
// Calls from several goroutines take turns, as a Consumer's.
type Queue struct{ *queue }

type queue struct {
	gate    gate
	bus     *bus
	c       *C.bw_queue
	turn    turn
	timeout time.Duration
	woken   atomic.Bool
	closing sync.Mutex

	// Whose turn it is uses these.
	info map[queuePlace]*batchInfo
	life uint64
	room *C.bw_message
	size int
}

type queuePlace struct {
	topic     *C.char
	partition int32
}

// Queue joins the group, which is made when it is not there. ErrUnknownTopic, ErrInvalidGroupID, ErrInvalidArgument, ErrInconsistentGroupProtocol
// (another kind of group has the name), ErrGroupMaxSizeReached, ErrNotPermitted.
func (b *Bus) Queue(ctx context.Context, group string, topics []string, options ...QueueOption) (*Queue, error) {
	const op = "queue"
	if err := b.enter(op); err != nil {
		return nil, err
	}
	config := queueConfig{timeout: 30 * time.Second}
	config.c = C.bw_queue_options{size: C.sizeof_bw_queue_options, max_records: 500, ack_records: 500}
	for _, o := range options {
		if o != nil {
			o(&config)
		}
	}
	if err := ctx.Err(); err != nil {
		b.gate.leave()
		return nil, err
	}
	type opened struct {
		q   *queue
		err error
	}
	inner := b.bus
	o, err := bounded(ctx, op, func() opened {
		defer inner.gate.leave()
		q, err := inner.queue(op, group, topics, &config)
		return opened{q, err}
	}, func(o opened) {
		if o.q != nil {
			_ = o.q.shutdown()
		}
	})
	if err == nil {
		err = o.err
	}
	if err != nil {
		return nil, err
	}
	return &Queue{o.q}, nil
}

func (b *bus) queue(op, group string, topics []string, config *queueConfig) (*queue, error) {
	a := arena{op: op}
	defer a.free()
	copied := (*C.bw_queue_options)(a.room(1, unsafe.Sizeof(config.c)))
	*copied = config.c
	copied.group, copied.topics, copied.topic_count = a.string(group), a.strings(topics), C.size_t(len(topics))
	copied.dead_letter_topic = a.optional(config.dead)
	if a.fail != nil {
		return nil, a.fail
	}
	q := &queue{gate: newGate(), bus: b, turn: newTurn(), timeout: config.timeout, info: map[queuePlace]*batchInfo{}}
	if err := resultError(op, C.bwgo_queue_open(b.c, copied, &q.c)); err != nil {
		return nil, err
	}
	b.adopt(q)
	return q, nil
}

func (q *Queue) check(op string) error {
	if q == nil || q.queue == nil {
		return errNil(op, "queue", "Bus.Queue")
	}
	return nil
}

func (q *queue) wake() {
	if q.gate.enter() {
		C.bw_queue_wake(q.c)
		q.gate.leave()
	}
}

func (q *queue) begin(ctx context.Context, op string) error { return q.enter(ctx, op, q.wake) }

// enter: wake nil: a call that waits for records, and does not end another one.
func (q *queue) enter(ctx context.Context, op string, wake func()) error {
	if wake == nil {
		q.turn.yield()
	}
	_, err := q.turn.take(ctx, wake)
	if err == nil && q.gate.isShut() {
		q.turn.release()
		return errClosed(op, "queue")
	}
	return err
}

// Close sends what was acknowledged, waits for its answer (WithRequestTimeout at most), and gives back what is held. It ends a Poll that waits in another
// goroutine. The error is the first of an acknowledgement. A second Close does nothing.
func (q *Queue) Close() error {
	if err := q.check("close"); err != nil {
		return err
	}
	return q.queue.shutdown()
}

func (q *queue) shutdown() error {
	q.closing.Lock()
	defer q.closing.Unlock()
	if err := q.begin(context.Background(), "close"); err != nil {
		return nil
	}
	defer q.turn.release()
	q.dead()
	q.gate.shut()
	<-q.gate.out
	err := resultError("close", C.bwgo_queue_close(q.c))
	C.free(unsafe.Pointer(q.room))
	q.room, q.size = nil, 0
	q.bus.forget(q)
	return err
}

// dead: the views that are out are no longer good.
func (q *queue) dead() {
	q.life++
	for _, i := range q.info {
		i.life.Store(q.life)
	}
}

// Message is a record under lease. Its View is good until the next Poll or Close; the message itself can be acknowledged as long as the queue is open.
type Message struct {
	View
	Deliveries int32 // this one included: 1 the first time

	q         *queue
	topic     *C.char
	partition int32
	offset    int64
}

// Poll waits for records, and gives at most max of them (0: WithMaxRecords). Their memory is good until the next Poll or Close. ErrWoken: Wake was called.
// ErrNotConnected, ErrNoCoordinator: poll again; everything held was released.
func (q *Queue) Poll(ctx context.Context, max int) ([]Message, error) {
	if err := q.check("poll"); err != nil {
		return nil, err
	}
	if max <= 0 || max > 1<<20 {
		max = 500
	}
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := q.enter(ctx, "poll", nil); err != nil {
			return nil, err
		}
		m, again, err := q.pollHeld(ctx, max)
		q.turn.release()
		if !again {
			return m, err
		}
	}
}

func (q *queue) pollHeld(ctx context.Context, max int) ([]Message, bool, error) {
	if q.size < max {
		room := C.calloc(C.size_t(max), C.sizeof_bw_message)
		q.dead()
		C.free(unsafe.Pointer(q.room))
		q.room, q.size = (*C.bw_message)(room), max
	}
	q.dead()
	stop := func() {}
	if ctx.Done() != nil {
		stop = afterDone(ctx, q.wake)
	}
	r := C.bwgo_queue_poll(q.c, -1, q.room, C.size_t(max))
	stop()
	switch {
	case r.code == 0:
		return q.messages(int(r.n)), false, nil
	case Code(r.code) == ErrWoken:
		if ctx.Err() != nil {
			return nil, false, ctx.Err()
		}
		if q.woken.Swap(false) {
			return nil, false, failure("poll", ErrWoken, "")
		}
		return nil, true, nil
	case Code(r.code) == ErrTimedOut:
		return nil, true, nil
	}
	return nil, false, resultError("poll", r)
}

func (q *queue) messages(n int) []Message {
	out := make([]Message, n)
	raw := unsafe.Slice(q.room, n)
	for i := range out {
		r := &raw[i]
		place := queuePlace{r.topic, int32(r.partition)}
		info := q.info[place]
		if info == nil {
			info = &batchInfo{topic: C.GoString(r.topic), partition: place.partition}
			info.life.Store(q.life)
			q.info[place] = info
		}
		out[i] = Message{View{&r.record, info, q.life}, int32(r.deliveries), q, r.topic, place.partition, int64(r.record.offset)}
	}
	return out
}

func (q *Queue) settle(op string, what C.int, messages []Message) error {
	if err := q.check(op); err != nil {
		return err
	}
	raw := make([]C.bw_message, len(messages)+1)
	for i := range messages {
		m := &messages[i]
		if m.q != q.queue {
			return failure(op, ErrInvalidArgument, "a message of another queue, or none")
		}
		raw[i] = C.bw_message{topic: m.topic, partition: C.int32_t(m.partition), deliveries: C.int32_t(m.Deliveries)}
		raw[i].record.offset = C.int64_t(m.offset)
	}
	if err := q.begin(context.Background(), op); err != nil {
		return err
	}
	defer q.turn.release()
	return resultError(op, C.bwgo_queue_settle_batch(what, q.c, &raw[0], C.size_t(len(messages))))
}

// Ack: these are done. It is sent when WithAckRecords have gathered, by the next Poll that waits, by Flush and Close; a refusal (ErrInvalidRecordState:
// the lease had ended, or it was said before) is told by the next Flush. Release, Reject and Renew are sent likewise.
func (q *Queue) Ack(messages ...Message) error { return q.settle("ack", C.BWGO_ACK, messages) }

// Release gives them back, to be delivered again now.
func (q *Queue) Release(messages ...Message) error {
	return q.settle("release", C.BWGO_RELEASE, messages)
}

// Reject sends them to the dead letters.
func (q *Queue) Reject(messages ...Message) error { return q.settle("reject", C.BWGO_REJECT, messages) }

// Renew: their lease begins anew, at once.
func (q *Queue) Renew(messages ...Message) error { return q.settle("renew", C.BWGO_RENEW, messages) }

// Flush sends what was said, and waits until everything was answered: it is on the disk. ErrInvalidRecordState: some since the last Flush were refused.
// ErrNotConnected: some have no answer and may be delivered again.
func (q *Queue) Flush(ctx context.Context) error {
	return q.flush(ctx, "flush", func(ms C.int32_t) C.bwgo_result { return C.bwgo_queue_flush(q.c, ms) })
}

// AckSync acknowledges one and flushes.
func (q *Queue) AckSync(ctx context.Context, m Message) error {
	if q != nil && m.q != q.queue {
		return failure("ack", ErrInvalidArgument, "a message of another queue, or none")
	}
	return q.flush(ctx, "ack", func(ms C.int32_t) C.bwgo_result {
		raw := C.bw_message{topic: m.topic, partition: C.int32_t(m.partition)}
		raw.record.offset = C.int64_t(m.offset)
		return C.bwgo_queue_ack_sync(q.c, &raw, ms)
	})
}

// flush: when ctx ends it early, it keeps the turn until it is through.
func (q *Queue) flush(ctx context.Context, op string, f func(C.int32_t) C.bwgo_result) error {
	if err := q.check(op); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := q.begin(ctx, op); err != nil {
		return err
	}
	inner, ms := q.queue, millis(ctx, q.timeout)
	r, err := bounded(ctx, op, func() C.bwgo_result {
		defer inner.turn.release()
		return f(ms)
	}, func(r C.bwgo_result) { takeString(r.message) })
	if err == nil {
		err = byContext(ctx, resultError(op, r))
	}
	return err
}

// Wake makes a Poll that waits now, or the next one, return ErrWoken. From any goroutine.
func (q *Queue) Wake() {
	if q == nil || q.queue == nil {
		return
	}
	q.woken.Store(true)
	q.wake()
}

// DeliverAt is the header of a record that no queue hands out before that time.
func DeliverAt(t time.Time) Header {
	var room [8]C.uint8_t
	var name [64]C.char
	n := C.bwgo_deliver_at(C.int64_t(t.UnixMilli()), &room[0], &name[0])
	return Header{C.GoStringN(&name[0], C.int(n)), C.GoBytes(unsafe.Pointer(&room[0]), 8)}
}
