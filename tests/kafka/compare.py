#!/usr/bin/env python3
"""compare.py SOURCE GOT: are two dumps of a topic equal, record by record within each partition? Lines of `busway consume -f
'%p\\t%T\\t%k\\t%s\\t%h\\n'`: partition, time, key, value (a number that is new in its partition), headers. In GOT a last header that a link
adds (busway.origin) is passed over. Prints "say N records: …"; exit code 1 when anything is missing, twice, out of order or changed."""
import re
import sys

ORIGIN = re.compile(r",?busway\.origin=[^,]*$")


def read(path, strip):
    parts = {}
    with open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as lines:
        for line in lines:
            partition, time, key, value, headers = line[:-1].split("\t")
            parts.setdefault(int(partition), []).append((time, key, value, ORIGIN.sub("", headers) if strip else headers))
    return parts


def main():
    source, got = read(sys.argv[1], False), read(sys.argv[2], True)
    missing = twice = disorder = changed = equal = 0
    for partition in sorted(source.keys() | got.keys()):
        want, have = source.get(partition, []), got.get(partition, [])
        if want == have:
            equal += len(want)
            continue
        place = {r[2]: i for i, r in enumerate(want)}
        seen, last = set(), -1
        for r in have:
            at = place.get(r[2], -1)
            if r[2] in seen:
                twice += 1
            elif at < last:
                disorder += 1
            elif at < 0 or want[at] != r:
                changed += 1
                print(f"partition {partition}: {r}, at the source {want[at] if at >= 0 else 'nothing'}")
            else:
                equal += 1
            seen.add(r[2])
            last = max(last, at)
        missing += len(place.keys() - seen)
    print(f"say {equal} records equal in key, value, headers, time, partition and order; {missing} missing, {twice} twice, {disorder} out of order,"
          f" {changed} changed")
    return 1 if missing or twice or disorder or changed or not equal else 0


if __name__ == "__main__":
    sys.exit(main())
