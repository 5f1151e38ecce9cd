"""Learned layers: `HEAD: full` beside the scalars' closed maps, `TOKENS: adapter` on patches.

Each ends in a zero-initialised layer, so a fresh full head equals the lite one.
Source: docs/method.md, section 4.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

HEAD_WIDTH = 64  # channels of one attention head, as in CLIP


def zero_linear(width_in: int, width_out: int) -> nn.Linear:
    """A linear layer that gives zero until it is trained."""
    layer = nn.Linear(width_in, width_out)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def patch_adapter(width: int) -> nn.Sequential:
    """`TOKENS: adapter`: two 1x1 layers on raw patches, zero at the start."""
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), zero_linear(width, width))


class FullHead(nn.Module):
    """Image side: cross-attention from prototypes to patches, then one transformer layer.

    Text side: a linear layer on [prototype; text].
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        heads = max(1, width // HEAD_WIDTH)
        self.cross = nn.MultiheadAttention(width, heads, batch_first=True)
        self.layer = nn.TransformerEncoderLayer(
            width, heads, 2 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.image_out = zero_linear(width, width)
        self.text_out = zero_linear(2 * width, width)

    def image(
        self, kept: Float[Tensor, "B K D"], query: Float[Tensor, "B K D"]
    ) -> Float[Tensor, "B K D"]:
        """What to add to the kept patches of one level."""
        attended, _ = self.cross(query, kept, kept, need_weights=False)
        return self.image_out(self.layer(kept + attended))

    def text(
        self, prototypes: Float[Tensor, "C *M D"], text: Float[Tensor, "C D"]
    ) -> Float[Tensor, "C *M D"]:
        """What to add to the rows of some prototypes of each class."""
        every = text if prototypes.dim() == 2 else text.unsqueeze(1)
        return self.text_out(torch.cat([prototypes, every.expand_as(prototypes)], dim=-1))
