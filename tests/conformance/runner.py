"""The conformance suite's runner in Python: what README.md says of scenarios, expansion, matching and steps. The verbs are in verbs.py.

    python3 tests/conformance/runner.py [--transport direct|ipc|auto] [--only REGEX] [--scenarios FOLDER] [--jobs N] [--verbose] [URL]

Needs the package `busway` (bindings/python). Ends with "N passed, N failed, N skipped"."""
from __future__ import annotations

import argparse
import itertools
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

HERE = pathlib.Path(__file__).resolve().parent
SCENARIOS = HERE / "scenarios"
_numbers = itertools.count()


class Broken(Exception):
    """Something is wrong with the scenario, or with the library in a way that no `error` may excuse."""


# ---- what the data means ---------------------------------------------------------------------------------------------


def numbered(v: Any, number: int) -> Any:
    if isinstance(v, str):
        return number if v == "#" else v.replace("#", str(number))
    if isinstance(v, list):
        return [numbered(x, number) for x in v]
    if isinstance(v, dict):
        return {k: numbered(x, number) for k, x in v.items()}
    return v


def expand(v: Any) -> Any:
    """generate and repeat."""
    if isinstance(v, dict):
        if "generate" in v and "each" in v:
            each, first = expand(v["each"]), v.get("from", 0)
            return [numbered(each, first + i) for i in range(v["generate"])]
        if "repeat" in v and "times" in v:
            return v["repeat"] * v["times"]
        return {k: expand(x) for k, x in v.items()}
    if isinstance(v, list):
        return [expand(x) for x in v]
    return v


def substitute(v: Any, names: Dict[str, Any], folder: str) -> Any:
    """$name, $name+5."""
    if isinstance(v, str) and v.startswith("$"):
        found = re.fullmatch(r"\$([^+-]+)([+-]\d+)?", v)
        if not found:
            return v
        name, add = found[1], int(found[2] or 0)
        if name == "now":
            return int(time.time() * 1000) + add
        if name == "dir":
            return folder
        if name not in names:
            return v
        value = names[name]
        return value + add if isinstance(value, int) and not isinstance(value, bool) else value
    if isinstance(v, list):
        return [substitute(x, names, folder) for x in v]
    if isinstance(v, dict):
        return {k: substitute(x, names, folder) for k, x in v.items()}
    return v


def is_number(v: Any) -> bool:
    return isinstance(v, (int, float)) and not isinstance(v, bool)


def is_set(seen: Any, wanted: List[Any]) -> bool:
    if not isinstance(seen, list) or len(seen) != len(wanted):
        return False
    left = list(seen)
    for w in wanted:
        for i, s in enumerate(left):
            if not differs(s, w):
                del left[i]
                break
        else:
            return False
    return True


def in_list(seen: Any, x: Any) -> bool:
    if isinstance(seen, str) and isinstance(x, str):
        return x in seen
    return isinstance(seen, list) and any(not differs(s, x) for s in seen)


TYPES = {"number": is_number, "text": lambda v: isinstance(v, str), "list": lambda v: isinstance(v, list),
         "object": lambda v: isinstance(v, dict), "bool": lambda v: isinstance(v, bool), "null": lambda v: v is None}
OPERATORS = {
    "$ge": lambda s, x: is_number(s) and s >= x,
    "$le": lambda s, x: is_number(s) and s <= x,
    "$gt": lambda s, x: is_number(s) and s > x,
    "$lt": lambda s, x: is_number(s) and s < x,
    "$not": lambda s, x: bool(differs(s, x)),
    "$any": lambda s, x: any(not differs(s, y) for y in x),
    "$all": lambda s, x: all(not differs(s, y) for y in x),
    "$has": in_list,
    "$hasnot": lambda s, x: isinstance(s, (list, str)) and not in_list(s, x),
    "$set": is_set,
    "$count": lambda s, x: isinstance(s, (list, dict)) and len(s) == x,
    "$absent": lambda s, x: s is None,
    "$type": lambda s, x: TYPES[x](s),
}


def short(v: Any) -> str:
    return json.dumps(v, sort_keys=True, default=repr)[:300]


def differs(seen: Any, wanted: Any) -> str:
    """Why seen does not match wanted; "": it does."""
    if isinstance(wanted, dict):
        if len(wanted) == 1:
            (key, x), = wanted.items()
            if key.startswith("$"):
                return "" if OPERATORS[key](seen, x) else f": {short(seen)}, wanted {short(wanted)}"
        if not isinstance(seen, dict):
            return f": {short(seen)}, wanted {short(wanted)}"
        for key, x in wanted.items():
            may_lack = isinstance(x, dict) and "$absent" in x
            if key not in seen and not may_lack:
                return f".{key}: not there, wanted {short(x)}"
            why = differs(seen.get(key), x)
            if why:
                return f".{key}{why}"
        return ""
    if isinstance(wanted, list):
        if not isinstance(seen, list) or len(seen) != len(wanted):
            return f": {short(seen)}, wanted a list of {len(wanted)}: {short(wanted)}"
        for i, x in enumerate(wanted):
            why = differs(seen[i], x)
            if why:
                return f".{i}{why}"
        return ""
    if is_number(wanted) and is_number(seen):
        return "" if seen == wanted else f": {seen}, wanted {wanted}"
    return "" if type(seen) is type(wanted) and seen == wanted else f": {short(seen)}, wanted {short(wanted)}"


def at_path(v: Any, path: str) -> Any:
    for element in path.split(".") if path else []:
        v = v[int(element)] if isinstance(v, list) else v[element]
    return v


# ---- scenarios -------------------------------------------------------------------------------------------------------


def load(path: pathlib.Path) -> Any:
    prefix = f"cp{os.getpid() % 0xFFFFF:05x}{time.time_ns() // 1000 % 0xFFFFFFF:07x}{next(_numbers) & 255:02x}-"
    return expand(json.loads(path.read_text(encoding="utf-8").replace("@", prefix)))


class Outcome(NamedTuple):
    word: str  # ok, FAIL, skip
    why: str


class Target:
    """A bus to run on, and what it can do."""

    def __init__(self, url: Optional[str] = None, transport: Optional[str] = None):
        self.own: Optional[str] = None
        url = url or os.environ.get("BUSWAY_TEST_URL") or None
        transport = transport or os.environ.get("BUSWAY_TEST_TRANSPORT") or (None if url else "direct")
        if url is None:
            self.own = tempfile.mkdtemp(prefix="bwconf.")
            url = f"dir:{self.own}"
        self.url, self.transport = url, transport or "auto"
        self.folder = re.sub(r"\?.*", "", url[4:]) if url.startswith("dir:") else ""
        scheme = url.split(":")[0]
        scheme = "tcp" if scheme == "tls+tcp" else scheme
        self.can = set(json.loads((HERE / "capabilities.json").read_text())[scheme])
        self.can.add("daemon" if scheme == "ipc" else scheme)
        if self.transport in ("direct", "ipc"):
            self.can.add(self.transport)

    def does(self, capability: str) -> bool:
        return not self.does(capability[1:]) if capability.startswith("!") else capability in self.can

    def remove(self) -> None:
        """The folder of our own making: its daemon is ended, and it is removed."""
        if not self.own:
            return
        for entry in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = entry.read_bytes().split(b"\0")
            except OSError:
                continue
            if b"buswayd" in words[0] and any(self.own.encode() in w for w in words):
                pid = int(entry.parent.name)
                os.kill(pid, signal.SIGTERM)
                for _ in range(200):
                    if not entry.exists():
                        break
                    time.sleep(0.01)
        shutil.rmtree(self.own, ignore_errors=True)


def try_step(world: Any, given: Dict[str, Any]) -> str:
    """Once. "": as it should be."""
    step = substitute(given, world.names, world.target.folder)
    result, error = None, None
    try:
        result = world.do(step)
    except world.errors as e:
        error = world.describe(e)
    if world.verbose:
        print(f"    {step['do']} -> {short(result) if error is None else error}", flush=True)
    wanted = step.get("error", "OK")
    if (error.name if error else "OK") not in (wanted if isinstance(wanted, list) else [wanted]):
        return f"{f'{error.name}: {error.message}' if error else 'it succeeded'}, wanted {wanted}"
    if error:
        for what, is_so in (("retriable", error.retriable), ("fatal", error.fatal)):
            if step.get(what, is_so) != is_so:
                return f"the error is {'' if is_so else 'not '}{what}"
        if step.get("message", "") not in error.message:
            return f"the message {error.message!r} does not contain {step['message']!r}"
        return ""
    if "see" in step:
        why = differs(result, step["see"])
        if why:
            return f"seen{why}"
    for name, path in step.get("save", {}).items():
        try:
            world.names[name] = at_path(result, path)
        except (KeyError, IndexError, TypeError):
            raise Broken(f"nothing is at {path} of the result") from None
    return ""


def run_step(world: Any, step: Dict[str, Any]) -> str:
    if "if" in step and not world.target.does(step["if"]):
        return ""
    end = time.monotonic() + step.get("within_ms", 0) / 1000
    while True:
        try:
            why = try_step(world, step)
        except Broken as e:
            return str(e)
        if not why or time.monotonic() >= end:
            return why
        time.sleep(0.02)


def run_scenario(target: Target, scenario: Dict[str, Any], verbose: bool = False) -> Outcome:
    from verbs import World  # needs the package

    lacks = [c for c in scenario.get("requires", []) if not target.does(c)]
    if lacks and "otherwise" not in scenario:
        return Outcome("skip", f"SKIP: this bus can't do: {lacks[0]}")
    world = World(target, verbose)
    try:
        why = run_step(world, {"do": "bus.open"})
        if why:
            return Outcome("FAIL", f"opening the bus: {why}")
        for topic in [] if lacks else scenario.get("topics", []):
            why = run_step(world, {**topic, "do": "topic.create"})
            if why:
                return Outcome("FAIL", f"making topic {topic['topic']}: {why}")
        for i, step in enumerate(scenario["otherwise" if lacks else "steps"]):
            why = run_step(world, step)
            if why:
                return Outcome("FAIL", f"step {i + 1}, {step['do']}: {why}")
    finally:
        world.close()
    return Outcome("ok", "")


def files(folder: pathlib.Path, only: str) -> List[pathlib.Path]:
    return [p for p in sorted(folder.glob("*.json")) if re.search(only, p.name)]


def run_files(target: Target, paths: List[pathlib.Path], verbose: bool) -> Iterator[Tuple[pathlib.Path, Outcome, float]]:
    for path in paths:
        begun = time.monotonic()
        if verbose:
            print(path.name)
        yield path, run_scenario(target, load(path), verbose), time.monotonic() - begun


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--transport")
    parser.add_argument("--only", default="")
    parser.add_argument("--scenarios", type=pathlib.Path, default=SCENARIOS)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--share", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("url", nargs="?")
    args = parser.parse_args()
    target = Target(args.url, args.transport)
    paths = files(args.scenarios, args.only)
    counts = {"ok": 0, "FAIL": 0, "skip": 0}
    if args.jobs > 1 and args.share is None:  # a process each: nothing but the bus is shared
        base = [sys.executable, __file__, target.url, "--transport", target.transport, "--only", args.only, "--scenarios", str(args.scenarios),
                "--jobs", str(args.jobs)] + ["--verbose"] * args.verbose
        shares = [subprocess.Popen(base + ["--share", str(k)], stdout=subprocess.PIPE, text=True) for k in range(args.jobs)]
        for share in shares:
            out, _ = share.communicate()
            print("\n".join(out.splitlines()[:-1]))
            found = re.search(r"^(\d+) passed, (\d+) failed, (\d+) skipped$", out, re.M)
            if not found or share.returncode not in (0, 1):
                print(f"a process of the runner died: {share.returncode}")
                counts["FAIL"] += 1
            else:
                for word, number in zip(counts, found.groups()):
                    counts[word] += int(number)
    else:
        for path, outcome, seconds in run_files(target, paths[args.share or 0::args.jobs], args.verbose):
            counts[outcome.word] += 1
            print(f"{outcome.word:<5} {path.stem:<40} {seconds * 1000:.0f} ms{': ' if outcome.why else ''}{outcome.why}", flush=True)
    target.remove()
    if not paths:
        counts["FAIL"] += 1
    print(f"{counts['ok']} passed, {counts['FAIL']} failed, {counts['skip']} skipped")
    return 1 if counts["FAIL"] else 0


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    sys.exit(main())
