"""A loss or a parameter that is no number ends the run at its step, and says where."""

import re

import pytest
import torch

import trainers.spotlighter
from models.classifier import CLIPClassifier, Step
from models.clip.load import TINY_CLIP
from runs.precision import Precision
from tests.reliability.runs import OPTIONS, content


@pytest.fixture
def spoil(monkeypatch):
    """Change the result of the n-th training step."""

    def go(number, change):
        step, calls = CLIPClassifier.step, []

        def spoilt(self, *args):
            calls.append(1)
            found = step(self, *args)
            return change(self, found) if len(calls) == number else found

        monkeypatch.setattr(CLIPClassifier, "step", spoilt)

    return go


def nan_loss(_, step: Step):
    return step._replace(losses={name: part * float("nan") for name, part in step.losses.items()})


def nan_gradient(model, step: Step):
    """The square root has an infinite slope at 0: the loss is finite, its gradients are not."""
    context = model.learned.ctx
    return step._replace(losses=step.losses | {"root": (0 * context.sum()).sqrt()})


@pytest.mark.parametrize(
    ("change", "what"), [(nan_loss, "the loss (nan)"), (nan_gradient, "a learned parameter")]
)
@pytest.mark.parametrize("number", [2, 5, 6])
def test_it_is_noticed_at_its_step(fails, spoil, tmp_path, witness, change, what, number):
    spoil(number, change)
    found = fails("CoOp", **OPTIONS | {"OPTIM__LR_SCHEDULER": "single_step"})
    epoch, batch = (number - 1) // 3 + 1, (number - 1) % 3 + 1
    assert f"{what} is infinite or not a number in epoch {epoch}/3, batch {batch}/3, on " in found
    assert "(learning rate 0.02, precision fp32)" in found
    assert found.count("/toy/images/train_") == 3
    assert "... 4 in all, see log.txt" in found
    log = (tmp_path / "run" / "log.txt").read_text()
    assert log.split("The pictures of the batch:\n")[1].count("/toy/images/train_") == 4
    folder = tmp_path / "run" / "prompt_learner"
    if epoch == 1:
        assert not folder.exists()
        assert found.endswith("no checkpoint was written yet")
    else:
        assert found.endswith(f"the last good checkpoint is {folder / 'model.pth.tar-1'}")
        saved = content(tmp_path / "run", "model.pth.tar-1")["state_dict"]
        assert all(torch.isfinite(value).all() for value in saved.values())
        assert not (folder / "model.pth.tar-2").exists()
    assert not (tmp_path / "run" / "results.json").exists()
    if number == 5:
        fault = "a NaN in the loss" if change is nan_loss else "NaN gradients of a finite loss"
        witness("numbers", fault, re.sub(r"on \S+/toy.* \(learning", "on ... (learning", found))


def test_with_a_scaled_loss_too(fails, spoil, monkeypatch):
    """float16's scaler leaves out a step without a word; a NaN loss is none of its business."""
    monkeypatch.setattr(Precision, "descend", lambda *_: None)
    spoil(2, nan_loss)
    assert "the loss (nan) is infinite" in fails("CoOp", **OPTIONS)


def test_what_is_saved_is_looked_at_as_well(fails, tmp_path, monkeypatch, witness):
    """Something in the bank that no loss has met."""
    honest = trainers.spotlighter.fill_and_fit

    def spoil(model, *pictures):
        honest(model, *pictures)
        model.head.memory.mass[0, 0] = float("inf")

    monkeypatch.setattr(trainers.spotlighter, "fill_and_fit", spoil)
    found = fails("Spotlighter", **OPTIONS | {"TRAIN__CHECKPOINT_FREQ": 1})
    assert "head.memory.mass (to be saved) is infinite or not a number in epoch 1/3 (" in found
    assert not (tmp_path / "run" / "prompt_learner").exists()
    witness("numbers", "an infinite number in the bank", found)


@pytest.mark.parametrize("kind", ["NaN", "infinite", "int8", "complex"])
def test_weights_that_are_no_numbers_are_not_evaluated(fails, tmp_path, witness, kind):
    """They would give the first class to every picture: an accuracy of chance, and no word."""
    change = {"NaN": lambda x: x * torch.nan, "infinite": lambda x: x + torch.inf}
    change |= {"int8": lambda x: x.to(torch.int8), "complex": lambda x: x.float() * 1j}
    saved = torch.load(TINY_CLIP, weights_only=True)
    saved["state_dict"] = {k: change[kind](v) for k, v in saved["state_dict"].items()}
    torch.save(saved, tmp_path / "w.pt")
    options = {"MODEL__BACKBONE__NAME": "tiny-emoji", "MODEL__BACKBONE__PRETRAINED": True}
    found = fails("ZeroshotCLIP", flags=("--weights", str(tmp_path / "w.pt")), **options)
    assert "no number" in found or "torch.float32 here" in found
    assert not (tmp_path / "run" / "results.json").exists()
    witness("numbers", f"CLIP weights, all of them {kind}", found)


def test_scores_that_are_no_numbers_are_not_counted(run, fails, tmp_path, monkeypatch, witness):
    run("CoOp", **OPTIONS)
    flags = ("--eval-only", "--model-dir", str(tmp_path / "run"))
    forward = CLIPClassifier.forward
    monkeypatch.setattr(
        CLIPClassifier, "forward", lambda self, image: forward(self, image) * torch.nan
    )
    found = fails("CoOp", "eval", flags=flags, **OPTIONS)
    assert "the scores of a batch are infinite or not a number, on " in found
    assert not (tmp_path / "eval" / "results.json").exists()
    found = re.sub(r"on \S+/toy.* \(pre", "on ... (pre", found)
    witness("numbers", "NaN scores in an evaluation", found)
