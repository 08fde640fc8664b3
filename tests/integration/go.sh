#!/usr/bin/env bash
# The Go binding with each Go that is here (Debian's and the newest): vet, staticcheck where it is, its tests, and under the race detector.
# test: limit=300 no-asan
set -uo pipefail
cd "$(dirname "$0")/../.."
build=$(dirname "$(realpath "${BUSWAYD:-build/debug/buswayd}")")
export PKG_CONFIG_PATH=$build/pkgconfig LD_LIBRARY_PATH=$build BUSWAYD=$build/buswayd GOFLAGS=-buildvcs=false GOTOOLCHAIN=local
ok() { printf 'ok    %s\n' "$1"; tally 1 0 0; }
bad() { printf 'FAIL  %s\n' "$1"; sed 's/^/      | /' | tail -60; tally 0 1 0; }
skip() { printf 'SKIP: %s\n' "$1"; tally 0 0 1; }
tally() { echo "$1 $2 $3" >>"$work/tally"; }
work=$(mktemp -d "${TMPDIR:-/tmp}/go.XXXXXX")
trap 'chmod -R u+w "$work" 2>/dev/null; rm -rf "$work"' EXIT
export TMPDIR=$work GOCACHE=${GOCACHE:-${XDG_CACHE_HOME:-${HOME:-$work}/.cache}/go-build}

# Each version once; the newest last.
declare -A seen=()
gos=()
for go in /usr/lib/go-*/bin/go "$(command -v go || true)"; do
    [ -x "$go" ] || continue
    version=$("$go" env GOVERSION 2>/dev/null) || continue
    [ -z "${seen[$version]:-}" ] || continue
    seen[$version]=1
    if printf 'go1.19\n%s\n' "$version" | sort -VC; then gos+=("$go"); fi
done
if [ ${#gos[@]} -eq 0 ]; then
    echo "SKIP: there is no Go from 1.19 on here (Debian: golang-go)"
    echo "0 passed, 0 failed, 1 skipped"
    exit 0
fi
if [ ! -f "$build/pkgconfig/libbusway.pc" ]; then
    echo "$build/pkgconfig/libbusway.pc is missing: make VARIANT=$(basename "$build") go-env"
    exit 1
fi

cd bindings/go
# tests NAME GO ARGUMENTS…: each test counts. vet in the same command: what cgo makes is made once, which takes longer than most tests.
tests() {
    local name=$1 go=$2 out p f s code
    out=$(mktemp "$work/out.XXXXXX")
    shift 2
    "$go" test -json "$@" ./... >"$out" 2>"$out.err"
    code=$?
    p=$(grep -cE '"Action":"pass".*"Test":"[^"/]*"' "$out")
    f=$(grep -cE '"Action":"fail".*"Test":"[^"/]*"' "$out")
    s=$(grep -cE '"Action":"skip".*"Test":"[^"/]*"' "$out")
    if [ $code -ne 0 ] || [ "$p" -eq 0 ]; then
        tally "$p" $((f > 0 ? f : 1)) "$s"
        printf 'FAIL  %s\n' "$name"
        { cat "$out.err"; sed -nE 's/.*"Output":"(.*)"\}$/\1/p' "$out" | sed 's/\\n$//; s/\\t/\t/g; s/\\u003c/</g; s/\\u003e/>/g; s/\\"/"/g'; } | grep -vE '^=== |^(---|    ---) (PASS|SKIP)' | tail -80 | sed 's/^/      | /'
    else
        tally "$p" 0 "$s"
        printf 'ok    %s: %s tests\n' "$name" "$p"
    fi
    sed -nE 's/.*"Output":".*(SKIP: .*)\\n"\}$/\1/p' "$out" | sort -u | head -20
}
newest=${gos[-1]}
with() { # what is done with one Go
    local go=$1 version out
    version=$("$go" env GOVERSION)
    if [ "$go" != "$newest" ]; then
        tests "vet and tests, $version" "$go" -vet=all -count=1 -parallel 40
        return
    fi
    if ! command -v staticcheck >/dev/null; then skip "staticcheck is not here"
    elif out=$(staticcheck ./... 2>&1); then ok "staticcheck"
    else bad "staticcheck" <<<"$out"; fi
    tests "vet and tests under the race detector, $version" "$go" -vet=all -race -count=1 -parallel 40
}
same=$(./codes.sh ../../include/busway/error.h | "$(dirname "$newest")/gofmt" | diff - codes.go) && ok "codes.go is error.h's" || bad "codes.go is not error.h's: go generate" <<<"$same"
unformatted=$("$(dirname "$newest")/gofmt" -l . 2>&1)
if [ -z "$unformatted" ]; then ok "gofmt"; else bad "gofmt" <<<"$unformatted"; fi
for go in "${gos[@]}"; do # side by side: the tests wait more than they work
    { with "$go" >"$work/with-${go//\//-}" 2>&1; touch "$work/with-${go//\//-}.done"; } &
done
wait
for go in "${gos[@]}"; do
    cat "$work/with-${go//\//-}"
    [ -e "$work/with-${go//\//-}.done" ] || bad "$go: it was ended early" </dev/null
done
awk '{ p += $1; f += $2; s += $3 } END { printf "%d passed, %d failed, %d skipped\n", p, f, s; exit f > 0 || p == 0 }' "$work/tally"
