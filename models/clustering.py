"""Prototypes of a crowd of unit vectors: spherical k-means, without randomness."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from models.blocks import unit

ROUNDS = 8


@torch.no_grad()
def cluster(x: Float[Tensor, "N D"], num_clusters: int) -> Int[Tensor, " N"]:
    """The cluster of each vector.

    The first centre is the first vector, each further one the vector that is least similar to all
    centres so far; then means and assignments take turns. With fewer vectors than clusters some
    clusters stay empty.

    Args:
        x: unit length, at least one.
        num_clusters: at least 1.
    """
    centres = x[:1]
    nearest = x @ x[0]
    for _ in range(min(num_clusters, len(x)) - 1):
        farthest = nearest.argmin()
        centres = torch.cat([centres, x[farthest].unsqueeze(0)])
        nearest = torch.maximum(nearest, x @ x[farthest])
    for _ in range(ROUNDS):
        of = (x @ centres.T).argmax(1)
        total = torch.zeros_like(centres).index_add_(0, of, x)
        filled = total.abs().sum(1, keepdim=True) > 0
        centres = torch.where(filled, unit(total), centres)
    return (x @ centres.T).argmax(1)
