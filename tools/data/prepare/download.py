"""Downloads from Google Drive; all others are `models.clip.fetch.fetch`."""

from __future__ import annotations

import sys
from pathlib import Path

from models.clip.fetch import alone_with, part_of


def fetch_from_drive(drive: str, target: Path) -> None:
    """Download a file from Google Drive.

    Raises:
        OSError: Google Drive refuses, as it does when a file was fetched too often.
    """
    with alone_with(target):
        if target.is_file():
            return  # another process was quicker
        _fetch_alone(drive, target)


def _fetch_alone(drive: str, target: Path) -> None:
    import gdown  # slow to import

    partial = part_of(target)
    try:
        gdown.download(id=drive, output=str(partial), resume=True, quiet=not sys.stderr.isatty())
    except Exception as error:  # gdown's own, of several kinds
        raise OSError(
            f"Google Drive does not give {target.name} ({' '.join(str(error).split())}). Fetch "
            f"https://drive.google.com/file/d/{drive}/view with a browser, put it into "
            f"{target.parent} and repeat the command; or name a mirror with --mirror."
        ) from error
    partial.replace(target)
