#!/usr/bin/env bash
# Who may do what: another uid outside and inside the socket's group, direct reading where file modes allow it, administration by the owner
# alone; and what is refused a direct path goes on through the socket, with the reason in `status`: another uid's writes, another PID
# namespace, a file system that is not local.
# test: limit=120 no-asan
source "$(dirname "$0")/common.bash"
[ "$(id -u)" = 0 ] || skip_all "other users need root"
command -v setpriv >/dev/null || skip_all "setpriv (util-linux) is not here"
group=54321 uid=54322 stranger=54323
shm=$(mktemp -d /dev/shm/busway-it.XXXXXX)
chmod 755 "$shm"
cleanup_commands+=("rm -rf '$shm'")
data=$work/data run=$shm/run sock=$shm/run/bus.sock
cp "$busway" "$work/busway" && chmod 755 "$work/busway" # the build may lie where others cannot go
b() { "$busway" -b "ipc://$sock" --timeout 10 "$@"; }
member=(setpriv --reuid $uid --regid $uid --groups $group -- "$work/busway" -b "ipc://$sock" --timeout 10)
outsider=(setpriv --reuid $stranger --regid $stranger --clear-groups -- "$work/busway" -b "ipc://$sock" --timeout 10)
connection_of() { # PID: its object in status
    b --json status | grep -oE "\\{[^{}]*\"pid\":$1,[^{}]*\\}" | head -1
}
# held NAME COMMAND…: runs a producer with its input held open until it has delivered one record; sets line to its connection
held() {
    local pid i
    rm -f "$work/in" "$work/out"
    mkfifo "$work/in"
    "$@" >"$work/out" 2>"$work/err" <"$work/in" &
    started_pids+=($!)
    exec 7>"$work/in"
    echo "from $1" >&7
    until_true 8 grep -q offset "$work/out" || true
    line=
    for ((i = 0; i < 40; i++)); do
        for pid in $(pgrep -P $! 2>/dev/null) $!; do line=${line:-$(connection_of "$pid")}; done
        [ -n "$(json "$line" transport)" ] && break
        line=$(b --json status | grep -oE '\{[^{}]*"why_not_direct":"[^"][^{}]*\}' | head -1)
        [ -n "$line" ] && break
        sleep 0.05
    done
    exec 7>&-
    wait $! 2>/dev/null
}

start_daemon "$data" "$run" --socket-group $group || finish
b topic create t
seq 1 10 | b produce t
same "folder and socket belong to the group" "$(stat -c '%a %g' "$run" "$sock" | xargs)" "2750 $group 660 $group"

# -- nobody's uid -----------------------------------------------------------------------------------------------------------
fails "another uid outside the group is refused" 6 "$sock|ermission" "${outsider[@]}" topic list
fails "and cannot produce" 6 "may not connect|ermission" "${outsider[@]}" produce t
same "the daemon serves on" "$(b consume t -e | wc -l)" 10

# -- the socket's group ------------------------------------------------------------------------------------------------------
same "a member of the group produces" "$(seq 11 15 | "${member[@]}" produce t --report 2>&1 | grep -c offset)" 5
same "and consumes" "$("${member[@]}" consume t -e 2>/dev/null | wc -l)" 15
for what in "topic create more" "topic delete t" "topic alter t -c retention.ms=1h" "topic purge t"; do
    # shellcheck disable=SC2086
    fails "but may not: $what" 6 'needs an administrator; this is uid 54322' "${member[@]}" $what
done
same "nothing was changed by it" "$(b topic list | grep -c . ; b consume t -e | wc -l)" "$(printf '2\n15')"
held "${member[@]}" produce t --report
same "a member's writes go through the socket" "$(json "$line" transport)" ipc
has "status says why" "$(json "$line" why_not_direct)" 'uid|owner'
echo x >"$work/one"
fails "--transport direct says why not" 6 'uid|owner' "${member[@]}" --transport direct produce t -l "$work/one"

# -- reading direct: folders are closed first, then opened to the group ---------------------------------------------------------
fails "no direct reading where file modes forbid it" 6 'ermission' "${member[@]}" --transport direct consume t -e
chgrp -R $group "$data" && chmod 750 "$data"
same "direct reading where file modes allow it" "$("${member[@]}" --transport direct consume t -e 2>/dev/null | wc -l)" 16

# -- another PID namespace ------------------------------------------------------------------------------------------------------
if unshare --pid --fork true 2>/dev/null; then
    held unshare --pid --fork "$work/busway" -b "ipc://$sock" produce t --report
    has "another PID namespace: delivered" "$(cat "$work/out" "$work/err")" '"offset":16'
    has "through the socket, and status says why" "$(json "$line" why_not_direct) $(json "$line" transport)" '[Nn]amespace.* ipc'
    fails "--transport direct says it too" 6 '[Nn]amespace' unshare --pid --fork "$work/busway" -b "ipc://$sock" --transport direct produce t -l "$work/one"
else skip "unshare --pid is not permitted here: another PID namespace"; fi

# -- control data of another layout -------------------------------------------------------------------------------------------
for tail in "$run"/*/*.tail; do printf '\x63' | dd of="$tail" bs=1 seek=8 conv=notrunc status=none; done # u32 layout behind the magic
held "$busway" -b "ipc://$sock" --timeout 10 produce t --report
same "another layout: the record is there" "$(grep -c offset "$work/out")" 1
has "through the socket, and status says why" "$(json "$line" why_not_direct) $(json "$line" transport)" 'layout 99.* ipc'
fails "--transport direct says why not" 1 'layout 99' "$busway" -b "ipc://$sock" --transport direct produce t -l "$work/one"
for tail in "$run"/*/*.tail; do printf '\x01' | dd of="$tail" bs=1 seek=8 conv=notrunc status=none; done

stop_daemon

# -- a file system that is not local (what the client is told of it is made up: mounting FUSE needs more than a test may ask for) ----
sock=$work/plainrun/bus.sock
build_tool not_local -shared -fPIC -ldl
start_daemon "$work/data3" "$work/plainrun"
held env NOT_LOCAL="$work/data3" LD_PRELOAD="$work/not_local" "$busway" -b "ipc://$sock" produce t --report
has "a file system that is not local: through the socket, and status says why" "$(json "$line" why_not_direct) $(json "$line" transport)" 'fuse.* ipc'
fails "--transport direct says why not" 1 'fuse' env NOT_LOCAL="$work/data3" LD_PRELOAD="$work/not_local" "$busway" -b "ipc://$sock" --transport direct produce t -l "$work/one"
same "and it is all there" "$(b consume t -e | wc -l)" 1
stop_daemon

# -- a client that does not see the control data, and a daemon that has no tmpfs for it ----------------------------------------------
mkdir "$work/empty"
if unshare --mount mount --bind "$work/empty" /dev/shm 2>/dev/null; then
    start_daemon "$work/data3" "$work/plainrun"
    held unshare --mount -- bash -c "mount --bind '$work/empty' /dev/shm && exec '$busway' -b 'ipc://$sock' produce t --report"
    has "the control data out of sight: through the socket, and status says why" "$(json "$line" why_not_direct) $(json "$line" transport)" 'control data.* ipc'
    same "and it is all there" "$(b consume t -e | wc -l)" 2
    stop_daemon
    : >"$work/daemon.log"
    daemon_prefix="unshare --mount -- $work/hide"
    printf '#!/bin/sh\nmount --bind "%s" /dev/shm && exec "$@"\n' "$work/empty" >"$work/hide" && chmod 755 "$work/hide"
    start_daemon "$work/data3" "$work/plainrun"
    has "without tmpfs the daemon says that the direct path is off" "$(cat "$work/daemon.log")" 'direct_path_off.*tmpfs'
    held "$busway" -b "ipc://$sock" produce t --report
    has "clients go through the socket, and status says why" "$(json "$line" why_not_direct) $(json "$line" transport)" '(tmpfs|direct path).* ipc'
    fails "--transport direct says why not" 1 'tmpfs|direct path' "$busway" -b "ipc://$sock" --transport direct produce t -l "$work/one"
    same "and it is all there" "$(b consume t -e | wc -l)" 3
    stop_daemon
else skip "unshare --mount is not permitted here: a host without tmpfs"; fi
finish
