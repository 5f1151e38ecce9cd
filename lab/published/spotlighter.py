"""Spotlighter on CoOp, as its released code computes it, mistakes included."""

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from lab.published.common import Loss, normalise, total
from lab.published.text_refiner import PublishedTextRefiner, distance, read_memory, token_rows

HEADS = 8
DROPOUT = 0.1  # of the attention weights, in training


class PublishedSpotlighter(PublishedTextRefiner):
    """Released Spotlighter, CoOp variant.

    Differs from `PublishedTextRefiner` in: the image reads the memory too, through attention to a
    single key; three sets of tokens; and top-k indices that count patches but gather tokens.

    Args:
        learned: those of `PublishedTextRefiner`, and "query", "key", "value", "out", each with
            ".weight" (D, D) and ".bias"; D is a multiple of 8.

    Source: https://arxiv.org/abs/2509.00905, by the released code, not by the paper
    """

    def attend(self, image: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        """Attention of each image to its single read of the memory; the softmax is always 1."""
        read = read_memory(image, self.memory_item)
        query, key, value = (
            self.linear(x, name).view(len(x), HEADS, 1, -1)  # (B, H, 1, D / H)
            for x, name in ((image, "query"), (read, "key"), (read, "value"))
        )
        scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5  # (B, H, 1, 1)
        weights = F.dropout(scores.softmax(dim=-1), DROPOUT, self.training)
        return self.linear((weights @ value).flatten(1), "out")  # (B, D)

    def mix(
        self, image: Float[Tensor, "B D"], attended: Float[Tensor, "B D"]
    ) -> Float[Tensor, "B D"]:
        """Image features with a share of the attended; it differs between training and test."""
        share = 0.05 if self.training else 0.1
        return (1 - share) * image + share * attended

    def logits(self, images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B C"]:
        """Mixed image features times refined text; the memory is read, not written."""
        image = self.image(images)
        return self.scale * self.mix(image, self.attend(image)) @ self.refine(self.text()).t()

    def loss(self, images: Float[Tensor, "B 3 S S"], labels: Int[Tensor, " B"]) -> Loss:
        """TextRefiner's loss with three sets of tokens and the distance of the image."""
        tokens, attention = self.tokens(images)  # (B, L, D), (B, N)
        image, text = normalise(tokens[:, 0]), self.text()
        refined, attended = self.refine(text), self.attend(image)
        logits = self.scale * self.mix(image, attended) @ refined.t()  # (B, C)
        rows = token_rows(self.write(tokens), attention, offset=0)
        sets = {"tokens": slice(None), "tokens_top": [0, 1, 2, 6], "tokens_low": [0, 3, 4, 5, 6]}
        return total(
            {
                "ce": F.cross_entropy(logits, labels),
                "text": distance(refined, text),
                "image": distance(attended, image),
                **{n: self.rows_loss(rows[:, kept], text, labels) for n, kept in sets.items()},
            }
        )
