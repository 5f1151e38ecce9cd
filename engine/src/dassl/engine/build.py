"""The registry of trainers."""

import logging
from typing import Any

from dassl.utils import Registry, check_availability
from yacs.config import CfgNode

__all__ = ["TRAINER_REGISTRY", "build_trainer"]

logger = logging.getLogger(__name__)

TRAINER_REGISTRY = Registry("TRAINER")


def build_trainer(cfg: CfgNode) -> Any:
    """Build the trainer that ``cfg.TRAINER.NAME`` names.

    Raises:
        ValueError: If no trainer of that name is registered.
    """
    name = cfg.TRAINER.NAME
    check_availability(name, TRAINER_REGISTRY.registered_names(), "trainer")
    if cfg.VERBOSE:
        logger.info("Loading trainer: %s", name)
    return TRAINER_REGISTRY.get(name)(cfg)
