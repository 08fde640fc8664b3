#!/usr/bin/env bash
# The command `busway` as a person or a script uses it: every subcommand, the exit codes, and bad input.
# test: limit=120
set -uo pipefail
cd "$(dirname "$0")/../.."
busway=$(realpath "${BUSWAY:-build/debug/busway}")
buswayd=$(realpath "${BUSWAYD:-build/debug/buswayd}")
export BUSWAYD=$buswayd
work=$(mktemp -d "${TMPDIR:-/tmp}/cli.XXXXXX")
bus="dir:$work/bus?idle-exit=2s"
passed=0 failed=0 skipped=0 daemons=()
finish() { for pid in "${daemons[@]}"; do kill "$pid" 2>/dev/null; done; wait 2>/dev/null; rm -rf "$work"; }
trap finish EXIT
b() { "$busway" -b "$bus" "$@"; }
ok() { passed=$((passed + 1)); printf 'ok    %s\n' "$1"; }
bad() { failed=$((failed + 1)); printf 'FAIL  %s\n' "$1"; [ $# -lt 2 ] || printf '%s\n' "${@:2}" | head -20 | sed 's/^/      | /'; }
skip() { skipped=$((skipped + 1)); printf 'SKIP: %s\n' "$1"; }
same() { if [ "$2" = "$3" ]; then ok "$1"; else bad "$1" "got:" "$2" "expected:" "$3"; fi; }
# has NAME TEXT PATTERN...: every pattern (extended) occurs in the text
has() { local name=$1 text=$2 p; shift 2; for p in "$@"; do grep -qE -- "$p" <<<"$text" || { bad "$name" "no /$p/ in:" "$text"; return; }; done; ok "$name"; }
# fails NAME CODE PATTERN COMMAND...: exit code, and an error line "busway: …" that matches; stdout stays empty of errors
fails() {
    local name=$1 code=$2 pattern=$3 out rc
    shift 3
    out=$("$@" 2>&1 >/dev/null </dev/null); rc=$?
    if [ $rc -ne "$code" ]; then bad "$name" "exit code $rc, expected $code:" "$out"
    elif ! grep -qE -- "$pattern" <<<"$out"; then bad "$name" "no /$pattern/ in:" "$out"
    elif ! grep -q '^busway' <<<"$out"; then bad "$name" "no line that begins with busway:" "$out"
    else ok "$name"; fi
}

# -- help ---------------------------------------------------------------------------------------------------------------
has "help lists the commands" "$("$busway" help)" 'topic create' 'produce' 'consume' 'verify' 'dump' 'status' 'bench' 'top ' 'Exit codes'
for c in $("$busway" help --words | tr ' ' '_'); do
    c=${c//_/ }
    # shellcheck disable=SC2086
    has "help $c has usage and examples" "$("$busway" help $c)" "^Usage: busway $c" '^Examples:'
    # shellcheck disable=SC2086
    same "$c --help is the same" "$("$busway" $c --help)" "$("$busway" help $c)"
done
has "--version" "$("$busway" --version)" '^busway [0-9]+\.[0-9]+\.[0-9]+'
manual=$(sed 's/\\-/-/g' src/cli/man/busway.1)
missing=$(for c in $("$busway" help --words | tr ' ' '_'); do
    # shellcheck disable=SC2086
    "$busway" help --words ${c//_/ }
done | tr -d = | sort -u | while read -r o; do
    case $o in --*) grep -qE -- "(Fl |, )-${o#--}\b" <<<"$manual" ;; *) grep -qE -- "Fl ${o#-}( |$)" <<<"$manual" ;; esac || echo "$o"
done)
same "every option is in the manual" "$missing" ""
if command -v mandoc >/dev/null; then same "the manual is clean" "$(mandoc -Tlint -Wwarning src/cli/man/busway.1 2>&1)" ""; else skip "mandoc is not here: the manual is not checked"; fi

# -- completion ---------------------------------------------------------------------------------------------------------
complete_line() { # what the shell would offer for this line
    bash --norc -c 'source src/cli/completion/busway.bash; PATH=$2:$PATH; COMP_LINE=$1 COMP_POINT=${#1}
        read -ra COMP_WORDS <<<"$1"; [[ $1 == *" " ]] && COMP_WORDS+=(""); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _busway; echo "${COMPREPLY[*]}"' - "$1" "$(dirname "$busway")"
}
same "completion: commands" "$(complete_line 'busway -b dir:./x cons')" consume
same "completion: topic's commands" "$(complete_line 'busway topic ')" "create list describe alter delete purge"
same "completion: options" "$(complete_line 'busway produce t --a')" --acks
same "completion: values" "$(complete_line 'busway produce t --acks ')" "none visible durable"

# -- usage errors -------------------------------------------------------------------------------------------------------
fails "no such command" 2 'did you mean produce' "$busway" prodcue
fails "unknown option" 2 'unknown option --fromat.*did you mean --format' "$busway" consume t --fromat x
fails "unknown short option" 2 'unknown option -Q' "$busway" consume t -Q
fails "option without its value" 2 '-o needs a value' "$busway" consume t -o
fails "bad number" 2 "not a number" "$busway" consume t -c many
fails "bad offset" 2 'not one of beginning' "$busway" consume t -o middle
fails "bad codec" 2 'not one of none, gzip' "$busway" produce t -z rar
fails "bad format letter" 2 'unknown letter' "$busway" consume t -f '%y'
fails "no topic" 2 'which topic' "$busway" produce
fails "report without acknowledgements" 2 'acks none' "$busway" produce t --report --acks none
fails "bad transport" 2 'not one of auto, direct, ipc' "$busway" --transport pigeon status
fails "topic alone" 2 'create, list, describe' "$busway" topic
fails "wrong URL" 2 'nowhere' "$busway" -b nowhere:/x status
fails "nobody answers" 5 "$work/none.sock" "$busway" -b "ipc://$work/none.sock" --timeout 2 status
fails "a plain file at the socket path" 5 'plain' "$busway" -b "ipc://$work/plain" --timeout 2 status < <(echo x >"$work/plain")
same "the foreign file is untouched" "$(cat "$work/plain" 2>/dev/null; : >>"$work/plain")" "$(cat "$work/plain")"

# -- first use: nothing is started ---------------------------------------------------------------------------------------
begin=${EPOCHREALTIME/./}
out=$(echo hello | b produce greetings --report 2>&1)
end=${EPOCHREALTIME/./}
same "produce into an empty folder, report" "$out" '{"topic":"greetings","partition":0,"offset":0}'
echo "      (first record acknowledged $(((end - begin) / 1000)) ms after the start of the process, with a daemon to start)"
same "consume -e" "$(b consume greetings -e)" hello
same "consume -e of an unknown topic" "$(b consume nothing -e 2>&1 >/dev/null; echo $?)" "$(b consume nothing -e 2>&1 >/dev/null)
3"

# -- topics --------------------------------------------------------------------------------------------------------------
b topic create orders --partitions 3 -c retention.ms=3600000 -c max.message.bytes=2000 && ok "topic create" || bad "topic create"
fails "topic create twice" 1 'orders' b topic create orders
b topic create orders --if-not-exists && ok "topic create --if-not-exists" || bad "topic create --if-not-exists"
fails "bad topic name" 2 'bad/name' b topic create bad/name
fails "topic name ." 2 '.' b topic create .
fails "topic name of 250 characters" 2 '249' b topic create "$(printf 'x%.0s' {1..250})"
b topic create has.dot && fails "names that collide by . and _" 2 'has.dot' b topic create has_dot
fails "unknown configuration" 2 'no.such.thing' b topic create t2 -c no.such.thing=1
fails "bad configuration value" 2 'retention.ms' b topic create t2 -c retention.ms=soon
fails "-c without =" 2 'name=value' b topic create t2 -c retention.ms
has "topic list" "$(b topic list)" '^TOPIC +PARTITIONS' '^orders +3 +0 ' '^greetings +1 +1 '
same "topic list --json" "$(b topic list --json | tr ',' '\n' | grep -c '"name":"\(orders\|greetings\|has.dot\)"')" 3
has "topic describe" "$(b topic describe orders)" '^orders: 3 partitions, 0 records' 'retention.ms=3600000$' 'PARTITION +START'
fails "topic describe of an unknown one" 3 'nothing' b topic describe nothing
b topic alter orders -c retention.ms=7200000 --partitions 4 && ok "topic alter" || bad "topic alter"
has "altered" "$(b topic describe orders)" '^orders: 4 partitions' 'retention.ms=7200000$'
b topic alter orders --unset retention.ms && has "unset" "$(b topic describe orders)" 'retention.ms=604800000 +\(default\)'
fails "partitions never shrink" 2 'orders' b topic alter orders --partitions 2
fails "alter without a change" 2 'nothing to change' b topic alter orders

same "completion: topics" "$(complete_line "busway -b dir:$work/bus consume ord")" orders

# -- groups, transactions, queues, quotas ----------------------------------------------------------------------------------
b topic create work --partitions 3 >/dev/null
for k in a b c d e f; do seq 1 50 | b produce work -k $k; done
same "consume -G reads everything once" "$(b consume -G readers work -e | wc -l)" 300
same "consume -G goes on where the group was" "$(b consume -G readers work -e | wc -l)" 0
has "group list" "$(b group list)" '^GROUP +STATE' '^readers +Empty +consumer +0 +3$'
has "group describe" "$(b group describe readers)" '^readers: Empty, consumer, cooperative-sticky, epoch [0-9]+, 0 members, lag 0 records$' 'work +2 +[0-9]+ +[0-9]+ +0 '
has "reset-offsets shows first" "$(b group reset-offsets readers --to-earliest 2>&1)" 'work +0 +[0-9]+ +0 ' 'nothing was changed'
same "and changes nothing" "$(b consume -G readers work -e | wc -l)" 0
b group reset-offsets readers --to-earliest --execute >/dev/null && same "reset-offsets --execute" "$(b consume -G readers work -e | wc -l)" 300
b group reset-offsets readers --topic work:1 --to-offset 0 --execute >/dev/null
same "reset-offsets of one partition" "$(b consume -G readers work -e -f '%p\n' | sort -u)" 1
b group reset-offsets readers --shift-by -10 --execute >/dev/null
has "shift-by" "$(b group describe readers)" 'lag 30 records'
same "by-duration" "$(b group reset-offsets readers --by-duration PT1H --json | grep -o '"new_offset":0' | wc -l)" 3
same "to-datetime of tomorrow is the end" "$(b group reset-offsets readers --to-datetime "$(date -u -d tomorrow +%Y-%m-%dT%H:%M:%SZ)" --json | grep -o '"new_offset":0' | wc -l)" 0
"$busway" -b "$bus" consume -G readers work >/dev/null & member=$!
for _ in $(seq 50); do b group members readers --json | grep -q '"pid":'$member && break; sleep 0.1; done
has "group members" "$(b group members readers)" "1 member" "$member +"
fails "reset-offsets of a group with members" 1 'stop them first' b group reset-offsets readers --to-latest --execute
fails "delete of a group with members" 1 'members' b group delete readers
has "top shows groups" "$(b top -n 1 --interval 0.1)" '^readers +Stable'
has "status shows groups" "$(b status)" '^readers +Stable'
kill $member; wait $member 2>/dev/null
b group delete readers && same "group delete" "$(b group list 2>/dev/null)" ""
fails "group describe of an unknown one" 3 'readers' b group describe readers
fails "-G with -p" 2 'exclude' b consume -G g work -p 0
fails "-G with an offset" 2 'reset-offsets' b consume -G g work -o 5
fails "reset-offsets without a target" 2 'where to' b group reset-offsets g
fails "reset-offsets to two targets" 2 'one target' b group reset-offsets g --to-earliest --to-latest
fails "reset-offsets to no time" 2 'to-datetime' b group reset-offsets g --to-datetime yesterday
fails "a group alone" 2 'list, describe, members, reset-offsets or delete' b group
fails "unknown assignor" 2 'assignor' b consume -G g work -e --assignor best
b quota set --client loader producer_byte_rate=20M request_rate=100 && has "quota list" "$(b quota list)" 'loader +- +20.0 MiB +- +100$'
fails "quota of zero" 2 "allowed" b quota set --client loader producer_byte_rate=0
fails "quota of nobody" 2 'whose' b quota set producer_byte_rate=1
b quota set --client loader producer_byte_rate= request_rate= && same "quota lifted" "$(b quota list 2>/dev/null)" ""
fails "txn describe of an unknown one" 3 'nope' b txn describe nope
fails "queue peek into an unknown one" 3 'nope' b queue peek nope work
same "consume --isolation committed" "$(b consume work -e --isolation committed | wc -l)" 300
fails "bad isolation" 2 'isolation' b consume work --isolation none

# -- produce, consume ----------------------------------------------------------------------------------------------------
for transport in direct ipc; do
    t=t-$transport
    bt() { "$busway" -b "$bus" --transport $transport "$@"; }
    bt topic create "$t" --partitions 1
    printf 'k1:v1\nnokey\nk2:\n:v3\n\n' | bt produce "$t" -K : -H source=test -H flag
    same "$transport: keys, empty values, headers" "$(bt consume "$t" -e -f '%o|%K|%k|%S|%s|%h\n')" "0|2|k1|2|v1|source=test,flag=NULL
1|-1||5|nokey|source=test,flag=NULL
2|2|k2|0||source=test,flag=NULL
3|0||2|v3|source=test,flag=NULL
4|-1||0||source=test,flag=NULL"
    printf 'a:\n:b\n' | bt produce "$t" -K : -Z
    same "$transport: -Z makes null" "$(bt consume "$t" -e -o 5 -f '%K %S\n')" "1 -1
-1 1"
    same "$transport: -o -2" "$(bt consume "$t" -e -o -2 -f '%o\n' | tr '\n' ' ')" "5 6 "
    same "$transport: -c" "$(bt consume "$t" -c 2 -f '%o\n' | tr '\n' ' ')" "0 1 "
    same "$transport: -o end -e" "$(bt consume "$t" -o end -e)" ""
    printf 'nul\0sep\nrated\0' | bt produce "$t" --null
    same "$transport: --null" "$(bt consume "$t" -e -o -2 -D '|')" "nul|sep
rated|"
    for z in none gzip snappy lz4 zstd; do
        seq 1 2000 | sed "s/^/$z-/" | bt produce "z-$transport-$z" -z $z && same "$transport: 2000 records through $z" \
            "$(bt consume "z-$transport-$z" -e | sha256sum)" "$(seq 1 2000 | sed "s/^/$z-/" | sha256sum)"
    done
    head -c 700 /dev/urandom >"$work/blob"
    bt produce "$t" "$work/blob" && bt consume "$t" -o -1 -e -D '' | cmp -s - "$work/blob" && ok "$transport: a binary file as one record" || bad "$transport: a binary file as one record"
    same "$transport: -J loses nothing of it" "$(bt consume "$t" -o -1 -e -J | sed 's/.*"payload_base64":"\([^"]*\)".*/\1/' | base64 -d | sha256sum)" "$(sha256sum <"$work/blob")"
    has "$transport: the envelope" "$(bt consume "$t" -c 1 -J)" '^\{"topic":"'$t'","partition":0,"offset":0,"tstype":"create","ts":[0-9]{13},"broker":0,"headers":\["source","test","flag",null\],"key":"k1","payload":"v1"\}$'
    same "$transport: durable acknowledgements and reading" "$(echo safe | bt produce "$t" --acks durable && bt consume "$t" -o -1 -e --read-limit durable)" safe

    # time: before, at, after
    ts=$(bt consume "$t" -o -1 -e -f '%T'); sleep 0.02; echo later | bt produce "$t"
    same "$transport: -o s@" "$(bt consume "$t" -o "s@$((ts + 1))" -e)" later
    same "$transport: -o e@" "$(bt consume "$t" -o -2 -o "e@$((ts + 1))")" safe

    # following: a consumer that waits sees what comes, and ends at a signal with what it has
    "$busway" -b "$bus" --transport $transport consume "$t" -o end -u >"$work/follow" & follower=$!
    sleep 0.5; printf 'one\ntwo\n' | bt produce "$t"
    for _ in {1..50}; do [ "$(wc -l <"$work/follow")" -ge 2 ] && break; sleep 0.05; done
    kill -TERM $follower; wait $follower; rc=$?
    same "$transport: a follower, ended by SIGTERM" "$(cat "$work/follow"; echo $rc)" "one
two
0"
    # the output's reader goes away
    seq 1 200000 | bt produce "pipe-$transport"
    bt consume "pipe-$transport" 2>"$work/err" | head -1 >"$work/head"; rcs=${PIPESTATUS[0]}
    same "$transport: | head -1" "$(cat "$work/head" "$work/err"; echo "$rcs")" "1
0"
    same "$transport: 200000 lines there and back" "$(bt consume "pipe-$transport" -e | sha256sum)" "$(seq 1 200000 | sha256sum)"
    same "$transport: every record reported once" "$(seq 1 20000 | bt produce "r-$transport" --report | grep -o '"offset":[0-9]*' | cut -d: -f2 | sort -n | uniq | wc -l)" 20000
    has "$transport: -p to a partition that is not there" "$(echo x | bt produce "$t" -p 9 2>&1; echo "code $?")" '[Pp]artition' 'code 3'

    # an oversize line in the middle: what was before it is there, the line is named
    { seq 1 10; head -c 3000 /dev/zero | tr '\0' x; echo; seq 11 20; } | bt produce orders -p 0 --report >"$work/report" 2>"$work/err"; rc=$?
    same "$transport: an oversize record stops with an error" "$rc $(wc -l <"$work/report")" "1 10"
    has "$transport: which names the line" "$(cat "$work/err")" 'line 11 ' '2000|max.message.bytes'
    bt topic purge orders -q
done
same "the two paths see the same log" "$(b --transport direct consume t-ipc -e -f '%o %k %s\n' | sha256sum)" "$(b --transport ipc consume t-ipc -e -f '%o %k %s\n' | sha256sum)"
seq 1 100 | awk '{print "key" $1 % 7 ":" $1}' | b produce spread -K : 2>/dev/null
b topic create keyed --partitions 4; seq 1 100 | awk '{print "key" $1 % 7 ":" $1}' | b produce keyed -K :
same "one key, one partition" "$(b consume keyed -e -f '%k %p\n' | sort -u | wc -l)" 7
same "-p reads one partition" "$(for p in 0 1 2 3; do b consume keyed -e -p $p -f '%p\n' | sort -u; done | tr '\n' ' ')" "$(b consume keyed -e -f '%p\n' | sort -u | tr '\n' ' ')"
fails "-p that is not there" 3 'artition' b consume keyed -p 9 -e
fails "an offset behind the end" 1 'outside of the log, which goes from 0 to.*--reset' b consume keyed -p 0 -o 1000000 -e
fails "produce a missing file" 3 'no-such-file' b produce keyed -l "$work/no-such-file"
has "interrupted produce delivers what it read" "$( (echo before; sleep 5) | { timeout -s INT 1 "$busway" -b "$bus" produce cut --report; echo "code $?"; })" '"offset":0' 'code (124|130)'

# -- purge, delete --------------------------------------------------------------------------------------------------------
b topic purge t-direct -p 0 --before 3 -q && same "purge moves the start" "$(b consume t-direct -c 1 -f '%o')" 3
fails "an offset before the start names the range" 1 '3' b consume t-direct -o 0 -e
same "--reset earliest goes on" "$(b consume t-direct -o 0 -c 1 --reset earliest -f '%o')" 3
b topic purge t-direct -q && same "purge everything" "$(b consume t-direct -e)" ""
fails "purge by offset wants one partition" 2 '-p' b topic purge keyed --before 1
b topic delete keyed && fails "a deleted topic is unknown" 3 'keyed' b topic describe keyed
fails "topic delete of an unknown one" 3 'keyed' b topic delete keyed
b topic delete keyed --if-exists && ok "topic delete --if-exists" || bad "topic delete --if-exists"

# -- status, top, bench ---------------------------------------------------------------------------------------------------
has "status" "$(b status)" '^daemon' 'pid' 'connections: [0-9]' 'busway'
has "status --json" "$(b status --json)" '^\{.*"pid":[0-9]+' '"connections":\['
has "top, not a terminal" "$(b top -n 1 --interval 0.1)" '^[0-9:]{8}  [0-9]+ topics' '^TOPIC +PART'
has "top --json" "$(b top -n 1 --interval 0.1 --partitions --json)" '^\{"time_ms":[0-9]+,"rows":\[.*"records_per_s"'
for transport in direct ipc; do
    has "bench $transport" "$(b --transport $transport bench speed --records 20000 2>&1)" "transport $transport" '^produce ' '^end to end' '^latency +p50'
done
has "bench --json" "$(b bench speed --records 1000 --json 2>&1)" '"end_to_end_records_per_s":[0-9]' '"latency_ns":\{"p50":[0-9]'
fails "bench leaves no topic" 3 'speed' b topic describe speed

# -- a daemon with auto-create off, and permissions ------------------------------------------------------------------------
printf 'auto.create.topics.enable = false\n' >"$work/off.ini"
"$buswayd" --data-dir "$work/d2" --runtime-dir "$work/r2" --listen "ipc://$work/r2/bus.sock" --config "$work/off.ini" 2>"$work/d2.log" & daemons+=($!)
for _ in {1..100}; do [ -S "$work/r2/bus.sock" ] && break; sleep 0.02; done
fails "unknown topic with auto-create off" 3 'nothere' "$busway" -b "ipc://$work/r2/bus.sock" produce nothere -l /etc/hostname
fails "a second daemon on the same data" 75 "${daemons[0]}" bash -c '"$@" 2>&1 | sed "s/^/busway /" >&2; exit "${PIPESTATUS[0]}"' - \
    "$buswayd" --data-dir "$work/d2" --runtime-dir "$work/r3" --listen "ipc://$work/r3/bus.sock"
if [ "$(id -u)" -eq 0 ] && command -v setpriv >/dev/null; then
    chmod 755 "$work"
    fails "another uid is told that it may not" 6 'may not connect.*group' setpriv --reuid 65534 --regid 65534 --clear-groups "$busway" -b "ipc://$work/r2/bus.sock" status
    mkdir -m 700 "$work/closed"
    fails "an unreadable data directory" 6 'closed' setpriv --reuid 65534 --regid 65534 --clear-groups "$busway" verify "$work/closed"
else
    skip "not root: no other uid to try"
fi

# -- verify, dump (the daemon of the folder has ended by then or is asked to) -----------------------------------------------
pid=$(b status --json | grep -oE '"pid":[0-9]+' | head -1 | cut -d: -f2)
kill -TERM "$pid"; for _ in {1..200}; do kill -0 "$pid" 2>/dev/null || break; sleep 0.02; done
has "verify of good data" "$("$busway" verify "$work/bus"; echo "code $?")" ' 0 errors' 'code 0'
log=$work/bus/greetings-0/00000000000000000000.log
has "dump" "$("$busway" dump "$log" --records)" '^batch at 0: offsets 0-0, 1 record, [0-9]+ bytes, none, create time' 'crc [0-9a-f]{8} ok' '^  0 @[0-9]+ null: "hello"$'
has "dump --json" "$("$busway" dump --json -r "$log")" '"type":"batch","position":0' '"type":"record","offset":0,.*"payload":"hello"'
cp -r "$work/bus" "$work/broken"
printf 'X' | dd of="$work/broken/greetings-0/00000000000000000000.log" bs=1 seek=66 conv=notrunc 2>/dev/null
out=$("$busway" verify "$work/broken" 2>&1); rc=$?
has "verify of a flipped byte" "$out"$'\n'"code $rc" 'ERROR: .*greetings-0/00000000000000000000.log: byte [0-9]+' 'code 4'
has "verify --json of it" "$("$busway" verify --json "$work/broken" 2>/dev/null)" '"finding":"error","path":".*greetings-0/' '"errors":[1-9]'
fails "dump of it" 4 'greetings-0' "$busway" dump "$work/broken/greetings-0/00000000000000000000.log"
fails "verify of nothing" 3 'no-such' "$busway" verify "$work/no-such"
fails "dump of nothing" 3 'no-such' "$busway" dump "$work/no-such"
same "the folder's bus goes on after its daemon ended" "$(b consume greetings -e)" hello

echo "$passed passed, $failed failed$([ $skipped -gt 0 ] && echo ", $skipped skipped")"
[ $failed -eq 0 ]
