#!/usr/bin/env bash
# The example of an IoT gateway under SIGKILL, its daemon too: the cloud has each reading once. Its parts are dealt out among C, Python and Go.
# GATEWAY=c|python|go: all of it in one language. GATEWAY_SEED, GATEWAY_SECONDS.
# test: limit=150
set -uo pipefail
cd "$(dirname "$0")/../.."
build=$(dirname "$(realpath "${BUSWAY:-build/debug/busway}")")
bindings=$build/bindings
export BUSWAYD=$(realpath "${BUSWAYD:-build/debug/buswayd}") LD_LIBRARY_PATH=$build PYTHONPATH=$bindings/python
declare -A programs=([c]=$build/examples/gateway [python]="${BINDINGS_PYTHON:-/usr/bin/python3} bindings/python/examples/gateway.py" [go]=$bindings/gateway-go)
commands=() skips=()
sanitized=$(nm -D "$build/libbusway.so" 2>/dev/null | grep -c '__asan_init' || true)
for language in ${GATEWAY:-c python go}; do
    if [ -f "$bindings/$language.missing" ]; then skips+=("SKIP: $language: $(cat "$bindings/$language.missing")")
    elif [ "$language" != c ] && [ "$sanitized" != 0 ]; then skips+=("SKIP: $language: this library is built for a sanitizer")
    else commands+=("${programs[$language]}"); fi
done
seconds=${GATEWAY_SECONDS:-4}
out=$(tests/support/gateway_kills.py --seed "${GATEWAY_SEED:-1}" --seconds "$seconds" --readings $((seconds * 100)) "${commands[@]}" 2>&1)
rc=$?
[ ${#skips[@]} -eq 0 ] || printf '%s\n' "${skips[@]}"
[ ${#skips[@]} -eq 0 ] && printf '%s\n' "$out" || sed -E "\$s/\$/, ${#skips[@]} skipped/" <<<"$out"
exit $rc
