#!/usr/bin/env python3
"""Scenarios that must fail: a runner which passes one of them does not look.

    mutate.py SCENARIOS INTO [--all] [--seed N]

Writes into INTO, for each scenario, one mutant (with --all: every one that there is): one expectation of one step is turned round. A
`see` becomes the opposite of itself, an `error` becomes one that nobody gives, and a step that should succeed is told to fail. Steps with
`if` are left alone (they may not run)."""
import argparse
import copy
import json
import pathlib
import random


def mutants(scenario):
    """Pairs of a name and a changed copy."""
    for branch in ("steps", "otherwise"):
        for i, step in enumerate(scenario.get(branch, [])):
            if "if" in step:
                continue
            changed = []
            if "see" in step and "within_ms" not in step:  # at first it is the opposite that holds
                changed.append(("see", {**step, "see": {"$not": step["see"]}}))
            if "error" in step:
                allowed = step["error"] if isinstance(step["error"], list) else [step["error"]]
                if "OK" not in allowed:
                    changed.append(("succeeds", {k: v for k, v in step.items() if k not in ("error", "retriable", "fatal", "message")}))
                    changed.append(("error", {**step, "error": "BUG_OF_NOBODY"}))
                for word in ("retriable", "fatal"):
                    if word in step:
                        changed.append((word, {**step, word: not step[word]}))
            elif not step["do"] == "sleep":
                changed.append(("fails", {**step, "error": "BUG_OF_NOBODY"}))
            for name, new in changed:
                new.pop("within_ms", None)
                copied = copy.deepcopy(scenario)
                copied[branch] = scenario[branch][:i] + [new]
                yield f"{branch}-{i + 1}-{name}", copied


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("scenarios", type=pathlib.Path)
    parser.add_argument("into", type=pathlib.Path)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    chance = random.Random(args.seed)
    args.into.mkdir(parents=True, exist_ok=True)
    for path in sorted(args.scenarios.glob("*.json")):
        there = [m for m in mutants(json.loads(path.read_text())) if m[0].startswith("steps")]
        for name, changed in there if args.all else [chance.choice(there)]:
            (args.into / f"{path.stem}--{name}.json").write_text(json.dumps(changed))


if __name__ == "__main__":
    main()
