"""What two runs have in common."""

import json
import math
import re

import torch

# Augmentation that draws from Python's, NumPy's and torch's generators; a checkpoint an epoch.
OPTIONS = {
    "OPTIM__MAX_EPOCH": 3,
    "DATASET__NUM_SHOTS": 2,
    "TRAIN__CHECKPOINT_FREQ": 1,
    "INPUT__TRANSFORMS": "('random_translation', 'random_flip', 'cutout', 'normalize')",
}


def content(folder, file="model.pth.tar-3"):
    path = next(folder.glob(f"*/{file}"))
    return torch.load(path, weights_only=True)


def last_log(folder):
    """What the last run in a folder logged."""
    return max(folder.glob("log.txt*"), key=lambda path: path.stat().st_mtime_ns).read_text()


def metrics(folder):
    """What a run says it reached, in results.json and in its last log."""
    found = json.loads((folder / "results.json").read_text())
    for key in ("date", "images_per_s", "train_s"):
        del found[key]
    pattern = r"^\* (?:accuracy|error|macro_f1|correct): .*$"
    printed = re.findall(pattern, last_log(folder), re.MULTILINE)
    return found, printed[-4:]


def require_equal(one, other, where=""):
    """Equal bits, all the way down."""
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert list(one) == list(other), where
        for key in one:
            require_equal(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for i, pair in enumerate(zip(one, other, strict=True)):
            require_equal(*pair, f"{where}.{i}")
    elif torch.is_tensor(one):
        assert torch.equal(one, other), where
    else:
        assert one == other or (math.isnan(one) and math.isnan(other)), where


def require_same_end(one, other):
    """Two runs ended alike: weights, bank, optimiser, random states, metrics and log."""
    require_equal(content(one), content(other))
    assert metrics(one) == metrics(other)
