package main

/*
#include "c.h"
#include <stdlib.h>
*/
import "C"

import (
	"bufio"
	"context"
	"fmt"
	"log"
	"os"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"busway"
)

const pause = 200 * time.Microsecond // so that both sides sleep

type side struct {
	bus *busway.Bus
	p   *busway.Producer
	c   *busway.Consumer
	to  string
}

func (b *bench) side(from, to string, options ...busway.ConsumerOption) *side {
	bus, err := busway.Open(b.ctx(), b.url)
	must(err)
	p, err := bus.Producer()
	must(err)
	c, err := bus.Consumer(options...)
	must(err)
	_, err = p.Send(b.ctx(), to, 0, busway.Record{Value: []byte("warm")})
	must(err)
	must(c.Assign(from, 0, busway.OffsetEnd))
	return &side{bus, p, c, to}
}

func (s *side) send(ctx context.Context, what []byte) {
	_, err := s.p.Send(ctx, s.to, 0, busway.Record{Value: what})
	must(err)
}

func (s *side) one(ctx context.Context) {
	batch, err := s.c.Poll(ctx)
	must(err)
	if batch.Len() < 1 {
		log.Fatal("an empty batch")
	}
}

// trips are round trips of one record between two goroutines that sleep, in µs.
func (b *bench) trips(ctx context.Context, n int, options ...busway.ConsumerOption) []float64 {
	there, back := b.topic(), b.topic()
	mine := b.side(back, there, options...)
	other := b.side(there, back, options...)
	mine.one(ctx) // the other's warm record
	done := make(chan struct{})
	go func() {
		defer close(done)
		echo := []byte("echo")
		for i := 0; i < n; i++ {
			other.one(ctx)
			other.send(ctx, echo)
		}
	}()
	out, ping := make([]float64, n), []byte("ping")
	for i := range out {
		for begun := time.Now(); time.Since(begun) < pause; { // busy, as C: the other side is asleep meanwhile, and this one has work
		}
		begun := time.Now()
		mine.send(ctx, ping)
		mine.one(ctx)
		out[i] = float64(time.Since(begun).Nanoseconds()) / 1e3
	}
	<-done
	must(mine.bus.Close())
	must(other.bus.Close())
	return out
}

func (b *bench) tripsC(n int) []float64 {
	there, back, url := C.CString(b.topic()), C.CString(b.topic()), C.CString(b.url)
	defer C.free(unsafe.Pointer(there))
	defer C.free(unsafe.Pointer(back))
	defer C.free(unsafe.Pointer(url))
	ns := make([]C.int64_t, n)
	if C.bench_echo(url, there, back, C.int32_t(n), C.int32_t(pause.Microseconds()), &ns[0]) < 0 {
		log.Fatal("C: ", C.GoString(&C.bench_why[0]))
	}
	out := make([]float64, n)
	for i := range out {
		out[i] = float64(ns[i]) / 1e3
	}
	return out
}

func quantile(list []float64, q float64) float64 {
	s := append([]float64(nil), list...)
	sort.Float64s(s)
	return s[int(q*float64(len(s)-1))]
}

func (b *bench) echo() {
	cancellable, cancel := context.WithCancel(b.ctx())
	defer cancel()
	kinds := []struct {
		name string
		run  func() []float64
	}{
		{"round trip asleep, C", func() []float64 { return b.tripsC(*trips) }},
		{"round trip asleep, Go", func() []float64 { return b.trips(b.ctx(), *trips) }},
		{"  with a context to cancel", func() []float64 { return b.trips(cancellable, *trips) }},
		{"  WithPoller", func() []float64 { return b.trips(b.ctx(), *trips, busway.WithPoller()) }},
	}
	half, tail := make([][]float64, len(kinds)), make([][]float64, len(kinds))
	for round := 0; round < *rounds; round++ {
		for i, k := range kinds {
			if *kind >= 0 && *kind != i {
				continue
			}
			t := k.run()
			half[i], tail[i] = append(half[i], quantile(t, 0.5)), append(tail[i], quantile(t, 0.99))
		}
	}
	for i, k := range kinds {
		if half[i] == nil {
			continue
		}
		fmt.Printf("%-28s p50 %7.2f µs   p99 %7.2f µs   %5.2f × C\n", k.name, median(half[i]), median(tail[i]), median(half[i])/median(append(half[0], 0)))
	}
}

// anonymous memory of this process, in KiB: not what is mapped of the log.
func anonymous() int {
	f, err := os.Open("/proc/self/status")
	must(err)
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest := strings.TrimPrefix(lines.Text(), "RssAnon:"); rest != lines.Text() {
			n, err := strconv.Atoi(strings.Fields(rest)[0])
			must(err)
			return n
		}
	}
	return 0
}

// memory sends and reads ten million records, and says what has grown since the first million.
func (b *bench) memory() {
	topic := b.topic()
	must(b.bus.Admin().AlterTopic(b.ctx(), topic, 0, busway.Set("retention.bytes", "268435456")))
	p, err := b.bus.Producer()
	must(err)
	c, err := b.bus.Consumer(busway.WithOffsetReset(busway.ResetEarliest))
	must(err)
	must(c.Assign(topic, 0, busway.OffsetBeginning))
	records, sent, read := b.records(*batch), 0, 0
	measure := func() (int, uint64) {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return anonymous(), m.HeapAlloc
	}
	var first uint64
	var anon int
	for million := 1; million <= 10; million++ {
		for ; sent < million*1000000; sent += *batch {
			switch sent / *batch % 3 {
			case 0:
				_, err = p.SendBatch(b.ctx(), topic, 0, records)
			case 1:
				_, err = p.SendMany(b.ctx(), topic, 0, records)
			default:
				_, err = p.SendManyAsync(b.ctx(), topic, 0, records, func(int, busway.Delivery) {})
				if sent / *batch % 30 == 2 {
					must(p.Flush(b.ctx()))
				}
			}
			must(err)
		}
		must(p.Flush(b.ctx()))
		for read < sent {
			got, err := c.Records(b.ctx())
			must(err)
			read += len(got)
		}
		now, h := measure()
		fmt.Printf("  %2d M records: anonymous %6d KiB, Go's heap %4d KiB\n", million, now, h/1024)
		if million == 1 {
			anon, first = now, h
		}
	}
	last, heap := measure()
	fmt.Printf("memory: anonymous %d KiB after 1 M records, %d KiB after 10 M (%+d); Go's heap %d KiB, %d KiB (%+d)\n", anon, last, last-anon, first/1024,
		heap/1024, int64(heap-first)/1024)
	must(p.Close())
	must(c.Close())
}
