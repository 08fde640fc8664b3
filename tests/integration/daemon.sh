#!/usr/bin/env bash
# buswayd from outside: options, configuration, who may have the data and the socket, formats, start and stop.
# test: limit=120
source "$(dirname "$0")/common.bash"
build_tool daemon_tool -ljansson -llmdb
data=$work/data run=$work/run sock=$work/run/bus.sock
b() { "$busway" -b "ipc://$sock" "$@"; }

# -- words ----------------------------------------------------------------------------------------------------------------
has "--help" "$("$buswayd" --help)" '^Usage: buswayd --data-dir DIR' '--config FILE' '--idle-exit' 'Exit status: 0'
has "--version" "$("$buswayd" --version)" '^buswayd [0-9]+\.[0-9]+\.[0-9]+$'
has "--help-config names every option" "$("$buswayd" --help-config)" '^data-dir$' '^num\.partitions$' '^retention\.ms$' 'Default: 604800000'
fails "unknown option" 64 'unknown option --dtaa' "$buswayd" --dtaa x
fails "unexpected argument" 64 "unexpected argument 'x'" "$buswayd" --data-dir "$data" x
fails "option without value" 64 'data-dir needs a value' "$buswayd" --data-dir
fails "no data directory" 78 'data-dir' "$buswayd" --check-config
fails "--set without a value" 64 'NAME=VALUE' "$buswayd" --data-dir "$data" --set num.partitions
fails "--set of an unknown option" 78 'num.partitoins' "$buswayd" --data-dir "$data" --set num.partitoins=3
fails "--ready-fd that is no number" 64 'descriptor' "$buswayd" --data-dir "$data" --ready-fd x
fails "listen URL of an unknown kind" 64 'pigeon' "$buswayd" --data-dir "$data" --listen pigeon://x --check-config
fails "listen URL of another host" 78 "option listeners" "$buswayd" --data-dir "$data" --listen tcp://0.0.0.0:1 --check-config
fails "no such group" 78 "no-such-group-here" "$buswayd" --data-dir "$data" --socket-group no-such-group-here
same "nothing was made by any of it" "$(ls "$work")" daemon_tool

# -- configuration file -----------------------------------------------------------------------------------------------------
conf=$work/b.conf
printf '# ours\ndata-dir = %s\n[topic-defaults]\nretention.ms = 7d\n' "$data" >"$conf"
same "--check-config of a good file" "$("$buswayd" --config "$conf" --check-config 2>&1)" "configuration ok"
same "--check-config starts nothing" "$([ -e "$data" ] || echo none)" none
config_fails() { # name, line, pattern, text of the file
    printf '%b' "$4" >"$conf"
    fails "config: $1" 78 "$conf:$2: .*$3" "$buswayd" --data-dir "$data" --config "$conf" --check-config
}
config_fails "unknown option" 2 'no.such.option' '# x\nno.such.option = 1\n'
config_fails "a bad number" 3 'num.partitions' '\n\nnum.partitions = many\n'
config_fails "out of range" 1 'num.partitions' 'num.partitions = 0\n'
config_fails "unknown section" 2 'unknown section' '[nowhere]\nx = 1\n'
config_fails "a topic's option outside its section" 1 'topic-defaults' 'retention.ms = 1d\n'
config_fails "given twice" 3 'first in line 1' 'num.partitions = 1\n\nnum.partitions = 2\n'
config_fails "no name = value" 2 'neither' '# x\nwhat is this\n'
config_fails "a bad choice" 2 'compression.type' '[topic-defaults]\ncompression.type = rar\n'
fails "config: no such file" 74 "$work/none.conf" "$buswayd" --config "$work/none.conf"
fails "config: a folder" 78 'no regular file' "$buswayd" --config "$work"
printf 'num.partitions = 3\0\n' >"$conf"
fails "config: bytes" 78 'NUL' "$buswayd" --config "$conf" --check-config

# -- starts, with the file's values ------------------------------------------------------------------------------------------
printf 'data-dir = %s\nnum.partitions = 3\n[topic-defaults]\nretention.ms = 7d\n' "$data" >"$conf"
start_daemon "$data" "$run" --config "$conf"
same "the folder of the socket is 0750, the socket 0660" "$(stat -c %a "$run" "$sock" | xargs)" "750 660"
same "config: num.partitions counts" "$(seq 1 9 | b produce t && b --json topic describe t | grep -oE '"partition":[0-9]+' | wc -l)" 3
fails "a second daemon on the same data" 75 "in use by the daemon with pid $daemon_pid" "$buswayd" --data-dir "$data" --runtime-dir "$work/run2"
fails "a second daemon on the same socket" 69 "$sock.*another process answers" "$buswayd" --data-dir "$work/data2" --runtime-dir "$run"
same "the first goes on" "$(b consume t -e | sort -n | xargs)" "1 2 3 4 5 6 7 8 9"

# -- clean stop ----------------------------------------------------------------------------------------------------------------
allocated=$(stat -c %s "$data"/t-0/*.log)
stop_daemon TERM
same "SIGTERM: exit status 0" "$stopped_rc" 0
has "SIGTERM: says why and that it closed" "$(cat "$work/daemon.log")" 'stopping reason=SIGTERM' 'closed trimmed=true' 'info stopped'
trimmed=$(stat -c %s "$data"/t-0/*.log)
bytes=$("$busway" --json verify "$data" | grep -oE '"bytes":[0-9]+' | head -1 | cut -d: -f2)
same "the active segments end where their data ends" "$(cat "$data"/t-?/*.log | wc -c)" "$bytes"
if [ "$trimmed" -lt "$allocated" ]; then ok "trimmed: $allocated -> $trimmed bytes"; else bad "trimmed" "$allocated -> $trimmed"; fi
same "sockets and control data are gone" "$(ls "$run" | grep -v '^private' | xargs)" ""

# -- SIGKILL, then recovery -------------------------------------------------------------------------------------------------
start_daemon "$data" "$run"
seq 10 1009 | b --transport ipc produce t --report >"$work/acks"
stop_daemon KILL
same "SIGKILL left the socket behind" "$([ -S "$sock" ] && echo yes)" yes
start_daemon "$data" "$run"
same "after SIGKILL everything acknowledged is there" "$(b consume t -e | sort -n | md5sum)" "$(seq 1 1009 | md5sum)"
same "each was acknowledged once" "$(sort -u "$work/acks" | wc -l)" 1000
seq 1010 1020 | b produce t
stop_daemon KILL
rm -rf "$run" "/dev/shm/busway-$(id -u)/$(cat "$data/generation")"
start_daemon "$data" "$run"
has "without its control data it recovers from the logs" "$(tail -3 "$work/daemon.log")" ' recovered topics=1 partitions=3'
same "and everything is there" "$(b consume t -e | sort -n | md5sum)" "$(seq 1 1020 | md5sum)"
stop_daemon INT
same "SIGINT stops cleanly too" "$stopped_rc" 0
same "verify finds nothing wrong" "$("$busway" verify "$data" >/dev/null 2>&1; echo $?)" 0

# -- what lies at the socket's path --------------------------------------------------------------------------------------------
mkdir -p "$run"
echo precious >"$sock"
fails "a foreign file at the socket's path" 64 "$sock.*no socket" "$buswayd" --data-dir "$data" --runtime-dir "$run"
same "it is untouched" "$(cat "$sock")" precious
rm "$sock"; mkdir "$sock"
fails "a folder there" 64 "$sock.*no socket" "$buswayd" --data-dir "$data" --runtime-dir "$run"
rmdir "$sock"
"$work/daemon_tool" listen "$sock" >"$work/listening" &
other=$!
started_pids+=($other)
until_true 5 grep -q listening "$work/listening"
fails "somebody else's live socket there" 69 "$sock.*another process answers" "$buswayd" --data-dir "$data" --runtime-dir "$run"
kill $other; wait $other 2>/dev/null
start_daemon "$data" "$run" && ok "a stale socket is replaced"
stop_daemon
"$work/daemon_tool" stale "$run/rep.sock"
start_daemon "$data" "$run" && ok "a stale REP socket is replaced"
stop_daemon
long=$work/$(printf 'x%.0s' {1..120})
fails "a socket path over 107 bytes" 64 'at most 107.*ipc:///run/busway/bus.sock' "$buswayd" --data-dir "$data" --listen "ipc://$long/bus.sock"
same "an embedded bus in such a folder works all the same" "$(echo far | "$busway" -b "dir:$long?idle-exit=300ms" produce t --report && "$busway" -b "dir:$long?idle-exit=300ms" consume t -e)" \
    "$(printf '{"topic":"t","partition":0,"offset":0}\nfar')"

# -- the data directory ---------------------------------------------------------------------------------------------------------
echo x >"$work/file"
fails "the data directory is a file" 74 "$work/file" "$buswayd" --data-dir "$work/file" --runtime-dir "$run"
mkdir -m 777 "$work/open"
fails "everybody may write it" 77 "$work/open.*chmod o-w" "$buswayd" --data-dir "$work/open" --runtime-dir "$run"
if [ "$(id -u)" = 0 ]; then
    mkdir -m 755 "$work/theirs" && chown 12345 "$work/theirs"
    fails "it belongs to somebody else" 77 'belongs to uid 12345.*runs as uid 0' "$buswayd" --data-dir "$work/theirs" --runtime-dir "$run"
    mkdir -m 700 "$work/locked" && mkdir "$work/theirrun" && chown 12345 "$work/theirrun"
    if command -v setpriv >/dev/null; then
        fails "it can't be read" 77 "$work/locked.*[Pp]ermission" setpriv --reuid 12345 --regid 12345 --clear-groups "$buswayd" --data-dir "$work/locked" --runtime-dir "$work/theirrun"
    else skip "setpriv is not here: unreadable data directory"; fi
else
    mkdir -m 0 "$work/locked"
    fails "it can't be read" 77 "$work/locked" "$buswayd" --data-dir "$work/locked" --runtime-dir "$run"
fi
same "refusals made nothing in it" "$(ls -A "$work/open" "$work/locked" 2>/dev/null | grep -c busway)" 0

# -- formats --------------------------------------------------------------------------------------------------------------------
cp "$data/busway.format" "$work/format"
sed -i 's/[0-9]\+/7/' "$data/busway.format"
fails "data of a newer format" 65 'format 7.* 1;' "$buswayd" --data-dir "$data" --runtime-dir "$run"
echo nonsense >"$data/busway.format"
fails "a format file that is none" 65 'busway.format' "$buswayd" --data-dir "$data" --runtime-dir "$run"
cp "$work/format" "$data/busway.format"
"$work/daemon_tool" meta-format "$data/meta" 9 || bad "the tool can write the metadata"
fails "metadata of a newer format" 65 'format 9.* 2' "$buswayd" --data-dir "$data" --runtime-dir "$run"
"$work/daemon_tool" meta-format "$data/meta" 2
start_daemon "$data" "$run" && same "with its own format back it starts, nothing lost" "$(b consume t -e | sort -n | md5sum)" "$(seq 1 1020 | md5sum)"
stop_daemon
cp -r "$data" "$work/broken"
head -c 8192 /dev/urandom >"$work/broken/meta/data.mdb"
start_daemon "$work/broken" "$run" && same "a damaged LMDB file is built anew from its snapshot" "$(b consume t -e | sort -n | md5sum)" "$(seq 1 1020 | md5sum)"
has "and the log says so" "$(cat "$work/daemon.log")" 'metadata_repaired.*data.mdb'
same "the damaged file is kept" "$(ls "$work/broken/meta" | grep -c damaged)" 1
stop_daemon
head -c 8192 /dev/urandom >"$work/broken/meta/data.mdb"
for f in "$work/broken/meta"/snapshot-*; do head -c 60 /dev/urandom >"$f"; done
fails "metadata of which both copies are damaged" 65 'both its copies.*backup' "$buswayd" --data-dir "$work/broken" --runtime-dir "$run"
rm -rf "$work/broken/meta"
start_daemon "$work/broken" "$run" && same "without metadata the topics are adopted from their folders" "$(b consume t -e | sort -n | md5sum)" "$(seq 1 1020 | md5sum)"
stop_daemon

# -- service manager, idle exit, JSON -------------------------------------------------------------------------------------------
"$work/daemon_tool" notify "$work/notify" >"$work/notified" &
notified=$!
started_pids+=($notified)
until_true 5 test -S "$work/notify"
NOTIFY_SOCKET=$work/notify start_daemon "$data" "$run"
until_true 5 grep -q READY=1 "$work/notified"
same "the service manager is told READY=1 when it answers" "$(cat "$work/notified")" READY=1
NOTIFY_SOCKET=$work/notify stop_daemon
until_true 5 grep -q STOPPING=1 "$work/notified"
same "and STOPPING=1" "$(cat "$work/notified" | xargs)" "READY=1 STOPPING=1"

start_daemon "$data" "$run" --idle-exit 400ms
b topic list >/dev/null
begin=${EPOCHREALTIME/./}
wait "$daemon_pid"
same "--idle-exit ends it cleanly" $? 0
idle_ms=$(((${EPOCHREALTIME/./} - begin) / 1000))
has "it says so" "$(tail -4 "$work/daemon.log")" 'stopping reason=idle'
if [ $idle_ms -ge 250 ]; then ok "not before its time: $idle_ms ms"; else bad "not before its time" "$idle_ms ms"; fi
start_daemon "$data" "$run" --idle-exit 500ms
sleep 3 | b produce held &
started_pids+=($!)
sleep 1.5
if alive; then ok "a connection keeps it"; else bad "a connection keeps it" "$(tail -3 "$work/daemon.log")"; fi
wait "$daemon_pid"

: >"$work/daemon.log"
start_daemon "$data" "$run" --log-json --log-level debug
b topic create 'quo.te' -c retention.ms=1d >/dev/null
b topic delete quo.te >/dev/null
fails "a name with quotes is refused" 2 'INVALID_TOPIC|name' "$busway" -b "ipc://$sock" topic create 'a"b'
stop_daemon
has "--log-json: each line is a JSON object" "$("$work/daemon_tool" json <"$work/daemon.log")" '^[0-9]+ lines$'
has "with the events" "$(cat "$work/daemon.log")" '"event":"listening"' '"event":"topic_created","topic":"quo.te"' '"event":"stopped"'
: >"$work/daemon.log"
start_daemon "$data" "$run" --log-level error
stop_daemon
same "--log-level error: no events of a good life" "$(cat "$work/daemon.log")" ""
finish
