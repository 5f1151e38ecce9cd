"""The few-shot protocol: read the split, draw the shots, select base or new classes."""

import logging
import random
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum

from datasets.pictures import counted, what_is_left
from datasets.splits import Splits, deal, read_split, subsample_classes, write_split
from datasets.subsets import cached_subset, digest

logger = logging.getLogger(__name__)

MAX_VAL_SHOTS = 4  # the few-shot protocol of CoOp (Zhou et al., IJCV 2022)


class Published(NamedTuple):
    """Numbers of classes and pictures in the literature (CoOp, table 5; the variants' papers)."""

    classes: int
    train: int
    val: int
    test: int


class FewShotDataset(DatasetBase):
    """A classification data set with a split file, few-shot subsets and base/new classes.

    Class attributes declare a data set. One that reads its own files overrides `read_raw`,
    one that makes its own pictures `prepare`. Both may use `self.folder` (ROOT/dataset_dir),
    `self.image_folder` and `self.split_path`. Raises FileNotFoundError if the data set, its
    pictures or its split file are not where expected; ValueError if the split file is malformed, or
    there are no test pictures.
    """

    dataset_dir = ""  # folder under DATASET.ROOT; the next four are below it
    image_dir = ""  # what the paths of the split file start from
    split_file = ""  # see `datasets.splits.read_split`
    raw_files: tuple[str, ...] = ()  # what `read_raw` reads where the split file is missing
    subset_dir = "split_fewshot"  # for few-shot subsets; "" caches none
    template = "a photo of a {}."  # for zero-shot CLIP
    published: Published | None = None
    labels_by_folder = False  # labels follow the sorted names of the folders with the pictures
    test_only = False  # the test items stand in for training items
    own_data = False  # the user's own: two such data sets may have equal names, paths and labels
    upright = False  # pictures are turned as their EXIF data say, where INPUT.EXIF is auto

    def __init__(self, cfg: Any) -> None:
        self.left_out: dict[str, list[Path]] = {}  # unused files by the reason
        self.folder = Path(cfg.DATASET.ROOT).expanduser().absolute() / self.dataset_dir
        self.image_folder = self.folder / self.image_dir
        self.split_path = self.folder / self.split_file
        self.prepare()
        require_folder(self.folder, type(self).__name__)
        splits = self.read_splits()
        self._require_test(splits, f"in {self.folder}")
        self.all_class_names = splits.names()  # by label, whatever subset a run has
        splits = splits._replace(class_names=self.all_class_names)
        self.digest = digest(splits, self.image_folder, with_sizes=self.own_data)
        given = cfg.DATASET.get("LABEL", "")
        self.own_name = given or self.default_name()
        suffix = f"-{self.digest[:6]}" if self.own_data and not given else ""
        self.label = f"{self.own_name}{suffix}"  # its name in results and tables
        if cfg.DATASET.NUM_SHOTS >= 1:
            splits = self._few_shot(splits, cfg.DATASET.NUM_SHOTS, cfg.SEED)
        subset = cfg.DATASET.get("SUBSAMPLE_CLASSES", "all")
        splits = subsample_classes(splits, subset)
        selected = f"of the classes that DATASET.SUBSAMPLE_CLASSES {subset} selects"
        self._require_test(splits, f"{selected}, in {self.folder}")
        if fold := cfg.DATASET.get("FOLD", ""):
            splits = self._hold_out(splits, fold)
        self.test_only = self.test_only or not splits.train
        train = splits.train or splits.test  # the engine needs training items
        super().__init__(train_x=train, val=splits.val or None, test=splits.test)
        # The engine counts classes with a training picture; those without keep their place.
        self._classnames = splits.names()
        self._lab2cname = dict(enumerate(self._classnames))
        self._num_classes = len(self._classnames)
        self._warn()

    def _require_test(self, splits: Splits, where: str) -> None:
        if not splits.test:
            raise ValueError(f"{type(self).__name__} has no test pictures {where}.")

    def _warn(self) -> None:
        name, names = type(self).__name__, self._classnames
        filled = {item.label for item in self.train_x}
        empty = [class_name for label, class_name in enumerate(names) if label not in filled]
        if empty:
            logger.warning(
                "%s: %d of %d classes have no training picture, as %s; they stay in the class list",
                *(name, len(empty), len(names), ", ".join(empty[:3])),
            )
        for reason, paths in self.left_out.items():
            if paths:
                logger.warning("%s: left out: %s", name, what_is_left(reason, paths))

    def _hold_out(self, splits: Splits, fold: str) -> Splits:
        """Return the splits with a fold of the training pictures in place of the test's."""
        dealt = deal(splits, fold)
        logger.info(
            "Fold %s (DATASET.FOLD): %d training pictures are held out and tested, %d stay",
            *(fold, len(dealt.test), len(dealt.train)),
        )
        return dealt

    def default_name(self) -> str:
        """Return the name of the data set where DATASET.LABEL gives none."""
        return type(self).__name__

    def prepare(self) -> None:
        """Create the data where a data set can make its own; does nothing by default."""

    def read_splits(self) -> Splits:
        """Return all items, before shots are drawn and classes selected."""
        if not self.split_file:
            return self.read_raw()
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
            first = self.raw_files[0]
            lack = f"{missing[0]} is missing" if missing else f"{first} lists no picture"
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
        origin += "".join(f"; left out: {counted(why, p)}" for why, p in self.left_out.items() if p)
        logger.warning("%s: the split was %s", name, origin)
        write_split(self.split_path, splits, self.image_folder, origin)
        return splits

    def _few_shot(self, splits: Splits, shots: int, seed: int) -> Splits:
        """Return the subset cached for these shots and this seed, or draw and cache it.

        A negative seed draws another subset each time, never cached.
        """
        draw = partial(self._draw, splits, shots, seed)
        if seed < 0 or not self.subset_dir:
            return draw()
        cache = self.folder / self.subset_dir / f"shot_{shots}-seed_{seed}.json"
        return cached_subset(cache, splits, self.image_folder, draw)

    def _draw(self, splits: Splits, shots: int, seed: int) -> Splits:
        """Draw by the seed, and restore the global generator: a cached subset leaves it alone."""
        state = random.getstate()
        if seed >= 0:
            random.seed(seed)
        # Training before validation: this order makes "seed 1" the seed 1 of the literature.
        train = self.generate_fewshot_dataset(splits.train, num_shots=shots)
        val = self.generate_fewshot_dataset(splits.val, num_shots=min(shots, MAX_VAL_SHOTS))
        if seed >= 0:
            random.setstate(state)
        return splits._replace(train=cast("list[Datum]", train), val=cast("list[Datum]", val))


def require_folder(folder: Path, dataset: str) -> None:
    """Refuse a data set whose folder does not exist."""
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{dataset} was looked for in {folder}, which is not a folder. Name the folder that "
            "holds the data sets with --root; docs/datasets.md shows the layout below it."
        )


def template(dataset: str) -> str:
    """The sentence of a registered data set; that of another project's is "a photo of a {}."."""
    known = dataset in DATASET_REGISTRY.registered_names()
    kind = DATASET_REGISTRY.get(dataset) if known else FewShotDataset
    return str(getattr(kind, "template", FewShotDataset.template))
