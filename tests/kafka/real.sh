#!/usr/bin/env bash
# kafka:// against a real Apache Kafka 3.9 (tests/kafka/cluster.sh): the library's tests, the scripts real_*.sh, and the conformance suite in C,
# in Python and in Go. `make test-kafka` builds what this needs, and runs it. Ends with "N passed, N failed, N skipped".
# usage: real.sh [COMMAND…]: with a command that runs instead of the tests, with the same environment ($KAFKA_URL, $KAFKA_FOLDER, …).
# Environment: KAFKA_ONLY (a pattern that names must match), RECORDS (1000000: of real_uplink.sh and real_migrate.sh).
set -uo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
build=$(realpath "${BW_BUILD:-build/debug}")
folder=$(mktemp -d "${TMPDIR:-/tmp}/bw-kafka.XXXXXX")
trap 'tests/kafka/cluster.sh stop "$folder"; rm -rf "$folder"' EXIT
trap 'exit 130' INT TERM
tests/kafka/cluster.sh start "$folder" || {
    if [ $? -eq 77 ]; then echo "0 passed, 0 failed, 1 skipped"; exit 0; fi
    echo "0 passed, 1 failed, 0 skipped"
    exit 1
}
KAFKA_URL=$(cat "$folder/url")
export KAFKA_URL KAFKA_REAL=1 KAFKA_FOLDER=$folder BUSWAY=$build/busway BUSWAYD=$build/buswayd BW_BUILD=$build LD_LIBRARY_PATH=$build
unset BUSWAY_TEST_URL BUSWAY_TEST_TRANSPORT
if [ $# -gt 0 ]; then "$@"; exit; fi

passed=0 failed=0 skipped=0 begun=$SECONDS
logs=$root/build/test-kafka
rm -rf "$logs"
mkdir -p "$logs"

# A part: its name, and the command. What it counts is cmocka's, or its last line; what it printed is shown when it failed.
part() {
    local name=$1 log=$logs/$1.log at=$SECONDS rc p f s word=ok
    shift
    [[ $name =~ ${KAFKA_ONLY:-} ]] || return 0
    "$@" >"$log" 2>&1 </dev/null
    rc=$?
    read -r p f s < <(awk -v rc=$rc '
        /^\[  PASSED  \] [0-9]+ test\(s\)/ { p += $4 }
        /^\[  FAILED  \] [0-9]+ test\(s\)/ { f += $4 }
        /^\[  SKIPPED \] [0-9]+ test\(s\)/ { s += $4 }
        /^[0-9]+ passed, [0-9]+ failed(, [0-9]+ skipped)?$/ { p = $1; f = $3; s = ($6 == "skipped" ? $5 : 0) }
        END { if ((rc != 0 && f == 0) || p + f + s == 0) f++; print p + 0, f + 0, s + 0 }' "$log")
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    [ "$f" -eq 0 ] || word=FAIL
    printf '%-5s %-24s %4d passed, %d failed, %d skipped  %d s\n' $word "$name" "$p" "$f" "$s" $((SECONDS - at))
    grep -E '^say ' "$log" | sed 's/^say /      /'
    grep -oE 'SKIP: .*' "$log" | sort -u | sed 's/^/      /' | head -20
    [ "$f" -eq 0 ] || { grep -vE '^ok |OK \]|RUN  ' "$log" | tail -60 | sed 's/^/    | /'; echo "    (all of it: $log; exit code $rc)"; }
}

conformance_python() {
    if [ -f "$build/bindings/python.missing" ]; then echo "SKIP: Python: $(cat "$build/bindings/python.missing")"; echo "0 passed, 0 failed, 1 skipped"; return; fi
    PYTHONPATH=$build/bindings/python "${BINDINGS_PYTHON:-/usr/bin/python3}" tests/conformance/runner.py --jobs 8 "$KAFKA_URL"
}

# Each scenario is a test of its own, within the one that reads them.
conformance_go() {
    local go out rc
    go=$(command -v go || echo /usr/lib/go-1.19/bin/go)
    [ -x "$go" ] || { echo "SKIP: there is no Go (Debian: golang-go)"; echo "0 passed, 0 failed, 1 skipped"; return; }
    out=$(cd bindings/go && PKG_CONFIG_PATH=$build/pkgconfig GOFLAGS=-buildvcs=false GOTOOLCHAIN=local BUSWAY_TEST_URL=$KAFKA_URL \
        "$go" test -count=1 -parallel 8 -v ./conformance 2>&1)
    rc=$?
    grep -vE '^=== ' <<<"$out"
    echo "$(grep -cE '^ +--- PASS' <<<"$out") passed, $(grep -cE '^ +--- FAIL' <<<"$out") failed, $(grep -cE '^ +--- SKIP' <<<"$out") skipped"
    return $rc
}

for test in "$build"/kafka/test_*; do
    case $test in *.d) continue ;; esac
    part "$(basename "$test")" "$test"
done
part conformance_c "$build/conformance/conformance" --jobs 8 "$KAFKA_URL"
part conformance_python conformance_python
part conformance_go conformance_go
for script in tests/kafka/real_*.sh; do part "$(basename "$script" .sh)" "$script"; done
echo "after $((SECONDS - begun)) s"
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
