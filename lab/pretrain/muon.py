"""Muon, momentum made orthogonal, for the weight matrices (Jordan et al., 2024)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import Optimizer


def orthogonalise(matrices: Float[Tensor, "n R C"], steps: int = 5) -> Float[Tensor, "n R C"]:
    """Return matrices with the same singular vectors and singular values near 1.

    Source: the quintic Newton-Schulz iteration of https://kellerjordan.github.io/posts/muon.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(Optimizer):
    """Steps along the orthogonalised, Nesterov-averaged gradient; decoupled weight decay.

    Args:
        params: two-dimensional parameters. Equal shapes are stepped together.
        lr: step size.
        momentum: share of the running average that is kept.
        weight_decay: times `lr` is the share of a weight that is lost per step.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        """Take one step."""
        for group in self.param_groups:
            by_shape = defaultdict(list)
            for param in group["params"]:
                if param.grad is not None:
                    by_shape[param.shape].append(param)
            for params in by_shape.values():
                self._step_alike(params, group)

    def _step_alike(self, params: list[Tensor], group: dict[str, float]) -> None:
        grads = torch.stack([param.grad for param in params])
        buffers = [
            self.state[param].setdefault("momentum", torch.zeros_like(param)) for param in params
        ]
        for buffer, grad in zip(buffers, grads, strict=True):
            buffer.lerp_(grad, 1 - group["momentum"])
        ahead = grads.lerp(torch.stack(buffers), group["momentum"])
        rows, columns = params[0].shape
        length = group["lr"] * max(1, rows / columns) ** 0.5
        for param, update in zip(params, orthogonalise(ahead), strict=True):
            param.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-length)
