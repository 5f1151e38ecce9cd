"""The default configuration and how to trim it."""

from dassl.config.defaults import DEFAULTS
from yacs.config import CfgNode

__all__ = ["cfg_default", "clean_cfg", "get_cfg_default"]

cfg_default = DEFAULTS


def get_cfg_default() -> CfgNode:
    """Return a fresh clone of the defaults, free to be changed."""
    return cfg_default.clone()


def clean_cfg(cfg: CfgNode, trainer: str) -> None:
    """Remove, in place, the nodes of all trainers but one from ``cfg.TRAINER``.

    Args:
        cfg: A config that is not frozen.
        trainer: Name of the trainer whose node (its name in capitals) stays.
    """
    keep = {"NAME", trainer.upper()}
    for key in [key for key in cfg.TRAINER if key not in keep]:
        cfg.TRAINER.pop(key)
