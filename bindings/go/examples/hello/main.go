// hello sends one record through a bus in a folder and reads it back. Nothing has to be started.
package main

import (
	"context"
	"fmt"
	"log"

	"busway"
)

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func main() {
	ctx := context.Background()
	bus, err := busway.Open(ctx, "dir:./x")
	check(err)
	defer bus.Close()
	p, err := bus.Producer()
	check(err)
	defer p.Close()
	_, err = p.Send(ctx, "t", 0, busway.Record{Key: []byte("k"), Value: []byte("v")})
	check(err)
	c, err := bus.Consumer(busway.WithGroup("g"), busway.WithOffsetReset(busway.ResetEarliest))
	check(err)
	defer c.Close()
	check(c.Subscribe("t"))
	records, err := c.Records(ctx)
	check(err)
	fmt.Println(records[0].Topic, string(records[0].Value), string(records[0].Key))
}
