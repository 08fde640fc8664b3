#!/usr/bin/env bash
# The conformance scenarios use the vocabulary as it is written down, and nothing else: verbs, arguments, capabilities, names of errors,
# operators, saved names. Every verb is used by a scenario, done by the runner in C and told of in README.md.
set -euo pipefail
cd "$(dirname "$0")/../.."
exec python3 - <<'PY'
import json, pathlib, re
root = pathlib.Path("tests/conformance")
words = json.loads((root / "vocabulary.json").read_text())
capable = json.loads((root / "capabilities.json").read_text())
readme = (root / "README.md").read_text()
known = set().union(*capable.values()) | {"direct", "ipc", "dir", "daemon", "tcp", "kafka"}
errors = set(re.findall(r"\bX\(([A-Z_0-9]+),", pathlib.Path("include/busway/error.h").read_text())) | {"OK"}
operators = {"$ge", "$le", "$gt", "$lt", "$not", "$any", "$has", "$hasnot", "$all", "$set", "$count", "$absent", "$type"}
wrong, used, passed = [], set(), 0

def operators_of(v):
    if isinstance(v, dict):
        for k, x in v.items():
            if k.startswith("$"):
                yield k
            yield from operators_of(x)
    elif isinstance(v, list):
        for x in v:
            yield from operators_of(x)

def texts(v):
    if isinstance(v, str):
        yield v
    for x in v.values() if isinstance(v, dict) else v if isinstance(v, list) else ():
        yield from texts(x)

def step_is_right(step, saved, say):
    verb = words["verbs"].get(step.get("do"))
    if verb is None:
        return say(f"no such verb: {step.get('do')}")
    used.add(step["do"])
    for k in step.keys() - set(words["step"]) - set(verb["must"]) - set(verb["may"]):
        say(f"{step['do']} has no argument {k}")
    for k in set(verb["must"]) - step.keys():
        say(f"{step['do']} lacks {k}")
    wanted = step.get("error", [])
    for name in [wanted] if isinstance(wanted, str) else wanted:
        if name not in errors:
            say(f"no such error: {name}")
    if "error" not in step and step.keys() & {"retriable", "fatal", "message"}:
        say(f"{step['do']}: retriable, fatal and message come with error")
    for name in operators_of(step.get("see")):
        if name not in operators:
            say(f"no such operator: {name}")
    if "if" in step and step["if"].lstrip("!") not in known:
        say(f"no such capability: {step['if']}")
    for text in texts(step):
        name = re.fullmatch(r"\$([a-z0-9_]+)([+-]\d+)?", text)
        if name and name[1] not in saved | {"now", "dir"}:
            say(f"${name[1]} was not saved before")
    saved.update(step.get("save", {}))

paths = sorted((root / "scenarios").glob("*.json"))
for path in paths:
    before = len(wrong)
    say = lambda text: wrong.append(f"{path.name}: {text}")
    scenario = json.loads(path.read_text())
    for k in scenario.keys() - set(words["scenario"]):
        say(f"a scenario has no {k}")
    if not scenario.get("about", "").endswith("."):
        say("about is no sentence")
    for name in scenario.get("requires", []):
        if name.lstrip("!") not in known:
            say(f"no such capability: {name}")
    for branch in ("steps", "otherwise"):
        saved = set()
        for step in scenario.get(branch, []):
            step_is_right(step, saved, say)
    if not any(k in s for s in scenario["steps"] for k in ("see", "error")):
        say("nothing of it can fail but by accident: no see and no error")
    passed += len(wrong) == before
if not paths:
    wrong.append("there are no scenarios")
done = set()
for source in root.glob("*.c"):
    done |= set(re.findall(r'^    \{"([a-z_.]+)", \w+\},$', source.read_text(), re.M))
for what, missing in (("used by no scenario", words["verbs"].keys() - used), ("not done by the runner in C", words["verbs"].keys() - done),
                      ("not in vocabulary.json", done - words["verbs"].keys()),
                      ("not in README.md", {v for v in words["verbs"] if f"`{v}`" not in readme})):
    wrong += [f"{v}: {what}" for v in sorted(missing)]
    passed += not missing
print("\n".join(wrong))
print(f"{passed} passed, {len(wrong)} failed")
raise SystemExit(bool(wrong))
PY
