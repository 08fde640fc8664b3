#!/usr/bin/env bash
# Partition folders that Apache Kafka 3.9 wrote, dropped into the data directory of a stopped daemon: adopted with their topic id, every
# record read on both paths as Kafka's own reader reads it (tests/compat/kafka-3.9/*/expected), and then written on.
# test: limit=120
source "$(dirname "$0")/common.bash"
data=$work/data run=$work/run sock=$work/run/bus.sock
b() { "$busway" -b "ipc://$sock" "$@"; }
kafka=tests/compat/kafka-3.9

# "record OFFSET TIME KEY VALUE HEADERS", a field in hex, null, - (empty) or #LENGTH:CHECKSUM; records of control batches are not for
# consumers. Comes out as "OFFSET TIME KEY-LENGTH VALUE-LENGTH KEY VALUE HEADERS", what is longer than 64 bytes by its length alone.
expected_records() {
    LC_ALL=C awk '
        function digit(c) { return index("0123456789abcdef", c) - 1 }
        function text(hex,  i, out) {
            out = ""
            for (i = 1; i < length(hex); i += 2) out = out sprintf("%c", digit(substr(hex, i, 1)) * 16 + digit(substr(hex, i + 1, 1)))
            return out
        }
        function size(f) { return f == "null" ? -1 : f == "-" ? 0 : f ~ /^#/ ? substr(f, 2, index(f, ":") - 2) : length(f) / 2 }
        function shown(f) { return f == "null" || f == "-" || f ~ /^#/ ? "" : text(f) }
        function headers(f,  i, n, out, pair) {
            if (f == "none") return ""
            n = split(f, all, ",")
            out = ""
            for (i = 1; i <= n; i++) {
                split(all[i], pair, "=")
                out = out (i > 1 ? "," : "") pair[1] "=" (pair[2] == "null" ? "NULL" : shown(pair[2]))
            }
            return out
        }
        $1 == "batch" { control = $8 ~ /c/ }
        $1 == "record" && !control { print $2, $3, size($4), size($5), shown($4) "|" shown($5) "|" headers($6) }' "$1"
}
read_records() { # what consume prints, with long fields left out
    b "$@" -e -f '%o %T %K %S %k|%s|%h\n' | LC_ALL=C awk '
        { head = $1 " " $2 " " $3 " " $4; rest = substr($0, length(head) + 2); k = $3 < 0 ? 0 : $3; v = $4 < 0 ? 0 : $4
          print head, (k > 64 ? "" : substr(rest, 1, k)) "|" (v > 64 ? "" : substr(rest, k + 2, v)) "|" substr(rest, k + v + 3) }'
}

start_daemon "$data" "$run"
echo ours | b produce own
stop_daemon
count=0
for folder in "$kafka"/*-0; do
    cp -r "$folder" "$data/"
    rm "$data/$(basename "$folder")/expected"
    count=$((count + 1))
done
same "there are folders of Kafka's" "$count" 7
# Compaction also leaves gaps between segments: two folders' logs make one. And one where a segment in the gap was set aside as corrupt.
for folder in joined aside; do
    mkdir "$data/$folder-0"
    cp "$kafka/compacted-0/00000000000000000000.log" "$kafka/codec-none-0/00000000000000000100.log" "$data/$folder-0/"
done
cp "$kafka/codec-none-0/00000000000000000100.log" "$data/aside-0/00000000000000000050.log.corrupt"
start_daemon "$data" "$run"
both=$(expected_records "$kafka/compacted-0/expected"; expected_records "$kafka/codec-none-0/expected")
for transport in direct ipc; do
    same "a gap between segments is read over, $transport" "$(read_records --transport $transport consume joined)" "$both"
    fails "but not where a segment was set aside, $transport" 4 'missing from the log.*set aside' \
        "$busway" -b "ipc://$sock" --transport $transport consume aside -e
    same "what lies behind it is there, $transport" "$(b --transport $transport consume aside -o 100 -e | wc -l)" 38
done
for folder in "$kafka"/*-0; do
    topic=$(basename "$folder" -0)
    id=$(sed -n 's/^topic_id: //p' "$folder/partition.metadata")
    same "$topic: the topic id is kept" "$(json "$(b --json topic describe "$topic")" id)" "$id"
    expected=$(expected_records "$folder/expected")
    records=$(wc -l <<<"$expected")
    same "$topic: all $records records, direct" "$(read_records --transport direct consume "$topic")" "$expected"
    same "$topic: all $records records, through the socket" "$(read_records --transport ipc consume "$topic")" "$expected"
done
same "ours is there as before" "$(b consume own -e)" ours

# Written on: offsets go on where Kafka's end, at an epoch that is not lower.
for folder in "$kafka"/*-0; do
    topic=$(basename "$folder" -0)
    last=$(awk '$1 == "batch" {n = $3} END {print n}' "$folder/expected")
    seq 1 3 | b --transport direct produce "$topic"
    report=$(echo 4 | b --transport ipc produce "$topic" --report)
    same "$topic: its next offset" "$(json "$report" offset)" $((last + 4))
    same "$topic: read on" "$(b consume "$topic" -o $((last + 1)) -e | xargs)" "1 2 3 4"
done
stop_daemon KILL
start_daemon "$data" "$run"
for folder in "$kafka"/*-0; do
    topic=$(basename "$folder" -0)
    same "$topic: all of it after a kill" "$(read_records consume "$topic" | head -n -4)" "$(expected_records "$folder/expected")"
done
stop_daemon
same "verify finds nothing wrong" "$("$busway" verify "$data" 2>&1 | tail -1 | grep -oE '[0-9]+ errors')" "0 errors"
has "the daemon said what it adopted" "$(cat "$work/daemon.log")" 'adopted.*topic=codec-zstd'
finish
