"""Heads: features to features."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from dassl.utils import Registry, build_registered, check_availability
from torch import nn

__all__ = ["HEAD_REGISTRY", "MLP", "build_head", "mlp"]

HEAD_REGISTRY = Registry("HEAD")
ACTIVATIONS = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU}


class MLP(nn.Module):
    """Linear layers, each with batch norm (if chosen), activation and dropout.

    Args:
        in_features: Size of a feature.
        hidden_layers: Sizes of the layers; the last one is ``out_features``.
        activation: ``relu`` or ``leaky_relu``.
        bn: Use batch norm.
        dropout: Probability to drop, from 0 to 1.

    Raises:
        ValueError: If there is no layer, or the activation is another one.
    """

    def __init__(
        self,
        in_features: int = 2048,
        hidden_layers: int | Sequence[int] = (),
        activation: str = "relu",
        bn: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        sizes = [hidden_layers] if isinstance(hidden_layers, int) else list(hidden_layers)
        if not sizes:
            raise ValueError("a head needs the sizes of its layers (HEAD.HIDDEN_LAYERS), got none")
        check_availability(activation, ACTIVATIONS, "activation (HEAD.ACTIVATION)")
        layers: list[nn.Module] = []
        for size_in, size_out in pairwise([in_features, *sizes]):
            layers.append(nn.Linear(size_in, size_out))
            layers += [nn.BatchNorm1d(size_out)] * bn
            layers.append(ACTIVATIONS[activation](inplace=True))
            layers += [nn.Dropout(dropout)] * (dropout > 0)
        self.mlp = nn.Sequential(*layers)
        self.out_features = sizes[-1]

    def forward(self, x: torch.Tensor) -> Any:
        """Turn features (B, in_features) into (B, out_features)."""
        return self.mlp(x)


def mlp(**kwargs: Any) -> MLP:
    """Build an MLP."""
    return MLP(**kwargs)


HEAD_REGISTRY.register(mlp)
build_head = partial(build_registered, HEAD_REGISTRY, "head")
