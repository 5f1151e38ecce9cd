"""Trainers. Importing this package registers them all with Dassl."""

from __future__ import annotations

from yacs.config import CfgNode

from trainers.coop import CoOp
from trainers.spotlighter import Spotlighter
from trainers.zeroshot import ZeroshotCLIP, ZeroshotCLIP2

TRAINERS = (ZeroshotCLIP, ZeroshotCLIP2, CoOp, Spotlighter)

__all__ = ["TRAINERS", "extend_cfg", *(trainer.__name__ for trainer in TRAINERS)]


def extend_cfg(cfg: CfgNode) -> None:
    """Add what the project's configs use beyond Dassl's own keys."""
    cfg.CONFIG_NAME = ""  # stem of the trainer's yaml; names a run in tables
    cfg.DATASET.SUBSAMPLE_CLASSES = "all"  # all | base | new
    for trainer in TRAINERS:
        trainer.extend_cfg(cfg)
