#!/usr/bin/env python3
"""The IoT gateway under SIGKILL: whatever part dies, the cloud has each reading once.

    gateway_kills.py [--seed N] [--seconds S] [--readings N] [--verbose] COMMAND...

Each COMMAND is a program that takes the gateway's arguments (setup, sensor, aggregate, upload: see src/examples/gateway.c), as one word that
a shell would split. Parts are dealt out among them in turn: several commands, several languages in one gateway. $BUSWAYD is the daemon of
the `dir:` bus, which is killed as the others are. The cloud is this process: it stores what it is given under its name, once."""
import argparse
import http.server
import itertools
import json
import os
import pathlib
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

SENSORS = 3


def measure(sensor, number):
    return 20000 + (number * 7919 + sensor * 131) % 5000


class Cloud(http.server.ThreadingHTTPServer):
    """PUT with If-None-Match: * stores once; a second one is answered 412. Now and then it is out of order, as clouds are."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, chance):
        self.objects, self.again, self.failed, self.wrong = {}, 0, 0, []
        self.lock, self.chance = threading.Lock(), chance
        super().__init__(("127.0.0.1", 0), Requests)

    def put(self, path, body, conditional):
        with self.lock:
            if self.chance.random() < 0.02:
                self.failed += 1
                return 503
            if not conditional:
                self.wrong.append(f"{path}: no If-None-Match")
            if path in self.objects:
                self.again += 1
                if self.objects[path] != body:
                    self.wrong.append(f"{path}: two uploads under one name")
                return 412
            self.objects[path] = body
            return 201


class Requests(http.server.BaseHTTPRequestHandler):
    def do_PUT(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status = self.server.put(self.path, body, self.headers.get("If-None-Match") == "*")
        try:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()
        except OSError:
            pass  # the uploader was killed

    def log_message(self, *_):
        pass


class Part:
    """One process of the gateway, begun again whenever it ends before its work is done."""

    def __init__(self, command, arguments, log, ends):
        self.words, self.arguments, self.log, self.ends = shlex.split(command), arguments, log, ends
        self.starts = self.kills = self.deaths = 0
        self.begin()

    def begin(self):
        self.starts += 1
        self.since = time.monotonic()
        self.process = subprocess.Popen(self.words + self.arguments, stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL)

    def done(self):
        return self.ends and self.process.poll() == 0

    def tend(self):
        status = self.process.poll()
        if status is None or self.done():
            return
        if status != -signal.SIGKILL:
            self.deaths += 1
            print(f"  {' '.join(self.arguments[:1] + self.arguments[2:3])} ended by itself with {status}", flush=True)
            time.sleep(0.05)
        self.begin()

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
            self.kills += 1

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def daemon_of(folder):
    """The pid of the folder's daemon: who has its lock file open. None: none runs."""
    for fd in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = fd.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"buswayd" in words[0] and any(str(folder).encode() in w for w in words):
            return int(fd.parent.name)
    return None


def holes(ranges, count):
    """What is wrong with these [first, last] as a division of 0..count-1; "": nothing."""
    at = 0
    for first, last in sorted(ranges):
        if first > at:
            return f"readings {at} to {first - 1} are missing"
        if first < at:
            return f"reading {first} was uploaded twice"
        at = last + 1
    return "" if at == count else f"readings {at} to {count - 1} are missing"


def judge(cloud, readings):
    """Complaints; and whether the last readings are there, so that it may be over."""
    complaints = list(cloud.wrong)
    of = {n: [] for n in range(SENSORS)}
    for path, body in list(cloud.objects.items()):
        u = json.loads(body)
        of[u["sensor"]].append((u["first"], u["last"]))
        values = [measure(u["sensor"], i) for i in range(u["first"], u["last"] + 1)]
        if (u["count"], u["sum"], u["min"], u["max"]) != (len(values), sum(values), min(values), max(values)):
            complaints.append(f"{path}: {body.decode()} is not what the sensor said")
    for n, ranges in of.items():
        wrong = holes(ranges, readings)
        if wrong:
            complaints.append(f"sensor {n}: {wrong}")
    return complaints


def run(args, work):
    chance = random.Random(args.seed)
    cloud = Cloud(random.Random(args.seed + 1))
    threading.Thread(target=cloud.serve_forever, daemon=True).start()
    bus, where = f"dir:{work}/bus?idle-exit=5s", f"127.0.0.1:{cloud.server_address[1]}"
    commands = itertools.cycle(args.command)
    rate = max(1, int(args.readings / max(1, args.seconds)))
    with open(work / "parts.log", "wb") as log:
        subprocess.run(shlex.split(next(commands)) + ["setup", bus], check=True)
        parts = [Part(next(commands), ["sensor", bus, str(n), str(args.readings), str(rate)], log, True) for n in range(SENSORS)]
        next(commands)
        parts += [Part(next(commands), ["aggregate", bus, f"aggregator-{n}"], log, False) for n in range(2)]
        parts += [Part(next(commands), ["upload", bus, where], log, False) for n in range(2)]
        daemons = 0
        begun = time.monotonic()
        over = begun + args.seconds
        while time.monotonic() < over:
            time.sleep(chance.uniform(0.05, 0.35))
            victim = chance.randrange(len(parts) + 1)
            if victim < len(parts):
                parts[victim].kill()
            else:
                pid = daemon_of(work / "bus")
                if pid:
                    os.kill(pid, signal.SIGKILL)
                    daemons += 1
            for part in parts:
                part.tend()
        limit = time.monotonic() + 60
        while time.monotonic() < limit:
            for part in parts:
                part.tend()
            if all(p.done() for p in parts if p.ends) and not judge(cloud, args.readings):
                break
            time.sleep(0.1)
        time.sleep(0.5)  # whatever comes twice comes now
        complaints = judge(cloud, args.readings)
        for part in reversed(parts):
            part.stop()
    kills = sum(p.kills for p in parts)
    print(f"{kills} parts and {daemons} daemons killed in {args.seconds} s, {sum(p.starts for p in parts)} starts; "
          f"{SENSORS * args.readings} readings in {len(cloud.objects)} uploads; asked again: {cloud.again}, cloud out of order: {cloud.failed}; "
          f"settled {time.monotonic() - over:.1f} s behind the last kill")
    if kills < 5 or daemons < 1:
        complaints.append("too little was killed to say anything")
    if args.verbose or complaints:
        print("".join(f"  | {line}\n" for line in (work / "parts.log").read_text(errors="replace").splitlines()[-30:]), end="")
    pid = daemon_of(work / "bus")
    if pid:
        os.kill(pid, signal.SIGTERM)
        for _ in range(100):
            if not pathlib.Path(f"/proc/{pid}").exists():
                break
            time.sleep(0.05)
    return complaints


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--readings", type=int, default=600, help="of each of the three sensors")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()
    work = pathlib.Path(tempfile.mkdtemp(prefix="gateway."))
    try:
        complaints = run(args, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    for complaint in complaints[:10]:
        print(f"FAIL  {complaint}")
    print("1 passed, 0 failed" if not complaints else "0 passed, 1 failed")
    return bool(complaints)


if __name__ == "__main__":
    sys.exit(main())
