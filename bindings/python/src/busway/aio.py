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
import contextvars
import functools
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any, AsyncIterator, Awaitable, Callable, Generator, Iterable, List, Optional, Sequence, TypeVar, Union, cast

from . import _busway
from .bus import Bus
from .bus import connect as _connect
from .consumer import Consumer
from .exceptions import ClosedError, ConcurrentUseError, QueueFullError
from .producer import Producer
from .types import GroupMetadata, Headers, Offset, Timeout, TopicPartition

__all__ = ["connect", "AsyncBus", "AsyncProducer", "AsyncConsumer", "AsyncTransaction"]

_T = TypeVar("_T")
_FAIR = 128  # so many answers without waiting, then the loop has its turn
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


class _Turn:
    """What a coroutine awaits until a consumer has something: a future that one coroutine at a time uses again and again.

    When the consumer's descriptor is readable the loop's callback polls it, and goes on with the task at once if there is something: one turn
    of the loop from the wake-up to the record, where a Future takes two. The descriptor stays registered while it is waited for. To asyncio
    this is a future like any other (it has _asyncio_future_blocking); add_done_callback and cancel are what a Task calls."""

    _asyncio_future_blocking = False

    def __init__(self, fileno: int) -> None:
        self._fileno = fileno
        self._loop: Optional[asyncio.AbstractEventLoop] = None  # where the descriptor is registered
        self._waits = False
        self._used = False  # by a coroutine that has not taken its result yet
        self._function: Optional[Callable[[Optional[float]], Any]] = None
        self._callback: "Optional[Callable[[Any], object]]" = None
        self._context: Optional[contextvars.Context] = None
        self._value: Any = None
        self._error: Optional[BaseException] = None
        self._begun = 0.0
        self._ticks: Optional[asyncio.TimerHandle] = None

    # ---- what wakes it up

    def _on_readable(self) -> None:
        if not self._waits:  # it would be told again and again
            assert self._loop is not None
            self._loop.remove_reader(self._fileno)
            self._loop = None
        elif self._context is not None:
            self._context.run(self._look)

    def _look(self) -> None:
        assert self._function is not None
        try:
            self._value = self._function(0)
        except Exception as error:
            self._error = error
        else:
            if self._value is None:
                return
        self._finish()

    def _finish(self) -> None:
        """The task goes on, inside this call: only from a callback of the loop."""
        callback, self._callback = self._callback, None
        self._waits = False
        if callback is not None:
            callback(self)

    def _on_timer(self) -> None:
        if self._waits and self._context is not None:
            self._context.run(self._finish)

    def _tick(self) -> None:
        loop, self._ticks = self._loop, None
        if self._waits and loop is not None:
            if loop.time() - self._begun >= _MEMBER_SECONDS and self._context is not None:
                self._context.run(self._look)
            if self._waits:
                self._keep_ticking(loop)

    def _keep_ticking(self, loop: asyncio.AbstractEventLoop) -> None:
        self._begun = loop.time()
        if self._ticks is None:
            self._ticks = loop.call_later(_MEMBER_SECONDS, self._tick)

    # ---- what a task sees of it

    def get_loop(self) -> asyncio.AbstractEventLoop:
        assert self._loop is not None
        return self._loop

    def done(self) -> bool:
        return not self._waits

    def cancelled(self) -> bool:
        return isinstance(self._error, asyncio.CancelledError)

    def add_done_callback(self, callback: Callable[[Any], object], *, context: Optional[contextvars.Context] = None) -> None:
        self._callback = callback
        self._context = contextvars.copy_context() if context is None else context
        if not self._waits:
            self._later()

    def remove_done_callback(self, callback: Callable[[Any], object]) -> int:
        if self._callback is not callback:
            return 0
        self._callback = None
        return 1

    def _later(self) -> None:
        """The task goes on in the loop's next turn."""
        callback, self._callback = self._callback, None
        if callback is not None and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon(callback, self, context=self._context)

    def cancel(self, msg: Any = None) -> bool:
        if not self._waits:
            return False
        self._end(asyncio.CancelledError() if msg is None else asyncio.CancelledError(msg))
        return True

    def _end(self, error: BaseException) -> None:
        if self._waits:
            self._waits = False
            self._error = error
            self._later()

    def result(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._value

    def __await__(self) -> Generator[Any, None, Any]:
        if self._waits:
            self._asyncio_future_blocking = True
            yield self
        return self.result()

    __iter__ = __await__

    # ---- waiting

    async def wait(self, function: Callable[[Optional[float]], Optional[_T]], timeout: Optional[float], member: bool) -> Optional[_T]:
        """What function(0) gives as soon as it is not None; None after `timeout` seconds."""
        while self._used:
            if self._waits:
                raise ConcurrentUseError("another coroutine waits for this consumer: one at a time may use it")
            await asyncio.sleep(0)  # it was cancelled, and is about to learn of it
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self.stop()
            loop.add_reader(self._fileno, self._on_readable)
            self._loop = loop
        if member:
            self._keep_ticking(loop)
        timer = loop.call_later(timeout, self._on_timer) if timeout is not None else None
        self._function = function
        self._used = self._waits = True
        try:
            result: Optional[_T] = await self
            return result
        finally:
            self._used = self._waits = False
            self._function = self._callback = self._context = self._value = self._error = None
            if timer is not None:
                timer.cancel()

    def stop(self) -> None:
        """Before the descriptor is closed; who waits gets ClosedError."""
        self._end(ClosedError("the consumer was closed"))
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._fileno)
            if self._ticks is not None:
                self._ticks.cancel()
        self._loop = self._ticks = None


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
        self._turn = _Turn(self.sync.fileno())
        self._member = options.get("group_id") is not None
        self._given = 0
        self._kept: List[_busway.Record] = []  # what a cancelled call had in its hand
        self._poll_now: Callable[[Timeout], Optional[_busway.Record]] = self.sync._poll
        self._poll_batch_now: Callable[[Timeout], Optional[_busway.Batch]] = self.sync._poll_batch

    async def poll(self, timeout: Timeout = None) -> Optional[_busway.Record]:
        """The next record; None when none came within `timeout` seconds."""
        if self._kept:
            return self._kept.pop(0)
        record = self._poll_now(0)
        if record is None:
            return await self._turn.wait(self._poll_now, timeout, self._member) if timeout != 0 else None
        self._given += 1
        if self._given >= _FAIR:
            self._given = 0
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                self._kept.append(record)
                raise
        return record

    async def poll_batch(self, timeout: Timeout = None) -> Optional[_busway.Batch]:
        """The next batch as views: good until the next poll."""
        self._given += 1
        if self._given >= _FAIR:
            self._given = 0
            await asyncio.sleep(0)
        batch = self._poll_batch_now(0)
        if batch is None and timeout != 0:
            return await self._turn.wait(self._poll_batch_now, timeout, self._member)
        return batch

    def __aiter__(self) -> AsyncIterator[_busway.Record]:
        return self

    def __anext__(self) -> Awaitable[_busway.Record]:
        return cast(Awaitable[_busway.Record], self.poll(None))

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
            self._turn.stop()
            await asyncio.shield(_in_worker(self.sync._close))

    def _stop(self) -> None:
        self._turn.stop()

    def __del__(self) -> None:
        turn = self.__dict__.get("_turn")
        if turn is not None:
            turn.stop()

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
        self._handles: "weakref.WeakSet[Union[AsyncProducer, AsyncConsumer]]" = weakref.WeakSet()

    def producer(self, **options: Any) -> AsyncProducer:
        producer = AsyncProducer(self.sync, **options)
        self._handles.add(producer)
        return producer

    def consumer(self, topics: Union[str, Iterable[str]] = (), **options: Any) -> AsyncConsumer:
        consumer = AsyncConsumer(self.sync, topics, **options)
        self._handles.add(consumer)
        return consumer

    def admin(self) -> AsyncAdmin:
        return AsyncAdmin(self.sync)

    async def close(self, timeout: Timeout = None) -> None:
        """What belongs to it, too; who waits for a consumer gets ClosedError."""
        for handle in list(self._handles):
            handle._stop()
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
