#!/usr/bin/env bash
# Busway's segments before Apache Kafka 3.9's own tools, and Kafka's classes making today the segments that lie in kafka-3.9/.
# test: limit=600
#
# Needs java (11 or later), and Kafka's jars: from $KAFKA_JARS, or from build/compat/jars, where maven puts them the first time
# (Maven Central, about 100 MB). What is missing makes the tests skip, with the reason.
# usage: run.sh [FOLDER…]  also dumps every .log, .index and .timeindex in these partition folders (trimmed segments: sealed ones or
# those of a bus that was stopped)
set -uo pipefail
cd "$(dirname "$0")/../.."
folders=("$@")
out=build/compat
mkdir -p "$out"
pass=0 fail=0
ok() { pass=$((pass + 1)); echo "ok    $1"; }
bad() { fail=$((fail + 1)); echo "FAIL  $1"; [ -z "${2:-}" ] || sed 's/^/    | /' "$2" | cut -c1-200 | head -"${3:-20}"; }
done_() { echo "$pass passed, $fail failed${1:+, $1 skipped}"; [ $fail -eq 0 ]; exit; }
skip() { echo "SKIP: $1"; done_ 1; }

command -v java >/dev/null || skip "java is not installed (apt-get install default-jre-headless)"
jars=${KAFKA_JARS:-$out/jars}
if ! ls "$jars"/kafka_2.13-*.jar >/dev/null 2>&1; then
    [ -z "${KAFKA_JARS:-}" ] || skip "no kafka_2.13 jar in KAFKA_JARS=$KAFKA_JARS"
    command -v mvn >/dev/null || skip "Kafka's jars are not in $jars, and there is no maven to fetch them"
    echo "fetching Kafka 3.9.0 from Maven Central into $jars"
    timeout 400 mvn -q -B -f tests/compat/pom.xml dependency:copy-dependencies -DoutputDirectory="$PWD/$jars" >"$out/mvn.log" 2>&1 ||
        { tail -3 "$out/mvn.log"; rm -rf "$jars"; skip "maven could not fetch Kafka's jars ($out/mvn.log)"; }
fi
cat >"$out/log4j.properties" <<'EOF'
log4j.rootLogger=ERROR, stderr
log4j.appender.stderr=org.apache.log4j.ConsoleAppender
log4j.appender.stderr.target=System.err
log4j.appender.stderr.layout=org.apache.log4j.PatternLayout
EOF
kafka() { java -Xmx512m -Dlog4j.configuration="file:$PWD/$out/log4j.properties" -cp "$jars/*" "$@"; }

# What Kafka's tool says when it finds something wrong; it ends with 0 even then.
complaints='isvalid: false|invalid bytes|Found |Mismatches|corrupt|mismatch|out of order|Exception|CorruptRecord|not be found'

dump() { # file, result file: 0 when Kafka's tool reads all of it without a complaint
    local options=()
    case $1 in *.log) options=(--deep-iteration --print-data-log) ;; esac
    kafka kafka.tools.DumpLogSegments "${options[@]}" --max-message-size 10485760 --files "$1" >"$2" 2>"$2.err" || return 1
    # Record lines hold data, which may say anything.
    { grep -av '^| offset:' "$2"; cat "$2.err"; } | grep -aiE "$complaints" >"$2.complaints" && return 1
    return 0
}

# -- 1: what Busway writes, Kafka reads ---------------------------------------------------------------------------------------
if ! make -s -j2 build/release/libbusway.a >"$out/build.log" 2>&1 ||
    ! ${CC:-gcc} -std=c11 -O1 -g -D_GNU_SOURCE -Isrc -Iinclude tests/compat/make_segment.c build/release/libbusway.a -llz4 -lzstd -lsnappy \
        -lz -lisal -ljansson -pthread -o "$out/make_segment" >>"$out/build.log" 2>&1; then
    bad "build of make_segment" "$out/build.log"
    done_
fi
rm -rf "$out/segments" && mkdir -p "$out/segments"
"$out/make_segment" "$out/segments" || bad "make_segment"
for codec in none gzip snappy lz4 zstd; do
    log=$(echo "$out/segments/$codec"/*.log)
    result=$out/segments/$codec/dump
    if ! dump "$log" "$result"; then
        bad "dump of the $codec segment" "$([ -s "$result.complaints" ] && echo "$result.complaints" || echo "$result.err")"
        continue
    fi
    if [ -s "$out/segments/$codec/expected" ] && grep -a '^| offset:' "$result" | cmp -s - "$out/segments/$codec/expected"; then
        ok "Kafka reads all $(wc -l <"$out/segments/$codec/expected") records of the $codec segment as they were written"
    else
        grep -a '^| offset:' "$result" | diff - "$out/segments/$codec/expected" >"$result.diff"
        bad "Kafka reads other records in the $codec segment than were written" "$result.diff"
    fi
    for index in "${log%.log}.index" "${log%.log}.timeindex"; do
        result=$out/segments/$codec/$(basename "$index").dump
        if ! dump "$index" "$result"; then
            bad "dump of the $codec segment's $(basename "$index")" "$([ -s "$result.complaints" ] && echo "$result.complaints" || echo "$result.err")"
        elif [ -s "$index" ] && ! grep -qaE '^(offset|timestamp): ' "$result"; then
            bad "no entry in $(basename "$index")" "$result"
        else
            ok "Kafka finds the $codec segment's $(basename "$index") sound"
        fi
    done
done
# Markers of transactions, and the index of aborted ones.
txn=$out/segments/txn/00000000000000000000
if ! dump "$txn.log" "$txn.log.dump" || ! dump "$txn.txnindex" "$txn.txnindex.dump"; then
    bad "dump of markers and their index" "$([ -s "$txn.txnindex.dump.complaints" ] && echo "$txn.txnindex.dump.complaints" || echo "$txn.log.dump.err")"
elif { grep -a '^| offset:' "$txn.log.dump"; grep -a '^version:' "$txn.txnindex.dump"; } | sort | cmp -s - <(sort "$out/segments/txn/expected"); then
    ok "Kafka reads all $(wc -l <"$out/segments/txn/expected") markers and entries of aborted transactions as they were written"
else
    bad "Kafka reads other markers or aborted transactions than were written" "$txn.txnindex.dump"
fi
# The comparison must be able to fail: one byte of a record changed is a checksum that Kafka misses.
cp "$out"/segments/none/*.log "$out/segments/damaged-$(basename "$out"/segments/none/*.log)"
mkdir -p "$out/segments/damaged" && mv "$out"/segments/damaged-*.log "$out/segments/damaged/00000000000000000000.log"
printf 'X' | dd of="$out/segments/damaged/00000000000000000000.log" bs=1 seek=200000 conv=notrunc 2>/dev/null
if dump "$out/segments/damaged/00000000000000000000.log" "$out/segments/damaged/dump"; then bad "a damaged segment passes: this test sees nothing"
else ok "Kafka complains about a damaged segment"; fi

# -- 2: what Kafka writes: its classes make the committed segments again --------------------------------------------------------
rm -rf "$out/kafka-3.9"
if kafka tests/compat/MakeSegment.java "$out/kafka-3.9" >"$out/make.log" 2>&1; then
    for expected in tests/compat/kafka-3.9/*/expected; do
        name=$(basename "$(dirname "$expected")")
        if cmp -s "$expected" "$out/kafka-3.9/$name/expected"; then ok "Kafka's classes make $name as it was committed"
        else diff "$expected" "$out/kafka-3.9/$name/expected" >"$out/make.diff"; bad "Kafka's classes make another $name" "$out/make.diff"; fi
    done
else
    bad "MakeSegment.java" "$out/make.log"
fi

# -- 3: partition folders given on the command line -----------------------------------------------------------------------------
for folder in ${folders[@]+"${folders[@]}"}; do
    mkdir -p "$out/given/$(basename "$folder")"
    for file in "$folder"/*.log "$folder"/*.index "$folder"/*.timeindex; do
        [ -s "$file" ] || continue # the tool dies of an empty index, its own too
        result=$out/given/$(basename "$folder")/$(basename "$file").dump
        if dump "$file" "$result"; then ok "Kafka reads $file: $(grep -ac '^| offset:\|^offset: \|^timestamp: ' "$result") entries"
        else bad "dump of $file" "$([ -s "$result.complaints" ] && echo "$result.complaints" || echo "$result.err")"; fi
    done
done
done_
