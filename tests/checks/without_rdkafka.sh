#!/usr/bin/env bash
# A build without librdkafka's header (make WITH_RDKAFKA=): all but client/kafka/ links, kafka:// gives the named error, and what needs it is
# skipped by name. Links the objects of the build that is there anew; only client/backend.c is compiled.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${BW_BUILD:-build/debug}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
pass=0 fail=0
ok() { pass=$((pass + 1)); }
bad() { fail=$((fail + 1)); echo "FAIL  $1"; }

# The Makefile's own words, with nothing built: which files, which libraries, how it compiles. B: nothing of it is there yet.
words() { make --no-print-directory -n VARIANT=debug WITH_RDKAFKA= B="$tmp/b" "$tmp/b/busway" 2>/dev/null; }
words >"$tmp/words"
grep -q 'client/kafka/' "$tmp/words" && bad "make WITH_RDKAFKA= compiles client/kafka/" || ok
compile=$(grep -E -- "-c src/client/backend.c " "$tmp/words" | sed 's/ -MMD -MP//')
link=$(grep -E "^[^ ]+ .* -o $tmp/b/busway\$" "$tmp/words")
[ -n "$compile" ] && [ -n "$link" ] || { echo "make WITH_RDKAFKA= -n says nothing of backend.c or busway"; exit 1; }
grep -q BW_WITH_RDKAFKA <<<"$compile" && bad "client/backend.c is told of librdkafka" || ok

mkdir -p "$tmp/b/obj/client" "$tmp/b/kafka"
eval "$compile"
objects=$(sed -nE 's,^ar rcs [^ ]*/libbusway.a (.*),\1,p' "$tmp/words" | tr ' ' '\n' | grep -v "/client/backend.o$" | sed "s,^$tmp/b/,$build/,")
if ar rcs "$tmp/b/libbusway.a" $objects "$tmp/b/obj/client/backend.o" && eval "$(sed -E "s,$tmp/b/obj/cli/,$build/obj/cli/,g" <<<"$link")"; then ok
else bad "it does not link"; fi
text=$("$tmp/b/busway" -b kafka://127.0.0.1:1 status 2>&1) && bad "kafka:// works without librdkafka" || ok
grep -q 'kafka:// needs librdkafka.*install librdkafka-dev' <<<"$text" && ok || bad "kafka:// does not name librdkafka: $text"
text=$(BW_BUILD=$tmp/b BUSWAY=$tmp/b/busway tests/integration/kafka.sh 2>&1) || bad "tests/integration/kafka.sh: $text"
grep -q '^SKIP: .*librdkafka' <<<"$text" && ok || bad "tests/integration/kafka.sh does not say what it skips: $text"
echo "$pass passed, $fail failed"
[ $fail -eq 0 ]
