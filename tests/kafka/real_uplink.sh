#!/usr/bin/env bash
# A link up to a real Kafka while both sides, buswayd and the broker, are killed again and again: each record is there once, in order, with its
# key, headers, time and partition. RECORDS (1000000), KILLS (16: every fourth is the broker's).
# Run by real.sh, with $KAFKA_URL and $KAFKA_FOLDER.
set -uo pipefail
cd "$(dirname "$0")/../.."
build=${BW_BUILD:-$PWD/build/debug}
records=${RECORDS:-1000000} kills=${KILLS:-16}
tmp=$(mktemp -d "${TMPDIR:-/tmp}/bw-uplink.XXXXXX")
topic=up-$$-$(date +%s)
pid=
busway=("$build/busway" -b "ipc://$tmp/run/bus.sock")
give_up() { echo "$1"; echo "0 passed, 1 failed"; exit 1; }
start_bus() {
    "$build/buswayd" --data-dir "$tmp/data" --runtime-dir "$tmp/run" >>"$tmp/buswayd.log" 2>&1 &
    pid=$!
    for _ in $(seq 300); do "${busway[@]}" status >/dev/null 2>&1 && return; sleep 0.1; done
    tail "$tmp/buswayd.log"
    give_up "buswayd did not start"
}
finish() { [ -n "$pid" ] && kill -9 "$pid" 2>/dev/null; wait "$pid" 2>/dev/null; rm -rf "$tmp"; }
trap finish EXIT
# The records that are up, by the link's position, and those that are not.
progress() { "${busway[@]}" --json link describe up 2>/dev/null | python3 -c 'import json, sys
d = json.load(sys.stdin); d = d[0] if isinstance(d, list) else d
print(sum(max(0, p.get("next_offset", 0)) for p in d.get("parts", [])), d.get("lag_records", 0))' 2>/dev/null || echo 0 0; }
# Until something more went up than at the last kill, so that each kill is in the middle of it.
wait_for_progress() {
    local up lag
    for _ in $(seq 1200); do
        read -r up lag < <(progress)
        [ "${up:-0}" -gt "$reached" ] && break
        sleep 0.05
    done
    [ "${up:-0}" -gt "$reached" ] || give_up "nothing goes up: $("${busway[@]}" link describe up 2>&1)"
    reached=$up
    [ "${lag:-0}" -eq 0 ] || amid=$((amid + 1))
}
copied() { "${busway[@]}" --json link describe up 2>/dev/null | python3 -c 'import json, sys
d = json.load(sys.stdin); d = d[0] if isinstance(d, list) else d
print(d.get("state"), d.get("lag_records"))' 2>/dev/null; }
dump() { "$build/busway" -b "$1" consume "$topic" -e --isolation committed -f '%p\t%T\t%k\t%s\t%h\n'; }
# Records of a tenth of a partition: keys of their own, headers that tell the tenth.
produce() { # partition, tenth
    local first=$(($2 * each / 10 + 1)) last=$((($2 + 1) * each / 10))
    seq "$first" "$last" | awk -v p="$1" '{print "key-" p "-" $1 "|" $1}' | "${busway[@]}" produce "$topic" -p "$1" -K '|' -H "tenth=$2" -H "of=partition $1" -H none
}

start_bus
"${busway[@]}" topic create "$topic" --partitions 4
"${busway[@]}" link add up "$KAFKA_URL" direction=push mode=merge topics="$topic" >/dev/null 2>&1 || give_up "link add failed"
each=$((records / 4))
begun=$SECONDS daemon=0 broker=0 tenth=0 reached=0 amid=0
more() { [ $tenth -ge 40 ] || { produce $((tenth % 4)) $((tenth / 4)); tenth=$((tenth + 1)); }; }
for _ in $(seq 24); do more; done # the others come between the kills
for k in $(seq "$kills"); do
    more
    wait_for_progress
    sleep "0.0$((RANDOM % 90 + 10))"
    if [ $((k % 4)) -eq 0 ]; then
        tests/kafka/cluster.sh restart "$KAFKA_FOLDER" >"$tmp/restart" || { cat "$tmp/restart"; give_up "Kafka did not come back"; }
        broker=$((broker + 1))
    else
        kill -9 "$pid"
        wait "$pid" 2>/dev/null
        start_bus
        daemon=$((daemon + 1))
    fi
done
while [ $tenth -lt 40 ]; do more; done
for _ in $(seq 1200); do
    state=$(copied)
    [ "$state" = "streams 0" ] || [ "$state" = "up to date 0" ] && break
    sleep 0.5
done
echo "say the link is $state after $((SECONDS - begun)) s; buswayd was killed $daemon times, the broker $broker times, $amid times of these with records on their way"
dump "ipc://$tmp/run/bus.sock" >"$tmp/source" && dump "$KAFKA_URL" >"$tmp/got" || give_up "a side can't be read"
[ "$(wc -l <"$tmp/source")" -eq $((each * 4)) ] || give_up "the source has $(wc -l <"$tmp/source") records"
if tests/kafka/compare.py "$tmp/source" "$tmp/got"; then echo "1 passed, 0 failed"; else give_up "the sides differ"; fi
