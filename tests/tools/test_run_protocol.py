"""One protocol in the foreground; scripts/*.sh are tested beside it in tests/scripts."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tools import run_protocol
from tools.sweeps import names

WORDS = ["zeroshot", "ZeroshotCLIP", "emoji_food", "1"]
TRAIN = """
import signal, time
code = 130
def end(*_):
    global code
    code = 143
    raise KeyboardInterrupt
signal.signal(signal.SIGTERM, end)
try:
    open("at work", "w").close()
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(1)  # longer than Python waits before it kills what it has started
    print("said")
    raise SystemExit(code)
"""


FORKED = pytest.param(
    True, marks=pytest.mark.skipif(sys.platform != "linux", reason="jobs are forked on Linux")
)
NOTES = """
import json, os, sys
with open("forked", "a") as file:
    file.write(f"{'tools.run_protocol' in sys.modules}\\n")
folder = sys.argv[sys.argv.index("--output-dir") + 1]
os.makedirs(folder)
with open(f"{folder}/results.json", "w") as file:
    json.dump({"learned": "a"}, file)
print("trained", flush=True)
"""
BASE2NEW = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv.pop(1))
from tools import run_protocol
run_protocol.names.PROJECT, run_protocol.PRELOAD = Path.cwd(), sys.argv.pop(1).split()
sys.exit(run_protocol.main())
"""
SLOW = 'import time\nopen("imports", "w").close()\ntime.sleep(60)\n'


def base2new(tmp_path, *words, preload=""):
    """A process that runs two jobs of a project in a folder, where train.py pretends to train."""
    shutil.copytree(names.PROJECT / "configs", tmp_path / "configs")
    (tmp_path / "train.py").write_text(NOTES)
    command = [sys.executable, "-c", BASE2NEW, str(names.PROJECT), preload, "base2new", "MaPLe"]
    return subprocess.Popen(
        [*command, "emoji_food", "1", *words],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def carrying_out(tmp_path, forked):
    """A process that carries out a job, which is at work."""
    code = (
        f"import sys\nfrom pathlib import Path\nsys.path.insert(0, {str(names.PROJECT)!r})\n"
        "from tools import run_protocol\nfrom tools.sweeps.protocols import Job\n"
        f"run_protocol.names.PROJECT = Path({str(tmp_path)!r})\n"
        "run_protocol.raise_at_sigterm()\n"
        f"sys.exit(run_protocol.carry_out(Job('a job', Path('out'), ()), {forked}))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while not (tmp_path / "at work").exists():
        time.sleep(0.05)
    return process


@pytest.mark.parametrize("forked", [False, FORKED])
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_what_ends_it_lets_the_run_say_what_is(tmp_path, sign, forked):
    (tmp_path / "train.py").write_text(TRAIN)
    process = carrying_out(tmp_path, forked)
    if sign == signal.SIGINT:  # from a terminal
        os.killpg(process.pid, sign)
    else:
        process.send_signal(sign)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (128 + sign, "said\n", "")


@pytest.mark.skipif(sys.platform != "linux", reason="a child is bound to its parent on Linux")
@pytest.mark.parametrize("forked", [False, True])
def test_a_run_ends_with_what_started_it(tmp_path, forked):
    (tmp_path / "train.py").write_text(TRAIN)
    with carrying_out(tmp_path, forked) as process:
        process.kill()
        assert process.communicate(timeout=30)[0] == "said\n"


@pytest.mark.skipif(sys.platform != "linux", reason="jobs are forked on Linux")
@pytest.mark.parametrize(
    ("words", "preload", "forked"),
    [((), "json", True), (("--isolate",), "json", False), ((), "no_such_module", False)],
)
def test_several_runs_are_children_with_its_imports(tmp_path, words, preload, forked):
    with base2new(tmp_path, *words, preload=preload) as process:
        out, err = process.communicate(timeout=300)
    assert (process.returncode, out, err) == (0, "trained\n" * 2, "")
    assert (tmp_path / "forked").read_text() == f"{forked}\n" * 2


@pytest.mark.skipif(sys.platform != "linux", reason="jobs are forked on Linux")
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_while_it_imports(tmp_path, sign):
    (tmp_path / "slow_module.py").write_text(SLOW)
    with base2new(tmp_path, preload="slow_module") as process:
        while not (tmp_path / "imports").exists():
            time.sleep(0.05)
        process.send_signal(sign)
        out, err = process.communicate(timeout=300)
    assert (process.returncode, out) == (128 + sign, "")
    assert err == "base2new: stopped; the same command goes on from here\n"


def test_odd_numbers_are_refused_in_a_sentence(capsys):
    for words in (["zeroshot", "ZeroshotCLIP", "emoji_food", "-1"], [*WORDS, "", "²"]):
        assert run_protocol.main(["--root", "data", "--", *words]) == 2
    assert "SEED must be a whole number from 0, got -1" in capsys.readouterr().err


def test_own_pictures_that_are_not_there_are_named(tmp_path, capsys):
    words = ["fewshot", "CoOp", "folder", "1", "--root", str(tmp_path / "nowhere")]
    assert run_protocol.main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("fewshot: error: Folder was looked for in ")
    assert error.count("\n") == 1
