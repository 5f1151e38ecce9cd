"""Tables from trees of results.json and of upstream-style logs."""

import csv
import json
import math
import statistics

import pandas as pd
import pytest

from tools.collect_results import main, text_of
from tools.results.read import read_accuracy, read_runs
from tools.results.rows import average_datasets, order_rows, pair_runs, split_sections, summarise
from tools.results.tables import MISSING, PUBLISHED, to_latex, to_text, with_published

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


NEW_CLASSES = (
    "What new classes get: the prompts go on, with prototypes where they help (Spotlighter); "
    "the prompts go on (CoOp)."
)


def record(**changes):
    found = {
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
    return {"source": found["dataset"]} | found


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
    assert summary.hm == pytest.approx(statistics.harmonic_mean([72, 48]))
    assert summary.hm_mean == pytest.approx(statistics.mean(hms))
    assert summary.hm_mean_std == pytest.approx(statistics.stdev(hms))
    assert abs(summary.hm - summary.hm_mean) > 0.01
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
    assert (text.base, text.new, text.hm, text.hm_mean) == ("60.00", *3 * (MISSING,))


def test_zero_accuracy_is_a_result():
    rows = pair_runs([record(accuracy=0.0), record(classes="new", accuracy=0.0)])
    assert (rows.base[0], rows.new[0], rows.hm[0]) == (0, 0, 0)


def test_runs_are_paired_only_if_everything_agrees():
    new = record(classes="new")
    others = [
        new | change for change in ({"seed": 2}, {"shots": 4}, {"config": "x"}, {"dataset": "y"})
    ]
    assert pair_runs([record(), *others]).hm.isna().all()


def test_average_takes_the_harmonic_mean_both_ways():
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
    hms = [statistics.harmonic_mean(pair) for pair in ((90, 30), (50, 60))]
    assert average.hm_mean == pytest.approx(statistics.mean(hms))


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


def test_the_best_stands_first_in_each_data_set():
    """By HM; a trainer without it, however good its base classes, comes last."""
    scores = {"art": {"CoOp": (60, 60), "MaPLe": (70, 40), "VPT": (50, 90)}}
    scores["zoo"] = {"CoOp": (10, 10), "MaPLe": (20, 20), "VPT": (15, 15)}
    runs = [
        record(dataset=dataset, trainer=trainer, classes=classes, accuracy=accuracy)
        for dataset, found in scores.items()
        for trainer, pair in found.items()
        for classes, accuracy in zip(("base", "new"), pair, strict=True)
    ]
    runs.append(record(dataset="art", trainer="IVLP", accuracy=99.0))
    summary = summarise(pair_runs(runs))
    ordered = order_rows(pd.concat([summary, average_datasets(summary)]), "best")
    names = {dataset: list(part.trainer) for dataset, part in ordered.groupby("dataset")}
    assert names["art"] == ["VPT", "CoOp", "MaPLe", "IVLP"]
    assert names["zoo"] == ["MaPLe", "VPT", "CoOp"]
    assert list(ordered.dataset.unique()) == ["art", "zoo", "average"]


def test_few_shot_rows_of_a_trainer_stay_together_best_first_at_its_most_shots():
    scores = {("CoOp", 1): 90, ("CoOp", 16): 60, ("MaPLe", 1): 50, ("MaPLe", 16): 70}
    scores["ZeroshotCLIP", 0] = 65
    runs = [
        record(trainer=trainer, shots=shots, classes="all", accuracy=accuracy)
        for (trainer, shots), accuracy in scores.items()
    ]
    ordered = order_rows(summarise(pair_runs(runs)), "best")
    assert list(zip(ordered.trainer, ordered.shots, strict=True)) == [
        ("MaPLe", 1), ("MaPLe", 16), ("ZeroshotCLIP", 0), ("CoOp", 1), ("CoOp", 16)
    ]  # fmt: skip


def test_few_shot_tables_have_a_column_for_each_number_of_shots():
    """CoOp takes another config with one shot; MaPLe has two at 16; zero-shot CLIP has none."""
    scores = [("CoOp", "ep50", 1, 40.0), ("CoOp", "ep200", 16, 60.0), ("MaPLe", "a", 16, 70.0)]
    scores += [("MaPLe", "b", 1, 50.0), ("MaPLe", "b", 16, 65.0), ("ZeroshotCLIP", "c", 0, 55.0)]
    names = ("trainer", "config", "shots", "accuracy", "train_s", "nll")
    rows = [(*row, 10.0 * row[2], row[2] + 1.0) for row in scores]
    runs = [record(classes="all", **dict(zip(names, row, strict=True))) for row in rows]
    text = text_of(split_sections(pair_runs(runs))[0], published=False)
    shots = ["0 shots", "1 shot", "16 shots"]
    assert list(text.columns[:6]) == ["dataset", "trainer", "seeds", *shots]
    assert text[["trainer", *shots, "train_s", "nll_all"]].to_numpy().tolist() == [
        ["MaPLe: a", "", "", "70.00", "160", "17.000"],
        ["MaPLe: b", "", "50.00", "65.00", "160", "17.000"],
        ["CoOp", "", "40.00", "60.00", "160", "17.000"],
        ["ZeroshotCLIP", "55.00", "", "", "0", "1.000"],
    ]


@pytest.mark.parametrize(("order", "first"), [("best", "Spotlighter"), ("listed", "CoOp")])
def test_the_order_is_chosen_by_a_flag(tree, order, first):
    main([str(tree), "--order", order, "--markdown", str(tree / "t.md")])
    assert (tree / "t.md").read_text().splitlines()[4].split("|")[2].strip() == first


def test_training_time_is_that_of_the_run_that_trained():
    """The test of the new classes trains nothing; results of older versions say nothing."""
    runs = [record(seed=seed, train_s=100.0 * seed) for seed in (1, 2)]
    runs += [record(seed=seed, classes="new", train_s=None) for seed in (1, 2)]
    rows = pair_runs([*runs, record(trainer="MaPLe"), record(trainer="VPT", train_s=0.25)])
    assert list(rows[rows.trainer == "CoOp"].train_s) == [100, 200]
    text = to_text(summarise(rows)).set_index("trainer")
    assert dict(text.train_s) == {"CoOp": "150", "MaPLe": "", "VPT": "0.2"}
    assert "train_s" not in to_text(summarise(pair_runs([record()])))


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
    names = ("OxfordPets", "DescribableTextures", "EuroSAT")  # ours, so that runs of both meet
    pets, dtd, eurosat = (rows.loc[name] for name in names)
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
    assert (eurosat.source, dtd.source) == ("ImageNet", "DescribableTextures")


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


def test_results_without_a_source_were_trained_on_their_own_data_set(tmp_path):
    write_result(tmp_path, source="")
    assert [run["source"] for run in read_runs(tmp_path)] == ["EmojiFood"]


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
    clap = "debug/dtd/SGD_lr1e-1_B256_ep300_ZSInit_l2Constraint_16shots/seed1"  # no trainer
    write_log(tmp_path, clap, TEST_LOG.format(accuracy="1.0"))
    assert list(read_runs(tmp_path)) == []
    errors = capsys.readouterr().err
    assert "somewhere/log.txt: its folder does not say trainer, data set and seed" in errors
    assert f"{clap}/log.txt: its folder does not say trainer, data set and seed" in errors
    assert "seed1/log.txt: the run did not finish" in errors


def test_nothing_found_is_exit_code_1(tmp_path, capsys):
    assert main([str(tmp_path)]) == 1
    assert f"no results below {tmp_path}" in capsys.readouterr().err


def test_repeated_runs_count_once_and_are_mentioned(tree, capsys):
    write_result(tree / "zz_again", accuracy=99.0)
    assert main([str(tree), "--csv", str(tree / "out" / "r.csv")]) == 0
    assert "1 of 13 runs share settings and seed with another" in capsys.readouterr().err
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
        "config tiny_emoji, shots 16, number of seeds 3",
    ):
        assert expected in printed
    assert "published: mean of 11 data sets" in printed
    lines = (tree / "table.md").read_text().splitlines()
    assert lines[0] == "## Base to new"
    assert lines[2].startswith("| data set")
    assert lines[6:] == ["", NEW_CLASSES]
    assert NEW_CLASSES in printed


def test_figures_are_not_cut_in_a_narrow_terminal(tree, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "70")
    main([str(tree)])
    printed = capsys.readouterr().out
    assert printed.count(" ± ") == 6  # base, new and mean of HMs
    assert "…" not in printed
    assert {line[0] + line[-1] for line in printed.splitlines() if "│" in line} == {"││"}
    assert "Not shown for want of room (--wide): images/s, learned parameters" in printed
    assert printed.count("images/s") == 1
    main([str(tree), "--wide"])
    printed = capsys.readouterr().out
    assert "images/s" in printed
    assert "Not shown" not in printed
    monkeypatch.delenv("COLUMNS")
    main([str(tree)])
    assert "images/s" in capsys.readouterr().out, "a file is as wide as a table needs"


def transferred(source, dataset, accuracy, **changes):
    return record(source=source, dataset=dataset, classes="all", accuracy=accuracy, **changes)


def test_protocols_have_tables_of_their_own(tmp_path, capsys):
    runs = [
        record(),
        record(classes="new"),
        transferred("EmojiFood", "EmojiFood", 60.0),
        transferred("EmojiFood", "EmojiFaces", 50.0),
        transferred("EmojiFood", "EmojiWear", 40.0),
        transferred("EmojiFood", "EmojiFoodLineart", 30.0),
        transferred("EmojiWear", "EmojiFaces", 20.0),
    ]
    sections = split_sections(pair_runs(runs))
    assert [(section.title, len(section.rows)) for section in sections] == [
        ("Base to new", 1),
        ("All classes", 1),
        ("Cross-dataset, trained on EmojiFood", 2),
        ("Cross-dataset, trained on EmojiWear", 1),
        ("Domain shift, trained on EmojiFood", 1),
    ]
    base, _, food, wear, _ = (text_of(section, published=False) for section in sections)
    assert "all" not in base
    assert list(food["all"]) == ["50.00", "40.00", "45.00"]
    assert list(food.dataset) == ["EmojiFaces", "EmojiWear", "average"]
    assert list(wear["all"]) == ["20.00"]


def test_latex_has_the_rules_of_booktabs(tmp_path):
    runs = [
        record(dataset=dataset, seed=seed, accuracy=60.0 + seed, config="tiny_a")
        for dataset in ("A&B", "C")
        for seed in (1, 2)
    ]
    text = text_of(split_sections(pair_runs(runs))[0], published=False)
    lines = to_latex(text, "Base to new").splitlines()
    assert lines[:2] == ["% Base to new", "% What new classes get: the prompts go on (CoOp)."]
    assert lines[2] == r"\begin{tabular}{lllrrrrrrrr}"
    rules = [line for line in lines if line.endswith("rule")]
    assert rules == [rf"\{name}rule" for name in ("top", "mid", "mid", "mid", "bottom")]
    row = next(line for line in lines if line.startswith("A"))
    assert row.startswith(r"A\&B & CoOp & tiny\_a & 16 & 2 & 61.50 $\pm$ 0.71 & missing & ")
    assert lines[-1] == r"\end{tabular}"


def test_published_figures_stand_beside_ours_and_are_labelled(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    for dataset in ("EuroSAT", "OxfordFlowers"):
        for classes in ("base", "new"):
            write_result(tmp_path, dataset=dataset, classes=classes)
    assert main([str(tmp_path), "--published", "--markdown", str(tmp_path / "t.md")]) == 0
    lines = (tmp_path / "t.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[4:-2]]
    ours = [row for row in rows if row[2] == "tiny_emoji"]
    theirs = [row for row in rows if row[2] == "published, arXiv 2509.00905"]
    assert len(ours) == 3
    assert {row[0] for row in theirs} == {"EuroSAT", "OxfordFlowers"}, "not its average of 11"
    assert all(row[1].endswith(", published") for row in theirs)
    printed = pd.read_csv(PUBLISHED).query("dataset == 'EuroSAT' and method == 'CoOp'").iloc[0]
    (coop,) = (row for row in theirs if row[:2] == ["EuroSAT", "CoOp, published"])
    assert coop[5:8] == [f"{printed[name]:.2f}" for name in ("base", "new", "hm")]
    assert coop[8:] == ["", "", ""]


def test_the_published_average_stands_beside_one_over_the_same_data_sets():
    names = set(pd.read_csv(PUBLISHED).dataset) - {"Average"}
    ours = {"Flowers102": "OxfordFlowers", "DTD": "DescribableTextures"}
    runs = [record(dataset=ours.get(name, name)) for name in names]
    summary = summarise(pair_runs(runs))
    rows = with_published(pd.concat([summary, average_datasets(summary)]))
    text = to_text(order_rows(rows))
    averages = text[text.dataset == "average"]
    first = ["ZeroshotCLIP, published", "GDA, published", "CoOp"]
    assert list(averages.trainer[:3]) == first
    assert "PromptKD w/ Spotlighter, published" in set(averages.trainer)


def with_probabilities(**changes):
    """Runs of three seeds on both halves, as `record` makes them."""
    return [
        record(seed=seed, classes=classes, nll=nll + seed / 10, ece=ece + seed, **changes)
        for seed in (1, 2, 3)
        for classes, nll, ece in (("base", 0.5, 2.0), ("new", 1.5, 10.0))
    ]


def test_nll_and_ece_have_mean_and_deviation_as_accuracy_has():
    runs = with_probabilities() + with_probabilities(dataset="Other")
    rows = pair_runs(runs)
    assert list(rows.columns[-6:]) == [
        *("nll_all", "nll_base", "nll_new", "ece_all", "ece_base", "ece_new")
    ]
    assert list(rows.nll_new) == pytest.approx(2 * [1.6, 1.7, 1.8])
    text = text_of(split_sections(rows)[0], published=True)
    assert list(text.columns[-4:]) == ["nll_base", "nll_new", "ece_base", "ece_new"]
    assert list(text.iloc[0, -4:]) == [
        *("0.700 ± 0.100", "1.700 ± 0.100", "4.00 ± 1.00", "12.00 ± 1.00")
    ]
    average = text[text.dataset == "average"].iloc[0]
    assert (average.nll_base, average.ece_new) == ("0.700", "12.00")


def test_results_without_nll_and_ece_stay_readable():
    """Their cells are empty, in the average, too; there is no column where no run has any."""
    old = record(trainer="MaPLe"), record(trainer="MaPLe", classes="new")
    text = text_of(split_sections(pair_runs([*with_probabilities(), *old]))[0], published=False)
    assert list(text[text.trainer == "MaPLe"].iloc[0, -4:]) == 4 * [""]
    runs = [run for name in "ab" for run in with_probabilities(dataset=name)]
    for name, more in (("a", {"nll": 1.0}), ("b", {})):
        runs += [one | {"dataset": name, "source": name} | more for one in old]
    text = text_of(split_sections(pair_runs(runs))[0], published=False)
    maple = text[(text.trainer == "MaPLe") & (text.dataset == "average")].iloc[0]
    assert (maple.base, maple.nll_base) == ("60.00", "")
    assert "nll_base" not in to_text(summarise(pair_runs(old)))


def test_the_classes_of_another_protocol_lend_no_nll():
    runs = [*with_probabilities(), record(classes="all", nll=9.0)]
    base, every = (text_of(part, published=False) for part in split_sections(pair_runs(runs)))
    assert [name for name in base if name.startswith("nll")] == ["nll_base", "nll_new"]
    assert list(every.nll_all) == ["9.000"]


def test_nll_and_ece_have_tables_of_their_own_in_a_narrow_terminal(tmp_path, capsys, monkeypatch):
    for i, run in enumerate(with_probabilities(trainer="Spotlighter", dataset="EmojiAnimals")):
        (tmp_path / str(i)).mkdir()
        (tmp_path / str(i) / "results.json").write_text(json.dumps(run))
    tables = {}
    for width in (80, 110, 250):
        monkeypatch.setenv("COLUMNS", str(width))
        assert main([str(tmp_path), "--csv", str(tmp_path / "t.csv")]) == 0
        printed = capsys.readouterr().out
        tables[width] = printed.count("┏")
        assert max(map(len, printed.splitlines())) <= width
        assert {line[0] + line[-1] for line in printed.splitlines() if "│" in line} == {"││"}
        for cell in ("0.700 ± 0.100", "1.700 ± 0.100", "4.00 ± 1.00", "12.00 ± 1.00"):
            assert cell in printed
    assert tables == {80: 3, 110: 2, 250: 1}
    assert "Spotlighter" in printed
    row = next(csv.DictReader((tmp_path / "t.csv").open()))
    assert (row["nll_base"], row["nll_all"], row["ece_new"]) == ("0.6000", "", "11.0000")


def test_all_training_pictures_are_the_most_shots(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    for shots, accuracy in ((-1, 70.0), (16, 60.0), (1, 50.0)):
        for trainer, gain in (("CoOp", 0), ("MaPLe", -shots)):
            run = record(trainer=trainer, classes="all", shots=shots, accuracy=accuracy + gain)
            (tmp_path / f"{trainer}{shots}").mkdir()
            (tmp_path / f"{trainer}{shots}" / "results.json").write_text(json.dumps(run))
    assert main([str(tmp_path)]) == 0
    few = capsys.readouterr().out
    heads = ("1 shot", "16 shots", "all pictures")
    assert [few.index(head) for head in heads] == sorted(few.index(head) for head in heads)
    assert few.index("MaPLe") < few.index("CoOp"), "best first with all pictures: 71 and 70"
    for name in ("CoOp1", "CoOp16", "MaPLe1", "MaPLe16"):
        (tmp_path / name / "results.json").unlink()
    assert main([str(tmp_path)]) == 0
    one = capsys.readouterr().out
    assert "shots all" in one
    assert "-1" not in few + one
