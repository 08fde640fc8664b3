#!/usr/bin/env bash
# Power loss, page by page: see power.c. 24000 images (BATTERY_IMAGES), or as many as there is time for when BATTERY_SECONDS is over 60
# or BATTERY_WITHIN (seconds) is given.
# BATTERY_PROGRESS: a file, so that a later run goes on where this one ends. BATTERY_KEEP: a folder for the first image that fails;
# BATTERY_TRACE=1: what led to it. test: limit=170
seconds=${BATTERY_SECONDS:-50} images=${BATTERY_IMAGES:-24000}
power=${BW_BUILD:-build/debug}/battery/power
if [ -n "${BATTERY_WITHIN:-}" ]; then images=1000000000000 seconds=$BATTERY_WITHIN
elif [ "$seconds" -gt 60 ]; then images=1000000000000; else seconds=150; fi
exec "$power" "${BATTERY_SEED:-1}" "$images" "$seconds" ${BATTERY_PROGRESS:+"$BATTERY_PROGRESS"}
