#!/usr/bin/env bash
# replicas, acks=replicated and read.limit=replicated over a link; the origin is killed, the mirror promoted, the old origin fenced, its
# tail kept; nothing that was acknowledged as replicated is lost.
# test: limit=120
source "$(dirname "$0")/common.bash"
o() { "$busway" -b "ipc://$work/run.o/bus.sock" "$@"; }
m() { "$busway" -b "ipc://$work/run.m/bus.sock" "$@"; }
start_o() { start_daemon "$work/o" "$work/run.o"; origin_pid=$daemon_pid; }
start_m() { start_daemon "$work/m" "$work/run.m"; mirror_pid=$daemon_pid; }
kill_o() { daemon_pid=$origin_pid; stop_daemon KILL; }
kill_m() { daemon_pid=$mirror_pid; stop_daemon KILL; }
dead() { until_true "$1" bash -c "! kill -0 $daemon_pid 2>/dev/null || grep -q '^State:.Z' /proc/$daemon_pid/status"; }
role() { json "$("$1" --json topic describe "$2")" role; }
copied() { # topic: the mirror has all that the origin has
    [ "$(o consume "$1" -e 2>/dev/null | wc -l)" = "$(m consume "$1" -e 2>/dev/null | wc -l)" ]
}
is_role() { [ "$(role "$1" "$2")" = "$3" ]; }

start_o
start_m
o topic create orders --partitions 2 -c replicas=1 -c read.limit=replicated >/dev/null
o topic create plain >/dev/null
fails "without a mirror acks=replicated is not answered" 124 '' \
    timeout 2 bash -c "echo a | $busway -b ipc://$work/run.o/bus.sock produce --acks replicated orders"
same "and nobody reads it" "$(o consume orders -e | wc -l)" 0
fails "acks=replicated without replicas" 2 'replicas' bash -c "echo a | $busway -b ipc://$work/run.o/bus.sock produce --acks replicated plain"

m link add site "ipc://$work/run.o/bus.sock" topics=orders configs=true >/dev/null
until_true 20 is_role m orders mirror && ok "the mirror is there" || bad "the mirror is there" "$(m link describe site)"
one() { [ "$(o consume orders -e | wc -l)" = 1 ]; }
until_true 10 one
same "what the mirror has is read" "$(o consume orders -e)" a
seq 1 500 | o produce --acks replicated orders >"$work/acked" 2>&1; rc=$?
same "acks=replicated is answered once the mirror has it" $rc 0
same "the origin's readers see it" "$(o consume orders -e | wc -l)" 501
until_true 10 copied orders && ok "and the mirror's, whose configuration came along" || bad "and the mirror's" "$(m consume orders -e | wc -l)"
has "describe: who has what" "$(o --json topic describe orders)" '"peers":\[\{"peer":"[0-9a-f]{32}"' '"role":"origin"'
has "the mirror is proven equal" "$(m link verify --peer "ipc://$work/run.o/bus.sock" orders)" ': equal'
has "by the link's name" "$(m link verify site)" 'orders: 2 partitions.*: equal'
fails "a mirror takes no writes" 1 'mirror of link' bash -c "echo x | $busway -b ipc://$work/run.m/bus.sock produce orders"
fails "what is no mirror is not promoted" 2 'no mirror' "$busway" -b "ipc://$work/run.o/bus.sock" link promote orders

# The mirror is gone; the origin goes on alone: visible, durable, but not replicated. Then it dies.
kill_m
seq 1001 1040 | o produce --acks durable orders >/dev/null
same "without the mirror nothing more is replicated" "$(o consume orders -e | wc -l)" 501
kill_o

# The mirror dies in each step of its promotion, which is then done again.
for point in promote.promised promote.epoch promote.done; do
    daemon_prefix="env BUSWAY_KILL=$point:1:kill" start_m
    m link promote orders --timeout 3 >/dev/null 2>&1
    daemon_pid=$mirror_pid; dead 10 || bad "it dies at $point"
    start_m
    has "killed at $point: it is a mirror still, or promoted" "$(role m orders)" '^(mirror|promoted)$'
    [ "$(role m orders)" = promoted ] ||
        fails "killed at $point: it takes no writes" 1 'promote' bash -c "echo x | $busway -b ipc://$work/run.m/bus.sock produce orders"
    kill_m
done
start_m
out=$(m link promote orders 2>&1); rc=$?
same "promote" "$rc" 0
same "promote: again" "$(m link promote orders >/dev/null 2>&1; echo $?)" 0
same "role" "$(role m orders)" promoted
m topic alter orders -c read.limit=visible -c replicas=0 >/dev/null
same "all that was acknowledged as replicated is there" "$(m consume orders -e | sort -n | head -502 | tail -500 | md5sum)" "$(seq 1 500 | md5sum)"
same "no more than that" "$(m consume orders -e | wc -l)" 501
seq 2001 2010 | m produce --acks durable orders >/dev/null
same "it takes writes" "$(m consume orders -e | wc -l)" 511

# The old origin is back; and dies while it is fenced.
for point in fence.stored tail.written; do
    daemon_prefix="env BUSWAY_KILL=$point:1:kill" begin_daemon "$work/o" "$work/run.o" # it may die before it is ready
    dead 40 && ok "it dies at $point" || bad "it dies at $point"
done
start_o
until_true 30 is_role o orders fenced && ok "the old origin is fenced" || bad "the old origin is fenced" "$(tail -5 "$work/daemon.log")"
fails "it takes no writes" 1 'promoted elsewhere' bash -c "echo x | $busway -b ipc://$work/run.o/bus.sock produce orders"
fails "nor such to be replicated" 1 'promoted elsewhere' bash -c "echo x | $busway -b ipc://$work/run.o/bus.sock produce --acks replicated orders"
in_tails() { # how many of the 40 records
    local f
    for f in $(o --json link tails orders | grep -oE '"file": ?"[^"]*"' | sed -E 's/.*"(\/[^"]*)"/\1/'); do "$busway" dump --records "$f"; done |
        grep -oE '\b10[0-4][0-9]\b' | sort -nu | wc -l
}
all_kept() { [ "$(in_tails)" = 40 ]; }
until_true 20 all_kept && ok "all that only it had is kept aside" || bad "all that only it had is kept aside" "$(o link tails)"
has "in words" "$(o link tails)" 'orders partition [01]: offsets [0-9]+ to [0-9]+, [0-9]+ bytes, epoch 65536: /'
daemon_pid=$origin_pid; stop_daemon TERM; start_o
same "fenced after a restart, too" "$(role o orders)" fenced
fails "and takes no writes" 1 'promoted elsewhere' bash -c "echo x | $busway -b ipc://$work/run.o/bus.sock produce orders"

# It takes part again: the topic is deleted there and linked to the new origin.
o topic delete orders >/dev/null
m topic create marker >/dev/null
o link add back "ipc://$work/run.m/bus.sock" topics=orders >/dev/null
until_true 20 copied orders && ok "it mirrors the new origin" || bad "it mirrors the new origin" "$(o link describe back)"
all_kept && ok "its tail is still there" || bad "its tail is still there"
for pid in "$origin_pid" "$mirror_pid"; do daemon_pid=$pid; stop_daemon TERM; done
has "the files are sound" "$("$busway" verify "$work/m" --errors-only)" ' 0 errors'
finish
