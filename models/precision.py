"""Contexts of floating point precision, on any device."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def autocast(x: Tensor, dtype: torch.dtype | None) -> AbstractContextManager:
    """Automatic mixed precision on the tensor's device; None leaves things as they are."""
    if dtype is None or x.is_meta:
        return nullcontext()
    return torch.autocast(x.device.type, dtype=dtype)


def full_precision(x: Tensor) -> AbstractContextManager:
    """Switch autocast off on the tensor's device: features and heads are float32."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)
