"""Full disks, missing permissions, Ctrl-C, two runs in a folder: one sentence, nothing spoiled."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time

import pytest

from datasets.emoji import ensure_dataset
from runs.files import lock_folder
from tests.reliability.conftest import PROJECT, Driver, hear_ctrl_c
from tests.reliability.runs import OPTIONS, require_same_end

NOBODY = 65534
ROOT_ONLY = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
STEP = ("trainers.base", "CLIPTrainer.forward_backward")


def sentence(code, printed, expected=2):
    """The one sentence on stderr; TensorBoard's thread may have said beside it that it ended."""
    assert code == expected, printed
    assert "Traceback" not in printed
    lines = printed.splitlines()
    found = [x for x in lines if x.startswith("train.py: ") and "a thread has stopped" not in x]
    assert len(found) == 1, printed
    return found[0]


@pytest.mark.parametrize(("room", "lacks"), [(1000, "config.yaml"), (5000, "model.pth.tar-1")])
def test_a_full_disk(start, whole, tmp_path, witness, room, lacks):
    """No file may be larger than that; the system says so as on a full disk."""
    found = sentence(*start("Spotlighter", job={"fsize": room}, **OPTIONS))
    assert f"no space left for {tmp_path}/run/" in found
    assert lacks in found
    assert not (tmp_path / "run" / "results.json").exists()
    assert start("Spotlighter", **OPTIONS)[0] == 0
    require_same_end(whole("Spotlighter", **OPTIONS), tmp_path / "run")
    witness("system", f"no file may have more than {room} bytes", f"{found}; then ends alike")


@pytest.fixture
def namespace(tmp_path):
    """A driver in a mount namespace of its own, with a small disk and a read-only one."""
    small, frozen = tmp_path / "small", tmp_path / "frozen"
    small.mkdir(), frozen.mkdir()
    script = (
        f"mount -t tmpfs -o size=100k tmpfs {small} && mount -t tmpfs -o ro tmpfs {frozen} && "
        f"exec {sys.executable} -m tests.reliability.driver"
    )
    trial = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", str(small)]
    if subprocess.run(trial, capture_output=True, check=False).returncode != 0:
        pytest.skip("this system gives no mount namespace")
    with Driver(["unshare", "-rm", "sh", "-c", script]) as driver:
        yield driver


@pytest.mark.thorough
def test_a_small_and_a_read_only_file_system(namespace, arguments, tmp_path, witness):
    log = tmp_path / "printed.txt"

    def go(where, **options):
        code = namespace(argv=arguments("CoOp", where, **OPTIONS | options), log=str(log))
        return code, log.read_text()

    found = sentence(*go("small/run"))
    assert "no space left for" in found
    assert "model.pth.tar-3" in found
    witness("system", "a file system of 100 kB is full", found)
    assert go("new/run", TRAIN__KEEP_CHECKPOINTS=1)[0] == 0
    found = sentence(*go("frozen/run"))
    assert "lies on a read-only file system; choose another folder" in found
    witness("system", "the output folder is on a read-only mount", found)


@ROOT_ONLY
def test_missing_permissions(start, toy_root, tmp_path, witness):
    for path in (tmp_path, *tmp_path.parents, *toy_root.parents, toy_root):
        path.chmod(path.stat().st_mode | 0o055)
    job = {"uid": NOBODY}
    (tmp_path / "run").mkdir(mode=0o755)
    found = sentence(*start("CoOp", job=job, **OPTIONS))
    assert f"no permission for {tmp_path}/run;" in found
    witness("system", "the output folder may not be written to", found)
    assert list((tmp_path / "run").iterdir()) == []
    (tmp_path / "run").chmod(0o777)
    picture = toy_root / "toy" / "images" / "test_0_0.png"
    picture.chmod(0)
    try:
        found = sentence(*start("CoOp", job=job, **OPTIONS))
    finally:
        picture.chmod(0o644)
    assert "test_0_0.png" in found
    assert "Permission denied" in found
    assert not (tmp_path / "run" / "results.json").exists()
    witness("system", "a picture may not be read", found)
    code, printed = start("CoOp", "other", job=job, **OPTIONS)
    assert sentence(code, printed).startswith("train.py: error: no permission for")
    tmp_path.chmod(0o777)
    code, printed = start("CoOp", "other", job=job, **OPTIONS | {"DATASET__NUM_SHOTS": 3})
    assert code == 0, printed
    witness("system", "the data folder may not be written to", "the run ends well, uncached")


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("stop", [(*STEP, 5, "before"), ("os", "fsync", 8, "before")])
def test_ctrl_c_and_sigterm(start, whole, tmp_path, witness, stop, sign):
    job = {"stop": stop, "signal": sign}
    found = sentence(*start("Spotlighter", job=job, **OPTIONS), expected=128 + sign)
    assert not (tmp_path / "run" / "results.json").exists()
    assert start("Spotlighter", **OPTIONS)[0] == 0
    require_same_end(whole("Spotlighter", **OPTIONS), tmp_path / "run")
    where = "in a step" if stop[0] != "os" else "while a checkpoint is written"
    fault = f"{'Ctrl-C' if sign == signal.SIGINT else 'SIGTERM'} {where}"
    witness("system", fault, f"{found}; exit code {128 + sign}; then ends alike")


@pytest.fixture
def holder(tmp_path):
    """Another process that writes to the folder of a run."""
    code = (
        "import fcntl, os, sys, time; f = open(sys.argv[1], 'a+'); fcntl.lockf(f, fcntl.LOCK_EX);"
        "f.write(f'process {os.getpid()} on a machine'); f.flush(); print(); time.sleep(60)"
    )
    (tmp_path / "run").mkdir()
    command = [sys.executable, "-c", code, str(tmp_path / "run" / ".lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        yield process
        process.kill()


def test_two_runs_in_one_folder(start, holder, tmp_path, witness):
    found = sentence(*start("CoOp", **OPTIONS))
    assert f"another run (process {holder.pid} on a machine) is writing to {tmp_path}/run" in found
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
    happened = found.replace(str(holder.pid), "123")
    witness("system", "two runs in one output folder", f"the second: {happened}")
    holder.kill()
    holder.wait()
    assert start("CoOp", **OPTIONS)[0] == 0


def test_a_removed_lock_lets_no_second_run_in(start, tmp_path, witness):
    with lock_folder(tmp_path / "run"):
        (tmp_path / "run" / ".lock").unlink()
        found = sentence(*start("CoOp", **OPTIONS))
    assert "though its file .lock was removed; wait for its end" in found
    witness("system", "two runs in one output folder, and .lock is removed", f"the second: {found}")


def test_what_a_killed_run_had_not_finished_is_cleared(run, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".config.yaml.unfinished-1").touch()
    run("ZeroshotCLIP", **OPTIONS)
    assert not list((tmp_path / "run").glob(".*unfinished*"))


def test_a_folder_without_locks_is_warned_of(run, tmp_path, monkeypatch, caplog):
    """As some network file systems are."""

    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", no_locks)
    run("ZeroshotCLIP", **OPTIONS)
    assert (tmp_path / "run" / "results.json").is_file()
    assert "gives no locks: see to it that no other run writes there" in caplog.text


def test_drawing_needs_no_locks(tmp_path, monkeypatch, caplog, witness):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    small = {"train": 1, "val": 1, "test": 1}
    folder = tmp_path / "emoji_food"
    ensure_dataset(folder, "split.json", "food", "colour", per_class=small, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["emoji_food"]
    found = caplog.messages[-1]
    assert "gives no locks: see to it that no other process writes there" in found
    fault = "the data folder gives no locks, and a data set is drawn"
    witness("system", fault, f"warning: {found}")


def test_a_killed_run_with_workers_frees_its_folder_at_once(start):
    workers = OPTIONS | {"DATALOADER__NUM_WORKERS": 2}
    assert start("CoOp", job={"stop": (*STEP, 2, "before")}, **workers)[0] == -signal.SIGKILL
    begin = time.monotonic()
    code, printed = start("CoOp", **workers)
    assert code == 0, printed
    assert time.monotonic() - begin < 60


def test_the_command_line_itself_says_that_it_was_interrupted(tmp_path):
    """Before anything is loaded."""
    code = "import os, signal, train; train.run = lambda a: os.kill(os.getpid(), signal.SIGINT)\n"
    done = subprocess.run(
        [sys.executable, "-c", code + "raise SystemExit(train.main())"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=hear_ctrl_c,
    )
    assert done.returncode == 130
    assert done.stderr == "train.py: interrupted; nothing was written\n"
