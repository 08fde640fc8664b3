#!/usr/bin/env bash
# The list of mutants has not rotted: every old text is in its file exactly once, every named test exists.
set -euo pipefail
cd "$(dirname "$0")/../.."
command -v python3 >/dev/null || { echo "SKIP: the mutants need python3"; exit 77; }
exec python3 tests/mutants/run.py --check
