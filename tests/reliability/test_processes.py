"""Several processes at once, and what one leaves that is killed or short of something."""

import contextlib
import hashlib
import io
import multiprocessing
import random
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from datasets.emoji import STAMP_FILE, ensure_dataset
from models.clip.fetch import digest_of, fetch
from tests.reliability.conftest import PROJECT, Driver
from tests.reliability.runs import OPTIONS
from tests.reliability.test_system import ROOT_ONLY, sentence
from tools.data.unpack import unpack
from tools.sweeps.workers import require_listener

CONTENT = random.Random(0).randbytes(300_000)
MD5 = hashlib.md5(CONTENT).hexdigest()
MANY = 32


def at_once(work, *arguments):
    """How many of 32 processes end well."""
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=work, args=arguments) for _ in range(MANY)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes].count(0)


def fetch_and_look(url, target, checksum):
    fetch(url, target, checksum)
    assert digest_of(target, "md5") == MD5


@pytest.mark.parametrize("checksum", [MD5, ""])
def test_of_many_processes_one_fetches_a_file(server, tmp_path, table, measured, checksum):
    server.files["a.zip"] = CONTENT
    server.faults = [("cut", 100_000), ("cut", 50_000)]
    right = at_once(fetch_and_look, server.url("a.zip"), tmp_path / "new" / "a.zip", checksum)
    assert right == MANY
    assert [wanted for _, wanted in server.seen] == ["", "bytes=100000-", "bytes=150000-"]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.zip"]
    happened = f"{right} of {MANY} have it, complete and right; it was fetched once"
    table.note("processes", f"{MANY} processes fetch a file; the connection breaks twice", happened)
    measured("parallel downloads that are right", f"{right} of {MANY}")


def unpack_and_look(url, target):
    fetch(url, target)
    unpack(target, target.parent)
    assert all((target.parent / f"{n}").read_bytes() == b"1" * n for n in range(50))


def test_of_many_processes_all_find_an_archive_unpacked(server, tmp_path, table):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for n in range(50):
            member = tarfile.TarInfo(f"{n}")
            member.size = n
            archive.addfile(member, io.BytesIO(b"1" * n))
    server.files["a.tgz"] = packed.getvalue()
    right = at_once(unpack_and_look, server.url("a.tgz"), tmp_path / "new" / "a.tgz")
    assert right == MANY
    assert len(list((tmp_path / "new").iterdir())) == 51
    happened = f"{right} of {MANY} find all members, complete"
    table.note("processes", f"{MANY} processes download and unpack one archive", happened)


DRAW = "import sys; from pathlib import Path; from datasets.emoji import ensure_dataset; "
DRAW += 'ensure_dataset(Path(sys.argv[1]), "split.json", "food", "colour", workers=2)'


def wait_until(met, seconds=600):
    """Whether something comes to hold; the time is for machines that are busy."""
    end = time.monotonic() + seconds
    while not met() and time.monotonic() < end:
        time.sleep(0.1)
    return met()


def alive(marker):
    """Processes whose command line names a path; a child that was forked has its parent's."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # gone meanwhile
            ended = ") Z " in (entry / "stat").read_text()
            if str(marker).encode() in (entry / "cmdline").read_bytes() and not ended:
                found.append(int(entry.name))
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
def test_drawing_a_data_set_is_killed(tmp_path, table, sign):
    folder = tmp_path / "emoji_food"
    process = subprocess.Popen(
        [sys.executable, "-c", DRAW, str(folder)], cwd=PROJECT, stderr=subprocess.DEVNULL
    )
    try:
        assert wait_until(lambda: len(list(tmp_path.glob(".emoji_food.*/*/images/*/*/*"))) > 3)
        assert len(alive(folder)) == 3
    finally:
        process.send_signal(sign)
        process.wait()
    assert wait_until(lambda: not alive(folder))
    assert not folder.exists()
    small = {"train": 1, "val": 1, "test": 1}
    ensure_dataset(folder, "split.json", "food", "colour", per_class=small, workers=1)
    assert (folder / STAMP_FILE).is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["emoji_food"]
    happened = "its workers end with it; the next start removes what it left, and draws it"
    table.note("processes", f"drawing a data set ends by {sign.name}", happened)


LAST = OPTIONS | {"OPTIM__MAX_EPOCH": 1}
WORKERS = {"DATALOADER__NUM_WORKERS": 2, "DATALOADER__CACHE_MB": 0}


def test_memory_is_short(start, witness):
    job = {"limits": {"AS": 2_000_000}}
    found = sentence(*start("Spotlighter", job=job, **LAST))
    assert "out of memory; take smaller batches" in found
    witness("processes", "the process may have 2 MB more", found)


@pytest.mark.parametrize(("files", "workers"), [(48, 24), (24, 2)])
def test_files_are_short(start, witness, files, workers):
    """Where a worker is started, and where one hands a batch over."""
    many = WORKERS | {"DATALOADER__NUM_WORKERS": workers}
    found = sentence(*start("CoOp", job={"limits": {"NOFILE": files}}, **LAST | many))
    assert "too many open files; lower DATALOADER.NUM_WORKERS" in found
    fault = f"no more than {files} files may be open, with {workers} workers"
    witness("processes", fault, found)


@ROOT_ONLY
def test_processes_are_short(start, toy_root, tmp_path, witness):
    for path in (tmp_path, *tmp_path.parents, *toy_root.parents, toy_root):
        path.chmod(path.stat().st_mode | 0o055)
    tmp_path.chmod(0o777)
    job = {"limits": {"NPROC": 1}, "uid": 65534}
    found = sentence(*start("CoOp", job=job, **LAST | WORKERS))
    witness("processes", "no more processes may start, with workers", found)


def test_a_worker_is_killed(start, witness):
    """By itself, when it has loaded some pictures."""
    job = {"stop": ("runs.rng", "collate_with_state", 3, "before")}
    found = sentence(*start("CoOp", job=job, **OPTIONS | WORKERS))
    assert "a worker that reads pictures was killed" in found
    witness("processes", "a worker is killed", found)


@pytest.mark.thorough
def test_the_shared_memory_of_workers_is_full(arguments, tmp_path, witness):
    """As in a container of Docker's; in a mount namespace of its own."""
    mount = "mount -t tmpfs -o size=64k tmpfs /dev/shm"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], check=False).returncode != 0:
        pytest.skip("this system gives no mount namespace")
    script = f"{mount} && exec {sys.executable} -m tests.reliability.driver"
    log = tmp_path / "printed.txt"
    with Driver(["unshare", "-rm", "sh", "-c", script]) as driver:
        code = driver(argv=arguments("CoOp", "run", **LAST | WORKERS), log=str(log))
    found = sentence(code, log.read_text())
    assert "/dev/shm, where workers leave their batches, is full or missing" in found
    witness("processes", "/dev/shm has 64 kB, with workers", found)


def test_hundreds_of_workers_are_refused(fails, monkeypatch, witness):
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    found = fails("CoOp", DATALOADER__NUM_WORKERS=500)
    assert "DATALOADER.NUM_WORKERS must be a whole number from 0 to 64, got 500" in found
    witness("processes", "500 workers, on a machine of 8 cores", found)


def test_a_ray_address_of_nothing(server, witness):
    with pytest.raises(ConnectionError) as met:
        require_listener("127.0.0.1:1")
    witness("processes", "a sweep on a Ray cluster where nothing listens", str(met.value))
    with pytest.raises(ConnectionError) as met:
        require_listener(f"127.0.0.1:{server.port}")
    found = str(met.value).replace(str(server.port), "80")
    witness("processes", "a sweep on a Ray cluster where a web server listens", found)


TEXT = """
import resource, sys
from pathlib import Path
import torch
from models.clip import text_tower as text_encoder
from models.clip.load import load_tiny_clip
from models.clip.text_tower import Layout, split_prompts
if sys.argv[1] == "no":
    text_encoder.free_memory = lambda device: float("inf")
clip = load_tiny_clip().requires_grad_(False)
encoder = text_encoder.TextEncoder(clip)
tokens = encoder.tokenizer.tokenize([f"a photo of a thing {i}." for i in range(5000)])
layout = Layout(tokens.eos - 4)
prompts = split_prompts(encoder.token_embedding(tokens.ids), layout, 5)
prompts = prompts._replace(prefix=prompts.prefix.requires_grad_())
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 400 * 2**20,) * 2)
encoder(prompts).sum().backward()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_text_that_would_not_fit_is_taken_in_parts(table):
    """The text tower of 5,000 classes, where the process may take 400 MB more."""
    ended = {}
    for automatic in ("yes", "no"):
        done = subprocess.run(
            [sys.executable, "-c", TEXT, automatic],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=False,
        )
        ended[automatic] = done.returncode == 0 or "allocate memory" in done.stderr, done.returncode
    assert ended == {"yes": (True, 0), "no": (True, 1)}
    happened = "prompts are taken in parts by themselves; all at once they do not fit"
    table.note("processes", "5,000 classes, and 400 MB to learn a context with", happened)
