"""make bench-python: what the binding does, beside C's own rate and confluent-kafka's producer, in one run, interleaved.

    bench.py [--rounds N] [--seconds S] [--only REGEX] [--quick]

Each round runs every case once, each in a process of its own, C and Python in turns; medians over the rounds, ratios first. The bus is a
folder in /dev/shm; a case's topic is new. confluent-kafka (if it is installed) produces to the broker in $BENCH_KAFKA (host:port), else to
librdkafka's own mock cluster (test.mock.num.brokers=1), in the same process: no broker's disk, no other program, so it is at its best.

Round trips: one record there, one back, between two processes, each asleep until its record comes. Both are on one core, as in C's own bench
(make bench): waking another virtual core that is idle costs more than all that is measured, and by where the scheduler puts them a round trip
is the one or the other. The rows "two cores" say what that costs. asyncio's floor is the same with a UNIX socket pair instead of a bus: a
reader that stays registered, a future, os.write: what the loop itself costs, whatever is behind the descriptor.
"""
import argparse
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
FOLDER = os.environ.setdefault("BENCH_FOLDER", f"/dev/shm/busway-bench-python.{os.getpid()}")
URL = f"dir:{FOLDER}?idle-exit=3s"
RATES = os.environ.get("BUSWAY_RATES", "")

# name: (Python's case, what it is compared with or None, record bytes, count, wanted). Cases of round trips end in the number of cores.
CASES = {
    "send_many": ("send_many", "send_many", 100, 2_000_000, ">= 3 M/s"),
    "send": ("send", "send", 100, 1_000_000, ">= 1 M/s"),
    "confluent-kafka produce": ("kafka", None, 100, 300_000, "(beside it)"),
    "batches as views": ("views", "view", 100, 2_000_000, ">= 5 M/s"),
    "record objects": ("records", "view", 100, 2_000_000, ">= 1.5 M/s"),
    "gathered into NumPy": ("gather", "gather", 1024, 400_000, ">= 0.7 of C's"),
    "round trip, asleep": ("ping1", "ping1", 4, 20000, "<= 30 us"),
    "round trip, asyncio": ("aping1", "floor1", 4, 20000, "<= 60 us"),
    "round trip, two cores": ("ping2", "ping2", 4, 5000, ""),
    "asyncio, two cores": ("aping2", "floor2", 4, 5000, ""),
}


def produce(bus, topic, many, count):
    value = b"x" * 100
    with bus.producer() as p:
        p.send_sync(topic, value, partition=0)
        if many:
            values = [value] * count
            begun = time.perf_counter()
            p.send_many(topic, values, partition=0)
        else:
            send = p.send
            begun = time.perf_counter()
            for _ in range(count):
                send(topic, value)
        return count / (time.perf_counter() - begun)


def consume(bus, topic, how, count):
    with bus.consumer() as c:
        c.assign(topic)
        n = 0
        if how == "gather":
            import numpy as np
            rows = np.empty((4096, 1024), dtype=np.uint8)
            rows[:] = 0
        begun = time.perf_counter()
        if how == "views":
            while n < count:
                batch = c.poll_batch(1)
                for _view in batch:
                    pass
                n += len(batch)
        elif how == "records":
            for _record in c:
                n += 1
                if n == count:
                    break
        else:
            while n < count:
                n += c.gather_into(rows, 1)
        return n / (time.perf_counter() - begun)


def kafka(count):
    from confluent_kafka import Producer
    p = Producer({"bootstrap.servers": os.environ.get("BENCH_KAFKA", "mock"), **({} if "BENCH_KAFKA" in os.environ else {"test.mock.num.brokers": 1}),
                  "queue.buffering.max.messages": 1000000, "linger.ms": 5, "log_level": 0})
    value = b"x" * 100
    p.produce("t", value)
    p.flush(10)
    begun = time.perf_counter()
    for i in range(count):
        while True:
            try:
                p.produce("t", value)
                break
            except BufferError:
                p.poll(0.001)
        if i % 1000 == 0:
            p.poll(0)
    p.flush(60)
    return count / (time.perf_counter() - begun)


def ping(bus, topic, echo, count):
    with bus.producer() as p, bus.consumer() as c:
        c.assign(topic, 0 if echo else 1, "end")
        c.poll(0)
        p.send_sync(topic, b"warm", partition=2)
        p.send_sync(topic, b"warm", partition=1 if echo else 2)
        c.poll(0.2)
        if echo:
            print("ready", flush=True)
        begun = time.perf_counter()
        if echo:
            while True:
                c.poll()
                p.send(topic, b"ping", partition=1)
        for _ in range(count):
            p.send(topic, b"ping", partition=0)
            c.poll()
        return (time.perf_counter() - begun) / count * 1e6


def aping(topic, echo, count):
    import asyncio

    import busway.aio

    async def main():
        async with busway.aio.connect(URL) as bus, bus.producer() as p, bus.consumer() as c:
            await c.assign(topic, 0 if echo else 1, "end")
            await p.send(topic, b"warm", partition=2)
            await p.send(topic, b"warm", partition=1 if echo else 2)
            await c.poll(0.2)
            if echo:
                print("ready", flush=True)
            begun = time.perf_counter()
            if echo:
                while True:
                    await c.poll()
                    await p.send(topic, b"ping", partition=1)
            for _ in range(count):
                await p.send(topic, b"ping", partition=0)
                await c.poll()
            return (time.perf_counter() - begun) / count * 1e6

    return asyncio.run(main())


def floor(fd, echo, count):
    """What asyncio itself costs."""
    import asyncio

    async def main():
        loop = asyncio.get_running_loop()
        waiter = None

        def on_readable():
            os.read(fd, 16)
            waiter.set_result(None)

        loop.add_reader(fd, on_readable)
        if echo:
            print("ready", flush=True)
        begun = time.perf_counter()
        for _ in range(10 ** 9 if echo else count):
            if not echo:
                os.write(fd, b"ping")
            waiter = loop.create_future()
            await waiter
            if echo:
                os.write(fd, b"ping")
        return (time.perf_counter() - begun) / count * 1e6

    return asyncio.run(main())


def case(what, topic, count):
    what = what.rstrip("12")
    if what == "kafka":
        return kafka(count)
    if what.startswith("floor"):
        return floor(int(topic), what == "flooro", count)
    if what.startswith("a"):
        return aping(topic, what == "aecho", count)
    import busway
    with busway.connect(URL) as bus:
        if what.startswith("send"):
            return produce(bus, topic, what == "send_many", count)
        if what in ("ping", "echo"):
            return ping(bus, topic, what == "echo", count)
        return consume(bus, topic, what, count)


def measure(language, what, topic, count):
    """One case in a process of its own; a round trip has a second one, which echoes. None: it failed."""
    cores = sorted(os.sched_getaffinity(0))
    trip = what[-1] in "12"
    ends = socket.socketpair() if what.startswith("floor") else None

    def start(w, number, stderr=None):
        core = {cores[0 if what[-1] == "1" else number % len(cores)]}
        fd = ends[number].fileno() if ends else None
        argv = ([RATES, URL, topic, w.rstrip("12"), str(count)] if language == "C" and not ends else
                [sys.executable, os.path.abspath(__file__), "--case", w, str(fd) if ends else topic, str(count)])
        return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=stderr, universal_newlines=True, pass_fds=[fd] if ends else [],
                                preexec_fn=(lambda: os.sched_setaffinity(0, core)) if trip else None)

    other = None
    if trip:
        other = start(what.replace("ping", "echo").replace("floor", "flooro"), 1)
        other.stdout.readline()
    mine = start(what, 0, subprocess.PIPE)
    try:
        out, errors = mine.communicate(timeout=120)
        if mine.returncode != 0:
            print(f"  {language} {what}: {errors.strip().splitlines()[-1:]}", file=sys.stderr)
            return None
        return float(out.split()[-1])
    finally:
        mine.kill()
        if other:
            other.kill()
            other.wait()
        for end in ends or ():
            end.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=".")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--case", nargs=3)
    args = parser.parse_args()
    if args.case:
        print("%.6g" % case(args.case[0], args.case[1], int(args.case[2])))
        return
    import busway
    shutil.rmtree(FOLDER, ignore_errors=True)
    rounds = 1 if args.quick else args.rounds
    results = {name: {"Python": [], "C": []} for name in CASES if re.search(args.only, name)}
    try:
        with busway.connect(URL) as bus:
            admin = bus.admin()
            for size in (100, 1024):
                admin.create_topic(f"full-{size}", 1)
                with bus.producer() as p:
                    p.send_many(f"full-{size}", [b"x" * size] * max(c[3] for c in CASES.values() if c[2] == size), partition=0)
            for number in range(rounds):
                for name, (what, c_what, size, count, _) in CASES.items():
                    if name not in results:
                        continue
                    for language, w in (("C", c_what), ("Python", what)) if number % 2 == 0 else (("Python", what), ("C", c_what)):
                        if w is None:
                            continue
                        reads = w in ("view", "views", "records", "gather")
                        topic = f"full-{size}" if reads else f"{language}-{w}-{number}-{name.replace(' ', '.').replace(',', '')}"
                        made = not reads and w != "kafka" and not w.startswith("floor")
                        if made:
                            admin.create_topic(topic, 3 if "ping" in w else 1)
                        r = measure(language, w, topic, count)
                        if os.environ.get("BENCH_VERBOSE"):
                            print(f"  {time.perf_counter():.1f} {number} {language} {w}: {r:.6g}" if r else f"  {number} {language} {w}: failed",
                                  file=sys.stderr, flush=True)
                        if r is not None:
                            results[name][language].append(r)
                        if made:
                            admin.delete_topic(topic)
        print(f"Python {sys.version.split()[0]}, busway {busway.__version__}, {rounds} rounds: medians")
        for name, got in results.items():
            if not got["Python"]:
                print(f"{name:26} not measured")
                continue
            mine, beside = statistics.median(got["Python"]), statistics.median(got["C"]) if got["C"] else None
            trip = CASES[name][0][-1] in "12"
            beside_is = "floor" if (CASES[name][1] or "").startswith("floor") else "C"
            text = f"{mine:.1f} us" if trip else f"{mine / 1e6:.2f} M/s"
            c = "" if beside is None else f"{beside:.1f} us" if trip else f"{beside / 1e6:.2f} M/s"
            ratio = "" if beside is None else f"{mine / beside:.2f} of {beside_is}'s"
            wanted = f"wanted {CASES[name][4]}" if CASES[name][4] else ""
            print(f"{name:26} {ratio:18} {text:12} {beside_is if c else '':>5} {c:12} {wanted}".rstrip())
    finally:
        time.sleep(0.1)
        shutil.rmtree(FOLDER, ignore_errors=True)


if __name__ == "__main__":
    main()
