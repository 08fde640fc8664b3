// memory.go: does the memory of a Go program grow while records go through it? See ../memory.c. Behind each figure is what it is made of: what Go's
// runtime has from the system, what of it is in use by its heap, what C's allocator has and what of it is in use, and the threads.
package main

/*
#include <malloc.h>
*/
import "C"

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"

	"busway"
)

const (
	atOnce   = 1000
	size     = 100
	openEach = 100
)

var (
	ctx    = context.Background()
	value  = bytes.Repeat([]byte("v"), size)
	record = busway.Record{Key: []byte("key"), Value: value, Headers: []busway.Header{{Name: "h", Value: []byte("v")}}}
)

func check(err error, what string) {
	if err != nil {
		log.Fatalf("memory.go: %s: %v", what, err)
	}
}

// anonKiB is the process's own memory when nothing is left that Go could give back.
func anonKiB() int {
	debug.FreeOSMemory()
	text, err := os.ReadFile("/proc/self/status")
	check(err, "status")
	fields := strings.Fields(string(text[bytes.Index(text, []byte("RssAnon:")):]))
	n, err := strconv.Atoi(fields[1])
	check(err, "status")
	return n
}

func parts() string {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	c := C.mallinfo2()
	threads, err := os.ReadDir("/proc/self/task")
	check(err, "threads")
	return fmt.Sprintf("go %d heap %d c %d used %d threads %d", (m.Sys-m.HeapReleased)>>10, m.HeapAlloc>>10, (c.arena+c.hblkhd)>>10,
		(c.uordblks+c.hblkhd)>>10, len(threads))
}

func sendSome(p *busway.Producer, way int, records []busway.Record) {
	told := 0
	switch way {
	case 0:
		_, err := p.SendBatch(ctx, "t", 0, records)
		check(err, "SendBatch")
	case 1:
		_, err := p.SendMany(ctx, "t", 0, records)
		check(err, "SendMany")
	case 2:
		for _, r := range records {
			_, err := p.Send(ctx, "t", 0, r)
			check(err, "Send")
		}
	case 3:
		for _, r := range records {
			check(p.SendAsync(ctx, "t", 0, r, func(d busway.Delivery) { check(d.Err, "delivery"); told++ }), "SendAsync")
		}
		check(p.Flush(ctx), "Flush")
		if told != len(records) {
			log.Fatalf("memory.go: %d outcomes of %d", told, len(records))
		}
	default:
		for range records {
			room, err := p.Reserve(ctx, "t", 0, record, size)
			check(err, "Reserve")
			copy(room.Value, value)
			_, err = room.Commit(size)
			check(err, "Commit")
		}
	}
}

func readSome(c *busway.Consumer, way int) {
	for got := 0; got < atOnce; {
		batch, err := c.Poll(ctx)
		check(err, "Poll")
		got += batch.Len()
		if way%2 == 0 {
			for i := 0; i < batch.Len(); i++ {
				v := batch.At(i)
				if len(v.Value()) != size || v.HeaderCount() != 1 {
					log.Fatal("memory.go: not what was sent")
				}
			}
			continue
		}
		for _, r := range batch.Records() {
			if !bytes.Equal(r.Value, value) {
				log.Fatal("memory.go: not what was sent")
			}
		}
	}
}

// openAndClose: what is opened must be freed with it; so must errors.
func openAndClose(bus *busway.Bus) {
	p, err := bus.Producer()
	check(err, "Producer")
	c, err := bus.Consumer()
	check(err, "Consumer")
	check(c.Assign("t", 0, busway.OffsetEnd), "Assign")
	_, err = bus.Stats()
	check(err, "Stats")
	_, err = bus.Admin().DescribeTopics(ctx, "")
	check(err, "DescribeTopics")
	if c.Assign("no such topic", 0, busway.OffsetEnd) == nil {
		log.Fatal("memory.go: it should not be there")
	}
	check(c.Close(), "Close")
	check(p.Close(), "Close")
}

func main() {
	log.SetFlags(0)
	if len(os.Args) != 3 {
		log.Fatal("usage: memory URL RECORDS")
	}
	total, err := strconv.Atoi(os.Args[2])
	check(err, os.Args[2])
	bus, err := busway.Open(ctx, os.Args[1])
	check(err, "Open")
	check(bus.Admin().CreateTopic(ctx, "t", 1, busway.Set("retention.bytes", "67108864"), busway.Set("segment.bytes", "16777216")), "CreateTopic")
	p, err := bus.Producer()
	check(err, "Producer")
	c, err := bus.Consumer()
	check(err, "Consumer")
	check(c.Assign("t", 0, 0), "Assign")
	records := make([]busway.Record, atOnce)
	for i := range records {
		records[i] = record
	}
	for n, round, said := 0, 0, 0; n < total; round++ {
		sendSome(p, round%5, records)
		readSome(c, round)
		if round%openEach == 0 {
			openAndClose(bus)
		}
		if n += atOnce; n/(total/10) != said {
			said = n / (total / 10)
			fmt.Printf("at %d anon %d %s\n", n, anonKiB(), parts())
		}
	}
	check(c.Close(), "Close")
	check(p.Close(), "Close")
	check(bus.Close(), "Close")
}
