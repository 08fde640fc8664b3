package busway

/*
#cgo pkg-config: libbusway
#cgo CFLAGS: -O2 -pthread
#include "shim.h"
*/
import "C"

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"
	"sync"
	"time"
	"unsafe"
)

// LibraryVersion is the version of the libbusway that is loaded, e.g. "0.1.0".
func LibraryVersion() string { return C.GoString(C.bw_version()) }

// HeaderVersion is the version of libbusway that this program was built with.
const HeaderVersion = C.BW_VERSION_STRING

// checkABI refuses a library of another major version than the program was built with.
func checkABI(library, header string) error {
	major := func(v string) (int, bool) {
		n, err := strconv.Atoi(strings.SplitN(v, ".", 2)[0])
		return n, err == nil
	}
	l, ok := major(library)
	h, _ := major(header)
	if ok && l == h {
		return nil
	}
	return failure("open", ErrUnsupportedVersion, "the loaded libbusway is version "+library+", this program was built for "+header+
		": another major version has another ABI. Install libbusway "+strconv.Itoa(h)+".x, or build the program anew")
}

// Transport is how a bus reaches the data.
type Transport int

// Transports.
const (
	TransportAuto   Transport = C.BW_TRANSPORT_AUTO   // direct where permitted, else through the socket
	TransportDirect Transport = C.BW_TRANSPORT_DIRECT // direct, or an error that says why not
	TransportIPC    Transport = C.BW_TRANSPORT_IPC    // everything through the daemon's socket
)

type busConfig struct {
	transport        Transport
	connect, request time.Duration
	clientID, daemon string
	log              func(LogLevel, string)
}

// An Option of Open.
type Option func(*busConfig)

// WithTransport chooses the way; default: TransportAuto.
func WithTransport(t Transport) Option { return func(c *busConfig) { c.transport = t } }

// WithConnectTimeout bounds connecting, and the wait for an embedded daemon to come up; default: 5 s.
func WithConnectTimeout(d time.Duration) Option { return func(c *busConfig) { c.connect = d } }

// WithRequestTimeout bounds each administrative request; default: 30 s.
func WithRequestTimeout(d time.Duration) Option { return func(c *busConfig) { c.request = d } }

// WithClientID is what `busway status` shows; default: the program's name.
func WithClientID(id string) Option { return func(c *busConfig) { c.clientID = id } }

// WithDaemonPath is the buswayd for dir: URLs; default: $BUSWAYD, beside the program or the library, then $PATH.
func WithDaemonPath(path string) Option { return func(c *busConfig) { c.daemon = path } }

// WithLogger gets what the library has to say, in a goroutine of the bus. A message is lost rather than waited for when fn is slow.
func WithLogger(fn func(level LogLevel, message string)) Option {
	return func(c *busConfig) { c.log = fn }
}

// Bus is a process's connection to a Busway: a folder ("dir:/path"), a daemon ("ipc:///run/x/bus.sock"), or what else the URL says; "" is
// the host's. It may be used by any number of goroutines. Like everything else that has a Close, it must be closed; its Close closes what is
// still open of it.
type Bus struct{ *bus }

// bus is what Bus has inside: a zero Bus is told from an open one.
type bus struct {
	gate    gate
	c       *C.bw_bus
	request time.Duration
	log     *logPipe
	mu      sync.Mutex
	open    map[child]struct{}
	closing sync.Mutex
}

// child is a producer, consumer or queue of a bus.
type child interface{ shutdown() error }

// Open connects to a bus. Errors: ErrInvalidArgument (the URL), ErrNoCoordinator, ErrNotPermitted, ErrUnsupportedVersion, ErrNewerFormat,
// ErrAlreadyRunning, ErrDiskFull, ErrIO.
func Open(ctx context.Context, url string, options ...Option) (*Bus, error) {
	if err := checkABI(LibraryVersion(), HeaderVersion); err != nil {
		return nil, err
	}
	config := busConfig{}
	for _, o := range options {
		if o != nil {
			o(&config)
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	type opened struct {
		b   *bus
		err error
	}
	o, err := bounded(ctx, "open", func() opened {
		b, err := open(url, &config)
		return opened{b, err}
	}, func(o opened) {
		if o.b != nil {
			o.b.shutdown()
		}
	})
	if err == nil {
		err = o.err
	}
	if err != nil {
		return nil, err
	}
	return &Bus{o.b}, nil
}

func open(url string, config *busConfig) (*bus, error) {
	a := arena{op: "open"}
	defer a.free()
	curl, id, daemon := a.optional(url), a.optional(config.clientID), a.optional(config.daemon)
	if a.fail != nil {
		return nil, a.fail
	}
	b := &bus{gate: newGate(), open: map[child]struct{}{}, request: config.request}
	if b.request <= 0 {
		b.request = 30 * time.Second
	}
	fd := C.int(-1)
	if config.log != nil {
		var err error
		if b.log, err = newLogPipe(config.log); err != nil {
			return nil, failure("open", ErrIO, "can't make a pipe for the log: "+err.Error())
		}
		fd = C.int(b.log.fd)
	}
	var connect, request C.int32_t
	if config.connect > 0 {
		connect = toMillis(config.connect)
	}
	if config.request > 0 {
		request = toMillis(config.request)
	}
	var out unsafe.Pointer
	r := C.bwgo_bus_open(curl, C.int(config.transport), connect, request, id, daemon, fd, &out)
	if err := resultError("open", r); err != nil {
		b.log.close()
		return nil, err
	}
	b.c = (*C.bw_bus)(out)
	return b, nil
}

// Close closes the bus, and before it whatever is still open of it. ErrBusy: a state's transaction is open.
func (b *Bus) Close() error {
	if b == nil || b.bus == nil {
		return errNil("close", "bus", "Open")
	}
	return b.bus.shutdown()
}

func (b *bus) shutdown() error {
	b.closing.Lock()
	defer b.closing.Unlock()
	if b.gate.isShut() {
		return nil
	}
	var first error
	for {
		b.mu.Lock()
		var some child
		for c := range b.open {
			some = c
			break
		}
		b.mu.Unlock()
		if some == nil {
			break
		}
		err := some.shutdown()
		if err != nil && first == nil {
			first = err
		}
		b.mu.Lock()
		_, still := b.open[some]
		b.mu.Unlock()
		if still { // it can't be closed now
			return err
		}
	}
	if !b.gate.shut() {
		return nil
	}
	<-b.gate.out
	b.mu.Lock() // what was made between the last look and the shutting
	rest := make([]child, 0, len(b.open))
	for c := range b.open {
		rest = append(rest, c)
	}
	b.mu.Unlock()
	for _, c := range rest {
		if err := c.shutdown(); err != nil && first == nil {
			first = err
		}
	}
	C.bw_bus_close(b.c)
	b.log.close()
	return first
}

// enter: the bus is there and open; then leave.
func (b *Bus) enter(op string) error {
	if b == nil || b.bus == nil {
		return errNil(op, "bus", "Open")
	}
	if !b.gate.enter() {
		return errClosed(op, "bus")
	}
	return nil
}

func (b *bus) adopt(c child) {
	b.mu.Lock()
	b.open[c] = struct{}{}
	b.mu.Unlock()
}

func (b *bus) forget(c child) {
	b.mu.Lock()
	delete(b.open, c)
	b.mu.Unlock()
}

// Stats is what this bus does: url, transport and why not direct, counters of records, bytes, waits and system calls.
func (b *Bus) Stats() (json.RawMessage, error) {
	if err := b.enter("stats"); err != nil {
		return nil, err
	}
	defer b.gate.leave()
	text := C.bw_bus_stats(b.c)
	if text == nil {
		return nil, failure("stats", ErrNoMemory, "")
	}
	defer C.bw_free(unsafe.Pointer(text))
	return json.RawMessage(C.GoString(text)), nil
}
