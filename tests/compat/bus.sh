#!/usr/bin/env bash
# A bus as people make one: topics of every codec, in several segments, written on both paths, and stopped cleanly.
# usage: bus.sh FOLDER; prints the partition folders, for run.sh.
set -euo pipefail
cd "$(dirname "$0")/../.."
busway=${BUSWAY:-build/release/busway} folder=$1
export BUSWAYD=${BUSWAYD:-$PWD/build/release/buswayd}
rm -rf "$folder"
mkdir -p "$folder"
bus="dir:$(realpath "$folder")?idle-exit=300ms"
for codec in none gzip snappy lz4 zstd; do
    "$busway" -q -b "$bus" topic create "bus-$codec" -c segment.bytes=65536 >&2
    for transport in direct ipc; do
        seq 1 4000 | sed 's/.*/key-&:value number & of a bus that people made/' |
            "$busway" -q -b "$bus" --transport $transport produce "bus-$codec" -K : -z $codec -H "codec=$codec" -H "path=$transport" >&2
    done
done
for ((i = 0; i < 200; i++)); do # cleanly stopped: the socket is gone
    [ -S "$folder/run/bus.sock" ] || break
    sleep 0.1
done
[ ! -S "$folder/run/bus.sock" ] || { echo "bus.sh: the daemon of $folder did not end" >&2; exit 1; }
ls -d "$folder"/bus-*-0
