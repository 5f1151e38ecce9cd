"""Download a piece of a data set: from its address, a mirror, or Google Drive."""

from __future__ import annotations

import sys
from pathlib import Path

from models.clip.fetch import alone_with, fetch, part_of
from tools.data.sources import Piece


def download(piece: Piece, target: Path, mirror: str) -> None:
    """Download a piece; split files and class lists come from `mirror`, or else Google Drive."""
    print(f"fetching {piece.file}", flush=True)
    if piece.url:
        fetch(piece.url, target, piece.md5)
    elif mirror:
        fetch(f"{mirror.rstrip('/')}/{piece.file}", target)
    else:
        fetch_from_drive(piece.drive, target)


def fetch_from_drive(drive: str, target: Path) -> None:
    """Download a file from Google Drive.

    Raises:
        OSError: Google Drive refuses, as it does when a file was fetched too often.
    """
    with alone_with(target):
        if target.is_file():
            return  # another process was quicker
        import gdown  # slow to import

        partial, silent = part_of(target), not sys.stderr.isatty()
        try:
            gdown.download(id=drive, output=str(partial), resume=True, quiet=silent)
        except Exception as error:  # gdown's own, of several kinds
            raise OSError(
                f"Google Drive does not give {target.name} ({' '.join(str(error).split())}). Fetch "
                f"https://drive.google.com/file/d/{drive}/view with a browser, put it into "
                f"{target.parent} and repeat the command; or name a mirror with --mirror."
            ) from error
        partial.replace(target)
