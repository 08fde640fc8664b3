#!/usr/bin/env bash
# busway migrate to a real Kafka and back: tests/integration/migrate.sh; then RECORDS (1000000) records from a folder to the cluster and from there
# to another folder, both killed on the way and run again; key, value, headers, time and partition of each are equal in the end.
# Run by real.sh, with $KAFKA_URL.
set -uo pipefail
cd "$(dirname "$0")/../.."
build=${BW_BUILD:-$PWD/build/debug}
records=${RECORDS:-1000000}
tmp=$(mktemp -d "${TMPDIR:-/tmp}/bw-million.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
busway=$build/busway topic=million-$$-$(date +%s)
passed=0 failed=0
check() { if [ "$2" = "$3" ]; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAIL  $1: wanted \"$2\", got \"$3\""; fi; }
at() { echo "dir:$tmp/$1?idle-exit=2s"; }
dump() { "$busway" -b "$1" consume "$topic" -e --isolation committed -f '%p\t%T\t%k\t%s\t%h\n' >"$tmp/$2"; }

tests/integration/migrate.sh >"$tmp/log" 2>&1
rc=$?
grep -vE '^[0-9]+ passed' "$tmp/log"
read -r passed failed < <(awk '/^[0-9]+ passed, [0-9]+ failed/ {p = $1; f = $3} END {print p + 0, f + 0}' "$tmp/log")
[ $rc -eq 0 ] || [ "$failed" -gt 0 ] || failed=1

"$busway" -b "$(at a)" topic create "$topic" --partitions 4
for k in $(seq 0 39); do
    p=$((k % 4)) first=$((k / 4 * records / 40 + 1)) last=$(((k / 4 + 1) * records / 40))
    seq $first $last | awk -v p=$p '{print "key-" p "-" $1 "|" $1}' | "$busway" -b "$(at a)" produce "$topic" -p $p -K '|' -H "tenth=$((k / 4))" -H "of=partition $p" -H none
done

# migrate NAME FROM TO: killed four times, then to its end, on a terminal, where it shows a bar
migrate() {
    local begun=$SECONDS kills=0 before=0 pid
    for seconds in 1 2 3 4; do
        "$busway" -q migrate "$2" "$3" "$topic" >/dev/null 2>&1 &
        pid=$!
        sleep "$seconds.$((RANDOM % 10))"
        kill -9 $pid 2>/dev/null && kills=$((kills + 1))
        wait $pid 2>/dev/null
    done
    script -qec "'$busway' --json migrate '$2' '$3' '$topic'" "$tmp/terminal" >/dev/null </dev/null
    check "$1: exit code" 0 $?
    tr '\r' '\n' <"$tmp/terminal" | grep -aoE '(copying|comparing) \[#*[ #]*\] +[0-9]+% +[0-9]+ of [0-9]+ records' >"$tmp/bars"
    check "$1: it shows how far it is" yes "$([ "$(grep -c copying "$tmp/bars")" -gt 1 ] && [ "$(grep -c comparing "$tmp/bars")" -gt 1 ] && echo yes || echo no)"
    tr -d '\r' <"$tmp/terminal" | python3 -c 'import json, sys
text = sys.stdin.read(); d = json.loads(text[text.index("{\n" if "{\n" in text else "{\""):text.rindex("}") + 1])
print(d["records"], d["equal"], d["copied"])' >"$tmp/report"
    read -r there equal before <"$tmp/report"
    check "$1: records at the target, compared" "$records $records" "$there $equal"
    check "$1: what was there before the kills stayed" yes "$([ "$before" -lt "$records" ] && echo yes || echo no)"
    echo "say $1: $records records in $((SECONDS - begun)) s, killed $kills times; the last run copied $before of them"
}
migrate "folder to cluster" "$(at a)" "$KAFKA_URL"
migrate "cluster to folder" "$KAFKA_URL" "$(at b)"
dump "$(at a)" source
dump "$KAFKA_URL" cluster
dump "$(at b)" back
check "records at the source" $((records / 40 * 40)) "$(wc -l <"$tmp/source")"
for side in cluster back; do
    tests/kafka/compare.py "$tmp/source" "$tmp/$side"
    check "$side equals the source" 0 $?
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
