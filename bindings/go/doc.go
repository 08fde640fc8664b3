// Package busway is a local event bus: Kafka's model at shared-memory speed, on disk. It sits on the C library libbusway, which pkg-config must find.
//
//	bus, err := busway.Open(ctx, "dir:./data")
//	p, err := bus.Producer()
//	_, err = p.Send(ctx, "t", busway.AnyPartition, busway.Record{Key: []byte("k"), Value: []byte("v")})
//	c, err := bus.Consumer(busway.WithGroup("g"), busway.WithOffsetReset(busway.ResetEarliest))
//	err = c.Subscribe("t")
//	for r, err := range c.All(ctx) { … }   // Go 1.23; before: c.Poll, c.Records, c.Each
//
// # Waiting
//
// Every call that can wait takes a context, and returns when that ends: at once where it waits in this process (Poll, Begin, Process), within 20 ms where
// it waits for room or for outcomes. A call that asks the daemon goes on without its caller then, for a bounded time; its outcome is not known, which the
// error says: it is both ErrTimedOut and the context's. Calls that take no context ask nobody.
//
// # Batches
//
// A crossing from Go to C costs some 50 ns, so that records cross many at a time: SendBatch, SendMany and SendManyAsync hand over a slice in one call, Poll
// takes a whole batch. What it returns are views of the log: nothing was copied. A View that is used after its time panics; View.Record and
// Batch.Records make copies that may be kept.
//
// # Errors
//
// Each error is an *Error with a Code; errors.Is(err, busway.ErrUnknownTopic) asks for one, errors.As(err, &code) and Code.Retriable for its class. What
// is closed says ErrClosed, which is fs.ErrClosed, too.
//
// # Goroutines and threads
//
// A Bus and a Producer may be used by any number of goroutines. So may a Consumer, a Queue and a State; their calls take turns. A goroutine that waits in
// Poll holds a thread, as one in any call of C does; a program with hundreds of consumers opens them WithPoller. Functions that a program gives
// (WithRebalance, outcomes of SendAsync and CommitAsync) run in the goroutine that polls, flushes or closes; a panic in one comes out there. Rebalance and
// state handlers are called from C: they must not end their goroutine.
//
// What has a Close must be closed: nothing here has a finalizer. Closing a Bus closes what is open of it.
package busway
