"""Comparison on made-up runs whose differences are known."""

import json

import numpy as np
import pandas as pd
import pytest

from tools.compare_trainers import (
    CALIBRATION,
    COLUMNS,
    as_number,
    common,
    compare,
    main,
    read_trainers,
)

PICTURES = 200


def write_run(root, trainer, dataset, seed, hits, config="tiny_emoji", settings=None):
    for half, classes in (("train_base", "base"), ("test_new", "new")):
        level = f"{config}{len(settings or {})}"
        folder = root / half / dataset / "shots_16" / trainer / level / f"seed{seed}"
        folder.mkdir(parents=True)
        right = hits[classes]
        label = np.arange(PICTURES) % 5
        predicted = np.where(np.arange(PICTURES) < right, label, (label + 1) % 5)
        frame = pd.DataFrame({"label": label, "predicted": predicted})
        frame.to_csv(folder / "predictions.csv", index=False)
        record = {"trainer": trainer, "dataset": dataset, "seed": seed, "config": config}
        record |= {"classes": classes, "shots": 16, "settings": settings or {}}
        record |= {"accuracy": 100 * right / PICTURES, "images_per_s": 10.0}
        record |= {"learned_parameters": 7, "git": "abc"}
        (folder / "results.json").write_text(json.dumps(record))


@pytest.fixture
def root(tmp_path):
    for dataset in ("A", "B"):
        for seed in (1, 2):
            base = 100 + 10 * seed + 20 * (dataset == "B")
            write_run(tmp_path, "Spotlighter", dataset, seed, {"base": base + 20, "new": 100})
            write_run(tmp_path, "CoOp", dataset, seed, {"base": base, "new": 104})
    return tmp_path


def test_differences_and_rows_are_those_of_the_runs(root, tmp_path, capsys):
    out = tmp_path / "rows.csv"
    assert main([str(root), "--csv", str(out), "--resamples", "50"]) == 0
    text = capsys.readouterr().out
    assert "+10.00 [" in text  # 20 of 200 pictures
    assert "-2.00 [" in text
    assert "least against the better of CoOp: " in text
    assert "-2.00" in text.splitlines()[-1]
    rows = pd.read_csv(out)
    assert len(rows) == 8
    assert list(rows.columns) == [*COLUMNS, "git", *CALIBRATION]
    one = rows[(rows.trainer == "CoOp") & (rows.dataset == "A") & (rows.seed == 1)].iloc[0]
    assert one.hm == pytest.approx(2 * 55 * 52 / (55 + 52), abs=0.01)


def test_the_best_stands_first_whoever_it_is(root, capsys):
    """Spotlighter: hm of 65 and 50, CoOp: 55 and 52, MaPLe: 95 and 95, of A, seed 1."""
    for dataset in ("A", "B"):
        write_run(root, "MaPLe", dataset, 1, {"base": 190, "new": 190})
        write_run(root, "ZeroshotCLIP", dataset, 1, {"base": 80, "new": 80})
    found = {}
    for order in ("best", "listed"):
        assert main([str(root), "--order", order, "--resamples", "5"]) == 0
        lines = [line for line in capsys.readouterr().out.splitlines() if "|" in line]
        lines = [line.split("|")[1].strip() for line in lines]
        found[order] = [lines[2:6], lines[8:]]
    others = ["MaPLe", "CoOp", "ZeroshotCLIP"]
    assert found["best"] == [["MaPLe", "Spotlighter", *others[1:]], others]
    assert found["listed"][0] == ["ZeroshotCLIP", "CoOp", "MaPLe", "Spotlighter"]


def test_training_time_and_what_is_known_of_new_classes_stand_beside(root, capsys):
    assert main([str(root), "--resamples", "5"]) == 0
    out = capsys.readouterr().out
    assert "training s" not in out
    spotlighter = "the prompts go on, with prototypes where they help (Spotlighter)"
    assert f"What new classes get: {spotlighter}; the prompts go on (CoOp)." in out
    for path in (root / "train_base").glob("*/*/CoOp/*/*/results.json"):
        found = json.loads(path.read_text())
        path.write_text(json.dumps(found | {"train_s": 10.0 * found["seed"]}))
    assert main([str(root), "--resamples", "5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    head, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines[:4])
    assert head[-2:] == ["training s", "learned parameters"]
    assert {row[0]: row[-2] for row in rows[1:]} == {"Spotlighter": "", "CoOp": "15"}


def test_nll_and_ece_have_a_table_of_their_own(root, tmp_path, capsys):
    """Mean over data sets and seeds; no table without them, no cell where a run lacks them."""
    assert main([str(root), "--resamples", "5"]) == 0
    assert "nll" not in capsys.readouterr().out
    for path in root.rglob("results.json"):
        found = json.loads(path.read_text())
        if found["trainer"] == "CoOp" and found["seed"] == 2:
            continue
        found["nll"] = found["seed"] + (found["classes"] == "new") + 4 * (found["dataset"] == "A")
        path.write_text(json.dumps(found | {"ece": 5}))
    assert main([str(root), "--csv", str(tmp_path / "rows.csv"), "--resamples", "5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    start = next(i for i, line in enumerate(lines) if "nll base" in line)
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[start : start + 4]]
    assert cells[0] == ["trainer", "nll base", "nll new", "ece base", "ece new"]
    assert ["CoOp", "", "", "", ""] in cells
    assert ["Spotlighter", "3.500 ± 0.707", "4.500 ± 0.707", *2 * ["5.00 ± 0.00"]] in cells
    rows = pd.read_csv(tmp_path / "rows.csv")
    one = rows[(rows.trainer == "CoOp") & (rows.dataset == "A") & (rows.seed == 1)].iloc[0]
    assert (one.nll_base, one.nll_new, one.ece_new) == (5, 6, 5)
    assert rows[(rows.trainer == "CoOp") & (rows.seed == 2)][CALIBRATION].isna().all(axis=None)


def test_intervals_hold_the_difference_and_shrink_to_it_without_spread(root):
    trainers = read_trainers(root)
    found = compare(trainers["Spotlighter"], trainers["CoOp"], 50)
    mean, interval = found["base"].split(" ", 1)
    low, high = (float(x) for x in interval.strip("[]").split(","))
    assert low < float(mean) < high
    same = compare(trainers["CoOp"], trainers["CoOp"], 50)
    assert same["hm"] == "+0.00 [+0.00, +0.00]"


def test_seeds_that_one_trainer_lacks_do_not_count(root):
    write_run(root, "Spotlighter", "A", 3, {"base": 0, "new": 1})
    trainers = read_trainers(root)
    assert common(trainers["Spotlighter"], trainers["CoOp"]) == (["A", "B"], [1, 2])


def test_one_seed_has_no_interval(tmp_path):
    for trainer, base in (("Spotlighter", 120), ("CoOp", 100)):
        write_run(tmp_path, trainer, "A", 1, {"base": base, "new": 100})
    trainers = read_trainers(tmp_path)
    assert compare(trainers["Spotlighter"], trainers["CoOp"], 50)["base"] == "+10.00"


def test_a_config_of_its_own_is_a_trainer_of_its_own(root):
    write_run(root, "Spotlighter", "A", 1, {"base": 9, "new": 9}, config="tiny_emoji_random")
    assert "Spotlighter-random" in read_trainers(root)


def test_other_settings_are_a_trainer_of_their_own(root):
    write_run(root, "CoOp", "A", 1, {"base": 9, "new": 9}, settings={"TRAINER.COOP.N_CTX": 4})
    trainers = read_trainers(root)
    assert set(trainers) == {"Spotlighter", "CoOp, N_CTX 16", "CoOp, N_CTX 4"}
    assert len(trainers["CoOp, N_CTX 16"]) == 4


def test_two_configs_of_one_name_are_refused(root):
    write_run(root, "CoOp", "A", 1, {"base": 9, "new": 9}, config="another")
    with pytest.raises(ValueError, match="two runs of CoOp on A, seed 1"):
        read_trainers(root)


def test_an_empty_folder_is_refused_in_one_sentence(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert "no finished base-to-new run" in capsys.readouterr().err


def test_an_unknown_trainer_is_refused_with_those_that_are_there(root, capsys):
    assert main([str(root), "--of", "MaPLe"]) == 2
    assert "there are Spotlighter, CoOp" in capsys.readouterr().err


@pytest.mark.parametrize("change", ["labels", "data"])
def test_runs_on_other_pictures_are_not_compared(root, capsys, change):
    for folder in (path.parent for path in root.rglob("CoOp/*/seed2/results.json")):
        if change == "labels":
            frame = pd.read_csv(folder / "predictions.csv")
            frame.iloc[::-1].to_csv(folder / "predictions.csv", index=False)
    for path in root.rglob("results.json"):
        own = "a" if "Spotlighter" in path.parts or change == "labels" else "b"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"data": own * 12}))
    of = "Spotlighter" if change == "labels" else f"Spotlighter, data {'a' * 12}"
    assert main([str(root), "--of", of, "--resamples", "5"]) == 2
    assert "were tested on other pictures of A, seed " in capsys.readouterr().err


def test_a_rate_that_a_run_does_not_say_is_not_a_number():
    assert as_number(2.5) == 2.5
    assert np.isnan(as_number(None))
