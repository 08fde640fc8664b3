#!/usr/bin/env bash
# The library and the Python extension, both under AddressSanitizer and UBSan, driven by Python: the conformance suite, the wild uses (views
# after their release, double closes, forks, 64 threads on a producer, exceptions in callbacks, …) and the other tests of the binding.
# make test-python-asan
# test: limit=400 asan-only
set -uo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
build=$(dirname "$(realpath "${BUSWAY:-build/asan/busway}")")
bindings=$build/bindings
python=${BINDINGS_PYTHON:-/usr/bin/python3}
if [ -f "$bindings/python.missing" ]; then echo "SKIP: $(cat "$bindings/python.missing")"; exit 77; fi
work=$(mktemp -d "${TMPDIR:-/tmp}/asan.XXXXXX")
trap 'rm -rf "$work"' EXIT
export TMPDIR=$work BUSWAYD=$build/buswayd PYTHONPATH=$bindings/python LD_LIBRARY_PATH=$build PYTHONMALLOC=malloc
export ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=1:allocator_may_return_null=1:abort_on_error=1:log_path=$work/report
export UBSAN_OPTIONS=print_stacktrace=1
passed=0 failed=0 skipped=0
under() { # what of it is preloaded is a child's as well
    LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so)" setarch "$(uname -m)" -R "$@"
}
count() { # name, output: adds up pytest's or the runner's last line
    local p f s
    p=$(sed -nE 's/.*\b([0-9]+) passed.*/\1/p' <<<"$2" | tail -1) f=$(sed -nE 's/.*\b([0-9]+) failed.*/\1/p' <<<"$2" | tail -1)
    s=$(sed -nE 's/.*\b([0-9]+) skipped.*/\1/p' <<<"$2" | tail -1)
    [ -n "$p" ] || f=$((${f:-0} + 1))
    passed=$((passed + ${p:-0})) failed=$((failed + ${f:-0})) skipped=$((skipped + ${s:-0}))
    echo "$1: ${p:-0} passed, ${f:-0} failed, ${s:-0} skipped"
    [ "${f:-0}" -eq 0 ] || tail -60 <<<"$2"
    grep -oE 'SKIP: .*' <<<"$2"
}
# The net must hold something: a write behind an allocation in C, from Python.
planted=$(under "$python" -c 'import ctypes; p = ctypes.CDLL(None).malloc; p.restype = ctypes.c_void_p; ctypes.memset(p(8), 0, 9)' 2>&1; cat "$work"/report.* 2>/dev/null)
if grep -q 'heap-buffer-overflow' <<<"$planted"; then passed=$((passed + 1)); echo "ok    a planted overflow is reported"
else failed=$((failed + 1)); echo "FAIL  a planted overflow is not reported"; head -20 <<<"$planted"; fi
rm -f "$work"/report.*
if nm -D "$bindings"/python/busway/_busway*.so | grep __asan_init >/dev/null; then passed=$((passed + 1)); echo "ok    the extension is instrumented"
else failed=$((failed + 1)); echo "FAIL  the extension is not instrumented"; fi
count "conformance" "$(under "$python" tests/conformance/runner.py --jobs 4 --transport direct 2>&1 | grep -v '^ok ')"
cd bindings/python
tests=()
for t in tests/test_*.py; do [ "$t" = tests/test_conformance.py ] || tests+=("$t"); done
count "tests of the binding" "$(under "$python" -m pytest -rs -p no:cacheprovider "${tests[@]}" 2>&1)"
cd "$root"
for report in "$work"/report.*; do
    [ -f "$report" ] || continue
    failed=$((failed + 1)); echo "FAIL  the sanitizer reports:"; head -40 "$report"
done
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
