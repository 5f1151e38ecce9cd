"""Top-k accuracy."""

from __future__ import annotations

from collections.abc import Sequence

import torch

__all__ = ["compute_accuracy"]


def compute_accuracy(
    output: torch.Tensor | Sequence[torch.Tensor],
    target: torch.Tensor,
    topk: Sequence[int] = (1,),
) -> list[torch.Tensor]:
    """Compute the share of items whose label is among the k largest scores.

    Args:
        output: Scores (B, C); of a tuple or list the first item is used.
        target: Labels (B,).
        topk: The values of k, each at most C.

    Returns:
        For each k the accuracy in percent, a tensor of shape (1,).
    """
    scores = output if isinstance(output, torch.Tensor) else output[0]
    best = scores.topk(max(topk), dim=1).indices  # (B, max k)
    hits = best == target.view(-1, 1)  # (B, max k)
    return [hits[:, :k].sum().float().view(1) * (100.0 / len(target)) for k in topk]
