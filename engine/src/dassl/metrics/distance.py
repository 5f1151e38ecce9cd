"""Distances between the rows of two matrices."""

from __future__ import annotations

import torch
from dassl.utils import check_availability
from torch.nn import functional as F

__all__ = ["compute_distance_matrix", "cosine_distance", "euclidean_squared_distance"]


def euclidean_squared_distance(input1: torch.Tensor, input2: torch.Tensor) -> torch.Tensor:
    """Return squared Euclidean distances (M, N) of rows (M, D) and (N, D)."""
    squares = input1.square().sum(dim=1, keepdim=True) + input2.square().sum(dim=1)  # (M, N)
    return squares - 2 * input1 @ input2.t()


def cosine_distance(input1: torch.Tensor, input2: torch.Tensor) -> torch.Tensor:
    """Return 1 - cosine, 0 to 2, as (M, N), of rows (M, D) and (N, D)."""
    return 1 - F.normalize(input1, dim=1) @ F.normalize(input2, dim=1).t()


METRICS = {"euclidean": euclidean_squared_distance, "cosine": cosine_distance}


def compute_distance_matrix(
    input1: torch.Tensor, input2: torch.Tensor, metric: str = "euclidean"
) -> torch.Tensor:
    """Return distances (M, N) of rows (M, D) and (N, D).

    Args:
        input1: The first matrix.
        input2: The second one.
        metric: ``euclidean`` (squared) or ``cosine``.

    Raises:
        ValueError: If the metric is another one.
    """
    check_availability(metric, METRICS, "metric")
    return METRICS[metric](input1, input2)
