"""The space in which features and prototypes are compared. docs/method.md, section 2.

Pictures of one class differ by background, place and colour. A direction in which they differ much
says little about the class; the whitened space divides each direction by that spread, learned once
from training features. D joint width.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from models.clip.blocks import unit


class Whitening(nn.Module):
    """x -> unit(W (x - mean)), W the inverse square root of the within-class covariance.

    Before `fit` it is x -> unit(x).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("matrix", torch.eye(width))

    def forward(self, x: Float[Tensor, "*shape D"]) -> Float[Tensor, "*shape D"]:
        """Features in this space, unit length."""
        return unit((x - self.mean) @ self.matrix)

    def whiten_direction(self, direction: Float[Tensor, "*shape D"]) -> Float[Tensor, "*shape D"]:
        """A direction, such as a difference of two features, in this space; unit length."""
        return unit(direction @ self.matrix)

    @torch.no_grad()
    def fit(self, x: Float[Tensor, "N D"], group: Int[Tensor, " N"]) -> None:
        """Learn mean and spread from features and their classes.

        Where no class has two features that differ (one shot), only the mean is learned.
        """
        rows = x.double()
        num_groups = int(group.max()) + 1
        count = torch.zeros(num_groups, device=x.device, dtype=rows.dtype)
        count.index_add_(0, group, torch.ones_like(rows[:, 0]))
        total = rows.new_zeros(num_groups, rows.shape[1]).index_add_(0, group, rows)
        residual = rows - (total / count.clamp_min(1).unsqueeze(1))[group]
        free = len(rows) - int((count > 0).sum())
        self.mean.copy_(rows.mean(0))
        if free > 0 and residual.square().mean() > torch.finfo(x.dtype).eps ** 2:
            covariance = shrunk(residual.T @ residual / free, free)
            value, vector = torch.linalg.eigh(covariance / covariance.diagonal().mean())
            self.matrix.copy_((vector * value.rsqrt()) @ vector.T)
        else:
            self.matrix.copy_(torch.eye(len(self.mean), device=x.device))


def shrunk(covariance: Float[Tensor, "D D"], free: int) -> Float[Tensor, "D D"]:
    """Pull a covariance of `free` degrees of freedom (1 or more) towards a multiple of identity.

    Oracle approximating shrinkage (Chen et al. 2010, https://arxiv.org/abs/0907.4698, eq. 23).
    """
    width = len(covariance)
    trace, squares = covariance.trace(), covariance.square().sum()
    above = (1 - 2 / width) * squares + trace**2
    below = (free + 1 - 2 / width) * (squares - trace**2 / width)
    share = (above / below.clamp_min(torch.finfo(covariance.dtype).tiny)).clamp(max=1)
    target = torch.eye(width, dtype=covariance.dtype, device=covariance.device) * trace / width
    return (1 - share) * covariance + share * target
