#!/usr/bin/env bash
# The crash suite: CRASH_KILLS kills (300; fewer when CRASH_SECONDS end before) from CRASH_SEED (1), CRASH_ROUND_KILLS a round (400), CRASH_LANES
# rounds at a time. Needs a
# build with kill points. CRASH_PROGRESS=file: what was done is kept there, and an interrupted run goes on. When something fails its
# folder (data, logs of all processes) is kept and named.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${BW_BUILD:-build/debug}
[ -d /dev/shm ] && [ -w /dev/shm ] || { echo "SKIP: /dev/shm is not writable: no place for shared control data"; exit 77; }
BUSWAY=$(realpath "${BUSWAY:-$build/busway}")
BUSWAYD=$(realpath "${BUSWAYD:-$build/buswayd}")
CRASH_POINTS=$(grep -rhoE 'BW_KILL_POINT\("[^"]+"' src | cut -d'"' -f2 | sort -u | tr '\n' ' ')
# Of these other suites kill: groups, commits, transactions, queues, state, compaction, links, mirrors, merges, handovers, promotions.
# At those of readers nobody need be killed (readers write nothing); what others do meanwhile is tried in tests/unit/log/test_read_races.c.
CRASH_POINTS=$(tr ' ' '\n' <<<"$CRASH_POINTS" | grep -vE '^(commit|compact|copy|epoch|fence|group|handover|kafka|links?|member|mend|merge|mirror|promote|queue|read|replica[a-z]*|snapshot|state|tail|txn)\.|\.producers$' | tr '\n' ' ')
# Partitions are put to rest when many files are open: so few may be. Where that is not there yet its points can't be reached.
if [ -f src/broker/opener.c ]; then export CRASH_FILES=300
else CRASH_POINTS=$(tr ' ' '\n' <<<"$CRASH_POINTS" | grep -v '^rest\.' | tr '\n' ' '); fi
CRASH_DIR=$(mktemp -d /tmp/bw-crash.XXXXXX)
CRASH_BUILD=$(cat "$BUSWAYD" "$build/libbusway.so" "$build/crash/crash" | sha256sum | cut -c1-16)
export BUSWAY BUSWAYD CRASH_POINTS CRASH_DIR CRASH_BUILD
kept=no
end() { # also when interrupted: the lanes' folders in memory go
    [ -z "${suite:-}" ] || kill -KILL "$suite" 2>/dev/null || true
    rm -rf "/dev/shm/${CRASH_DIR##*/}".*
    [ $kept = yes ] || rm -rf "$CRASH_DIR"
}
trap end EXIT
trap 'exit 130' INT TERM HUP
${CRASH_RUN:-} "$build/crash/crash" drive &
suite=$!
rc=0
wait $suite || rc=$?
suite=
if [ $rc -ne 0 ]; then
    echo "kept: $CRASH_DIR"
    kept=yes
fi
exit $rc
