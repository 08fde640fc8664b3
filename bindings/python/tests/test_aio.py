"""asyncio: driven by descriptors, cancelled safely."""
import asyncio
import threading

import busway
import busway.aio
import pytest
from conftest import fill


@pytest.fixture(params=["direct", "ipc"])
def transport(request):
    return request.param


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 30))


def test_round_trip(url, name, transport):
    async def main():
        async with busway.aio.connect(url, transport=transport) as bus:
            await bus.admin().create_topic(name, 1)
            async with bus.producer() as p, bus.consumer([name], group_id=name, auto_offset_reset="earliest") as c:
                deliveries = await asyncio.gather(*(p.send(name, b"%d" % i) for i in range(500)))
                assert sorted(d.offset for d in deliveries) == list(range(500))
                assert await p.send_many(name, [b"x"] * 10) == 10
                await p.flush()
                got = []
                async for r in c:
                    got.append(r.value)
                    if len(got) == 510:
                        break
                assert len(set(got)) == 501
                assert await c.commit() == [] and (await c.committed())[0].offset == 510
                assert await c.poll(0.05) is None

    run(main())


def test_consumer_wakes_up_when_something_comes(url, name, transport):
    async def main():
        bus = await busway.aio.connect(url, transport=transport)
        await bus.admin().create_topic(name, 1)
        async with bus, bus.producer() as p, bus.consumer([name]) as c:
            for i in range(20):
                waiting = asyncio.ensure_future(c.poll(10))
                await asyncio.sleep(0.005)
                assert not waiting.done()
                await p.send(name, b"%d" % i)
                assert (await waiting).value == b"%d" % i
            batch = asyncio.ensure_future(c.poll_batch(10))
            await asyncio.sleep(0.005)
            await p.send(name, b"b")
            assert bytes((await batch)[0]) == b"b"

    run(main())


def test_cancelled_polls_lose_nothing(url, name, transport):
    async def main():
        async with busway.aio.connect(url, transport=transport) as bus:
            await bus.admin().create_topic(name, 1)
            async with bus.producer() as p, bus.consumer([name], auto_offset_reset="earliest") as c:
                got = []

                async def send():
                    for i in range(300):
                        await p.send(name, b"%d" % i)
                        if i % 7 == 0:
                            await asyncio.sleep(0.001)

                sending = asyncio.ensure_future(send())
                while len(got) < 300:
                    task = asyncio.ensure_future(c.poll())
                    await asyncio.sleep(0 if len(got) % 3 else 0.002)
                    if not task.done():
                        task.cancel()
                    try:
                        got.append((await task).value)
                    except asyncio.CancelledError:
                        pass
                await sending
                assert got == [b"%d" % i for i in range(300)]

    run(main())


def test_cancelled_sends_leave_the_producer_usable(url, name):
    async def main():
        async with busway.aio.connect(url, transport="ipc") as bus:
            await bus.admin().create_topic(name, 1)
            async with bus.producer() as p:
                for i in range(50):
                    task = asyncio.ensure_future(p.send(name, b"%d" % i))
                    await asyncio.sleep(0)
                    task.cancel()
                await p.flush(10)
                assert (await p.send(name, b"last")).error is None

    run(main())


def test_send_tells_errors(url, name, transport):
    async def main():
        async with busway.aio.connect(url, transport=transport) as bus:
            await bus.admin().create_topic(name, 1, {"max.message.bytes": 1000})
            async with bus.producer() as p:
                await p.send(name, b"x")
                with pytest.raises(busway.RecordTooLargeError):
                    await p.send(name, b"x" * 5000)
                with pytest.raises(busway.UnknownPartitionError):
                    await p.send(name, b"x", partition=9)

    run(main())


def test_buffer_memory_makes_send_wait_not_fail(url, name):
    async def main():
        async with busway.aio.connect(url, transport="ipc") as bus:
            await bus.admin().create_topic(name, 1)
            async with bus.producer(buffer_memory=100000) as p:
                await asyncio.gather(*(p.send(name, b"x" * 1000) for _ in range(300)))
            assert (await bus.admin().offsets_range(name, 0)).end == 300

    run(main())


def test_no_thread_a_consumer(url, name):
    async def main():
        async with busway.aio.connect(url) as bus:
            await bus.admin().create_topic(name, 1)
            before = threading.active_count()
            consumers = [bus.consumer([name]) for _ in range(20)]
            waits = [asyncio.ensure_future(c.poll(5)) for c in consumers]
            await asyncio.sleep(0.05)
            assert threading.active_count() == before
            async with bus.producer() as p:
                await p.send(name, b"all")
            assert [r.value for r in await asyncio.gather(*waits)] == [b"all"] * 20
            for c in consumers:
                await c.close()

    run(main())


def test_many_waiting_tasks_share_the_loop_fairly(url, name):
    async def main():
        async with busway.aio.connect(url) as bus:
            await bus.admin().create_topic(name, 1)
            async with bus.producer() as p:
                ticks = 0

                async def tick():
                    nonlocal ticks
                    while True:
                        ticks += 1
                        await asyncio.sleep(0)

                ticker = asyncio.ensure_future(tick())
                for i in range(2000):
                    await p.send(name, b"x")
                ticker.cancel()
                assert ticks >= 10, "sends that need not wait let others run, too"

    run(main())


def test_transaction(url, name):
    async def main():
        async with busway.aio.connect(url) as bus:
            await bus.admin().create_topic(name, 1)
            async with bus.producer(transactional_id=name) as p:
                async with p.transaction():
                    await asyncio.gather(p.send(name, b"1"), p.send(name, b"2"))
                with pytest.raises(ZeroDivisionError):
                    async with p.transaction():
                        await p.send(name, b"never")
                        1 / 0
            async with bus.consumer([name], auto_offset_reset="earliest", isolation_level="read_committed") as c:
                assert [(await c.poll(5)).value, (await c.poll(5)).value, await c.poll(0.1)] == [b"1", b"2", None]

    run(main())


def test_several_loops_one_after_the_other(url, bus, topic):
    fill(bus, topic, 3)
    c = busway.aio.AsyncConsumer(bus, [topic], auto_offset_reset="earliest")
    for i in range(3):
        assert run(c.poll(5)).value == b"%d" % i
    assert run(c.poll(0.01)) is None
    run(c.close())


def test_closed_raises(url, name):
    async def main():
        bus = await busway.aio.connect(url)
        await bus.admin().create_topic(name, 1)
        p, c = bus.producer(), bus.consumer([name])
        await bus.close()
        await bus.close()
        with pytest.raises(busway.ClosedError):
            await p.send(name, b"x")
        with pytest.raises(busway.ClosedError):
            await c.poll()
        await c.close()
        await p.close()

    run(main())
