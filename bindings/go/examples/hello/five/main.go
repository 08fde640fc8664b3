// five is the five lines: one record into a bus and out again. With Go 1.23 or later the last of them can be `for r, err := range c.All(ctx)`.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"busway"
)

func main() {
	url := "dir:./data"
	if len(os.Args) > 1 {
		url = os.Args[1]
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	bus, err := busway.Open(ctx, url)
	check(err)
	defer bus.Close()

	p, err := bus.Producer()
	check(err)
	_, err = p.Send(ctx, "t", busway.AnyPartition, busway.Record{Key: []byte("k"), Value: []byte("v")})
	check(err)
	c, err := bus.Consumer(busway.WithGroup("g"), busway.WithOffsetReset(busway.ResetEarliest))
	check(err)
	check(c.Subscribe("t"))
	records, err := c.Records(ctx)
	check(err)
	fmt.Printf("%s %s %s\n", records[0].Topic, records[0].Key, records[0].Value)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
