"""ImageNet's archives: a tar of tars for training, a heap of pictures for validation."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path

from dassl.utils.unpack import unpack

from datasets.benchmarks import look_up
from datasets.mat_file import read_mat
from datasets.pictures import find
from datasets.splits import read_text

DEVKIT = "ILSVRC2012_devkit_t12"


def sort_train(archive: Path, scratch: Path) -> Path:
    """Unpack each class's tar file into a folder of its name; returns the folder of those.

    Raises:
        ValueError: a member is no tar file, or the archive is broken.
    """
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
    """Unpack the validation pictures into a folder a class, as the development kit says.

    Raises:
        FileNotFoundError: the kit does not lie beside the archive.
        ValueError: the kit has labels for another number of pictures, or of other classes.
    """
    devkit = archive.with_name(f"{DEVKIT}.tar.gz")
    if not devkit.is_file():
        raise FileNotFoundError(f"{devkit} is missing; it says which class each picture has.")
    heap, folder = scratch / "heap", scratch / "val"
    unpack(archive, heap)
    unpack(devkit, scratch / "kit")
    data = scratch / "kit" / DEVKIT / "data"
    wnids = read_wnids(data / "meta.mat")
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


def read_wnids(path: Path) -> dict[str, str]:
    """Return the folder of each class by its number in the development kit.

    Raises:
        ValueError: the file is none of the kit.
    """
    rows = read_mat(path, "synsets", {"ILSVRC2012_ID": int, "WNID": str})
    for row in rows:
        if not re.fullmatch(r"n\d+", row["WNID"]):
            raise ValueError(f"{path} names the class {row['WNID']!r}; expected one as n01440764.")
    return {str(row["ILSVRC2012_ID"]): row["WNID"] for row in rows}
