#!/usr/bin/env bash
# Bit rot: see bitrot.c. One bit of each byte, chosen by BATTERY_SEED; all eight when there is time (BATTERY_SECONDS above 300). BATTERY_WITHIN:
# seconds for changes from all over. test: limit=170
exec "${BW_BUILD:-build/debug}/battery/bitrot" "${BATTERY_SEED:-1}" "$((${BATTERY_SECONDS:-50} > 300 ? 8 : 1))" ${BATTERY_WITHIN:+"$BATTERY_WITHIN"}
