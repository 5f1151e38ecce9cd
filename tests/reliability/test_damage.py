"""Damaged checkpoints: the one before serves, with a warning; what is kept; what is left behind."""

import random

import pytest

from tests.reliability.runs import OPTIONS, content, metrics, require_same_end


def flip(path, place=0.5):
    """One bit of a file."""
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


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
    job = {"stop": ("os", "fsync", 6, "half")}
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


def test_any_flipped_bit_is_noticed_or_does_no_harm(run, fails, tmp_path):
    run("CoOp", **OPTIONS)
    path = tmp_path / "run" / "prompt_learner" / "model.pth.tar-3"
    whole, state = path.read_bytes(), content(tmp_path / "run")["state_dict"]
    rng = random.Random(3)
    from dassl.utils import load_checkpoint

    noticed = 0
    for _ in range(60):
        path.write_bytes(whole)
        flip(path, rng.random())
        try:
            found = load_checkpoint(path)["state_dict"]
            assert all(found[key].equal(state[key]) for key in state)
        except ValueError:
            noticed += 1
    assert noticed > 30
