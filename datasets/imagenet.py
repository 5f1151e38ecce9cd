"""ImageNet and its four variants: one folder for each class, named by classnames.txt.

None of them has a validation split: `val` is empty, so that nothing can be chosen on the test
pictures. Labels count the lines of classnames.txt, for A and R those with a folder; a class whose
folder is missing or empty keeps its place.
"""

from dassl.data.datasets import DATASET_REGISTRY, Datum

from datasets.base import FewShotDataset, Published, require_folder
from datasets.folder import CLASS_LIST, read_class_folders, read_class_names
from datasets.pictures import class_folders
from datasets.splits import Splits
from datasets.subsets import read_pickled_subset

LISTING = "preprocessed.pkl"  # what upstream's ImageNet found in the class folders, in its order


@DATASET_REGISTRY.register()
class ImageNet(FewShotDataset):
    """1000 kinds of objects (Deng et al., 2009); the validation pictures serve as the test."""

    dataset_dir = "imagenet"
    image_dir = "images"
    published = Published(classes=1000, train=1_281_167, val=0, test=50_000)
    labels_by_folder = True

    def read_raw(self) -> Splits:
        """Return train and test."""
        classes = read_class_names(self.folder / CLASS_LIST)
        train, val = (self.read_pictures(part, classes) for part in ("train", "val"))
        splits = Splits(train, [], val, list(classes.values()))
        listed = read_pickled_subset(self.folder / LISTING, splits)
        if listed is not None and len(listed.train) == len(train):
            return splits._replace(train=listed.train)
        return splits

    def read_pictures(self, part: str, classes: dict[str, str]) -> list[Datum]:
        """Return the pictures in the class folders of `image_folder`/`part`."""
        folder = self.image_folder / part
        require_folder(folder, type(self).__name__)
        if unknown := [name for name in class_folders(folder) if name not in classes]:
            raise ValueError(
                f"{folder} holds the folder {unknown[0]}, which {CLASS_LIST} does not name; remove "
                "the folder, or add a line with it and its class name."
            )
        items = read_class_folders(folder, classes, self.left_out)
        unused = (path for paths in self.left_out.values() for path in paths)
        if not items and (loose := [path for path in unused if path.parent == folder]):
            raise ValueError(
                f"{folder} holds pictures, as {loose[0].name}, but no class folders with pictures; "
                "tools/prepare_data.py ImageNet sorts them into folders."
            )
        return items


class ImageNetVariant(ImageNet):
    """Another test set for ImageNet's classes, never trained on."""

    test_only = True
    with_folder = False  # only the classes with a folder count
    numbered = False  # a folder is named by the line of its class, from 0

    def read_raw(self) -> Splits:
        """Return all pictures as the test; as training items they name the classes."""
        classes = read_class_names(self.folder / CLASS_LIST)
        if self.numbered:
            classes = {str(line): name for line, name in enumerate(classes.values())}
        if self.with_folder:
            there = [folder for folder in classes if (self.image_folder / folder).is_dir()]
            classes = {folder: classes[folder] for folder in there}
        items = self.read_pictures("", classes)
        return Splits(items, [], items, list(classes.values()))


@DATASET_REGISTRY.register()
class ImageNetSketch(ImageNetVariant):
    """Sketches of the 1000 classes (Wang et al., 2019)."""

    dataset_dir = "imagenet-sketch"
    image_dir = "images"
    published = Published(classes=1000, train=0, val=0, test=50_889)


@DATASET_REGISTRY.register()
class ImageNetA(ImageNetVariant):
    """Pictures of 200 classes that ResNets get wrong (Hendrycks et al., 2021)."""

    dataset_dir = "imagenet-adversarial"
    image_dir = "imagenet-a"
    published = Published(classes=200, train=0, val=0, test=7500)
    with_folder = True


@DATASET_REGISTRY.register()
class ImageNetR(ImageNetVariant):
    """Renditions of 200 classes: paintings, toys, tattoos (Hendrycks et al., 2021)."""

    dataset_dir = "imagenet-rendition"
    image_dir = "imagenet-r"
    published = Published(classes=200, train=0, val=0, test=30_000)
    with_folder = True


@DATASET_REGISTRY.register()
class ImageNetV2(ImageNetVariant):
    """New pictures of the 1000 classes (Recht et al., 2019), in folders 0, 1, ..., 999."""

    dataset_dir = "imagenetv2"
    image_dir = "imagenetv2-matched-frequency-format-val"
    published = Published(classes=1000, train=0, val=0, test=10_000)
    labels_by_folder = False  # "10" comes before "2"
    numbered = True
