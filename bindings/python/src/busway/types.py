"""Small types and constants that the other modules share."""
from typing import Any, Callable, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple, TypeVar, Union

from . import _busway
from .exceptions import BuswayError, InvalidArgumentError, error_for

#: Special offsets for seek, assign and look-ups.
OFFSET_BEGINNING = -2
OFFSET_END = -1
OFFSET_INVALID = -1001
#: What a reader may see.
LIMITS = {"visible": 0, "durable": 1, "replicated": 2}

#: None: for ever; seconds otherwise.
Timeout = Optional[float]
Headers = Union[Mapping[str, Optional[bytes]], Iterable[Tuple[str, Optional[bytes]]]]
Offset = Union[int, str]

_T = TypeVar("_T")


class TopicPartition(NamedTuple):
    """A partition and what belongs to it: an offset to commit, that was committed, or where reading starts."""

    topic: str
    partition: int
    #: the next record to read; OFFSET_INVALID: none
    offset: int = OFFSET_INVALID
    #: of the last record before it; -1: not known
    leader_epoch: int = -1
    #: kept with a committed offset, for people
    metadata: Optional[str] = None
    #: results: what kept this partition's from being done
    error: Optional[BuswayError] = None


class GroupMetadata(NamedTuple):
    """Who a consumer is in its group, for a transaction that commits its offsets."""

    group_id: str
    #: "": not a member (assigned by hand, or not joined yet)
    member_id: str = ""
    group_instance_id: Optional[str] = None
    #: -1: not a member
    member_epoch: int = -1


class OffsetRange(NamedTuple):
    """What a partition has: from log_start to end (the next to be written); durable: the next not yet known to be on the disk."""

    log_start: int
    end: int
    durable: int


class Finding(NamedTuple):
    """One finding of verify()."""

    path: str
    position: int
    offset: int
    is_error: bool
    message: str


class VerifyResult(NamedTuple):
    """What verify() saw. `errors` 0: nothing is wrong."""

    topics: int
    partitions: int
    segments: int
    batches: int
    records: int
    bytes: int
    errors: int
    notes: int
    #: the first 10,000
    findings: List[Finding]


def offset_number(offset: Offset) -> int:
    """A number, or "beginning", "earliest", "end", "latest"."""
    if isinstance(offset, str):
        return choose("offset", offset, {"beginning": OFFSET_BEGINNING, "earliest": OFFSET_BEGINNING, "end": OFFSET_END,
                                         "latest": OFFSET_END})
    return int(offset)


def choose(option: str, value: str, table: Mapping[str, _T]) -> _T:
    """The option's number."""
    try:
        return table[value]
    except (KeyError, TypeError):
        raise InvalidArgumentError(f"{option}={value!r}: one of {', '.join(map(repr, table))}") from None


def parts_in(parts: Iterable[Sequence[Any]]) -> List[Tuple[str, int, int, int, Optional[str]]]:
    """TopicPartitions, or tuples that begin like them, for the extension."""
    result = []
    for part in parts:
        if isinstance(part, str):
            raise TypeError("partitions are TopicPartition or (topic, partition, ...) tuples, not str")
        p = TopicPartition(*part)
        result.append((p.topic, p.partition, p.offset, p.leader_epoch, p.metadata))
    return result


def parts_out(parts: Iterable[Tuple[str, int, int, int, Optional[str], int]]) -> List[TopicPartition]:
    return [TopicPartition(topic, partition, offset, epoch, metadata or None, error_for(error))
            for topic, partition, offset, epoch, metadata, error in parts]


def deliver_at(when_ms: int) -> Tuple[str, bytes]:
    """The header that delays a record in queues until `when_ms` (ms since 1970)."""
    return _busway._deliver_at(when_ms)


def verify(path: str) -> VerifyResult:
    """Check every byte of a data directory, a partition's folder or a segment file. No daemon, nothing is changed."""
    result = _busway._verify(path)
    return VerifyResult(*result[:8], [Finding(*f) for f in result[8]])


def dump(path: str, callback: Callable[[Dict[str, Any], Optional[_busway.Record]], Optional[bool]], *, records: bool = True) -> None:
    """Walk one segment file: callback(batch, None) once a batch, then callback(batch, record) for each record. False ends it."""
    _busway._dump(path, records, callback)
