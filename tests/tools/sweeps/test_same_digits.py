"""A sweep that is killed and started again ends with the digits of one that was left alone."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from tests.tools.sweeps.conftest import wait_for
from tests.toy import TOY_OPTIONS
from tools.collect_results import main as collect

ROOT = Path(__file__).parents[3]
# Real training, of a project that knows the toy data set, too.
TRAIN = f"""\
import os, sys
sys.path[0], there = {str(ROOT)!r}, set(sys.modules)
import tests.toy, train
code = train.main()
print("parent", os.getppid(), "imported", len(set(sys.modules) - there))
sys.exit(code)
"""
END = re.compile(r"parent (\d+) imported (\d+)")
SWEEP = """\
import sys
from pathlib import Path
from tools.sweeps import names
names.PROJECT = Path.cwd()
from tools import sweep
sys.exit(sweep.main())
"""


@pytest.fixture
def toy_project(tmp_path):
    """A project with one data set, Toy, and one config of Spotlighter and of CoOp."""
    options = {key: value for key, value in TOY_OPTIONS.items() if not key.startswith("DATASET")}
    options["OPTIM.MAX_EPOCH"], options["TRAIN.PRINT_FREQ"] = 3, 1
    for key, node in (
        ("datasets/toy", {"DATASET": {"NAME": "Toy"}}),
        ("trainers/Spotlighter/vit_b16_ep20_ctxv1", nested(options)),
        ("trainers/CoOp/vit_b16_ep100", nested(options)),
    ):
        path = tmp_path / "configs" / f"{key}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(node))
    shutil.copy(ROOT / "configs" / "trainers" / "defaults.yaml", tmp_path / "configs" / "trainers")
    (tmp_path / "train.py").write_text(TRAIN)
    return tmp_path


def nested(options):
    tree = {}
    for key, value in options.items():
        *path, last = key.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[last] = list(value) if isinstance(value, tuple) else value
    return tree


def start(project, data, output, *more):
    words = ["--serial", "--trainers", "Spotlighter", "--datasets", "toy", "--shots", "4"]
    path = os.pathsep.join([str(ROOT), str(ROOT / "engine" / "src")])
    return subprocess.Popen(
        [sys.executable, "-c", SWEEP, *words, "--root", str(data), "--output", output, *more],
        cwd=project,
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
    )


def scores(project, output):
    path = project / f"{output}.csv"
    columns = ["trainer", "dataset", "seed", "base", "new", "hm"]
    assert collect([str(project / output), "--csv", str(path), "--columns", *columns]) == 0
    return path.read_text()


OWN = ("date", "git", "images_per_s", "train_s")  # of a run, whatever its results
# A run that is tested on a fold of its training pictures keeps the logits.
COOP = ("--trainers", "CoOp", "--protocols", "fewshot", "--seeds", "1", "2")
FOLD = ("--opts", "DATASET.FOLD", "1/2", "OPTIM.MAX_EPOCH", "1")


@pytest.mark.slow
def test_children_of_a_worker_give_the_digits_of_single_processes(toy_project, toy_root):
    found = []
    for output, how in (("awake", ()), ("isolated", ("--isolate",))):
        assert start(toy_project, toy_root, output, *COOP, *how, *FOLD).wait() == 0
        folders = [path.parent for path in sorted((toy_project / output).rglob("results.json"))]
        results = [json.loads((folder / "results.json").read_text()) for folder in folders]
        same = [{key: one[key] for key in one if key not in OWN} for one in results]
        logits = [(folder / "logits.npy").read_bytes() for folder in folders]
        found.append((same, logits, [weights(folder) for folder in folders]))
        logs = [(folder / "sweep.txt").read_text() for folder in folders]
        parents, imported = zip(*(END.search(log).groups() for log in logs), strict=True)
        assert len(parents) == 2
        assert len(set(parents)) == 1
        assert all(int(n) < 40 if output == "awake" else int(n) > 1000 for n in imported)
    (one, logits, learned), (other, other_logits, other_learned) = found
    assert one == other
    assert one[0]["learned"] != one[1]["learned"]
    assert logits == other_logits
    for ours, theirs in zip(learned, other_learned, strict=True):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.thorough
def test_a_killed_sweep_gives_the_same_digits(toy_project, toy_root):
    assert start(toy_project, toy_root, "whole").wait() == 0
    run = "toy/shots_4/Spotlighter/vit_b16_ep20_ctxv1/seed1"
    base = toy_project / "killed" / "train_base" / run
    new = toy_project / "killed" / "test_new" / run
    moments = {
        "while it trains": lambda: "epoch [2/3]" in read(base / "sweep.txt"),
        "between two jobs": lambda: (base / "results.json").exists(),
        "while it tests": lambda: "Loading CLIP" in read(new / "sweep.txt"),
    }
    for moment in moments.values():
        sweep = start(toy_project, toy_root, "killed")
        wait_for(moment)
        sweep.send_signal(signal.SIGKILL)
        sweep.wait()
        assert not (new / "results.json").exists()
    trained = (base / "results.json").stat().st_mtime_ns
    assert start(toy_project, toy_root, "killed").wait() == 0
    assert (base / "results.json").stat().st_mtime_ns == trained
    assert scores(toy_project, "killed") == scores(toy_project, "whole")
    one, other = (weights(toy_project / name / "train_base" / run) for name in ("whole", "killed"))
    assert all(torch.equal(one[name], other[name]) for name in one), "and the same bits"


def weights(folder):
    last = max((folder / "prompt_learner").glob("model.pth.tar-?"))
    saved = torch.load(last, weights_only=True)
    return {name: value for name, value in saved["state_dict"].items() if torch.is_tensor(value)}


def read(path):
    return path.read_text() if path.exists() else ""
