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

// StateTxn is a transaction on one partition's store. Keys are 1 to StateKeyMax bytes. It is used by the goroutine that got it.
type StateTxn struct {
	s      *state
	raw    *C.bw_state_txn // nil: over
	inside bool            // Process has it
	reads  bool
	lost   bool // the store has to grow: the transaction comes again
	tid    int32
}

// enter: the transaction can be used here; leave ends that.
func (t *StateTxn) enter(op string) (leave func(), err error) {
	switch {
	case t == nil || t.s == nil:
		return nil, errNil(op, "transaction", "State.Begin")
	case t.raw == nil:
		return nil, failure(op, ErrInvalidTxnState, "the transaction is over")
	case t.tid != threadID():
		return nil, failure(op, ErrInvalidArgument, "a state's transaction belongs to the goroutine that began it")
	case t.inside:
		return func() {}, nil
	}
	mine, err := t.s.c.begin(context.Background(), op)
	if err != nil {
		return nil, err
	}
	return func() { t.s.c.end(mine) }, nil
}

func bytesPointer(b []byte) unsafe.Pointer {
	if len(b) == 0 {
		return nil
	}
	return unsafe.Pointer(&b[0])
}

// Get is a copy of the value; false: there is none.
func (t *StateTxn) Get(key []byte) ([]byte, bool, error) {
	leave, err := t.enter("state get")
	if err != nil {
		return nil, false, err
	}
	defer leave()
	var value unsafe.Pointer
	var n C.size_t
	r := C.bwgo_state_get(t.raw, bytesPointer(key), C.size_t(len(key)), &value, &n)
	if Code(r.code) == ErrNotFound {
		takeString(r.message)
		return nil, false, nil
	}
	if err := resultError("state get", r); err != nil {
		return nil, false, err
	}
	out := make([]byte, int(n))
	copy(out, unsafe.Slice((*byte)(value), int(n)))
	return out, true, nil
}

// Put sets the value instead of what was there. ErrBusy: the store has to grow; the transaction is lost and its records come again: return.
func (t *StateTxn) Put(key, value []byte) error {
	leave, err := t.enter("state put")
	if err != nil {
		return err
	}
	defer leave()
	r := C.bwgo_state_put(t.raw, bytesPointer(key), C.size_t(len(key)), bytesPointer(value), C.size_t(len(value)))
	t.lost = t.lost || Code(r.code) == ErrBusy
	return resultError("state put", r)
}

// Delete removes a key; it need not be there.
func (t *StateTxn) Delete(key []byte) error {
	leave, err := t.enter("state delete")
	if err != nil {
		return err
	}
	defer leave()
	r := C.bwgo_state_del(t.raw, bytesPointer(key), C.size_t(len(key)))
	t.lost = t.lost || Code(r.code) == ErrBusy
	return resultError("state delete", r)
}

// Each calls fn with the keys that begin with prefix, ascending, until it returns false. What it is given is good during the call; fn must not change
// the state.
func (t *StateTxn) Each(prefix []byte, fn func(key, value []byte) bool) error {
	leave, err := t.enter("state each")
	if err != nil {
		return err
	}
	defer leave()
	var entries *C.bwgo_entry
	r := C.bwgo_state_each(t.raw, bytesPointer(prefix), C.size_t(len(prefix)), &entries)
	defer C.free(unsafe.Pointer(entries))
	if err := resultError("state each", r); err != nil {
		return err
	}
	for _, e := range unsafe.Slice(entries, int(r.a)) {
		key := unsafe.Slice((*byte)(e.key), int(e.key_len))
		value := unsafe.Slice((*byte)(e.value), int(e.value_len))
		if !fn(key[:len(key):len(key)], value[:len(value):len(value)]) {
			break
		}
	}
	return nil
}

// Offset is where the store stands: the next record to process; -1: nothing was processed yet.
func (t *StateTxn) Offset() (int64, error) {
	leave, err := t.enter("state offset")
	if err != nil {
		return 0, err
	}
	defer leave()
	return int64(C.bw_state_offset(t.raw)), nil
}

// Commit: the changes and the offset behind the batch, together. ErrBusy: the store had to grow, nothing was committed, the batch comes again. The
// transaction is over either way.
func (t *StateTxn) Commit() error {
	if t != nil && t.reads {
		return failure("state commit", ErrInvalidArgument, "a transaction of State.Read ends by Abort")
	}
	return t.end("state commit", func() error { return resultError("state commit", C.bwgo_state_commit(t.raw)) })
}

// Abort: nothing has changed, and the batch comes again. After Commit it does nothing, so that it can be deferred.
func (t *StateTxn) Abort() error {
	if t != nil && t.s != nil && t.raw == nil {
		return nil
	}
	return t.end("state abort", func() error {
		C.bw_state_abort(t.raw)
		return nil
	})
}

func (t *StateTxn) end(op string, f func() error) error {
	leave, err := t.enter(op)
	if err != nil {
		return err
	}
	if t.inside {
		return failure(op, ErrInvalidArgument, "Process commits by itself; return an error to abort")
	}
	defer leave()
	t.s.c.dead()
	err = f()
	t.raw = nil
	t.s.open--
	runtime.UnlockOSThread()
	return err
}
