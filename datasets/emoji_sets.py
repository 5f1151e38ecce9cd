"""The seven emoji data sets: their classes, splits and pictures."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path

import numpy as np
from numpy.random import Generator

from datasets.emoji_pictures import Picture, render_picture

SETS = ("animals", "food", "travel", "objects", "wear", "faces", "nature")
PICTURES_PER_CLASS = {"train": 80, "val": 16, "test": 100}  # train: 16 shots for 5 seeds


@cache
def _table() -> dict[str, dict[str, str]]:
    """Return class name -> code point for each set; the order is the order of labels."""
    path = Path(__file__).with_name("emoji_classes.json")
    listed = json.loads(path.read_text(encoding="utf-8"))
    return {set_name: dict(classes) for set_name, classes in listed.items()}


def class_names(set_name: str) -> list[str]:
    """Return the names of a set's classes, by label."""
    return list(_table()[set_name])


@cache
def code_points() -> dict[str, str]:
    """Return the code point of every class of every set, by name."""
    return {name: code for classes in _table().values() for name, code in classes.items()}


def picture_rng(*key: str | int) -> Generator:
    """Return the generator of the picture named by `key`, the same on every machine."""
    digest = hashlib.sha256("\0".join(str(part) for part in key).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


def draw_picture(set_name: str, domain: str, split: str, class_name: str, index: int) -> Picture:
    """Return a picture of the benchmark and its mask; both depend on the arguments only.

    Args:
        set_name: one of `SETS`.
        domain: "colour" or "lineart".
        split: "train", "val" or "test".
        class_name: one of the set's classes.
        index: of the picture within its split and class, from 0.
    """
    rng = picture_rng(set_name, domain, split, class_name, index)
    others = tuple(code for name, code in code_points().items() if name != class_name)
    return render_picture(code_points()[class_name], rng, domain=domain, others=others)
