#!/usr/bin/env bash
# The demonstration, shortened: kill and new life of the producer, both readers, verdict, nothing left behind.
# test: limit=90
set -uo pipefail
cd "$(dirname "$0")/../.."
demo=$(dirname "$(realpath "${BUSWAY:-build/debug/busway}")")/busway-demo
export BUSWAYD=$(realpath "${BUSWAYD:-build/debug/buswayd}")
passed=0 failed=0
check() { if eval "$2"; then passed=$((passed + 1)); echo "ok    $1"; else failed=$((failed + 1)); echo "FAIL  $1"; fi; }
out=$("$demo" --seconds 3 2>&1)
rc=$?
printf '%s\n' "$out"
check "exit code 0" '[ $rc -eq 0 ]'
check "the producer was killed and came back" 'grep -q "killed with SIGKILL after [1-9]" <<<"$out" && grep -q "goes on behind them" <<<"$out"'
check "the verdict" 'grep -q "^DEMO PASSED" <<<"$out" && ! grep -q "FAIL" <<<"$out"'
check "plain text" '! grep -q $'"'\033'"' <<<"$out"'
check "nothing is left behind" '! compgen -G "${TMPDIR:-/tmp}/busway-demo.*" >/dev/null'
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
