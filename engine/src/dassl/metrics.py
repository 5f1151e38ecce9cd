"""Top-k accuracy."""

from collections.abc import Sequence

import torch

__all__ = ["compute_accuracy"]


def compute_accuracy(
    output: torch.Tensor | Sequence[torch.Tensor], target: torch.Tensor, topk: Sequence[int] = (1,)
) -> list[torch.Tensor]:
    """Compute for each k the percentage (1,) of labels (B,) among the k largest scores (B, C).

    Of a tuple or list of outputs the first is used.
    """
    scores = output if isinstance(output, torch.Tensor) else output[0]
    best = scores.topk(max(topk), dim=1).indices  # (B, max k)
    hits = best == target.view(-1, 1)  # (B, max k)
    return [hits[:, :k].sum().float().view(1) * (100.0 / len(target)) for k in topk]
