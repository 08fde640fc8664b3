#!/usr/bin/env bash
# The storm of groups: GROUP_KILLS kills (600) from CRASH_SEED (1) of members of a group and of the daemon; see groups.c. Needs a build with
# kill points. When something fails its folder (data, log of all processes) is kept and named.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${BW_BUILD:-build/debug}
[ -d /dev/shm ] && [ -w /dev/shm ] || { echo "SKIP: /dev/shm is not writable: no place for shared control data"; exit 77; }
BUSWAYD=$(realpath "${BUSWAYD:-$build/buswayd}")
GROUPS_DIR=$(mktemp -d /dev/shm/bw-groups.XXXXXX)
export BUSWAYD GROUPS_DIR
rc=0
"$build/crash/crash" groups "${GROUP_KILLS:-600}" "${CRASH_SEED:-1}" || rc=$?
if [ $rc -eq 0 ]; then rm -rf "$GROUPS_DIR"; else echo "kept: $GROUPS_DIR"; fi
exit $rc
