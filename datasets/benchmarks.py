"""Ten of the eleven benchmarks of CoOp (Zhou et al., IJCV 2022); ImageNet is in imagenet.py.

All but FGVCAircraft come with a split file of Zhou et al. Without the file, the split is made from
the data set's own annotations.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from dassl.data.datasets import DATASET_REGISTRY, Datum

from datasets.base import FewShotDataset, Published
from datasets.folder import read_class_folders, require_pictures
from datasets.mat_file import read_mat
from datasets.pictures import class_folders, shown
from datasets.splits import SPLITS, Item, Splits, divide, hold_out, read_json, read_text

Classes = dict[Any, Any]  # label or name by what stands for the class in a list


class FolderBenchmark(FewShotDataset):
    """A benchmark whose pictures lie in class folders."""

    labels_by_folder = True
    ignored: tuple[str, ...] = ()  # folders that are no classes
    renamed: ClassVar[Mapping[str, str]] = {}  # class names of folders that are named otherwise

    def read_raw(self) -> Splits:
        """Divide the pictures of each class folder; labels follow the sorted folders."""
        folders = [name for name in class_folders(self.image_folder) if name not in self.ignored]
        require_pictures(self.image_folder, folders, "move them up")
        classes = {name: self.renamed.get(name, shown(name)) for name in folders}
        items = read_class_folders(self.image_folder, classes, self.left_out)
        return divide(items)._replace(class_names=list(classes.values()))


class ListBenchmark(FewShotDataset):
    """A benchmark with lists; of two, train and test, a fifth of the first becomes validation."""

    lists: tuple[str, ...] = ()  # the last of `raw_files`: training, validation perhaps, test

    def read_raw(self) -> Splits:
        """Parse the lists."""
        classes = self.read_classes()
        items = [list(self.read_list(self.folder / file, classes)) for file in self.lists]
        if len(items) == 2:
            return hold_out(*items)
        train, val, test = items
        return Splits(train, val, test, list(classes))

    def read_classes(self) -> Classes:
        """Return the classes."""
        return {}

    def read_list(self, path: Path, classes: Classes) -> Iterator[Datum]:
        """Yield the items of a list."""
        raise NotImplementedError


@DATASET_REGISTRY.register()
class Caltech101(FolderBenchmark):
    """100 kinds of objects (Fei-Fei et al., 2004), without the two background classes."""

    dataset_dir = "caltech-101"
    image_dir = "101_ObjectCategories"
    split_file = "split_zhou_Caltech101.json"
    raw_files = ("101_ObjectCategories",)
    published = Published(classes=100, train=4128, val=1649, test=2465)
    ignored = ("BACKGROUND_Google", "Faces_easy")
    renamed: ClassVar[Mapping[str, str]] = {
        "airplanes": "airplane", "Faces": "face", "Leopards": "leopard", "Motorbikes": "motorbike",
    }


@DATASET_REGISTRY.register()
class OxfordPets(ListBenchmark):
    """37 breeds of cats and dogs (Parkhi et al., 2012)."""

    dataset_dir = "oxford_pets"
    image_dir = "images"
    split_file = "split_zhou_OxfordPets.json"
    raw_files = lists = ("annotations/trainval.txt", "annotations/test.txt")
    published = Published(classes=37, train=2944, val=736, test=3669)
    template = "a photo of a {}, a type of pet."

    def read_list(self, path: Path, classes: Classes) -> Iterator[Datum]:
        """Parse "Abyssinian_100 1 1 1"."""
        for picture, label, *_ in read_rows(path, "picture class species breed"):
            breed = picture.rpartition("_")[0].lower()
            yield Item(self.image_folder / f"{picture}.jpg", to_label(label, path), 0, breed)


@DATASET_REGISTRY.register()
class StanfordCars(ListBenchmark):
    """196 models of cars (Krause et al., 2013)."""

    dataset_dir = "stanford_cars"  # the split's paths begin with cars_train/ or cars_test/
    split_file = "split_zhou_StanfordCars.json"
    lists = ("devkit/cars_train_annos.mat", "cars_test_annos_withlabels.mat")
    raw_files = ("devkit/cars_meta.mat", *lists)
    published = Published(classes=196, train=6509, val=1635, test=8041)

    def read_classes(self) -> Classes:
        """Return class name by number; the year moves to the front."""
        names = read_mat(self.folder / self.raw_files[0], "class_names", str)
        parts = [name.rpartition(" ") for name in names]
        return {n: f"{year} {model}" for n, (model, _, year) in enumerate(parts, start=1)}

    def read_list(self, path: Path, classes: Classes) -> Iterator[Datum]:
        """Parse the fields class and fname."""
        pictures = self.folder / ("cars_train" if "train" in path.name else "cars_test")
        for row in read_mat(path, "annotations", {"class": int, "fname": str}):
            name = look_up(classes, row["class"], path)
            yield Item(pictures / row["fname"], row["class"] - 1, 0, name)


@DATASET_REGISTRY.register()
class OxfordFlowers(FewShotDataset):
    """102 kinds of flowers (Nilsback and Zisserman, 2008)."""

    dataset_dir = "oxford_flowers"
    image_dir = "jpg"
    split_file = "split_zhou_OxfordFlowers.json"
    raw_files = ("imagelabels.mat", "cat_to_name.json")
    published = Published(classes=102, train=4093, val=1633, test=2463)
    template = "a photo of a {}, a type of flower."

    def read_raw(self) -> Splits:
        """Parse the class of each picture, counted from 1, and divide the pictures."""
        names, path = read_json(self.folder / "cat_to_name.json"), self.folder / "imagelabels.mat"
        items = []
        for number, label in enumerate(read_mat(path, "labels", int), start=1):
            picture = self.image_folder / f"image_{number:05d}.jpg"
            items.append(Item(picture, label - 1, 0, look_up(names, str(label), path)))
        return divide(items)


@DATASET_REGISTRY.register()
class Food101(FolderBenchmark):
    """101 dishes (Bossard et al., 2014)."""

    dataset_dir = "food-101"
    image_dir = "images"
    split_file = "split_zhou_Food101.json"
    raw_files = ("images",)
    published = Published(classes=101, train=50_500, val=20_200, test=30_300)
    template = "a photo of {}, a type of food."


@DATASET_REGISTRY.register()
class FGVCAircraft(ListBenchmark):
    """100 variants of aircraft (Maji et al., 2013), by its own lists; there is no split file."""

    dataset_dir = "fgvc_aircraft"
    image_dir = "images"
    lists = tuple(f"images_variant_{split}.txt" for split in SPLITS)
    raw_files = ("variants.txt", *lists)
    published = Published(classes=100, train=3334, val=3333, test=3333)
    template = "a photo of a {}, a type of aircraft."

    def read_classes(self) -> Classes:
        """Return label by variant: its line number."""
        lines = read_text(self.folder / "variants.txt").splitlines()
        return {name.strip(): label for label, name in enumerate(lines)}

    def read_list(self, path: Path, classes: Classes) -> Iterator[Datum]:
        """Parse "0056978 Boeing 717"."""
        for picture, name in read_rows(path, "picture variant"):
            yield Item(self.image_folder / f"{picture}.jpg", look_up(classes, name, path), 0, name)


@DATASET_REGISTRY.register()
class SUN397(ListBenchmark):
    """397 kinds of scenes (Xiao et al., 2010), by the first of its partitions."""

    dataset_dir = "sun397"
    image_dir = "SUN397"
    split_file = "split_zhou_SUN397.json"
    lists = ("Training_01.txt", "Testing_01.txt")
    raw_files = ("ClassName.txt", *lists)
    published = Published(classes=397, train=15_880, val=3970, test=19_850)

    def read_classes(self) -> Classes:
        """Return label by class, as "k/kennel/indoor"."""
        rows = read_rows(self.folder / "ClassName.txt", "class")
        return {name.strip("/"): label for label, (name,) in enumerate(rows)}

    def read_list(self, path: Path, classes: Classes) -> Iterator[Datum]:
        """Parse "/k/kennel/indoor/sun_aaa.jpg"; its class name is "indoor kennel"."""
        for (picture,) in read_rows(path, "picture"):
            place = picture.strip("/").rpartition("/")[0]
            name = " ".join(reversed(place.split("/")[1:]))
            label = look_up(classes, place, path)
            yield Item(self.image_folder / picture.strip("/"), label, 0, name)


@DATASET_REGISTRY.register()
class DescribableTextures(ListBenchmark):
    """47 textures (Cimpoi et al., 2014), by the first of its ten divisions."""

    dataset_dir = "dtd"
    image_dir = "images"
    split_file = "split_zhou_DescribableTextures.json"
    raw_files = lists = tuple(f"labels/{split}1.txt" for split in SPLITS)
    published = Published(classes=47, train=2820, val=1128, test=1692)
    template = "{} texture."

    def read_classes(self) -> Classes:
        """Return label by class folder."""
        return {name: label for label, name in enumerate(class_folders(self.image_folder))}

    def read_list(self, path: Path, classes: Classes) -> Iterator[Datum]:
        """Parse "banded/banded_0002.jpg"."""
        for (picture,) in read_rows(path, "picture"):
            name = picture.partition("/")[0]
            yield Item(self.image_folder / picture, look_up(classes, name, path), 0, name)


@DATASET_REGISTRY.register()
class EuroSAT(FolderBenchmark):
    """10 kinds of land use seen by satellite (Helber et al., 2019)."""

    dataset_dir = "eurosat"
    image_dir = "2750"
    split_file = "split_zhou_EuroSAT.json"
    raw_files = ("2750",)
    published = Published(classes=10, train=13_500, val=5400, test=8100)
    template = "a centered satellite photo of {}."
    renamed: ClassVar[Mapping[str, str]] = {
        "AnnualCrop": "Annual Crop Land", "HerbaceousVegetation": "Herbaceous Vegetation Land",
        "Highway": "Highway or Road", "Industrial": "Industrial Buildings",
        "Pasture": "Pasture Land", "PermanentCrop": "Permanent Crop Land",
        "Residential": "Residential Buildings", "SeaLake": "Sea or Lake",
    }


@DATASET_REGISTRY.register()
class UCF101(ListBenchmark):
    """101 human actions, the middle frame of each video (Soomro et al., 2012)."""

    dataset_dir = "ucf101"
    image_dir = "UCF-101-midframes"
    split_file = "split_zhou_UCF101.json"
    lists = ("ucfTrainTestlist/trainlist01.txt", "ucfTrainTestlist/testlist01.txt")
    raw_files = ("ucfTrainTestlist/classInd.txt", *lists)
    published = Published(classes=101, train=7639, val=1898, test=3783)
    template = "a photo of a person doing {}."

    def read_classes(self) -> Classes:
        """Return label by action."""
        path = self.folder / self.raw_files[0]
        return {name: to_label(number, path) for number, name in read_rows(path, "number class")}

    def read_list(self, path: Path, classes: Classes) -> Iterator[Datum]:
        """Parse "ApplyLipstick/v_ApplyLipstick_g08_c01.avi"."""
        for row in read_rows(path, "video"):
            action, _, video = row[0].split()[0].partition("/")
            name = "_".join(re.findall("[A-Z][^A-Z]*", action))
            frame = self.image_folder / name / f"{Path(video).stem}.jpg"
            yield Item(frame, look_up(classes, action, path), 0, name)


def read_rows(path: Path, form: str) -> list[list[str]]:
    """Return the words of each line of a list, as many as `form` has; the last takes the rest."""
    count = len(form.split())
    rows = [line.split(maxsplit=count - 1) for line in read_text(path).splitlines()]
    for row in filter(None, rows):
        if len(row) < count:
            raise ValueError(f"{path} has the line {' '.join(row)!r}; expected: {form}.")
    return [[word.strip() for word in row] for row in rows if row]


def look_up(table: Mapping[Any, Any], key: Any, path: Path) -> Any:
    """Return the entry of a class that the list at `path` names; refuse an unknown class."""
    if key not in table:
        raise ValueError(f"{path} names the class {key!r}, which the list of classes does not.")
    return table[key]


def to_label(word: str, path: Path) -> int:
    """Return the label, from 0, of a class number, from 1; refuse other words."""
    if not word.isdecimal() or int(word) < 1:
        raise ValueError(f"{path} has {word!r} where the number of a class, from 1, is expected.")
    return int(word) - 1
