"""Batches: views with a lifetime, columns, gathering."""
import gc
import json

import busway
import pytest
from conftest import fill


@pytest.fixture
def consumer(bus, topic):
    with bus.consumer([topic], auto_offset_reset="earliest") as c:
        yield c


def test_batch_is_a_sequence_of_views(any_bus, name):
    any_bus.admin().create_topic(name, 1)
    with any_bus.producer() as p:
        p.send_many(name, [(b"k%d" % i, b"v%d" % i, 1000 + i, {"h": b"x"}) for i in range(10)], partition=0)
        p.send(name, None)
    with any_bus.consumer([name], auto_offset_reset="earliest") as c:
        with c.poll_batch(5) as b:
            assert len(b) == 10 and b.topic == name and b.partition == 0 and b.base_offset == 0 and b.last_offset == 9
            assert [bytes(v) for v in b] == [b"v%d" % i for i in range(10)]
            assert b[-1].offset == 9 and b[3].timestamp_ms == 1003 and b[0].headers == [("h", b"x")] and b[2].tobytes() == b"v2"
            assert b[1].key == b"k1" and b[1].value == b"v1" and len(b[1]) == 2 and memoryview(b[1]).readonly
            assert b[4].record().key == b"k4" and [r.value for r in b.records()] == b.values()
            assert list(b.offsets) == list(range(10)) and list(b.timestamps) == list(range(1000, 1010))
            assert b.offsets.format == "q" and b.value_lengths.tolist() == [2] * 10 and b.key_lengths.tolist() == [2] * 10
            assert json.loads(bytes(b[0]).replace(b"v", b"")) == 0
            with pytest.raises(IndexError):
                b[10]
            with pytest.raises(TypeError):
                memoryview(b[0])[0] = 1
        assert b.released and "released" in repr(b)
        null = c.poll_batch(5)
        assert null[0].value is None and null[0].key is None and bytes(null[0]) == b"" and null.value_lengths[0] == -1


def test_columns_live_longer_than_their_batch(bus, topic, consumer):
    fill(bus, topic, 100)
    b = consumer.poll_batch(5)
    offsets, n = b.offsets, len(b)
    b.release()
    assert list(offsets) == list(range(n))
    with pytest.raises(busway.ReleasedError):
        b.timestamps
    del b
    gc.collect()
    assert offsets[n - 1] == n - 1


def test_batch_after_single_records_has_the_rest(bus, topic, consumer):
    fill(bus, topic, 10)
    assert consumer.poll(5).offset == 0
    b = consumer.poll_batch(5)
    assert b.offsets[0] == 1 and len(b) == 9


def test_gather_without_numpy(bus, topic, consumer):
    values = fill(bus, topic, 100)
    b = consumer.poll_batch(5)
    n = len(b)
    assert b.gather() == b"".join(values[:n])
    room = bytearray(10000)
    size = b.gather_into(room)
    assert room[:size] == b"".join(values[:n])
    with pytest.raises(ValueError):
        b.gather_into(bytearray(3))
    with pytest.raises((TypeError, BufferError)):
        b.gather_into(b"immutable")


def test_gather_into_fills_rows_over_batches(bus, topic, consumer):
    values = fill(bus, topic, 1000, size=64)
    room = memoryview(bytearray(64 * 700)).cast("B", (700, 64))
    assert consumer.gather_into(room, 5) == 700
    assert bytes(room) == b"".join(values[:700])
    assert consumer.gather_into(room, 5) == 300
    assert bytes(room)[:64 * 300] == b"".join(values[700:])
    assert consumer.gather_into(room, 0) == 0
    with bus.producer() as p:
        p.send_many(topic, [b"x" * 64, b"odd", b"y" * 64])
    assert consumer.gather_into(room, 5) == 1, "what has another length ends it"
    with pytest.raises(ValueError, match="offset 1001"):
        consumer.gather_into(room, 5)
    assert consumer.poll(5).value == b"odd"
    assert consumer.gather_into(room, 5) == 1


def test_numpy_gets_arrays(bus, topic, consumer):
    np = pytest.importorskip("numpy")
    with bus.producer() as p:
        p.send_many(topic, [np.array([i, i / 2]).tobytes() for i in range(100)])
    b = consumer.poll_batch(5)
    offsets = np.asarray(b.offsets)
    assert offsets.dtype == np.int64 and offsets[5] == 5 and not offsets.flags.owndata
    a = b.to_numpy([("x", "f8"), ("y", "f8")])
    assert len(a) == len(b) and a["x"][7] == 7 and a["y"][7] == 3.5
    assert b.to_numpy().shape == (len(b), 16)
    with pytest.raises(ValueError):
        b.to_numpy("f4")
    view = np.frombuffer(b[3], dtype="f8")
    assert view.tolist() == [3.0, 1.5]
    with pytest.raises(BufferError):
        consumer.poll_batch(0)
    del view
    consumer.seek(topic, 0, "beginning")
    rows = np.empty((100, 2), dtype="f8")
    assert consumer.gather_into(rows, 5) == 100 and rows[9].tolist() == [9.0, 4.5]
    with pytest.raises(busway.ReleasedError):
        b.to_numpy()
    fill(bus, topic, 2)
    fill(bus, topic, 1, size=30)
    b = consumer.poll_batch(5)
    with pytest.raises(ValueError):
        b.to_numpy("f8")
