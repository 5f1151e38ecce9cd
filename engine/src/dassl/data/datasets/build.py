"""The registry of data sets."""

from typing import Any

from dassl.utils import Registry, build_registered
from yacs.config import CfgNode

__all__ = ["DATASET_REGISTRY", "build_dataset"]

DATASET_REGISTRY = Registry("DATASET")


def build_dataset(cfg: CfgNode) -> Any:
    """Build the data set that ``cfg.DATASET.NAME`` names.

    Raises:
        ValueError: If no data set of that name is registered.
    """
    return build_registered(DATASET_REGISTRY, "dataset", cfg.DATASET.NAME, cfg.VERBOSE, cfg)
