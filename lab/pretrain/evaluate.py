"""Zero-shot accuracy on pictures of the embedded benchmark, drawn in memory."""

from collections.abc import Callable
from functools import lru_cache

import clip
import numpy as np
import torch
import torch.nn.functional as F
from clip.model import CLIP
from jaxtyping import Bool, UInt8
from torch import Tensor

from datasets.emoji_pictures import SETS, class_names, draw_picture
from lab.pretrain.compose import normalised

CLASSES = 25  # of each half of a set
HALVES = {"base": slice(CLASSES), "new": slice(CLASSES, 2 * CLASSES)}
TEMPLATE = "a photo of a {}."
Encoder = Callable[[Tensor], Tensor]


@lru_cache(maxsize=16)
def draw(
    set_name: str, split: str, half: str, per_class: int, domain: str = "colour"
) -> tuple[UInt8[Tensor, "N 3 64 64"], Bool[Tensor, "N 64"]]:
    """The first pictures of each class of a half, class by class, and the masks of the objects."""
    pictures, masks = zip(
        *[
            draw_picture(set_name, domain, split, name, index)
            for name in class_names(set_name)[HALVES[half]]
            for index in range(per_class)
        ],
        strict=True,
    )
    pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()
    return pixels, torch.from_numpy(np.stack(masks))


@torch.no_grad()
def zero_shot(
    encode_image: Encoder,
    encode_text: Encoder,
    split: str = "val",
    per_class: int = 4,
    domain: str = "colour",
) -> dict[str, dict[str, float]]:
    """The accuracy in percent on each half of each set, and the means over the sets.

    `encode_image` takes (N, 3, 64, 64), `encode_text` (N, 77) byte-pair tokens; both give (N, D).
    """
    table: dict[str, dict[str, float]] = {name: {} for name in SETS}
    for set_name in SETS:
        for half, classes in HALVES.items():
            pixels, _ = draw(set_name, split, half, per_class, domain)
            inputs = normalised(pixels.float() / 255).split(500)
            images = torch.cat([encode_image(part) for part in inputs])
            texts = [TEMPLATE.format(name) for name in class_names(set_name)[classes]]
            text = F.normalize(encode_text(clip.tokenize(texts).long()), dim=-1)
            label = torch.arange(CLASSES).repeat_interleave(per_class)
            right = (images @ text.T).argmax(1) == label
            table[set_name][half] = 100 * right.float().mean().item()
    table["mean"] = {half: sum(row[half] for row in table.values()) / len(SETS) for half in HALVES}
    return table


def zero_shot_of(model: CLIP, **options: object) -> dict[str, dict[str, float]]:
    """`zero_shot` of a finished CLIP."""
    return zero_shot(model.encode_image, model.encode_text, **options)
