#!/usr/bin/env bash
# A full disk under the data directory, on a small tmpfs and on a small ext4: both transports say so at once, nobody dies, nothing that was
# acknowledged is lost, deletes and metadata go on, a daemon starts on the full disk, and writes come back when there is space again.
# test: limit=170
source "$(dirname "$0")/common.bash"
[ "$(id -u)" = 0 ] || skip_all "mounting a small file system needs root"
run=$work/run sock=$work/run/bus.sock
b() { "$busway" -b "ipc://$sock" --timeout 10 "$@"; }
records() { seq "$1" "$2" | awk '{printf "%d %01000d\n", $1, 0}'; }

# produce_until_full NAME TRANSPORT FIRST TOPIC: far more than fits; its acknowledgements go to $work/acks
produce_until_full() {
    local name=$1 transport=$2 first=$3 topic=$4 begin=$SECONDS rc
    records "$first" $((first + 99999)) | timeout 60 "$busway" -b "ipc://$sock" --transport "$transport" produce "$topic" --report \
        >"$work/acks" 2>"$work/errors"
    rc=$?
    same "$name: the producer ends with an error, by no signal" "$rc" 1
    has "$name: it says what and what to do" "$(cat "$work/errors")" 'disk is full.*free some space'
    at_most "$name: and soon, in seconds" $((SECONDS - begin)) 20
    if alive; then ok "$name: the daemon lives"; else bad "$name: the daemon lives" "$(tail -3 "$work/daemon.log")"; fi
}
# present NAME FIRST TOPIC: what was acknowledged in $work/acks is in the log at its offset, in the order in which it was sent, once.
# (Which record of the run an offset has is not known when a batch before it was refused.)
present() {
    local name=$1 first=$2 topic=$3 count
    b consume "$topic" -e -f '%o %s\n' | awk -v first="$first" '$2 >= first && $2 < first + 100000 {print $1, $2}' >"$work/there"
    sed 's/.*"offset"://; s/}//' "$work/acks" >"$work/wanted"
    count=$(wc -l <"$work/wanted")
    same "$name: all $count acknowledged records are there" "$(cut -d' ' -f1 "$work/there" | LC_ALL=C sort | LC_ALL=C comm -13 - <(LC_ALL=C sort "$work/wanted") | head -3)" ""
    same "$name: in order, nothing twice, nothing else" "$(awk -v most="$count" '$2 <= last {print "disorder: " $0} {last = $2} END {if (NR > most + 200) print NR " records"}' "$work/there" | head -3)" ""
}

scenario() { # name, mount point
    local fs=$1 data=$2/data
    : >"$work/daemon.log"
    start_daemon "$data" "$run" --set meta.map.bytes=1MiB || return
    b topic create kept
    b topic create t -c segment.bytes=1MiB -c file.delete.delay.ms=0
    seq 1 100 | b produce kept --acks durable
    produce_until_full "$fs, direct" direct 1000000 t
    mv "$work/acks" "$work/acks.direct"
    produce_until_full "$fs, through the socket" ipc 2000000 t
    cp "$work/acks" "$work/acks.ipc"
    present "$fs, through the socket" 2000000 t
    cp "$work/acks.direct" "$work/acks"
    if [ "$(wc -l <"$work/acks")" -gt 5000 ]; then ok "$fs: $(wc -l <"$work/acks") records fitted"; else bad "$fs: few records fitted" "$(wc -l <"$work/acks")"; fi
    present "$fs, direct" 1000000 t
    has "$fs: the daemon's log says so" "$(cat "$work/daemon.log")" 'error (disk_low|tending_failed).*(DISK_FULL|free_bytes)'
    fails "$fs: a new topic is refused, or its first record" 1 'full|No space|free some space' bash -c "'$busway' -b 'ipc://$sock' topic create more --partitions 200 -c segment.bytes=1MiB"
    # What the reserve is for.
    if b topic alter kept -c retention.ms=2d >/dev/null; then ok "$fs: metadata is written from the reserve"; else bad "$fs: metadata is written from the reserve"; fi
    same "$fs: other topics are read" "$(b consume kept -e | wc -l)" 100
    # Somebody else takes the last byte.
    dd if=/dev/zero of="$2/somebody" bs=4k >/dev/null 2>&1
    dd if=/dev/zero of="$2/somebody2" bs=512 >/dev/null 2>&1
    produce_until_full "$fs with not a byte left, direct" direct 3000000 t
    present "$fs with not a byte left, direct" 3000000 t
    produce_until_full "$fs with not a byte left, through the socket" ipc 4000000 t
    present "$fs with not a byte left, through the socket" 4000000 t
    stop_daemon KILL
    if start_daemon "$data" "$run"; then ok "$fs: a daemon starts on the full disk after a kill"; else rm "$2"/somebody*; start_daemon "$data" "$run" || return; fi
    cp "$work/acks.direct" "$work/acks"
    present "$fs, after a kill and a start on the full disk" 1000000 t
    cp "$work/acks.ipc" "$work/acks"
    present "$fs, after a kill and a start on the full disk, through the socket" 2000000 t
    stop_daemon
    same "$fs: and stops cleanly there" "$stopped_rc" 0
    start_daemon "$data" "$run" || return
    # Room again.
    if b topic purge t -p 0 --before 8000 >/dev/null; then ok "$fs: delete records"; else bad "$fs: delete records"; fi
    rm "$2"/somebody*
    until_true 10 bash -c "echo back | '$busway' -b 'ipc://$sock' --timeout 5 --transport direct produce t 2>/dev/null"
    same "$fs: direct writes come back" "$(echo again | b --transport direct produce t --report 2>&1 | grep -c offset)" 1
    same "$fs: writes through the socket come back" "$(records 1 500 | b --transport ipc produce t --report 2>&1 | grep -c offset)" 500
    if b topic delete t >/dev/null; then ok "$fs: delete the topic"; else bad "$fs: delete the topic"; fi
    until_true 10 bash -c "echo back | '$busway' -b 'ipc://$sock' --timeout 5 produce u 2>/dev/null"
    same "$fs: and fill a new one" "$(records 1 5000 | b produce u --report --acks durable 2>&1 | grep -c offset)" 5000
    stop_daemon
    same "$fs: clean stop" "$stopped_rc" 0
    same "$fs: verify finds nothing wrong" "$("$busway" verify "$data" 2>&1 | grep -oE '[0-9]+ errors')" "0 errors"
}

mkdir "$work/tmpfs" "$work/ext4"
if mount -t tmpfs -o size=32m,mode=755 tmpfs "$work/tmpfs" 2>/dev/null; then
    cleanup_commands+=("umount -l '$work/tmpfs'")
    scenario tmpfs "$work/tmpfs"
else skip "tmpfs can't be mounted here (no CAP_SYS_ADMIN)"; fi
truncate -s 48M "$work/image"
if command -v mkfs.ext4 >/dev/null && mkfs.ext4 -q -m 0 "$work/image" 2>/dev/null && mount -o loop "$work/image" "$work/ext4" 2>/dev/null; then
    cleanup_commands+=("umount '$work/ext4' || umount -l '$work/ext4'")
    scenario ext4 "$work/ext4"
else skip "ext4 can't be mounted from a file here (no loop device or mkfs.ext4)"; fi
finish
