"""gateway.py: an IoT gateway: sensors -> bus -> aggregates -> a queue of uploads -> the cloud. Each part is a process of its own, any of them,
and the bus's daemon, may be killed at any moment and started again: no reading is lost or counted twice, and no upload is.

    python3 gateway.py setup URL                       makes the topics "readings" and "uploads"
    python3 gateway.py sensor URL NUMBER COUNT RATE    takes COUNT readings, RATE a second (0: as fast as it goes), then ends
    python3 gateway.py aggregate URL NAME              readings -> one upload a sensor and round; several share the work; NAME is its own
    python3 gateway.py upload URL HOST:PORT            each upload by HTTP: PUT /uploads/<partition>-<offset>; several share the work

How each part goes on behind a kill:
  sensor     has a name: the bus knows the last reading that it wrote under it (last_sequence), and the next one follows.
  aggregate  reads, writes and says how far it read in one transaction: all of it happened, or nothing.
  upload     takes uploads from a queue. What it held when it died is given to another, so the cloud may be asked twice: the request says
             "If-None-Match: *", and the second one is answered 412, which is as good.
The same program exists in C and in Go (bindings/README.md); parts of all three work together."""
import http.client
import json
import sys
import time
from typing import Any, Dict, List, Optional, Tuple

import busway

PARTITIONS = 4
ROUND = 0.1  # seconds of readings in one round
PATIENCE = 60.0


def setup(bus: busway.Bus) -> None:
    for topic, partitions in (("readings", PARTITIONS), ("uploads", 2)):
        try:
            bus.admin().create_topic(topic, partitions, {"retention.ms": 7 * 24 * 3600 * 1000})
        except busway.TopicExistsError:
            pass


# ---- sensor ----


def measure(sensor: int, number: int) -> int:
    """A real one would ask its hardware. Thousandths of a degree."""
    return 20000 + (number * 7919 + sensor * 131) % 5000


def next_reading(bus: busway.Bus, producer: busway.Producer, partition: int) -> int:
    """One behind the last reading that is on the bus under this name."""
    try:
        _, offset = producer.last_sequence("readings", partition)
    except busway.BuswayError as e:
        if e.name != "UNKNOWN_PRODUCER_ID":
            raise
        return 0
    if offset < 0:
        return 0
    with bus.consumer() as consumer:
        consumer.assign("readings", partition, offset)
        record = consumer.poll(PATIENCE)
        if record is None or record.offset != offset:
            raise SystemExit(f"gateway.py: the record at {offset} is not to be had")
        return int(record.value.split()[0]) + 1


def sensor(bus: busway.Bus, number: int, count: int, rate: int) -> None:
    name, partition = f"sensor-{number}", number % PARTITIONS
    with bus.producer(name=name) as producer:
        for i in range(next_reading(bus, producer, partition), count):
            producer.send_sync("readings", f"{i} {measure(number, i)}".encode(), name.encode(), partition=partition, timeout=PATIENCE)
            if rate > 0:
                time.sleep(1 / rate)


# ---- aggregate ----


class Taken(Exception):
    """A partition of the round is another member's now."""


class Aggregator:
    def __init__(self, bus: busway.Bus, name: str):
        self.producer = bus.producer(transactional_id=name, transaction_timeout_ms=10000)
        self.producer.init_transactions(PATIENCE)  # ends what an earlier run left
        self.consumer = bus.consumer(["readings"], group_id="aggregate", auto_offset_reset="earliest", enable_auto_commit=False,
                                     on_revoke=self.taken, on_lost=self.taken)
        self.sums: Dict[str, Dict[str, int]] = {}
        self.after: Dict[int, int] = {}  # of the partitions of this round: where the next one begins
        self.void = False

    def taken(self, consumer: busway.Consumer, parts: List[busway.TopicPartition]) -> None:
        """Inside a poll. What another member does from now on must not be done here, too."""
        self.void = self.void or any(p.partition in self.after for p in parts)

    def add(self, record: Any) -> None:
        key = bytes(record.key).decode()
        number, value = (int(n) for n in bytes(record.value).split())
        sums = self.sums.setdefault(key, {"sensor": int(key[len("sensor-"):]), "first": number, "last": number, "count": 0, "min": value,
                                          "max": value, "sum": 0})
        sums.update(last=number, count=sums["count"] + 1, min=min(sums["min"], value), max=max(sums["max"], value), sum=sums["sum"] + value)

    def gather(self) -> None:
        """Reads for a round's time."""
        self.sums, self.after, self.void = {}, {}, False
        end = time.monotonic() + ROUND
        while time.monotonic() < end:
            try:
                batch = self.consumer.poll_batch(max(0.0, end - time.monotonic()))
            except (busway.FencedMemberError, busway.NotConnectedError, busway.NoCoordinatorError):
                batch = None  # it joins anew
            if self.void:
                raise Taken
            if batch is not None:
                for record in batch:
                    self.add(record)
                self.after[batch.partition] = batch.last_offset + 1

    def commit(self) -> None:
        """The round in one transaction. An exception: abort, and nothing of it has happened."""
        self.producer.begin_transaction()
        for key, sums in self.sums.items():
            self.producer.send("uploads", json.dumps(sums, separators=(",", ":")).encode(), key.encode())
        offsets = [busway.TopicPartition("readings", p, offset) for p, offset in self.after.items()]
        self.producer.send_offsets_to_transaction(offsets, self.consumer.group_metadata(), PATIENCE)
        while True:
            try:
                self.producer.commit_transaction(PATIENCE)
                return
            except busway.TimedOutError:
                pass  # it has no other end

    def rewind(self) -> None:
        """Back to what the group has committed, for all that is ours."""
        for p in self.consumer.committed(timeout=PATIENCE):
            try:
                self.consumer.seek(p.topic, p.partition, "beginning" if p.offset == busway.OFFSET_INVALID else p.offset)
            except busway.UnknownPartitionError:
                pass  # it was taken away meanwhile

    def run(self) -> None:
        while True:
            try:
                self.gather()
                if self.sums:
                    self.commit()
            except Taken:
                self.rewind()
            except busway.BuswayError as e:
                print(f"gateway.py: begins again: {e}", file=sys.stderr, flush=True)
                try:
                    self.producer.abort_transaction(PATIENCE)
                except busway.InvalidTransactionStateError:
                    pass  # there is none when gathering failed
                self.rewind()


# ---- upload ----


def put(cloud: str, message: busway.Message) -> Optional[int]:
    """One PUT; the status, None: the cloud is away."""
    connection = http.client.HTTPConnection(cloud, timeout=10)
    try:
        connection.request("PUT", f"/uploads/{message.partition}-{message.offset}", message.value,
                           {"If-None-Match": "*", "Content-Type": "application/json"})
        status = connection.getresponse().status
        return None if status >= 500 else status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def upload(bus: busway.Bus, cloud: str) -> None:
    # max_deliveries: only what the cloud refuses is a dead letter, never what a dead uploader held. Committed: nothing of an open transaction.
    with bus.queue("upload", ["uploads"], isolation_level="read_committed", lease_ms=30000, max_deliveries=1000, max_records=10) as queue:
        while True:
            try:
                message = queue.poll(1.0)
            except (busway.NotConnectedError, busway.NoCoordinatorError):
                continue
            if message is None:
                continue
            try:
                status = put(cloud, message)
                while status is None:  # ours it stays
                    message.renew()
                    time.sleep(0.2)
                    status = put(cloud, message)
                if status in (200, 201, 412):
                    queue.ack_sync(message, PATIENCE)
                else:
                    message.reject()
            except busway.BuswayError as e:
                print(f"gateway.py: upload {message.offset} comes again: {e}", file=sys.stderr, flush=True)


def main(arguments: List[str]) -> None:
    part, words = (arguments[0], arguments[1:]) if arguments else ("", [])
    wanted: Dict[str, Tuple[int, Any]] = {
        "setup": (1, lambda bus: setup(bus)),
        "sensor": (4, lambda bus: sensor(bus, int(words[1]), int(words[2]), int(words[3]))),
        "aggregate": (2, lambda bus: Aggregator(bus, words[1]).run()),
        "upload": (2, lambda bus: upload(bus, words[1])),
    }
    if part not in wanted or len(words) != wanted[part][0]:
        raise SystemExit("usage: gateway.py setup URL | sensor URL NUMBER COUNT RATE | aggregate URL NAME | upload URL HOST:PORT")
    with busway.connect(words[0]) as bus:
        wanted[part][1](bus)


if __name__ == "__main__":
    main(sys.argv[1:])
