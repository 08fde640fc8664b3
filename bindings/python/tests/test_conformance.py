"""The conformance suite that C, Python and Go share (tests/conformance of the source tree), on this package."""
import os
import pathlib
import re
import subprocess
import sys

import pytest

SUITE = pathlib.Path(__file__).resolve().parents[3] / "tests" / "conformance"
pytestmark = pytest.mark.skipif(not SUITE.is_dir(), reason="the suite is in the source tree only")


def run(*arguments):
    done = subprocess.run([sys.executable, str(SUITE / "runner.py"), "--jobs", "6", *arguments], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, universal_newlines=True, timeout=240, check=False,
                          env={k: v for k, v in os.environ.items() if not k.startswith("BUSWAY_TEST_")})
    counts = re.fullmatch(r"(\d+) passed, (\d+) failed, (\d+) skipped", done.stdout.splitlines()[-1])
    assert counts, done.stdout
    return [int(n) for n in counts.groups()], "\n".join(line for line in done.stdout.splitlines() if not line.startswith("ok "))


@pytest.mark.parametrize("transport", ["direct", "ipc"])
def test_conformance(transport):
    (passed, failed, skipped), text = run("--transport", transport)
    assert failed == 0 and skipped == 0, text
    assert passed == len(list((SUITE / "scenarios").glob("*.json")))


def test_conformance_can_fail(tmp_path):
    """Each scenario with one expectation turned round."""
    subprocess.run([sys.executable, str(SUITE / "mutate.py"), str(SUITE / "scenarios"), str(tmp_path / "mutants")], check=True)
    (passed, failed, skipped), text = run("--scenarios", str(tmp_path / "mutants"))
    assert (passed, skipped) == (0, 0), text
    assert failed == len(list((SUITE / "scenarios").glob("*.json")))
