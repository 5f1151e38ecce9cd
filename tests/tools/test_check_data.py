"""Every fault that would spoil a result is found and named; a sound data set passes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from datasets.base import Published
from datasets.pictures import ORIENTATION
from datasets.splits import ORIGIN
from tests.datasets.config import build
from tests.datasets.trees import TREES, class_folders, picture, plant, text
from tools.check_data import main
from tools.data.sources import benchmarks

PROJECT = Path(__file__).parents[2]


def counts_of(name, root):
    dataset = build(name, root)
    parts = ([] if dataset.test_only else dataset.train_x, dataset.val or [], dataset.test)
    return Published(len(dataset.classnames), *map(len, parts))


@pytest.fixture
def sound(tmp_path, monkeypatch):
    """A tree whose counts are the published ones, and whose split file is, too."""

    def go(name):
        tree = plant(name, tmp_path)
        monkeypatch.setattr(benchmarks()[name], "published", counts_of(name, tmp_path))
        if tree.split_file:
            path = tmp_path / tree.folder / tree.split_file
            content = json.loads(path.read_text())
            del content[ORIGIN]
            path.write_text(json.dumps(content))
        return tmp_path / tree.folder

    return go


@pytest.fixture
def check(tmp_path, capsys):
    def go(*words, root=tmp_path):
        code = main([*words, "--root", str(root)])
        out = capsys.readouterr()
        return code, out.out + out.err

    return go


@pytest.mark.parametrize("name", TREES)
def test_a_sound_data_set_passes(name, sound, check):
    sound(name)
    code, out = check()
    assert "FAULT" not in out
    assert (code, "No fault found" in out) == (0, True)
    cls = benchmarks()[name]
    for split in ("train", "val", "test"):
        listed = getattr(cls.published, split)
        rows = [line.split() for line in out.splitlines() if f" {split} " in line]
        classes = str(cls.published.classes)
        assert [row[:9] for row in rows] == (
            [[name, split, *[str(listed)] * 3, "0", "0", classes, "0"]] if listed else []
        )


def split_of(folder):
    (path,) = folder.glob("split_zhou_*.json")
    return path, json.loads(path.read_text())


def test_missing_and_corrupt_pictures_are_named_with_data_set_and_split(sound, check):
    folder = sound("OxfordPets")
    _, split = split_of(folder)
    gone, broken = split["train"][0][0], split["test"][3][0]
    (folder / "images" / gone).unlink()
    content = (folder / "images" / broken).read_bytes()
    (folder / "images" / broken).write_bytes(content[:-50])
    Image.open(folder / "images" / broken).close()  # its head is whole
    code, out = check("oxford_pets")
    assert code == 1
    assert f"FAULT: OxfordPets: train: 1 picture missing\n    {folder}/images/{gone}\n" in out
    fault = "FAULT: OxfordPets: test: 1 picture unreadable"
    assert f"{fault}\n    {folder}/images/{broken} cannot be read as a picture: " in out
    assert "2 faults that would spoil a result" in out
    code, out = check("oxford_pets", "--quick")
    assert "picture missing" in out
    assert "picture unreadable" not in out


def test_more_files_than_wanted_are_counted(sound, check):
    folder = sound("EuroSAT")
    shutil.rmtree(folder / "2750" / "Forest")
    code, out = check("eurosat", "--show", "2")
    assert code == 1
    assert "train: 5 pictures missing" in out
    assert out.count("    and 3 more (--show)") == 1


def test_a_data_set_that_cannot_be_opened_is_a_fault_and_others_go_on(sound, check):
    folder = sound("EuroSAT")
    (folder.parent / "caltech-101").mkdir()
    code, out = check()
    assert code == 1
    assert "FAULT: Caltech101: The split file" in out
    assert "\nEuroSAT " in out


def test_other_counts_than_the_published_are_faults(sound, check):
    folder = sound("DescribableTextures")
    path, split = split_of(folder)
    split["test"].pop()
    split["train"].append(split["train"][0])
    path.write_text(json.dumps(split))
    code, out = check("dtd")
    assert code == 1
    assert "FAULT: DescribableTextures: test: 7 pictures listed, 8 are published" in out
    assert "FAULT: DescribableTextures: train: 9 pictures listed, 8 are published" in out
    assert "FAULT: DescribableTextures: train: 1 picture listed twice" in out


def test_another_number_of_classes_is_a_fault(sound, check):
    folder = sound("ImageNetR")
    shutil.rmtree(folder / "imagenet-r" / "n01443537")
    code, out = check("imagenet_r")
    assert code == 1
    assert "FAULT: ImageNetR: 1 classes, 2 are published" in out


@pytest.mark.parametrize("name", ["ImageNet", "ImageNetV2"])
def test_empty_classes_are_faults(name, sound, check):
    folder = sound(name)
    place = {
        "ImageNet": "images/val/n01443537",
        "ImageNetV2": "imagenetv2-matched-frequency-format-val/1",
    }
    shutil.rmtree(folder / place[name])
    code, out = check(name)
    assert code == 1
    assert f"FAULT: {name}: test: 1 of 3 classes without a picture\n    goldfish" in out
    assert f"{name}: test: 20 pictures listed, 30 are published" in out


def test_another_order_of_classes_is_a_fault(sound, check):
    folder = sound("ImageNet")
    lines = (folder / "classnames.txt").read_text().splitlines()
    text(folder / "classnames.txt", [lines[1], lines[0], lines[2]])
    code, out = check("ImageNet")
    assert code == 1
    assert "FAULT: ImageNet: classes are not in the published order" in out
    assert "the first folder out of place is n01443537" in out


def test_a_label_of_two_names_is_a_fault_and_a_name_of_two_labels_a_note(sound, check):
    folder = sound("OxfordFlowers")
    path, split = split_of(folder)
    split["test"][0][2] = "tulip"
    path.write_text(json.dumps(split))
    code, out = check("oxford_flowers")
    assert code == 1
    assert "FAULT: OxfordFlowers: 1 label with more than one class name" in out
    for entries in (split["train"], split["val"], split["test"]):
        for entry in entries:
            entry[2] = "flower"
    split["class_names"] = ["flower", "flower"]
    path.write_text(json.dumps(split))
    code, out = check("oxford_flowers")
    assert code == 0
    assert "note: OxfordFlowers: 1 class name of several labels" in out


def test_a_picture_in_two_splits_is_a_fault(sound, check):
    folder = sound("UCF101")
    path, split = split_of(folder)
    split["test"][0] = split["train"][0]
    path.write_text(json.dumps(split))
    code, out = check("ucf101")
    assert code == 1
    assert "FAULT: UCF101: 1 picture both in train and in test\n" in out
    assert split["train"][0][0] in out


def test_equal_content_is_a_note_in_published_data_and_a_fault_in_ones_own(sound, check, tmp_path):
    folder = sound("FGVCAircraft")
    images = sorted((folder / "images").iterdir())
    shutil.copy(images[0], images[-1])
    code, out = check("fgvc_aircraft")
    assert code == 0
    expected = f"1 picture of test with the content of one of train\n    {images[0]} = {images[-1]}"
    assert f"note: FGVCAircraft: {expected}" in out
    for part in ("train", "test"):
        class_folders(tmp_path / "mine" / part, ["bee", "cat"])
    shutil.copy(tmp_path / "mine/train/bee/bee_1.jpg", tmp_path / "mine/test/bee/bee_2.jpg")
    code, out = check("folder", root=tmp_path / "mine")
    assert code == 1
    assert "FAULT: Folder: 1 picture of test with the content of one of train" in out


def test_a_split_made_here_is_noted(tmp_path, monkeypatch, check):
    plant("OxfordPets", tmp_path)
    monkeypatch.setattr(benchmarks()["OxfordPets"], "published", Published(2, 1, 1, 1))
    for _ in range(2):
        code, out = check("oxford_pets")
        assert code == 0
        assert "note: OxfordPets: the split is not the published one: made from annotations" in out


def test_the_true_counts_are_asked_of_the_true_names(tmp_path, check):
    plant("FGVCAircraft", tmp_path)
    code, out = check()
    assert code == 1
    assert "FGVCAircraft: 2 classes, 100 are published" in out
    assert "FGVCAircraft: train: 8 pictures listed, 3,334 are published" in out


def test_nothing_there_says_where_it_looked(tmp_path, check):
    code, out = check(root=tmp_path / "nowhere")
    assert code == 2
    assert out.startswith("check_data: error: None of Caltech101, ")
    assert str(tmp_path / "nowhere") in out


def test_own_pictures_are_checked(tmp_path, check):
    for part in ("train", "test"):
        class_folders(tmp_path / part, ["bee", "cat"])
    (tmp_path / "train" / "ant").mkdir()
    picture(tmp_path / "test" / "ant" / "1.png")
    Path(tmp_path / "test" / "cat" / "bad.png").write_text("no picture")
    code, out = check("Folder")
    assert code == 1
    assert "FAULT: Folder: train: 1 of 3 classes without a picture\n    ant" in out
    assert f"{tmp_path}/test/cat/bad.png cannot be read as a picture: " in out


def test_a_table_of_own_pictures_is_checked(tmp_path, check):
    class_folders(tmp_path, ["bee", "cat"])
    rows = [f"{path.relative_to(tmp_path)},{path.parent.name}" for path in tmp_path.rglob("*.jpg")]
    text(tmp_path / "my.csv", ["path,label", *rows])
    code, out = check(root=tmp_path / "my.csv")
    assert (code, out.splitlines()[-1]) == (0, "No fault found")


def stored_turned(path, orientation=6):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.new("RGB", (24, 20), "red").save(path, exif=exif)


def test_fit_means_that_every_file_is_used(tmp_path, check):
    class_folders(tmp_path, ["bee", "cat"])
    code, out = check()
    assert (code, out.splitlines()[-1]) == (0, "No fault found")
    code, out = check("--quick")
    assert (code, out.splitlines()[-1]) == (0, "No fault at a quick look: no picture was decoded")
    text(tmp_path / "cat" / "a.raw", ["x"])
    picture(tmp_path / "loose.png")
    code, out = check("folder")
    assert code == 0
    assert f"note: Folder: left out: 1 file of another kind (1 .raw), as {tmp_path}/cat" in out
    assert out.splitlines()[-1] == "No fault in what is used, but 2 files left out; see the notes"


@pytest.mark.parametrize("name", ["Caltech101", "EuroSAT", "Food101", "ImageNet", "ImageNetA"])
def test_what_published_folders_hold_beyond_pictures_is_counted(name, tmp_path, check, caplog):
    tree = plant(name, tmp_path)
    used = Path(build(name, tmp_path).test[0].impath)
    for split in [tree.split_file] if tree.split_file else []:
        (tmp_path / tree.folder / split).unlink()
    text(used.parent / "film.avi", ["no picture"])
    picture(used.parents[1] / "loose.png")
    build(name, tmp_path)
    assert "1 file of another kind" in caplog.text
    assert "1 picture outside class folders" in caplog.text
    for _ in range(2):  # a split that was made is read the second time
        out = check(name)[1]
        assert f"left out: 1 file of another kind (1 .avi), as {used.parent}/film.avi" in out
        assert f"outside class folders (1 .png), as {used.parents[1]}/loose.png" in out
        assert "No fault found" not in out
    if tree.split_file:
        caplog.clear()
        build(name, tmp_path)
        assert "left out: 1 file of another kind; left out: 1 picture outside" in caplog.text


def test_turned_pictures_are_counted(tmp_path, check, sound):
    class_folders(tmp_path / "mine", ["bee", "cat"])
    stored_turned(tmp_path / "mine" / "cat" / "turned.jpg")
    code, out = check(root=tmp_path / "mine")
    assert code == 0
    turned = "1 picture with an EXIF rotation flag, which is"
    assert f"{turned} followed; INPUT.EXIF stored ignores it" in out
    folder = sound("OxfordPets")
    stored_turned(folder / "images" / "Abyssinian_1.jpg")
    code, out = check("OxfordPets")
    assert code == 0
    assert f"{turned} ignored, as in CoOp; INPUT.EXIF upright follows it" in out


def test_a_name_that_is_no_utf8_is_printed_escaped(tmp_path):
    class_folders(tmp_path, ["bee", "cat"])
    (tmp_path / "cat" / os.fsdecode(b"\xb9\xb7.png")).write_text("no picture")
    command = [sys.executable, "tools/check_data.py", "--root", str(tmp_path)]
    environment = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    found = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, env=environment)
    assert found.returncode == 1
    assert f"{tmp_path}/cat/\\xb9\\xb7.png cannot be read as a picture" in found.stdout


def test_a_plain_folder_is_found_and_its_classes_are_counted(tmp_path, check):
    for name, number in (("ant", 20), ("bee", 4), ("cat", 10)):
        for i in range(number):
            picture(tmp_path / name / f"{i}.png")
    code, out = check()
    assert (code, out.splitlines()[-1]) == (0, "No fault found")
    lines = "bee: 4 (train 2, val 1, test 1)", "cat: 10 (train 5, val 2, test 3)"
    told = "\n    ".join(("pictures of each class: 4 to 20, fewest first", *lines))
    assert f"note: Folder: {told}\n    ant: 20 (train 10, val 4, test 6)" in out
    assert "imbalance: ant has 20 pictures, bee has 4; macro F1" in out
    assert "train: 3 classes with fewer than 16 pictures; where 16 shots" in out
    assert "3 classes: base-to-new needs 4, two for each half" in out


def test_enough_even_classes_need_no_advice(tmp_path, check):
    for name in "abcd":
        for i in range(40):
            picture(tmp_path / name / f"{i}.png")
    out = check()[1]
    assert "pictures of each class: 40\n" in out
    assert not [word for word in ("imbalance", "fewer than", "base-to-new") if word in out]


def test_one_class_is_a_fault(tmp_path, check):
    picture(tmp_path / "ant" / "1.png")
    picture(tmp_path / "ant" / "2.png")
    code, out = check()
    assert code == 1
    assert "FAULT: Folder: one class: there is nothing to tell it from" in out


def test_a_picture_in_two_classes_is_a_fault(tmp_path, check):
    """By content, not by name, and within a split, too."""
    class_folders(tmp_path, ["bee", "cat"])
    first = sorted((tmp_path / "bee").iterdir())[0]
    shutil.copy(first, tmp_path / "cat" / "copy.jpg")
    code, out = check()
    assert code == 1
    assert "FAULT: Folder: 1 picture in more than one class; keep each in the one" in out
    assert f"{first} (bee)" in out
    assert f"{tmp_path}/cat/copy.jpg (cat)" in out
    assert "more than one class" not in check("--quick")[1]


def test_a_folder_without_class_folders_is_told_what_is_expected(tmp_path, check):
    picture(tmp_path / "loose.png")
    code, out = check()
    assert code == 2
    assert "for pictures of your own, the one that holds a folder for each class" in out
