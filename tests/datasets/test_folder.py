"""Own pictures: folders with splits, folders without, a CSV file; and every refusal."""

import shutil

import pytest

from tests.datasets.config import build, flat
from tests.datasets.trees import class_folders, picture, text
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


def test_shots_are_kept_where_they_are_no_class(tmp_path):
    class_folders(tmp_path, NAMES)
    first = build("Folder", tmp_path, shots=2)
    assert (tmp_path / ".split_fewshot" / "shot_2-seed_1.json").is_file()
    again = build("Folder", tmp_path, shots=2)
    assert again.classnames == NAMES
    assert flat(again.train_x) == flat(first.train_x)
    assert spread(again) == [[2, 2, 2], [2, 2, 2], [3, 3, 3]]


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
    assert f"left out: 1 folders without a picture, as {tmp_path}/test/ant" in caplog.text
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
    assert (found["dataset"], found["n"], found["epoch"]) == ("Folder", 9, 2)
    assert "trained_on_test_pictures" not in found


def test_own_pictures_are_the_target_of_a_model_trained_elsewhere(run, tmp_path):
    run("CoOp", "train")
    root = split_root(tmp_path / "mine", ("test",))
    flags = ("--root", str(root), "--eval-only", "--model-dir", str(tmp_path / "train"))
    run("CoOp", "eval", flags=flags, DATASET__NAME="Folder")
    found = results(tmp_path / "eval")
    assert (found["dataset"], found["n"], found["epoch"]) == ("Folder", 9, 2)
    assert "trained_on_test_pictures" not in found
    assert build("Folder", root).test_only
