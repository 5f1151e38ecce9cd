"""Which pictures a run trains on, and which may choose its epoch."""

from __future__ import annotations

import logging
from typing import Any

from dassl.data import DataManager
from dassl.data.datasets import DatasetBase
from yacs.config import CfgNode

logger = logging.getLogger(__name__)


def changed(cfg: CfgNode, key: str, value: Any) -> CfgNode:
    """A frozen copy of a config in which one key differs."""
    other = cfg.clone()
    other.defrost()
    other.merge_from_list([key, value])
    other.freeze()
    return other


def who_chooses_the_epoch(cfg: CfgNode, dataset: DatasetBase) -> tuple[CfgNode, str]:
    """The config to go on with, and what the result file says: best_val or last_step.

    Test pictures choose nothing: without a validation split of its own, best_val is last_step.
    """
    test = {item.impath for item in dataset.test}
    own_val = dataset.val and not any(item.impath in test for item in dataset.val)
    if cfg.TEST.FINAL_MODEL == "best_val" and not own_val:
        logger.warning(
            "%s has no validation split apart from its test pictures: "
            "the last epoch is reported instead of the best",
            cfg.DATASET.NAME,
        )
        cfg = changed(cfg, "TEST.FINAL_MODEL", "last_step")
    return cfg, cfg.TEST.FINAL_MODEL


def loader_of_all_classes(cfg: CfgNode) -> Any:
    """Training pictures of every class of the data set, new ones included, for unlabelled use."""
    logger.warning("Training also sees pictures of new classes, without labels (transductive)")
    return DataManager(changed(cfg, "DATASET.SUBSAMPLE_CLASSES", "all")).train_loader_x
