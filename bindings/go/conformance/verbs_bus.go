package conformance

import (
	"context"
	"fmt"
	"sort"
	"time"

	"busway"
)

type verb func(w *world, s step) (any, error)

var verbs = map[string]verb{}

func register(more map[string]verb) {
	for name, v := range more {
		verbs[name] = v
	}
}

var transports = map[string]busway.Transport{"": busway.TransportAuto, "auto": busway.TransportAuto, "direct": busway.TransportDirect,
	"ipc": busway.TransportIPC}

func dumpFile(w *world, s step) (any, error) {
	batches, records := []any{}, []any{}
	path := fmt.Sprintf("%s/%s-%d/%020d.log", s.text("path"), s.text("topic"), s.partition(), s.int("segment", 0))
	err := busway.Dump(path, s.is("records"), func(b busway.DumpBatch, r *busway.View) bool {
		if r != nil {
			records = append(records, object{"offset": r.Offset(), "timestamp": r.UnixMilli(), "key": seenBytes(r.Key()), "value": seenBytes(r.Value())})
		} else {
			codec := ""
			for name, c := range codecs {
				if c == b.Codec {
					codec = name
				}
			}
			batches = append(batches, object{"base_offset": b.BaseOffset, "last_offset": b.LastOffset, "count": int64(b.Count), "codec": codec,
				"timestamp_type": map[busway.TimestampType]string{busway.CreateTime: "create", busway.LogAppendTime: "log_append"}[b.TimestampType],
				"crc_ok":         b.CRCOK, "transactional": b.Transactional, "control": b.Control,
				"marker": map[busway.Marker]string{busway.NoMarker: "none", busway.AbortMarker: "abort", busway.CommitMarker: "commit"}[b.Marker]})
		}
		return int64(len(batches)+len(records)) < s.int("most", 1<<60)
	})
	return object{"batches": batches, "records": records}, err
}

func init() {
	register(map[string]verb{
		"bus.open": func(w *world, s step) (any, error) {
			b, err := busway.Open(context.Background(), s.textOr("url", w.bus.url), busway.WithClientID(s.textOr("client_id", "conformance")),
				busway.WithTransport(transports[s.textOr("transport", w.bus.transport)]))
			if err == nil {
				w.add(s.textOr("as", "bus"), b)
			}
			return nil, err
		},
		"bus.close": func(w *world, s step) (any, error) {
			h, b := find[*busway.Bus](w, s.textOr("on", "bus"))
			w.forget(h)
			return nil, b.Close()
		},
		"bus.stats": func(w *world, s step) (any, error) {
			_, b := find[*busway.Bus](w, s.textOr("on", "bus"))
			return w.document(b.Stats())
		},
		"bus.status": func(w *world, s step) (any, error) { return w.document(w.admin(s).Status(context.Background())) },
		"version": func(w *world, s step) (any, error) {
			var major, minor, patch int64
			if _, err := fmt.Sscanf(busway.LibraryVersion(), "%d.%d.%d", &major, &minor, &patch); err != nil {
				w.broken("the version is %s", busway.LibraryVersion())
			}
			return object{"version": busway.LibraryVersion(), "major": major, "minor": minor, "patch": patch}, nil
		},
		"error.class": func(w *world, s step) (any, error) {
			code, ok := busway.CodeNamed(s.text("name"))
			if !ok {
				w.broken("there is no error of this name")
			}
			return object{"name": code.Name(), "retriable": code.Retriable(), "fatal": code.Fatal(), "text": code.Text()}, nil
		},
		"sleep": func(w *world, s step) (any, error) {
			time.Sleep(time.Duration(s.int("ms", 0)) * time.Millisecond)
			return nil, nil
		},
		"verify": func(w *world, s step) (any, error) {
			t, err := busway.Verify(s.text("path"), nil, nil)
			return object{"errors": int64(t.Errors), "records": int64(t.Records), "batches": int64(t.Batches)}, err
		},
		"dump": dumpFile,
		"topic.create": func(w *world, s step) (any, error) {
			return nil, w.admin(s).CreateTopic(context.Background(), s.text("topic"), int32(s.int("partitions", 0)), config(s.within("config"))...)
		},
		"topic.alter": func(w *world, s step) (any, error) {
			return nil, w.admin(s).AlterTopic(context.Background(), s.text("topic"), int32(s.int("partitions", 0)), config(s.within("config"))...)
		},
		"topic.delete": func(w *world, s step) (any, error) {
			return nil, w.admin(s).DeleteTopic(context.Background(), s.text("topic"))
		},
		"topic.partitions": func(w *world, s step) (any, error) {
			n, err := w.admin(s).Partitions(context.Background(), s.text("topic"))
			return int64(n), err
		},
		"topic.describe": func(w *world, s step) (any, error) {
			return w.document(w.admin(s).DescribeTopics(context.Background(), s.textOr("topic", "")))
		},
		"records.delete": func(w *world, s step) (any, error) {
			start, err := w.admin(s).DeleteRecords(context.Background(), s.text("topic"), s.partition(), w.offset(s.object["before"], 0))
			return object{"log_start": start}, err
		},
		"offsets.range": func(w *world, s step) (any, error) {
			r, err := w.admin(s).Offsets(context.Background(), s.text("topic"), s.partition())
			return object{"log_start": r.LogStart, "end": r.End, "durable": r.Durable}, err
		},
		"offset.end": func(w *world, s step) (any, error) {
			limit := map[string]busway.ReadLimit{"durable": busway.ReadDurable, "replicated": busway.ReadReplicated}[s.textOr("read_limit", "")]
			return w.admin(s).OffsetEnd(context.Background(), s.text("topic"), s.partition(), limit)
		},
		"offset.for_time": func(w *world, s step) (any, error) {
			offset, found, err := w.admin(s).OffsetForTime(context.Background(), s.text("topic"), s.partition(), time.UnixMilli(s.int("time", 0)))
			ms := int64(-1)
			if !found.IsZero() {
				ms = found.UnixMilli()
			}
			return object{"offset": offset, "time": ms}, err
		},
		"quota.set": func(w *world, s step) (any, error) {
			return nil, w.admin(s).SetQuota(context.Background(), s.textOr("user", ""), s.textOr("client_id", ""), s.textOr("pid", ""),
				config(s.within("rates"))...)
		},
		"quota.list": func(w *world, s step) (any, error) {
			return w.document(w.admin(s).Quotas(context.Background(), s.textOr("user", ""), s.textOr("client_id", ""), s.textOr("pid", "")))
		},
		"producers.describe": func(w *world, s step) (any, error) {
			return w.document(w.admin(s).DescribeProducers(context.Background(), s.text("topic"), s.partition()))
		},
		"txn.list": func(w *world, s step) (any, error) { return w.document(w.admin(s).Transactions(context.Background())) },
		"txn.describe": func(w *world, s step) (any, error) {
			return w.document(w.admin(s).DescribeTransaction(context.Background(), s.text("id")))
		},
		"txn.abort_admin": func(w *world, s step) (any, error) {
			return nil, w.admin(s).AbortTransaction(context.Background(), s.text("id"))
		},
	})
}

func (w *world) admin(s step) *busway.Admin {
	_, b := find[*busway.Bus](w, s.textOr("on", "bus"))
	return b.Admin()
}

// config is a setting for each key; null: back to the default.
func config(s step) (out []busway.ConfigEntry) {
	names := make([]string, 0, len(s.object))
	for name := range s.object {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		if text, ok := s.object[name].(string); ok {
			out = append(out, busway.Set(name, text))
		} else {
			out = append(out, busway.Unset(name))
		}
	}
	return out
}
