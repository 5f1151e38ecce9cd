"""A base prompt tuner with a Spotlighter head on it."""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from models.classifier import CLIPClassifier, Step, Target
from models.clip.blocks import full_precision
from models.clip.image_tower import VisualTokens, require_vit
from models.spotlighter.head import HeadOutput, SpotlighterHead, TextSide
from models.spotlighter.memory import Bank


class SpotlightedOutput(NamedTuple):
    """Everything one forward pass knows; `logits` is the prediction."""

    logits: Float[Tensor, "B C"]
    base_logits: Float[Tensor, "B C"]
    tokens: VisualTokens
    side: TextSide
    head: HeadOutput

    def memory_inputs(self) -> tuple[Tensor, Tensor, Tensor]:
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
    losses = {base.criterion_name: base.criterion(out.logits, target)}
    if balance:
        z = out.head.level_logits
        names = [name for name in ("1", "2", "both") if name in z]
        losses["levels"] = (
            sum(  # type: ignore[assignment]  # there is a level at least
                base.criterion(z[name], target) for name in names
            )
            / balance
        )
    if distill:
        text = out.side.text
        losses["distill"] = distill * F.l1_loss(text, anchors.expand_as(text))
    return losses


class SpotlightedCLIP(nn.Module):
    """Base logits plus what the head adds: one formula, the same in training and at test.

    With the gate at 0 the logits are the base's, bit for bit.
    """

    def __init__(
        self,
        base: CLIPClassifier,
        head: SpotlighterHead,
        *,
        balance: float = 50.0,
        distill: float = 20.0,
    ) -> None:
        """Put the head on the base.

        Args:
            base: a prompt tuner.
            head: for the base's classes.
            balance: divides the loss of the levels; 0 switches it off.
            distill: weighs the ties to the anchors; 0 switches them off.

        Raises:
            ValueError: the backbone has no patch tokens, or fewer than are to be kept.
        """
        super().__init__()
        options = head.options
        require_vit(base.visual.visual)
        left = base.visual.num_patches if base.pruner is None else base.pruner.keep[-1]
        if options.num_keep > left:
            raise ValueError(
                f"TRAINER.SPOTLIGHTER.TOPK must lie in 1..{left} for this backbone and "
                f"MODEL.PRUNE.KEEP, got {options.num_keep}"
            )
        self.base, self.head = base, head
        self.balance, self.distill = balance, distill
        self.patch_path = "value" if options.tokens == "value" else "raw"
        self.learned = nn.ModuleDict({"base": base.learned, "head": head})
        self.learned.register_load_state_dict_post_hook(self.clear_cache)
        self._side: TextSide | None = None
        self._bank: Bank | None = None

    def text_side(self, cls: Float[Tensor, "B D"]) -> TextSide:
        """The text side of the head; its rows, which need no image, are kept while evaluating."""
        text = self.base.text_features(cls)
        if self._side is not None:
            return self._side._replace(text=text)
        with full_precision(text):
            side = self.head.text_side(text, self.read_bank())
        if not self.training:
            self._side = side
        return side

    def read_bank(self) -> Bank:
        """The bank of the current classes; resolved once an evaluation."""
        if self.training:
            return self.head.read_bank()
        if self._bank is None:
            self._bank = self.head.read_bank(self.base.rows)
        return self._bank

    def forward_all(self, image: Float[Tensor, "B 3 H W"]) -> SpotlightedOutput:
        """Logits and all that led to them, for losses, bank updates and pictures."""
        return self.logits_from_tokens(self.base.encode_image(image, self.patch_path))

    def logits_from_tokens(self, tokens: VisualTokens) -> SpotlightedOutput:
        """The same, of pictures that the image tower has seen; unit length."""
        side = self.text_side(tokens.cls)
        base_logits = self.base.classify(tokens.cls, side.text)
        with full_precision(tokens.cls):
            found = self.head(tokens, side, base_logits)
        return SpotlightedOutput(base_logits + found.added, base_logits, tokens, side, found)

    def forward(self, image: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C"]:
        """Logits of normalised pictures at the tower's resolution."""
        return self.forward_all(image).logits

    def step(self, image: Float[Tensor, "B 3 H W"], label: Int[Tensor, " B"]) -> Step:
        """The forward pass of one training step: the head's losses, and the base's own ties."""
        out, base = self.forward_all(image), self.base
        target = base.target(image, label)
        losses = spotlighter_loss(
            out, target, base, self.head.anchors, balance=self.balance, distill=self.distill
        )
        regularisers = base.regularisers(image, out.tokens.cls, out.side.text, out.base_logits)
        return Step(out.logits, target, losses | regularisers, out.memory_inputs())

    def remember(self, step: Step) -> None:
        """Write the batch to the bank."""
        cls, kept, weight = step.memory_inputs
        self.head.memory.update(cls, kept, weight, step.target.label)

    def identity(self) -> dict[str, str]:
        """See `CLIPClassifier.identity`."""
        return self.base.identity()

    def clear_cache(self, *_: object) -> None:
        """Drop what was kept for an evaluation."""
        self._side = self._bank = None

    def train(self, mode: bool = True) -> SpotlightedCLIP:
        """Set the mode and drop what was kept."""
        super().train(mode)
        self.clear_cache()
        return self
