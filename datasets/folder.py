"""Your own pictures: class folders, divided or not, or a CSV file; no code, no split file."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from dassl.data.datasets import DATASET_REGISTRY, Datum

from datasets.base import FewShotDataset
from datasets.division import CLASS_LIST, divide, items_of, read_class_names
from datasets.pictures import find, folders_in, shown
from datasets.splits import SPLITS, Item, Splits, read_text

UNDIVIDED = ""  # stands for a split where none is named
COLUMNS = ("path", "label", "split")
WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}  # what folders and tables call a split


class Found(NamedTuple):
    """What a root holds.

    Attributes:
        items: by split; their class name is the folder or label that stands for the class.
        keys: all such folders or labels, with a picture in some split or named by a class list.
    """

    items: dict[str, list[Datum]]
    keys: set[str]


@DATASET_REGISTRY.register()
class Folder(FewShotDataset):
    """Pictures under DATASET.ROOT itself, in one of three forms.

    - ROOT/{train,val,test}/<class>/**; val may be missing, `WORDS` holds other names of the three.
      With test/ alone there is nothing to train on, but a model trained elsewhere can be evaluated.
    - ROOT/<class>/**, divided here: half for training, a fifth for validation, the rest for
      testing.
    - ROOT is a CSV file with the columns path, label and perhaps split (train, val or test). Paths
      start from its folder, a label is a class name or a key of classnames.txt.

    Classes are the folders that hold a picture (or the labels), sorted, unless classnames.txt
    beside them says what there is, in which order, under which name: "folder class name" a line,
    see `read_class_names`. Pictures are turned upright, unless INPUT.EXIF says otherwise.

    Raises:
        FileNotFoundError: ROOT is neither a folder nor a CSV file.
        ValueError: no pictures, no test, a class that classnames.txt lacks, two folders for one
            split, one folder with all the classes, or a malformed CSV row.
    """

    own_data = True
    upright = True
    subset_dir = ""  # nothing is written among the pictures
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
        path = self.folder / CLASS_LIST
        listed = read_class_names(path) if path.is_file() else {}
        try:
            found = self._read_folders(listed) if self.table is None else read_table(self.table)
        except csv.Error as error:
            raise ValueError(f"{self.table} is no CSV file ({error}).") from None
        if not any(found.items.values()):
            raise ValueError(
                f"No pictures in {self.table or self.folder}; expected <class>/picture.jpg, or "
                "train/, val/ and test/ with such folders."
            )
        names = self._names_by_key(found.keys, listed)
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

    def _names_by_key(self, keys: set[str], listed: dict[str, str]) -> dict[str, str]:
        """Return class name by folder or label, in the order of the labels."""
        if not listed:
            whole = all(key.isdecimal() for key in keys)  # 2 before 10
            return {key: key for key in sorted(keys, key=int if whole else str)}
        if unknown := sorted(keys - set(listed)):
            raise ValueError(
                f"{self.folder / CLASS_LIST} lacks the class {unknown[0]!r}; add a line with it "
                "and its name, a tab in between if it has a space."
            )
        return listed

    def _read_folders(self, listed: dict[str, str]) -> Found:
        parts = self._parts()
        found = Found({split: [] for split in parts}, set(listed))
        empty: list[Path] = []
        for split, part in parts.items():
            for name in folders_in(part):
                pictures, others = find(part / name)
                found.items[split].extend(items_of(pictures, 0, shown(name)))
                self._leave_out(others, "files of another kind")
                empty += [] if pictures else [part / name]
            self._leave_out(find(part, deep=False).pictures, "pictures outside class folders")
        found.keys.update(item.classname for items in found.items.values() for item in items)
        if UNDIVIDED in parts:
            self._require_classes(found)
        else:
            self._leave_out(self._beside(parts), "pictures beside the splits")
        no_class = [folder for folder in empty if shown(folder.name) not in found.keys]
        self._leave_out(no_class, "folders without a picture")
        return found

    def _parts(self) -> dict[str, Path]:
        """Return the folder of each split, or the root as the one that is not divided.

        Raises:
            ValueError: two folders are one split.
        """
        parts: dict[str, Path] = {}
        for name in folders_in(self.folder):
            split = WORDS.get(name.lower())
            # A folder named train that holds pictures, not folders, is a class, as of vehicles.
            if split is None or not folders_in(self.folder / name):
                continue
            if split in parts:
                raise ValueError(
                    f"{self.folder} has two folders for the split {split}, {parts[split].name} and "
                    f"{name}; put their pictures into one of them."
                )
            parts[split] = self.folder / name
        return parts or {UNDIVIDED: self.folder}

    def _require_classes(self, found: Found) -> None:
        """Refuse a root whose only folder holds the class folders.

        Raises:
            ValueError: naming the folder to use.
        """
        names = folders_in(self.folder)
        inner = self.folder / names[0] if len(names) == 1 and len(found.keys) == 1 else None
        if inner and not find(inner, deep=False).pictures:
            raise ValueError(
                f"{self.folder} holds one folder, {inner.name}, with folders of pictures in it; if "
                f"those are the classes, take --root {inner}."
            )

    def _beside(self, parts: dict[str, Path]) -> list[Path]:
        others = {self.folder / name for name in folders_in(self.folder)} - {*parts.values()}
        below = [path for folder in sorted(others) for path in find(folder).pictures]
        return [*below, *find(self.folder, deep=False).pictures]

    def _leave_out(self, paths: list[Path], why: str) -> None:
        self.left_out.setdefault(why, []).extend(paths)


def read_table(path: Path) -> Found:
    """Read a CSV file of pictures.

    Raises:
        ValueError: the header or a line has another form.
    """
    found = Found({}, set())
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), skipinitialspace=True)
    columns = list(reader.fieldnames or ())
    if not {"path", "label"} <= set(columns):
        raise ValueError(
            f"{path} begins with {','.join(columns)!r}; expected path,label or path,label,split."
        )
    for row in reader:
        picture, label, word = ((row.get(key) or "").strip() for key in COLUMNS)
        split = WORDS.get(word.lower()) if "split" in columns else UNDIVIDED
        if not picture or not label or split is None:
            raise ValueError(
                f"Line {reader.line_num} of {path} has path {picture!r}, label {label!r}, "
                f"split {word!r}; expected a path, a label and one of {', '.join(SPLITS)}."
            )
        found.items.setdefault(split, []).extend(items_of([path.parent / picture], 0, label))
        found.keys.add(label)
    return found


def name_classes(items: Iterable[Datum], names: dict[str, str]) -> list[Datum]:
    """Return the items, named by the key of their class, with its label and its name."""
    labels = {key: label for label, key in enumerate(names)}
    return [
        Item(impath=i.impath, label=labels[i.classname], classname=names[i.classname])
        for i in items
    ]


def holds_classes(root: Path) -> bool:
    """Return whether a path is a CSV file, or holds class folders, divided into splits or not."""
    if not root.is_dir():
        return root.is_file() and root.suffix.lower() == ".csv"
    for name in folders_in(root):
        folder = root / name
        inner = folders_in(folder) if name.lower() in WORDS else []
        if any(find(path, deep=False).pictures for path in (folder, *(folder / n for n in inner))):
            return True
    return False
