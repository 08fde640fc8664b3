#!/usr/bin/env bash
# The crash suite: CRASH_KILLS kills (300) from CRASH_SEED (1), CRASH_ROUND_KILLS a round (60). Needs a build with kill points.
# When something fails its folder (data, logs of all processes) is kept and named.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${BW_BUILD:-build/debug}
[ -d /dev/shm ] && [ -w /dev/shm ] || { echo "SKIP: /dev/shm is not writable: no place for shared control data"; exit 77; }
BUSWAY=$(realpath "${BUSWAY:-$build/busway}")
BUSWAYD=$(realpath "${BUSWAYD:-$build/buswayd}")
CRASH_POINTS=$(grep -rhoE 'BW_KILL_POINT\("[^"]+"' src | cut -d'"' -f2 | sort -u | tr '\n' ' ')
CRASH_DIR=$(mktemp -d /tmp/bw-crash.XXXXXX)
export BUSWAY BUSWAYD CRASH_POINTS CRASH_DIR
rc=0
${CRASH_RUN:-} "$build/crash/crash" drive || rc=$?
if [ $rc -eq 0 ]; then rm -rf "$CRASH_DIR"; else echo "kept: $CRASH_DIR"; fi
exit $rc
