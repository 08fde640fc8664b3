"""Busway: a local event bus. Kafka's model (topics, partitions, offsets, groups, transactions) at shared-memory speed, on disk.

    import busway
    with busway.connect("dir:./x") as bus:
        p = bus.producer(); p.send("t", b"v", key=b"k"); p.flush()
        c = bus.consumer(["t"], group_id="g", auto_offset_reset="earliest")
        r = next(iter(c)); print(r.topic, r.value, r.key)

Times to wait are seconds (None: for ever); options that bear Kafka's names have Kafka's units (linger_ms). Every wait ends by Ctrl-C.
asyncio: busway.aio.
"""
from ._busway import VERSION as __version__
from ._busway import Batch, Delivery, Message, Record, Reservation, StateTransaction, View
from .admin import QUOTA_DEFAULT, Admin
from .bus import Bus, connect
from .consumer import Consumer, State
from .exceptions import (
    ERRORS,
    BusyError,
    BuswayError,
    ClosedError,
    ConcurrentUseError,
    CorruptError,
    FatalError,
    FencedMemberError,
    FinalError,
    ForkedError,
    InvalidArgumentError,
    InvalidTransactionStateError,
    NoCoordinatorError,
    NoOffsetError,
    NotConnectedError,
    NotFoundError,
    NotPermittedError,
    OffsetOutOfRangeError,
    ProducerFencedError,
    QueueFullError,
    RecordTooLargeError,
    ReleasedError,
    RetriableError,
    TimedOutError,
    TopicExistsError,
    TransactionAbortableError,
    UnknownPartitionError,
    UnknownTopicError,
    UnsupportedError,
    WokenError,
)
from .producer import Producer, Transaction
from .queue import Queue
from .serializers import json_deserializer, json_serializer, msgpack_deserializer, msgpack_serializer, string_deserializer, string_serializer
from .types import (
    OFFSET_BEGINNING,
    OFFSET_END,
    OFFSET_INVALID,
    Finding,
    GroupMetadata,
    OffsetRange,
    TopicPartition,
    VerifyResult,
    deliver_at,
    dump,
    verify,
)

__all__ = [
    "connect", "Bus", "Producer", "Consumer", "Transaction", "Queue", "State", "StateTransaction", "Admin", "Record", "Message", "Batch",
    "View", "Delivery", "Reservation", "TopicPartition", "GroupMetadata", "OffsetRange", "Finding", "VerifyResult", "verify", "dump",
    "deliver_at", "OFFSET_BEGINNING", "OFFSET_END", "OFFSET_INVALID", "QUOTA_DEFAULT", "json_serializer", "json_deserializer",
    "msgpack_serializer", "msgpack_deserializer", "string_serializer", "string_deserializer", "ERRORS", "BuswayError", "RetriableError",
    "FinalError", "FatalError", "TimedOutError", "QueueFullError", "BusyError", "WokenError", "NoCoordinatorError", "NotConnectedError",
    "InvalidArgumentError", "NotPermittedError", "UnknownTopicError", "UnknownPartitionError", "NotFoundError", "TopicExistsError",
    "RecordTooLargeError", "OffsetOutOfRangeError", "NoOffsetError", "CorruptError", "UnsupportedError", "FencedMemberError",
    "TransactionAbortableError", "InvalidTransactionStateError", "ReleasedError", "ConcurrentUseError", "ClosedError", "ForkedError",
    "ProducerFencedError", "__version__",
]
