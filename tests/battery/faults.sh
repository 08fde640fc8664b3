#!/usr/bin/env bash
# Calls that fail: a sample of BATTERY_SECONDS (50; 0: every call site) from BATTERY_SEED (1). FAULTS_PROGRESS: a file, so that a later run
# goes on where this one ends. See faults.c. test: limit=300, no-asan
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${BW_BUILD:-build/debug}
[ -d /dev/shm ] && [ -w /dev/shm ] || { echo "SKIP: /dev/shm is not writable: no place for shared control data"; exit 77; }
BUSWAYD=$(realpath "${BUSWAYD:-$build/buswayd}")
FAULTS_PRELOAD=$(realpath "$build/battery/libcallshim.so")
export BUSWAYD FAULTS_PRELOAD FAULTS_SECONDS=${BATTERY_SECONDS:-50} FAULTS_SEED=${BATTERY_SEED:-1}
FAULTS_BUILD=$(cat "$BUSWAYD" "$build/libbusway.so" "$build/battery/faults" "$FAULTS_PRELOAD" | sha256sum | cut -c1-16)
export FAULTS_BUILD
exec "$build/battery/faults"
