"""Wild use: a language-level error, or it works; never a crash. Each case that could end the process runs in a process of its own."""
import gc
import json
import os
import pickle
import signal
import sys
import threading
import time
import weakref

import busway
import pytest
from conftest import fill


# ---- views ----


def test_view_after_release_raises(bus, topic):
    fill(bus, topic, 3)
    with bus.consumer([topic], auto_offset_reset="earliest") as c:
        b = c.poll_batch(5)
        v = b[0]
        b.release()
        b.release()
        for use in (lambda: bytes(v), lambda: memoryview(v), lambda: v.offset, lambda: v.value, lambda: len(v), lambda: v.record(),
                    lambda: b[0], lambda: b.values(), lambda: b.records(), lambda: list(b), lambda: b.gather(), lambda: v.headers,
                    lambda: v.tobytes(), lambda: b.__enter__()):
            with pytest.raises(busway.ReleasedError):
                use()
        assert "released" in repr(v)


def test_view_after_the_next_poll_raises(bus, topic):
    fill(bus, topic, 2000)
    with bus.consumer([topic], auto_offset_reset="earliest") as c:
        first = c.poll_batch(5)
        v = first[0]
        assert c.poll_batch(5) is not None
        with pytest.raises(busway.ReleasedError):
            bytes(v)


@pytest.mark.parametrize("end", ["poll", "poll_batch", "seek", "assign", "unassign", "close", "bus", "iterate", "seek_time", "gather", "release"])
def test_memoryview_that_lives_forbids_what_would_end_it(url, bus, topic, end):
    fill(bus, topic, 2000)
    b2 = busway.connect(url)
    c = b2.consumer([topic], auto_offset_reset="earliest")
    batch = c.poll_batch(5)
    m = memoryview(batch[0])
    value = bytes(m)
    calls = {"poll": lambda: c.poll(0), "poll_batch": lambda: c.poll_batch(0), "seek": lambda: c.seek(topic, 0, 0),
             "assign": lambda: c.assign(topic), "unassign": lambda: c.unassign(topic, 0), "close": c.close, "bus": b2.close,
             "iterate": lambda: next(c), "seek_time": lambda: c.seek_time(topic, 0, 0), "gather": lambda: c.gather_into(bytearray(10), 0),
             "release": batch.release}
    for _ in range(3):
        with pytest.raises(BufferError):
            calls[end]()
    assert bytes(m) == value
    m.release()
    if end in ("poll", "iterate", "poll_batch", "seek"):
        calls[end]()
    b2.close()


def test_memoryview_outlives_all_references_to_its_consumer(bus, topic):
    fill(bus, topic, 3)
    m = memoryview(bus.consumer([topic], auto_offset_reset="earliest").poll_batch(5)[1])
    gc.collect()
    assert m == b"1"
    with pytest.warns(ResourceWarning):
        del m
        gc.collect()


def test_key_view_counts_too(bus, topic):
    with bus.producer() as p:
        p.send(topic, b"v", key=b"k")
    with bus.consumer([topic], auto_offset_reset="earliest") as c:
        key = c.poll_batch(5)[0].key
        with pytest.raises(BufferError):
            c.poll(0)
        assert key == b"k"
        del key


def test_reservation_with_views_can_not_be_ended(bus, topic):
    p = bus.producer()
    room = p.reserve(topic, 0, 10)
    m = memoryview(room)
    for call in (room.commit, room.abort, p.close):
        with pytest.raises(BufferError):
            call()
    m[:2] = b"ab"
    m.release()
    with pytest.raises(BufferError):
        p.close()
    with pytest.raises(ValueError):
        room.commit(11)
    assert room.commit(2).offset == 0
    with pytest.raises(busway.ReleasedError):
        room.commit()
    with pytest.raises(busway.ReleasedError):
        memoryview(room)
    room.abort()
    p.close()


def test_reservation_that_is_forgotten_is_aborted(bus, topic):
    with bus.producer() as p:
        p.reserve(topic, 0, 10)
        gc.collect()
        assert p.send_sync(topic, b"x", partition=0, timeout=5).offset == 0


def test_reservation_of_another_thread_refuses(bus, topic):
    with bus.producer() as p:
        room = p.reserve(topic, 0, 10)
        caught = []

        def other():
            try:
                room.commit()
            except busway.ConcurrentUseError as e:
                caught.append(e)

        t = threading.Thread(target=other)
        t.start()
        t.join()
        room.abort()
    assert len(caught) == 1


# ---- closing ----


def test_closing_twice_does_nothing_and_use_after_close_raises(bus, topic, name):
    fill(bus, topic, 1)
    p, c, q = bus.producer(), bus.consumer([topic]), bus.queue(name, topic)
    for handle in (p, c, q):
        handle.close()
        handle.close()
        assert handle.closed
    for use in (lambda: p.send(topic, b"x"), p.flush, p.poll, lambda: p.send_many(topic, [b"x"]), lambda: p.send_sync(topic, b""),
                lambda: p.reserve(topic, 0, 1), p.fileno, p.begin_transaction, lambda: c.poll(0), lambda: c.poll_batch(0), lambda: next(c),
                c.commit, c.wake, c.fileno, lambda: c.assign(topic), c.assignment, lambda: q.poll(0), q.flush, q.wake, lambda: next(q)):
        with pytest.raises(busway.ClosedError):
            use()


def test_bus_closes_its_children_and_refuses_then(url, topic):
    b = busway.connect(url)
    p, c = b.producer(), b.consumer([topic])
    b.close()
    b.close()
    assert p.closed and c.closed
    for use in (b.producer, b.consumer, b.stats, lambda: b.admin().status()):
        with pytest.raises(busway.ClosedError):
            use()


def test_message_of_a_closed_queue_raises(bus, topic, name):
    fill(bus, topic, 1)
    with bus.queue(name, topic) as q:
        m = q.poll(10)
    with pytest.raises(busway.ClosedError):
        m.ack()
    with bus.queue(name, topic) as q, pytest.raises(ValueError):
        q.ack(m)


def test_unclosed_handles_are_closed_with_a_warning(url, topic):
    b = busway.connect(url)
    p = b.producer(linger_ms=50)
    p.send(topic, b"kept")
    gone = weakref.ref(p)
    with pytest.warns(ResourceWarning):
        del p
        gc.collect()
    assert gone() is None
    with b.consumer([topic], auto_offset_reset="earliest") as c:
        assert c.poll(5).value == b"kept"
    with pytest.warns(ResourceWarning):
        del b, c
        gc.collect()


def test_close_from_another_thread_ends_a_poll(bus, topic):
    c = bus.consumer([topic])
    caught = []

    def wait():
        try:
            c.poll(None)
        except busway.ClosedError as e:
            caught.append(e)

    t = threading.Thread(target=wait)
    t.start()
    time.sleep(0.1)
    begun = time.monotonic()
    c.close()
    t.join(5)
    assert caught and time.monotonic() - begun < 2


def test_wake_from_another_thread_ends_a_poll(bus, topic, name):
    fill(bus, topic, 1)
    with bus.consumer([topic]) as c, bus.queue(name, topic) as q:
        q.poll(10)
        for handle in (c, q):
            timer = threading.Timer(0.05, handle.wake)
            timer.start()
            with pytest.raises(busway.WokenError):
                handle.poll(20)
            timer.join()


def test_reference_cycle_through_a_callback_is_collected(bus, topic, name):
    class Holder:
        pass

    h = Holder()
    h.consumer = bus.consumer(group_id=name, on_assign=lambda c, p: h)
    gone = weakref.ref(h)
    h.consumer.close()
    del h
    gc.collect()
    assert gone() is None


# ---- threads ----


def test_second_thread_inside_a_consumer_raises(bus, topic):
    with bus.consumer([topic]) as c:
        t = threading.Thread(target=lambda: pytest.raises(busway.WokenError, c.poll, None))
        t.start()
        time.sleep(0.1)
        for use in (lambda: c.poll(0), lambda: next(c), lambda: c.seek(topic, 0, 0), c.assignment):
            with pytest.raises(busway.ConcurrentUseError):
                use()
        c.wake()
        t.join()


def test_sixty_four_threads_on_one_producer(any_bus, name):
    any_bus.admin().create_topic(name, 4)
    errors = []
    with any_bus.producer() as p:
        def work(number):
            try:
                for i in range(50):
                    p.send(name, b"%d:%d" % (number, i), key=b"%d" % number)
                    if i % 10 == 0:
                        p.send_many(name, [(b"%d" % number, b"%d:m%d" % (number, i))])
                        p.poll()
                    if i == 25:
                        p.flush(20)
            except Exception as e:  # noqa: BLE001
                errors.append(e)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(64)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        p.flush(20)
    assert not errors
    seen = {}
    with any_bus.consumer([name], auto_offset_reset="earliest", consumer_timeout_ms=500) as c:
        for r in c:
            seen.setdefault(r.key, []).append(r.value)
    assert len(seen) == 64 and all(len(v) == 55 for v in seen.values())
    for key, values in seen.items():
        singles = [v for v in values if b":m" not in v]
        assert singles == [key + b":%d" % i for i in range(50)]


def test_producer_closed_under_many_senders(url, topic):
    b = busway.connect(url)
    p = b.producer()
    other = []

    def work():
        try:
            while True:
                p.send(topic, b"x" * 100)
        except busway.ClosedError:
            pass
        except Exception as e:  # noqa: BLE001
            other.append(e)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for t in threads:
        t.start()
    time.sleep(0.2)
    b.close(5)
    for t in threads:
        t.join(5)
    assert not other and not any(t.is_alive() for t in threads)


def test_list_changed_by_another_thread_while_it_is_sent(bus, topic):
    records = [b"%d" % i for i in range(50000)]
    stop = threading.Event()

    def shrink():
        while not stop.is_set() and records:
            records.pop()

    with bus.producer() as p:
        t = threading.Thread(target=shrink)
        t.start()
        n = p.send_many(topic, records)
        stop.set()
        t.join()
        assert 0 <= n <= 50000
        room = bytearray(b"abc")
        assert p.send_many(topic, (room for _ in range(10))) == 10
        room.extend(b"d")  # no view of it is held


# ---- Ctrl-C in every wait ----

WAITS = {
    "poll": "c.poll()",
    "poll_batch": "c.poll_batch()",
    "iterate": "next(c)",
    "gather_into": "c.gather_into(bytearray(100))",
    "queue": "q.poll()",
    "queue_iterate": "next(q)",
    "queue_batch": "q.poll_batch()",
    "state_process": "s.process(print)",
    "state_begin": "s.begin()",
    "producer_poll": "p.poll(None)",
}
#: with the daemon stopped
WAITS_FOR_THE_DAEMON = {
    "send_sync": "a.send_sync(t, b'x')",
    "send_many": "a2.send_many(t, [b'x'] * 10)",
    "flush": "a3.send(t, b'x'); a3.flush()",
    "queue_full": "[a3.send(t, b'x' * 1000) for i in range(10 ** 7)]",
    "producer_close": "a3.close()",
    "commit": "g.commit([(t, 0, 1)])",
    "committed": "g2.committed([(t, 0)])",
    "assign": "g3.assign(t)",
    "admin": "bus.admin().create_topic('other')",
    "describe": "bus.admin().describe_topics()",
    "transaction": "tx.init_transactions()",
    "connect": "busway.connect(url, transport='ipc', connect_timeout_ms=60000)",
}


@pytest.mark.parametrize("stopped", [False, True])
def test_keyboard_interrupt_ends_every_wait(tmp_path, child, stopped):
    waits = WAITS_FOR_THE_DAEMON if stopped else WAITS
    done = child("""
        import busway, json, os, signal, sys, threading, time
        url, waits, stopped = f"dir:{sys.argv[1]}/d?idle-exit=1s", json.loads(sys.argv[2]), sys.argv[3] == "1"
        bus = busway.connect(url)
        ipc = busway.connect(url, transport="ipc", request_timeout_ms=60000)
        t = "t"
        bus.admin().create_topic(t, 1)
        a, a2, a3 = [ipc.producer(buffer_memory=1 << 20) for _ in range(3)]
        for x in (a, a2, a3):
            x.send_sync(t, b"first")
        p, c = bus.producer(), bus.consumer([t])
        g, g2, g3 = [ipc.consumer(group_id="g") for _ in range(3)]
        tx = ipc.producer(transactional_id="x")
        q = bus.queue("q", t)
        while q.poll(0.1):
            pass
        sc = bus.consumer(group_id="s", auto_offset_reset="latest")
        s = sc.state(sys.argv[1] + "/s", fast=True)
        sc.subscribe(t)
        while not sc.assignment():
            s.process(lambda *a: None, 0.1)
        pid = bus.admin().status()["pid"]
        if stopped:
            os.kill(pid, signal.SIGSTOP)
        result = {}
        for name, code in waits.items():
            timer = threading.Timer(0.15, lambda: os.kill(os.getpid(), signal.SIGINT))
            begun = time.monotonic()
            timer.start()
            try:
                try:
                    exec(code)
                    result[name] = "went on"
                    timer.join()
                    time.sleep(1)
                except BaseException as e:
                    took = time.monotonic() - begun
                    result[name] = type(e).__name__ if took < 2.5 else f"late: {took}"
                    timer.join()
            except KeyboardInterrupt:
                pass
        if stopped:
            os.kill(pid, signal.SIGCONT)
        print(json.dumps(result))
        sys.stdout.flush()
        os._exit(0)
        """, str(tmp_path), json.dumps(waits), "1" if stopped else "0", timeout=90)
    assert done.stdout, done.stderr[-2000:]
    assert json.loads(done.stdout) == {name: "KeyboardInterrupt" for name in waits}


def test_signal_handlers_run_while_waiting(bus, topic):
    seen = []
    before = signal.signal(signal.SIGALRM, lambda *a: seen.append(time.monotonic()))
    try:
        with bus.consumer([topic]) as c:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            assert c.poll(0.5) is None and seen
    finally:
        signal.signal(signal.SIGALRM, before)


# ---- callbacks ----


def test_exception_in_a_rebalance_callback_is_raised_by_poll(bus, topic, name):
    fill(bus, topic, 1)

    def refuse(consumer, parts):
        raise ZeroDivisionError("mine")

    with bus.consumer([topic], group_id=name, auto_offset_reset="earliest", on_assign=refuse) as c:
        with pytest.raises(ZeroDivisionError):
            for _ in range(50):
                c.poll(0.2)
        assert c.poll(10).value == b"0", "it goes on"


def test_exception_in_the_revoke_callback_is_raised_by_close(bus, topic, name):
    def refuse(consumer, parts):
        raise ZeroDivisionError("mine")

    c = bus.consumer([topic], group_id=name, auto_offset_reset="latest", on_revoke=refuse)
    while not c.assignment():
        c.poll(0.1)
    with pytest.raises(ZeroDivisionError):
        c.close()
    assert c.closed


def test_exception_in_a_delivery_callback_is_raised_by_flush(any_bus, name):
    any_bus.admin().create_topic(name, 1)
    told = []

    def refuse(d):
        told.append(d.offset)
        if d.offset == 0:
            raise ZeroDivisionError("mine")

    with any_bus.producer() as p:
        for _ in range(3):
            p.send(name, b"x", on_delivery=refuse)
        with pytest.raises(ZeroDivisionError):
            p.flush(10)
        p.flush(10)
        assert told == [0, 1, 2]


def test_exception_in_a_commit_callback_is_raised(bus, topic, name):
    fill(bus, topic, 1)
    with bus.consumer([topic], group_id=name, auto_offset_reset="earliest", enable_auto_commit=False) as c:
        c.poll(10)
        c.commit_async(None, lambda e, parts: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            for _ in range(50):
                c.poll(0.2)


def test_exception_in_a_state_handler_leaves_the_state(bus, topic, name, tmp_path):
    fill(bus, topic, 3)
    with bus.consumer(group_id=name, auto_offset_reset="earliest") as c, c.state(str(tmp_path), fast=True) as s:
        c.subscribe(topic)
        kept = []

        def refuse(txn, record):
            txn.put(b"k", record.value)
            kept.append(txn)
            if record.offset == 2:
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            for _ in range(50):
                s.process(refuse, 0.2)
        with pytest.raises(busway.ReleasedError):
            kept[0].get(b"k")
        with s.read(topic, 0) as txn:
            assert txn.get(b"k") is None and txn.offset in (-1, 0)


@pytest.mark.parametrize("what", ["poll", "close", "unsubscribe", "iterate", "bus"])
def test_callback_that_calls_what_it_must_not_gets_an_error(url, topic, name, what):
    b = busway.connect(url)
    caught = []

    def assigned(c, parts):
        calls = {"poll": lambda: c.poll(0), "close": c.close, "unsubscribe": c.unsubscribe, "iterate": lambda: next(c), "bus": b.close}
        try:
            calls[what]()
        except busway.InvalidArgumentError as e:
            caught.append(e)
        assert c.position(topic, 0) >= 0

    c = b.consumer([topic], group_id=name, auto_offset_reset="latest", on_assign=assigned)
    for _ in range(100):
        c.poll(0.05)
        if caught:
            break
    assert caught
    b.close()


def test_delivery_callback_that_sends_flushes_and_closes(bus, topic):
    p = bus.producer()
    told = []

    def again(d):
        told.append(d.offset)
        if len(told) < 5:
            p.send(topic, b"x", on_delivery=again)
            p.flush(5)
        with pytest.raises(busway.InvalidArgumentError):
            p.close()

    p.send(topic, b"x", on_delivery=again)
    p.flush(10)
    while len(told) < 5:
        p.poll(1)
    assert told == [0, 1, 2, 3, 4]
    p.close()


def test_deserializer_that_raises_or_polls(bus, topic):
    fill(bus, topic, 5)

    def odd(data):
        if data == b"1":
            raise ZeroDivisionError
        if data == b"2":
            return c.poll(1)
        return data

    with bus.consumer([topic], auto_offset_reset="earliest", value_deserializer=odd) as c:
        assert c.poll(5).value == b"0"
        with pytest.raises(ZeroDivisionError):
            c.poll(5)
        inner = c.poll(5)
        assert inner.offset == 2 and inner.value.offset == 3
        assert c.poll(5).offset == 4


# ---- arguments ----


@pytest.mark.parametrize("call, error", [
    (lambda p, t: p.send(t, "text"), TypeError),
    (lambda p, t: p.send(t, 5), TypeError),
    (lambda p, t: p.send(5, b""), TypeError),
    (lambda p, t: p.send("a\0b", b""), ValueError),
    (lambda p, t: p.send("\ud800", b""), UnicodeEncodeError),
    (lambda p, t: p.send(t, b"", b"", b""), TypeError),
    (lambda p, t: p.send(t, b"", topic=t), TypeError),
    (lambda p, t: p.send(), TypeError),
    (lambda p, t: p.send(t, b"", nonsense=1), TypeError),
    (lambda p, t: p.send(t, b"", partition=-5), ValueError),
    (lambda p, t: p.send(t, b"", partition=2 ** 40), OverflowError),
    (lambda p, t: p.send(t, b"", partition=99), busway.UnknownPartitionError),
    (lambda p, t: p.send(t, b"", timestamp_ms="now"), TypeError),
    (lambda p, t: p.send(t, b"", timestamp_ms=2 ** 70), OverflowError),
    (lambda p, t: p.send(t, b"", headers=[("a",)]), TypeError),
    (lambda p, t: p.send(t, b"", headers=[(b"a", b"b")]), TypeError),
    (lambda p, t: p.send(t, b"", headers={"a": "text"}), TypeError),
    (lambda p, t: p.send(t, b"", headers=5), TypeError),
    (lambda p, t: p.send("no such/topic", b""), busway.BuswayError),
    (lambda p, t: p.send("x" * 1000, b""), busway.BuswayError),
    (lambda p, t: p.send(t, memoryview(bytes(64)).cast("d")[::2]), BufferError),
    (lambda p, t: p.send_many(t, b"bytes"), TypeError),
    (lambda p, t: p.send_many(t, 5), TypeError),
    (lambda p, t: p.send_many(t, [("one",)]), ValueError),
    (lambda p, t: p.send_many(t, ["text"]), TypeError),
    (lambda p, t: p.send_many(t, [(b"k", b"v", "now")]), TypeError),
    (lambda p, t: p.send_batch(t, []), busway.InvalidArgumentError),
    (lambda p, t: p.reserve(t, 0, -1), ValueError),
    (lambda p, t: p.reserve(t, 0, 2 ** 60), busway.BuswayError),
    (lambda p, t: p.poll(float("nan")), ValueError),
    (lambda p, t: p.flush(-1), ValueError),
    (lambda p, t: p.flush("soon"), TypeError),
])
def test_wrong_arguments_of_a_producer(bus, topic, call, error):
    with bus.producer() as p:
        with pytest.raises(error):
            call(p, topic)
        p.send_sync(topic, b"fine", timeout=10)


@pytest.mark.parametrize("call, error", [
    (lambda c, t: c.assign(t, 0, "somewhere"), busway.InvalidArgumentError),
    (lambda c, t: c.assign([t]), TypeError),
    (lambda c, t: c.assign(t, 2 ** 40), OverflowError),
    (lambda c, t: c.subscribe([t]), busway.InvalidArgumentError),
    (lambda c, t: c.subscribe([5]), TypeError),
    (lambda c, t: c.commit(), busway.InvalidArgumentError),
    (lambda c, t: c.commit([(t,)]), TypeError),
    (lambda c, t: c.group_metadata(), busway.InvalidArgumentError),
    (lambda c, t: c.unsubscribe(), busway.BuswayError),
    (lambda c, t: c.position(t, 5), busway.BuswayError),
    (lambda c, t: c.gather_into(b"immutable", 0), (TypeError, BufferError)),
    (lambda c, t: c.gather_into(5, 0), TypeError),
    (lambda c, t: c.poll(-1), ValueError),
    (lambda c, t: c.state("/tmp"), busway.InvalidArgumentError),
])
def test_wrong_arguments_of_a_consumer(bus, topic, call, error):
    with bus.consumer() as c:
        c.assign(topic)
        with pytest.raises(error):
            call(c, topic)


def test_internal_types_are_not_made_by_hand():
    from busway import _busway
    for kind in (busway.Batch, busway.View, busway.Reservation, busway.StateTransaction):
        with pytest.raises(TypeError):
            kind()
    for kind in (_busway.Bus, _busway.Producer, _busway.Consumer, _busway.Queue, _busway.State):
        with pytest.raises(TypeError):
            kind()
    with pytest.raises(TypeError):
        busway.Producer.__new__(busway.Producer, object())


# ---- fork, spawn, pickling, the end ----


def test_pickling_handles_says_why_not(bus, topic):
    fill(bus, topic, 1)
    with bus.producer() as p, bus.consumer([topic], auto_offset_reset="earliest") as c:
        b = c.poll_batch(5)
        for handle in (bus, p, c, b, b[0]):
            with pytest.raises(TypeError, match="URL|pickle"):
                pickle.dumps(handle)


def test_fork_refuses_old_handles_and_opens_new_ones(tmp_path, child):
    done = child("""
        import busway, os, sys, gc
        url = f"dir:{sys.argv[1]}/d?idle-exit=1s"
        bus = busway.connect(url)
        p = bus.producer(); p.send("t", b"parent"); p.flush()
        ipc = busway.connect(url, transport="ipc").producer(); ipc.send("t", b"ipc"); ipc.flush()
        c = bus.consumer(["t"], auto_offset_reset="earliest")
        b = c.poll_batch(5); v = b[0]
        pid = os.fork()
        if pid == 0:
            refused = 0
            for use in (lambda: p.send("t", b"x"), p.flush, lambda: ipc.send("t", b"x"), lambda: c.poll(0), lambda: next(c),
                        lambda: bytes(v), lambda: bus.admin().status(), bus.producer, bus.stats, c.wake):
                try:
                    use()
                except (busway.ForkedError, busway.ClosedError):
                    refused += 1
            p.close(); c.close(); bus.close()
            del p, c, b, v, ipc; gc.collect()
            with busway.connect(url) as mine:
                q = mine.producer(); q.send("t", b"child"); q.flush()
            print("refused", refused); sys.stdout.flush()
            sys.exit(0)  # through atexit and all
        _, status = os.waitpid(pid, 0)
        assert status == 0, status
        p.send("t", b"after"); p.flush()
        b = None; v = None
        c.seek("t", 0, "beginning")
        print([c.poll(5).value for _ in range(4)])
        """, str(tmp_path))
    assert done.returncode == 0 and done.stdout == "refused 10\n[b'parent', b'ipc', b'child', b'after']\n", (done.stdout, done.stderr[-3000:])


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(tmp_path, method):
    folder = str(tmp_path)
    with open(os.path.join(folder, "prog.py"), "w") as f:
        f.write("""
import multiprocessing as mp, sys, busway, warnings
warnings.simplefilter("ignore", DeprecationWarning)
def work(url, n):
    with busway.connect(url) as bus:
        p = bus.producer(); p.send_many("t", [b"%d" % n] * 10)
if __name__ == "__main__":
    mp.set_start_method(sys.argv[2])
    url = f"dir:{sys.argv[1]}/d?idle-exit=1s"
    with busway.connect(url) as bus:
        bus.admin().create_topic("t", 1)
        mine = bus.producer(); mine.send("t", b"x")
        with mp.Pool(2) as pool:
            pool.starmap(work, [(url, n) for n in range(4)])
            pool.close(); pool.join()
        print(bus.admin().offsets_range("t", 0).end)
""")
    import subprocess
    done = subprocess.run([sys.executable, os.path.join(folder, "prog.py"), folder, method], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          universal_newlines=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "41\n"), (done.stdout, done.stderr[-2000:])


def test_interpreter_ends_with_everything_open(tmp_path, child):
    done = child("""
        import busway, sys, threading
        url = f"dir:{sys.argv[1]}/d?idle-exit=1s"
        bus, ipc = busway.connect(url), busway.connect(url, transport="ipc")
        bus.admin().create_topic("t", 1)
        late = ipc.producer(linger_ms=1000)
        bus.producer().send("t", b"first")
        c = bus.consumer(["t"], auto_offset_reset="earliest")
        view = memoryview(c.poll_batch(5)[0])
        c2 = bus.consumer(["t"])
        threading.Thread(target=lambda: c2.poll(), daemon=True).start()
        q = bus.queue("q", "t"); m = q.poll(5)
        late.send("t", b"kept")
        print(bytes(view), m.value)
        """, str(tmp_path))
    assert done.returncode == 0 and done.stdout == "b'first' b'first'\n", (done.stdout, done.stderr[-3000:])
    with busway.connect(f"dir:{tmp_path}/d?idle-exit=1s") as bus, bus.consumer(["t"], auto_offset_reset="earliest") as c:
        assert [c.poll(5).value, c.poll(5).value] == [b"first", b"kept"], "flushed at exit"


def test_daemon_killed_under_everything(tmp_path, child):
    done = child("""
        import busway, os, signal, sys, time
        url = f"dir:{sys.argv[1]}/d?idle-exit=1s"
        with busway.connect(url) as bus, busway.connect(url, transport="ipc") as ipc:
            bus.admin().create_topic("t", 1)
            p, q = bus.producer(), ipc.producer()
            c = ipc.consumer(["t"], group_id="g", auto_offset_reset="earliest")
            for i in range(2):
                os.kill(bus.admin().status()["pid"], signal.SIGKILL)
                p.send("t", b"d%d" % i); q.send("t", b"i%d" % i)
                p.flush(20); q.flush(20)
            got = set()
            end = time.monotonic() + 20
            while len(got) < 4 and time.monotonic() < end:
                try:
                    r = c.poll(1)
                    if r: got.add(r.value)
                except busway.RetriableError as e:
                    time.sleep(0.05)
            print(sorted(got))
        """, str(tmp_path), timeout=60)
    assert done.stdout == "[b'd0', b'd1', b'i0', b'i1']\n", (done.stdout, done.stderr[-3000:])


def test_another_major_version_of_the_library_is_refused(tmp_path, child):
    import shutil
    import subprocess
    if not shutil.which("gcc"):
        pytest.skip("needs gcc")
    source = tmp_path / "v.c"
    source.write_text('const char *bw_version(void) { return "9.3.1"; }\n')
    library = tmp_path / "libv.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    done = child("import busway", env={**os.environ, "LD_PRELOAD": f"{os.environ.get('LD_PRELOAD', '')} {library}"})
    assert done.returncode == 1 and "ImportError" in done.stderr and "9.3.1" in done.stderr and "libbusway 0." in done.stderr


def test_log_messages_reach_logging(tmp_path, child):
    done = child("""
        import busway, logging, sys, os
        logging.basicConfig(level=logging.DEBUG, format="%(name)s %(levelname)s", stream=sys.stdout)
        os.environ.pop("BUSWAY_URL", None)
        os.environ["XDG_DATA_HOME"] = sys.argv[1]
        with busway.connect() as bus:
            bus.stats()
        """, str(tmp_path))
    assert os.path.exists("/run/busway") or "busway " in done.stdout, (done.stdout, done.stderr)
