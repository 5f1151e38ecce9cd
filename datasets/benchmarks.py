"""The benchmarks that come with a split file of Zhou et al. (CoOp, IJCV 2022): declarations."""

from __future__ import annotations

from dassl.data.datasets import DATASET_REGISTRY

from datasets.base import FewShotDataset


@DATASET_REGISTRY.register()
class Caltech101(FewShotDataset):
    """100 kinds of objects (Fei-Fei et al., 2004), without the two background classes."""

    dataset_dir = "caltech-101"
    image_dir = "101_ObjectCategories"
    split_file = "split_zhou_Caltech101.json"


@DATASET_REGISTRY.register()
class OxfordPets(FewShotDataset):
    """37 breeds of cats and dogs (Parkhi et al., 2012)."""

    dataset_dir = "oxford_pets"
    image_dir = "images"
    split_file = "split_zhou_OxfordPets.json"


@DATASET_REGISTRY.register()
class StanfordCars(FewShotDataset):
    """196 models of cars (Krause et al., 2013)."""

    dataset_dir = "stanford_cars"  # the split's paths begin with cars_train/ or cars_test/
    split_file = "split_zhou_StanfordCars.json"


@DATASET_REGISTRY.register()
class OxfordFlowers(FewShotDataset):
    """102 kinds of flowers (Nilsback and Zisserman, 2008)."""

    dataset_dir = "oxford_flowers"
    image_dir = "jpg"
    split_file = "split_zhou_OxfordFlowers.json"


@DATASET_REGISTRY.register()
class Food101(FewShotDataset):
    """101 dishes (Bossard et al., 2014)."""

    dataset_dir = "food-101"
    image_dir = "images"
    split_file = "split_zhou_Food101.json"


@DATASET_REGISTRY.register()
class SUN397(FewShotDataset):
    """397 kinds of scenes (Xiao et al., 2010)."""

    dataset_dir = "sun397"
    image_dir = "SUN397"
    split_file = "split_zhou_SUN397.json"


@DATASET_REGISTRY.register()
class DescribableTextures(FewShotDataset):
    """47 textures (Cimpoi et al., 2014)."""

    dataset_dir = "dtd"
    image_dir = "images"
    split_file = "split_zhou_DescribableTextures.json"


@DATASET_REGISTRY.register()
class EuroSAT(FewShotDataset):
    """10 kinds of land use seen by satellite (Helber et al., 2019)."""

    dataset_dir = "eurosat"
    image_dir = "2750"
    split_file = "split_zhou_EuroSAT.json"


@DATASET_REGISTRY.register()
class UCF101(FewShotDataset):
    """101 human actions, the middle frame of each video (Soomro et al., 2012)."""

    dataset_dir = "ucf101"
    image_dir = "UCF-101-midframes"
    split_file = "split_zhou_UCF101.json"
