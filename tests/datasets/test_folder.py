"""Own pictures: folders with splits, folders without, a CSV file; and every refusal."""

import codecs
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from datasets.pictures import SUFFIXES, open_picture
from tests.datasets.config import build, flat
from tests.datasets.trees import class_folders, picture, plant, text
from tests.trainers.test_runs import results

NAMES = ["bee", "cat", "dog"]


def split_root(root, parts=("train", "val", "test")):
    for part in parts:
        for name in NAMES:
            for number in range(3):
                picture(root / part / name / f"{part}{number}.png")
    return root


def spread(dataset):
    parts = (dataset.train_x, dataset.val or [], dataset.test)
    return [[sum(item.label == label for item in part) for label in range(3)] for part in parts]


def test_folders_of_splits(tmp_path):
    dataset = build("Folder", split_root(tmp_path))
    assert dataset.classnames == NAMES
    assert spread(dataset) == [[3, 3, 3]] * 3
    for part, items in (("train", dataset.train_x), ("val", dataset.val), ("test", dataset.test)):
        assert all(item.impath.startswith(str(tmp_path / part)) for item in items)
        assert all(f"/{item.classname}/" in item.impath for item in items)


def test_a_validation_split_is_not_needed(tmp_path):
    assert build("Folder", split_root(tmp_path, ("train", "test"))).val is None


def test_class_folders_are_divided_the_same_way_everywhere(tmp_path):
    for name in ("one", "other"):
        class_folders(tmp_path / name, NAMES)
    text(tmp_path / "one" / "bee" / "notes.txt", ["no picture"])
    one, other = (
        build("Folder", tmp_path / name, seed=seed) for name, seed in (("one", 1), ("other", 2))
    )
    assert spread(one) == [[5, 5, 5], [2, 2, 2], [3, 3, 3]]
    for part in ("train_x", "val", "test"):
        paths = [item.impath.replace("/other/", "/one/") for item in getattr(other, part)]
        assert paths == [item.impath for item in getattr(one, part)]
    parts = [{item.impath for item in part} for part in (one.train_x, one.val, one.test)]
    assert len(set.union(*parts)) == sum(map(len, parts)) == 30


@pytest.mark.parametrize(
    ("pictures", "expected"),
    [(1, (1, 0, 0)), (2, (1, 0, 1)), (3, (1, 1, 1)), (4, (2, 1, 1)), (40, (20, 8, 12))],
)
def test_small_classes_are_trained_on_and_tested(pictures, expected, tmp_path):
    class_folders(tmp_path, ["bee"])
    for number in range(pictures):
        picture(tmp_path / "cat" / f"{number}.png")
    dataset = build("Folder", tmp_path)
    parts = (dataset.train_x, dataset.val, dataset.test)
    assert tuple(sum(item.label == 1 for item in part) for part in parts) == expected


def test_a_class_may_be_called_train(tmp_path):
    class_folders(tmp_path, ["bus", "train"])
    dataset = build("Folder", tmp_path)
    assert dataset.classnames == ["bus", "train"]
    assert len(dataset.test) == 6


def test_shots_are_drawn_alike_and_nothing_is_written_among_the_pictures(tmp_path):
    class_folders(tmp_path, NAMES)
    first, again = (build("Folder", tmp_path, shots=2) for _ in range(2))
    assert sorted(path.name for path in tmp_path.iterdir()) == NAMES
    assert flat(again.train_x) == flat(first.train_x)
    assert spread(again) == [[2, 2, 2], [2, 2, 2], [3, 3, 3]]
    assert flat(build("Folder", tmp_path, shots=2, seed=2).train_x) != flat(first.train_x)


DROPPINGS = ["__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found", ".x"]


@pytest.mark.parametrize("name", [*DROPPINGS, "output"])
def test_what_systems_and_runs_leave_is_no_class(tmp_path, name):
    class_folders(tmp_path, NAMES)
    before = build("Folder", tmp_path)
    for folder in (tmp_path, tmp_path / "bee"):
        picture(folder / name / "run" / "SYNOPHOTO_THUMB_S.png")
        text(folder / name / "run" / "config.yaml", ["SEED: 1"])
    (tmp_path / "bee" / "._bee_1.jpg").write_bytes(b"\0\5\026\7")
    text(tmp_path / "bee" / "Thumbs.db", ["x"])
    after = build("Folder", tmp_path)
    assert after.classnames == NAMES
    assert flat(after.test) == flat(before.test)
    assert not any(path for why, path in after.left_out.items() if "without" not in why)


def test_raw_class_folders_know_droppings_too(tmp_path):
    tree = plant("Caltech101", tmp_path)
    (tmp_path / tree.folder / "101_ObjectCategories" / "__MACOSX").mkdir()
    (tmp_path / tree.folder / "101_ObjectCategories" / "empty").mkdir()
    assert build("Caltech101", tmp_path).classnames == tree.class_names


def test_deeper_folders_links_and_odd_suffixes_are_read_once(tmp_path):
    class_folders(tmp_path / "real", NAMES)
    picture(tmp_path / "real" / "bee" / "more" / "deep" / "1.GIF")
    picture(tmp_path / "real" / "bee" / "more" / "2.jfif.png")
    (tmp_path / "root").mkdir()
    for name in NAMES:
        (tmp_path / "root" / name).symlink_to(tmp_path / "real" / name)
    (tmp_path / "real" / "bee" / "circle").symlink_to(tmp_path / "real" / "bee")
    found = build("Folder", tmp_path / "root")
    assert [sum(column) for column in zip(*spread(found), strict=True)] == [12, 10, 10]


def test_other_words_for_the_splits(tmp_path):
    split_root(tmp_path, ("Train", "valid", "testing"))
    assert spread(build("Folder", tmp_path)) == [[3, 3, 3]] * 3
    split_root(tmp_path, ("val",))
    with pytest.raises(ValueError, match="two folders for the split val, val and valid; put"):
        build("Folder", tmp_path)


def test_other_words_for_the_splits_in_a_table(tmp_path):
    rows = [f"{n}.png,cat,{word}" for n, word in enumerate(("training", "VALID", "test"))]
    assert build("Folder", csv_root(tmp_path, rows)).val[0].impath == str(tmp_path / "1.png")


def test_what_is_left_out_is_counted_and_said(tmp_path, caplog):
    split_root(tmp_path)
    text(tmp_path / "train" / "bee" / "notes.txt", ["no picture"])
    text(tmp_path / "train" / "bee" / "a.heiC", ["no picture"])
    picture(tmp_path / "train" / "loose.png")
    picture(tmp_path / "extra" / "bee" / "1.png")
    (tmp_path / "test" / "ant").mkdir()
    found = build("Folder", tmp_path)
    assert {why: len(paths) for why, paths in found.left_out.items()} == {
        "files of another kind": 1 + (".heic" not in SUFFIXES),
        "pictures outside class folders": 1,
        "pictures beside the splits": 1,
        "folders without a picture": 1,
    }
    assert "left out: 1 picture beside the splits (1 .png), as " in caplog.text
    assert ".heic needs: pip install -r requirements-heic.txt" in caplog.text or (
        ".heic" in SUFFIXES
    )


def test_heic_counts_as_a_picture_if_pillow_heif_is_there(tmp_path):
    pytest.importorskip("pillow_heif", exc_type=ImportError)
    split_root(tmp_path)
    path = tmp_path / "train" / "bee" / "photo.HEIC"
    Image.new("RGB", (24, 20), (200, 30, 30)).save(path, format="HEIF", quality=100)
    dataset = build("Folder", tmp_path)
    assert (len(dataset.train_x), any(dataset.left_out.values())) == (10, False)
    assert [item.classname for item in dataset.train_x if item.impath == str(path)] == ["bee"]
    opened = open_picture(path)
    assert opened.size == (24, 20)
    assert np.abs(np.asarray(opened, int) - (200, 30, 30)).max() < 10


def test_a_link_to_a_folder_above_brings_no_pictures_of_other_classes(tmp_path):
    class_folders(tmp_path, NAMES)
    before = build("Folder", tmp_path)
    (tmp_path / NAMES[0] / "loop").symlink_to(tmp_path)
    after = build("Folder", tmp_path)
    for split in ("train_x", "val", "test"):
        assert flat(getattr(after, split)) == flat(getattr(before, split))


def test_the_folder_that_holds_the_classes_is_named(tmp_path):
    class_folders(tmp_path / "photos", NAMES)
    with pytest.raises(ValueError, match=rf"one folder, photos, .* take --root {tmp_path}/photos"):
        build("Folder", tmp_path)


def test_new_classes_need_test_pictures_alone(tmp_path):
    split_root(tmp_path)
    shutil.rmtree(tmp_path / "train" / "dog")
    found = build("Folder", tmp_path, subset="new", shots=1)
    assert (found.classnames, len(found.test), found.test_only) == (["dog"], 3, True)
    shutil.rmtree(tmp_path / "test" / "dog")
    with pytest.raises(ValueError, match=r"no test pictures of the classes that .* new selects"):
        build("Folder", tmp_path, subset="new")


def test_a_name_that_is_no_utf8_is_a_class_and_can_be_printed(tmp_path):
    class_folders(tmp_path, NAMES)
    (tmp_path / "bee").rename(tmp_path / os.fsdecode(b"\xb9\xb7"))
    found = build("Folder", tmp_path)
    assert found.classnames == ["\\xb9\\xb7", "cat", "dog"]
    assert len(found.test) == 9


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
def test_lists_of_other_editors_are_read(tmp_path, mark):
    class_folders(tmp_path, NAMES)
    lines = b"dog\ta dog\r\nbee\tMaja\r\ncat\ta cat\r\n"
    (tmp_path / "classnames.txt").write_bytes(mark + lines)
    assert build("Folder", tmp_path).classnames == ["a dog", "Maja", "a cat"]
    table = b"path,label\r\n" + b"".join(b"bee/bee_%d.jpg,bee\r\n" % n for n in range(9))
    (tmp_path / "my.csv").write_bytes(mark + table)
    assert len(build("Folder", tmp_path / "my.csv").test) == 3
    (tmp_path / "classnames.txt").write_text("dog", encoding="utf-16")
    with pytest.raises(ValueError, match="no text in UTF-8, but in UTF-16; save it anew"):
        build("Folder", tmp_path)


def test_classnames_say_names_and_order_and_keep_empty_classes(tmp_path):
    split_root(tmp_path)
    (tmp_path / "train" / "ant").mkdir()
    text(
        tmp_path / "classnames.txt",
        ["dog a good dog", "ant", "emu\tan emu", "bee honey bee", "cat"],
    )
    dataset = build("Folder", tmp_path)
    assert dataset.classnames == ["a good dog", "ant", "an emu", "honey bee", "cat"]
    assert dataset.num_classes == 5
    assert {item.label for item in dataset.train_x} == {0, 3, 4}
    assert build("Folder", tmp_path, shots=1, subset="new").classnames == ["honey bee", "cat"]


def test_an_empty_folder_is_a_class_only_where_another_split_or_a_list_names_it(tmp_path, caplog):
    split_root(tmp_path)
    (tmp_path / "test" / "ant").mkdir()
    assert build("Folder", tmp_path).classnames == NAMES
    assert f"left out: 1 folder without a picture, as {tmp_path}/test/ant" in caplog.text
    picture(tmp_path / "train" / "ant" / "0.png")
    assert build("Folder", tmp_path).classnames == ["ant", *NAMES]
    shutil.rmtree(tmp_path / "train" / "ant")
    text(tmp_path / "classnames.txt", ["ant", *NAMES])
    assert build("Folder", tmp_path).classnames == ["ant", *NAMES]


def test_a_folder_that_classnames_lack_is_named(tmp_path):
    text(split_root(tmp_path) / "classnames.txt", ["dog", "bee"])
    with pytest.raises(ValueError, match=r"classnames.txt lacks the class 'cat'; add a line"):
        build("Folder", tmp_path)


def csv_root(root, rows, head="path,label,split"):
    text(root / "my.csv", [head, *rows])
    return root / "my.csv"


def test_a_csv_file_with_splits(tmp_path):
    rows = [
        f"p/{name}{n}.png, {name},{part}"
        for part in ("train", "test")
        for name in NAMES
        for n in (1, 2)
    ]
    dataset = build("Folder", csv_root(tmp_path, rows))
    assert dataset.classnames == NAMES
    assert spread(dataset) == [[2, 2, 2], [0, 0, 0], [2, 2, 2]]
    assert dataset.train_x[0].impath == str(tmp_path / "p" / "bee1.png")


def test_a_csv_file_without_splits_is_divided_and_numbers_are_sorted_as_such(tmp_path):
    rows = [f"/elsewhere/{n}.png,{n % 2 * 8 + 2}" for n in range(20)]
    path = csv_root(tmp_path, rows, "path,label")
    dataset = build("Folder", path, shots=1)
    assert dataset.classnames == ["2", "10"]
    assert {item.impath.rpartition("/")[0] for item in dataset.test} == {"/elsewhere"}
    assert flat(build("Folder", path, shots=1).train_x) == flat(dataset.train_x)
    text(tmp_path / "classnames.txt", ["10 cat", "2 dog"])
    assert build("Folder", path).classnames == ["cat", "dog"]


@pytest.mark.parametrize(
    ("rows", "head", "message"),
    [
        (["a.png,cat"], "file,label", "begins with 'file,label'; expected path,label"),
        (["a.png,cat,tset"], "path,label,split", "Line 2 of .*my.csv has .*split 'tset'"),
        (["a.png,cat,"], "path,label,split", "split ''; expected a path"),
        (["a.png,cat", "b.png,"], "path,label", "Line 3 of .*my.csv has path 'b.png', label ''"),
        (["a.png,cat,train"], "path,label,split", "has no test pictures; add some"),
        ([], "path,label", "No pictures in .*my.csv"),
        (["a" * 140_000 + ",cat"], "path,label", "my.csv is no CSV file .*larger than field limit"),
    ],
)
def test_a_malformed_csv_file_is_refused(tmp_path, rows, head, message):
    with pytest.raises(ValueError, match=message):
        build("Folder", csv_root(tmp_path, rows, head))


def test_a_csv_file_of_another_encoding_is_named(tmp_path):
    (tmp_path / "my.csv").write_bytes("path,label\ncaf\u00e9.png,cat\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"my\.csv is no text in UTF-8 .*; save it anew"):
        build("Folder", tmp_path / "my.csv")


def test_a_root_without_pictures_says_what_is_expected(tmp_path):
    with pytest.raises(ValueError, match=r"No pictures in .*; expected <class>/picture.jpg, or"):
        build("Folder", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no\.csv, which is not a folder"):
        build("Folder", tmp_path / "no.csv")


def test_pictures_of_the_test_are_needed(tmp_path):
    with pytest.raises(ValueError, match="has no test pictures"):
        build("Folder", split_root(tmp_path, ("train", "val")))


@pytest.mark.parametrize("form", ["folders", "csv"])
def test_own_pictures_are_trained_on_and_tested_without_code(form, run, tmp_path):
    root = split_root(tmp_path / "mine")
    if form == "csv":
        rows = [f"{p.relative_to(root)},{p.parent.name},{p.parts[-3]}" for p in root.rglob("*.png")]
        root = csv_root(root, rows)
    run("CoOp", flags=("--root", str(root)), DATASET__NAME="Folder", DATASET__NUM_SHOTS=2)
    found = results(tmp_path / "run")
    assert found["dataset"] == build("Folder", root).label
    assert (found["dataset_name"], found["n"], found["epoch"]) == ("Folder", 9, 2)
    assert "trained_on_test_pictures" not in found


def test_own_pictures_are_the_target_of_a_model_trained_elsewhere(run, tmp_path):
    run("CoOp", "train")
    root = split_root(tmp_path / "mine", ("test",))
    flags = ("--root", str(root), "--eval-only", "--model-dir", str(tmp_path / "train"))
    run("CoOp", "eval", flags=flags, DATASET__NAME="Folder")
    found = results(tmp_path / "eval")
    assert (found["source"], found["dataset"]) == ("Toy", build("Folder", root).label)
    assert (found["n"], found["epoch"]) == (9, 2)
    assert "trained_on_test_pictures" not in found
    assert build("Folder", root).test_only
