package conformance

import (
	"context"
	"errors"
	"strconv"
	"time"

	"busway"
)

func init() {
	register(map[string]verb{
		"state.open": func(w *world, s step) (any, error) {
			_, c := find[*busway.Consumer](w, s.textOr("consumer", "c"))
			st, err := c.State(busway.WithFastState(s.object["fast"] != false), busway.WithStateDir(s.textOr("dir", "")))
			if err == nil {
				w.add(s.textOr("as", "s"), st)
			}
			return nil, err
		},
		"state.close": func(w *world, s step) (any, error) {
			h, st := find[*busway.State](w, s.textOr("on", "s"))
			w.forget(h)
			return nil, st.Close()
		},
		"state.process": stateProcess,
		"state.begin": func(w *world, s step) (any, error) {
			_, st := find[*busway.State](w, s.textOr("on", "s"))
			ctx, cancel := s.context(5 * time.Second)
			defer cancel()
			txn, b, err := st.Begin(ctx)
			if txn != nil {
				w.add(s.textOr("as", "x"), txn)
			}
			if err != nil {
				return nil, err
			}
			list := []any{}
			for i := 0; i < b.Len(); i++ {
				list = append(list, seenRecord(b.At(i)))
			}
			return object{"topic": b.Topic, "partition": int64(b.Partition), "records": list}, nil
		},
		"state.read": func(w *world, s step) (any, error) {
			_, st := find[*busway.State](w, s.textOr("on", "s"))
			txn, err := st.Read(s.text("topic"), s.partition())
			if err == nil {
				w.add(s.textOr("as", "x"), txn)
			}
			return nil, err
		},
		"state.get": func(w *world, s step) (any, error) {
			_, txn := find[*busway.StateTxn](w, s.textOr("on", "x"))
			value, ok, err := txn.Get(w.bytes(s.object["key"]))
			if err == nil && !ok {
				err = busway.ErrNotFound
			}
			return seenBytes(value), err
		},
		"state.put": func(w *world, s step) (any, error) {
			_, txn := find[*busway.StateTxn](w, s.textOr("on", "x"))
			return nil, txn.Put(w.bytes(s.object["key"]), w.bytes(s.object["value"]))
		},
		"state.del": func(w *world, s step) (any, error) {
			_, txn := find[*busway.StateTxn](w, s.textOr("on", "x"))
			return nil, txn.Delete(w.bytes(s.object["key"]))
		},
		"state.each": func(w *world, s step) (any, error) {
			_, txn := find[*busway.StateTxn](w, s.textOr("on", "x"))
			list, most := []any{}, s.int("most", 1<<31)
			err := txn.Each(w.bytes(s.object["prefix"]), func(key, value []byte) bool {
				list = append(list, []any{seenBytes(key), seenBytes(value)})
				return int64(len(list)) < most
			})
			return list, err
		},
		"state.offset": func(w *world, s step) (any, error) {
			_, txn := find[*busway.StateTxn](w, s.textOr("on", "x"))
			return txn.Offset()
		},
		"state.commit": func(w *world, s step) (any, error) {
			h, txn := find[*busway.StateTxn](w, s.textOr("on", "x"))
			w.forget(h)
			return nil, txn.Commit()
		},
		"state.abort": func(w *world, s step) (any, error) {
			h, txn := find[*busway.StateTxn](w, s.textOr("on", "x"))
			w.forget(h)
			return nil, txn.Abort()
		},
	})
}

func countByKey(txn *busway.StateTxn, r busway.View) error {
	before, _, err := txn.Get(r.Key())
	if err != nil {
		return err
	}
	n, _ := strconv.ParseInt(string(before), 10, 64)
	return txn.Put(r.Key(), strconv.AppendInt(nil, n+1, 10))
}

func refuse(txn *busway.StateTxn, r busway.View) error {
	if err := countByKey(txn, r); err != nil {
		return err
	}
	return busway.ErrInvalidRecord
}

func stateProcess(w *world, s step) (any, error) {
	_, st := find[*busway.State](w, s.textOr("on", "s"))
	fn := countByKey
	if s.text("handler") == "refuse" {
		fn = refuse
	}
	wait, total, sum := s.timeout(5*time.Second), s.int("total", 0), int64(0)
	end := time.Now().Add(wait)
	if total > 0 {
		wait = 200 * time.Millisecond
	}
	for {
		ctx, cancel := context.WithTimeout(context.Background(), wait)
		n, err := st.Process(ctx, int(s.int("batch_max", 1000)), fn)
		cancel()
		sum += int64(n)
		if total > 0 && (timedOut(err) || errors.Is(err, busway.ErrBusy)) && time.Now().Before(end) {
			err = nil
		}
		if err != nil || sum >= total {
			return object{"done": sum}, err
		}
	}
}
