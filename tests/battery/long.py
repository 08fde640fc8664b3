#!/usr/bin/env python3
"""The battery at length: every kind of test that tries to break the bus, one after the other, within the hours; then what was tried.

long.py --hours H [--seed S] [--only PART,…] [--list]

A lap is one turn of all parts. What can be counted to an end (the models, every call site, every byte, the mutants) is done whole, over as
many runs as it takes; what has no end (kills, cuts of power, fuzzing) gets a share of the time, and adds to what it did in runs before.
A part for which the hours left are too few waits for the next run, which goes on with it: build/battery/state.json knows. A part that fails
fails the run, and is tried again by the next one. Everything a part prints is in build/battery/<part>.log.
"""
import argparse, glob, hashlib, json, os, re, shutil, signal, subprocess, sys, tempfile, time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HERE = os.path.join(ROOT, 'build/battery')
STATE = os.path.join(HERE, 'state.json')
DEBUG = os.path.join(ROOT, 'build/debug')


class Part:
    def __init__(self, name, what, run, least, share=0, whole=None, needs=()):
        self.name, self.what, self.run = name, what, run
        self.least = least  # seconds without which it is not worth beginning
        self.share = share  # of the time that is left, beside the others'; 0: it ends by itself
        self.whole = whole  # does this output say that all of it is done? None: one run is a turn
        self.needs = needs


def script(path, **env):
    return lambda s, seconds: ([path], {k: v(s, seconds) if callable(v) else str(v) for k, v in env.items()})


def within(_, seconds):
    return str(max(1, int(seconds)))


def seed(s, _):
    return str(s)


def kept(name):
    return lambda *_: os.path.join(HERE, name)


def fuzz(s, seconds):
    fuzzers = sorted(glob.glob(os.path.join(ROOT, 'build/fuzz/bin/fuzz_*[a-z]')))
    each = max(1, int(seconds * 2 / max(1, len(fuzzers))) - 1)
    return ['tests/run', 'fuzz'], {'FUZZ_SECONDS': str(each), 'FUZZ_CORPUS': os.path.join(HERE, 'corpus'), 'FUZZ_SEED': str(s), 'TEST_JOBS': '2'}


def mutants(_, seconds):
    return ['tests/mutants/run.py', '--progress', os.path.join(ROOT, 'build/mutants.json'), '--seconds', str(int(seconds * 0.8))], {}


B = 'tests/battery/'
PARTS = [  # what finds most in a minute comes first
    Part('tsan', 'writers and readers on one mapping under ThreadSanitizer; a seeded race is reported', script('tests/tsan/run.sh', BW_BUILD='build/tsan'), 60,
         needs=['VARIANT=tsan', 'tsan-bin']),
    Part('stops', 'processes that are stopped at each point where they hold a lock', script(B + 'stops.sh'), 60),
    Part('faults', 'every call site that a trace shows, once and for ever',
         script(B + 'faults.sh', BATTERY_SECONDS=within, BATTERY_SEED=seed, FAULTS_PROGRESS=kept('faults.progress')), 60, 6,
         lambda out: 'all of them are passed' in out),
    Part('bitrot_some', 'bits of the log\'s files and cuts of them, from all over', script(B + 'bitrot.sh', BATTERY_WITHIN=within, BATTERY_SEED=seed), 5, 1),
    Part('bitrot_meta_some', 'bits of LMDB\'s file, its copies, cuts, two at a time, while it runs',
         lambda s, seconds: ([os.path.join(DEBUG, 'battery/bitrot_meta'), str(s), str(max(1, int(seconds)))], {}), 5, 1),
    Part('crash', 'kills at random and at every kill point',
         script('tests/crash/run.sh', CRASH_KILLS=1000000000, CRASH_SECONDS=within, CRASH_SEED=seed, CRASH_PROGRESS=kept('crash.progress')), 20, 4),
    Part('groups', 'kills of members of a group and of the daemon', script('tests/crash/groups.sh', CRASH_SEED=seed), 60),
    Part('power', 'power loss, page by page', script(B + 'power.sh', BATTERY_WITHIN=within, BATTERY_SEED=seed, BATTERY_PROGRESS=kept('power.progress')), 10, 4),
    Part('block', 'power loss under ext4, by blocks', script(B + 'block.sh', BATTERY_WITHIN=within, BATTERY_SEED=seed, BATTERY_BLOCK_PROGRESS=kept('block.progress')), 20, 4),
    Part('clocks', 'clocks that jump', script(B + 'clocks.sh'), 150),
    Part('model', 'the Promela models, exhaustively, and their seeded bugs', script('tests/model/run.sh', FULL=''), 600),
    Part('mutants', 'seeded bugs in the product, each to be caught', mutants, 120, 8, lambda out: 'are left for the next run' not in out),
    Part('bitrot', 'every bit of every byte of the log\'s files, every length', script(B + 'bitrot.sh', BATTERY_SECONDS=301, BATTERY_SEED=seed), 900),
    Part('bitrot_meta', 'every byte of the metadata, every length', lambda s, _: ([os.path.join(DEBUG, 'battery/bitrot_meta'), str(s), '0'], {}), 3600),
    Part('fuzz', 'every decoder', fuzz, 45, 6, needs=['fuzz-bin']),
    Part('arm64', 'unit tests and kills of the build for arm64, under qemu', lambda s, _: (['make', '-s', 'test-arm64', f'SEED={s}'], {}), 1500),
]


def make(*targets):
    r = subprocess.run(['make', '--no-print-directory', '-s', '-j2', *targets], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                       stderr=subprocess.STDOUT, text=True)
    if r.returncode:
        sys.exit(f'make {" ".join(targets)}:\n{r.stdout[-4000:]}')


def build_id():
    h = hashlib.sha256()
    for name in ('buswayd', 'busway', 'libbusway.so', 'battery/power', 'battery/block', 'crash/crash'):
        path = os.path.join(DEBUG, name)
        if os.path.exists(path):
            h.update(open(path, 'rb').read())
    return h.hexdigest()[:16]


def load_state(first_seed):
    fresh = {'seed': first_seed, 'first': first_seed, 'lap': 1, 'build': build_id(), 'done': {}, 'totals': {}}
    try:
        state = json.load(open(STATE))
    except (OSError, ValueError):
        return fresh
    if state.get('first') != first_seed:
        return fresh
    if state['build'] != fresh['build']:
        print('the programs are others than those of the last run: a new lap', flush=True)
        state.update(build=fresh['build'], done={})
    return state


def save_state(state):
    with open(STATE + '.tmp', 'w') as f:
        json.dump(state, f, indent=1)
    os.replace(STATE + '.tmp', STATE)


def run_part(part, number, seconds):
    """exit code (None: over its time), output, seconds"""
    if part.needs:
        make(*part.needs)
    command, more = part.run(number, seconds)
    tmp = tempfile.mkdtemp(prefix='bwb.', dir='/tmp')
    os.chmod(tmp, 0o755)
    env = {k: v for k, v in os.environ.items() if not k.startswith('BUSWAY')}
    env.update({'BW_BUILD': DEBUG, 'BUSWAY': DEBUG + '/busway', 'BUSWAYD': DEBUG + '/buswayd', 'TMPDIR': tmp, 'XDG_DATA_HOME': tmp + '/share'}, **more)
    begun = time.monotonic()
    log = os.path.join(HERE, part.name + '.log')
    with open(log, 'wb') as f:
        p = subprocess.Popen(command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=f, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            code = p.wait(timeout=max(seconds * 2, part.least * 3) + 300)
        except subprocess.TimeoutExpired:
            code = None
        except KeyboardInterrupt:
            os.killpg(p.pid, signal.SIGTERM)
            raise
        try:
            os.killpg(p.pid, signal.SIGKILL)
        except OSError:
            pass
        p.wait()
    shutil.rmtree(tmp, ignore_errors=True)
    out = open(log, errors='replace').read()
    if part.name == 'fuzz':
        inputs = 0
        for path in glob.glob(os.path.join(ROOT, 'build/test/fuzz_*.log')):
            inputs += sum(map(int, re.findall(r'stat::number_of_executed_units: (\d+)', open(path, errors='replace').read())))
        out = f'fuzz: {inputs} inputs\n' + out
    return code, out, time.monotonic() - begun


def account(out):
    """The lines that say what was tried."""
    lines = [l for l in out.splitlines() if l.strip()]
    told = [l for l in lines if re.match(r'(power|block|bitrot|bitrot_meta|fuzz|kill points): |seed \d+: |\d+ call sites|\d+ cases of|\d+ are left|going on|\d+ states in', l)]
    return told + [l for l in lines[-1:] if l not in told]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--hours', type=float, default=1)
    p.add_argument('--seed', type=int, default=1)
    p.add_argument('--only')
    p.add_argument('--list', action='store_true')
    a = p.parse_args()
    if a.list:
        for part in PARTS:
            print(f'{part.name:18} {part.what}; at least {part.least} s')
        return 0
    os.makedirs(HERE, exist_ok=True)
    make('all', 'crash-bin', 'battery-bin', 'VARIANT=debug')
    state = load_state(a.seed)
    end = time.monotonic() + a.hours * 3600
    chosen = [x for x in PARTS if not a.only or x.name in a.only.split(',')]
    begun_with = state['lap']
    print(f'battery: {a.hours:g} hours, lap {state["lap"]}, seed {state["seed"]}; '
          + (f'done in this lap: {" ".join(state["done"])}' if state['done'] else 'from the beginning'), flush=True)
    passed, failed, waiting = 0, [], []
    while True:
        turn = [x for x in chosen if x.name not in state['done'] and x.name not in failed]
        ran = 0
        waiting = []
        for i, part in enumerate(turn):
            left = end - time.monotonic()
            shares = sum(x.share for x in turn[i:])
            fixed = sum(x.least for x in turn[i:] if not x.share and x.least <= left)
            seconds = max(part.least, (left - min(fixed, left / 2)) * part.share / shares) if part.share else part.least
            if part.least > left:
                waiting.append(part)
                continue
            code, out, took = run_part(part, state['seed'], seconds)
            skipped = code == 77
            good = code == 0 or skipped
            ran += 1
            done = good and (not part.whole or skipped or part.whole(out))
            print(f'{"ok  " if good else "FAIL"} {part.name:17} {took:6.0f} s  {part.what}' + ('' if done or not good else ' (not all of it yet)'), flush=True)
            for line in account(out):
                print(f'       {line}', flush=True)
            if not good:
                failed.append(part.name)
                print('     ' + ('over its time' if code is None else f'exit code {code}') + f'; {HERE}/{part.name}.log ends:')
                print('\n'.join('     | ' + l for l in out.splitlines()[-25:]), flush=True)
            passed += good
            total = state['totals'].setdefault(part.name, {'runs': 0, 'seconds': 0, 'failed': 0})
            total['runs'] += 1
            total['seconds'] = round(total['seconds'] + took)
            total['failed'] += not good
            total['last'] = account(out)[-6:]
            if done:
                state['done'][part.name] = round(took)
            save_state(state)
        if all(x.name in state['done'] for x in PARTS):
            state.update(lap=state['lap'] + 1, seed=state['seed'] + 1, done={})
            save_state(state)
        if not ran or a.only or time.monotonic() + 60 > end:
            break
    for part in waiting:
        print(f'left {part.name:17}           for a later run: it takes {part.least} s at least')
    print('in all runs so far:')
    for part in PARTS:
        t = state['totals'].get(part.name)
        if t:
            print(f'     {part.name:17} {t["runs"]:4} runs {t["seconds"]:8} s  {t["failed"]} failed')
    if state['lap'] > begun_with:
        print(f'laps finished in this run: {state["lap"] - begun_with}')
    print(f'{passed} passed, {len(failed)} failed')
    return 1 if failed or not passed else 0


if __name__ == '__main__':
    sys.exit(main())
