#!/usr/bin/env bash
# The Python binding with Debian's own Python and the newest that is here: installed by pip into an environment of its own, pytest, mypy --strict.
# test: limit=300 no-asan
set -uo pipefail
cd "$(dirname "$0")/../.."
export BUSWAY_BUILD=$(dirname "$(realpath "${BUSWAYD:-build/debug/buswayd}")")
exec bindings/python/tests/run
