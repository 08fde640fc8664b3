//go:build go1.23

package busway

import (
	"context"
	"testing"
	"time"
)

func TestRangeGivesEveryRecordAndGoesOnBehindABreak(t *testing.T) {
	b := aBus(t)
	topic := aTopic(t, b, 1)
	sent(t, aProducer(t, b), topic, 10)
	c, next := aConsumer(t, b, topic), int64(0)
	c.All(soon(t))(func(v View, err error) bool {
		must(t, err)
		if v.Offset() != next {
			t.Fatalf("offset %d, wanted %d", v.Offset(), next)
		}
		next++
		return next < 4
	})
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	var last error
	c.All(ctx)(func(v View, err error) bool {
		if last = err; err != nil {
			return true // it ends by itself
		}
		if v.Offset() != next {
			t.Fatalf("behind the break: offset %d, wanted %d", v.Offset(), next)
		}
		next++
		return true
	})
	is(t, last, context.DeadlineExceeded)
	if next != 10 {
		t.Fatal(next)
	}
	must(t, c.Seek(topic, 0, 0))
	batch, err := c.Poll(soon(t))
	must(t, err)
	n := 0
	batch.All()(func(i int, v View) bool {
		n++
		return v.Offset() == int64(i)
	})
	if n != 10 {
		t.Fatal(n)
	}
}
