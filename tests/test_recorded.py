"""Runs that an earlier revision left are evaluated and resumed as if it were still there.

A head that was not fitted is the exception: it is refused. tests/recorded/ was written at revision
7a2f6e8, before modules moved to where they are now:

    WRITE_RECORDED=1 python -m pytest tests/test_recorded.py

writes it anew, with the checkpoint of the first of two epochs and the results of the second.
"""

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import train
from tests.toy import TOY_OPTIONS

FOLDER = Path(__file__).parent / "recorded"
COLOURS = {
    "apple": (120, 70, 70),
    "tree": (80, 110, 80),
    "ocean": (75, 85, 120),
    "sun": (110, 105, 75),
}
TRAINERS = {"CoOp": "prompt_learner", "MaPLe": "MultiModalPromptLearner"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Coloured noise without compression: the same bytes wherever it is written."""
    root = tmp_path_factory.mktemp("recorded")
    rng = np.random.default_rng(0)
    (root / "toy" / "images").mkdir(parents=True)
    split = {}
    for part, count in (("train", 4), ("val", 2), ("test", 12)):
        split[part] = []
        for label, (name, colour) in enumerate(COLOURS.items()):
            for i in range(count):
                pixels = rng.normal(colour, (40, 40, 40), (64, 64, 3)) + rng.normal(0, 30, 3)
                file = f"{part}_{label}_{i}.bmp"
                image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
                image.save(root / "toy" / "images" / file)
                split[part].append([file, label, name])
    (root / "toy" / "split.json").write_text(json.dumps(split))
    return root


def run(trainer, root, output, *flags):
    """What a run says of the test pictures."""
    options = TOY_OPTIONS | {"MODEL.BACKBONE.PRETRAINED": True, "TRAIN.CHECKPOINT_FREQ": 1}
    words = [str(word) for pair in options.items() for word in pair]
    where = ["--root", str(root), "--output-dir", str(output)]
    train.run(train.parse_args([*where, "--seed", "1", "--trainer", trainer, *flags, *words]))
    results = json.loads((output / "results.json").read_text())
    with (output / "predictions.csv").open() as file:
        predictions = [row["predicted"] for row in csv.DictReader(file)]
    return {key: results[key] for key in ("accuracy", "macro_f1", "n")} | {"said": predictions}


@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_recorded_run_ends_as_it_did(root, tmp_path, trainer):
    recorded, name = FOLDER / trainer, TRAINERS[trainer]
    if os.environ.get("WRITE_RECORDED"):
        ended = run(trainer, root, tmp_path / "run")
        shutil.rmtree(recorded, ignore_errors=True)
        (recorded / name).mkdir(parents=True)
        shutil.copy(tmp_path / "run" / name / "model.pth.tar-1", recorded / name)
        given = ("--eval-only", "--model-dir", str(recorded), "--load-epoch", "1")
        evaluated = run(trainer, root, tmp_path / "evaluated", *given)
        content = json.dumps({"evaluated": evaluated, "ended": ended}, indent=1)
        (recorded / "results.json").write_text(content + "\n")
    expected = json.loads((recorded / "results.json").read_text())
    given = ("--eval-only", "--model-dir", str(recorded), "--load-epoch", "1")
    assert run(trainer, root, tmp_path / "evaluated", *given) == expected["evaluated"]
    shutil.copytree(recorded / name, tmp_path / "resumed" / name)
    (tmp_path / "resumed" / name / "checkpoint").write_text("model.pth.tar-1\n")
    assert run(trainer, root, tmp_path / "resumed") == expected["ended"]


def test_a_head_that_was_not_fitted_is_refused(root, tmp_path):
    recorded = FOLDER / "Spotlighter"
    said = (
        r"model\.pth\.tar-1 was written by an earlier version of Spotlighter \(revision \w+\), "
        r"which this one cannot read; evaluate it with that revision \(git checkout\), or train "
        r"anew$"
    )
    given = ("--eval-only", "--model-dir", str(recorded), "--load-epoch", "1")
    with pytest.raises(ValueError, match=said):
        run("Spotlighter", root, tmp_path / "evaluated", *given)
    shutil.copytree(recorded / "prompt_learner", tmp_path / "resumed" / "prompt_learner")
    (tmp_path / "resumed" / "prompt_learner" / "checkpoint").write_text("model.pth.tar-1\n")
    with pytest.raises(ValueError, match=said):
        run("Spotlighter", root, tmp_path / "resumed")
