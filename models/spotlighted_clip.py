"""A base prompt tuner with a Spotlighter head on it."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from models.classifier import CLIPClassifier
from models.precision import full_precision
from models.spotlighter import HeadOutput, SpotlighterHead, TextSide
from models.visual_encoder import VisualTokens


class SpotlightedOutput(NamedTuple):
    """Everything one forward pass knows; `logits` is the prediction."""

    logits: Float[Tensor, "B C"]
    tokens: VisualTokens
    side: TextSide
    head: HeadOutput

    def evidence(self) -> tuple[Tensor, Tensor, Tensor]:
        """What the bank is written from: class tokens, kept patches, their weights; no gradient."""
        kept = self.head.selection
        return self.tokens.cls.detach(), kept.tokens.detach(), kept.weight.detach()


class SpotlightedCLIP(nn.Module):
    """Base logits plus what the head adds: one formula, the same in training and at test.

    With the gate at 0 the logits are the base's, bit for bit.
    """

    def __init__(self, base: CLIPClassifier, head: SpotlighterHead) -> None:
        """Put the head on the base.

        Raises:
            ValueError: the backbone has no patch tokens, or fewer than are to be kept.
        """
        super().__init__()
        options = head.options
        if not base.visual.has_patches:
            raise ValueError(
                "Spotlighter needs patch tokens, and a ResNet backbone has none; "
                "choose a ViT (MODEL.BACKBONE.NAME), or the trainer CoOp for a ResNet"
            )
        if options.num_keep > base.visual.num_patches:
            raise ValueError(
                f"TRAINER.SPOTLIGHTER.TOPK must lie in 1..{base.visual.num_patches} for this "
                f"backbone, got {options.num_keep}"
            )
        self.base, self.head = base, head
        self.patch_path = "value" if options.tokens == "value" else "raw"
        self.learned = nn.ModuleDict({"base": base.learned, "head": head})
        self.learned.register_load_state_dict_post_hook(self.forget)
        self._side: TextSide | None = None

    def text_side(self) -> TextSide:
        """The text side of the head, kept while evaluating."""
        if self._side is not None:
            return self._side
        text = self.base.text_features()
        with full_precision(text):
            side = self.head.text_side(text)
        if not self.training:
            self._side = side
        return side

    def analyse(self, image: Float[Tensor, "B 3 H W"]) -> SpotlightedOutput:
        """Logits and all that led to them, for losses, bank updates and pictures."""
        tokens = self.base.encode_image(image, self.patch_path)
        side = self.text_side()
        base_logits = self.base.classify(tokens.cls, side.text)
        with full_precision(tokens.cls):
            found = self.head(tokens, side, base_logits, self.base.scale)
        return SpotlightedOutput(base_logits + found.added, tokens, side, found)

    def forward(self, image: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C"]:
        """Logits of normalised pictures at the tower's resolution."""
        return self.analyse(image).logits

    def forget(self, *_: object) -> None:
        """Drop what was kept for an evaluation."""
        self._side = None

    def train(self, mode: bool = True) -> SpotlightedCLIP:
        """Set the mode and drop what was kept."""
        super().train(mode)
        self.forget()
        return self
