"""A prompt tuner with a Spotlighter head on it, and its loss. docs/method.md, sections 5 and 7."""

from typing import NamedTuple

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from models.classifier import CLIPClassifier, Images, Step, TrainedModel
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


class SpotlightedCLIP(TrainedModel):
    """A prompt tuner whose logits are weighed against those of a bank.

    The tuner is trained by its own loss; then the head is filled and fitted
    (`evidence.fill_and_fit`). With GATE False the logits are the tuner's, bit for bit.
    """

    def __init__(
        self, base: CLIPClassifier, head: SpotlighterHead, *, distill: float = 20.0
    ) -> None:
        """Put the head on a prompt tuner of the same classes; for the weight see `step`."""
        super().__init__()
        require_vit(base.visual.visual)
        left = base.visual.num_patches if base.pruner is None else base.pruner.keep[-1]
        if head.options.topk > left:
            raise ValueError(
                f"TRAINER.SPOTLIGHTER.TOPK must lie in 1..{left} for this backbone and "
                f"MODEL.PRUNE.KEEP, got {head.options.topk}"
            )
        self.base, self.head, self.distill = base, head, distill
        self.patch_path = head.options.tokens
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

    def forward_all(self, image: Images) -> SpotlightedOutput:
        """Logits and all that they were computed from."""
        return self.logits_from_tokens(self.base.encode_image(image, self.patch_path))

    def logits_from_tokens(self, tokens: VisualTokens) -> SpotlightedOutput:
        """Logits and all that they come from, given unit-length tokens of the image tower."""
        side = self.text_side(tokens.cls)
        base_logits = self.base.classify(tokens.cls, side.text)
        with full_precision(tokens.cls):
            out = self.head(tokens, side, base_logits)
        logits = out.logits if self.head.options.gate else base_logits
        return SpotlightedOutput(logits, base_logits, tokens, side, out)

    def forward(self, image: Images) -> Float[Tensor, "B C"]:
        """Logits of pictures."""
        return self.forward_all(image).logits

    def step(self, image: Images, label: Int[Tensor, " B"]) -> Step:
        """The base's training step, and the distance of its text features to the anchors.

        `distill` weighs the distance; 0 switches it off.
        """
        step = self.base.step(image, label)
        if not self.distill:
            return step
        drift = F.l1_loss(step.text, self.head.anchors.expand_as(step.text))
        return step._replace(losses=step.losses | {"distill": self.distill * drift})

    def update_memory(self, step: Step) -> None:
        """What the base writes."""
        self.base.update_memory(step)

    def identity(self) -> dict[str, str]:
        """What the base needs."""
        return self.base.identity()

    def clear_cache(self, *_: object) -> None:
        """Drop what was kept for an evaluation."""
        self._side = None
