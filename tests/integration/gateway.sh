#!/usr/bin/env bash
# The example of an IoT gateway under SIGKILL, its daemon too: the cloud has each reading once.
# test: limit=150
set -uo pipefail
cd "$(dirname "$0")/../.."
build=$(dirname "$(realpath "${BUSWAY:-build/debug/busway}")")
export BUSWAYD=$(realpath "${BUSWAYD:-build/debug/buswayd}")
exec tests/support/gateway_kills.py --seed "${GATEWAY_SEED:-1}" --seconds 4 --readings 400 "$build/examples/gateway"
