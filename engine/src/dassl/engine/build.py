"""The registry of trainers."""

from typing import Any

from dassl.utils import Registry, build_registered
from yacs.config import CfgNode

__all__ = ["TRAINER_REGISTRY", "build_trainer"]

TRAINER_REGISTRY = Registry("TRAINER")


def build_trainer(cfg: CfgNode) -> Any:
    """Build the trainer that ``cfg.TRAINER.NAME`` names.

    Raises:
        ValueError: If no trainer of that name is registered.
    """
    return build_registered(TRAINER_REGISTRY, "trainer", cfg.TRAINER.NAME, cfg.VERBOSE, cfg)
