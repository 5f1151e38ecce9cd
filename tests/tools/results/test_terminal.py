"""Tables fit the terminal; what they leave out is named, and --wide shows all."""

import itertools
import json
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from lab import search
from tests.tools.test_collect_results import record
from tools import check_data, collect_results, compare_trainers, features
from tools.results.terminal import NO_LIMIT, fitted, leave_out, plain_table, room

WIDTH = 80
SETS = ("EmojiAnimalsLineart", "DescribableTextures")
LONG = "CoOp, CSC True, N_CTX 16, CLASS_TOKEN_POSITION middle"


def table():
    wide = ["+2.51 [+2.18, +2.83]", "+24.35 [+23.64, +25.02]"]
    scores = dict.fromkeys(("base", "new", "hm"), wide)
    return pd.DataFrame({"minus": ["Spotlighter", "CoOp"], "seeds": [5, 5], **scores})


@pytest.mark.parametrize(("form", "width"), [({}, 84), ({"table": plain_table}, 74)])
def test_columns_go_in_order_and_come_back_where_there_is_room(form, width):
    text = fitted(table(), width, ["seeds", "new", "base"], **form)
    assert max(map(len, text.splitlines())) <= width
    assert text.endswith("(--wide): new"), "seeds went first, and had room after new had gone"
    assert text.count("seeds") == 1
    assert "Not shown" not in fitted(table(), NO_LIMIT, ["seeds"], **form)


@pytest.mark.parametrize("width", [40, 60, WIDTH])
def test_long_names_go_on_in_the_next_line(width):
    frame = pd.DataFrame({"trainer": [LONG, "GDA"], "base": ["76.74 ± 0.10", "7.00 ± 0.10"]})
    text = fitted(frame, width)
    assert max(map(len, text.splitlines())) <= width
    cells = [line.split("|")[1].strip() for line in text.splitlines()[2:]]
    assert " ".join(cells) == f"{LONG} GDA"
    assert "76.74 ± 0.10" in text


def test_a_table_whose_columns_are_all_needed_keeps_them():
    frame, names = leave_out(table(), ["no such column"], lambda _: False)
    assert list(frame) == list(table())
    assert names == []


def test_a_file_has_all_columns(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert room(wide=False) == NO_LIMIT, "the output of this test is no terminal"
    monkeypatch.setenv("COLUMNS", "70")
    assert room(wide=False) == 70
    assert room(wide=True) == NO_LIMIT


def write_runs(root):
    """Base-to-new and few-shot runs with long names and deviations."""
    pairs = [("Spotlighter", "tiny_emoji_prograd"), ("CoOp", "tiny_emoji")]
    made = [(*one, half, 16) for one in pairs for half in ("base", "new")]
    made += [(*one, "all", shots) for one in pairs for shots in (1, 2, 4, 8, 16)]
    for dataset, seed, number in itertools.product(SETS, (1, 2), range(len(made))):
        what = dict(zip(("trainer", "config", "classes", "shots"), made[number], strict=True))
        run = record(dataset=dataset, source=dataset, seed=seed, accuracy=60.0 + seed, **what)
        run |= {"nll": 1.2345 + seed, "ece": 12.345 + seed, "train_s": 1234.5}
        folder = root / dataset / f"{number}_{seed}"
        folder.mkdir(parents=True)
        (folder / "results.json").write_text(json.dumps(run))
        (folder / "predictions.csv").write_text("label,predicted\n0,0\n1,1\n")


@pytest.fixture
def collect(tmp_path):
    write_runs(tmp_path)
    return partial(main_with, collect_results.main, str(tmp_path))


@pytest.fixture
def compare(tmp_path):
    write_runs(tmp_path)
    few = ("--of", "Spotlighter-prograd", "--resamples", "20")
    return partial(main_with, compare_trainers.main, str(tmp_path), *few)


@pytest.fixture
def check(tmp_path):
    for name in ("a_class_with_a_rather_long_name", "another_class_of_a_long_name"):
        (tmp_path / name).mkdir()
        for n in range(4):
            Image.new("RGB", (8, 8), (20 * n, len(name), 0)).save(tmp_path / name / f"{n}.png")
    return partial(main_with, check_data.main, "--root", str(tmp_path))


@pytest.fixture
def store(tmp_path, monkeypatch):
    words = "ViT-B/16 a1b2c3d4e5f6, describable_textures and other data sets of that folder"
    monkeypatch.setattr("runs.feature_store.files", lambda _: [(0.0, 10**7, Path("x"))])
    monkeypatch.setattr("runs.feature_store.described", lambda _: (words, 12345))
    return partial(main_with, features.main, "--dir", str(tmp_path))


@pytest.fixture
def searched(monkeypatch):
    found = {"trainer": "CoOp", "config": "tiny_emoji", "dataset": "EmojiFood", "accuracy": 50.0}
    found |= {"settings": "OPTIM.LR 0.0035 TRAINER.COOP.N_CTX 16 OPTIM.MAX_EPOCH 50 TRAINER.CSC 1"}
    monkeypatch.setattr(search, "search", lambda _: pd.DataFrame([found]))
    monkeypatch.setattr(search, "name_of", lambda *_: "EmojiFood")
    return partial(main_with, search.main, "--trainer", "CoOp", "--datasets", "emoji_food")


def main_with(main, *words):
    assert main(list(words)) == 0


def lines_of_tables(printed):
    """The lines of tables, and those that name what they leave out; not notes on files."""
    starts = (*"|┃│┏└┡├", "data set", "Folder", "features of", "ViT-B/16", "---", "Not shown")
    return [line for line in printed.splitlines() if line.startswith(starts)]


@pytest.mark.parametrize("command", ["collect", "compare", "check", "store", "searched"])
def test_no_line_of_a_table_is_longer_than_80(command, request, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    run = request.getfixturevalue(command)
    run()
    printed = capsys.readouterr().out
    lines = lines_of_tables(printed)
    assert len(lines) > 2
    assert max(map(len, lines)) <= WIDTH
    assert "…" not in printed
    run("--wide")
    wide = capsys.readouterr().out
    assert max(map(len, lines_of_tables(wide))) > WIDTH
    assert "Not shown" not in wide
