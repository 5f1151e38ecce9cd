"""Training pictures in batches: a drawing, restyled, on clutter.

The same kind of picture as `datasets.emoji_pictures` draws, but in batches, for speed, and in far
more styles: a style that was never seen is the hardest change for a model.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from datasets.emoji_pictures import OBJECT_SHARE, PATCH_SIZE, PICTURE_SIZE
from lab.pretrain.sources import Sprites

MEAN = (0.48145466, 0.4578275, 0.40821073)  # CLIP's
STD = (0.26862954, 0.26130258, 0.27577711)
OPENMOJI_CLUTTER = 0.6  # OpenMoji's drawings are shown mildly: clutter up to this share


class Pictures(NamedTuple):
    """Pictures, normalised as CLIP's input, and whether each patch shows the object."""

    pixels: Float[Tensor, "B 3 64 64"]
    on_object: Bool[Tensor, "B 64"]


def normalised(pixels: Float[Tensor, "B 3 64 64"]) -> Float[Tensor, "B 3 64 64"]:
    """Pixels of 0 to 1 as CLIP's input."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return (pixels - mean) / std


class Composer:
    """Turns indices of drawings into pictures; `hardness` is the share of the full clutter, 0-1."""

    def __init__(self, sprites: Sprites, generator: Generator, hardness: float = 1.0) -> None:
        self.sprites, self.generator, self.hardness = sprites, generator, hardness

    def __call__(self, chosen: Int[Tensor, "B"]) -> Pictures:
        """Compose one picture for each chosen drawing."""
        B = len(chosen)
        clutter = self.hardness * self._uniform(B).sqrt()  # now and then clean
        mild = self.sprites.is_openmoji[chosen]
        clutter = torch.where(mild, clutter * OPENMOJI_CLUTTER, clutter)
        canvas = self._background(B, clutter)
        for _ in range(2):
            canvas = self._scatter_fragments(canvas, clutter)
        drawing = self._restyle(self.sprites.pixels[chosen].float() / 255)
        size = self._uniform(B, 0.75 - 0.37 * self.hardness, 0.9)
        centre = self._uniform((B, 2), -1, 1) * (1 - 0.9 * size[:, None])
        layer = self._warp(drawing, size, centre, self._uniform(B, -0.6, 0.6))
        layer = torch.cat([self._recolour(layer[:, :3], 0.9), layer[:, 3:]], 1)
        canvas = canvas * (1 - layer[:, 3:]) + layer[:, :3]
        reach = 0.5 * size * clutter * self._uniform(B)
        where = centre + size[:, None] * self._uniform((B, 2), -0.9, 0.9)
        cover = self._blob(where, reach)
        canvas = torch.lerp(canvas, self._uniform((B, 3, 1, 1)).expand_as(canvas), cover)
        visible = layer[:, 3:] * (1 - cover)
        canvas = self._degrade(canvas, clutter)
        share = F.avg_pool2d(visible, PATCH_SIZE).flatten(1)
        return Pictures(normalised(canvas.clamp(0, 1)), share > OBJECT_SHARE)

    def _uniform(self, shape: int | tuple[int, ...], low: float = 0, high: float = 1) -> Tensor:
        shape = (shape,) if isinstance(shape, int) else shape
        return torch.rand(shape, generator=self.generator) * (high - low) + low

    def _some(self, B: int, share: float) -> Int[Tensor, "n"]:
        """The indices of a random share of the batch."""
        return (self._uniform(B) < share).nonzero().flatten()

    def _background(self, B: int, clutter: Float[Tensor, "B"]) -> Float[Tensor, "B 3 64 64"]:
        """Smooth noise of several grains, gradients, stripes; then blobs."""
        sizes = (1, 2, 2, 3, 5, 7, 9, 12)
        parts = [
            F.interpolate(self._uniform((len(part), 3, k, k)), PICTURE_SIZE, mode="bilinear")
            for k, part in zip(sizes, torch.arange(B).chunk(len(sizes)), strict=False)
        ]
        canvas = torch.cat(parts)[torch.randperm(B, generator=self.generator)]
        striped = self._some(B, 0.3)
        canvas[striped] = self._stripes(len(striped))
        for _ in range(5):
            present = self._some(B, 0.6)
            present = present[self._uniform(len(present)) < clutter[present]]
            n = len(present)
            cover = self._blob(self._uniform((n, 2), -1.1, 1.1), self._uniform(n, 0.06, 0.45))
            canvas[present] = torch.lerp(
                canvas[present], self._uniform((n, 3, 1, 1)).expand(n, 3, 64, 64), cover
            )
        return canvas

    def _stripes(self, n: int) -> Float[Tensor, "n 3 64 64"]:
        angle, waves = self._uniform((n, 1, 1), 0, math.pi), self._uniform((n, 1, 1), 2, 12)
        axis = torch.linspace(0, math.pi, PICTURE_SIZE)
        phase = waves * (angle.cos() * axis[:, None] + angle.sin() * axis)
        first, second = self._uniform((2, n, 3, 1, 1))
        return torch.lerp(first, second, (0.5 + 0.5 * phase.sin())[:, None].expand(n, 3, 64, 64))

    def _blob(
        self, centre: Float[Tensor, "n 2"], reach: Float[Tensor, "n"]
    ) -> Float[Tensor, "n 1 64 64"]:
        """The cover (0 or 1) of ellipses and rectangles of random stretch."""
        n = len(reach)
        axis = torch.linspace(-1, 1, PICTURE_SIZE)
        stretch = self._uniform(n, -1, 1).exp()
        dx = (axis - centre[:, :1]) / (reach * stretch + 1e-6)[:, None]
        dy = (axis - centre[:, 1:]) / (reach / stretch + 1e-6)[:, None]
        power = torch.where(self._uniform(n) < 0.6, 2.0, 8.0)[:, None]
        far = (dx.abs() ** power)[:, None, :] + (dy.abs() ** power)[:, :, None]
        return (far < 1).float()[:, None]

    def _scatter_fragments(self, canvas: Tensor, clutter: Tensor) -> Tensor:
        """Lay pieces of random drawings over some of the pictures."""
        present = self._some(len(canvas), 0.7)
        present = present[self._uniform(len(present)) < clutter[present]]
        if len(present) == 0:
            return canvas
        n, half = len(present), PICTURE_SIZE // 2
        drawn = torch.randint(len(self.sprites.pixels), (n,), generator=self.generator)
        corner = torch.randint(0, half, (2,), generator=self.generator).tolist()
        rows, cols = (slice(start, start + half) for start in corner)
        piece = self.sprites.pixels[drawn][:, :, rows, cols].float() / 255
        size, centre = self._uniform(n, 0.18, 0.4), self._uniform((n, 2), -1, 1)
        layer = self._warp(piece, size, centre, self._uniform(n, -math.pi, math.pi))
        colours = self._recolour(layer[:, :3], math.pi)
        canvas[present] = canvas[present] * (1 - layer[:, 3:]) + colours
        return canvas

    def _warp(self, drawing: Tensor, size: Tensor, centre: Tensor, turn: Tensor) -> Tensor:
        """Scale (share of the picture), turn (radians), mirror and move; (n, 4, 64, 64)."""
        n = len(drawing)
        mirror = torch.where(self._uniform(n) < 0.5, -1.0, 1.0)
        aspect = self._uniform(n, -0.15, 0.15).exp()
        cos, sin = turn.cos() / size, turn.sin() / size
        rows = torch.stack([mirror * aspect * cos, mirror * aspect * sin, -sin, cos], 1)
        matrix = rows.view(n, 2, 2)
        shift = -(matrix @ centre[:, :, None])
        frame = [n, 4, PICTURE_SIZE, PICTURE_SIZE]
        grid = F.affine_grid(torch.cat([matrix, shift], 2), frame, align_corners=False)
        return F.grid_sample(drawing, grid, mode="bilinear", align_corners=False)

    def _recolour(self, colours: Tensor, most: float) -> Tensor:
        """Turn hues about the grey axis by up to `most` radians, some by none; fade some."""
        n = len(colours)
        angle = self._uniform(n, -most, most) * (self._uniform(n) < 0.8)
        cos, sin = angle.cos(), angle.sin() / math.sqrt(3)
        saturation = torch.where(self._uniform(n) < 0.15, self._uniform(n), 1.0)
        eye, third = torch.eye(3), torch.full((3, 3), 1 / 3)
        around = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]])
        turn = cos[:, None, None] * (eye - third) + sin[:, None, None] * around
        matrix = saturation[:, None, None] * turn + third
        light = self._uniform((n, 1, 1), 0.75, 1.2)
        return ((light * matrix) @ colours.flatten(2)).clamp(0, 1).view_as(colours)

    def _restyle(self, drawing: Float[Tensor, "B 4 64 64"]) -> Float[Tensor, "B 4 64 64"]:
        """Give some drawings dark outlines, flat colours, or make them line art."""
        B = len(drawing)
        flat = self._some(B, 0.2)
        drawing[flat] = (drawing[flat] * 5).round() / 5
        outlined = self._some(B, 0.35)
        drawing[outlined] = outline(drawing[outlined], self._uniform((len(outlined), 1, 1, 1)))
        inked = self._some(B, 0.08)
        drawing[inked] = line_art(drawing[inked])
        return drawing

    def _degrade(self, canvas: Tensor, clutter: Tensor) -> Tensor:
        """Blur some pictures, and add noise."""
        blurred = self._some(len(canvas), 0.15)
        canvas[blurred] = F.avg_pool2d(canvas[blurred], 3, 1, 1, count_include_pad=False)
        noise = torch.rand(canvas.shape, generator=self.generator).sub_(0.5).mul_(math.sqrt(12))
        level = self._uniform(len(canvas), 0, 0.13) * clutter
        return canvas + noise * level[:, None, None, None]


def outline(
    drawing: Float[Tensor, "n 4 64 64"], strength: Float[Tensor, "n 1 1 1"]
) -> Float[Tensor, "n 4 64 64"]:
    """Draw dark lines round the shape and along the strong edges inside."""
    if len(drawing) == 0:
        return drawing
    colour, alpha = drawing[:, :3], _dilate(drawing[:, 3:])
    inner = 1 - _dilate(1 - drawing[:, 3:])
    grey = colour.mean(1, keepdim=True)
    spread = _dilate(grey) + _dilate(1 - grey) - 1
    edge = (spread > 0.15 + 0.35 * strength).float() * alpha
    line = torch.maximum(edge, alpha - inner).clamp(0, 1)
    return torch.cat([colour * (1 - line), alpha], 1)


def _dilate(x: Float[Tensor, "n k 64 64"]) -> Float[Tensor, "n k 64 64"]:
    """The greatest of each pixel and its neighbours; several times faster than pooling."""
    for dim in (2, 3):
        length = x.shape[dim]
        wide = torch.cat([x.narrow(dim, 0, 1), x, x.narrow(dim, length - 1, 1)], dim)
        x = torch.maximum(
            torch.maximum(wide.narrow(dim, 0, length), x), wide.narrow(dim, 2, length)
        )
    return x


def line_art(drawing: Float[Tensor, "n 4 64 64"]) -> Float[Tensor, "n 4 64 64"]:
    """Keep dark pixels and strong edges as ink, and turn the rest into white paper."""
    if len(drawing) == 0:
        return drawing
    inked = outline(drawing, torch.full((len(drawing), 1, 1, 1), 0.3))
    grey = inked[:, :3].mean(1, keepdim=True)
    paper = torch.where(grey < 0.3 * inked[:, 3:], 0.15, 0.96) * inked[:, 3:]
    return torch.cat([paper.expand(-1, 3, -1, -1), inked[:, 3:]], 1)
