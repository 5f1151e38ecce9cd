"""A prompt tuner with a Spotlighter head on it, and its loss. docs/method.md, sections 5 and 6."""

from typing import NamedTuple

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from models.classifier import CLIPClassifier, Step, Target, TrainedModel
from models.clip.blocks import full_precision
from models.clip.image_tower import VisualTokens, require_vit
from models.spotlighter.head import HeadOutput, SpotlighterHead, TextSide


class SpotlightedOutput(NamedTuple):
    """Everything that one forward pass computes."""

    logits: Float[Tensor, "B C"]
    base_logits: Float[Tensor, "B C"]
    tokens: VisualTokens
    side: TextSide
    head: HeadOutput

    def memory_inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """What the bank is written from: class tokens, kept patches, their weights; no gradient."""
        kept = self.head.selection
        return self.tokens.cls.detach(), kept.tokens.detach(), kept.weight.detach()


class SpotlightedCLIP(TrainedModel):
    """Base logits plus what the head adds: one formula, the same in training and at test.

    With the gate at 0 the logits are the base's, bit for bit.
    """

    def __init__(
        self, base: CLIPClassifier, head: SpotlighterHead, *,
        balance: float = 50.0, distill: float = 20.0,
    ) -> None:
        """Put the head on a prompt tuner of the same classes; for the weights see `losses`."""
        super().__init__()
        require_vit(base.visual.visual)
        left = base.visual.num_patches if base.pruner is None else base.pruner.keep[-1]
        if head.options.topk > left:
            raise ValueError(
                f"TRAINER.SPOTLIGHTER.TOPK must lie in 1..{left} for this backbone and "
                f"MODEL.PRUNE.KEEP, got {head.options.topk}"
            )
        self.base, self.head = base, head
        self.balance, self.distill = balance, distill
        self.patch_path = "value" if head.options.tokens == "value" else "raw"
        self.learn(nn.ModuleDict({"base": base.learned, "head": head}))
        self._side: TextSide | None = None

    @property
    def tuner(self) -> CLIPClassifier:
        """The base."""
        return self.base

    def text_side(self, cls: Float[Tensor, "B D"]) -> TextSide:
        """The text side of the head; its rows are kept while evaluating."""
        text = self.base.text_features(cls)
        if self._side is not None:
            return self._side._replace(text=text)
        with full_precision(text):
            side = self.head.text_side(text, None if self.training else self.base.rows)
        if not self.training:
            self._side = side
        return side

    def forward_all(self, image: Float[Tensor, "B 3 H W"]) -> SpotlightedOutput:
        """Logits and all that they were computed from."""
        return self.logits_from_tokens(self.base.encode_image(image, self.patch_path))

    def logits_from_tokens(self, tokens: VisualTokens) -> SpotlightedOutput:
        """Logits and all that they come from, given unit-length tokens of the image tower."""
        side = self.text_side(tokens.cls)
        base_logits = self.base.classify(tokens.cls, side.text)
        with full_precision(tokens.cls):
            out = self.head(tokens, side, base_logits)
        return SpotlightedOutput(base_logits + out.added, base_logits, tokens, side, out)

    def forward(self, image: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C"]:
        """Logits of normalised pictures at the tower's resolution."""
        return self.forward_all(image).logits

    def losses(self, out: SpotlightedOutput, target: Target) -> dict[str, Float[Tensor, ""]]:
        """The head's losses, weighted: their sum is minimised.

        The base's criterion measures how predictions fit the target: cross-entropy, or with a
        teacher the divergence. `balance` divides that of the levels, `distill` weighs the distance
        of text features to the anchors; 0 switches a term off.
        """
        base, z, text = self.base, out.head.level_logits, out.side.text
        losses = {base.criterion_name: base.criterion(out.logits, target)}
        if self.balance:
            levels = [base.criterion(z[name], target) for name in ("1", "2", "both") if name in z]
            losses["levels"] = sum(levels) / self.balance  # type: ignore[assignment]  # never empty
        if self.distill:
            anchors = self.head.anchors.expand_as(text)
            losses["distill"] = self.distill * F.l1_loss(text, anchors)
        return losses

    def step(self, image: Float[Tensor, "B 3 H W"], label: Int[Tensor, " B"]) -> Step:
        """The forward pass of one training step, with the losses of the head and of the base."""
        out, base = self.forward_all(image), self.base
        target = base.target(image, label)
        losses = self.losses(out, target)
        losses |= base.regularisers(image, out.tokens.cls, out.side.text, out.base_logits)
        return Step(out.logits, target, losses, out.memory_inputs())

    def update_memory(self, step: Step) -> None:
        """Write the batch to the bank."""
        self.head.memory.update(*step.memory_inputs, step.target.label)

    def identity(self) -> dict[str, str]:
        """What the base needs."""
        return self.base.identity()

    def clear_cache(self, *_: object) -> None:
        """Drop what was kept for an evaluation."""
        self._side = None
