"""Each of the 15 data sets is read from a tree in its true layout, and trained on."""

import json
import random
from pathlib import Path

import pytest
import yaml
from dassl.data.datasets import DATASET_REGISTRY

from datasets.benchmarks import read_rows
from datasets.mat_file import read_mat
from datasets.splits import ORIGIN
from tests.datasets.config import build, flat
from tests.datasets.trees import TREES, WITH_SPLIT_FILE, class_folders, plant, text
from tests.trainers.test_runs import results

PROJECT = Path(__file__).parents[2]


def counted(items, classes):
    found = [sum(item.label == label for item in items or ()) for label in range(classes)]
    assert len(set(found)) == 1
    return found[0]


@pytest.mark.parametrize("name", TREES)
def test_a_tree_in_the_true_layout_is_read(name, tmp_path):
    tree = plant(name, tmp_path)
    dataset = build(name, tmp_path)
    assert dataset.classnames == dataset.all_class_names == tree.class_names
    assert dataset.num_classes == len(tree.class_names)
    parts = (dataset.train_x, dataset.val or [], dataset.test)
    assert tuple(counted(part, dataset.num_classes) for part in parts) == tree.counts
    for part in parts:
        for item in part:
            assert Path(item.impath).is_file()
            assert item.classname == tree.class_names[item.label]
    train, val, test = ({item.impath for item in part} for part in parts)
    assert not val & (train | test)
    assert (
        dataset.test_only == (train == test) == name.startswith("ImageNet") * (name != "ImageNet")
    )


@pytest.mark.parametrize("name", WITH_SPLIT_FILE)
def test_a_missing_split_file_is_written_once_and_says_so(name, tmp_path, caplog):
    tree = plant(name, tmp_path)
    random.seed(1)
    state = random.getstate()
    made = build(name, tmp_path)
    assert random.getstate() == state
    assert "accuracies do not compare with the literature's" in caplog.text
    path = tmp_path / tree.folder / tree.split_file
    content = json.loads(path.read_text())
    assert list(content) == [ORIGIN, "class_names", "train", "val", "test"]
    assert str(tmp_path) not in path.read_text()
    caplog.clear()
    read = build(name, tmp_path)
    assert f"{tree.split_file} is not the published split" in caplog.text
    for part in ("train_x", "val", "test"):
        assert flat(getattr(read, part)) == flat(getattr(made, part))
    path.unlink()
    random.seed(2)
    assert flat(build(name, tmp_path, seed=3).train_x) == flat(made.train_x)


@pytest.mark.parametrize("name", TREES)
def test_a_tree_gives_shots_base_and_new(name, tmp_path):
    tree = plant(name, tmp_path)
    half = -(-len(tree.class_names) // 2)
    for subset, names in (("base", tree.class_names[:half]), ("new", tree.class_names[half:])):
        dataset = build(name, tmp_path, shots=2, subset=subset)
        assert dataset.classnames == names
        assert counted(dataset.train_x, len(names)) == 2
        assert counted(dataset.val, len(names)) == min(2, tree.counts[1])
        assert counted(dataset.test, len(names)) == tree.counts[2]


@pytest.mark.parametrize("name", TREES)
def test_a_tree_trains_one_step(name, tmp_path, run):
    tree = plant(name, tmp_path)
    run(
        "CoOp",
        flags=("--root", str(tmp_path)),
        DATASET__NAME=name,
        DATASET__NUM_SHOTS=1,
        DATALOADER__TRAIN_X__BATCH_SIZE=len(tree.class_names),
        OPTIM__MAX_EPOCH=1,
    )
    found = results(tmp_path / "run")
    assert (found["dataset"], found["epoch"]) == (name, 1)
    assert found["n"] == tree.counts[2] * len(tree.class_names)
    trained_on_test = len(tree.class_names) if DATASET_REGISTRY.get(name).test_only else None
    assert found.get("trained_on_test_pictures") == trained_on_test


def test_the_trees_are_those_of_the_yamls():
    named = {
        yaml.safe_load(path.read_text())["DATASET"]["NAME"]
        for path in (PROJECT / "configs" / "datasets").glob("*.yaml")
    }
    assert set(TREES) == {name for name in named if not name.startswith("Emoji")} - {"Folder"}


@pytest.mark.parametrize(
    ("name", "file", "line", "message"),
    [
        (
            "OxfordPets",
            "annotations/test.txt",
            "Abyssinian_1 x 1 1",
            "test.txt has 'x' where the num",
        ),
        ("OxfordPets", "annotations/test.txt", "Abyssinian_1 1", "expected: picture class species"),
        ("SUN397", "Testing_01.txt", "/z/zoo/sun_1.jpg", "names the class 'z/zoo', which the list"),
        (
            "DescribableTextures",
            "labels/val1.txt",
            "striped/a.jpg",
            "val1.txt names the class 'striped'",
        ),
        ("UCF101", "ucfTrainTestlist/testlist01.txt", "Sing/a.avi", "names the class 'Sing'"),
        ("StanfordCars", "devkit/cars_meta.mat", "x", "cars_meta.mat cannot be read as a MATLAB"),
        ("OxfordFlowers", "cat_to_name.json", "x", "cat_to_name.json is not valid JSON"),
    ],
)
def test_a_malformed_list_is_named(name, file, line, message, tmp_path):
    tree = plant(name, tmp_path)
    text(tmp_path / tree.folder / file, [line])
    with pytest.raises(ValueError, match=message):
        build(name, tmp_path)


def test_a_class_number_out_of_range_is_named(tmp_path):
    plant("OxfordFlowers", tmp_path)
    (tmp_path / "oxford_flowers" / "cat_to_name.json").write_text('{"1": "rose"}')
    with pytest.raises(ValueError, match=r"imagelabels.mat names the class '2'"):
        build("OxfordFlowers", tmp_path)


def test_a_missing_variable_is_named(tmp_path):
    plant("OxfordFlowers", tmp_path)
    with pytest.raises(ValueError, match="lacks the variable 'classes'"):
        read_mat(tmp_path / "oxford_flowers" / "imagelabels.mat", "classes", int)


def test_the_last_word_takes_the_rest_of_the_line(tmp_path):
    text(tmp_path / "list.txt", ["1 Boeing 717 ", "", "  2\tMD 11"])
    assert read_rows(tmp_path / "list.txt", "number name") == [["1", "Boeing 717"], ["2", "MD 11"]]


@pytest.mark.parametrize("name", WITH_SPLIT_FILE)
def test_what_a_split_could_be_made_from_is_named(name, tmp_path):
    tree = plant(name, tmp_path)
    missing = DATASET_REGISTRY.get(name).raw_files[-1]
    (tmp_path / tree.folder / missing).rename(tmp_path / tree.folder / "elsewhere")
    with pytest.raises(
        FileNotFoundError,
        match=rf"{tree.split_file} is missing.*because {missing} is missing;.*prepare_data",
    ):
        build(name, tmp_path)


def test_a_folder_too_many_above_the_classes_is_no_class(tmp_path):
    images = tmp_path / "food-101" / "images"
    (images / "empty").mkdir(parents=True)
    class_folders(images / "images", ["apple_pie", "waffles"])
    with pytest.raises(ValueError, match="holds one folder, images, with folders of pictures"):
        build("Food101", tmp_path)
