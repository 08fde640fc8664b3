package busway

// What C calls. Nothing may unwind through C's frames, which hold locks: a panic is kept, and thrown again when C has returned.

/*
#include "shim.h"
*/
import "C"

import (
	"runtime"
	"runtime/cgo"
)

// panicked is what a callback threw.
type panicked struct{ value any }

// throw goes on with a panic behind C; nil: there was none.
func (p *panicked) throw() {
	if p != nil {
		panic(p.value)
	}
}

// guarded calls f; what it threw comes back.
func guarded(f func()) (thrown *panicked) {
	returned := false
	defer func() {
		if !returned {
			thrown = &panicked{recover()}
		}
	}()
	f()
	returned = true
	return nil
}

//export bwgoRebalance
func bwgoRebalance(handle C.uintptr_t, event C.int, parts *C.bw_topic_partition, count C.size_t) {
	c := cgo.Handle(handle).Value().(*consumer)
	list := partsToGo(parts, int(count), nil)
	ended := make(chan *panicked)
	go func() { // runtime.Goexit (testing.T.FailNow) would take C's thread with it: here it ends only this
		thrown := &panicked{"busway: runtime.Goexit in a rebalance function"}
		runtime.LockOSThread()
		c.turn.owner.Store(threadID())
		defer func() {
			c.turn.owner.Store(0)
			runtime.UnlockOSThread()
			ended <- thrown
		}()
		thrown = guarded(func() { c.onEvent(c.outer, Rebalance(event), list) })
	}()
	if thrown := <-ended; thrown != nil && c.panics == nil {
		c.panics = thrown
		C.bw_consumer_wake(c.r.consumer) // the call that this is inside of must not go on waiting
	}
}

//export bwgoProcess
func bwgoProcess(handle C.uintptr_t, txn *C.bw_state_txn, batch *C.bw_batch, record *C.bw_record_view) C.int {
	p := cgo.Handle(handle).Value().(*processing)
	return p.record(txn, batch, record)
}

//export bwgoRedrive
func bwgoRedrive(handle C.uintptr_t, moved, skipped C.int64_t) C.int {
	if cgo.Handle(handle).Value().(*redriving).told(int64(moved), int64(skipped)) {
		return 1
	}
	return 0
}

//export bwgoFinding
func bwgoFinding(handle C.uintptr_t, path *C.char, position C.uint64_t, offset C.int64_t, isError C.int, message *C.char) {
	v := cgo.Handle(handle).Value().(*verifying)
	if v.finding == nil || v.thrown != nil {
		return
	}
	f := Finding{C.GoString(path), uint64(position), int64(offset), isError != 0, C.GoString(message)}
	v.thrown = guarded(func() { v.finding(f) })
}

//export bwgoProgress
func bwgoProgress(handle C.uintptr_t, done, total C.uint64_t) {
	v := cgo.Handle(handle).Value().(*verifying)
	if v.progress == nil || v.thrown != nil {
		return
	}
	v.thrown = guarded(func() { v.progress(uint64(done), uint64(total)) })
}

//export bwgoDump
func bwgoDump(handle C.uintptr_t, batch *C.bw_dump_batch, record *C.bw_record_view) C.int {
	d := cgo.Handle(handle).Value().(*dumping)
	more := false
	d.thrown = guarded(func() { more = d.show(batch, record) })
	if more {
		return 1
	}
	return 0
}

// handleOf makes something known to C for the time of one call.
func handleOf(v any) (C.uintptr_t, func()) {
	h := cgo.NewHandle(v)
	return C.uintptr_t(h), h.Delete
}
