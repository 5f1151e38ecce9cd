"""Accuracy of zero-shot CLIP with fewer patches, by schedule and by score: how one is chosen.

Usage:
    python lab/schedules.py 1:32 1:32,2:12 --sets animals food --split val --half base

Pictures of the embedded benchmark are drawn in memory. The directions are learned from training
pictures of base classes. Columns: both scores, attention alone, directions alone, patches drawn at
random, and the true object mask, which no method knows. The default split and half are those that
choices may be made on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `python lab/schedules.py`
from datasets.emoji_sets import SETS, class_names, draw_picture
from lab.pretrain.evaluate import HALVES, TEMPLATE, normalised
from models.classifier import AT_A_TIME, ZeroShotCLIP
from models.clip.load import load_clip
from models.clip.prune import LinearDiscriminant, TokenPruner
from tools.results.cells import markdown_table
from tools.shared.command_line import parser_of, reports_user_errors

Schedule = tuple[tuple[int, ...], tuple[int, ...]]
SCORES = {"attention": 0.0, "directions": 1e3, "both": 1.0}  # weight of the directions
SEED = 0  # of the random patches


class Pictures(NamedTuple):
    """Pictures (N, 3, 64, 64), their labels (N,) and object masks (N, patches)."""

    images: Tensor
    labels: Tensor
    masks: Tensor


class Oracle(TokenPruner):
    """Ranks patches by a score from outside: the object mask, or random numbers."""

    outside: Tensor

    def score(self, stage: int, x: Tensor, attention: Tensor) -> Tensor:
        """The outside score of the patches present; a fused token is the last of all."""
        at = self.layout.positions
        score = self.outside.gather(1, at) + 1e-3 * attention[:, : at.shape[1]]
        return torch.cat([score, score.new_zeros(len(x), x.shape[1] - at.shape[1])], dim=1)

    def forward(self, stage: int, x: Tensor, attention: Tensor, layout: object) -> tuple:
        """As of `TokenPruner`, with the places of the patches at hand."""
        self.layout = layout
        return super().forward(stage, x, attention, layout)


def draw(set_name: str, split: str, half: str, per_class: int) -> Pictures:
    """Pictures of one half of a set's classes."""
    names = class_names(set_name)[HALVES[half]]
    drawn = [
        draw_picture(set_name, "colour", split, name, index)
        for name in names
        for index in range(per_class)
    ]
    images = torch.from_numpy(np.stack([picture for picture, _ in drawn])).permute(0, 3, 1, 2)
    labels = torch.arange(len(names)).repeat_interleave(per_class)
    masks = torch.from_numpy(np.stack([mask for _, mask in drawn]))
    return Pictures(normalised(images.contiguous()), labels, masks)


def accuracy(model: ZeroShotCLIP, pictures: Pictures, outside: Tensor | None = None) -> float:
    """Percent right."""
    right = 0
    for i in range(0, len(pictures.labels), AT_A_TIME):
        part = slice(i, i + AT_A_TIME)
        if outside is not None:
            model.pruner.outside = outside[part]
        right += int((model(pictures.images[part]).argmax(1) == pictures.labels[part]).sum())
    return 100 * right / len(pictures.labels)


@torch.no_grad()
def measure(
    model: ZeroShotCLIP, schedule: Schedule, train: Pictures, pictures: Pictures
) -> dict[str, float]:
    """Accuracy with one schedule, by score."""
    at, keep = schedule
    found, width = {}, model.visual.width
    for name, mix in SCORES.items():
        model.prune(TokenPruner(at=at, keep=keep, width=width, mix=mix))
        if mix:
            statistics = [LinearDiscriminant() for _ in at]
            model.collect_statistics(train.images, statistics)
            model.pruner.calibrate(statistics)
        found[name] = accuracy(model, pictures)
    model.prune(Oracle(at=at, keep=keep, width=width))
    noise = torch.rand(pictures.masks.shape, generator=torch.Generator().manual_seed(SEED))
    found["random"] = accuracy(model, pictures, noise)
    found["object mask"] = accuracy(model, pictures, pictures.masks.float())
    model.pruner = None
    return found


def parse_schedule(text: str) -> Schedule:
    """Blocks and kept patches: 1:32,2:12 is ((1, 2), (32, 12)).

    Raises:
        argparse.ArgumentTypeError: it has another form.
    """
    try:
        pairs = [tuple(map(int, pair.split(":"))) for pair in text.split(",")]
        at, keep = zip(*pairs, strict=True)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"a schedule is written block:kept,block:kept, as 1:32,2:12; got {text!r}"
        ) from None
    return at, keep


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Measure every schedule on every set, print the means."""
    parser = parser_of(__doc__)
    parser.add_argument("schedules", nargs="+", type=parse_schedule, metavar="BLOCK:KEPT,...")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--split", choices=("val", "test"), default="val")
    parser.add_argument("--half", choices=tuple(HALVES), default="base")
    parser.add_argument("--per-class", type=int, default=16, help="pictures a class")
    args = parser.parse_args(argv)
    clip, rows = load_clip("tiny-emoji"), []
    for set_name in args.sets:
        names = class_names(set_name)[HALVES[args.half]]
        model = ZeroShotCLIP(clip, [[TEMPLATE.format(name)] for name in names]).eval()
        train = draw(set_name, "train", "base", 8)
        pictures = draw(set_name, args.split, args.half, args.per_class)
        rows.append({"schedule": "all patches", "both": accuracy(model, pictures)})
        for schedule in args.schedules:
            label = ",".join(f"{a}:{k}" for a, k in zip(*schedule, strict=True))
            rows.append({"schedule": label} | measure(model, schedule, train, pictures))
    table = pd.DataFrame(rows).groupby("schedule", sort=False).mean().reset_index()
    print(markdown_table(table, floatfmt=".2f"))
    print(f"\n{len(args.sets)} sets, {args.split} pictures of {args.half} classes, zero-shot CLIP")
    return 0


if __name__ == "__main__":
    sys.exit(main())
