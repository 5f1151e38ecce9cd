"""The data sets' own annotations, parsed into items; for a split file that is missing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dassl.data.datasets import Datum

from datasets.division import divide, hold_out, items_of
from datasets.mat_file import read_mat
from datasets.pictures import class_folders
from datasets.splits import Splits, read_json, read_text


def read_rows(path: Path, form: str) -> list[list[str]]:
    """Return the words of each line of a list; the last word takes the rest of its line.

    Args:
        path: the list.
        form: what a line holds, a name a word, as "picture class".

    Raises:
        ValueError: a line has fewer words.
    """
    count = len(form.split())
    rows = []
    for line in read_text(path).splitlines():
        words = line.split(maxsplit=count - 1)
        if words and len(words) < count:
            raise ValueError(f"{path} has the line {line!r}; expected: {form}.")
        if words:
            rows.append([word.strip() for word in words])
    return rows


def look_up(table: Mapping[Any, Any], key: Any, path: Path) -> Any:
    """Return what a class of a list stands for.

    Raises:
        ValueError: the table has no such class.
    """
    if key not in table:
        raise ValueError(f"{path} names the class {key!r}, which the list of classes does not.")
    return table[key]


def to_label(word: str, path: Path) -> int:
    """Return the label, from 0, of a class that is counted from 1.

    Raises:
        ValueError: the word is no such number.
    """
    if not word.isdecimal() or int(word) < 1:
        raise ValueError(f"{path} has {word!r} where the number of a class, from 1, is expected.")
    return int(word) - 1


def read_pets(folder: Path) -> Splits:
    """Parse annotations/{trainval,test}.txt of OxfordPets: "Abyssinian_100 1 1 1"."""

    def read(name: str) -> list[Datum]:
        path, items = folder / "annotations" / name, []
        for picture, label, *_ in read_rows(path, "picture class species breed"):
            breed = picture.rpartition("_")[0].lower()
            items += items_of([folder / "images" / f"{picture}.jpg"], to_label(label, path), breed)
        return items

    return hold_out(read("trainval.txt"), read("test.txt"))


def read_cars(folder: Path) -> Splits:
    """Parse the MATLAB files of StanfordCars; the year moves to the front of a class name."""
    classes: dict[int, str] = {}
    for name in read_mat(folder / "devkit" / "cars_meta.mat", "class_names", str):
        model, _, year = name.rpartition(" ")
        classes[len(classes) + 1] = f"{year} {model}"

    def read(pictures: str, annotations: str) -> list[Datum]:
        items = []
        for row in read_mat(folder / annotations, "annotations", {"class": int, "fname": str}):
            name = look_up(classes, row["class"], folder / annotations)
            items += items_of([folder / pictures / row["fname"]], row["class"] - 1, name)
        return items

    trainval = read("cars_train", "devkit/cars_train_annos.mat")
    return hold_out(trainval, read("cars_test", "cars_test_annos_withlabels.mat"))


def read_flowers(folder: Path) -> Splits:
    """Parse imagelabels.mat (the class of each picture, from 1) and cat_to_name.json."""
    names = read_json(folder / "cat_to_name.json")
    items = []
    for number, label in enumerate(read_mat(folder / "imagelabels.mat", "labels", int), start=1):
        name = look_up(names, str(label), folder / "imagelabels.mat")
        items += items_of([folder / "jpg" / f"image_{number:05d}.jpg"], label - 1, name)
    return divide(items)


def read_sun397(folder: Path) -> Splits:
    """Parse ClassName.txt, Training_01.txt and Testing_01.txt: "/a/abbey/sun_aaa.jpg".

    What stands behind the last slash of a class goes to the front: "indoor kennel".
    """
    classes = [row[0].strip("/") for row in read_rows(folder / "ClassName.txt", "class")]
    labels = {name: label for label, name in enumerate(classes)}

    def read(path: Path) -> list[Datum]:
        items = []
        for (picture,) in read_rows(path, "picture"):
            place = picture.strip("/").rpartition("/")[0]
            label = look_up(labels, place, path)
            name = " ".join(reversed(place.split("/")[1:]))
            items += items_of([folder / "SUN397" / picture.strip("/")], label, name)
        return items

    return hold_out(read(folder / "Training_01.txt"), read(folder / "Testing_01.txt"))


def read_dtd(folder: Path) -> Splits:
    """Parse labels/{train,val,test}1.txt of the textures: "banded/banded_0002.jpg"."""
    labels = {name: label for label, name in enumerate(class_folders(folder / "images"))}

    def read(split: str) -> list[Datum]:
        path, items = folder / "labels" / f"{split}1.txt", []
        for (picture,) in read_rows(path, "picture"):
            name = picture.partition("/")[0]
            items += items_of([folder / "images" / picture], look_up(labels, name, path), name)
        return items

    return Splits(read("train"), read("val"), read("test"), list(labels))


def read_ucf101(folder: Path) -> Splits:
    """Parse ucfTrainTestlist: "ApplyLipstick/v_ApplyLipstick_g08_c01.avi", a frame a video."""
    lists = folder / "ucfTrainTestlist"
    index = lists / "classInd.txt"
    labels = {name: to_label(number, index) for number, name in read_rows(index, "number class")}

    def read(path: Path) -> list[Datum]:
        items = []
        for row in read_rows(path, "video"):
            action, _, video = row[0].split()[0].partition("/")
            name = "_".join(re.findall("[A-Z][^A-Z]*", action))
            frame = folder / "UCF-101-midframes" / name / f"{Path(video).stem}.jpg"
            items += items_of([frame], look_up(labels, action, path), name)
        return items

    return hold_out(read(lists / "trainlist01.txt"), read(lists / "testlist01.txt"))
