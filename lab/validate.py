"""Accuracy of settings on base validation pictures: what hyper-parameters may be chosen by.

Usage:
    python lab/validate.py --trainer CoOp --datasets emoji_animals emoji_food OPTIM.LR 0.02
    python lab/validate.py --trainer Spotlighter --held-out --datasets emoji_food \
        TRAINER.SPOTLIGHTER.NEW text

Trains on base classes (16 shots) and evaluates on the whole validation split, not on its few shots.
With --held-out it trains on the first half of the base classes and evaluates on both halves: what
unseen classes should get, chosen without new classes. Test pictures are never read.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import torch
from dassl.config import get_cfg_default
from dassl.data import DatasetWrapper
from dassl.data.transforms import build_transform
from dassl.engine import build_trainer
from dassl.utils import set_random_seed
from torch.utils.data import DataLoader
from yacs.config import CfgNode

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `python lab/validate.py`
from datasets.splits import subsample_classes
from runs.config import merge_file, merge_pairs
from runs.quiet import quiet
from tools.shared.command_line import parser_of, reports_user_errors
from trainers import extend_cfg
from trainers.base import CLIPTrainer

PROJECT = Path(__file__).parents[1]


def build_config(args: argparse.Namespace, dataset: str, classes: str, output: str) -> CfgNode:
    """The config of one run; it is never tested on test pictures."""
    cfg = get_cfg_default()
    extend_cfg(cfg)
    merge_file(cfg, PROJECT / f"configs/datasets/{dataset}.yaml")
    merge_file(cfg, PROJECT / f"configs/trainers/{args.trainer}/{args.config}.yaml")
    fixed = {
        "TRAINER.NAME": args.trainer,
        "DATASET.ROOT": args.root,
        "DATASET.NUM_SHOTS": args.shots,
        "DATASET.SUBSAMPLE_CLASSES": classes,
        "SEED": args.seed,
        "OUTPUT_DIR": output,
        "TEST.NO_TEST": True,
        "VERBOSE": False,
    }
    merge_pairs(cfg, [word for pair in fixed.items() for word in pair])
    merge_pairs(cfg, args.opts)
    cfg.freeze()
    return cfg


@torch.no_grad()
def accuracy(trainer: CLIPTrainer, classes: str) -> float:
    """Percent right on the whole validation split of these classes."""
    pictures = subsample_classes(trainer.dm.dataset.read_splits(), classes).val
    transform = build_transform(trainer.cfg, is_train=False)
    wrapped = DatasetWrapper(trainer.cfg, pictures, transform=transform)
    trainer.set_model_mode("eval")
    right = 0
    for batch in DataLoader(wrapped, trainer.cfg.DATALOADER.TEST.BATCH_SIZE):
        image, label = trainer.parse_batch_test(batch)
        right += int((trainer.model(image).argmax(-1) == label).sum())
    return 100 * right / len(pictures)


def validate(args: argparse.Namespace, dataset: str) -> dict[str, float]:
    """Train once; accuracies by class subset."""
    seen = "base/base" if args.held_out else "base"
    with tempfile.TemporaryDirectory() as output:
        set_random_seed(args.seed)
        trainer = build_trainer(build_config(args, dataset, seen, output))
        if trainer.model.learned is not None:
            trainer.train()
        found = {seen: accuracy(trainer, seen)}
        if args.held_out:
            set_random_seed(args.seed)
            other = build_trainer(build_config(args, dataset, "base/new", output))
            if trainer.model.learned is not None:
                other.load_model(output)
            found["base/new"] = accuracy(other, "base/new")
    return found


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = parser_of(__doc__)
    parser.add_argument("--trainer", required=True)
    parser.add_argument("--datasets", nargs="+", required=True, help="stems of configs/datasets")
    parser.add_argument("--config", default="tiny_emoji", help="stem of the trainer's yaml")
    parser.add_argument("--root", default="data")
    parser.add_argument("--shots", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--held-out", action="store_true", help="train on half of the base classes")
    args, args.opts = parser.parse_known_args(argv)
    keys = [i for i, word in enumerate(args.datasets) if "." in word]
    if keys:  # KEY VALUE pairs after the data sets
        args.opts = args.datasets[keys[0] :] + args.opts
        args.datasets = args.datasets[: keys[0]]
    return args


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Validate on every data set; a mistake of the user's ends in one sentence."""
    args = parse_args(argv)
    with quiet():
        found = {dataset: validate(args, dataset) for dataset in args.datasets}
    for dataset, scores in found.items():
        print(dataset, *(f"{subset} {score:.2f}" for subset, score in scores.items()))
    for subset in next(iter(found.values())):
        print(f"mean {subset} {mean(scores[subset] for scores in found.values()):.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
