#!/usr/bin/env bash
# Checks the Promela models exhaustively at small sizes, and that every seeded bug is found. Two at a time, 2 GB each at most.
# usage: run.sh [pattern]       only lines that match
#        FULL=1                larger sizes, too (make model FULL=1)
#        MODEL_KEEP=dir         keep generated checkers and error trails there (spin -t -p -g -l <model>.pml replays a trail)
# A line: expectation (clean, or found: a seeded bug), model, definitions.
set -uo pipefail
cd "$(dirname "$0")"
command -v spin >/dev/null || { echo "SKIP: spin is not installed"; exit 77; }
models=$PWD
work=${MODEL_KEEP:-$(mktemp -d)}
mkdir -p "$work"
[ -n "${MODEL_KEEP:-}" ] || trap 'rm -rf "$work"' EXIT

lines() {
    cat <<'LIST'
clean append NW=1 NB=3 FIRST=2 READER
clean append NW=3 NB=1
clean append NW=2 NB=2
clean wait NW=2 NP=2 NPUB=1 NC=1
clean sync NW=2 NB=2
clean wait NW=1 NP=1 NPUB=1 NC=2
clean append NW=2 NB=2 FIRST=2 SEG=3
clean append NW=2 NB=1 KILLS=2
clean sync NW=2 NB=2 SEG=2
clean wait NW=2 NP=1 NPUB=1 NC=1
clean append NW=2 NB=1 READER KILLS=0
clean append NW=2 NB=1 RESERVE
clean append NW=1 NB=3 FIRST=2 RESERVE
clean wait NW=1 NP=1 NPUB=3 NC=1
clean sync NW=1 NB=3 KILLS=2 FAILS=2
clean recovery N=3 EVENTS=2
clean bias NA=2 NB=2
clean bias NA=2 NB=2 NS=2 NREC=1 KILLS=2
clean wait NW=1 NP=1 NPUB=3 NC=1 ASYMMETRIC
clean txn P=2 PLAINS=0
clean txn P=2 PLAINS=1 KILLS=0
found append NW=1 NB=3 BUG_NO_ZERO
found append NW=1 NB=3 BUG_COPY_FIRST
found append NW=1 NB=3 FIRST=2 READER KILLS=0 BUG_PUBLISH_FIRST
found append NW=1 NB=3 BUG_NO_CAPACITY
found append NW=1 NB=3 BUG_GROW_LATE
found append NW=2 NB=2 FIRST=2 SEG=3 BUG_SPARE_EQ0 BUG_KEEP_SPARE
found append NW=2 NB=2 BUG_WINDOW
found append NW=1 NB=3 BUG_NO_ROLL_REDO
found append NW=1 NB=3 BUG_NO_CONSISTENT
found append NW=1 NB=3 BUG_INTENT_KEPT
found append NW=1 NB=3 BUG_NO_NEXT
found append NW=1 NB=3 BUG_TAIL_FIRST
found append NW=1 NB=3 FIRST=2 READER KILLS=0 BUG_NO_RECHECK
found append NW=2 NB=1 RESERVE BUG_SHRINK_FIRST
found wait NW=1 NP=1 NPUB=3 NC=1 BUG_NO_W1
found wait NW=1 NP=1 NPUB=3 NC=1 BUG_NO_W2
found wait NW=1 NP=1 NPUB=3 NC=1 BUG_NO_W3
found wait NW=1 NP=1 NPUB=3 NC=1 BUG_NO_BUMP
found wait NW=1 NP=1 NPUB=3 NC=1 BUG_NO_CAS
found wait NW=1 NP=1 NPUB=3 NC=1 BUG_NO_REARM
found wait NW=1 NP=1 NPUB=3 NC=1 BUG_TAKE_ORDER
found wait NW=1 NP=1 NPUB=3 NC=1 BUG_ARM_ORDER
found wait NW=1 NP=1 NPUB=3 NC=1 BUG_MARK_ORDER
found wait NW=1 NP=1 NPUB=3 NC=1 BUG_WAKE_FIRST
found wait NW=1 NP=1 NPUB=3 NC=1 BUG_NO_DEAD_WAKE
found wait NW=1 NP=1 NPUB=3 NC=1 BUG_DEAD_PLAIN_WAKE
found wait NW=1 NP=1 NPUB=3 NC=1 ASYMMETRIC BUG_W2_LOCAL
found bias NA=2 NB=2 BUG_NO_MEMBARRIER
found bias NA=2 NB=2 BUG_CHECK_FIRST
found bias NA=2 NB=3 BUG_BUSY_SHARED
found bias NA=2 NB=2 BUG_NO_WAIT
found bias NA=2 NB=2 BUG_OTHER_THREAD
found bias NA=2 NB=2 BUG_LEFT_EARLY
found bias NA=2 NB=2 BUG_TIMEOUT_CLEARS
found bias NA=2 NB=2 BUG_NO_REPAIR
found bias NA=2 NB=2 NS=2 NREC=1 KILLS=2 BUG_DISOWN_FREES
found bias NA=2 NB=2 NS=2 NREC=1 KILLS=2 BUG_RECORD_AGAIN
found sync NW=1 NB=2 BUG_WATERMARK_FIRST
found sync NW=1 NB=2 BUG_LATE_TARGET
found sync NW=1 NB=2 BUG_RETRY
found sync NW=1 NB=2 BUG_NEWEST_ONLY
found sync NW=1 NB=2 BUG_CLOSE_ROLLED
found sync NW=1 NB=2 BUG_SPARE_FD_LATE
found sync NW=1 NB=2 BUG_NO_SPARE_FD
found sync NW=1 NB=2 BUG_NO_LOCK
found sync NW=1 NB=2 BUG_NO_VERIFY
found sync NW=1 NB=2 BUG_SKIP_IF_EQUAL
found recovery N=3 EVENTS=2 BUG_POINT_FIRST
found recovery N=3 EVENTS=2 BUG_NO_CUT
found recovery N=3 EVENTS=2 BUG_NO_ZERO
found recovery N=3 EVENTS=2 BUG_ZERO_UNSYNCED
found recovery N=3 EVENTS=2 BUG_NO_SYNC
found recovery N=3 EVENTS=2 BUG_NO_EPOCH
found recovery N=3 EVENTS=2 BUG_EPOCH_UNSYNCED
found recovery N=3 EVENTS=2 BUG_NO_MARKER
found recovery N=3 EVENTS=2 BUG_MARKER_LATE
found recovery N=3 EVENTS=2 BUG_RECOVER_CACHED
found recovery N=3 EVENTS=2 BUG_REST_NO_CAPACITY
found recovery N=3 EVENTS=2 BUG_REST_NO_SYNC
found recovery N=3 EVENTS=2 BUG_GRANT_FIRST
found recovery N=3 EVENTS=2 HOLE
found txn P=2 PLAINS=1 KILLS=0 BUG_BOUND_FIRST
found txn P=2 PLAINS=1 KILLS=0 BUG_BOUND_KEPT
found txn P=2 PLAINS=1 KILLS=0 BUG_ABORTS_FIRST
found txn P=2 PLAINS=1 KILLS=0 BUG_FU_LATE
found txn P=2 PLAINS=1 KILLS=0 BUG_SETTLE_FIRST
found txn P=2 PLAINS=1 KILLS=0 BUG_COUNT_FIRST
found txn P=2 PLAINS=1 KILLS=0 BUG_NO_COUNT
found txn P=2 PLAINS=0 BUG_NO_RESTORE
found txn P=2 PLAINS=0 BUG_RESTORE_LATE
found txn P=2 PLAINS=0 BUG_NO_ANNOUNCE
found txn P=2 PLAINS=0 BUG_ANNOUNCE_LATE
found txn P=2 PLAINS=0 BUG_CHECK_FIRST
LIST
    [ -z "${FULL:-}" ] || cat <<'LIST'
clean recovery N=3 EVENTS=3 FAILS=2
clean bias NA=2 NB=2 KILLS=2 TIMEOUTS=2
clean bias NA=2 NB=2 KILLS=2 BIAS_FIRST
clean bias NA=2 NB=3 KILLS=2
clean wait NW=2 NP=1 NPUB=1 NC=1 ASYMMETRIC
LIST
}

check() { # number, expectation, model, definitions…
    local dir=$work/$1 expect=$2 model=$3 optimise=-O2 states seconds
    shift 3
    mkdir -p "$dir"
    cd "$dir" || return
    [ "$expect" = found ] && optimise=-O0
    if ! { spin -a "${@/#/-D}" "$models/$model.pml" && gcc -w $optimise -DSAFETY -DCOLLAPSE -DMEMLIM=2000 -o pan pan.c; } >build.log 2>&1; then
        cat build.log
        echo "FAIL $model $*: does not build" >verdict
        return
    fi
    ./pan -n -m200000 >pan.log 2>&1
    states=$(awk '/states, stored/ {print $1}' pan.log)
    seconds=$(sed -n 's/.*elapsed time \([0-9.]*\).*/\1/p' pan.log)
    if grep -qE 'max search depth|out of memory|aborting' pan.log; then
        echo "FAIL $model $*: not exhaustive: $(grep -E 'max search depth|out of memory|aborting' pan.log | head -1)" >verdict
    elif [ "$expect" = clean ] && grep -q 'errors: 0' pan.log; then
        echo "ok   $model $*: clean, all of $states states, $seconds s" >verdict
    elif [ "$expect" = clean ]; then
        echo "FAIL $model $*: $(grep '^pan:1' pan.log)" >verdict
        spin -t -p -g -l "${@/#/-D}" "$models/$model.pml" 2>&1 | tail -60 >>verdict
    elif grep -qE '^pan:1: (assertion violated|invalid end state)' pan.log && ! grep -q 'array index' pan.log; then
        echo "ok   $model $*: found ($(sed -n 's/^pan:1: \(.*\) (at depth.*/\1/p' pan.log | cut -c1-60))" >verdict
    else
        echo "FAIL $model $*: the seeded bug is not found ($(grep '^pan:1' pan.log || echo "$states states"))" >verdict
    fi
}

number=0 running=0 pass=0 fail=0
while read -r expect model definitions; do
    [[ "$expect $model $definitions" =~ ${1:-.} ]] || continue
    number=$((number + 1))
    [ $running -ge 2 ] && { wait -n; running=$((running - 1)); }
    # shellcheck disable=SC2086
    (check $number "$expect" "$model" $definitions) &
    running=$((running + 1))
done < <(lines)
wait
for ((i = 1; i <= number; i++)); do
    cat "$work/$i/verdict"
    if head -1 "$work/$i/verdict" | grep -q '^ok'; then pass=$((pass + 1)); else fail=$((fail + 1)); fi
done
cat "$work"/*/verdict | awk '/: clean, all of/ { match($0, /all of [0-9]+/); n += substr($0, RSTART + 7, RLENGTH - 7); k++ }
    END { printf "%d states in %d models without a bug, all of them looked at\n", n, k }'
echo "$pass passed, $fail failed"
[ $fail -eq 0 ]
