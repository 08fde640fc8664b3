#!/usr/bin/env bash
# Power loss, page by page: see power.c. The short run ends after BATTERY_IMAGES (24000) images or BATTERY_SECONDS, whichever is first.
# BATTERY_KEEP: a folder for the first image that fails; BATTERY_TRACE=1: what led to it. test: limit=170
exec "${BW_BUILD:-build/debug}/battery/power" "${BATTERY_SEED:-1}" "${BATTERY_IMAGES:-$((${BATTERY_SECONDS:-50} > 50 ? 1000000000000 : 24000))}" \
    "${BATTERY_SECONDS:-50}"
