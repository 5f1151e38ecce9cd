"""Jobs as children of a worker that stays awake, with a train.py that only pretends to train."""

import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import Pipe
from pathlib import Path

import pytest

from tests.tools.sweeps.conftest import FAKE_TRAIN
from tests.tools.sweeps.test_sweep import BASE, FOOD, NEW, go
from tools.sweeps import awake
from tools.sweeps.protocols import Cell, plan
from tools.sweeps.workers import Launch, attempt, kept

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="jobs are forked on Linux")
NOTE_PARENT = 'with open("parents", "a") as file:\n    file.write(f"{os.getppid()}\\n")\n'
CHANGES = """\
import json, signal, threading
from pathlib import Path
found = [hasattr(json, "changed"), "CHANGED" in os.environ, Path.cwd().name != ROOT,
         signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL, threading.active_count() != 1]
assert not any(found), found
json.changed, os.environ["CHANGED"] = True, "1"
signal.signal(signal.SIGTERM, signal.SIG_IGN)
threading.Thread(target=threading.Event().wait, daemon=True).start()
"""
ENDS = """\
import atexit, threading, time
print("begun")
atexit.register(print, "at the exit")
threading.Thread(target=lambda: (time.sleep(0.3), print("a thread"))).start()
raise ValueError("not foreseen")
"""
COMPUTES = """\
import numpy, torch
ones = numpy.ones((400, 400))
assert (ones @ ones == 400).all()
assert (torch.ones(400, 400) @ torch.ones(400, 400) == 400).all()
assert torch.get_num_threads() == 2
"""
KILLS_WORKER = """\
import signal, time
if not os.path.exists("killed"):
    open("killed", "w").close()
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)
"""


def prepend(project, code):
    (project.root / "train.py").write_text(f"import os\n{code}{FAKE_TRAIN}")


def parents(project):
    """The parents of the jobs, in order."""
    return [int(line) for line in (project.root / "parents").read_text().split()]


def test_jobs_of_a_sweep_have_one_parent_and_isolated_ones_the_sweep(project):
    prepend(project, NOTE_PARENT)
    assert go(*FOOD, "--seeds", "1", "2") == 0
    assert len(parents(project)) == 4
    assert len(set(parents(project)) - {os.getpid()}) == 1
    (project.root / "parents").unlink()
    assert go(*FOOD, "--seeds", "3", "--isolate") == 0
    assert parents(project) == [os.getpid()] * 2


def test_nothing_passes_from_a_job_to_the_next(project):
    prepend(project, CHANGES.replace("ROOT", repr(project.root.name)) + "os.chdir('data/..')\n")
    assert go(*FOOD) == 0
    assert project.events("end") == [BASE, NEW]


def test_a_job_ends_as_a_process_of_its_own_does(project):
    (project.root / "train.py").write_text(ENDS)
    logs = []
    for more in ([], ["--isolate"]):
        assert go(*FOOD, "--retries", "0", *more) == 1
        logs.append((project.root / BASE / "sweep.txt").read_text())
    for log in logs:
        assert log.endswith("at the exit\n")
        assert "ValueError: not foreseen\n" in log
        assert "a thread\n" in log
        assert log.count("begun") == 1


def test_pools_of_threads_begin_anew_in_each_child(project, monkeypatch):
    monkeypatch.setattr(awake, "PRELOAD", ("numpy", "torch"))
    prepend(project, COMPUTES)
    assert go(*FOOD, "--threads", "2", "--retries", "0") == 0
    assert project.events("end") == [BASE, NEW]


def test_a_worker_that_is_killed_is_replaced(project, capsys):
    prepend(project, KILLS_WORKER + NOTE_PARENT)
    assert go(*FOOD, "--retries", "0") == 0
    assert "it was killed (-9); trying again" in capsys.readouterr().out
    assert project.events("end") == [BASE, NEW]
    assert len(set(parents(project))) == 1


def test_what_cannot_be_imported_is_left_to_the_jobs(project, monkeypatch):
    monkeypatch.setattr(awake, "PRELOAD", ("no_such_module",))
    prepend(project, NOTE_PARENT)
    assert go(*FOOD) == 0
    assert parents(project) == [os.getpid()] * 2


def test_with_an_open_gpu_nothing_is_forked(monkeypatch):
    assert awake.preload(())
    monkeypatch.setattr(awake, "GPUS", (os.devnull,))
    with Path(os.devnull).open():
        assert not awake.preload(())


def test_what_is_named_is_imported_and_called(monkeypatch):
    called = []
    monkeypatch.setattr(awake, "PATIENCE", lambda: called.append(1))
    awake.preload(["tools.sweeps.awake:PATIENCE", "tools.sweeps.names"])
    assert called == [1]
    with pytest.raises(ModuleNotFoundError):
        awake.preload(["no_such_module"])


def test_a_child_that_does_not_start_is_a_failure_with_a_reason(monkeypatch, tmp_path):
    def refused():
        raise BlockingIOError("too many processes")

    monkeypatch.setattr(os, "fork", refused)
    ours, theirs = Pipe()
    served = threading.Thread(target=awake.serve, args=(theirs,))
    served.start()
    assert ours.recv() == "ready"
    order = awake.Order((), ("folder",), str(tmp_path / "log.txt"), {})
    ours.send(tuple(order))
    assert ours.recv() == ("folder", 1)
    ours.close()
    served.join(30)
    assert not served.is_alive()
    said = (tmp_path / "log.txt").read_text()
    assert said == "no process could be started: too many processes\n"


def test_a_process_of_ray_keeps_its_worker_and_gives_each_job_the_gpu_it_has_now(
    project, monkeypatch
):
    prepend(project, NOTE_PARENT)
    jobs = plan(Cell("base2new", "MaPLe", "emoji_food", 1, 16, Path("output")))
    launch = Launch(project.root, threads=1, processes=1)
    for gpu, job in zip("01", jobs, strict=True):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpu)
        assert attempt(job, launch) == 0
    kept(launch).close()
    kept.cache_clear()
    assert project.events("end", column=4) == ["0", "1"]
    assert len(set(parents(project)) - {os.getpid()}) == 1


STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
STUBBORN += 'print("deaf", flush=True); time.sleep(60)'


def test_children_that_do_not_end_are_killed(monkeypatch):
    monkeypatch.setattr(awake, "PATIENCE", 0.3)
    options = {"stdout": subprocess.PIPE, "start_new_session": True}
    with subprocess.Popen([sys.executable, "-c", STUBBORN], **options) as process:
        assert process.stdout.readline() == b"deaf\n"
        child = awake.Child(process.pid)
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.1)
        began = time.monotonic()
        awake.stop([child])
        assert 0.3 <= time.monotonic() - began < 30
        assert child.poll() == -signal.SIGKILL
        process.returncode = child.returncode  # it is reaped
