package conformance

import (
	"context"
	"time"

	"busway"
)

func init() {
	settle := func(one func(*busway.Queue, busway.Message) error, many func(*busway.Queue, ...busway.Message) error) verb {
		return func(w *world, s step) (any, error) {
			_, q := find[*busway.Queue](w, s.textOr("on", "q"))
			_, messages := find[[]busway.Message](w, s.textOr("of", "m"))
			if many != nil && !s.is("each") {
				return nil, many(q, messages...)
			}
			for _, m := range messages {
				if err := one(q, m); err != nil {
					return nil, err
				}
			}
			return nil, nil
		}
	}
	single := func(many func(*busway.Queue, ...busway.Message) error) func(*busway.Queue, busway.Message) error {
		return func(q *busway.Queue, m busway.Message) error { return many(q, m) }
	}
	background := context.Background()
	register(map[string]verb{
		"group.list": func(w *world, s step) (any, error) { return w.document(w.admin(s).Groups(background)) },
		"group.describe": func(w *world, s step) (any, error) {
			return w.document(w.admin(s).DescribeGroup(background, s.text("group")))
		},
		"group.delete": func(w *world, s step) (any, error) {
			return nil, w.admin(s).DeleteGroup(background, s.text("group"))
		},
		"group.offsets.alter": func(w *world, s step) (any, error) {
			parts := w.parts(s.list("offsets"))
			err := w.admin(s).AlterGroupOffsets(background, s.text("group"), parts)
			return seenParts(parts), err
		},
		"group.offsets.delete": func(w *world, s step) (any, error) {
			parts := w.parts(s.list("partitions"))
			err := w.admin(s).DeleteGroupOffsets(background, s.text("group"), parts)
			return seenParts(parts), err
		},
		"queue.open": queueOpen,
		"queue.close": func(w *world, s step) (any, error) {
			h, q := find[*busway.Queue](w, s.textOr("on", "q"))
			w.forget(h)
			return nil, q.Close()
		},
		"queue.poll": func(w *world, s step) (any, error) {
			_, q := find[*busway.Queue](w, s.textOr("on", "q"))
			ctx, cancel := s.context(5 * time.Second)
			defer cancel()
			messages, err := q.Poll(ctx, 1)
			if err != nil {
				return nil, err
			}
			w.keep(s, messages)
			return seenMessage(messages[0]), nil
		},
		"queue.read":    queueRead,
		"queue.ack":     settle(single((*busway.Queue).Ack), (*busway.Queue).Ack),
		"queue.release": settle(single((*busway.Queue).Release), (*busway.Queue).Release),
		"queue.reject":  settle(single((*busway.Queue).Reject), (*busway.Queue).Reject),
		"queue.renew":   settle(single((*busway.Queue).Renew), nil),
		"queue.ack_sync": settle(func(q *busway.Queue, m busway.Message) error {
			ctx, cancel := context.WithTimeout(background, patience)
			defer cancel()
			return q.AckSync(ctx, m)
		}, nil),
		"queue.flush": func(w *world, s step) (any, error) {
			_, q := find[*busway.Queue](w, s.textOr("on", "q"))
			ctx, cancel := s.context(patience)
			defer cancel()
			return nil, q.Flush(ctx)
		},
		"queue.wake": func(w *world, s step) (any, error) {
			_, q := find[*busway.Queue](w, s.textOr("on", "q"))
			q.Wake()
			return nil, nil
		},
		"queue.describe": func(w *world, s step) (any, error) {
			return w.document(w.admin(s).DescribeQueue(background, s.textOr("group", "")))
		},
		"queue.peek": func(w *world, s step) (any, error) {
			return w.document(w.admin(s).PeekQueue(background, s.text("group"), s.text("topic"), s.partition(), int32(s.int("max", 10))))
		},
		"queue.settle": func(w *world, s step) (any, error) {
			outcomes := map[string]busway.QueueOutcome{"done": busway.QueueDone, "again": busway.QueueAgain, "dead": busway.QueueDead}
			n, err := w.admin(s).SettleQueue(background, s.text("group"), s.text("topic"), s.partition(), s.int("first", 0), s.int("last", 0),
				outcomes[s.text("outcome")])
			return object{"settled": n}, err
		},
		"queue.delete": func(w *world, s step) (any, error) {
			return nil, w.admin(s).DeleteQueue(background, s.text("group"))
		},
		"queue.redrive": func(w *world, s step) (any, error) {
			moved, skipped, err := w.admin(s).RedriveQueue(background, s.text("topic"), s.int("max", 0), nil)
			return object{"moved": moved, "skipped": skipped}, err
		},
		"deliver_at": func(w *world, s step) (any, error) {
			h := busway.DeliverAt(time.UnixMilli(s.int("time", 0)))
			return []any{h.Name, seenBytes(h.Value)}, nil
		},
	})
}

func queueOpen(w *world, s step) (any, error) {
	_, b := find[*busway.Bus](w, s.textOr("bus", "bus"))
	in := s.within("options")
	var options []busway.QueueOption
	for name := range in.object {
		text, n := in.textOr(name, ""), in.int(name, 0)
		switch name {
		case "group", "topics":
		case "lease_ms":
			options = append(options, busway.WithLease(time.Duration(n)*time.Millisecond))
		case "max_deliveries":
			options = append(options, busway.WithMaxDeliveries(int32(n)))
		case "max_in_flight":
			options = append(options, busway.WithMaxInFlight(int32(n)))
		case "dead_letter_topic":
			options = append(options, busway.WithDeadLetters(text))
		case "archive":
			if in.is(name) {
				options = append(options, busway.WithArchive())
			}
		case "isolation_level":
			options = append(options, busway.WithQueueIsolation(isolations[text]))
		case "auto_offset_reset":
			options = append(options, busway.WithQueueStart(resets[text]))
		case "max_records":
			options = append(options, busway.WithMaxRecords(int32(n)))
		case "ack_records":
			options = append(options, busway.WithAckRecords(int32(n)))
		default:
			w.broken("there is no option %s", name)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	q, err := b.Queue(ctx, in.textOr("group", ""), in.texts("topics"), options...)
	if err == nil {
		w.add(s.textOr("as", "q"), q)
	}
	return nil, err
}

func seenMessage(m busway.Message) object {
	seen := seenRecord(m.View)
	seen["deliveries"] = int64(m.Deliveries)
	return seen
}

// keep puts messages under a name; what was there before is gone.
func (w *world) keep(s step, messages []busway.Message) {
	name := s.textOr("as", "m")
	for _, h := range w.handles {
		if _, ok := h.thing.([]busway.Message); ok && h.name == name {
			h.thing = messages
			return
		}
	}
	w.add(name, messages)
}

func queueRead(w *world, s step) (any, error) {
	_, q := find[*busway.Queue](w, s.textOr("on", "q"))
	wanted, end := int(s.int("count", 0)), time.Now().Add(s.timeout(patience))
	kept, messages, values := []busway.Message{}, []any{}, []any{}
	for len(kept) < wanted && time.Now().Before(end) {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		room := wanted - len(kept)
		if room > 64 {
			room = 64
		}
		got, err := q.Poll(ctx, room)
		cancel()
		if err != nil && !timedOut(err) {
			return nil, err
		}
		for _, m := range got {
			seen := seenMessage(m)
			kept, messages, values = append(kept, m), append(messages, seen), append(values, seen["value"])
		}
	}
	w.keep(s, kept)
	return object{"count": int64(len(kept)), "messages": messages, "values": values}, nil
}
