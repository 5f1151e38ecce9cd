"""Runs with a fold of the training pictures held out, and with a temperature."""

import numpy as np
import pandas as pd
import pytest
import torch

from inference.open import open_run
from runs.calibration import Calibration
from tests.trainers.test_runs import BASE, NEW, results


def evaluation_of(folder):
    return "--eval-only", "--model-dir", str(folder)


# DATASET.FOLD


@pytest.mark.parametrize("trainer", ["ZeroshotCLIP", "CoOp"])
def test_a_fold_is_tested_in_place_of_the_test_pictures(run, tmp_path, trainer):
    run(trainer, DATASET__FOLD="2/4", **BASE)
    found = results(tmp_path / "run")
    assert (found["split"], found["n"], found["shots"]) == ("fold 2/4", 3, 4)
    assert found["exif"]["fold 2/4"] == 0
    assert found["settings"]["DATASET.FOLD"] == "2/4"
    assert "Evaluate on the *fold 2/4* set" in (tmp_path / "run" / "log.txt").read_text()
    logits = np.load(tmp_path / "run" / "logits.npy")
    pairs = pd.read_csv(tmp_path / "run" / "predictions.csv")
    assert (logits.shape, logits.dtype) == ((3, 3), np.float32)
    assert sorted(pairs.label) == [0, 1, 2]
    assert (logits.argmax(1) == pairs.predicted).all()
    calibration = Calibration()
    calibration.add(logits, pairs.label.to_numpy())
    assert found["nll"] == calibration.figures()["nll"]


def test_logits_go_with_the_fold(run, tmp_path):
    run("ZeroshotCLIP", DATASET__FOLD="1/2", **BASE)
    run("ZeroshotCLIP", **BASE)
    assert not (tmp_path / "run" / "logits.npy").exists()
    assert results(tmp_path / "run")["split"] == "test"


def test_a_run_does_not_test_what_it_was_trained_on(run, fails, tmp_path):
    run("CoOp", "whole", OPTIM__MAX_EPOCH=1, **BASE)
    run("CoOp", "fold", OPTIM__MAX_EPOCH=1, DATASET__FOLD="1/4", **BASE)
    said = "DATASET.FOLD {}, and this run has {} (it was not trained to be so used)".format
    for folder, there, here in (("whole", "", "1/4"), ("fold", "1/4", "2/4"), ("fold", "1/4", "")):
        found = fails("CoOp", "x", evaluation_of(tmp_path / folder), DATASET__FOLD=here, **BASE)
        assert said(there or '""', here or '""') in found
    assert "1/4, and this run has 3/4" in fails("CoOp", "fold", DATASET__FOLD="3/4", **BASE)
    run("CoOp", "again", evaluation_of(tmp_path / "fold"), DATASET__FOLD="1/4", **BASE)
    again, first = (np.load(tmp_path / name / "logits.npy") for name in ("again", "fold"))
    assert np.array_equal(again, first)


def test_one_shot_is_refused_in_a_sentence(fails):
    found = fails("CoOp", DATASET__FOLD="1/4", DATASET__NUM_SHOTS=1)
    assert "fold 1/4 (DATASET.FOLD) can hold nothing out: no class has two training" in found


# TEST.TEMPERATURE


@pytest.mark.parametrize("classes", [BASE, NEW])
def test_a_temperature_changes_the_probabilities_alone(run, tmp_path, classes):
    run("CoOp", "train", OPTIM__MAX_EPOCH=1, **BASE)
    flags, found = evaluation_of(tmp_path / "train"), {}
    for name, temperature in (("plain", None), ("one", 1.0), ("warm", 3.5)):
        options = {"TEST__TEMPERATURE": temperature} if temperature else {}
        run("CoOp", name, flags, **options, **classes)
        found[name] = results(tmp_path / name)
    for key in ("accuracy", "macro_f1", "n", "learned", "class_names"):
        assert found["warm"][key] == found["plain"][key], key
    for key in ("nll", "ece", "reliability", "settings", "temperature"):
        assert found["one"][key] == found["plain"][key], key
    assert found["warm"]["settings"] == found["plain"]["settings"] | {"TEST.TEMPERATURE": 3.5}
    assert found["warm"]["temperature"] == 3.5


def test_the_evaluation_divides_the_logits(run, tmp_path, toy_root):
    run("CoOp", OPTIM__MAX_EPOCH=1, TEST__TEMPERATURE=3.5)
    trainer, expected = open_run(tmp_path / "run", str(toy_root)), Calibration()
    with torch.no_grad():
        for batch in trainer.test_loader:
            logits = trainer.model(batch["img"]).double().numpy() / 3.5
            expected.add(logits, batch["label"].numpy())
    assert results(tmp_path / "run")["nll"] == pytest.approx(expected.figures()["nll"], rel=1e-12)


def test_a_fitted_temperature_is_a_word_in_the_settings(run, tmp_path):
    run("ZeroshotCLIP", TEST__TEMPERATURE=1.7, TEST__TEMPERATURE_FITTED=True)
    found = results(tmp_path / "run")
    assert found["settings"]["TEST.TEMPERATURE"] == "fitted"
    assert not any("FITTED" in key for key in found["settings"])
    assert found["temperature"] == 1.7


def test_a_training_may_go_on_with_another_temperature(run, tmp_path):
    run("CoOp", OPTIM__MAX_EPOCH=2, TEST__TEMPERATURE=2.0)
    (tmp_path / "run" / "prompt_learner" / "model.pth.tar-2").unlink()
    run("CoOp", OPTIM__MAX_EPOCH=2, TEST__TEMPERATURE=3.0)
    found = results(tmp_path / "run")
    assert found["settings"]["TEST.TEMPERATURE"] == 3.0
    run("CoOp", "eval", evaluation_of(tmp_path / "run"))
    assert "TEST.TEMPERATURE" not in results(tmp_path / "eval")["settings"]
