"""Lists of pictures: read from a split file, cut down to base or new classes, cached as JSON."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from dassl.data.datasets import Datum

logger = logging.getLogger(__name__)

CLASS_SUBSETS = ("all", "base", "new")


class Splits(NamedTuple):
    """Items for training, validation (may be empty) and testing."""

    train: list[Datum]
    val: list[Datum]
    test: list[Datum]


def read_text(path: Path) -> str:
    """Return the content of a file that belongs to a data set.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"The file {path} is missing; docs/datasets.md says which files a data set needs and "
            "where they come from."
        )
    return path.read_text(encoding="utf-8")


def read_split(path: Path, image_folder: Path) -> Splits:
    """Read a split file in the format of Zhou et al. (CoOp).

    Args:
        path: JSON, {"train": [[path, label, class name], ...], "val": ..., "test": ...}.
        image_folder: what the paths in the file are relative to.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no JSON, lacks a split, has no training items or a malformed entry.
    """
    try:
        content = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"The split file {path} is not valid JSON ({error}).") from None
    lists = [content.get(name) for name in Splits._fields] if isinstance(content, dict) else []
    if not lists or not all(isinstance(entries, list) for entries in lists):
        raise ValueError(
            f"The split file {path} must hold three lists: {', '.join(Splits._fields)}."
        )
    splits = Splits(*(parse_entries(entries, image_folder, path) for entries in lists))
    if not splits.train:
        raise ValueError(f"The split file {path} lists no training pictures.")
    return splits


def parse_entries(entries: Any, image_folder: Path, source: Path) -> list[Datum]:
    """Turn [[path, label, class name], ...] into items.

    Raises:
        ValueError: an entry has another form; `source` is named.
    """
    items = []
    for entry in entries:
        match entry:
            case [str(path), int(label), str(class_name)] if label >= 0:
                impath = str(image_folder / path)
                items.append(Datum(impath=impath, label=label, classname=class_name))
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


def select_labels(labels: Iterable[int], subset: str) -> list[int]:
    """Return the labels of a class subset: base is the first ceil(n/2) sorted labels, new the rest.

    Raises:
        ValueError: `subset` is none of all, base, new.
    """
    if subset not in CLASS_SUBSETS:
        raise ValueError(
            f"DATASET.SUBSAMPLE_CLASSES must be one of {', '.join(CLASS_SUBSETS)}; got {subset!r}."
        )
    ordered = sorted(set(labels))
    middle = math.ceil(len(ordered) / 2)
    return {"all": ordered, "base": ordered[:middle], "new": ordered[middle:]}[subset]


def class_names_of(items: Iterable[Datum]) -> list[str]:
    """Return the names of the classes of these items, in the order of their labels."""
    return list(dict(sorted({item.label: item.classname for item in items}.items())).values())


def subsample_classes(splits: Splits, subset: str) -> Splits:
    """Keep the items of a class subset, labelled anew from 0; `all` leaves everything as it is.

    The classes are those of the training items. A half of a half is written with a slash: training
    on "base/base" and validating on "base/new" chooses settings without touching new classes.

    Raises:
        ValueError: `subset` is none of all, base, new.
    """
    subset, _, inner = subset.partition("/")
    if inner:
        return subsample_classes(subsample_classes(splits, subset), inner)
    selected = select_labels((item.label for item in splits.train), subset)
    if subset == "all":
        return splits
    new_labels = {label: position for position, label in enumerate(selected)}
    return Splits(*(relabel(items, new_labels) for items in splits))


def relabel(items: Iterable[Datum], new_labels: dict[int, int]) -> list[Datum]:
    """Return the items whose label is a key of `new_labels`, with the label it maps to."""
    return [
        Datum(
            impath=item.impath,
            label=new_labels[item.label],
            domain=item.domain,
            classname=item.classname,
        )
        for item in items
        if item.label in new_labels
    ]


def fingerprint(splits: Splits, image_folder: Path) -> str:
    """Return a digest of what shots are drawn from; the same wherever the data set is stored."""
    entries = [to_entries(items, image_folder) for items in (splits.train, splits.val)]
    return hashlib.sha256(json.dumps(entries).encode()).hexdigest()[:16]


def read_subset(cache: Path, image_folder: Path, origin: str) -> Splits | None:
    """Read a few-shot subset (without test items).

    Returns:
        None where there is no readable subset that was drawn from `origin`, a `fingerprint`.
    """
    if not cache.is_file():
        return None
    try:
        content = json.loads(cache.read_text(encoding="utf-8"))
        if content["drawn_from"] != origin:
            logger.info("The split has changed since %s was drawn; drawing anew.", cache)
            return None
        train = parse_entries(content["train"], image_folder, cache)
        val = parse_entries(content["val"], image_folder, cache)
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("Cannot read the few-shot subset %s (%s); drawing it anew.", cache, error)
        return None
    return Splits(train, val, [])


def write_subset(cache: Path, subset: Splits, image_folder: Path, origin: str) -> None:
    """Write a few-shot subset atomically; a folder that cannot be written to is no error."""
    content = {
        "drawn_from": origin,
        "train": to_entries(subset.train, image_folder),
        "val": to_entries(subset.val, image_folder),
    }
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=cache.parent, suffix=".tmp", encoding="utf-8", delete=False
        ) as file:
            json.dump(content, file)
        Path(file.name).replace(cache)
    except OSError as error:
        logger.info("The few-shot subset is not cached: cannot write %s (%s).", cache, error)
