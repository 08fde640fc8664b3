#!/usr/bin/env bash
# What a reader may rely on: no file over 800 lines (over 500 is named), lines of about 130 columns (at most 150) without tabs, each file
# opens with its purpose, no climbing or leftover marks, and the library neither prints nor exits.
set -euo pipefail
cd "$(dirname "$0")/../.."
pass=0 fail=0
rule() { # name, command's output must be empty
    local name=$1 out
    out=$("${@:2}" || true)
    if [ -z "$out" ]; then pass=$((pass + 1)); else echo "$name:"; sed 's/^/  /' <<<"$out"; fail=$((fail + 1)); fi
}
sources() { { find src include tests bench -name '*.[ch]' 2>/dev/null || true; } | LC_ALL=C sort; }
over() { sources | xargs wc -l | awk -v n="$1" -v m="$2" '$2 != "total" && $1 > n && $1 <= m {print $2 ": " $1 " lines"}'; }
long_lines() { sources | xargs awk 'length($0) > 150 {print FILENAME ":" FNR ": " length($0) " columns"}'; }
tabs() { sources | xargs grep -nP '\t' | cut -c1-80; }
purpose() { sources | xargs awk 'FNR == 1 && !/^\/\* / {print FILENAME ": the first line does not say what it is"}'; }
leftovers() { grep -rnE '\b(TODO|FIXME|XXX)\b' src include tests/unit tests/integration tests/crash bench 2>/dev/null; }
prints() { # the library layers write to no stream and never end the process (what spawn.c ends is its child)
    grep -rnE '\b(printf|puts|putchar|perror|exit|_exit|abort)[[:space:]]*\(|\b(stdout|stderr)\b' --include='*.[ch]' \
        src/base src/format src/log src/proto src/client 2>/dev/null |
        grep -vE 'src/base/killpoint\.|src/client/spawn\.c:[0-9]*:[[:space:]]*_exit|BW_PRINTF|^[^:]*:[0-9]*:[[:space:]]*(/?\*|//)|/\*.*(stdout|stderr|exit|abort).*\*/'
}
thread_buffers() { # every thread of every program that loads the library pays for them, nng's own too
    grep -rn '_Thread_local' --include='*.[ch]' src | grep -v '^src/base/'
}
notes=$(over 500 800)
[ -z "$notes" ] || { echo "long files, to be split when next touched:"; sed 's/^/  /' <<<"$notes"; }
rule "files over 800 lines" over 800 1000000
rule "lines over 150 columns" long_lines
rule "tabs in C sources" tabs
rule "files without a purpose" purpose
rule "leftover marks" leftovers
rule "the library prints or exits" prints
rule "thread-local outside base/" thread_buffers
echo "$pass passed, $fail failed"
[ $fail -eq 0 ]
