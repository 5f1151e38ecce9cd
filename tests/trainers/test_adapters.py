"""Whole runs of the methods that are computed, not trained, on a toy data set."""

import json

import pytest
import torch

from runs import data
from tests.adapters import ADAPTERS
from tests.tuners import TRAINER
from trainers.adapters import AdapterTrainer

BASE = {"DATASET__SUBSAMPLE_CLASSES": "base"}
NEW = {"DATASET__SUBSAMPLE_CLASSES": "new"}


def results(folder):
    return json.loads((folder / "results.json").read_text())


def state_of(folder):
    path = folder / "prompt_learner" / "model.pth.tar-1"
    return torch.load(path, weights_only=True)["state_dict"]


def views(trainer, number=2):
    return {f"TRAINER__{TRAINER[trainer].node}__VIEWS": number}


@pytest.fixture(params=ADAPTERS)
def trainer(request):
    return request.param


def test_base_to_new(run, tmp_path, trainer):
    run(trainer, "train", OPTIM__LR=3.0, **BASE, **views(trainer))
    found, log = results(tmp_path / "train"), (tmp_path / "train" / "log.txt").read_text()
    assert (found["epoch"], found["learned_parameters"], found["trainer"]) == (1, 0, trainer)
    assert f"{trainer} computed in" in log
    assert f"OPTIM.LR ({trainer} is computed, without steps)" in log
    assert "epoch [1/" not in log
    flags = ("--eval-only", "--model-dir", str(tmp_path / "train"))
    run(trainer, "again", flags=flags, **BASE)
    again = results(tmp_path / "again")
    assert {k: again[k] for k in ("nll", "learned")} == {k: found[k] for k in ("nll", "learned")}
    run(trainer, "new", flags=flags, **NEW)
    run("ZeroshotCLIP", "zero", **NEW)
    new, zero = results(tmp_path / "new"), results(tmp_path / "zero")
    assert (new["n"], new["epoch"]) == (15, 1)
    if trainer == "TipAdapter":  # knows nothing of new classes
        assert new["nll"] == zero["nll"]


def test_two_runs_with_one_seed_have_equal_bits_and_a_third_is_done(run, tmp_path, trainer):
    for folder in ("a", "b", "a"):
        run(trainer, folder, **views(trainer))
    one, other = state_of(tmp_path / "a"), state_of(tmp_path / "b")
    for key, value in one.items():
        assert not torch.is_tensor(value) or torch.equal(value, other[key]), key
    assert results(tmp_path / "a")["nll"] == results(tmp_path / "b")["nll"]
    logs = "".join(path.read_text() for path in (tmp_path / "a").glob("log.txt*"))
    assert (logs.count("Going on from"), logs.count("computed in")) == (1, 1)


def test_select_off_and_best_val(run, tmp_path, trainer):
    node = TRAINER[trainer].node
    alone = {f"TRAINER__{node}__SELECT": "off", f"TRAINER__{node}__ALPHA": 0.7}
    run(trainer, TEST__FINAL_MODEL="best_val", **views(trainer, 1), **alone)
    assert state_of(tmp_path / "run")["weights"].tolist() == pytest.approx([1, 0.7])
    assert results(tmp_path / "run")["epoch_chosen_by"] == "best_val"


def test_select_val(run, fails, tmp_path, trainer, monkeypatch):
    select = {f"TRAINER__{TRAINER[trainer].node}__SELECT": "val"}
    run(trainer, **select, **views(trainer, 1))
    assert state_of(tmp_path / "run")["weights"][0] == 1
    monkeypatch.setattr(data, "has_own_val", lambda dataset: False)
    said = fails(trainer, "none", **select)
    assert "SELECT val searches on validation pictures, and Toy has none apart" in said
    assert said.endswith("; SELECT cross uses the training pictures alone")


def test_another_runs_weights_are_no_beginning(fails, tmp_path, trainer):
    said = fails(trainer, MODEL__INIT_WEIGHTS=tmp_path)
    assert f"{trainer} computes all that it learns from the training pictures" in said


@pytest.mark.parametrize(("key", "value", "what"), [
    ("VIEWS", 0, "VIEWS must be at least 1, got 0"),
    ("ALPHA", -1, "ALPHA must be at least 0, got -1"),
    ("SELECT", "test", "SELECT must be one of cross, val, off, got 'test'"),
])
def test_wrong_settings_are_named(fails, trainer, key, value, what):
    assert what in fails(trainer, **{f"TRAINER__{TRAINER[trainer].node}__{key}": value})


@pytest.mark.parametrize(("key", "value", "what"), [
    ("BETA", -1, "BETA must be at least 0, got -1"),
    ("SEARCH_SCALE", "(0.1,3)", "SEARCH_SCALE must be above 0.1, got (0.1, 3)"),
    ("SEARCH_STEP", "(2.5,3)", "SEARCH_STEP must be two whole numbers from 1 on, got (2.5, 3)"),
])
def test_wrong_settings_of_the_cache_are_named(fails, key, value, what):
    assert what in fails("TipAdapter", **{f"TRAINER__TIPADAPTER__{key}": value})


def test_a_picture_that_cannot_be_read_leaves_its_place_empty(run, tmp_path, trainer, monkeypatch):
    def broken(self, idx):
        if self.is_train or "train_0_" not in self.data_source[idx].impath:
            return original(self, idx)
        self.unreadable[idx] = "broken"
        return original(self, idx)

    original = data.CachedDataset.read
    monkeypatch.setattr(data.CachedDataset, "read", broken)
    run(trainer, DATALOADER__SKIP_UNREADABLE=True, **views(trainer, 1))
    state = state_of(tmp_path / "run")
    assert state["count"].tolist() == [0, 4, 4, 4, 4, 4]
    assert (state["label"] == -1).sum() == 4


@pytest.mark.parametrize("trainer", [*ADAPTERS, "LPPlusPlus"])
def test_features_that_are_no_numbers_are_refused(fails, trainer, monkeypatch):
    """As those of a tower whose numbers are too large for its precision."""
    encode = AdapterTrainer.encode
    monkeypatch.setattr(AdapterTrainer, "encode", lambda *args: encode(*args) / 0)
    said = fails(trainer)
    assert "the features of a training picture are infinite or not a number" in said
    assert "choose PREC fp32 or bf16" in said


@pytest.mark.parametrize("select", ["cross", "val", "off"])
def test_a_trained_cache(run, tmp_path, select):
    """What is chosen before training holds in it; an interrupted run goes on with it."""
    chosen = {"TRAINER__TIPADAPTERF__SELECT": select, "TRAINER__TIPADAPTERF__VIEWS": 2}
    optim = {"OPTIM__NAME": "adamw", "OPTIM__LR": 0.01, "OPTIM__MAX_EPOCH": 2}
    run("TipAdapterF", "whole", **optim, **chosen, **BASE)
    state, first = (
        torch.load(tmp_path / f"whole/prompt_learner/model.pth.tar-{n}", weights_only=True)
        for n in (2, 1)
    )
    same = torch.equal(state["state_dict"]["weights"], first["state_dict"]["weights"])
    assert same or select == "val"
    assert not torch.equal(state["state_dict"]["keys"], first["state_dict"]["keys"])
    assert state["optimizer"]["param_groups"][0]["eps"] == 1e-4
    folder = tmp_path / "part" / "prompt_learner"
    folder.mkdir(parents=True)
    torch.save(first, folder / "model.pth.tar-1")
    (folder / "checkpoint").write_text("model.pth.tar-1")
    run("TipAdapterF", "part", **optim, **chosen, **BASE)
    again = torch.load(folder / "model.pth.tar-2", weights_only=True)["state_dict"]
    for key, value in state["state_dict"].items():
        assert not torch.is_tensor(value) or torch.equal(value, again[key]), key
    assert results(tmp_path / "whole")["learned_parameters"] == 12 * again["keys"].shape[1]
    logs = "".join(path.read_text() for path in (tmp_path / "part").glob("log.txt*"))
    assert "computed in" not in logs
