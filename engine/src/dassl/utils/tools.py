"""Files, pictures, names, seeds and a description of the machine."""

import difflib
import json
import logging
import platform
import random
import sys
import warnings
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

__all__ = [
    "check_availability", "check_isfile", "collect_env_info", "listdir_nohidden",
    "mkdir_if_missing", "read_image", "read_json", "set_random_seed", "tolist_if_not", "write_json",
]

logger = logging.getLogger(__name__)

# Nothing else is decoded, whatever a file is called: Pillow hands PostScript to another program.
FORMATS = {"JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF", "HEIF"}
ORIENTATION = 0x0112  # EXIF tag
MAX_8_BITS, MAX_16_BITS = 255, 65535


def mkdir_if_missing(dirname: str | Path) -> None:
    """Make a folder and its parents where they do not exist."""
    Path(dirname).mkdir(parents=True, exist_ok=True)


def check_isfile(fpath: str | Path) -> bool:
    """Return whether a file exists, and warn if it does not."""
    isfile = Path(fpath).is_file()
    if not isfile:
        warnings.warn(f"No file found at {fpath}", stacklevel=2)
    return isfile


def listdir_nohidden(path: str | Path, sort: bool = False) -> list[str]:
    """Return the names in a folder that do not start with a dot, in any order or sorted."""
    names = [entry.name for entry in Path(path).iterdir() if not entry.name.startswith(".")]
    return sorted(names) if sort else names


def read_json(fpath: str | Path) -> Any:
    """Read a JSON file."""
    return json.loads(Path(fpath).read_text(encoding="utf-8"))


def write_json(obj: Any, fpath: str | Path) -> None:
    """Write a JSON file, indented by four; its folder is made if it does not exist."""
    mkdir_if_missing(Path(fpath).parent)
    text = json.dumps(obj, indent=4, separators=(",", ": "))
    Path(fpath).write_text(text, encoding="utf-8")


def read_image(path: str | Path) -> Image.Image:
    """Read a picture as RGB: the first frame, as it is stored, whatever its EXIF orientation.

    Raises FileNotFoundError if there is no such file; ValueError if the file is not a picture that
    can be decoded.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"No picture at {path}; check DATASET.ROOT and the split file")
    try:
        Image.init()  # fills OPEN with the formats that this Pillow can decode
        with Image.open(path, formats=sorted(FORMATS & Image.OPEN.keys())) as image:
            if image.getexif().get(ORIENTATION, 1) != 1:
                _warn_of_orientation()
            return _eight_bits(image).convert("RGB")
    except Exception as error:  # a decoder may raise anything on broken bytes
        raise ValueError(f"{path} cannot be read as a picture: {error}") from error


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale 16 bits a channel to 8; Pillow's own conversion cuts all above 255."""
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return image
    pixels = np.asarray(image)
    if image.mode == "F" or pixels.min() < 0 or pixels.max() > MAX_16_BITS:
        raise ValueError(f"pixels of mode {image.mode}; convert it to 8 or 16 bits a channel")
    if image.mode == "I" and pixels.max() <= MAX_8_BITS:
        return image
    return Image.fromarray((pixels // (MAX_8_BITS + 2)).astype(np.uint8))


@cache
def _warn_of_orientation() -> None:
    logger.warning(
        "Some pictures have an EXIF rotation flag, which is ignored (as in CoOp): they are "
        "processed as stored, perhaps sideways"
    )


def set_random_seed(seed: int) -> None:
    """Seed Python's, NumPy's and torch's generators, those of the accelerators included."""
    import torch

    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - upstream's transforms and data sets draw from it
    torch.manual_seed(seed)
    torch.cuda.manual_seed_all(seed)


def tolist_if_not(x: Any) -> list[Any]:
    """Return a list as it is and anything else as the one item of a list."""
    return x if isinstance(x, list) else [x]


def check_availability(requested: str, available: Iterable[str], kind: str = "name") -> None:
    """Refuse a name that is not among those available; ``kind`` is for the message.

    Raises ValueError if the name is not available; it lists those that are and suggests the
    nearest.
    """
    available = list(available)
    if requested in available:
        return
    by_lower_case = {name.lower(): name for name in available}
    nearest = difflib.get_close_matches(str(requested).lower(), by_lower_case, n=1, cutoff=0)
    hint = f'; did you mean "{by_lower_case[nearest[0]]}"?' if nearest else ""
    raise ValueError(f'"{requested}" is not a registered {kind}; available: {available}{hint}')


def collect_env_info() -> str:
    """Describe Python, the platform, the packages and the accelerators, one per line."""
    import torch

    lines = [f"Python: {sys.version.split()[0]}", f"Platform: {platform.platform()}"]
    for package in ("torch", "torchvision", "numpy", "pillow", "yacs", "dassl"):
        try:
            lines.append(f"{package}: {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            lines.append(f"{package}: not installed as a package")
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        lines.append(f"CUDA: {torch.version.cuda}, {', '.join(names)}")
    else:
        lines.append("CUDA: not available")
    lines.append(f"CPU threads: {torch.get_num_threads()}")
    return "\n".join(lines)
