"""Where data sets are registered."""

from dassl.data.datasets.base_dataset import DatasetBase, Datum
from dassl.utils import Registry, check_availability

__all__ = ["DATASET_REGISTRY", "DatasetBase", "Datum", "build_dataset"]

DATASET_REGISTRY = Registry("DATASET")


def build_dataset(cfg):
    check_availability(cfg.DATASET.NAME, DATASET_REGISTRY.registered_names())
    return DATASET_REGISTRY.get(cfg.DATASET.NAME)(cfg)
