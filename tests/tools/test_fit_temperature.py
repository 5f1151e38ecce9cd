"""tools/fit_temperature.py: folds of a run, the temperature, and the run evaluated with it."""

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import train
from datasets.emoji import ensure_dataset
from inference.predictor import SpotlighterPredictor
from runs.calibration import Calibration, fit_temperature
from tools import fit_temperature as tool
from tools.results.rows import load_runs
from tools.sweeps.protocols import Job

PROJECT = Path(__file__).parents[2]
BASE = {"DATASET__SUBSAMPLE_CLASSES": "base"}


def results(folder):
    return json.loads((folder / "results.json").read_text())


@pytest.fixture
def call(monkeypatch, capsys, toy_root):
    """Run the tool on a toy run, its jobs in this process: exit code, stdout, stderr, jobs run."""

    def go(run, *words):
        ran = []

        def carry_out(jobs, _):
            for job in jobs:
                if not (job.folder / "results.json").exists():
                    ran.append(str(job.folder.relative_to(run)))
                    train.run(train.parse_args(list(job.words)))

        monkeypatch.setattr(tool, "carry_out", carry_out)
        out = sys.stdout
        code = tool.main([str(run), "--root", str(toy_root), *map(str, words)])
        sys.stdout = out  # the engine's logger takes it
        return code, *capsys.readouterr(), ran

    return go


def test_a_run_is_evaluated_with_the_temperature_of_its_folds(run, call, tmp_path, toy_root):
    run("CoOp", **BASE)
    folder = tmp_path / "run"
    before = {path: path.read_bytes() for path in folder.glob("*.[cjy]*")}
    assert len(before) == 3  # config, predictions, results
    code, out, _, ran = call(folder, "--folds", 2)
    assert code == 0
    assert ran == ["folds/1", "folds/2", "temperature/base", "temperature/new"]
    parts = [
        (np.load(path / "logits.npy"), pd.read_csv(path / "predictions.csv").label.to_numpy())
        for path in (folder / "folds/1", folder / "folds/2")
    ]
    assert [len(label) for _, label in parts] == [6, 6]
    temperature = fit_temperature(*map(np.concatenate, zip(*parts, strict=True)))
    assert f"temperature {temperature:.4f}, of 12 held-out pictures, 2 folds\n" in out
    plain, fair = Calibration(), Calibration()
    for k, (logits, label) in enumerate(parts):
        plain.add(logits, label)
        fair.add(logits.astype(float) / fit_temperature(*parts[1 - k]), label)
    (nll, ece), (less, gap) = (one.figures().values() for one in (plain, fair))
    assert f"nll {nll:.4f} -> {less:.4f}, ece {ece:.2f} -> {gap:.2f} %" in out
    for classes in ("base", "new"):
        found = results(folder / "temperature" / classes)
        assert found["temperature"] == float(f"{temperature:.6g}")
        assert found["settings"]["TEST.TEMPERATURE"] == "fitted"
        assert (found["classes"], found["split"], found["n"]) == (classes, "test", 15)
    own = results(folder)
    assert results(folder / "temperature/base")["accuracy"] == own["accuracy"]
    assert results(folder / "temperature/base")["learned"] == own["learned"]
    assert all(path.read_bytes() == content for path, content in before.items())
    again = call(folder, "--folds", 2)
    assert again[3] == []
    assert f"temperature {temperature:.4f}" in again[1]


@pytest.mark.parametrize("trainer", ["CoOp", "PromptKD", "Spotlighter"])
def test_the_evaluated_folder_predicts_at_the_temperature(run, call, tmp_path, toy_root, trainer):
    run(trainer, OPTIM__MAX_EPOCH=1, **BASE)
    assert call(tmp_path / "run", "--folds", 2)[0] == 0
    picture = toy_root / "toy/images/test_0_0.png"
    folder = tmp_path / "run" / "temperature" / "base"
    one, other = (
        SpotlighterPredictor.from_run(place).predict(picture)[0].top
        for place in (tmp_path / "run", folder)
    )
    powers = np.array([p for _, p in one]) ** (1 / results(folder)["temperature"])
    assert [p for _, p in other] == pytest.approx(powers / powers.sum(), abs=1e-5)


def test_a_table_has_both_and_no_fold(run, call, tmp_path):
    run("ZeroshotCLIP", **BASE)
    code, _, _, ran = call(tmp_path / "run", "--folds", 3)
    assert code == 0
    assert len(ran) == 5
    assert not list((tmp_path / "run" / "folds").rglob("model*.tar*"))
    found = {(row["classes"], row["settings"]) for row in load_runs(tmp_path)}
    assert found == {
        ("base", "TEMPERATURE 1.0"),
        ("base", "TEMPERATURE fitted"),
        ("new", "TEMPERATURE fitted"),
    }
    folds = {row["settings"] for row in load_runs(tmp_path / "run" / "folds")}
    assert {f"split fold {k}/3" in row for k, row in enumerate(sorted(folds), 1)} == {True}


def test_a_run_on_all_classes_is_evaluated_on_them(run, call, tmp_path):
    run("ZeroshotCLIP")
    assert call(tmp_path / "run", "--folds", 2)[3] == ["folds/1", "folds/2", "temperature/all"]


def test_another_temperature_is_evaluated_anew(run, call, tmp_path):
    run("ZeroshotCLIP", **BASE)
    call(tmp_path / "run", "--folds", 2)
    shutil.rmtree(tmp_path / "run" / "folds")
    path = tmp_path / "run" / "temperature" / "base" / "config.yaml"
    path.write_text(re.sub(r"(\bTEMPERATURE): .*", r"\1: 7.5", path.read_text()))
    assert call(tmp_path / "run", "--folds", 2)[3] == ["folds/1", "folds/2", "temperature/base"]


def test_no_more_folds_than_pictures(run, call, tmp_path):
    run("ZeroshotCLIP", DATASET__NUM_SHOTS=2, **BASE)
    code, out, _, ran = call(tmp_path / "run")
    assert code == 0
    assert "2 folds: no class has more than 2 training pictures" in out
    assert ran[:2] == ["folds/1", "folds/2"]


# What is refused


def error(found):
    code, _, err, ran = found
    assert (code, ran) == (2, [])
    assert "Traceback" not in err
    return err


def test_one_shot_leaves_nothing_to_hold_out(run, call, tmp_path):
    run("CoOp", OPTIM__MAX_EPOCH=1, DATASET__NUM_SHOTS=1, **BASE)
    said = error(call(tmp_path / "run"))
    assert "can hold nothing out: no class has two training pictures" in said


def test_what_is_no_finished_run_is_refused(run, call, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "empty holds no config.yaml" in error(call(tmp_path / "empty"))
    run("CoOp", OPTIM__MAX_EPOCH=1, TEST__NO_TEST=True, **BASE)
    assert "run holds no results.json: give the command of the run" in error(call(tmp_path / "run"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"DATASET__SUBSAMPLE_CLASSES": "new"}, "is on new classes, of which nothing may be"),
        ({"DATASET__FOLD": "1/2"}, r"holds out a fold itself (1/2)"),
        ({"SEED": -1}, "has no seed, so its shots cannot be drawn again"),
    ],
)
def test_runs_without_own_shots_are_refused(run, call, tmp_path, options, message):
    run("ZeroshotCLIP", **options)
    assert message in error(call(tmp_path / "run"))


def test_an_evaluation_has_learned_nothing_itself(run, call, tmp_path):
    run("CoOp", OPTIM__MAX_EPOCH=1, **BASE)
    run("CoOp", "eval", ("--eval-only", "--model-dir", str(tmp_path / "run")), **BASE)
    assert "no checkpoint model-best.pth.tar" in error(call(tmp_path / "eval"))


def test_other_data_and_folds_of_others_are_refused(run, call, tmp_path):
    run("ZeroshotCLIP", **BASE)
    call(tmp_path / "run", "--folds", 2)
    said = error(call(tmp_path / "run", "--folds", 3))
    assert "folds/1 holds results of another run: DATASET.FOLD 1/2 there, 1/3 here" in said
    path = tmp_path / "run" / "results.json"
    path.write_text(json.dumps(results(tmp_path / "run") | {"data": "0" * 12}))
    assert "are not those of the run (--root)" in error(call(tmp_path / "run"))


# In processes of their own


def test_a_job_that_fails_says_why(tmp_path):
    job = Job("a job", tmp_path / "out", ("--root", "nowhere", "DATASET.NAME", "Gone"))
    args = tool.argparse.Namespace(threads=1, processes=1)
    with pytest.raises(ChildProcessError, match=r"a job: exit code 2: train.py: error: .*log is /"):
        tool.carry_out([job], args)


@pytest.mark.slow
def test_on_drawn_pictures_with_the_embedded_clip(tmp_path, capsys):
    options = {"per_class": {"train": 2, "val": 1, "test": 2}, "workers": 1}
    where = tmp_path / "data" / "emoji_food"
    ensure_dataset(where, "split_zhou_EmojiFood.json", "food", "colour", **options)
    words = [
        *("--root", tmp_path / "data", "--seed", 1, "--trainer", "CoOp"),
        *("--dataset-config-file", PROJECT / "configs/datasets/emoji_food.yaml"),
        *("--config-file", PROJECT / "configs/trainers/CoOp/tiny_emoji.yaml"),
        *("--output-dir", tmp_path / "run", "DATASET.NUM_SHOTS", 2, "OPTIM.MAX_EPOCH", 1),
    ]
    out = sys.stdout
    train.run(train.parse_args(list(map(str, words))))
    sys.stdout = out
    assert tool.main([str(tmp_path / "run"), "--processes", "2"]) == 0
    said = capsys.readouterr().out
    assert "2 folds: no class has more than 2 training pictures" in said
    assert ", of 100 held-out pictures, 2 folds" in said
    found, plain = results(tmp_path / "run/temperature/all"), results(tmp_path / "run")
    figures = "accuracy {accuracy:.2f} %, nll {nll:.4f}, ece {ece:.2f} %".format(**found)
    assert f"all classes: {figures}; {tmp_path}/run/temperature/all" in said
    assert found["accuracy"] == plain["accuracy"]
    assert found["config"] == plain["config"] == "tiny_emoji"
    assert found["settings"] == plain["settings"] | {"TEST.TEMPERATURE": "fitted"}


def test_a_temperature_that_does_not_help_on_held_out_pictures_is_not_taken(
    run, call, tmp_path, monkeypatch
):
    """Each fold wants the opposite of what the other wants."""
    run("CoOp", **BASE)
    random = np.random.default_rng(0)
    label = np.arange(200) % 4
    sure = 9 * np.eye(4)[np.where(random.random(200) < 0.5, label, (label + 1) % 4)]
    unsure = 0.1 * np.eye(4)[label]
    parts = iter([tool.HeldOut(sure, label), tool.HeldOut(unsure, label)])
    monkeypatch.setattr(tool, "held_out", lambda _: next(parts))
    code, out, _, _ = call(tmp_path / "run", "--folds", 2)
    assert code == 0
    assert "no better than temperature 1, which stays" in out
    assert results(tmp_path / "run" / "temperature" / "base")["temperature"] == 1
