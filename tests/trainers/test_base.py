"""The base class of the methods: its hooks, and values that are decided after the config."""

import json

import pytest
import torch
import yaml
from dassl.engine import build_trainer

import train
from runs.config import build_config
from trainers.coop import CoOp

BEST = {"TEST__FINAL_MODEL": "best_val"}


def test_hooks_are_called_in_order_without_super(run, monkeypatch):
    calls = []
    for name in ("before_training", "end_of_epoch", "end_of_training", "save_model"):
        monkeypatch.setattr(CoOp, name, lambda *_, name=name, **__: calls.append(name))
    run("CoOp", OPTIM__MAX_EPOCH=2, TEST__NO_TEST=True)
    epochs = ["end_of_epoch", "save_model", "end_of_epoch", "end_of_training", "save_model"]
    assert calls == ["before_training", *epochs]


def test_training_and_hooks_count_as_training_and_evaluation_does_not(run, tmp_path, monkeypatch):
    """Each call takes the seconds of its own that stand here, on a clock of the test's."""
    clock = {"now": 0.0, "steps": 0}
    seconds = {"before_training": 1, "end_of_epoch": 10, "end_of_training": 100}
    seconds |= {"_test": 1000, "save_model": 10000, "forward_backward": 0.5}

    def slow(name):
        inner = getattr(CoOp, name)

        def method(*args, **kwargs):
            clock["now"] += seconds[name]
            clock["steps"] += name == "forward_backward"
            return inner(*args, **kwargs)

        monkeypatch.setattr(CoOp, name, method)

    for name in seconds:
        slow(name)
    monkeypatch.setattr("runs.state.process_time", lambda: clock["now"])
    run("CoOp", OPTIM__MAX_EPOCH=2, **BEST)
    found = json.loads((tmp_path / "run" / "results.json").read_text())
    assert clock["steps"] > 2
    assert found["train_clock"] == "processor"
    assert found["train_s"] == 1 + 2 * 10 + 100 + 0.5 * clock["steps"]


@pytest.fixture
def without_val(toy_root):
    """The toy data set without validation pictures."""
    path = toy_root / "toy" / "split.json"
    text = path.read_text()
    path.write_text(json.dumps(json.loads(text) | {"val": []}))
    yield
    path.write_text(text)


@pytest.mark.usefixtures("without_val")
def test_test_pictures_choose_no_epoch(run, tmp_path):
    run("CoOp", **BEST)
    found = json.loads((tmp_path / "run" / "results.json").read_text())
    assert (found["epoch"], found["epoch_chosen_by"]) == (2, "last_step")
    assert found["epoch_chosen_on"] == "none"
    assert "TEST.FINAL_MODEL" not in found["settings"]
    folder = tmp_path / "run" / "prompt_learner"
    assert not (folder / "model-best.pth.tar").exists()
    saved = torch.load(folder / "model.pth.tar-2", weights_only=True)
    assert saved["identity"]["config"]["TEST.FINAL_MODEL"] == "last_step"
    written = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert written["TEST"]["FINAL_MODEL"] == "best_val"  # as it was asked for
    assert written["DATASET"]["LABEL"] == "Toy"
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "Toy has no validation split apart from its test pictures: the last epoch" in log
    assert "Deploy the last-epoch model" in log


@pytest.mark.usefixtures("without_val")
def test_the_config_is_never_replaced(arguments):
    cfg = build_config(train.parse_args(arguments("CoOp", **BEST)))
    trainer = build_trainer(cfg)
    assert trainer.cfg == cfg
    assert trainer.cfg.TEST.FINAL_MODEL == "best_val"
    assert trainer.cfg.DATASET.LABEL == ""
    assert trainer.state.final_model == "last_step"
    assert trainer.state.label == "Toy"
