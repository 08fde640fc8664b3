#!/usr/bin/env bash
# Clocks that jump: the daemon and producers a second to ten years off, with restarts between. Nothing is purged before its time,
# segments roll as they should, look-ups by time find what is there. test: limit=170, no-asan
source "$(dirname "$0")/../integration/common.bash"
[ -w /dev/shm ] || skip_all "/dev/shm is not writable: no place for shared control data"
run=$(mktemp -d /dev/shm/bwt.XXXXXX)
cleanup_commands+=("rm -rf $run")
url=ipc://$run/bus.sock
second=1000 hour=3600000 day=86400000
year=$((365 * day))
b() { timeout 20 "$busway" -b "$url" "$@"; }
start_at() { # OFFSET_MS
    local was=${BUSWAY_CLOCK_OFFSET_MS:-}
    export BUSWAY_CLOCK_OFFSET_MS=$1
    start_daemon "$data" "$run" --set log.retention.check.interval.ms=100 --set log.flush.interval.ms=100
    if [ -n "$was" ]; then export BUSWAY_CLOCK_OFFSET_MS=$was; else unset BUSWAY_CLOCK_OFFSET_MS; fi
}
segments() { find "$data/$1-0" -name '*.log' | wc -l; }
count() { b consume "$1" -e 2>&1 | wc -l; }
produce() { # TOPIC OFFSET_MS HOW WORD: 40 records of 200 bytes, in batches of a few
    seq -f "$4 %03g $(printf '%0190d' 0)" 40 | BUSWAY_CLOCK_OFFSET_MS=$2 timeout 20 "$busway" -b "$url" --transport "$3" produce "$1" \
        --batch-bytes 1000 2>&1
}
ms_now() { echo $((${EPOCHREALTIME/./} / 1000)); }

for off in $second -$second $hour -$hour $((8 * day)) -$((8 * day)) $((10 * year)) -$((10 * year)); do
    data=$work/data$off
    start_at 0 || continue
    for t in week direct ipc; do b topic create $t -c segment.bytes=4096 -c max.message.bytes=2048 -c file.delete.delay.ms=0 >/dev/null; done
    b topic create one -c segment.ms=3600000 >/dev/null
    produce week 0 direct before
    produce one 0 direct before >/dev/null
    before=$(segments week)
    [ "$before" -ge 3 ] || bad "$off: there are several segments" "$before"
    # Producers that are off; their daemon is not.
    if [ "$off" -gt 0 ]; then # a producer that says its records are old has them deleted by their age, as in Kafka
        produce direct "$off" direct ahead
        produce ipc "$off" ipc ahead
        sleep 0.4
        same "$off: what a producer that is ahead wrote is kept" "$(count direct) $(count ipc)" "40 40"
    fi
    stop_daemon
    # A daemon that is off from its start; then killed, then right again, then off once more.
    start_at "$off" || continue
    sleep 0.5
    same "$off: nothing is purged by a daemon that is off" "$(count week)" 40
    produce week 0 direct during
    produce one 0 direct during >/dev/null
    same "$off: nor what is written to it" "$(count week)" 80
    sleep 0.3
    stop_daemon KILL
    start_at 0 || continue
    sleep 0.5
    same "$off: nor when it is right again" "$(count week)" 80
    stop_daemon
    start_at "$off" || continue
    sleep 0.4
    same "$off: nor when it is off once more" "$(count week)" 80
    at_most "$off: segments of a topic that rolls each hour" "$(segments one)" 5 "$(ls -l "$data/one-0")"
    # Times: all records lie between a minute ago and now.
    now=$(ms_now)
    same "$off: from a minute ago" "$(b consume week -e -o s@$((now - 60000)) | wc -l)" 80
    same "$off: from an hour ahead" "$(b consume week -e -o s@$((now + hour)) | wc -l)" 0
    last=$(b consume week -e -o -1 -f '%T' | head -1)
    at_most "$off: from the last one's time" "$(b consume week -e -o "s@$last" | wc -l)" 40
    stop_daemon
    out=$("$busway" verify "$data" 2>&1); same "$off: the folder verifies" $? 0
    rm -rf "$data"
done

# What is due goes, also when producers are ahead; what is not stays.
data=$work/due
start_at 0 || finish
b topic create short -c segment.bytes=4096 -c max.message.bytes=2048 -c retention.ms=1500 -c file.delete.delay.ms=0 >/dev/null
produce short $((10 * year)) direct ahead
sleep 0.7
same "a short time: kept before it is over, though the producer is ten years ahead" "$(count short)" 40
empty() { [ "$(count short)" -eq 0 ]; }
until_true 12 empty && ok "and deleted afterwards" || bad "and deleted afterwards" "$(count short)"
stop_daemon
finish
