#!/usr/bin/env bash
# kafka:// on librdkafka's mock cluster: the library's calls, and the `busway` command. A real cluster: make test-kafka.
# test: limit=120 no-asan
set -uo pipefail
cd "$(dirname "$0")/../.."
build=${BW_BUILD:-build/debug}
busway=${BUSWAY:-$build/busway}
tmp=${TMPDIR:-/tmp}
pass=0 fail=0
ok() { pass=$((pass + 1)); }
bad() { fail=$((fail + 1)); echo "FAIL  $1"; }
if [ ! -x "$build/kafka/kafka_mock" ]; then
    # Without librdkafka: the URL says so by name, and everything else is as ever.
    "$busway" -b kafka://127.0.0.1:9092 status 2>&1 | grep -q librdkafka && ok || bad "kafka:// without librdkafka does not name it"
    echo "SKIP: built without librdkafka (apt-get install librdkafka-dev)"
    echo "$pass passed, $fail failed, 1 skipped"
    exit $fail
fi

coproc mock { exec "$build/kafka/kafka_mock" 3; }
trap 'eval "exec ${mock[1]}>&-"; wait 2>/dev/null' EXIT
read -r brokers <&"${mock[0]}"
export KAFKA_URL=kafka://$brokers BUSWAY_URL=kafka://$brokers

# -- the library --
"$build/kafka/test_kafka" >"$tmp/test_kafka.log" 2>&1 || { grep -vE 'RUN|OK \]' "$tmp/test_kafka.log"; fail=$((fail + $(grep -c '^\[  FAILED  \] test_' "$tmp/test_kafka.log") / 2)); }
pass=$((pass + $(grep -c '^\[       OK \]' "$tmp/test_kafka.log")))
[ "$(grep -c '^\[       OK \]' "$tmp/test_kafka.log")" -ge 15 ] || bad "too few tests ran: $(tail -3 "$tmp/test_kafka.log")"

# -- the command --
expect() { # what, wanted, got
    if [ "$2" = "$3" ]; then ok; else bad "$1: wanted \"$2\", got \"$3\""; fi
}
printf 'one\ntwo\nthree\n' | "$busway" produce words -p 0 -H h=1 || bad "produce"
expect "consume" "one two three" "$("$busway" consume words -c 3 2>&1 | tr '\n' ' ' | sed 's/ $//')"
expect "consume to the end" "two three" "$("$busway" consume words -p 0 -o 1 -e 2>&1 | tr '\n' ' ' | sed 's/ $//')"
expect "consume the last" "three h=1 0 2" "$("$busway" consume words -p 0 -o -1 -e -f '%s %h %p %o\n' 2>&1)"
expect "consume in a group" 3 "$("$busway" consume words -G readers -c 3 2>&1 | wc -l)"
"$busway" status 2>&1 | grep -q 'Apache Kafka cluster' && ok || bad "status: $("$busway" status 2>&1 | head -3)"
"$busway" topic list 2>&1 | grep -q '^words  *4' && ok || bad "topic list: $("$busway" topic list 2>&1 | head -5)"
"$busway" quota list 2>&1 | grep -q 'not on a Kafka cluster' && ok || bad "quota list is not refused by name"
echo "$pass passed, $fail failed"
[ $fail -eq 0 ]
