"""Fixture trees in the true layout of each data set: tiny pictures, and the sets' own lists."""

import json
from typing import NamedTuple
from zlib import crc32

import numpy as np
from PIL import Image
from scipy.io import savemat

from datasets.splits import SPLITS

SIZE = (24, 20)  # width, height of a picture in pixels
PER_CLASS = 10
WNIDS = {"n01440764": "tench", "n01443537": "goldfish", "n01484850": "great white shark"}


class Tree(NamedTuple):
    """What a data set must be read as.

    Attributes:
        class_names: by label.
        counts: pictures of each class in train, val and test.
        folder: of the data set, under the root.
        split_file: that must appear where there was none; "" where lists take its place.
    """

    class_names: list
    counts: tuple
    folder: str
    split_file: str = ""


def picture(path, shade=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(crc32(str(path).encode())).integers(0, 80, (*SIZE[::-1], 3))
    Image.fromarray((pixels + shade % 160).astype(np.uint8)).save(path)


def text(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def class_folders(folder, names, ending="jpg"):
    for label, name in enumerate(names):
        for number in range(PER_CLASS):
            picture(folder / name / f"{name}_{number}.{ending}", 50 * label)


def caltech101(root):
    folder = root / "caltech-101" / "101_ObjectCategories"
    class_folders(folder, ["Faces", "airplanes", "yin_yang", "BACKGROUND_Google", "Faces_easy"])
    return Tree(["face", "airplane", "yin_yang"], (5, 2, 3), "caltech-101")


def food101(root):
    class_folders(root / "food-101" / "images", ["apple_pie", "waffles"])
    return Tree(["apple_pie", "waffles"], (5, 2, 3), "food-101")


def eurosat(root):
    class_folders(root / "eurosat" / "2750", ["AnnualCrop", "Forest", "SeaLake"])
    return Tree(["Annual Crop Land", "Forest", "Sea or Lake"], (5, 2, 3), "eurosat")


def oxford_pets(root):
    folder, rows = root / "oxford_pets", []
    for label, name in enumerate(["Abyssinian", "american_bulldog"]):
        for number in range(2 * PER_CLASS):
            picture(folder / "images" / f"{name}_{number}.jpg", 50 * label)
            rows.append(f"{name}_{number} {label + 1} 1 1")
    text(folder / "annotations" / "trainval.txt", rows[::2])
    text(folder / "annotations" / "test.txt", rows[1::2])
    return Tree(["abyssinian", "american_bulldog"], (8, 2, 10), "oxford_pets")


def stanford_cars(root):
    folder, names = root / "stanford_cars", ["AM General Hummer SUV 2000", "Audi TT RS 2012"]
    for part, file in (
        ("cars_train", "devkit/cars_train_annos.mat"),
        ("cars_test", "cars_test_annos_withlabels.mat"),
    ):
        rows = np.zeros((1, 2 * PER_CLASS), dtype=[("class", object), ("fname", object)])
        for number in range(2 * PER_CLASS):
            label, path = number % 2, f"{number:05d}.jpg"
            picture(folder / part / path, 50 * label)
            rows[0, number] = (label + 1, path)
        (folder / file).parent.mkdir(exist_ok=True)
        savemat(folder / file, {"annotations": rows})
    classes = np.array([names], dtype=object)
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": classes})
    return Tree(["2000 AM General Hummer SUV", "2012 Audi TT RS"], (8, 2, 10), "stanford_cars")


def oxford_flowers(root):
    folder = root / "oxford_flowers"
    labels = [1 + number % 2 for number in range(2 * PER_CLASS)]
    for number, label in enumerate(labels, start=1):
        picture(folder / "jpg" / f"image_{number:05d}.jpg", 50 * label)
    savemat(folder / "imagelabels.mat", {"labels": np.array([labels], dtype=np.uint8)})
    names = {"2": "hard-leaved pocket orchid", "1": "pink primrose"}
    (folder / "cat_to_name.json").write_text(json.dumps(names))
    return Tree([names["1"], names["2"]], (5, 2, 3), "oxford_flowers")


def sun397(root):
    folder, places = root / "sun397", ["a/abbey", "k/kennel/indoor"]
    rows = [f"/{place}/sun_{number}.jpg" for place in places for number in range(2 * PER_CLASS)]
    for row in rows:
        picture(folder / "SUN397" / row[1:])
    text(folder / "ClassName.txt", [f"/{place}" for place in places])
    text(folder / "Training_01.txt", rows[::2])
    text(folder / "Testing_01.txt", rows[1::2])
    return Tree(["abbey", "indoor kennel"], (8, 2, 10), "sun397")


def dtd(root):
    folder, names = root / "dtd", ["banded", "zigzagged"]
    for split in SPLITS:
        rows = [f"{name}/{name}_{split}_{n}.jpg" for name in names for n in range(4)]
        for row in rows:
            picture(folder / "images" / row)
        text(folder / "labels" / f"{split}1.txt", rows)
    return Tree(names, (4, 4, 4), "dtd")


def ucf101(root):
    folder, actions = root / "ucf101", {"ApplyEyeMakeup": "Apply_Eye_Makeup", "YoYo": "Yo_Yo"}
    lists = folder / "ucfTrainTestlist"
    text(lists / "classInd.txt", [f"{n} {name}" for n, name in enumerate(actions, start=1)])
    for file, label in (("trainlist01.txt", " 1"), ("testlist01.txt", "")):
        rows = []
        for action, frames in actions.items():
            for number in range(PER_CLASS):
                video = f"v_{action}_{file[:5]}_c{number}"
                picture(folder / "UCF-101-midframes" / frames / f"{video}.jpg")
                rows.append(f"{action}/{video}.avi{label}")
        text(lists / file, rows)
    return Tree(list(actions.values()), (8, 2, 10), "ucf101")


def fgvc_aircraft(root):
    folder, names = root / "fgvc_aircraft", ["707-320", "Boeing 717"]
    text(folder / "variants.txt", names)
    for part, split in enumerate(SPLITS):
        rows = []
        for number in range(8):
            code = f"{part}{number:06d}"
            picture(folder / "images" / f"{code}.jpg")
            rows.append(f"{code} {names[number % 2]}")
        text(folder / f"images_variant_{split}.txt", rows)
    return Tree(names, (4, 4, 4), "fgvc_aircraft")


def class_list(folder):
    text(folder / "classnames.txt", [f"{wnid} {name}" for wnid, name in WNIDS.items()])


def imagenet(root):
    folder = root / "imagenet"
    class_list(folder)
    for split in ("train", "val"):
        class_folders(folder / "images" / split, WNIDS, "JPEG")
    return Tree(list(WNIDS.values()), (10, 0, 10), "imagenet")


def variant(root, path, folders=tuple(WNIDS)):
    folder = root / path
    class_list(folder.parent)
    class_folders(folder, folders)
    text(folder / "README.txt", ["no picture"])
    return Tree(list(WNIDS.values()), (10, 0, 10), folder.parent.name)


def some_classes(root, path):
    tree = variant(root, path, ("n01443537", "n01484850"))
    return tree._replace(class_names=tree.class_names[1:])


TREES = {
    "Caltech101": caltech101,
    "OxfordPets": oxford_pets,
    "StanfordCars": stanford_cars,
    "OxfordFlowers": oxford_flowers,
    "Food101": food101,
    "FGVCAircraft": fgvc_aircraft,
    "SUN397": sun397,
    "DescribableTextures": dtd,
    "EuroSAT": eurosat,
    "UCF101": ucf101,
    "ImageNet": imagenet,
    "ImageNetV2": lambda root: variant(
        root, "imagenetv2/imagenetv2-matched-frequency-format-val", ("0", "1", "2")
    ),
    "ImageNetSketch": lambda root: variant(root, "imagenet-sketch/images"),
    "ImageNetA": lambda root: some_classes(root, "imagenet-adversarial/imagenet-a"),
    "ImageNetR": lambda root: some_classes(root, "imagenet-rendition/imagenet-r"),
}
WITH_SPLIT_FILE = [
    name for name in TREES if not name.startswith("ImageNet") and name != "FGVCAircraft"
]


def plant(name, root):
    """Write the tree of a data set, with its own lists and without a split file."""
    tree = TREES[name](root)
    file = f"split_zhou_{name}.json" if name in WITH_SPLIT_FILE else ""
    return tree._replace(split_file=file)
