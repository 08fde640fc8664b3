// Package conformance runs the scenarios of tests/conformance with the Go binding: the same files that C and Python run. Their README says what
// the data means. `go test ./conformance` makes a folder and runs them directly and through the daemon; with $BUSWAY_TEST_URL and
// $BUSWAY_TEST_TRANSPORT they run on that bus.
package conformance

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"busway"
)

const patience = 10 * time.Second

// place is a bus to run on, and what it can do.
type place struct {
	url, dir  string
	transport string
	can       map[string]bool
}

// world is one scenario that runs.
type world struct {
	bus     *place
	vars    object
	handles []*handle // in the order of opening
	why     string    // what is wrong with the scenario itself, or "" (see broken)
}

type handle struct {
	name     string
	thing    any // *busway.Bus, …, []busway.Message
	inbox    []any
	told     []any // consumer: rebalance events; producer: outcomes of asynchronous sends, nil: not known yet
	outcomes []any
	reached  map[string]int64
	txn      *busway.Transaction // producer: the one that is open
}

// broken: the scenario fails, whatever it expects.
func (w *world) broken(format string, args ...any) {
	if w.why == "" {
		w.why = fmt.Sprintf(format, args...)
	}
}

// stop ends a step that can't be done; broken said why.
type stop struct{}

func (w *world) add(name string, thing any) *handle {
	h := &handle{name: name, thing: thing, reached: map[string]int64{}}
	w.handles = append(w.handles, h)
	return h
}

// find is the thing of this name and type.
func find[T any](w *world, name string) (*handle, T) {
	for i := len(w.handles) - 1; i >= 0; i-- {
		if t, ok := w.handles[i].thing.(T); ok && w.handles[i].name == name {
			return w.handles[i], t
		}
	}
	w.broken("nothing is open under the name %q that this step could be done with", name)
	panic(stop{})
}

func (w *world) forget(h *handle) {
	for i := range w.handles {
		if w.handles[i] == h {
			w.handles = append(w.handles[:i], w.handles[i+1:]...)
			return
		}
	}
}

// closeAll closes what is still open, in the reverse order of opening; that must not fail.
func (w *world) closeAll() (first error) {
	for i := len(w.handles) - 1; i >= 0; i-- {
		var err error
		switch t := w.handles[i].thing.(type) {
		case *busway.StateTxn:
			err = t.Abort()
		case interface{ Close() error }:
			err = t.Close()
		}
		if err != nil && first == nil {
			first = fmt.Errorf("closing %s: %w", w.handles[i].name, err)
		}
	}
	w.handles = nil
	return first
}

// ---- arguments ----

type step struct {
	w *world
	object
}

func integer(v any, other int64) int64 {
	if f, ok := number(v); ok {
		return int64(f)
	}
	return other
}

func (s step) textOr(name, other string) string {
	if text, ok := s.object[name].(string); ok {
		return text
	}
	return other
}

func (s step) text(name string) string {
	if text, ok := s.object[name].(string); ok {
		return text
	}
	s.w.broken("%q is missing, or no text", name)
	return ""
}

func (s step) int(name string, other int64) int64 { return integer(s.object[name], other) }
func (s step) partition() int32                   { return int32(s.int("partition", int64(busway.AnyPartition))) }
func (s step) is(name string) bool                { return s.object[name] == true }

func (s step) within(name string) step {
	in, _ := s.object[name].(object)
	return step{s.w, in}
}

func (s step) list(name string) []any {
	l, _ := s.object[name].([]any)
	return l
}

func (s step) texts(name string) (out []string) {
	for _, v := range s.list(name) {
		text, _ := v.(string)
		out = append(out, text)
	}
	return out
}

func (s step) timeout(other time.Duration) time.Duration {
	return time.Duration(s.int("timeout_ms", other.Milliseconds())) * time.Millisecond
}

// context is bounded by timeout_ms.
func (s step) context(other time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), s.timeout(other))
}

func (w *world) offset(v any, other int64) int64 {
	switch v := v.(type) {
	case nil:
		return other
	case int64:
		return v
	case string:
		if v == "beginning" {
			return busway.OffsetBeginning
		}
		if v == "end" {
			return busway.OffsetEnd
		}
	}
	w.broken("%s is no offset", dump(v))
	return other
}

func (w *world) record(v any) busway.Record {
	in, ok := v.(object)
	if !ok {
		w.broken("a record must be an object")
		return busway.Record{}
	}
	r := busway.Record{Key: w.bytes(in["key"]), Value: w.bytes(in["value"])}
	if in["timestamp"] != nil {
		r.Time = time.UnixMilli(integer(in["timestamp"], 0))
	}
	headers, _ := in["headers"].([]any)
	for _, h := range headers {
		pair, _ := h.([]any)
		if len(pair) != 2 {
			w.broken("%s is no header", dump(h))
			continue
		}
		if ms, ok := pair[1].(int64); ok {
			r.Headers = append(r.Headers, busway.DeliverAt(time.UnixMilli(ms)))
			continue
		}
		r.Headers = append(r.Headers, busway.Header{Name: string(w.bytes(pair[0])), Value: w.bytes(pair[1])})
	}
	return r
}

func (w *world) records(list []any) (out []busway.Record) {
	for _, v := range list {
		out = append(out, w.record(v))
	}
	return out
}

func (w *world) parts(list []any) (out []busway.TopicPartition) {
	for _, v := range list {
		in, _ := v.(object)
		s := step{w, in}
		out = append(out, busway.TopicPartition{Topic: s.text("topic"), Partition: s.partition(), Metadata: s.textOr("metadata", ""),
			Offset: w.offset(in["offset"], busway.OffsetInvalid)})
	}
	return out
}

// ---- what is seen ----

func seenOffset(offset int64) any {
	switch offset {
	case busway.OffsetInvalid:
		return "none"
	case busway.OffsetBeginning:
		return "beginning"
	case busway.OffsetEnd:
		return "end"
	}
	return offset
}

// errorName is nil, or the name in error.h.
func errorName(err error) any {
	if err == nil {
		return nil
	}
	var code busway.Code
	switch {
	case errors.As(err, &code):
		return code.Name()
	case errors.Is(err, context.DeadlineExceeded):
		return busway.ErrTimedOut.Name()
	}
	return "an error of another kind: " + err.Error()
}

func seenRecord(v busway.View) object {
	headers := []any{}
	err := v.EachHeader(func(name, value []byte) bool {
		headers = append(headers, []any{seenBytes(name), seenBytes(value)})
		return true
	})
	if err != nil {
		headers = []any{err.Error()}
	}
	who := map[busway.TimestampType]string{busway.CreateTime: "create", busway.LogAppendTime: "log_append"}[v.TimestampType()]
	return object{"topic": v.Topic(), "partition": int64(v.Partition()), "offset": v.Offset(), "timestamp": v.UnixMilli(),
		"timestamp_type": who, "key": seenBytes(v.Key()), "value": seenBytes(v.Value()), "headers": headers}
}

func seenParts(parts []busway.TopicPartition) []any {
	out := []any{}
	for _, p := range parts {
		var note any
		if p.Metadata != "" {
			note = p.Metadata
		}
		out = append(out, object{"topic": p.Topic, "partition": int64(p.Partition), "offset": seenOffset(p.Offset), "metadata": note,
			"error": errorName(p.Err)})
	}
	return out
}

func (w *world) document(text busway.JSON, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	v, err := parse(text)
	if err != nil {
		w.broken("the library's document is no JSON: %v", err)
	}
	return v, nil
}

func placeName(topic string, partition int32) string {
	return topic + "/" + strconv.Itoa(int(partition))
}

// ---- one step ----

// try does a step once: "" when it is as it should be, else why not.
func (w *world) try(given object) (why string) {
	s := step{w, w.substitute(given).(object)}
	verb := verbs[s.textOr("do", "")]
	if verb == nil {
		w.broken("there is no verb %q", s.textOr("do", ""))
		return w.why
	}
	defer func() {
		if x := recover(); x != nil {
			if _, ok := x.(stop); !ok {
				panic(x)
			}
			why = w.why
		}
	}()
	result, err := verb(w, s)
	if w.why != "" {
		return w.why
	}
	if why := s.judge(result, err); why != "" {
		return why
	}
	if err == nil {
		for name, path := range s.within("save").object {
			v, ok := at(result, path.(string))
			if !ok {
				w.broken("nothing is at %v of the result", path)
				return w.why
			}
			w.vars[name] = v
		}
	}
	return ""
}

func (s step) judge(result any, err error) string {
	name, _ := errorName(err).(string)
	if err == nil {
		name = "OK"
	}
	wanted := []any{"OK"}
	switch e := s.object["error"].(type) {
	case string:
		wanted = []any{e}
	case []any:
		wanted = e
	}
	found := false
	for _, e := range wanted {
		found = found || e == name
	}
	switch {
	case !found:
		return fmt.Sprintf("%s: %v, wanted %s", name, err, dump(wanted))
	case err == nil && s.object["see"] != nil:
		if why := mismatch(result, s.object["see"]); why != "" {
			return "seen" + why
		}
	case err != nil:
		var code busway.Code
		if !errors.As(err, &code) {
			code, _ = busway.CodeNamed(name) // of a context that ended
		}
		if want, ok := s.object["retriable"].(bool); ok && want != code.Retriable() {
			return fmt.Sprintf("%s: retriable is %v", name, !want)
		}
		if want, ok := s.object["fatal"].(bool); ok && want != code.Fatal() {
			return fmt.Sprintf("%s: fatal is %v", name, !want)
		}
		if text := s.textOr("message", ""); !strings.Contains(err.Error(), text) {
			return fmt.Sprintf("the message %q does not contain %q", err.Error(), text)
		}
	}
	return ""
}

func (w *world) step(given object) string {
	if only, ok := given["if"].(string); ok && !w.bus.able(only) {
		return ""
	}
	end := time.Now().Add(time.Duration(integer(given["within_ms"], 0)) * time.Millisecond)
	for {
		why := w.try(given)
		if why == "" || w.why != "" || !time.Now().Before(end) {
			return why
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (p *place) able(capability string) bool {
	if strings.HasPrefix(capability, "!") {
		return !p.can[capability[1:]]
	}
	return p.can[capability]
}

// run runs a scenario. skipped: why this bus can't.
func (p *place) run(scenario object) (why, skipped string) {
	w := &world{bus: p, vars: object{}}
	s := step{w, scenario}
	steps, lacks := s.list("steps"), ""
	for _, name := range s.texts("requires") {
		if !p.able(name) {
			lacks = name
			break
		}
	}
	if lacks != "" {
		if steps = s.list("otherwise"); steps == nil {
			return "", "this bus can't do: " + lacks
		}
	}
	defer func() {
		if err := w.closeAll(); err != nil && why == "" {
			why = err.Error()
		}
	}()
	if why := w.step(object{"do": "bus.open"}); why != "" {
		return "opening the bus: " + why, ""
	}
	if lacks == "" {
		for i, t := range s.list("topics") {
			make := object{"do": "topic.create"}
			for k, v := range t.(object) {
				make[k] = v
			}
			if why := w.step(make); why != "" {
				return fmt.Sprintf("making topic %d: %s", i, why), ""
			}
		}
	}
	for i, v := range steps {
		if why := w.step(v.(object)); why != "" {
			return fmt.Sprintf("step %d, %v: %s", i+1, v.(object)["do"], why), ""
		}
	}
	return "", ""
}
