#!/usr/bin/env bash
# A link up to a real Kafka while both sides are killed again and again: each record is there once, in order. RECORDS (1000000), KILLS (12).
# Run by real.sh, with $KAFKA_URL and $KAFKA_FOLDER.
set -uo pipefail
cd "$(dirname "$0")/../.."
build=${BW_BUILD:-$PWD/build/debug}
records=${RECORDS:-1000000} kills=${KILLS:-12}
tmp=$(mktemp -d "${TMPDIR:-/tmp}/bw-uplink.XXXXXX")
topic=up-$$-$(date +%s)
pid=
busway=("$build/busway" -b "ipc://$tmp/run/bus.sock")
start_bus() {
    "$build/buswayd" --data-dir "$tmp/data" --runtime-dir "$tmp/run" >>"$tmp/buswayd.log" 2>&1 &
    pid=$!
    for _ in $(seq 100); do "${busway[@]}" status >/dev/null 2>&1 && return; sleep 0.1; done
    echo "buswayd did not start"; tail "$tmp/buswayd.log"; exit 1
}
finish() { [ -n "$pid" ] && kill -9 "$pid" 2>/dev/null; wait "$pid" 2>/dev/null; rm -rf "$tmp"; }
trap finish EXIT
copied() { "${busway[@]}" --json link describe up 2>/dev/null | python3 -c 'import json, sys
d = json.load(sys.stdin); d = d[0] if isinstance(d, list) else d
print(d.get("state"), d.get("lag_records"))' 2>/dev/null; }

start_bus
"${busway[@]}" topic create "$topic" --partitions 4
"${busway[@]}" link add up "$KAFKA_URL" direction=push mode=merge topics="$topic" >/dev/null 2>&1 || { echo "link add failed"; exit 1; }
each=$((records / 4))
for p in 0 1 2 3; do seq "$each" | "${busway[@]}" produce "$topic" -p $p -c $((each / 2)); done # half of it before the kills
begun=$SECONDS
for k in $(seq "$kills"); do
    sleep "0.$((RANDOM % 900 + 100))"
    if [ $((k % 3)) -eq 0 ]; then
        tests/kafka/real.sh restart "$KAFKA_FOLDER" >/dev/null || { echo "Kafka did not come back"; exit 1; }
    else
        kill -9 "$pid"; wait "$pid" 2>/dev/null
        start_bus
    fi
    p=$((k % 4)) # some more while it goes on
    [ "$k" -le 4 ] && seq $((each / 2 + 1)) "$each" | "${busway[@]}" produce "$topic" -p $p
done
for _ in $(seq 600); do
    state=$(copied)
    [ "$state" = "streams 0" ] || [ "$state" = "up to date 0" ] && break
    sleep 0.5
done
echo "the link: $state after $((SECONDS - begun)) s and $kills kills"
"$build/busway" -b "$KAFKA_URL" consume "$topic" -e --isolation committed -f '%p %s\n' >"$tmp/got" || exit 1
python3 - "$tmp/got" "$each" <<'EOF'
import sys
each = int(sys.argv[2])
seen = {p: 0 for p in range(4)}
twice = missing = 0
for line in open(sys.argv[1]):
    p, v = map(int, line.split())
    if v <= seen[p]: twice += 1
    elif v > seen[p] + 1: missing += v - seen[p] - 1
    seen[p] = max(v, seen[p])
missing += sum(each - s for s in seen.values())
print(f"{sum(seen.values())} records up: {missing} missing, {twice} twice or out of order")
sys.exit(1 if missing or twice else 0)
EOF
