"""The store of image features: equal bits with it and without, whole whatever happens."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from models.clip.image_tower import VisualEncoder
from runs import feature_store, features, rng
from runs.feature_store import LEFT, Disk, Entry, Memory, files, open_store
from tests.trainers.test_runs import checkpoint, results
from tools import features as tool

PROJECT = Path(__file__).parents[2]
# The toy's CLIP has random weights, which follow from the seed; a fold leaves its logits.
FOLD = {"DATASET__FOLD": "1/2", "OPTIM__MAX_EPOCH": 1, "FEATURES__VIEWS": 1}
DISK = FOLD | {"FEATURES__KEEP": "disk"}


@pytest.fixture
def store(tmp_path):
    """The folder of a store, as an option."""
    Memory.kept.clear()
    yield {"FEATURES__DIR": str(tmp_path / "store")}
    Memory.kept.clear()


@pytest.fixture
def counted(monkeypatch):
    """How many pictures went through the image tower."""
    seen, forward = [], VisualEncoder.forward

    def count(self, image, *args, **kwargs):
        seen.append(len(image))
        return forward(self, image, *args, **kwargs)

    monkeypatch.setattr(VisualEncoder, "forward", count)
    return seen


@pytest.fixture
def pretrained(monkeypatch):
    """Backbones of equal weights, whatever a run drew before it loads its own."""
    from trainers import base

    load = base.load_backbone

    def equal(*args):
        torch.manual_seed(7)
        return load(*args)

    monkeypatch.setattr(base, "load_backbone", equal)


@pytest.fixture
def no_checks_draw(monkeypatch):
    """The checks of shapes, in tests alone, draw from Python's generator, and no view does."""
    capture = rng.capture

    def without():
        random.seed(0)
        return capture()

    monkeypatch.setattr(rng, "capture", without)


def outcome(folder):
    """All that a run says and learned, but for dates and times."""
    found = results(folder)
    for key in ("date", "images_per_s", "train_s"):
        found.pop(key, None)
    logits = np.load(folder / "logits.npy").tobytes()
    path = folder / "prompt_learner" / "model.pth.tar-1"
    learned = torch.load(path, weights_only=True)["state_dict"] if path.is_file() else {}
    tensors = {k: v for k, v in learned.items() if torch.is_tensor(v)}
    return found, logits, {k: v.numpy().tobytes() for k, v in tensors.items()}


def warnings_in(folder):
    """What the log of a run says of its store."""
    lines = (folder / "log.txt").read_text().splitlines()
    return [line for line in lines if line.endswith("(FEATURES.KEEP)")]


def paths(folder):
    return {path for *_, path in files(Path(folder))}


# Equal results


@pytest.mark.parametrize("name", ["ZeroshotCLIP", "CoOp", "CoCoOp", "TextRefiner", "Spotlighter"])
@pytest.mark.usefixtures("no_checks_draw")
def test_with_a_store_all_bits_are_those_without(run, tmp_path, store, counted, name):
    options = FOLD | ({"FEATURES__VIEWS": 0} if name == "ZeroshotCLIP" else {})
    run(name, "off", **options)
    tower = len(counted)
    for kind in ("disk", "memory"):
        for output in (f"{kind}_filled", f"{kind}_read"):
            counted.clear()
            run(name, output, **options, **store, FEATURES__KEEP=kind)
            # the picture of what is kept, in the logs, is drawn anew
            drawn = name == "Spotlighter"
            assert len(counted) == (drawn if "read" in output else tower)
            assert outcome(tmp_path / output) == outcome(tmp_path / "off")
        assert "images_per_s" not in results(tmp_path / f"{kind}_read")
        assert results(tmp_path / f"{kind}_filled")["images_per_s"] > 0


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_evaluated_between_epochs_changes_no_order(run, tmp_path, store, workers):
    """A pass over the validation pictures draws from the generator that orders the training's."""
    options = {"TEST__FINAL_MODEL": "best_val", "DATALOADER__NUM_WORKERS": workers}
    for kind in ("off", "memory"):
        run("CoOp", kind, TRAIN__CHECKPOINT_FREQ=1, FEATURES__KEEP=kind, **options)
    kept, plain = (checkpoint(tmp_path / kind)["state_dict"]["ctx"] for kind in ("memory", "off"))
    assert torch.equal(kept, plain)


@pytest.mark.parametrize("left", ["all", "half", "none"])
def test_a_run_goes_on_whatever_is_left_of_its_store(run, tmp_path, store, left):
    options = {"OPTIM__MAX_EPOCH": 2, "TRAIN__CHECKPOINT_FREQ": 1, "FEATURES__VIEWS": 2}
    run("CoOp", "whole", **options)
    options |= store | {"FEATURES__KEEP": "disk"}
    run("CoOp", "part", **options)
    folder = tmp_path / "part" / "prompt_learner"
    (folder / "model.pth.tar-2").unlink()
    (folder / "checkpoint").write_text("model.pth.tar-1\n")
    held = sorted(paths(store["FEATURES__DIR"]))
    assert len(held) == 3  # two views, and the test pictures
    for path in {"all": [], "half": held[::2], "none": held}[left]:
        path.unlink()
    run("CoOp", "part", **options)
    whole, part = (checkpoint(tmp_path / name)["state_dict"]["ctx"] for name in ("whole", "part"))
    assert torch.equal(whole, part)


def test_trainers_share_what_their_towers_share(run, tmp_path, store, counted, pretrained):
    run("ZeroshotCLIP", "first", **store, **DISK | {"FEATURES__VIEWS": 0})
    held = paths(store["FEATURES__DIR"])
    assert sum(counted) == 12  # of the fold
    counted.clear()
    run("CoOp", "second", **store, **DISK)
    assert sum(counted) == 12  # the other fold's pictures, to train on
    assert paths(store["FEATURES__DIR"]) > held
    counted.clear()
    run("CoCoOp", "third", **store, **DISK)
    assert not counted


@pytest.mark.parametrize("name", ["CoOp", "CoCoOp"])
@pytest.mark.parametrize("tower", [{}, {"MODEL__PRUNE__AT": "(1,)", "MODEL__PRUNE__KEEP": "(9,)"}])
@pytest.mark.usefixtures("pretrained")
def test_class_tokens_are_read_from_entries_with_patches(
    run, tmp_path, store, counted, name, tower
):
    run(name, "off", **FOLD, **tower)
    views = DISK | tower | {"FEATURES__VIEWS": 0}
    run("Spotlighter", "first", **store, **views, TRAINER__SPOTLIGHTER__BASE="CoOp")
    held = paths(store["FEATURES__DIR"])
    counted.clear()
    run(name, "second", **store, **DISK, **tower)
    assert sum(counted) == 12 + 12 * bool(tower)  # the view, what a pruner is fitted to; no fold
    assert len(paths(store["FEATURES__DIR"]) - held) == 1
    assert outcome(tmp_path / "second") == outcome(tmp_path / "off")
    run("Spotlighter", "third", **store, **views, TRAINER__SPOTLIGHTER__BASE="CoOp")
    assert outcome(tmp_path / "third") == outcome(tmp_path / "first")


def test_a_compiled_tower_may_round_otherwise_with_patches(monkeypatch):
    monkeypatch.setattr(features, "key_of", lambda state, model, path, *_: f"key of {path}")

    def found(path, *there, compiled=""):
        pictures = SimpleNamespace(cfg=SimpleNamespace(MODEL=SimpleNamespace(COMPILE=compiled)))
        return features.lookup(SimpleNamespace(store=there), None, path, pictures, [0])

    patches = ("key of raw", "key of value")
    assert found(None, *patches) == ("key of None", "key of value")
    assert found(None, *patches, compiled="inductor") == ("key of None", "")
    assert found(None, "key of None", *patches, compiled="inductor") == ("key of None",) * 2
    assert found("raw", "key of None", "key of value") == ("key of raw", "")


@pytest.mark.parametrize(
    "changed",
    [
        {"MODEL__PRUNE__AT": "(1,)", "MODEL__PRUNE__KEEP": "(9,)"},
        {"TRAINER__COOP__PREC": "bf16"},
        {"INPUT__PIXEL_MEAN": "[0.1, 0.2, 0.3]"},
        {"INPUT__EXIF": "upright"},
        {"DATALOADER__TEST__BATCH_SIZE": 5},
    ],
)
def test_what_changes_features_changes_their_key(run, tmp_path, store, counted, changed):
    run("CoOp", "first", **store, **DISK)
    held = paths(store["FEATURES__DIR"])
    counted.clear()
    run("CoOp", "second", **store, **DISK, **changed)
    assert sum(counted) >= 24  # the view, the fold, and what a pruner is fitted to
    assert not held & {path for path in paths(store["FEATURES__DIR"]) if path not in held}
    run("CoOp", "off", **FOLD, **changed)
    assert outcome(tmp_path / "second") == outcome(tmp_path / "off")


def test_a_picture_that_changes_is_seen_anew(run, tmp_path, toy_root, store):
    root = shutil.copytree(toy_root, tmp_path / "data")
    flags = ("--root", str(root))
    run("ZeroshotCLIP", "first", flags=flags, **store, **DISK)
    for path in (root / "toy" / "images").glob("train_*"):
        Image.open(path).rotate(90).save(path)
    run("ZeroshotCLIP", "second", flags=flags, **store, **DISK)
    run("ZeroshotCLIP", "off", flags=flags, **FOLD)
    assert outcome(tmp_path / "second") == outcome(tmp_path / "off")
    assert outcome(tmp_path / "second")[1] != outcome(tmp_path / "first")[1]


def test_a_batch_with_a_picture_that_cannot_be_read_is_not_kept(run, tmp_path, toy_root, store):
    root = shutil.copytree(toy_root, tmp_path / "data")
    (root / "toy" / "images" / "test_1_1.png").write_bytes(b"")
    for name in ("first", "second"):
        flags = ("--root", str(root))
        more = {"DATALOADER__SKIP_UNREADABLE": True, "FEATURES__KEEP": "disk"}
        run("ZeroshotCLIP", name, flags=flags, **store, **more)
        assert results(tmp_path / name)["unreadable"]["test"] == 1
        assert results(tmp_path / name)["n"] == 29
    assert not paths(store["FEATURES__DIR"])


def test_a_tower_that_learns_keeps_nothing(run, tmp_path, store):
    run("MaPLe", **store, OPTIM__MAX_EPOCH=1, FEATURES__KEEP="disk")
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "FEATURES.KEEP (it needs a frozen image tower)" in log
    assert not Path(store["FEATURES__DIR"]).exists()


# Damage


def cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def flip(path):
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)


def empty(path):
    path.write_bytes(b"")


def another(path):
    """A file of the same form, of other features."""
    other = next(p for p in sorted(path.parent.iterdir()) if p.suffix == path.suffix and p != path)
    path.write_bytes(other.read_bytes())


def foreign(path):
    from safetensors.torch import save_file

    save_file({"cls": torch.zeros(12, 128)}, path)


def folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("harm", [cut, flip, empty, another, foreign, folder])
def test_a_damaged_file_is_one_sentence_and_is_computed_anew(run, tmp_path, store, harm):
    run("CoOp", "off", **FOLD)
    run("CoOp", "first", **store, **DISK)
    for path in sorted(paths(store["FEATURES__DIR"])):
        harm(path)
    for name in ("second", "third"):
        run("CoOp", name, **store, **DISK)
        said = warnings_in(tmp_path / name)
        assert len(said) == (1 if name == "second" or harm is folder else 0)
        assert outcome(tmp_path / name) == outcome(tmp_path / "off")


def test_a_full_disk_is_one_sentence(run, tmp_path, store, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(feature_store, "write_bytes", full)
    run("CoOp", **store, **DISK)
    sentence = f"{store['FEATURES__DIR']} cannot be written: No space left on device; features are"
    assert warnings_in(tmp_path / "run") == [f"{sentence} computed instead (FEATURES.KEEP)"]
    assert results(tmp_path / "run")["n"] == 12


def test_a_folder_that_cannot_be_used_is_one_sentence(tmp_path, caplog, monkeypatch):
    (tmp_path / "file").write_text("")
    assert open_store("disk", str(tmp_path / "file" / "below"), 100) is None
    assert "No features are kept in" in caplog.text
    caplog.clear()
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert open_store("disk", str(tmp_path), 100) is None
    assert caplog.messages == [
        f"No features are kept in {tmp_path} (FEATURES.DIR): it is another user's"
    ]


def test_a_store_that_is_removed_meanwhile(tmp_path, caplog):
    store = Disk(tmp_path / "store", 2**20)
    store.put("a" * 64, entry(1))
    shutil.rmtree(tmp_path / "store")
    assert store.get("a" * 64) is None
    store.put("b" * 64, entry(1))
    assert len([m for m in caplog.messages if "cannot be written" in m]) == 1


# Bounds


def entry(value, size=256):
    return Entry({"cls": torch.full((size // 4,), float(value))}, {"what": "a test"})


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_the_longest_unused_goes(tmp_path, store, kind):
    kept = open_store(kind, str(tmp_path / "store"), 2300)
    size = 256 if kind == "memory" else None
    for number in range(4):
        kept.put(f"{number}" * 64, entry(number, size or 256))
        time.sleep(0.02)
    kept.get("0" * 64)
    for number in range(4, 12):
        kept.put(f"{number:x}" * 64, entry(number))
        time.sleep(0.02)
        assert kept.get("0" * 64).tensors["cls"][0] == 0  # used each time
    assert "1" * 64 not in kept
    assert "b" * 64 in kept
    if kind == "disk":
        assert sum(bytes_ for _, bytes_, _ in files(tmp_path / "store")) <= 2300
    kept.put("c" * 64, entry(1, size=4000))
    assert "c" * 64 not in kept


def test_memory_holds_no_more_than_its_rows(store):
    whole = torch.zeros(1000, 8)
    Memory(2**20).put("a", Entry({"cls": whole[:2]}, {}))
    assert Memory.kept["a"].tensors["cls"].untyped_storage().nbytes() == 64


def test_a_store_never_removes_what_is_not_its_own(tmp_path):
    store = Disk(tmp_path, 600)
    own = tmp_path / "weights.safetensors"
    own.write_bytes(b"x" * 5000)
    for number in range(5):
        store.put(f"{number}" * 64, entry(number))
    assert own.is_file()
    tool.main(["--dir", str(tmp_path), "--clear"])
    assert own.is_file()
    assert not list(files(tmp_path))


FILL = """
import sys, torch
from pathlib import Path
from runs.feature_store import Disk, Entry
store = Disk(Path(sys.argv[1]), 2**30)
print("ready", flush=True)
for turn in range(int(sys.argv[2])):
    for number in range(16):
        key = f"{number:x}" * 64
        store.put(key, Entry({"cls": torch.full((2000,), float(number))}, {}))
        found = store.get(key)
        assert found is not None and (found.tensors["cls"] == number).all()
"""


def filler(folder, turns):
    command = [sys.executable, "-c", FILL, str(folder), str(turns)]
    return subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True)


def test_two_processes_fill_a_store_and_a_third_is_killed(tmp_path, caplog):
    fillers, killed = [filler(tmp_path, 4) for _ in range(2)], filler(tmp_path, 10_000)
    assert killed.stdout.readline() == "ready\n"
    deadline = time.monotonic() + 60
    while len(list(files(tmp_path))) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    for process in fillers:
        process.communicate(timeout=120)
        assert process.returncode == 0
    store = Disk(tmp_path, 2**30)
    for number in range(16):
        assert (store.get(f"{number:x}" * 64).tensors["cls"] == number).all()
    assert not caplog.messages


def test_what_a_killed_process_left_is_removed(tmp_path):
    old, new = (tmp_path / f".x{feature_store.UNFINISHED}{name}" for name in ("old", "new"))
    for path in (old, new):
        path.write_bytes(b"")
    os.utime(old, (time.time() - 2 * LEFT,) * 2)
    Disk(tmp_path, 2**20).put("a" * 64, entry(1))
    assert not old.exists()
    assert new.exists()


# The tool


def test_the_tool_shows_and_clears(run, store, capsys):
    run("ZeroshotCLIP", **store, FEATURES__KEEP="disk")
    held = paths(store["FEATURES__DIR"])
    capsys.readouterr()
    tool.main(["--dir", store["FEATURES__DIR"]])
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("1 files, 0.0 MB, in ")
    assert said[3].split()[:5] == ["tiny-emoji,", "Toy", "30", "1", "0.0"]
    cut(*held)
    tool.main(["--dir", store["FEATURES__DIR"]])
    assert "unreadable" in capsys.readouterr().out
    tool.main(["--dir", store["FEATURES__DIR"], "--clear"])
    assert "removed from" in capsys.readouterr().out
    assert not paths(store["FEATURES__DIR"])
    tool.main(["--dir", store["FEATURES__DIR"] + "/none"])
    assert "0 files" in capsys.readouterr().out
