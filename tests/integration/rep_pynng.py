#!/usr/bin/env python3
"""Produces and fetches over the REP socket with nothing but pynng and msgpack: rep_pynng.py ipc:///…/rep.sock"""
import struct, sys
import msgpack, pynng

PRODUCE, FETCH = 7, 8

def call(socket, api, header, payload=b""):
    head = msgpack.packb(header)
    socket.send(struct.pack(">HHII", api, 0, 1, len(head)) + head + payload)
    answer = socket.recv()
    api, flags, correlation, length = struct.unpack(">HHII", answer[:12])
    header = msgpack.unpackb(answer[12:12 + length])
    if header.get("error"):
        sys.exit(f"error {header['error']}: {header.get('message')}")
    return header, answer[12 + length:]

with pynng.Req0(dial=sys.argv[1], recv_timeout=10000) as socket:
    records = [{"key": b"k%d" % i, "value": b"v%d" % i, "headers": {"n": b"%d" % i}} for i in range(100)] + [{"key": b"gone"}]
    first = call(socket, PRODUCE, {"topic": "from-python", "acks": 2, "records": True}, msgpack.packb(records))[0]["offset"]
    part = {"topic": "from-python", "partition": 0, "offset": first}
    header, payload = call(socket, FETCH, {"parts": [part], "max_wait_ms": 1000, "records": True})
    got = msgpack.unpackb(payload[:header["parts"][0]["size"]])

assert [r["offset"] for r in got] == list(range(first, first + 101)), got
assert all((r["key"], r["value"], r["headers"]) == (b"k%d" % i, b"v%d" % i, [["n", b"%d" % i]]) for i, r in enumerate(got[:100])), got
assert got[100]["key"] == b"gone" and got[100]["value"] is None, got
print(f"{len(got)} records produced and fetched from offset {first}")
