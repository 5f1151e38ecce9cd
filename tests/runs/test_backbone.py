"""Every trainer on a backbone of open_clip, weights from files, and pictures that must fit."""

import json
from pathlib import Path

import pytest
import torch

from runs.backbone import check_class_names
from tests.open_clip_models import CONTEXT, MEAN, RESNET, STD, make_config, write_folder
from trainers import TRAINERS

pytest.importorskip("open_clip")

BASE = {"DATASET__SUBSAMPLE_CLASSES": "base", "OPTIM__MAX_EPOCH": 1}
NEW = {"DATASET__SUBSAMPLE_CLASSES": "new", "OPTIM__MAX_EPOCH": 1}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders of a ViT and of a ResNet."""
    root = tmp_path_factory.mktemp("backbones")
    write_folder(root / "vit", make_config({"ls_init_value": 0.5}))
    write_folder(root / "resnet", make_config(RESNET))
    write_folder(root / "other", make_config(), {"mean": MEAN, "std": STD, "resize_mode": "squash"})
    return root


def backbone(folders, kind="vit"):
    name = f"open_clip:local-dir:{folders / kind}"
    return {"MODEL__BACKBONE__NAME": name, "MODEL__BACKBONE__PRETRAINED": True}


def results(folder):
    return json.loads((folder / "results.json").read_text())


def evaluate(folder):
    return ("--eval-only", "--model-dir", str(folder))


def last_log(folder):
    return max(folder.glob("log.txt*"), key=lambda path: path.stat().st_mtime).read_text()


@pytest.mark.parametrize("trainer", [trainer.__name__ for trainer in TRAINERS])
def test_every_trainer_runs_on_a_vit_of_open_clip(run, tmp_path, folders, trainer):
    options = backbone(folders)
    options["TRAINER__PROMPTKD__TEACHER_NAME"] = options["MODEL__BACKBONE__NAME"]
    run(trainer, "train", **BASE, **options)
    run(trainer, "again", flags=evaluate(tmp_path / "train"), **BASE, **options)
    run(trainer, "new", flags=evaluate(tmp_path / "train"), **NEW, **options)
    train, again, new = (results(tmp_path / name) for name in ("train", "again", "new"))
    assert train["accuracy"] == again["accuracy"]
    assert (train["n"], new["n"]) == (15, 15)
    assert train["backbone"] == options["MODEL__BACKBONE__NAME"]


@pytest.mark.parametrize("base", ["CoCoOp", "MaPLe"])
def test_spotlighter_on_other_bases(run, tmp_path, folders, base):
    run("Spotlighter", **BASE, **backbone(folders), TRAINER__SPOTLIGHTER__BASE=base)
    assert results(tmp_path / "run")["n"] == 15


@pytest.mark.parametrize("trainer", ["ZeroshotCLIP", "CoOp", "CoCoOp"])
def test_trainers_without_patches_run_on_a_resnet_of_open_clip(run, tmp_path, folders, trainer):
    run(trainer, **BASE, **backbone(folders, "resnet"))
    assert results(tmp_path / "run")["n"] == 15


@pytest.mark.parametrize(
    "trainer", ["MaPLe", "PromptSRC", "PromptKD", "TextRefiner", "Spotlighter"]
)
@pytest.mark.parametrize("package", ["open_clip", "clip"])
def test_trainers_of_patches_say_that_they_need_a_vit(
    fails, folders, trainer, package, monkeypatch
):
    from models.clip import load as loading

    monkeypatch.setitem(loading._SHAPES, "RN50", (64, (1, 1, 1, 1), 8, None, 32, 64, 1))
    options = backbone(folders, "resnet")
    if package == "clip":
        options = {"MODEL__BACKBONE__NAME": "RN50"}
    found = fails(trainer, **BASE, **options)
    assert "a ResNet backbone has none; choose a ViT (MODEL.BACKBONE.NAME)" in found


@pytest.mark.parametrize("precision", ["bf16", "amp"])
def test_precisions_on_the_cpu(run, tmp_path, folders, precision):
    run("CoOp", **BASE, **backbone(folders), TRAINER__COOP__PREC=precision)
    assert results(tmp_path / "run")["n"] == 15


def test_a_context_that_the_text_tower_cannot_hold(fails, folders):
    found = fails("CoOp", **backbone(folders), TRAINER__COOP__CTX_INIT="", TRAINER__COOP__N_CTX=17)
    assert f"must lie in 1..{CONTEXT - 4}, got 17" in found


# Pictures


def test_pictures_of_another_size_are_refused(fails, folders):
    found = fails("CoOp", **backbone(folders), INPUT__SIZE=(32, 32))
    assert (
        'sees pictures of 64 x 64, and INPUT.SIZE is (32, 32): add INPUT.SIZE "(64, 64)"' in found
    )
    found = fails("CoOp", INPUT__SIZE=(32, 32))  # of tiny-emoji
    assert (
        "tiny-emoji sees pictures of 64 x 64, and INPUT.SIZE is (32, 32): add INPUT.SIZE" in found
    )


def test_pictures_of_another_normalisation_are_refused(fails, run, tmp_path, folders):
    options = BASE | backbone(folders, "other")
    found = fails("CoOp", **options)
    assert (
        "were trained on pictures of mean [0.5, 0.5, 0.5] and standard deviation [0.25, " in found
    )
    assert 'add INPUT.PIXEL_MEAN "[0.5, 0.5, 0.5]" INPUT.PIXEL_STD "[0.25, 0.25, 0.25]"' in found
    run("CoOp", "meant", flags=("--allow-mismatch",), **options)
    assert "used all the same (--allow-mismatch)" in last_log(tmp_path / "meant")
    options |= {"INPUT__PIXEL_MEAN": "[0.5, 0.5, 0.5]", "INPUT__PIXEL_STD": "[0.25, 0.25, 0.25]"}
    run("CoOp", "right", **options)
    log = last_log(tmp_path / "right")
    assert "used all the same" not in log
    assert "was trained on pictures squashed to a square" in log


def test_a_teacher_must_see_the_same_pictures(fails, folders):
    options = backbone(folders) | {"TRAINER__PROMPTKD__TEACHER_NAME": "ViT-B/32"}
    options["MODEL__BACKBONE__PRETRAINED"] = False
    assert "ViT-B/32 sees pictures of 224 x 224" in fails("PromptKD", **BASE, **options)


# Weights from a file


def test_a_file_of_weights_by_its_flag(run, fails, tmp_path, folders):
    """The identity knows the weights by their content, wherever they lie."""
    from models.clip.load import random_clip

    torch.manual_seed(7)
    torch.save(random_clip("tiny-emoji").state_dict(), tmp_path / "a.pt")
    Path(tmp_path / "moved.pt").write_bytes((tmp_path / "a.pt").read_bytes())
    torch.save(random_clip("tiny-emoji").state_dict(), tmp_path / "b.pt")
    own = {"MODEL__BACKBONE__PRETRAINED": True} | BASE
    run("CoOp", "train", flags=("--weights", str(tmp_path / "a.pt")), **own)
    flags = evaluate(tmp_path / "train")
    run("CoOp", "again", flags=(*flags, "--weights", str(tmp_path / "moved.pt")), **own)
    assert results(tmp_path / "again")["accuracy"] == results(tmp_path / "train")["accuracy"]
    for other in (("--weights", str(tmp_path / "b.pt")), ()):
        assert "with weights " in fails("CoOp", "other", flags=(*flags, *other), **own)
    assert "a.pt" in (tmp_path / "train" / "config.yaml").read_text()
    run("CoOp", "train", flags=("--weights", str(tmp_path / "moved.pt")), **own)  # goes on
    assert "moved.pt" in (tmp_path / "train" / "config.yaml").read_text()


def test_a_file_and_random_weights_are_not_both_meant(fails, tmp_path):
    found = fails("CoOp", flags=("--weights", str(tmp_path / "a.pt")))
    assert "PRETRAINED False asks for random weights, and --weights for" in found


def test_the_digest_of_a_resnet_covers_its_statistics(resnet_clip):
    from runs.identity import digest

    before = digest(resnet_clip)
    resnet_clip.visual.bn1.running_mean += 1
    assert digest(resnet_clip) != before


def test_names_that_differ_by_case_alone_are_one_name(caplog):
    assert check_class_names(["Oak_tree", "fox", "oak tree"])[0] == "Oak_tree"
    assert "several classes have one name" in caplog.text
    assert caplog.text.strip().endswith("told apart: Oak tree")
