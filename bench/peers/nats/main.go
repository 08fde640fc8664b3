// bench/peers/nats/main.go: NATS JetStream with nats.go: file store, one replica. Writing: BATCH 1 waits for each acknowledgement, more
// publishes asynchronously with at most 4,096 in flight. Reading: an ordered consumer. Round trip: one subject each way, published
// and waited for, delivered by an ordered consumer. WHERE is the server's URL. See ../peer.h: the same contract.
package main

import (
	"context"
	"fmt"
	"os"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	_ "github.com/nats-io/nats-server/v2/server" // keeps the server's module here: peers.py builds it
)

type peer struct {
	role, where                        string
	batch, bytes, records, warm, points int
	done, sum                          int
	start, end                         time.Time
	ends                               []time.Time
}

func must[T any](v T, err error) T {
	if err != nil {
		fmt.Fprintln(os.Stderr, "nats:", err)
		os.Exit(1)
	}
	return v
}

func (p *peer) take(value []byte) {
	p.sum += int(value[0]) + int(value[len(value)-1])
	p.done++
	if p.done == p.warm {
		p.start = time.Now()
	}
	if p.points > 0 && p.done > p.warm && (p.done-p.warm)%(p.records/p.points) == 0 {
		p.ends = append(p.ends, time.Now())
	}
	if p.done == p.warm+p.records {
		p.end = time.Now()
	}
}

func (p *peer) wants() bool { return p.done < p.warm+p.records }

func (p *peer) report() {
	before, points := p.start, []string{}
	for _, t := range p.ends {
		points = append(points, fmt.Sprintf("%.1f", float64(p.records/p.points)/t.Sub(before).Seconds()))
		before = t
	}
	fmt.Printf("{\"rate\":%.1f,\"sum\":%d,\"points\":[%s]}\n", float64(p.records)/p.end.Sub(p.start).Seconds(), p.sum, strings.Join(points, ","))
}

func stream(ctx context.Context, js jetstream.JetStream, name string, fresh bool) jetstream.Stream {
	if fresh {
		js.DeleteStream(ctx, name)
	}
	return must(js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{Name: name, Subjects: []string{name + ".s"}, Storage: jetstream.FileStorage}))
}

func messages(ctx context.Context, s jetstream.Stream) jetstream.MessagesContext {
	c := must(s.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{}))
	return must(c.Messages(jetstream.PullMaxMessages(4096)))
}

func main() {
	a := os.Args
	if len(a) != 9 {
		fmt.Fprintln(os.Stderr, "usage: ROLE URL BATCH RECORD_BYTES RECORDS WARM POINTS PARTITIONS")
		os.Exit(2)
	}
	number := func(i int) int { return must(strconv.Atoi(a[i])) }
	p := &peer{role: a[1], where: a[2], batch: number(3), bytes: number(4), records: number(5), warm: number(6), points: number(7)}
	ctx := context.Background()
	nc := must(nats.Connect(p.where))
	js := must(jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(4096)))
	record := make([]byte, p.bytes)
	for i, x := 0, uint32(1); i < len(record); i++ {
		x = x*1664525 + 1013904223
		record[i] = byte(x >> 24)
	}
	server := p.role == "read" || p.role == "pong"
	there := stream(ctx, js, "there", server)
	var back jetstream.Stream
	if p.role == "ping" || p.role == "pong" {
		back = stream(ctx, js, "back", server)
	}
	switch p.role {
	case "write":
		for i := 0; i < p.warm+p.records; i++ {
			if p.batch == 1 {
				must(js.Publish(ctx, "there.s", record))
			} else {
				must(js.PublishAsync("there.s", record))
			}
		}
		<-js.PublishAsyncComplete()
	case "read":
		in := messages(ctx, there)
		fmt.Println("ready")
		for p.wants() {
			p.take(must(in.Next()).Data())
		}
		p.report()
	case "pong":
		in := messages(ctx, there)
		fmt.Println("ready")
		for p.wants() {
			p.take(must(in.Next()).Data())
			must(js.Publish(ctx, "back.s", record))
		}
	case "ping":
		in := messages(ctx, back)
		times := make([]time.Duration, 0, p.records)
		for i := 0; i < p.warm+p.records; i++ {
			before := time.Now()
			must(js.Publish(ctx, "there.s", record))
			p.take(must(in.Next()).Data())
			if i >= p.warm {
				times = append(times, time.Since(before))
			}
		}
		sort.Slice(times, func(i, j int) bool { return times[i] < times[j] })
		out := []string{}
		for _, at := range []float64{1, 5, 10, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 99.99} {
			out = append(out, fmt.Sprintf("[%g,%d]", at, times[int(float64(len(times))*at/100)].Nanoseconds()))
		}
		fmt.Printf("{\"percentiles\":[%s]}\n", strings.Join(out, ","))
	}
}
