package busway

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// The tests share one folder, and each has topics of its own.
var (
	folder  string
	topics  atomic.Int64
	patient = 20 * time.Second
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if os.Getenv("BUSWAY_GO_TEST") == "abi" { // see TestLibraryOfAnotherMajorVersionIsRefused
		_, err := Open(context.Background(), "dir:/there/is/none")
		fmt.Println(err)
		return 0
	}
	dir, err := os.MkdirTemp("", "bwgo")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	folder = dir
	os.Setenv("BUSWAY_GO_FOLDER", dir) // for the examples
	defer os.RemoveAll(dir)
	defer endDaemon()
	return m.Run()
}

// endDaemon ends the folder's daemon.
func endDaemon() {
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	defer cancel()
	b, err := Open(ctx, "dir:"+folder)
	if err != nil {
		return
	}
	status, err := Decode[struct{ PID int }](b.Admin().Status(ctx))
	b.Close()
	if err != nil || status.PID <= 1 {
		return
	}
	_ = syscall.Kill(status.PID, syscall.SIGTERM)
	for i := 0; i < 500 && syscall.Kill(status.PID, 0) == nil; i++ {
		time.Sleep(10 * time.Millisecond)
	}
}

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	t.Cleanup(cancel)
	return ctx
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// is fails the test unless err is all of these.
func is(t *testing.T, err error, wanted ...error) {
	t.Helper()
	for _, w := range wanted {
		if !errors.Is(err, w) {
			t.Fatalf("got %v, wanted %v", err, w)
		}
	}
}

// aBus opens the folder. When the test ends it is closed, and no goroutine may be left.
func aBus(t *testing.T, options ...Option) *Bus {
	t.Helper()
	before := runtime.NumGoroutine()
	b, err := Open(soon(t), "dir:"+folder, options...)
	must(t, err)
	t.Cleanup(func() {
		must(t, b.Close())
		var stacks [1 << 16]byte
		for i := 0; ; i++ {
			if runtime.NumGoroutine() <= before {
				return
			}
			if i == 500 {
				t.Fatalf("%d goroutines are left of %d:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks[:], true)])
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
	return b
}

func aTopic(t *testing.T, b *Bus, partitions int32) string {
	t.Helper()
	name := fmt.Sprintf("t%d.%s", topics.Add(1), strings.NewReplacer("/", "-", "_", "-").Replace(t.Name()))
	must(t, b.Admin().CreateTopic(soon(t), name, partitions))
	return name
}

func aProducer(t *testing.T, b *Bus, options ...ProducerOption) *Producer {
	t.Helper()
	p, err := b.Producer(options...)
	must(t, err)
	return p
}

// aConsumer reads a topic from its beginning.
func aConsumer(t *testing.T, b *Bus, topic string, options ...ConsumerOption) *Consumer {
	t.Helper()
	c, err := b.Consumer(options...)
	must(t, err)
	if topic != "" {
		must(t, c.Assign(topic, AnyPartition, OffsetBeginning))
	}
	return c
}

func values(n int) []Record {
	out := make([]Record, n)
	for i := range out {
		out[i].Value = []byte(fmt.Sprint("v", i))
	}
	return out
}

func sent(t *testing.T, p *Producer, topic string, n int) {
	t.Helper()
	_, err := p.SendBatch(soon(t), topic, 0, values(n))
	must(t, err)
}

// ends fails the test when f does not return soon.
func ends(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(patient):
		t.Fatal(what, " does not end")
	}
}

// panics is what f panics with.
func panics(f func()) (value any) {
	defer func() { value = recover() }()
	f()
	return nil
}
