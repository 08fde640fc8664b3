#!/usr/bin/env bash
# Bit rot in the metadata: see bitrot_meta.c. In CI a third of BATTERY_SECONDS, changes chosen by BATTERY_SEED; every byte and every length when
# there is time (BATTERY_SECONDS above 300), every bit above 3000.
# test: limit=170
seconds=${BATTERY_SECONDS:-50}
if [ "$seconds" -gt 3000 ]; then how=-1; elif [ "$seconds" -gt 300 ]; then how=0; else how=$((seconds / 3 + 1)); fi
exec "${BW_BUILD:-build/debug}/battery/bitrot_meta" "${BATTERY_SEED:-1}" "$how"
