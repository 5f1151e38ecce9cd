"""The trainers need nothing of the engine but what upstream has.

UPSTREAM_DASSL names another folder that holds an engine, as a checkout of Dassl.pytorch.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import train

PROJECT = Path(__file__).parents[2]
UPSTREAM = os.environ.get("UPSTREAM_DASSL", str(PROJECT / "tests" / "upstream_engine"))
TRAINED = """
import json, sys, dassl, tests.toy
from tests.trainers.test_upstream_engine import train_resume_and_evaluate
assert dassl.__file__.startswith(sys.argv[1]), dassl.__file__
for line in sys.stdin:
    train_resume_and_evaluate(*json.loads(line))
    print("END OF JOB", flush=True)
"""
OPTIONS = {
    "TRAIN__CHECKPOINT_FREQ": 1,
    "OPTIM__MAX_EPOCH": 3,
    "OPTIM__WARMUP_EPOCH": 1,
    "OPTIM__WARMUP_TYPE": "constant",
    "TEST__FINAL_MODEL": "best_val",
}


def train_resume_and_evaluate(trained, resumed, evaluated):
    """Three command lines; the second goes on from the first's first epoch."""
    train.run(train.parse_args(trained))
    whole, again = (
        Path(words[words.index("--output-dir") + 1]) for words in (trained, resumed)
    )
    shutil.copytree(whole, again)
    (again / "results.json").unlink()
    (pointer,) = again.glob("*/checkpoint")
    pointer.write_text("model.pth.tar-1\n")
    for epoch in (2, 3):
        (pointer.parent / f"model.pth.tar-{epoch}").unlink()
    train.run(train.parse_args(resumed))
    train.run(train.parse_args(evaluated))


@pytest.fixture(scope="module")
def on_upstream():
    """Command lines for `train_resume_and_evaluate` on the other engine; what it printed."""
    path = os.pathsep.join([UPSTREAM, str(PROJECT)])
    words = [sys.executable, "-c", TRAINED, UPSTREAM]
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    options = {"cwd": PROJECT, "env": os.environ | {"PYTHONPATH": path}, "text": True}
    with subprocess.Popen(words, **streams, **options) as process:

        def go(lines):
            process.stdin.write(json.dumps(lines) + "\n")
            process.stdin.flush()
            printed = ""
            for line in process.stdout:
                if line == "END OF JOB\n":
                    return printed
                printed += line
            pytest.fail(printed)  # it has ended

        yield go


def weights(folder):
    (path,) = folder.glob("*/model.pth.tar-3")
    state = torch.load(path, weights_only=True)["state_dict"]
    return {key: value for key, value in state.items() if torch.is_tensor(value)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trainer", "workers"), [("CoOp", 0), ("MaPLe", 0), ("Spotlighter", 0), ("Spotlighter", 2)]
)
def test_trainers_train_resume_and_evaluate_on_upstream(
    on_upstream, run, arguments, tmp_path, trainer, workers
):
    options = OPTIONS | {"DATALOADER__NUM_WORKERS": workers}
    evaluation = ("--eval-only", "--model-dir", str(tmp_path / "whole"))
    lines = [
        arguments(trainer, "whole", **options),
        arguments(trainer, "resumed", **options),
        arguments(trainer, "evaluated", flags=evaluation, **options),
    ]
    assert "model.pth.tar-1 (epoch 1)" in on_upstream(lines)
    whole = weights(tmp_path / "whole")
    torch.testing.assert_close(weights(tmp_path / "resumed"), whole, rtol=0, atol=0)
    names = ["whole", "resumed", "evaluated"]
    if workers == 0:  # workers that are started anew for each epoch draw other augmentations
        run(trainer, "ours", **options)
        torch.testing.assert_close(weights(tmp_path / "ours"), whole, rtol=0, atol=0)
        names.append("ours")
    found = [json.loads((tmp_path / name / "results.json").read_text()) for name in names]
    assert len({(result["accuracy"], result["n"]) for result in found}) == 1
    assert len({round(result["macro_f1"], 9) for result in found}) == 1
