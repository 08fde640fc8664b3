#!/usr/bin/env bash
# dir: buses from outside: daemons killed at any moment while processes work, a first record from nothing, many processes at once.
# Times are printed, not judged: see tests/embedded/README.md.
# test: limit=170 no-asan
source "$(dirname "$0")/common.bash"
program=$build/embedded/embedded
run_case() { # what, argument…
    local name=$1 out rc
    shift
    out=$("$program" "$@" 2>&1); rc=$?
    printf '%s\n' "$out"
    if [ $rc -eq 0 ]; then ok "$name"; else bad "$name: exit status $rc" "$(grep -A3 FAIL <<<"$out")"; fi
}
run_case "60 kills" kills 60 "${EMBEDDED_SEED:-1}"
run_case "20 times a system daemon takes the folder" over 20 "${EMBEDDED_SEED:-1}"
run_case "25 kills of who carries the coordinator" self 25 "${EMBEDDED_SEED:-1}"
run_case "first records" first 5
run_case "50 processes on a new folder" race 50
finish
