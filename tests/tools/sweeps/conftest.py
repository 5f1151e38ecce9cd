"""A project whose train.py only pretends to train."""

import os
import shutil
import time
from pathlib import Path

import pytest

from tools.sweeps import awake, names

ROOT = Path(__file__).parents[3]
# Writes one line a start and one an end; waits while the file "hold" is there; fails on request.
FAKE_TRAIN = """\
import json, os, sys, time, uuid
from pathlib import Path
words = sys.argv[1:]
folder = Path(words[words.index("--output-dir") + 1])
dataset = Path(words[words.index("--dataset-config-file") + 1]).stem

def note(what):
    with open("events", "a") as file:
        file.write(f"{what} {folder} {os.environ['OMP_NUM_THREADS']} {os.getpid()} "
                   f"{os.environ.get('CUDA_VISIBLE_DEVICES', 'all')}\\n")

note("start")
print("epoch [1/4] batch [5/5]", flush=True)
if Path("fails").exists() and dataset in Path("fails").read_text():
    print("no such data")
    sys.exit(int(os.environ.get("FAKE_CODE", 1)))
end = time.monotonic() + float(os.environ.get("FAKE_SECONDS", 0))
while Path("hold").exists() or time.monotonic() < end:
    time.sleep(0.02)
folder.mkdir(parents=True, exist_ok=True)
learned = uuid.uuid4().hex
if "--model-dir" in words:
    trained = Path(words[words.index("--model-dir") + 1], "results.json")
    learned = json.loads(trained.read_text())["learned"]
(folder / "results.json").write_text(json.dumps({"learned": learned}))
note("end")
"""


class FakeProject:
    def __init__(self, root):
        self.root = root
        shutil.copytree(ROOT / "configs", root / "configs")
        (root / "train.py").write_text(FAKE_TRAIN)
        for name in ("emoji_food", "emoji_faces"):
            (root / "data" / name).mkdir(parents=True)  # drawn already

    def events(self, what, column=1):
        """Folders (or threads, process ids, GPUs) of the jobs that started or ended, in order."""
        path = self.root / "events"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line.split()[column] for line in lines if line.startswith(what)]


def wait_for(condition, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setattr(names, "PROJECT", tmp_path)
    monkeypatch.setattr(awake, "PRELOAD", ())  # a pretended training needs nothing
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "engine" / "src")]))
    return FakeProject(tmp_path)
