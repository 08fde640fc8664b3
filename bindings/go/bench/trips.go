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
	"os/exec"
	"sort"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"busway"
)

// Round trips of one record between two programs that sleep; a futex in a mapped file beside them, which is what two wake-ups cost here. The
// other side is this program again. Where the two run decides more than what they do: on one processor a wake-up is a change of programs, on two it
// is an interrupt to another one, which on a virtual machine must be woken itself. So each is run as it is placed by whoever starts this.
var kinds = []string{"futex", "C", "Go", "Go-context", "Go-poller", "Go-spin"}

// A pause, so that both sides sleep and their processors, too; none, as a conversation goes.
var pauses = []time.Duration{0, 200 * time.Microsecond}

func (b *bench) trips() {
	named := func(k string) bool { return *kind == "" || strings.Contains(","+*kind+",", ","+k+",") }
	for _, pause := range pauses {
		half, tail, mean := map[string][]float64{}, map[string][]float64{}, map[string][]float64{}
		for round := 0; round < *rounds; round++ {
			for _, k := range kinds {
				if !named(k) {
					continue
				}
				t := b.trip(k, *trips, pause)
				sum := 0.0
				for _, one := range t {
					sum += one
				}
				half[k], tail[k] = append(half[k], quantile(t, 0.5)), append(tail[k], quantile(t, 0.99))
				mean[k] = append(mean[k], sum/float64(len(t)))
			}
		}
		fmt.Printf("round trip asleep, %v between them\n", pause)
		for _, k := range kinds {
			if half[k] == nil {
				continue
			}
			fmt.Printf("  %-12s p50 %7.2f µs   p99 %7.2f µs   mean %7.2f µs", k, median(half[k]), median(tail[k]), median(mean[k]))
			if half["C"] != nil {
				fmt.Printf("   %5.2f × C", median(half[k])/median(half["C"]))
			}
			fmt.Println()
		}
	}
}

// trip is one run of a kind: µs of each round trip.
func (b *bench) trip(kind string, n int, pause time.Duration) []float64 {
	there, back := "", ""
	if kind != "futex" {
		there, back = b.topic(), b.topic()
	} else {
		b.made++
		there = fmt.Sprintf("%s/futex-%d", *dir, b.made)
	}
	out := make([]float64, n)
	ns := make([]C.int64_t, n)
	us := C.int32_t(pause.Microseconds())
	names := []*C.char{C.CString(busAt(*dir)), C.CString(there), C.CString(back)}
	defer func() {
		for _, name := range names {
			C.free(unsafe.Pointer(name))
		}
	}()
	var code C.int
	switch kind {
	case "futex":
		other := b.other(kind, n, there, back)
		code = C.bench_futex(names[1], 0, C.int32_t(n), us, &ns[0])
		must(other.Wait())
	case "C":
		side := C.bench_side_open(names[0], names[2], names[1])
		if side == nil {
			log.Fatal("C: ", C.GoString(&C.bench_why[0]))
		}
		other := b.other(kind, n, there, back)
		code = C.bench_side_run(side, names[1], 0, C.int32_t(n), us, &ns[0])
		must(other.Wait())
	default:
		s := open(kind, *dir, back, there)
		other := b.other(kind, n, there, back)
		s.one() // the other's warm record
		ping := []byte("ping")
		for i := range out {
			for begun := time.Now(); time.Since(begun) < pause; { // busy, as C
			}
			begun := time.Now()
			s.send(ping)
			s.one()
			out[i] = float64(time.Since(begun).Nanoseconds()) / 1e3
		}
		must(other.Wait())
		must(s.bus.Close())
		return out
	}
	if code != 0 {
		log.Fatal("C: ", C.GoString(&C.bench_why[0]))
	}
	for i := range out {
		out[i] = float64(ns[i]) / 1e3
	}
	return out
}

// other starts this program as the other side, and waits until it is ready.
func (b *bench) other(kind string, n int, from, to string) *exec.Cmd {
	c := exec.Command("/proc/self/exe", "-echo", "-kind", kind, "-dir", *dir, "-trips", strconv.Itoa(n), from, to)
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	must(err)
	must(c.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	must(err)
	if line != "ready\n" {
		log.Fatalf("the other side says %q", line)
	}
	return c
}

// answer is the other side.
func answer(kind, dir, from, to string) {
	url, cFrom, cTo := C.CString(busAt(dir)), C.CString(from), C.CString(to)
	var code C.int
	switch kind {
	case "futex":
		code = C.bench_futex(cFrom, 1, C.int32_t(*trips), 0, nil)
	case "C":
		side := C.bench_side_open(url, cFrom, cTo)
		if code = -1; side != nil {
			code = C.bench_side_run(side, cTo, 1, C.int32_t(*trips), 0, nil)
		}
	default:
		s := open(kind, dir, from, to)
		fmt.Println("ready")
		pong := []byte("ping")
		for i := 0; i < *trips; i++ {
			s.one()
			s.send(pong)
		}
		must(s.bus.Close())
	}
	if code != 0 {
		log.Fatal("C: ", C.GoString(&C.bench_why[0]))
	}
}

type side struct {
	ctx context.Context
	bus *busway.Bus
	p   *busway.Producer
	c   *busway.Consumer
	to  string
}

func open(kind, dir, from, to string) *side {
	s := &side{ctx: context.Background(), to: to}
	var options []busway.ConsumerOption
	switch kind {
	case "Go":
	case "Go-context":
		ctx, cancel := context.WithCancel(s.ctx)
		_ = cancel // it could be
		s.ctx = ctx
	case "Go-poller":
		options = append(options, busway.WithPoller())
	case "Go-spin":
		options = append(options, busway.WithSpin(50*time.Microsecond))
	default:
		log.Fatalf("-kind %s: there is no such kind of round trip", kind)
	}
	var err error
	s.bus, err = busway.Open(s.ctx, busAt(dir))
	must(err)
	s.p, err = s.bus.Producer()
	must(err)
	s.c, err = s.bus.Consumer(options...)
	must(err)
	s.send([]byte("warm"))
	must(s.c.Assign(from, 0, busway.OffsetEnd))
	return s
}

func (s *side) send(what []byte) {
	_, err := s.p.Send(s.ctx, s.to, 0, busway.Record{Value: what})
	must(err)
}

func (s *side) one() {
	batch, err := s.c.Poll(s.ctx)
	must(err)
	if batch.Len() < 1 {
		log.Fatal("an empty batch")
	}
}

func quantile(list []float64, q float64) float64 {
	s := append([]float64(nil), list...)
	sort.Float64s(s)
	return s[int(q*float64(len(s)-1))]
}
