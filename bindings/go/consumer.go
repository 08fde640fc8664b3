package busway

/*
#include "shim.h"
*/
import "C"

import (
	"context"
	"runtime"
	"runtime/cgo"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"
)

// Consumer reads records: of partitions that the program chose (Assign), or of those that its group gives it (Subscribe).
//
// Calls from several goroutines take turns; one interrupts a Poll that waits for records, which then goes on waiting. Of several
// Polls one waits for records, the others for their turn.
type Consumer struct{ *consumer }

type consumer struct {
	gate    gate
	bus     *bus
	r       *C.bwgo_reader
	turn    turn
	timeout time.Duration
	info    *batchInfo
	woken   atomic.Bool // by Wake

	// Whose turn it is uses these.
	names   map[string]string // topics
	name    string
	calls   map[uint64]func([]TopicPartition, error)
	next    uint64
	handle  cgo.Handle
	outer   *Consumer // what callbacks are given
	onEvent func(*Consumer, Rebalance, []TopicPartition)
	panics  *panicked // of a callback, to be thrown again behind C
	state   *state
	wait    *pollWait
	poller  bool
	spin    C.int64_t // ns

	closing sync.Mutex
}

// Consumer opens a consumer.
func (b *Bus) Consumer(options ...ConsumerOption) (*Consumer, error) {
	if err := b.enter("consumer"); err != nil {
		return nil, err
	}
	defer b.gate.leave()
	config := consumerConfig{timeout: 30 * time.Second}
	config.c = C.bw_consumer_options{size: C.sizeof_bw_consumer_options, check_crcs: true, fetch_max_bytes: 1 << 20, enable_auto_commit: true,
		auto_commit_interval_ms: 5000, session_timeout_ms: 45000, max_poll_interval_ms: 300000, rebalance_timeout_ms: 60000}
	for _, o := range options {
		if o != nil {
			o(&config)
		}
	}
	a := arena{op: "consumer"}
	defer a.free()
	config.c.group_id, config.c.group_instance_id = a.given(config.group), a.given(config.instance)
	config.c.assignor = a.given(config.assignor)
	if a.fail != nil {
		return nil, a.fail
	}
	c := &consumer{gate: newGate(), bus: b.bus, turn: newTurn(), timeout: config.timeout, info: &batchInfo{},
		names: map[string]string{}, calls: map[uint64]func([]TopicPartition, error){}, poller: config.poller}
	if runtime.NumCPU() > 1 && config.spin > 0 {
		c.spin = C.int64_t(config.spin)
	}
	c.onEvent = config.rebalance
	if c.onEvent != nil {
		c.handle = cgo.NewHandle(c)
	}
	copied := (*C.bw_consumer_options)(a.room(1, unsafe.Sizeof(config.c)))
	*copied = config.c
	if err := resultError("consumer", C.bwgo_reader_open(b.c, copied, C.uintptr_t(c.handle), &c.r)); err != nil {
		if c.handle != 0 {
			c.handle.Delete()
		}
		return nil, err
	}
	b.adopt(c)
	c.outer = &Consumer{c}
	return c.outer, nil
}

func (c *Consumer) check(op string) error {
	if c == nil || c.consumer == nil {
		return errNil(op, "consumer", "Bus.Consumer")
	}
	return nil
}

func (c *consumer) wake() {
	if c.gate.enter() {
		C.bw_consumer_wake(c.r.consumer)
		c.gate.leave()
	}
}

// begin is the start of each call: the consumer is open, and it is this goroutine's turn. end ends it, and throws what a callback threw.
func (c *consumer) begin(ctx context.Context, op string) (mine bool, err error) {
	return c.enter(ctx, op, c.wake)
}

// beginWait is begin of a call that waits for records: it does not end another one.
func (c *consumer) beginWait(ctx context.Context, op string) (mine bool, err error) {
	c.turn.yield()
	return c.enter(ctx, op, nil)
}

func (c *consumer) enter(ctx context.Context, op string, wake func()) (mine bool, err error) {
	mine, err = c.turn.take(ctx, wake)
	if mine && c.gate.isShut() { // a callback inside Close may still call
		c.turn.release()
		return false, errClosed(op, "consumer")
	}
	return mine, err
}

func (c *consumer) end(mine bool) {
	if !mine {
		return
	}
	p := c.panics
	c.panics = nil
	told := c.takeCommits()
	c.turn.release()
	p.throw()
	for _, t := range told {
		t.fn(t.parts, t.err)
	}
}

// dead: the views that are out are no longer good.
func (c *consumer) dead() { c.info.life.Add(1) }

// Close commits the positions of a member (WithAutoCommit), leaves the group and closes; all within two seconds. It ends a Poll that waits in
// another goroutine. A second Close does nothing. ErrBusy: a state's transaction is open.
func (c *Consumer) Close() error {
	if err := c.check("close"); err != nil {
		return err
	}
	if c.turn.nested() {
		return failure("close", ErrInvalidArgument, "not from within a callback")
	}
	return c.consumer.shutdown()
}

func (c *consumer) shutdown() error {
	c.closing.Lock()
	defer c.closing.Unlock()
	mine, err := c.begin(context.Background(), "close")
	if err != nil {
		return nil // closed before
	}
	if !mine {
		return failure("close", ErrInvalidArgument, "not from within a callback")
	}
	if s := c.state; s != nil {
		if err := s.closeHeld(); err != nil {
			c.end(true)
			return err
		}
	}
	c.dead()
	c.gate.shut()
	<-c.gate.out // wakes; whose turn it is does not need the gate
	c.wait.close()
	C.bwgo_reader_close(c.r)
	told := c.takeCommits()
	p := c.panics
	C.bwgo_reader_free(c.r)
	c.r = nil
	if c.handle != 0 {
		c.handle.Delete()
	}
	c.bus.forget(c)
	c.turn.release()
	p.throw()
	for _, t := range told {
		t.fn(t.parts, t.err)
	}
	return nil
}

// ---- reading ----

// Poll waits for the next batch. Its memory is the log itself, and good until the next Poll, Seek, Assign, Unassign, Unsubscribe or Close; Batch.Records
// makes a copy. Errors that name a partition (ErrOffsetOutOfRange, ErrCorrupt, ErrDeleted, ErrNoOffset) come with a batch that has its Topic and
// Partition, and no records but those before a corrupt one. ErrWoken: Wake was called. ErrFencedMemberEpoch, ErrUnknownMemberID: the group has
// gone on without this member; the next Poll joins it anew. ErrNotConnected: without the daemon for now; poll again.
func (c *Consumer) Poll(ctx context.Context) (Batch, error) {
	if err := c.check("poll"); err != nil {
		return Batch{}, err
	}
	if err := ctx.Err(); err != nil {
		return Batch{}, err
	}
	for {
		mine, err := c.beginWait(ctx, "poll")
		if err != nil {
			return Batch{}, err
		}
		b, again, err := c.pollHeld(ctx)
		c.end(mine)
		if !again {
			return b, err
		}
	}
}

// TryPoll is Poll without waiting: ErrTimedOut when there is nothing.
func (c *Consumer) TryPoll() (Batch, error) {
	if err := c.check("poll"); err != nil {
		return Batch{}, err
	}
	for {
		mine, err := c.begin(context.Background(), "poll")
		if err != nil {
			return Batch{}, err
		}
		b, again, err := c.polled(c.pollC(0))
		c.end(mine)
		if !again {
			return b, err
		}
	}
}

func (c *consumer) pollC(ms C.int32_t) C.int32_t {
	if c.state != nil {
		return -1
	}
	c.dead()
	return C.bwgo_reader_poll(c.r, ms)
}

// pollHeld looks, and then waits in C or in the poller. again: interrupted, not ended.
func (c *consumer) pollHeld(ctx context.Context) (Batch, bool, error) {
	done := ctx.Done()
	if c.spin > 0 && c.state == nil {
		stop := func() {}
		if done != nil {
			stop = afterDone(ctx, c.wake)
		}
		c.dead()
		code := C.bwgo_reader_spin(c.r, c.spin)
		stop()
		if Code(code) != ErrTimedOut {
			return c.polledBy(ctx, code)
		}
	}
	if c.poller {
		return c.pollPoller(ctx)
	}
	if done == nil {
		return c.polled(c.pollC(-1))
	}
	if code := c.pollC(0); Code(code) != ErrTimedOut {
		return c.polledBy(ctx, code)
	}
	stop := afterDone(ctx, c.wake)
	code := c.pollC(-1)
	stop()
	return c.polledBy(ctx, code)
}

func (c *consumer) polledBy(ctx context.Context, code C.int32_t) (Batch, bool, error) {
	b, again, err := c.polled(code)
	if again && ctx.Err() != nil {
		return Batch{}, false, ctx.Err()
	}
	return b, again, err
}

// polled turns what a poll came to into a batch. again: somebody only wants a turn.
func (c *consumer) polled(code C.int32_t) (Batch, bool, error) {
	switch {
	case code == 0:
		b := c.batch(true)
		if c.r.broken != 0 {
			return b, false, failure("poll", ErrCorrupt, "topic "+b.Topic+": a record can't be read")
		}
		return b, false, nil
	case code < 0:
		return Batch{}, false, failure("poll", ErrInvalidArgument, "the consumer is a state's: use State.Begin or State.Process")
	case Code(code) == ErrWoken:
		if c.woken.Swap(false) {
			return Batch{}, false, failure("poll", ErrWoken, "")
		}
		return Batch{}, true, nil
	case Code(code) == ErrTimedOut:
		return Batch{}, false, failure("poll", ErrTimedOut, "there is nothing now")
	}
	return c.batch(false), false, failure("poll", Code(code), C.GoString(&c.r.message[0]))
}

func (c *consumer) batch(records bool) Batch {
	r := c.r
	if r.topic_changed != 0 {
		r.topic_changed = 0
		raw := unsafe.Slice((*byte)(unsafe.Pointer(&r.topic[0])), C.strlen(&r.topic[0]))
		name, ok := c.names[string(raw)]
		if !ok {
			name = string(raw)
			c.names[name] = name
		}
		c.name = name
	}
	raw := &r.batch
	c.info.topic, c.info.partition, c.info.times = c.name, int32(raw.partition), TimestampType(raw.timestamp_type)
	b := Batch{batch: c.info, born: c.info.life.Load(), Topic: c.name, Partition: int32(raw.partition),
		LeaderEpoch: int32(raw.leader_epoch), BaseOffset: int64(raw.base_offset), LastOffset: int64(raw.last_offset),
		TimestampType: c.info.times}
	if records {
		b.raw = unsafe.Slice(r.views, int(r.count))
	}
	return b
}

// Wake makes a Poll that waits now, or the next one, return ErrWoken. From any goroutine.
func (c *Consumer) Wake() {
	if c == nil || c.consumer == nil {
		return
	}
	c.woken.Store(true)
	c.wake()
}
