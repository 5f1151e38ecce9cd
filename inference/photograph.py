"""A photograph in its own shape, and on it where a model looked: kept patches, maps of scores.

The places of patches are those in the square that the model sees; here they are drawn on the
whole picture, in which a light frame is around that square.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import matplotlib as mpl
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from runs.draw import LEVEL_COLOURS, boxes, darken, mark_kept

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from inference.predictor import SpotlighterPredictor

SIDE = 560  # pixels that the seen square is drawn with: a multiple of 7, 8, 10, 14 and 16 patches
WIDEST = 3  # times as long as it is broad; of a longer picture the middle is drawn
SMALL, LARGE = 11, 24  # pixels: height of a rank
ROOM = 30  # pixels of a patch that has room for its rank
OPACITY = 0.65  # of a map
FRAME = "#dddddd"


class Photograph(NamedTuple):
    """A picture to draw on."""

    picture: Image.Image
    square: tuple[int, int, int, int]
    """Left, top, right and bottom of what the model sees, in its pixels; `SIDE` wide and high."""

    @classmethod
    def of(cls, picture: Image.Image, predictor: SpotlighterPredictor) -> Photograph:
        """A picture, enlarged or reduced; of one that is longer than `WIDEST` the middle."""
        width, height = picture.size
        longest = WIDEST * min(width, height)
        if longest < max(width, height):
            x, y = max(0, width - longest) // 2, max(0, height - longest) // 2
            picture = picture.crop((x, y, width - x, height - y))
        left, top, right, bottom = predictor.seen_square(picture)
        across, down = SIDE / (right - left), SIDE / (bottom - top)
        size = max(SIDE, round(picture.width * across)), max(SIDE, round(picture.height * down))
        x, y = min(round(left * across), size[0] - SIDE), min(round(top * down), size[1] - SIDE)
        return cls(picture.resize(size, Image.Resampling.BICUBIC), (x, y, x + SIDE, y + SIDE))

    def with_square(self, picture: Image.Image, square: Image.Image, grid: int) -> Image.Image:
        """A picture of this size, dark but for another square in it, and a frame around that."""
        whole = Image.fromarray(darken(np.asarray(picture), (), grid).astype(np.uint8))
        whole.paste(square, self.square[:2])
        if whole.size != (SIDE, SIDE):
            left, top, right, bottom = self.square
            ImageDraw.Draw(whole).rectangle((left, top, right - 1, bottom - 1), outline=FRAME)
        return whole

    def with_kept(self, kept: Sequence[int], grid: int, level1: int) -> Image.Image:
        """The picture, dark but for its kept patches, which are framed by level and numbered."""
        square = mark_kept(self.picture.crop(self.square), kept, grid, level1)
        return self.with_square(self.picture, with_ranks(square, kept, grid, level1), grid)

    def with_map(self, score: Tensor, grid: int) -> Image.Image:
        """The picture in grey with a score (N,) of its patches over it; nothing where it is nan."""
        grey = self.picture.convert("L").convert("RGB")
        values = np.ma.masked_invalid(score.float().numpy().reshape(grid, grid))
        span = float(np.ma.ptp(values)) or 1.0
        colours = mpl.colormaps["inferno"]((values - values.min()) / span)  # (grid, grid, 4)
        colours[..., 3] = np.where(values.mask, 0, OPACITY)
        layer = Image.fromarray((colours * 255).round().astype(np.uint8))
        square = grey.crop(self.square)
        layer = layer.resize(square.size, Image.Resampling.NEAREST)
        square.paste(layer, mask=layer)
        return self.with_square(grey, square, grid)


def with_ranks(square: Image.Image, kept: Sequence[int], grid: int, level1: int) -> Image.Image:
    """Number kept patches: in their corners, or above them (below the first row) if they are small.

    The picture itself is drawn on.
    """
    drawing = ImageDraw.Draw(square)
    for rank, (left, top, right, bottom) in enumerate(boxes(kept, square.width, grid), 1):
        height = bottom - top
        size = min(LARGE, max(SMALL, round(0.4 * height)))
        place, anchor = (left + 4, top + 4), "lt"
        if height < ROOM:
            middle = (left + right) // 2
            place, anchor = ((middle, bottom + 2), "mt") if not top else ((middle, top - 2), "mb")
        drawing.text(
            place, str(rank), LEVEL_COLOURS[rank > level1], ImageFont.load_default(size),
            anchor=anchor, stroke_width=2, stroke_fill="black",
        )
    return square
