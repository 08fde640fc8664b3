#!/usr/bin/env bash
# A mirror is compared with its origin by the hashes of ranges, and what differs is mended; the mirror here is a copy of the files.
# test: limit=90
source "$(dirname "$0")/common.bash"
origin=$work/origin mirror=$work/mirror
o() { "$busway" -b "ipc://$work/run.o/bus.sock" "$@"; }
m() { "$busway" -b "ipc://$work/run.m/bus.sock" "$@"; }
verify() { m link verify --peer "ipc://$work/run.o/bus.sock" "$@"; }
number() { grep -oE "\"$1\":[0-9]+" <<<"$2" | tail -1 | cut -d: -f2; }
start_both() {
    start_daemon "$origin" "$work/run.o"; origin_pid=$daemon_pid
    start_daemon "$mirror" "$work/run.m"; mirror_pid=$daemon_pid
}
stop_mirror() { daemon_pid=$mirror_pid; stop_daemon TERM; }
flip() { # file, position: another byte there
    python3 - "$1" "$2" <<'P'
import sys
with open(sys.argv[1], "r+b") as f:
    f.seek(int(sys.argv[2])); b = f.read(1)[0]
    f.seek(int(sys.argv[2])); f.write(bytes([b ^ 0x5a]))
P
}

start_daemon "$origin" "$work/run.o"
o topic create orders --partitions 2 -c segment.bytes=1048576 >/dev/null
records() { python3 -c '
import sys
for i in range(int(sys.argv[1])): print(i % 50, "record", i, "x" * (i % 400))' "$1"; }
records 14000 | o produce orders -p 0 >/dev/null # three segments: what rots below is sealed
records 6000 | o produce orders -p 1 >/dev/null
stop_daemon TERM
cp -a "$origin" "$mirror"
start_both

out=$(verify --json orders); rc=$?
same "equal copies: exit code 0" $rc 0
same "equal copies: no difference" "$(number differences "$out")" 0
same "both partitions are looked at" "$(number partitions "$out")" 2
[ "$(number bytes "$out")" -gt 3000000 ] && ok "all bytes are compared" || bad "all bytes are compared" "$out"
at_most "bytes over the link for equal copies" $(($(number sent_bytes "$out") + $(number received_bytes "$out"))) 200000
has "equal, in words" "$(verify orders)" '2 partitions.*: equal'
fails "no such link" 3 'orders' "$busway" -b "ipc://$work/run.m/bus.sock" link verify orders
fails "unknown topic" 3 'the mirror' "$busway" -b "ipc://$work/run.m/bus.sock" link verify --peer "ipc://$work/run.o/bus.sock" nothing

# Bytes rot in a sealed segment of the mirror, one in a batch's records, one in a batch's head.
stop_mirror
segments=("$mirror"/orders-0/*.log)
[ ${#segments[@]} -ge 3 ] && ok "what rots is sealed" || bad "what rots is sealed" "${segments[*]}"
flip "${segments[0]}" 300000
flip "${segments[1]}" 16
start_daemon "$mirror" "$work/run.m"; mirror_pid=$daemon_pid
out=$(verify --json orders 2>/dev/null); rc=$?
same "rot: exit code 4" $rc 4
same "rot: two differences" "$(number differences "$out")" 2
same "rot: nothing mended without being asked" "$(number mended "$out")" 0
has "rot: says where" "$out" '"difference":"damaged","topic":"orders","partition":0,"from":[0-9]+,"upto":[0-9]+,"mended":false'
out=$(verify --repair orders 2>&1); rc=$?
same "repair: what is no mirror is left alone" "$rc $(grep -c 'no mirror' <<<"$out")" "4 2"
out=$(verify --json --repair --force orders); rc=$?
same "repair: exit code 0" $rc 0
same "repair: both mended" "$(number mended "$out")" 2
at_most "repair: bytes over the link" $(($(number sent_bytes "$out") + $(number received_bytes "$out"))) 400000
has "repair: then they are equal" "$(verify orders)" ': equal'
same "the mirror's records are the origin's" "$(m consume orders -e | sort | md5sum)" "$(o consume orders -e | sort | md5sum)"

# The origin goes on: the mirror is behind. The mirror was written to: it is beyond, and nothing of that is mended.
seq 1 10 | o produce orders >/dev/null
has "behind" "$(verify orders)" '10 offsets are still to come'
seq 1 30 | m produce orders >/dev/null
out=$(verify --repair --force orders 2>&1); rc=$?
same "beyond: exit code 4" $rc 4
has "beyond: in words" "$out" 'beyond the origin|differs'

# The origin's own rot is said, and not copied.
daemon_pid=$origin_pid; stop_daemon TERM
segments=("$origin"/orders-1/*.log)
flip "${segments[0]}" 200000
start_daemon "$origin" "$work/run.o"; origin_pid=$daemon_pid
out=$(verify --repair --force orders 2>&1)
has "origin's rot" "$out" 'origin damaged'
stop_mirror
has "the mirror's files are sound" "$("$busway" verify "$mirror" --errors-only)" ' 0 errors'
finish
