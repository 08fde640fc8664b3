#!/usr/bin/env bash
# A libbusway of another major version: Python and Go say so, with both numbers and what to do, and do nothing else. Two kinds: the loader is
# given a library that says it is 9.0.0 (it bears the right soname, as a wrong copy or link would), and one whose soname is another.
# test: limit=60 no-asan
set -uo pipefail
cd "$(dirname "$0")/../.."
build=$(dirname "$(realpath "${BUSWAY:-build/debug/busway}")")
bindings=$build/bindings
python=${BINDINGS_PYTHON:-/usr/bin/python3}
major=$(sed -n 's/#define BW_VERSION_MAJOR //p' include/busway/version.h)
work=$(mktemp -d "${TMPDIR:-/tmp}/abi.XXXXXX")
trap 'rm -rf "$work"' EXIT
passed=0 failed=0 skipped=0
export BUSWAYD=$build/buswayd PYTHONPATH=$bindings/python
# says NAME PATTERN TEXT: matches, and is no traceback of something else, no crash
says() {
    if grep -qE -- "$2" <<<"$3" && ! grep -qE 'SIGSEGV|Segmentation|panic:' <<<"$3"; then passed=$((passed + 1)); echo "ok    $1: $(tail -1 <<<"$3" | cut -c1-220)"
    else failed=$((failed + 1)); echo "FAIL  $1: no /$2/ in:"; head -20 <<<"$3" | sed 's/^/      | /'; fi
}
# A library of version $1 with our soname and every function that there is: all of them end the program but bw_version.
fake() {
    nm -D --defined-only "$build/libbusway.so" | awk '$2 == "T" {print $3}' | grep '^bw_' | grep -vx bw_version |
        sed 's/.*/void &(void); void &(void) { __builtin_trap(); }/' >"$work/fake.c"
    echo "const char *bw_version(void); const char *bw_version(void) { return \"$1\"; }" >>"$work/fake.c"
    mkdir -p "$work/$1"
    "${CC:-gcc}" -shared -fPIC -Wl,-soname,libbusway.so."$2" "$work/fake.c" -o "$work/$1/libbusway.so.$2"
}
run_python() { LD_LIBRARY_PATH=$1 LD_PRELOAD=${2:-} "$python" -c 'import busway; print("imported", busway.__version__)' 2>&1; }
run_go() { LD_LIBRARY_PATH=$1 "$bindings/gateway-go" setup "dir:$work/bus" 2>&1; }
fake 9.0.0 "$major"
fake 9.1.0 9
for language in python go; do
    if [ -f "$bindings/$language.missing" ]; then echo "SKIP: $language: $(cat "$bindings/$language.missing")"; skipped=$((skipped + 1)); continue; fi
    if [ $language = python ]; then right=$(run_python "$build"); else right=$(run_go "$build"; echo "imported, $?"); fi
    says "$language and its own library" '^imported' "$right"
    if [ $language = python ]; then
        # the package carries its library: a wrong one in its place
        cp -r "$bindings/python" "$work/package"
        cp "$work/9.0.0/libbusway.so.$major" "$work/package/busway/_lib/libbusway.so.$major" 2>/dev/null
        export PYTHONPATH=$work/package
        says "$language and a library that is 9.0.0" "ImportError.*$major\..*9\.0\.0" "$(run_python "$work/9.0.0")"
        rm -f "$work/package/busway/_lib/libbusway.so.$major"
        says "$language and no library but another major's" "ImportError.*libbusway\.so\.$major" "$(run_python "$work/9.1.0")"
    else
        says "$language and a library that is 9.0.0" "9\.0\.0.*major version.*libbusway $major" "$(run_go "$work/9.0.0")"
        says "$language and no library but another major's" "libbusway\.so\.$major: cannot open shared object" "$(run_go "$work/9.1.0")"
    fi
done
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
