"""When the head is fitted, what that leaves alone, and that it needs no scale."""

import csv
import json
import math
from pathlib import Path

import pytest
import torch

import train
from datasets.emoji_pictures import PICTURES_PER_CLASS
from models.clip.load import TINY_CLIP
from models.clip.weights import read_weights
from runs import rng
from trainers.base import CLIPTrainer
from trainers.spotlighter import Spotlighter

CONFIGS = Path(__file__).parents[2] / "configs"
STEPS = 6  # an epoch: 24 pictures in batches of 4


def state_of(folder, name):
    saved = torch.load(folder / "prompt_learner" / name, weights_only=True)
    return {key: value for key, value in saved["state_dict"].items() if torch.is_tensor(value)}


def results(folder):
    return json.loads((folder / "results.json").read_text())


@pytest.fixture
def stopped(run, monkeypatch, tmp_path):
    """The folder of a run that was stopped in its second epoch of three."""
    honest, calls = CLIPTrainer.forward_backward, []

    def step(trainer, batch):
        calls.append(1)
        if len(calls) > STEPS:
            raise KeyboardInterrupt
        return honest(trainer, batch)

    with monkeypatch.context() as patch:
        patch.setattr(CLIPTrainer, "forward_backward", step)
        with pytest.raises(KeyboardInterrupt):
            run("Spotlighter", "stopped", OPTIM__MAX_EPOCH=3)
    return tmp_path / "stopped"


def test_a_head_that_is_not_fitted_yet_is_not_evaluated(stopped, run, fails, tmp_path):
    assert not state_of(stopped, "model.pth.tar-1")["head.memory.filled"]
    flags = ("--eval-only", "--model-dir", str(stopped))
    found = fails("Spotlighter", "evaluated", flags=flags, OPTIM__MAX_EPOCH=3)
    assert "the checkpoint of epoch 1 in " in found
    assert "was saved before the head was filled and fitted" in found
    assert "finish a run that was stopped by its own command" in found
    assert not (tmp_path / "evaluated" / "results.json").exists()
    # as the sentence says
    assert "(--allow-mismatch TRAINER.SPOTLIGHTER.GATE False)" in found
    base = {"OPTIM__MAX_EPOCH": 3, "TRAINER__SPOTLIGHTER__GATE": False}
    run("Spotlighter", "base", flags=(*flags, "--allow-mismatch"), **base)
    assert results(tmp_path / "base")["epoch"] == 1
    run("Spotlighter", "stopped", OPTIM__MAX_EPOCH=3)
    run("Spotlighter", "evaluated", flags=flags, OPTIM__MAX_EPOCH=3)
    assert results(tmp_path / "evaluated")["accuracy"] == results(stopped)["accuracy"]


def test_epochs_that_are_kept_are_fitted(run, tmp_path):
    options = {"OPTIM__MAX_EPOCH": 3, "TRAIN__CHECKPOINT_FREQ": 2}
    run("Spotlighter", **options)
    folder = tmp_path / "run"
    for epoch in (2, 3):
        state = state_of(folder, f"model.pth.tar-{epoch}")
        assert state["head.memory.filled"], epoch
        assert state["head.level"].any(), epoch
    flags = ("--eval-only", "--model-dir", str(folder), "--load-epoch", "2")
    run("Spotlighter", "second", flags=flags, **options)
    assert results(tmp_path / "second")["epoch"] == 2


def test_the_epoch_that_is_best_is_fitted(run, tmp_path, monkeypatch):
    """Each epoch is judged with a head of its own, though none is kept but the best."""
    honest, filled = CLIPTrainer.test, []

    def falling(trainer, split=None):
        if split != "val":
            return honest(trainer, split)
        filled.append(bool(trainer.model.head.memory.filled))
        return -float(trainer.epoch)

    monkeypatch.setattr(CLIPTrainer, "test", falling)
    run("Spotlighter", TEST__FINAL_MODEL="best_val", OPTIM__MAX_EPOCH=3)
    assert filled == [True] * 3
    assert state_of(tmp_path / "run", "model-best.pth.tar")["head.memory.filled"]
    assert results(tmp_path / "run")["epoch"] == 1


def test_a_fit_leaves_the_random_states_as_they_were(run, monkeypatch):
    honest, seen = Spotlighter.fit_head, []

    def fit(trainer):
        before = json.loads(rng.capture())
        honest(trainer)
        seen.append((before, json.loads(rng.capture())))

    monkeypatch.setattr(Spotlighter, "fit_head", fit)
    run("Spotlighter", OPTIM__MAX_EPOCH=2, TRAIN__CHECKPOINT_FREQ=1)
    assert len(seen) == 2
    for before, after in seen:  # beartype draws from Python's generator, while tests run
        assert before["torch"] == after["torch"]
        assert before["numpy"] == after["numpy"]


def test_keeping_epochs_changes_nothing_that_is_learned(run, tmp_path):
    run("Spotlighter", "kept", TRAIN__CHECKPOINT_FREQ=1)
    run("Spotlighter", "plain")
    one, other = (state_of(tmp_path / name, "model.pth.tar-2") for name in ("kept", "plain"))
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert torch.equal(value, other[key]), key


@pytest.mark.slow
def test_a_larger_logit_scale_gives_the_same_predictions(tmp_path, monkeypatch):
    """CLIP's temperature is a matter of the pretraining: the fit takes it out of the base.

    The prompts stay where they begin, else another loss would train them.
    """
    for split, count in (("train", 8), ("val", 1), ("test", 8)):
        monkeypatch.setitem(PICTURES_PER_CLASS, split, count)
    (tmp_path / "data").mkdir()
    weights = dict(read_weights(TINY_CLIP))
    weights["logit_scale"] = weights["logit_scale"].float() + math.log(8)
    torch.save(weights, tmp_path / "hot.pt")
    said, found = [], []
    for name, more in (("usual", []), ("hot", ["--weights", str(tmp_path / "hot.pt")])):
        words = ["--dataset-config-file", f"{CONFIGS}/datasets/emoji_food.yaml"]
        words += ["--config-file", f"{CONFIGS}/trainers/Spotlighter/tiny_emoji.yaml"]
        words += ["--root", str(tmp_path / "data"), "--output-dir", str(tmp_path / name), *more]
        words += ["--trainer", "Spotlighter", "--seed", "1", "--trust-weights"]
        words += ["OPTIM.MAX_EPOCH", "1", "OPTIM.LR", "0", "DATASET.NUM_SHOTS", "8"]
        train.run(train.parse_args(words))
        with (tmp_path / name / "predictions.csv").open() as file:
            said.append([row["predicted"] for row in csv.DictReader(file)])
        found.append(results(tmp_path / name))
    differ = sum(one != other for one, other in zip(*said, strict=True))
    assert len(said[0]) > 100
    assert differ <= 2  # L-BFGS-B ends a little elsewhere
    assert found[0]["nll"] == pytest.approx(found[1]["nll"], rel=1e-3)
    assert found[0]["accuracy"] > 40
