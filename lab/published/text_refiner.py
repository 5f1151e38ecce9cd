"""TextRefiner on CoOp: text features refined by a memory of image tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from lab.published.adapter import adapt, running_statistics
from lab.published.common import Parts, Published, encode_prompts, encode_tokens, normalise, total
from lab.published.coop import placeholder
from lab.published.refinement import (
    ADAPTER,
    Settings,
    distance,
    refine_text,
    rows_loss,
    token_rows,
    write_memory,
)


class PublishedTextRefiner(Published):
    """TextRefiner, CoOp variant.

    Args:
        clip: see `Published`.
        class_names: see `Published`.
        learned: "ctx" as in CoOp, "mid_image_trans.conv1.i.weight" and ".bias" for i = 0, 1, 3, see
            `lab.published.adapter`, and "extractor.weight" (D, 2 D).
        memory_item: S slots of unit length.
        prefix: placeholder of M words; None for "X X ... X".
        settings: balance, distill, alpha, momentum, see `refinement.Settings`.

    Source: Xie et al., AAAI 2025, https://arxiv.org/abs/2412.08176
    """

    def __init__(
        self,
        clip: nn.Module,
        class_names: Sequence[str],
        learned: Mapping[str, Tensor],
        *,
        memory_item: Float[Tensor, "S D"],
        prefix: str | None = None,
        **settings: float,
    ) -> None:
        prefix = placeholder(learned["ctx"]) if prefix is None else prefix
        super().__init__(clip, class_names, learned, prefix=prefix)
        self.settings = Settings(**settings)
        self.memory_item = memory_item.detach().clone()
        self.running_mean, self.running_var = running_statistics(self.learned, ADAPTER)

    def text(self) -> Float[Tensor, "C D"]:
        """Unit-length text features, before the memory."""
        prompts = self.prompts(self.learned["ctx"])
        return normalise(encode_prompts(self.clip, prompts, self.ids))

    def refine(self, text: Float[Tensor, "C D"]) -> Float[Tensor, "C D"]:
        """Text features after the memory, not unit length."""
        weight = self.learned["extractor.weight"]
        return refine_text(text, self.memory_item, weight, self.settings.alpha)

    def adapt(self, tokens: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """Tokens as the memory takes them; all of a batch share the norm's statistics."""
        rows, statistics = tokens.flatten(0, 1), (self.running_mean, self.running_var)
        return adapt(rows, self.learned, ADAPTER, statistics, self.training).view_as(tokens)

    def write(self, x: Float[Tensor, "B L D"]) -> None:
        """Put adapted tokens into the memory."""
        self.memory_item = write_memory(self.memory_item, x, self.settings.momentum)

    def logits(
        self, images: Float[Tensor, "B 3 S S"], text: Float[Tensor, "C D"] | None = None
    ) -> Float[Tensor, "B C"]:
        """Image features times refined text; the memory is read, not written."""
        text = self.text() if text is None else text
        return self.scale * self.image(images) @ self.refine(text).t()

    def loss(
        self, images: Float[Tensor, "B 3 S S"], labels: Int[Tensor, " B"]
    ) -> tuple[Tensor, Parts]:
        """Cross-entropy of images and of tokens, and the way text went; then writes the memory."""
        tokens, attention = encode_tokens(self.clip, images)  # (B, L, D), (B, N)
        text = self.text()
        refined = self.refine(text)
        logits = self.scale * normalise(tokens[:, 0]) @ refined.t()  # (B, C)
        x = self.adapt(tokens)
        if self.training:
            self.write(x)
        rows = token_rows(x, attention, offset=1)
        return total(
            {
                "ce": F.cross_entropy(logits, labels),
                "tokens": rows_loss(rows, text, labels, self.scale) / self.settings.balance,
                "text": self.settings.distill * distance(refined, text),
            }
        )
