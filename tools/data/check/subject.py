"""A data set as its loader reads it, opened for checking."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from dassl.config import get_cfg_default
from dassl.data.datasets import Datum, build_dataset

from datasets.base import FewShotDataset, Published
from datasets.splits import ORIGIN, SPLITS, read_json


class Subject(NamedTuple):
    """What is checked.

    Attributes:
        name: DATASET.NAME.
        class_names: by label.
        splits: items by split, without a validation split that is empty, and without training items
            that only stand in for the test's.
        published: counts of the literature, where there are any.
        labels_by_folder: labels should follow the sorted folders of the pictures.
        origin: how the split was made, if it is not the published one.
        left_out: what lies among the pictures and is not used, by the reason.
        upright: pictures are turned as their EXIF data say.
    """

    name: str
    class_names: list[str]
    splits: dict[str, list[Datum]]
    published: Published | None
    labels_by_folder: bool
    origin: str
    left_out: dict[str, list[Path]]
    upright: bool

    def empty_classes(self, split: str) -> list[str]:
        """Return the classes without a picture in a split."""
        filled = {item.label for item in self.splits[split]}
        return [name for label, name in enumerate(self.class_names) if label not in filled]

    def paths(self) -> list[str]:
        """Return every picture once."""
        return list(dict.fromkeys(i.impath for items in self.splits.values() for i in items))


def open_subject(name: str, root: Path) -> Subject:
    """Read a data set with all its classes and pictures.

    Raises:
        FileNotFoundError: it is not where expected.
        ValueError: one of its files is malformed.
    """
    cfg = get_cfg_default()
    cfg.DATASET.NAME, cfg.DATASET.ROOT, cfg.DATASET.SUBSAMPLE_CLASSES = name, str(root), "all"
    cfg.VERBOSE = False
    dataset = build_dataset(cfg)
    items = (dataset.train_x, dataset.val or [], dataset.test)
    splits = dict(zip(SPLITS, items, strict=True))
    if dataset.test_only:
        del splits["train"]
    if not splits["val"]:
        del splits["val"]
    origin = origin_of(dataset)
    if origin and dataset.raw_files == (dataset.image_dir,):
        dataset.read_raw()  # fills left_out, which the split file does not hold
    return Subject(
        *(name, dataset.classnames, splits, dataset.published, dataset.labels_by_folder),
        *(origin, dataset.left_out, dataset.upright),
    )


def origin_of(dataset: FewShotDataset) -> str:
    """Return how a split was made here; nothing if it was not."""
    if not dataset.split_file:
        return ""
    if not dataset.split_path.is_file():
        return "made from the data set's own lists, and not kept"
    return str(read_json(dataset.split_path).get(ORIGIN, ""))
