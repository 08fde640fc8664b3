#!/usr/bin/env bash
# Races: the engine's threads on one mapping run clean under ThreadSanitizer, and a seeded race is reported.
set -uo pipefail
cd "$(dirname "$0")/../.."
build=${BW_BUILD:-build/tsan}
[ -w /dev/shm ] || { echo "SKIP: /dev/shm is not writable"; exit 77; }
pass=0 fail=0
export TSAN_OPTIONS="halt_on_error=1 exitcode=66 second_deadlock_stack=1 $*"
out=$(timeout 200 "$build/tsan/test_mapping" 2>&1)
rc=$?
if [ $rc -eq 0 ]; then echo "ok   clean: $out"; pass=$((pass + 1))
else echo "FAIL exit code $rc"; echo "$out" | head -60; fail=$((fail + 1)); fi
out=$(timeout 200 "$build/tsan/test_mapping_seeded" 2>&1)
rc=$?
rm -rf /tmp/bw-tsan-?????? /dev/shm/bw-tsan-??????
if [ $rc -eq 66 ] && grep -q 'WARNING: ThreadSanitizer: data race' <<<"$out"; then
    echo "ok   the seeded race is reported: $(grep -m1 -oE '#[0-9] [a-z_]+ .*append\.c:[0-9]+' <<<"$out")"
    pass=$((pass + 1))
else
    echo "FAIL the seeded race is not reported (exit code $rc)"; echo "$out" | head -40; fail=$((fail + 1))
fi
echo "$pass passed, $fail failed"
[ $fail -eq 0 ]
