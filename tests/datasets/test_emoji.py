import json

import numpy as np
import pytest
from dassl.data.datasets import DATASET_REGISTRY
from PIL import Image

from datasets import emoji
from datasets.emoji import ensure_dataset, load_masks
from datasets.emoji_pictures import class_names, draw_picture
from tests.datasets.trees import picture

SMALL = {"train": 2, "val": 1, "test": 1}


def make(root, workers=1, **options):
    folder = root / "emoji_food"
    ensure_dataset(
        folder, "split.json", "food", "colour", per_class=SMALL, workers=workers, **options
    )
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make(tmp_path_factory.mktemp("root"))


def test_the_split_file_lists_every_picture(made):
    splits = json.loads((made / "split.json").read_text())
    assert {name: len(entries) for name, entries in splits.items()} == {
        "train": 100,
        "val": 50,
        "test": 50,
    }
    names = class_names("food")
    for entries in splits.values():
        for path, label, name in entries:
            assert names[label] == name
            assert (made / "images" / path).is_file()


def test_pictures_and_masks_on_disk_are_those_drawn(made):
    pixels, mask = draw_picture("food", "colour", "train", "hot dog", 1)
    with Image.open(made / "images/train/hot_dog/0001.png") as picture:
        assert np.array_equal(np.asarray(picture), pixels)
    masks = load_masks(made)
    assert len(masks) == 200
    assert np.array_equal(masks["train/hot_dog/0001.png"], mask)


def test_the_number_of_workers_changes_nothing(made, tmp_path):
    other = make(tmp_path, workers=2)
    for path in sorted(made.rglob("*")):
        if path.is_file() and path.suffix != ".npz":
            assert path.read_bytes() == (other / path.relative_to(made)).read_bytes()
    first, second = load_masks(made), load_masks(other)
    assert list(first) == list(second)
    assert all(np.array_equal(first[path], second[path]) for path in first)


def test_a_complete_data_set_is_left_alone(made, monkeypatch):
    monkeypatch.setattr(emoji, "_write", lambda *args: pytest.fail("drawn again"))
    make(made.parent)


def test_a_folder_without_a_stamp_is_never_taken_for_done(tmp_path, monkeypatch):
    half_done = tmp_path / "emoji_food"
    (half_done / "images/train").mkdir(parents=True)
    (half_done / "split.json").write_text("{}")
    folder = make(tmp_path)
    assert len(json.loads((folder / "split.json").read_text())["train"]) == 100


def test_an_interrupted_generation_leaves_nothing_behind(tmp_path, monkeypatch):
    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(emoji, "track", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    assert (make(tmp_path) / "generator.json").is_file()


def test_another_generator_replaces_instead_of_mixing(tmp_path, monkeypatch):
    folder = make(tmp_path)
    (folder / "images/train/left_over.png").touch()
    monkeypatch.setattr(emoji, "GENERATOR", emoji.GENERATOR + 1)
    make(tmp_path)
    assert not (folder / "images/train/left_over.png").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["emoji_food"]


def test_other_data_of_that_name_is_never_replaced(tmp_path):
    (tmp_path / "emoji_food").mkdir()
    (tmp_path / "emoji_food" / "my.jpg").write_bytes(b"mine")
    with pytest.raises(ValueError, match=r"emoji_food holds my\.jpg, which is no part of the emb"):
        make(tmp_path)
    assert (tmp_path / "emoji_food" / "my.jpg").read_bytes() == b"mine"


@pytest.mark.parametrize("path", ["cat/1.png", "test/cat/1.png", "Valid/cat/1.png"])
def test_nothing_is_drawn_into_a_folder_of_pictures(tmp_path, path):
    picture(tmp_path / path)
    with pytest.raises(ValueError, match=r"is a folder of pictures, .* --target-root"):
        make(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.split("/")[0]]


def test_a_folder_of_data_sets_is_drawn_into(tmp_path):
    picture(tmp_path / "oxford_pets" / "images" / "1.jpg")
    assert (make(tmp_path) / "generator.json").is_file()


def test_masks_of_another_data_set_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"masks\.npz is missing.*emoji data sets only"):
        load_masks(tmp_path)


def test_a_damaged_file_of_masks_is_said_to_be_damaged(made, tmp_path):
    path = tmp_path / "masks.npz"
    content = bytearray((made / "masks.npz").read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"masks\.npz is damaged; remove its folder"):
        load_masks(tmp_path)


def test_each_domain_has_its_own_folder():
    food, lineart = map(DATASET_REGISTRY.get, ("EmojiFood", "EmojiFoodLineart"))
    assert (food.dataset_dir, food.split_file) == (
        "emoji_food",
        "split_zhou_EmojiFood.json",
    )
    assert (lineart.dataset_dir, lineart.domain) == (
        "emoji_food_lineart",
        "lineart",
    )


def test_half_a_stamp_is_named(made, tmp_path):
    (tmp_path / "emoji_food").mkdir()
    (tmp_path / "emoji_food" / "generator.json").write_text('{"generator": ')
    with pytest.raises(ValueError, match=r"emoji_food/generator\.json is not valid JSON"):
        make(tmp_path)
