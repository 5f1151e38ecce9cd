"""Learned class weights in whole runs: keys, multipliers, weights to start from."""

import pytest
import torch

from runs import data
from tests.trainers.test_tuners import BASE, NEW, evaluate, results, saved

SHORT = {"OPTIM__MAX_EPOCH": 1}


@pytest.mark.parametrize(
    ("trainer", "key", "value"),
    [("ZSLP", "INIT", "TR"), ("CLAP", "ENHANCED_BASE", "a.pt"), ("CLAP", "CONSTRAINT", "none")],
)
def test_other_methods_of_the_published_code_are_refused(run, trainer, key, value):
    with pytest.raises(ValueError, match=rf"TRAINER.ADAPTER: {key} must be \w+, got '{value}': "):
        run(trainer, **{f"TRAINER__ADAPTER__{key}": value})


@pytest.mark.parametrize("views", [0, 2])
def test_multipliers_are_probabilities_and_stay_as_they_are(run, tmp_path, views):
    three = {"OPTIM__MAX_EPOCH": 3, "FEATURES__VIEWS": views} | BASE
    run("CLAP", **three)
    second, last = (saved(tmp_path / "run", "CLAP", n)["state_dict"] for n in (2, 3))
    assert torch.equal(second["multipliers"], last["multipliers"])
    assert not torch.equal(second["weight"], last["weight"])
    assert ((last["multipliers"] > 0) & (last["multipliers"] < 1)).all()
    assert last["_extra_state"] == {"class_names": ["ash tree", "bee", "cat"]}
    folder = tmp_path / "run" / "adapter"
    (folder / "model.pth.tar-3").unlink()
    (folder / "checkpoint").write_text("model.pth.tar-2\n")
    run("CLAP", **three)
    again = saved(tmp_path / "run", "CLAP", 3)["state_dict"]
    assert all(torch.equal(again[key], last[key]) for key in ("weight", "text", "multipliers"))


def test_a_run_starts_from_weights_of_its_own_classes(run, tmp_path):
    run("ZSLP", "first", **BASE, **SHORT)
    start = {"MODEL__INIT_WEIGHTS": tmp_path / "first", "OPTIM__LR": 0.0}
    run("ZSLP", "second", **BASE, **SHORT, **start)
    first, second = (saved(tmp_path / n, "ZSLP", 1)["state_dict"] for n in ("first", "second"))
    assert torch.equal(first["weight"], second["weight"])
    with pytest.raises(ValueError, match="holds weights of other classes than this run's"):
        run("ZSLP", "third", **NEW, **SHORT, **start)


def test_an_enhanced_base_is_refused(run):
    with pytest.raises(ValueError, match="ENHANCED_BASE must be none, got 'a"):
        run("TaskRes", TRAINER__TaskRes__ENHANCED_BASE="a.pt")


def test_a_probe_is_fitted_once_and_leaves_new_classes_to_clip(run, tmp_path):
    run("LPPlusPlus", "train", **BASE)
    run("LPPlusPlus", "again", flags=evaluate(tmp_path / "train"), **BASE)
    run("LPPlusPlus", "new", flags=evaluate(tmp_path / "train"), **NEW)
    run("ZeroshotCLIP", "zero", **NEW)
    found = {name: results(tmp_path / name) for name in ("train", "again", "new", "zero")}
    assert found["train"]["nll"] == found["again"]["nll"]
    assert found["new"]["nll"] == found["zero"]["nll"]
    assert (found["train"]["epoch"], found["new"]["epoch"]) == (1, 1)
    state = saved(tmp_path / "train", "LPPlusPlus", 1)["state_dict"]
    size = sum(state[key].numel() for key in ("weight", "alpha", "bias"))
    assert found["train"]["learned_parameters"] == size
    log = (tmp_path / "train" / "log.txt").read_text()
    assert "LPPlusPlus computed in" in log
    assert "step 300 of 300 (SELECT last)" in log


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("STEPS", 0, "STEPS must be at least 1, got 0"),
        ("INIT_ALPHA", -1, "INIT_ALPHA must be at least 0, got -1"),
        ("SELECT", "test", "SELECT must be one of last, val, got 'test'"),
    ],
)
def test_wrong_settings_of_the_probe_are_named(fails, key, value, said):
    assert said in fails("LPPlusPlus", **{f"TRAINER__LPPLUSPLUS__{key}": value})


def test_a_probe_is_chosen_on_validation_pictures(run, fails, tmp_path, monkeypatch):
    select = {"TRAINER__LPPLUSPLUS__SELECT": "val", "TRAINER__LPPLUSPLUS__STEPS": 5}
    run("LPPlusPlus", **select)
    assert "of 5 (SELECT val)" in (tmp_path / "run" / "log.txt").read_text()
    monkeypatch.setattr(data, "has_own_val", lambda dataset: False)
    said = fails("LPPlusPlus", "none", **select)
    assert said.endswith("; SELECT last uses the training pictures alone")
