"""ImageNet and its four variants: one folder a class, named by classnames.txt.

None of them has a validation split: `val` is empty, so that nothing can be chosen on the test
pictures. Pictures are read in the order of their names; upstream reads them in the file system's
order, so its few-shot subsets of ImageNet differ from machine to machine.
"""

from __future__ import annotations

from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY, Datum

from datasets.base import FewShotDataset, require_folder
from datasets.splits import Splits, read_text


@DATASET_REGISTRY.register()
class ImageNet(FewShotDataset):
    """1000 kinds of objects (Deng et al., 2009); the validation pictures serve as the test."""

    dataset_dir = "imagenet"
    image_dir = "images"

    def read_splits(self) -> Splits:
        """Return train and test; the folders under train/ say which classes there are."""
        names = read_class_names(self.folder / "classnames.txt")
        classes = find_classes(self.image_folder / "train", names)
        train = read_pictures(self.image_folder / "train", classes)
        return Splits(train, [], read_pictures(self.image_folder / "val", classes))


class ImageNetVariant(FewShotDataset):
    """Another test set for ImageNet's classes; its pictures stand in for the training items.

    No picture is ever trained on: the training items only tell the engine the class names.
    """

    def read_splits(self) -> Splits:
        """Return all pictures as the test."""
        items = read_pictures(self.image_folder, self.find_classes())
        return Splits(items, [], items)

    def find_classes(self) -> dict[str, str]:
        """Return class name by folder; the folders that exist say which classes there are."""
        return find_classes(self.image_folder, read_class_names(self.folder / "classnames.txt"))


@DATASET_REGISTRY.register()
class ImageNetSketch(ImageNetVariant):
    """Sketches of the 1000 classes (Wang et al., 2019)."""

    dataset_dir = "imagenet-sketch"
    image_dir = "images"


@DATASET_REGISTRY.register()
class ImageNetA(ImageNetVariant):
    """Pictures of 200 classes that ResNets get wrong (Hendrycks et al., 2021)."""

    dataset_dir = "imagenet-adversarial"
    image_dir = "imagenet-a"


@DATASET_REGISTRY.register()
class ImageNetR(ImageNetVariant):
    """Renditions of 200 classes: paintings, toys, tattoos (Hendrycks et al., 2021)."""

    dataset_dir = "imagenet-rendition"
    image_dir = "imagenet-r"


@DATASET_REGISTRY.register()
class ImageNetV2(ImageNetVariant):
    """Pictures collected anew for the 1000 classes (Recht et al., 2019); folders 0, 1, ..., 999."""

    dataset_dir = "imagenetv2"
    image_dir = "imagenetv2-matched-frequency-format-val"

    def find_classes(self) -> dict[str, str]:
        """Return class name by folder; folder n belongs to line n of classnames.txt."""
        names = read_class_names(self.folder / "classnames.txt").values()
        return {str(label): name for label, name in enumerate(names)}


def read_class_names(path: Path) -> dict[str, str]:
    """Read lines like "n01440764 tench": class name by folder, in the order of the file."""
    lines = (line.strip() for line in read_text(path).splitlines())
    pairs = (line.partition(" ") for line in lines if line)
    return {folder: name for folder, _, name in pairs}


def find_classes(folder: Path, names: dict[str, str]) -> dict[str, str]:
    """Return class name by class folder, for the folders in `folder`, sorted.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: a class folder is not in `names`.
    """
    require_folder(folder, "ImageNet or a variant")
    found = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    unknown = [name for name in found if name not in names]
    if unknown:
        raise ValueError(
            f"{folder} holds the folder {unknown[0]}, which classnames.txt does not name; remove "
            "the folder, or add a line with it and its class name."
        )
    return {name: names[name] for name in found}


def read_pictures(folder: Path, classes: dict[str, str]) -> list[Datum]:
    """Return the pictures of all class folders, labelled by the order of `classes`.

    Args:
        folder: holds the class folders.
        classes: class name by class folder.

    Raises:
        ValueError: a class folder is missing or empty; its label would have no picture.
    """
    items = []
    for label, (name, class_name) in enumerate(classes.items()):
        pictures = sorted((folder / name).glob("[!.]*"))
        if not pictures:
            raise ValueError(
                f"The class folder {folder / name} ({class_name}) is missing or empty; "
                "unpack the data set again."
            )
        items += [Datum(impath=str(path), label=label, classname=class_name) for path in pictures]
    return items
