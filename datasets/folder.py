"""Class folders, and your own pictures: in class folders, divided or not, or in a CSV file."""

import csv
import io
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY, Datum

from datasets.base import FewShotDataset
from datasets.pictures import class_folders, find, folders_in, shown, what_is_left
from datasets.splits import SPLITS, Item, Splits, divide, read_text

CLASS_LIST = "classnames.txt"
OTHERS = "files of another kind"  # are left out
UNDIVIDED = ""  # stands for a split where none is named
COLUMNS = ("path", "label", "split")
# What folders and tables call a split.
CALLED = {"train": "train training", "val": "val valid validation", "test": "test testing"}
WORDS = {word: split for split, words in CALLED.items() for word in words.split()}

BySplit = dict[str, list[Datum]]  # the class name of an item is its folder or label


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


def read_class_folders(
    folder: Path, classes: dict[str, str], left_out: dict[str, list[Path]]
) -> list[Datum]:
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
            leave_out(left_out, OTHERS, others)
    leave_out(left_out, "pictures outside class folders", find(folder, deep=False).pictures)
    return items


def leave_out(left_out: dict[str, list[Path]], why: str, paths: Iterable[Path]) -> None:
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


@DATASET_REGISTRY.register()
class Folder(FewShotDataset):
    """Pictures under DATASET.ROOT itself, in one of three forms.

    - ROOT/{train,val,test}/<class>/**; val may be missing, `WORDS` holds other names of the three.
      With test/ alone there is nothing to train on, but a model trained elsewhere can be evaluated.
    - ROOT/<class>/**, divided here: half for training, a fifth for validation, the rest for
      testing.
    - ROOT is a CSV file with the columns path, label and perhaps split (train, val or test). Paths
      start from its folder, a label is a class name or a key of classnames.txt.

    Classes are the folders that hold a picture (or the labels), sorted. A classnames.txt beside
    them gives other classes, order and names instead: "folder class name" a line, see
    `read_class_names`. Pictures are turned upright, unless INPUT.EXIF says otherwise.
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

    def default_name(self) -> str:
        """Return the name of the folder, or of the CSV file without its suffix, printable."""
        name = (self.folder.name if self.table is None else self.table.stem) or type(self).__name__
        return "".join(letter if letter.isprintable() else "_" for letter in name)

    def read_raw(self) -> Splits:
        """Return the pictures; the test's stand in for missing training pictures."""
        path = self.folder / CLASS_LIST
        listed = read_class_names(path) if path.is_file() else {}
        items = read_table(self.table) if self.table else self._read_folders(listed)
        if not any(items.values()):
            others = self.left_out.get(OTHERS)
            left = f" Left out: {what_is_left(OTHERS, others)}." if others else ""
            raise ValueError(
                f"No pictures in {self.table or self.folder}; expected <class>/picture.jpg, or "
                f"train/, val/ and test/ with such folders.{left}"
            )
        keys = _keys(items)
        order = int if all(key.isdecimal() for key in keys) else str  # 2 before 10
        names = listed or {key: key for key in sorted(keys, key=order)}
        labels = {key: label for label, key in enumerate(names)}
        if unknown := sorted(keys - labels.keys()):
            raise ValueError(
                f"{self.folder / CLASS_LIST} lacks the class {unknown[0]!r}; add a line with it "
                "and its name, a tab in between if it has a space."
            )
        splits: BySplit = {
            split: [Item(i.impath, labels[i.classname], 0, names[i.classname]) for i in found]
            for split, found in items.items()
        }
        class_names = list(names.values())
        if UNDIVIDED in splits:
            return divide(splits[UNDIVIDED])._replace(class_names=class_names)
        train, val, test = (splits.get(split, []) for split in SPLITS)
        if not test:
            raise ValueError(
                f"{self.table or self.folder} has no test pictures; add some, or name no splits "
                "to have the pictures divided."
            )
        self.test_only = not train
        return Splits(train or test, val, test, class_names)

    def _read_folders(self, listed: Iterable[str]) -> BySplit:
        parts = self._parts()
        items: BySplit = {}
        empty: list[Path] = []
        for split, part in parts.items():
            classes = {name: shown(name) for name in class_folders(part)}
            items[split] = read_class_folders(part, classes, self.left_out)
            empty += [part / name for name in folders_in(part) if name not in classes]
        keys = _keys(items) | {*listed}
        if UNDIVIDED in parts:
            names = folders_in(self.folder) if len(keys) == 1 else []
            require_pictures(self.folder, names, f"take --root {self.folder / ''.join(names)}")
        else:
            others = {self.folder / name for name in folders_in(self.folder)} - {*parts.values()}
            beside = [path for folder in sorted(others) for path in find(folder).pictures]
            beside += find(self.folder, deep=False).pictures
            leave_out(self.left_out, "pictures beside the splits", beside)
        no_class = [folder for folder in empty if shown(folder.name) not in keys]
        leave_out(self.left_out, "folders without a picture", no_class)
        return items

    def _parts(self) -> dict[str, Path]:
        """Return the folder of each split, or the root as the one that is not divided."""
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


def _keys(items: BySplit) -> set[str]:
    return {item.classname for found in items.values() for item in found}


def read_table(path: Path) -> BySplit:
    """Read a CSV file of pictures."""
    items: BySplit = defaultdict(list)
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), skipinitialspace=True)
    try:
        columns = list(reader.fieldnames or ())
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise ValueError(f"{path} is no CSV file ({error}).") from None
    if not {"path", "label"} <= set(columns):
        raise ValueError(
            f"{path} begins with {','.join(columns)!r}; expected path,label or path,label,split."
        )
    for line, row in rows:
        picture, label, word = ((row.get(key) or "").strip() for key in COLUMNS)
        split = WORDS.get(word.lower()) if "split" in columns else UNDIVIDED
        if not picture or not label or split is None:
            raise ValueError(
                f"Line {line} of {path} has path {picture!r}, label {label!r}, "
                f"split {word!r}; expected a path, a label and one of {', '.join(SPLITS)}."
            )
        items[split].append(Item(path.parent / picture, 0, classname=label))
    return items


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
