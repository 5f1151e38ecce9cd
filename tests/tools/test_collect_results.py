"""Tables from trees of results.json and of upstream-style logs."""

import csv
import json
import math
import statistics

import pandas as pd
import pytest

from tools.collect_results import average_datasets, main, pair_runs, summarise
from tools.result_table import order_rows, to_text
from tools.run_results import read_accuracy, read_runs

TRAIN_LOG = """\
epoch [1/2] batch [5/5] time 0.1 (0.1) data 0.0 (0.0) loss 1.0 (1.0) lr 2.0e-03 eta 0:00:00
=> result
* total: 50
* accuracy: 11.0%
{signal}
Deploy the last-epoch model
=> result
* total: 1,234
* correct: 1,012
* accuracy: {accuracy}%
* error: 18.0%
* macro_f1: 80.0%
Elapsed: 0:01:02
"""
TEST_LOG = "Loading weights\n=> result\n* total: 50\n* accuracy: {accuracy}%\n* error: 1.0%\n"


def record(**changes):
    return {
        "trainer": "CoOp",
        "dataset": "EmojiFood",
        "split": "test",
        "classes": "base",
        "shots": 16,
        "seed": 1,
        "config": "tiny_emoji",
        "accuracy": 60.0,
        "images_per_s": 100.0,
        "learned_parameters": 512,
    } | changes


def write_result(root, **changes):
    run = record(**changes)
    half = "train_base" if run["classes"] == "base" else "test_new"
    folder = root / half / run["dataset"] / run["trainer"] / f"seed{run['seed']}"
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(run))
    return folder


def write_log(root, folder, text, name="log.txt"):
    (root / folder).mkdir(parents=True, exist_ok=True)
    (root / folder / name).write_text(text)


@pytest.fixture
def tree(tmp_path):
    for trainer, base, new in (("CoOp", 70, 50), ("Spotlighter", 72, 54)):
        for seed in (1, 2, 3):
            score = {"trainer": trainer, "seed": seed}
            write_result(tmp_path, classes="base", accuracy=base + seed, **score)
            write_result(tmp_path, classes="new", accuracy=new - seed, images_per_s=300.0, **score)
    return tmp_path


def test_harmonic_mean_is_taken_per_seed(tree):
    rows = pair_runs(read_runs(tree)).set_index(["trainer", "seed"])
    for trainer, base, new in (("CoOp", 70, 50), ("Spotlighter", 72, 54)):
        for seed in (1, 2, 3):
            row = rows.loc[(trainer, seed)]
            assert (row.base, row.new) == (base + seed, new - seed)
            assert row.hm == pytest.approx(statistics.harmonic_mean([base + seed, new - seed]))
            assert row.images_per_s == 200
            assert row.learned_parameters == 512


def test_mean_and_deviation_over_seeds(tree):
    summary = summarise(pair_runs(read_runs(tree))).set_index("trainer").loc["CoOp"]
    hms = [statistics.harmonic_mean([70 + seed, 50 - seed]) for seed in (1, 2, 3)]
    assert summary.base == pytest.approx(72)
    assert summary.base_std == pytest.approx(1.0)  # ddof 1; with ddof 0 it would be 0.816
    assert summary.hm == pytest.approx(statistics.mean(hms))
    assert summary.hm_std == pytest.approx(statistics.stdev(hms))
    assert summary.seeds == 3


def test_one_seed_has_no_deviation():
    rows = pair_runs([record(), record(classes="new", accuracy=40.0)])
    summary = summarise(rows)
    assert math.isnan(summary.base_std[0])
    assert list(to_text(summary).base) == ["60.00"]


def test_missing_half_is_shown_as_missing_and_never_as_zero():
    rows = pair_runs(
        [record(), record(trainer="Spotlighter"), record(trainer="Spotlighter", classes="new")]
    )
    text = to_text(summarise(rows)).set_index("trainer").loc["CoOp"]
    assert (text.base, text.new, text.hm) == ("60.00", "missing", "missing")


def test_zero_accuracy_is_a_result():
    rows = pair_runs([record(accuracy=0.0), record(classes="new", accuracy=0.0)])
    assert (rows.base[0], rows.new[0], rows.hm[0]) == (0, 0, 0)


def test_runs_are_paired_only_if_everything_agrees():
    new = record(classes="new")
    others = [
        new | change for change in ({"seed": 2}, {"shots": 4}, {"config": "x"}, {"dataset": "y"})
    ]
    assert pair_runs([record(), *others]).hm.isna().all()


def test_average_takes_the_harmonic_mean_of_the_means():
    runs = [
        record(dataset=dataset, classes=classes, accuracy=accuracy)
        for dataset, classes, accuracy in (
            ("a", "base", 90),
            ("a", "new", 30),
            ("b", "base", 50),
            ("b", "new", 60),
        )
    ]
    average = average_datasets(summarise(pair_runs(runs))).iloc[0]
    assert (average.base, average.new) == (70, 45)
    assert average.hm == pytest.approx(statistics.harmonic_mean([70, 45]))


def test_average_is_missing_where_a_data_set_is():
    runs = [record(dataset="a"), record(dataset="b"), record(dataset="a", classes="new")]
    average = average_datasets(summarise(pair_runs(runs))).iloc[0]
    assert average.base == 60
    assert math.isnan(average.new)
    assert math.isnan(average.hm)


def test_average_stands_last_and_trainers_in_the_literatures_order():
    runs = [
        record(dataset=dataset, trainer=trainer)
        for dataset in ("zoo", "art")
        for trainer in ("Spotlighter", "MaPLe", "ZeroshotCLIP", "CoOp")
    ]
    summary = summarise(pair_runs(runs))
    ordered = order_rows(pd.concat([summary, average_datasets(summary)]))
    assert list(ordered.dataset.unique()) == ["art", "zoo", "average"]
    assert list(ordered.trainer[:4]) == ["ZeroshotCLIP", "CoOp", "MaPLe", "Spotlighter"]


def test_few_shot_runs_have_a_column_of_their_own():
    text = to_text(summarise(pair_runs([record(classes="all", accuracy=80.0)])))
    assert list(text["all"]) == ["80.00"]
    assert "base" not in text


@pytest.mark.parametrize("signal", ["Finish training", "Finished training"])
def test_training_log_counts_from_its_end_signal(signal):
    assert read_accuracy(TRAIN_LOG.format(signal=signal, accuracy="82.01")) == 82.01
    assert read_accuracy(TRAIN_LOG.format(signal="Traceback ...", accuracy="82.01")) is None


def test_log_accuracy_may_be_written_with_an_exponent():
    assert read_accuracy(TEST_LOG.format(accuracy="1e+02")) == 100


def test_evaluation_log_counts_from_result():
    assert read_accuracy(TEST_LOG.format(accuracy="55.5")) == 55.5
    assert read_accuracy("Loading weights\n") is None


def test_upstream_log_tree_is_read_by_its_folders(tmp_path):
    run = "oxford_pets/shots_16/CoCoOp/vit_b16_c4_ep10_batch1_ctxv1/seed2"
    write_log(
        tmp_path,
        f"output/base2new/train_base/{run}",
        TRAIN_LOG.format(signal="Finished training", accuracy="95.2"),
    )
    write_log(tmp_path, f"output/base2new/test_new/{run}", TEST_LOG.format(accuracy="97.7"))
    write_log(
        tmp_path,
        "output/dtd/CoOp/rn50_ep50_1shots/nctx16_cscFalse_ctpend/seed3",
        TRAIN_LOG.format(signal="Finish training", accuracy="44.0"),
    )
    write_log(
        tmp_path,
        "output/evaluation/CoCoOp/vit_b16_c4_ep10_batch1_ctxv1_16shots/eurosat/seed1",
        TEST_LOG.format(accuracy="45.4"),
    )
    rows = pair_runs(read_runs(tmp_path)).set_index("dataset")
    pets, dtd, eurosat = (rows.loc[name] for name in ("oxford_pets", "dtd", "eurosat"))
    assert (pets.trainer, pets.config) == ("CoCoOp", "vit_b16_c4_ep10_batch1_ctxv1")
    assert (pets.shots, pets.seed, pets.base, pets.new) == (16, 2, 95.2, 97.7)
    assert pets.hm == pytest.approx(statistics.harmonic_mean([95.2, 97.7]))
    assert math.isnan(pets.images_per_s)
    assert (dtd.trainer, dtd.config, dtd.shots, dtd.seed, dtd["all"]) == (
        "CoOp",
        "rn50_ep50",
        1,
        3,
        44.0,
    )
    assert (eurosat.config, eurosat["all"]) == ("vit_b16_c4_ep10_batch1_ctxv1", 45.4)


def test_newest_finished_log_of_a_rerun_counts(tmp_path):
    folder = "train_base/dtd/shots_16/CoOp/rn50/seed1"
    write_log(tmp_path, folder, "epoch [1/2] batch [1/5]\nTraceback\n")
    write_log(
        tmp_path,
        folder,
        TRAIN_LOG.format(signal="Finish training", accuracy="60.0"),
        "log.txt-2025-01-02",
    )
    write_log(tmp_path, folder, "epoch [1/2] batch [1/5]\n", "log.txt-2025-01-03")
    assert [run["accuracy"] for run in read_runs(tmp_path)] == [60.0]


def test_results_json_takes_precedence_over_the_log(tmp_path):
    folder = write_result(tmp_path, accuracy=61.0)
    (folder / "log.txt").write_text(TEST_LOG.format(accuracy="12.0"))
    assert [run["accuracy"] for run in read_runs(tmp_path)] == [61.0]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "Expecting value"),
        ("[1]", "trainer is None"),
        (json.dumps(record(seed="1")), "seed is '1'"),
        (json.dumps(record(classes="novel")), "classes is 'novel'"),
    ],
)
def test_unreadable_results_are_reported_and_skipped(tree, capsys, content, reason):
    broken = tree / "broken" / "results.json"
    broken.parent.mkdir()
    broken.write_text(content)
    assert main([str(tree)]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"skipped {broken}: ")
    assert reason in lines[0]


def test_unplaceable_and_unfinished_logs_are_reported(tmp_path, capsys):
    write_log(tmp_path, "somewhere", TEST_LOG.format(accuracy="1.0"))
    write_log(tmp_path, "train_base/dtd/shots_16/CoOp/rn50/seed1", "epoch [1/2]\n")
    assert list(read_runs(tmp_path)) == []
    errors = capsys.readouterr().err
    assert "somewhere/log.txt: its folder does not say trainer, data set and seed" in errors
    assert "seed1/log.txt: the run did not finish" in errors


def test_nothing_found_is_exit_code_1(tmp_path, capsys):
    assert main([str(tmp_path)]) == 1
    assert f"no results below {tmp_path}" in capsys.readouterr().err


def test_repeated_runs_count_once_and_are_mentioned(tree, capsys):
    write_result(tree / "zz_again", accuracy=99.0)
    assert main([str(tree), "--csv", str(tree / "out" / "r.csv")]) == 0
    assert "1 of 13 runs are repeated" in capsys.readouterr().err
    rows = list(csv.DictReader((tree / "out" / "r.csv").open()))
    assert [row["base"] for row in rows if row["trainer"] == "CoOp"] == [
        "99.0000",
        "72.0000",
        "73.0000",
    ]


def test_csv_has_the_columns_asked_for(tree):
    columns = [
        "trainer",
        "dataset",
        "seed",
        "base",
        "new",
        "hm",
        "images_per_s",
        "learned_parameters",
    ]
    main([str(tree), "--csv", str(tree / "results.csv"), "--columns", *columns])
    with (tree / "results.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == columns
    assert rows[1] == ["CoOp", "EmojiFood", "1", "71.0000", "49.0000", "57.9833", "200.0000", "512"]
    assert len(rows) == 7


def test_terminal_and_markdown_tables(tree, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    main([str(tree), "--markdown", str(tree / "table.md"), "--published"])
    printed = capsys.readouterr().out
    for expected in (
        "72.00 ± 1.00",
        "HM",
        "learned parameters",
        "config tiny_emoji, shots 16, seeds 3",
    ):
        assert expected in printed
    assert "published: mean of 11 data sets" in printed
    lines = (tree / "table.md").read_text().splitlines()
    assert lines[0].startswith("| data set")
    assert len(lines) == 4


def test_figures_are_not_cut_in_a_narrow_terminal(tree, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "70")
    main([str(tree)])
    printed = capsys.readouterr().out
    assert printed.count(" ± ") == 6
    assert "…" not in printed
