"""Accuracy of settings on validation pictures of base classes, to choose hyper-parameters.

Usage:
    python lab/validate.py --trainer CoOp --datasets emoji_animals emoji_food OPTIM.LR 0.02
    python lab/validate.py --trainer Spotlighter --held-out --datasets emoji_food \
        TRAINER.SPOTLIGHTER.NEW text

Trains on base classes (16 shots) and evaluates on the whole validation split, not on its few shots.
With --held-out it trains on the first half of the base classes and evaluates on both halves: a
choice for unseen classes that needs no new classes. Test pictures are never read.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

from dassl.engine import build_trainer
from dassl.utils import set_random_seed

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `python lab/validate.py`
from datasets.splits import Item, subsample_classes
from runs.config import default_config, merge_file, merge_pairs
from runs.logs import quiet
from tools.shared.command_line import parser_of, reports_user_errors

if TYPE_CHECKING:
    from torch import Tensor
    from yacs.config import CfgNode

    from trainers.base import CLIPTrainer

PROJECT = Path(__file__).parents[1]
SHOTS = 16


def build_config(args: argparse.Namespace, dataset: str, classes: str, output: str) -> CfgNode:
    """The config of one run; it is never tested on test pictures."""
    import trainers  # noqa: F401  (registers the trainers, with their keys)

    cfg = default_config()
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


def batches(trainer: CLIPTrainer, items: Sequence[Item]) -> Iterator[tuple[Tensor, Tensor]]:
    """Images and labels as a test takes them; the model is in evaluation mode."""
    from dassl.data import DatasetWrapper
    from dassl.data.transforms import build_transform
    from torch.utils.data import DataLoader

    transform = build_transform(trainer.cfg, is_train=False)
    wrapped = DatasetWrapper(trainer.cfg, items, transform=transform)
    trainer.set_model_mode("eval")
    for batch in DataLoader(wrapped, trainer.cfg.DATALOADER.TEST.BATCH_SIZE):
        yield trainer.parse_batch_test(batch)


def accuracy(trainer: CLIPTrainer, classes: str) -> float:
    """Percent right on the whole validation split of these classes."""
    import torch

    items = subsample_classes(trainer.dm.dataset.read_splits(), classes).val
    right = 0
    with torch.no_grad():
        for image, label in batches(trainer, items):
            right += int((trainer.model(image).argmax(-1) == label).sum())
    return 100 * right / len(items)


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


def parser_of_runs(doc: str) -> argparse.ArgumentParser:
    """A parser with the options of training runs."""
    parser = parser_of(doc)
    add = parser.add_argument
    add("--trainer", required=True, help="name of the method, as CoOp")
    add("--datasets", nargs="+", required=True, help="stems of configs/datasets")
    add("--config", default="tiny_emoji", help="stem of the trainer's yaml (tiny_emoji)")
    add("--root", default="data", help="folder of all data sets (data)")
    add("--shots", type=int, default=SHOTS, help=f"training pictures of each class ({SHOTS})")
    add("--seed", type=int, default=1, help="random seed (1)")
    return parser


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; KEY VALUE pairs may follow the data sets."""
    parser = parser_of_runs(__doc__)
    parser.add_argument("--held-out", action="store_true", help="train on half of the base classes")
    args, args.opts = parser.parse_known_args(argv)
    keys = [i for i, word in enumerate(args.datasets) if "." in word]
    if keys:
        args.opts = args.datasets[keys[0] :] + args.opts
        args.datasets = args.datasets[: keys[0]]
    return args


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Validate on every data set; print the accuracies and their means."""
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
