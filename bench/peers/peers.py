#!/usr/bin/env python3
"""bench/peers/peers.py: `make bench-peers`: Busway beside its peers, on the same work in the same run.

Installs what it needs below build/peers, skips what can't be had and says why, runs every system round after round (one after the
other within a round, the first round dropped), and writes build/peers/peers.{txt,md,json} and the plots of bench/figures/.
Standard library only. What is measured, and how each system is set up: bench/peers/README.md."""
import argparse, datetime, json, os, platform, re, signal, subprocess, sys, time

sys.dont_write_bytecode = True
import figures  # noqa: E402
from systems import OUT, PEERS, PROCESSES, RECORD, ROOT, Failed, Skip, Work  # noqa: E402

MB = 1000 * 1000


# -- the run -----------------------------------------------------------------------------------------------------------

class Progress:
    def __init__(self, total, quiet):
        self.total, self.done, self.quiet, self.start = total, 0, quiet, time.time()

    def step(self, what):
        self.done += 1
        if self.quiet:
            return
        spent = time.time() - self.start
        line = f'[{self.done}/{self.total}] {spent:4.0f} s  {what}'
        sys.stderr.write(f'\r{line:<78.78}' if sys.stderr.isatty() else line + '\n')
        sys.stderr.flush()


def touch_memory(size):
    """As much memory as a run will use, touched and freed: a virtual machine's host takes its time to give it back."""
    import mmap
    with mmap.mmap(-1, size) as m:
        for at in range(0, size, 4096):
            m[at] = 1


def works_of(peer, o):
    """(plot or column, x, Work) of one peer; `rounds` says how often."""
    seconds = o.seconds
    out = []
    for batch in peer.batches:
        n = int(peer.expect(batch) * seconds)
        n = max(n // 1000 * 1000, 1000)
        out.append(('rate', batch, Work('rate', batch, n, max(n // 2 // 1000 * 1000, 1000)), 'all' if batch in (0, 1, 100) else 'few'))
    trips = max(int(peer.trips * min(seconds, 1.2) / 1.2), 100)
    out.append(('rtt', 0, Work('rtt', 1, trips, trips // 4 if peer.spins else trips // 10), 'all'))
    for partitions in peer.partitions:
        n = max(int(peer.expect(100) * seconds) // 8000 * 8000, 8000)
        batch = 0 if peer.key == 'kafka' else 100
        out.append(('partitions', partitions, Work('rate', batch, n, n // 2, partitions=partitions), 'few'))
    if peer.grows:
        total = min(8000 * MB * seconds / 1.2, peer.expect(100) * RECORD * seconds * 12)
        points = 8 if o.quick else 32
        n = max(int(total) // RECORD // (1000 * points), 1) * 1000 * points
        out.append(('growth', 0, Work('rate', 0 if peer.key == 'kafka' else 100, n, max(n // points // 1000 * 1000, 1000), points), 'once'))
    return out


def measure_all(peers, o):
    """{peer key: {'rate': {batch: [..]}, 'rtt': [[percentiles]..], 'partitions': {n: [..]}, 'growth': [[..]..]}} and failures."""
    figures_of = {p.key: {'rate': {}, 'rtt': [], 'partitions': {}, 'growth': [], 'failed': []} for p in peers}
    rounds = 1 + o.runs
    few = 1 + min(3, o.runs)
    plan = []
    for r in range(rounds):
        for kind in ('rate', 'rtt', 'partitions', 'growth'):
            for index in range(max(len(works_of(p, o)) for p in peers)):
                for p in peers:
                    mine = [w for w in works_of(p, o) if w[0] == kind]
                    if index < len(mine):
                        often = {'all': rounds, 'few': few, 'once': 2}[mine[index][3]]
                        if r < often and (o.plots or mine[index][3] == 'all'):
                            plan.append((r, p, mine[index]))
    progress = Progress(len(plan), o.silent)
    for r, p, (kind, x, work, _) in plan:
        progress.step(f'round {r} of {rounds - 1}: {p.label}, {kind} {x or ""}')
        f = figures_of[p.key]
        if sum(1 for w in f['failed'] if w.startswith(f'{kind} {x}:')) >= 2:
            continue
        try:
            if kind != 'rtt':
                touch_memory(min((work.records + work.warm) * (RECORD + 20) + (32 << 20), 2 << 30))
            got = p.measure(work)
        except (Failed, Skip, OSError, ValueError) as e:
            f['failed'].append(f'{kind} {x}: {e}')
            continue
        if r == 0:
            continue
        if kind == 'rtt':
            f['rtt'].append(got['percentiles'])
        elif kind == 'growth':
            f['growth'].append((work.records * RECORD / max(len(got['points']), 1), got['points']))
        else:
            f[kind].setdefault(x, []).append(got['rate'])
    if sys.stderr.isatty() and not o.silent:
        sys.stderr.write('\n')
    return figures_of


def median(v):
    v = sorted(v)
    return (v[(len(v) - 1) // 2] + v[len(v) // 2]) / 2 if v else None


def spread(v):
    return (max(v) - min(v)) / median(v) if len(v) > 1 and median(v) else None


# What the project holds itself to: (text, system, figure, system beside it, figure, at least so many times).
CLAIMS = [
    ('direct, batched, over the bare limit', 'direct', 'batched', 'limit', 'batched', 0.8),
    ('direct, batched, over Aeron IPC with a message a record', 'direct', 'batched', 'aeron', 'one', 1.1),
    ('direct, batch of one, over the bare limit', 'direct', 'one', 'limit', 'one', 0.6),
    ('direct, batch of one, over Chronicle Queue', 'direct', 'one', 'chronicle', 'one', 1.5),
    ('socket, batched, over Kafka', 'socket', 'batched', 'kafka', 'batched', 2.0),
]


def claims_of(rows):
    by_key, out = {r['key']: r for r in rows}, []
    for text, a, figure, b, other, least in CLAIMS:
        x, y = by_key.get(a, {}).get(figure), by_key.get(b, {}).get(other)
        if x and y:
            out.append({'what': text, 'ratio': x / y, 'at_least': least, 'met': x / y >= least})
    return out


def summarise(peers, skipped, figures_of, o):
    rows = []
    for p in peers:
        f = figures_of[p.key]
        row = {'key': p.key, 'label': p.label, 'version': p.version, 'note': p.note, 'stores': p.stores, 'checksum': p.checksum,
               'two_processes': p.two_processes, 'spins': p.spins, 'failed': f['failed']}
        for x in f['rate']:
            row[f'rate_{x}'], row[f'rate_{x}_spread'], row[f'rate_{x}_runs'] = median(f['rate'][x]), spread(f['rate'][x]), len(f['rate'][x])
        best = 0 if 0 in f['rate'] else 100
        row['batched'], row['batched_spread'], row['one'] = row.get(f'rate_{best}'), row.get(f'rate_{best}_spread'), row.get('rate_1')
        row['one_spread'] = row.get('rate_1_spread')
        if f['rtt']:
            row['percentiles'] = [[f['rtt'][0][i][0], median([run_[i][1] for run_ in f['rtt']])] for i in range(len(f['rtt'][0]))]
            for name, at in (('p50', 50), ('p99', 99), ('p99.9', 99.9)):
                row[name] = next(v for q, v in row['percentiles'] if abs(q - at) < 0.01)
            i50 = next(i for i, (q, _) in enumerate(row['percentiles']) if q == 50)
            row['p50_spread'] = spread([run_[i50][1] for run_ in f['rtt']])
        row['by_batch'] = [[x, median(v)] for x, v in sorted(f['rate'].items()) if x]
        row['by_partitions'] = [[x, median(v)] for x, v in sorted(f['partitions'].items())]
        if f['growth']:
            part, points = f['growth'][-1]
            row['growth'] = [[part * (i + 1) / 1e9, v] for i, v in enumerate(points)]
        rows.append(row)
    direct = next((r for r in rows if r['key'] == 'direct'), {})
    for r in rows:
        for name in ('batched', 'one', 'p50', 'p99', 'p99.9'):
            if direct.get(name) and r.get(name):
                r[f'{name}_ratio'] = r[name] / direct[name]
    return {'date': datetime.datetime.now().strftime('%Y-%m-%d %H:%M'), 'machine': machine(), 'record_bytes': RECORD, 'runs': o.runs,
            'quick': o.quick, 'claims': claims_of(rows), 'ratios': "each figure over Busway direct's of this run", 'rows': rows,
            'skipped': [{'key': k, 'label': label, 'why': why} for k, label, why in skipped]}


def machine():
    model = 'unknown processor'
    for line in open('/proc/cpuinfo'):
        if line.startswith('model name'):
            model = line.split(':', 1)[1].strip()
            break
    virtual = ' (virtual)' if 'hypervisor' in open('/proc/cpuinfo').read() else ''
    return f'{os.cpu_count()} cores of {re.sub(r"[(]R[)]|[(]TM[)]", "", model)}{virtual}, Linux {platform.release()}'


# -- the table ---------------------------------------------------------------------------------------------------------

def show_rate(v):
    return '–' if not v else f'{v / 1e6:.1f} M/s' if v >= 1e7 else f'{v / 1e6:.2f} M/s' if v >= 1e6 else f'{v / 1e3:.1f} k/s'


def show_time(ns):
    return '–' if not ns else f'{ns:.0f} ns' if ns < 10000 else f'{ns / 1000:.1f} µs' if ns < 1e6 else f'{ns / 1e6:.1f} ms'


def show(v, shown, over, broad=None):
    text = shown(v)
    if v and over:
        text += f' ({over:.2f})'
    if v and broad is not None:
        text += f' ±{broad * 50:.0f}%'
    return text


HEAD = ['system', 'version', 'stores', 'batched', 'batch of one', 'round trip', 'p50', 'p99', 'p99.9']


def cells(r):
    return [r['label'], r['version'], ('disk' if r['stores'] else 'no') + (', CRC' if r['checksum'] else ''),
            show(r.get('batched'), show_rate, r.get('batched_ratio'), r.get('batched_spread')),
            show(r.get('one'), show_rate, r.get('one_ratio'), r.get('one_spread')), 'spinning' if r['spins'] else 'asleep',
            show(r.get('p50'), show_time, r.get('p50_ratio'), r.get('p50_spread')),
            show(r.get('p99'), show_time, r.get('p99_ratio')), show(r.get('p99.9'), show_time, r.get('p99.9_ratio'))]


def preamble(s):
    quick = ' (--quick: fewer, and shorter, than a whole run)' if s['quick'] else ''
    return [f'Records of {s["record_bytes"]} bytes, end to end between two processes: from the writer\'s call until the reader has touched '
            'every record.', f'Medians of {s["runs"]} runs{quick}, interleaved; ± half of (highest − lowest) / median; in brackets the ratio '
            'to Busway direct of this run (rates: more is better; times: less is).',
            'Batched: 100 records in one go (Kafka: its own batching). Round trip: one record each way, both sides spinning or both asleep.',
            f'{s["date"]}, {s["machine"]}.']


def table(s, markdown):
    rows = [cells(r) for r in s['rows']]
    out = preamble(s) + ['']
    if markdown:
        out += ['| ' + ' | '.join(HEAD) + ' |', '|' + '---|' * len(HEAD)] + ['| ' + ' | '.join(r) + ' |' for r in rows] + ['']
    else:
        width = [max(len(r[i]) for r in rows + [HEAD]) for i in range(len(HEAD))]
        out += ['  '.join(c.ljust(w) for c, w in zip(r, width)).rstrip() for r in [HEAD] + rows] + ['']
    for r in s['rows']:
        if r['note']:
            out.append(f'{"- " if markdown else ""}{r["label"]}: {r["note"]}.')
    for c in s['claims']:
        out.append(f'{"- " if markdown else ""}{c["what"]}: {c["ratio"]:.2f}; at least {c["at_least"]:.1f}: {"met" if c["met"] else "missed"}.')
    for r in s['rows']:
        for why in r['failed'][:3]:
            out.append(f'{"- " if markdown else ""}{r["label"]}: a run gave no figure ({why}).')
    for k in s['skipped']:
        out.append(f'{"- " if markdown else ""}{k["label"]}: skipped: {k["why"]}.')
    return '\n'.join(out) + '\n'


def arguments():
    a = argparse.ArgumentParser(prog='make bench-peers', description='Busway beside its peers: rates, round trips, a table, plots. '
                                'Through make: make bench-peers PEERS_ARGS="--quick".')
    a.add_argument('--quick', action='store_true', help='2 counted runs of a third of the work instead of 5; says so in the table')
    a.add_argument('--runs', type=int, help='counted runs (default 5); one more comes first and is dropped')
    a.add_argument('--seconds', type=float, help='about how long each run is to take, were it as fast as is usual (default 1.2; quick 0.4)')
    a.add_argument('--only', help='these systems, by comma: ' + ', '.join(p.key for p in PEERS) + ' (Busway direct is always run)')
    a.add_argument('--json', action='store_true', help='print the JSON instead of the table')
    a.add_argument('--no-plots', dest='plots', action='store_false', help='only what the table needs')
    a.add_argument('--silent', action='store_true', help='no progress line')
    a.add_argument('--figures', help='folder of the plots (default: bench/figures; with --quick or --only: build/peers/figures)')
    o = a.parse_args()
    o.runs = o.runs or (2 if o.quick else 5)
    o.seconds = o.seconds or (0.4 if o.quick else 1.2)
    known = {p.key for p in PEERS}
    o.only = set(o.only.split(',')) | {'direct'} if o.only else known
    if o.only - known:
        a.error(f'no such system: {", ".join(sorted(o.only - known))}')
    whole = not o.quick and o.only == known
    o.figures = o.figures or os.path.join(ROOT, 'bench', 'figures') if whole or o.figures else os.path.join(OUT, 'figures')
    return o


def main():
    o = arguments()
    os.makedirs(os.path.join(OUT, 'bin'), exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    peers, skipped = [], []
    try:
        for p in PEERS:
            if p.key not in o.only:
                continue
            if not o.silent:
                print(f'preparing {p.label}', file=sys.stderr)
            try:
                p.prepare()
                p.begin()
                peers.append(p)
            except (Skip, OSError, StopIteration, subprocess.TimeoutExpired) as e:
                skipped.append((p.key, p.label, str(e)))
                if p.server:
                    PROCESSES.end(p.server)
        if not peers:
            sys.exit('nothing can be run here: ' + '; '.join(why for _, _, why in skipped))
        figures_of = measure_all(peers, o)
    finally:
        PROCESSES.end_all()
    s = summarise(peers, skipped, figures_of, o)
    open(os.path.join(OUT, 'peers.json'), 'w').write(json.dumps(s, indent=1) + '\n')
    open(os.path.join(OUT, 'peers.txt'), 'w').write(table(s, False))
    open(os.path.join(OUT, 'peers.md'), 'w').write(table(s, True))
    print(json.dumps(s, indent=1) if o.json else table(s, False))
    if o.plots:
        figures.write_all(s, o.figures)
        if not o.json:
            print(f'plots: {os.path.relpath(o.figures)}/*.svg; table: build/peers/peers.{{txt,md,json}}')


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
