#!/usr/bin/env bash
# Includes go only downwards through the layers, never through ../ and never into the programs.
# A file of one layer may include its own layer, the layers listed for it, and the public headers.
# usage: includes.sh [root]; checks itself first on a seeded tree with one violation of each kind.
set -euo pipefail
here=$(cd "$(dirname "$0")/../.." && pwd)

allowed() { # the layers that a layer may include, besides itself
    case $1 in
        base)      echo "" ;;
        format)    echo "base" ;;
        log)       echo "base format" ;;
        meta)      echo "base format log" ;;
        proto)     echo "base format log" ;;
        transport) echo "base format log proto" ;;
        broker)    echo "base format log meta proto transport" ;;
        listen)    echo "base format log meta proto transport broker" ;;
        # state/ knows LMDB beside meta/, since meta's store is the daemon's, with a journal and a copy; state/ has the applications'.
        state)     echo "base format log" ;;
        # A link talks to its peer as a client does.
        link)      echo "base format log meta proto transport broker client" ;;
        client)    echo "base format log proto transport state" ;;
        daemon)    echo "base format log meta proto transport broker listen link" ;;
        cli|demo|examples) echo "" ;;
        *)         return 1 ;;
    esac
}

check_tree() { # prints violations, returns 1 when there are any
    local root=$1 bad=0 layer ok table="" line
    for layer in "$root"/src/*/; do
        layer=$(basename "$layer")
        ok=$(allowed "$layer") && table+="$layer $layer $ok;"
    done
    grep -rnE '^[[:space:]]*#[[:space:]]*include' --include='*.[ch]' "$root/src" | awk -v root="$root/src/" -v table="$table" '
        BEGIN {
            for (n = split(table, rows, ";"); n > 0; n--) {
                words = split(rows[n], word, " ")
                if (words) known[word[1]] = 1
                for (w = 2; w <= words; w++) may[word[1], word[w]] = 1
            }
        }
        function say(text) { print file ": " text; bad = 1 }
        {
            file = $0; sub(/:.*/, "", file)
            layer = substr(file, length(root) + 1); sub(/\/.*/, "", layer)
            target = $0; sub(/^.*#[[:space:]]*include[[:space:]]*/, "", target)
            quoted = substr(target, 1, 1) == "\""
            target = substr(target, 2); sub(/[">].*/, "", target)
            if (target ~ /\.\.\//) { say("climbs with ../: " target); next }
            if (target ~ /^busway\//) next
            if (!(layer in known)) { say("unknown layer " layer); next }
            if (!quoted) next # system headers
            if (target !~ /^[a-z_]+\//) { say("name the layer in the include: \"" target "\""); next }
            below = target; sub(/\/.*/, "", below)
            if (!((layer, below) in may)) say(layer " may not include " target)
        }
        END { exit bad }' || bad=1
    # Only meta/ and state/ know LMDB, only transport/ knows nng.
    while IFS= read -r line; do
        case ${line#"$root"/src/} in meta/*|state/*) ;; *) echo "${line%%:*}: only meta/ and state/ include lmdb.h"; bad=1 ;; esac
    done < <(grep -rn '#include <lmdb.h>' --include='*.[ch]' "$root/src" || true)
    while IFS= read -r line; do
        case ${line#"$root"/src/} in transport/*) ;; *) echo "${line%%:*}: only transport/ includes nng"; bad=1 ;; esac
    done < <(grep -rn '#include <nng/' --include='*.[ch]' "$root/src" || true)
    return $bad
}

if [ $# -gt 0 ]; then check_tree "$1"; exit; fi

pass=0 fail=0
seed=$(mktemp -d)
trap 'rm -rf "$seed"' EXIT
mkdir -p "$seed"/src/{base,format,log,client,cli,broker}
expect_found() { # file, text that seeds the violation
    printf '%s\n' "$2" >"$seed/src/$1"
    if check_tree "$seed" >/dev/null; then echo "not found: $2 in $1"; fail=$((fail + 1)); else pass=$((pass + 1)); fi
    rm "$seed/src/$1"
}
expect_found base/a.c '#include "log/append.h"'
expect_found log/a.c '#include "../base/os.h"'
expect_found client/a.c '# include "broker/broker.h"'
expect_found cli/a.c '#include "base/os.h"'
expect_found format/a.c '#include "codec.h"'
expect_found broker/a.c '#include <lmdb.h>'
printf '#include "base/os.h"\n#include <stdio.h>\n#include <busway/error.h>\n' >"$seed/src/log/ok.c"
if check_tree "$seed"; then pass=$((pass + 1)); else fail=$((fail + 1)); fi
if check_tree "$here"; then pass=$((pass + 1)); else fail=$((fail + 1)); fi
echo "$pass passed, $fail failed"
[ $fail -eq 0 ]
