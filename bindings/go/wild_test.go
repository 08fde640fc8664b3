package busway

// What a program may do wrong: each is an error or a panic of Go, never a crash, a hang or a wild read.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestWildNilAndZeroHandles(t *testing.T) {
	ctx := soon(t)
	for _, b := range []*Bus{nil, {}} {
		_, err := b.Producer()
		is(t, err, ErrInvalidArgument)
		_, err = b.Consumer()
		is(t, err, ErrInvalidArgument)
		_, err = b.Queue(ctx, "g", nil)
		is(t, err, ErrInvalidArgument)
		_, err = b.Stats()
		is(t, err, ErrInvalidArgument)
		_, err = b.Admin().Status(ctx)
		is(t, err, ErrInvalidArgument)
		is(t, b.Close(), ErrInvalidArgument)
	}
	var a *Admin
	is(t, a.DeleteTopic(ctx, "t"), ErrInvalidArgument)
	for _, p := range []*Producer{nil, {}} {
		_, err := p.Send(ctx, "t", 0, Record{})
		is(t, err, ErrInvalidArgument)
		is(t, p.Flush(ctx), ErrInvalidArgument)
		is(t, p.InitTransactions(ctx), ErrInvalidArgument)
		_, err = p.Reserve(ctx, "t", 0, Record{}, 1)
		is(t, err, ErrInvalidArgument)
		is(t, p.Close(), ErrInvalidArgument)
	}
	for _, c := range []*Consumer{nil, {}} {
		_, err := c.Poll(ctx)
		is(t, err, ErrInvalidArgument)
		is(t, c.Commit(ctx), ErrInvalidArgument)
		is(t, c.Subscribe("t"), ErrInvalidArgument)
		_, err = c.State()
		is(t, err, ErrInvalidArgument)
		c.Wake()
		is(t, c.Close(), ErrInvalidArgument)
	}
	for _, q := range []*Queue{nil, {}} {
		_, err := q.Poll(ctx, 1)
		is(t, err, ErrInvalidArgument)
		is(t, q.Ack(Message{}), ErrInvalidArgument)
		is(t, q.AckSync(ctx, Message{}), ErrInvalidArgument)
		q.Wake()
		is(t, q.Close(), ErrInvalidArgument)
	}
	var s *State
	_, _, err := s.Begin(ctx)
	is(t, err, ErrInvalidArgument)
	_, err = (&State{}).Process(ctx, 1, func(*StateTxn, View) error { return nil })
	is(t, err, ErrInvalidArgument)
	is(t, (&StateTxn{}).Put(nil, nil), ErrInvalidArgument)
	is(t, (*StateTxn)(nil).Commit(), ErrInvalidArgument)
	is(t, (*Transaction)(nil).Commit(ctx), ErrInvalidArgument)
	(*Reservation)(nil).Abort()
	_, err = (*Reservation)(nil).Commit(1)
	is(t, err, ErrInvalidArgument)
}

func TestWildUseAfterCloseAndDoubleClose(t *testing.T) {
	b := aBus(t)
	topic, ctx := aTopic(t, b, 1), soon(t)
	p, c := aProducer(t, b), aConsumer(t, b, topic, WithGroup(topic))
	q, err := b.Queue(ctx, topic+".q", []string{topic}, nil)
	must(t, err)
	sc := aConsumer(t, b, "", WithGroup(topic+".s"))
	s, err := sc.State(WithStateDir(t.TempDir()), nil)
	must(t, err)
	for i := 0; i < 2; i++ {
		for _, closer := range []io.Closer{p, c, q, s, sc} {
			must(t, closer.Close())
		}
	}
	c.Wake()
	q.Wake()
	checkClosed(t, map[string]func() error{
		"Send":           func() error { _, err := p.Send(ctx, topic, 0, Record{}); return err },
		"SendBatch":      func() error { _, err := p.SendBatch(ctx, topic, 0, values(2)); return err },
		"SendMany":       func() error { _, err := p.SendMany(ctx, topic, 0, values(2)); return err },
		"SendMany, none": func() error { _, err := p.SendMany(ctx, topic, 0, nil); return err },
		"SendAsync":      func() error { return p.SendAsync(ctx, topic, 0, Record{}, nil) },
		"SendManyAsync":  func() error { _, err := p.SendManyAsync(ctx, topic, 0, values(2), nil); return err },
		"Reserve":        func() error { _, err := p.Reserve(ctx, topic, 0, Record{}, 1); return err },
		"Producer.Poll":  func() error { _, err := p.Poll(ctx); return err },
		"Producer.Flush": func() error { return p.Flush(ctx) },
		"Producer.Fd":    func() error { _, err := p.Fd(); return err },
		"Begin":          func() error { _, err := p.Begin(); return err },
		"Poll":           func() error { _, err := c.Poll(ctx); return err },
		"TryPoll":        func() error { _, err := c.TryPoll(); return err },
		"Records":        func() error { _, err := c.Records(ctx); return err },
		"Each":           func() error { return c.Each(ctx, func(View) error { return nil }) },
		"Assign":         func() error { return c.Assign(topic, 0, 0) },
		"Subscribe":      func() error { return c.Subscribe(topic) },
		"Seek":           func() error { return c.Seek(topic, 0, 0) },
		"Commit":         func() error { return c.Commit(ctx) },
		"CommitAsync":    func() error { return c.CommitAsync(nil) },
		"Committed":      func() error { return c.Committed(ctx, []TopicPartition{{Topic: topic}}) },
		"Assignment":     func() error { _, err := c.Assignment(); return err },
		"GroupMetadata":  func() error { _, err := c.GroupMetadata(); return err },
		"Consumer.Fd":    func() error { _, err := c.Fd(); return err },
		"Queue.Poll":     func() error { _, err := q.Poll(ctx, 1); return err },
		"Queue.Ack":      func() error { return q.Ack() },
		"Queue.Flush":    func() error { return q.Flush(ctx) },
		"State.Begin":    func() error { _, _, err := s.Begin(ctx); return err },
		"State.Process":  func() error { _, err := s.Process(ctx, 1, func(*StateTxn, View) error { return nil }); return err },
		"State.Read":     func() error { _, err := s.Read(topic, 0); return err },
	})
	must(t, b.Close())
	must(t, b.Close())
	checkClosed(t, map[string]func() error{
		"Bus.Producer":      func() error { _, err := b.Producer(); return err },
		"Bus.Consumer":      func() error { _, err := b.Consumer(); return err },
		"Bus.Queue":         func() error { _, err := b.Queue(ctx, "g", []string{topic}); return err },
		"Bus.Stats":         func() error { _, err := b.Stats(); return err },
		"Admin.CreateTopic": func() error { return b.Admin().CreateTopic(ctx, "x", 1) },
		"Admin.Status":      func() error { _, err := b.Admin().Status(ctx); return err },
	})
}

// checkClosed: each is ErrClosed.
func checkClosed(t *testing.T, uses map[string]func() error) {
	t.Helper()
	for name, use := range uses {
		use := use
		t.Run(name, func(t *testing.T) { is(t, use(), ErrClosed, fs.ErrClosed) })
	}
}

func TestWildBusClosedBeforeItsChildren(t *testing.T) {
	b := aBus(t)
	topic, ctx := aTopic(t, b, 1), soon(t)
	p, c := aProducer(t, b), aConsumer(t, b, topic)
	sent(t, p, topic, 3)
	batch, err := c.Poll(ctx)
	must(t, err)
	ends(t, "Close", func() { must(t, b.Close()) })
	_, err = p.Send(ctx, topic, 0, Record{})
	is(t, err, ErrClosed)
	_, err = c.Poll(ctx)
	is(t, err, ErrClosed)
	if panics(func() { batch.At(0).Value() }) == nil {
		t.Fatal("a view of a closed bus")
	}
	must(t, p.Close())
	must(t, c.Close())
}

func TestWildViewsAfterTheirTime(t *testing.T) {
	b := aBus(t)
	topic, ctx := aTopic(t, b, 1), soon(t)
	p := aProducer(t, b)
	for name, end := range map[string]func(c *Consumer) error{
		"poll":     func(c *Consumer) error { _, err := c.TryPoll(); return ignore(err, ErrTimedOut) },
		"seek":     func(c *Consumer) error { return c.Seek(topic, 0, 0) },
		"assign":   func(c *Consumer) error { return c.Assign(topic, 0, 0) },
		"unassign": func(c *Consumer) error { return c.Unassign(topic, 0) },
		"close":    func(c *Consumer) error { return c.Close() },
	} {
		sent(t, p, topic, 2)
		c := aConsumer(t, b, topic)
		batch, err := c.Poll(ctx)
		must(t, err)
		v, kept := batch.At(1), batch.At(1).Record()
		if !v.Valid() {
			t.Fatal("not valid in its time")
		}
		must(t, end(c))
		if v.Valid() {
			t.Error(name, ": still valid")
		}
		for use, f := range map[string]func(){"Value": func() { v.Value() }, "Key": func() { v.Key() }, "Offset": func() { v.Offset() },
			"Time": func() { v.Time() }, "Record": func() { v.Record() }, "Topic": func() { v.Topic() }, "Partition": func() { v.Partition() },
			"HeaderCount": func() { v.HeaderCount() }, "EachHeader": func() { _ = v.EachHeader(nil) }, "Records": func() { batch.Records() }} {
			t.Run(use+" behind "+name, func(t *testing.T) {
				if x := panics(f); x == nil || !strings.Contains(fmt.Sprint(x), "View") {
					t.Error(x)
				}
			})
		}
		if string(kept.Value) != "v1" {
			t.Errorf("%s: the copy is %q", name, kept.Value)
		}
		must(t, c.Close())
	}
	if panics(func() { (View{}).Value() }) == nil || (View{}).Valid() {
		t.Fatal("a View that is none")
	}
	if panics(func() { (&Batch{}).At(0) }) == nil || len((&Batch{}).Records()) != 0 {
		t.Fatal("a Batch that is none")
	}
}

func ignore(err error, code Code) error {
	if errors.Is(err, code) {
		return nil
	}
	return err
}

func Test64GoroutinesOnOneProducer(t *testing.T) {
	b := aBus(t)
	topic, ctx := aTopic(t, b, 2), soon(t)
	p := aProducer(t, b)
	var told atomic.Int64
	var group sync.WaitGroup
	const each = 60
	for g := 0; g < 64; g++ {
		g := g
		group.Add(1)
		go func() {
			defer group.Done()
			for i := 0; i < each; i++ {
				var err error
				switch r := (Record{Value: []byte{byte(g), byte(i)}}); i % 3 {
				case 0:
					_, err = p.Send(ctx, topic, int32(g%2), r)
				case 1:
					_, err = p.SendMany(context.Background(), topic, int32(g%2), []Record{r})
				default:
					err = p.SendAsync(ctx, topic, int32(g%2), r, func(d Delivery) {
						if d.Err == nil {
							told.Add(1)
						}
					})
				}
				if err != nil {
					t.Error(err)
				}
			}
			if err := p.Flush(ctx); err != nil {
				t.Error(err)
			}
		}()
	}
	group.Wait()
	must(t, p.Flush(ctx))
	if told.Load() != 64*each/3 {
		t.Fatal("told: ", told.Load())
	}
	seen, c := map[[2]byte]bool{}, aConsumer(t, b, topic)
	for len(seen) < 64*each {
		got, err := c.Records(ctx)
		must(t, err)
		for _, r := range got {
			k := [2]byte{r.Value[0], r.Value[1]}
			if seen[k] {
				t.Fatal("twice")
			}
			seen[k] = true
		}
	}
}

func TestWildProducerClosedUnderItsSenders(t *testing.T) {
	b := aBus(t)
	topic, ctx := aTopic(t, b, 1), soon(t)
	p := aProducer(t, b)
	var group sync.WaitGroup
	for g := 0; g < 16; g++ {
		group.Add(1)
		go func() {
			defer group.Done()
			for {
				_, err := p.Send(ctx, topic, 0, Record{Value: []byte("x")})
				if err == nil {
					err = p.SendAsync(ctx, topic, 0, Record{Value: []byte("x")}, func(Delivery) {})
				}
				if err != nil {
					if !errors.Is(err, ErrClosed) {
						t.Error(err)
					}
					return
				}
			}
		}()
	}
	time.Sleep(20 * time.Millisecond)
	must(t, p.Close())
	ends(t, "the senders", group.Wait)
}

func TestWildManyGoroutinesOnOneConsumer(t *testing.T) {
	b := aBus(t)
	topic, ctx := aTopic(t, b, 1), soon(t)
	sent(t, aProducer(t, b), topic, 100)
	c := aConsumer(t, b, topic, WithGroup(topic), WithAutoCommit(0))
	var group sync.WaitGroup
	stop, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	for g := 0; g < 4; g++ {
		for _, f := range []func() error{
			func() error { _, err := c.Poll(stop); return err },
			func() error { return c.Seek(topic, 0, 0) },
			func() error { return c.Commit(ctx, TopicPartition{Topic: topic, Offset: 5}) },
			func() error { _, err := c.Position(topic, 0); return err },
			func() error { c.Wake(); time.Sleep(time.Millisecond); return nil },
		} {
			f := f
			group.Add(1)
			go func() {
				defer group.Done()
				for stop.Err() == nil {
					err := f()
					if err != nil && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, ErrWoken) {
						t.Error(err)
						return
					}
				}
			}()
		}
	}
	ends(t, "the goroutines", group.Wait)
}

func TestWildNamesAndNumbers(t *testing.T) {
	b := aBus(t)
	topic, ctx := aTopic(t, b, 1), soon(t)
	p, c := aProducer(t, b), aConsumer(t, b, topic)
	for _, name := range []string{"", "a\x00b", "../x", strings.Repeat("x", 1<<20), "\xff\xfe", "a b"} {
		if _, err := p.Send(ctx, name, 0, Record{Value: []byte("x")}); err == nil {
			t.Errorf("%.20q: sent", name)
		}
		if err := c.Assign(name, 0, 0); err == nil {
			t.Errorf("%.20q: assigned", name)
		}
		if err := b.Admin().CreateTopic(ctx, name, 1); err == nil {
			t.Errorf("%.20q: made", name)
		}
		if _, err := b.Consumer(WithGroup(name + "\x00")); err == nil {
			t.Errorf("%.20q: a group", name)
		}
	}
	for _, partition := range []int32{-2, 1, 1 << 30, -1 << 31} {
		_, err := p.Send(ctx, topic, partition, Record{Value: []byte("x")})
		if err == nil {
			t.Error("partition ", partition)
		}
	}
	_, err := p.SendBatch(ctx, topic, 0, nil)
	is(t, err, ErrInvalidArgument)
	_, err = p.SendBatch(ctx, topic, AnyPartition, values(2))
	is(t, err, ErrInvalidArgument)
	ctx = soon(t)
	_, err = p.Send(ctx, topic, 0, Record{Value: make([]byte, 1<<31)}) // its pages are never touched
	is(t, err, ErrRecordTooLarge)
	_, err = p.Send(soon(t), topic, 0, Record{Value: make([]byte, 64<<20)})
	is(t, err, ErrRecordTooLarge)
	_, err = p.Reserve(ctx, topic, 0, Record{}, -1)
	is(t, err, ErrInvalidArgument)
	_, err = b.Producer(WithCompression(99))
	is(t, err, ErrUnknownCodec)
	_, err = b.Consumer(WithAssignor("none such"), WithGroup("g"))
	is(t, err, ErrUnsupportedAssignor)
	for _, url := range []string{"x", "dir:", "nonsense://a", "dir:/proc/none/x", "ipc:///there/is/none.sock", "dir:a\x00b"} {
		if b, err := Open(ctx, url, WithConnectTimeout(100*time.Millisecond)); err == nil {
			t.Errorf("%q opens", url)
			b.Close()
		}
	}
	must(t, c.Assign(topic, 0, 1<<62))
	_, err = c.Poll(soon(t))
	is(t, err, ErrOffsetOutOfRange)
}

func TestWildOptionsAndFunctionsThatAreNil(t *testing.T) {
	b := aBus(t, nil)
	topic, ctx := aTopic(t, b, 1), soon(t)
	p, c := aProducer(t, b, nil), aConsumer(t, b, topic, nil, WithGroup(topic), WithRebalance(nil))
	must(t, p.SendAsync(ctx, topic, 0, Record{}, nil))
	must(t, p.Flush(ctx))
	_, err := c.Poll(ctx)
	must(t, err)
	must(t, c.CommitAsync(nil))
	must(t, c.Commit(ctx))
	is(t, Dump("x", false, nil), ErrInvalidArgument)
	_, err = (&State{}).Process(ctx, 1, nil)
	is(t, err, ErrInvalidArgument)
}

func TestWildStorm(t *testing.T) {
	b := aBus(t)
	topic := aTopic(t, b, 1)
	var group sync.WaitGroup
	for g := 0; g < 8; g++ {
		group.Add(1)
		go func() {
			defer group.Done()
			for i := 0; i < 5; i++ {
				own, err := Open(context.Background(), "dir:"+folder)
				if err != nil {
					t.Error(err)
					return
				}
				p, _ := own.Producer()
				c, _ := own.Consumer()
				if _, err := p.Send(context.Background(), topic, 0, Record{Value: []byte("x")}); err != nil {
					t.Error(err)
				}
				if err := c.Assign(topic, 0, OffsetBeginning); err != nil {
					t.Error(err)
				}
				if _, err := c.Poll(context.Background()); err != nil {
					t.Error(err)
				}
				if err := own.Close(); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	group.Wait()
}

func TestHundredsOfSleepersWithPollerHoldNoThreads(t *testing.T) {
	b := aBus(t)
	topic := aTopic(t, b, 1)
	threads := func() int {
		list, err := os.ReadDir("/proc/self/task")
		must(t, err)
		return len(list)
	}
	before := threads()
	ctx, cancel := context.WithCancel(soon(t))
	var group sync.WaitGroup
	for i := 0; i < 200; i++ {
		c := aConsumer(t, b, topic, WithPoller())
		group.Add(1)
		go func() {
			defer group.Done()
			if _, err := c.Poll(ctx); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}()
	}
	time.Sleep(100 * time.Millisecond)
	if now := threads(); now > before+8*runtime.GOMAXPROCS(0)+8 {
		t.Errorf("%d threads, %d before", now, before)
	}
	cancel()
	ends(t, "200 polls", group.Wait)
}
