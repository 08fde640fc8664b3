package busway

import (
	"bytes"
	"context"
	"os"
	"testing"
	"time"
)

func TestRoundTrip(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	dir, err := os.MkdirTemp("", "bw-go")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	b, err := Open(ctx, "dir:"+dir+"?idle-exit=1s")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.Admin().CreateTopic(ctx, "t", 1); err != nil {
		t.Fatal(err)
	}
	p, err := b.Producer()
	if err != nil {
		t.Fatal(err)
	}
	d, err := p.Send(ctx, "t", 0, Record{Key: []byte("k"), Value: []byte("v"), Headers: []Header{{"a", nil}, {"b", []byte("x")}}})
	if err != nil || d.Offset != 0 {
		t.Fatal(d, err)
	}
	c, err := b.Consumer(WithGroup("g"), WithOffsetReset(ResetEarliest))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Subscribe("t"); err != nil {
		t.Fatal(err)
	}
	got, err := c.Records(ctx)
	if err != nil || len(got) != 1 || !bytes.Equal(got[0].Value, []byte("v")) || len(got[0].Headers) != 2 {
		t.Fatal(got, err)
	}
	if err := c.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}
