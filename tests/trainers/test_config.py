"""The config: merge order, and a sentence for every mistake."""

import pytest

import train
from trainers.config import build_config


def config(*argv):
    return build_config(train.parse_args([str(word) for word in argv]))


def test_later_wins_data_set_trainer_flags_pairs(tmp_path):
    (tmp_path / "d.yaml").write_text("SEED: 1\nDATASET: {NAME: A}\nOPTIM: {LR: 1}\n")
    (tmp_path / "t.yaml").write_text("SEED: 2\nOPTIM: {LR: 2, MAX_EPOCH: 7}\nTRAINER: {NAME: X}\n")
    files = ("--dataset-config-file", tmp_path / "d.yaml", "--config-file", tmp_path / "t.yaml")
    cfg = config(*files)
    assert (cfg.SEED, cfg.DATASET.NAME, cfg.OPTIM.LR, cfg.CONFIG_NAME) == (2, "A", 2.0, "t")
    cfg = config(
        *files,
        "--transforms",
        "normalize",
        "x",
        "--seed",
        0,
        "--trainer",
        "CoOp",
        "OPTIM.LR",
        "3",
        "INPUT.SIZE",
        "(64, 64)",
        "TRAINER.COOP.CSC",
        "True",
    )
    assert (cfg.SEED, cfg.TRAINER.NAME, cfg.OPTIM.LR, cfg.OPTIM.MAX_EPOCH) == (0, "CoOp", 3.0, 7)
    assert (cfg.INPUT.SIZE, cfg.TRAINER.COOP.CSC) == ((64, 64), True)
    assert tuple(cfg.INPUT.TRANSFORMS) == ("normalize", "x")
    assert cfg.is_frozen()


def test_defaults_of_the_method():
    node = config().TRAINER.SPOTLIGHTER
    expected = {
        "TOPK": 5,
        "LEVEL1": 3,
        "PROTOTYPES": 5,
        "MOMENTUM": 1.0,
        "ALPHA": 0.2,
        "BALANCE": 50.0,
        "DISTILL": 20.0,
        "CANDIDATES": 5,
        "HEAD": "lite",
        "BASE": "CoOp",
    }
    assert {key: node[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("OPTIM.LRR", "1"), "unknown config key OPTIM.LRR; do you mean OPTIM.LR"),
        (("OPTIM.LR",), "must come in twos, got OPTIM.LR"),
        (("OPTIM.LR", "fast"), r"OPTIM.LR takes a float, as 0.0003, got 'fast'"),
        (("OPTIM.MAX_EPOCH", "2.5"), r"OPTIM.MAX_EPOCH takes a int, as 10, got '2.5'"),
    ],
)
def test_wrong_pairs_are_explained(argv, message):
    with pytest.raises(ValueError, match=message):
        config(*argv)


def test_a_missing_file_lists_its_neighbours(tmp_path):
    (tmp_path / "there.yaml").write_text("")
    with pytest.raises(FileNotFoundError, match=r"gone.yaml does not exist; in .*there"):
        config("--config-file", tmp_path / "gone.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("OPTIM: {LRR: 1}", r"bad.yaml: unknown config key OPTIM.LRR; do you mean"),
        ("OPTIM: [1", r"bad.yaml is not a yaml of keys and values"),
        ("just words", r"bad.yaml is not a yaml of keys and values"),
        ("OPTIM: !!python/object/apply:os.system ['true']", r"bad.yaml is not a yaml"),
        ("OPTIM: {LR: {A: 1}}", r"bad.yaml: unknown config key OPTIM.LR.A"),
    ],
)
def test_a_wrong_file_is_explained(tmp_path, text, message):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        config("--config-file", tmp_path / "bad.yaml")


@pytest.mark.parametrize("label", ["a/b", "two\nlines"])
def test_a_label_can_name_a_folder(label):
    with pytest.raises(ValueError, match=r"DATASET\.LABEL must be one line without a slash"):
        config("DATASET.LABEL", label)
