"""Names in the checkpoints of the published projects -> ours.

CoOp and CoCoOp save what they learn under the names that we use. MaPLe, PromptSRC and PromptKD save
the whole model; its frozen part must be this run's CLIP, or the prompts were learned for another.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.classifier import CLIPClassifier

# In order; the first that fits counts.
RENAMES = (
    (r"prompt_learner\.(.+)", r"\1"),
    (r"image_encoder\.VPT", "vision.0"),
    (r"image_encoder\.transformer\.resblocks\.(\d+)\.VPT_shallow", r"vision.\1"),
    (r"text_encoder\.transformer\.resblocks\.(\d+)\.VPT_shallow", r"text_deeper.\1"),
    (r"VPT_image_trans\.conv1\.0\.(.+)", r"projector.inner.\1"),
    (r"VPT_image_trans\.conv1\.1\.(.+)", r"projector.norm.\1"),
    (r"VPT_image_trans\.conv1\.3\.(.+)", r"projector.outer.\1"),
)
HALF = 5e-3  # a weight stored in float16 or bfloat16 lies within this, relatively


def to_our_names(
    state: dict[str, Any], model: CLIPClassifier | nn.Module, path: Path
) -> dict[str, Any]:
    """Rename what was learned, compare and drop what was frozen.

    Args:
        state: of a published checkpoint.
        model: of this run; a head on a tuner has no published checkpoints.
        path: of the checkpoint, for the message.

    Raises:
        ValueError: the frozen part is of another CLIP.
    """
    if not isinstance(model, CLIPClassifier):
        return state
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
