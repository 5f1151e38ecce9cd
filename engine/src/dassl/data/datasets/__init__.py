"""What a data set is and where data sets are registered."""

from dassl.data.datasets.base_dataset import DatasetBase, Datum
from dassl.data.datasets.build import DATASET_REGISTRY, build_dataset
from dassl.left_out import refuse_names

__all__ = ["DATASET_REGISTRY", "DatasetBase", "Datum", "build_dataset"]

__getattr__ = refuse_names(__name__)
