"""The training loss of Spotlighter. Source: docs/method.md, section 6."""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from models.classifier import CLIPClassifier, Target
from models.spotlighter import HeadOutput, TextSide
from models.visual_encoder import VisualTokens


class SpotlightedOutput(NamedTuple):
    """Everything one forward pass knows; `logits` is the prediction."""

    logits: Float[Tensor, "B C"]
    base_logits: Float[Tensor, "B C"]
    tokens: VisualTokens
    side: TextSide
    head: HeadOutput

    def evidence(self) -> tuple[Tensor, Tensor, Tensor]:
        """What the bank is written from: class tokens, kept patches, their weights; no gradient."""
        kept = self.head.selection
        return self.tokens.cls.detach(), kept.tokens.detach(), kept.weight.detach()


def spotlighter_loss(
    out: SpotlightedOutput,
    target: Target,
    base: CLIPClassifier,
    anchors: Float[Tensor, "C D"],
    *,
    balance: float,
    distill: float,
) -> dict[str, Float[Tensor, ""]]:
    """The parts of the loss; their sum is what is minimised.

    Args:
        out: of the model, in training mode.
        target: the true classes, or a teacher's predictions.
        base: its criterion measures how predictions fit the target: cross-entropy, or with a
            teacher the divergence.
        anchors: text0, unit length.
        balance: divides the level losses; 0 switches them off.
        distill: weighs the tie to the anchors; 0 switches it off.

    Returns:
        The base's criterion and, where switched on, "levels" and "distill", each already weighted.
    """
    parts = {base.criterion_name: base.criterion(out.logits, target)}
    if balance:
        z = out.head.level_logits
        names = [name for name in ("1", "2", "both") if name in z]
        parts["levels"] = (
            sum(  # type: ignore[assignment]  # there is a level at least
                base.criterion(z[name], target) for name in names
            )
            / balance
        )
    if distill:
        text = out.side.text
        parts["distill"] = distill * F.l1_loss(text, anchors.expand_as(text))
    return parts
