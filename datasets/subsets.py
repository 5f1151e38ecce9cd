"""Few-shot subsets on disk (JSON, and the pickles of upstream), and digests of data sets."""

import hashlib
import json
import logging
import pickle
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from dassl.data.datasets import Datum

from datasets.splits import Splits, parse_entries, to_entries, write_json

logger = logging.getLogger(__name__)

MAX_READ = 256 * 2**20  # bytes of pictures that are read for `picture_digest`


def fingerprint(splits: Splits, image_folder: Path) -> str:
    """Return a digest of what shots are drawn from; the same wherever the data set is stored."""
    entries = [to_entries(items, image_folder) for items in (splits.train, splits.val)]
    return hashlib.sha256(json.dumps(entries).encode()).hexdigest()[:16]


def digest(splits: Splits, image_folder: Path, *, with_sizes: bool) -> str:
    """Return 12 hexadecimal digits of all paths, labels and class names, and the files' sizes."""
    parts = [fingerprint(splits, image_folder), to_entries(splits.test, image_folder)]
    items = (*splits.train, *splits.val, *splits.test) if with_sizes else ()
    content = json.dumps([*parts, splits.names(), *map(_size, items)])
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def _size(item: Datum) -> int:
    """Bytes of a picture's file; 0 where there is none."""
    path = Path(item.impath)
    return path.stat().st_size if path.is_file() else 0


def picture_digest(items: Iterable[Datum]) -> str:
    """Return 12 hexadecimal digits of the content of pictures, in their order.

    Of more than MAX_READ bytes only the sizes count; a missing picture counts as an empty one.
    """
    items = list(items)
    sizes = [_size(item) for item in items]
    total = hashlib.sha256(json.dumps(sizes).encode())
    if sum(sizes) <= MAX_READ:
        for item, size in zip(items, sizes, strict=True):
            if size:
                total.update(hashlib.sha256(Path(item.impath).read_bytes()).digest())
    return total.hexdigest()[:12]


def cached_subset(
    cache: Path, splits: Splits, image_folder: Path, draw: Callable[[], Splits]
) -> Splits:
    """Return the few-shot subset that upstream cached, or that we cached, or draw and cache it."""
    origin = fingerprint(splits, image_folder)
    stored = _read_subset(cache, image_folder, origin, splits)
    subset = read_pickled_subset(cache.with_suffix(".pkl"), splits) or stored or draw()
    if subset is not stored:
        train, val = (to_entries(items, image_folder) for items in (subset.train, subset.val))
        write_json(cache, {"drawn_from": origin, "train": train, "val": val})
    return splits._replace(train=subset.train, val=subset.val)


def _read_subset(cache: Path, image_folder: Path, origin: str, splits: Splits) -> Splits | None:
    """Read a few-shot subset (without test items); None and a warning unless it fits `splits`."""
    if not cache.is_file():
        return None
    try:
        content = json.loads(cache.read_text(encoding="utf-8"))
        if content["drawn_from"] != origin:
            raise ValueError("the split has changed since it was drawn")
        train, val = (parse_entries(content[s], image_folder, cache) for s in ("train", "val"))
        _require_drawn_from(train, splits.train)
        _require_drawn_from(val, splits.val)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        logger.warning("The few-shot subset %s is drawn anew: %s.", cache, error)
        return None
    return Splits(train, val, [])


def _require_drawn_from(subset: Iterable[Datum], items: Iterable[Datum]) -> None:
    """Refuse a subset with an item that is not among `items`, or with one item twice."""
    drawn, known = (
        Counter((item.impath, item.label, item.classname) for item in part)
        for part in (subset, items)
    )
    for entry in drawn - known:
        raise ValueError(f"{list(entry)} is not in the split, or is listed twice")


class _DatumUnpickler(pickle.Unpickler):
    """Reads `Datum` and plain containers; a pickle that names anything else is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("dassl.data.datasets.base_dataset", "Datum"):
            return Datum
        raise pickle.UnpicklingError(f"it names {module}.{name}, which may run code")


def read_pickled_subset(cache: Path, splits: Splits) -> Splits | None:
    """Read the pictures that upstream drew or listed, {"train": [Datum, ...], "val": ...}.

    Its paths are absolute, often of another machine. Each stands for the picture of the split with
    the same class folder, file name and label.
    Returns None where there is no such file, or it does not fit this data set.
    """
    if not cache.is_file():
        return None
    try:
        with cache.open("rb") as file:
            content = _DatumUnpickler(file).load()
        train = _match(content["train"], splits.train)
        val = _match(content.get("val", []), splits.val)
    except Exception as error:  # a broken pickle may raise anything
        logger.warning("Upstream's list of pictures %s is not used: %s.", cache, error)
        return None
    logger.info("Using upstream's list of pictures in %s", cache)
    return Splits(train, val, [])


def _match(pickled: Iterable[Datum], items: Iterable[Datum]) -> list[Datum]:
    def key(item: Datum) -> tuple[Any, ...]:
        return item.label, *item.impath.replace("\\", "/").rsplit("/", 2)[-2:]

    known = {key(item): item for item in items}
    for item in pickled:
        if not isinstance(item, Datum) or key(item) not in known:
            raise ValueError(f"{item!r} is not among the pictures of the split")
    return [known[key(item)] for item in pickled]
