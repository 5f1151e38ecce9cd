"""The familiar name for mean and spread over seeds."""

import json

import pytest

from tests.tools.test_collect_results import TEST_LOG, TRAIN_LOG, record, write_log
from tools.parse_test_res import main


@pytest.fixture
def experiment(tmp_path):
    for seed, (signal, accuracy) in enumerate(
        [("Finish training", "80.0"), ("Finished training", "84.0")], 1
    ):
        log = TRAIN_LOG.format(signal=signal, accuracy=accuracy)
        write_log(tmp_path, f"one/seed{seed}", log)
    for seed, accuracy in enumerate(("50.0", "52.0", "54.0"), 1):
        write_log(tmp_path, f"two/seed{seed}", TEST_LOG.format(accuracy=accuracy))
    return tmp_path


def test_mean_and_deviation_over_seeds(experiment, capsys):
    assert main([str(experiment / "one")]) == 0
    printed = capsys.readouterr().out
    assert f"file: {experiment}/one/seed1/log.txt. accuracy: 80.00%. error: 20.00%." in printed
    assert "* accuracy: 82.00% +- 2.00%" in printed
    assert "* error: 18.00% +- 2.00%" in printed


def test_confidence_interval_of_test_logs(experiment, capsys):
    assert main([str(experiment / "two"), "--test-log", "--ci95"]) == 0
    assert "* accuracy: 52.00% +- 1.85%" in capsys.readouterr().out


def test_several_experiments_have_an_average(experiment, capsys):
    assert main([str(experiment), "--multi-exp"]) == 0
    assert capsys.readouterr().out.endswith(
        "Average performance\n* accuracy: 67.00%\n* error: 33.00%\n"
    )


def test_unfinished_seeds_are_said_and_nothing_is_an_error(experiment, capsys):
    write_log(experiment, "one/seed3", "epoch [1/2]\n")
    assert main([str(experiment / "one")]) == 0
    out, error = capsys.readouterr()
    assert "seed3/log.txt: the run did not finish" in error
    assert "* accuracy: 82.00% +- 2.00%" in out
    assert main([str(experiment / "nowhere")]) == 2
    assert "parse_test_res: error: no finished log.txt in" in capsys.readouterr().err


def test_another_result_by_its_keyword(experiment, capsys):
    for seed, score in enumerate(("70.5", "71.5"), 1):
        log = f"=> result\n* accuracy: 80.0%\n* macro_f1: {score}%\n"
        write_log(experiment, f"three/seed{seed}", log)
    assert main([str(experiment / "three"), "--keyword", "macro_f1"]) == 0
    out = capsys.readouterr().out
    assert "seed2/log.txt. macro_f1: 71.50%.\n" in out
    assert "* macro_f1: 71.00% +- 0.50%\n===" in out
    assert main([str(experiment / "three"), "--keyword", "recall"]) == 2
    assert "or its log has no recall" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"settings": {"TRAINER.COOP.N_CTX": 8}}, "(N_CTX 16) and "),
        ({"data": "b" * 12}, "differ in settings"),
        ({"shots": 4}, "(16) and "),
        ({}, ""),
    ],
)
def test_runs_that_differ_in_more_than_the_seed_are_not_averaged(
    experiment, capsys, change, named
):
    for seed, changes in enumerate(({}, change), 1):
        path = experiment / "one" / f"seed{seed}" / "results.json"
        known = {"seed": seed, "data": "a" * 12, "settings": {}} | changes
        path.write_text(json.dumps(record() | known))
    assert main([str(experiment / "one")]) == (2 if change else 0)
    error = capsys.readouterr().err
    assert named in error
    assert ("so they are not averaged as seeds" in error) == bool(change)
