"""What can go wrong, as a small tree.

    BuswayError                 code, name, retriable, fatal; str() says what happened, where, and what to do
      RetriableError            the same call may succeed later without any change by the caller
        TimedOutError           (a TimeoutError)
        QueueFullError          the producer's buffer is full: poll, or wait
        BusyError, WokenError
        NoCoordinatorError, NotConnectedError    (ConnectionErrors)
      FinalError                it will fail again as it stands
        InvalidArgumentError    (a ValueError)
        NotPermittedError       (a PermissionError)
        UnknownTopicError, UnknownPartitionError, NotFoundError    (LookupErrors)
        TopicExistsError, RecordTooLargeError, OffsetOutOfRangeError, NoOffsetError, CorruptError, UnsupportedError
        FencedMemberError, TransactionAbortableError, InvalidTransactionStateError
        ReleasedError           a view, batch, reservation or transaction was used after its end
        ConcurrentUseError      a second thread inside a consumer, queue or state
        FatalError              the handle can only be closed
          ClosedError, ForkedError, ProducerFencedError
"""
from typing import Any, Dict, Optional, Tuple, Type

from . import _busway

__all__ = [
    "BuswayError", "RetriableError", "FinalError", "FatalError", "TimedOutError", "QueueFullError", "BusyError", "WokenError",
    "NoCoordinatorError", "NotConnectedError", "InvalidArgumentError", "NotPermittedError", "UnknownTopicError", "UnknownPartitionError",
    "NotFoundError", "TopicExistsError", "RecordTooLargeError", "OffsetOutOfRangeError", "NoOffsetError", "CorruptError",
    "UnsupportedError", "FencedMemberError", "TransactionAbortableError", "InvalidTransactionStateError", "ReleasedError",
    "ConcurrentUseError", "ClosedError", "ForkedError", "ProducerFencedError", "ERRORS",
]

#: number: (name, text, retriable, fatal), of the library that is loaded
ERRORS: Dict[int, Tuple[str, str, bool, bool]] = _busway.ERRORS
_NUMBERS: Dict[str, int] = {name: number for number, (name, _, _, _) in ERRORS.items()}


class BuswayError(Exception):
    """An outcome of libbusway. `code` is its number, `name` its name ("DISK_FULL")."""

    code: int
    #: records of send_many that were appended before this
    sent: Optional[int] = None
    #: what a poll's error is about, where it is about a partition
    topic: Optional[str] = None
    partition: Optional[int] = None

    def __init__(self, message: str = "", code: Optional[int] = None) -> None:
        super().__init__(message)
        self.code = _DEFAULT_CODES.get(type(self), _NUMBERS["INTERNAL"]) if code is None else code

    @property
    def name(self) -> str:
        return ERRORS[self.code][0] if self.code in ERRORS else "UNKNOWN"

    @property
    def text(self) -> str:
        """The one-line text of the code."""
        return ERRORS[self.code][1] if self.code in ERRORS else ""

    @property
    def retriable(self) -> bool:
        return isinstance(self, RetriableError)

    @property
    def fatal(self) -> bool:
        return isinstance(self, FatalError)

    def __str__(self) -> str:
        return f"{self.name}: {self.args[0]}" if self.args and self.args[0] else self.name

    def __reduce__(self) -> Tuple[Any, ...]:
        return type(self), (self.args[0] if self.args else "", self.code), self.__dict__


class RetriableError(BuswayError):
    """The same call may succeed later without any change by the caller."""


class FinalError(BuswayError):
    """It will fail again as it stands."""


class FatalError(FinalError):
    """The handle can only be closed."""


class TimedOutError(RetriableError, TimeoutError):
    """The time was over."""


class QueueFullError(RetriableError):
    """The producer's buffer is full: poll() or wait."""


class BusyError(RetriableError):
    """In use by somebody else at the moment."""


class WokenError(RetriableError):
    """Another thread called wake()."""


class NoCoordinatorError(RetriableError, ConnectionError):
    """The daemon does not answer."""


class NotConnectedError(RetriableError, ConnectionError):
    """The connection was lost; it comes back by itself when the daemon does."""


class InvalidArgumentError(FinalError, ValueError):
    """An argument, or a call at the wrong time."""


class NotPermittedError(FinalError, PermissionError):
    """This user may not."""


class UnknownTopicError(FinalError, LookupError):
    """There is no such topic."""


class UnknownPartitionError(FinalError, LookupError):
    """The topic has no such partition."""


class NotFoundError(FinalError, LookupError):
    """There is nothing of that name."""


class TopicExistsError(FinalError):
    """The topic is there already."""


class RecordTooLargeError(FinalError):
    """Over the topic's max.message.bytes."""


class OffsetOutOfRangeError(FinalError):
    """The log does not have that offset (any more); the message says the range. The partition is paused until a seek."""


class NoOffsetError(FinalError):
    """Nothing is committed, and auto_offset_reset is "none"."""


class CorruptError(FinalError):
    """What was read is not what was written."""


class UnsupportedError(FinalError):
    """Not here, or not by this kind of bus."""


class FencedMemberError(FinalError):
    """The group went on without this member; the next poll joins anew."""


class TransactionAbortableError(FinalError):
    """The transaction can only be aborted; then the next one may begin."""


class InvalidTransactionStateError(FinalError):
    """Not possible in this state of the transaction."""


class ReleasedError(FinalError, ValueError):
    """A view, a batch, a reservation or a transaction was used after its end."""


class ConcurrentUseError(FinalError, RuntimeError):
    """Another thread is inside: consumers, queues and states are used by one thread at a time."""


class ClosedError(FatalError, ValueError):
    """The handle is closed."""


class ForkedError(FatalError, RuntimeError):
    """The handle belongs to the parent process: open another one after fork."""


class ProducerFencedError(FatalError):
    """A newer producer uses the transactional id: close this one."""


_CLASSES: Dict[str, Type[BuswayError]] = {
    "TIMED_OUT": TimedOutError, "QUEUE_FULL": QueueFullError, "BUSY": BusyError, "WOKEN": WokenError,
    "NO_COORDINATOR": NoCoordinatorError, "NOT_CONNECTED": NotConnectedError, "INVALID_ARGUMENT": InvalidArgumentError,
    "NOT_PERMITTED": NotPermittedError, "UNKNOWN_TOPIC": UnknownTopicError, "UNKNOWN_PARTITION": UnknownPartitionError,
    "NOT_FOUND": NotFoundError, "TOPIC_EXISTS": TopicExistsError, "RECORD_TOO_LARGE": RecordTooLargeError,
    "OFFSET_OUT_OF_RANGE": OffsetOutOfRangeError, "NO_OFFSET": NoOffsetError, "CORRUPT": CorruptError, "UNSUPPORTED": UnsupportedError,
    "FENCED_MEMBER_EPOCH": FencedMemberError, "UNKNOWN_MEMBER_ID": FencedMemberError,
    "TRANSACTION_ABORTABLE": TransactionAbortableError, "INVALID_TXN_STATE": InvalidTransactionStateError, "CLOSED": ClosedError,
    "FORKED": ForkedError, "PRODUCER_FENCED": ProducerFencedError,
}
_DEFAULT_CODES: Dict[Type[BuswayError], int] = {cls: _NUMBERS[name] for name, cls in reversed(list(_CLASSES.items()))}
_DEFAULT_CODES[ReleasedError] = _NUMBERS["CLOSED"]
_DEFAULT_CODES[ConcurrentUseError] = _NUMBERS["BUSY"]


def error_for(code: int, message: str = "") -> Optional[BuswayError]:
    """The exception for a number; None for 0."""
    if code == 0:
        return None
    name, text, retriable, fatal = ERRORS.get(code, ("UNKNOWN", f"error {code}", False, False))
    cls = _CLASSES.get(name) or (FatalError if fatal else RetriableError if retriable else FinalError)
    return cls(message or text, code)


_busway._set_errors({_NUMBERS[name]: cls for name, cls in _CLASSES.items()}, RetriableError, FinalError, FatalError, ClosedError,
                    ConcurrentUseError, ReleasedError, ForkedError)
