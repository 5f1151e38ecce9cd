"""Accuracy on base validation pictures."""

import logging

import pytest

from datasets.splits import Item, Splits, subsample_classes
from lab import validate
from tests.toy import TOY_OPTIONS


@pytest.fixture
def argv(toy_root, tmp_path, monkeypatch):
    """Arguments for the toy data set, whose yaml files stand in a project folder of its own."""
    for folder, text in (
        ("datasets/toy", "DATASET: {NAME: Toy}"),
        ("trainers/CoOp/tiny", "{}"),
        ("trainers/ZeroshotCLIP/tiny", "{}"),
    ):
        path = tmp_path / "configs" / f"{folder}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(validate, "PROJECT", tmp_path)
    options = {k: v for k, v in TOY_OPTIONS.items() if not k.startswith("DATASET")}
    pairs = [str(word) for pair in options.items() for word in pair]

    def build(trainer, *flags):
        where = ["--root", str(toy_root), "--config", "tiny", "--shots", "4"]
        return ["--trainer", trainer, *where, *flags, "--datasets", "toy", *pairs]

    return build


def test_base_and_held_out_classes_are_validated(argv, capsys):
    level = logging.getLogger("dassl").level
    assert validate.main(argv("CoOp")) == 0
    assert "mean base " in capsys.readouterr().out
    assert validate.main(argv("CoOp", "--held-out")) == 0
    printed = capsys.readouterr().out
    assert "mean base/base " in printed
    assert "mean base/new " in printed
    assert logging.getLogger("dassl").level == level


def test_zero_shot_needs_no_training(argv, capsys):
    assert validate.main(argv("ZeroshotCLIP", "--held-out")) == 0
    assert "mean base/new " in capsys.readouterr().out


def test_a_wrong_key_ends_in_one_sentence(argv, capsys):
    assert validate.main([*argv("CoOp"), "OPTIM.LRR", "1"]) == 2
    assert "do you mean OPTIM.LR" in capsys.readouterr().err


def test_halves_of_a_half_never_hold_new_classes():
    items = [Item(impath=f"{i}.png", label=i, classname=f"class {i}") for i in range(7)]
    splits = Splits(items, items, items)
    names = {
        part: [item.classname for item in subsample_classes(splits, part).val]
        for part in ("base", "base/base", "base/new")
    }
    assert names["base"] == [f"class {i}" for i in range(4)]
    assert names["base/base"] == ["class 0", "class 1"]
    assert names["base/new"] == ["class 2", "class 3"]
    with pytest.raises(ValueError, match="novel"):
        subsample_classes(splits, "base/novel")
