package busway

/*
#include "shim.h"
*/
import "C"

import (
	"context"
	"math"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"
)

// slice is how long a wait in C may last before its context is looked at again, where nothing can wake it.
const slice = 20 * time.Millisecond

// gate lets calls in until it is shut, and tells who shuts it when the last of them is out.
type gate struct {
	state atomic.Int64 // calls inside, and gateShut when it is
	once  sync.Once
	out   chan struct{}
}

func newGate() gate { return gate{out: make(chan struct{})} }

const gateShut = math.MinInt64 / 2

func (g *gate) enter() bool {
	if g.state.Add(1) > 0 {
		return true
	}
	g.leave()
	return false
}

func (g *gate) leave() {
	if g.state.Add(-1) == gateShut {
		g.once.Do(func() { close(g.out) })
	}
}

func (g *gate) isShut() bool { return g.state.Load() < 0 }

// shut lets nobody in any more; false: somebody else did it. Afterwards g.out is closed when the last is out.
func (g *gate) shut() bool {
	for {
		n := g.state.Load()
		if n < 0 {
			return false
		}
		if g.state.CompareAndSwap(n, n+gateShut) {
			if n == 0 {
				g.once.Do(func() { close(g.out) })
			}
			return true
		}
	}
}

// turn is a lock with a queue, whose holder may be a wait in C that others interrupt: they count themselves, wake it, and are next.
type turn struct {
	slot  chan struct{}
	want  atomic.Int32
	owner atomic.Int32 // thread of a callback that runs inside; 0: none
}

func newTurn() turn { return turn{slot: make(chan struct{}, 1)} }

// nested: this goroutine is a callback that runs inside, and needs no turn.
func (t *turn) nested() bool {
	tid := t.owner.Load()
	return tid != 0 && tid == threadID()
}

// take waits for the turn; wake (nil: who has it is not to be disturbed) ends the wait of who has it. Returns whether release must be called.
func (t *turn) take(ctx context.Context, wake func()) (bool, error) {
	select {
	case t.slot <- struct{}{}:
		return true, nil
	default:
	}
	if t.nested() {
		return false, nil
	}
	if wake == nil {
		select {
		case t.slot <- struct{}{}:
			return true, nil
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
	t.want.Add(1)
	defer t.want.Add(-1)
	again := time.NewTicker(time.Millisecond) // who was woken may have been faster than we in taking it once more
	defer again.Stop()
	for {
		wake()
		select {
		case t.slot <- struct{}{}:
			return true, nil
		case <-ctx.Done():
			return false, ctx.Err()
		case <-again.C:
		}
	}
}

// yield lets those in who want the turn.
func (t *turn) yield() {
	for i := 0; i < 100 && t.want.Load() > 0; i++ {
		runtime.Gosched()
	}
}

func (t *turn) release() { <-t.slot }

// came is what a bounded call came to.
type came[T any] struct {
	value    T
	panicked any
	ended    bool
}

// bounded runs a call that C bounds by itself, always; when ctx ends first, it goes on without us, and dropped (may be nil) gets what came of it.
func bounded[T any](ctx context.Context, op string, f func() T, dropped func(T)) (T, error) {
	var none T
	if ctx.Done() == nil {
		return f(), nil
	}
	done := make(chan came[T], 1)
	var left atomic.Bool
	go func() {
		var o came[T]
		defer func() {
			if !o.ended {
				o.panicked = recover()
			}
			done <- o
			if left.Swap(true) && o.ended && dropped != nil {
				dropped(o.value)
			}
		}()
		o.value = f()
		o.ended = true
	}()
	select {
	case o := <-done:
		if o.panicked != nil {
			panic(o.panicked)
		}
		return o.value, nil
	case <-ctx.Done():
		if left.Swap(true) { // it was faster
			if o := <-done; o.ended {
				return o.value, nil
			}
		}
		return none, unknownOutcome(ctx, op)
	}
}

// millis is how long C may wait: until the context's deadline, at most `most` (0: for ever). At least 1.
func millis(ctx context.Context, most time.Duration) C.int32_t {
	if deadline, ok := ctx.Deadline(); ok {
		if left := time.Until(deadline); most == 0 || left < most {
			most = left
			if most <= 0 {
				return 1
			}
		}
	}
	if most == 0 {
		return -1
	}
	return toMillis(most)
}

// toMillis rounds up.
func toMillis(d time.Duration) C.int32_t {
	ms := int64((d + time.Millisecond - 1) / time.Millisecond)
	if ms < 1 {
		ms = 1
	}
	if ms > math.MaxInt32 {
		ms = math.MaxInt32
	}
	return C.int32_t(ms)
}

// sliceMillis is a wait that nothing can wake: short, if the context can end.
func sliceMillis(ctx context.Context) C.int32_t {
	if ctx.Done() == nil {
		return C.int32_t(time.Second / time.Millisecond)
	}
	return millis(ctx, slice)
}

// cstring is s for C, to be freed; a NUL inside would cut it.
func cstring(op, s string) (*C.char, error) {
	if strings.IndexByte(s, 0) >= 0 {
		return nil, failure(op, ErrInvalidArgument, "a name with a NUL byte in it")
	}
	return C.CString(s), nil
}

// optional: nil for "".
func optional(op, s string) (*C.char, error) {
	if s == "" {
		return nil, nil
	}
	return cstring(op, s)
}

// arena frees its strings at once.
type arena struct {
	op   string
	all  []unsafe.Pointer
	fail error
}

func (a *arena) string(s string) *C.char {
	p, err := cstring(a.op, s)
	return a.keep(p, err)
}

func (a *arena) optional(s string) *C.char {
	p, err := optional(a.op, s)
	return a.keep(p, err)
}

// given: nil for what was not given.
func (a *arena) given(s *string) *C.char {
	if s == nil {
		return nil
	}
	return a.string(*s)
}

func (a *arena) keep(p *C.char, err error) *C.char {
	if err != nil && a.fail == nil {
		a.fail = err
	}
	if p != nil {
		a.all = append(a.all, unsafe.Pointer(p))
	}
	return p
}

// strings is an array of C strings in C's memory.
func (a *arena) strings(list []string) **C.char {
	if len(list) == 0 {
		return nil
	}
	p := C.calloc(C.size_t(len(list)), C.size_t(unsafe.Sizeof((*C.char)(nil))))
	a.all = append(a.all, p)
	array := unsafe.Slice((**C.char)(p), len(list))
	for i, s := range list {
		array[i] = a.string(s)
	}
	return (**C.char)(p)
}

// room is zeroed memory of C's.
func (a *arena) room(count int, size uintptr) unsafe.Pointer {
	if count == 0 {
		return nil
	}
	p := C.calloc(C.size_t(count), C.size_t(size))
	a.all = append(a.all, p)
	return p
}

func (a *arena) free() {
	for _, p := range a.all {
		C.free(p)
	}
	a.all = nil
}
