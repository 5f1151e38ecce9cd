"""What every few-shot data set does: read a split, draw the shots, choose base or new classes."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from dassl.data.datasets import DatasetBase, Datum

from datasets.splits import (
    Splits,
    class_names_of,
    fingerprint,
    read_split,
    read_subset,
    subsample_classes,
    write_subset,
)

MAX_VAL_SHOTS = 4  # the few-shot protocol of CoOp (Zhou et al., IJCV 2022)


class FewShotDataset(DatasetBase):
    """A classification data set with a split file, few-shot subsets and base/new classes.

    A data set is declared by three class attributes. One without a split file overrides
    `read_splits`; one that makes its own pictures overrides `prepare`. Both may use
    `self.folder` (ROOT/dataset_dir), `self.image_folder` and `self.split_path`.

    Attributes:
        dataset_dir: folder under DATASET.ROOT.
        image_dir: folder under `dataset_dir` that the paths of the split file start from.
        split_file: JSON file under `dataset_dir`, see `datasets.splits.read_split`.
        all_class_names: names of all classes by label, whatever subset a run has.

    Raises:
        FileNotFoundError: the data set, its pictures or its split file are not where expected.
        ValueError: the split file is malformed, or DATASET.SUBSAMPLE_CLASSES is unknown.
    """

    dataset_dir = ""
    image_dir = ""
    split_file = ""

    def __init__(self, cfg: Any) -> None:
        self.folder = Path(cfg.DATASET.ROOT).expanduser().absolute() / self.dataset_dir
        self.image_folder = self.folder / self.image_dir
        self.split_path = self.folder / self.split_file
        self.prepare()
        require_folder(self.folder, type(self).__name__)
        splits = self.read_splits()
        if cfg.DATASET.NUM_SHOTS >= 1:
            splits = self._few_shot(splits, cfg.DATASET.NUM_SHOTS, cfg.SEED)
        self.all_class_names = class_names_of(splits.train)
        splits = subsample_classes(splits, cfg.DATASET.get("SUBSAMPLE_CLASSES", "all"))
        super().__init__(train_x=splits.train, val=splits.val or None, test=splits.test)

    def prepare(self) -> None:
        """Create the data where a data set can make its own; does nothing by default."""

    def read_splits(self) -> Splits:
        """Return all items, before shots are drawn and classes chosen."""
        splits = read_split(self.split_path, self.image_folder)
        require_folder(self.image_folder, type(self).__name__)
        return splits

    def _few_shot(self, splits: Splits, shots: int, seed: int) -> Splits:
        """Return the subset cached for these shots and this seed, or draw and cache it.

        The draw depends on nothing but the split and the seed, and leaves the global generator as
        it was, so a run goes on alike whether the subset was cached or not. A negative seed means
        "unseeded": another subset each time, never cached.
        """
        if seed < 0:
            return self._draw(splits, shots)
        cache = self.folder / "split_fewshot" / f"shot_{shots}-seed_{seed}.json"
        origin = fingerprint(splits, self.image_folder)
        subset = read_subset(cache, self.image_folder, origin)
        if subset is None:
            with seeded(seed):
                subset = self._draw(splits, shots)
            write_subset(cache, subset, self.image_folder, origin)
        return subset._replace(test=splits.test)

    def _draw(self, splits: Splits, shots: int) -> Splits:
        # Training before validation: this order makes "seed 1" the seed 1 of the literature.
        train = self.generate_fewshot_dataset(splits.train, num_shots=shots)
        val = self.generate_fewshot_dataset(splits.val, num_shots=min(shots, MAX_VAL_SHOTS))
        return Splits(cast("list[Datum]", train), cast("list[Datum]", val), splits.test)


def require_folder(folder: Path, dataset: str) -> None:
    """Refuse a data set whose folder does not exist.

    Raises:
        FileNotFoundError: naming the folder and what to do.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{dataset} was looked for in {folder}, which is not a folder. Name the folder that "
            "holds the data sets with --root; docs/datasets.md shows the layout below it."
        )


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed Python's global generator inside the block and restore its state behind it."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)
