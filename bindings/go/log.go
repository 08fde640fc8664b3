package busway

import (
	"encoding/binary"
	"io"
	"os"
	"syscall"
	"time"
)

// LogLevel is how important a message is, as syslog counts.
type LogLevel int

// Levels.
const (
	LogError LogLevel = 3
	LogWarn  LogLevel = 4
	LogInfo  LogLevel = 6
	LogDebug LogLevel = 7
)

func (l LogLevel) String() string {
	switch {
	case l <= LogError:
		return "error"
	case l == LogWarn:
		return "warn"
	case l <= LogInfo:
		return "info"
	}
	return "debug"
}

// logPipe: C writes whole messages to fd, a goroutine reads them; it waits in Go's poller, not in a thread.
type logPipe struct {
	fd   int
	done chan struct{}
}

func newLogPipe(fn func(LogLevel, string)) (*logPipe, error) {
	var fds [2]int
	if err := syscall.Pipe2(fds[:], syscall.O_CLOEXEC|syscall.O_NONBLOCK); err != nil {
		return nil, err
	}
	p := &logPipe{fd: fds[1], done: make(chan struct{})}
	reader := os.NewFile(uintptr(fds[0]), "busway log")
	go func() {
		defer close(p.done)
		defer reader.Close()
		var head [8]byte
		var text [4096]byte
		for {
			if _, err := io.ReadFull(reader, head[:]); err != nil {
				return
			}
			n := binary.LittleEndian.Uint32(head[:4])
			if n > uint32(len(text)) {
				return
			}
			if _, err := io.ReadFull(reader, text[:n]); err != nil {
				return
			}
			fn(LogLevel(binary.LittleEndian.Uint32(head[4:])), string(text[:n]))
		}
	}()
	return p, nil
}

// close ends the goroutine when it has told what was written; a callback that is in the way is not waited for.
func (p *logPipe) close() {
	if p == nil {
		return
	}
	syscall.Close(p.fd)
	select {
	case <-p.done:
	case <-time.After(time.Second):
	}
}
