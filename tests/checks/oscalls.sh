#!/usr/bin/env bash
# The engine calls the operating system in one place. Calls named in BW_OS_CALLS appear in log/ and format/ only as bw_os_<name>,
# so that the fault seam sees every one of them.
set -euo pipefail
cd "$(dirname "$0")/../.."
calls=$(sed -n '/define BW_OS_CALLS/,/^$/p' src/base/os.h | grep -oE 'X\([a-z0-9_]+\)' | sed 's/X(\(.*\))/\1/')
[ "$(wc -w <<<"$calls")" -ge 20 ] || { echo "BW_OS_CALLS not found in src/base/os.h"; echo "0 passed, 1 failed"; exit 1; }
scan() { # folder...: uses of the bare names, with comments and strings taken out
    local names
    names=$(tr '\n' '|' <<<"$calls" | sed 's/|$//')
    find "$@" -name '*.[ch]' 2>/dev/null | LC_ALL=C sort | while read -r file; do
        sed -E -e 's,"([^"\\]|\\.)*","",g' -e 's,//.*,,' "$file" | awk '
            { line = $0; out = ""
              while (length(line)) {
                  if (incomment) { i = index(line, "*/"); if (!i) { line = ""; break } line = substr(line, i + 2); incomment = 0 }
                  else { i = index(line, "/*"); if (!i) { out = out line; line = "" }
                         else { out = out substr(line, 1, i - 1); line = substr(line, i + 2); incomment = 1 } } }
              print out }' |
            { grep -nE "(^|[^a-zA-Z0-9_>.])($names|openat|openat2|msync|ftruncate64|posix_fallocate|nanosleep|usleep|syscall|fopen)[[:space:]]*\(" || true; } |
            sed "s,^,$file:,"
    done
}
pass=0 fail=0
seed=$(mktemp -d)
trap 'rm -rf "$seed"' EXIT
printf '/* open() in words */\nint f(void) { return bw_os_open(1); }\nint g(void) { return fdatasync(3); }\n' >"$seed/a.c"
if [ "$(scan "$seed" | wc -l)" -eq 1 ]; then pass=$((pass + 1)); else echo "the check misses its seeded call"; fail=$((fail + 1)); fi
found=$(scan src/log src/format)
if [ -z "$found" ]; then pass=$((pass + 1)); else echo "call base/os.h instead:"; echo "$found"; fail=$((fail + 1)); fi
echo "$pass passed, $fail failed"
[ $fail -eq 0 ]
