#!/usr/bin/env bash
# The conformance suite in C, as every binding runs it too: on a folder directly and through its daemon, on a daemon's socket and over
# TCP; and once with expectations turned round, where every scenario must fail.
# test: limit=180
set -uo pipefail
cd "$(dirname "$0")/../.."
build=${BW_BUILD:-build/debug}
runner=$build/conformance/conformance
buswayd=$(realpath "${BUSWAYD:-$build/buswayd}")
export BUSWAYD=$buswayd
work=$(mktemp -d "${TMPDIR:-/tmp}/conformance.XXXXXX")
export TMPDIR=$work
passed=0 failed=0 skipped=0 daemon=
finish() { [ -z "$daemon" ] || kill "$daemon" 2>/dev/null; wait 2>/dev/null; rm -rf "$work"; }
trap finish EXIT
unset BUSWAY_TEST_URL BUSWAY_TEST_TRANSPORT

run() { # what, runner's arguments…
    local what=$1 out counts
    shift
    out=$("$runner" --jobs 6 "$@" 2>&1)
    counts=$(tail -1 <<<"$out")
    echo "$what: $counts"
    grep -vE '^ok ' <<<"$out" | sed '$d; s/^skip  \([a-z0-9-]*\) .*SKIP: /SKIP: \1: /' | head -40
    if [[ ! $counts =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed,\ ([0-9]+)\ skipped$ ]]; then failed=$((failed + 1)); return; fi
    passed=$((passed + BASH_REMATCH[1])) failed=$((failed + BASH_REMATCH[2])) skipped=$((skipped + BASH_REMATCH[3]))
}

run "a folder, direct" --transport direct
run "a folder, through its daemon" --transport ipc
mkdir "$work/served" "$work/run"
port=$((20000 + RANDOM % 20000))
printf 'listeners = tcp://127.0.0.1:%d\nanonymous.role = admin\n' "$port" >"$work/tcp.conf"
"$buswayd" --config "$work/tcp.conf" --data-dir "$work/served" --runtime-dir "$work/run" --listen "ipc://$work/served.sock" >"$work/daemon.log" 2>&1 &
daemon=$!
for _ in $(seq 100); do [ -S "$work/served.sock" ] && break; sleep 0.05; done
run "a daemon's socket" "ipc://$work/served.sock"
run "over the network" "tcp://127.0.0.1:$port"

# What has one wrong expectation each.
tests/conformance/mutate.py tests/conformance/scenarios "$work/mutants" --seed "${CONFORMANCE_SEED:-1}"
cp tests/conformance/capabilities.json "$work/"
out=$("$runner" --jobs 6 --transport direct --scenarios "$work/mutants" 2>&1)
counts=$(tail -1 <<<"$out")
all=$(find "$work/mutants" -name '*.json' | wc -l)
echo "with one expectation turned round: $counts"
if [ "$counts" = "0 passed, $all failed, 0 skipped" ]; then passed=$((passed + 1))
else failed=$((failed + 1)); grep -E '^(ok|skip) ' <<<"$out" | sed 's/^/not noticed: /'; fi
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
