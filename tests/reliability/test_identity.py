"""A checkpoint says what it is; where that does not fit, it is said which, and why."""

import json
import re
import shutil

import pytest
import torch
from dassl.utils import load_checkpoint

from tests.reliability.runs import OPTIONS, content, last_log, metrics

LAST = OPTIONS | {"OPTIM__MAX_EPOCH": 1}


@pytest.fixture
def trained(run, tmp_path):
    def go(trainer="CoOp", **options):
        run(trainer, "trained", **LAST | options)
        return ("--eval-only", "--model-dir", str(tmp_path / "trained"))

    return go


def test_a_checkpoint_says_what_it_is(trained, tmp_path):
    trained()
    said = content(tmp_path / "trained", "model.pth.tar-1")["identity"]
    assert said["trainer"] == "CoOp"
    assert said["backbone"] == "tiny-emoji"
    assert len(said["weights"]) == len(said["config_digest"]) == 12
    assert said["class_names"] == ["ash tree", "bee", "cat", "dog", "elk", "fox"]
    assert said["context_length"] == 4
    assert said["config"]["OPTIM.LR"] == 0.02
    assert set(said["version"]) >= {"python", "torch", "dassl", "git"}


def test_the_digest_follows_from_the_config(trained, tmp_path, run):
    trained()
    digest = content(tmp_path / "trained", "model.pth.tar-1")["identity"]["config_digest"]
    run("CoOp", "same", **LAST | {"TRAIN__PRINT_FREQ": 1})
    assert content(tmp_path / "same", "model.pth.tar-1")["identity"]["config_digest"] == digest
    run("CoOp", "other", **LAST | {"OPTIM__LR": 0.01})
    assert content(tmp_path / "other", "model.pth.tar-1")["identity"]["config_digest"] != digest


MISFITS = {
    "another trainer": ("TextRefiner", {}, "trainer CoOp, and this run has TextRefiner"),
    "another context length": (
        "CoOp",
        {"TRAINER__COOP__CTX_INIT": "a photo"},
        "context_length 4, and this run has 2",
    ),
}


@pytest.mark.parametrize("fault", MISFITS)
def test_what_cannot_be_meant_is_refused_whatever_is_allowed(trained, fails, witness, fault):
    trainer, options, sentence = MISFITS[fault]
    flags = (*trained(), "--allow-mismatch")
    found = fails(trainer, "eval", flags=flags, **LAST | options)
    assert sentence in found
    assert "or pass --allow-mismatch" not in found
    witness("identity", f"{fault}, to evaluate", found)


def test_another_backbone(trained, fails, witness, monkeypatch):
    from models.clip import load as loading

    monkeypatch.setitem(loading._SHAPES, "ViT-B/16", loading._SHAPES["tiny-emoji"])
    found = fails("CoOp", "eval", flags=trained(), **LAST | {"MODEL__BACKBONE__NAME": "ViT-B/16"})
    assert "backbone tiny-emoji, and this run has ViT-B/16 (what was learned fits the" in found
    witness("identity", "another backbone of the same shape, to evaluate", found)


def test_other_weights_of_the_same_backbone(trained, fails, run, tmp_path, witness):
    flags = (*trained(), "--seed", "5")  # another random CLIP
    found = fails("CoOp", "eval", flags=flags, **LAST)
    assert "with weights " in found
    assert "or pass --allow-mismatch if that is meant" in found
    run("CoOp", "eval", flags=(*flags, "--allow-mismatch"), **LAST)
    assert "loaded all the same" in last_log(tmp_path / "eval")
    said = content(tmp_path / "trained", "model.pth.tar-1")["identity"]["weights"]
    here = found.split("and this run has ")[1].split()[0]
    found = found.replace(said, "0123...").replace(here, "4567...")
    witness("identity", "other weights under the backbone's name, to evaluate", found)


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("TRAINER__COOP__CLASS_TOKEN_POSITION", "front", "CLASS_TOKEN_POSITION end, and this run"),
        ("INPUT__PIXEL_MEAN", [0.0, 0.0, 0.0], "INPUT.PIXEL_MEAN 0.485, 0.456, 0.406, and this"),
    ],
)
def test_another_use_than_it_was_trained_for(trained, fails, run, witness, key, value, sentence):
    flags = trained()
    found = fails("CoOp", "eval", flags=flags, **LAST | {key: value})
    assert sentence in found
    assert "(it was not trained to be so used)" in found
    witness("identity", f"another {key.replace('__', '.')}, to evaluate", found)
    run("CoOp", "eval", flags=(*flags, "--allow-mismatch"), **LAST | {key: value})


def test_other_data_and_what_only_training_reads_are_no_misfit(trained, run):
    flags = trained("Spotlighter")
    options = {
        "DATASET__SUBSAMPLE_CLASSES": "new",
        "DATASET__NUM_SHOTS": 1,
        "OPTIM__LR": 1,
        "TRAINER__SPOTLIGHTER__DISTILL": 1,
        "TRAINER__SPOTLIGHTER__VIEWS": 0,
        "TRAINER__SPOTLIGHTER__PREC": "bf16",
        "TRAINER__MAPLE__N_CTX": 3,
    }
    run("Spotlighter", "eval", flags=flags, **LAST | options)


def test_going_on_with_another_config(run, fails, tmp_path, witness):
    run("CoOp", **LAST)
    found = fails("CoOp", **OPTIONS | {"OPTIM__LR": 0.5})
    assert "OPTIM.LR 0.02, and this run has 0.5" in found
    assert "OPTIM.MAX_EPOCH 1, and this run has 3 (the run would not go on as it began)" in found
    witness("identity", "another learning rate and length, to go on", found)
    run("CoOp", flags=("--allow-mismatch",), **OPTIONS)
    assert metrics(tmp_path / "run")[0]["epoch"] == 3


def test_going_on_where_another_trainer_has_other_settings(run, tmp_path):
    """As where a later version has other defaults."""
    run("CoOp", **LAST)
    run("CoOp", TRAINER__SPOTLIGHTER__PROTOTYPES=7, **LAST)
    assert "Going on from" in last_log(tmp_path / "run")


def test_another_version_is_said_and_no_obstacle(run, tmp_path, monkeypatch):
    from runs import identity

    run("CoOp", **LAST)
    monkeypatch.setattr(identity, "git_revision", lambda: "another")
    run("CoOp", **LAST)
    assert "last digits may differ now" in last_log(tmp_path / "run")


def test_the_checks_can_be_switched_off_by_flags_alone(arguments, tmp_path, fails):
    """A stranger's config.yaml, or yaml of a trainer, must not."""
    import train
    from runs.config import build_config, read_run_config

    text = "MODEL:\n  TRUST_WEIGHTS: true\n  ALLOW_MISMATCH: true\n"
    (tmp_path / "config.yaml").write_text(text)
    yaml = ("--config-file", str(tmp_path / "config.yaml"))
    found = build_config(train.parse_args(arguments("CoOp", flags=yaml))).MODEL
    assert not found.TRUST_WEIGHTS
    assert not found.ALLOW_MISMATCH
    assert not read_run_config(tmp_path).MODEL.TRUST_WEIGHTS
    found = fails("CoOp", MODEL__ALLOW_MISMATCH=True)
    assert "MODEL.ALLOW_MISMATCH is set by its flag alone, --allow-mismatch" in found
    flags = (*yaml, "--trust-weights")
    assert build_config(train.parse_args(arguments("CoOp", flags=flags))).MODEL.TRUST_WEIGHTS


@pytest.mark.parametrize(
    ("options", "flags", "by", "on"),
    [
        ({}, (), "last_step", "none"),
        ({"TEST__FINAL_MODEL": "best_val"}, (), "best_val", "val"),
        ({"TEST__FINAL_MODEL": "best_val"}, ("--load-epoch", "2"), "load_epoch", "none"),
    ],
)
def test_results_say_which_split_chose_the_epoch(run, tmp_path, options, flags, by, on):
    run("CoOp", "trained", **OPTIONS | options)
    trained = metrics(tmp_path / "trained")[0]
    expected = "val" if options else "none"
    assert trained["epoch_chosen_on"] == expected
    where = ("--eval-only", "--model-dir", str(tmp_path / "trained"), *flags)
    run("CoOp", "eval", flags=where, **OPTIONS)  # whatever this config says of FINAL_MODEL
    found = metrics(tmp_path / "eval")[0]
    assert (found["epoch_chosen_by"], found["epoch_chosen_on"]) == (by, on)
    if not flags:
        assert found["epoch"] == trained["epoch"]


def test_a_best_model_of_another_project_is_not_said_to_be_chosen_fairly(run, tmp_path):
    run("CoOp", "trained", **LAST | {"TEST__FINAL_MODEL": "best_val"})
    path = tmp_path / "trained" / "prompt_learner" / "model-best.pth.tar"
    saved = load_checkpoint(path)
    del saved["identity"]
    torch.save(saved, path)
    run("CoOp", "eval", flags=("--eval-only", "--model-dir", str(tmp_path / "trained")), **LAST)
    assert metrics(tmp_path / "eval")[0]["epoch_chosen_on"] == "unknown"


def swap(root):
    path = root / "toy" / "split.json"
    split = json.loads(path.read_text())
    path.write_text(json.dumps(split | {"train": split["test"], "test": split["train"]}))


def rotate(root):
    path = root / "toy" / "split.json"
    split = json.loads(path.read_text())
    for items in split.values():
        for item in items:
            item[1] = (item[1] + 1) % 6
    names = {item[1]: item[2] for item in split["train"]}
    assert sorted(names) == list(range(6))
    path.write_text(json.dumps(split))


def replace(root):
    for path in (root / "toy" / "images").glob("train_*.png"):
        path.write_bytes(path.read_bytes() + b"x")


def same_size(root):
    for path in (root / "toy" / "images").glob("train_*.png"):
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


CHANGES = {
    "training and test pictures swapped, to go on": (swap, "data"),
    "labels rotated, to go on": (rotate, "class_names"),
    "training pictures replaced, to go on": (replace, "pictures"),
    "training pictures replaced by others of their size, to go on": (same_size, "pictures"),
}


def masked(sentence):
    """A sentence without digests."""
    digests = r"(data|pictures) \w{12}, and this run has \w{12}"
    return re.sub(digests, r"\1 0123..., and this run has 4567...", sentence)


@pytest.fixture
def copied(toy_root, tmp_path):
    """A copy of the data set, with times of its own."""
    root = tmp_path / "copied"
    shutil.copytree(toy_root, root, copy_function=shutil.copyfile)
    shutil.rmtree(root / "toy" / "split_fewshot", ignore_errors=True)
    return root


@pytest.mark.parametrize("fault", CHANGES)
def test_going_on_with_other_data(run, fails, tmp_path, copied, witness, fault):
    change, key = CHANGES[fault]
    whole = {"OPTIM__MAX_EPOCH": 2}
    run("CoOp", **OPTIONS | whole)
    (tmp_path / "run" / "prompt_learner" / "model.pth.tar-2").unlink()
    change(copied)
    flags = ("--root", str(copied))
    found = fails("CoOp", flags=flags, **OPTIONS | whole)
    assert f"was written with {key} " in found
    witness("identity", fault, masked(found))
    if key != "class_names":
        run("CoOp", flags=(*flags, "--allow-mismatch"), **OPTIONS | whole)
        assert "loaded all the same" in last_log(tmp_path / "run")


def test_data_that_were_moved_are_the_same(run, fails, tmp_path, copied):
    run("CoOp", **OPTIONS | {"OPTIM__MAX_EPOCH": 2})
    (tmp_path / "run" / "prompt_learner" / "model.pth.tar-2").unlink()
    run("CoOp", flags=("--root", str(copied)), **OPTIONS | {"OPTIM__MAX_EPOCH": 2})
    assert "Going on from" in last_log(tmp_path / "run")


def test_evaluation_on_changed_data_of_one_name(trained, fails, run, copied, witness):
    flags = (*trained(), "--root", str(copied))
    run("CoOp", "same", flags=flags, **LAST)
    swap(copied)
    found = fails("CoOp", "eval", flags=flags, **LAST)
    assert "(a digest of paths, labels and splits: the data have changed)" in found
    witness("identity", "training and test pictures swapped, to evaluate", masked(found))
    run("CoOp", "meant", flags=(*flags, "--allow-mismatch"), **LAST)
    run("CoOp", "other", flags=flags, **LAST | {"DATASET__LABEL": "another"})  # a transfer
