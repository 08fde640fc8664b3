#!/usr/bin/env bash
# One differing batch in a mirror of MIRROR_GB (10) gigabytes: how long it takes to find and mend it, and how many bytes are sent for it.
# Needs twice the room in MIRROR_DIR (build/mirror), and removes it. Prints JSON lines; fails when it is more than 1 MB.
set -euo pipefail
cd "$(dirname "$0")/.."
b=$PWD/build/release gb=${MIRROR_GB:-10} dir=${MIRROR_DIR:-build/mirror} pids=()
mkdir -p "$dir" && dir=$(realpath "$dir")
trap 'for p in "${pids[@]}"; do kill "$p" 2>/dev/null; done; wait; rm -rf "$dir"' EXIT
start() { # name
    "$b/buswayd" --data-dir "$dir/$1" --runtime-dir "$dir/run.$1" 2>>"$dir/$1.log" &
    pids+=($!)
    local i
    for ((i = 0; i < 300; i++)); do "$b/busway" -q -b "ipc://$dir/run.$1/bus.sock" status >/dev/null 2>&1 && return; sleep 0.1; done
    echo "the daemon does not start" >&2; tail -5 "$dir/$1.log" >&2; exit 1
}
stop() { kill "${pids[-1]}"; wait "${pids[-1]}" || true; unset 'pids[-1]'; }
o() { "$b/busway" -q -b "ipc://$dir/run.o/bus.sock" "$@"; }
m() { "$b/busway" -q -b "ipc://$dir/run.m/bus.sock" "$@"; }
number() { grep -oE "\"$1\": ?[0-9]+" <<<"$2" | tail -1 | grep -oE '[0-9]+$'; }
step() { local begun=$SECONDS; "${@:2}"; printf '{"step":"%s","seconds":%d}\n' "$1" $((SECONDS - begun)); }
wait_for_mirror() {
    while [ "$(number end_offset "$(m --json topic describe t 2>/dev/null)")" != "$(number end_offset "$(o --json topic describe t)")" ]; do sleep 1; done
}

start o
o topic create t --partitions 1 -c retention.ms=-1 >/dev/null
step produced o bench t --transport ipc --records $((gb * 1000000)) --record-bytes 1000 --batch 16 >/dev/null
start m
m link add bench "ipc://$dir/run.o/bus.sock" topics=t >/dev/null
step mirrored wait_for_mirror
stop # the mirror's
segments=("$dir"/m/t-0/*.log)
python3 - "${segments[$((${#segments[@]} / 2))]}" <<'P'
import sys
with open(sys.argv[1], "r+b") as f:
    at = f.seek(0, 2) // 2; f.seek(at); b = f.read(1)[0]
    f.seek(at); f.write(bytes([b ^ 1]))
P
start m
m link pause bench >/dev/null
begun=$SECONDS
out=$(m --json link verify --repair --peer "ipc://$dir/run.o/bus.sock" t)
echo "$out"
sent=$(($(number sent_bytes "$out") + $(number received_bytes "$out")))
printf '{"step":"verified and mended","seconds":%d,"log_bytes":%d,"mended":%d,"bytes_on_the_wire":%d}\n' $((SECONDS - begun)) "$(number bytes "$out")" \
    "$(number mended "$out")" "$sent"
begun=$SECONDS
out=$(m --json link verify --quick --peer "ipc://$dir/run.o/bus.sock" t)
printf '{"step":"verified quickly","seconds":%d,"differences":%d}\n' $((SECONDS - begun)) "$(number differences "$out")"
[ "$sent" -le 1000000 ] && [ "$(number bytes "$out")" -ge $((gb * 1000000000)) ]
