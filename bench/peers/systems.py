"""bench/peers/systems.py: the systems that `make bench-peers` measures: how each is installed, started and run. What is measured, and why
each is set up as it is: README.md beside this file. A system is a class; most are two processes of one program with peer.h's contract."""
import json, os, re, shutil, signal, socket, subprocess, tempfile, threading, time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
OUT = os.path.join(ROOT, 'build', 'peers')
RECORD = 100
TIMEOUT_S = 120


class Skip(Exception):
    """A peer that can't be run here; the text is the reason."""


class Failed(Exception):
    """One run that gave no figure."""


def tool(name):
    if not shutil.which(name):
        raise Skip(f'no {name} here')


def run(argv, timeout=900, cwd=None, env=None, log=None):
    r = subprocess.run(argv, cwd=cwd or ROOT, timeout=timeout, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                       stdin=subprocess.DEVNULL)
    if log:
        open(os.path.join(OUT, log), 'w').write(r.stdout)
    if r.returncode != 0:
        last = [line for line in r.stdout.strip().splitlines() if line.strip()][-1:] or ['no message']
        raise Skip(f'{os.path.basename(argv[0])}: {last[0][:120]}')
    return r.stdout


def debian(package, version_of=None):
    """Installs a Debian package where that is possible; its version."""
    def version():
        r = subprocess.run(['dpkg-query', '-W', '-f', '${Version}', version_of or package], capture_output=True, text=True)
        return r.stdout if r.returncode == 0 else ''
    if not shutil.which('dpkg-query'):
        return 'of this system'
    if not version():
        try:
            run([os.path.join(ROOT, '.ci', 'deps'), package])
        except (Skip, OSError, subprocess.TimeoutExpired) as e:
            raise Skip(f'Debian package {package} is not installed and could not be: {e}')
    return version().split('-')[0].split('+')[0].split(':')[-1]


def last_line(path):
    if not os.path.exists(path):
        return ''
    return ''.join(open(path, errors='replace').read().strip().splitlines()[-1:])


class Processes:
    """Every process that was started, ended in any case; folders likewise."""
    def __init__(self):
        self.all, self.dirs = [], []

    def start(self, argv, core=None, **kw):
        if core is not None and shutil.which('taskset') and (os.cpu_count() or 1) > core:
            argv = ['taskset', '-c', str(core)] + argv
        p = subprocess.Popen(argv, start_new_session=True, stdin=subprocess.DEVNULL, **kw)
        self.all.append(p)
        return p

    def end(self, p, hard=False):
        if p in self.all:
            self.all.remove(p)
        if p.poll() is None:
            try:
                os.killpg(p.pid, signal.SIGKILL if hard else signal.SIGTERM)
                p.wait(10)
            except (subprocess.TimeoutExpired, ProcessLookupError):
                try:
                    os.killpg(p.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
                p.wait()
        for f in (p.stdout, p.stderr):
            if f:
                f.close()

    def folder(self, memory=False):
        d = tempfile.mkdtemp(prefix='busway-peers.', dir='/dev/shm' if memory else OUT)
        self.dirs.append(d)
        return d

    def remove(self, d):
        self.dirs.remove(d)
        shutil.rmtree(d, ignore_errors=True)

    def end_all(self):
        for p in list(self.all):
            self.end(p)
        for d in list(self.dirs):
            self.remove(d)


PROCESSES = Processes()


class Work:
    """One thing to do: kind rate (batch, records, warm, points, partitions) or rtt (records, warm)."""
    def __init__(self, kind, batch=1, records=0, warm=0, points=0, partitions=1):
        self.kind, self.batch, self.records, self.warm = kind, batch, records, warm
        self.points, self.partitions = points, partitions


class Peer:
    """A system. label: its name in the table; stores, two_processes, note: said in the table."""
    key = label = note = ''
    stores, checksum, spins = True, False, False
    two_processes = True
    batches = (1, 10, 100, 1000)
    partitions = ()
    grows = False
    rate = {1: 1e6, 100: 1e6}     # records/s to expect: so a run takes about a second or two
    trips = 20000
    version = ''

    def prepare(self):
        raise NotImplementedError

    def begin(self):
        """Before the rounds: a server."""

    def measure(self, work):
        raise NotImplementedError

    def expect(self, batch):
        return self.rate.get(batch) or ((self.rate[1] * self.rate[100]) ** 0.5 if batch == 10 else self.rate[100])


class Busway(Peer):
    """Busway and the bare limit: build/release/busway-bench --single."""
    checksum = True

    def __init__(self, key, of, label, rate, note='', spins=True, trips=200000, partitions=()):
        self.key, self.of, self.label, self.rate, self.note, self.spins, self.trips = key, of, label, rate, note, spins, trips
        self.partitions, self.grows = partitions, True

    def prepare(self):
        self.program = os.path.join(ROOT, 'build', 'release', 'busway-bench')
        if not os.path.exists(self.program):
            raise Skip('build/release/busway-bench is not built')
        version = subprocess.run([os.path.join(ROOT, 'build', 'release', 'busway'), '--version'], capture_output=True, text=True)
        self.version = '' if self.of == 'limit' else (re.findall(r'\d+\.\d+\S*', version.stdout) or [''])[0]

    def measure(self, work):
        spec = {'of': self.of, 'record_bytes': RECORD}
        if work.kind == 'rtt':
            spec.update(kind='rtt_spin' if self.spins else 'rtt_sleep', round_trips=work.records)
        else:
            spec.update(batch=work.batch, bytes=work.records * RECORD, warm=work.warm * RECORD, points=work.points,
                        partitions=work.partitions, keep=1 if work.points or work.partitions > 1 else 0)
        argv = [self.program, '--single', ','.join(f'{k}={v}' for k, v in spec.items()), '--dir', OUT,
                '--daemon', os.path.join(ROOT, 'build', 'release', 'buswayd')]
        return result_of(PROCESSES.start(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))


def result_of(p, ready=False):
    """The line of JSON that a process prints; with `ready`, wait for that word only."""
    deadline = time.time() + TIMEOUT_S
    timer = None
    try:
        timer = threading.Timer(TIMEOUT_S, lambda: os.killpg(p.pid, signal.SIGKILL) if p.poll() is None else None)
        timer.daemon = True
        timer.start()
        for line in p.stdout:
            if ready and line.strip() == 'ready':
                return True
            if not ready and line.startswith('{'):
                return json.loads(line)
        p.wait()
        why = (p.stderr.read() if p.stderr else '').strip().splitlines()[-1:] or [f'ended with {p.returncode}']
        if time.time() > deadline:
            why = [f'no result after {TIMEOUT_S} s']
        raise Failed(why[0][:160])
    finally:
        if timer:
            timer.cancel()
        if not ready:
            PROCESSES.end(p)


class Pair(Peer):
    """Two processes of one program: read/write or pong/ping; see peer.h."""
    memory = False      # its folder is on tmpfs: sockets and shared memory
    server = None
    cores = (1, 0)      # receiver, sender; None: anywhere

    def command(self):
        raise NotImplementedError

    def where(self, folder):
        return folder

    def measure(self, work):
        folder = PROCESSES.folder(self.memory)
        roles = ('read', 'write') if work.kind == 'rate' else ('pong', 'ping')
        arguments = [str(a) for a in (work.batch, RECORD, work.records, max(work.warm, 1), work.points, work.partitions)]
        procs = []
        try:
            where = self.where(folder)
            for role, core in zip(roles, self.cores):
                with open(os.path.join(OUT, f'{self.key}-{role}.err'), 'w') as err:
                    procs.append(PROCESSES.start(self.command() + [role, where] + arguments, core, stdout=subprocess.PIPE, stderr=err,
                                                 text=True))
                if role in ('read', 'pong'):
                    result_of(procs[0], ready=True)
            return result_of(procs[0 if work.kind == 'rate' else 1])
        except Failed as e:
            tails = [last_line(os.path.join(OUT, f'{self.key}-{r}.err')) for r in roles]
            raise Failed(f'{e} {" ".join(t[:120] for t in tails if t)}'.strip())
        finally:
            for p in procs:
                PROCESSES.end(p, hard=True)
            PROCESSES.remove(folder)
            self.after()

    def after(self):
        pass


class C(Pair):
    """A small C program on a library of Debian's."""
    package = library = runtime = ''

    def prepare(self):
        self.version = debian(self.package)
        tool(os.environ.get('CC', 'cc'))
        run([os.environ.get('CC', 'cc'), '-std=c11', '-D_GNU_SOURCE', '-O2', '-Wall', '-Wextra', f'{HERE}/{self.key}/{self.key}.c', '-o',
             f'{OUT}/{self.key}', f'-l{self.library}'], log=f'{self.key}-build.log')

    def command(self):
        return [f'{OUT}/{self.key}']


class ZeroMq(C):
    key, label, package, library = 'zeromq', 'ZeroMQ, ipc', 'libzmq3-dev', 'zmq'
    memory, stores, note = True, False, 'PUSH/PULL, REQ/REP'
    rate = {1: 3e6, 100: 2e7}
    cores = (None, None)


class Nng(C):
    key, label, package, library = 'nng', 'nng, ipc', 'libnng-dev', 'nng'
    memory, stores, note = True, False, 'PUSH/PULL, REQ/REP'
    rate = {1: 4e4, 100: 2e6}
    cores = (None, None)


class Redis(C):
    key, label, package, library = 'redis', 'Redis Streams', 'libhiredis-dev', 'hiredis'
    note = 'XADD pipelined, XREAD BLOCK, appendonly everysec, UNIX socket'
    rate = {1: 1.5e4, 100: 2e5}
    trips = 5000
    cores = (None, None)

    def prepare(self):
        super().prepare()
        self.version = debian('redis-server')
        tool('redis-server')

    def begin(self):
        self.folder = PROCESSES.folder()
        self.server = PROCESSES.start(['redis-server', '--port', '0', '--unixsocket', f'{self.folder}/redis.sock', '--dir', self.folder, '--save', '',
                                       '--appendonly', 'yes', '--appendfsync', 'everysec'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(lambda: os.path.exists(f'{self.folder}/redis.sock'), 'redis-server')

    def where(self, folder):
        return self.folder


class Kafka(C):
    key, label, package, library = 'kafka', 'Apache Kafka', 'librdkafka-dev', 'rdkafka'
    note = 'KRaft, librdkafka, acks=1, linger 5 ms; by its own batching, and in batches of so many messages'
    checksum = True
    rate = {0: 1e6, 1: 3e4, 100: 4e5}
    batches = (0, 1, 10, 100, 1000)
    partitions = (1, 2, 4, 8)
    grows = True
    trips = 2000
    cores = (None, None)
    PORT = 19092

    def prepare(self):
        super().prepare()
        client = self.version
        tool('java')
        self.jars = os.environ.get('KAFKA_JARS', f'{ROOT}/build/compat/jars')
        if not os.path.isdir(self.jars) or not any(j.startswith('kafka_2.13-') for j in os.listdir(self.jars)):
            tool('mvn')
            run(['mvn', '-q', '-B', '-f', 'tests/compat/pom.xml', 'dependency:copy-dependencies', f'-DoutputDirectory={self.jars}'],
                log='kafka-mvn.log')
        kafka = next(j[len('kafka_2.13-'):-4] for j in os.listdir(self.jars) if j.startswith('kafka_2.13-'))
        self.version = f'{kafka}, librdkafka {client}'

    def begin(self):
        self.folder, self.topics = PROCESSES.folder(), 0
        properties = f'{self.folder}/server.properties'
        open(f'{self.folder}/log4j.properties', 'w').write('log4j.rootLogger=ERROR, stderr\nlog4j.appender.stderr=org.apache.log4j.ConsoleAppender\n'
                                                           'log4j.appender.stderr.layout=org.apache.log4j.PatternLayout\n')
        open(properties, 'w').write('\n'.join((
            'process.roles=broker,controller', 'node.id=1', f'controller.quorum.voters=1@127.0.0.1:{self.PORT + 1}',
            f'listeners=PLAINTEXT://127.0.0.1:{self.PORT},CONTROLLER://127.0.0.1:{self.PORT + 1}', 'controller.listener.names=CONTROLLER',
            f'advertised.listeners=PLAINTEXT://127.0.0.1:{self.PORT}', f'log.dirs={self.folder}/log', 'offsets.topic.replication.factor=1',
            'transaction.state.log.replication.factor=1', 'transaction.state.log.min.isr=1', 'group.initial.rebalance.delay.ms=0',
            'log.segment.bytes=1073741824', 'auto.create.topics.enable=true', 'num.partitions=8', '')))
        base = ['java', '-Xms1g', '-Xmx1g', f'-Dlog4j.configuration=file:{self.folder}/log4j.properties', '-cp', f'{self.jars}/*']
        uuid = run(base + ['kafka.tools.StorageTool', 'random-uuid']).split()[-1]
        run(base + ['kafka.tools.StorageTool', 'format', '-t', uuid, '-c', properties])
        with open(f'{OUT}/kafka-server.log', 'w') as log:
            self.server = PROCESSES.start(base + ['-XX:+UseG1GC', '-XX:MaxGCPauseMillis=20', 'kafka.Kafka', properties], stdout=log,
                                          stderr=log)
        def answers():
            with socket.socket() as s:
                return s.connect_ex(('127.0.0.1', self.PORT)) == 0
        wait_for(answers, 'Kafka', 60)

    def where(self, folder):
        self.topics += 1
        return f'127.0.0.1:{self.PORT}/bench-{self.topics}'


class Java(Pair):
    jar = klass = ''
    OPENS = ['--add-exports', 'java.base/jdk.internal.ref=ALL-UNNAMED', '--add-exports', 'java.base/sun.nio.ch=ALL-UNNAMED', '--add-exports',
             'jdk.unsupported/sun.misc=ALL-UNNAMED', '--add-exports', 'jdk.compiler/com.sun.tools.javac.file=ALL-UNNAMED', '--add-opens',
             'jdk.compiler/com.sun.tools.javac=ALL-UNNAMED', '--add-opens', 'java.base/java.lang=ALL-UNNAMED', '--add-opens',
             'java.base/java.lang.reflect=ALL-UNNAMED', '--add-opens', 'java.base/java.io=ALL-UNNAMED', '--add-opens',
             'java.base/java.util=ALL-UNNAMED',
             '--add-opens', 'java.base/jdk.internal.misc=ALL-UNNAMED', '--add-opens', 'java.base/java.util.zip=ALL-UNNAMED']
    spins = True
    trips = 200000

    def prepare(self):
        tool('java')
        tool('javac')
        jars, classes = f'{OUT}/jars', f'{OUT}/classes'
        if not os.path.isdir(jars) or not any(j.startswith(self.jar) for j in os.listdir(jars)):
            tool('mvn')
            run(['mvn', '-q', '-B', '-f', f'{HERE}/pom.xml', 'dependency:copy-dependencies', f'-DoutputDirectory={jars}'], log='mvn.log')
        folder = {'AeronPeer': 'aeron', 'ChroniclePeer': 'chronicle'}[self.klass]
        run(['javac', '-cp', f'{jars}/*', '-d', classes, f'{HERE}/Peer.java', f'{HERE}/{folder}/{self.klass}.java'], log=f'{self.key}-javac.log')
        self.version = next(j[len(self.jar) + 1:-4] for j in os.listdir(jars) if j.startswith(self.jar))

    def command(self):
        return ['java', '-Xms256m', '-Xmx512m', '-XX:+UseSerialGC', '-Dagrona.disable.bounds.checks=true', '-Dchronicle.analytics.disable=true',
                *self.OPENS, '-cp', f'{OUT}/classes:{OUT}/jars/*', self.klass]


class Aeron(Java):
    key, label, jar, klass = 'aeron', 'Aeron IPC', 'aeron-all', 'AeronPeer'
    memory, stores, note = True, False, 'memory only; a message holds the batch'
    rate = {1: 1.5e7, 100: 4e7}
    batches = (1, 10, 100)      # a message of 1,000 such records is over its largest


class Chronicle(Java):
    key, label, jar, klass = 'chronicle', 'Chronicle Queue', 'chronicle-queue', 'ChroniclePeer'
    note = 'an excerpt holds the batch'
    rate = {1: 2e6, 100: 1e7}
    grows = True


class Nats(Pair):
    key, label, note = 'nats', 'NATS JetStream', 'file store, asynchronous publish 4,096 in flight (batch of one: each awaited), ordered consumer'
    rate = {1: 8e3, 100: 1e5}
    batches = (1, 100)
    trips = 3000
    cores = (None, None)
    checksum = True

    def prepare(self):
        tool('go')
        env = dict(os.environ, GOFLAGS='-mod=mod')
        for program, package in (('nats-peer', '.'), ('nats-server', 'github.com/nats-io/nats-server/v2')):
            run(['go', 'build', '-o', f'{OUT}/bin/{program}', package], cwd=f'{HERE}/nats', env=env, log=f'{program}-build.log')
        self.version = re.search(r'nats-server/v2 v(\S+)', open(f'{HERE}/nats/go.mod').read()).group(1)

    def begin(self):
        self.folder = PROCESSES.folder()
        self.server = PROCESSES.start([f'{OUT}/bin/nats-server', '-a', '127.0.0.1', '-p', '-1', '--ports_file_dir', self.folder, '-js', '-sd',
                                       f'{self.folder}/store'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(lambda: self.url(), 'nats-server')

    def url(self):
        for name in os.listdir(self.folder):
            if name.endswith('.ports'):
                text = open(f'{self.folder}/{name}').read()
                if text.strip():
                    return json.loads(text)['nats'][0]
        return None

    def where(self, folder):
        return self.url()

    def command(self):
        return [f'{OUT}/bin/nats-peer']


class Iceoryx2(Pair):
    key, label, note = 'iceoryx2', 'iceoryx2', 'shared memory, busy polling; a sample holds the batch'
    stores, memory, spins = False, True, True
    rate = {1: 2e6, 100: 5e7}
    trips = 200000

    def prepare(self):
        tool('cargo')
        run(['cargo', 'build', '--release', '--manifest-path', f'{HERE}/iceoryx2/Cargo.toml'], env=dict(os.environ, CARGO_TARGET_DIR=f'{OUT}/cargo'),
            log='cargo.log')
        self.version = re.search(r'iceoryx2 = "=([^"]+)"', open(f'{HERE}/iceoryx2/Cargo.toml').read()).group(1)

    def command(self):
        return [f'{OUT}/cargo/release/busway-bench-iceoryx2']

    def after(self):
        for name in os.listdir('/dev/shm'):
            if name.startswith('bwbench_'):
                os.unlink(f'/dev/shm/{name}')


PEERS = [
    Busway('limit', 'limit', 'the bare limit', {1: 1e7, 100: 4e7}, 'mapped files, checksums; no lock, no library'),
    Busway('direct', 'direct', 'Busway, direct', {1: 4e6, 100: 3e7}, '', partitions=(1, 2, 4, 8)),
    Busway('socket', 'ipc', 'Busway, socket', {1: 4e4, 100: 1e6}, 'through buswayd', spins=False, trips=5000, partitions=(1, 2, 4, 8)),
    Aeron(), Chronicle(), Iceoryx2(), ZeroMq(), Nng(), Kafka(), Redis(), Nats(),
]


def wait_for(condition, what, seconds=20):
    deadline = time.time() + seconds
    while time.time() < deadline:
        if condition():
            return
        time.sleep(0.05)
    raise Skip(f'{what} did not start within {seconds} s')
