"""Consumers: read records of partitions that the program chose, or of those that its group gives it."""
import weakref
from typing import Any, Callable, Iterable, List, Optional, Sequence, Tuple, Union

from . import _busway
from .exceptions import BuswayError, InvalidArgumentError
from .types import (LIMITS, OFFSET_BEGINNING, OFFSET_END, OFFSET_INVALID, GroupMetadata, Offset, Timeout, TopicPartition, choose,
                    offset_number, parts_in, parts_out)

RESETS = {"none": 0, "error": 0, "earliest": 1, "beginning": 1, "latest": 2, "end": 2}
ISOLATIONS = {"read_uncommitted": 0, "read_committed": 1}
_ASSIGN, _UNASSIGN, _SEEK, _SEEK_TIME, _POSITION, _PAUSE, _RESUME = range(7)

RebalanceCallback = Callable[["Consumer", List[TopicPartition]], object]
CommitCallback = Callable[[Optional[BuswayError], List[TopicPartition]], object]


def _dispatcher(holder: List[Any], callbacks: Sequence[Optional[RebalanceCallback]]) -> Callable[[int, List[Any]], object]:
    def dispatch(event: int, parts: List[Any]) -> None:
        callback = callbacks[event]
        if event == 2 and callback is None:
            callback = callbacks[1]
        consumer = holder[0]() if holder else None
        if callback is not None and consumer is not None:
            callback(consumer, parts_out(parts))

    return dispatch


class Consumer(_busway.Consumer):
    """Reads records. One thread at a time; wake() may be called from any. From Bus.consumer(); iterable, a context manager.

    topics: names (with a group, "^..." is a pattern). With group_id they are subscribed to: members of a group divide the partitions, and
    the group keeps the offsets. Without it all their partitions are assigned, from the beginning with auto_offset_reset="earliest", else
    from the end. No topics: use assign() or subscribe().

    Options, with Kafka's names (defaults in brackets):

    group_id; group_instance_id: a static member; auto_offset_reset ["none"]: "earliest", "latest", "none": where to begin when nothing is
        committed, or the offset is outside the log ("none": NoOffsetError, OffsetOutOfRangeError).
    enable_auto_commit [True], auto_commit_interval_ms [5000], commit_durable [False]: a commit waits for the disk.
    partition_assignment_strategy: "range", "roundrobin", "sticky", "cooperative-sticky"; session_timeout_ms [45000],
        max_poll_interval_ms [300000], rebalance_timeout_ms [60000].
    isolation_level ["read_uncommitted"], read_limit ["visible"]: "durable": only what survives power loss.
    max_partition_fetch_bytes [1 MiB], check_crcs [True], consumer_timeout_ms: iteration ends when nothing came for so long [never].
    on_assign, on_revoke, on_lost: callbacks (consumer, partitions), called inside poll(), unsubscribe() and close(). What they raise is
        raised by that call. on_lost None: on_revoke.
    value_deserializer, key_deserializer: callables that are given bytes or None.
    """

    def __new__(cls, bus: _busway.Bus, topics: Union[str, Iterable[str]] = (), *, group_id: Optional[str] = None,
                group_instance_id: Optional[str] = None, auto_offset_reset: str = "none", enable_auto_commit: bool = True,
                auto_commit_interval_ms: int = 5000, commit_durable: bool = False, partition_assignment_strategy: Optional[str] = None,
                session_timeout_ms: int = 45000, max_poll_interval_ms: int = 300000, rebalance_timeout_ms: int = 60000,
                isolation_level: str = "read_uncommitted", read_limit: str = "visible", max_partition_fetch_bytes: int = 1048576,
                check_crcs: bool = True, consumer_timeout_ms: Optional[int] = None, on_assign: Optional[RebalanceCallback] = None,
                on_revoke: Optional[RebalanceCallback] = None, on_lost: Optional[RebalanceCallback] = None,
                value_deserializer: Optional[Callable[[Any], Any]] = None,
                key_deserializer: Optional[Callable[[Any], Any]] = None) -> "Consumer":
        names = [topics] if isinstance(topics, str) else list(topics)
        holder: List[Any] = []
        callbacks = (on_assign, on_revoke, on_lost)
        dispatch = _dispatcher(holder, callbacks) if any(callbacks) else None
        self = super().__new__(cls, bus, choose("read_limit", read_limit, LIMITS), choose("auto_offset_reset", auto_offset_reset, RESETS),
                               check_crcs, max_partition_fetch_bytes, choose("isolation_level", isolation_level, ISOLATIONS), group_id,
                               group_instance_id, enable_auto_commit, auto_commit_interval_ms, partition_assignment_strategy,
                               session_timeout_ms, max_poll_interval_ms, rebalance_timeout_ms, commit_durable, dispatch,
                               value_deserializer, key_deserializer, -1 if consumer_timeout_ms is None else consumer_timeout_ms)
        assert isinstance(self, Consumer)
        holder.append(weakref.ref(self))
        try:
            if names and group_id is not None:
                self._subscribe(names)
            else:
                start = OFFSET_BEGINNING if RESETS[auto_offset_reset] == 1 else OFFSET_END
                for name in names:
                    self._place(_ASSIGN, name, -1, start)
        except BaseException:
            self._close()
            raise
        return self

    # ---- reading

    def poll(self, timeout: Timeout = None) -> Optional[_busway.Record]:
        """The next record, a copy; None when none came within `timeout` seconds (None: wait for ever).

        Errors: OffsetOutOfRangeError, NoOffsetError (seek goes on), FencedMemberError (the next poll joins anew), CorruptError, WokenError,
        ClosedError, ForkedError, BufferError (views of the batch before are alive)."""
        return self._poll(timeout)

    def poll_batch(self, timeout: Timeout = None) -> Optional[_busway.Batch]:
        """The next batch of records of one partition, as views into the log; None when none came in time. Errors as poll().

        It is good until the next poll, seek, assign or close of this consumer; while memoryviews of it live these raise BufferError."""
        return self._poll_batch(timeout)

    def gather_into(self, out: Any, timeout: Timeout = None) -> int:
        """Fill the rows of `out` with values, batch after batch, copied in C without the GIL: how many rows.

        `out` is a writable C-contiguous buffer (NumPy array): its first dimension is the records, the others one value's bytes. Waits at most
        `timeout` seconds for the first record, never for more. A value of another length ends it; when it is the first, ValueError says
        where it is (poll() gives it)."""
        view = memoryview(out)
        if view.ndim < 1 or view.shape is None:
            raise ValueError("an array with at least one dimension is wanted")
        rows = view.shape[0]
        return self._gather_into(out, view.nbytes // rows, timeout) if rows else 0

    # ---- where

    def assign(self, topic: Union[str, Iterable[Sequence[Any]]], partition: Optional[int] = None, offset: Offset = "beginning") -> None:
        """Add a partition (None: all of the topic), from an offset, "beginning" or "end"; or several TopicPartitions at once.

        UnknownTopicError, UnknownPartitionError, NotPermittedError, InvalidArgumentError (subscribed)."""
        if isinstance(topic, str):
            self._place(_ASSIGN, topic, -1 if partition is None else partition, offset_number(offset))
            return
        for part in parts_in(topic):
            self._place(_ASSIGN, part[0], part[1], offset_number(offset) if part[2] == OFFSET_INVALID else part[2])

    def unassign(self, topic: str, partition: int) -> None:
        """Read it no longer."""
        self._place(_UNASSIGN, topic, partition, 0)

    def seek(self, topic: str, partition: int, offset: Offset) -> None:
        """The next poll of that partition starts at offset (or "beginning", "end")."""
        self._place(_SEEK, topic, partition, offset_number(offset))

    def seek_time(self, topic: str, partition: int, timestamp_ms: int) -> None:
        """To the first record whose timestamp is >= timestamp_ms; to the end when there is none."""
        self._place(_SEEK_TIME, topic, partition, timestamp_ms)

    def position(self, topic: str, partition: int) -> int:
        """The offset of the next record that will be given."""
        return self._place(_POSITION, topic, partition, 0)

    def pause(self, topic: str, partition: int) -> None:
        """It gives nothing and keeps its position."""
        self._place(_PAUSE, topic, partition, 0)

    def resume(self, topic: str, partition: int) -> None:
        self._place(_RESUME, topic, partition, 0)

    def assignment(self) -> List[TopicPartition]:
        """The partitions that are read; offset: the position."""
        return parts_out(self._assignment())

    # ---- groups

    def subscribe(self, topics: Union[str, Iterable[str]]) -> None:
        """Be a member of the group for these topics, instead of those before; takes effect in the next poll. "^..." is a pattern."""
        self._subscribe([topics] if isinstance(topics, str) else list(topics))

    def unsubscribe(self) -> None:
        """Leave the group."""
        self._unsubscribe()

    def subscription(self) -> List[str]:
        """As it was given."""
        return self._subscription()

    def commit(self, offsets: Optional[Iterable[Sequence[Any]]] = None, *, timeout: Timeout = None) -> List[TopicPartition]:
        """Commit offsets (the next to be read), or the positions of all partitions; wait for the outcome, at most `timeout` seconds.

        The outcomes, one by one; what fails is raised, with the outcomes as the exception's attribute `partitions`. When it returns the commit
        survives the death of any process, with commit_durable the loss of power."""
        return parts_out(self._commit(None if offsets is None else parts_in(offsets), timeout))

    def commit_async(self, offsets: Optional[Iterable[Sequence[Any]]] = None, callback: Optional[CommitCallback] = None) -> None:
        """The same without waiting: callback(error or None, partitions) runs inside a later poll(), commit(), unsubscribe() or close()."""
        inner = None
        if callback is not None:
            told: CommitCallback = callback

            def inner(error: Any, parts: Any) -> object:
                return told(error, parts_out(parts))

        self._commit_async(None if offsets is None else parts_in(offsets), inner)

    def committed(self, partitions: Optional[Iterable[Sequence[Any]]] = None, *, timeout: Timeout = None) -> List[TopicPartition]:
        """What the group has committed for these partitions (all that are assigned); offset OFFSET_INVALID: nothing."""
        asked = self._assignment() if partitions is None else None
        parts: List[Any] = parts_in(partitions) if partitions is not None else [part[:5] for part in asked or ()]
        return parts_out(self._committed(parts, timeout))

    def group_metadata(self) -> GroupMetadata:
        """For Producer.send_offsets_to_transaction."""
        return GroupMetadata(*self._group_metadata())

    # ---- state, the end

    def state(self, dir: Optional[str] = None, *, fast: bool = False, map_bytes: int = 0) -> "State":
        """A key-value store and the consumer's offset in one transaction. Before subscribe() or assign(). See State."""
        return State(self, dir, fast=fast, map_bytes=map_bytes)

    def close(self) -> None:
        """Commit the positions (enable_auto_commit), leave the group: within two seconds. BufferError while views are alive."""
        self._close()

    def __enter__(self) -> "Consumer":
        return self

    def __exit__(self, *exc: object) -> None:
        self._close()


class State(_busway.State):
    """Exactly once into your own state: each partition has a store; a handler's changes and the offset are committed together.

    From Consumer.state(), for a consumer with a group_id that is not subscribed or assigned yet. dir: where the stores are (default: in the
    bus's folder); fast: neither is waited for on the disk (exact over the death of every process, not over a power cut)."""

    def __new__(cls, consumer: Consumer, dir: Optional[str] = None, *, fast: bool = False, map_bytes: int = 0) -> "State":
        self = super().__new__(cls, consumer, dir, fast, map_bytes)
        assert isinstance(self, State)
        return self

    def process(self, handler: Callable[[_busway.StateTransaction, _busway.Record], object], timeout: Timeout = None,
                max_records: int = 1000) -> int:
        """Poll for up to max_records records, give each to handler(transaction, record), commit: how many; 0: none came in time.

        When the handler raises its partition is as before, and gives the same records again. It may be called again for records whose
        transaction did not come about: what it does elsewhere is not part of it."""
        if max_records < 1:
            raise InvalidArgumentError("max_records is at least 1")
        return self._process(handler, timeout, max_records)

    def begin(self, timeout: Timeout = None) -> Optional[Tuple[_busway.StateTransaction, _busway.Batch]]:
        """The next batch and a transaction for its partition, to be committed or aborted (a context manager); None: none in time."""
        return self._begin(timeout)

    def read(self, topic: str, partition: int) -> _busway.StateTransaction:
        """A transaction that sees what is committed. NotFoundError: this consumer has no such partition, or has not opened it yet."""
        return self._read(topic, partition)

    def close(self) -> None:
        self._close()

    def __enter__(self) -> "State":
        return self

    def __exit__(self, *exc: object) -> None:
        self._close()
