"""Busway for asyncio.

    async with busway.aio.connect("dir:./x") as bus:
        producer = bus.producer()
        await producer.send("t", b"v")
        async with bus.consumer(["t"], group_id="g", auto_offset_reset="earliest") as consumer:
            async for record in consumer:
                ...

Producers and consumers are driven by their descriptors: no thread waits for them. What C can only wait for (connecting, joining the daemon's
answers in admin calls, commits, transactions) runs in one thread of the process, shared by all loops. A cancelled wait takes nothing with
it: what was not returned comes with the next call; a send that was cancelled may have been sent.
"""
import asyncio
import functools
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, AsyncIterator, Callable, Iterable, List, Optional, Sequence, TypeVar, Union

from . import _busway
from .bus import Bus
from .bus import connect as _connect
from .consumer import Consumer
from .exceptions import QueueFullError
from .producer import Producer
from .types import GroupMetadata, Headers, Offset, Timeout, TopicPartition

__all__ = ["connect", "AsyncBus", "AsyncProducer", "AsyncConsumer", "AsyncTransaction"]

_T = TypeVar("_T")
_FAIR = 128  # so many answers without waiting, then the loop has its turn
_TURNS = 8  # turns of the loop (some 50 us) in which it looks again before it sleeps: a wake-up costs more
_MEMBER_SECONDS = 1.0  # a group's member looks after its lease and its commits that often when nothing comes

_worker: Optional[ThreadPoolExecutor] = None
_worker_lock = threading.Lock()
_worker_pid = 0


async def _in_worker(function: Callable[..., _T], *args: Any, **kwargs: Any) -> _T:
    """In the process's one thread. Cancelling leaves the call there to end by itself."""
    import os

    global _worker, _worker_pid
    with _worker_lock:
        if _worker is None or _worker_pid != os.getpid():
            _worker = ThreadPoolExecutor(1, "busway")
            _worker_pid = os.getpid()
        future = _worker.submit(functools.partial(function, *args, **kwargs))
    return await asyncio.wrap_future(future)


class _Readable:
    """Waits for a descriptor in the running loop. It is registered only while somebody waits, and a little longer."""

    def __init__(self, fileno: int) -> None:
        self._fileno = fileno
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._waiter: "Optional[asyncio.Future[None]]" = None

    def _on_readable(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
        elif self._loop is not None:  # nobody waits: it would be told again and again
            self._loop.remove_reader(self._fileno)
            self._loop = None

    async def wait(self, timeout: Optional[float] = None) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self.stop()
            loop.add_reader(self._fileno, self._on_readable)
            self._loop = loop
        self._waiter = waiter = loop.create_future()
        timer = loop.call_later(timeout, self._on_timer, waiter) if timeout is not None else None
        try:
            await waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    @staticmethod
    def _on_timer(waiter: "asyncio.Future[None]") -> None:
        if not waiter.done():
            waiter.set_result(None)

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def stop(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._fileno)
        self._loop = None


class AsyncProducer:
    """As Producer, for coroutines. From AsyncBus.producer()."""

    def __init__(self, bus: Bus, **options: Any) -> None:
        self.sync = Producer(bus, **options)
        self._fileno = self.sync.fileno()
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._sends = 0

    def _on_readable(self) -> None:
        try:
            while self.sync._poll(0):
                pass
        finally:
            if not self.sync.outstanding:
                self._stop()

    def _stop(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._fileno)
        self._loop = None

    def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._stop()
            loop.add_reader(self._fileno, self._on_readable)
            self._loop = loop

    async def send_nowait(self, topic: str, value: Any = None, key: Any = None, *, partition: Optional[int] = None,
                          timestamp_ms: Optional[int] = None, headers: Optional[Headers] = None) -> "asyncio.Future[_busway.Delivery]":
        """Hand over one record: a future of its Delivery. Waits only while buffer_memory is full."""
        future: "asyncio.Future[_busway.Delivery]" = asyncio.get_running_loop().create_future()
        delivery = self.sync._try_send(topic, value, key, partition, timestamp_ms, headers)
        if delivery is not None:
            future.set_result(delivery)
            return future

        def told(d: _busway.Delivery) -> None:
            if future.done():
                return
            if d.error is not None:
                future.set_exception(d.error)
            else:
                future.set_result(d)

        while True:
            try:
                self.sync._queue_send(topic, value, key, partition=partition, timestamp_ms=timestamp_ms, headers=headers, on_delivery=told,
                                      timeout=0)
                break
            except QueueFullError:
                self._watch()
                await asyncio.sleep(0.001)
        self._watch()
        return future

    async def send(self, topic: str, value: Any = None, key: Any = None, *, partition: Optional[int] = None,
                   timestamp_ms: Optional[int] = None, headers: Optional[Headers] = None) -> _busway.Delivery:
        """Append one record: its Delivery, or the exception. Errors as Producer.send."""
        delivery = self.sync._try_send(topic, value, key, partition, timestamp_ms, headers)
        if delivery is not None:
            self._sends += 1
            if self._sends % _FAIR == 0:
                await asyncio.sleep(0)
            return delivery
        return await (await self.send_nowait(topic, value, key, partition=partition, timestamp_ms=timestamp_ms, headers=headers))

    async def send_many(self, topic: str, records: Iterable[Any], *, partition: Optional[int] = None, timeout: Timeout = None) -> int:
        """As Producer.send_many, in the process's one thread: the iterable is read there."""
        return await _in_worker(self.sync.send_many, topic, records, partition=partition, timeout=timeout)

    async def flush(self, timeout: Timeout = None) -> None:
        """Wait until everything sent has its outcome. asyncio.TimeoutError."""
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        pause = 0.0
        while self.sync.outstanding:
            self._watch()
            if deadline is not None and loop.time() >= deadline:
                raise asyncio.TimeoutError
            await asyncio.sleep(pause)
            pause = min(pause + 0.0005, 0.01)
        self.sync._flush(0)

    def transaction(self, *, timeout: Timeout = None) -> "AsyncTransaction":
        """`async with`: commits at the end, aborts when the block raises."""
        return AsyncTransaction(self.sync, timeout)

    async def close(self, timeout: Timeout = None) -> None:
        """Flush, close."""
        if not self.sync.closed:
            self._stop()
            await asyncio.shield(_in_worker(self.sync._close, timeout))

    async def __aenter__(self) -> "AsyncProducer":
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


class AsyncTransaction:
    """A transaction of a producer with a transactional_id."""

    def __init__(self, producer: Producer, timeout: Timeout) -> None:
        self._inner = producer.transaction(timeout=timeout)

    async def send_offsets(self, consumer: "AsyncConsumer", offsets: Optional[Iterable[Sequence[Any]]] = None) -> None:
        """What the consumer has given so far is committed in its group with the transaction."""
        await _in_worker(self._inner.send_offsets, consumer.sync, offsets)

    async def __aenter__(self) -> "AsyncTransaction":
        await _in_worker(self._inner.begin)
        return self

    async def __aexit__(self, kind: Optional[type], value: Optional[BaseException], trace: object) -> None:
        await asyncio.shield(_in_worker(self._inner.__exit__, kind, value, trace))


class AsyncConsumer:
    """As Consumer, for coroutines: `async for`. One coroutine at a time. From AsyncBus.consumer()."""

    def __init__(self, bus: Bus, topics: Union[str, Iterable[str]] = (), **options: Any) -> None:
        self.sync = Consumer(bus, topics, **options)
        self._readable = _Readable(self.sync.fileno())
        self._member = options.get("group_id") is not None
        self._given = 0

    async def _wait(self, function: Callable[[Optional[float]], Optional[_T]], timeout: Timeout) -> Optional[_T]:
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        turns = 0
        while True:
            result = function(0)
            if result is None and turns < _TURNS and timeout != 0:
                turns += 1
                await asyncio.sleep(0)
                continue
            if result is not None:
                self._given += 1
                if self._given % _FAIR == 0:
                    try:
                        await asyncio.sleep(0)
                    except asyncio.CancelledError:
                        self._kept.append(result)
                        raise
                return result
            left = None if deadline is None else deadline - loop.time()
            if left is not None and left <= 0:
                return None
            if self._member:
                left = _MEMBER_SECONDS if left is None else min(left, _MEMBER_SECONDS)
            await self._readable.wait(left)

    @property
    def _kept(self) -> List[Any]:
        """What a cancelled call had in its hand."""
        kept: List[Any] = self.__dict__.setdefault("_kept_records", [])
        return kept

    async def poll(self, timeout: Timeout = None) -> Optional[_busway.Record]:
        """The next record; None when none came within `timeout` seconds."""
        if self._kept:
            record: _busway.Record = self._kept.pop(0)
            return record
        return await self._wait(self.sync._poll, timeout)

    async def poll_batch(self, timeout: Timeout = None) -> Optional[_busway.Batch]:
        """The next batch as views: good until the next poll."""
        return await self._wait_batch(timeout)

    async def _wait_batch(self, timeout: Timeout) -> Optional[_busway.Batch]:
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        while True:
            self._given += 1
            if self._given % _FAIR == 0:
                await asyncio.sleep(0)
            batch = self.sync._poll_batch(0)
            left = None if deadline is None else deadline - loop.time()
            if batch is not None or (left is not None and left <= 0):
                return batch
            if self._member:
                left = _MEMBER_SECONDS if left is None else min(left, _MEMBER_SECONDS)
            await self._readable.wait(left)

    def __aiter__(self) -> AsyncIterator[_busway.Record]:
        return self

    async def __anext__(self) -> _busway.Record:
        record = await self.poll(None)
        assert record is not None
        return record

    async def commit(self, offsets: Optional[Iterable[Sequence[Any]]] = None, *, timeout: Timeout = None) -> List[TopicPartition]:
        """As Consumer.commit."""
        return await _in_worker(self.sync.commit, offsets, timeout=timeout)

    async def committed(self, partitions: Optional[Iterable[Sequence[Any]]] = None, *, timeout: Timeout = None) -> List[TopicPartition]:
        """As Consumer.committed."""
        return await _in_worker(self.sync.committed, partitions, timeout=timeout)

    async def assign(self, topic: Union[str, Iterable[Sequence[Any]]], partition: Optional[int] = None, offset: Offset = "beginning") -> None:
        await _in_worker(self.sync.assign, topic, partition, offset)

    async def seek(self, topic: str, partition: int, offset: Offset) -> None:
        self._kept.clear()
        await _in_worker(self.sync.seek, topic, partition, offset)

    async def seek_time(self, topic: str, partition: int, timestamp_ms: int) -> None:
        self._kept.clear()
        await _in_worker(self.sync.seek_time, topic, partition, timestamp_ms)

    def subscribe(self, topics: Union[str, Iterable[str]]) -> None:
        self._member = True
        self.sync.subscribe(topics)

    def assignment(self) -> List[TopicPartition]:
        return self.sync.assignment()

    def group_metadata(self) -> GroupMetadata:
        return self.sync.group_metadata()

    async def close(self) -> None:
        """Commit the positions, leave the group."""
        if not self.sync.closed:
            self._readable.stop()
            await asyncio.shield(_in_worker(self.sync._close))

    async def __aenter__(self) -> "AsyncConsumer":
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


class AsyncAdmin:
    """Each method of Admin as a coroutine."""

    def __init__(self, bus: Bus) -> None:
        self._admin = bus.admin()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._admin, name)
        return functools.partial(_in_worker, method)


class AsyncBus:
    """As Bus, for coroutines. From connect(): `async with`, or await it."""

    def __init__(self, bus: Bus) -> None:
        self.sync = bus

    def producer(self, **options: Any) -> AsyncProducer:
        return AsyncProducer(self.sync, **options)

    def consumer(self, topics: Union[str, Iterable[str]] = (), **options: Any) -> AsyncConsumer:
        return AsyncConsumer(self.sync, topics, **options)

    def admin(self) -> AsyncAdmin:
        return AsyncAdmin(self.sync)

    async def close(self, timeout: Timeout = None) -> None:
        """What belongs to it, too."""
        await asyncio.shield(_in_worker(self.sync._close, timeout))

    async def __aenter__(self) -> "AsyncBus":
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


class connect:  # noqa: N801: it is used as a function
    """`async with busway.aio.connect(url) as bus`, or `bus = await busway.aio.connect(url)`. Arguments as busway.connect."""

    def __init__(self, url: Optional[str] = None, **options: Any) -> None:
        self._url, self._options = url, options
        self._bus: Optional[AsyncBus] = None

    async def _open(self) -> AsyncBus:
        return AsyncBus(await _in_worker(_connect, self._url, **self._options))

    def __await__(self) -> Any:
        return self._open().__await__()

    async def __aenter__(self) -> AsyncBus:
        self._bus = await self._open()
        return self._bus

    async def __aexit__(self, *exc: object) -> None:
        if self._bus is not None:
            await self._bus.close()
