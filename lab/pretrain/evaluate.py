"""Zero-shot accuracy on pictures of the embedded benchmark, drawn in memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import clip
import numpy as np
import torch
import torch.nn.functional as F
from clip.model import CLIP
from jaxtyping import Float, UInt8
from torch import Tensor

from datasets.emoji_sets import SETS, class_names, draw_picture
from lab.pretrain.compose import MEAN, STD

HALVES = {"base": slice(0, 25), "new": slice(25, 50)}
TEMPLATE = "a photo of a {}."
Encoder = Callable[[Tensor], Tensor]


@lru_cache(maxsize=16)
def draw_split(
    set_name: str, split: str, per_class: int, domain: str = "colour"
) -> UInt8[Tensor, "N 3 64 64"]:
    """Return the first pictures of each class of a split, class by class."""
    drawn = [
        draw_picture(set_name, domain, split, name, index)[0]
        for name in class_names(set_name)
        for index in range(per_class)
    ]
    return torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).contiguous()


def normalised(pictures: UInt8[Tensor, "N 3 64 64"]) -> Float[Tensor, "N 3 64 64"]:
    """Return pictures as CLIP's input."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return (pictures.float() / 255 - mean) / std


@torch.no_grad()
def zero_shot(
    encode_image: Encoder,
    encode_text: Encoder,
    split: str = "val",
    per_class: int = 4,
    domain: str = "colour",
) -> dict[str, dict[str, float]]:
    """Return the accuracy in percent of each half of each set, and the means over the sets.

    Args:
        encode_image: (N, 3, 64, 64) to (N, D).
        encode_text: (N, 77) byte-pair tokens to (N, D).
        split: of which pictures are drawn.
        per_class: pictures a class.
        domain: "colour" or "lineart".
    """
    table = {}
    for set_name in SETS:
        pictures = normalised(draw_split(set_name, split, per_class, domain))
        images = torch.cat([encode_image(part) for part in pictures.split(500)])
        texts = [TEMPLATE.format(name) for name in class_names(set_name)]
        text = F.normalize(encode_text(clip.tokenize(texts).long()), dim=-1)
        label = torch.arange(50).repeat_interleave(per_class)
        table[set_name] = {
            half: 100 * _accuracy(images, text, label, classes) for half, classes in HALVES.items()
        }
    table["mean"] = {half: sum(row[half] for row in table.values()) / len(table) for half in HALVES}
    return table


def _accuracy(images: Tensor, text: Tensor, label: Tensor, classes: slice) -> float:
    inside = (label >= classes.start) & (label < classes.stop)
    guess = (images[inside] @ text[classes].T).argmax(1) + classes.start
    return (guess == label[inside]).float().mean().item()


def zero_shot_of(model: CLIP, **options: object) -> dict[str, dict[str, float]]:
    """Return `zero_shot` of a finished CLIP."""
    return zero_shot(model.encode_image, model.encode_text, **options)


def as_text(table: dict[str, dict[str, float]]) -> str:
    """Return the table on one line: set base/new, ..."""
    return ", ".join(f"{name} {row['base']:.1f}/{row['new']:.1f}" for name, row in table.items())
