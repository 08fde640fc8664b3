package busway

import (
	"bytes"
	"fmt"
	"math/rand"
	"reflect"
	"testing"
	"time"
)

// someRecords are of all shapes: null, empty, short and long keys, values and headers.
func someRecords(random *rand.Rand, n int) []Record {
	piece := func() []byte {
		switch random.Intn(5) {
		case 0:
			return nil
		case 1:
			return []byte{}
		case 2:
			return bytes.Repeat([]byte{byte(random.Intn(256))}, random.Intn(3000))
		}
		return []byte(fmt.Sprint("some", random.Intn(1000)))
	}
	out := make([]Record, n)
	for i := range out {
		out[i] = Record{Key: piece(), Value: piece(), Time: time.UnixMilli(int64(1e12) + int64(random.Intn(3)))}
		for h := random.Intn(4) - 1; h > 0; h-- {
			out[i].Headers = append(out[i].Headers, Header{fmt.Sprint("name", h), piece()})
		}
	}
	return out
}

func TestCopiesAreTheirOwn(t *testing.T) {
	b := aBus(t)
	random := rand.New(rand.NewSource(1))
	for _, codec := range []Codec{CodecNone, CodecLZ4} {
		topic, ctx := aTopic(t, b, 1), soon(t)
		p, c := aProducer(t, b, WithCompression(codec)), aConsumer(t, b, topic)
		var again Copies
		for round := 0; round < 30; round++ {
			in := someRecords(random, 1+random.Intn(40))
			d, err := p.SendBatch(ctx, topic, 0, in)
			must(t, err)
			from := random.Intn(len(in)) // in the middle of the batch
			must(t, c.Seek(topic, 0, d.Offset+int64(from)))
			batch, err := c.Poll(ctx)
			must(t, err)
			reused := again.Of(&batch)
			got, one := batch.AppendRecords(make([]Record, 1, 2+from)), batch.At(0).Record()
			got = got[1:]
			must(t, c.Seek(topic, 0, d.Offset)) // from here on nothing of the log may be needed
			for i := range in {
				in[i].Topic, in[i].Offset = topic, d.Offset+int64(i)
			}
			if in = in[from:]; len(got) != len(in) || !reflect.DeepEqual(one, in[0]) {
				t.Fatalf("%d records, the first %+v, wanted %+v", len(got), one, in[0])
			}
			if !reflect.DeepEqual(reused, in) {
				t.Fatalf("%+v, wanted %+v", reused, in)
			}
			for i := range got { // whoever appends to one does not write into its neighbour
				_ = append(got[i].Key, "behind the key"...)
				_ = append(got[i].Value, "behind the value"...)
				_ = append(got[i].Headers, Header{"another", nil})
				for _, h := range got[i].Headers {
					_ = append(h.Value, "behind the header"...)
				}
			}
			for i := range got {
				if !reflect.DeepEqual(got[i], in[i]) {
					t.Fatalf("record %d: %+v, wanted %+v", i, got[i], in[i])
				}
			}
			if d.Count != len(in)+from {
				t.Fatal(d.Count)
			}
		}
	}
}

// A batch is one piece of memory for its bytes, one for its records, and one for headers; used again, none.
func TestCopiesAreThreeAllocationsOrNone(t *testing.T) {
	b := aBus(t)
	topic, ctx := aTopic(t, b, 1), soon(t)
	in := values(100)
	for i := range in {
		in[i].Headers = []Header{{"a", []byte("1")}, {"b", nil}}
	}
	_, err := aProducer(t, b).SendBatch(ctx, topic, 0, in)
	must(t, err)
	batch, err := aConsumer(t, b, topic).Poll(ctx)
	must(t, err)
	if n := testing.AllocsPerRun(100, func() { batch.Records() }); n > 3 {
		t.Errorf("%v allocations", n)
	}
	var again Copies
	if n := testing.AllocsPerRun(100, func() { again.Of(&batch) }); n > 0 {
		t.Errorf("%v allocations of memory that is used again", n)
	}
}
