// Command bench measures the Go binding beside C, in one process and interleaved: ratios first. See `make bench-go`.
package main

/*
#cgo pkg-config: libbusway
#cgo CFLAGS: -O2 -pthread -D_GNU_SOURCE
#include "c.h"
#include <stdlib.h>
*/
import "C"

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"runtime"
	"sort"
	"strings"
	"time"
	"unsafe"

	"busway"
)

var (
	count  = flag.Int("count", 1000000, "records of each run")
	batch  = flag.Int("batch", 100, "records a batch")
	value  = flag.Int("value", 100, "bytes a value")
	rounds = flag.Int("rounds", 7, "how often each is run; medians")
	trips  = flag.Int("trips", 3000, "round trips of each run")
	only   = flag.String("only", "", "parts: produce,many,single,consume,records,kept,trips")
	kind   = flag.String("kind", "", "of trips: only these, by name, with commas")
	echo   = flag.Bool("echo", false, "be the other side of a round trip: -kind, -dir, and the topics as arguments")
	dir    = flag.String("dir", "", "folder for the bus; default: a temporary one")
)

func main() {
	log.SetFlags(0)
	flag.Parse()
	if *echo {
		answer(*kind, *dir, flag.Arg(0), flag.Arg(1))
		return
	}
	if *dir == "" {
		made, err := os.MkdirTemp("", "bwgobench")
		must(err)
		defer os.RemoveAll(made)
		*dir = made
	}
	b := &bench{url: busAt(*dir)}
	var err error
	b.bus, err = busway.Open(b.ctx(), b.url, busway.WithTransport(busway.TransportDirect))
	must(err)
	defer b.bus.Close()
	fmt.Printf("%s, libbusway %s, %d records of %d B, batches of %d, %d rounds, %d processors\n", runtime.Version(), busway.LibraryVersion(), *count,
		*value, *batch, *rounds, runtime.GOMAXPROCS(0))
	if b.want("produce", "many", "single", "consume", "records", "kept") {
		b.rates()
	}
	if b.want("trips") {
		b.trips()
	}
}

func busAt(dir string) string { return "dir:" + dir + "?idle-exit=2s" }

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

type bench struct {
	url  string
	bus  *busway.Bus
	made int
}

func (b *bench) ctx() context.Context { return context.Background() }

func (b *bench) want(parts ...string) bool {
	for _, p := range parts {
		if *only == "" || strings.Contains(","+*only+",", ","+p+",") {
			return true
		}
	}
	return false
}

func (b *bench) topic() string {
	b.made++
	name := fmt.Sprintf("bench-%d", b.made)
	must(b.bus.Admin().CreateTopic(b.ctx(), name, 1))
	return name
}

// inC runs one of c.c's.
func (b *bench) inC(topic string, f func(url, topic *C.char) C.double) float64 {
	url, name := C.CString(b.url), C.CString(topic)
	defer C.free(unsafe.Pointer(url))
	defer C.free(unsafe.Pointer(name))
	took := float64(f(url, name))
	if took < 0 {
		log.Fatal("C: ", C.GoString(&C.bench_why[0]))
	}
	return took
}

func (b *bench) records(n int) []busway.Record {
	out := make([]busway.Record, n)
	for i := range out {
		out[i].Value = []byte(strings.Repeat(string(rune('a'+i%26)), *value))
	}
	return out
}

// produce sends count records, and says in how many seconds.
func (b *bench) produce(topic string, count, batch int, many bool) float64 {
	p, err := b.bus.Producer()
	must(err)
	defer p.Close()
	records, ctx := b.records(batch), b.ctx()
	begun := time.Now()
	for sent := 0; sent < count; sent += batch {
		switch {
		case many:
			_, err = p.SendMany(ctx, topic, 0, records)
		case batch == 1:
			_, err = p.Send(ctx, topic, 0, records[0])
		default:
			_, err = p.SendBatch(ctx, topic, 0, records)
		}
		must(err)
	}
	return time.Since(begun).Seconds()
}

var sum uint64

// What a consumer does with a batch: nothing, copies that the next ones replace, copies that may be kept.
const (
	views = iota
	copies
	kept
)

// consume reads count records, and touches both ends of each value.
func (b *bench) consume(topic string, count, how int) float64 {
	c, err := b.bus.Consumer()
	must(err)
	defer c.Close()
	must(c.Assign(topic, 0, busway.OffsetBeginning))
	ctx, own := b.ctx(), uint64(0)
	var records []busway.Record
	var again busway.Copies
	begun := time.Now()
	for read := 0; read < count; {
		batch, err := c.Poll(ctx)
		must(err)
		switch how {
		case copies:
			records = again.Of(&batch)
		case kept:
			records = batch.AppendRecords(records[:0])
		default:
			for i, n := 0, batch.Len(); i < n; i++ {
				v := batch.At(i).Value()
				own += uint64(v[0]) + uint64(v[len(v)-1])
			}
		}
		for i := range records {
			v := records[i].Value
			own += uint64(v[0]) + uint64(v[len(v)-1])
		}
		read += batch.Len()
	}
	sum += own
	return time.Since(begun).Seconds()
}

// row collects pairs of seconds.
type row struct {
	name   string
	count  int
	c, own []float64
}

func median(list []float64) float64 {
	s := append([]float64(nil), list...)
	sort.Float64s(s)
	return s[len(s)/2]
}

func (r *row) print() {
	if len(r.c) == 0 {
		return
	}
	ratios := make([]float64, len(r.c))
	for i := range ratios {
		ratios[i] = r.c[i] / r.own[i]
	}
	fmt.Printf("%-28s %5.0f %% of C   Go %8.2f M/s   C %8.2f M/s   (%.0f–%.0f %%)\n", r.name, 100*median(ratios),
		float64(r.count)/median(r.own)/1e6, float64(r.count)/median(r.c)/1e6, 100*least(ratios), 100*most(ratios))
}

func least(l []float64) float64 {
	s := append([]float64(nil), l...)
	sort.Float64s(s)
	return s[0]
}

func most(l []float64) float64 {
	s := append([]float64(nil), l...)
	sort.Float64s(s)
	return s[len(s)-1]
}

func (b *bench) rates() {
	n := *count / *batch * *batch
	single := *count / 5
	rows := map[string]*row{"produce": {name: "produce, SendBatch", count: n}, "many": {name: "produce, SendMany", count: n},
		"single": {name: "produce, Send", count: single}, "consume": {name: "consume, views", count: n}, "records": {name: "consume, copies", count: n}, "records beside": {name: "  beside C's views", count: n},
		"kept": {name: "consume, copies to keep", count: n}, "kept beside": {name: "  beside C's views", count: n}}
	add := func(part string, c, own float64) {
		rows[part].c, rows[part].own = append(rows[part].c, c), append(rows[part].own, own)
	}
	cProduce := func(t string, n, batch, many int) float64 {
		return b.inC(t, func(url, topic *C.char) C.double {
			return C.bench_produce(url, topic, C.int64_t(n), C.int32_t(batch), C.int32_t(*value), C.int(many))
		})
	}
	cConsume := func(t string, copies C.int) float64 {
		return b.inC(t, func(url, topic *C.char) C.double { return C.bench_consume(url, topic, C.int64_t(n), copies) })
	}
	for round := 0; round < *rounds; round++ {
		mine, theirs := b.topic(), b.topic()
		b.produce(mine, n/10 / *batch * *batch, *batch, false) // the first segments are made
		cProduce(theirs, n/10 / *batch * *batch, *batch, 0)
		if b.want("produce", "consume", "records", "kept") {
			c, own := b.inTurn(round, func() float64 { return cProduce(theirs, n, *batch, 0) }, func() float64 { return b.produce(mine, n, *batch, false) })
			add("produce", c, own)
		}
		if b.want("consume") {
			c, own := b.inTurn(round, func() float64 { return cConsume(mine, 0) }, func() float64 { return b.consume(mine, n, views) })
			add("consume", c, own)
		}
		for how, part := range map[int]string{copies: "records", kept: "kept"} {
			if b.want(part) {
				c, own := b.inTurn(round, func() float64 { return cConsume(mine, 1) }, func() float64 { return b.consume(mine, n, how) })
				add(part, c, own)
				add(part+" beside", cConsume(mine, 0), own)
			}
		}
		if b.want("many") {
			c, own := b.inTurn(round, func() float64 { return cProduce(theirs, n, *batch, 1) }, func() float64 { return b.produce(mine, n, *batch, true) })
			add("many", c, own)
		}
		if b.want("single") {
			c, own := b.inTurn(round, func() float64 { return cProduce(theirs, single, 1, 0) }, func() float64 { return b.produce(mine, single, 1, false) })
			add("single", c, own)
		}
		must(b.bus.Admin().DeleteTopic(b.ctx(), mine))
		must(b.bus.Admin().DeleteTopic(b.ctx(), theirs))
	}
	for _, part := range []string{"produce", "many", "single", "consume", "records", "records beside", "kept", "kept beside"} {
		rows[part].print()
	}
}

// inTurn: now one is first, now the other.
func (b *bench) inTurn(round int, c, own func() float64) (float64, float64) {
	runtime.GC()
	if round%2 == 0 {
		first := c()
		return first, own()
	}
	second := own()
	return c(), second
}
