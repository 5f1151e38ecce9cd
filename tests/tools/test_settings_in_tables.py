"""Runs that differ in what decides a result are rows of their own, and the table says in what."""

import json

import pytest

from tests.tools.test_collect_results import TEST_LOG, TRAIN_LOG, record, write_log
from tools import collect_results
from tools.results.read import read_runs
from tools.results.rows import load_runs, pair_runs, split_sections, summarise, with_average


def write(root, name, **changes):
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(record(classes="all") | changes))
    return folder


def shown(root):
    """Settings and accuracy of each row."""
    rows = summarise(pair_runs(load_runs(root)))
    return dict(zip(rows["settings"], rows["all"], strict=True))


def test_settings_that_differ_are_named_and_seeds_are_not_mixed(tmp_path):
    usual = {"TRAINER.COOP.N_CTX": 4, "OPTIM.LR": 0.02}
    write(tmp_path, "a1", seed=1, accuracy=60.0, settings=usual)
    write(tmp_path, "a2", seed=2, accuracy=62.0, settings=usual)
    write(tmp_path, "b1", seed=1, accuracy=50.0, settings=usual | {"TRAINER.COOP.CSC": True})
    assert shown(tmp_path) == {"CSC False": 61.0, "CSC True": 50.0}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": "aaaaaaaaaaaa"}, "data aaaaaaaaaaaa"),
        ({"weights": "aaaaaaaaaaaa"}, "weights aaaaaaaaaaaa"),
        ({"split": "val"}, "split val"),
        ({"split": "fold 1/4"}, "split fold 1/4"),
        ({"settings": {"TEST.TEMPERATURE": "fitted"}}, "TEMPERATURE fitted"),
        ({"epoch": 5, "epoch_chosen_by": "load_epoch"}, "epoch 5"),
        ({"settings": {"processes": 2}}, "processes 2"),
        ({"settings": {"TRAINER.COOP.CTX_INIT": ""}}, "CTX_INIT ''"),
    ],
)
def test_other_data_weights_and_splits_are_other_rows(tmp_path, changes, words):
    usual = {"data": "b" * 12, "weights": "c" * 12, "settings": {"TRAINER.COOP.CTX_INIT": "a x"}}
    write(tmp_path, "one", **usual)
    write(tmp_path, "other", **usual | {"settings": usual["settings"]} | changes)
    found = shown(tmp_path)
    assert len(found) == 2
    assert words in " ".join(found)


def test_trainers_on_other_data_are_told_apart_where_the_data_are_known(tmp_path):
    write(tmp_path, "ours", trainer="Spotlighter", data="a" * 12)
    write(tmp_path, "others", trainer="CoOp", data="b" * 12)
    write(tmp_path, "old", trainer="MaPLe")
    assert set(shown(tmp_path)) == {f"data {'a' * 12}", f"data {'b' * 12}", ""}


def test_keys_of_one_last_name_are_told_apart(tmp_path):
    write(tmp_path, "one", settings={"OPTIM.LR": 1, "TRAINER.X.LR": 1})
    write(tmp_path, "two", settings={"OPTIM.LR": 2, "TRAINER.X.LR": 2})
    assert set(shown(tmp_path)) == {"OPTIM.LR 1, TRAINER.X.LR 1", "OPTIM.LR 2, TRAINER.X.LR 2"}


def test_averages_over_data_sets_do_not_mix_settings(tmp_path):
    for dataset in ("A", "B"):
        for n_ctx, accuracy in ((4, 60.0), (16, 70.0)):
            settings = {"TRAINER.COOP.N_CTX": n_ctx}
            changes = {"dataset": dataset, "source": dataset, "data": dataset * 12}
            changes |= {"settings": settings, "accuracy": accuracy}
            write(tmp_path, f"{dataset}{n_ctx}", **changes)
    (section,) = split_sections(pair_runs(load_runs(tmp_path)))
    table = with_average(section)
    averages = table[table.dataset == "average"]
    assert dict(zip(averages["settings"], averages["all"], strict=True)) == {
        "N_CTX 16": 70.0,
        "N_CTX 4": 60.0,
    }


def test_true_repeats_are_named(tmp_path, capsys):
    for name, accuracy in (("one", 60.0), ("two", 61.0)):
        write(tmp_path, name, accuracy=accuracy, settings={})
    assert shown(tmp_path) == {"": 61.0}
    said = capsys.readouterr().err
    assert f"{tmp_path}/two (61.00) counts, not {tmp_path}/one (60.00)" in said


def test_what_was_not_trained_is_no_row(tmp_path, capsys):
    write(tmp_path, "trained", epoch=3)
    write(tmp_path, "zero", epoch=0, trainer="ZeroshotCLIP", learned_parameters=0)
    write(tmp_path, "untrained", epoch=0, seed=2)
    assert len(load_runs(tmp_path)) == 2
    assert "untrained/results.json: nothing was trained (epoch 0), although its trainer" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("settings", [3, "a", [1], {"a": {"b": 1}}])
def test_settings_that_are_none_are_skipped(tmp_path, capsys, settings):
    write(tmp_path, "one", settings=settings)
    assert collect_results.main([str(tmp_path)]) == 1
    assert "settings is " in capsys.readouterr().err


def trained(accuracy):
    return TRAIN_LOG.format(signal="Finish training", accuracy=accuracy)


def test_context_of_coops_folders_is_named(tmp_path):
    for level in ("nctx16_cscFalse_ctpend", "nctx16_cscTrue_ctpend", "nctx4_cscFalse_ctpend"):
        write_log(tmp_path, f"o/dtd/CoOp/rn50_16shots/{level}/seed1", trained(60.0))
    assert set(shown(tmp_path)) == {
        "CSC False, N_CTX 16",
        "CSC True, N_CTX 16",
        "CSC False, N_CTX 4",
    }


KD_LOG = """\
epoch [1/1] batch [5/5]
Evaluate on the *val* set
=> result
* accuracy: {base}%
Finish training
Evaluate on the *test* set
=> result
* accuracy: {new}%
"""
NCTX = "nctx4_cscFalse_ctpend/seed1"
SPOTLIGHTER = f"dtd/Spotlighter/vit_b16_16shots/{NCTX}"
TREES = [
    ([(f"base2new/{SPOTLIGHTER}", trained(98.0))], "base", 98.0),
    ([(f"base2new/test_new/{SPOTLIGHTER}", TEST_LOG.format(accuracy=94.0))], "new", 94.0),
    ([("test_base/dtd/shots_16/MaPLe/c/seed1", TEST_LOG.format(accuracy=80.0))], "base", 80.0),
    ([("train_base/dtd/shots_16_8.0/KgCoOp/c/seed_1", trained(77.0))], "base", 77.0),
    ([("output/ZeroshotCLIP/rn50/dtd", TEST_LOG.format(accuracy=86.0))], "all", 86.0),
    ([("output/evaluation/xd/S/c_16shots/dtd/seed1", TEST_LOG.format(accuracy=4.0))], "all", 4.0),
]


@pytest.mark.parametrize(("logs", "classes", "accuracy"), TREES)
def test_trees_that_the_authors_scripts_write(tmp_path, logs, classes, accuracy):
    for folder, text in logs:
        write_log(tmp_path, folder, text)
    (run,) = read_runs(tmp_path)
    assert (run["dataset"], run["classes"], run["accuracy"]) == (
        "DescribableTextures",
        classes,
        accuracy,
    )


def test_the_weight_in_a_folder_is_a_setting(tmp_path):
    for weight in ("4.0", "8.0"):
        write_log(
            tmp_path, f"test_new/dtd/shots_16_{weight}/KgCoOp/c/seed1", TEST_LOG.format(accuracy=1)
        )
    rows = pair_runs(load_runs(tmp_path))
    assert set(rows["settings"]) == {"W 4.0", "W 8.0"}


def test_promptkd_tests_both_halves_in_its_training(tmp_path):
    folder = "output/base2new/train_base/dtd/shots_0/PromptKD/cfg/seed_1"
    write_log(tmp_path, folder, KD_LOG.format(base=85.0, new=71.0))
    found = {run["classes"]: run["accuracy"] for run in read_runs(tmp_path)}
    assert found == {"base": 85.0, "new": 71.0}


@pytest.mark.parametrize(
    "folder",
    [
        "base2new/more/dtd/CoOp/rn50_16shots/seed1",
        "test_new/dtd/more/CoOp/rn50_16shots/seed1",
        "train_base/more/ZeroshotCLIP/rn50/dtd",
        "base2novel/dtd/CoOp/rn50_16shots/seed1",
        "base2new_again/dtd/CoOp/rn50_16shots/seed1",
        "TEST_NEW/dtd/CoOp/rn50_16shots/nctx4_cscFalse_ctpend/seed1",
    ],
)
def test_a_folder_of_base_or_new_classes_is_never_of_all(tmp_path, capsys, folder):
    write_log(tmp_path, folder, trained(60.0))
    assert not list(read_runs(tmp_path))
    assert "does not say whether it tests base or new classes" in capsys.readouterr().err
