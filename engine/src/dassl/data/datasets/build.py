"""The registry of data sets."""

import logging
from typing import Any

from dassl.utils import Registry, check_availability
from yacs.config import CfgNode

__all__ = ["DATASET_REGISTRY", "build_dataset"]

logger = logging.getLogger(__name__)

DATASET_REGISTRY = Registry("DATASET")


def build_dataset(cfg: CfgNode) -> Any:
    """Build the data set that ``cfg.DATASET.NAME`` names.

    Raises:
        ValueError: If no data set of that name is registered.
    """
    name = cfg.DATASET.NAME
    check_availability(name, DATASET_REGISTRY.registered_names(), "dataset")
    if cfg.VERBOSE:
        logger.info("Loading dataset: %s", name)
    return DATASET_REGISTRY.get(name)(cfg)
