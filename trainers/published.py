"""Names in the checkpoints of the published projects, to ours and from ours.

CoOp and CoCoOp save what they learn under the names that we use. The others save the whole model;
its frozen part must be this run's CLIP, or the prompts were learned for another. TextRefiner saves
its memory in a folder of its own.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.classifier import CLIPClassifier
from runs.checkpoint import read_checkpoint

# In order; the first that fits counts.
RENAMES = (
    (r"prompt_learner\.(.+)", r"\1"),
    (r"image_encoder\.VPT", "vision.0"),
    (r"image_encoder\.transformer\.resblocks\.(\d+)\.VPT_shallow", r"vision.\1"),
    (r"text_encoder\.transformer\.resblocks\.(\d+)\.VPT_shallow", r"text_deeper.\1"),
    (r"VPT_image_trans\.conv1\.0\.(.+)", r"projector.inner.\1"),
    (r"VPT_image_trans\.conv1\.1\.(.+)", r"projector.norm.\1"),
    (r"VPT_image_trans\.conv1\.3\.(.+)", r"projector.outer.\1"),
    (r"mid_image_trans\.conv1\.0\.(.+)", r"local.inner.\1"),
    (r"mid_image_trans\.conv1\.1\.(.+)", r"local.norm.\1"),
    (r"mid_image_trans\.conv1\.3\.(.+)", r"local.outer.\1"),
)
LAYER = {"inner": 0, "norm": 1, "outer": 3}
MEMORY = "Memory"  # folder of TextRefiner's second checkpoint
# These save the whole model, and their context within it.
WHOLE = ("MaPLe", "IVLP", "PromptSRC", "TextRefiner")
# These use names of their own: the authors' code loads nothing of ours, and does not say so.
RENAMED = (*WHOLE, "VPT", "PromptKD")
HALF = 5e-3  # a weight stored in float16 or bfloat16 lies within this, relatively


def to_our_names(
    state: dict[str, Any], model: CLIPClassifier | nn.Module, path: Path
) -> dict[str, Any]:
    """Rename what was learned, compare and drop what was frozen.

    Args:
        state: of a published checkpoint.
        model: of this run; a head on a tuner has no published checkpoints.
        path: of the checkpoint; TextRefiner's memory lies in a folder beside its own.

    Raises:
        FileNotFoundError: the memory is not there.
        ValueError: the frozen part is of another CLIP.
    """
    if not isinstance(model, CLIPClassifier):
        return state
    if hasattr(model.learned, "memory") and "memory.slots" not in state:
        state = state | memory_of(path)
    frozen = frozen_part(model)
    learned = {}
    for name, value in state.items():
        if name in frozen or name.startswith("prompt_learner.ZS_image_encoder."):
            own = frozen.get(name.replace("prompt_learner.ZS_image_encoder", "image_encoder"))
            require_equal(name, value, own, path)
        else:
            new_name = rename(name)
            is_pointwise = torch.is_tensor(value) and value.dim() == 4
            learned[new_name] = value.flatten(1) if is_pointwise else value
    return learned


def memory_of(path: Path) -> dict[str, Any]:
    """What a published TextRefiner saves beside its model, under our names.

    Args:
        path: of the model's checkpoint, FOLDER/prompt_learner/FILE.

    Raises:
        FileNotFoundError: there is no FOLDER/Memory/FILE.
        ValueError: it holds no memory.
    """
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


def rename(name: str) -> str:
    """Our name of something learned; a name that no rule knows stays as it is."""
    for pattern, replacement in RENAMES:
        if match := re.fullmatch(pattern, name):
            new_name = match.expand(replacement)
            break
    else:
        return name
    if new_name.startswith("text_deeper."):  # counts from block 1, ours from 0
        return f"text_deeper.{int(new_name.split('.')[1]) - 1}"
    return new_name


def published_name(ours: str) -> str:
    """The published name of something learned, without the prefix of the prompt learner."""
    part, _, rest = ours.partition(".")
    number, _, kind = rest.partition(".")
    if part == "vision":
        block = f"transformer.resblocks.{number}.VPT_shallow"
        return "image_encoder." + ("VPT" if number == "0" else block)
    if part == "text_deeper":
        return f"text_encoder.transformer.resblocks.{int(number) + 1}.VPT_shallow"
    if part in ("projector", "local"):
        module = "VPT_image_trans" if part == "projector" else "mid_image_trans"
        return f"{module}.conv1.{LAYER[number]}.{kind}"
    return "extractor.weight" if ours == "memory.extractor.weight" else ours


def published_shape(name: str, value: Tensor) -> Tensor:
    """Convolutions of one pixel have two axes more."""
    is_convolution = ".conv1." in name and value.dim() == 2
    return value[:, :, None, None] if is_convolution else value


def published_state(learned: nn.Module) -> dict[str, Tensor]:
    """What a tuner has learned, under the published names and in the published shapes."""
    return renamed(dict(learned.named_parameters()))


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under the published names, without the prefix, and in the published shapes."""
    named = {published_name(name): value for name, value in state.items()}
    return {name: published_shape(name, value) for name, value in named.items()}


def to_published(saved: dict[str, Any], trainer: str, folder: str) -> dict[str, dict[str, Any]]:
    """A checkpoint of ours as the authors' code reads it: by folder, what to save there.

    The frozen CLIP is left out: their code has it from the backbone.

    Args:
        saved: of `read_checkpoint`.
        trainer: its name.
        folder: of its checkpoints.
    """
    state = {k: v for k, v in saved["state_dict"].items() if not k.startswith("pruner.")}
    slots, state = state.get("memory.slots"), renamed(state)
    rest = {"epoch": saved["epoch"], "optimizer": None, "scheduler": None}
    rest["val_result"] = saved.get("val_result")
    found = {}
    if slots is not None:
        del state["memory.slots"]
        extractor = {"extractor.weight": state.pop("extractor.weight")}
        found[MEMORY] = rest | {"memory_item": slots, "state_dict": extractor}
    if trainer in WHOLE:
        beside = ("image_encoder.", "text_encoder.", "mid_image_trans.")
        state = {
            k if k.startswith(beside) else f"prompt_learner.{k}": v for k, v in state.items()
        }
    return found | {folder: rest | {"state_dict": state}}
