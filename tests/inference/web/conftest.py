"""A page that serves a toy run."""

import os
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.browser import browser  # noqa: F401  (a fixture)

PROJECT = Path(__file__).parents[3]


@contextmanager
def page_of(run, **environment):
    """A page in a process of its own: the process, and a match of its address and port."""
    command = [sys.executable, "tools/app.py", "--model-dir", str(run), "--port", "0"]
    options = {"cwd": PROJECT, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env=os.environ | environment, **options)
    line = process.stdout.readline()
    found = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
    assert found, line
    yield process, found
    process.terminate()
    process.wait()


@pytest.fixture(scope="session")
def toy_run(tmp_path_factory):
    """The folder of a Spotlighter run on the toy data."""
    from tests.toy import TOY_OPTIONS, write_toy
    from train import parse_args, run

    place = tmp_path_factory.mktemp("app")
    write_toy(place)
    pairs = [str(word) for pair in (TOY_OPTIONS | {"OPTIM.MAX_EPOCH": 1}).items() for word in pair]
    where = ["--root", str(place), "--output-dir", str(place / "run"), "--seed", "1"]
    run(parse_args([*where, "--trainer", "Spotlighter", *pairs]))
    return place / "run"


@pytest.fixture(scope="module")
def served(toy_run):
    """The address of a page that serves a toy run."""
    with page_of(toy_run) as (_, found):
        yield found
