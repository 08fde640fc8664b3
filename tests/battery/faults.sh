#!/usr/bin/env bash
# Calls that fail: a sample of BATTERY_SECONDS (50; 0: every call site) from BATTERY_SEED (1). See faults.c. test: limit=300, no-asan
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${BW_BUILD:-build/debug}
[ -d /dev/shm ] && [ -w /dev/shm ] || { echo "SKIP: /dev/shm is not writable: no place for shared control data"; exit 77; }
BUSWAYD=$(realpath "${BUSWAYD:-$build/buswayd}")
FAULTS_PRELOAD=$(realpath "$build/battery/libcallshim.so")
export BUSWAYD FAULTS_PRELOAD FAULTS_SECONDS=${BATTERY_SECONDS:-50} FAULTS_SEED=${BATTERY_SEED:-1}
exec "$build/battery/faults"
