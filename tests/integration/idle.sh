#!/usr/bin/env bash
# An idle daemon with 100 partitions: how much memory, how many wake-ups, how much processor time; and how fast one starts.
# Times are printed, not judged.
# test: limit=90 alone build=release
source "$(dirname "$0")/common.bash"
data=$work/data run=$work/run sock=$work/run/bus.sock
b() { "$busway" -b "ipc://$sock" "$@"; }
start_ms() { # from the start of the process to the first answered request of a client that retries by itself
    local begin=${EPOCHREALTIME/./}
    start_daemon "$data" "$run" || return
    b topic list >/dev/null
    echo $(((${EPOCHREALTIME/./} - begin) / 1000)) >"$work/ms"
}
start_ms; note "fresh: started and answering in $(cat "$work/ms") ms"
for ((i = 0; i < 10; i++)); do b topic create "t$i" --partitions 10 >/dev/null; done
for ((i = 0; i < 10; i++)); do seq 1 20 | b --transport ipc produce "t$i"; seq 1 20 | b produce "t$i"; done
same "100 partitions" "$(json "$(b --json status)" partitions)" 100
stop_daemon
start_ms; note "100 partitions, cleanly stopped before: started and answering in $(cat "$work/ms") ms"
b consume t3 -e >/dev/null
stop_daemon KILL
start_ms; note "100 partitions, killed before: started and answering in $(cat "$work/ms") ms"
seq 1 20 | b produce t1
b --transport ipc consume t1 -e >/dev/null
sleep 2.5 # what the work above left to do: syncs, indexes, recovery points

switches() { awk '/^voluntary_ctxt_switches/ {n += $2} END {print n}' /proc/"$daemon_pid"/task/*/status; }
ticks() { awk '{sub(/.*\) /, ""); print $12 + $13}' "/proc/$daemon_pid/stat"; }
before=$(switches) cpu=$(ticks)
sleep 10
after=$(switches)
at_most "voluntary context switches of all its threads in 10 s" $((after - before)) 30 \
    "$(for t in /proc/"$daemon_pid"/task/*; do echo "$(cat "$t/comm") $(awk '/^voluntary_ctxt/ {print $2}' "$t/status")"; done)"
at_most "CPU ticks in 10 s" $(($(ticks) - cpu)) 1
at_most "resident memory in KiB" "$(rss_kb)" 8192 "$(grep -E '^(Vm|Rss|Threads)' "/proc/$daemon_pid/status")"
note "$(awk '/^(RssAnon|RssFile|RssShmem|Threads)/ {printf "%s %s ", $1, $2}' "/proc/$daemon_pid/status")"
same "and it still answers" "$(b consume t3 -e | wc -l)" 40
stop_daemon
same "stops cleanly" "$stopped_rc" 0
finish
