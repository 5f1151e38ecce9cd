"""A tree of results as runs leave it, made without training."""

import json

import numpy as np
import pytest

from runs.calibration import bin_sums, reliability
from runs.record import Predicted, write_predictions
from tests.tools.test_collect_results import record

CLASSES = [f"class {i}" for i in range(12)]
DATASETS = ("EuroSAT", "EmojiFood", "EmojiFaces")

TOP = np.linspace(0.2, 0.99, 100)  # confidences
DIAGRAM = reliability(bin_sums(TOP, np.arange(100) % 7 < 7 * TOP**1.5))


def write_run(root, **changes):
    run = record(**changes) | {
        "nll": 1.25,
        "ece": 7.5,
        "reliability": DIAGRAM,
        "versions": {"python": "3.11", "torch": "2.14"},
        "git": "abc123",
        "date": "2026-01-02",
        "epoch": 2,
        "epoch_chosen_by": "last_step",
        "class_names": CLASSES,
    }
    keys = ("source", "dataset", "trainer", "classes", "shots", "seed")
    folder = root / "_".join(str(run[key]) for key in keys)
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(run))
    (folder / "config.yaml").write_text("# git: abc123\nOPTIM:\n  LR: 0.02 # <b>&\n")
    return folder


def write_right(folder, right):
    """Class i is recognised right[i] times of 10, else taken for class 0."""
    pairs = [
        (label, label if i < count else 0) for label, count in enumerate(right) for i in range(10)
    ]
    rows = [Predicted(*pair, f"{i}.png", 0.5, 0.25) for i, pair in enumerate(pairs)]
    write_predictions(folder, rows, CLASSES)


def write_curve(folder):
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder / "tensorboard")) as writer:
        for step in range(6):  # two epochs of three steps
            writer.add_scalar("train/loss", 6 - step, step)
            writer.add_scalar("train/acc", 10 * step, step)


@pytest.fixture(scope="session")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("results")
    for trainer, gain in (("ZeroshotCLIP", 0), ("CoOp", 9), ("MaPLe", 3)):
        for dataset in DATASETS:
            for seed in (1, 2):
                run = {"trainer": trainer, "dataset": dataset, "seed": seed}
                score = 50 + gain + seed + len(dataset)
                folder = write_run(root, classes="base", accuracy=score, **run)
                if (trainer, dataset) != ("MaPLe", "EmojiFaces"):  # one cell is missing
                    write_run(root, classes="new", accuracy=score - 30, **run)
                write_right(folder, [10, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10])
                write_curve(folder)
        for shots in (1, 4, 16):
            for seed in (1, 2):
                few = {"trainer": trainer, "shots": shots, "seed": seed, "classes": "all"}
                write_run(root, accuracy=40 + shots + seed + gain, **few)
        write_run(root, trainer=trainer, source="EmojiFood", dataset="EuroSAT", classes="all")
    return root
