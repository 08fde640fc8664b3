// member.go: the Go member of the demonstration's group; ../member.c says what it does and prints.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"busway"
)

func onRebalance(_ *busway.Consumer, event busway.Rebalance, parts []busway.TopicPartition) {
	numbers := make([]string, len(parts))
	for i, p := range parts {
		numbers[i] = fmt.Sprint(p.Partition)
	}
	fmt.Printf("%s %s %d\n", event, strings.Join(numbers, ","), time.Now().UnixNano())
}

// copyBatch copies one batch in one transaction. An error: abort, and nothing of it has happened.
func copyBatch(ctx context.Context, producer *busway.Producer, consumer *busway.Consumer, batch *busway.Batch, output, name string) error {
	records := batch.Records()
	next := busway.TopicPartition{Topic: batch.Topic, Partition: batch.Partition, Offset: batch.LastOffset + 1}
	for i := range records {
		records[i] = busway.Record{Key: []byte(name), Value: records[i].Value}
	}
	t, err := producer.Begin()
	if err != nil {
		return err
	}
	_, err = producer.SendMany(ctx, output, next.Partition, records)
	if err == nil {
		var member busway.GroupMetadata
		if member, err = consumer.GroupMetadata(); err == nil {
			err = t.SendOffsets(ctx, member, []busway.TopicPartition{next})
		}
	}
	if err == nil {
		for err = t.Commit(ctx); errors.Is(err, busway.ErrTimedOut); err = t.Commit(ctx) {
		} // it has no other end
	}
	if err == nil {
		fmt.Printf("committed %d\n", len(records))
		return nil
	}
	log.Printf("begins again: %v", err)
	if err := t.Abort(ctx); err != nil {
		return err
	}
	return rewindAll(ctx, consumer)
}

// rewindAll goes back to what the group has committed, for all that is ours.
func rewindAll(ctx context.Context, consumer *busway.Consumer) error {
	parts, err := consumer.Assignment()
	if err != nil {
		return err
	}
	if err := consumer.Committed(ctx, parts); err != nil {
		return err
	}
	for _, p := range parts {
		if p.Offset == busway.OffsetInvalid {
			p.Offset = busway.OffsetBeginning
		}
		_ = consumer.Seek(p.Topic, p.Partition, p.Offset) // one that was taken away meanwhile is nothing to us
	}
	return nil
}

func run(url, group, input, output, name string) error {
	ctx := context.Background()
	bus, err := busway.Open(ctx, url)
	if err != nil {
		return err
	}
	defer bus.Close()
	producer, err := bus.Producer(busway.WithTransactionalID(name), busway.WithTransactionTimeout(3*time.Second))
	if err != nil {
		return err
	}
	defer producer.Close()
	if err := producer.InitTransactions(ctx); err != nil {
		return err
	}
	consumer, err := bus.Consumer(busway.WithGroup(group), busway.WithOffsetReset(busway.ResetEarliest), busway.WithAutoCommit(0),
		busway.WithRebalance(onRebalance))
	if err != nil {
		return err
	}
	defer consumer.Close()
	if err := consumer.Subscribe(input); err != nil {
		return err
	}
	for {
		batch, err := consumer.Poll(ctx)
		if err == nil {
			err = copyBatch(ctx, producer, consumer, &batch, output, name)
		} else if busway.IsRetriable(err) || errors.Is(err, busway.ErrFencedMemberEpoch) || errors.Is(err, busway.ErrUnknownMemberID) {
			continue // it joins anew
		}
		if err != nil {
			return err
		}
	}
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("member.go: ")
	if len(os.Args) != 6 {
		log.Fatal("usage: member URL GROUP INPUT OUTPUT NAME")
	}
	log.Fatal(run(os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5]))
}
