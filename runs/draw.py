"""Draw kept patches: their places in pixels, one marked picture, and a sheet for the logs."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

LEVEL_COLOURS = ("#ffd400", "#00c8ff")  # level 1, level 2
SIDE = 112  # pixels that a picture is enlarged to, at least
LINE, GAP = 14, 6  # pixels: height of a line of text, space between pictures


def to_pixels(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Undo the normalisation: (B, H, W, 3) in 0..1."""
    pixels = images * torch.tensor(std).view(3, 1, 1) + torch.tensor(mean).view(3, 1, 1)
    return pixels.clamp(0, 1).permute(0, 2, 3, 1)


def one_a_class(items: Sequence[Any], number: int) -> list[Any]:
    """The first item of each of `number` classes, evenly spread."""
    first: dict[str, Any] = {}
    for item in items:
        first.setdefault(item.classname, item)
    return list(first.values())[:: max(1, len(first) // number)][:number]


def boxes(kept: Sequence[int], side: int, grid: int) -> list[tuple[int, int, int, int]]:
    """Left, top, right and bottom of each kept patch, in pixels of a picture of `side` pixels.

    Patches are counted from 0, row by row, with `grid` of them in a row.
    """
    spans = list(pairwise(round(i * side / grid) for i in range(grid + 1)))
    places = [(spans[index % grid], spans[index // grid]) for index in kept]
    return [(left, top, right, bottom) for (left, right), (top, bottom) in places]


def darken(pixels: np.ndarray, kept: Sequence[int], grid: int) -> np.ndarray:
    """The pixels (H, H, 3) of a picture, dark except in its kept patches."""
    shown = pixels * 0.35
    for left, top, right, bottom in boxes(kept, len(pixels), grid):
        shown[top:bottom, left:right] = pixels[top:bottom, left:right]
    return shown


def mark_kept(picture: Image.Image, kept: Sequence[int], grid: int, level1: int) -> Image.Image:
    """The picture, dark except in its kept patches, which have frames in their level's colour."""
    shown = Image.fromarray(darken(np.asarray(picture), kept, grid).astype(np.uint8))
    drawing = ImageDraw.Draw(shown)
    for rank, (left, top, right, bottom) in enumerate(boxes(kept, picture.width, grid)):
        colour = LEVEL_COLOURS[rank >= level1]
        drawing.rectangle((left, top, right - 1, bottom - 1), outline=colour, width=2)
    return shown


def fitting(line: str, fits: Callable[[str], bool]) -> str:
    """A line, or as much of it as fits; a percentage at its end stays."""
    start, last = line, ""
    if line.endswith("%"):
        start, space, last = line.rpartition(" ")
        last = space + last
    while start and not fits(start + last):
        start = start[:-1]
    return start + last


def draw(
    pixels: Tensor, kept: Tensor, grid: int, level1: int, captions: Sequence[str], title: str
) -> np.ndarray:
    """A row of pictures, the kept patches of each below it, then its caption; (height, width, 3).

    `pixels` are (B, H, H, 3) in 0..1, `kept` (B, K) patches by rank, of which the first `level1`
    are level 1. Lines of a caption that are too long are cut, but for a percentage at the end.
    """
    side = pixels.shape[1] * -(-SIDE // pixels.shape[1])
    lines = max(caption.count("\n") for caption in captions) + 1
    size = (len(pixels) * (side + GAP) + GAP, 2 * (side + GAP) + (lines + 2) * LINE)
    canvas, font = Image.new("RGB", size, "white"), ImageFont.load_default(11)
    drawing = ImageDraw.Draw(canvas)
    drawing.text((GAP, 2), title, "black", font)
    for i, (picture, indices) in enumerate(zip(pixels, kept.tolist(), strict=True)):
        left, top = GAP + i * (side + GAP), LINE + GAP
        whole = Image.fromarray((picture * 255).round().byte().cpu().numpy())
        whole = whole.resize((side, side), Image.Resampling.NEAREST)
        canvas.paste(whole, (left, top))
        canvas.paste(mark_kept(whole, indices, grid, level1), (left, top + side + GAP))
        for n, line in enumerate(captions[i].split("\n")):
            line = fitting(line, lambda text: drawing.textlength(text, font) <= side)
            drawing.text((left, top + 2 * (side + GAP) + n * LINE), line, "black", font)
    return np.asarray(canvas)
