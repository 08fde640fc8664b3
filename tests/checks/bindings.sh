#!/usr/bin/env bash
# Every public C function is reachable from Python and from Go, or the table in bindings/README.md gives the reason: what it names is there in
# the binding's sources, and the function is called there. What the table leaves out, or names though it is gone, is an error.
set -euo pipefail
cd "$(dirname "$0")/../.."
exec python3 - <<'PY'
import pathlib, re

headers = "".join(p.read_text() for p in sorted(pathlib.Path("include/busway").glob("*.h")))
declared = set(re.findall(r"BW_API [^;(]*?\b(bw_[a-z_0-9]+)\(", re.sub(r"/\*.*?\*/", "", headers, flags=re.S)))
table = {}
for line in pathlib.Path("bindings/README.md").read_text().splitlines():
    row = re.fullmatch(r"\| `(bw_[a-z_0-9]+)` \| (.*?) \| (.*?) \|", line)
    if row:
        table[row[1]] = {"python": row[2], "go": row[3]}
wrong = [f"{f}: not in the table" for f in sorted(declared - table.keys())] + [f"{f}: no such function" for f in sorted(table.keys() - declared)]
if len(declared) < 80:
    wrong.append(f"only {len(declared)} functions found: the parser is wrong")

def text(folder, *kinds):
    return "\n".join(p.read_text() for k in kinds for p in sorted(pathlib.Path(folder).rglob(k)) if not re.search(r"/(tests?|examples?|build)/|_test\.go", str(p)))

def python_has(name, py, c):
    owner, _, member = name.rpartition(".")
    if owner:
        bodies = re.findall(rf"^class {owner}\b.*?(?=^class |\Z)", py, re.M | re.S)  # the extension's and the package's
        member = rf"^    (?:@property\n    )?(?:async )?def {member}\(|^    {member}\b[:=]|^    {member} ?[:=]"
        return any(re.search(member, body, re.M) for body in bodies)
    return bool(re.search(rf"^(?:async )?def {name}\(|^class {name}\b|^{name}\b ?[:=]", py, re.M))

def go_has(name, go):
    owner, _, member = name.rpartition(".")
    if owner:
        return bool(re.search(rf"^func \(\w+ \*?{owner}\) {member}\(", go, re.M))
    return bool(re.search(rf"^func {name}\(", go, re.M))

passed = skipped = 0
py, pyc = text("bindings/python/src", "*.pyi", "*.py"), text("bindings/python/src", "*.c")
go, goc = text("bindings/go", "*.go"), text("bindings/go", "*.go", "*.c", "*.h")
for language, there, has, calls in (("python", py, lambda n: python_has(n, py, pyc), pyc), ("go", go, lambda n: go_has(n, go), goc)):
    if not there:
        print(f"SKIP: {language}: bindings/{language} is not there")
        skipped += 1
        continue
    for function, cells in table.items():
        cell = cells[language]
        name = re.fullmatch(r"`([\w.]+)`", cell)
        called = re.search(rf"\b{function}\b", calls)
        if name:
            if not has(name[1]):
                wrong.append(f"{function}: {language} has no {name[1]}")
            elif not called:
                wrong.append(f"{function}: {language} does not call it")
            else:
                passed += 1
        elif re.match(r"— \S+ \S+", cell):
            passed += 1
        else:
            wrong.append(f"{function}: {language}: neither a name nor a reason: {cell}")
print("\n".join(wrong))
print(f"{passed} passed, {len(wrong)} failed, {skipped} skipped")
raise SystemExit(bool(wrong))
PY
