"""The one place that finds and opens pictures: suffixes, class folders, decoding."""

import contextlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

with contextlib.suppress(ImportError):  # requirements-heic.txt
    from pillow_heif import register_heif_opener

    register_heif_opener()
Image.init()  # loads the formats that this Pillow can decode

KINDS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"), "PNG": (".png", ".apng"), "BMP": (".bmp",),
    "WEBP": (".webp",), "GIF": (".gif",), "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"), "JPEG2000": (".jp2", ".j2k"), "AVIF": (".avif",),
    "HEIF": (".heic", ".heif"),
}
# Nothing else is decoded, whatever a file is called: Pillow hands PostScript to another program.
FORMATS = tuple(kind for kind in KINDS if kind in Image.OPEN)
SUFFIXES = tuple(suffix for kind in FORMATS for suffix in KINDS[kind])
NEEDS = {
    "HEIF": "pip install -r requirements-heic.txt", "AVIF": "pip install 'pillow>=11.3'",
    "JPEG2000": "a Pillow with JPEG 2000",
}
# First bytes of files that are taken for pictures, their kind, and what to do if it is not read.
HEADS = (
    (rb"%PDF", "PDF", "it is a PDF; save the page that you mean as a PNG or JPEG"),
    (rb".{4}ftyp(hei|hev|mif1|msf1)", "HEIF", f"it is a HEIC picture; run: {NEEDS['HEIF']}"),
    (rb".{4}ftypavi", "AVIF", f"it is an AVIF picture; run: {NEEDS['AVIF']}"),
)
MAX_PIXELS = 64_000_000  # of one picture; to decode it takes 250 to 500 MB
FEWER = {"WEBP": MAX_PIXELS // 2}  # its decoder takes twice as much

# What file systems, disk stations and zip programs leave, in lower case.
SYSTEM_FOLDERS = {
    *("__macosx", "@eadir", "@tmp", "#recycle", "#snapshot", "$recycle.bin", "recycler"),
    *("system volume information", "lost+found", "lost.dir", "__pycache__"),
}
SYSTEM_FILES = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}
RUN_FILES = ("config.yaml", "results.json")  # one of them is in every output folder of a run

ORIENTATION = 0x0112  # EXIF tag
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}
TURNED = "turned"  # key of a picture's `info`, see `open_picture`
MAX_8_BITS, MAX_16_BITS = 255, 65535


class Found(NamedTuple):
    """The files of a folder and of all folders below it, sorted."""

    pictures: list[Path]  # by their suffixes
    others: list[Path]


def find(folder: Path, *, deep: bool = True) -> Found:
    """Find the pictures of a folder, and of those below it if `deep`; none without a folder.

    Hidden files, system folders and output folders of runs do not count. Links are followed, but a
    folder that is reached twice is read once.
    """
    paths = list(_files(folder, deep)) if folder.is_dir() else []
    pictures = [path for path in paths if _is_picture(path)]
    return Found(pictures, [path for path in paths if not _is_picture(path)])


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def _files(folder: Path, deep: bool, seen: set[Path] | None = None) -> Iterator[Path]:
    if seen is None:  # a link to a folder above would bring the pictures of other classes
        seen = {parent.resolve() for parent in folder.absolute().parents}
    real = folder.resolve()
    if real in seen:
        return
    seen.add(real)
    with os.scandir(folder) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        path = folder / entry.name
        if entry.is_dir():
            if deep and not _is_foreign(path):
                yield from _files(path, deep, seen)
        elif not entry.name.startswith(".") and entry.name.lower() not in SYSTEM_FILES:
            yield path


def _is_foreign(folder: Path) -> bool:
    """Return whether a folder is hidden, a system's, or the output folder of a run."""
    name = folder.name.lower()
    return (
        name.startswith(".")
        or name in SYSTEM_FOLDERS
        or any((folder / file).is_file() for file in RUN_FILES)
    )


def folders_in(folder: Path) -> list[str]:
    """Return the names of the folders right in a folder, sorted, without foreign ones."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir())
    return [name for name in names if not _is_foreign(folder / name)]


def class_folders(folder: Path) -> list[str]:
    """Return the names of the folders that hold a picture, sorted."""
    names = folders_in(folder)
    return [name for name in names if any(map(_is_picture, _files(folder / name, deep=True)))]


def counted(reason: str, paths: Sequence[Path]) -> str:
    """Return a number and why so many are left out, as "1 file of another kind"."""
    return f"{len(paths):,} {reason.replace('s ', ' ', 1) if len(paths) == 1 else reason}"


def what_is_left(reason: str, paths: Sequence[Path]) -> str:
    """Return how many files or folders are left out and why, one of them, and what would help."""
    suffixes = Counter(path.suffix.lower() for path in paths)
    kinds = ", ".join(f"{n} {suffix}" for suffix, n in sorted(suffixes.items()) if suffix)
    kinds = f" ({kinds})" if kinds else ""
    cures = [
        f"; {KINDS[kind][0]} needs: {cure}"
        for kind, cure in NEEDS.items()
        if kind not in FORMATS and suffixes.keys() & KINDS[kind]
    ]
    return f"{counted(reason, paths)}{kinds}, as {shown(paths[0])}{''.join(cures)}"


def shown(text: object) -> str:
    r"""Return a text that every encoding of Unicode holds: bytes that are no UTF-8 as \xb9."""
    whole = str(text).encode("utf-8", "surrogateescape")
    return whole.decode("utf-8", "backslashreplace")


def open_picture(
    source: str | Path | IO[bytes], upright: bool = False, mode: str = "RGB"
) -> Image.Image:
    """Open and decode a picture, of an animation the first frame; turned by EXIF if `upright`.

    Where the EXIF data call for a turn, `info["turned"]` of the picture is "upright" if it was
    turned and "stored" if not, else "". A TIFF is always upright; so is a HEIC file, of which
    `info` says nothing. Raises FileNotFoundError if there is no such file; ValueError if the file
    cannot be read as a picture, or has more than `MAX_PIXELS` pixels.
    """
    name = shown(source) if isinstance(source, str | Path) else "the picture"
    if isinstance(source, str | Path) and not Path(source).is_file():
        raise FileNotFoundError(f"No picture at {name}")
    try:
        with Image.open(source, formats=FORMATS) as image:
            _require_bounded(image)
            called_for = _orientation(image)
            image.load()
            left = _orientation(image)  # of a TIFF nothing: Pillow has turned it
            picture = _eight_bits(image)
            picture = picture if picture.mode == mode else picture.convert(mode)
    except Exception as error:  # a decoder that is fed with broken bytes may raise anything
        what = shown(str(error) or type(error).__name__)
        if isinstance(error, UnidentifiedImageError):
            what = _what_it_is(source)
        raise ValueError(f"{name} cannot be read as a picture: {what}") from error
    if upright and left in TURNS:
        picture = picture.transpose(TURNS[left])
    how = "upright" if upright or left not in TURNS else "stored"
    picture.info[TURNED] = how if called_for in TURNS else ""
    return picture


def _what_it_is(source: str | Path | IO[bytes]) -> str:
    """Say why no decoder takes a file, and what helps, from its first bytes."""
    if isinstance(source, str | Path):
        with Path(source).open("rb") as file:
            return _what_it_is(file)
    source.seek(0)
    head = source.read(16)
    for pattern, kind, what in HEADS:
        if kind not in FORMATS and re.match(pattern, head, re.DOTALL):
            return what
    return "it is of no format that is read here, or it is damaged"


def _require_bounded(image: Image.Image) -> None:
    width, height = image.size
    most = FEWER.get(image.format or "", MAX_PIXELS)
    if width * height > most:
        raise ValueError(
            f"it has {width} x {height} pixels, at most {most:,} are read; make it smaller "
            "(MAX_PIXELS in datasets/pictures.py)"
        )


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # damaged EXIF data do no harm to the pixels
        return 1


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale 16 bits a pixel to 8; Pillow's own conversion cuts all above 255."""
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return image
    pixels = np.asarray(image)
    if image.mode == "F" or pixels.min() < 0 or pixels.max() > MAX_16_BITS:
        raise ValueError(f"pixels of mode {image.mode}; convert it to 8 or 16 bits a channel")
    if image.mode == "I" and pixels.max() <= MAX_8_BITS:
        return image
    return Image.fromarray((pixels // (MAX_8_BITS + 2)).astype(np.uint8))
