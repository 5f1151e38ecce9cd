"""Accuracy of zero-shot CLIP with fewer patches, by pruning schedule and by score.

Usage:
    python lab/schedules.py 1:32 1:32,2:12 --sets animals food --split val --half base

Pictures of the embedded benchmark are drawn in memory. The directions are learned from training
pictures of base classes. Columns: both scores, attention alone, directions alone, patches drawn at
random, and the true object mask, which no method knows. Choose a schedule on the default split and
half: they hold no test pictures and no new classes.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `python lab/schedules.py`
from datasets.emoji_pictures import SETS, class_names
from lab.bench.backbones import Schedule, parse_schedule
from lab.pretrain.compose import normalised
from lab.pretrain.evaluate import CLASSES, HALVES, TEMPLATE, draw
from models.classifier import AT_A_TIME, ZeroShotCLIP
from models.clip.load import load_clip
from models.clip.prune import LinearDiscriminant, TokenPruner
from tools.results.cells import markdown_table
from tools.shared.command_line import parser_of, reports_user_errors

SCORES = {"attention": 0.0, "directions": 1e3, "both": 1.0}  # weight of the directions
SEED = 0  # of the random patches


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


def accuracy(model: ZeroShotCLIP, images: Tensor, outside: Tensor | None = None) -> float:
    """Percent right of pictures that stand class by class."""
    labels = torch.arange(CLASSES).repeat_interleave(len(images) // CLASSES)
    right = 0
    for i in range(0, len(labels), AT_A_TIME):
        part = slice(i, i + AT_A_TIME)
        if outside is not None:
            model.pruner.outside = outside[part]
        right += int((model(images[part]).argmax(1) == labels[part]).sum())
    return 100 * right / len(labels)


@torch.no_grad()
def measure(
    model: ZeroShotCLIP, schedule: Schedule, train: Tensor, images: Tensor, masks: Tensor
) -> dict[str, float]:
    """Accuracy with one schedule, by score."""
    at, keep = schedule
    found, width = {}, model.visual.visual.conv1.out_channels
    for name, mix in SCORES.items():
        model.prune(TokenPruner(at=at, keep=keep, width=width, mix=mix))
        if mix:
            statistics = [LinearDiscriminant() for _ in at]
            model.collect_statistics(train, statistics)
            model.pruner.calibrate(statistics)
        found[name] = accuracy(model, images)
    model.prune(Oracle(at=at, keep=keep, width=width))
    noise = torch.rand(masks.shape, generator=torch.Generator().manual_seed(SEED))
    found["random"] = accuracy(model, images, noise)
    found["object mask"] = accuracy(model, images, masks.float())
    model.pruner = None
    return found


def pictures(*which: object) -> tuple[Tensor, Tensor]:
    """CLIP's input and the object masks, see `evaluate.draw`."""
    pixels, masks = draw(*which)
    return normalised(pixels.float() / 255), masks


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Measure every schedule on every set; print the means over the sets."""
    parser = parser_of(__doc__)
    parser.add_argument("schedules", nargs="+", type=parse_schedule, metavar="BLOCK:KEPT,...")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--split", choices=("val", "test"), default="val")
    parser.add_argument("--half", choices=tuple(HALVES), default="base")
    parser.add_argument("--per-class", type=int, default=16, help="pictures of each class (16)")
    args = parser.parse_args(argv)
    clip, rows = load_clip("tiny-emoji"), []
    for set_name in args.sets:
        names = class_names(set_name)[HALVES[args.half]]
        model = ZeroShotCLIP(clip, [[TEMPLATE.format(name)] for name in names]).eval()
        train, _ = pictures(set_name, "train", "base", 8)
        images, masks = pictures(set_name, args.split, args.half, args.per_class)
        rows.append({"schedule": "all patches", "both": accuracy(model, images)})
        for schedule in args.schedules:
            found = measure(model, schedule, train, images, masks)
            rows.append({"schedule": str(schedule)} | found)
    table = pd.DataFrame(rows).groupby("schedule", sort=False).mean().reset_index()
    print(markdown_table(table, floatfmt=".2f"))
    print(f"\n{len(args.sets)} sets, {args.split} pictures of {args.half} classes, zero-shot CLIP")
    return 0


if __name__ == "__main__":
    sys.exit(main())
