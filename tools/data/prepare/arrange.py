"""From a fetched file to its place in a data set's folder."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

from datasets.base import FewShotDataset, Published
from datasets.division import CLASS_LIST, read_class_names
from datasets.splits import read_json, read_split
from tools.data.prepare.imagenet import sort_train, sort_val
from tools.data.prepare.sources import Piece
from tools.data.prepare.unpack import is_archive, scratch_beside, unpack

CLASSES = 1000  # of ImageNet


def missing_parts(piece: Piece, folder: Path) -> list[str]:
    """Return what a piece gives and the folder lacks; an empty folder is lacking, too."""
    return [path for path in piece.gives if not is_there(folder / path)]


def is_there(path: Path) -> bool:
    """Return whether a path is a file or a folder with something in it."""
    return path.is_file() or (path.is_dir() and any(path.iterdir()))


def put(piece: Piece, source: Path, folder: Path) -> None:
    """Unpack an archive, or copy a file, into a data set's folder; what is there is left alone.

    It is unpacked beside its place and then moved, so that what has its name is complete.

    Raises:
        ValueError: the archive is refused, broken, or holds something else.
    """
    with scratch_beside(folder) as scratch:
        if not piece.moves:
            settle(Path(shutil.copy(source, scratch)), folder / piece.file)
        elif piece.sorter:
            sort = {"train": sort_train, "val": sort_val}[piece.sorter]
            settle(sort(source, scratch), folder / piece.gives[0])
        else:
            unpack(source, scratch / "whole")
            for inside, target in piece.moves:
                settle(dig(scratch / "whole", inside, source), folder / target)


def is_whole(archive: Path, dataset_dir: str, piece: Piece) -> bool:
    """Return whether an archive is a zip of a data set's whole folder; the name alone may deceive.

    Args:
        archive: the file.
        dataset_dir: name of the data set's folder.
        piece: one that it should hold, unpacked.
    """
    if not zipfile.is_zipfile(archive):
        return False
    with zipfile.ZipFile(archive) as opened:
        start = f"{dataset_dir}/{piece.gives[0]}/"
        return any(name.startswith(start) for name in opened.namelist())


def put_whole(source: Path, folder: Path) -> None:
    """Unpack a zip of a data set's whole folder, without what is there already."""
    with scratch_beside(folder) as scratch:
        unpack(source, scratch / "whole")
        for entry in sorted(dig(scratch / "whole", folder.name, source).iterdir()):
            settle(entry, folder / entry.name)


def settle(source: Path, target: Path) -> None:
    """Move something to its place, unless something is there."""
    if is_there(target):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir():
        target.rmdir()
    source.rename(target)


def dig(scratch: Path, inside: str, source: Path) -> Path:
    """Return a path in an unpacked archive, unpacking archives on the way to it.

    Raises:
        ValueError: there is no such path.
    """
    path = scratch
    for name in Path(inside).parts:
        path = path / name
        if not path.exists():
            held = ", ".join(sorted(entry.name for entry in scratch.iterdir())) or "nothing"
            raise ValueError(f"{source} lacks {inside}; at its top it holds {held}.")
        if is_archive(path):
            nested = path.with_name(f"{path.name}.unpacked")
            unpack(path, nested)
            path = nested
    return path


def require_content(dataset: type[FewShotDataset], path: Path) -> None:
    """Refuse a split file or a list of classes that is another file, as a page of refusal.

    Raises:
        ValueError: the file has not the published form or counts.
    """
    try:
        fault = content_fault(dataset, path)
    except ValueError as error:
        fault = str(error)
    if fault:
        raise ValueError(f"{path} is not the published file: {fault}; fetch it anew.")


def content_fault(dataset: type[FewShotDataset], path: Path) -> str:
    """Return what is wrong with a file by its content, or nothing."""
    if path.name == CLASS_LIST:
        count = len(read_class_names(path))
        return "" if count == CLASSES else f"it names {count} classes, expected {CLASSES}"
    if path.name == dataset.split_file and dataset.published:
        splits = read_split(path, path.parent)
        parts = (splits.train, splits.val, splits.test)
        found = Published(len(splits.names()), *map(len, parts))
        return "" if found == dataset.published else f"{found}, expected {dataset.published}"
    if path.suffix == ".json":
        read_json(path)
    return ""
