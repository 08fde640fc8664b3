#!/usr/bin/env bash
# Processes that are stopped, not dead: a writer at each point where it holds the partition's lock, the daemon, and a writer that
# dies between taking who is to be woken and waking them.
# Others wait for nobody but who has their partition's lock, and not for ever. test: limit=120, no-asan
source "$(dirname "$0")/../integration/common.bash"
[ -w /dev/shm ] || skip_all "/dev/shm is not writable: no place for shared control data"
run=$(mktemp -d /dev/shm/bws.XXXXXX)
cleanup_commands+=("rm -rf $run")
url=ipc://$run/bus.sock
b() { timeout 20 "$busway" -b "$url" "$@"; }
now_ms() { echo $((${EPOCHREALTIME/./} / 1000)); }
# takes NAME MOST_MS COMMAND…: sets out and rc
takes() {
    local name=$1 most=$2 begun
    shift 2
    begun=$(now_ms)
    out=$("$@" 2>&1); rc=$?
    at_most "$name, in ms" $(($(now_ms) - begun)) "$most" "$out"
}
stopped() { grep -q '^State:.T' "/proc/$1/status" 2>/dev/null; }
values() { b consume t -p "$1" -e 2>&1 | LC_ALL=C sort | tr '\n' ' '; }

start_daemon "$work/data" "$run" || finish
b topic create t --partitions 2 >/dev/null || bad "a topic is made"
echo before | b produce t -p 0
echo before | b produce t -p 1

# -- a writer stops with the lock in its hand ---------------------------------------------------------------------------------
want0="before " want1="before "
for point in append.locked append.intent append.copied append.published append.offset append.cleared; do
    BUSWAY_KILL=$point:1:stop "$busway" -b "$url" --transport direct produce t -p 0 <<<"$point" 2>"$work/writer.log" &
    writer=$!
    started_pids+=("$writer")
    until_true 5 stopped "$writer" || { bad "the writer stops at $point" "$(cat "$work/writer.log")"; continue; }
    takes "$point: another writer gives up" 4000 b --transport direct produce t -p 0 --delivery-timeout-ms 1000 <<<"other"
    [ $rc -ne 0 ] || bad "$point: another writer is told that it failed"
    has "$point: it says whose lock it is" "$out" "process $writer"
    takes "$point: one through the daemon gives up" 4000 b --transport ipc produce t -p 0 --delivery-timeout-ms 1000 <<<"other"
    [ $rc -ne 0 ] || bad "$point: one through the daemon is told that it failed"
    takes "$point: a writer of another partition" 1000 b --transport direct produce t -p 1 <<<"$point"
    same "$point: succeeds" $rc 0
    takes "$point: one through the daemon" 1000 b --transport ipc produce t -p 1 <<<"ipc.$point"
    same "$point: succeeds as well" $rc 0
    takes "$point: a reader of that partition" 1000 b --transport direct consume t -p 0 -e
    takes "$point: the daemon's status" 1000 b status
    same "$point: comes" $rc 0
    kill -CONT "$writer"
    wait "$writer"
    same "$point: the writer goes on" $? 0
    want0+="$point " want1+="$point ipc.$point "
    takes "$point: then another writer" 2000 b produce t -p 0 <<<"after.$point"
    same "$point: is taken" $rc 0
    want0+="after.$point "
done
# "other" was given up: what was handed to the daemon may have been written when the lock came free; nothing else may be there.
same "partition 0 holds what was acknowledged" "$(values 0 | sed 's/other //g')" "$(tr ' ' '\n' <<<"$want0" | LC_ALL=C sort | grep . | tr '\n' ' ')"
same "partition 1 holds what was acknowledged" "$(values 1)" "$(tr ' ' '\n' <<<"$want1" | LC_ALL=C sort | grep . | tr '\n' ' ')"

# -- the daemon stops ---------------------------------------------------------------------------------------------------------
mkfifo "$work/lines"
: >"$work/read"
"$busway" -b "$url" --transport direct produce t -p 1 --report <"$work/lines" >"$work/reports" 2>&1 &
started_pids+=("$!")
exec 7>"$work/lines"
"$busway" -b "$url" --transport direct consume t -p 1 -o end -u >"$work/read" 2>&1 &
reader=$!
started_pids+=("$reader")
echo first >&7
until_true 5 grep -q first "$work/read" || { echo again >&7; until_true 5 grep -q again "$work/read" || bad "reader and writer are running"; }
kill -STOP "$daemon_pid"
for i in $(seq 20); do echo "unattended $i" >&7; sleep 0.01; done
if until_true 3 grep -q 'unattended 20' "$work/read"; then ok "the daemon stopped: a direct reader reads on what a direct writer writes"
else bad "the daemon stopped: a direct reader reads on" "$(tail -3 "$work/read" "$work/reports")"; fi
same "in order, each once" "$(grep -c unattended "$work/read")" 20
takes "the daemon stopped: a caller gives up" 4500 b --timeout 1 status
same "and says that nobody answers" $rc 5
takes "the daemon stopped: a producer through it gives up" 6000 b --timeout 1 --transport ipc produce t -p 1 --delivery-timeout-ms 1000 <<<"lost"
[ $rc -ne 0 ] && ok "and says so" || bad "and says so" "$out"
kill -CONT "$daemon_pid"
takes "the daemon goes on" 2000 b status
same "and answers" $rc 0
exec 7>&-
kill -TERM "$reader" 2>/dev/null

# -- who was to be woken is forgotten -------------------------------------------------------------------------------------------
for round in 1 2 3; do
    "$busway" -b "$url" --transport direct consume t -p 0 -o end -c 1 -u >"$work/woken" 2>&1 &
    sleeper=$!
    started_pids+=("$sleeper")
    sleep 0.5
    BUSWAY_KILL=wake.taken:1:kill b --transport direct produce t -p 0 <<<"forgotten $round" 2>/dev/null
    begun=$(now_ms)
    until_true 6 grep -q "forgotten $round" "$work/woken"
    at_most "a reader whose waker died is woken, in ms" $(($(now_ms) - begun)) 2200 "$(cat "$work/woken")"
    kill -TERM "$sleeper" 2>/dev/null
    wait "$sleeper" 2>/dev/null
done
stop_daemon
same "the daemon stops cleanly" $stopped_rc 0
out=$("$busway" verify "$work/data" 2>&1); same "the folder verifies" $? 0
finish
