"""Each benchmark reads its documented layout, built here with empty pictures."""

import json
from pathlib import Path

import pytest
from dassl.data.datasets import DATASET_REGISTRY

from tests.datasets.config import build

ZHOU = {
    "Caltech101": "caltech-101/101_ObjectCategories",
    "OxfordPets": "oxford_pets/images",
    "StanfordCars": "stanford_cars",
    "OxfordFlowers": "oxford_flowers/jpg",
    "Food101": "food-101/images",
    "SUN397": "sun397/SUN397",
    "DescribableTextures": "dtd/images",
    "EuroSAT": "eurosat/2750",
    "UCF101": "ucf101/UCF-101-midframes",
}
VARIANTS = ("ImageNetV2", "ImageNetSketch", "ImageNetA", "ImageNetR")


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_all_benchmarks_are_registered():
    names = {*ZHOU, "FGVCAircraft", "ImageNet", *VARIANTS}
    assert names <= set(DATASET_REGISTRY.registered_names())


@pytest.mark.parametrize("name", ZHOU)
def test_split_file_benchmark_reads_its_layout(name, tmp_path):
    pictures = tmp_path / ZHOU[name]
    pictures.mkdir(parents=True)
    entries = [["a/1.jpg", 0, "first"], ["b/2.jpg", 1, "second"]]
    folder = tmp_path / ZHOU[name].split("/")[0]
    split = json.dumps({"train": entries, "val": entries, "test": entries})
    write(folder / f"split_zhou_{name}.json", split)
    dataset = build(name, tmp_path)
    assert [item.impath for item in dataset.test] == [
        str(pictures / path) for path, _, _ in entries
    ]
    assert dataset.classnames == ["first", "second"]


@pytest.mark.parametrize("name", ZHOU)
def test_missing_split_file_is_named(name, tmp_path):
    (tmp_path / ZHOU[name]).mkdir(parents=True)
    why = rf"split_zhou_{name}.json is missing, and .*because .* (is missing|lists no picture);"
    with pytest.raises(FileNotFoundError, match=why):
        build(name, tmp_path)


@pytest.fixture
def aircraft(tmp_path):
    folder = tmp_path / "fgvc_aircraft"
    write(folder / "variants.txt", "707-320\nBoeing 717\n")
    write(folder / "images_variant_train.txt", "0056978 Boeing 717\n1025794 707-320\n")
    write(folder / "images_variant_val.txt", "0481847 707-320\n")
    write(folder / "images_variant_test.txt", "1514522 Boeing 717\n")
    return tmp_path


def test_aircraft_reads_its_lists(aircraft):
    dataset = build("FGVCAircraft", aircraft)
    assert [(item.label, item.classname) for item in dataset.train_x] == [
        (1, "Boeing 717"),
        (0, "707-320"),
    ]
    assert dataset.val[0].impath == str(aircraft / "fgvc_aircraft/images/0481847.jpg")
    assert dataset.test[0].label == 1
    assert dataset.classnames == ["707-320", "Boeing 717"]


def test_aircraft_refuses_an_unknown_variant(aircraft):
    write(aircraft / "fgvc_aircraft" / "images_variant_val.txt", "0481847 Concorde\n")
    with pytest.raises(ValueError, match=r"images_variant_val.txt names the class 'Concorde'"):
        build("FGVCAircraft", aircraft)


def test_aircraft_names_a_missing_list(aircraft):
    (aircraft / "fgvc_aircraft" / "images_variant_test.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"images_variant_test.txt is missing"):
        build("FGVCAircraft", aircraft)


@pytest.fixture
def imagenet(tmp_path):
    folder = tmp_path / "imagenet"
    write(
        folder / "classnames.txt",
        "n01440764 tench\nn01443537 goldfish\nn01484850 great white shark\n",
    )
    for wnid in ("n01484850", "n01440764"):
        for i in (2, 1):
            touch(folder / "images" / "train" / wnid / f"{i}.JPEG")
        touch(folder / "images" / "val" / wnid / "v.JPEG")
    touch(folder / "images" / "train" / "n01440764" / ".hidden")
    return tmp_path


def test_imagenet_tests_on_val_and_has_no_validation(imagenet):
    dataset = build("ImageNet", imagenet)
    train = imagenet / "imagenet" / "images" / "train"
    assert [item.impath for item in dataset.train_x] == [
        str(train / "n01440764" / "1.JPEG"),
        str(train / "n01440764" / "2.JPEG"),
        str(train / "n01484850" / "1.JPEG"),
        str(train / "n01484850" / "2.JPEG"),
    ]
    assert dataset.val is None
    assert [item.label for item in dataset.test] == [0, 2]
    assert dataset.classnames == ["tench", "goldfish", "great white shark"]


def test_imagenet_draws_shots_and_chooses_classes(imagenet):
    dataset = build("ImageNet", imagenet, subset="new", shots=1)
    assert [item.label for item in dataset.train_x] == [0]
    assert dataset.classnames == ["great white shark"]


def test_an_empty_class_folder_keeps_its_place(imagenet, caplog):
    folder = imagenet / "imagenet" / "images" / "train" / "n01440764"
    for path in folder.iterdir():
        path.unlink()
    dataset = build("ImageNet", imagenet)
    assert {item.label for item in dataset.train_x} == {2}
    assert dataset.classnames == ["tench", "goldfish", "great white shark"]
    assert dataset.num_classes == 3
    assert dataset.lab2cname == dict(enumerate(dataset.classnames))
    assert "2 of 3 classes have no training picture, as tench, goldfish" in caplog.text
    new = build("ImageNet", imagenet, shots=1, subset="new")
    assert (new.classnames, new.num_classes) == (["great white shark"], 1)


def test_the_order_of_classnames_is_the_order_of_labels(imagenet):
    lines = (imagenet / "imagenet" / "classnames.txt").read_text().splitlines()
    write(imagenet / "imagenet" / "classnames.txt", "\n".join(reversed(lines)))
    dataset = build("ImageNet", imagenet)
    assert dataset.classnames == ["great white shark", "goldfish", "tench"]
    assert {(item.label, item.classname) for item in dataset.test} == {
        (0, "great white shark"),
        (2, "tench"),
    }


def test_two_lines_for_a_folder_are_refused(imagenet):
    write(imagenet / "imagenet" / "classnames.txt", "n01440764 tench\nn01440764 a fish\n")
    with pytest.raises(ValueError, match="two lines for the folder n01440764"):
        build("ImageNet", imagenet)


def test_loose_validation_pictures_are_refused(imagenet):
    val = imagenet / "imagenet" / "images" / "val"
    for path in sorted(val.glob("*/*")):
        path.rename(val / f"{path.parent.name}.JPEG")
    with pytest.raises(ValueError, match=r"but no class folders.*prepare_data.py ImageNet"):
        build("ImageNet", imagenet)


def test_imagenet_refuses_a_folder_without_a_name(imagenet):
    touch(imagenet / "imagenet" / "images" / "train" / "n99999999" / "1.JPEG")
    with pytest.raises(ValueError, match=r"holds the folder n99999999, which classnames.txt"):
        build("ImageNet", imagenet)


def test_imagenet_names_missing_parts(imagenet):
    (imagenet / "imagenet" / "classnames.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"classnames.txt is missing"):
        build("ImageNet", imagenet)
    with pytest.raises(FileNotFoundError, match="ImageNetR was looked for in"):
        build("ImageNetR", imagenet)


@pytest.mark.parametrize(
    ("name", "pictures", "shark"),
    [
        ("ImageNetSketch", "imagenet-sketch/images", 2),
        ("ImageNetA", "imagenet-adversarial/imagenet-a", 1),
        ("ImageNetR", "imagenet-rendition/imagenet-r", 1),
    ],
)
def test_the_classes_of_a_variant(name, pictures, shark, tmp_path):
    """A and R have the classes that have a folder, an empty one included; Sketch has them all."""
    folder = tmp_path / pictures
    write(folder.parent / "classnames.txt", "n1 tench\nn2 goldfish\nn3 shark\nn4 ray\n")
    touch(folder / "n3" / "a.jpg")
    touch(folder / "n1" / "b.jpg")
    (folder / "n4").mkdir()
    touch(folder / "README.txt")
    dataset = build(name, tmp_path)
    expected = [(str(folder / "n1/b.jpg"), 0, "tench"), (str(folder / "n3/a.jpg"), shark, "shark")]
    assert [(item.impath, item.label, item.classname) for item in dataset.test] == expected
    assert dataset.classnames == [["tench", "goldfish"], ["tench"]][shark == 1] + ["shark", "ray"]


def test_imagenet_v2_counts_the_lines_of_classnames(tmp_path):
    folder = tmp_path / "imagenetv2"
    write(folder / "classnames.txt", "n1 tench\nn2 goldfish\nn3 shark\n")
    for label in (0, 2):
        touch(folder / "imagenetv2-matched-frequency-format-val" / str(label) / "x.jpeg")
    dataset = build("ImageNetV2", tmp_path)
    assert dataset.classnames == ["tench", "goldfish", "shark"]
    assert [item.label for item in dataset.test] == [0, 2]


def test_documentation_shows_every_layout():
    text = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text()
    for name in (*ZHOU, "FGVCAircraft", "ImageNet", *VARIANTS):
        cls = DATASET_REGISTRY.get(name)
        row = next(line for line in text.splitlines() if f"| {name} |" in line)
        assert f"`{cls.dataset_dir}/{cls.image_dir}".rstrip("/") in row
        assert f"`{cls.dataset_dir}/{cls.split_file}" in row
