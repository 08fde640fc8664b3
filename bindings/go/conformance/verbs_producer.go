package conformance

import (
	"context"
	"time"

	"busway"
)

func init() {
	register(map[string]verb{
		"producer.open":  producerOpen,
		"producer.close": producerClose,
		"send": func(w *world, s step) (any, error) {
			_, p := find[*busway.Producer](w, s.textOr("on", "p"))
			ctx, cancel := s.context(patience)
			defer cancel()
			d, err := p.Send(ctx, s.text("topic"), s.partition(), w.record(s.object["record"]))
			return seenDelivery(d), err
		},
		"send.batch": func(w *world, s step) (any, error) {
			_, p := find[*busway.Producer](w, s.textOr("on", "p"))
			ctx, cancel := s.context(patience)
			defer cancel()
			d, err := p.SendBatch(ctx, s.text("topic"), s.partition(), w.records(s.list("records")))
			return seenDelivery(d), err
		},
		"send.async":    sendAsync,
		"flush":         flush,
		"reserve":       reserve,
		"last_sequence": lastSequence,
		"txn.init": func(w *world, s step) (any, error) {
			_, p := find[*busway.Producer](w, s.textOr("on", "p"))
			ctx, cancel := s.context(patience)
			defer cancel()
			return nil, p.InitTransactions(ctx)
		},
		"txn.begin": func(w *world, s step) (any, error) {
			h, p := find[*busway.Producer](w, s.textOr("on", "p"))
			t, err := p.Begin()
			if err == nil {
				h.txn = t
			}
			return nil, err
		},
		"txn.commit": func(w *world, s step) (any, error) {
			return w.txn(s, true, func(ctx context.Context, t *busway.Transaction) error { return t.Commit(ctx) })
		},
		"txn.abort": func(w *world, s step) (any, error) {
			return w.txn(s, true, func(ctx context.Context, t *busway.Transaction) error { return t.Abort(ctx) })
		},
		"txn.send_offsets": func(w *world, s step) (any, error) {
			_, c := find[*busway.Consumer](w, s.text("consumer"))
			return w.txn(s, false, func(ctx context.Context, t *busway.Transaction) error {
				group, err := c.GroupMetadata()
				if err != nil {
					return err
				}
				return t.SendOffsets(ctx, group, w.parts(s.list("offsets")))
			})
		},
	})
}

// txn does something with the producer's transaction: the one that was begun, else whatever the producer has.
func (w *world) txn(s step, end bool, fn func(context.Context, *busway.Transaction) error) (any, error) {
	h, p := find[*busway.Producer](w, s.textOr("on", "p"))
	ctx, cancel := s.context(patience)
	defer cancel()
	t := h.txn
	if t == nil {
		t = p.Transaction()
	}
	err := fn(ctx, t)
	if end && err == nil {
		h.txn = nil
	}
	return nil, err
}

var acks = map[string]busway.Acks{"none": busway.AcksNone, "visible": busway.AcksVisible, "durable": busway.AcksDurable}
var codecs = map[string]busway.Codec{"none": busway.CodecNone, "gzip": busway.CodecGzip, "snappy": busway.CodecSnappy, "lz4": busway.CodecLZ4,
	"zstd": busway.CodecZstd}

func producerOpen(w *world, s step) (any, error) {
	_, b := find[*busway.Bus](w, s.textOr("bus", "bus"))
	in := s.within("options")
	options := []busway.ProducerOption{busway.WithSendTimeout(patience)}
	for name := range in.object {
		text, n := in.textOr(name, ""), in.int(name, 0)
		var o busway.ProducerOption
		switch name {
		case "acks":
			o = busway.WithAcks(acks[text])
		case "compression_type":
			o = busway.WithCompression(codecs[text])
		case "batch_size":
			o = busway.WithBatchSize(uint32(n))
		case "linger_ms":
			o = busway.WithLinger(time.Duration(n) * time.Millisecond)
		case "buffer_memory":
			o = busway.WithBufferMemory(uint64(n))
		case "delivery_timeout_ms":
			o = busway.WithDeliveryTimeout(time.Duration(n) * time.Millisecond)
		case "name":
			o = busway.WithProducerName(text)
		case "enable_idempotence":
			o = busway.WithIdempotence(in.is(name))
		case "transactional_id":
			o = busway.WithTransactionalID(text)
		case "transaction_timeout_ms":
			o = busway.WithTransactionTimeout(time.Duration(n) * time.Millisecond)
		default:
			w.broken("there is no option %s", name)
		}
		options = append(options, o)
	}
	p, err := b.Producer(options...)
	if err == nil {
		w.add(s.textOr("as", "p"), p)
	}
	return nil, err
}

func producerClose(w *world, s step) (any, error) {
	h, p := find[*busway.Producer](w, s.textOr("on", "p"))
	w.forget(h)
	return nil, p.Close()
}

func seenDelivery(d busway.Delivery) object {
	return object{"topic": d.Topic, "partition": int64(d.Partition), "offset": d.Offset, "timestamp": d.Time.UnixMilli(), "count": int64(d.Count),
		"error": errorName(d.Err)}
}

// sendAsync: one alone by SendAsync, several by SendManyAsync.
func sendAsync(w *world, s step) (any, error) {
	h, p := find[*busway.Producer](w, s.textOr("on", "p"))
	records := w.records(s.list("records"))
	ctx, cancel := s.context(patience)
	defer cancel()
	first := len(h.told)
	h.told = append(h.told, make([]any, len(records))...)
	note := func(i int, d busway.Delivery) {
		if h.told[first+i] != nil {
			w.broken("a record has two outcomes")
		}
		seen := seenDelivery(d)
		if d.Err != nil {
			seen["message"] = d.Err.Error()
		}
		h.told[first+i] = seen
	}
	if len(records) == 1 {
		err := p.SendAsync(ctx, s.text("topic"), s.partition(), records[0], func(d busway.Delivery) { note(0, d) })
		if err != nil {
			h.told = h.told[:first]
		}
		return nil, err
	}
	n, err := p.SendManyAsync(ctx, s.text("topic"), s.partition(), records, note)
	h.told = h.told[:first+n] // the others will have no outcome
	return nil, err
}

func flush(w *world, s step) (any, error) {
	h, p := find[*busway.Producer](w, s.textOr("on", "p"))
	ctx, cancel := s.context(patience)
	defer cancel()
	if err := p.Flush(ctx); err != nil {
		return nil, err
	}
	failed := 0
	for i, d := range h.told {
		switch seen, ok := d.(object); {
		case !ok:
			w.broken("record %d has no outcome after a flush", i)
		case seen["error"] != nil:
			failed++
		}
	}
	out := object{"deliveries": append([]any{}, h.told...), "count": int64(len(h.told)), "failed": int64(failed)}
	h.told = nil
	return out, nil
}

func reserve(w *world, s step) (any, error) {
	_, p := find[*busway.Producer](w, s.textOr("on", "p"))
	r := w.record(s.object["record"])
	ctx, cancel := s.context(patience)
	defer cancel()
	room, err := p.Reserve(ctx, s.text("topic"), s.partition(), r, int(s.int("max", int64(len(r.Value)))))
	if err != nil {
		return nil, err
	}
	defer room.Abort()
	if n := copy(room.Value, r.Value); n < len(r.Value) {
		w.broken("only %d bytes of room", n)
	}
	if s.is("abort") {
		return nil, nil
	}
	d, err := room.Commit(len(r.Value))
	return seenDelivery(d), err
}

func lastSequence(w *world, s step) (any, error) {
	_, p := find[*busway.Producer](w, s.textOr("on", "p"))
	sequence, offset, err := p.LastSequence(context.Background(), s.text("topic"), s.partition())
	return object{"sequence": int64(sequence), "offset": offset}, err
}
