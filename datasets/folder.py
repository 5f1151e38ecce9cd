"""Your own pictures: class folders, divided or not, or a CSV file; no code, no split file."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from dassl.data.datasets import DATASET_REGISTRY, Datum

from datasets.base import FewShotDataset
from datasets.division import (
    CLASS_LIST,
    class_folders,
    divide,
    items_of,
    pictures_in,
    read_class_names,
)
from datasets.splits import SPLITS, Item, Splits

UNDIVIDED = ""  # stands for a split where none is named
COLUMNS = ("path", "label", "split")


class Found(NamedTuple):
    """What a root holds.

    Attributes:
        items: by split; their class name is the folder or label that stands for the class.
        keys: all such folders or labels, those without a picture included.
    """

    items: dict[str, list[Datum]]
    keys: set[str]


@DATASET_REGISTRY.register()
class Folder(FewShotDataset):
    """Pictures under DATASET.ROOT itself, in one of three forms.

    - ROOT/{train,val,test}/<class>/*; val may be missing. With test/ alone there is nothing to
      train on, but a model trained elsewhere can be evaluated.
    - ROOT/<class>/*, divided here: half for training, a fifth for validation, the rest for testing.
    - ROOT is a CSV file with the columns path, label and perhaps split (train, val or test). Paths
      start from its folder, a label is a class name or a key of classnames.txt.

    Classes are the folders (or labels), sorted, unless classnames.txt beside them says what there
    is, in which order, under which name: "folder class name" a line, see `read_class_names`.

    Raises:
        FileNotFoundError: ROOT is neither a folder nor a CSV file.
        ValueError: no pictures, no test, a class that classnames.txt lacks, or a malformed CSV row.
    """

    subset_dir = ".split_fewshot"  # hidden, so it is no class
    own_data = True
    table: Path | None = None

    def prepare(self) -> None:
        """Take the folder of a CSV file for the root."""
        if self.folder.suffix.lower() == ".csv" and self.folder.is_file():
            self.table, self.folder = self.folder, self.folder.parent
            self.image_folder = self.folder

    def name_of_root(self) -> str:
        """The name of the folder, or of the CSV file without its suffix, in printable letters."""
        name = (self.folder.name if self.table is None else self.table.stem) or type(self).__name__
        return "".join(letter if letter.isprintable() else "_" for letter in name)

    def default_label(self) -> str:
        """The name of the root and six digits of the digest: two folders may have one name."""
        return f"{self.own_name}-{self.digest[:6]}"

    def read_splits(self) -> Splits:
        """Return the pictures; training items are the test's where there is a test alone."""
        try:
            found = self._read_folders() if self.table is None else self._read_table(self.table)
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{self.table} is no CSV file in UTF-8 ({error}).") from None
        if not any(found.items.values()):
            raise ValueError(
                f"No pictures in {self.table or self.folder}; expected <class>/picture.jpg, or "
                "train/, val/ and test/ with such folders."
            )
        names = self._names_by_key(found.keys)
        splits = {split: name_classes(items, names) for split, items in found.items.items()}
        if UNDIVIDED in splits:
            return divide(splits[UNDIVIDED])._replace(class_names=list(names.values()))
        train, val, test = (splits.get(split, []) for split in SPLITS)
        if not test:
            raise ValueError(
                f"{self.table or self.folder} has no test pictures; add some, or name no splits "
                "to have the pictures divided."
            )
        self.test_only = not train
        return Splits(train or test, val, test, list(names.values()))

    def _names_by_key(self, keys: set[str]) -> dict[str, str]:
        """Return class name by folder or label, in the order of the labels."""
        path = self.folder / CLASS_LIST
        if not path.is_file():
            whole = all(key.isdecimal() for key in keys)  # 2 before 10
            return {key: key for key in sorted(keys, key=int if whole else str)}
        names = read_class_names(path)
        if unknown := sorted(keys - set(names)):
            raise ValueError(
                f"{path} lacks the class {unknown[0]!r}; add a line with it and its name, a tab in "
                "between if it has a space."
            )
        return names

    def _read_folders(self) -> Found:
        # A folder named train that holds pictures, not folders, is a class, as of vehicles.
        parts = {
            split: self.folder / split
            for split in SPLITS
            if (self.folder / split).is_dir() and class_folders(self.folder / split)
        } or {UNDIVIDED: self.folder}
        folders = {split: class_folders(part) for split, part in parts.items()}
        items = {
            split: [
                item
                for name in folders[split]
                for item in items_of(pictures_in(part / name), 0, name)
            ]
            for split, part in parts.items()
        }
        return Found(items, {name for names in folders.values() for name in names})

    def _read_table(self, path: Path) -> Found:
        found = Found({}, set())
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            columns = list(reader.fieldnames or ())
            if not {"path", "label"} <= set(columns):
                raise ValueError(
                    f"{path} begins with {','.join(columns)!r}; expected path,label or "
                    "path,label,split."
                )
            for row in reader:
                picture, label, split = ((row.get(key) or "").strip() for key in COLUMNS)
                split = split if "split" in columns else UNDIVIDED
                if not picture or not label or (split not in SPLITS and "split" in columns):
                    raise ValueError(
                        f"Line {reader.line_num} of {path} has path {picture!r}, label {label!r}, "
                        f"split {split!r}; expected a path, a label and one of {', '.join(SPLITS)}."
                    )
                found.items.setdefault(split, []).extend(
                    items_of([self.folder / picture], 0, label)
                )
                found.keys.add(label)
        return found


def name_classes(items: Iterable[Datum], names: dict[str, str]) -> list[Datum]:
    """Return the items, named by the key of their class, with its label and its name."""
    labels = {key: label for label, key in enumerate(names)}
    return [
        Item(impath=i.impath, label=labels[i.classname], classname=names[i.classname])
        for i in items
    ]
