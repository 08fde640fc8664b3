#!/usr/bin/env bash
# The Go binding with each Go that is here (Debian's and the newest): vet, staticcheck where it is, its tests, and under the race detector.
# test: limit=300 no-asan
set -uo pipefail
cd "$(dirname "$0")/../.."
build=$(dirname "$(realpath "${BUSWAYD:-build/debug/buswayd}")")
export PKG_CONFIG_PATH=$build/pkgconfig LD_LIBRARY_PATH=$build BUSWAYD=$build/buswayd GOFLAGS=-buildvcs=false GOTOOLCHAIN=local
passed=0 failed=0 skipped=0
ok() { passed=$((passed + 1)); printf 'ok    %s\n' "$1"; }
bad() { failed=$((failed + 1)); printf 'FAIL  %s\n' "$1"; sed 's/^/      | /' | tail -60; }
skip() { skipped=$((skipped + 1)); printf 'SKIP: %s\n' "$1"; }
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
# tests NAME GO ARGUMENTS…: each test counts
tests() {
    local name=$1 go=$2 out=$work/out
    shift 2
    "$go" test -json "$@" ./... >"$out" 2>"$out.err"
    local code=$? p f s
    p=$(grep -cE '"Action":"pass".*"Test":"[^"/]*"' "$out")
    f=$(grep -cE '"Action":"fail".*"Test":"[^"/]*"' "$out")
    s=$(grep -cE '"Action":"skip".*"Test":"[^"/]*"' "$out")
    passed=$((passed + p)) skipped=$((skipped + s))
    if [ $code -ne 0 ] || [ "$p" -eq 0 ]; then
        failed=$((failed + (f > 0 ? f : 1)))
        printf 'FAIL  %s\n' "$name"
        { cat "$out.err"; sed -nE 's/.*"Output":"(.*)"\}$/\1/p' "$out" | sed 's/\\n$//; s/\\t/\t/g; s/\\u003c/</g; s/\\u003e/>/g; s/\\"/"/g'; } | grep -vE '^=== |^(---|    ---) (PASS|SKIP)' | tail -80 | sed 's/^/      | /'
    else
        printf 'ok    %s: %s tests\n' "$name" "$p"
    fi
    sed -nE 's/.*"Output":".*(SKIP: .*)\\n"\}$/\1/p' "$out" | sort -u | head -20
}
newest=${gos[-1]}
same=$(./codes.sh ../../include/busway/error.h | "$(dirname "$newest")/gofmt" | diff - codes.go) && ok "codes.go is error.h's" || bad "codes.go is not error.h's: go generate" <<<"$same"
unformatted=$("$(dirname "$newest")/gofmt" -l . 2>&1)
if [ -z "$unformatted" ]; then ok "gofmt"; else bad "gofmt" <<<"$unformatted"; fi
for go in "${gos[@]}"; do
    version=$("$go" env GOVERSION)
    if out=$("$go" vet ./... 2>&1); then ok "vet, $version"; else bad "vet, $version" <<<"$out"; fi
    [ "$go" = "$newest" ] && continue # it has them under the race detector
    tests "tests, $version" "$go" -count=1 -parallel 40
done
if command -v staticcheck >/dev/null; then
    if out=$(staticcheck ./... 2>&1); then ok "staticcheck"; else bad "staticcheck" <<<"$out"; fi
else
    skip "staticcheck is not here"
fi
tests "race detector, $("$newest" env GOVERSION)" "$newest" -race -count=1 -parallel 40
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
