"""The fit of a Spotlighter head in whole runs of train.py."""

import json
import re

import pytest
import torch

from models.clip.image_tower import VisualTokens
from tests.tuners import TRAINER
from trainers import spotlighter
from trainers.promptkd import PromptKDModel

Spotlighter = TRAINER["Spotlighter"]


def evaluate(folder):
    return ("--eval-only", "--model-dir", str(folder))


class StoppedError(Exception):
    """A run that is interrupted."""


def test_a_head_of_an_earlier_epoch_is_not_taken_for_a_fitted_one(
    run, fails, tmp_path, monkeypatch
):
    """The first epoch's checkpoint has a head; the run goes on without one for the second."""
    options = {"OPTIM__MAX_EPOCH": 3, "INPUT__TRANSFORMS": ("normalize",)}
    run("Spotlighter", TRAIN__CHECKPOINT_FREQ=1, **options)
    folder = tmp_path / "run" / "prompt_learner"
    for epoch in (2, 3):
        (folder / f"model.pth.tar-{epoch}").unlink()
    (folder / "checkpoint").write_text("model.pth.tar-1\n")
    before = torch.load(folder / "model.pth.tar-1", weights_only=True)["state_dict"]
    assert before["head.memory.filled"]

    def stop(self):
        raise StoppedError

    monkeypatch.setattr(Spotlighter, "end_of_training", stop)
    with pytest.raises(StoppedError):
        run("Spotlighter", TRAIN__CHECKPOINT_FREQ=-1, **options)
    found = fails("Spotlighter", "eval", flags=evaluate(tmp_path / "run"), **options)
    assert "epoch 2" in found
    assert "before the head was filled" in found
    assert "(--allow-mismatch TRAINER.SPOTLIGHTER.GATE False)" in found
    flags = (*evaluate(tmp_path / "run"), "--allow-mismatch")
    run("Spotlighter", "base", flags=flags, TRAINER__SPOTLIGHTER__GATE=False, **options)


def test_levels_are_chosen_in_training(run, fails, tmp_path):
    """Others at test would be without effect."""
    run("Spotlighter", "whole", OPTIM__MAX_EPOCH=1)
    options = {"OPTIM__MAX_EPOCH": 1, "TRAINER__SPOTLIGHTER__LEVELS": ("2",)}
    found = fails("Spotlighter", "eval", flags=evaluate(tmp_path / "whole"), **options)
    assert re.search(
        r"fitted with weights of .*\b(global|both)\b.*, which .*LEVELS does not", found
    )
    run("Spotlighter", "second", **options)
    run("Spotlighter", "again", flags=evaluate(tmp_path / "second"), **options)
    run("Spotlighter", "any", flags=evaluate(tmp_path / "second"), OPTIM__MAX_EPOCH=1)
    settings = json.loads((tmp_path / "any" / "results.json").read_text())["settings"]
    assert settings["TRAINER.SPOTLIGHTER.LEVELS"] == ["2"]


def test_levels_of_new_classes_are_chosen_in_training_too(run, fails, tmp_path, monkeypatch):
    """Here level 1 has a weight for these alone."""
    fit = Spotlighter.fit_head

    def only_new(self):
        fit(self)
        head = self.model.head
        for weights in (head.level, head.new_parts):
            weights.zero_()
        head.base.fill_(1)
        head.new_parts[:, 0] = 1
        head.new_parts[0, 2] = 0.5

    monkeypatch.setattr(Spotlighter, "fit_head", only_new)
    run("Spotlighter", "whole", OPTIM__MAX_EPOCH=1)
    options = {"OPTIM__MAX_EPOCH": 1, "TRAINER__SPOTLIGHTER__LEVELS": ("global",)}
    found = fails("Spotlighter", "eval", flags=evaluate(tmp_path / "whole"), **options)
    assert "fitted with weights of 1, which TRAINER.SPOTLIGHTER.LEVELS does not name" in found


@pytest.mark.parametrize(("most", "passes", "batches"), [(2000, 1, 3), (1999, 3, 7)])
def test_features_are_kept_where_all_of_them_fit(monkeypatch, most, passes, batches):
    """10 pictures of 200 bytes; one batch says that they do not fit."""
    monkeypatch.setattr(spotlighter, "MOST_BYTES", most)
    calls, given = [], []

    def pictures():
        calls.append(1)
        for size in (4, 4, 2):
            given.append(size)
            yield VisualTokens(torch.zeros(size, 50)), torch.zeros(size, dtype=torch.long)

    found = spotlighter.kept_if_small(pictures, 10)
    for _ in range(2):
        assert [len(label) for _, label in found()] == [4, 4, 2]
    assert (len(calls), len(given)) == (passes, batches)


@pytest.mark.parametrize(("half", "transductive"), [("base", True), ("new", False)])
def test_on_promptkd_the_head_has_the_labels_among_the_models_classes(
    run, monkeypatch, half, transductive
):
    """PromptKD knows the names of all six classes; three of them have no pictures for the head."""
    banks, asked = [], []
    fit, target = Spotlighter.fit_head, PromptKDModel.target

    def note(self):
        asked.clear()
        fit(self)
        banks.append((self, len(asked)))

    monkeypatch.setattr(Spotlighter, "fit_head", note)
    monkeypatch.setattr(
        PromptKDModel, "target", lambda *args: (asked.append(args), target(*args))[1]
    )
    options = {"TRAINER__SPOTLIGHTER__BASE": "PromptKD", "DATASET__SUBSAMPLE_CLASSES": half}
    options |= {"TRAINER__PROMPTKD__TRANSDUCTIVE": transductive}
    run("Spotlighter", OPTIM__MAX_EPOCH=1, **options)
    ((trainer, asked_by_the_head),) = banks
    memory = trainer.model.head.memory
    masses = zip(memory.class_names, memory.global_mass.tolist(), strict=True)
    found = [name for name, mass in masses if mass]
    assert len(memory.class_names) == 6
    assert sorted(found) == sorted(trainer.dm.dataset.classnames)
    assert len(set(memory.global_mass[memory.global_mass > 0].tolist())) == 1, "alike many each"
    assert not asked_by_the_head, "the teacher's choices"


@pytest.mark.parametrize("scale", [(0.08, 0.5), (0.2, 1.0), (0.95, 1.0)])
def test_views_are_crops_of_most_of_a_picture(run, monkeypatch, scale):
    """Whatever the training's crops are."""
    found, original = [], Spotlighter.tokens

    def tokens(self, cfg, *, augmented=False):
        found.append((augmented, cfg.INPUT.RRCROP_SCALE))
        return original(self, cfg, augmented=augmented)

    monkeypatch.setattr(Spotlighter, "tokens", tokens)
    transforms = ("random_resized_crop", "normalize")
    run("Spotlighter", OPTIM__MAX_EPOCH=1, INPUT__TRANSFORMS=transforms, INPUT__RRCROP_SCALE=scale)
    (low, high) = {share for augmented, share in found if augmented}.pop()
    assert (low, high) == (max(0.9, scale[0]), max(0.9, scale[1]))
    assert [augmented for augmented, _ in found] == [False, *[True] * 4]
