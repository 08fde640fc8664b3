package busway

// Waits that are cancelled, and callbacks that misbehave.

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"time"
)

// cancelled fails the test unless f ends soon after its context does, with the context's error.
func cancelled(t *testing.T, what string, f func(ctx context.Context) error) {
	t.Helper()
	t.Run(what, func(t *testing.T) { cancelledNow(t, what, f) })
}

func cancelledNow(t *testing.T, what string, f func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	begun := time.Now()
	time.AfterFunc(30*time.Millisecond, cancel)
	var err error
	ends(t, what, func() { err = f(ctx) })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%s: %v", what, err)
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("%s took %v", what, took)
	}
	deadline, stop := context.WithTimeout(context.Background(), 5*time.Millisecond)
	defer stop()
	ends(t, what, func() { err = f(deadline) })
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%s, with a deadline: %v", what, err)
	}
	over, end := context.WithCancel(context.Background())
	end()
	if err := f(over); !errors.Is(err, context.Canceled) {
		t.Errorf("%s, with a context that is over: %v", what, err)
	}
}

func TestCancelEndsEveryWait(t *testing.T) {
	for _, transport := range []Transport{TransportDirect, TransportIPC} {
		b := aBus(t, WithTransport(transport))
		topic := aTopic(t, b, 1)
		c := aConsumer(t, b, topic)
		cancelled(t, "Poll", func(ctx context.Context) error { _, err := c.Poll(ctx); return err })
		cancelled(t, "Records", func(ctx context.Context) error { _, err := c.Records(ctx); return err })
		cancelled(t, "Each", func(ctx context.Context) error { return c.Each(ctx, func(View) error { return nil }) })
		spinning := aConsumer(t, b, topic, WithSpin(time.Minute))
		cancelled(t, "Poll that spins", func(ctx context.Context) error { _, err := spinning.Poll(ctx); return err })
		polled := aConsumer(t, b, topic, WithPoller())
		cancelled(t, "Poll with a poller", func(ctx context.Context) error { _, err := polled.Poll(ctx); return err })
		member := aConsumer(t, b, "", WithGroup(topic))
		must(t, member.Subscribe(topic))
		cancelled(t, "a member's Poll", func(ctx context.Context) error {
			for {
				if _, err := member.Poll(ctx); err != nil && !errors.Is(err, ErrNoOffset) {
					return err
				}
			}
		})
		q, err := b.Queue(soon(t), topic+".q", []string{topic})
		must(t, err)
		cancelled(t, "Queue.Poll", func(ctx context.Context) error { _, err := q.Poll(ctx, 10); return err })
		sc := aConsumer(t, b, "", WithGroup(topic+".s"))
		s, err := sc.State(WithFastState(true), WithStateDir(t.TempDir()))
		must(t, err)
		must(t, sc.Assign(topic, 0, OffsetBeginning))
		cancelled(t, "State.Begin", func(ctx context.Context) error { _, _, err := s.Begin(ctx); return err })
		cancelled(t, "State.Process", func(ctx context.Context) error {
			_, err := s.Process(ctx, 1, func(*StateTxn, View) error { return nil })
			return err
		})
		p := aProducer(t, b)
		cancelled(t, "Producer.Poll", func(ctx context.Context) error { _, err := p.Poll(ctx); return err })
		_, err = c.Poll(alreadyOver())
		is(t, err, context.Canceled)
	}
}

func alreadyOver() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

func TestCancelEndsCallsOfTheDaemon(t *testing.T) {
	b := aBus(t)
	topic := aTopic(t, b, 1)
	over := alreadyOver()
	_, err := Open(over, "dir:"+folder)
	is(t, err, context.Canceled)
	_, err = b.Queue(over, "g", []string{topic})
	is(t, err, context.Canceled)
	_, err = b.Admin().Status(over)
	is(t, err, context.Canceled)
	c := aConsumer(t, b, topic, WithGroup(topic))
	is(t, c.Commit(over), context.Canceled)
	is(t, c.Committed(over, []TopicPartition{{Topic: topic}}), context.Canceled)
	p := aProducer(t, b, WithTransactionalID(topic))
	is(t, p.InitTransactions(over), context.Canceled)
	_, err = p.SendMany(over, topic, 0, values(2))
	is(t, err, context.Canceled)
}

// A reservation that is out holds the partition: other writers wait.
func TestCancelEndsASendThatWaitsForAnotherWriter(t *testing.T) {
	b := aBus(t, WithTransport(TransportDirect))
	topic := aTopic(t, b, 1)
	holder, p := aProducer(t, b), aProducer(t, b)
	sent(t, p, topic, 1)
	r, err := holder.Reserve(soon(t), topic, 0, Record{}, 10)
	must(t, err)
	cancelled(t, "Send", func(ctx context.Context) error {
		_, err := p.Send(ctx, topic, 0, Record{Value: []byte("x")})
		return err
	})
	cancelled(t, "SendBatch", func(ctx context.Context) error { _, err := p.SendBatch(ctx, topic, 0, values(3)); return err })
	cancelled(t, "SendMany", func(ctx context.Context) error { _, err := p.SendMany(ctx, topic, 0, values(3)); return err })
	cancelled(t, "Reserve", func(ctx context.Context) error { _, err := p.Reserve(ctx, topic, 0, Record{}, 3); return err })
	is(t, b.Close(), ErrBusy)
	r.Abort()
	ends(t, "Close", func() { must(t, p.Close()) })
}

func TestCancelEndsASendThatWaitsForMemory(t *testing.T) {
	b := aBus(t, WithTransport(TransportDirect))
	topic := aTopic(t, b, 1)
	holder, p := aProducer(t, b), aProducer(t, b, WithBufferMemory(1<<16))
	r, err := holder.Reserve(soon(t), topic, 0, Record{}, 10) // nothing gets through
	must(t, err)
	cancelled(t, "SendManyAsync", func(ctx context.Context) error {
		for {
			if _, err := p.SendManyAsync(ctx, topic, 0, values(100), nil); err != nil {
				return err
			}
		}
	})
	cancelled(t, "Flush", p.Flush)
	r.Abort()
	must(t, p.Flush(soon(t)))
}

func TestCloseEndsEveryWait(t *testing.T) {
	b := aBus(t)
	topic := aTopic(t, b, 1)
	ctx := context.Background()
	c, polled, p := aConsumer(t, b, topic), aConsumer(t, b, topic, WithPoller()), aProducer(t, b)
	q, err := b.Queue(ctx, topic+".q", []string{topic})
	must(t, err)
	waits := map[string]func() error{
		"Poll":               func() error { _, err := c.Poll(ctx); return err },
		"Poll with a poller": func() error { _, err := polled.Poll(ctx); return err },
		"Producer.Poll":      func() error { _, err := p.Poll(soon(t)); return err },
		"Queue.Poll":         func() error { _, err := q.Poll(ctx, 1); return err },
	}
	outcome := make(chan error, len(waits))
	for _, f := range waits {
		f := f
		go func() { outcome <- f() }()
	}
	time.Sleep(50 * time.Millisecond)
	ends(t, "Close", func() { must(t, b.Close()) })
	for range waits {
		is(t, <-outcome, ErrClosed)
	}
}

func TestWakeEndsAPollOnce(t *testing.T) {
	b := aBus(t)
	topic := aTopic(t, b, 1)
	for _, c := range []*Consumer{aConsumer(t, b, topic), aConsumer(t, b, topic, WithPoller()), aConsumer(t, b, topic, WithSpin(time.Minute))} {
		c := c
		time.AfterFunc(20*time.Millisecond, c.Wake)
		_, err := c.Poll(soon(t))
		is(t, err, ErrWoken)
		_, err = c.TryPoll()
		is(t, err, ErrTimedOut)
	}
}

// ---- callbacks ----

func TestWildPanicsInCallbacks(t *testing.T) {
	b := aBus(t)
	topic, ctx := aTopic(t, b, 1), soon(t)
	p := aProducer(t, b)
	sent(t, p, topic, 5)
	c := aConsumer(t, b, "", WithGroup(topic), WithOffsetReset(ResetEarliest), WithRebalance(func(_ *Consumer, e Rebalance, _ []TopicPartition) {
		if e == Assigned {
			panic("rebalance")
		}
	}))
	must(t, c.Subscribe(topic))
	if x := panics(func() {
		for {
			if _, err := c.Poll(ctx); err != nil {
				t.Error(err)
				return
			}
		}
	}); x != "rebalance" {
		t.Fatal(x)
	}
	must(t, c.Seek(topic, 0, 0)) // the consumer goes on
	batch, err := c.Poll(ctx)
	must(t, err)
	if batch.Len() != 5 {
		t.Fatal(batch.Len())
	}
	must(t, c.CommitAsync(func([]TopicPartition, error) { panic("commit") }))
	if x := panics(func() { _ = c.Commit(ctx); _ = c.Close() }); x != "commit" {
		t.Fatal(x)
	}

	told := 0
	n, err := p.SendManyAsync(ctx, topic, 0, values(10), func(i int, _ Delivery) {
		if told++; i == 4 {
			panic("delivery")
		}
	})
	must(t, err)
	if x := panics(func() { _ = p.Flush(ctx) }); x != "delivery" {
		t.Fatal(x)
	}
	must(t, p.Flush(ctx)) // the others are told, too
	if told != n {
		t.Fatal(told)
	}

	sc := aConsumer(t, b, "", WithGroup(topic+".s"))
	s, err := sc.State(WithFastState(true), WithStateDir(t.TempDir()))
	must(t, err)
	must(t, sc.Assign(topic, 0, OffsetBeginning))
	var kept *StateTxn
	if x := panics(func() {
		_, _ = s.Process(ctx, 3, func(txn *StateTxn, _ View) error {
			kept = txn
			panic("process")
		})
	}); x != "process" {
		t.Fatal(x)
	}
	is(t, kept.Put([]byte("k"), nil), ErrInvalidTxnState)
	done, err := s.Process(ctx, 3, func(txn *StateTxn, v View) error { return txn.Put(v.Value(), []byte("1")) })
	must(t, err)
	if done == 0 {
		t.Fatal("nothing done")
	}
}

func TestWildGoexitInARebalance(t *testing.T) {
	b := aBus(t)
	topic, ctx := aTopic(t, b, 1), soon(t)
	once := true
	c := aConsumer(t, b, "", WithGroup(topic), WithOffsetReset(ResetEarliest), WithRebalance(func(*Consumer, Rebalance, []TopicPartition) {
		if once {
			once = false
			runtime.Goexit()
		}
	}))
	must(t, c.Subscribe(topic))
	if x := panics(func() {
		for {
			if _, err := c.Poll(ctx); err != nil {
				return
			}
		}
	}); x == nil {
		t.Fatal("no panic")
	}
}

func TestWildCallsInARebalance(t *testing.T) {
	b := aBus(t)
	topic, ctx := aTopic(t, b, 1), soon(t)
	sent(t, aProducer(t, b), topic, 5)
	ran := false
	c := aConsumer(t, b, "", WithGroup(topic), WithOffsetReset(ResetEarliest), WithRebalance(func(c *Consumer, e Rebalance, parts []TopicPartition) {
		if e != Assigned {
			if err := c.Commit(ctx); err != nil {
				t.Error("commit inside Close: ", err)
			}
			return
		}
		ran = true
		for what, err := range map[string]error{
			"Close": c.Close(), "Unsubscribe": c.Unsubscribe(), "Subscribe": c.Subscribe("x"), "Assign": c.Assign(topic, 0, 0),
			"Poll": func() error { _, err := c.TryPoll(); return err }(),
		} {
			if !errors.Is(err, ErrInvalidArgument) {
				t.Errorf("%s in a callback: %v", what, err)
			}
		}
		if err := c.Seek(parts[0].Topic, parts[0].Partition, 3); err != nil {
			t.Error(err)
		}
		within, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if err := c.Committed(within, parts); err != nil {
			t.Error(err)
		}
	}))
	must(t, c.Subscribe(topic))
	got, err := c.Records(ctx)
	must(t, err)
	if !ran || got[0].Offset != 3 {
		t.Fatal(ran, got[0].Offset)
	}
	ends(t, "Close", func() { must(t, c.Close()) })
}

// ---- queues, states, reservations ----

func TestWildQueueMessages(t *testing.T) {
	b := aBus(t)
	topic, ctx := aTopic(t, b, 1), soon(t)
	sent(t, aProducer(t, b), topic, 4)
	q, err := b.Queue(ctx, topic+".a", []string{topic})
	must(t, err)
	other, err := b.Queue(ctx, topic+".b", []string{topic})
	must(t, err)
	first, err := q.Poll(ctx, 2)
	must(t, err)
	kept := first[0].Record()
	second, err := q.Poll(ctx, 2)
	must(t, err)
	if panics(func() { first[0].Value() }) == nil || string(kept.Value) != "v0" {
		t.Fatal("a message's view after the next Poll")
	}
	is(t, other.Ack(first...), ErrInvalidArgument)
	is(t, other.AckSync(ctx, first[0]), ErrInvalidArgument)
	is(t, q.Ack(Message{}), ErrInvalidArgument)
	must(t, q.Ack())
	must(t, q.Ack(first...)) // good as long as the queue is open
	must(t, q.Flush(ctx))
	err = q.Ack(first...)
	if err == nil {
		err = q.Flush(ctx)
	}
	is(t, err, ErrInvalidRecordState)
	must(t, q.Close())
	is(t, q.Ack(second...), ErrClosed)
	if panics(func() { second[0].Value() }) == nil {
		t.Fatal("a message's view after Close")
	}
}

func TestWildStateTransactions(t *testing.T) {
	b := aBus(t)
	topic, ctx := aTopic(t, b, 1), soon(t)
	sent(t, aProducer(t, b), topic, 4)
	c := aConsumer(t, b, "", WithGroup(topic))
	s, err := c.State(WithFastState(true), WithStateDir(t.TempDir()))
	must(t, err)
	_, err = c.State(WithStateDir(t.TempDir()))
	is(t, err, ErrInvalidArgument)
	must(t, c.Assign(topic, 0, OffsetBeginning))
	_, err = c.Poll(ctx)
	is(t, err, ErrInvalidArgument)
	txn, batch, err := s.Begin(ctx)
	must(t, err)
	_, _, err = s.Begin(ctx)
	is(t, err, ErrBusy)
	_, err = s.Process(ctx, 1, func(*StateTxn, View) error { return nil })
	is(t, err, ErrBusy)
	is(t, s.Close(), ErrBusy)
	is(t, c.Close(), ErrBusy)
	is(t, b.Close(), ErrBusy)
	other := make(chan error)
	go func() { other <- txn.Put([]byte("k"), []byte("v")) }()
	is(t, <-other, ErrInvalidArgument)
	is(t, txn.Put(nil, []byte("v")), ErrInvalidArgument)
	is(t, txn.Put(make([]byte, StateKeyMax+1), nil), ErrInvalidArgument)
	must(t, txn.Put([]byte("k"), nil))
	must(t, txn.Commit())
	is(t, txn.Commit(), ErrInvalidTxnState)
	must(t, txn.Abort())
	if batch.At(0).Valid() {
		t.Fatal("a view behind its transaction")
	}
	reading, err := s.Read(topic, 0)
	must(t, err)
	value, ok, err := reading.Get([]byte("k"))
	must(t, err)
	if !ok || len(value) != 0 {
		t.Fatal(value, ok)
	}
	is(t, reading.Commit(), ErrInvalidArgument)
	must(t, reading.Abort())
	no := errors.New("no")
	sent(t, aProducer(t, b), topic, 1)
	_, err = s.Process(ctx, 1, func(txn *StateTxn, _ View) error {
		is(t, txn.Commit(), ErrInvalidArgument)
		is(t, c.Close(), ErrInvalidArgument)
		return no
	})
	is(t, err, no)
}

func TestWildReservations(t *testing.T) {
	b := aBus(t)
	topic, ctx := aTopic(t, b, 1), soon(t)
	p := aProducer(t, b)
	r, err := p.Reserve(ctx, topic, 0, Record{}, 10)
	must(t, err)
	other := make(chan error)
	go func() { _, err := r.Commit(1); other <- err }()
	is(t, <-other, ErrInvalidArgument)
	_, err = r.Commit(11)
	is(t, err, ErrInvalidArgument)
	_, err = r.Commit(-1)
	is(t, err, ErrInvalidArgument)
	_, err = r.Commit(3)
	must(t, err)
	if r.Value != nil {
		t.Fatal("room that is not there any more")
	}
	r.Abort()
}
