"""One run over two processes, on the CPU with gloo, against one process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models.classifier import Step, Target
from runs import parallel
from runs.files import lock_folder
from tests.conftest import assert_close

PROJECT = Path(__file__).parents[2]
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")
# train.py, which does not know the toy data set
CODE = "import sys, tests.toy, train; sys.exit(train.main())"
# the same in float64, so that sums in another order are equal on any processor
FLOAT64 = """
import torch
from tests.conftest import in_dtype
from trainers import base

torch.set_default_dtype(torch.float64)
load = base.load_backbone
base.load_backbone = lambda *settings: in_dtype(load(*settings))
"""
# the head is fitted on rank 0 alone
FIT_ON_RANK0 = """
from runs import parallel
from trainers import spotlighter

if not parallel.is_rank0():
    spotlighter.fill_and_fit = None
"""


def launch(words, processes, tmp_path, before=""):
    script = tmp_path / "train_toy.py"
    script.write_text(before + CODE)
    several = (*TORCHRUN, str(processes)) if processes > 1 else ()
    path = os.pathsep.join([str(PROJECT), str(PROJECT / "engine" / "src")])
    return subprocess.run(
        [sys.executable, *several, str(script), *words],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def state_of(folder):
    path = folder / "prompt_learner" / "model.pth.tar-2"
    return torch.load(path, weights_only=True)["state_dict"]


def test_two_processes_give_the_bank_and_weights_of_one_with_twice_the_batch(arguments, tmp_path):
    # The order of pictures is the same; an augmentation would be drawn differently. It is float64,
    # because the tie to the anchors is an L1 distance and begins at 0: there the sign of a
    # difference, and so the gradient, hangs on the last bits. The base takes two gradients a step.
    for processes, batch in ((1, 8), (2, 4)):
        words = arguments(
            "Spotlighter",
            f"of_{processes}",
            TRAINER__SPOTLIGHTER__BASE="ProGrad",
            INPUT__TRANSFORMS=("normalize",),
            DATALOADER__TRAIN_X__BATCH_SIZE=batch,
            TRAIN__PRINT_FREQ=1,
        )
        done = launch(words, processes, tmp_path, FLOAT64 + FIT_ON_RANK0)
        assert done.returncode == 0, done.stderr
    one, two = (state_of(tmp_path / f"of_{n}") for n in (1, 2))
    assert one.keys() == two.keys()
    for name, value in one.items():
        if torch.is_tensor(value):
            assert_close(two[name], value)
    assert one["head.memory.filled"]
    assert one["head.level"].any()
    results = [json.loads((tmp_path / f"of_{n}" / "results.json").read_text()) for n in (1, 2)]
    assert [found["processes"] for found in results] == [1, 2]
    assert results[0]["accuracy"] == results[1]["accuracy"]
    folder = tmp_path / "of_2"
    assert len(list(folder.glob("log.txt*"))) == 1
    assert len(list((folder / "tensorboard").iterdir())) == 1
    assert (folder / "log.txt").read_text().count("Finish training") == 1


def test_two_processes_go_on_as_if_they_had_not_stopped(arguments, tmp_path):
    """Both draw their own augmentations, so that both need their own random states."""
    words = arguments(
        "Spotlighter",
        "run",
        INPUT__TRANSFORMS=("random_flip", "normalize"),
        DATALOADER__TRAIN_X__BATCH_SIZE=4,
        TRAIN__CHECKPOINT_FREQ=1,
    )
    assert launch(words, 2, tmp_path).returncode == 0
    folder = tmp_path / "run" / "prompt_learner"
    first = state_of(tmp_path / "run")
    (folder / "model.pth.tar-2").unlink()
    (folder / "checkpoint").write_text("model.pth.tar-1\n")
    done = launch(words, 2, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Going on from" in done.stdout
    again = state_of(tmp_path / "run")
    for name, value in first.items():
        if torch.is_tensor(value):
            assert torch.equal(value, again[name]), name


@pytest.mark.slow
def test_two_processes_share_a_store_and_train_as_without(arguments, tmp_path):
    """Each encodes its share of the views' batches, and the test pictures are those of rank 0."""
    store = tmp_path / "store"
    for name, kept in (("off", "off"), ("filling", "disk"), ("filled", "disk")):
        words = arguments(
            "Spotlighter",
            name,
            INPUT__TRANSFORMS=("random_flip", "normalize"),
            DATALOADER__TRAIN_X__BATCH_SIZE=4,
            DATALOADER__TEST__BATCH_SIZE=3,
            FEATURES__VIEWS=2,
            FEATURES__KEEP=kept,
            FEATURES__DIR=str(store),
        )
        done = launch(words, 2, tmp_path)
        assert done.returncode == 0, done.stderr
        if name == "filling":
            entries = set(store.iterdir())
    assert len(entries) > 2 * 24 // 3 + 30 // 3  # two views of 24 pictures, and 30 of the test
    assert set(store.iterdir()) == entries
    first, results = state_of(tmp_path / "off"), {}
    for name in ("off", "filling", "filled"):
        again = state_of(tmp_path / name)
        assert again.keys() == first.keys()
        for key, value in first.items():
            assert not torch.is_tensor(value) or torch.equal(value, again[key]), (name, key)
        results[name] = json.loads((tmp_path / name / "results.json").read_text())
    assert len({found["nll"] for found in results.values()}) == 1
    assert ["images_per_s" in found for found in results.values()] == [True, True, False]


@pytest.mark.thorough
def test_two_runs_of_two_processes_are_kept_apart(arguments, tmp_path):
    words = arguments("CoOp", "run")
    (tmp_path / "run").mkdir()
    with lock_folder(tmp_path / "run"):
        done = launch(words, 2, tmp_path)
    assert done.returncode == 1
    own, _ = done.stderr.split("torch/distributed/elastic", 1)
    assert own.count("train.py: error: another run") == 1
    assert own.count("train.py: error") == 1


@pytest.mark.thorough
def test_a_mistake_is_one_sentence_of_one_process(arguments, tmp_path):
    words = arguments("CoOp", flags=("--root", str(tmp_path / "nowhere")))
    done = launch(words, 2, tmp_path)
    assert done.returncode == 1
    own, _ = done.stderr.split("torch/distributed/elastic", 1)  # torchrun's own report
    assert own.count("train.py: error: Toy was looked for in ") == 1
    assert "Traceback" not in own


def test_alone_it_changes_nothing():
    def work():
        return 7

    assert parallel.processes() == 1
    assert parallel.on_rank0(work) == 7
    step = object()
    assert parallel.gathered(step) is step


def test_shares_are_disjoint_and_as_large(monkeypatch):
    monkeypatch.setattr(parallel, "processes", lambda: 2)
    order = [5, 3, 1, 0, 2, 4, 6]
    monkeypatch.setattr(parallel, "on_rank0", lambda work: work())
    shares = []
    for place in "01":
        monkeypatch.setenv("RANK", place)
        share = parallel.RankSampler(order)
        shares.append(list(share))
        assert len(share) == 3
    assert shares == [[5, 1, 2], [3, 0, 4]]


def test_a_memory_is_written_from_the_pictures_of_all(monkeypatch):
    def all_gather(found, own):
        for place, one in enumerate(found):
            one.copy_(own + 10 * place)

    monkeypatch.setattr(parallel, "processes", lambda: 2)
    monkeypatch.setattr(parallel.dist, "all_gather", all_gather)
    step = Step(torch.zeros(2, 3), Target(torch.tensor([0, 1])), {}, (torch.tensor([1.0, 2.0]),))
    (rows,) = parallel.gathered(step).memory_inputs
    assert rows.tolist() == [1, 2, 11, 12]


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with (
        pytest.raises(ValueError, match="started process 2 on a machine of 1 GPUs"),
        parallel.process_group(use_cuda=True),
    ):
        pass


def test_what_is_computed_is_computed_on_rank_0_and_shared(arguments, tmp_path):
    """The cache and its weights are those of one process; so is what is trained from them."""
    options = {"INPUT__TRANSFORMS": ("normalize",), "TRAINER__TIPADAPTER__VIEWS": 1}
    before = """
from runs import parallel
from trainers import adapters

if not parallel.is_rank0():
    adapters.AdapterTrainer.features = None
"""
    states = []
    for processes in (1, 2):
        words = arguments("TipAdapter", f"of_{processes}", **options)
        done = launch(words, processes, tmp_path, FLOAT64 + before)
        assert done.returncode == 0, done.stderr
        path = tmp_path / f"of_{processes}" / "prompt_learner" / "model.pth.tar-1"
        states.append(torch.load(path, weights_only=True)["state_dict"])
    for name, value in states[0].items():
        assert not torch.is_tensor(value) or torch.equal(value, states[1][name]), name
