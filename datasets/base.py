"""What every few-shot data set does: read a split, draw the shots, choose base or new classes."""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

from dassl.data.datasets import DatasetBase, Datum

from datasets.pictures import what_is_left
from datasets.splits import Splits, read_split, subsample_classes, write_split
from datasets.subsets import digest, fingerprint, read_pickled_subset, read_subset, write_subset

logger = logging.getLogger(__name__)

MAX_VAL_SHOTS = 4  # the few-shot protocol of CoOp (Zhou et al., IJCV 2022)


class Published(NamedTuple):
    """Classes and pictures that the literature counts (CoOp, table 5; the variants' papers)."""

    classes: int
    train: int
    val: int
    test: int


class FewShotDataset(DatasetBase):
    """A classification data set with a split file, few-shot subsets and base/new classes.

    A data set is declared by class attributes. One that can make its split from its own files
    overrides `read_raw`, one without a split file `read_splits`, one that makes its own pictures
    `prepare`. All may use `self.folder` (ROOT/dataset_dir), `self.image_folder` and
    `self.split_path`.

    Attributes:
        dataset_dir: folder under DATASET.ROOT.
        image_dir: folder under `dataset_dir` that the paths of the split file start from.
        split_file: JSON file under `dataset_dir`, see `datasets.splits.read_split`.
        raw_files: files under `dataset_dir` that `read_raw` reads, for a missing split file.
        subset_dir: folder under `dataset_dir` for few-shot subsets; "" caches none.
        published: counts of the literature.
        labels_by_folder: labels follow the sorted names of the folders that hold the pictures.
        test_only: the training items are the test's; they only say what the classes are.
        upright: pictures are turned as their EXIF data say, where INPUT.EXIF leaves it open.
        left_out: what lies among the pictures and is not used, by the reason.
        own_data: the user's own; two such data sets may have one name, and paths and labels alike.
        all_class_names: names of all classes by label, whatever subset a run has.
        digest: 12 hexadecimal digits of all paths, labels and class names, and of the user's own
            data the files' sizes, before shots are drawn and classes chosen; the same wherever
            the data set is stored.
        own_name: DATASET.LABEL, or the name of the class, of the user's own data that of the root.
        label: its name in results and tables: DATASET.LABEL, or `own_name`. Data of the user's own
            add a part of the digest, because two folders may have one name.

    Raises:
        FileNotFoundError: the data set, its pictures or its split file are not where expected.
        ValueError: the split file is malformed, there are no test pictures (of the chosen
            classes), or DATASET.SUBSAMPLE_CLASSES is unknown.
    """

    dataset_dir = ""
    image_dir = ""
    split_file = ""
    raw_files: tuple[str, ...] = ()
    subset_dir = "split_fewshot"
    published: Published | None = None
    labels_by_folder = False
    test_only = False
    own_data = False
    upright = False

    def __init__(self, cfg: Any) -> None:
        self.left_out: dict[str, list[Path]] = {}
        self.folder = Path(cfg.DATASET.ROOT).expanduser().absolute() / self.dataset_dir
        self.image_folder = self.folder / self.image_dir
        self.split_path = self.folder / self.split_file
        self.prepare()
        require_folder(self.folder, type(self).__name__)
        splits = self.read_splits()
        if not splits.test:
            raise ValueError(f"{type(self).__name__} has no test pictures in {self.folder}.")
        self.all_class_names = splits.names()
        splits = splits._replace(class_names=self.all_class_names)
        self.digest = digest(splits, self.image_folder, with_sizes=self.own_data)
        self.own_name = cfg.DATASET.get("LABEL", "") or self.name_of_root()
        self.label = cfg.DATASET.get("LABEL", "") or self.default_label()
        if cfg.DATASET.NUM_SHOTS >= 1:
            splits = self._few_shot(splits, cfg.DATASET.NUM_SHOTS, cfg.SEED)
        subset = cfg.DATASET.get("SUBSAMPLE_CLASSES", "all")
        splits = subsample_classes(splits, subset)
        if not splits.test:
            raise ValueError(
                f"{type(self).__name__} has no test pictures of the classes that "
                f"DATASET.SUBSAMPLE_CLASSES {subset} selects, in {self.folder}."
            )
        self._names = splits.names()
        self.test_only = self.test_only or not splits.train
        train = splits.train or splits.test  # the engine takes no data set without them
        super().__init__(train_x=train, val=splits.val or None, test=splits.test)
        self._tell_empty_classes()
        self._tell_left_out()

    def name_of_root(self) -> str:
        """What the data are called where no label is given: a benchmark by its class."""
        return type(self).__name__

    def default_label(self) -> str:
        """DATASET.LABEL where none is given."""
        return self.own_name

    # The classes are those of the class list: one without a picture keeps its place.

    @property
    def classnames(self) -> list[str]:
        """Class names in the order of their labels."""
        return list(self._names)

    @property
    def lab2cname(self) -> dict[int, str]:
        """Class name by label."""
        return dict(enumerate(self._names))

    @property
    def num_classes(self) -> int:
        """Number of classes, with a picture or without."""
        return len(self._names)

    def _tell_empty_classes(self) -> None:
        filled = {item.label for item in self.train_x}
        empty = [name for label, name in enumerate(self._names) if label not in filled]
        if empty:
            logger.warning(
                "%s: %d of %d classes have no training picture, as %s; they stay in the class list",
                *(type(self).__name__, len(empty), len(self._names), ", ".join(empty[:3])),
            )

    def _tell_left_out(self) -> None:
        for reason, paths in self.left_out.items():
            if paths:
                logger.warning("%s: left out: %s", type(self).__name__, what_is_left(reason, paths))

    def prepare(self) -> None:
        """Create the data where a data set can make its own; does nothing by default."""

    def read_splits(self) -> Splits:
        """Return all items, before shots are drawn and classes chosen."""
        if self.raw_files and not self.split_path.is_file():
            return self._make_split()
        splits = read_split(self.split_path, self.image_folder)
        require_folder(self.image_folder, type(self).__name__)
        return splits

    def read_raw(self) -> Splits:
        """Return all items as the data set's own files list them."""
        raise NotImplementedError

    def _make_split(self) -> Splits:
        """Parse the data set's own files and write the result as a split file."""
        name = type(self).__name__
        missing = [file for file in self.raw_files if not (self.folder / file).exists()]
        splits = Splits([], [], []) if missing else self.read_raw()
        if not splits.train:
            lack = (
                f"{missing[0]} is missing" if missing else f"{self.raw_files[0]} lists no picture"
            )
            raise FileNotFoundError(
                f"The split file {self.split_path} is missing, and cannot be made, because {lack}; "
                f"`python tools/prepare_data.py {name} --root {self.folder.parent}` fetches the "
                "published one."
            )
        require_folder(self.image_folder, name)
        origin = (
            f"made from {', '.join(self.raw_files)}, because {self.split_file} was missing; "
            "accuracies do not compare with the literature's"
        )
        origin += "".join(f"; left out: {len(p):,} {why}" for why, p in self.left_out.items() if p)
        logger.warning("%s: the split was %s", name, origin)
        write_split(self.split_path, splits, self.image_folder, origin)
        return splits

    def _few_shot(self, splits: Splits, shots: int, seed: int) -> Splits:
        """Return the subset cached for these shots and this seed, or draw it, and cache it.

        One that upstream has cached, as a pickle, is preferred.

        The draw depends on nothing but the split and the seed, and leaves the global generator as
        it was, so a run goes on alike whether the subset was cached or not. A negative seed means
        "unseeded": another subset each time, never cached.
        """
        if seed < 0 or not self.subset_dir:
            with seeded(seed) if seed >= 0 else contextlib.nullcontext():
                return self._draw(splits, shots)
        cache = self.folder / self.subset_dir / f"shot_{shots}-seed_{seed}.json"
        origin = fingerprint(splits, self.image_folder)
        stored = read_subset(cache, self.image_folder, origin, splits)
        subset = read_pickled_subset(cache.with_suffix(".pkl"), splits) or stored
        if subset is None:
            with seeded(seed):
                subset = self._draw(splits, shots)
        if subset is not stored:
            write_subset(cache, subset, self.image_folder, origin)
        return splits._replace(train=subset.train, val=subset.val)

    def _draw(self, splits: Splits, shots: int) -> Splits:
        # Training before validation: this order makes "seed 1" the seed 1 of the literature.
        train = self.generate_fewshot_dataset(splits.train, num_shots=shots)
        val = self.generate_fewshot_dataset(splits.val, num_shots=min(shots, MAX_VAL_SHOTS))
        return splits._replace(train=cast("list[Datum]", train), val=cast("list[Datum]", val))


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
