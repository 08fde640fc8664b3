#!/usr/bin/env bash
# A real Apache Kafka 3.9 in KRaft mode, one node, on this machine. FOLDER/url has its URL (kafka://127.0.0.1:PORT).
# usage: cluster.sh start FOLDER | stop FOLDER | kill FOLDER | restart FOLDER
#   start: with what is in the folder, or a new one. kill: SIGKILL. restart: killed, and started again. stop: killed, for good.
# Needs java (11 or later), and Kafka's jars: from $KAFKA_JARS, or from build/compat/jars, where maven puts them the first time
# (Maven Central, about 100 MB). What is missing is named: exit code 77, with a line "SKIP: …". KAFKA_HEAP: 512m.
set -uo pipefail
cd "$(dirname "$0")/../.."
jars=${KAFKA_JARS:-$PWD/build/compat/jars}
heap=${KAFKA_HEAP:-512m}
skip() { echo "SKIP: $1"; exit 77; }

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
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
EOF
    echo "kafka://127.0.0.1:$port" >"$folder/url"
}

java_of() { java -Xmx"$heap" -Xms64m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 "$@"; }

# Starts what is configured in the folder, again after a kill.
launch() {
    # By exec: the process that is killed is the broker itself.
    (exec java -Xmx"$heap" -Xms"$heap" -Dlog4j.configuration="file:$folder/log4j.properties" -cp "$jars/*" kafka.Kafka \
        "$folder/server.properties") >>"$folder/server.log" 2>&1 </dev/null &
    echo $! >"$folder/pid"
    disown
    local port
    port=$(sed 's/.*://' "$folder/url")
    for _ in $(seq 600); do
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && return 0
        kill -0 "$(cat "$folder/pid")" 2>/dev/null || break
        sleep 0.2
    done
    echo "Kafka did not start:"
    tail -20 "$folder/server.log"
    return 1
}

start() {
    fetch_jars
    mkdir -p "$folder"
    folder=$(cd "$folder" && pwd)
    if [ ! -f "$folder/url" ]; then
        write_config
        java_of -cp "$jars/*" kafka.tools.StorageTool format -t "$(java_of -cp "$jars/*" kafka.tools.StorageTool random-uuid 2>/dev/null | tail -1)" \
            -c "$folder/server.properties" >"$folder/format.log" 2>&1 || { cat "$folder/format.log"; return 1; }
    fi
    launch
}

kill_it() {
    [ -f "$folder/pid" ] || return 0
    local pid
    pid=$(cat "$folder/pid")
    kill -9 "$pid" 2>/dev/null
    while kill -0 "$pid" 2>/dev/null; do sleep 0.02; done
}

folder=${2:?usage: cluster.sh start|stop|kill|restart FOLDER}
case ${1:-} in
start) start ;;
kill) kill_it ;;
stop) kill_it; rm -f "$folder/pid" ;;
restart) kill_it; launch ;;
*) echo "usage: cluster.sh start|stop|kill|restart FOLDER" >&2; exit 2 ;;
esac
