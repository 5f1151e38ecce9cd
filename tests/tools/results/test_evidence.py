"""What runs leave beside their results."""

from tests.tools.conftest import CLASSES, write_curve, write_right, write_run
from tools.results import evidence
from tools.results.evidence import (
    class_accuracies,
    config_keys,
    confusions,
    read_config,
    short_configs,
    training_curve,
)


def test_worst_classes_and_what_they_are_taken_for(tmp_path, monkeypatch):
    monkeypatch.setattr(evidence, "WHOLE", 10)  # else there are few enough to show all
    runs = [write_run(tmp_path, seed=seed) for seed in (1, 2, 3)]
    for folder, first in zip(runs[:2], (10, 0), strict=True):
        write_right(folder, [10, first, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10])
    shares = confusions(runs)
    # Class 1 is right 10 of 20 times, as class 5; two of the twelve are not among the worst.
    assert list(shares.index[:3]) == ["class 2", "class 3", "class 4"]
    assert set(shares.index[3:5]) == {"class 1", "class 5"}
    assert len(shares) == 10
    assert shares.loc["class 1", "class 1"] == 50
    assert shares.loc["class 2", "class 0"] == 80
    assert shares.loc["class 2", "class 2"] == 20
    assert CLASSES[0] in shares.columns
    assert confusions(runs[2:]) is None


def test_few_classes_are_all_shown_in_their_order(tmp_path):
    folder = write_run(tmp_path)
    write_right(folder, [10, 10, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10])
    assert list(confusions([folder]).index) == sorted(CLASSES)


def test_accuracies_of_classes_are_over_all_runs(tmp_path):
    runs = [write_run(tmp_path, seed=seed) for seed in (1, 2)]
    for folder, first in zip(runs, (10, 0), strict=True):
        write_right(folder, [10, first, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10])
    found = class_accuracies(runs)
    assert found.loc["class 1"].tolist() == [20, 50]
    assert found.loc["class 2"].tolist() == [20, 20]
    assert class_accuracies([write_run(tmp_path, seed=3)]) is None


def test_curves_are_means_over_the_steps_of_an_epoch(tmp_path):
    assert training_curve(tmp_path, 2) is None
    write_curve(tmp_path)
    curve = training_curve(tmp_path, 2)
    assert curve["epoch"].tolist() == [1, 2]
    assert curve["loss"].tolist() == [5, 2]
    assert curve["acc"].tolist() == [10, 40]
    assert training_curve(tmp_path, 0) is None


def test_a_config_is_read_as_written(tree):
    assert "LR: 0.02" in read_config(next(path.parent for path in tree.rglob("results.json")))


CONFIG = """\
# git: abc
DATASET:
  NAME: Toy
INPUT:
  SIZE:
  - 224
  - 224
  TRANSFORMS: []
OPTIM:
  LR: 0.02
OUTPUT_DIR: a:b
"""


def test_a_config_by_keys():
    assert config_keys(CONFIG) == {
        "DATASET": "",
        "DATASET.NAME": "Toy",
        "INPUT": "",
        "INPUT.SIZE": "- 224 - 224",
        "INPUT.TRANSFORMS": "[]",
        "OPTIM": "",
        "OPTIM.LR": "0.02",
        "OUTPUT_DIR": "a:b",
    }
    assert config_keys("none") == {}


def test_configs_of_a_trainer_are_told_by_their_differences(tmp_path):
    other = CONFIG.replace("0.02", "0.5").replace("- 224\n  T", "- 112\n  T") + "SEED: 2\n"
    for name, text in (("a", CONFIG), ("b", other), ("d", other)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(text)
    trainers = {"a": "CoOp", "b": "CoOp", "c": "CoOp", "d": "MaPLe"}
    runs = [{"trainer": name, "path": str(tmp_path / run)} for run, name in trainers.items()]
    first, second, third, fourth = short_configs(runs)
    assert (first, fourth) == (CONFIG, other)
    assert second.splitlines() == [
        f"# as the config of {tmp_path / 'a'}, but for:",
        "INPUT.SIZE: - 224 - 112",
        "OPTIM.LR: 0.5",
        "SEED: 2",
    ]
    assert third == "none"
