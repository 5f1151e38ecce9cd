"""Trainers and their registry."""

from typing import TYPE_CHECKING, Any

from dassl.late import late_names
from dassl.utils import Registry, build_registered
from yacs.config import CfgNode

if TYPE_CHECKING:
    from dassl.engine.base import TrainerBase
    from dassl.engine.trainer import TrainerX

__all__ = ["TRAINER_REGISTRY", "TrainerBase", "TrainerX", "build_trainer"]

TRAINER_REGISTRY = Registry("TRAINER")
__getattr__ = late_names(__name__, {"base": "TrainerBase", "trainer": "TrainerX"})


def build_trainer(cfg: CfgNode) -> Any:
    """Build the trainer that ``cfg.TRAINER.NAME`` names; a ValueError if it is not registered."""
    return build_registered(TRAINER_REGISTRY, "trainer", cfg.TRAINER.NAME, cfg.VERBOSE, cfg)
