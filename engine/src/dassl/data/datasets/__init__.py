"""Data sets and their registry."""

from typing import Any

from dassl.data.datasets.base_dataset import DatasetBase, Datum
from dassl.late import late_names
from dassl.utils import Registry, build_registered
from yacs.config import CfgNode

__all__ = ["DATASET_REGISTRY", "DatasetBase", "Datum", "build_dataset"]

DATASET_REGISTRY = Registry("DATASET")
__getattr__ = late_names(__name__, {})


def build_dataset(cfg: CfgNode) -> Any:
    """Build the data set that ``cfg.DATASET.NAME`` names; a ValueError if it is not registered."""
    return build_registered(DATASET_REGISTRY, "dataset", cfg.DATASET.NAME, cfg.VERBOSE, cfg)
