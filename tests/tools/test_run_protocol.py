"""One protocol in the foreground; scripts/*.sh are tested beside it in tests/scripts."""

import signal
import subprocess
import sys
import time

from tools import run_protocol
from tools.sweeps import names

WORDS = ["zeroshot", "ZeroshotCLIP", "emoji_food", "1"]
TRAIN = """
import time
try:
    open("at work", "w").close()
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(1)  # longer than Python waits before it kills what it has started
    print("said")
    raise SystemExit(130)
"""


def test_ctrl_c_lets_the_run_say_what_is(tmp_path):
    (tmp_path / "train.py").write_text(TRAIN)
    code = (
        f"import sys\nfrom pathlib import Path\nsys.path.insert(0, {str(names.PROJECT)!r})\n"
        "from tools import run_protocol\nfrom tools.sweeps.protocols import Job\n"
        f"run_protocol.names.PROJECT = Path({str(tmp_path)!r})\n"
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
    subprocess.run(["kill", "-INT", "--", f"-{process.pid}"], check=True)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "said\n", "")


def test_odd_numbers_are_refused_in_a_sentence(capsys):
    for words in (["zeroshot", "ZeroshotCLIP", "emoji_food", "-1"], [*WORDS, "", "²"]):
        assert run_protocol.main(["--root", "data", "--", *words]) == 2
    assert "SEED must be a whole number from 0, got -1" in capsys.readouterr().err
