#!/usr/bin/env bash
# busway migrate: folder to folder (killed, run again), and on librdkafka's mock cluster folder to cluster and back.
# With $KAFKA_REAL and $KAFKA_URL (make test-kafka): the same with a real cluster, which also has groups and remembers positions.
# test: limit=120 no-asan
set -uo pipefail
cd "$(dirname "$0")/../.."
build=${BW_BUILD:-build/debug}
busway=${BUSWAY:-$PWD/$build/busway}
export BUSWAYD=${BUSWAYD:-$PWD/$build/buswayd}
tmp=$(mktemp -d "${TMPDIR:-/tmp}/bw-migrate.XXXXXX")
pass=0 fail=0 mock_PID=
trap '[ -n "$mock_PID" ] && kill "$mock_PID" 2>/dev/null; wait 2>/dev/null; rm -rf "$tmp"' EXIT
ok() { pass=$((pass + 1)); }
bad() { fail=$((fail + 1)); echo "FAIL  $1"; }
expect() { if [ "$2" = "$3" ]; then ok; else bad "$1: wanted \"$2\", got \"$3\""; fi; }
a="dir:$tmp/a?idle-exit=2s" b="dir:$tmp/b?idle-exit=2s" c="dir:$tmp/c?idle-exit=2s"
on() { timeout 20 "$busway" -b "$@" 2>&1; }
number() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }
dump() { on "$1" consume "$2" -e -f '%p %k %s %h %T\n' --isolation committed | sort; }

# -- a source with keys, headers, nulls, an aborted and a committed transaction, a group in the middle --
topic=orders-$$
on "$a" topic create "$topic" --partitions 3 -c retention.ms=123456789 >/dev/null
for p in 0 1 2; do seq -f "value-$p-%.0f" 4000 | on "$a" produce "$topic" -p $p -k "key-$p" -H h=1 -H none; done
printf 'null\n\n' | on "$a" produce "$topic" -p 1 -Z
on "$a" consume "$topic" -G readers -c 5000 >/dev/null
committed() { # the record at each partition's committed offset
    on "$1" --json group describe readers | python3 -c 'import json, sys
d = json.load(sys.stdin)
for p in (d[0] if isinstance(d, list) else d)["partitions"]:
    if (p["committed_offset"] or 0) >= 0: print(p["partition"], p["committed_offset"] or 0)' | while read -r p at; do
        on "$1" consume "$topic" -p "$p" -o "$at" -c 1 -e -f '%p %s\n' --isolation committed
    done
}

# -- killed in the middle, again and again; then to its end --
for i in 1 2 3 4 5 6; do
    "$busway" -q migrate "$a" "$b" >/dev/null 2>&1 &
    pid=$!
    sleep "0.0$((i * 12 + 10))"
    kill -9 $pid 2>/dev/null
    wait $pid 2>/dev/null
done
on "$b" topic list >/dev/null
report=$("$busway" -q --json migrate "$a" "$b" 2>"$tmp/err") || bad "migrate: $(cat "$tmp/err")"
expect "records at the target" 12002 "$(number records <<<"$report")"
expect "records compared" 12002 "$(number equal <<<"$report")"
expect "groups" 1 "$(number groups <<<"$report")"
expect "the records themselves" "$(dump "$a" "$topic" | cksum)" "$(dump "$b" "$topic" | cksum)"
[[ $(on "$b" --json topic describe "$topic") == *123456789* ]] && ok || bad "the topic's options were not carried over"
expect "where the group goes on" "$(committed "$a")" "$(committed "$b")"
again=$("$busway" -q --json migrate "$a" "$b" 2>&1)
expect "a second run copies nothing" 0 "$(number copied <<<"$again")"
echo more | on "$a" produce "$topic" -p 2
again=$("$busway" -q --json migrate "$a" "$b" 2>&1)
expect "a third run copies what came" 1 "$(number copied <<<"$again")"

# -- refusals --
on "$c" topic create "$topic" --partitions 3
echo other | on "$c" produce "$topic" -p 0
says() { # pattern, arguments
    local text
    text=$("$busway" -q migrate "${@:2}" 2>&1)
    if grep -q -- "$1" <<<"$text"; then ok; else bad "migrate ${*:2}: no \"$1\" in: $text"; fi
}
says 'did not write' "$a" "$c"
says 'same bus' "$a" "$a"
says 'no such topic' "$a" "$b" nothing
# A record that is not the source's: found by the comparison.
echo "from elsewhere" | on "$b" produce "$topic" -p 0
"$busway" -q migrate "$a" "$b" >/dev/null 2>"$tmp/err"
expect "exit code of a difference" 4 $?
grep -q 'the source ends' "$tmp/err" && ok || bad "a difference is not told: $(cat "$tmp/err")"

# -- a folder that nobody runs, by its files --
on "$a" topic list >/dev/null
"$busway" -q --json migrate "dir:$tmp/a?mode=ro" "dir:$tmp/d?idle-exit=2s" >"$tmp/ro" 2>"$tmp/err" || bad "mode=ro: $(cat "$tmp/err")"
expect "records from the files alone" 12003 "$(number records <"$tmp/ro")"

# -- a cluster --
if [ -z "${KAFKA_URL:-}" ]; then
    if [ ! -x "$build/kafka/kafka_mock" ]; then
        echo "SKIP: built without librdkafka (apt-get install librdkafka-dev)"
        echo "$pass passed, $fail failed, 1 skipped"
        exit $((fail > 0))
    fi
    coproc mock { exec "$build/kafka/kafka_mock" 1; }
    read -r brokers <&"${mock[0]}"
    KAFKA_URL=kafka://$brokers
    echo "topic $topic 3" >&"${mock[1]}"
    read -r _ <&"${mock[0]}"
fi
report=$("$busway" -q --json migrate "$a" "$KAFKA_URL" "$topic" 2>"$tmp/err") || bad "migrate to a cluster: $(cat "$tmp/err")"
expect "records at the cluster" 12003 "$(number equal <<<"$report")"
[ -z "${KAFKA_REAL:-}" ] || expect "groups at the cluster" 1 "$(number groups <<<"$report")"
report=$("$busway" -q --json migrate "$KAFKA_URL" "dir:$tmp/e?idle-exit=2s" "$topic" 2>"$tmp/err") || bad "migrate from a cluster: $(cat "$tmp/err")"
expect "records back from the cluster" 12003 "$(number equal <<<"$report")"
expect "the same as at first" "$(dump "$a" "$topic" | cksum)" "$(dump "dir:$tmp/e?idle-exit=2s" "$topic" | cksum)"
if [ -n "${KAFKA_REAL:-}" ]; then
    expect "groups back from the cluster" 1 "$(number groups <<<"$report")"
    again=$("$busway" -q --json migrate "$a" "$KAFKA_URL" "$topic" 2>&1)
    expect "a second run copies nothing to the cluster" 0 "$(number copied <<<"$again")"
fi
echo "$pass passed, $fail failed"
[ $fail -eq 0 ]
