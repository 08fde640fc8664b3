// gateway is an IoT gateway: sensors -> bus -> aggregates -> a queue of uploads -> the cloud. Each part is a process of its own; any of them, and
// the bus's daemon, may be killed at any moment and started again: no reading is lost or counted twice, and no upload is.
//
//	gateway setup URL                       makes the topics "readings" and "uploads"
//	gateway sensor URL NUMBER COUNT RATE    takes COUNT readings, RATE a second (0: as fast as it goes), then ends
//	gateway aggregate URL NAME              readings -> one upload a sensor and round; several share the work; NAME is its own
//	gateway upload URL HOST:PORT            each upload by HTTP: PUT /uploads/<partition>-<offset>; several share the work
//
// How each part goes on behind a kill: a sensor has a name, and the bus knows the last reading that it wrote under it (LastSequence). The aggregator
// reads, writes and says how far it read in one transaction. An uploader takes uploads from a queue, which gives what it held when it died to another,
// so the cloud may be asked twice: the request says "If-None-Match: *", and the second one is answered 412, which is as good.
//
// The same program exists in C and in Python (bindings/README.md); parts of all three work together.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"strconv"
	"time"

	"busway"
)

const (
	partitions = 4
	round      = 100 * time.Millisecond
)

var ctx = context.Background()

func setup(bus *busway.Bus) error {
	for topic, n := range map[string]int32{"readings": partitions, "uploads": 2} {
		err := bus.Admin().CreateTopic(ctx, topic, n, busway.Set("retention.ms", "604800000"))
		if err != nil && !errors.Is(err, busway.ErrTopicExists) {
			return err
		}
	}
	return nil
}

// ---- sensor ----

// measure: a real one would ask its hardware. Thousandths of a degree.
func measure(sensor, number int) int { return 20000 + (number*7919+sensor*131)%5000 }

// nextReading is one behind the last reading that is on the bus under this name.
func nextReading(bus *busway.Bus, producer *busway.Producer, partition int32) (int, error) {
	_, offset, err := producer.LastSequence(ctx, "readings", partition)
	if errors.Is(err, busway.ErrUnknownProducerID) || (err == nil && offset < 0) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	consumer, err := bus.Consumer()
	if err != nil {
		return 0, err
	}
	defer consumer.Close()
	if err := consumer.Assign("readings", partition, offset); err != nil {
		return 0, err
	}
	records, err := consumer.Records(ctx)
	if err != nil {
		return 0, err
	}
	number := 0
	if _, err := fmt.Sscanf(string(records[0].Value), "%d", &number); err != nil || records[0].Offset != offset {
		return 0, fmt.Errorf("the record at %d is no reading", offset)
	}
	return number + 1, nil
}

func sensor(bus *busway.Bus, number, count, rate int) error {
	name, partition := fmt.Sprintf("sensor-%d", number), int32(number%partitions)
	producer, err := bus.Producer(busway.WithProducerName(name))
	if err != nil {
		return err
	}
	defer producer.Close()
	i, err := nextReading(bus, producer, partition)
	for ; err == nil && i < count; i++ {
		value := fmt.Sprintf("%d %d", i, measure(number, i))
		_, err = producer.Send(ctx, "readings", partition, busway.Record{Key: []byte(name), Value: []byte(value)})
		if rate > 0 {
			time.Sleep(time.Second / time.Duration(rate))
		}
	}
	return err
}

// ---- aggregate ----

type sums struct {
	Sensor int `json:"sensor"`
	First  int `json:"first"`
	Last   int `json:"last"`
	Count  int `json:"count"`
	Min    int `json:"min"`
	Max    int `json:"max"`
	Sum    int `json:"sum"`
}

type aggregator struct {
	producer *busway.Producer
	consumer *busway.Consumer
	sums     map[string]*sums
	after    map[int32]int64 // of the partitions of this round: where the next one begins
	void     bool            // one of them was taken away
}

var errTaken = errors.New("a partition of the round is another member's now")

// onRebalance runs inside a Poll. What another member does from now on must not be done here, too.
func (a *aggregator) onRebalance(_ *busway.Consumer, event busway.Rebalance, parts []busway.TopicPartition) {
	for _, p := range parts {
		if _, read := a.after[p.Partition]; read && event.String() != "assigned" {
			a.void = true
		}
	}
}

func (a *aggregator) add(v busway.View) error {
	var sensor, number, value int
	key := string(v.Key())
	if _, err := fmt.Sscanf(key, "sensor-%d", &sensor); err != nil {
		return err
	}
	if _, err := fmt.Sscanf(string(v.Value()), "%d %d", &number, &value); err != nil {
		return err
	}
	s := a.sums[key]
	if s == nil {
		s = &sums{Sensor: sensor, First: number, Min: value, Max: value}
		a.sums[key] = s
	}
	s.Last, s.Count, s.Sum = number, s.Count+1, s.Sum+value
	if value < s.Min {
		s.Min = value
	}
	if value > s.Max {
		s.Max = value
	}
	return nil
}

// gather reads for a round's time.
func (a *aggregator) gather() error {
	a.sums, a.after, a.void = map[string]*sums{}, map[int32]int64{}, false
	limited, cancel := context.WithTimeout(ctx, round)
	defer cancel()
	for {
		batch, err := a.consumer.Poll(limited)
		switch {
		case a.void:
			return errTaken
		case errors.Is(err, context.DeadlineExceeded):
			return nil
		case busway.IsRetriable(err) || errors.Is(err, busway.ErrFencedMemberEpoch) || errors.Is(err, busway.ErrUnknownMemberID):
			if limited.Err() != nil {
				return nil
			}
			continue // it joins anew
		case err != nil:
			return err
		}
		for i := 0; i < batch.Len(); i++ {
			if err := a.add(batch.At(i)); err != nil {
				return err
			}
		}
		a.after[batch.Partition] = batch.LastOffset + 1
	}
}

// commit: the round in one transaction. After an error nothing of it has happened.
func (a *aggregator) commit() error {
	t, err := a.producer.Begin()
	if err != nil {
		return err
	}
	if err = a.fill(t); err == nil {
		for err = t.Commit(ctx); errors.Is(err, busway.ErrTimedOut); err = t.Commit(ctx) {
		} // it has no other end
	}
	if err != nil {
		if aborted := t.Abort(ctx); aborted != nil {
			log.Fatalf("gateway: abort: %v", aborted)
		}
	}
	return err
}

// fill: the uploads of the round, and how far it read.
func (a *aggregator) fill(t *busway.Transaction) error {
	var offsets []busway.TopicPartition
	for p, offset := range a.after {
		offsets = append(offsets, busway.TopicPartition{Topic: "readings", Partition: p, Offset: offset})
	}
	var uploads []busway.Record
	for key, s := range a.sums {
		text, err := json.Marshal(s)
		if err != nil {
			return err
		}
		uploads = append(uploads, busway.Record{Key: []byte(key), Value: text})
	}
	if _, err := a.producer.SendMany(ctx, "uploads", busway.AnyPartition, uploads); err != nil {
		return err
	}
	member, err := a.consumer.GroupMetadata()
	if err != nil {
		return err
	}
	return t.SendOffsets(ctx, member, offsets)
}

// rewind goes back to what the group has committed, for all that is ours.
func (a *aggregator) rewind() error {
	parts, err := a.consumer.Assignment()
	if err == nil {
		err = a.consumer.Committed(ctx, parts)
	}
	for _, p := range parts {
		if p.Offset == busway.OffsetInvalid {
			p.Offset = busway.OffsetBeginning
		}
		if err == nil {
			if err = a.consumer.Seek(p.Topic, p.Partition, p.Offset); errors.Is(err, busway.ErrUnknownPartition) {
				err = nil // it was taken away meanwhile
			}
		}
	}
	return err
}

func aggregate(bus *busway.Bus, name string) error {
	a := &aggregator{}
	var err error
	a.producer, err = bus.Producer(busway.WithTransactionalID(name), busway.WithTransactionTimeout(10*time.Second))
	if err != nil {
		return err
	}
	defer a.producer.Close()
	if err := a.producer.InitTransactions(ctx); err != nil { // ends what an earlier run left
		return err
	}
	a.consumer, err = bus.Consumer(busway.WithGroup("aggregate"), busway.WithOffsetReset(busway.ResetEarliest), busway.WithAutoCommit(0),
		busway.WithRebalance(a.onRebalance))
	if err != nil {
		return err
	}
	defer a.consumer.Close()
	if err := a.consumer.Subscribe("readings"); err != nil {
		return err
	}
	for {
		err := a.gather()
		if err == nil && len(a.sums) > 0 {
			err = a.commit()
		}
		if err != nil {
			log.Printf("begins again: %v", err)
			if err := a.rewind(); err != nil {
				return err
			}
		}
	}
}

// ---- upload ----

var client = http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// put is one PUT; false: the cloud is away.
func put(cloud string, m *busway.Message) (status int, ok bool) {
	url := fmt.Sprintf("http://%s/uploads/%d-%d", cloud, m.Partition(), m.Offset())
	request, err := http.NewRequest(http.MethodPut, url, bytes.NewReader(m.Record().Value))
	if err != nil {
		return 0, false
	}
	request.Header.Set("If-None-Match", "*")
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		return 0, false
	}
	response.Body.Close()
	return response.StatusCode, response.StatusCode < 500
}

func uploadOne(queue *busway.Queue, cloud string, m busway.Message) error {
	for {
		status, ok := put(cloud, &m)
		if ok && (status == 200 || status == 201 || status == 412) {
			return queue.AckSync(ctx, m)
		}
		if ok {
			return queue.Reject(m)
		}
		if err := queue.Renew(m); err != nil { // the cloud is away: ours it stays
			return err
		}
		time.Sleep(200 * time.Millisecond)
	}
}

func upload(bus *busway.Bus, cloud string) error {
	// Only what the cloud refuses is a dead letter, never what a dead uploader held. Committed: nothing of a transaction that is open.
	queue, err := bus.Queue(ctx, "upload", []string{"uploads"}, busway.WithQueueIsolation(busway.ReadCommitted), busway.WithLease(30*time.Second),
		busway.WithMaxDeliveries(1000), busway.WithMaxRecords(10))
	if err != nil {
		return err
	}
	defer queue.Close()
	for {
		messages, err := queue.Poll(ctx, 1)
		if err != nil && !busway.IsRetriable(err) {
			return err
		}
		for _, m := range messages {
			if err := uploadOne(queue, cloud, m); err != nil {
				log.Printf("upload %d comes again: %v", m.Offset(), err)
			}
		}
	}
}

func run(words []string) error {
	numbers := [3]int{}
	if len(words) == 5 && words[0] == "sensor" {
		for i := range numbers {
			var err error
			if numbers[i], err = strconv.Atoi(words[2+i]); err != nil {
				return err
			}
		}
	}
	parts := map[string]struct {
		words int
		run   func(*busway.Bus) error
	}{
		"setup":     {2, setup},
		"sensor":    {5, func(b *busway.Bus) error { return sensor(b, numbers[0], numbers[1], numbers[2]) }},
		"aggregate": {3, func(b *busway.Bus) error { return aggregate(b, words[2]) }},
		"upload":    {3, func(b *busway.Bus) error { return upload(b, words[2]) }},
	}
	if len(words) == 0 || parts[words[0]].words != len(words) {
		return errors.New("usage: gateway setup URL | sensor URL NUMBER COUNT RATE | aggregate URL NAME | upload URL HOST:PORT")
	}
	bus, err := busway.Open(ctx, words[1])
	if err != nil {
		return err
	}
	defer bus.Close()
	return parts[words[0]].run(bus)
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("gateway: ")
	if err := run(os.Args[1:]); err != nil {
		log.Fatal(err)
	}
}
