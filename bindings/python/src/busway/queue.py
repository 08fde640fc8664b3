"""Queues: records handed out one by one to any number of workers."""
from typing import Any, Callable, Iterable, List, Optional, Union

from . import _busway
from .types import Timeout, choose

_ACK, _RELEASE, _REJECT, _RENEW = range(4)
_ISOLATIONS = {"": 0, "read_uncommitted": 1, "read_committed": 2}
_STARTS = {"": 0, "earliest": 1, "latest": 2}

Messages = Union[_busway.Message, Iterable[_busway.Message]]


def _several(messages: Messages) -> List[_busway.Message]:
    return [messages] if isinstance(messages, _busway.Message) else list(messages)


class Queue(_busway.Queue):
    """A worker of a queue group. One thread at a time; wake() from any. From Bus.queue(); iterable, a context manager.

    A worker gets messages under a lease and says of each what became of it: ack (done), release (again, now), reject (to the dead-letter
    topic). What it held when its process ended is given to others at once. An acknowledgement that flush() has answered is on the disk.

    Options count for the whole group; what is not given stays as it is (in brackets: a new group's): lease_ms [30000], max_deliveries [5],
    max_in_flight [2000] a partition, dead_letter_topic [<topic>.dlq], archive (no dead-letter topic), isolation_level ["read_uncommitted"],
    auto_offset_reset ["earliest"]. Of this worker: max_records [500] fetched at a time, ack_records [500] in one request;
    value_deserializer, key_deserializer."""

    def __new__(cls, bus: _busway.Bus, group: str, topics: Union[str, Iterable[str]], *, lease_ms: int = 0, max_deliveries: int = 0,
                max_in_flight: int = 0, dead_letter_topic: Optional[str] = None, archive: bool = False,
                isolation_level: Optional[str] = None, auto_offset_reset: Optional[str] = None, max_records: int = 500,
                ack_records: int = 500, value_deserializer: Optional[Callable[[Any], Any]] = None,
                key_deserializer: Optional[Callable[[Any], Any]] = None) -> "Queue":
        self = super().__new__(cls, bus, group, [topics] if isinstance(topics, str) else list(topics), lease_ms, max_deliveries,
                               max_in_flight, dead_letter_topic, archive, choose("isolation_level", isolation_level or "", _ISOLATIONS),
                               choose("auto_offset_reset", auto_offset_reset or "", _STARTS), max_records, ack_records,
                               value_deserializer, key_deserializer)
        assert isinstance(self, Queue)
        return self

    def poll(self, timeout: Timeout = None) -> Optional[_busway.Message]:
        """The next message; None when none came within `timeout` seconds. WokenError; NotConnectedError, NoCoordinatorError: the daemon is
        away: poll again (everything held was released)."""
        return self._poll(timeout)

    def poll_batch(self, timeout: Timeout = None, max_records: int = 500) -> List[_busway.Message]:
        """Up to max_records messages, at least one unless the time is over."""
        return self._poll_batch(timeout, max_records)

    def ack(self, messages: Messages) -> None:
        """Done. Sent when ack_records have gathered, by the next poll that waits, by flush() and close()."""
        self._settle(_ACK, _several(messages))

    def release(self, messages: Messages) -> None:
        """Somebody else may have it now."""
        self._settle(_RELEASE, _several(messages))

    def reject(self, messages: Messages) -> None:
        """To the dead-letter topic."""
        self._settle(_REJECT, _several(messages))

    def renew(self, messages: Messages) -> None:
        """The lease begins anew. Sent at once."""
        self._settle(_RENEW, _several(messages))

    def ack_sync(self, message: _busway.Message, timeout: Timeout = None) -> None:
        """Acknowledge and flush."""
        self._settle(_ACK, [message])
        self._flush(timeout)

    def flush(self, timeout: Timeout = None) -> None:
        """Wait until everything said was answered: it is on the disk. INVALID_RECORD_STATE: some were refused (the lease had ended)."""
        self._flush(timeout)

    def close(self) -> None:
        """Flush, give back what is held."""
        self._close()

    def __enter__(self) -> "Queue":
        return self

    def __exit__(self, *exc: object) -> None:
        self._close()
