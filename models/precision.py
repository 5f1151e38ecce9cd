"""Contexts of floating point precision, on any device."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn


def full_precision(x: Tensor) -> AbstractContextManager[Any]:
    """Switch autocast off on the tensor's device: features and heads are float32."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision becomes float32; float64 stays, so that a whole model can run in it."""
    return x if x.dtype == torch.float64 else x.float()


def cast_products(module: nn.Module, dtype: torch.dtype) -> None:
    """Store the weights of matrix products in another dtype; LayerNorms and embeddings stay."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv2d | nn.MultiheadAttention):
            own: Iterable[Any] = part.parameters(recurse=False)
        else:
            own = (getattr(part, name, None) for name in ("proj", "text_projection"))
        for parameter in own:
            if isinstance(parameter, nn.Parameter):
                parameter.data = parameter.data.to(dtype)
