"""bench/peers/figures.py: the plots of `make bench-peers`: SVG that can be read on light and on dark ground, the data as JSON beside each.

usage: figures.py peers.json [FOLDER]  draws them again from an earlier run's JSON. Standard library only."""
import json, math, os, sys

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 800, 440, 76, 52, 190, 74
# One colour a system, of enough contrast on white and on near-black; what stores nothing is dashed, Busway is drawn thicker.
COLOURS = {'limit': '#808890', 'direct': '#d9480f', 'socket': '#b08900', 'aeron': '#1c7ed6', 'chronicle': '#2f9e44', 'iceoryx2': '#ae3ec9',
           'zeromq': '#0c8599', 'nng': '#e64980', 'kafka': '#7048e8', 'redis': '#e03131', 'nats': '#5c940d'}
STYLE = '''<style>
text{font-family:system-ui,sans-serif;font-size:12px;fill:#24292f}
.title{font-size:16px;font-weight:600}.small{font-size:11px;fill:#57606a}
.grid{stroke:#d0d7de;stroke-width:1}.axis{stroke:#57606a;stroke-width:1}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.small{fill:#9198a1}.grid{stroke:#30363d}.axis{stroke:#9198a1}}
</style>'''


def escape(s):
    return str(s).replace('&', '&amp;').replace('<', '&lt;').replace('>', '&gt;')


def rate_label(v):
    for unit, name in ((1e9, 'G'), (1e6, 'M'), (1e3, 'k')):
        if v >= unit:
            return f'{v / unit:g} {name}/s'
    return f'{v:g} /s'


def time_label(v):
    for unit, name in ((1e9, 's'), (1e6, 'ms'), (1e3, 'µs')):
        if v >= unit:
            return f'{v / unit:g} {name}'
    return f'{v:g} ns'


def decades(low, high):
    """Powers of ten that enclose the values."""
    return [10.0 ** e for e in range(math.floor(math.log10(low)), math.ceil(math.log10(high) - 1e-9) + 1)]


class Plot:
    """x_at: where a value of x lies between 0 and 1; y is logarithmic."""
    def __init__(self, s, title, x_title, y_title, x_ticks, x_at, y_values, y_label, note=''):
        self.ticks = decades(min(y_values), max(y_values))
        if len(self.ticks) < 2:
            self.ticks.append(self.ticks[0] * 10)
        self.x_at, self.parts, self.legend = x_at, [], 0
        noise = f'{s["runs"]} runs each, medians; ratios of one run' + ('; a quick run' if s['quick'] else '')
        self.parts += [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" '
                       f'aria-label="{escape(title)}">', STYLE, f'<text class="title" x="{LEFT}" y="24">{escape(title)}</text>',
                       f'<text class="small" x="{LEFT}" y="41">{escape(note)}</text>',
                       f'<text class="small" x="{LEFT}" y="{HEIGHT - 10}">{escape(s["date"])}, {escape(s["machine"])}. {noise}.</text>']
        for v in self.ticks:
            y = self.y(v)
            self.parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
                              f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{escape(y_label(v))}</text>')
        for v, label in x_ticks:
            x = self.x(v)
            self.parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
                              f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 17}" text-anchor="middle">{escape(label)}</text>')
        middle = TOP + (HEIGHT - TOP - BOTTOM) / 2
        self.parts += [f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM}"/>',
                       f'<line class="axis" x1="{LEFT}" x2="{LEFT}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>',
                       f'<text x="{LEFT + (WIDTH - LEFT - RIGHT) / 2:.0f}" y="{HEIGHT - BOTTOM + 36}" text-anchor="middle">{escape(x_title)}</text>',
                       f'<text transform="translate(16 {middle:.0f}) rotate(-90)" text-anchor="middle">{escape(y_title)}</text>']

    def x(self, v):
        return LEFT + self.x_at(v) * (WIDTH - LEFT - RIGHT)

    def y(self, v):
        low, high = math.log10(self.ticks[0]), math.log10(self.ticks[-1])
        return HEIGHT - BOTTOM - (math.log10(v) - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def line(self, row, points):
        points = [(x, y) for x, y in points if y]
        if not points:
            return
        colour, width = COLOURS.get(row['key'], '#808890'), 3 if row['key'] in ('direct', 'socket') else 1.8
        dash = '' if row['stores'] else ' stroke-dasharray="6 4"'
        path = ' '.join(f'{"M" if i == 0 else "L"}{self.x(x):.1f} {self.y(y):.1f}' for i, (x, y) in enumerate(points))
        self.parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{width}"{dash}/>')
        if len(points) <= 12:
            self.parts += [f'<circle cx="{self.x(x):.1f}" cy="{self.y(y):.1f}" r="3" fill="{colour}"/>' for x, y in points]
        x, y = WIDTH - RIGHT + 16, TOP + 8 + self.legend * 20
        self.parts.append(f'<line x1="{x}" x2="{x + 24}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="{width}"{dash}/>'
                          f'<text x="{x + 30}" y="{y + 4}">{escape(row["label"])}</text>')
        self.legend += 1

    def write(self, folder, name, data):
        x, y = WIDTH - RIGHT + 16, TOP + 8 + self.legend * 20 + 6
        self.parts.append(f'<text class="small" x="{x}" y="{y}">dashed: stores nothing</text></svg>')
        open(os.path.join(folder, name + '.svg'), 'w').write('\n'.join(self.parts) + '\n')
        json.dump(data, open(os.path.join(folder, name + '.json'), 'w'), indent=1)


def data_of(s, name, unit_x, unit_y, series):
    return {'plot': name, 'date': s['date'], 'machine': s['machine'], 'runs': s['runs'], 'quick': s['quick'], 'note': 'ratios of one run',
            'record_bytes': s['record_bytes'], 'x': unit_x, 'y': unit_y,
            'series': [{'system': r['label'], 'version': r['version'], 'points': p} for r, p in series]}


def ordered(series):
    """The legend from the top down as the lines end on the right."""
    return sorted(series, key=lambda rp: -rp[1][-1][1])


def by_batch(s, folder):
    series = ordered([(r, r['by_batch']) for r in s['rows'] if r.get('by_batch')])
    if not series:
        return
    xs = sorted({x for _, p in series for x, _ in p})
    top = math.log10(max(xs)) or 1
    plot = Plot(s, 'Rate by batch size', 'records in one go', 'records per second', [(x, f'{x:,}') for x in xs], lambda x: math.log10(x) / top,
                [v for _, p in series for _, v in p], rate_label,
                f'records of {s["record_bytes"]} bytes, end to end between two processes; higher is better')
    for r, p in series:
        plot.line(r, p)
    plot.write(folder, 'rate_by_batch', data_of(s, 'rate by batch size', 'records in one go', 'records/s', series))


def latency(s, folder):
    series = ordered([(r, r['percentiles']) for r in s['rows'] if r.get('percentiles')])
    if not series:
        return
    nines = lambda q: -math.log10(1 - q / 100)  # noqa: E731: 0 at 0, 1 at 90, 2 at 99, 4 at 99.99
    plot = Plot(s, 'Round trip, by percentile', 'percentile of the round trips', 'one record each way',
                [(q, f'{q:g} %') for q in (1, 50, 90, 99, 99.9, 99.99)], lambda q: nines(q) / 4, [v for _, p in series for _, v in p], time_label,
                f'one record of {s["record_bytes"]} bytes there, one back; lower is better; sockets and brokers sleep, the others spin')
    for r, p in series:
        plot.line(r, p)
    plot.write(folder, 'latency', data_of(s, 'round trip by percentile', 'percentile', 'ns', series))


def growth(s, folder):
    series = ordered([(r, r['growth']) for r in s['rows'] if r.get('growth')])
    if not series:
        return
    far = max(x for _, p in series for x, _ in p)
    step = 10 ** math.floor(math.log10(far))
    step = step / 4 if far / step < 2 else step / 2 if far / step < 4 else step
    ticks = [(step * i, f'{step * i:g}') for i in range(int(far / step) + 1)]
    plot = Plot(s, 'Rate while the log grows', 'GB of records in the log', 'records per second', ticks, lambda x: x / far,
                [v for _, p in series for _, v in p if v], rate_label,
                f'batches of 100 records of {s["record_bytes"]} bytes, nothing deleted behind; level is better')
    for r, p in series:
        plot.line(r, p)
    plot.write(folder, 'growth', data_of(s, 'rate while the log grows', 'GB of records', 'records/s', series))


def partitions(s, folder):
    series = ordered([(r, r['by_partitions']) for r in s['rows'] if r.get('by_partitions')])
    if not series:
        return
    xs = sorted({x for _, p in series for x, _ in p})
    top = math.log2(max(xs)) or 1
    plot = Plot(s, 'Rate by number of partitions', 'partitions written in turn by one writer, read by one reader', 'records per second',
                [(x, str(x)) for x in xs], lambda x: math.log2(x) / top, [v for _, p in series for _, v in p], rate_label,
                f'batches of 100 records of {s["record_bytes"]} bytes (Kafka: its own batching); higher is better')
    for r, p in series:
        plot.line(r, p)
    plot.write(folder, 'partitions', data_of(s, 'rate by partitions', 'partitions', 'records/s', series))


def write_all(s, folder):
    os.makedirs(folder, exist_ok=True)
    for draw in (by_batch, latency, growth, partitions):
        draw(s, folder)


if __name__ == '__main__':
    write_all(json.load(open(sys.argv[1])), sys.argv[2] if len(sys.argv) > 2 else os.path.join(os.path.dirname(__file__), '..', 'figures'))
