"""ImageNet's archives: a tar of tars for training, a heap of pictures for validation."""

from __future__ import annotations

import tarfile
from pathlib import Path

from datasets.pictures import pictures_in
from datasets.raw import read_mat
from datasets.splits import read_text
from tools.prepare.unpack import unpack, unpack_tar

DEVKIT = "ILSVRC2012_devkit_t12"


def sort_train(archive: Path, scratch: Path) -> Path:
    """Unpack each class's tar file into a folder of its name; returns the folder of those.

    Raises:
        ValueError: a member is no tar file.
    """
    folder = scratch / "train"
    with tarfile.open(archive) as outer:
        for member in outer:
            inner = outer.extractfile(member)
            if inner is None or not member.name.endswith(".tar"):
                raise ValueError(
                    f"{archive} holds {member.name!r}; expected a tar file a class, n01440764.tar."
                )
            with tarfile.open(fileobj=inner) as opened:
                unpack_tar(opened, folder / Path(member.name).stem, member.name)
    return folder


def sort_val(archive: Path, scratch: Path) -> Path:
    """Unpack the validation pictures into a folder a class, as the development kit says.

    Raises:
        FileNotFoundError: the kit does not lie beside the archive.
        ValueError: the kit has labels for another number of pictures.
    """
    devkit = archive.with_name(f"{DEVKIT}.tar.gz")
    if not devkit.is_file():
        raise FileNotFoundError(f"{devkit} is missing; it says which class each picture has.")
    heap, folder = scratch / "heap", scratch / "val"
    unpack(archive, heap)
    unpack(devkit, scratch)
    data = scratch / DEVKIT / "data"
    wnids = {
        int(row.ILSVRC2012_ID): str(row.WNID) for row in read_mat(data / "meta.mat", "synsets")
    }
    labels = read_text(data / "ILSVRC2012_validation_ground_truth.txt").split()
    pictures = pictures_in(heap)
    if len(pictures) != len(labels):
        raise ValueError(
            f"{archive} holds {len(pictures)} pictures, but {devkit} has labels for {len(labels)}."
        )
    for picture, label in zip(pictures, labels, strict=True):
        place = folder / wnids[int(label)]
        place.mkdir(parents=True, exist_ok=True)
        picture.rename(place / picture.name)
    return folder
