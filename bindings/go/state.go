package busway

/*
#include "shim.h"
*/
import "C"

import (
	"context"
	"runtime"
	"unsafe"
)

// StateKeyMax is the longest key of a state, in bytes.
const StateKeyMax = C.BW_STATE_KEY_MAX

// State is a consumer's key-value state that moves with its offsets: exactly once into your own state. Each partition has a store of its own; a
// record's changes and its offset are committed together, or neither, whatever is killed when. Effects elsewhere are not part of it.
//
// It is used by one goroutine at a time; a transaction is bound to the goroutine that began it, which is bound to its thread until it ends.
type State struct{ *state }

type state struct {
	c      *consumer
	s      *C.bw_state
	open   int  // transactions that are out
	closed bool // it, or its consumer
}

type stateConfig struct {
	dir  string
	fast bool
	room uint64
}

// A StateOption is one of Consumer.State's.
type StateOption func(*stateConfig)

// WithStateDir is where the stores are; default: <data directory>/state, where this process may write there.
func WithStateDir(dir string) StateOption { return func(c *stateConfig) { c.dir = dir } }

// WithFastState waits for no disk: exact over the death of every process, refused after a power cut; default: durable.
func WithFastState(on bool) StateOption { return func(c *stateConfig) { c.fast = on } }

// WithStateRoom is the size of a new store, which grows by itself; default: 16 MiB.
func WithStateRoom(bytes uint64) StateOption { return func(c *stateConfig) { c.room = bytes } }

// State opens the state of a consumer with a group that is not subscribed or assigned yet; then subscribe, or assign. Its records come from State.Begin
// or State.Process, no longer from Poll. Automatic commits end, and but for WithFastState it reads what is on the disk. ErrInvalidArgument,
// ErrUnsupported (no directory was given, and the bus is not this host's), ErrNotPermitted.
func (c *Consumer) State(options ...StateOption) (*State, error) {
	const op = "state"
	if err := c.check(op); err != nil {
		return nil, err
	}
	var config stateConfig
	for _, o := range options {
		if o != nil {
			o(&config)
		}
	}
	a := arena{op: op}
	defer a.free()
	dir := a.optional(config.dir)
	if a.fail != nil {
		return nil, a.fail
	}
	mine, err := c.begin(context.Background(), op)
	if err != nil {
		return nil, err
	}
	defer c.end(mine)
	fast := C.int(0)
	if config.fast {
		fast = 1
	}
	s := &state{c: c.consumer}
	if err := resultError(op, C.bwgo_state_open(c.r, dir, fast, C.uint64_t(config.room), &s.s)); err != nil {
		return nil, err
	}
	c.state = s
	return &State{s}, nil
}

// Close closes the stores. ErrBusy: a transaction is open. A second Close does nothing. Closing the consumer does it, too.
func (s *State) Close() error {
	if s == nil || s.state == nil {
		return errNil("close", "state", "Consumer.State")
	}
	mine, err := s.c.begin(context.Background(), "close")
	if err != nil {
		return nil // with its consumer
	}
	defer s.c.end(mine)
	if s.closed {
		return nil
	}
	return s.closeHeld()
}

// closeHeld: it is the caller's turn.
func (s *state) closeHeld() error {
	if s.open > 0 {
		return failure("close", ErrBusy, "a transaction of the state is open: commit or abort it first")
	}
	C.bw_state_close(s.s)
	s.s, s.closed = nil, true
	s.c.state = nil
	return nil
}

// begin is the start of each call.
func (s *State) begin(ctx context.Context, op string) (bool, error) {
	return s.beginWith(ctx, op, (*consumer).begin)
}

func (s *State) beginWith(ctx context.Context, op string, begin func(*consumer, context.Context, string) (bool, error)) (bool, error) {
	if s == nil || s.state == nil {
		return false, errNil(op, "state", "Consumer.State")
	}
	mine, err := begin(s.c, ctx, op)
	if err != nil {
		return false, err
	}
	if s.closed {
		s.c.end(mine)
		return false, errClosed(op, "state")
	}
	return mine, nil
}

// Begin waits for the next batch and begins a transaction for its partition; commit it (the offset behind the batch moves with the changes) or abort
// it (the batch comes again). One at a time. The batch is good until the transaction ends. Errors as State.Process.
func (s *State) Begin(ctx context.Context) (*StateTxn, Batch, error) {
	const op = "state begin"
	for {
		mine, err := s.beginWith(ctx, op, (*consumer).beginWait)
		if err != nil {
			return nil, Batch{}, err
		}
		t, b, again, err := s.beginHeld(ctx)
		s.c.end(mine)
		if !again {
			return t, b, err
		}
	}
}

func (s *state) beginHeld(ctx context.Context) (*StateTxn, Batch, bool, error) {
	if err := ctx.Err(); err != nil {
		return nil, Batch{}, false, err
	}
	if s.open > 0 {
		return nil, Batch{}, false, failure("state begin", ErrBusy, "a transaction of the state is open: commit or abort it first")
	}
	stop := func() {}
	if ctx.Done() != nil {
		stop = afterDone(ctx, s.c.wake)
	}
	runtime.LockOSThread()
	t := &StateTxn{s: s, tid: threadID()}
	s.c.dead()
	code := C.bwgo_state_begin(s.c.r, s.s, -1, &t.raw)
	stop()
	b, again, err := s.c.polledBy(ctx, code)
	if code == 0 {
		s.open++
		return t, b, false, err // a batch that ends in nonsense comes with its transaction
	}
	runtime.UnlockOSThread()
	return nil, b, again, err
}

// Read begins a transaction that sees what is committed, of a partition that the consumer has; it ends by Abort. ErrNotFound: it has none such, or has
// not opened it yet.
func (s *State) Read(topic string, partition int32) (*StateTxn, error) {
	const op = "state read"
	mine, err := s.begin(context.Background(), op)
	if err != nil {
		return nil, err
	}
	defer s.c.end(mine)
	name, err := cstring(op, topic)
	if err != nil {
		return nil, err
	}
	defer C.free(unsafe.Pointer(name))
	runtime.LockOSThread()
	t := &StateTxn{s: s.state, tid: threadID(), reads: true}
	if err := resultError(op, C.bwgo_state_read(s.s, name, C.int32_t(partition), &t.raw)); err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	s.open++
	return t, nil
}

// processing is what C hands records to.
type processing struct {
	s      *state
	fn     func(*StateTxn, View) error
	txn    StateTxn
	thrown *panicked
	err    error
	info   batchInfo
	names  map[string]string
}

func (p *processing) record(txn *C.bw_state_txn, batch *C.bw_batch, record *C.bw_record_view) C.int {
	if p.txn.raw != txn {
		p.txn = StateTxn{s: p.s, raw: txn, inside: true, tid: threadID()}
	}
	topic := unsafe.Slice((*byte)(unsafe.Pointer(batch.topic)), C.strlen(batch.topic))
	name, ok := p.names[string(topic)]
	if !ok {
		name = string(topic)
		p.names[name] = name
	}
	p.info.topic, p.info.partition, p.info.times = name, int32(batch.partition), TimestampType(batch.timestamp_type)
	p.s.c.turn.owner.Store(threadID())
	p.thrown = guarded(func() { p.err = p.fn(&p.txn, View{record, &p.info, p.info.life.Load()}) })
	p.s.c.turn.owner.Store(0)
	p.info.life.Add(1)
	code := C.int(0)
	switch {
	case p.thrown != nil:
		code = C.BW_ERR_INTERNAL
	case p.txn.lost: // the store has to grow: the record comes again
		code = C.BW_ERR_BUSY
	case p.err != nil:
		code = C.BW_ERR_INVALID_RECORD
	}
	if code != 0 {
		p.txn.raw = nil
	}
	return code
}

// Process waits for records, at most max (0: 1000), hands each to fn, and commits: one transaction for each partition that gave some. It returns how many
// records have their effect now. An error of fn drops its partition's transaction of this call: the same records come again; it comes
// back as it is. fn may see a record again when the store has to grow. fn must not keep the view or the transaction, and does not end the goroutine.
// ErrFenced: another owner has the partition, nothing was committed. ErrLogIncarnationMismatch, ErrOffsetOutOfRange, ErrCorrupt, ErrDiskFull, and
// what Poll returns.
func (s *State) Process(ctx context.Context, max int, fn func(txn *StateTxn, record View) error) (int, error) {
	if fn == nil {
		return 0, failure("process", ErrInvalidArgument, "there is no function")
	}
	if max <= 0 || max > 1<<30 {
		max = 1000
	}
	for {
		mine, err := s.beginWith(ctx, "process", (*consumer).beginWait)
		if err != nil {
			return 0, err
		}
		n, again, thrown, err := s.processHeld(ctx, max, fn)
		s.c.end(mine)
		thrown.throw()
		if !again {
			return n, err
		}
	}
}

func (s *state) processHeld(ctx context.Context, max int, fn func(*StateTxn, View) error) (int, bool, *panicked, error) {
	if err := ctx.Err(); err != nil {
		return 0, false, nil, err
	}
	if s.open > 0 {
		return 0, false, nil, failure("process", ErrBusy, "a transaction of the state is open: commit or abort it first")
	}
	stop := func() {}
	if ctx.Done() != nil {
		stop = afterDone(ctx, s.c.wake)
	}
	p := &processing{s: s, fn: fn, names: s.c.names}
	handle, forget := handleOf(p)
	defer forget()
	s.c.dead()
	s.open++
	runtime.LockOSThread()
	r := C.bwgo_state_process(s.s, -1, C.int32_t(max), handle)
	runtime.UnlockOSThread()
	s.open--
	stop()
	p.info.life.Add(1)
	p.txn.raw = nil
	switch {
	case p.thrown != nil, p.err != nil && r.code != 0:
		takeString(r.message)
		return int(r.n), false, p.thrown, p.err
	case Code(r.code) == ErrWoken:
		takeString(r.message)
		if ctx.Err() != nil {
			return int(r.n), false, nil, ctx.Err()
		}
		if s.c.woken.Swap(false) {
			return int(r.n), false, nil, failure("process", ErrWoken, "")
		}
		return int(r.n), r.n == 0, nil, nil
	}
	return int(r.n), false, nil, resultError("process", r)
}
