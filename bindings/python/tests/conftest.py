"""What the tests share: a bus in a folder of its own for each module, topics with names of their own, programs as children."""
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap

import pytest

import busway

_numbers = itertools.count()


@pytest.fixture(scope="session")
def url():
    """One bus for the session, or the one that is given."""
    given = os.environ.get("BUSWAY_TEST_URL")
    if given:
        yield given
        return
    folder = tempfile.mkdtemp(prefix="bw-py-")
    yield f"dir:{folder}?idle-exit=1s"
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def bus(url):
    with busway.connect(url) as b:
        yield b


@pytest.fixture(params=["direct", "ipc"])
def any_bus(url, request):
    """The same over both transports."""
    with busway.connect(url, transport=request.param) as b:
        yield b


@pytest.fixture
def topic(bus):
    """A new topic with one partition."""
    name = f"t{os.getpid()}-{next(_numbers)}"
    bus.admin().create_topic(name, 1)
    return name


@pytest.fixture
def name():
    """A name that nobody else has."""
    return f"n{os.getpid()}-{next(_numbers)}"


@pytest.fixture
def child():
    """Runs a program: child(text, *args) gives the finished process."""

    def run(text, *args, timeout=30, **options):
        return subprocess.run([sys.executable, "-c", textwrap.dedent(text), *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              universal_newlines=True, timeout=timeout, **options)

    return run


def fill(bus, topic, count, size=None):
    """count records in partition 0: their values."""
    values = [b"%d" % i if size is None else (b"%d|" % i).ljust(size, b".") for i in range(count)]
    with bus.producer() as producer:
        producer.send_many(topic, values, partition=0)
    return values
