"""The shortest program: a record goes through a bus in a folder. Nothing has to be started."""
import sys

import busway

with busway.connect(sys.argv[1] if len(sys.argv) > 1 else "dir:./x") as bus:
    p = bus.producer()
    p.send("t", b"v", key=b"k")
    p.flush()
    c = bus.consumer(["t"], group_id="g", auto_offset_reset="earliest")
    r = next(iter(c))
    print(r.topic, r.value, r.key)
