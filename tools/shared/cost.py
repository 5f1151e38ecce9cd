"""What runs will take, before they begin: seconds and bytes, by the size of the CLIP.

The image tower is timed on this machine, with random weights. Everything else is counted: a block
of width W takes 24 W^2 operations a token, and 4 W for each token that it attends to. Memory is
what stands at the same time: weights, and the larger of what the image tower needs for a batch and
of what the text tower keeps of each class for the backward pass.
"""

import time
from typing import NamedTuple

import torch
from torch import nn

from models.clip.image_tower import build_visual_encoder
from models.clip.load import random_clip
from models.clip.text_tower import KEPT_SCORES, KEPT_WIDTHS

PREFIX, TAIL = 5, 4  # tokens of a prompt: those that all classes share, those of a class's own
BACKWARD = 3  # a forward and a backward pass, in forward passes
WIDTHS = 15  # of a token in the image tower at a time, without a gradient; measured
FLOAT = 4  # bytes
START = 8.0  # seconds of a run beside its pictures, on a core of 2026
PROCESS = 0.7e9  # bytes of a process that has loaded torch
TIMED = 5e10  # operations of the batch that is timed, at most MOST pictures
MOST, ROUNDS = 64, 3


class Size(NamedTuple):
    """What of a CLIP decides time and memory."""

    parameters: int
    layers: int
    width: int
    tokens: int  # of a picture
    text_layers: int
    text_width: int

    def picture_flop(self) -> float:
        """Operations of the image tower for a picture; a product and a sum count as two."""
        return self.layers * self.tokens * (24 * self.width**2 + 4 * self.tokens * self.width)

    def prompt_flop(self) -> float:
        """Operations of the text tower for a class; what all classes share is left out."""
        reach = 4 * (PREFIX + TAIL) * self.text_width
        return self.text_layers * TAIL * (24 * self.text_width**2 + reach)


class Work(NamedTuple):
    """What a run has to do."""

    pictures: int  # that pass through the image tower, each time counted
    steps: int  # of training
    decoded: int  # pictures that are read from files


def size_of(clip: nn.Module) -> Size:
    """The size of a CLIP whose image tower is a ViT."""
    visual, text = clip.visual, clip.transformer
    return Size(
        sum(p.numel() for p in clip.parameters()),
        *(visual.transformer.layers, visual.transformer.width),
        *(visual.positional_embedding.shape[0], text.layers, text.width),
    )


@torch.no_grad()
def measure(backbone: str, device: torch.device) -> tuple[Size, float]:
    """The size of a backbone, and how many pictures a second its image tower takes here."""
    clip = random_clip(backbone)
    size, visual = size_of(clip), build_visual_encoder(clip.visual).to(device)
    number = MOST if device.type == "cuda" else max(1, min(MOST, int(TIMED / size.picture_flop())))
    side = clip.visual.input_resolution
    pictures, best = torch.zeros(number, 3, side, side, device=device), float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        visual(pictures).cls.sum().item()  # waits for the device
        best = min(best, time.perf_counter() - start)
    return size, number / best


def seconds(size: Size, work: Work, classes: int, rate: float, reading: float) -> float:
    """How long a run takes, at `rate` pictures/s and `reading` seconds a picture."""
    text = BACKWARD * work.steps * classes * size.prompt_flop() / size.picture_flop()
    return START + (work.pictures + text) / rate + reading * work.decoded


def memory(size: Size, classes: int, batch: int) -> float:
    """Bytes of weights and of a training step in float32."""
    heads = size.text_width // 64
    kept = KEPT_WIDTHS * size.text_width + KEPT_SCORES * heads * (PREFIX + TAIL)
    text = classes * size.text_layers * TAIL * kept
    images = batch * size.tokens * size.width * WIDTHS
    return float(FLOAT * (size.parameters + max(text, images)))
