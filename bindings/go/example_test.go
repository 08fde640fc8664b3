package busway_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"busway"
)

// aFolder is a bus for an example. The examples share one folder, as the tests do.
func aFolder() (*busway.Bus, context.Context, func()) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	bus, err := busway.Open(ctx, "dir:"+os.Getenv("BUSWAY_GO_FOLDER"))
	if err != nil {
		log.Fatal(err)
	}
	return bus, ctx, func() {
		bus.Close()
		cancel()
	}
}

func Example() {
	bus, ctx, done := aFolder()
	defer done()
	p, err := bus.Producer()
	if err != nil {
		log.Fatal(err)
	}
	if _, err := p.Send(ctx, "t", busway.AnyPartition, busway.Record{Key: []byte("k"), Value: []byte("v")}); err != nil {
		log.Fatal(err)
	}
	c, err := bus.Consumer(busway.WithGroup("g"), busway.WithOffsetReset(busway.ResetEarliest))
	if err != nil {
		log.Fatal(err)
	}
	if err := c.Subscribe("t"); err != nil {
		log.Fatal(err)
	}
	records, err := c.Records(ctx)
	if err != nil {
		log.Fatal(err)
	}
	r := records[0]
	fmt.Printf("%s %s %s\n", r.Topic, r.Key, r.Value)
	// Output: t k v
}

func ExampleConsumer_Poll() {
	bus, ctx, done := aFolder()
	defer done()
	p, _ := bus.Producer()
	_, _ = p.SendBatch(ctx, "numbers", 0, []busway.Record{{Value: []byte("one")}, {Value: []byte("two")}})
	c, _ := bus.Consumer()
	_ = c.Assign("numbers", 0, busway.OffsetBeginning)
	batch, err := c.Poll(ctx)
	if err != nil {
		log.Fatal(err)
	}
	for i := 0; i < batch.Len(); i++ {
		v := batch.At(i) // in the log; good until the next Poll
		fmt.Printf("%d %s\n", v.Offset(), v.Value())
	}
	// Output:
	// 0 one
	// 1 two
}

func ExampleProducer_SendManyAsync() {
	bus, ctx, done := aFolder()
	defer done()
	p, _ := bus.Producer()
	delivered := 0
	_, err := p.SendManyAsync(ctx, "many", 0, make([]busway.Record, 100), func(i int, d busway.Delivery) {
		if d.Err == nil {
			delivered++
		}
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := p.Flush(ctx); err != nil { // calls the function
		log.Fatal(err)
	}
	fmt.Println(delivered)
	// Output: 100
}

func ExampleProducer_Transact() {
	bus, ctx, done := aFolder()
	defer done()
	p, _ := bus.Producer(busway.WithTransactionalID("billing-1"))
	if err := p.InitTransactions(ctx); err != nil {
		log.Fatal(err)
	}
	refused := errors.New("refused")
	for _, amount := range []string{"10", "-1"} {
		err := p.Transact(ctx, func(*busway.Transaction) error {
			if _, err := p.Send(ctx, "bills", 0, busway.Record{Value: []byte(amount)}); err != nil {
				return err
			}
			if amount == "-1" {
				return refused // nothing of it will be seen
			}
			return nil
		})
		fmt.Println(amount, err)
	}
	// Output:
	// 10 <nil>
	// -1 refused
}

func ExampleQueue() {
	bus, ctx, done := aFolder()
	defer done()
	p, _ := bus.Producer()
	_, _ = p.Send(ctx, "jobs", 0, busway.Record{Value: []byte("resize")})
	q, err := bus.Queue(ctx, "workers", []string{"jobs"}, busway.WithLease(time.Minute))
	if err != nil {
		log.Fatal(err)
	}
	messages, err := q.Poll(ctx, 10)
	if err != nil {
		log.Fatal(err)
	}
	for _, m := range messages {
		fmt.Printf("%s, delivery %d\n", m.Value(), m.Deliveries)
	}
	_ = q.Ack(messages...)
	fmt.Println(q.Flush(ctx)) // nil: on the disk, never delivered again
	// Output:
	// resize, delivery 1
	// <nil>
}

func ExampleState_Process() {
	bus, ctx, done := aFolder()
	defer done()
	p, _ := bus.Producer()
	_, _ = p.SendBatch(ctx, "visits", 0, []busway.Record{{Key: []byte("ann")}, {Key: []byte("bob")}, {Key: []byte("ann")}})
	c, _ := bus.Consumer(busway.WithGroup("counter"))
	s, err := c.State(busway.WithFastState(true))
	if err != nil {
		log.Fatal(err)
	}
	_ = c.Assign("visits", 0, busway.OffsetBeginning)
	_, err = s.Process(ctx, 100, func(txn *busway.StateTxn, r busway.View) error {
		n, _, err := txn.Get(r.Key())
		if err != nil {
			return err
		}
		return txn.Put(r.Key(), append(n, '|'))
	})
	if err != nil {
		log.Fatal(err)
	}
	txn, _ := s.Read("visits", 0)
	_ = txn.Each(nil, func(key, value []byte) bool {
		fmt.Printf("%s %s\n", key, value)
		return true
	})
	_ = txn.Abort()
	// Output:
	// ann ||
	// bob |
}

func ExampleCode() {
	bus, ctx, done := aFolder()
	defer done()
	_, err := bus.Admin().Partitions(ctx, "there.is.none")
	var code busway.Code
	if errors.Is(err, busway.ErrUnknownTopic) && errors.As(err, &code) {
		fmt.Println(code.Name(), code.Retriable())
	}
	// Output: UNKNOWN_TOPIC false
}
