"""The benchmarks that come with a split file of Zhou et al. (CoOp, IJCV 2022): declarations.

Without the file, the split is made from the data set's own annotations.
"""

from __future__ import annotations

from dassl.data.datasets import DATASET_REGISTRY

from datasets import raw
from datasets.base import FewShotDataset, Published
from datasets.division import divide_folders
from datasets.splits import Splits

CALTECH_IGNORED = ("BACKGROUND_Google", "Faces_easy")
CALTECH_NAMES = {
    "airplanes": "airplane",
    "Faces": "face",
    "Leopards": "leopard",
    "Motorbikes": "motorbike",
}
EUROSAT_NAMES = {
    "AnnualCrop": "Annual Crop Land",
    "HerbaceousVegetation": "Herbaceous Vegetation Land",
    "Highway": "Highway or Road",
    "Industrial": "Industrial Buildings",
    "Pasture": "Pasture Land",
    "PermanentCrop": "Permanent Crop Land",
    "Residential": "Residential Buildings",
    "SeaLake": "Sea or Lake",
}


@DATASET_REGISTRY.register()
class Caltech101(FewShotDataset):
    """100 kinds of objects (Fei-Fei et al., 2004), without the two background classes."""

    dataset_dir = "caltech-101"
    image_dir = "101_ObjectCategories"
    split_file = "split_zhou_Caltech101.json"
    raw_files = ("101_ObjectCategories",)
    published = Published(classes=100, train=4128, val=1649, test=2465)
    labels_by_folder = True

    def read_raw(self) -> Splits:
        """Divide the class folders."""
        return divide_folders(self.image_folder, self.left_out, CALTECH_IGNORED, CALTECH_NAMES)


@DATASET_REGISTRY.register()
class OxfordPets(FewShotDataset):
    """37 breeds of cats and dogs (Parkhi et al., 2012)."""

    dataset_dir = "oxford_pets"
    image_dir = "images"
    split_file = "split_zhou_OxfordPets.json"
    raw_files = ("annotations/trainval.txt", "annotations/test.txt")
    published = Published(classes=37, train=2944, val=736, test=3669)

    def read_raw(self) -> Splits:
        """Parse the annotations; a fifth of their training list is for validation."""
        return raw.read_pets(self.folder)


@DATASET_REGISTRY.register()
class StanfordCars(FewShotDataset):
    """196 models of cars (Krause et al., 2013)."""

    dataset_dir = "stanford_cars"  # the split's paths begin with cars_train/ or cars_test/
    split_file = "split_zhou_StanfordCars.json"
    raw_files = (
        "devkit/cars_meta.mat",
        "devkit/cars_train_annos.mat",
        "cars_test_annos_withlabels.mat",
    )
    published = Published(classes=196, train=6509, val=1635, test=8041)

    def read_raw(self) -> Splits:
        """Parse the MATLAB files; a fifth of the training list is for validation."""
        return raw.read_cars(self.folder)


@DATASET_REGISTRY.register()
class OxfordFlowers(FewShotDataset):
    """102 kinds of flowers (Nilsback and Zisserman, 2008)."""

    dataset_dir = "oxford_flowers"
    image_dir = "jpg"
    split_file = "split_zhou_OxfordFlowers.json"
    raw_files = ("imagelabels.mat", "cat_to_name.json")
    published = Published(classes=102, train=4093, val=1633, test=2463)

    def read_raw(self) -> Splits:
        """Parse the labels and divide the pictures of each class."""
        return raw.read_flowers(self.folder)


@DATASET_REGISTRY.register()
class Food101(FewShotDataset):
    """101 dishes (Bossard et al., 2014)."""

    dataset_dir = "food-101"
    image_dir = "images"
    split_file = "split_zhou_Food101.json"
    raw_files = ("images",)
    published = Published(classes=101, train=50_500, val=20_200, test=30_300)
    labels_by_folder = True

    def read_raw(self) -> Splits:
        """Divide the class folders."""
        return divide_folders(self.image_folder, self.left_out)


@DATASET_REGISTRY.register()
class SUN397(FewShotDataset):
    """397 kinds of scenes (Xiao et al., 2010)."""

    dataset_dir = "sun397"
    image_dir = "SUN397"
    split_file = "split_zhou_SUN397.json"
    raw_files = ("ClassName.txt", "Training_01.txt", "Testing_01.txt")
    published = Published(classes=397, train=15_880, val=3970, test=19_850)

    def read_raw(self) -> Splits:
        """Parse the first partition; a fifth of its training list is for validation."""
        return raw.read_sun397(self.folder)


@DATASET_REGISTRY.register()
class DescribableTextures(FewShotDataset):
    """47 textures (Cimpoi et al., 2014)."""

    dataset_dir = "dtd"
    image_dir = "images"
    split_file = "split_zhou_DescribableTextures.json"
    raw_files = ("labels/train1.txt", "labels/val1.txt", "labels/test1.txt")
    published = Published(classes=47, train=2820, val=1128, test=1692)

    def read_raw(self) -> Splits:
        """Parse the first of the ten divisions."""
        return raw.read_dtd(self.folder)


@DATASET_REGISTRY.register()
class EuroSAT(FewShotDataset):
    """10 kinds of land use seen by satellite (Helber et al., 2019)."""

    dataset_dir = "eurosat"
    image_dir = "2750"
    split_file = "split_zhou_EuroSAT.json"
    raw_files = ("2750",)
    published = Published(classes=10, train=13_500, val=5400, test=8100)
    labels_by_folder = True

    def read_raw(self) -> Splits:
        """Divide the class folders."""
        return divide_folders(self.image_folder, self.left_out, names=EUROSAT_NAMES)


@DATASET_REGISTRY.register()
class UCF101(FewShotDataset):
    """101 human actions, the middle frame of each video (Soomro et al., 2012)."""

    dataset_dir = "ucf101"
    image_dir = "UCF-101-midframes"
    split_file = "split_zhou_UCF101.json"
    raw_files = (
        "ucfTrainTestlist/classInd.txt",
        "ucfTrainTestlist/trainlist01.txt",
        "ucfTrainTestlist/testlist01.txt",
    )
    published = Published(classes=101, train=7639, val=1898, test=3783)

    def read_raw(self) -> Splits:
        """Parse the first list; a fifth of its training part is for validation."""
        return raw.read_ucf101(self.folder)
