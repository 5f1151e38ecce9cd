"""Damaged checkpoints: the one before serves, with a warning; what is kept; what is left behind."""

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat

from datasets.emoji import ensure_dataset, load_masks
from datasets.mat_file import read_mat
from datasets.splits import read_split
from models.clip.fetch import digest_of
from models.clip.load import TINY_CLIP
from models.clip.weights import read_weights
from runs.backbone import check_class_names
from runs.checkpoint import read_checkpoint
from tests.conftest import make_clip
from tests.models.clip.test_weights import script
from tests.reliability.runs import OPTIONS, metrics, require_equal, require_same_end


def flip(path, place=0.5):
    """One bit of a file."""
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


NAN = torch.full((4, 128), float("nan"))
DAMAGE = {"a bit flipped": flip, "cut in half": cut, "emptied": empty}


@pytest.fixture
def interrupted(start, tmp_path):
    """A run that was killed in its third epoch."""

    def go(**options):
        stop = ("trainers.base", "CLIPTrainer.forward_backward", 8, "before")
        assert start("Spotlighter", job={"stop": stop}, **OPTIONS | options)[0] < 0
        return tmp_path / "run" / "prompt_learner"

    return go


@pytest.fixture
def go_on(start, tmp_path):
    def go(**options):
        code, printed = start("Spotlighter", **OPTIONS | options)
        assert code == 0, printed
        return printed

    return go


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_newest_checkpoint_falls_back(
    interrupted, go_on, whole, tmp_path, witness, damage
):
    folder = interrupted()
    DAMAGE[damage](folder / "model.pth.tar-2")
    printed = go_on()
    assert "going on from the checkpoint before it" in printed
    assert f"Going on from {folder / 'model.pth.tar-1'} (epoch 1)" in printed
    require_same_end(whole("Spotlighter", **OPTIONS), tmp_path / "run")
    warning = next(line for line in printed.splitlines() if "before it" in line)
    witness("files", f"the newest checkpoint {damage}", f"warning: {warning}; ends alike")


def test_all_checkpoints_damaged_begin_anew(interrupted, go_on, whole, tmp_path, witness):
    folder = interrupted()
    for path in folder.glob("model*"):
        flip(path)
    printed = go_on()
    assert printed.count("before it") == 2
    assert "train from scratch" in printed
    require_same_end(whole("Spotlighter", **OPTIONS), tmp_path / "run")
    witness("files", "all checkpoints damaged", "a warning each, begins anew, ends alike")


@pytest.mark.parametrize("how", ["damaged", "gone"])
def test_a_run_does_not_go_on_without_its_best_model(
    interrupted, go_on, whole, tmp_path, witness, how
):
    options = {"TEST__FINAL_MODEL": "best_val"}
    best = interrupted(**options) / "model-best.pth.tar"
    flip(best) if how == "damaged" else best.unlink()
    printed = go_on(**options)
    assert "model-best.pth.tar" in next(x for x in printed.splitlines() if "before it" in x)
    assert metrics(tmp_path / "run") == metrics(whole("Spotlighter", **OPTIONS | options))
    fault = f"the best model on validation pictures {how}"
    witness("files", fault, "warning, goes on from before it was chosen, same result")


def test_nothing_is_changed_in_the_folder_of_another_run(interrupted, start, tmp_path):
    """It may still be running."""
    folder = interrupted(TEST__FINAL_MODEL="best_val")
    (folder / ".model.pth.tar-3.123").write_bytes(b"half")
    flip(folder / "model-best.pth.tar")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    options = OPTIONS | {"TEST__FINAL_MODEL": "best_val"}
    flags = ("--resume", str(tmp_path / "run"))
    code, printed = start("Spotlighter", "other", flags=flags, **options)
    assert code == 0, printed
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("pointer", ["", "\udcff\udcfe", "model.pth.tar-9\n", None])
def test_a_lost_pointer_is_no_loss(interrupted, go_on, whole, tmp_path, witness, pointer):
    path = interrupted() / "checkpoint"
    path.unlink() if pointer is None else path.write_text(pointer, errors="surrogateescape")
    assert f"Going on from {path.with_name('model.pth.tar-2')}" in go_on()
    require_same_end(whole("Spotlighter", **OPTIONS), tmp_path / "run")
    how = {"": "is empty", None: "is gone", "\udcff\udcfe": "holds no text"}
    how = how.get(pointer, "names a file that is not there")
    witness("files", f"the file `checkpoint` {how}", "goes on from the newest, ends alike")


def test_a_user_may_name_an_earlier_checkpoint(interrupted, go_on):
    path = interrupted() / "checkpoint"
    path.write_text("model.pth.tar-1\n")
    assert f"Going on from {path.with_name('model.pth.tar-1')}" in go_on()


@pytest.mark.parametrize(("keep", "left"), [(0, [1, 2, 3]), (1, [3]), (2, [2, 3])])
def test_the_newest_checkpoints_are_kept(run, tmp_path, keep, left):
    options = OPTIONS | {"TRAIN__KEEP_CHECKPOINTS": keep, "TEST__FINAL_MODEL": "best_val"}
    run("CoOp", **options)
    folder = tmp_path / "run" / "prompt_learner"
    names = {path.name for path in folder.iterdir()}
    assert names == {"checkpoint", "model-best.pth.tar"} | {f"model.pth.tar-{n}" for n in left}


def test_what_a_kill_left_half_written_is_removed(start, tmp_path, witness):
    job = {"stop": ("os", "fsync", 8, "half")}
    assert start("CoOp", job=job, **OPTIONS)[0] < 0
    folder = tmp_path / "run" / "prompt_learner"
    assert list(folder.glob(".model.pth.tar-2.*"))
    assert start("CoOp", **OPTIONS)[0] == 0
    assert not list(folder.glob(".*"))
    witness("files", "a half written checkpoint is left behind", "removed by the next start")


def test_an_evaluation_refuses_a_damaged_checkpoint(run, fails, tmp_path, witness):
    run("CoOp", **OPTIONS)
    flip(tmp_path / "run" / "prompt_learner" / "model.pth.tar-3")
    flags = ("--eval-only", "--model-dir", str(tmp_path / "run"))
    found = fails("CoOp", "eval", flags=flags)
    assert "is damaged: the checksum of its part" in found
    assert not (tmp_path / "eval" / "results.json").exists()
    witness("files", "a damaged checkpoint is to be evaluated", found)


def a_checkpoint(folder, run):
    run("CoOp", **OPTIONS)
    return folder / "run" / "prompt_learner" / "model.pth.tar-3"


def a_table_of_weights(folder, _):
    torch.save(make_clip().state_dict(), folder / "w.pt")
    return folder / "w.pt"


def a_torchscript_archive(folder, _):
    script(make_clip(), folder / "w.pt")
    return folder / "w.pt"


def the_embedded_weights(folder, _):
    return shutil.copy(TINY_CLIP, folder / "w.pt")


def safetensors_with_a_digest_beside_them(folder, _):
    path = folder / "w.safetensors"
    state = {k: v for k, v in make_clip().state_dict().items() if k != "token_embedding.weight"}
    pytest.importorskip("safetensors.torch").save_file(state, path)
    path.with_name(f"{path.name}.sha256").write_text(f"{digest_of(path)}  {path.name}\n")
    return path


def masks_npz(folder, _):
    small = {"train": 1, "val": 1, "test": 1}
    ensure_dataset(folder / "emoji", "split.json", "food", "colour", per_class=small, workers=1)
    return folder / "emoji" / "masks.npz"


def a_mat_file(folder, _):
    values = {"label": np.arange(1.0, 301), "name": [f"image_{n:05d}.jpg" for n in range(300)]}
    savemat(folder / "a.mat", values, do_compression=True)
    return folder / "a.mat"


def a_split_file(folder, _):
    names = ["abyssinian", "bengal", "birman", "bombay", "boxer", "chihuahua"]
    lists = {
        split: [[f"{name}_{n}.jpg", label, name] for label, name in enumerate(names) for n in pick]
        for split, pick in (("train", range(4)), ("val", (4, 5)), ("test", range(6, 12)))
    }
    for entries in lists.values():
        for name, *_ in entries:
            (folder / name).touch()
    (folder / "split.json").write_text(json.dumps(lists))
    return folder / "split.json"


def weights(path):
    return read_weights(path, trust=True)


def masks(path):
    load_masks.cache_clear()
    return {name: torch.from_numpy(mask) for name, mask in load_masks(path.parent).items()}


def annotations(path):
    return read_mat(path, "label", int), read_mat(path, "name", str)


def pictures(path):
    """What a run makes of a split file, to the search for its pictures."""
    splits = read_split(path, path.parent)
    items = [item for split in splits[:3] for item in split]
    if not all(Path(item.impath).is_file() for item in items):
        raise ValueError("a picture is missing")
    return check_class_names(splits.names()), [(item.impath, item.label) for item in items]


FLIPPED = [
    (a_checkpoint, read_checkpoint, 300),
    (a_table_of_weights, weights, 100),
    (a_torchscript_archive, weights, 100),
    (the_embedded_weights, weights, 100),
    (safetensors_with_a_digest_beside_them, weights, 100),
    (masks_npz, masks, 300),
    (a_mat_file, annotations, 30),
    (a_split_file, pictures, 300),
]


@pytest.mark.parametrize(
    ("make", "read", "count"), FLIPPED, ids=[make.__name__ for make, *_ in FLIPPED]
)
def test_any_flipped_bit_is_noticed_or_does_no_harm(
    run, tmp_path, caplog, measured, make, read, count
):
    """Noticed: an error or a warning, in a sentence."""
    path = Path(make(tmp_path, run))
    caplog.set_level("WARNING")
    caplog.clear()
    whole, expected, rng, noticed = path.read_bytes(), read(path), random.Random(3), 0
    assert not caplog.records
    for _ in range(count):
        damaged, bit = bytearray(whole), rng.randrange(8 * len(whole))
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        caplog.clear()
        try:
            found = read(path)
        except ValueError:
            noticed += 1
        else:
            noticed += bool(caplog.records)
            assert caplog.records or require_equal(found, expected) is None, bit
    assert noticed > 0.8 * count
    kind = make.__name__.replace("_", " ")
    measured(f"bits flipped one at a time, {kind}", f"{noticed} of {count} noticed")


def change(path, **parts):
    """Write a checkpoint anew with other parts, checksums and all."""
    saved = torch.load(path, weights_only=True)
    torch.save(saved | {key: part(saved) for key, part in parts.items()}, path)


FORMS = {
    "no tensors": {"state_dict": lambda _: {"ctx": "x"}},
    "a list of tensors": {"state_dict": lambda saved: list(saved["state_dict"].values())},
    "no epoch": {"epoch": lambda _: "x"},
    "an epoch before the first": {"epoch": lambda _: -1},
    "an identity that is none": {"identity": lambda _: [1]},
    "a version that is none": {"identity": lambda saved: saved["identity"] | {"version": 1}},
    "an optimiser that is none": {"optimizer": lambda _: {"state": [1]}},
    "random states that are none": {"random": lambda _: [b"x"]},
    "workers that are none": {"workers": lambda _: [{"x": ""}]},
}


@pytest.mark.parametrize("form", FORMS)
def test_a_checkpoint_of_another_form_is_refused(run, fails, tmp_path, form):
    run("CoOp", **OPTIONS | {"OPTIM__MAX_EPOCH": 1})
    change(tmp_path / "run" / "prompt_learner" / "model.pth.tar-1", **FORMS[form])
    flags = ("--eval-only", "--model-dir", str(tmp_path / "run"))
    assert "is not a checkpoint of this family: " in fails("CoOp", "eval", flags=flags)


def quantised(value):
    return torch.quantize_per_tensor(value, 0.1, 0, torch.qint8)


TENSORS = {
    "no data": (lambda value: value.to("meta"), "sparse, quantised or empty of data"),
    "quantised": (quantised, "sparse, quantised or empty of data"),
    "sparse": (lambda value: value.to_sparse(), "sparse, quantised or empty of data"),
    "int8": (lambda value: value.to(torch.int8), "ctx is torch.int8 there and torch.float32 here"),
    "complex": (lambda value: value * 1j, "ctx is torch.complex64 there and torch.float32 here"),
    "10^12 values in one": (lambda value: value[:1, :1].expand(10**6, 10**6), "has more values"),
}


@pytest.mark.parametrize("kind", TENSORS)
def test_tensors_of_another_kind_are_refused(run, fails, tmp_path, witness, kind):
    run("CoOp", **OPTIONS | {"OPTIM__MAX_EPOCH": 1})
    make, said = TENSORS[kind]
    path = tmp_path / "run" / "prompt_learner" / "model.pth.tar-1"
    change(path, state_dict=lambda saved: {"ctx": make(saved["state_dict"]["ctx"])})
    found = fails("CoOp", "eval", flags=("--eval-only", "--model-dir", str(tmp_path / "run")))
    assert said in found
    assert not (tmp_path / "eval" / "results.json").exists()
    witness("files", f"a checkpoint whose tensors are: {kind}", found)


def test_a_checkpoint_with_a_nan_is_no_checkpoint(interrupted, go_on, fails, witness):
    """Otherwise every picture would be of the first class, and nobody would be told."""
    path = interrupted() / "model.pth.tar-2"
    change(path, state_dict=lambda saved: saved["state_dict"] | {"tuner.ctx": NAN})
    flags = ("--eval-only", "--model-dir", str(path.parents[1]))
    found = fails("Spotlighter", "eval", flags=flags)
    assert f"{path} holds infinite numbers, or what is no number, in tuner.ctx" in found
    printed = go_on()
    assert f"Going on from {path.with_name('model.pth.tar-1')}" in printed
    witness("files", "a checkpoint with a NaN is to be evaluated", found)


def test_a_run_does_not_end_before_its_checkpoint(run, fails):
    run("CoOp", **OPTIONS)
    found = fails("CoOp", flags=("--allow-mismatch",), **OPTIONS | {"OPTIM__MAX_EPOCH": 2})
    assert "model.pth.tar-3 is of epoch 3, and this run ends with 2 (OPTIM.MAX_EPOCH)" in found


def test_a_refused_run_leaves_a_finished_one_as_it_is(run, fails, tmp_path):
    run("CoOp", **OPTIONS)
    kept = ("config.yaml", "results.json", "predictions.csv")
    before = {name: (tmp_path / "run" / name).read_bytes() for name in kept}
    fails("CoOp", **OPTIONS | {"OPTIM__LR": 0.5})
    fails("CoOp", flags=("--eval-only", "--model-dir", str(tmp_path / "none")), **OPTIONS)
    assert {name: (tmp_path / "run" / name).read_bytes() for name in kept} == before


def test_an_evaluation_that_is_killed_does_not_count_as_done(run, start, tmp_path):
    run("CoOp", **OPTIONS)
    flags = ("--eval-only", "--model-dir", str(tmp_path / "run"))
    assert start("CoOp", "eval", flags=flags, **OPTIONS)[0] == 0
    stop = ("runs.evaluate", "write_results", 1, "before")
    assert start("CoOp", "eval", flags=flags, job={"stop": stop}, **OPTIONS)[0] < 0
    assert not (tmp_path / "eval" / "results.json").exists()


def test_epoch_0_is_no_other_epoch(run, fails, tmp_path):
    run("CoOp", **OPTIONS)
    flags = ("--eval-only", "--model-dir", str(tmp_path / "run"), "--load-epoch", "0")
    assert "no checkpoint model.pth.tar-0 in" in fails("CoOp", "eval", flags=flags)
