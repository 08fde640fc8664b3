# Sourced by the integration scripts: verdicts, a working folder, daemons that are started, answered by and ended.
# A script ends with `finish`, which prints the runner's line.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
build=$(realpath "${BW_BUILD:-build/debug}")
busway=$(realpath "${BUSWAY:-$build/busway}")
buswayd=$(realpath "${BUSWAYD:-$build/buswayd}")
export BUSWAYD=$buswayd
work=$(mktemp -d "${TMPDIR:-/tmp}/it.XXXXXX")
chmod 755 "$work"
passed=0 failed=0 skipped=0
daemon_pid=
started_pids=()
cleanup_commands=()

at_end() { # leave no process and no mount behind
    local pid c
    for pid in "${started_pids[@]}"; do kill -KILL "$pid" 2>/dev/null; done
    for c in "${cleanup_commands[@]}"; do eval "$c" 2>/dev/null; done
    wait 2>/dev/null
    rm -rf "$work"
}
trap at_end EXIT

ok() { passed=$((passed + 1)); printf 'ok    %s\n' "$1"; }
bad() { failed=$((failed + 1)); printf 'FAIL  %s\n' "$1"; [ $# -lt 2 ] || printf '%s\n' "${@:2}" | head -30 | sed 's/^/      | /'; }
skip() { skipped=$((skipped + 1)); printf 'SKIP: %s\n' "$1"; }
note() { printf '      (%s)\n' "$1"; }
same() { if [ "$2" = "$3" ]; then ok "$1"; else bad "$1" "got:" "$2" "expected:" "$3"; fi; }
# has NAME TEXT PATTERN…: every pattern (extended) occurs in the text
has() { local name=$1 text=$2 p; shift 2; for p in "$@"; do grep -qE -- "$p" <<<"$text" || { bad "$name" "no /$p/ in:" "$text"; return 1; }; done; ok "$name"; }
at_most() { if [ "$2" -le "$3" ]; then ok "$1: $2 <= $3"; else bad "$1: $2 > $3" "${@:4}"; fi; }
# fails NAME CODE PATTERN COMMAND…: the exit code, and words on stderr that match
fails() {
    local name=$1 code=$2 pattern=$3 out rc
    shift 3
    out=$(timeout 20 "$@" 2>&1 >/dev/null </dev/null); rc=$?
    if [ $rc -ne "$code" ]; then bad "$name" "exit code $rc, expected $code:" "$out"
    elif ! grep -qE -- "$pattern" <<<"$out"; then bad "$name" "no /$pattern/ in:" "$out"
    else ok "$name"; fi
}
finish() {
    if [ $skipped -gt 0 ]; then echo "$passed passed, $failed failed, $skipped skipped"; else echo "$passed passed, $failed failed"; fi
    [ $failed -eq 0 ]
    exit
}
skip_all() { echo "SKIP: $1"; exit 77; }

# build_tool NAME LIBRARIES…: tests/integration/tools/NAME.c into $work/NAME
build_tool() {
    "${CC:-gcc}" -std=c11 -D_GNU_SOURCE -O1 -Wall -Wextra -Werror -Iinclude "tests/integration/tools/$1.c" -o "$work/$1" "${@:2}" ||
        { bad "tools/$1.c compiles"; finish; }
}

# begin_daemon DATA RUN OPTION…: in the background; its events go to $work/daemon.log. Sets daemon_pid.
begin_daemon() {
    local data=$1 run=$2
    shift 2
    rm -f "$work/ready" && mkfifo "$work/ready"
    ${daemon_prefix:-} "$buswayd" --data-dir "$data" --runtime-dir "$run" --ready-fd 9 "$@" 9<>"$work/ready" 2>>"$work/daemon.log" </dev/null >&2 &
    daemon_pid=$!
    started_pids+=("$daemon_pid")
}
# start_daemon DATA RUN OPTION…: until it answers. Fails the script's test when it does not.
start_daemon() {
    local word='' part i
    begin_daemon "$@"
    exec 8<>"$work/ready"
    for ((i = 0; i < 100; i++)); do
        read -r -t 0.2 part <&8 && { word+=$part; break; }
        word+=$part # what of the line was there already
        kill -0 "$daemon_pid" 2>/dev/null || break
    done
    exec 8<&-
    [ "$word" = READY ] || { bad "the daemon starts" "$(tail -5 "$work/daemon.log")"; return 1; }
}
# stop_daemon [SIGNAL]: ends it and keeps its exit status in stopped_rc
stop_daemon() {
    kill -"${1:-TERM}" "$daemon_pid" 2>/dev/null
    wait "$daemon_pid" 2>/dev/null
    stopped_rc=$?
}
alive() { kill -0 "$daemon_pid" 2>/dev/null && ! grep -q '^State:.Z' "/proc/$daemon_pid/status" 2>/dev/null; }
rss_kb() { awk '/^VmRSS:/ {print $2}' "/proc/$daemon_pid/status"; }
# json TEXT NAME: the first value of that name, flat
json() { grep -oE "\"$2\":(\"([^\"\\\\]|\\\\.)*\"|[^],}]*)" <<<"$1" | head -1 | sed -E 's/^"[^"]*"://; s/^"(.*)"$/\1/'; }
# until_true SECONDS COMMAND…
until_true() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do [ $SECONDS -lt $end ] || return 1; sleep 0.05; done
}
