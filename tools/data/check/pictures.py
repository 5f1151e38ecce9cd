"""Which pictures are there and can be decoded, and which of them are the same."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import track

from datasets.pictures import TURNED, open_picture
from runs.errors import sentence

CHUNK = 1024  # pictures that are waited for at a time


class Pictures(NamedTuple):
    """What was found.

    Attributes:
        missing: paths of no file.
        unreadable: what is wrong with a file, by path.
        digests: of the content of each file, by path; empty after a quick look.
        turned: paths of pictures whose EXIF data call for a turn.
    """

    missing: set[str]
    unreadable: dict[str, str]
    digests: dict[str, bytes]
    turned: set[str]


class Decoded(NamedTuple):
    """A digest of a picture's file, and whether its EXIF data call for a turn."""

    digest: bytes
    turned: bool


def examine(paths: Sequence[str], workers: int, *, quick: bool, title: str) -> Pictures:
    """Look at every picture.

    Args:
        paths: of the pictures.
        workers: threads that read.
        quick: only look whether the files are there.
        title: of the progress bar.
    """
    found = Pictures(set(), {}, {}, set())
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
                    found.digests[path] = state.digest
                    found.turned.update([path] * state.turned)
    return found


def exists(path: str) -> tuple[()] | None:
    """Return nothing of interest, or None where there is no file."""
    return () if Path(path).is_file() else None


def decode(path: str) -> Decoded | str | None:
    """Return what was decoded, what is wrong with the file, or None where there is none."""
    try:
        turned = open_picture(path).info[TURNED]
        digest = hashlib.sha256(Path(path).read_bytes()).digest()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        return sentence(error)
    return Decoded(digest, bool(turned))
