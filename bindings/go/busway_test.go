package busway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	_ io.Closer = (*Bus)(nil)
	_ io.Closer = (*Producer)(nil)
	_ io.Closer = (*Consumer)(nil)
	_ io.Closer = (*Queue)(nil)
	_ io.Closer = (*State)(nil)
)

func TestRecordRoundTrip(t *testing.T) {
	b := aBus(t)
	topic, ctx := aTopic(t, b, 1), soon(t)
	when := time.UnixMilli(1234567890123)
	in := []Record{
		{Key: []byte("k"), Value: []byte("v"), Time: when, Headers: []Header{{"null", nil}, {"empty", []byte{}}, {"x", []byte{0, 255}}}},
		{Key: nil, Value: nil, Time: when},
		{Key: []byte{}, Value: []byte{}, Time: when},
		{Value: bytes.Repeat([]byte("long"), 10000), Time: when},
	}
	p := aProducer(t, b)
	d, err := p.SendBatch(ctx, topic, 0, in)
	must(t, err)
	if d.Offset != 0 || d.Count != len(in) || d.Topic != topic {
		t.Fatalf("%+v", d)
	}
	c := aConsumer(t, b, topic)
	got, err := c.Records(ctx)
	must(t, err)
	for i := range got {
		want := in[i]
		want.Topic, want.Offset = topic, int64(i)
		if !reflect.DeepEqual(got[i], want) {
			t.Errorf("record %d: %+v, wanted %+v", i, got[i], want)
		}
	}
	if len(got) != len(in) {
		t.Fatalf("%d records", len(got))
	}
	if v, ok := got[0].Header("x"); !ok || !bytes.Equal(v, []byte{0, 255}) {
		t.Fatal("header", v)
	}
}

func TestViewsShowTheSameAsRecords(t *testing.T) {
	b := aBus(t)
	topic, ctx := aTopic(t, b, 1), soon(t)
	_, err := aProducer(t, b).Send(ctx, topic, 0, Record{Key: []byte("k"), Value: []byte("v"), Headers: []Header{{"a", []byte("1")}, {"b", nil}}})
	must(t, err)
	batch, err := aConsumer(t, b, topic).Poll(ctx)
	must(t, err)
	v := batch.At(0)
	if string(v.Key()) != "k" || string(v.Value()) != "v" || v.Topic() != topic || v.Partition() != 0 || v.Offset() != 0 || v.HeaderCount() != 2 {
		t.Fatalf("%+v", v.Record())
	}
	var seen []string
	must(t, v.EachHeader(func(name, value []byte) bool {
		seen = append(seen, fmt.Sprintf("%s=%v", name, value))
		return true
	}))
	if fmt.Sprint(seen) != "[a=[49] b=[]]" || v.TimestampType() != CreateTime || time.Since(v.Time()) > time.Hour {
		t.Fatal(seen, v.TimestampType(), v.Time())
	}
}

func TestSendManySpreadsByKeyAndSaysWhere(t *testing.T) {
	b := aBus(t)
	topic, ctx := aTopic(t, b, 3), soon(t)
	records := values(1000)
	for i := range records {
		records[i].Key = []byte(fmt.Sprint("key", i%17))
	}
	for _, ctx := range []context.Context{ctx, context.Background()} {
		placed, err := aProducer(t, b).SendMany(ctx, topic, AnyPartition, records)
		must(t, err)
		where := map[string]int32{}
		for i, at := range placed {
			key := string(records[i].Key)
			if before, ok := where[key]; at.Code != 0 || at.Offset < 0 || ok && before != at.Partition {
				t.Fatalf("record %d: %+v", i, at)
			}
			where[key] = at.Partition
		}
	}
	total := 0
	c := aConsumer(t, b, topic)
	for total < 2000 {
		got, err := c.Records(ctx)
		must(t, err)
		total += len(got)
	}
}

func TestAsynchronousSendsTellEveryOutcomeOnce(t *testing.T) {
	b := aBus(t)
	topic, ctx := aTopic(t, b, 1), soon(t)
	p := aProducer(t, b, WithLinger(time.Millisecond))
	told := map[int]int64{}
	for i := 0; i < 50; i++ {
		i := i
		n, err := p.SendManyAsync(ctx, topic, 0, values(20), func(k int, d Delivery) {
			if d.Err != nil {
				t.Error(d.Err)
			}
			if _, twice := told[i*20+k]; twice {
				t.Error("twice")
			}
			told[i*20+k] = d.Offset
		})
		must(t, err)
		if n != 20 {
			t.Fatal(n)
		}
	}
	must(t, p.Flush(ctx))
	for i := 0; i < 1000; i++ {
		if offset, ok := told[i]; !ok || offset != int64(i) {
			t.Fatalf("record %d: %d, %v", i, offset, ok)
		}
	}
}

func TestAsynchronousFailureWithoutFunctionComesOutOfFlush(t *testing.T) {
	b := aBus(t)
	ctx := soon(t)
	topic := aTopic(t, b, 1)
	must(t, b.Admin().AlterTopic(ctx, topic, 0, Set("max.message.bytes", "2000")))
	p := aProducer(t, b)
	err := p.SendAsync(ctx, topic, 0, Record{Value: make([]byte, 100000)}, nil)
	if err == nil {
		err = p.Flush(ctx)
	}
	is(t, err, ErrRecordTooLarge)
	must(t, p.Flush(ctx)) // it was told
}

func TestReservationIsWrittenInPlace(t *testing.T) {
	b := aBus(t)
	topic, ctx := aTopic(t, b, 1), soon(t)
	p := aProducer(t, b)
	r, err := p.Reserve(ctx, topic, 0, Record{Key: []byte("k")}, 100)
	must(t, err)
	is(t, p.Close(), ErrBusy)
	n := copy(r.Value, "in place")
	d, err := r.Commit(n)
	must(t, err)
	r.Abort() // nothing any more
	if d.Offset != 0 || d.Topic != topic {
		t.Fatalf("%+v", d)
	}
	_, err = r.Commit(0)
	is(t, err, ErrInvalidArgument)
	r, err = p.Reserve(ctx, topic, 0, Record{}, 100)
	must(t, err)
	r.Abort()
	sent(t, p, topic, 1)
	got, err := aConsumer(t, b, topic).Records(ctx)
	must(t, err)
	if string(got[0].Value) != "in place" || string(got[0].Key) != "k" {
		t.Fatalf("%q", got[0].Value)
	}
}

func TestErrorsAreCodesMessagesAndClasses(t *testing.T) {
	b := aBus(t)
	_, err := b.Admin().Partitions(soon(t), "there.is.none")
	is(t, err, ErrUnknownTopic)
	var e *Error
	var code Code
	if !errors.As(err, &e) || !errors.As(err, &code) || code != ErrUnknownTopic || e.Op != "partitions" || !strings.Contains(e.Message, "there.is.none") {
		t.Fatalf("%#v", err)
	}
	if code.Retriable() || e.Fatal() || !IsRetriable(fmt.Errorf("wrapped: %w", ErrTimedOut)) || code.Name() != "UNKNOWN_TOPIC" {
		t.Fatal("classes")
	}
	var netError net.Error
	if errors.As(err, &netError) && netError.Timeout() || !ErrTimedOut.Timeout() {
		t.Fatal("Timeout")
	}
	if c := Code(99999); c.Name() != "UNKNOWN(99999)" || c.Error() == "" {
		t.Fatal(c.Name())
	}
}

func TestPollerConsumerReadsAndCancels(t *testing.T) {
	for _, transport := range []Transport{TransportDirect, TransportIPC} {
		b := aBus(t, WithTransport(transport))
		topic := aTopic(t, b, 1)
		p, c := aProducer(t, b), aConsumer(t, b, topic, WithPoller())
		var senders sync.WaitGroup // a record is read before its Send returns
		for i := 0; i < 200; i++ {
			senders.Add(1)
			go func() {
				defer senders.Done()
				sent(t, p, topic, 1)
			}()
			batch, err := c.Poll(soon(t))
			must(t, err)
			if batch.Len() == 0 {
				t.Fatal("an empty batch")
			}
			for read := batch.Len(); read < 1; {
				read++
			}
		}
		senders.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
		for {
			if _, err := c.Poll(ctx); err != nil {
				is(t, err, context.DeadlineExceeded)
				break
			}
		}
		cancel()
	}
}

func TestEachStopsAtTheRecordThatFailed(t *testing.T) {
	b := aBus(t)
	topic := aTopic(t, b, 1)
	sent(t, aProducer(t, b), topic, 10)
	c, refused, n := aConsumer(t, b, topic), errors.New("no"), 0
	err := c.Each(soon(t), func(v View) error {
		if n++; n == 4 {
			return refused
		}
		return nil
	})
	is(t, err, refused)
	got, err := c.Records(soon(t))
	must(t, err)
	if got[0].Offset != 3 {
		t.Fatalf("goes on at %d", got[0].Offset)
	}
}

func TestGroupSharesPartitionsAndCommits(t *testing.T) {
	b := aBus(t)
	topic, ctx := aTopic(t, b, 4), soon(t)
	p := aProducer(t, b)
	for i := int32(0); i < 4; i++ {
		_, err := p.SendBatch(ctx, topic, i, values(10))
		must(t, err)
	}
	group := topic + ".g"
	var mu sync.Mutex
	owned := map[int]int{}
	member := func(n int) *Consumer {
		c := aConsumer(t, b, "", WithGroup(group), WithOffsetReset(ResetEarliest), WithRebalance(func(c *Consumer, e Rebalance, parts []TopicPartition) {
			if e == Revoked {
				if err := c.Commit(ctx); err != nil {
					t.Error("commit in a callback: ", err)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			if e == Assigned {
				owned[n] += len(parts)
			} else {
				owned[n] -= len(parts)
			}
		}))
		must(t, c.Subscribe(topic))
		return c
	}
	members := []*Consumer{member(0), member(1)}
	end := time.Now().Add(patient)
	for {
		for _, c := range members {
			if _, err := c.TryPoll(); err != nil && !errors.Is(err, ErrTimedOut) {
				t.Fatal(err)
			}
		}
		mu.Lock()
		settled := owned[0] == 2 && owned[1] == 2
		mu.Unlock()
		if settled {
			break
		}
		if time.Now().After(end) {
			t.Fatal("not settled", owned)
		}
	}
	meta, err := members[0].GroupMetadata()
	must(t, err)
	if meta.GroupID != group || meta.MemberID == "" || meta.MemberEpoch < 0 {
		t.Fatalf("%+v", meta)
	}
	must(t, members[0].Close())
	must(t, members[1].Commit(ctx))
	parts := []TopicPartition{{Topic: topic, Partition: 0}, {Topic: topic, Partition: 3}}
	must(t, members[1].Committed(ctx, parts))
	must(t, members[1].Close())
	groups, err := Decode[[]struct{ Group string }](b.Admin().Groups(ctx))
	must(t, err)
	if !strings.Contains(fmt.Sprint(groups), group) {
		t.Fatal(groups)
	}
}

func TestTransactionCommitsOrNot(t *testing.T) {
	b := aBus(t)
	topic, ctx := aTopic(t, b, 1), soon(t)
	p := aProducer(t, b, WithTransactionalID(topic))
	must(t, p.InitTransactions(ctx))
	no := errors.New("no")
	is(t, p.Transact(ctx, func(*Transaction) error {
		_, err := p.Send(ctx, topic, 0, Record{Value: []byte("aborted")})
		must(t, err)
		return no
	}), no)
	if x := panics(func() { _ = p.Transact(ctx, func(*Transaction) error { panic("thrown") }) }); x != "thrown" {
		t.Fatal(x)
	}
	must(t, p.Transact(ctx, func(*Transaction) error {
		_, err := p.Send(ctx, topic, 0, Record{Value: []byte("committed")})
		return err
	}))
	tx, err := p.Begin()
	must(t, err)
	_, err = p.Begin()
	is(t, err, ErrInvalidTxnState)
	must(t, tx.Commit(ctx))
	is(t, tx.Commit(ctx), ErrInvalidTxnState)
	must(t, tx.Abort(ctx))
	got, err := aConsumer(t, b, topic, WithIsolation(ReadCommitted)).Records(ctx)
	must(t, err)
	if len(got) != 1 || string(got[0].Value) != "committed" {
		t.Fatal(got)
	}
}

func TestLoggerHearsTheLibrary(t *testing.T) {
	heard := make(chan string, 1000)
	b, err := Open(soon(t), "dir:"+t.TempDir()+"?idle-exit=1s", WithLogger(func(level LogLevel, message string) {
		select {
		case heard <- level.String() + ": " + message:
		default:
		}
	}))
	must(t, err)
	must(t, b.Close())
	select {
	case m := <-heard:
		if m == "" {
			t.Fatal("nothing said")
		}
	default: // it had nothing to say: the pipe itself
		var got string
		pipe, err := newLogPipe(func(_ LogLevel, m string) { got = m })
		must(t, err)
		pipe.close()
		if got != "" {
			t.Fatal(got)
		}
	}
}

func TestVerifyAndDumpReadWhatWasWritten(t *testing.T) {
	b := aBus(t)
	topic := aTopic(t, b, 1)
	sent(t, aProducer(t, b), topic, 7)
	segments, err := filepath.Glob(filepath.Join(folder, "*", topic+"-0", "*.log"))
	must(t, err)
	if segments == nil {
		segments, err = filepath.Glob(filepath.Join(folder, topic+"-0", "*.log"))
		must(t, err)
	}
	if len(segments) != 1 {
		t.Fatal(segments)
	}
	batches, records := 0, 0
	must(t, Dump(segments[0], true, func(batch DumpBatch, v *View) bool {
		if v == nil {
			batches++
		} else if records++; string(v.Value()) != fmt.Sprint("v", v.Offset()) {
			t.Errorf("%q at %d", v.Value(), v.Offset())
		}
		return true
	}))
	totals, err := Verify(segments[0], nil, func(done, total uint64) {})
	must(t, err)
	if batches != 1 || records != 7 || totals.Records != 7 {
		t.Fatal(batches, records, totals)
	}
	_, err = Verify("/there/is/nothing", nil, nil)
	is(t, err, ErrNotFound)
	if x := panics(func() {
		_ = Dump(segments[0], false, func(DumpBatch, *View) bool { panic("in C") })
	}); x != "in C" {
		t.Fatal(x)
	}
}

func TestABIOfAnotherMajorVersionIsRefused(t *testing.T) {
	must(t, checkABI(LibraryVersion(), HeaderVersion))
	must(t, checkABI("3.9.1", "3.0.0"))
	for _, library := range []string{"1.0.0", "10.0.0", "", "x"} {
		err := checkABI(library, "0.1.0")
		is(t, err, ErrUnsupportedVersion)
		if !strings.Contains(err.Error(), "0.x") {
			t.Error(err)
		}
	}
	is(t, errClosed("x", "bus"), fs.ErrClosed)
}

// A library that says it is another major version, in front of the one that is linked.
func TestLibraryOfAnotherMajorVersionIsRefused(t *testing.T) {
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("SKIP: there is no cc")
	}
	dir := t.TempDir()
	source, library := filepath.Join(dir, "fake.c"), filepath.Join(dir, "fake.so")
	must(t, os.WriteFile(source, []byte(`const char *bw_version(void) { return "7.2.1"; }`), 0o600))
	if out, err := exec.Command(cc, "-shared", "-fPIC", "-o", library, source).CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	other := exec.Command(os.Args[0])
	other.Env = append(os.Environ(), "LD_PRELOAD="+library, "BUSWAY_GO_TEST=abi")
	out, err := other.CombinedOutput()
	must(t, err)
	for _, text := range []string{"UNSUPPORTED_VERSION", "7.2.1", HeaderVersion, "another ABI"} {
		if !strings.Contains(string(out), text) {
			t.Errorf("%q is not in %q", text, out)
		}
	}
}
