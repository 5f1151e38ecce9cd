"""Optimisers by name."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from dassl.utils import check_availability
from torch import nn, optim
from yacs.config import CfgNode

__all__ = ["AVAI_OPTIMS", "build_optimizer"]

logger = logging.getLogger(__name__)

AVAI_OPTIMS = ["adam", "amsgrad", "sgd", "rmsprop", "radam", "adamw"]


def _constructors(cfg: CfgNode) -> dict[str, Callable[..., optim.Optimizer]]:
    betas = (cfg.ADAM_BETA1, cfg.ADAM_BETA2)
    sgd = partial(
        optim.SGD,
        momentum=cfg.MOMENTUM,
        dampening=cfg.SGD_DAMPNING,
        nesterov=cfg.SGD_NESTEROV,
    )
    return {
        "adam": partial(optim.Adam, betas=betas),
        "amsgrad": partial(optim.Adam, betas=betas, amsgrad=True),
        "sgd": sgd,
        "rmsprop": partial(optim.RMSprop, momentum=cfg.MOMENTUM, alpha=cfg.RMSPROP_ALPHA),
        "radam": partial(optim.RAdam, betas=betas),
        "adamw": partial(optim.AdamW, betas=betas),
    }


def _staged_groups(model: nn.Module, cfg: CfgNode) -> list[dict[str, Any]]:
    """Split parameters by child module: those in NEW_LAYERS at LR, the rest at a share of it."""
    if isinstance(model, nn.DataParallel):
        model = model.module
    new_layers = [cfg.NEW_LAYERS] if isinstance(cfg.NEW_LAYERS, str) else list(cfg.NEW_LAYERS)
    children = dict(model.named_children())
    for name in new_layers:
        check_availability(name, children, "layer of the model (OPTIM.NEW_LAYERS)")
    base = [
        p for name, child in children.items() if name not in new_layers for p in child.parameters()
    ]
    new = [p for name in new_layers for p in children[name].parameters()]
    groups = [{"params": base, "lr": cfg.LR * cfg.BASE_LR_MULT}, {"params": new}]
    return [group for group in groups if group["params"]]


def build_optimizer(
    model: nn.Module | Iterable[Any],
    optim_cfg: CfgNode,
    param_groups: Iterable[Any] | None = None,
) -> optim.Optimizer:
    """Build the optimiser that ``optim_cfg.NAME`` names.

    Args:
        model: A module, or parameters or parameter groups.
        optim_cfg: The node ``cfg.OPTIM``.
        param_groups: Parameters or groups to use instead of the model's.

    Raises:
        ValueError: If the name is unknown, or a layer in NEW_LAYERS does not exist.
        TypeError: If STAGED_LR is on and ``model`` is not a module.
    """
    constructors = _constructors(optim_cfg)
    check_availability(optim_cfg.NAME, AVAI_OPTIMS, "optimizer (OPTIM.NAME)")
    if param_groups is not None:
        if optim_cfg.STAGED_LR:
            logger.warning("OPTIM.STAGED_LR is ignored, because param_groups are given")
    elif optim_cfg.STAGED_LR:
        if not isinstance(model, nn.Module):
            raise TypeError(
                "OPTIM.STAGED_LR needs a module whose layers can be told apart, "
                f"got {type(model).__name__}"
            )
        param_groups = _staged_groups(model, optim_cfg)
    else:
        param_groups = model.parameters() if isinstance(model, nn.Module) else model
    build = constructors[optim_cfg.NAME]
    return build(param_groups, lr=optim_cfg.LR, weight_decay=optim_cfg.WEIGHT_DECAY)
