#!/usr/bin/env python3
"""Seeded bugs: each is put into a copy of the tree, and the test that the list names for it must fail. See README.md.

run.py --check                 the list alone: every old text occurs exactly once, every named test exists; builds nothing
run.py [NAME…]                 these mutants, or all
run.py --pick N --seed S       N of those whose test is quick, chosen by the seed
run.py --table FILE            no run: what the progress file knows of each mutant, as a table
  --json FILE      the outcome, for programs      --work DIR   keep the copy there and use it again (default: a new one, removed)
  --progress FILE  what was caught is kept there; an interrupted run goes on after it. What is not caught, and a mutant whose text, file or
                   test changed since, is tried again; when all were caught the next run begins anew.
  --seconds N      begin no other mutant after this time      --lanes N   so many at a time, each in a copy of its own (1)
"""
import argparse, hashlib, json, os, random, re, select, shutil, signal, subprocess, sys, tempfile, threading, time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LIST = os.path.join(ROOT, 'tests/mutants/list.txt')
COPIED = ('Makefile', '.ci', 'src', 'include', 'tests', 'bench')
LIMITS = {'unit': 150, 'asan': 250, 'integration': 200, 'power': 200, 'bitrot': 200, 'faults': 200, 'crash': 400, 'clocks': 200, 'stops': 200}
QUICK = ('unit',)
NAMED = ('unit', 'asan', 'integration')  # their tests have names of their own


class Mutant:
    def __init__(self, name):
        self.name, self.breaks, self.test, self.caught, self.edits = name, '', '', '', []  # edits: [file, [old], [new]]

    def kind(self):
        return self.test.split()[0]

    def source(self):
        """of the test, where it is one file"""
        if self.kind() not in NAMED:
            return None
        return os.path.join(ROOT, 'tests', 'unit' if self.kind() == 'asan' else self.kind(), self.test.split()[1] + '.c')

    def digest(self):
        """Of what it is, what it changes, and what is to catch it."""
        h = hashlib.sha256(repr((self.test, self.caught, self.edits)).encode())
        for path in sorted({e[0] for e in self.edits}) + [self.source()]:
            if path:
                h.update(open(os.path.join(ROOT, path), 'rb').read())
        return h.hexdigest()[:16]


def read_list():
    mutants, fields = [], {'breaks', 'test', 'caught', 'file'}
    for number, line in enumerate(open(LIST), 1):
        line = line.rstrip('\n')
        where = f'tests/mutants/list.txt:{number}'
        if line.startswith('#') or not line.strip():
            continue
        if line.startswith('== '):
            mutants.append(Mutant(line[3:].strip()))
            continue
        m = mutants[-1] if mutants else sys.exit(f'{where}: a mutant begins with "== name"')
        if line.startswith(('-|', '+|')):
            if not m.edits:
                sys.exit(f'{where}: no file yet')
            m.edits[-1][1 if line[0] == '-' else 2].append(line[2:])
            continue
        key, _, value = line.partition(':')
        if key not in fields:
            sys.exit(f'{where}: what is this?')
        if key == 'file':
            m.edits.append([value.strip(), [], []])
        else:
            setattr(m, key, value.strip())
    return mutants


def apply_edits(m, root):
    """file -> its text with the mutant in it; ValueError when an old text is not there exactly once."""
    texts = {}
    for path, old, new in m.edits:
        if path not in texts:
            texts[path] = open(os.path.join(root, path)).read()
        before, after = '\n'.join(old) + '\n', ''.join(line + '\n' for line in new)
        times = ('\n' + texts[path]).count('\n' + before)
        if times != 1:
            raise ValueError(f'{m.name}: the old text is {times} times in {path}, not once')
        if before == after:
            raise ValueError(f'{m.name}: changes nothing')
        texts[path] = ('\n' + texts[path]).replace('\n' + before, '\n' + after)[1:]
    return texts


def check(mutants):
    problems = []
    names = [m.name for m in mutants]
    problems += [f'{n}: twice in the list' for n in set(names) if names.count(n) > 1]
    if len(mutants) < 30:
        problems.append(f'only {len(mutants)} mutants; there are to be 30 at least')
    for m in mutants:
        if not (m.breaks and m.test and m.caught and m.edits):
            problems.append(f'{m.name}: breaks, file, test or caught is missing')
            continue
        try:
            apply_edits(m, ROOT)
        except (ValueError, OSError) as e:
            problems.append(str(e))
        if m.kind() not in LIMITS:
            problems.append(f'{m.name}: no such kind of test: {m.test}')
        if m.kind() in NAMED:
            source = m.source()
            text = open(source).read() if os.path.exists(source) else ''
            for test in m.caught.split():
                if not re.search(rf'\b{re.escape(test)}\b', text):
                    problems.append(f'{m.name}: there is no {test} in {source}')
    return problems


def copy_file(source, target):
    """Only what differs: make goes by the times. A first copy keeps the time, so that what was built in the tree is not built again."""
    if not os.path.exists(target):
        shutil.copy2(source, target)
    elif open(source, 'rb').read() != open(target, 'rb').read():
        shutil.copy(source, target)


def copy_tree(work):
    built = os.path.join(ROOT, 'build/debug')
    if os.path.isdir(built) and not os.path.isdir(os.path.join(work, 'build')):
        shutil.copytree(built, os.path.join(work, 'build/debug'), symlinks=True)
    for item in COPIED:
        source = os.path.join(ROOT, item)
        if os.path.isdir(source):
            shutil.copytree(source, os.path.join(work, item), dirs_exist_ok=True, copy_function=copy_file)
        elif os.path.exists(source):
            copy_file(source, os.path.join(work, item))


def plan(m):
    """targets of make, command, more environment"""
    kind, *args = m.test.split()
    programs = ['build/debug/buswayd', 'build/debug/busway', 'build/debug/libbusway.so']
    if kind == 'unit':
        return [f'build/debug/unit/{args[0]}'], [f'build/debug/unit/{args[0]}'], {}
    if kind == 'asan':
        return [f'build/asan/unit/{args[0]}'], [f'build/asan/unit/{args[0]}'], {'ASAN_OPTIONS': 'detect_leaks=0'}
    if kind == 'integration':
        name = f'build/debug/integration/{args[0]}'
        return programs + [name], [name], {'BUSWAY_TEST_TRANSPORT': args[1] if len(args) > 1 else 'direct'}
    if kind == 'power':
        return ['build/debug/battery/power'], ['build/debug/battery/power', args[0], args[1], '120'], {}
    if kind == 'bitrot':
        return ['build/debug/battery/bitrot'], ['build/debug/battery/bitrot', args[0], '1'], {}
    if kind == 'crash':
        return programs + ['build/debug/crash/crash'], ['tests/crash/run.sh'], {'CRASH_SEED': args[0], 'CRASH_KILLS': args[1]}
    script = {'faults': 'tests/battery/faults.sh', 'clocks': 'tests/battery/clocks.sh', 'stops': 'tests/battery/stops.sh'}[kind]
    return programs + ['battery-bin'], [script], {'BATTERY_SEED': args[0] if args else '1', 'BATTERY_SECONDS': args[1] if len(args) > 1 else '40'}


def make(work, m, targets):
    command = ['make', '--no-print-directory', '-s', '-j2', 'VARIANT=' + ('asan' if m.kind() == 'asan' else 'debug')]
    command.append('WARN=')  # a mutant may leave something unused behind
    if shutil.which('ccache'):
        command.append('CC=ccache gcc')  # what is put back was compiled before
    r = subprocess.run(command + targets, cwd=work, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return None if r.returncode == 0 else r.stdout


def end_marked(mark):
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            if f'BW_TEST_MARK={mark}'.encode() in open(f'/proc/{pid}/environ', 'rb').read().split(b'\0'):
                os.kill(int(pid), signal.SIGKILL)
        except OSError:
            pass


def read_until(p, limit, enough):
    """The output until it ends, the time is over (None) or enough of it is there."""
    out, end, last = b'', time.monotonic() + limit, time.monotonic()
    while True:
        now = time.monotonic()
        if now - last > 3:  # the machine stood still
            end += now - last
        last, left = now, end - now
        if left <= 0 or (enough and enough.search(out)):
            return out, None
        if select.select([p.stdout], [], [], min(left, 1))[0]:
            piece = os.read(p.stdout.fileno(), 65536)
            if not piece:
                return out, p.wait()
            out += piece


def run_test(work, m, limit=float('inf'), enough=None):
    """exit code (None: over its limit, or enough was seen), output"""
    _, command, more = plan(m)
    tmp = tempfile.mkdtemp(prefix='bwm.', dir='/tmp')
    os.chmod(tmp, 0o755)
    build = os.path.join(work, 'build/debug')
    env = {k: v for k, v in os.environ.items() if not k.startswith('BUSWAY')}
    env.update(more, TMPDIR=tmp, XDG_DATA_HOME=tmp + '/share', BW_TEST_MARK=tmp, BW_BUILD=build, BUSWAY=build + '/busway', BUSWAYD=build + '/buswayd')
    p = subprocess.Popen([os.path.join(work, command[0]), *command[1:]], cwd=work, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, start_new_session=True)
    out, code = read_until(p, min(limit, LIMITS[m.kind()] * float(os.environ.get('TEST_LIMIT_FACTOR', 1))), enough)
    try:
        os.killpg(p.pid, signal.SIGKILL)
    except OSError:
        pass
    end_marked(tmp)
    p.wait()
    p.stdout.close()
    for kept in re.findall(rb'kept: (/tmp/bw-crash\.\w+)', out):
        shutil.rmtree(kept, ignore_errors=True)
    shutil.rmtree(tmp, ignore_errors=True)
    return code, out.decode(errors='replace')


def failures(m, code, out):
    """The names of the tests that failed."""
    if code == 0:
        return []
    if m.kind() in NAMED:
        named = re.findall(r'^\[  FAILED  \] (test_\w+)', out, re.M)
        begun, ended = re.findall(r'^\[ RUN      \] (\w+)', out, re.M), re.findall(r'^\[ +(?:OK|FAILED|SKIPPED) +\] (test_\w+)', out, re.M)
        if begun and begun[-1] not in ended:  # died or hung within it
            named.append(begun[-1])
        return sorted(set(named)) or [m.test.split()[1]]
    return [m.kind()]


def try_mutant(work, m, sound):
    """verdict, detail, tests that failed"""
    try:
        texts = apply_edits(m, work)
    except ValueError as e:
        return 'error', str(e), []
    targets = plan(m)[0]
    if m.test not in sound:
        log = make(work, m, targets)
        if log:
            return 'error', 'the tree without a mutant does not build:\n' + log, []
        begun = time.monotonic()
        code, out = run_test(work, m)
        sound[m.test] = '' if code == 0 else f'without the mutant {m.test} ends with {code}:\n' + out[-3000:]
        sound[m.test, 'limit'] = 60 + 4 * (time.monotonic() - begun)  # a test that fails may well hang then
    if sound[m.test]:
        return 'error', sound[m.test], []
    originals = {path: open(os.path.join(work, path)).read() for path in texts}
    try:
        for path, text in texts.items():
            open(os.path.join(work, path), 'w').write(text)
        log = make(work, m, targets)
        if log:
            return 'error', 'does not build:\n' + log[-3000:], []
        named = re.compile('|'.join(rf'^\[  FAILED  \] {re.escape(t)}\b' for t in m.caught.split()).encode(), re.M) if m.kind() in NAMED else None
        code, out = run_test(work, m, sound[m.test, 'limit'], named)
    finally:
        for path, text in originals.items():
            open(os.path.join(work, path), 'w').write(text)
    failed = failures(m, code, out)
    if not failed:
        return 'MISSED', f'{m.test} passes with it', []
    expected = set(m.caught.split())
    if m.kind() in NAMED and not expected & set(failed):
        return 'caught', f'but not by {m.caught}', failed
    return 'caught', '', failed


def load_progress(path, mutants):
    """name -> outcome of those that need not be tried again"""
    try:
        known = {r['name']: r for r in json.load(open(path))['mutants']}
    except (OSError, ValueError, KeyError):
        return {}
    good = {m.name: known[m.name] for m in mutants if m.name in known and is_good(known[m.name]) and known[m.name].get('digest') == m.digest()}
    return {} if len(good) == len(mutants) else good


def save_progress(path, outcome):
    try:
        known = {r['name']: r for r in json.load(open(path))['mutants']}
    except (OSError, ValueError, KeyError):
        known = {}
    known[outcome['name']] = outcome
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with open(path + '.tmp', 'w') as f:
        json.dump({'mutants': list(known.values())}, f, indent=1)
    os.replace(path + '.tmp', path)


def is_good(outcome):
    return outcome['verdict'] == 'caught' and not outcome['detail']


def write_table(path, mutants, progress):
    known = {r['name']: r for r in json.load(open(progress))['mutants']}
    rows = [(m, known.get(m.name)) for m in mutants]
    seen = [(m, r) for m, r in rows if r and is_good(r)]
    with open(path, 'w') as f:
        f.write(f'# What caught each mutant\n\nThe last whole run (`make mutants`, then `tests/mutants/run.py --progress build/mutants.json --table {path}`): '
                f'{len(seen)} of {len(mutants)} caught, each by a test that `list.txt` names for it.\n\n'
                '| mutant | what it breaks | program | tests that failed |\n|---|---|---|---|\n')
        for m, r in rows:
            how = ' '.join(f'`{t}`' for t in r['caught by']) if r and is_good(r) else '**not seen caught**'
            f.write(f'| {m.name} | {m.breaks} | {m.test} | {how} |\n')
    print(f'{len(seen)} passed, {len(mutants) - len(seen)} failed')
    return 0 if len(seen) == len(mutants) else 1


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('names', nargs='*')
    p.add_argument('--check', action='store_true')
    p.add_argument('--pick', type=int)
    p.add_argument('--seed', type=int, default=1)
    p.add_argument('--json')
    p.add_argument('--work')
    p.add_argument('--progress')
    p.add_argument('--table')
    p.add_argument('--seconds', type=float, default=float('inf'))
    p.add_argument('--lanes', type=int, default=1)
    a = p.parse_args()
    started = time.monotonic()
    mutants = read_list()
    problems = check(mutants)
    if a.check:
        print('\n'.join(problems))
        print(f'{len(mutants)} mutants in the list')
        print(f'{1 if not problems else 0} passed, {len(problems)} failed')
        return 1 if problems else 0
    if a.names:
        mutants = [m for m in mutants if any(re.fullmatch(n, m.name) for n in a.names)]
    elif a.pick:
        mutants = random.Random(a.seed).sample([m for m in mutants if m.kind() in QUICK], a.pick)
    if not mutants:
        sys.exit('no such mutant')
    if a.table:
        return write_table(a.table, mutants, a.progress or os.path.join(ROOT, 'build/mutants.json'))
    known = load_progress(a.progress, mutants) if a.progress else {}
    if known:
        print(f'going on: {len(known)} of {len(mutants)} were caught before', flush=True)
    work = os.path.abspath(a.work) if a.work else tempfile.mkdtemp(prefix='bw-mutants.', dir='/tmp')
    groups = {}  # by their test, which is run once without any
    for m in mutants:
        if m.name not in known:
            groups.setdefault(m.test, []).append(m)
    queue, results, left, lock = sorted(groups.values(), key=lambda g: g[0].test), list(known.values()), [], threading.Lock()

    def take(outcome):
        with lock:
            results.append(outcome)
            if a.progress:
                save_progress(a.progress, outcome)
            detail = (' ' if outcome['detail'] else '') + outcome['detail']
            print(f"{outcome['verdict']:6} {outcome['name']:34} {outcome['test']:30} {outcome['seconds']:6.1f} s  {' '.join(outcome['caught by'])}{detail}", flush=True)

    def lane(number):
        mine, sound = os.path.join(work, str(number)), {}
        copy_tree(mine)
        while True:
            with lock:
                if not queue:
                    return
                group = queue.pop(0)
            for m in group:
                begun = time.monotonic()
                if begun - started > a.seconds:
                    left.append(m.name)
                    continue
                verdict, detail, failed = try_mutant(mine, m, sound)
                take({'name': m.name, 'breaks': m.breaks, 'test': m.test, 'verdict': verdict, 'caught by': failed, 'detail': detail,
                      'seconds': round(time.monotonic() - begun, 1), 'digest': m.digest()})

    try:
        lanes = [threading.Thread(target=lane, args=(i,), daemon=True) for i in range(a.lanes)]
        for t in lanes:
            t.start()
        for t in lanes:
            t.join()
    finally:
        if not a.work:
            shutil.rmtree(work, ignore_errors=True)
    if a.json:
        json.dump({'seed': a.seed, 'mutants': results}, open(a.json, 'w'), indent=1)
    good = sum(is_good(r) for r in results)
    if left:
        print(f'{len(left)} are left for the next run')
    lost = len(mutants) - len(results) - len(left)  # with a lane that ended by an error of its own
    print(f'{good} passed, {len(results) - good + lost} failed')
    return 0 if good == len(results) and not lost else 1


if __name__ == '__main__':
    sys.exit(main())
