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

// ReadLimit is what of the log a consumer may see (read.limit).
type ReadLimit int

// Read limits.
const (
	ReadVisible ReadLimit = C.BW_READ_VISIBLE // what is written
	ReadDurable ReadLimit = C.BW_READ_DURABLE // what is on the disk
)

// OffsetReset is where reading goes on when the position is not in the log (auto.offset.reset).
type OffsetReset int

// Resets.
const (
	ResetError    OffsetReset = C.BW_RESET_ERROR
	ResetEarliest OffsetReset = C.BW_RESET_EARLIEST
	ResetLatest   OffsetReset = C.BW_RESET_LATEST
)

// Isolation is what of transactions may be seen (isolation.level).
type Isolation int

// Isolation levels.
const (
	ReadUncommitted Isolation = C.BW_READ_UNCOMMITTED
	ReadCommitted   Isolation = C.BW_READ_COMMITTED
)

type consumerConfig struct {
	c                         C.bw_consumer_options
	group, instance, assignor string
	rebalance                 func(*Consumer, Rebalance, []TopicPartition)
	poller                    bool
	timeout                   time.Duration
}

// A ConsumerOption is one of Bus.Consumer's, under Kafka's names where the thing is Kafka's.
type ConsumerOption func(*consumerConfig)

// WithReadLimit (read.limit); default: ReadVisible.
func WithReadLimit(l ReadLimit) ConsumerOption {
	return func(c *consumerConfig) { c.c.read_limit = C.bw_read_limit(l) }
}

// WithOffsetReset (auto.offset.reset); default: ResetError, that is ErrOffsetOutOfRange or ErrNoOffset.
func WithOffsetReset(r OffsetReset) ConsumerOption {
	return func(c *consumerConfig) { c.c.auto_offset_reset = C.bw_offset_reset(r) }
}

// WithCheckCRCs (check.crcs); default: true.
func WithCheckCRCs(on bool) ConsumerOption {
	return func(c *consumerConfig) { c.c.check_crcs = C.bool(on) }
}

// WithFetchMaxBytes: through the socket: bytes in flight per partition (max.partition.fetch.bytes); default: 1 MiB.
func WithFetchMaxBytes(n uint32) ConsumerOption {
	return func(c *consumerConfig) { c.c.fetch_max_bytes = C.uint32_t(n) }
}

// WithIsolation (isolation.level); default: ReadUncommitted.
func WithIsolation(i Isolation) ConsumerOption {
	return func(c *consumerConfig) { c.c.isolation = C.bw_isolation(i) }
}

// WithGroup makes commits and Subscribe possible (group.id).
func WithGroup(id string) ConsumerOption { return func(c *consumerConfig) { c.group = id } }

// WithGroupInstance makes a static member, that keeps its partitions while it is away for less than the session time-out (group.instance.id).
func WithGroupInstance(id string) ConsumerOption { return func(c *consumerConfig) { c.instance = id } }

// WithAutoCommit commits the positions at this interval; 0: never (enable.auto.commit, auto.commit.interval.ms); default: 5 s.
func WithAutoCommit(interval time.Duration) ConsumerOption {
	return func(c *consumerConfig) {
		c.c.enable_auto_commit = C.bool(interval > 0)
		if interval > 0 {
			c.c.auto_commit_interval_ms = toMillis(interval)
		}
	}
}

// WithAssignor is "range", "roundrobin", "sticky" or "cooperative-sticky" (partition.assignment.strategy); default: the group's own.
func WithAssignor(name string) ConsumerOption { return func(c *consumerConfig) { c.assignor = name } }

// WithSessionTimeout is how long a static member may be away (session.timeout.ms); default: 45 s.
func WithSessionTimeout(d time.Duration) ConsumerOption {
	return func(c *consumerConfig) { c.c.session_timeout_ms = toMillis(d) }
}

// WithMaxPollInterval is the longest time between two polls (max.poll.interval.ms); default: 5 min.
func WithMaxPollInterval(d time.Duration) ConsumerOption {
	return func(c *consumerConfig) { c.c.max_poll_interval_ms = toMillis(d) }
}

// WithRebalanceTimeout is how long giving up what was revoked may take; default: 60 s.
func WithRebalanceTimeout(d time.Duration) ConsumerOption {
	return func(c *consumerConfig) { c.c.rebalance_timeout_ms = toMillis(d) }
}

// WithDurableCommits: a commit waits until the records before it and then itself are on the disk; default: false.
func WithDurableCommits(on bool) ConsumerOption {
	return func(c *consumerConfig) { c.c.commit_durable = C.bool(on) }
}

// WithRebalance is told what the group gives and takes. fn runs inside Poll, Unsubscribe or Close, and what is revoked is given up when it
// returns; it may call everything of the consumer but these, Subscribe, Assign and Unassign. A panic in it comes out of the call that it runs in.
func WithRebalance(fn func(c *Consumer, event Rebalance, parts []TopicPartition)) ConsumerOption {
	return func(c *consumerConfig) { c.rebalance = fn }
}

// WithPoller waits in Go's network poller instead of in C: a consumer that sleeps holds no thread, for programs with hundreds of them. Waking up
// takes some microseconds longer.
func WithPoller() ConsumerOption { return func(c *consumerConfig) { c.poller = true } }

// WithRequestWait bounds calls that ask the daemon (Commit, Committed), when their context does not do so earlier; default: 30 s.
func WithRequestWait(d time.Duration) ConsumerOption { return func(c *consumerConfig) { c.timeout = d } }

// Consumer reads records: of partitions that the program chose (Assign), or of those that its group gives it (Subscribe).
//
// Calls from several goroutines take turns; one that waits for a turn interrupts a Poll that waits for records, which then goes on waiting.
type Consumer struct{ *consumer }

type consumer struct {
	gate    gate
	bus     *bus
	r       *C.bwgo_reader
	turn    turn
	timeout time.Duration
	info    *batchInfo
	woken   atomic.Bool // by Wake
	group   bool

	// Whose turn it is uses these.
	names   map[string]string // topics
	name    string
	calls   map[uint64]func([]TopicPartition, error)
	next    uint64
	handle  cgo.Handle
	onEvent func(*Consumer, Rebalance, []TopicPartition)
	panics  *panicked // of a callback, to be thrown again behind C
	state   *state
	wait    *pollWait
	poller  bool

	closing sync.Mutex
}

type panicked struct{ value any }

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
	config.c.group_id, config.c.group_instance_id = a.optional(config.group), a.optional(config.instance)
	config.c.assignor = a.optional(config.assignor)
	if a.fail != nil {
		return nil, a.fail
	}
	c := &consumer{gate: gate{out: make(chan struct{})}, bus: b.bus, turn: newTurn(), timeout: config.timeout, info: &batchInfo{},
		group: config.group != "", names: map[string]string{}, calls: map[uint64]func([]TopicPartition, error){}, poller: config.poller}
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
	outer := &Consumer{c}
	runtime.SetFinalizer(outer, func(c *Consumer) { go c.consumer.shutdown() })
	return outer, nil
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
	mine, err = c.turn.take(ctx, c.wake)
	if err == nil && c.gate.isShut() {
		if mine {
			c.turn.release()
		}
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
	if p != nil {
		panic(p.value)
	}
	for _, t := range told {
		t.fn(t.parts, t.err)
	}
}

// dead: the views that are out are no longer good.
func (c *consumer) dead() { c.info.life.now.Add(1) }

// Close commits the positions of a member (WithAutoCommit), leaves the group and closes; all within two seconds. It ends a Poll that waits in
// another goroutine. A second Close does nothing. ErrBusy: a state's transaction is open.
func (c *Consumer) Close() error {
	if err := c.check("close"); err != nil {
		return err
	}
	if c.turn.nested() {
		return failure("close", ErrInvalidArgument, "not from within a callback")
	}
	runtime.SetFinalizer(c, nil)
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
	if p != nil {
		panic(p.value)
	}
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
		mine, err := c.begin(ctx, "poll")
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
	if c.poller {
		return c.pollPoller(ctx)
	}
	done := ctx.Done()
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
	c.info.topic, c.info.partition = c.name, int32(raw.partition)
	b := Batch{batch: c.info, born: c.info.life.now.Load(), Topic: c.name, Partition: int32(raw.partition),
		LeaderEpoch: int32(raw.leader_epoch), BaseOffset: int64(raw.base_offset), LastOffset: int64(raw.last_offset)}
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

// ---- partitions ----

// TopicPartition is a partition and what belongs to it: an offset to commit, that was committed, or where reading starts.
type TopicPartition struct {
	Topic       string
	Partition   int32
	Offset      int64  // of the next record to read; OffsetInvalid: none
	LeaderEpoch int32  // of the last record before it; 0 or -1: not known
	Metadata    string // kept with a committed offset, for people
	Err         error  // the outcome for this partition
}

func (c *Consumer) place(op string, what int, topic string, partition int32, at int64) (int64, error) {
	if err := c.check(op); err != nil {
		return 0, err
	}
	name, err := cstring(op, topic)
	if err != nil {
		return 0, err
	}
	defer C.free(unsafe.Pointer(name))
	mine, err := c.begin(context.Background(), op)
	if err != nil {
		return 0, err
	}
	defer c.end(mine)
	if what <= C.BWGO_SEEK_TIME {
		c.dead()
	}
	r := C.bwgo_reader_place(C.int(what), c.r, name, C.int32_t(partition), C.int64_t(at))
	return int64(r.a), resultError(op, r)
}

// Assign adds a partition (AnyPartition: all of the topic) from an offset, or OffsetBeginning, OffsetEnd. ErrUnknownTopic, ErrUnknownPartition,
// ErrNotPermitted, ErrInvalidArgument (subscribed).
func (c *Consumer) Assign(topic string, partition int32, offset int64) error {
	_, err := c.place("assign", C.BWGO_ASSIGN, topic, partition, offset)
	return err
}

// Unassign takes a partition away again.
func (c *Consumer) Unassign(topic string, partition int32) error {
	_, err := c.place("unassign", C.BWGO_UNASSIGN, topic, partition, 0)
	return err
}

// Seek: the next Poll of that partition starts at offset, OffsetBeginning or OffsetEnd.
func (c *Consumer) Seek(topic string, partition int32, offset int64) error {
	_, err := c.place("seek", C.BWGO_SEEK, topic, partition, offset)
	return err
}

// SeekTime: to the first record of this time or later; to the end when there is none.
func (c *Consumer) SeekTime(topic string, partition int32, t time.Time) error {
	_, err := c.place("seek", C.BWGO_SEEK_TIME, topic, partition, t.UnixMilli())
	return err
}

// Position is the offset of the next record that a Poll would give.
func (c *Consumer) Position(topic string, partition int32) (int64, error) {
	return c.place("position", C.BWGO_POSITION, topic, partition, 0)
}

// Pause: the partition gives nothing and keeps its position.
func (c *Consumer) Pause(topic string, partition int32) error {
	_, err := c.place("pause", C.BWGO_PAUSE, topic, partition, 0)
	return err
}

// Resume ends a Pause.
func (c *Consumer) Resume(topic string, partition int32) error {
	_, err := c.place("resume", C.BWGO_RESUME, topic, partition, 0)
	return err
}

// Assignment is what it reads, with positions.
func (c *Consumer) Assignment() ([]TopicPartition, error) {
	if err := c.check("assignment"); err != nil {
		return nil, err
	}
	mine, err := c.begin(context.Background(), "assignment")
	if err != nil {
		return nil, err
	}
	defer c.end(mine)
	var parts *C.bw_topic_partition
	var count C.size_t
	if err := resultError("assignment", C.bwgo_reader_assignment(c.r, &parts, &count)); err != nil {
		return nil, err
	}
	defer C.bw_free(unsafe.Pointer(parts))
	return partsToGo(parts, int(count), nil), nil
}

// Fd is a descriptor that polls readable when TryPoll may give something. The consumer owns it. After it was readable call TryPoll until ErrTimedOut, then
// wait again. See also WithPoller.
func (c *Consumer) Fd() (uintptr, error) {
	if err := c.check("fd"); err != nil {
		return 0, err
	}
	mine, err := c.begin(context.Background(), "fd")
	if err != nil {
		return 0, err
	}
	defer c.end(mine)
	r := C.bwgo_reader_fd(c.r)
	return uintptr(r.n), resultError("fd", r)
}

func partsToGo(parts *C.bw_topic_partition, count int, failed error) []TopicPartition {
	out := make([]TopicPartition, count)
	for i, p := range unsafe.Slice(parts, count) {
		out[i] = TopicPartition{C.GoString(p.topic), int32(p.partition), int64(p.offset), int32(p.leader_epoch), "", failed}
		if p.metadata != nil {
			out[i].Metadata = C.GoString(p.metadata)
		}
		if p.error != 0 {
			out[i].Err = Code(p.error)
		}
	}
	return out
}

func partsToC(a *arena, parts []TopicPartition) *C.bw_topic_partition {
	all := (*C.bw_topic_partition)(a.room(len(parts), C.sizeof_bw_topic_partition))
	array := unsafe.Slice(all, len(parts))
	for i, p := range parts {
		epoch := p.LeaderEpoch
		if epoch == 0 {
			epoch = -1
		}
		array[i] = C.bw_topic_partition{topic: a.string(p.Topic), partition: C.int32_t(p.Partition), offset: C.int64_t(p.Offset),
			leader_epoch: C.int32_t(epoch), metadata: a.optional(p.Metadata)}
	}
	return all
}
