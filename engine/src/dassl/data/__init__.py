"""Data sets, transforms and loaders."""

from typing import TYPE_CHECKING

from dassl.late import late_names

if TYPE_CHECKING:
    from dassl.data.data_manager import DataManager, DatasetWrapper, build_data_loader

__all__ = ["DataManager", "DatasetWrapper", "build_data_loader"]

__getattr__ = late_names(
    __name__, {"data_manager": "DataManager DatasetWrapper build_data_loader"}
)
