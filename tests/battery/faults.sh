#!/usr/bin/env bash
# System calls that fail: a sample of BATTERY_SECONDS (50; 0: every case) from BATTERY_SEED (1). See faults.c. test: limit=180, no-asan
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${BW_BUILD:-build/debug}
[ -d /dev/shm ] && [ -w /dev/shm ] || { echo "SKIP: /dev/shm is not writable: no place for shared control data"; exit 77; }
BUSWAYD=$(realpath "${BUSWAYD:-$build/buswayd}")
export BUSWAYD FAULTS_SECONDS=${BATTERY_SECONDS:-50} FAULTS_SEED=${BATTERY_SEED:-1}
exec "$build/battery/faults"
