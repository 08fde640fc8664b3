#!/usr/bin/env bash
# Power loss at the level of blocks, under ext4: see block.h. 500 images (BATTERY_BLOCK_IMAGES), or as many as there is time for when
# BATTERY_SECONDS is over 60 or BATTERY_WITHIN (seconds) is given. BATTERY_BLOCK_PROGRESS: a file, so that a later run goes on where this one ends. BATTERY_KEEP: a folder
# for the recording of the first image that fails. test: limit=280
seconds=${BATTERY_SECONDS:-50} images=${BATTERY_BLOCK_IMAGES:-500} program=${BW_BUILD:-build/debug}/battery/block
[ -x "$program" ] || { echo "SKIP: block-level power loss: libfuse 3 (libfuse3-dev) is not there"; exit 77; }
if [ -n "${BATTERY_WITHIN:-}" ]; then images=1000000000000 seconds=$BATTERY_WITHIN
elif [ "$seconds" -gt 60 ]; then images=1000000000000; else seconds=240; fi
exec "$program" run "${BATTERY_SEED:-1}" "$images" "$seconds" ${BATTERY_BLOCK_PROGRESS:+"$BATTERY_BLOCK_PROGRESS"}
