#!/usr/bin/env bash
# The exported symbols of the shared library are exactly the functions that the public headers declare with BW_API, and each
# public header compiles alone, as C11 and as C++.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${BW_BUILD:-build/debug}
pass=0 fail=0
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# Declarations may span lines; the name is the last identifier before the first parenthesis.
cat include/busway/*.h | sed -e 's,/\*.*\*/,,' | tr '\n' ' ' | grep -oE 'BW_API [^;(]*\(' |
    sed -E 's/.*[ *]([a-z_0-9]+)\($/\1/' | grep '^bw_' | LC_ALL=C sort -u >"$tmp/declared"
nm -D --defined-only "$build/libbusway.so" | awk '$2 ~ /^[A-Z]$/ && $2 != "A" {print $3}' |
    grep -vE '^(__asan|__odr_asan|__ubsan|_fini$|_init$)' | sed 's/@.*//' | LC_ALL=C sort -u >"$tmp/exported"
if diff -u --label headers --label "$build/libbusway.so" "$tmp/declared" "$tmp/exported"; then
    pass=$((pass + 1))
else
    echo "exports differ from the headers (- declared and missing, + exported and not declared)"
    fail=$((fail + 1))
fi
# The comparison itself must be able to fail.
if [ "$(wc -l <"$tmp/declared")" -lt 40 ]; then echo "only $(wc -l <"$tmp/declared") declarations found: the parser is wrong"; fail=$((fail + 1)); fi

soname=$(readelf -d "$build/libbusway.so" | sed -n 's/.*SONAME.*\[\(.*\)\]/\1/p')
major=$(sed -n 's/#define BW_VERSION_MAJOR //p' include/busway/version.h)
if [ "$soname" = "libbusway.so.$major" ]; then pass=$((pass + 1)); else echo "soname is $soname"; fail=$((fail + 1)); fi

only=$(nm -D --defined-only "$build/libbusway-coordinator.so" | awk '$2 ~ /^[A-Z]$/ && $2 != "A" {print $3}' |
    grep -vE '^(__asan|__odr_asan|__ubsan|_fini$|_init$)' | sed 's/@.*//' | xargs)
if [ "$only" = bw_coordinator_entry ]; then pass=$((pass + 1)); else echo "libbusway-coordinator.so exports: $only"; fail=$((fail + 1)); fi

for header in include/busway/*.h; do
    name=busway/$(basename "$header")
    printf '#include <%s>\n' "$name" >"$tmp/alone.c"
    cp "$tmp/alone.c" "$tmp/alone.cc"
    c=(${CC:-gcc} -std=c11 -pedantic -Wall -Wextra -Werror -Wstrict-prototypes -Iinclude -fsyntax-only "$tmp/alone.c")
    if "${c[@]}"; then pass=$((pass + 1)); else echo "$name does not compile alone as C11"; fail=$((fail + 1)); fi
    if command -v g++ >/dev/null; then cxx=g++; elif command -v clang++ >/dev/null; then cxx=clang++; else cxx=; fi
    if [ -z "$cxx" ]; then
        echo "SKIP: $name as C++: neither g++ nor clang++ here"; skip=$((${skip:-0} + 1))
    elif "$cxx" -std=c++11 -pedantic -Wall -Wextra -Werror -Iinclude -fsyntax-only "$tmp/alone.cc"; then
        pass=$((pass + 1))
    else
        echo "$name does not compile alone as C++"; fail=$((fail + 1))
    fi
done
echo "$pass passed, $fail failed${skip:+, $skip skipped}"
[ $fail -eq 0 ]
