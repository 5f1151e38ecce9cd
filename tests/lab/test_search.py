"""The search: every combination once, rows that are there are kept."""

import pandas as pd

from lab import search
from tests.datasets.trees import class_folders

ARGS = ["--trainer", "CoOp", "--datasets", "one", "two"]
GRID = ["--grid", "OPTIM.LR", "0.1", "0.2", "--grid", "OPTIM.MAX_EPOCH", "1", "2"]


def test_every_combination_is_run_once_and_kept(tmp_path, monkeypatch, capsys):
    seen = []

    def validate(args, dataset):
        seen.append((tuple(args.opts), dataset))
        return {"base": 10.0 * len(seen)}

    monkeypatch.setattr(search, "validate", validate)
    out = tmp_path / "a" / "search.csv"
    assert search.main([*ARGS, *GRID, "--output", str(out)]) == 0
    assert len(seen) == len(set(seen)) == 8
    assert (("OPTIM.LR", "0.2", "OPTIM.MAX_EPOCH", "1"), "two") in seen
    rows = pd.read_csv(out)
    assert list(rows.columns) == search.COLUMNS
    assert rows.accuracy.tolist() == [10.0 * i for i in range(1, 9)]
    assert search.main([*ARGS, *GRID, "--output", str(out)]) == 0
    assert len(seen) == 8
    assert "OPTIM.LR 0.1 OPTIM.MAX_EPOCH 1" in capsys.readouterr().out


def test_other_shots_and_other_own_pictures_are_other_rows(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(search, "validate", lambda *_: {"base": float(len(seen))})
    class_folders(tmp_path / "pets", ["bee", "cat"])
    class_folders(tmp_path / "cars", ["bus", "van"])
    out = str(tmp_path / "search.csv")
    for root in ("pets", "cars"):
        for shots in ("16", "4", "4"):
            words = ["--trainer", "CoOp", "--datasets", "folder", "--root", str(tmp_path / root)]
            assert search.main([*words, "--shots", shots, "--output", out]) == 0
    rows = pd.read_csv(out, keep_default_na=False)
    assert len(rows) == 4
    assert set(rows.settings) == {"", "DATASET.NUM_SHOTS 4"}
    assert {name.split("-")[0] for name in rows.dataset} == {"pets", "cars"}


def test_a_wrong_setting_ends_in_one_sentence_and_keeps_what_was_found(
    tmp_path, monkeypatch, capsys
):
    def validate(args, dataset):
        if dataset == "two":
            raise ValueError("no such key")
        return {"base": 1.0}

    monkeypatch.setattr(search, "validate", validate)
    out = tmp_path / "search.csv"
    assert search.main([*ARGS, "--output", str(out)]) == 2
    assert capsys.readouterr().err == "search: error: no such key\n"
    assert len(pd.read_csv(out)) == 1
