"""A toy data set on disk, and train.py on it with a small random CLIP."""

import json

import numpy as np
from dassl.data.datasets import DATASET_REGISTRY
from PIL import Image

from datasets.base import FewShotDataset

NAMES = ["ash tree", "bee", "cat", "dog", "elk", "fox"]


@DATASET_REGISTRY.register()
class Toy(FewShotDataset):
    """Coloured noise; a colour is a class."""

    dataset_dir, image_dir, split_file = "toy", "images", "split.json"


TOY_OPTIONS = {
    "DATASET.NAME": "Toy",
    "DATASET.NUM_SHOTS": 4,
    "MODEL.BACKBONE.NAME": "tiny-emoji",
    "MODEL.BACKBONE.PRETRAINED": False,
    "INPUT.SIZE": (64, 64),
    "INPUT.TRANSFORMS": ("random_flip", "normalize"),
    "DATALOADER.NUM_WORKERS": 0,
    "DATALOADER.TRAIN_X.BATCH_SIZE": 4,
    "OPTIM.NAME": "sgd",
    "OPTIM.LR": 0.02,
    "OPTIM.MAX_EPOCH": 2,
    "OPTIM.LR_SCHEDULER": "cosine",
    "TRAINER.COOP.CTX_INIT": "a photo of a",
    "TRAINER.COCOOP.CTX_INIT": "a photo of a",
    "TRAINER.MAPLE.PROMPT_DEPTH": 3,
    "TRAINER.IVLP.PROMPT_DEPTH_VISION": 3,
    "TRAINER.IVLP.PROMPT_DEPTH_TEXT": 2,
    "TRAINER.PROMPTSRC.PROMPT_DEPTH_VISION": 3,
    "TRAINER.PROMPTSRC.PROMPT_DEPTH_TEXT": 2,
    "TRAINER.PROMPTKD.PROMPT_DEPTH_VISION": 3,
    "TRAINER.PROMPTKD.TEACHER_NAME": "tiny-emoji",
    "TRAINER.PROMPTKD.TEACHER_DIR": "",
} | {
    f"TRAINER.{node}.PREC": "fp32"
    for node in (
        *("COOP", "COCOOP", "MAPLE", "IVLP", "VPT", "PROMPTSRC", "PROMPTKD", "TF", "SPOTLIGHTER"),
        *("CLIPADAPTER", "ADAPTER", "TaskRes"),
    )
}


def write_toy(root):
    """Write pictures and split file under `root`."""
    rng = np.random.default_rng(0)
    (root / "toy" / "images").mkdir(parents=True)
    split = {}
    for part, count in (("train", 6), ("val", 2), ("test", 5)):
        split[part] = []
        for label, name in enumerate(NAMES):
            for i in range(count):
                path = f"{part}_{label}_{i}.png"
                pixels = rng.integers(0, 120, (64, 64, 3)) + np.eye(3)[label % 3] * 20 * label
                Image.fromarray(pixels.astype(np.uint8)).save(root / "toy" / "images" / path)
                split[part].append([path, label, name])
    (root / "toy" / "split.json").write_text(json.dumps(split))
