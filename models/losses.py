"""The training loss of Spotlighter. Source: docs/method.md, section 6."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from models.ranking import mean_row
from models.spotlighted_clip import SpotlightedOutput


def spotlighter_loss(
    out: SpotlightedOutput,
    label: Int[Tensor, " B"],
    anchors: Float[Tensor, "C D"],
    *,
    balance: float,
    distill: float,
) -> dict[str, Float[Tensor, ""]]:
    """The parts of the loss; their sum is what is minimised.

    Args:
        out: of the model, in training mode.
        label: true classes.
        anchors: text0, unit length.
        balance: divides the level losses; 0 switches them off.
        distill: weighs the ties to the anchors; 0 switches them off.

    Returns:
        "ce" and, where switched on, "levels" and "distill", each already weighted.
    """
    parts = {"ce": F.cross_entropy(out.logits, label)}
    if balance:
        z = out.head.level_logits
        names = [name for name in ("1", "2", "both") if name in z]
        parts["levels"] = sum(F.cross_entropy(z[name], label) for name in names) / balance
    if distill:
        text = out.side.text
        drift = F.l1_loss(text, anchors)
        rows = F.l1_loss(mean_row(out.side.rows), text.detach())
        parts["distill"] = distill * (drift + rows)
    return parts
