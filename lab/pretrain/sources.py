"""The drawings and names that the tiny CLIP is trained on: read from npm packages, rendered once.

Six designers' emoji sets (Apache 2.0, MIT, CC BY 4.0) and OpenMoji (CC BY-SA 4.0); names and tags
from emojibase-data (MIT). Users of the model need none of this.
"""

import base64
import contextlib
import json
import logging
import re
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datasets.emoji_pictures import SPRITE_SIZE, sprite
from datasets.pictures import open_picture

logger = logging.getLogger(__name__)

SETS = {
    "noto": "1.2.9",
    "noto-v1": "1.2.5",
    "twemoji": "1.2.5",
    "fluent-emoji-flat": "1.2.6",
    "emojione": "1.2.3",
    "fxemoji": "1.2.2",
}
EMOJIBASE = "17.0.0"
GROUPS = (0, 1, 3, 4, 5, 6, 7)  # emojibase's, without skin tones, symbols and flags
CLOCK_FACES = range(0x1F550, 0x1F568)


@dataclass(frozen=True)
class Concept:
    """One emoji: its name, and further words for it."""

    code_point: str
    name: str
    tags: tuple[str, ...]


@dataclass
class Sprites:
    """Every drawing of every concept."""

    pixels: Tensor  # (S, 4, 64, 64) uint8; colours already multiplied by opacity
    concept: Tensor  # (S,) index of the concept drawn
    is_openmoji: Tensor  # (S,) whether the drawing is OpenMoji's


def fetch(folder: Path) -> None:
    """Download the packages that are missing from `folder`, with npm."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {f"@iconify-json/{name}": version for name, version in SETS.items()}
    for name, version in (wanted | {"emojibase-data": EMOJIBASE}).items():
        if _archive(folder, name, version).exists():
            continue
        try:
            command = ["npm", "pack", "--silent", f"{name}@{version}"]
            subprocess.run(command, cwd=folder, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            message = f"Could not fetch {name}@{version} with npm: {error}. Is npm installed?"
            raise ChildProcessError(message) from error


def _archive(folder: Path, name: str, version: str) -> Path:
    return folder / f"{name.removeprefix('@').replace('/', '-')}-{version}.tgz"


def _read(folder: Path, name: str, version: str, member: str) -> Any:
    with tarfile.open(_archive(folder, name, version)) as archive:
        return json.load(archive.extractfile(f"package/{member}"))


def read_concepts(folder: Path) -> list[Concept]:
    """The emoji of one code point that depict something, in emojibase's order."""
    concepts = []
    for entry in _read(folder, "emojibase-data", EMOJIBASE, "en/data.json"):
        code = entry["hexcode"].removesuffix("-FE0F")
        single = "-" not in code and int(code, 16) not in CLOCK_FACES
        if entry.get("group") in GROUPS and single:
            concepts.append(Concept(code, entry["label"], tuple(entry.get("tags", ()))))
    return concepts


def load_sprites(folder: Path, concepts: list[Concept], cache: Path) -> Sprites:
    """All drawings, rendered once into `cache`."""
    if not cache.exists():
        pixels, owners, openmoji = zip(*_drawings(folder, concepts), strict=True)
        sprites = Sprites(torch.stack(pixels), torch.tensor(owners), torch.tensor(openmoji))
        cache.parent.mkdir(parents=True, exist_ok=True)
        torch.save(vars(sprites), cache)
    return Sprites(**torch.load(cache, weights_only=True))


def _drawings(folder: Path, concepts: list[Concept]) -> Iterator[tuple[Tensor, int, bool]]:
    """Pixels, index of the concept, and whether OpenMoji drew it."""
    for name, version in SETS.items():
        icons = _read(folder, f"@iconify-json/{name}", version, "icons.json")
        by_key = _icon_keys(icons, _read(folder, f"@iconify-json/{name}", version, "chars.json"))
        found = 0
        for index, concept in enumerate(concepts):
            key = by_key.get(concept.code_point.lower()) or by_key.get(squash(concept.name))
            if key is not None:
                found += 1
                yield _premultiplied(_render_svg(icons, key)), index, False
        logger.info("%s: %d of %d concepts", name, found, len(concepts))
    for index, concept in enumerate(concepts):
        with contextlib.suppress(ValueError):  # newer than the font
            yield _planes(sprite(concept.code_point)), index, True


def squash(name: str) -> str:
    """A name reduced to letters and digits, to match spellings across sets."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _icon_keys(icons: dict[str, Any], chars: dict[str, str]) -> dict[str, str]:
    """Map squashed names and lower-case code points to the names of icons."""
    keys = {squash(key): key for key in icons["icons"]}
    keys |= {
        code.removesuffix("-fe0f"): key for code, key in chars.items() if key in icons["icons"]
    }
    return keys


def _render_svg(icons: dict[str, Any], key: str) -> Image.Image:
    import resvg_py

    icon = icons["icons"][key]
    width = icon.get("width", icons.get("width", 16))
    height = icon.get("height", icons.get("height", 16))
    box = f"{icon.get('left', 0)} {icon.get('top', 0)} {width} {height}"
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{box}" width="{2 * SPRITE_SIZE}" height="{2 * SPRITE_SIZE}">{icon["body"]}</svg>'
    )
    png = resvg_py.svg_to_bytes(svg_string=svg)
    if not isinstance(png, bytes | bytearray | list):
        png = base64.b64decode(png)
    return open_picture(BytesIO(bytes(png)), mode="RGBA")


def _premultiplied(drawing: Image.Image) -> Tensor:
    """A drawing trimmed and fitted into a square; (4, 64, 64) uint8, premultiplied."""
    drawing = drawing.crop(drawing.getbbox())
    square = Image.new("RGBA", (max(drawing.size),) * 2)
    square.paste(drawing, tuple((max(drawing.size) - length) // 2 for length in drawing.size))
    return _planes(square.resize((SPRITE_SIZE,) * 2, Image.Resampling.BICUBIC).convert("RGBa"))


def _planes(drawing: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(drawing)).permute(2, 0, 1).contiguous()
