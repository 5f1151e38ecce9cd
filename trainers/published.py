"""Checkpoints of the published projects: their names to ours, and ours to theirs.

CoOp, CoCoOp, KgCoOp and ProGrad save what they learn under the names that we use. Those of
`RENAMED` save frozen weights, too, which must be this run's CLIP, or the prompts were learned for
another. TextRefiner saves its memory in a folder of its own.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from models.classifier import CLIPClassifier
from runs import identity
from runs.checkpoint import read_checkpoint
from runs.state import RunState

BLOCK = "transformer.resblocks.*.VPT_shallow"
# Published name, our name, and how much further the published number counts. The first that fits
# counts; * is a number or a word.
NAMES = (
    ("image_encoder.VPT", "vision.0", 0),
    (f"image_encoder.{BLOCK}", "vision.*", 0),
    (f"text_encoder.{BLOCK}", "text_deeper.*", 1),
    ("VPT_image_trans.conv1.0.*", "projector.inner.*", 0),
    ("VPT_image_trans.conv1.1.*", "projector.norm.*", 0),
    ("VPT_image_trans.conv1.3.*", "projector.outer.*", 0),
    ("mid_image_trans.conv1.0.*", "local.inner.*", 0),
    ("mid_image_trans.conv1.1.*", "local.norm.*", 0),
    ("mid_image_trans.conv1.3.*", "local.outer.*", 0),
    ("extractor.weight", "memory.extractor.weight", 0),
)
PREFIX = "prompt_learner."
MEMORY = "Memory"  # folder of TextRefiner's second checkpoint
# These save the whole model, and their context within it.
WHOLE = ("MaPLe", "IVLP", "PromptSRC", "TextRefiner")
# These use names of their own: the authors' code silently loads nothing of ours.
RENAMED = (*WHOLE, "VPT", "PromptKD")
HALF = 5e-3  # a weight stored in float16 or bfloat16 lies within this, relatively


def read_for_run(cfg: CfgNode, state: RunState, model: nn.Module, path: Path) -> dict[str, Any]:
    """A checkpoint, ours or a published one, under our names; ValueError if it does not fit."""
    saved = read_checkpoint(path)
    identity.check(cfg, state, saved, path, to_train=False)
    if "identity" not in saved and state.learned is not None:
        own = state.learned.state_dict()  # published projects know no pruning
        pruner = {k: v for k, v in own.items() if k.startswith("pruner.")}
        saved["state_dict"] = to_our_names(saved["state_dict"], model, path) | pruner
    return saved


def to_our_names(state: dict[str, Any], model: nn.Module, path: Path) -> dict[str, Any]:
    """Rename what was learned; compare what was frozen with this CLIP, and drop it."""
    if not isinstance(model, CLIPClassifier):  # a head on a tuner, which nobody has published
        return state
    if hasattr(model.learned, "memory") and "memory.slots" not in state:
        state = state | memory_of(path)
    frozen, learned = frozen_part(model), {}
    for name, value in state.items():
        if name in frozen or name.startswith(f"{PREFIX}ZS_image_encoder."):
            own = frozen.get(name.replace(f"{PREFIX}ZS_image_encoder", "image_encoder"))
            require_equal(name, value, own, path)
        else:
            is_pointwise = torch.is_tensor(value) and value.dim() == 4
            learned[our_name(name)] = value.flatten(1) if is_pointwise else value
    return learned


def memory_of(path: Path) -> dict[str, Any]:
    """What TextRefiner saves in FOLDER/Memory/FILE beside FOLDER/prompt_learner/FILE."""
    beside = path.parent.parent / MEMORY / path.name
    if not beside.is_file():
        raise FileNotFoundError(
            f"the checkpoint {path} has no {beside} beside it, the memory that its text reads from"
        )
    saved = read_checkpoint(beside)
    slots, extractor = saved.get("memory_item"), saved["state_dict"].get("extractor.weight")
    if not (torch.is_tensor(slots) and torch.is_tensor(extractor)):
        raise ValueError(f"{beside} holds no memory_item and extractor.weight of a TextRefiner")
    return {"memory.slots": slots.float(), "memory.extractor.weight": extractor}


def frozen_part(model: CLIPClassifier) -> dict[str, Tensor]:
    """CLIP's own weights under the names of a published full checkpoint."""
    parts: dict[str, nn.Module] = {"text_encoder": model.text}
    if hasattr(model.visual, "visual"):
        parts["image_encoder"] = model.visual.visual
    found = {f"{p}.{n}": v for p, module in parts.items() for n, v in module.state_dict().items()}
    return found | {"logit_scale": model.logit_scale}


def require_equal(name: str, value: Tensor, own: Tensor | None, path: Path) -> None:
    """Refuse a frozen weight that is not this run's."""
    if own is not None and value.shape == own.shape:
        difference = (value.float() - own.float().to(value.device)).abs().max()
        if difference <= HALF * own.abs().max():
            return
    raise ValueError(
        f"the checkpoint {path} was written on another CLIP: its {name} is not that of this "
        "backbone (MODEL.BACKBONE.NAME)"
    )


def our_name(published: str) -> str:
    """Our name of something learned; an unknown name stays as it is."""
    if published.startswith(PREFIX):
        return published.removeprefix(PREFIX)
    return _renamed(published, NAMES)


def published_name(ours: str) -> str:
    """The published name of something learned, without the prefix of the prompt learner."""
    return _renamed(ours, [(own, theirs, -offset) for theirs, own, offset in NAMES])


def _renamed(name: str, rows: Iterable[tuple[str, str, int]]) -> str:
    """The name by the first row that fits, its number lowered by the offset; else as it is."""
    for source, target, offset in rows:
        if match := re.fullmatch(re.escape(source).replace(r"\*", r"(\w+)"), name):
            word = "".join(match.groups())
            return target.replace("*", str(int(word) - offset) if word.isdecimal() else word)
    return name


def published_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What was learned, under the published names; convolutions of one pixel have two axes more."""
    named = {published_name(name): value for name, value in state.items()}
    return {
        name: value[:, :, None, None] if ".conv1." in name and value.dim() == 2 else value
        for name, value in named.items()
    }


def to_published(saved: dict[str, Any], trainer: str, folder: str) -> dict[str, dict[str, Any]]:
    """By folder, what the authors' code reads of our checkpoint; it has CLIP from the backbone."""
    state = {k: v for k, v in saved["state_dict"].items() if not k.startswith("pruner.")}
    slots, state = state.get("memory.slots"), published_state(state)
    found, rest = {}, {"optimizer": None, "scheduler": None}
    rest |= {"epoch": saved["epoch"], "val_result": saved.get("val_result")}
    if slots is not None:
        del state["memory.slots"]
        extractor = {"extractor.weight": state.pop("extractor.weight")}
        found[MEMORY] = rest | {"memory_item": slots, "state_dict": extractor}
    if trainer in WHOLE:
        beside = ("image_encoder.", "text_encoder.", "mid_image_trans.")
        state = {k if k.startswith(beside) else PREFIX + k: v for k, v in state.items()}
    return found | {folder: rest | {"state_dict": state}}
