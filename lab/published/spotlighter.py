"""Spotlighter on CoOp, as its released code computes it, mistakes included."""

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
    read_memory,
    refine_text,
    rows_loss,
    token_rows,
    write_memory,
)

HEADS = 8


class PublishedSpotlighter(Published):
    """Released Spotlighter, CoOp variant.

    Differs from `PublishedTextRefiner` in: the image reads the memory too, through attention to a
    single key; three sets of tokens; and top-k indices that count patches but gather tokens.

    Args:
        clip: see `Published`.
        class_names: see `Published`.
        learned: those of `PublishedTextRefiner`, and "query", "key", "value", "out", each with
            ".weight" (D, D) and ".bias"; D is a multiple of 8.
        memory_item: S slots of unit length.
        prefix: placeholder of M words; None for "X X ... X".
        dropout: of the attention weights, in training.
        settings: balance, distill, alpha, momentum, see `refinement.Settings`.

    Source: https://arxiv.org/abs/2509.00905, by the released code, not by the paper
    """

    def __init__(
        self,
        clip: nn.Module,
        class_names: Sequence[str],
        learned: Mapping[str, Tensor],
        *,
        memory_item: Float[Tensor, "S D"],
        prefix: str | None = None,
        dropout: float = 0.1,
        **settings: float,
    ) -> None:
        prefix = placeholder(learned["ctx"]) if prefix is None else prefix
        super().__init__(clip, class_names, learned, prefix=prefix)
        self.settings = Settings(**settings)
        self.dropout = dropout
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

    def linear(self, x: Float[Tensor, "B D"], name: str) -> Float[Tensor, "B D"]:
        """One of the four maps of the attention."""
        return F.linear(x, self.learned[f"{name}.weight"], self.learned[f"{name}.bias"])

    def attend(self, image: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        """Attention of each image to its single read of the memory; the softmax is always 1."""
        read = read_memory(image, self.memory_item)
        query, key, value = (
            self.linear(x, name).view(len(x), HEADS, 1, -1)  # (B, H, 1, D / H)
            for x, name in ((image, "query"), (read, "key"), (read, "value"))
        )
        scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5  # (B, H, 1, 1)
        weights = F.dropout(scores.softmax(dim=-1), self.dropout, self.training)
        return self.linear((weights @ value).flatten(1), "out")  # (B, D)

    def mix(
        self, image: Float[Tensor, "B D"], attended: Float[Tensor, "B D"]
    ) -> Float[Tensor, "B D"]:
        """Image features with a share of the attended; it differs between training and test."""
        share = 0.05 if self.training else 0.1
        return (1 - share) * image + share * attended

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
        """Mixed image features times refined text; the memory is read, not written."""
        text = self.text() if text is None else text
        image = self.image(images)
        return self.scale * self.mix(image, self.attend(image)) @ self.refine(text).t()

    def loss(
        self, images: Float[Tensor, "B 3 S S"], labels: Int[Tensor, " B"]
    ) -> tuple[Tensor, Parts]:
        """TextRefiner's loss with three sets of tokens and the way the image went; then writes."""
        tokens, attention = encode_tokens(self.clip, images)  # (B, L, D), (B, N)
        image, text = normalise(tokens[:, 0]), self.text()
        refined, attended = self.refine(text), self.attend(image)
        logits = self.scale * self.mix(image, attended) @ refined.t()  # (B, C)
        x = self.adapt(tokens)
        if self.training:
            self.write(x)
        parts = {
            "ce": F.cross_entropy(logits, labels),
            "text": self.settings.distill * distance(refined, text),
            "image": self.settings.distill * distance(attended, image),
        }
        return total(parts | self.token_parts(token_rows(x, attention, offset=0), text, labels))

    def token_parts(
        self, rows: Float[Tensor, "B 7 D"], text: Float[Tensor, "C D"], labels: Int[Tensor, " B"]
    ) -> Parts:
        """Losses of all tokens, of the first two, of the last three; class and mean in each."""
        sets = {"tokens": slice(None), "tokens_top": [0, 1, 2, 6], "tokens_low": [0, 3, 4, 5, 6]}
        return {
            name: rows_loss(rows[:, where], text, labels, self.scale) / self.settings.balance
            for name, where in sets.items()
        }
