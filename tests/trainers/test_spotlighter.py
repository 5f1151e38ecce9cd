"""The fit of a Spotlighter head in whole runs of train.py."""

import pytest
import torch

from tests.tuners import TRAINER

Spotlighter = TRAINER["Spotlighter"]


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
    flags = ("--eval-only", "--model-dir", str(tmp_path / "run"))
    assert "epoch 2" in fails("Spotlighter", "eval", flags=flags, **options)
    assert "before the head was filled" in fails("Spotlighter", "eval", flags=flags, **options)


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
