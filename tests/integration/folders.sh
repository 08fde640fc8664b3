#!/usr/bin/env bash
# dir: on folders that are not as they should be: each error says what happened, where, and what to do, and loses nothing; and mode=ro:
# copies, backups, read-only mounts, other people's folders, damaged ones.
# test: limit=150
source "$(dirname "$0")/common.bash"
b() { local folder=$1; shift; "$busway" -b "dir:$folder" --timeout 10 "$@"; }
root() { [ "$(id -u)" = 0 ]; }
as_nobody() { setpriv --reuid 65534 --regid 65534 --clear-groups "$@"; }
says() { # NAME PATTERN COMMAND…: it fails by itself, and its words match
    local name=$1 pattern=$2 out rc
    shift 2
    out=$(timeout 30 "$@" 2>&1 >/dev/null </dev/null); rc=$?
    if [ $rc -eq 0 ] || [ $rc -ge 124 ]; then bad "$name" "exit code $rc:" "$out"
    elif ! grep -qE -- "$pattern" <<<"$out"; then bad "$name" "no /$pattern/ in:" "$out"
    else ok "$name"; fi
}
refused() { # NAME PATTERN FOLDER ENVIRONMENT…: produce fails and says so
    local name=$1 pattern=$2 folder=$3
    shift 3
    says "$name" "$pattern" env "$@" "$busway" -b "dir:$folder?idle-exit=200ms" --timeout 10 produce t
}

# -- where a folder lies: this needs the debug build's seam
refused "a network file system is refused by name" "$work/nfs lies on nfs, a network file system.*mode=ro" "$work/nfs" BUSWAY_FS_TYPE=6969
refused "so is another one" "lies on cifs" "$work/nfs" BUSWAY_FS_TYPE=FF534D42
out=$(echo x | BUSWAY_FS_TYPE=65735546 b "$work/fuse?idle-exit=300ms" produce t --report 2>&1 && BUSWAY_FS_TYPE=65735546 b "$work/fuse?idle-exit=300ms" status 2>&1)
has "on FUSE everything goes through the socket, and status says why" "$out" '"offset":0|offset 0|t' 'fuse'
has "and the daemon says it in its log" "$(cat "$work/fuse/run/buswayd.log")" 'warn file_system name="?fuse'

# -- what the folder is
echo plain >"$work/file"
refused "a file is not a folder" "$work/file.*[Nn]ot a directory" "$work/file"
mkdir "$work/newer" && echo "busway data format 7" >"$work/newer/busway.format"
refused "a newer format: both numbers" "format 7, this version knows up to 1.*newer Busway" "$work/newer"
mkdir "$work/odd" && echo "something else" >"$work/odd/busway.format"
refused "a format file that is none" "odd/busway.format is not a Busway format file" "$work/odd"

# -- who has it
start_daemon "$work/served" "$work/srun"
fails "two daemons on one folder" 75 "served is in use by the daemon with pid $daemon_pid" "$buswayd" --data-dir "$work/served" --runtime-dir "$work/other"
same "a dir: bus uses the daemon that has it, wherever its socket is" "$(echo x | b "$work/served" produce t && b "$work/served" consume t -e)" x
stop_daemon

# -- what one may do there
if root; then
    mkdir "$work/sealed" && seq 1 5 | b "$work/sealed/d?idle-exit=200ms" produce t
    sleep 0.6
    chmod 700 "$work/sealed"
    says "another user is told whose it is, or that he may not" 'sealed/d.*([Pp]ermission denied|may not connect)' \
        setpriv --reuid 65534 --regid 65534 --clear-groups env BUSWAYD="$buswayd" "$busway" -b "dir:$work/sealed/d" produce t
    says "so with mode=ro" 'sealed/d.*([Pp]ermission denied|may not connect)' \
        setpriv --reuid 65534 --regid 65534 --clear-groups "$busway" -b "dir:$work/sealed/d?mode=ro" consume t -e
    chmod 755 "$work/sealed"
    chmod -R go+rX "$work/sealed"
    says "one who may read, but is not the owner, can't serve it" 'sealed/d belongs to uid 0.*mode=ro reads it' \
        setpriv --reuid 65534 --regid 65534 --clear-groups env BUSWAYD="$buswayd" "$busway" -b "dir:$work/sealed/d" produce t
    same "but reads it with mode=ro" "$(as_nobody "$busway" -b "dir:$work/sealed/d?mode=ro" consume t -e | xargs)" "1 2 3 4 5"

    mkdir "$work/mounted" && mount --bind "$work/sealed/d" "$work/mounted" && mount -o remount,ro,bind "$work/mounted" &&
        cleanup_commands+=("umount '$work/mounted'")
    refused "a read-only file system" "mounted can.t be written to.*mode=ro reads it.*[Rr]ead-only file system" "$work/mounted"
    same "which mode=ro reads" "$(b "$work/mounted?mode=ro" consume t -e | xargs)" "1 2 3 4 5"
    has "and describes" "$(b "$work/mounted?mode=ro" topic describe t)" 't: 1 partition, 5 records' 'read-only'

    mkdir "$work/full" && mount -t tmpfs -o size=256k tmpfs "$work/full" && cleanup_commands+=("umount '$work/full'")
    head -c 250k /dev/zero >"$work/full/ballast" 2>/dev/null
    refused "a full disk, from the first moment" "full/d.*(disk is full|No space left)" "$work/full/d"
    rm "$work/full/ballast"
else
    skip "other users, mounts and full disks need root"
fi

# -- mode=ro
bus=$work/origin
b "$bus?idle-exit=300ms" topic create t -c segment.bytes=1MiB
seq 1 40000 | awk '{printf "%d %0100d\n", $1, 0}' >"$work/records"
b "$bus?idle-exit=300ms" produce t <"$work/records"
sleep 0.8
listing() { find "$1" -printf '%p %s %T@ %m\n' | LC_ALL=C sort | md5sum; }
cp -r "$bus" "$work/copy"
before=$(listing "$work/copy")
same "a copy gives every record" "$(b "$work/copy?mode=ro" consume t -e | cmp - "$work/records" && echo same)" same
has "its topics" "$(b "$work/copy?mode=ro" topic list)" '^t +1 +40000'
has "its status" "$(b "$work/copy?mode=ro" status)" 'mode +read-only' 'none: the files alone are read'
same "nothing in it was touched" "$(listing "$work/copy")" "$before"
says "producing is refused, by name" "produce t.*$work/copy was opened with mode=ro" "$busway" -b "dir:$work/copy?mode=ro" produce t
says "so is a group" 'a consumer group.*mode=ro' "$busway" -b "dir:$work/copy?mode=ro" consume -G g t -e
says "and what changes something" 'CREATE_TOPIC.*mode=ro' "$busway" -b "dir:$work/copy?mode=ro" topic create z
says "a folder that is not there" "$work/none: No such file" "$busway" -b "dir:$work/none?mode=ro" topic list
mkdir "$work/empty"
says "a folder of something else" "$work/empty is no data directory" "$busway" -b "dir:$work/empty?mode=ro" topic list
says "a newer format" 'format 7, this version knows up to 1' "$busway" -b "dir:$work/newer?mode=ro" topic list

logs=("$work"/copy/t-0/*.log)
last=${logs[-1]}
size=$(stat -c %s "$last")
truncate -s $((size - 50)) "$last"
there=$(b "$work/copy?mode=ro" consume t -e | tee "$work/prefix" | wc -l)
same "a copy that was cut short ends with its last whole batch" \
    "$([ "$there" -gt 30000 ] && [ "$there" -lt 40000 ] && head -n "$there" "$work/records" | cmp - "$work/prefix" && echo good)" good
cp "${bus}/t-0/$(basename "$last")" "$last"
printf 'damage' | dd of="$last" bs=1 seek=$((size / 2)) conv=notrunc 2>/dev/null
out=$(b "$work/copy?mode=ro" consume t -e 2>&1 >"$work/prefix") && bad "damage in the last segment is no end" || has "damage in the last segment is no end" "$out" "$(basename "$last").*checksum"
same "what lies before it was given" "$(head -n "$(wc -l <"$work/prefix")" "$work/records" | cmp - "$work/prefix" && echo good)" good
says "a segment that was cut" 'segment [0-9]*\.log has 5000 bytes, its seal says [0-9]+: it was cut' \
    bash -c "truncate -s 5000 '${logs[1]}' && '$busway' -b 'dir:$work/copy?mode=ro' consume t -e"
says "a segment that is missing" 'offsets [0-9]+ to [0-9]+ are missing' bash -c "rm '${logs[1]}' && '$busway' -b 'dir:$work/copy?mode=ro' consume t -e"

# Of a folder that is being written to.
(for ((i = 0; i < 20; i++)); do seq $((i * 100 + 1)) $((i * 100 + 100)); sleep 0.05; done) | b "$work/live?idle-exit=300ms" produce t &
writer=$!
until_true 10 test -d "$work/live/t-0"
until_true 10 [ "$(timeout 5 "$busway" -b "dir:$work/live?mode=ro" consume t -c 2000 | tail -1)" = 2000 ]
same "a folder that is written to meanwhile is followed" "$(timeout 10 "$busway" -b "dir:$work/live?mode=ro" consume t -c 2000 | cmp - <(seq 1 2000) && echo same)" same
wait $writer
finish
