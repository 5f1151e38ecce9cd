"""Helpers around torch models: device, parameters, checkpoints."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from dassl.utils.checkpoint import (
    load_checkpoint,
    load_pretrained_weights,
    resume_from_checkpoint,
    save_checkpoint,
)
from dassl.utils.tools import check_availability
from torch import nn

__all__ = [
    "choose_device",
    "count_num_param",
    "load_checkpoint",
    "load_pretrained_weights",
    "open_all_layers",
    "open_specified_layers",
    "resume_from_checkpoint",
    "save_checkpoint",
]


def choose_device(use_cuda: bool = True) -> torch.device:
    """Choose where to compute.

    Args:
        use_cuda: Use an accelerator, if there is one: CUDA, else MPS.
    """
    if use_cuda and torch.cuda.is_available():
        return torch.device("cuda")
    if use_cuda and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def count_num_param(
    model: nn.Module | None = None, params: Iterable[nn.Parameter] | None = None
) -> int:
    """Count the numbers in a model, or in parameters.

    Raises:
        ValueError: If neither is given.
    """
    if model is not None:
        params = model.parameters()
    if params is None:
        raise ValueError("count_num_param needs a model or parameters, got neither")
    return sum(p.numel() for p in params)


def open_all_layers(model: nn.Module) -> None:
    """Set the model to training mode and let every parameter learn."""
    model.train()
    model.requires_grad_(True)


def open_specified_layers(model: nn.Module, open_layers: str | Iterable[str]) -> None:
    """Let some child modules learn, and freeze the others in evaluation mode.

    Args:
        model: The model.
        open_layers: Name or names of its direct children.

    Raises:
        ValueError: If a name is not that of a child.
    """
    if isinstance(model, nn.DataParallel):
        model = model.module
    names = {open_layers} if isinstance(open_layers, str) else set(open_layers)
    children = dict(model.named_children())
    for name in names:
        check_availability(name, children, "layer of the model")
    for name, child in children.items():
        child.train(name in names)
        child.requires_grad_(name in names)
