"""Other styles of a drawing: dark outlines, line art."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def outline(
    drawing: Float[Tensor, "n 4 64 64"], strength: Float[Tensor, "n 1 1 1"]
) -> Float[Tensor, "n 4 64 64"]:
    """Draw dark lines round the shape and along the strong edges inside."""
    if len(drawing) == 0:
        return drawing
    colour, alpha = drawing[:, :3], _dilate(drawing[:, 3:])
    inner = 1 - _dilate(1 - drawing[:, 3:])
    grey = colour.mean(1, keepdim=True)
    spread = _dilate(grey) + _dilate(1 - grey) - 1
    edge = (spread > 0.15 + 0.35 * strength).float() * alpha
    line = torch.maximum(edge, alpha - inner).clamp(0, 1)
    return torch.cat([colour * (1 - line), alpha], 1)


def _dilate(x: Float[Tensor, "n k 64 64"]) -> Float[Tensor, "n k 64 64"]:
    """Return the greatest of each pixel and its neighbours; several times faster than pooling."""
    for dim in (2, 3):
        length = x.shape[dim]
        wide = torch.cat([x.narrow(dim, 0, 1), x, x.narrow(dim, length - 1, 1)], dim)
        x = torch.maximum(
            torch.maximum(wide.narrow(dim, 0, length), x), wide.narrow(dim, 2, length)
        )
    return x


def line_art(drawing: Float[Tensor, "n 4 64 64"]) -> Float[Tensor, "n 4 64 64"]:
    """Keep dark pixels and strong edges as ink, and turn the rest into white paper."""
    if len(drawing) == 0:
        return drawing
    inked = outline(drawing, torch.full((len(drawing), 1, 1, 1), 0.3))
    grey = inked[:, :3].mean(1, keepdim=True)
    paper = torch.where(grey < 0.3 * inked[:, 3:], 0.15, 0.96) * inked[:, 3:]
    return torch.cat([paper.expand(-1, 3, -1, -1), inked[:, 3:]], 1)
