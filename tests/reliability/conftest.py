"""Runs that can be killed, and the table of faults that the tests write."""

import json
import os
import re
import signal
import subprocess
import sys
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.reliability.table import Figures, Table

PROJECT = Path(__file__).parents[2]


def hear_ctrl_c():
    """A process that is started in the background ignores Ctrl-C, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Driver:
    """A process that has imported everything and forks a run a job; see `driver.py`."""

    def __init__(self, command):
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        options = {"cwd": PROJECT, "text": True, "preexec_fn": hear_ctrl_c}
        self.process = subprocess.Popen(command, **options, **streams)

    def __call__(self, **job):
        """The exit code of a run."""
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()


@pytest.fixture(scope="session")
def driver():
    with Driver([sys.executable, "-m", "tests.reliability.driver"]) as driver:
        yield driver


@pytest.fixture
def start(driver, arguments, tmp_path):
    """Start train.py in a process of its own; returns its exit code and what it printed."""

    def go(trainer, output="run", *, job=None, flags=(), **options):
        log = tmp_path / "printed.txt"
        argv = arguments(trainer, output, flags=flags, **options)
        code = driver(argv=argv, log=str(log), **(job or {}))
        return code, log.read_text()

    return go


@pytest.fixture(scope="session")
def wholes(tmp_path_factory):
    """Folders of runs that were left alone, by what they were."""
    return {"where": tmp_path_factory.mktemp("whole")}


@pytest.fixture
def whole(start, wholes):
    """A run that is left alone; the same one is run once."""

    def go(trainer, **options):
        key = f"{trainer} {options}"
        if key not in wholes:
            folder = wholes["where"] / str(len(wholes))
            code, printed = start(trainer, folder, **options)
            assert code == 0, printed
            wholes[key] = folder
        return wholes[key]

    return go


WRITE = os.environ.get("WRITE_TABLE") == "1"


@pytest.fixture(scope="session")
def figures():
    """The figures of docs/reliability.md."""
    return Figures(PROJECT / "tests" / "reliability" / "figures.csv", WRITE)


@pytest.fixture(scope="session")
def table(figures):
    """Rows of docs/reliability.md; each must stand there, or is written with WRITE_TABLE=1."""
    table = Table(PROJECT / "docs" / "reliability.md", figures, WRITE)
    yield table
    table.finish()


@pytest.fixture
def measured(table, figures, request):
    """Note a figure that was measured, as `measured("kills survived", "64 of 64")`."""
    test = request.node.nodeid.partition("[")[0]

    def note(what, figure):
        figures.note(what, figure, test)

    return note


@pytest.fixture(scope="session")
def counts():
    """By what was counted: cases in all, and those that ended well."""
    return defaultdict(lambda: [0, 0])


@pytest.fixture
def counted(table, figures, counts, request):
    """Count a case of a kind that several tests try; the figure is "8 of 9".

    Use it as `with counted("hostile archives refused"):` around what must hold.
    """
    file = request.node.nodeid.partition("::")[0]

    @contextmanager
    def case(what):
        counts[what][0] += 1
        try:
            yield
            counts[what][1] += 1
        finally:
            figures.note(what, "{1} of {0}".format(*counts[what]), file)

    return case


@pytest.fixture
def witness(table, tmp_path, toy_root):
    """Note a fault that was provoked and what happened."""

    def note(part, fault, happened):
        for folder, name in ((tmp_path, "OUT"), (toy_root, "DATA")):
            happened = happened.replace(str(folder), name)
        happened = re.sub(r"part archive/\S+ is", "part ... is", happened)  # as torch lays it out
        table.note(part, fault, happened)

    return note
