"""What can be watched while a run trains."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.splits import Item
from runs import config_rules, watch
from runs.draw import LEVEL_COLOURS, draw, mark_kept, one_a_class
from tests.logs import points, wandb_rows
from tests.reliability.runs import content, require_equal
from trainers.base import CLIPTrainer

LONG = {"OPTIM__MAX_EPOCH": 4, "TRAIN__CHECKPOINT_FREQ": 2, "TEST__FINAL_MODEL": "best_val"}
BATCHES = 6  # of 4 pictures: 6 classes, 4 shots


def steps(found, tag):
    return [step for name, step, _ in found if name == tag]


def interrupt(monkeypatch, at):
    """Have the run stopped at that step, with all that was logged until then in the file."""
    honest, calls = CLIPTrainer.forward_backward, []

    def step(trainer, batch):
        calls.append(1)
        if len(calls) == at:
            getattr(trainer._writer, "local", trainer._writer).flush()
            raise KeyboardInterrupt
        return honest(trainer, batch)

    monkeypatch.setattr(CLIPTrainer, "forward_backward", step)


def test_the_head_is_in_the_logs_once_an_epoch(run, tmp_path):
    run("Spotlighter")
    found = points(tmp_path / "run")
    for name in ("loss", "loss_ce", "loss_distill", "acc", "lr"):
        assert steps(found, f"train/{name}") == list(range(2 * BATCHES))
    heads = {tag for tag, _, _ in found if tag.startswith("head/")}
    assert len(heads) == 21
    assert {"head/base", "head/level/global", "head/level/2", "head/pair/fused"} <= heads
    assert all(steps(found, tag) == [0, 1] for tag in heads)
    state = content(tmp_path / "run", "model.pth.tar-2")["state_dict"]
    last = {tag: value for tag, step, value in found if step == 1}
    assert last["head/base"] == pytest.approx(float(state["head.base"]))
    assert last["head/level/2"] == pytest.approx(float(state["head.level"][2]))
    pictures = [value for tag, _, value in found if tag == "kept_patches"]
    assert len(pictures) == 2
    assert Image.open(io.BytesIO(pictures[0])).width > 4 * 112


def test_without_a_head_there_is_nothing_to_draw(run, tmp_path):
    run("CoOp", OPTIM__MAX_EPOCH=1)
    tags = {tag for tag, _, _ in points(tmp_path / "run")}
    assert "train/loss" in tags
    assert not any("head" in tag or "kept" in tag for tag in tags)


def test_the_logs_change_nothing_that_is_learned(run, tmp_path, monkeypatch):
    options = {"TRAINER__SPOTLIGHTER__SELECT": "random"}
    run("Spotlighter", "logged", **options)
    monkeypatch.setattr(watch, "note_epoch", lambda *_: None)
    run("Spotlighter", "silent", **options)
    one, other = (content(tmp_path / name, "model.pth.tar-2") for name in ("logged", "silent"))
    for state in (one, other):  # of Python's generator beartype draws, while tests run
        state["random"] = [json.loads(drawn)["torch"] for drawn in state["random"]]
    require_equal(one, other)


@pytest.mark.parametrize("at", [2 * BATCHES - 2, 3 * BATCHES + 2], ids=["from_0", "from_2"])
def test_a_run_that_goes_on_logs_nothing_twice(run, tmp_path, monkeypatch, at):
    run("Spotlighter", "whole", **LONG)
    with monkeypatch.context() as patch:
        interrupt(patch, at)
        with pytest.raises(KeyboardInterrupt):
            run("Spotlighter", **LONG)
    assert len(points(tmp_path / "run")) > 6 * (at - 2)  # else nothing could be there twice
    run("Spotlighter", **LONG)
    require_equal(points(tmp_path / "run"), points(tmp_path / "whole"))


def test_a_run_that_is_done_is_tested_again_and_logged_once(run, tmp_path):
    run("Spotlighter")
    before = points(tmp_path / "run")
    run("Spotlighter")
    require_equal(points(tmp_path / "run"), before)
    assert len(list((tmp_path / "run" / "tensorboard").iterdir())) == 2


def test_pictures_that_cannot_be_read_are_left_out(run, monkeypatch, tmp_path):
    def unreadable(*_):
        return [Item(str(tmp_path / "gone.png"), 0, 0, "ash tree")]

    monkeypatch.setattr(watch, "one_a_class", unreadable)
    run("Spotlighter", OPTIM__MAX_EPOCH=1)
    assert steps(points(tmp_path / "run"), "kept_patches") == []
    assert steps(points(tmp_path / "run"), "head/base") == [0]


def test_a_full_disk_ends_the_logs_and_not_the_run(run, monkeypatch, tmp_path, capsys):
    from torch.utils.tensorboard import SummaryWriter

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SummaryWriter, "add_image", full)
    run("Spotlighter", OPTIM__MAX_EPOCH=1)
    assert "The logs are no longer written: [Errno 28]" in capsys.readouterr().out
    assert (tmp_path / "run" / "results.json").exists()


def test_kept_patches_are_marked_where_they_are():
    picture = Image.new("RGB", (40, 40), (200, 100, 0))
    shown = np.asarray(mark_kept(picture, [5, 15], 4, level1=1))
    assert tuple(shown[15, 15]) == (200, 100, 0)  # row 1, column 1, inside its frame
    assert tuple(shown[5, 5]) == (70, 35, 0)
    colours = [tuple(bytes.fromhex(colour[1:])) for colour in LEVEL_COLOURS]
    assert tuple(shown[10, 10]) == colours[0]
    assert tuple(shown[39, 39]) == colours[1]
    assert tuple(shown[9, 9]) == (70, 35, 0)


def test_the_picture_grows_with_what_it_shows():
    kept, words = torch.tensor([[0], [3]]), ["a name that is too long by far\nsaid: b", "c"]
    found = draw(torch.rand(2, 64, 64, 3), kept, 2, 1, words, "title")
    assert found.shape[1] == 2 * (128 + 6) + 6
    assert draw(torch.rand(1, 224, 224, 3), kept[:1], 2, 1, ["a"], "t").shape[1] == 224 + 12


def test_classes_are_evenly_spread():
    items = [Item(f"{n}{i}.png", n, 0, str(n)) for n in range(10) for i in range(2)]
    assert [item.impath for item in one_a_class(items, 3)] == ["00.png", "30.png", "60.png"]


# Weights & Biases


@pytest.fixture
def offline(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody listens there
    return {"TRAIN__WANDB": "offline"}


@pytest.mark.slow
def test_wandb_has_a_row_a_batch_and_none_twice(run, tmp_path, monkeypatch, offline):
    wandb = pytest.importorskip("wandb")
    with monkeypatch.context() as patch:
        interrupt(patch, 3 * BATCHES + 2)
        with pytest.raises(KeyboardInterrupt):
            run("Spotlighter", **LONG | offline)
    wandb.finish()  # as at the end of the process
    run("Spotlighter", **LONG | offline)
    wandb.teardown()  # waits for the files, as that end does
    rows = wandb_rows(tmp_path / "run")
    assert [step for step, _ in rows] == list(range(4 * BATCHES))
    found = points(tmp_path / "run")
    for tag in ("train/loss", "train/loss_distill"):
        told = [value for name, _, value in found if name == tag]
        assert [row[tag] for _, row in rows] == pytest.approx(told, rel=1e-6)
    ends = [row for step, row in rows if (step + 1) % BATCHES == 0]
    assert [row["epoch"] for row in ends] == [1, 2, 3, 4]
    bases = [value for name, _, value in found if name == "head/base"]
    assert [row["head/base"] for row in ends] == pytest.approx(bases, rel=1e-6)
    assert all(row["kept_patches/width"] > 4 * 112 for row in ends)
    assert "test/accuracy" in ends[-1]
    assert len({path.name[-8:] for path in (tmp_path / "run" / "wandb").glob("offline-*")}) == 1


def test_wandb_without_the_package(fails, monkeypatch):
    monkeypatch.setattr(config_rules, "find_spec", lambda name: None)
    said = fails("CoOp", TRAIN__WANDB="offline")
    assert "needs the package wandb, which is missing: pip install -r requirements-wandb" in said


def test_wandb_takes_three_words(fails):
    said = fails("CoOp", TRAIN__WANDB="yes")
    assert "TRAIN.WANDB must be one of off, offline, online, got 'yes'" in said


@pytest.mark.parametrize(("content", "why"), [('{"id', "not valid JSON"), ("[1]", "lacks id")])
def test_half_a_note_of_what_was_sent_is_named(tmp_path, content, why):
    (tmp_path / "wandb.json").write_text(content)
    with pytest.raises(ValueError, match=rf"wandb\.json.* {why}"):
        watch._sent(tmp_path / "wandb.json")


@pytest.mark.slow
def test_wandb_online_without_an_account(fails, offline, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    said = fails("CoOp", TRAIN__WANDB="online")
    assert "TRAIN.WANDB online: Weights & Biases says: No API key" in said
    assert "TRAIN.WANDB offline writes files" in said


def test_what_is_not_wanted_is_not_imported():
    code = "import sys, trainers; print({'wandb', 'matplotlib', 'tensorboard'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
