"""Missing and broken pictures: named and stopped at, or skipped and counted."""

import json
import os
import shutil
import struct
import zlib

import pandas as pd
import pytest
from dassl.data.datasets import build_dataset
from PIL import Image

import train
from datasets.pictures import ORIENTATION
from runs.config import build_config
from runs.data import CachedDataset
from tests.trainers.test_runs import results


@pytest.fixture
def root(toy_root, tmp_path):
    return shutil.copytree(toy_root, tmp_path / "data")


@pytest.fixture
def pictures(root):
    return root / "toy" / "images"


def at(root):
    return ("--root", str(root))


def claim_a_huge_size(path):
    """A valid head of 60,000 x 60,000 pixels: Pillow raises an error of its own kind."""
    content = path.read_bytes()
    head = b"IHDR" + struct.pack(">II", 60_000, 60_000) + content[24:29]
    path.write_bytes(content[:12] + head + struct.pack(">I", zlib.crc32(head)) + content[33:])


def empty(path):
    path.write_bytes(b"")


def cut(path):
    path.write_bytes(path.read_bytes()[:500])


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("spoil", [empty, cut, claim_a_huge_size])
def test_a_broken_test_picture_stops_a_run_with_one_sentence(fails, root, pictures, spoil, workers):
    spoil(pictures / "test_2_1.png")
    found = fails("ZeroshotCLIP", flags=at(root), DATALOADER__NUM_WORKERS=workers)
    assert found.startswith(f"train.py: error: Toy, test: {pictures}/test_2_1.png cannot be read")
    assert "SKIP_UNREADABLE True goes on" in found
    assert "Traceback" not in found


@pytest.mark.parametrize("cache", [0, 64])
def test_a_missing_training_picture_stops_a_run_with_one_sentence(fails, root, pictures, cache):
    for path in pictures.glob("train_0_*.png"):
        path.unlink()
    found = fails("CoOp", flags=at(root), DATALOADER__CACHE_MB=cache)
    assert found.startswith(f"train.py: error: Toy, train: No picture at {pictures}/train_0_")


def test_a_missing_validation_picture_is_named_with_its_split(fails, root, pictures):
    (pictures / "val_3_0.png").unlink()
    assert "Toy, val: No picture" in fails("CoOp", flags=at(root), TEST__FINAL_MODEL="best_val")


@pytest.mark.parametrize(("workers", "cache"), [(0, 0), (0, 64), (1, 64)])
def test_skipped_pictures_are_counted(run, root, pictures, tmp_path, workers, cache):
    for path in pictures.glob("train_0_*.png"):
        path.unlink()
    cut(pictures / "test_2_1.png")
    (pictures / "test_5_0.png").unlink()
    options = {
        "DATALOADER__SKIP_UNREADABLE": True,
        "DATALOADER__NUM_WORKERS": workers,
        "DATALOADER__CACHE_MB": cache,
        "DATALOADER__TEST__BATCH_SIZE": 1,
    }
    run("CoOp", flags=at(root), **options)
    found = results(tmp_path / "run")
    assert found["unreadable"] == {"train": 4, "val": 0, "test": 2}
    assert found["n"] == 28
    log = (tmp_path / "run" / "log.txt").read_text()
    assert log.count(f"Skipped in test: {pictures}/test_2_1.png cannot be read") == 1
    assert "* total: 28" in log


@pytest.mark.parametrize(("trainer", "split"), [
    ("ZeroshotCLIP", "test"), ("CoOp", "train"), ("TipAdapter", "train"),
])
@pytest.mark.parametrize("store", ["off", "memory"])
def test_nothing_readable_at_all_is_an_error(fails, root, pictures, trainer, split, store):
    """As where the data set lies in another folder."""
    for path in pictures.glob(f"{split}_*.png"):
        path.unlink()
    options = {"DATALOADER__SKIP_UNREADABLE": True, "FEATURES__KEEP": store}
    found = fails(trainer, flags=at(root), **options)
    assert found.endswith(
        f"Toy, {split}: no picture can be read; do they lie in DATASET.ROOT {root}? "
        "tools/check_data.py says what is wrong with each"
    )


def test_what_is_not_skipped_counts_as_without_skipping(run, root, pictures, tmp_path):
    run("ZeroshotCLIP", "whole", flags=at(root), DATALOADER__SKIP_UNREADABLE=True)
    assert results(tmp_path / "whole")["unreadable"] == {"train": 0, "val": 0, "test": 0}
    split = json.loads((root / "toy" / "split.json").read_text())
    bad = {"test_0_0.png", "test_4_2.png"}
    shorter = split | {"test": [entry for entry in split["test"] if entry[0] not in bad]}
    (root / "toy" / "split.json").write_text(json.dumps(shorter))
    run("ZeroshotCLIP", "shorter", flags=at(root))
    assert "unreadable" not in results(tmp_path / "shorter")
    (root / "toy" / "split.json").write_text(json.dumps(split))
    for name in bad:
        (pictures / name).unlink()
    run("ZeroshotCLIP", "skipped", flags=at(root), DATALOADER__SKIP_UNREADABLE=True)
    tables = [pd.read_csv(tmp_path / name / "predictions.csv") for name in ("shorter", "skipped")]
    pd.testing.assert_frame_equal(*tables, check_exact=False, rtol=0, atol=1e-5)
    for key in ("accuracy", "macro_f1", "n"):
        assert results(tmp_path / "skipped")[key] == results(tmp_path / "shorter")[key]


def test_calibration_skips_and_a_head_learns(run, root, pictures, tmp_path):
    (pictures / "train_1_0.png").unlink()
    options = {"MODEL__PRUNE__AT": (1,), "MODEL__PRUNE__KEEP": (32,), "DATASET__NUM_SHOTS": 6}
    run("Spotlighter", flags=at(root), DATALOADER__SKIP_UNREADABLE=True, **options)
    assert results(tmp_path / "run")["unreadable"]["train"] == 1


def wrapped(arguments, root, *, is_train):
    args = arguments("CoOp", flags=at(root), DATALOADER__SKIP_UNREADABLE=True)
    cfg = build_config(train.parse_args(args))
    return CachedDataset(cfg, build_dataset(cfg).train_x, transform=None, is_train=is_train)


def test_the_next_readable_picture_stands_in_with_its_label(arguments, root):
    data = wrapped(arguments, root, is_train=True)
    for index in (3, 4):
        shutil.move(data.data_source[index].impath, root)
    item, other = data[3], data[5]
    assert item["label"] == other["label"] == data.data_source[5].label
    assert item["label"] != data.data_source[3].label
    assert item["img"].tobytes() == other["img"].tobytes()
    assert data.data_source[3].impath in item["unreadable"]
    assert (item["blank"], other["blank"], other["unreadable"]) == (False, False, "")


def test_nothing_stands_in_outside_training(arguments, root):
    data = wrapped(arguments, root, is_train=False)
    shutil.move(data.data_source[3].impath, root)
    assert data[3]["blank"]
    assert data[3]["label"] == data.data_source[3].label


@pytest.mark.parametrize("trainer", ["CoOp", "Spotlighter", "MaPLe", "PromptSRC"])
def test_training_keeps_the_width_of_an_empty_class(run, root, tmp_path, trainer):
    path = root / "toy" / "split.json"
    split = json.loads(path.read_text())
    names = list(dict.fromkeys(name for _, _, name in split["train"]))
    for part, entries in split.items():
        split[part] = [entry for entry in entries if entry[1] != 2]
    path.write_text(json.dumps(split | {"class_names": names}))
    run(trainer, flags=at(root))
    assert results(tmp_path / "run")["n"] == 25
    flags = (*at(root), "--eval-only", "--model-dir", str(tmp_path / "run"))
    run(trainer, "again", flags=flags)
    assert results(tmp_path / "again")["accuracy"] == results(tmp_path / "run")["accuracy"]


@pytest.mark.parametrize(("exif", "done"), [("auto", "stored"), ("upright", "upright")])
@pytest.mark.parametrize("workers", [0, 1])
def test_pictures_stored_turned_are_counted(run, root, tmp_path, exif, done, workers):
    pictures, tag = root / "toy" / "images", Image.Exif()
    tag[ORIENTATION] = 3
    for name in ("test_0_0.png", "test_3_1.png", "train_2_0.png"):
        with Image.open(pictures / name) as picture:
            picture.copy().save(pictures / name, exif=tag)
    options = {"INPUT__EXIF": exif, "DATALOADER__NUM_WORKERS": workers, "DATASET__NUM_SHOTS": -1}
    run("CoOp", flags=at(root), **options)
    found = results(tmp_path / "run")["exif"]
    assert found == {"pictures": done, "test": 2}
    said = {"stored": "it was ignored, as CoOp does", "upright": "they were turned upright"}[done]
    log = (tmp_path / "run" / "log.txt").read_text()
    assert f"2 pictures of test have an EXIF rotation flag: {said}" in log


def test_own_pictures_are_turned_upright(arguments, tmp_path):
    tag = Image.Exif()
    tag[ORIENTATION] = 6
    for name in ("a", "b"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for n in range(3):
            Image.new("RGB", (30, 10)).save(tmp_path / "mine" / name / f"{n}.png", exif=tag)
    for name, size in (("auto", (10, 30)), ("stored", (30, 10))):
        options = {"DATASET__NAME": "Folder", "INPUT__EXIF": name}
        args = arguments("CoOp", flags=at(tmp_path / "mine"), **options)
        cfg = build_config(train.parse_args(args))
        assert CachedDataset(cfg, build_dataset(cfg).train_x)[0]["img"].size == size


def test_an_unknown_way_of_turning_is_refused(fails):
    found = fails("CoOp", INPUT__EXIF="on")
    assert "INPUT.EXIF must be one of auto, upright, stored, got 'on'" in found


def test_an_output_folder_whose_name_is_no_utf8_is_refused_before_anything_is_done(fails, tmp_path):
    found = fails("CoOp", os.fsdecode(b"\xb9"))
    assert "OUTPUT_DIR (--output-dir) must be a path in UTF-8, got " in found
    assert not list(tmp_path.iterdir())


def test_data_of_any_name_are_trained_on(run, tmp_path):
    root = tmp_path / os.fsdecode(b"\xb9\xb7")
    for name in (b"cat", b"caf\xe9"):
        (folder := root / os.fsdecode(name)).mkdir(parents=True)
        for n in range(4):
            Image.new("RGB", (30, 10)).save(folder / f"{n}.png")
    run("CoOp", flags=at(root), DATASET__NAME="Folder", DATASET__NUM_SHOTS=1)
    assert results(tmp_path / "run")["class_names"] == ["caf\\xe9", "cat"]
