#!/usr/bin/env bash
# One group with a member in C, one in Python and one in Go (make demo-bindings, shortened): each is killed, then the daemon; every record is
# done once and in order, and what a killed member had goes to the others.
# test: limit=150 no-asan
set -uo pipefail
cd "$(dirname "$0")/../.."
passed=0 failed=0 skipped=0
out=$(bindings/demo/run --seconds 6 --records 6000 2>&1)
rc=$?
printf '%s\n' "$out" | grep -v '^SKIP: '
check() { if eval "$2"; then passed=$((passed + 1)); echo "ok    $1"; else failed=$((failed + 1)); echo "FAIL  $1"; fi; }
check "exit code 0" '[ $rc -eq 0 ]'
check "the verdict" 'grep -q "^DEMO PASSED" <<<"$out" && ! grep -q "^FAIL" <<<"$out"'
check "three members were killed and their partitions taken over" '[ "$(grep -c "was killed; its [1-9][0-9]* partitions went to the others" <<<"$out")" = 3 ]'
check "the daemon was killed" 'grep -q "^ok    the daemon was killed; all three had committed again" <<<"$out"'
check "each did some of it" 'grep -qE "^ok    6000 records, each once and in order: [1-9].* by .*, [1-9].* by .*, [1-9].* by " <<<"$out"'
while read -r line; do skipped=$((skipped + 1)); echo "$line"; done < <(grep '^SKIP: ' <<<"$out")
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
