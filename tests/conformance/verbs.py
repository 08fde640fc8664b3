"""What each verb of the conformance suite (README.md) does with the package `busway`."""
from __future__ import annotations

import time
from typing import Any, Callable, Dict, List, Optional, Tuple

import busway
from busway.exceptions import ERRORS, error_for

from runner import Broken, Target

NUMBERS = {name: number for number, (name, _, _, _) in ERRORS.items()}
PATIENCE_MS = 10000
TIMESTAMP_TYPES = {0: "create", 1: "log_append"}
NAMES = {"bus": "bus", "producer": "p", "consumer": "c", "queue": "q", "state": "s", "txn": "x", "messages": "m"}


class Seen:
    """An error, as steps look at it."""

    def __init__(self, e: busway.BuswayError):
        self.name, self.retriable, self.fatal, self.message = e.name, e.retriable, e.fatal, str(e)


def fail(name: str) -> busway.BuswayError:
    """For what the package tells without an exception (None for a time-out)."""
    e = error_for(NUMBERS[name])
    assert e is not None
    return e


def given_bytes(v: Any) -> Optional[bytes]:
    if v is None:
        return None
    return v.encode() if isinstance(v, str) else bytes.fromhex(v["hex"])


def seen_bytes(v: Any) -> Any:
    if v is None:
        return None
    raw = bytes(v)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return {"hex": raw.hex()}


def given_headers(record: Dict[str, Any]) -> List[Tuple[str, Optional[bytes]]]:
    return [busway.deliver_at(value) if isinstance(value, int) else (name, given_bytes(value)) for name, value in record.get("headers") or []]


def given_record(record: Dict[str, Any]) -> Tuple[Any, ...]:
    """As send_many and send_batch take it."""
    return given_bytes(record.get("key")), given_bytes(record.get("value")), record.get("timestamp"), given_headers(record)


def seen_record(r: Any) -> Dict[str, Any]:
    return {"topic": r.topic, "partition": r.partition, "offset": r.offset, "timestamp": r.timestamp_ms,
            "timestamp_type": TIMESTAMP_TYPES.get(r.timestamp_type, "none"), "key": seen_bytes(r.key), "value": seen_bytes(r.value),
            "headers": [[name, seen_bytes(value)] for name, value in r.headers]}


def seen_message(m: Any) -> Dict[str, Any]:
    return {**seen_record(m), "deliveries": m.deliveries}


def seen_error(e: Optional[busway.BuswayError]) -> Optional[str]:
    return None if e is None else e.name


def seen_offset(offset: int) -> Any:
    return {busway.OFFSET_INVALID: "none", busway.OFFSET_BEGINNING: "beginning", busway.OFFSET_END: "end"}.get(offset, offset)


def seen_delivery(d: Any) -> Dict[str, Any]:
    return {"topic": d.topic, "partition": d.partition, "offset": d.offset, "timestamp": d.timestamp_ms, "count": d.count,
            "error": seen_error(d.error)}


def seconds(step: Dict[str, Any], other_ms: int = PATIENCE_MS) -> Optional[float]:
    ms = step.get("timeout_ms", other_ms)
    return None if ms < 0 else ms / 1000


def place(step: Dict[str, Any]) -> Tuple[str, int]:
    return step["topic"], step["partition"]


def partitions(parts: List[Dict[str, Any]]) -> List[busway.TopicPartition]:
    return [busway.TopicPartition(p["topic"], p["partition"], p.get("offset", busway.OFFSET_INVALID), -1, p.get("metadata")) for p in parts]


def outcomes(parts: Any) -> List[Dict[str, Any]]:
    return [{"topic": p.topic, "partition": p.partition, "error": seen_error(p.error)} for p in parts]


class Reader:
    """A consumer and what the runner keeps of it."""

    def __init__(self) -> None:
        self.consumer: Any = None
        self.inbox: List[Dict[str, Any]] = []
        self.events: List[Dict[str, Any]] = []
        self.outcomes: List[Dict[str, Any]] = []
        self.reached: Dict[Tuple[str, int], int] = {}
        self.commits = False

    def told(self, event: str) -> Callable[[Any, Any], None]:
        def callback(consumer: Any, parts: Any) -> None:
            places = sorted((p.topic, p.partition) for p in parts)
            for at in places:
                self.reached.pop(at, None)
            self.events.append({"event": event, "partitions": [{"topic": t, "partition": n} for t, n in places]})
            if event == "revoked" and self.commits:
                consumer.commit(timeout=10)

        return callback

    def take(self, batch: Any) -> List[Dict[str, Any]]:
        records = [seen_record(r) for r in batch.records()]
        for r in records:
            at = (r["topic"], r["partition"])
            if at in self.reached and self.reached[at] >= r["offset"]:
                raise Broken(f"offset {r['offset']} of {at} came behind {self.reached[at]}")
            self.reached[at] = r["offset"]
        return records

    def pump(self, wait: float) -> bool:
        """One poll into the inbox; False: nothing came."""
        batch = self.consumer.poll_batch(wait)
        if batch is not None:
            self.inbox += self.take(batch)
        return batch is not None


class World:
    """One scenario's handles, by kind and name, in the order of opening."""

    errors = busway.BuswayError

    def __init__(self, target: Target, verbose: bool = False):
        self.target, self.verbose = target, verbose
        self.names: Dict[str, Any] = {}
        self.handles: Dict[Tuple[str, str], Any] = {}

    def describe(self, e: busway.BuswayError) -> Seen:
        return Seen(e)

    def do(self, step: Dict[str, Any]) -> Any:
        verb = VERBS.get(step["do"])
        if verb is None:
            raise Broken(f"there is no such verb: {step['do']}")
        return verb(self, step)

    def add(self, kind: str, step: Dict[str, Any], handle: Any) -> None:
        key = (kind, step.get("as", NAMES[kind]))
        if key in self.handles and kind != "messages":
            raise Broken(f"{key[1]} is open already")
        self.handles[key] = handle

    def get(self, kind: str, name: Optional[str]) -> Any:
        try:
            return self.handles[kind, name or NAMES[kind]]
        except KeyError:
            raise Broken(f"no {kind} is open under the name {name or NAMES[kind]}") from None

    def on(self, kind: str, step: Dict[str, Any]) -> Any:
        return self.get(kind, step.get("on"))

    def forget(self, kind: str, step: Dict[str, Any]) -> Any:
        handle = self.on(kind, step)
        del self.handles[kind, step.get("on", NAMES[kind])]
        return handle

    def admin(self, step: Dict[str, Any]) -> Any:
        return self.on("bus", step).admin()

    def close(self) -> None:
        for (kind, _), handle in reversed(list(self.handles.items())):
            try:
                if kind == "txn":
                    handle.abort()
                elif kind == "producer":
                    handle.close(10)
                elif kind == "consumer":
                    handle.consumer.close()
                elif kind != "messages":
                    handle.close()
            except busway.BuswayError:
                pass  # what closing answers does not count
        self.handles.clear()


Verb = Callable[[World, Dict[str, Any]], Any]
VERBS: Dict[str, Verb] = {}


def verb(name: str) -> Callable[[Verb], Verb]:
    def put(fn: Verb) -> Verb:
        VERBS[name] = fn
        return fn

    return put


def admin(name: str, fn: Callable[[Any, Dict[str, Any]], Any]) -> None:
    VERBS[name] = lambda w, s: fn(w.admin(s), s)


# ---- the bus ----


@verb("bus.open")
def bus_open(w: World, s: Dict[str, Any]) -> None:
    w.add("bus", s, busway.connect(s.get("url", w.target.url), transport=s.get("transport", w.target.transport),
                                   client_id=s.get("client_id", "conformance")))


@verb("bus.close")
def bus_close(w: World, s: Dict[str, Any]) -> None:
    w.forget("bus", s).close()


@verb("bus.stats")
def bus_stats(w: World, s: Dict[str, Any]) -> Any:
    return w.on("bus", s).stats()


@verb("version")
def version(w: World, s: Dict[str, Any]) -> Any:
    text = busway.__version__
    major, minor, patch = (int(n) for n in text.split("."))
    return {"version": text, "major": major, "minor": minor, "patch": patch}


@verb("error.class")
def error_class(w: World, s: Dict[str, Any]) -> Any:
    e = error_for(NUMBERS[s["name"]])
    name, text, retriable, fatal = ERRORS[NUMBERS[s["name"]]]
    if e is not None and (e.name, e.retriable, e.fatal) != (name, retriable, fatal):
        raise Broken(f"the exception {e!r} is of another class than the error {name}")
    return {"name": name, "retriable": retriable, "fatal": fatal, "text": text}


@verb("sleep")
def sleep(w: World, s: Dict[str, Any]) -> None:
    time.sleep(s["ms"] / 1000)


@verb("verify")
def verify(w: World, s: Dict[str, Any]) -> Any:
    r = busway.verify(s["path"])
    return {"errors": r.errors, "records": r.records, "batches": r.batches}


@verb("dump")
def dump(w: World, s: Dict[str, Any]) -> Any:
    batches: List[Any] = []
    records: List[Any] = []

    def show(b: Dict[str, Any], r: Any) -> bool:
        if r is not None:
            records.append({"offset": r.offset, "timestamp": r.timestamp_ms, "key": seen_bytes(r.key), "value": seen_bytes(r.value)})
        else:
            batches.append({"base_offset": b["base_offset"], "last_offset": b["last_offset"], "count": b["count"],
                            "codec": ("none", "gzip", "snappy", "lz4", "zstd")[b["codec"]],
                            "timestamp_type": TIMESTAMP_TYPES.get(b["timestamp_type"], "none"), "crc_ok": b["crc_ok"],
                            "transactional": b["is_transactional"], "control": b["is_control"],
                            "marker": ("none", "abort", "commit")[b["marker"]]})
        return len(batches) + len(records) < s.get("most", 1 << 60)

    busway.dump(f"{s['path']}/{s['topic']}-{s['partition']}/{s.get('segment', 0):020}.log", show, records=s.get("records", False))
    return {"batches": batches, "records": records}


# ---- administration ----

admin("bus.status", lambda a, s: a.status())
admin("topic.create", lambda a, s: a.create_topic(s["topic"], s.get("partitions", 0), s.get("config")))
admin("topic.alter", lambda a, s: a.alter_topic(s["topic"], s.get("partitions", 0), s.get("config")))
admin("topic.delete", lambda a, s: a.delete_topic(s["topic"]))
admin("topic.partitions", lambda a, s: a.partitions(s["topic"]))
admin("topic.describe", lambda a, s: a.describe_topics(s.get("topic")))
admin("records.delete", lambda a, s: {"log_start": a.delete_records(*place(s), s["before"])})
admin("offsets.range", lambda a, s: a.offsets_range(*place(s))._asdict())
admin("offset.end", lambda a, s: a.offset_end(*place(s), s.get("read_limit", "visible")))
admin("offset.for_time", lambda a, s: dict(zip(("offset", "time"), a.offset_for_time(*place(s), s["time"]))))
admin("quota.set", lambda a, s: a.set_quota(s["rates"], user=s.get("user"), client_id=s.get("client_id"), pid=s.get("pid")))
admin("quota.list", lambda a, s: a.quotas(user=s.get("user"), client_id=s.get("client_id"), pid=s.get("pid")))
admin("producers.describe", lambda a, s: a.producers(*place(s)))
admin("txn.list", lambda a, s: a.transactions())
admin("txn.describe", lambda a, s: a.describe_transaction(s["id"]))
admin("txn.abort_admin", lambda a, s: a.abort_transaction(s["id"]))
admin("group.list", lambda a, s: a.groups())
admin("group.describe", lambda a, s: a.describe_group(s["group"]))
admin("group.delete", lambda a, s: a.delete_group(s["group"]))
admin("group.offsets.alter", lambda a, s: outcomes(a.alter_group_offsets(s["group"], partitions(s["offsets"]))))
admin("group.offsets.delete", lambda a, s: outcomes(a.delete_group_offsets(s["group"], partitions(s["partitions"]))))
admin("queue.describe", lambda a, s: a.queues(s.get("group")))
admin("queue.peek", lambda a, s: a.peek_queue(s["group"], *place(s), s.get("max", 10)))
admin("queue.settle", lambda a, s: {"settled": a.settle_queue(s["group"], *place(s), s["first"], s["last"], s["outcome"])})
admin("queue.delete", lambda a, s: a.delete_queue(s["group"]))
admin("queue.redrive", lambda a, s: dict(zip(("moved", "skipped"), a.redrive_queue(s["topic"], s.get("max", 0)))))


# ---- producers ----


class Sender:
    """A producer and the outcomes of what was sent without waiting."""

    def __init__(self, producer: Any):
        self.producer = producer
        self.told: List[Any] = []

    def close(self, timeout: Optional[float]) -> None:
        self.producer.close(timeout)


@verb("producer.open")
def producer_open(w: World, s: Dict[str, Any]) -> None:
    w.add("producer", s, Sender(w.get("bus", s.get("bus")).producer(**s.get("options", {}))))


@verb("producer.close")
def producer_close(w: World, s: Dict[str, Any]) -> None:
    w.forget("producer", s).close(seconds(s))


@verb("send")
def send(w: World, s: Dict[str, Any]) -> Any:
    key, value, timestamp, headers = given_record(s["record"])
    return seen_delivery(w.on("producer", s).producer.send_sync(s["topic"], value, key, partition=s.get("partition"), timestamp_ms=timestamp,
                                                                headers=headers, timeout=seconds(s)))


@verb("send.batch")
def send_batch(w: World, s: Dict[str, Any]) -> Any:
    return seen_delivery(w.on("producer", s).producer.send_batch(s["topic"], [given_record(r) for r in s["records"]],
                                                                 partition=s.get("partition"), timeout=seconds(s)))


@verb("send.async")
def send_async(w: World, s: Dict[str, Any]) -> None:
    sender = w.on("producer", s)
    for record in s["records"]:
        key, value, timestamp, headers = given_record(record)
        at = len(sender.told)
        sender.told.append(None)

        def delivered(delivery: Any, at: int = at, told: List[Any] = sender.told) -> None:
            if told[at] is not None:
                raise Broken("a record has two outcomes")
            told[at] = seen_delivery(delivery)

        try:
            sender.producer.send(s["topic"], value, key, partition=s.get("partition"), timestamp_ms=timestamp, headers=headers,
                                 on_delivery=delivered, timeout=seconds(s))
        except busway.BuswayError:
            del sender.told[at]
            raise


@verb("flush")
def flush(w: World, s: Dict[str, Any]) -> Any:
    sender = w.on("producer", s)
    sender.producer.flush(seconds(s))
    told, sender.told = sender.told, []
    if None in told:
        raise Broken(f"{told.count(None)} records have no outcome after a flush")
    return {"deliveries": told, "count": len(told), "failed": sum(d["error"] is not None for d in told)}


@verb("reserve")
def reserve(w: World, s: Dict[str, Any]) -> Any:
    key, value, timestamp, headers = given_record(s["record"])
    value = value or b""
    room = w.on("producer", s).producer.reserve(*place(s), s.get("max", len(value)), key=key, timestamp_ms=timestamp, headers=headers, timeout=10)
    with memoryview(room) as m:
        m[: len(value)] = value
    if s.get("abort"):
        room.abort()
        return None
    return seen_delivery(room.commit(len(value)))


@verb("last_sequence")
def last_sequence(w: World, s: Dict[str, Any]) -> Any:
    return dict(zip(("sequence", "offset"), w.on("producer", s).producer.last_sequence(*place(s))))


VERBS["txn.init"] = lambda w, s: w.on("producer", s).producer.init_transactions(seconds(s))
VERBS["txn.begin"] = lambda w, s: w.on("producer", s).producer.begin_transaction()
VERBS["txn.commit"] = lambda w, s: w.on("producer", s).producer.commit_transaction(seconds(s))
VERBS["txn.abort"] = lambda w, s: w.on("producer", s).producer.abort_transaction(seconds(s))


@verb("txn.send_offsets")
def txn_send_offsets(w: World, s: Dict[str, Any]) -> None:
    member = w.get("consumer", s["consumer"]).consumer.group_metadata()
    w.on("producer", s).producer.send_offsets_to_transaction(partitions(s["offsets"]), member, seconds(s))


# ---- consumers ----


@verb("consumer.open")
def consumer_open(w: World, s: Dict[str, Any]) -> None:
    reader = Reader()
    reader.commits = s.get("on_revoked") == "commit"
    reader.consumer = w.get("bus", s.get("bus")).consumer(on_assign=reader.told("assigned"), on_revoke=reader.told("revoked"),
                                                           on_lost=reader.told("lost"), **s.get("options", {}))
    w.add("consumer", s, reader)


def consumer(name: str, fn: Callable[[Any, Dict[str, Any]], Any]) -> None:
    VERBS[name] = lambda w, s: fn(w.on("consumer", s), s)


VERBS["consumer.close"] = lambda w, s: w.forget("consumer", s).consumer.close()
consumer("assign", lambda c, s: c.consumer.assign(s["topic"], s.get("partition"), s.get("offset", "beginning")))
consumer("unassign", lambda c, s: c.consumer.unassign(*place(s)))
consumer("pause", lambda c, s: c.consumer.pause(*place(s)))
consumer("resume", lambda c, s: c.consumer.resume(*place(s)))
consumer("seek", lambda c, s: (c.reached.clear(), c.consumer.seek(*place(s), s["offset"]))[1])
consumer("seek.time", lambda c, s: (c.reached.clear(), c.consumer.seek_time(*place(s), s["time"]))[1])
consumer("position", lambda c, s: seen_offset(c.consumer.position(*place(s))))
consumer("assignment", lambda c, s: [{"topic": p.topic, "partition": p.partition, "offset": seen_offset(p.offset)}
                                     for p in sorted(c.consumer.assignment(), key=lambda p: (p.topic, p.partition))])
consumer("subscribe", lambda c, s: c.consumer.subscribe(s["topics"]))
consumer("unsubscribe", lambda c, s: (c.reached.clear(), c.consumer.unsubscribe())[1])
consumer("subscription", lambda c, s: c.consumer.subscription())
consumer("wake", lambda c, s: c.consumer.wake())


@verb("events")
def events(w: World, s: Dict[str, Any]) -> Any:
    reader = w.on("consumer", s)
    told, reader.events = reader.events, []
    return told


@verb("poll")
def poll(w: World, s: Dict[str, Any]) -> Any:
    reader = w.on("consumer", s)
    batch = reader.consumer.poll_batch(seconds(s, 5000))
    if batch is None:
        raise fail("TIMED_OUT")
    return {"topic": batch.topic, "partition": batch.partition, "records": reader.take(batch)}


def seen_records(got: List[Dict[str, Any]]) -> Dict[str, Any]:
    got = sorted(got, key=lambda r: (r["topic"], r["partition"], r["offset"]))
    return {"count": len(got), "records": got, "values": [r["value"] for r in got], "offsets": [r["offset"] for r in got]}


@verb("read")
def read(w: World, s: Dict[str, Any]) -> Any:
    names = s["on"] if isinstance(s.get("on"), list) else [s.get("on")]
    readers = [w.get("consumer", n) for n in names]
    got: List[Dict[str, Any]] = []
    end, quiet, first = time.monotonic() + s.get("timeout_ms", PATIENCE_MS) / 1000, None, True
    while True:
        for reader in readers:
            got += reader.inbox
            reader.inbox = []
        now = time.monotonic()
        if quiet is None and len(got) >= s["count"]:
            quiet = now + s.get("quiet_ms", 0) / 1000
        if (quiet is not None and now >= quiet) or (now >= end and not first):
            return seen_records(got)
        for reader in readers:
            reader.pump(0.005 if len(readers) > 1 else max(0.0, min(0.1, (end if quiet is None else quiet) - now)))
        first = False


PASSES = {"WOKEN", "FENCED_MEMBER_EPOCH", "UNKNOWN_MEMBER_ID", "NOT_CONNECTED"}


@verb("settle")
def settle(w: World, s: Dict[str, Any]) -> Any:
    end = time.monotonic() + s.get("timeout_ms", 20000) / 1000
    while True:
        seen = {}
        for name in s["want"]:
            reader = w.get("consumer", name)
            try:
                reader.pump(0.005)
            except busway.BuswayError as e:
                if e.name not in PASSES:
                    raise
            seen[name] = len(reader.consumer.assignment())
        if seen == s["want"]:
            return seen
        if time.monotonic() > end:
            raise Broken(f"the members did not settle: {seen}, wanted {s['want']}")


@verb("commit")
def commit(w: World, s: Dict[str, Any]) -> Any:
    c = w.on("consumer", s).consumer
    given = s.get("offsets")
    done = c.commit(None if given is None else partitions(given), timeout=seconds(s))
    return [] if given is None else outcomes(done)


@verb("commit.async")
def commit_async(w: World, s: Dict[str, Any]) -> None:
    reader = w.on("consumer", s)
    given = s.get("offsets")
    reader.consumer.commit_async(None if given is None else partitions(given), lambda error, parts: reader.outcomes.append({"error": seen_error(error)}))


@verb("commit.outcomes")
def commit_outcomes(w: World, s: Dict[str, Any]) -> Any:
    reader = w.on("consumer", s)
    end = time.monotonic() + s.get("timeout_ms", PATIENCE_MS) / 1000
    while len(reader.outcomes) < s.get("count", 1):
        reader.pump(0.02)
        if time.monotonic() > end:
            raise fail("TIMED_OUT")
    told, reader.outcomes = reader.outcomes, []
    return told


@verb("committed")
def committed(w: World, s: Dict[str, Any]) -> Any:
    return [{"topic": p.topic, "partition": p.partition, "offset": seen_offset(p.offset), "metadata": p.metadata or None, "error": seen_error(p.error)}
            for p in w.on("consumer", s).consumer.committed(partitions(s["partitions"]), timeout=seconds(s))]


consumer("group.metadata", lambda c, s: c.consumer.group_metadata()._asdict())


# ---- queues ----


@verb("queue.open")
def queue_open(w: World, s: Dict[str, Any]) -> None:
    options = dict(s.get("options", {}))
    w.add("queue", s, w.get("bus", s.get("bus")).queue(options.pop("group", ""), options.pop("topics", []), **options))


@verb("queue.close")
def queue_close(w: World, s: Dict[str, Any]) -> None:
    w.forget("queue", s).close()


@verb("queue.poll")
def queue_poll(w: World, s: Dict[str, Any]) -> Any:
    m = w.on("queue", s).poll(seconds(s, 5000))
    if m is None:
        raise fail("TIMED_OUT")
    w.add("messages", s, [m])
    return seen_message(m)


@verb("queue.read")
def queue_read(w: World, s: Dict[str, Any]) -> Any:
    q, got, end = w.on("queue", s), [], time.monotonic() + s.get("timeout_ms", PATIENCE_MS) / 1000
    while len(got) < s["count"] and time.monotonic() < end:
        got += q.poll_batch(0.1, min(64, s["count"] - len(got)))
    w.add("messages", s, got)
    seen = [seen_message(m) for m in got]
    return {"count": len(seen), "messages": seen, "values": [m["value"] for m in seen]}


def queue_word(name: str) -> None:
    def say(w: World, s: Dict[str, Any]) -> None:
        queue, messages = w.on("queue", s), w.get("messages", s.get("of"))
        if name != "renew" and len(messages) > 1 and not s.get("each"):
            getattr(queue, name)(messages)
        else:
            for m in messages:
                getattr(m, name)()

    VERBS[f"queue.{name}"] = say


for word in ("ack", "release", "reject", "renew"):
    queue_word(word)


@verb("queue.ack_sync")
def queue_ack_sync(w: World, s: Dict[str, Any]) -> None:
    for m in w.get("messages", s.get("of")):
        w.on("queue", s).ack_sync(m, seconds(s))


VERBS["queue.flush"] = lambda w, s: w.on("queue", s).flush(seconds(s))
VERBS["queue.wake"] = lambda w, s: w.on("queue", s).wake()


@verb("deliver_at")
def deliver_at(w: World, s: Dict[str, Any]) -> Any:
    name, value = busway.deliver_at(s["time"])
    return [name, seen_bytes(value)]


# ---- state ----


def count(txn: Any, record: Any) -> None:
    txn.put(record.key, str(int(txn.get(record.key) or b"0") + 1).encode())


def refuse(txn: Any, record: Any) -> None:
    count(txn, record)
    raise fail("INVALID_RECORD")


@verb("state.open")
def state_open(w: World, s: Dict[str, Any]) -> None:
    w.add("state", s, w.get("consumer", s.get("consumer")).consumer.state(s.get("dir"), fast=s.get("fast", True)))


@verb("state.close")
def state_close(w: World, s: Dict[str, Any]) -> None:
    w.forget("state", s).close()


@verb("state.process")
def state_process(w: World, s: Dict[str, Any]) -> Any:
    state, total, done = w.on("state", s), s.get("total", 0), 0
    end = time.monotonic() + s.get("timeout_ms", 5000) / 1000
    while True:
        try:
            n = state.process({"count": count, "refuse": refuse}[s["handler"]], 0.2 if total else seconds(s, 5000), s.get("batch_max", 1000))
        except busway.BusyError:
            if not total or time.monotonic() > end:
                raise
            n = 0
        done += n
        if n == 0 and (not total or time.monotonic() > end):
            raise fail("TIMED_OUT")
        if done >= total:
            return {"done": done}


@verb("state.begin")
def state_begin(w: World, s: Dict[str, Any]) -> Any:
    got = w.on("state", s).begin(seconds(s, 5000))
    if got is None:
        raise fail("TIMED_OUT")
    txn, batch = got
    seen = {"topic": batch.topic, "partition": batch.partition, "records": [seen_record(r) for r in batch.records()]}
    w.add("txn", s, txn)
    return seen


@verb("state.read")
def state_read(w: World, s: Dict[str, Any]) -> None:
    w.add("txn", s, w.on("state", s).read(*place(s)))


@verb("state.get")
def state_get(w: World, s: Dict[str, Any]) -> Any:
    value = w.on("txn", s).get(given_bytes(s["key"]))
    if value is None:
        raise fail("NOT_FOUND")
    return seen_bytes(value)


VERBS["state.put"] = lambda w, s: w.on("txn", s).put(given_bytes(s["key"]), given_bytes(s["value"]))
VERBS["state.del"] = lambda w, s: w.on("txn", s).delete(given_bytes(s["key"]))
VERBS["state.each"] = lambda w, s: [[seen_bytes(k), seen_bytes(v)] for k, v in w.on("txn", s).items(given_bytes(s.get("prefix", "")), s.get("most"))]
VERBS["state.offset"] = lambda w, s: w.on("txn", s).offset
VERBS["state.commit"] = lambda w, s: w.forget("txn", s).commit()
VERBS["state.abort"] = lambda w, s: w.forget("txn", s).abort()
