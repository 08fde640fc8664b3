package busway

/*
#include "shim.h"
*/
import "C"

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"
)

// pollWait waits for a consumer's descriptor in Go's network poller, so that a consumer that sleeps holds no thread.
type pollWait struct {
	file *os.File
	conn syscall.RawConn
}

// pollSlice is how long it sleeps at most: a member has leases to renew and commits to send, which happens inside a poll.
const pollSlice = 250 * time.Millisecond

// open: with a descriptor of its own of the same thing, which can be closed without the consumer's. It stays as it was set: the library reads
// from it without blocking.
func (c *consumer) openWait() error {
	r := C.bwgo_reader_fd(c.r)
	if err := resultError("poll", r); err != nil {
		return err
	}
	fd, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(r.n), syscall.F_DUPFD_CLOEXEC, 0)
	if errno != 0 {
		return failure("poll", ErrIO, "can't duplicate the consumer's descriptor: "+errno.Error())
	}
	if err := syscall.SetNonblock(int(fd), true); err != nil {
		syscall.Close(int(fd))
		return failure("poll", ErrIO, "can't make the consumer's descriptor non-blocking: "+err.Error())
	}
	file := os.NewFile(fd, "busway consumer")
	conn, err := file.SyscallConn()
	if err == nil {
		err = file.SetReadDeadline(time.Time{})
	}
	if err != nil {
		file.Close()
		return failure("poll", ErrIO, "Go's poller doesn't take the consumer's descriptor: "+err.Error())
	}
	c.wait = &pollWait{file, conn}
	return nil
}

func (w *pollWait) close() {
	if w != nil {
		w.file.Close()
	}
}

// pollPoller is pollHeld by the poller. The look at the consumer is made inside Read, behind its forgetting what was told before, so that no
// event falls between the look and the wait; and until the descriptor is not readable any more, since Go waits for changes alone.
func (c *consumer) pollPoller(ctx context.Context) (Batch, bool, error) {
	if c.wait == nil {
		if err := c.openWait(); err != nil {
			return Batch{}, false, err
		}
	}
	stop := func() {}
	if ctx.Done() != nil {
		stop = afterDone(ctx, c.wake)
	}
	code := C.int32_t(ErrTimedOut)
	for Code(code) == ErrTimedOut {
		_ = c.wait.file.SetReadDeadline(time.Now().Add(pollSlice))
		err := c.wait.conn.Read(func(fd uintptr) bool {
			if c.state != nil {
				code = -1
				return true
			}
			c.dead()
			code = C.bwgo_reader_poll_edge(c.r, C.int(fd))
			return Code(code) != ErrTimedOut
		})
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			stop()
			return Batch{}, false, failure("poll", ErrIO, err.Error())
		}
		if Code(code) == ErrTimedOut && (ctx.Err() != nil || c.turn.want.Load() > 0) {
			stop()
			return Batch{}, ctx.Err() == nil, ctx.Err()
		}
	}
	stop()
	return c.polledBy(ctx, code)
}
