"""Checkpoints in the exact layouts of the published projects: read safely, and evaluated."""

import json
import sys

import pytest
import torch
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import load_checkpoint

import train
from models.clip.load import load_clip
from runs.config import build_config
from trainers.published import published_name, published_state

FOLDER = {
    "CoOp": "prompt_learner",
    "CoCoOp": "prompt_learner",
    "MaPLe": "MultiModalPromptLearner",
    "IVLP": "VLPromptLearner",
    "VPT": "prompt_learner",
    "PromptSRC": "VLPromptLearner",
    "PromptKD": "VLPromptLearner",
    "TextRefiner": "prompt_learner",
}
BASE = {"DATASET__SUBSAMPLE_CLASSES": "base", "MODEL__BACKBONE__PRETRAINED": True}
EPOCHS = 1


def full_name(trainer, name):
    """A learned tensor's key; trainers that save the whole model have a prompt learner in it."""
    name = published_name(name)
    beside = ("image_", "text_", "mid_image_trans")
    within = trainer in ("MaPLe", "IVLP", "PromptSRC", "TextRefiner")
    return f"prompt_learner.{name}" if within and not name.startswith(beside) else name


def frozen_state(trainer, clip):
    """The frozen weights that stand in a published checkpoint, in half precision."""
    image = {f"image_encoder.{k}": v for k, v in clip.visual.state_dict().items()}
    if trainer in ("CoOp", "CoCoOp"):
        return {}
    if trainer == "PromptKD":
        return image | {"logit_scale": clip.logit_scale.data}
    parts = ("transformer.", "positional_embedding", "ln_final.", "text_projection")
    own = clip.state_dict()
    parts += ("token_embedding.",) * (trainer == "TextRefiner")
    text = {f"text_encoder.{k}": v for k, v in own.items() if k.startswith(parts)}
    found = image | text | {"logit_scale": clip.logit_scale.data}
    if trainer == "PromptSRC":
        found |= {f"prompt_learner.ZS_{k}": v for k, v in image.items()}
    return {k: v.half() if v.dim() > 1 else v for k, v in found.items()}


def derived_state(trainer):
    """Buffers that follow from the class names, here of another class list."""
    if trainer in ("PromptKD", "VPT"):
        return {}
    prefix = "" if trainer in ("CoOp", "CoCoOp") else "prompt_learner."
    shapes = {"token_prefix": (11, 1, 128), "token_suffix": (11, 72, 128)}
    shapes |= {"tokenized_prompts": (11, 77)} if trainer == "TextRefiner" else {}
    return {prefix + name: torch.zeros(shape) for name, shape in shapes.items()}


def write_published(folder, trainer, learned, clip, cfg):
    """A checkpoint as that project writes it, its scheduler pickled as an object."""
    memory = {k: learned.pop(k) for k in list(learned) if k.startswith("memory.")}
    shaped = published_state(learned)
    state = {full_name(trainer, k): shaped[published_name(k)] for k in learned}
    state |= frozen_state(trainer, clip) | derived_state(trainer)
    weight = torch.nn.Parameter(torch.zeros(1))
    optimiser = build_optimizer(None, cfg.OPTIM, param_groups=[{"params": [weight]}])
    scheduler = build_lr_scheduler(optimiser, cfg.OPTIM)
    saved = {
        "state_dict": state,
        "epoch": EPOCHS,
        "optimizer": optimiser.state_dict(),
        "scheduler": {k: v for k, v in vars(scheduler).items() if k != "optimizer"},
        "val_result": None,
    }
    folder.mkdir(parents=True)
    torch.save(saved, folder / f"model.pth.tar-{EPOCHS}")
    if memory:
        (folder.parent / "Memory").mkdir()
        part = {"state_dict": {"extractor.weight": memory["memory.extractor.weight"].half()}}
        saved = saved | part | {"memory_item": memory["memory.slots"].half()}
        torch.save(saved, folder.parent / "Memory" / f"model.pth.tar-{EPOCHS}")
    (folder / "checkpoint").write_text(f"model.pth.tar-{EPOCHS}\n")


@pytest.fixture
def publish(run, arguments, tmp_path):
    """Train with ours, write what was learned as the published project would."""

    def go(trainer, **options):
        options = BASE | {"OPTIM__MAX_EPOCH": EPOCHS, "OPTIM__WARMUP_EPOCH": 1} | options
        run(trainer, "ours", **options)
        path = tmp_path / "ours" / FOLDER[trainer] / f"model.pth.tar-{EPOCHS}"
        learned = load_checkpoint(path)["state_dict"]
        cfg = build_config(train.parse_args(arguments(trainer, **options)))
        folder = tmp_path / "theirs" / FOLDER[trainer]
        write_published(folder, trainer, learned, load_clip("tiny-emoji"), cfg)
        return ("--eval-only", "--model-dir", str(tmp_path / "theirs"), "--load-epoch", "1")

    return go


def results(folder):
    return json.loads((folder / "results.json").read_text())


@pytest.mark.parametrize("trainer", FOLDER)
def test_a_published_checkpoint_is_evaluated(publish, run, tmp_path, trainer):
    flags = publish(trainer)
    path = tmp_path / "theirs" / FOLDER[trainer] / "model.pth.tar-1"
    with pytest.raises(Exception, match="CosineAnnealingLR"):
        torch.load(path, weights_only=True)
    run(trainer, "eval", flags=flags, **BASE)
    ours, theirs = results(tmp_path / "ours"), results(tmp_path / "eval")
    assert theirs["accuracy"] == ours["accuracy"]
    assert theirs["macro_f1"] == ours["macro_f1"]
    assert theirs["epoch"] == EPOCHS


@pytest.fixture
def refusal(publish, arguments, capsys, monkeypatch):
    def go(trainer, other=None, **options):
        flags = publish(trainer)
        argv = arguments(other or trainer, "eval", flags=flags, **BASE | options)
        monkeypatch.setattr(sys, "argv", ["train.py", *argv])
        assert train.main() == 2
        lines = capsys.readouterr().err.strip().splitlines()
        return next(line for line in lines if line.startswith("train.py: error: "))

    return go


def test_a_checkpoint_of_another_trainer_is_refused(refusal):
    found = refusal("CoOp", "CoCoOp")
    assert "does not fit this trainer and config" in found
    assert "it lacks meta_net.linear1.bias, meta_net.linear1.weight" in found


def test_a_folder_of_another_trainer_is_named(refusal):
    found = refusal("CoOp", "MaPLe")
    assert "MultiModalPromptLearner; found: none" in found
    assert "there is a folder prompt_learner of another trainer" in found


def test_a_checkpoint_of_a_relative_with_the_same_folder_is_refused(refusal):
    found = refusal("PromptKD", "PromptSRC")
    assert "does not fit this trainer and config: it lacks ctx" in found


def test_a_checkpoint_of_another_context_length_is_refused(refusal):
    found = refusal("CoOp", TRAINER__COOP__CTX_INIT="", TRAINER__COOP__N_CTX=2)
    assert "ctx is (4, 128) there and (2, 128) here" in found


def test_prompts_for_another_clip_are_refused(refusal):
    found = refusal("MaPLe", MODEL__BACKBONE__PRETRAINED=False)
    assert "was written on another CLIP" in found
    assert "MODEL.BACKBONE.NAME" in found


def test_prompts_of_another_width_are_refused(refusal, monkeypatch):
    from models.clip import load as loading

    narrow = (32, 3, 64, 8, 32, 64, 3)
    monkeypatch.setitem(loading._SHAPES, "ViT-B/16", narrow)
    found = refusal(
        "CoOp",
        MODEL__BACKBONE__NAME="ViT-B/16",
        MODEL__BACKBONE__PRETRAINED=False,
        INPUT__SIZE=(32, 32),
    )
    assert "ctx is (4, 128) there and (4, 64) here" in found


def test_a_published_text_refiner_without_its_memory_is_refused(publish, run, tmp_path):
    flags = publish("TextRefiner")
    path = tmp_path / "theirs" / "Memory" / "model.pth.tar-1"
    saved = load_checkpoint(path)
    torch.save(saved | {"memory_item": None}, path)
    with pytest.raises(ValueError, match="holds no memory_item and extractor"):
        run("TextRefiner", "eval", flags=flags, **BASE)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"has no .*Memory.* beside it, the memory that"):
        run("TextRefiner", "eval", flags=flags, **BASE)


# Ours, for the authors' code

EXPECTED = {
    "CoOp": {"ctx"},
    "MaPLe": {"prompt_learner.ctx", "prompt_learner.proj.weight"}
    | {f"prompt_learner.compound_prompt{part}" for part in ("s_text.1", "_projections.0.bias")},
    "IVLP": {"prompt_learner.ctx", "image_encoder.VPT"}
    | {f"{tower}_encoder.transformer.resblocks.1.VPT_shallow" for tower in ("image", "text")},
    "VPT": {"image_encoder.VPT"},
    "PromptKD": {"image_encoder.VPT", "VPT_image_trans.conv1.1.running_var"},
    "TextRefiner": {"prompt_learner.ctx", "mid_image_trans.conv1.1.num_batches_tracked"},
}


@pytest.mark.parametrize("trainer", EXPECTED)
def test_a_converted_checkpoint_has_the_published_keys_and_gives_the_same(
    run, tmp_path, capsys, trainer
):
    from tools import convert_checkpoint

    options = {"DATASET__SUBSAMPLE_CLASSES": "base", "OPTIM__MAX_EPOCH": EPOCHS}
    run(trainer, "ours", **options)
    log = (tmp_path / "ours" / "log.txt").read_text()
    assert ("after tools/convert_checkpoint.py" in log) == (trainer != "CoOp")
    there = tmp_path / "theirs"
    assert convert_checkpoint.main([str(tmp_path / "ours"), "--output", str(there)]) == 0
    assert f"Wrote {there / FOLDER[trainer]}" in capsys.readouterr().out
    path = there / FOLDER[trainer] / "model.pth.tar-1"
    saved = torch.load(path, weights_only=True)
    assert EXPECTED[trainer] <= saved["state_dict"].keys()
    assert not any(key.startswith(("vision", "projector", "local")) for key in saved["state_dict"])
    flags = ("--eval-only", "--model-dir", str(there), "--load-epoch", "1")
    run(trainer, "eval", flags=flags, **options)
    assert results(tmp_path / "eval")["accuracy"] == results(tmp_path / "ours")["accuracy"]


def test_a_run_that_no_other_code_reads_is_not_converted(run, tmp_path, capsys):
    from tools import convert_checkpoint

    run("ZeroshotCLIP", "zero")
    assert convert_checkpoint.main([str(tmp_path / "zero"), "--output", str(tmp_path / "x")]) == 2
    assert "a run of ZeroshotCLIP, whose checkpoints no other code reads" in capsys.readouterr().err
    run("CoOp", "run", OPTIM__MAX_EPOCH=1)
    assert convert_checkpoint.main([str(tmp_path / "run"), "--output", str(tmp_path / "run")]) == 2
    assert "is the folder of the run itself" in capsys.readouterr().err
