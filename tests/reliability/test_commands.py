"""Command lines drawn over all keys and flags: each ends well, or in one sentence for the user."""

import math
import random
from pathlib import Path

import pytest

import train
from runs.config import build_config, default_config
from runs.config_rules import flat
from trainers import TRAINERS

LINES, RUNS = 4000, 300
DEFAULTS = flat(default_config())
WHERE = ("DATASET.ROOT", "DATASET.NAME", "OUTPUT_DIR", "TRAINER.NAME", "USE_CUDA", "VERBOSE")
KEYS = [key for key in DEFAULTS if key not in WHERE]
VALUES = [
    *("None", "True", "False", "0", "-1", "1", "2", "3", "7", "64", "1000", "1e9", "-0.5", "0.5"),
    *("1.5", "0.9999", "1e-9", "1e30", "nan", "inf", "1e999", "-inf", "10**9", "0x10", "1_0", "²"),
    *("", '""', "x", "a b", "a photo of a {}.", "'", '"', "[", "(", "()", "[]", "{}", "(1,)"),
    *("(0, 0)", "(64, 64)", "(0.5, 1.0)", "(1, 0.5)", "(1, 2)", "(2.5,)", "(None,)", "(True, 1)"),
    *("(1, 1, 1)", "(0.1, 0.2, 0.3, 0.4)", "((1, 2), 3)", "{'a': 1}", "lambda: 0", "[].x"),
    *("normalize", "('normalize', 'cutout')", "('random_flip', 'gaussian_noise', 'colorjitter')"),
    *("val", "test", "Test", "validation", "best_val", "base", "new", "base/new", "base/base/base"),
    *("cosine", "multi_step", "constant", "sgd", "adamw", "rmsprop", "SGD", "fp16", "bf16", "amp"),
    *("RandomClassSampler", "RandomDomainSampler", "SequentialSampler", "cross", "middle", "full"),
    *("off", "/nowhere", "../x", "é😀", "a\nb", "日本語", "\ud800", "[" * 300, "9" * 400),
]
FLAGS = [
    *(["--eval-only"], ["--no-train"], ["--deterministic"], ["--allow-mismatch"], ["--head", "x"]),
    *(["--resume", "/nowhere"], ["--model-dir", "/nowhere"], ["--load-epoch", "-1"]),
    *(["--load-epoch", "1"], ["--seed", "-7"], ["--seed", str(2**40)], ["--seed", "0"]),
    *(["--source-domains", "a"], ["--target-domains", "a", "b"], ["--transforms", "x"]),
    *(["--transforms", "normalize"], ["--backbone", "None"], ["--weights", "/nowhere"]),
    *(["--config-file", "/nowhere.yaml"], ["--dataset-config-file", "/"], ["--backbone", "ViT-Z"]),
]
LONG = {"OPTIM.MAX_EPOCH": 7}  # a run of more epochs says no more


@pytest.fixture
def draw(arguments, tmp_path_factory):
    """Draw a command line: a trainer, up to two flags, up to three keys."""
    rng = random.Random(16)

    def go():
        trainer = rng.choice(TRAINERS).__name__
        flags = [word for flag in rng.sample(FLAGS, rng.choice((0, 0, 0, 1, 2))) for word in flag]
        chosen = {key: rng.choice(VALUES) for key in rng.sample(KEYS, rng.choice((1, 1, 2, 3)))}
        options = {"OPTIM.MAX_EPOCH": 1, "DATASET.NUM_SHOTS": 1} | chosen
        argv = arguments(trainer, tmp_path_factory.mktemp("run"), flags=flags)
        return [*argv, *(str(word) for pair in options.items() for word in pair)]

    return go


def require_sane(cfg):
    """No value of another kind than its default's, and none that is no number."""
    for key, value in flat(cfg).items():
        kinds = (list, tuple) if isinstance(DEFAULTS[key], (list, tuple)) else type(DEFAULTS[key])
        assert isinstance(value, kinds), (key, value)
        assert not isinstance(value, float) or math.isfinite(value), (key, value)


@pytest.mark.thorough
def test_any_command_line_is_understood_or_refused(draw, capsys, measured):
    surprises = []
    for _ in range(LINES):
        argv = draw()
        try:
            require_sane(build_config(train.parse_args(argv)))
        except (SystemExit, ValueError, OSError) as refused:
            if isinstance(refused, ValueError) and "\n" in str(refused).strip():
                surprises.append((argv[10:], refused))
        except Exception as error:
            surprises.append((argv[10:], error))
    assert not surprises, f"{len(surprises)} of {LINES}: {surprises[:5]}"
    well = f"{LINES - len(surprises)} of {LINES}"
    measured("command lines drawn at random, understood or refused in a sentence", well)


@pytest.mark.thorough
def test_any_command_line_ends_well_or_in_one_sentence(
    draw, monkeypatch, capsys, witness, measured
):
    """Whole runs of one epoch; a result is written only where nothing was refused."""
    ended, surprises = {0: 0, 2: 0}, []
    while sum(ended.values()) + len(surprises) < RUNS:
        argv = draw()
        try:
            cfg = build_config(train.parse_args(argv))
        except (SystemExit, ValueError, OSError):
            continue
        if any(flat(cfg)[key] >= limit for key, limit in LONG.items()):
            continue
        capsys.readouterr()  # what argparse said of lines that it refused
        monkeypatch.setattr("sys.argv", ["train.py", *argv])
        code = train.main()
        lines = capsys.readouterr().err.splitlines()
        said = [line for line in lines if line.startswith("train.py: ")]
        has_result = (Path(cfg.OUTPUT_DIR) / "results.json").exists()
        without = cfg.TEST.NO_TEST or "--no-train" in argv
        is_well = (code, len(said)) in ((0, 0), (2, 1)) and "Traceback" not in "".join(lines)
        if is_well and has_result == (code == 0 and (has_result or not without)):
            ended[code] += 1
        else:
            surprises.append((argv[10:], code, said))
    assert not surprises, f"{len(surprises)} of {RUNS}: {surprises[:5]}"
    what = "run whole: a result, or exit code 2 with one sentence, none not foreseen"
    measured(f"command lines drawn at random, {what}", f"{sum(ended.values())} of {RUNS}")
    witness(
        "input",
        f"{LINES} command lines drawn over all keys and flags, and {RUNS} that are understood run",
        "each ends well or in one sentence, exit code 0 or 2; none is not foreseen",
    )
