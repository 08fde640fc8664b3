#!/usr/bin/env bash
# Any nng program produces and fetches over the REP socket: in C with libnng, in Python with pynng (where it can be had), and from
# the shell with nngcat. And where a daemon's sockets may not be put.
# test: limit=120
# test: no-asan
set -uo pipefail
cd "$(dirname "$0")/../.."
buswayd=$(realpath "${BUSWAYD:-build/debug/buswayd}")
work=$(mktemp -d "${TMPDIR:-/tmp}/rep.XXXXXX")
passed=0 failed=0 skipped=0 daemon=
finish() { [ -z "$daemon" ] || kill "$daemon" 2>/dev/null; wait 2>/dev/null; rm -rf "$work"; }
trap finish EXIT
ok() { passed=$((passed + 1)); printf 'ok    %s\n' "$1"; }
bad() { failed=$((failed + 1)); printf 'FAIL  %s\n' "$1"; [ $# -lt 2 ] || printf '%s\n' "${@:2}" | head -20 | sed 's/^/      | /'; }
skip() { skipped=$((skipped + 1)); printf 'SKIP: %s\n' "$1"; }
# says NAME PATTERN COMMAND...: ends well and prints the pattern
says() {
    local name=$1 pattern=$2 out rc
    shift 2
    out=$(timeout 30 "$@" 2>&1 </dev/null); rc=$?
    if [ $rc -ne 0 ]; then bad "$name" "exit code $rc:" "$out"
    elif ! grep -qE -- "$pattern" <<<"$out"; then bad "$name" "no /$pattern/ in:" "$out"
    else ok "$name"; fi
}
# refused NAME PATTERN LISTEN-ARGUMENTS...: a daemon that can't have its socket says why and ends
refused() {
    local name=$1 pattern=$2 out rc
    shift 2
    out=$(timeout 20 "$buswayd" --data-dir "$work/other" --runtime-dir "$work/other-run" "$@" 2>&1 </dev/null); rc=$?
    if [ $rc -eq 0 ] || [ $rc -ge 124 ]; then bad "$name" "exit code $rc:" "$out"
    elif ! grep -qE -- "$pattern" <<<"$out"; then bad "$name" "no /$pattern/ in:" "$out"
    else ok "$name"; fi
}

rep=ipc://$work/run/rep.sock
"$buswayd" --data-dir "$work/data" --runtime-dir "$work/run" 2>"$work/log" &
daemon=$!
for _ in $(seq 200); do [ -S "$work/run/rep.sock" ] && break; sleep 0.02; done
[ -S "$work/run/rep.sock" ] || { bad "the daemon starts" "$(cat "$work/log")"; echo "0 passed, 1 failed"; exit 1; }

# -- C --
if out=$("${CC:-cc}" -O1 -Wall -Wextra -o "$work/rep_nng" tests/integration/rep_nng.c -lnng -lmsgpackc 2>&1); then
    says "a C program with libnng and msgpack-c" '^100 records produced and fetched from offset 0$' "$work/rep_nng" "$rep"
    says "and again, behind the first" 'from offset 100$' "$work/rep_nng" "$rep"
else
    bad "rep_nng.c compiles" "$out"
fi

# -- Python: what is installed, or a virtual environment of an earlier run, or one made now if the packages can be had --
python=
for candidate in python3 build/venv/bin/python; do
    "$candidate" -c 'import pynng, msgpack' 2>/dev/null && python=$candidate && break
done
if [ -z "$python" ] && [ -n "${BUSWAY_TEST_ONLINE:-}" ]; then
    timeout 90 sh -c 'python3 -m venv build/venv && build/venv/bin/pip install -q pynng msgpack' >"$work/pip" 2>&1 &&
        python=build/venv/bin/python || skip "pynng can't be installed: $(tail -1 "$work/pip")"
fi
if [ -n "$python" ]; then
    says "a Python program with pynng and msgpack" '^101 records produced and fetched from offset 0$' "$python" tests/integration/rep_pynng.py "$rep"
elif [ -z "${BUSWAY_TEST_ONLINE:-}" ]; then
    skip "pynng is not here (BUSWAY_TEST_ONLINE=1 fetches it into build/venv); the C program did the same"
fi

# -- the shell: STATUS is a message of twelve bytes --
if command -v nngcat >/dev/null; then
    printf '\0\025\0\0\0\0\0\1\0\0\0\0' >"$work/status"
    says "nngcat asks for the status" 'version' nngcat --req --dial "$rep" --file "$work/status" --ascii
    printf 'not a request' >"$work/garbage"
    says "nngcat sends garbage and is told so" 'UNSUPPORTED|claims|header|unknown' nngcat --req --dial "$rep" --file "$work/garbage" --ascii
else
    skip "nngcat is not here"
fi
if kill -0 "$daemon" 2>/dev/null; then ok "the daemon lives"; else bad "the daemon lives" "$(cat "$work/log")"; fi

# -- where a socket may be put --
long=$work/$(printf 'd%.0s' $(seq 120))
echo precious >"$work/precious"
refused "a path over 107 bytes is explained" '107' --listen "ipc://$long/bus.sock"
refused "a foreign file at the path is left alone" 'no socket' --listen "ipc://$work/precious"
[ "$(cat "$work/precious")" = precious ] && ok "and it is as it was" || bad "and it is as it was"
refused "a socket that another daemon answers at is left alone" 'another process' --listen "ipc://$work/run/bus.sock"
refused "a URL that is none is explained" 'ipc:///' --listen "/run/bus.sock"
[ "$(stat -c %a "$work/run" "$work/run/bus.sock" "$work/run/rep.sock" | tr '\n' ' ')" = "750 660 660 " ] &&
    ok "folder 0750, sockets 0660" || bad "folder 0750, sockets 0660" "$(stat -c '%a %n' "$work/run" "$work/run/"*)"
kill "$daemon"
wait "$daemon" && ok "the daemon stops cleanly" || bad "the daemon stops cleanly" "$(cat "$work/log")"
daemon=
[ -e "$work/run/bus.sock" ] || [ -e "$work/run/rep.sock" ] && bad "its sockets are gone" || ok "its sockets are gone"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
