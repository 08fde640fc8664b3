#!/usr/bin/env bash
# kafka:// against a real Apache Kafka 3.9 in KRaft mode: the same tests as on the mock cluster, with what only a real one has.
# usage: real.sh [start FOLDER | stop FOLDER | restart FOLDER | COMMAND…]
#   without arguments: starts a cluster, runs the tests, stops it. start and stop: a cluster that stays (FOLDER/url has its URL). restart: killed, and
#   started again.
#   COMMAND…: the same with $KAFKA_URL and $KAFKA_REAL set, instead of the tests
# Needs java (11 or later), and Kafka's jars: from $KAFKA_JARS, or from build/compat/jars, where maven puts them the first time
# (Maven Central, about 100 MB). What is missing is named, and the tests are skipped.
set -uo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
build=${BW_BUILD:-build/debug}
skip() { echo "SKIP: $1"; echo "0 passed, 0 failed, 1 skipped"; exit 0; }

jars=${KAFKA_JARS:-$root/build/compat/jars}
fetch_jars() {
    command -v java >/dev/null || skip "java is not installed (apt-get install default-jre-headless)"
    ls "$jars"/kafka_2.13-*.jar >/dev/null 2>&1 && return
    [ -z "${KAFKA_JARS:-}" ] || skip "no kafka_2.13 jar in KAFKA_JARS=$KAFKA_JARS"
    command -v mvn >/dev/null || skip "Kafka's jars are not in $jars, and there is no maven to fetch them"
    echo "fetching Kafka 3.9.0 from Maven Central into $jars"
    mkdir -p build/compat
    timeout 400 mvn -q -B -f tests/compat/pom.xml dependency:copy-dependencies -DoutputDirectory="$jars" >build/compat/mvn.log 2>&1 ||
        { tail -3 build/compat/mvn.log; rm -rf "$jars"; skip "maven could not fetch Kafka's jars (build/compat/mvn.log)"; }
}

free_ports() { python3 -c 'import socket
s = [socket.socket() for _ in range(2)]
for x in s: x.bind(("127.0.0.1", 0))
print(*[x.getsockname()[1] for x in s])'; }

kafka() { java -Xmx"${KAFKA_HEAP:-700m}" -Dlog4j.configuration="file:$folder/log4j.properties" -cp "$jars/*" "$@"; }

write_config() {
    local port control
    read -r port control < <(free_ports)
    cat >"$folder/log4j.properties" <<EOF
log4j.rootLogger=WARN, stdout
log4j.appender.stdout=org.apache.log4j.ConsoleAppender
log4j.appender.stdout.layout=org.apache.log4j.PatternLayout
log4j.appender.stdout.layout.ConversionPattern=%d %p %c: %m%n
EOF
    cat >"$folder/server.properties" <<EOF
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$control
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$control
advertised.listeners=PLAINTEXT://127.0.0.1:$port
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
controller.listener.names=CONTROLLER
log.dirs=$folder/data
num.partitions=4
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
auto.create.topics.enable=false
log.cleaner.enable=false
EOF
    echo "kafka://127.0.0.1:$port" >"$folder/url"
}

# Starts what is configured in the folder, again after a kill.
launch() {
    kafka kafka.Kafka "$folder/server.properties" >>"$folder/server.log" 2>&1 &
    echo $! >"$folder/pid"
    local port
    port=$(sed 's/.*://' "$folder/url")
    for _ in $(seq 300); do
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && return 0
        kill -0 "$(cat "$folder/pid")" 2>/dev/null || break
        sleep 0.2
    done
    tail -20 "$folder/server.log"
    return 1
}

start() {
    fetch_jars
    mkdir -p "$folder"
    folder=$(cd "$folder" && pwd)
    if [ ! -f "$folder/url" ]; then
        write_config
        local uuid
        uuid=$(kafka kafka.tools.StorageTool random-uuid 2>/dev/null | tail -1)
        kafka kafka.tools.StorageTool format -t "$uuid" -c "$folder/server.properties" >"$folder/format.log" 2>&1 ||
            { cat "$folder/format.log"; return 1; }
    fi
    launch
}

kill_it() {
    kill -9 "$(cat "$folder/pid")" 2>/dev/null
    while kill -0 "$(cat "$folder/pid")" 2>/dev/null; do sleep 0.05; done
}

stop() {
    [ -f "$folder/pid" ] || return 0
    kill_it
    rm -f "$folder/pid"
}

case ${1:-} in
start) folder=$2; start; exit ;;
stop) folder=$2; stop; exit ;;
restart) folder=$2; kill_it; launch; exit ;;
esac

folder=$(mktemp -d "${TMPDIR:-/tmp}/bw-kafka.XXXXXX")
trap 'stop; rm -rf "$folder"' EXIT
start || { echo "FAIL  Kafka did not start"; echo "0 passed, 1 failed"; exit 1; }
KAFKA_URL=$(cat "$folder/url")
export KAFKA_URL KAFKA_REAL=1 KAFKA_FOLDER=$folder BUSWAY=$root/$build/busway BUSWAYD=$root/$build/buswayd BW_BUILD=$root/$build
export LD_LIBRARY_PATH=$root/$build
if [ $# -gt 0 ]; then "$@"; exit; fi
pass=0 fail=0
for test in "$build"/kafka/test_kafka* tests/kafka/real_*.sh; do
    case $test in *.d) continue ;; esac
    [ -x "$test" ] || continue
    if "$test"; then pass=$((pass + 1)); else fail=$((fail + 1)); echo "FAIL  $test"; fi
done
if "$build"/conformance/conformance --jobs 8 "$KAFKA_URL"; then pass=$((pass + 1)); else fail=$((fail + 1)); echo "FAIL  conformance"; fi
echo "$pass passed, $fail failed"
[ $fail -eq 0 ]
