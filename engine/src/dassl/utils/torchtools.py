"""Helpers around torch models: device, parameters, checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

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
    "adjust_learning_rate",
    "choose_device",
    "count_num_param",
    "init_network_weights",
    "load_checkpoint",
    "load_pretrained_weights",
    "open_all_layers",
    "open_specified_layers",
    "resume_from_checkpoint",
    "save_checkpoint",
    "set_bn_to_eval",
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


def set_bn_to_eval(m: nn.Module) -> None:
    """Keep the running statistics of a layer of batch norm; use it with ``model.apply``."""
    if "BatchNorm" in type(m).__name__:
        m.eval()


def adjust_learning_rate(
    optimizer: torch.optim.Optimizer,
    base_lr: float,
    epoch: int,
    stepsize: int = 20,
    gamma: float = 0.1,
    linear_decay: bool = False,
    final_lr: float = 0,
    max_epoch: int = 100,
) -> None:
    """Set the learning rate of an epoch: a step every ``stepsize`` epochs, or a line to the end."""
    done = epoch / max_epoch
    stepped = base_lr * gamma ** (epoch // stepsize)
    for group in optimizer.param_groups:
        group["lr"] = done * final_lr + (1 - done) * base_lr if linear_decay else stepped


def init_network_weights(model: nn.Module, init_type: str = "normal", gain: float = 0.02) -> None:
    """Draw the weights of convolutions and linear layers; biases are 0, norms 1 and 0.

    Args:
        model: The model to fill.
        init_type: ``normal``, ``xavier``, ``kaiming`` or ``orthogonal``.
        gain: Standard deviation of ``normal``, gain of ``xavier`` and ``orthogonal``.

    Raises:
        ValueError: If ``init_type`` is another one.
    """
    draws: dict[str, Callable[[torch.Tensor], object]] = {
        "normal": partial(nn.init.normal_, mean=0.0, std=gain),
        "xavier": partial(nn.init.xavier_normal_, gain=gain),
        "kaiming": partial(nn.init.kaiming_normal_, a=0, mode="fan_in"),
        "orthogonal": partial(nn.init.orthogonal_, gain=gain),
    }
    check_availability(init_type, draws, "init_type")
    for layer in model.modules():
        kind, weight = type(layer).__name__, getattr(layer, "weight", None)
        drawn, norm = "Conv" in kind or "Linear" in kind, "Norm" in kind and "LayerNorm" not in kind
        if weight is None or not (drawn or norm):
            continue
        draws[init_type](weight.data) if drawn else nn.init.ones_(weight.data)
        if getattr(layer, "bias", None) is not None:
            nn.init.zeros_(layer.bias.data)
