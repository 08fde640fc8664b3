#!/usr/bin/env bash
# Records through C, Python and Go, sent and read in every way: what is the process's own (RssAnon) is, at the end, what it was behind the
# first tenth, but for an allocator's noise: 3 MiB; 4 in a short run, where a collector is not settled yet. MEMORY_RECORDS (300000) in each;
# `make test-memory` takes ten million.
# test: limit=900 no-asan
set -uo pipefail
cd "$(dirname "$0")/../.."
build=$(realpath "${BW_BUILD:-build/release}")
bindings=$build/bindings
records=${MEMORY_RECORDS:-300000}
noise=$([ "$records" -ge 5000000 ] && echo 3072 || echo 4096)
export BUSWAYD=$build/buswayd LD_LIBRARY_PATH=$build PYTHONPATH=$bindings/python
work=$(mktemp -d "${TMPDIR:-/tmp}/memory.XXXXXX")
trap 'rm -rf "$work"' EXIT
passed=0 failed=0 skipped=0
through() { # language, command…
    local language=$1 out first last
    shift
    if [ -f "$bindings/$language.missing" ]; then echo "SKIP: $(cat "$bindings/$language.missing")"; skipped=$((skipped + 1)); return; fi
    if ! out=$("$@" "dir:$work/$language?idle-exit=1s" "$records" 2>&1); then
        failed=$((failed + 1)); echo "FAIL  $language:"; tail -20 <<<"$out"; return
    fi
    first=$(awk '/^at / {print $4; exit}' <<<"$out") last=$(awk '/^at / {n = $4} END {print n}' <<<"$out")
    if [ "$(grep -c '^at ' <<<"$out")" -ge 10 ] && [ "$last" -le $((first + noise)) ]; then
        passed=$((passed + 1)); echo "ok    $language: $records records; $first KiB behind the first tenth, $last KiB at the end"
        grep -E "^at ($((records / 10))|$((records / 10 * 3))|$((records / 10 * 6))|$records) " <<<"$out" | sed 's/^/        /'
    else
        failed=$((failed + 1)); echo "FAIL  $language: the memory grows:"; printf '%s\n' "$out"
    fi
    rm -rf "${work:?}/$language"
}
through c "$bindings/memory-c"
through python "${BINDINGS_PYTHON:-/usr/bin/python3}" bindings/memory/memory.py
through go "$bindings/memory-go"
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
