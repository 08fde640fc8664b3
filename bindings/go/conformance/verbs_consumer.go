package conformance

import (
	"context"
	"errors"
	"sort"
	"time"

	"busway"
)

func init() {
	at := func(fn func(c *busway.Consumer, topic string, partition int32) error) verb {
		return func(w *world, s step) (any, error) {
			_, c := find[*busway.Consumer](w, s.textOr("on", "c"))
			return nil, fn(c, s.text("topic"), s.partition())
		}
	}
	register(map[string]verb{
		"consumer.open": consumerOpen,
		"consumer.close": func(w *world, s step) (any, error) {
			h, c := find[*busway.Consumer](w, s.textOr("on", "c"))
			w.forget(h)
			return nil, c.Close()
		},
		"assign": func(w *world, s step) (any, error) {
			_, c := find[*busway.Consumer](w, s.textOr("on", "c"))
			return nil, c.Assign(s.text("topic"), s.partition(), w.offset(s.object["offset"], busway.OffsetBeginning))
		},
		"unassign": at((*busway.Consumer).Unassign),
		"pause":    at((*busway.Consumer).Pause),
		"resume":   at((*busway.Consumer).Resume),
		"seek": func(w *world, s step) (any, error) {
			h, c := find[*busway.Consumer](w, s.textOr("on", "c"))
			h.reached = map[string]int64{}
			return nil, c.Seek(s.text("topic"), s.partition(), w.offset(s.object["offset"], 0))
		},
		"seek.time": func(w *world, s step) (any, error) {
			h, c := find[*busway.Consumer](w, s.textOr("on", "c"))
			h.reached = map[string]int64{}
			return nil, c.SeekTime(s.text("topic"), s.partition(), time.UnixMilli(s.int("time", 0)))
		},
		"position": func(w *world, s step) (any, error) {
			_, c := find[*busway.Consumer](w, s.textOr("on", "c"))
			offset, err := c.Position(s.text("topic"), s.partition())
			return seenOffset(offset), err
		},
		"assignment": func(w *world, s step) (any, error) {
			_, c := find[*busway.Consumer](w, s.textOr("on", "c"))
			parts, err := c.Assignment()
			sortParts(parts)
			return seenParts(parts), err
		},
		"subscribe": func(w *world, s step) (any, error) {
			_, c := find[*busway.Consumer](w, s.textOr("on", "c"))
			return nil, c.Subscribe(s.texts("topics")...)
		},
		"unsubscribe": func(w *world, s step) (any, error) {
			h, c := find[*busway.Consumer](w, s.textOr("on", "c"))
			h.reached = map[string]int64{}
			return nil, c.Unsubscribe()
		},
		"subscription": func(w *world, s step) (any, error) {
			_, c := find[*busway.Consumer](w, s.textOr("on", "c"))
			topics, err := c.Subscription()
			out := []any{}
			for _, t := range topics {
				out = append(out, t)
			}
			return out, err
		},
		"poll": func(w *world, s step) (any, error) {
			h, c := find[*busway.Consumer](w, s.textOr("on", "c"))
			b, err := poll(c, s.timeout(5*time.Second))
			if err != nil {
				return nil, err
			}
			return object{"topic": b.Topic, "partition": int64(b.Partition), "records": w.take(h, &b)}, nil
		},
		"read":   read,
		"settle": settle,
		"events": func(w *world, s step) (any, error) {
			h, _ := find[*busway.Consumer](w, s.textOr("on", "c"))
			told := append([]any{}, h.told...)
			h.told = nil
			return told, nil
		},
		"wake": func(w *world, s step) (any, error) {
			_, c := find[*busway.Consumer](w, s.textOr("on", "c"))
			c.Wake()
			return nil, nil
		},
		"commit": func(w *world, s step) (any, error) {
			_, c := find[*busway.Consumer](w, s.textOr("on", "c"))
			parts := w.parts(s.list("offsets"))
			ctx, cancel := s.context(patience)
			defer cancel()
			err := c.Commit(ctx, parts...)
			return seenParts(parts), err
		},
		"commit.async": func(w *world, s step) (any, error) {
			h, c := find[*busway.Consumer](w, s.textOr("on", "c"))
			return nil, c.CommitAsync(func(_ []busway.TopicPartition, err error) {
				h.outcomes = append(h.outcomes, object{"error": errorName(err)})
			}, w.parts(s.list("offsets"))...)
		},
		"commit.outcomes": commitOutcomes,
		"committed": func(w *world, s step) (any, error) {
			_, c := find[*busway.Consumer](w, s.textOr("on", "c"))
			parts := w.parts(s.list("partitions"))
			ctx, cancel := s.context(patience)
			defer cancel()
			err := c.Committed(ctx, parts)
			return seenParts(parts), err
		},
		"group.metadata": func(w *world, s step) (any, error) {
			_, c := find[*busway.Consumer](w, s.textOr("on", "c"))
			g, err := c.GroupMetadata()
			var instance any
			if g.InstanceID != "" {
				instance = g.InstanceID
			}
			return object{"group_id": g.GroupID, "member_id": g.MemberID, "group_instance_id": instance, "member_epoch": int64(g.MemberEpoch)}, err
		},
	})
}

func sortParts(parts []busway.TopicPartition) {
	sort.Slice(parts, func(i, k int) bool {
		if parts[i].Topic != parts[k].Topic {
			return parts[i].Topic < parts[k].Topic
		}
		return parts[i].Partition < parts[k].Partition
	})
}

var resets = map[string]busway.OffsetReset{"none": busway.ResetError, "earliest": busway.ResetEarliest, "latest": busway.ResetLatest}
var isolations = map[string]busway.Isolation{"read_uncommitted": busway.ReadUncommitted, "read_committed": busway.ReadCommitted}
var limits = map[string]busway.ReadLimit{"visible": busway.ReadVisible, "durable": busway.ReadDurable}

func consumerOptions(w *world, in step) (out []busway.ConsumerOption) {
	interval, auto := 5*time.Second, true
	for name := range in.object {
		text, n := in.textOr(name, ""), in.int(name, 0)
		ms := time.Duration(n) * time.Millisecond
		var o busway.ConsumerOption
		switch name {
		case "group_id":
			o = busway.WithGroup(text)
		case "group_instance_id":
			o = busway.WithGroupInstance(text)
		case "auto_offset_reset":
			o = busway.WithOffsetReset(resets[text])
		case "isolation_level":
			o = busway.WithIsolation(isolations[text])
		case "enable_auto_commit":
			auto = in.is(name)
		case "auto_commit_interval_ms":
			interval = ms
		case "partition_assignment_strategy":
			o = busway.WithAssignor(text)
		case "session_timeout_ms":
			o = busway.WithSessionTimeout(ms)
		case "max_poll_interval_ms":
			o = busway.WithMaxPollInterval(ms)
		case "rebalance_timeout_ms":
			o = busway.WithRebalanceTimeout(ms)
		case "check_crcs":
			o = busway.WithCheckCRCs(in.is(name))
		case "max_partition_fetch_bytes":
			o = busway.WithFetchMaxBytes(uint32(n))
		case "read_limit":
			o = busway.WithReadLimit(limits[text])
		case "commit_durable":
			o = busway.WithDurableCommits(in.is(name))
		default:
			w.broken("there is no option %s", name)
		}
		out = append(out, o)
	}
	if !auto {
		interval = 0
	}
	return append(out, busway.WithAutoCommit(interval))
}

func consumerOpen(w *world, s step) (any, error) {
	_, b := find[*busway.Bus](w, s.textOr("bus", "bus"))
	h := &handle{name: s.textOr("as", "c"), reached: map[string]int64{}}
	commits := s.textOr("on_revoked", "") == "commit"
	options := append(consumerOptions(w, s.within("options")), busway.WithRebalance(
		func(c *busway.Consumer, event busway.Rebalance, parts []busway.TopicPartition) {
			sortParts(parts)
			list := []any{}
			for _, p := range parts {
				delete(h.reached, placeName(p.Topic, p.Partition)) // it begins anew where the group's offset is
				list = append(list, object{"topic": p.Topic, "partition": int64(p.Partition)})
			}
			h.told = append(h.told, object{"event": event.String(), "partitions": list})
			if event == busway.Revoked && commits {
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				if err := c.Commit(ctx); err != nil {
					w.broken("the commit in the callback: %v", err)
				}
			}
		}))
	c, err := b.Consumer(options...)
	if err == nil {
		h.thing = c
		w.handles = append(w.handles, h)
	}
	return nil, err
}

// ---- reading ----

func poll(c *busway.Consumer, wait time.Duration) (busway.Batch, error) {
	if wait <= 0 {
		return c.TryPoll()
	}
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	return c.Poll(ctx)
}

func (w *world) take(h *handle, b *busway.Batch) []any {
	list := []any{}
	place := placeName(b.Topic, b.Partition)
	for i := 0; i < b.Len(); i++ {
		v := b.At(i)
		if last, ok := h.reached[place]; ok && last >= v.Offset() {
			w.broken("offset %d of %s came behind %d", v.Offset(), place, last)
		}
		h.reached[place] = v.Offset()
		list = append(list, seenRecord(v))
	}
	return list
}

// pump is one poll into the inbox.
func (w *world) pump(h *handle, wait time.Duration) error {
	b, err := poll(h.thing.(*busway.Consumer), wait)
	if err == nil {
		h.inbox = append(h.inbox, w.take(h, &b)...)
	}
	return err
}

func timedOut(err error) bool { return errorName(err) == busway.ErrTimedOut.Name() }

func read(w *world, s step) (any, error) {
	var from []*handle
	if names := s.texts("on"); names != nil {
		for _, name := range names {
			h, _ := find[*busway.Consumer](w, name)
			from = append(from, h)
		}
	} else {
		h, _ := find[*busway.Consumer](w, s.textOr("on", "c"))
		from = append(from, h)
	}
	wanted, quietFor, end := int(s.int("count", 0)), time.Duration(s.int("quiet_ms", 0))*time.Millisecond, time.Now().Add(s.timeout(patience))
	var quiet time.Time
	got := []any{}
	for first := true; w.why == ""; first = false {
		for _, h := range from {
			got, h.inbox = append(got, h.inbox...), nil
		}
		now := time.Now()
		if quiet.IsZero() && len(got) >= wanted {
			quiet = now.Add(quietFor)
		}
		if !quiet.IsZero() && !now.Before(quiet) || !now.Before(end) && !first {
			break
		}
		for _, h := range from {
			until, wait := end, 100*time.Millisecond
			if !quiet.IsZero() {
				until = quiet
			}
			if left := until.Sub(now); left < wait {
				wait = left
			}
			if len(from) > 1 {
				wait = 5 * time.Millisecond
			}
			if err := w.pump(h, wait); err != nil && !timedOut(err) {
				return nil, err
			}
		}
	}
	return seenRecords(got), nil
}

func seenRecords(list []any) object {
	sort.SliceStable(list, func(i, k int) bool {
		a, b := list[i].(object), list[k].(object)
		if a["topic"] != b["topic"] {
			return a["topic"].(string) < b["topic"].(string)
		}
		if a["partition"] != b["partition"] {
			return a["partition"].(int64) < b["partition"].(int64)
		}
		return a["offset"].(int64) < b["offset"].(int64)
	})
	values, offsets := []any{}, []any{}
	for _, r := range list {
		values, offsets = append(values, r.(object)["value"]), append(offsets, r.(object)["offset"])
	}
	return object{"count": int64(len(list)), "records": list, "values": values, "offsets": offsets}
}

func settle(w *world, s step) (any, error) {
	want, end := s.within("want").object, time.Now().Add(s.timeout(20*time.Second))
	for {
		seen, done := object{}, true
		for name, n := range want {
			h, c := find[*busway.Consumer](w, name)
			err := w.pump(h, 5*time.Millisecond)
			passes := err == nil || timedOut(err)
			for _, e := range []busway.Code{busway.ErrWoken, busway.ErrFencedMemberEpoch, busway.ErrUnknownMemberID, busway.ErrNotConnected} {
				passes = passes || errors.Is(err, e)
			}
			if !passes {
				return nil, err
			}
			parts, err := c.Assignment()
			if err != nil {
				return nil, err
			}
			seen[name] = int64(len(parts))
			done = done && seen[name] == n
		}
		if done {
			return seen, nil
		}
		if time.Now().After(end) {
			w.broken("the members did not settle: %s, wanted %s", dump(seen), dump(want))
			return nil, nil
		}
	}
}

func commitOutcomes(w *world, s step) (any, error) {
	h, _ := find[*busway.Consumer](w, s.textOr("on", "c"))
	end := time.Now().Add(s.timeout(patience))
	for int64(len(h.outcomes)) < s.int("count", 1) {
		if err := w.pump(h, 20*time.Millisecond); err != nil && !timedOut(err) {
			return nil, err
		}
		if time.Now().After(end) {
			return nil, busway.ErrTimedOut
		}
	}
	out := h.outcomes
	h.outcomes = nil
	return out, nil
}
