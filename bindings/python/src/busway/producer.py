"""Producers: append records to topics."""
from typing import Any, Callable, Iterable, List, Optional, Sequence, Tuple

from . import _busway
from .exceptions import BuswayError
from .types import GroupMetadata, Headers, Timeout, choose, parts_in

ACKS = {"none": 0, "0": 0, "visible": 1, "1": 1, "durable": 2, "all": 2, "-1": 2, "replicated": 3}
CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}


class Producer(_busway.Producer):
    """Appends records. Any thread may use it. From Bus.producer(); a context manager, which flushes and closes.

    Options, with Kafka's names (defaults in brackets):

    acks ["visible"]: what an acknowledgement waits for. "none": handed over; "visible" (Kafka's 1): every reader sees it, survives the
        death of any process; "durable" ("all"): on the disk, survives power loss; "replicated": on as many linked peers as the topic wants.
    batch_size [16384]: bytes of a batch; linger_ms [0]: how long a batch may wait to be filled; buffer_memory [32 MiB]: bytes of records
        that were not acknowledged yet; delivery_timeout_ms [120000].
    compression_type ["none"]: gzip, snappy, lz4, zstd; the topic's own goes before it.
    name: a stable name, for last_sequence(). enable_idempotence [True].
    transactional_id: for transactions; transaction_timeout_ms [60000].
    value_serializer, key_serializer: callables that make bytes of what send() is given (busway.json_serializer, ...).

    Errors when it is opened: InvalidArgumentError, NotConnectedError.
    """

    def __new__(cls, bus: _busway.Bus, *, acks: str = "visible", batch_size: int = 16384, linger_ms: int = 0,
                buffer_memory: int = 33554432, delivery_timeout_ms: int = 120000, compression_type: Optional[str] = "none",
                name: Optional[str] = None, enable_idempotence: bool = True, transactional_id: Optional[str] = None,
                transaction_timeout_ms: int = 60000, value_serializer: Optional[Callable[[Any], bytes]] = None,
                key_serializer: Optional[Callable[[Any], bytes]] = None) -> "Producer":
        self = super().__new__(cls, bus, choose("acks", str(acks), ACKS), batch_size, linger_ms, buffer_memory, delivery_timeout_ms,
                               choose("compression_type", compression_type or "none", CODECS), name, enable_idempotence, transactional_id,
                               transaction_timeout_ms, value_serializer, key_serializer)
        assert isinstance(self, Producer)
        self._initialised = False
        return self

    _initialised: bool

    # send and send_sync are the extension's: their documentation is here.
    #
    # send(topic, value=None, key=None, *, partition=None, timestamp_ms=None, headers=None, on_delivery=None, timeout=None)
    #     Append one record. On the direct path it is in the log when this returns; elsewhere it is queued, and batched. A failure that comes
    #     later is given to on_delivery (called by poll(), flush() and close() with a Delivery), or raised by the next flush() or close().
    #     timeout: seconds to wait for buffer_memory. Errors at once: QueueFullError, RecordTooLargeError, UnknownTopicError,
    #     UnknownPartitionError, NotPermittedError, ClosedError, ForkedError.
    # send_sync(topic, value=None, key=None, *, partition=None, timestamp_ms=None, headers=None, timeout=None)
    #     Append one record and wait for its outcome: a Delivery, or the exception.

    def send_many(self, topic: str, records: Iterable[Any], *, partition: Optional[int] = None, timeout: Timeout = None) -> int:
        """Append all of an iterable and wait for the outcome: how many (all). In as few batches as batch_size allows.

        An item is a value, or a tuple (key, value), (key, value, timestamp_ms) or (key, value, timestamp_ms, headers). timeout: seconds
        for all of it. An exception ends it and has the number of records that were appended before as its attribute `sent`."""
        result: int = self._send_many(topic, records, partition, timeout, False)
        return result

    def send_batch(self, topic: str, records: Iterable[Any], *, partition: Optional[int] = None,
                   timeout: Timeout = None) -> _busway.Delivery:
        """Append records (as for send_many) as one batch, whole or not at all, to one partition: offset is the first one's.

        RecordTooLargeError: the batch exceeds the topic's max.message.bytes."""
        result: _busway.Delivery = self._send_many(topic, records, partition, timeout, True)
        return result

    def reserve(self, topic: str, partition: int, size: int, *, key: Any = None, timestamp_ms: Optional[int] = None,
                headers: Optional[Headers] = None, timeout: Timeout = 10.0) -> _busway.Reservation:
        """Room for a value of up to `size` bytes in the log, to be written in place. It holds the partition's lock: end it soon, in the
        same thread.

            with producer.reserve("frames", 0, 4096) as room, memoryview(room) as m:
                m[:5] = b"hello"
        """
        return self._reserve(topic, partition, size, key, timestamp_ms, headers, timeout)

    def poll(self, timeout: Timeout = 0) -> int:
        """Run delivery callbacks in this thread; wait at most `timeout` seconds for the first. How many ran."""
        return self._poll(timeout)

    def flush(self, timeout: Timeout = None) -> None:
        """Wait until everything sent has its outcome, and run the callbacks. Raises the first failure of a record that has none.

        TimedOutError: some have no outcome yet."""
        self._flush(timeout)

    def close(self, timeout: Timeout = None) -> None:
        """Flush (for at most `timeout` seconds), then close. What could not be delivered in time fails with TimedOutError."""
        self._close(timeout)

    def last_sequence(self, topic: str, partition: int) -> Tuple[int, int]:
        """Of a producer with a name: (sequence, offset) of the last record in the log that was sent under it, by this or an earlier run;
        -1, -1: there is none. UNKNOWN_PRODUCER_ID: the name was never used."""
        return self._last_sequence(topic, partition)

    # ---- transactions

    def init_transactions(self, timeout: Timeout = None) -> None:
        """Once, before the first transaction: ends what an earlier run of the transactional_id left, and fences it."""
        self._transaction("init", timeout, None, None)
        self._initialised = True

    def begin_transaction(self) -> None:
        """Local. InvalidTransactionStateError: not initialised, or one is open."""
        self._transaction("begin", 0, None, None)

    def commit_transaction(self, timeout: Timeout = None) -> None:
        """Send what is buffered, wait for every outcome, commit. TransactionAbortableError: abort. TimedOutError: call it again."""
        self._transaction("commit", timeout, None, None)

    def abort_transaction(self, timeout: Timeout = None) -> None:
        """Nothing of it will be seen. TimedOutError: call it again. ProducerFencedError: close the producer."""
        self._transaction("abort", timeout, None, None)

    def send_offsets_to_transaction(self, offsets: Iterable[Sequence[Any]], group_metadata: GroupMetadata, timeout: Timeout = None) -> None:
        """Each partition's offset (the next to be read) becomes the group's committed offset with the commit: all of them or none."""
        g = GroupMetadata(*group_metadata)
        self._transaction("offsets", timeout, (g.group_id, g.member_id, g.group_instance_id, g.member_epoch), parts_in(offsets))

    def transaction(self, *, timeout: Timeout = None) -> "Transaction":
        """A transaction as a context manager: commits at the end, aborts when the block raises.

            with producer.transaction() as t:
                producer.send("out", b"...")
                t.send_offsets(consumer)
        """
        return Transaction(self, timeout)

    def __enter__(self) -> "Producer":
        return self

    def __exit__(self, *exc: object) -> None:
        self._close(None)


class Transaction:
    """One transaction of a producer with a transactional_id. From Producer.transaction()."""

    def __init__(self, producer: Producer, timeout: Timeout = None) -> None:
        self._producer = producer
        self._timeout = timeout
        self._open = False

    def begin(self) -> None:
        """Done by `with`. Initialises the producer's transactions when nobody did."""
        if not self._producer._initialised:
            self._producer.init_transactions(self._timeout)
        self._producer.begin_transaction()
        self._open = True

    def send_offsets(self, consumer: Any, offsets: Optional[Iterable[Sequence[Any]]] = None) -> None:
        """What `consumer` has given so far (its positions), or `offsets`, is committed in its group with the transaction."""
        parts: List[Any] = list(consumer.assignment() if offsets is None else offsets)
        self._producer.send_offsets_to_transaction([p for p in parts if p[2] >= 0], consumer.group_metadata(), self._timeout)

    def commit(self) -> None:
        """Errors as Producer.commit_transaction."""
        self._producer.commit_transaction(self._timeout)
        self._open = False

    def abort(self) -> None:
        """Nothing of it will be seen."""
        self._open = False
        self._producer.abort_transaction(self._timeout)

    def __enter__(self) -> "Transaction":
        self.begin()
        return self

    def __exit__(self, kind: Optional[type], value: Optional[BaseException], trace: object) -> None:
        if not self._open:
            return
        if kind is None:
            try:
                self.commit()
            except BuswayError as e:
                if not e.retriable and not e.fatal:
                    self.abort()
                raise
            return
        try:
            self.abort()
        except BuswayError as e:  # what the block raised is the news
            if value is not None:
                value.__context__ = e
