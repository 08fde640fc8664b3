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
    text=$("$busway" -b kafka://127.0.0.1:9092 status 2>&1)
    grep -q librdkafka <<<"$text" && ok || bad "kafka:// without librdkafka does not name it: $text"
    echo "SKIP: built without librdkafka (apt-get install librdkafka-dev)"
    echo "$pass passed, $fail failed, 1 skipped"
    exit $fail
fi

coproc mock { exec "$build/kafka/kafka_mock" 3; }
trap 'kill "$mock_PID" 2>/dev/null; wait 2>/dev/null' EXIT
read -r brokers <&"${mock[0]}"
export KAFKA_URL=kafka://$brokers BUSWAY_URL=kafka://$brokers

# -- the library: what waits for rebalances waits side by side --
running=()
start_tests() { # program, pattern of tests
    "$build/kafka/$1" ${2:+"$2"} >"$tmp/kafka.${#running[@]}.log" 2>&1 &
    running+=("$!")
}
start_tests test_kafka
for one in '*group_divides*' '*by_hand*' '*auto_commit*' '*no_offset*'; do start_tests test_kafka_groups "$one"; done

# -- the command --
expect() { # what, wanted, got
    if [ "$2" = "$3" ]; then ok; else bad "$1: wanted \"$2\", got \"$3\""; fi
}
printf 'one\ntwo\nthree\n' | "$busway" produce words -p 0 -H h=1 || bad "produce"
expect "consume" "one two three" "$("$busway" consume words -c 3 2>&1 | tr '\n' ' ' | sed 's/ $//')"
expect "consume to the end" "two three" "$("$busway" consume words -p 0 -o 1 -e 2>&1 | tr '\n' ' ' | sed 's/ $//')"
expect "consume the last" "three h=1 0 2" "$("$busway" consume words -p 0 -o -1 -e -f '%s %h %p %o\n' 2>&1)"
expect "consume in a group" 3 "$("$busway" consume words -G readers -c 3 2>&1 | wc -l)"
says() { # pattern, command…
    local text
    text=$("${@:2}" 2>&1)
    if grep -q -- "$1" <<<"$text"; then ok; else bad "${*:3}: no \"$1\" in: $(head -3 <<<"$text")"; fi
}
says 'Apache Kafka cluster' "$busway" status
says '^words  *4' "$busway" topic list
says 'not on a Kafka cluster' "$busway" quota list
says 'not on a Kafka cluster' "$busway" queue list

tests=0
for i in "${!running[@]}"; do
    wait "${running[i]}" || { grep -vE 'RUN|OK \]|SKIPPED' "$tmp/kafka.$i.log"; fail=$((fail + 1)); }
    n=$(grep -c '^\[       OK \]' "$tmp/kafka.$i.log")
    tests=$((tests + n))
done
pass=$((pass + tests))
[ "$tests" -ge 15 ] || bad "only $tests tests of the library passed"
echo "$pass passed, $fail failed"
[ $fail -eq 0 ]
