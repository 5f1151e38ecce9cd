"""Class folders, names of classes, and division into training, validation and test.

Classes are divided by a generator of their own, the same way everywhere. Upstream divides by the
run's seed and the file system's order, so its splits cannot be made again.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from dassl.data.datasets import Datum

from datasets.pictures import find, folders_in
from datasets.splits import Item, Splits, read_text

LeftOut = dict[str, list[Path]]  # by the reason
CLASS_LIST = "classnames.txt"
SPLIT_SEED = 1
SHARES = (0.5, 0.2)  # of train and val where nothing is divided; the test gets the rest
VAL_SHARE = 0.2  # of train where only a test is set apart


def read_class_names(path: Path) -> dict[str, str]:
    """Return class name by folder, in the order of the file.

    A line is "n01440764 tench", with a tab after a folder that has a space in its name. A line of
    one word is a folder that is named after its class.
    """
    classes: dict[str, str] = {}
    for line in map(str.strip, read_text(path).splitlines()):
        folder, _, name = line.partition("\t" if "\t" in line else " ")
        if folder in classes:
            raise ValueError(f"{path} has two lines for the folder {folder}; remove one.")
        if folder:
            classes[folder] = name.strip() or folder
    return classes


def read_class_folders(folder: Path, classes: dict[str, str], left_out: LeftOut) -> list[Datum]:
    """Return the pictures of class folders, and add unused files to `left_out`.

    Labels count `classes` (class name by folder), with pictures or without.
    """
    items: list[Datum] = []
    labels = {name: label for label, name in enumerate(classes)}
    for name in dict.fromkeys([*classes, *folders_in(folder)]):
        pictures, others = find(folder / name)
        if name in classes:
            items += [Item(path, labels[name], classname=classes[name]) for path in pictures]
        if name in classes or not pictures:
            leave_out(left_out, "files of another kind", others)
    leave_out(left_out, "pictures outside class folders", find(folder, deep=False).pictures)
    return items


def leave_out(left_out: LeftOut, why: str, paths: Iterable[Path]) -> None:
    """Note unused files, each once."""
    known = left_out.setdefault(why, [])
    known.extend(sorted({*paths} - {*known}))


def require_pictures(folder: Path, names: list[str], cure: str) -> None:
    """Refuse a single class folder that has folders instead of pictures; `cure` is what to do."""
    if len(names) == 1 and not find(folder / names[0], deep=False).pictures:
        raise ValueError(
            f"{folder} holds one folder, {names[0]}, with folders of pictures in it; if those are "
            f"the classes, {cure}."
        )


def _shuffled_classes(items: Iterable[Datum]) -> Iterator[list[Datum]]:
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
