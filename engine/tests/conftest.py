"""Pictures, a small config, and a standard output that is put back."""

import random
import sys

import dassl_published_style as published
import pytest
from dassl.config import get_cfg_default
from PIL import Image
from yacs.config import CfgNode

COUNTS = {"train": 6, "val": 2, "test": 3}


@pytest.fixture(scope="session")
def picture_root(tmp_path_factory):
    """Six training, two validation and three test pictures of each of three colours."""
    root = tmp_path_factory.mktemp("data")
    rng = random.Random(0)
    for part, count in COUNTS.items():
        for label, classname in enumerate(published.CLASSES):
            folder = root / "toy_colours" / part / classname
            folder.mkdir(parents=True)
            for i in range(count):
                colour = [rng.randrange(40) for _ in range(3)]
                colour[label] = 200 + rng.randrange(55)
                Image.new("RGB", (12, 10), tuple(colour)).save(folder / f"{i}.png")
    return root


@pytest.fixture
def cfg(picture_root, tmp_path):
    """The defaults, made small: pictures of 8 pixels, no workers, two epochs."""
    cfg = get_cfg_default()
    cfg.TRAINER.TOYCOOP = CfgNode({"PREC": "fp32"})
    cfg.merge_from_list(
        [
            *("USE_CUDA", False, "OUTPUT_DIR", str(tmp_path / "out")),
            *("DATASET.NAME", "ToyColours", "DATASET.ROOT", str(picture_root)),
            *("DATALOADER.NUM_WORKERS", 0, "DATALOADER.TRAIN_X.BATCH_SIZE", 6),
            *("INPUT.SIZE", (8, 8), "INPUT.TRANSFORMS", ("random_flip", "normalize")),
            *("OPTIM.NAME", "sgd", "OPTIM.LR", 0.5, "OPTIM.MAX_EPOCH", 2),
            *("OPTIM.LR_SCHEDULER", "cosine", "TRAINER.NAME", "ToyCoOp", "TRAIN.PRINT_FREQ", 2),
        ]
    )
    return cfg


@pytest.fixture(autouse=True)
def stdout_is_put_back():
    """``setup_logger`` replaces sys.stdout; no test leaves that behind."""
    before = sys.stdout
    yield
    if sys.stdout is not before and hasattr(sys.stdout, "close"):
        sys.stdout.flush()
    sys.stdout = before
