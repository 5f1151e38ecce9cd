"""From a downloaded file to its place in a data set's folder."""

from __future__ import annotations

import re
import shutil
import tarfile
import zipfile
from pathlib import Path

from datasets.base import FewShotDataset, Published
from datasets.benchmarks import look_up
from datasets.folder import CLASS_LIST, read_class_names
from datasets.mat_file import read_mat
from datasets.pictures import find
from datasets.splits import read_json, read_split, read_text
from tools.data.sources import Piece
from tools.data.unpack import is_archive, scratch_beside, unpack

CLASSES = 1000  # of ImageNet
DEVKIT = "ILSVRC2012_devkit_t12"


def in_place(piece: Piece, folder: Path) -> bool:
    """Return whether a data set's folder has all that a piece gives."""
    return all(_is_there(folder / path) for path in piece.gives)


def _is_there(path: Path) -> bool:
    """Return whether a path is a file or a folder with something in it."""
    return path.is_file() or (path.is_dir() and any(path.iterdir()))


def put(piece: Piece, source: Path, folder: Path) -> None:
    """Unpack an archive, or copy a file, into a data set's folder; existing parts stay.

    It is unpacked beside its place and then moved, so that what has its name is complete.
    """
    with scratch_beside(folder) as scratch:
        if not piece.moves:
            _settle(Path(shutil.copy(source, scratch)), folder / piece.file)
        elif piece.sorter:
            sort = {"train": sort_train, "val": sort_val}[piece.sorter]
            _settle(sort(source, scratch), folder / piece.gives[0])
        else:
            unpack(source, scratch / "whole")
            for inside, target in piece.moves:
                _settle(_dig(scratch / "whole", inside, source), folder / target)


def is_whole(archive: Path, dataset_dir: str, piece: Piece) -> bool:
    """Return whether an archive is a zip of a data set's whole folder, with the piece unpacked."""
    if not zipfile.is_zipfile(archive):
        return False
    with zipfile.ZipFile(archive) as opened:
        start = f"{dataset_dir}/{piece.gives[0]}/"
        return any(name.startswith(start) for name in opened.namelist())


def put_whole(source: Path, folder: Path) -> None:
    """Unpack a zip of a data set's whole folder; existing parts stay."""
    with scratch_beside(folder) as scratch:
        unpack(source, scratch / "whole")
        for entry in sorted(_dig(scratch / "whole", folder.name, source).iterdir()):
            _settle(entry, folder / entry.name)


def _settle(source: Path, target: Path) -> None:
    """Move something to its place, unless something is there."""
    if _is_there(target):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir():
        target.rmdir()
    source.rename(target)


def _dig(scratch: Path, inside: str, source: Path) -> Path:
    """Return the path `inside` an unpacked archive, unpacking archives on the way to it."""
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
    """Refuse a split file or a class list with other content, as a server's error page."""
    fault = ""
    try:
        if path.name == CLASS_LIST:
            count = len(read_class_names(path))
            fault = "" if count == CLASSES else f"it names {count} classes, expected {CLASSES}"
        elif path.name == dataset.split_file and dataset.published:
            splits = read_split(path, path.parent)
            found = Published(len(splits.names()), *map(len, splits[:3]))
            fault = "" if found == dataset.published else f"{found}, expected {dataset.published}"
        elif path.suffix == ".json":
            read_json(path)
    except ValueError as error:
        fault = str(error)
    if fault:
        raise ValueError(f"{path} is not the published file: {fault}; fetch it anew.")


def sort_train(archive: Path, scratch: Path) -> Path:
    """Unpack ImageNet's tar of a tar for each class; returns the folder of the class folders."""
    folder = scratch / "train"
    with tarfile.open(archive) as outer:
        for member in outer:
            inner = outer.extractfile(member)
            if inner is None or not member.name.endswith(".tar"):
                raise ValueError(
                    f"{archive} holds {member.name!r}; expected a tar file a class, n01440764.tar."
                )
            unpack(inner, folder / Path(member.name).stem, member.name)
    return folder


def sort_val(archive: Path, scratch: Path) -> Path:
    """Unpack ImageNet's validation pictures into class folders, with the development kit's labels.

    Returns the folder of the class folders. The kit must lie beside the archive.
    """
    devkit = archive.with_name(f"{DEVKIT}.tar.gz")
    if not devkit.is_file():
        raise FileNotFoundError(f"{devkit} is missing; it says which class each picture has.")
    heap, folder = scratch / "heap", scratch / "val"
    unpack(archive, heap)
    unpack(devkit, scratch / "kit")
    data = scratch / "kit" / DEVKIT / "data"
    wnids = _read_wnids(data / "meta.mat")
    truth = data / "ILSVRC2012_validation_ground_truth.txt"
    labels = read_text(truth).split()
    pictures = find(heap).pictures
    if len(pictures) != len(labels):
        raise ValueError(
            f"{archive} holds {len(pictures)} pictures, but {devkit} has labels for {len(labels)}."
        )
    for picture, label in zip(pictures, labels, strict=True):
        place = folder / look_up(wnids, label, truth)
        place.mkdir(parents=True, exist_ok=True)
        picture.rename(place / picture.name)
    return folder


def _read_wnids(path: Path) -> dict[str, str]:
    """Return the folder of each class by its number in the development kit."""
    rows = read_mat(path, "synsets", {"ILSVRC2012_ID": int, "WNID": str})
    for row in rows:
        if not re.fullmatch(r"n\d+", row["WNID"]):
            raise ValueError(f"{path} names the class {row['WNID']!r}; expected one as n01440764.")
    return {str(row["ILSVRC2012_ID"]): row["WNID"] for row in rows}
