"""How CLIPAdapter chooses its ratio, in whole runs on a toy data set."""

import json
import re

import pytest
import torch

from trainers.clip_adapter import RATIOS

FOLDER = "clip_adapter"


def saved(folder, epoch):
    return torch.load(folder / FOLDER / f"model.pth.tar-{epoch}", weights_only=True)["state_dict"]


def test_the_likeliest_ratio_is_taken_and_kept(run, tmp_path):
    options = {"TRAIN__CHECKPOINT_FREQ": 1, "OPTIM__LR": 0.5}
    run("CLIPAdapter", **options)
    log = (tmp_path / "run/log.txt").read_text()
    said = re.search(r"Ratio (\S+) chosen .* held out: (.*)", log)
    found = {float(r): float(nll) for r, nll in (pair.split(": ") for pair in said[2].split(", "))}
    assert tuple(found) == RATIOS
    assert min(found.values()) == found[float(said[1])]
    assert len(set(found.values())) == len(RATIOS)
    last = saved(tmp_path / "run", 2)
    assert last["ratio"] == pytest.approx(float(said[1]))
    # a run that goes on has its ratio
    (tmp_path / "run" / FOLDER / "model.pth.tar-2").unlink()
    (tmp_path / "run" / FOLDER / "checkpoint").write_text("model.pth.tar-1\n")
    run("CLIPAdapter", **options)
    assert (tmp_path / "run/log.txt").read_text().count("chosen in") == 1
    for name, value in saved(tmp_path / "run", 2).items():
        assert torch.equal(value, last[name]), name


def test_one_picture_a_class_leaves_the_ratio_as_it_is_set(run, tmp_path):
    run("CLIPAdapter", OPTIM__MAX_EPOCH=1, DATASET__NUM_SHOTS=1, TRAINER__CLIPADAPTER__RATIO=0.3)
    assert saved(tmp_path / "run", 1)["ratio"] == pytest.approx(0.3)
    assert "Ratio 0.3 (RATIO): one picture a class" in (tmp_path / "run/log.txt").read_text()
    # It has drawn nothing: the run without the choice is the same.
    off = {"TRAINER__CLIPADAPTER__SELECT": "off", "TRAINER__CLIPADAPTER__RATIO": 0.3}
    run("CLIPAdapter", "off", OPTIM__MAX_EPOCH=1, DATASET__NUM_SHOTS=1, **off)
    for name, value in saved(tmp_path / "off", 1).items():
        assert torch.equal(value, saved(tmp_path / "run", 1)[name]), name


def test_select_off_trains_as_published_and_the_choice_draws_nothing(run, tmp_path):
    """The choice leaves the random states alone: with its ratio, both runs are one."""
    run("CLIPAdapter", "chosen")
    ratio = float(saved(tmp_path / "chosen", 2)["ratio"])
    run(
        "CLIPAdapter",
        "set",
        TRAINER__CLIPADAPTER__SELECT="off",
        TRAINER__CLIPADAPTER__RATIO=round(ratio, 1),
    )
    for name, value in saved(tmp_path / "set", 2).items():
        assert torch.equal(value, saved(tmp_path / "chosen", 2)[name]), name
    assert json.loads((tmp_path / "set/results.json").read_text())["learned_parameters"] > 0


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("RATIO", 1.5, "RATIO must lie in 0..1, got 1.5"),
        ("SELECT", "test", "SELECT must be one of cross, off, got 'test'"),
        ("REDUCTION", 0, "REDUCTION must be at least 1, got 0"),
    ],
)
def test_wrong_settings_are_refused(fails, key, value, said):
    assert said in fails("CLIPAdapter", **{f"TRAINER__CLIPADAPTER__{key}": value})
