"""Pictures in class folders, names of classes, division into training, validation and test.

What is divided here is divided by a generator of its own, so it is the same everywhere; upstream
divides by the run's seed and the file system's order, so no published split can be made again.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from pathlib import Path

from dassl.data.datasets import DatasetBase, Datum

from datasets.pictures import find, folders_in, shown
from datasets.splits import Item, Splits, read_text

LeftOut = dict[str, list[Path]]  # by the reason
CLASS_LIST = "classnames.txt"
SPLIT_SEED = 1
SHARES = (0.5, 0.2)  # of train and val where nothing is divided; the test gets the rest
VAL_SHARE = 0.2  # of train where only a test is set apart


def read_class_names(path: Path) -> dict[str, str]:
    """Return class name by folder, in the order of the file.

    A line is "n01440764 tench". A folder with a space in its name is set apart by a tab; a line of
    one word is a folder that is named after its class.

    Raises:
        ValueError: a folder has two lines.
    """
    classes: dict[str, str] = {}
    for line in read_text(path).splitlines():
        folder, _, name = line.strip().partition("\t" if "\t" in line.strip() else " ")
        if folder in classes:
            raise ValueError(f"{path} has two lines for the folder {folder}; remove one.")
        if folder:
            classes[folder] = name.strip() or folder
    return classes


def items_of(paths: Iterable[Path], label: int, class_name: str) -> list[Datum]:
    """Return an item for each picture of a class."""
    return [Item(impath=str(path), label=label, classname=class_name) for path in paths]


def pictures_by_class(
    folder: Path, names: Iterable[str], left_out: LeftOut
) -> dict[str, list[Path]]:
    """Return the pictures of class folders, and note the files that are not used.

    Args:
        folder: holds the class folders.
        names: of the class folders.
        left_out: gets what lies there and is not used, by the reason.
    """
    found = {}
    for name in names:
        found[name], others = find(folder / name)
        leave_out(left_out, "files of another kind", others)
    leave_out(left_out, "pictures outside class folders", find(folder, deep=False).pictures)
    return found


def leave_out(left_out: LeftOut, why: str, paths: Iterable[Path]) -> None:
    """Note files that are not used, each once."""
    known = left_out.setdefault(why, [])
    known.extend(sorted({*paths} - {*known}))


def divide_folders(
    folder: Path,
    left_out: LeftOut,
    ignored: Iterable[str] = (),
    names: Mapping[str, str] | None = None,
) -> Splits:
    """Divide the pictures of each class folder; labels follow the sorted folders.

    Args:
        folder: holds the class folders.
        left_out: gets what lies there and is not used, by the reason.
        ignored: folders that are no classes.
        names: class names of folders that are named otherwise.

    Raises:
        ValueError: the only folder holds the class folders.
    """
    names = names or {}
    folders = [name for name in folders_in(folder) if name not in ignored]
    found = {n: p for n, p in pictures_by_class(folder, folders, left_out).items() if p}
    if len(found) == 1 and not find(folder / (only := min(found)), deep=False).pictures:
        raise ValueError(
            f"{folder} holds one folder, {only}, with folders of pictures in it; if those are the "
            "classes, move them up."
        )
    classes = [(names.get(name, shown(name)), paths) for name, paths in found.items()]
    every = [
        item for label, (name, paths) in enumerate(classes) for item in items_of(paths, label, name)
    ]
    return divide(every)._replace(class_names=[name for name, _ in classes])


def divide(items: Iterable[Datum]) -> Splits:
    """Divide the items of each class at random: half for training, a fifth for validation.

    A class of one picture is for training, of two for training and test.
    """
    generator = random.Random(SPLIT_SEED)
    splits = Splits([], [], [])
    for members in DatasetBase.split_dataset_by_label(items).values():
        generator.shuffle(members)
        total = len(members)
        train = max(1, min(round(total * SHARES[0]), total - 2))
        val = min(round(total * SHARES[1]), max(0, total - train - 1))
        splits.train.extend(members[:train])
        splits.val.extend(members[train : train + val])
        splits.test.extend(members[train + val :])
    return splits


def hold_out(trainval: Iterable[Datum], test: list[Datum]) -> Splits:
    """Set a fifth of each class's training items apart for validation, at random."""
    generator = random.Random(SPLIT_SEED)
    train, val = [], []
    for members in DatasetBase.split_dataset_by_label(trainval).values():
        generator.shuffle(members)
        count = round(len(members) * VAL_SHARE)
        val.extend(members[:count])
        train.extend(members[count:])
    return Splits(train, val, test)
