#!/usr/bin/env bash
# What the README tells a person to do works as it stands: the installed tree, the command's tour, the C program.
# test: limit=180 build=release no-asan
set -uo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
work=$(mktemp -d "${TMPDIR:-/tmp}/readme.XXXXXX")
trap 'rm -rf "$work"' EXIT
pass=0 fail=0
ok() { pass=$((pass + 1)); echo "ok    $1"; }
bad() { fail=$((fail + 1)); echo "FAIL  $1"; [ $# -lt 2 ] || sed 's/^/      | /' <<<"$2"; }

prefix=$work/prefix
if out=$(make --no-print-directory -s install VARIANT=release PREFIX="$prefix" 2>&1); then ok "make install"; else bad "make install" "$out"; fi
for file in bin/busway bin/buswayd lib/libbusway.a lib/libbusway.so lib/libbusway.so.0 lib/pkgconfig/libbusway.pc include/busway/busway.h \
    share/man/man1/busway.1 share/man/man8/buswayd.8 share/man/man5/buswayd.conf.5 share/bash-completion/completions/busway \
    lib/systemd/system/buswayd.service lib/sysusers.d/busway.conf; do
    if [ -s "$prefix/$file" ]; then ok "installs $file"; else bad "installs $file"; fi
done
if grep -rl '@[A-Z]*@' "$prefix/lib/pkgconfig" "$prefix/lib/systemd" "$prefix/share/man"; then bad "no placeholder is left"; else ok "no placeholder is left"; fi
if grep -q '^RuntimeDirectoryPreserve=yes' "$prefix/lib/systemd/system/buswayd.service"; then ok "the unit keeps the runtime folder"
else bad "the unit keeps the runtime folder"; fi

export PATH="$prefix/bin:$PATH" LD_LIBRARY_PATH="$prefix/lib" PKG_CONFIG_PATH="$prefix/lib/pkgconfig"
unset BUSWAY_URL BUSWAYD
command -v cc >/dev/null || cc() { gcc "$@"; }
command -v pkg-config >/dev/null || pkg-config() { # the two lines of the file that matter, where the program is missing
    sed -n -e "s|\${includedir}|$prefix/include|; s|\${libdir}|$prefix/lib|; s/^\(Cflags\|Libs\): //p" "$prefix/lib/pkgconfig/libbusway.pc" | tr '\n' ' '
}
cd "$work" || exit 1
# The block behind a marker, by number.
block() { awk -v mark="$1" -v want="$2" '$0 ~ mark { n++; armed = (n == want); next } armed && /^```/ { if (inside) exit; inside = 1; next } inside' "$root/README.md"; }
export BUSWAY_URL=dir:./x all=""
block '<!-- file: app.c -->' 1 >app.c
block '<!-- run -->' 1 | grep -vE '^(export |busway top )' >tour # the path is another here; top runs until it is stopped
grep -o '`cc app.c [^`]*`' "$root/README.md" | tr -d '`' | sed 's/$/ -o app \&\& .\/app/' >>tour
if [ "$(wc -l <tour)" -ge 6 ] && [ -s app.c ]; then ok "the tour is there"; else bad "the tour is there" "$(cat tour)"; fi
while IFS= read -r line; do
    if out=$(eval "$line" 2>&1 </dev/null); then ok "${line%%  *}"; else bad "$line" "$out"; fi
    all+=$out$'\n'
done <tour
for expected in $'1\n2\n3\n4\n5' '"key":"key"' '"payload":"value"' 'numbers' 'version  ' '0: hello'; do
    if [[ $all == *"$expected"* ]]; then ok "shows: $expected"; else bad "shows: $expected" "$all"; fi
done
busway verify x >/dev/null 2>&1 && ok "the folder verifies" || bad "the folder verifies" "$(busway verify x 2>&1)"
echo "$pass passed, $fail failed"
[ $fail -eq 0 ]
