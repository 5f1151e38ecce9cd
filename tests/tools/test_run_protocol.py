"""One protocol in the foreground; scripts/*.sh are tested beside it in tests/scripts."""

import os
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


def carrying_out(tmp_path):
    """A process that carries out a job, which is at work."""
    code = (
        f"import sys\nfrom pathlib import Path\nsys.path.insert(0, {str(names.PROJECT)!r})\n"
        "from tools import run_protocol\nfrom tools.sweeps.protocols import Job\n"
        f"run_protocol.names.PROJECT = Path({str(tmp_path)!r})\n"
        "run_protocol.raise_at_sigterm()\n"
        "sys.exit(run_protocol.carry_out(Job('a job', Path('out'), ())))\n"
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


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_what_ends_it_lets_the_run_say_what_is(tmp_path, sign):
    (tmp_path / "train.py").write_text(TRAIN)
    process = carrying_out(tmp_path)
    if sign == signal.SIGINT:  # from a terminal
        os.killpg(process.pid, sign)
    else:
        process.send_signal(sign)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (128 + sign, "said\n", "")


@pytest.mark.skipif(sys.platform != "linux", reason="a child is bound to its parent on Linux")
def test_a_run_ends_with_what_started_it(tmp_path):
    (tmp_path / "train.py").write_text(TRAIN)
    with carrying_out(tmp_path) as process:
        process.kill()
        assert process.communicate(timeout=30)[0] == "said\n"


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
