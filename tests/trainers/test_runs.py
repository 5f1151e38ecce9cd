"""Whole runs of train.py on a toy data set with a small random CLIP."""

import json
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import train
from runs.calibration import BINS
from runs.record import Predicted, write_predictions
from tests.toy import NAMES

PROJECT = Path(__file__).parents[2]
BASE = {"DATASET__SUBSAMPLE_CLASSES": "base"}
NEW = {"DATASET__SUBSAMPLE_CLASSES": "new"}


def results(folder):
    return json.loads((folder / "results.json").read_text())


def checkpoint(folder, epoch=2):
    path = folder / "prompt_learner" / f"model.pth.tar-{epoch}"
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize("trainer", ["ZeroshotCLIP", "ZeroshotCLIP2", "CoOp", "Spotlighter"])
def test_every_trainer_leaves_results_config_and_log(run, tmp_path, trainer):
    run(trainer, **BASE)
    found = results(tmp_path / "run")
    learned = {"CoOp": 4 * 128, "Spotlighter": 4 * 128 + 21}.get(trainer, 0)
    expected = {
        "trainer": trainer,
        "dataset": "Toy",
        "split": "test",
        "classes": "base",
        "shots": 4,
        "seed": 1,
        "n": 15,
        "backbone": "tiny-emoji",
        "epoch": 2 if learned else 0,
        "epoch_chosen_by": "last_step",
        "learned_parameters": learned,
    }
    assert {key: found[key] for key in expected} == expected
    assert 0 <= found["accuracy"] <= 100
    assert found["images_per_s"] > 0
    assert (found["train_s"] > 0) == bool(learned)
    assert found["nll"] > 0
    n, confidence, right = (found["reliability"][key] for key in ("n", "confidence", "accuracy"))
    filled = [row for row in zip(n, confidence, right, strict=True) if row[0]]
    assert (len(n), sum(n)) == (15, 15)
    hits = sum(count * share for count, _, share in filled)
    assert hits / 15 == pytest.approx(found["accuracy"], abs=1e-3)
    gap = sum(count * abs(top - share) for count, top, share in filled)
    assert gap / 15 == pytest.approx(found["ece"], abs=1e-3)
    assert set(found["versions"]) >= {"python", "torch", "dassl"}
    config = (tmp_path / "run" / "config.yaml").read_text()
    assert config.startswith("# git: ")
    assert "SUBSAMPLE_CLASSES: base" in config
    log = (tmp_path / "run" / "log.txt").read_text()
    assert f"* accuracy: {found['accuracy']:.1f}%" in log
    assert f"\n* nll: {found['nll']:.4f}\n* ece: {found['ece']:.2f}%\n" in log
    assert ("Finish training" in log) == bool(learned)


def test_the_terminal_shows_what_differs_and_the_log_has_all(run, tmp_path, capsys):
    run("ZeroshotCLIP", **BASE)
    shown, log = capsys.readouterr().out, (tmp_path / "run" / "log.txt").read_text()
    head = shown.partition("** Config: what differs from the defaults")[2]
    lines = head.partition("Loading CLIP")[0].splitlines()
    assert "DATASET.SUBSAMPLE_CLASSES: base" in lines
    assert "  SUBSAMPLE_CLASSES: base\n" in log
    assert "WARMUP_CONS_LR" in log
    assert "WARMUP_CONS_LR" not in shown


def test_too_many_workers_are_named_once(run, capfd, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0}, raising=False)
    run("CoOp", DATALOADER__NUM_WORKERS=2, OPTIM__MAX_EPOCH=1)
    said = "".join(capfd.readouterr())
    assert said.count("2 workers read pictures on a machine of 1 cores") == 1
    assert "DATALOADER.NUM_WORKERS 1 is enough" in said
    assert "This DataLoader will create" not in said


def test_two_runs_with_one_seed_have_equal_bits(run, tmp_path):
    for output in ("a", "b"):
        run("Spotlighter", output)
    one, other = checkpoint(tmp_path / "a"), checkpoint(tmp_path / "b")
    for key, value in one["state_dict"].items():
        assert not torch.is_tensor(value) or torch.equal(value, other["state_dict"][key]), key
    assert results(tmp_path / "a")["accuracy"] == results(tmp_path / "b")["accuracy"]


def test_seeds_differ_and_seed_zero_is_a_seed(run, tmp_path):
    for seed in ("0", "1"):
        run("CoOp", seed, flags=("--seed", seed), TRAINER__COOP__CTX_INIT="")
    assert results(tmp_path / "0")["seed"] == 0
    contexts = [checkpoint(tmp_path / seed)["state_dict"]["ctx"] for seed in ("0", "1")]
    assert not torch.equal(*contexts)


LOGITS = """
import json, sys, torch, train, trainers
from runs.config import build_config
from dassl.engine import build_trainer
from dassl.utils import set_random_seed
import datasets, tests.toy

found = []
for words in json.loads(sys.argv[1]):
    args = train.parse_args(words)
    cfg = build_config(args)
    set_random_seed(cfg.SEED)
    trainer = build_trainer(cfg)
    trainer.load_model(args.model_dir)
    trainer.set_model_mode("eval")
    with torch.no_grad():
        logits = [trainer.model(batch["img"]) for batch in trainer.test_loader]
    found.append(torch.cat(logits))
torch.save(found, sys.argv[2])
"""


def logits_in_a_new_process(lines, out):
    """The logits of the test pictures for each command line, which has its own model."""
    words = [sys.executable, "-c", LOGITS, json.dumps(lines), str(out)]
    subprocess.run(words, check=True, cwd=PROJECT)
    return torch.load(out)


def test_saved_bank_gives_the_same_logits_in_new_processes(run, arguments, tmp_path):
    """The released code evaluates with a random bank in each new process."""
    run("Spotlighter", "train", **BASE)
    state = checkpoint(tmp_path / "train")["state_dict"]
    assert state["head.memory._extra_state"] == {"class_names": ["ash tree", "bee", "cat"]}
    assert state["head.memory.mass"].sum() > 0
    flags = ("--eval-only", "--model-dir", str(tmp_path / "train"))
    lines = [arguments("Spotlighter", flags=flags, **classes) for classes in (BASE, NEW)]
    without = [arguments("Spotlighter", **classes) for classes in (BASE, NEW)]
    base, new, *plain = logits_in_a_new_process([*lines, *without], tmp_path / "1.pt")
    again = logits_in_a_new_process(lines[::-1], tmp_path / "2.pt")
    for first, second, other in zip((base, new), again[::-1], plain, strict=True):
        assert torch.equal(first, second)
        assert not torch.allclose(first, other)


def test_evaluation_of_a_checkpoint_equals_the_training_runs_own(run, tmp_path):
    run("Spotlighter", "train", **BASE)
    flags = ("--eval-only", "--model-dir", str(tmp_path / "train"))
    run("Spotlighter", "eval", flags=flags, **BASE)
    run("Spotlighter", "new", flags=flags, **NEW)
    assert results(tmp_path / "eval")["accuracy"] == results(tmp_path / "train")["accuracy"]
    assert results(tmp_path / "eval")["epoch"] == 2
    assert results(tmp_path / "eval")["train_s"] is None
    assert results(tmp_path / "new")["classes"] == "new"


def test_results_say_what_was_trained_on(run, arguments, tmp_path, toy_root):
    run("CoOp", "train", OPTIM__MAX_EPOCH=1)
    found = results(tmp_path / "train")
    assert (found["source"], found["dataset"], found["dataset_name"]) == ("Toy", "Toy", "Toy")
    assert results(tmp_path / "train")["class_names"] == NAMES
    words = arguments("CoOp", "test", flags=("--eval-only", "--model-dir", str(tmp_path / "train")))
    config = tmp_path / "train" / "config.yaml"
    config.write_text(config.read_text().replace("LABEL: Toy", "LABEL: mine"))
    train.run(train.parse_args(words))
    assert results(tmp_path / "test")["source"] == "mine"
    config.write_text("DATASET: {NAME: EmojiFood}\n")  # as before there were labels
    train.run(train.parse_args(words))
    assert results(tmp_path / "test")["source"] == "EmojiFood"
    for damaged in ("DATASET: 3\n", "a: [", "DATASET: {NAME: [Toy]}\n"):
        config.write_text(damaged)
        with pytest.raises(ValueError, match=r"config\.yaml does not say which data set"):
            train.run(train.parse_args(words))
    config.unlink()  # as beside a published checkpoint
    train.run(train.parse_args(words))
    assert results(tmp_path / "test")["source"] == "unknown"


def test_text_is_encoded_once_per_evaluation(run, tmp_path, monkeypatch):
    from models.clip.text_tower import TextEncoder

    run("CoOp", "train", **BASE)
    calls, forward = [], TextEncoder.forward

    def count(self, *args):
        calls.append(1)
        return forward(self, *args)

    monkeypatch.setattr(TextEncoder, "forward", count)
    flags = ("--eval-only", "--model-dir", str(tmp_path / "train"))
    run("CoOp", "eval", flags=flags, DATALOADER__TEST__BATCH_SIZE=2, **BASE)
    assert len(calls) == 1


def test_an_interrupted_run_goes_on_with_its_bank(run, tmp_path):
    run("Spotlighter", "whole", OPTIM__MAX_EPOCH=2, TRAIN__CHECKPOINT_FREQ=1)
    first = checkpoint(tmp_path / "whole", 1)
    run("Spotlighter", "part", OPTIM__MAX_EPOCH=2, TRAIN__CHECKPOINT_FREQ=1)
    folder = tmp_path / "part" / "prompt_learner"
    (folder / "model.pth.tar-2").unlink()
    (folder / "checkpoint").write_text("model.pth.tar-1\n")
    (tmp_path / "part" / "results.json").unlink()
    run("Spotlighter", "part", OPTIM__MAX_EPOCH=2, TRAIN__CHECKPOINT_FREQ=1)
    resumed = checkpoint(tmp_path / "part", 2)
    mass = "head.memory.global_mass"
    # 24 pictures and four views of each, whatever the bank held before
    assert [c["state_dict"][mass].sum().item() for c in (first, resumed)] == [120, 120]
    for key, value in checkpoint(tmp_path / "whole", 2)["state_dict"].items():
        assert not torch.is_tensor(value) or torch.equal(value, resumed["state_dict"][key]), key
    assert results(tmp_path / "part")["epoch"] == 2
    assert results(tmp_path / "part")["train_s"] is None  # the first part is not known


def test_best_val_needs_a_validation_split(run, tmp_path):
    run("CoOp", TEST__FINAL_MODEL="best_val")
    assert results(tmp_path / "run")["epoch_chosen_by"] == "best_val"
    assert (tmp_path / "run" / "prompt_learner" / "model-best.pth.tar").is_file()


@pytest.mark.parametrize("precision", ["bf16", "amp", "fp16"])
def test_other_precisions_run_on_the_cpu(run, tmp_path, precision):
    run("Spotlighter", TRAINER__SPOTLIGHTER__PREC=precision)
    assert results(tmp_path / "run")["n"] == 30
    warned = "fp16 is computed as fp32" in (tmp_path / "run" / "log.txt").read_text()
    assert warned == (precision == "fp16")


@pytest.mark.parametrize(
    "options",
    [
        {"TRAINER__SPOTLIGHTER__TOKENS": "raw", "TRAINER__SPOTLIGHTER__LEVELS": ()},
        {"TRAINER__SPOTLIGHTER__LEVEL1": 5, "TRAINER__SPOTLIGHTER__GATE": False},
        {
            "TRAINER__SPOTLIGHTER__VIEWS": 0,
            "TRAINER__SPOTLIGHTER__DISTILL": 0,
            "TRAINER__SPOTLIGHTER__ALPHA": 0,
            "TRAINER__SPOTLIGHTER__SCORE": "similarity",
        },
        {
            "TRAINER__COOP__CTX_INIT": "",
            "TRAINER__COOP__N_CTX": 3,
            "TRAINER__COOP__CLASS_TOKEN_POSITION": "middle",
        },
    ],
)
def test_variants_train(run, tmp_path, options):
    run("Spotlighter", **options)
    assert results(tmp_path / "run")["epoch"] == 2


def test_predictions_are_written_in_the_order_of_the_split(run, tmp_path):
    run("CoOp")
    rows = pd.read_csv(tmp_path / "run/predictions.csv")
    columns = "label predicted path true_name predicted_name probability true_probability"
    assert list(rows) == columns.split()
    found = results(tmp_path / "run")
    assert len(rows) == found["n"]
    assert 100 * (rows.label == rows.predicted).mean() == pytest.approx(found["accuracy"])
    assert rows.label.is_monotonic_increasing
    assert rows.path[0] == "toy/images/test_0_0.png"
    for label, name in (("label", "true_name"), ("predicted", "predicted_name")):
        assert rows[name].tolist() == [found["class_names"][i] for i in rows[label]]


def test_predictions_have_the_probabilities_that_the_figures_are_made_of(run, tmp_path):
    run("CoOp", TEST__TEMPERATURE=2.5)
    rows, found = pd.read_csv(tmp_path / "run/predictions.csv"), results(tmp_path / "run")
    loss = -np.log(rows.true_probability.clip(1e-6)).mean()
    assert loss == pytest.approx(found["nll"], rel=1e-3)
    right = rows.label == rows.predicted
    assert (rows.probability >= rows.true_probability).all()
    assert (rows.probability[right] == rows.true_probability[right]).all()
    counts = np.histogram(rows.probability, np.linspace(0, 1, BINS + 1))[0]
    assert counts.tolist() == found["reliability"]["n"]


def test_names_that_a_spreadsheet_would_run_are_disarmed(tmp_path):
    """A path begins with "./" then, and still leads to the picture."""
    paths = (f"{tmp_path}/data/=a.png", f"{tmp_path}/data/b,c.png", "/far/\udcb9")
    rows = [Predicted(0, 1, path, 0.75, 0.25) for path in paths]
    write_predictions(tmp_path, rows, ["@x", "y"], tmp_path / "data")
    assert (tmp_path / "predictions.csv").read_text().splitlines()[1:] == [
        "0,1,./=a.png,'@x,y,0.750000,0.250000",
        '''0,1,"b,c.png",'@x,y,0.750000,0.250000''',
        r"0,1,/far/\xb9,'@x,y,0.750000,0.250000",
    ]


def test_the_optimiser_moves_the_prompts_alone(run, tmp_path):
    """Of the 21 scalars base and level are fitted, and the others keep their starts."""
    run("Spotlighter")
    saved = checkpoint(tmp_path / "run", 2)
    (group,) = saved["optimizer"]["param_groups"]
    assert len(group["params"]) == len(saved["optimizer"]["state"]) == 1
    state = {key: value for key, value in saved["state_dict"].items() if torch.is_tensor(value)}
    assert state["head.mix"].tolist() == [1, 1]
    assert state["head.image_gain"].tolist() == [0.5] * 5
    assert state["head.text_gain"].tolist() == pytest.approx([0.2] * 3)
    assert state["head.pair"].tolist() == [0] * 6
    fitted = torch.stack([state["head.base"], *state["head.level"]])
    assert (fitted >= 0).all()
    assert fitted.tolist() != [1, 0, 0, 0, 0]


def test_coop_and_zero_shot_run_on_a_resnet(run, tmp_path, monkeypatch):
    from models.clip import load as loading

    monkeypatch.setitem(loading._SHAPES, "RN50", (32, (1, 1, 1, 1), 8, None, 32, 64, 1))
    for trainer in ("ZeroshotCLIP", "CoOp"):
        run(trainer, trainer, MODEL__BACKBONE__NAME="RN50", INPUT__SIZE=(32, 32))
        assert results(tmp_path / trainer)["backbone"] == "RN50"


def test_results_say_which_settings_differ_from_the_defaults(run, tmp_path):
    """A test has those of its training, whatever its own command says of training."""
    given = {"TRAINER__COOP__CLASS_TOKEN_POSITION": "front", "TRAINER__MAPLE__N_CTX": 3}
    run("CoOp", "train", OPTIM__MAX_EPOCH=1, **given, **BASE)
    found = results(tmp_path / "train")
    assert found["settings"]["TRAINER.COOP.CLASS_TOKEN_POSITION"] == "front"
    assert found["settings"]["OPTIM.MAX_EPOCH"] == 1
    assert not {"SEED", "DATASET.ROOT", "TRAINER.MAPLE.N_CTX"} & set(found["settings"])
    flags = ("--eval-only", "--model-dir", str(tmp_path / "train"))
    run("CoOp", "test", flags=flags, OPTIM__MAX_EPOCH=9, **given, **NEW)
    tested = results(tmp_path / "test")
    same = ("settings", "data", "weights", "learned", "source")
    assert {key: tested[key] for key in same} == {key: found[key] for key in same}
    run("ZeroshotCLIP", "zero", OPTIM__MAX_EPOCH=9)
    found = results(tmp_path / "zero")
    assert found["settings"] == {"MODEL.BACKBONE.NAME": "tiny-emoji", "INPUT.SIZE": [64, 64]}
    assert found["learned"] is None


def test_earlier_results_go_before_the_config_comes(tmp_path, monkeypatch):
    """Killed in between, a folder never holds a config beside the results of another run."""
    from yacs.config import CfgNode

    from runs import record as run_record

    for name in ("results.json", "predictions.csv", "config.yaml"):
        (tmp_path / name).write_text("old")

    def killed(path, text):
        raise KeyboardInterrupt

    monkeypatch.setattr(run_record, "write_text", killed)
    with pytest.raises(KeyboardInterrupt):
        run_record.begin(CfgNode(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]
# What is left behind by default: a checkpoint an epoch, of which the newest two stay


def epochs_in(folder):
    return sorted(int(p.name.rpartition("-")[2]) for p in folder.glob("*/model.pth.tar-*"))


@pytest.mark.parametrize(
    ("settings", "left"),
    [
        ({}, [4, 5]),
        ({"TRAIN__CHECKPOINT_FREQ": 0}, [5]),
        ({"TRAIN__CHECKPOINT_FREQ": 2}, [2, 4, 5]),
        ({"TRAIN__CHECKPOINT_FREQ": 1}, [1, 2, 3, 4, 5]),
        ({"TRAIN__KEEP_CHECKPOINTS": 1}, [5]),
        ({"TEST__FINAL_MODEL": "best_val"}, [4, 5]),
    ],
)
def test_the_checkpoints_that_stay(run, tmp_path, settings, left):
    run("CoOp", OPTIM__MAX_EPOCH=5, **settings)
    assert epochs_in(tmp_path / "run") == left


def test_checkpoints_that_were_asked_for_before_stay(run, tmp_path):
    run("CoOp", OPTIM__MAX_EPOCH=3, TRAIN__CHECKPOINT_FREQ=1)
    (tmp_path / "run" / "prompt_learner" / "model.pth.tar-3").unlink()
    run("CoOp", OPTIM__MAX_EPOCH=3)
    assert epochs_in(tmp_path / "run") == [2, 3]


def test_an_evaluation_of_validation_pictures_needs_some(run, tmp_path, toy_root):
    run("ZeroshotCLIP", TEST__SPLIT="val")
    assert results(tmp_path / "run")["split"] == "val"
    split = toy_root / "toy" / "split.json"
    text = split.read_text()
    try:
        split.write_text(json.dumps(json.loads(text) | {"val": []}))
        with pytest.raises(ValueError, match=r"Toy has no validation pictures \(TEST.SPLIT val\)"):
            run("ZeroshotCLIP", "other", TEST__SPLIT="val")
    finally:
        split.write_text(text)


# MODEL.INIT_WEIGHTS


@pytest.mark.parametrize("trainer", ["CoOp", "Spotlighter", "PromptKD"])
@pytest.mark.parametrize("kind", ["folder", "file"])
def test_training_starts_from_what_another_run_learned(run, tmp_path, monkeypatch, trainer, kind):
    from trainers.base import CLIPTrainer

    run(trainer, "first", OPTIM__MAX_EPOCH=1)
    (path,) = (tmp_path / "first").glob("*/model.pth.tar-1")
    saved = torch.load(path, weights_only=True)["state_dict"]
    seen, begin = [], CLIPTrainer.begin_record
    monkeypatch.setattr(
        CLIPTrainer,
        "begin_record",
        lambda self: (seen.append(deepcopy(self.model.learned.state_dict())), begin(self)),
    )
    start = path if kind == "file" else tmp_path / "first"
    run(trainer, "second", OPTIM__MAX_EPOCH=1, MODEL__INIT_WEIGHTS=start)
    (found,) = seen
    learned = [k for k in saved if not k.startswith("head.memory.")]
    assert learned
    assert all(torch.equal(found[key], saved[key]) for key in learned)
    if trainer == "Spotlighter":
        assert not found["head.memory.mass"].any()  # the bank is filled from this run's pictures


def test_a_start_that_does_not_fit_is_refused(run, fails, tmp_path):
    run("CoOp", "first", OPTIM__MAX_EPOCH=1)
    path = tmp_path / "first" / "prompt_learner" / "model.pth.tar-1"
    found = fails("CoOp", "x", MODEL__INIT_WEIGHTS=path, TRAINER__COOP__CTX_INIT="a photo")
    assert "context_length 4, and this run has 2" in found
    assert "was written with trainer CoOp" in fails("MaPLe", "y", MODEL__INIT_WEIGHTS=path)


# What is set and not read


def test_what_is_set_without_effect_is_named(run, tmp_path):
    run("ZeroshotCLIP", OPTIM__GAMMA=0.5, INPUT__RGS_P=0.5, TRAINER__MODAL="cross")
    log = (tmp_path / "run" / "log.txt").read_text()
    (line,) = [line for line in log.splitlines() if "without effect here" in line]
    assert "OPTIM.GAMMA (it needs OPTIM.LR_SCHEDULER single_step or multi_step)" in line
    assert "INPUT.RGS_P (it needs INPUT.TRANSFORMS randomgrayscale)" in line
    assert "TRAINER.MODAL (another trainer reads it)" in line
    assert "TRAINER.MAPLE (another trainer reads it)" in line


@pytest.mark.parametrize(
    ("trainer", "options", "said"),
    [
        ("CoOp", {"COOP__CSC": True}, "not used from TRAINER.COOP: N_CTX 16, CSC True"),
        ("CoCoOp", {"COCOOP__N_CTX": 8}, "not used from TRAINER.COCOOP: N_CTX 8"),
        ("TextRefiner", {}, "not used from TRAINER.COOP: N_CTX 16"),
        ("MaPLe", {"MAPLE__N_CTX": 5}, "A context of 5 vectors starts at random"),
        ("PromptKD", {"PROMPTKD__CE_WEIGHT": 1}, "CE_WEIGHT (the published code does not use"),
    ],
)
def test_which_of_two_settings_counts_is_said(run, tmp_path, trainer, options, said):
    run(trainer, OPTIM__MAX_EPOCH=1, **{f"TRAINER__{key}": v for key, v in options.items()})
    assert said in (tmp_path / "run" / "log.txt").read_text()


def test_words_are_shared_by_all_classes(run, tmp_path):
    """As in CoOp: CTX_INIT makes CSC and N_CTX idle."""
    run("CoOp", OPTIM__MAX_EPOCH=1, TRAINER__COOP__CSC=True, TRAINER__COOP__N_CTX=16)
    assert checkpoint(tmp_path / "run", 1)["state_dict"]["ctx"].shape == (4, 128)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"DATALOADER__TRAIN_X__BATCH_SIZE": 1}, "DATALOADER.TRAIN_X.BATCH_SIZE is 1"),
        ({"DATASET__SUBSAMPLE_CLASSES": "new/new"}, "there is one training picture"),
    ],
)
@pytest.mark.parametrize("trainer", ["PromptKD", "Spotlighter"])
def test_a_batch_of_one_is_refused_where_a_batch_is_normalised(fails, trainer, options, why):
    options = {"TRAINER__SPOTLIGHTER__BASE": "PromptKD", "DATASET__NUM_SHOTS": 1} | options
    assert why in fails(trainer, **options)


def test_a_key_beside_the_own_ones_that_another_trainer_reads_is_named(run, tmp_path):
    run("CoOp", OPTIM__MAX_EPOCH=1, TRAINER__COOP__W=3)
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "TRAINER.COOP.W (another trainer reads it)" in log
    run("KgCoOp", "kg", OPTIM__MAX_EPOCH=1, TRAINER__COOP__W=3)
    assert "TRAINER.COOP.W" not in (tmp_path / "kg" / "log.txt").read_text().split("Loading")[-1]
