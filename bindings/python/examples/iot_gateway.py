"""An IoT gateway: sensors -> bus -> aggregates -> upload queue.

    python3 iot_gateway.py [URL] [SECONDS]

Three parts, which could as well be three programs, or in three languages, on one bus:
  sensors     send JSON measurements, keyed by the sensor's name, to "gateway.measurements"
  aggregate   reads them as a member of a group and keeps count, mean and maximum of each sensor in a store of its own, whose changes are
              committed together with the offset: each measurement counts once, whatever is killed when. Every 50th of a sensor is sent
              to "gateway.upload".
  upload      takes those from a queue: done is acknowledged; what failed goes to another worker, or, after five times, to the dead
              letters.
"""
import json
import random
import sys
import tempfile
import threading
import time
from typing import Any, List

import busway

MEASUREMENTS, UPLOAD = "gateway.measurements", "gateway.upload"
EVERY = 50


def sensors(bus: busway.Bus, stop: threading.Event) -> int:
    sent = 0
    with bus.producer(value_serializer=busway.json_serializer, key_serializer=busway.string_serializer) as producer:
        while not stop.is_set():
            for number in range(4):
                producer.send(MEASUREMENTS, {"celsius": round(random.gauss(20 + number, 2), 2)}, key=f"sensor-{number}")
                sent += 1
            time.sleep(0.001)
    return sent


def aggregate(bus: busway.Bus, stop: threading.Event, store: str) -> int:
    done = 0
    with bus.producer() as out, bus.consumer(group_id="gateway.aggregate", auto_offset_reset="earliest") as consumer, \
            consumer.state(store, fast=True) as state:
        consumer.subscribe(MEASUREMENTS)
        ready: List[Any] = []

        def count(txn: busway.StateTransaction, record: busway.Record) -> None:
            before = json.loads(txn.get(record.key) or b'{"n": 0, "sum": 0, "max": -1000}')
            celsius = json.loads(record.value)["celsius"]
            now = {"n": before["n"] + 1, "sum": before["sum"] + celsius, "max": max(before["max"], celsius)}
            txn.put(record.key, json.dumps(now).encode())
            if now["n"] % EVERY == 0:
                ready.append((record.key, {"n": now["n"], "mean": round(now["sum"] / now["n"], 3), "max": now["max"]}))

        while not stop.is_set():
            ready.clear()
            done += state.process(count, timeout=0.1)
            for key, value in ready:  # after the commit; a kill right here loses an upload, never a count
                out.send(UPLOAD, busway.json_serializer(value), key=key)
    return done


def upload(bus: busway.Bus, stop: threading.Event) -> int:
    uploaded = 0
    with bus.queue("gateway.uploads", UPLOAD, lease_ms=5000, value_deserializer=busway.json_deserializer) as queue:
        while not stop.is_set():
            message = queue.poll(timeout=0.1)
            if message is None:
                continue
            if random.random() < 0.1:  # the line to the cloud is bad
                message.release()
                continue
            uploaded += 1
            message.ack()
    return uploaded


def main() -> None:
    folder = tempfile.mkdtemp(prefix="gateway-")
    url = sys.argv[1] if len(sys.argv) > 1 else f"dir:{folder}/bus?idle-exit=1s"
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 3.0
    result = {}
    with busway.connect(url, client_id="iot-gateway") as bus:
        for topic in (MEASUREMENTS, UPLOAD):
            try:
                bus.admin().create_topic(topic, 2)
            except busway.TopicExistsError:
                pass
        stops = [threading.Event() for _ in range(3)]

        def run(name: str, *args: Any) -> None:
            result[name] = globals()[name](bus, *args)

        threads = [threading.Thread(target=run, args=args) for args in
                   (("sensors", stops[0]), ("aggregate", stops[1], f"{folder}/state"), ("upload", stops[2]))]
        for thread in threads:
            thread.start()
        try:
            time.sleep(seconds)
        finally:
            for stop, thread in zip(stops, threads):  # in the order of the flow, each with time for what is left
                stop.set()
                thread.join(timeout=10)
                time.sleep(0.3)
    print(f"{result['sensors']} measured, {result['aggregate']} aggregated, {result['upload']} uploaded")


if __name__ == "__main__":
    main()
