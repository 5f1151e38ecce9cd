"""Which pictures are there and can be decoded, and which of them are the same."""

from __future__ import annotations

import hashlib
import io
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from rich.console import Console
from rich.progress import track

CHUNK = 1024  # pictures that are waited for at a time


class Pictures(NamedTuple):
    """What was found.

    Attributes:
        missing: paths of no file.
        unreadable: what is wrong with a file, by path.
        digests: of the content of each file, by path; empty after a quick look.
    """

    missing: set[str]
    unreadable: dict[str, str]
    digests: dict[str, bytes]


def examine(paths: Sequence[str], workers: int, *, quick: bool, title: str) -> Pictures:
    """Look at every picture.

    Args:
        paths: of the pictures.
        workers: threads that read.
        quick: only look whether the files are there.
        title: of the progress bar.
    """
    found = Pictures(set(), {}, {})
    chunks = [paths[first : first + CHUNK] for first in range(0, len(paths), CHUNK)]
    silent = not sys.stderr.isatty()
    with ThreadPoolExecutor(workers) as pool:
        for chunk in track(chunks, title, console=Console(stderr=True), disable=silent):
            states = pool.map(exists if quick else decode, chunk)
            for path, state in zip(chunk, states, strict=True):
                if state is None:
                    found.missing.add(path)
                elif isinstance(state, str):
                    found.unreadable[path] = state
                elif state:
                    found.digests[path] = state
    return found


def exists(path: str) -> bytes | None:
    """Return nothing of interest, or None where there is no file."""
    return b"" if Path(path).is_file() else None


def decode(path: str) -> bytes | str | None:
    """Return a digest of a picture's file, what is wrong with it, or None where there is none."""
    if not Path(path).is_file():
        return None
    try:
        content = Path(path).read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            image.convert("RGB")
    except Exception as error:  # a decoder that is fed with broken bytes may raise anything
        return str(error) or type(error).__name__
    return hashlib.sha256(content).digest()
