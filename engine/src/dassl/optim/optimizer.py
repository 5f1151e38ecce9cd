"""Optimisers by name."""

import logging
from collections.abc import Iterable
from typing import Any

from dassl.utils import check_availability
from torch import nn, optim
from yacs.config import CfgNode

__all__ = ["build_optimizer"]

logger = logging.getLogger(__name__)


def _constructors(cfg: CfgNode) -> dict[str, tuple[type[optim.Optimizer], dict[str, Any]]]:
    """Return the class and the arguments of each optimiser, by name."""
    betas = {"betas": (cfg.ADAM_BETA1, cfg.ADAM_BETA2)}
    momentum = {"momentum": cfg.MOMENTUM}
    sgd = {"dampening": cfg.SGD_DAMPNING, "nesterov": cfg.SGD_NESTEROV}
    return {
        "adam": (optim.Adam, betas),
        "amsgrad": (optim.Adam, {**betas, "amsgrad": True}),
        "sgd": (optim.SGD, {**momentum, **sgd}),
        "rmsprop": (optim.RMSprop, {**momentum, "alpha": cfg.RMSPROP_ALPHA}),
        "radam": (optim.RAdam, betas),
        "adamw": (optim.AdamW, betas),
    }


def _staged_groups(model: nn.Module, cfg: CfgNode) -> list[dict[str, Any]]:
    """Split parameters by child module: those in NEW_LAYERS at LR, the rest at a share of it."""
    if isinstance(model, nn.DataParallel):
        model = model.module
    new_layers = [cfg.NEW_LAYERS] if isinstance(cfg.NEW_LAYERS, str) else list(cfg.NEW_LAYERS)
    children = dict(model.named_children())
    for name in new_layers:
        check_availability(name, children, "layer of the model (OPTIM.NEW_LAYERS)")
    old_layers = [name for name in children if name not in new_layers]
    base = [p for name in old_layers for p in children[name].parameters()]
    new = [p for name in new_layers for p in children[name].parameters()]
    groups = [{"params": base, "lr": cfg.LR * cfg.BASE_LR_MULT}, {"params": new}]
    return [group for group in groups if group["params"]]


def build_optimizer(
    model: nn.Module | Iterable[Any], optim_cfg: CfgNode, param_groups: Iterable[Any] | None = None
) -> optim.Optimizer:
    """Build the optimiser that ``optim_cfg.NAME`` names.

    ``model`` is a module, parameters or parameter groups; ``param_groups`` are used instead. Raises
    ValueError if the name is unknown, or a layer in NEW_LAYERS does not exist; TypeError if
    STAGED_LR is on and ``model`` is not a module.
    """
    constructors = _constructors(optim_cfg)
    check_availability(optim_cfg.NAME, constructors, "optimizer (OPTIM.NAME)")
    if param_groups is not None:
        if optim_cfg.STAGED_LR:
            logger.warning("OPTIM.STAGED_LR is ignored, because param_groups are given")
    elif optim_cfg.STAGED_LR:
        if not isinstance(model, nn.Module):
            raise TypeError(
                f"OPTIM.STAGED_LR needs a module with named layers, got {type(model).__name__}"
            )
        param_groups = _staged_groups(model, optim_cfg)
    else:
        param_groups = model.parameters() if isinstance(model, nn.Module) else model
    kind, arguments = constructors[optim_cfg.NAME]
    common = {"lr": optim_cfg.LR, "weight_decay": optim_cfg.WEIGHT_DECAY}
    return kind(param_groups, **common, **arguments)
