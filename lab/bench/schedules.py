"""Zero-shot CLIP with fewer patches, by what chooses them; see lab/schedules.py."""

import torch
from torch import Tensor

from datasets.emoji_pictures import class_names
from lab.bench.backbones import Schedule
from lab.pretrain.compose import normalised
from lab.pretrain.evaluate import CLASSES, HALVES, TEMPLATE, draw
from models.classifier import AT_A_TIME, ZeroShotCLIP
from models.clip.load import load_clip
from models.clip.prune import LinearDiscriminant, TokenPruner

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


def rows_of(
    set_name: str, schedules: list[Schedule], split: str, half: str, per_class: int
) -> list[dict[str, object]]:
    """A row for all patches and one for each schedule, on `per_class` pictures of a class."""
    names = class_names(set_name)[HALVES[half]]
    clip = load_clip("tiny-emoji")
    model = ZeroShotCLIP(clip, [[TEMPLATE.format(name)] for name in names]).eval()
    train, _ = pictures(set_name, "train", "base", 8)
    images, masks = pictures(set_name, split, half, per_class)
    rows: list[dict[str, object]] = [{"schedule": "all patches", "both": accuracy(model, images)}]
    for schedule in schedules:
        found = measure(model, schedule, train, images, masks)
        rows.append({"schedule": str(schedule)} | found)
    return rows
