"""The package's everyday use."""
import pickle

import busway
import pytest
from conftest import fill


def test_five_lines_of_the_readme_round_trip_a_record(url, name):
    with busway.connect(url) as bus:
        p = bus.producer(); p.send(name, b"v", key=b"k"); p.flush()  # noqa: E702
        c = bus.consumer([name], group_id=name, auto_offset_reset="earliest")
        r = next(iter(c))
    assert (r.topic, r.value, r.key, r.offset, r.partition) == (name, b"v", b"k", 0, 0)
    assert bus.closed and p.closed and c.closed


def test_every_handle_is_a_context_manager(bus, topic, name):
    with bus.producer() as p, bus.consumer([topic], auto_offset_reset="earliest") as c, bus.queue(name, topic) as q:
        p.send(topic, b"1")
        p.flush()
        assert c.poll(5).value == b"1"
        m = q.poll(5)
        assert m.value == b"1" and m.deliveries == 1
        m.ack()
    assert p.closed and c.closed and q.closed


def test_record_has_all_fields_and_survives_pickling(any_bus, name):
    any_bus.admin().create_topic(name, 1)
    with any_bus.producer() as p:
        d = p.send_sync(name, b"v", b"k", headers=[("a", b"1"), ("b", None)], timestamp_ms=1234567)
        assert d.offset == 0 and d.topic == name and d.error is None and d.timestamp_ms == 1234567
    with any_bus.consumer([name], auto_offset_reset="earliest") as c:
        r = c.poll(5)
    assert r.headers == [("a", b"1"), ("b", None)] and r.timestamp_ms == r.timestamp == 1234567 and r.timestamp_type == 0
    again = pickle.loads(pickle.dumps(r))
    assert again == r and again.headers == r.headers and pickle.loads(pickle.dumps(d)) == d


def test_null_and_empty_are_kept_apart(any_bus, name):
    any_bus.admin().create_topic(name, 1)
    with any_bus.producer() as p:
        p.send(name, None, key=b"")
        p.send(name, b"", key=None)
    with any_bus.consumer([name], auto_offset_reset="earliest") as c:
        a, b = c.poll(5), c.poll(5)
    assert (a.value, a.key, b.value, b.key) == (None, b"", b"", None)


@pytest.mark.parametrize("what", [bytearray(b"abc"), memoryview(b"xabcx")[1:4]])
def test_send_takes_any_buffer(bus, topic, what):
    with bus.producer() as p:
        p.send(topic, what, key=what)
        p.send_many(topic, [what, (what, what)])
    with bus.consumer([topic], auto_offset_reset="earliest") as c:
        assert [c.poll(5).value for _ in range(3)] == [b"abc"] * 3


def test_send_on_delivery_is_called_in_order_by_flush(any_bus, name):
    told = []
    any_bus.admin().create_topic(name, 1)
    with any_bus.producer() as p:
        for i in range(100):
            p.send(name, b"%d" % i, on_delivery=told.append)
        p.flush(10)
        assert [d.offset for d in told] == list(range(100)) and p.outstanding == 0


def test_records_keep_their_order_over_all_ways_of_sending(any_bus, name):
    any_bus.admin().create_topic(name, 1)
    with any_bus.producer() as p:
        for i in range(0, 300, 3):
            p.send(name, b"%d" % i)
            p.send_many(name, [b"%d" % (i + 1)])
            p.send_sync(name, b"%d" % (i + 2))
    with any_bus.consumer([name], auto_offset_reset="earliest") as c:
        assert [c.poll(5).value for _ in range(300)] == [b"%d" % i for i in range(300)]


def test_send_many_of_any_iterable_and_item(bus, topic):
    with bus.producer() as p:
        assert p.send_many(topic, (b"%d" % i for i in range(20000))) == 20000
        assert p.send_many(topic, [(b"k", b"v", 5, {"h": b"x"}), (None, None), (b"", b"", None)]) == 3
        assert p.send_many(topic, []) == 0
    with bus.consumer() as c:
        c.assign(topic, 0, 20000)
        r = [c.poll(5) for _ in range(3)]
    assert (r[0].key, r[0].value, r[0].timestamp_ms, r[0].headers) == (b"k", b"v", 5, [("h", b"x")])
    assert (r[1].key, r[1].value, r[2].key, r[2].value) == (None, None, b"", b"")


def test_send_many_error_says_how_many_were_sent(bus, topic):
    def records():
        yield from [b"a"] * 10000
        raise KeyError("mine")

    with bus.producer() as p:
        with pytest.raises(KeyError) as e:
            p.send_many(topic, records())
        assert e.value.sent == 10000
        with pytest.raises(busway.RecordTooLargeError) as e:
            p.send_many(topic, [b"a", b"b", b"x" * (64 << 20), b"c"])
        assert e.value.sent == 2 and not e.value.retriable


def test_send_batch_is_one_batch(bus, topic):
    with bus.producer() as p:
        d = p.send_batch(topic, [b"a", b"b", b"c"], partition=0)
        assert (d.offset, d.count) == (0, 3)
    with bus.consumer([topic], auto_offset_reset="earliest") as c:
        b = c.poll_batch(5)
        assert len(b) == 3 and (b.base_offset, b.last_offset) == (0, 2)


def test_reserve_writes_in_place(bus, topic):
    with bus.producer() as p:
        with p.reserve(topic, 0, 100, key=b"k") as room:
            with memoryview(room) as m:
                m[:5] = b"hello"
            assert room.commit(5).offset == 0
        room = p.reserve(topic, 0, 10)
        room.abort()
        with pytest.raises(ZeroDivisionError):
            with p.reserve(topic, 0, 10):
                1 / 0
        p.send(topic, b"next")
    with bus.consumer([topic], auto_offset_reset="earliest") as c:
        assert [(r.key, r.value) for r in (c.poll(5), c.poll(5))] == [(b"k", b"hello"), (None, b"next")]


def test_iteration_ends_after_consumer_timeout(bus, topic):
    values = fill(bus, topic, 50)
    with bus.consumer([topic], auto_offset_reset="earliest", consumer_timeout_ms=50) as c:
        assert [r.value for r in c] == values
        assert list(c) == []


def test_places_and_positions(bus, topic):
    fill(bus, topic, 10)
    with bus.consumer() as c:
        c.assign(topic, 0, 4)
        assert c.position(topic, 0) == 4 and c.poll(5).offset == 4
        assert c.position(topic, 0) == 5, "behind the last record given, not behind its batch"
        c.seek(topic, 0, "beginning")
        assert c.poll(5).offset == 0
        c.pause(topic, 0)
        assert c.poll(0.05) is None
        c.resume(topic, 0)
        assert c.poll(5).offset == 1, "what was not given comes again"
        assert c.assignment() == [busway.TopicPartition(topic, 0, 2, c.assignment()[0].leader_epoch)]
        c.seek(topic, 0, "end")
        assert c.poll(0) is None
        c.unassign(topic, 0)
        assert c.assignment() == []
        with pytest.raises(busway.UnknownPartitionError) as e:
            c.assign(topic, 7)
        assert isinstance(e.value, LookupError) and isinstance(e.value, busway.FinalError) and e.value.name == "UNKNOWN_PARTITION"


def test_seek_time_goes_to_the_first_record_from_then_on(bus, topic):
    with bus.producer() as p:
        for t in (1000, 2000, 3000):
            p.send(topic, b"%d" % t, timestamp_ms=t)
    with bus.consumer() as c:
        c.assign(topic)
        c.seek_time(topic, 0, 1500)
        assert c.poll(5).value == b"2000"
    assert bus.admin().offset_for_time(topic, 0, 2500) == (2, 3000)


def test_group_commits_what_was_given_not_what_was_fetched(bus, topic, name):
    values = fill(bus, topic, 100)
    with bus.consumer([topic], group_id=name, auto_offset_reset="earliest") as c:
        assert [c.poll(10).value for _ in range(30)] == values[:30]
    with bus.consumer([topic], group_id=name) as c:
        assert c.poll(10).value == values[30]
        assert c.commit()[0].offset == 31
        assert c.committed()[0].offset == 31
    with bus.consumer([topic], group_id=name) as c:
        assert c.poll(10).value == values[31]


def test_commit_async_tells_its_callback(bus, topic, name):
    fill(bus, topic, 3)
    told = []
    with bus.consumer([topic], group_id=name, auto_offset_reset="earliest", enable_auto_commit=False) as c:
        assert c.poll(10)
        c.commit_async([busway.TopicPartition(topic, 0, 2, metadata="here")], lambda error, parts: told.append((error, parts)))
        while not told:
            c.poll(0.1)
        assert told[0][0] is None and told[0][1][0][:3] == (topic, 0, 2)
        assert c.committed([(topic, 0)])[0].metadata == "here"
        assert c.group_metadata().group_id == name and c.subscription() == [topic]
        with pytest.raises(busway.BuswayError):
            c.commit([(topic, 0, 10 ** 9)])


def test_rebalance_callbacks_see_what_comes_and_goes(bus, name):
    bus.admin().create_topic(name, 4)
    seen = []
    a = bus.consumer([name], group_id=name, auto_offset_reset="earliest", on_assign=lambda c, p: seen.append(("a", len(p))),
                     on_revoke=lambda c, p: seen.append(("r", len(p))))
    while len(a.assignment()) < 4:
        a.poll(0.05)
    b = bus.consumer([name], group_id=name, auto_offset_reset="earliest")
    while len(b.assignment()) < 2 or len(a.assignment()) > 2:
        a.poll(0.02)
        b.poll(0.02)
    assert ("a", 4) in seen and ("r", 2) in seen
    b.close()
    a.close()
    assert seen[-1][0] == "r"


def test_transaction_commits_or_aborts(bus, topic, name):
    out = name + "-out"
    bus.admin().create_topic(out, 1)
    fill(bus, topic, 4)
    with bus.producer(transactional_id=name) as p, bus.consumer([topic], group_id=name, auto_offset_reset="earliest",
                                                                enable_auto_commit=False) as c:
        with p.transaction() as t:
            p.send(out, b"<" + c.poll(10).value)
            t.send_offsets(c)
        with pytest.raises(ZeroDivisionError):
            with p.transaction() as t:
                p.send(out, b"never")
                1 / 0
        p.begin_transaction()
        with pytest.raises(busway.InvalidTransactionStateError):
            p.begin_transaction()
        p.abort_transaction()
        assert c.committed()[0].offset == 1
    with bus.consumer([out], auto_offset_reset="earliest", isolation_level="read_committed") as c:
        assert c.poll(5).value == b"<0" and c.poll(0.1) is None
    assert any(t["id"] == name for t in bus.admin().transactions())


def test_state_counts_with_handler_and_by_hand(bus, topic, name, tmp_path):
    fill(bus, topic, 10)
    with bus.consumer(group_id=name, auto_offset_reset="earliest") as c, c.state(str(tmp_path), fast=True) as s:
        c.subscribe(topic)

        def count(txn, record):
            txn.put(b"n", b"%d" % (int(txn.get(b"n", b"0")) + 1))

        done = 0
        while done < 10:
            done += s.process(count, 10, 7)
        with s.read(topic, 0) as txn:
            assert txn.get(b"n") == b"10" and txn.get(b"x") is None and txn.items() == [(b"n", b"10")] and txn.offset == 10
        with pytest.raises(busway.ReleasedError):
            txn.get(b"n")
        fill(bus, topic, 1)
        txn, batch = s.begin(10)
        with txn:
            assert [bytes(v) for v in batch] == [b"0"]
            txn.delete(b"n")
        with s.read(topic, 0) as txn:
            assert txn.get(b"n") is None and txn.offset == 11
        with pytest.raises(busway.InvalidArgumentError):
            c.poll(0)


def test_queue_settles_messages(bus, topic, name):
    fill(bus, topic, 4)
    with bus.queue(name, topic, max_deliveries=2) as q:
        got = q.poll_batch(10, 10)
        while len(got) < 4:
            got += q.poll_batch(10, 10)
        assert [m.value for m in got] == [b"0", b"1", b"2", b"3"]
        got[0].ack()
        got[1].release()
        got[2].reject()
        got[3].renew()
        q.ack([got[3]])
        q.flush(10)
        again = q.poll(10)
        assert again.offset == 1 and again.deliveries == 2
        q.ack_sync(again, 10)
        assert pickle.loads(pickle.dumps(again)).value == b"1"
        with pytest.raises(ValueError):
            pickle.loads(pickle.dumps(again)).ack()
    admin = bus.admin()
    assert admin.queues(name)[0]["partitions"][0]["acknowledged"] >= 3
    moved = []
    assert admin.redrive_queue(topic + ".dlq", progress=lambda m, s: moved.append(m)) == (1, 0) and moved


def test_admin_does_what_c_does(bus, name, tmp_path):
    admin = bus.admin()
    admin.create_topic(name, 2, {"retention.ms": 60000})
    assert admin.partitions(name) == 2
    admin.alter_topic(name, 3, {"retention.ms": None})
    assert len(admin.describe_topics(name)[0]["partitions"]) == 3
    with pytest.raises(busway.TopicExistsError):
        admin.create_topic(name)
    with bus.producer() as p:
        p.send_many(name, [b"x"] * 10, partition=0)
        assert admin.offsets_range(name, 0)[:2] == (0, 10)
        assert admin.delete_records(name, 0, 5) == 5
        assert isinstance(admin.producers(name, 0), list)
    admin.set_quota({"producer_byte_rate": 10 ** 9}, client_id=name)
    assert admin.quotas(client_id=name)[0]["producer_byte_rate"] == 10 ** 9
    admin.set_quota({"producer_byte_rate": None}, client_id=name)
    done = admin.alter_group_offsets(name, [(name, 0, 7, -1, "m")])
    assert done[0].error is None and admin.describe_group(name)["partitions"][0]["committed_offset"] == 7
    with pytest.raises(busway.BuswayError) as e:
        admin.alter_group_offsets(name, [(name, 0, 8), (name, 9, 8)])
    assert len(e.value.outcomes) == 2 and e.value.outcomes[0] == 0
    assert any(g["group"] == name for g in admin.groups())
    admin.delete_group_offsets(name, [(name, 0)])
    assert "version" in admin.status() and bus.stats()["url"]
    admin.delete_topic(name)
    with pytest.raises(busway.UnknownTopicError):
        admin.partitions(name)


def test_verify_and_dump_read_the_folder(tmp_path):
    folder = tmp_path / "d"
    with busway.connect(f"dir:{folder}?idle-exit=1s") as bus:
        with bus.producer() as p:
            p.send("t", b"hello", key=b"k")
        result = busway.verify(str(folder))
        assert result.errors == 0 and result.records == 1
        seen = []
        segment = next(folder.glob("**/*.log"))
        busway.dump(str(segment), lambda batch, record: seen.append((batch["count"], record and record.value)))
        assert (1, b"hello") in seen


def test_serializers(bus, topic):
    with bus.producer(value_serializer=busway.json_serializer, key_serializer=busway.string_serializer) as p:
        p.send(topic, {"a": [1, "é"]}, key="k")
        p.send_many(topic, [{"b": 2}, ("k", None)])
    with bus.consumer([topic], auto_offset_reset="earliest", value_deserializer=busway.json_deserializer,
                      key_deserializer=busway.string_deserializer) as c:
        r = [c.poll(5) for _ in range(3)]
    assert [(x.key, x.value) for x in r] == [("k", {"a": [1, "é"]}), (None, {"b": 2}), ("k", None)]


def test_msgpack_serializer():
    pytest.importorskip("msgpack")
    assert busway.msgpack_deserializer(busway.msgpack_serializer({"a": b"x"})) == {"a": b"x"} and busway.msgpack_deserializer(None) is None


def test_delayed_message_comes_not_before_its_time(bus, topic, name):
    import time
    at = int(time.time() * 1000) + 300
    with bus.producer() as p:
        p.send(topic, b"later", headers=[busway.deliver_at(at)])
    with bus.queue(name, topic) as q:
        m = q.poll(10)
        assert m.value == b"later" and time.time() * 1000 >= at - 1
        m.ack()


def test_options_with_a_wrong_name_or_value_say_so(bus):
    with pytest.raises(busway.InvalidArgumentError, match="'visible'"):
        bus.producer(acks="some")
    with pytest.raises(TypeError):
        bus.producer(nonsense=1)
    with pytest.raises(busway.InvalidArgumentError):
        bus.consumer(auto_offset_reset="sometimes")
    with pytest.raises(busway.InvalidArgumentError):
        busway.connect("what:ever")


def test_errors_form_a_tree_and_can_be_pickled():
    e = busway.TimedOutError("too long")
    assert isinstance(e, TimeoutError) and isinstance(e, busway.RetriableError) and e.retriable and not e.fatal and e.name == "TIMED_OUT"
    again = pickle.loads(pickle.dumps(e))
    assert type(again) is type(e) and str(again) == str(e) == "TIMED_OUT: too long"
    for number, (name, _text, retriable, fatal) in busway.ERRORS.items():
        if number:
            made = busway.exceptions.error_for(number)
            assert (made.name, made.retriable, made.fatal) == (name, retriable, fatal), name


def test_last_sequence_of_a_named_producer(bus, topic, name):
    with bus.producer(name=name) as p:
        p.send_sync(topic, b"1", partition=0)
        p.send_sync(topic, b"2", partition=0)
        assert p.last_sequence(topic, 0) == (1, 1)
