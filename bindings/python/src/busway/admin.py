"""Administration: topics, offsets, groups, transactions, queues, quotas, status. Any thread; bounded by the bus's request_timeout_ms."""
import json
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

from . import _busway
from .exceptions import error_for
from .types import LIMITS, Offset, OffsetRange, TopicPartition, choose, offset_number, parts_in

QUOTA_DEFAULT = "<default>"
_OUTCOMES = {"done": 1, "again": 2, "dead": 3}


class Admin:
    """From Bus.admin(). Results that are JSON in C are lists and dicts; their fields are described in the C headers
    (busway/admin.h, group.h, queue.h, transaction.h)."""

    def __init__(self, bus: _busway.Bus) -> None:
        self._bus = bus

    def _call(self, operation: str, a: Optional[str] = None, b: Optional[str] = None, c: Optional[str] = None, *numbers: int,
              items: Sequence[Any] = ()) -> Tuple[Optional[str], int, int, int, List[int]]:
        n = list(numbers) + [0] * (4 - len(numbers))
        return self._bus._admin(operation, a, b, c, n[0], n[1], n[2], n[3], items)

    def _json(self, *args: Any) -> Any:
        return json.loads(self._call(*args)[0] or "null")

    @staticmethod
    def _pairs(config: Optional[Mapping[str, Any]]) -> List[Tuple[str, Optional[str]]]:
        def text(value: Any) -> Optional[str]:
            return None if value is None else str(value).lower() if isinstance(value, bool) else str(value)

        return [(name, text(value)) for name, value in (config or {}).items()]

    # ---- topics

    def create_topic(self, topic: str, partitions: int = 0, config: Optional[Mapping[str, Any]] = None) -> None:
        """partitions 0: the daemon's num.partitions. config has Kafka's names: {"retention.ms": 60000}. TopicExistsError,
        INVALID_TOPIC, INVALID_CONFIG, NotPermittedError, DISK_FULL. The topic survives power loss when this returns."""
        self._call("topic_create", topic, None, None, partitions, items=self._pairs(config))

    def delete_topic(self, topic: str) -> None:
        self._call("topic_delete", topic)

    def alter_topic(self, topic: str, partitions: int = 0, config: Optional[Mapping[str, Any]] = None) -> None:
        """Change configuration (None: back to the default); partitions > 0 raises their number."""
        self._call("topic_alter", topic, None, None, partitions, items=self._pairs(config))

    def partitions(self, topic: str) -> int:
        """How many the topic has."""
        return self._call("topic_partitions", topic)[1]

    def describe_topics(self, topic: Optional[str] = None) -> List[Dict[str, Any]]:
        """None: all."""
        result: List[Dict[str, Any]] = self._json("topics_describe", topic)
        return result

    def delete_records(self, topic: str, partition: int, before: Offset) -> int:
        """What lies before the offset ("end": everything) is gone for readers at once. The new start."""
        return self._call("delete_records", topic, None, None, partition, offset_number(before))[1]

    def offsets_range(self, topic: str, partition: int) -> OffsetRange:
        return OffsetRange(*self._call("offsets_range", topic, None, None, partition)[1:4])

    def offset_end(self, topic: str, partition: int, read_limit: str = "visible") -> int:
        """The offset behind the last record that a reader with this limit may see now."""
        return self._call("offset_end", topic, None, None, partition, choose("read_limit", read_limit, LIMITS))[1]

    def offset_for_time(self, topic: str, partition: int, timestamp_ms: int) -> Tuple[int, int]:
        """(offset, its timestamp) of the first record with a timestamp >= timestamp_ms; (end, -1): none."""
        result = self._call("offset_for_time", topic, None, None, partition, timestamp_ms)
        return result[1], result[2]

    def producers(self, topic: str, partition: int) -> List[Dict[str, Any]]:
        """Who wrote to a partition."""
        result: List[Dict[str, Any]] = self._json("producers_describe", topic, None, None, partition)
        return result

    # ---- the daemon

    def status(self) -> Dict[str, Any]:
        """Version, pid, connections with their transports and why not direct, disk space, memory."""
        result: Dict[str, Any] = self._json("status")
        return result

    def set_quota(self, rates: Mapping[str, Optional[int]], *, user: Optional[str] = None, client_id: Optional[str] = None,
                  pid: Optional[str] = None) -> None:
        """rates: producer_byte_rate, consumer_byte_rate (bytes a second), request_rate; None: no longer."""
        self._call("quota_set", user, client_id, pid, items=self._pairs(rates))

    def quotas(self, *, user: Optional[str] = None, client_id: Optional[str] = None, pid: Optional[str] = None) -> List[Dict[str, Any]]:
        result: List[Dict[str, Any]] = self._json("quotas_list", user, client_id, pid)
        return result

    # ---- groups

    def groups(self) -> List[Dict[str, Any]]:
        result: List[Dict[str, Any]] = self._json("groups_list")
        return result

    def describe_group(self, group: str) -> Dict[str, Any]:
        """Its members, and of each partition the committed offset and the lag in records and ms."""
        result: Dict[str, Any] = self._json("group_describe", group)
        return result

    def delete_group(self, group: str) -> None:
        """NON_EMPTY_GROUP: it has members."""
        self._call("group_delete", group)

    def alter_group_offsets(self, group: str, offsets: Iterable[Sequence[Any]]) -> List[TopicPartition]:
        """Set what the group has committed. The outcomes; what fails is raised, with `outcomes` (numbers) as an attribute."""
        return self._offsets("group_offsets_alter", group, offsets)

    def delete_group_offsets(self, group: str, partitions: Iterable[Sequence[Any]]) -> List[TopicPartition]:
        """Forget what the group has committed for these."""
        return self._offsets("group_offsets_delete", group, partitions)

    def _offsets(self, operation: str, group: str, offsets: Iterable[Sequence[Any]]) -> List[TopicPartition]:
        parts = parts_in(offsets)
        outcomes = self._call(operation, group, items=parts)[4]
        return [TopicPartition(*part, error_for(code)) for part, code in zip(parts, outcomes)]

    # ---- transactions

    def transactions(self) -> List[Dict[str, Any]]:
        result: List[Dict[str, Any]] = self._json("transactions_list")
        return result

    def describe_transaction(self, transactional_id: str) -> Dict[str, Any]:
        result: Dict[str, Any] = self._json("transaction_describe", transactional_id)
        return result

    def abort_transaction(self, transactional_id: str) -> None:
        """Of any producer, which is told TransactionAbortableError."""
        self._call("transaction_abort", transactional_id)

    # ---- links between daemons

    def add_link(self, link: str, options: Mapping[str, Any]) -> None:
        """The daemon copies topics from or to a peer: {"url": "ipc:///run/y/bus.sock", "topics": "a,^b"}; busway/link.h has the options.
        Kept when it returns; it connects in the background. LINK_EXISTS."""
        self._call("link_add", link, items=self._pairs(options))

    def alter_link(self, link: str, options: Mapping[str, Any]) -> None:
        """{"paused": True} stops it. UNKNOWN_LINK."""
        self._call("link_alter", link, items=self._pairs(options))

    def remove_link(self, link: str) -> None:
        """What was copied stays."""
        self._call("link_remove", link)

    def links(self) -> List[Dict[str, Any]]:
        result: List[Dict[str, Any]] = self._json("links_list")
        return result

    def describe_link(self, link: str) -> Dict[str, Any]:
        """With its parts."""
        result: Dict[str, Any] = self._json("link_describe", link)
        return result

    # ---- queues

    def queues(self, group: Optional[str] = None) -> List[Dict[str, Any]]:
        """None: all."""
        result: List[Dict[str, Any]] = self._json("queue_describe", group)
        return result

    def peek_queue(self, group: str, topic: str, partition: int, max_records: int = 100) -> Dict[str, Any]:
        """What the group holds or knows of; nothing is changed."""
        result: Dict[str, Any] = self._json("queue_peek", group, topic, None, partition, max_records)
        return result

    def settle_queue(self, group: str, topic: str, partition: int, first: int, last: int, outcome: str) -> int:
        """By hand, whoever holds them: records first to last are "done", "again" or "dead". How many were."""
        return self._call("queue_settle", group, topic, None, partition, first, last, choose("outcome", outcome, _OUTCOMES))[1]

    def delete_queue(self, group: str) -> None:
        """NON_EMPTY_GROUP: it has workers."""
        self._call("queue_delete", group)

    def redrive_queue(self, dead_letter_topic: str, max_records: int = 0,
                      progress: Optional[Callable[[int, int], Optional[bool]]] = None) -> Tuple[int, int]:
        """Dead letters go back to where they came from: (moved, skipped). progress(moved, skipped) after each batch; False ends it."""
        return self._bus._redrive(dead_letter_topic, max_records, progress)
