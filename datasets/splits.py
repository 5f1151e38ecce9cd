"""Lists of pictures: of split files, divided at random, cut down to base or new classes."""

import codecs
import contextlib
import json
import logging
import math
import os
import random
import re
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dassl.data.datasets import Datum

logger = logging.getLogger(__name__)

CLASS_SUBSETS = ("all", "base", "new")
SPLITS = ("train", "val", "test")
ORIGIN = "origin"  # key of a split file that was made here; published files lack it
SPLIT_SEED = 1
SHARES = (0.5, 0.2)  # of train and val where nothing is divided; the test gets the rest
VAL_SHARE = 0.2  # of train where only a test is set apart
FOLD = re.compile(r"([1-9]\d{0,3})/([1-9]\d{0,3})")  # k/F


class Item(Datum):
    """A picture whose file is looked for when it is read, not before.

    So the reader of a missing one names it, and the check of data lists all of them.
    """

    def __init__(
        self, impath: str | Path, label: int, domain: int = 0, classname: str = ""
    ) -> None:
        self._impath = str(impath)
        self._label, self._domain, self._classname = label, domain, classname


class Splits(NamedTuple):
    """Items for training, validation (may be empty) and testing."""

    train: list[Datum]
    val: list[Datum]
    test: list[Datum]
    class_names: Sequence[str] = ()  # by label; needed only where a class has no picture

    def names(self) -> list[str]:
        """Return the class names by label; refuse a label that has neither picture nor name."""
        if self.class_names:
            return list(self.class_names)
        items = (*self.test, *self.val, *self.train)  # the last name of a label counts
        found = {item.label: item.classname for item in items}
        if gaps := {*range(len(found))} - found.keys():
            raise ValueError(
                f"No picture has the label {min(gaps)}, so its class has no name; "
                "labels must count from 0 without a gap."
            )
        return [found[label] for label in sorted(found)]


def read_text(path: Path) -> str:
    """Return the content of a user's text file, without a byte order mark, lines ended alike.

    Raises FileNotFoundError, and ValueError for a file that is not in UTF-8.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"The file {path} is missing; docs/datasets.md says which files a data set needs and "
            "where they come from."
        )
    content = path.read_bytes()
    try:
        text = content.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        found = ", but in UTF-16" if utf_16 else f" ({error})"
        raise ValueError(
            f"The file {path} is no text in UTF-8{found}; save it anew with the encoding UTF-8."
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: Path) -> Any:
    """Return the content of a user's JSON file; raises as `read_text`, and where it is no JSON."""
    try:
        return json.loads(read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"The file {path} is not valid JSON ({error}).") from None


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file whole or not at all, however many processes write it at once.

    A folder that cannot be written to is no error: what is written can be made again.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(content), encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        logger.info("Not kept for the next run: cannot write %s (%s).", path, error)


def read_split(path: Path, image_folder: Path) -> Splits:
    """Read a split file in the format of Zhou et al. (CoOp).

    It is JSON: {"train": [[path below image_folder, label, class name], ...], "val": ...,
    "test": ...}, and perhaps "class_names" and ORIGIN. Raises FileNotFoundError if there is no such
    file; ValueError if it has another form, no training items, or labels beyond its class names.
    """
    content = read_json(path)
    lists = [content.get(name) for name in SPLITS] if isinstance(content, dict) else []
    if not lists or not all(isinstance(entries, list) for entries in lists):
        raise ValueError(f"The split file {path} must hold three lists: {', '.join(SPLITS)}.")
    names = content.get("class_names") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"The split file {path} has class_names that are no list of names.")
    train, val, test = (parse_entries(entries, image_folder, path) for entries in lists)
    if not train:
        raise ValueError(f"The split file {path} lists no training pictures.")
    if names and len(names) <= max(item.label for item in (*train, *val, *test)):
        raise ValueError(f"The split file {path} has labels beyond its {len(names)} class_names.")
    splits = Splits(train, val, test, names)
    _warn_of_contradictions(splits, path)
    if ORIGIN in content:
        logger.warning("%s is not the published split: %s", path, content[ORIGIN])
    return splits


def _warn_of_contradictions(splits: Splits, path: Path) -> None:
    """Warn of the first label with two names and of the first picture that is listed twice."""
    items = (*splits.train, *splits.val, *splits.test)
    names = dict(enumerate(splits.class_names))
    for item in items:
        if names.setdefault(item.label, item.classname) != item.classname:
            logger.warning(
                "%s calls label %d both %r and %r; a label stands for one class, so check the "
                "split. %r is used",
                *(path, item.label, names[item.label], item.classname),
                splits.names()[item.label],
            )
            break
    counts = Counter(item.impath for item in items)
    if twice := [picture for picture, count in counts.items() if count > 1]:
        logger.warning(
            "%s lists %s twice; a picture belongs in one split, once, so check the split",
            *(path, twice[0]),
        )


def write_split(path: Path, splits: Splits, image_folder: Path, origin: str) -> None:
    """Write a split file, readable by upstream too, that tells its origin."""
    lists = {name: to_entries(getattr(splits, name), image_folder) for name in SPLITS}
    write_json(path, {ORIGIN: origin, "class_names": splits.names()} | lists)


def parse_entries(entries: Any, image_folder: Path, source: Path) -> list[Datum]:
    """Turn [[path, label, class name], ...] into items; errors name `source`."""
    items: list[Datum] = []
    for entry in entries:
        match entry:
            case [str(path), int(label), str(class_name)] if label >= 0:
                items.append(Item(image_folder / path, label, classname=class_name))
            case _:
                raise ValueError(
                    f"{source} has a malformed entry: got {entry!r}, "
                    "expected [path, label counted from 0, class name]."
                )
    return items


def to_entries(items: Iterable[Datum], image_folder: Path) -> list[list[Any]]:
    """Turn items into [[path relative to image_folder, label, class name], ...]."""
    prefix = f"{image_folder}{os.sep}"
    return [
        [item.impath.removeprefix(prefix).replace(os.sep, "/"), item.label, item.classname]
        for item in items
    ]


def _shuffled_classes(items: Iterable[Datum]) -> Iterator[list[Datum]]:
    """Yield the items of each class, in the same order whatever the seed and the file system."""
    classes = defaultdict(list)
    for item in items:
        classes[item.label].append(item)
    generator = random.Random(SPLIT_SEED)
    for members in classes.values():
        generator.shuffle(members)
        yield members


def divide(items: Iterable[Datum]) -> Splits:
    """Divide the items of each class at random: half for training, a fifth for validation.

    A class of one picture is for training, of two for training and test.
    """
    splits = Splits([], [], [])
    for members in _shuffled_classes(items):
        total = len(members)
        train = max(1, min(round(total * SHARES[0]), total - 2))
        val = min(round(total * SHARES[1]), max(0, total - train - 1))
        splits.train.extend(members[:train])
        splits.val.extend(members[train : train + val])
        splits.test.extend(members[train + val :])
    return splits


def hold_out(trainval: Iterable[Datum], test: list[Datum]) -> Splits:
    """Set a fifth of each class's training items apart for validation, at random."""
    splits = Splits([], [], test)
    for members in _shuffled_classes(trainval):
        count = round(len(members) * VAL_SHARE)
        splits.val.extend(members[:count])
        splits.train.extend(members[count:])
    return splits


def fold_of(text: str) -> tuple[int, int] | None:
    """Return k and F of "k/F", the k-th of F folds (2 or more); None of any other text."""
    match = FOLD.fullmatch(text)
    k, folds = (int(match[1]), int(match[2])) if match else (0, 0)
    return (k, folds) if k <= folds and folds > 1 else None


def deal(splits: Splits, fold: str) -> Splits:
    """Test fold "k/F" of the training items, and train on the others.

    The j-th item of a class, from 0 and in their order, is dealt to fold 1 + j mod F. The only item
    of a class stays in training. A ValueError says that the fold is empty.
    """
    k, folds = fold_of(fold) or (0, 0)
    sizes = Counter(item.label for item in splits.train)
    most = max(sizes.values(), default=0)
    if most < max(2, k):
        few = "two training pictures, one to train on and one to hold out"
        why = few if most < 2 else f"more than {most} training pictures"
        raise ValueError(f"fold {fold} (DATASET.FOLD) can hold nothing out: no class has {why}.")
    found, dealt = Splits([], splits.val, [], splits.class_names), Counter[int]()
    for item in splits.train:
        is_held = sizes[item.label] > 1 and dealt[item.label] % folds == k - 1
        (found.test if is_held else found.train).append(item)
        dealt[item.label] += 1
    return found


def select_labels(labels: Iterable[int], subset: str) -> list[int]:
    """Return the labels of a class subset: base is the first ceil(n/2) sorted, new the rest."""
    if subset not in CLASS_SUBSETS:
        raise ValueError(
            f"DATASET.SUBSAMPLE_CLASSES must be one of {', '.join(CLASS_SUBSETS)}; got {subset!r}."
        )
    ordered = sorted(set(labels))
    middle = math.ceil(len(ordered) / 2)
    return {"all": ordered, "base": ordered[:middle], "new": ordered[middle:]}[subset]


def subsample_classes(splits: Splits, subset: str) -> Splits:
    """Keep the items of a class subset, with labels from 0; `all` keeps everything as it is.

    Classes without a picture count. A slash takes a half of a half: training on "base/base" and
    validating on "base/new" chooses settings without touching new classes.
    """
    subset, _, inner = subset.partition("/")
    if inner:
        return subsample_classes(subsample_classes(splits, subset), inner)
    names = splits.names()
    selected = select_labels(range(len(names)), subset)
    if subset == "all":
        return splits
    labels = {label: position for position, label in enumerate(selected)}
    train, val, test = (_relabel(items, labels) for items in splits[:3])
    return Splits(train, val, test, [names[label] for label in selected])


def _relabel(items: Iterable[Datum], labels: dict[int, int]) -> list[Datum]:
    return [
        Item(item.impath, labels[item.label], item.domain, item.classname)
        for item in items
        if item.label in labels
    ]
