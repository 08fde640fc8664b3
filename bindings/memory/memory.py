"""memory.py: does the memory of a Python program grow while records go through it? See memory.c.

    python3 memory.py URL RECORDS

Each thousand is sent (send_many, send, send_batch, send_sync, reserve) and read (views, record objects, values) in another way."""
import asyncio
import gc
import sys

import busway

AT_ONCE, SIZE, PATIENCE, OPEN_EACH = 1000, 100, 60.0, 100
VALUE, HEADERS = b"v" * SIZE, [("h", b"v")]
RECORDS = [(b"key", VALUE, None, HEADERS)] * AT_ONCE


def anon_kib():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon:"))


def send_some(producer, way):
    told = []
    if way == 0:
        producer.send_many("t", RECORDS, partition=0, timeout=PATIENCE)
    elif way == 1:
        for _ in range(AT_ONCE):
            producer.send("t", VALUE, b"key", partition=0, headers=HEADERS)
    elif way == 2:
        producer.send_batch("t", RECORDS, partition=0, timeout=PATIENCE)
    elif way == 3:
        for _ in range(AT_ONCE):
            producer.send("t", VALUE, b"key", partition=0, headers=HEADERS, on_delivery=told.append)
        producer.flush(PATIENCE)
        assert len(told) == AT_ONCE and not any(d.error for d in told)
    else:
        for _ in range(AT_ONCE):
            with producer.reserve("t", 0, SIZE, key=b"key", headers=HEADERS) as room, memoryview(room) as m:
                m[:] = VALUE


def read_some(consumer, way):
    got = 0
    while got < AT_ONCE:
        if way == 1:
            record = consumer.poll(PATIENCE)
            assert record.value == VALUE and record.headers == HEADERS
            got += 1
            continue
        batch = consumer.poll_batch(PATIENCE)
        got += len(batch)
        if way == 0:
            for view in batch:
                assert len(view.value) == SIZE and view.headers == HEADERS
            assert len(batch.offsets) == len(batch.timestamps) == len(batch)
        elif way == 2:
            assert all(len(v) == SIZE for v in batch.values())
        else:
            assert all(r.key == b"key" for r in batch.records())
        batch.release()


def open_and_close(bus):
    """What is opened must be freed with it; so must exceptions."""
    with bus.producer(), bus.consumer() as consumer:
        consumer.assign("t", 0, "end")
        bus.stats()
        bus.admin().describe_topics()
        try:
            consumer.assign("no such topic", 0)
        except busway.BuswayError:
            pass
    asyncio.run(asyncio.sleep(0))


def main(url, total):
    tenth, said, n, turn = total // 10, 0, 0, 0
    with busway.connect(url) as bus:
        bus.admin().create_topic("t", 1, {"retention.bytes": 67108864, "segment.bytes": 16777216})
        with bus.producer() as producer, bus.consumer() as consumer:
            consumer.assign("t", 0, 0)
            while n < total:
                send_some(producer, turn % 5)
                read_some(consumer, turn % 4)
                if turn % OPEN_EACH == 0:
                    open_and_close(bus)
                n, turn = n + AT_ONCE, turn + 1
                if n // tenth != said:
                    said = n // tenth
                    gc.collect()
                    print("at", n, "anon", anon_kib(), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
