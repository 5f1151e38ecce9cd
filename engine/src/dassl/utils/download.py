"""Downloading an archive; the package ``gdown`` is imported only when Google Drive is asked for."""

from __future__ import annotations

from pathlib import Path

import torch
from dassl.utils.files import alone_with
from dassl.utils.unpack import unpack

__all__ = ["download_and_unpack"]


def download_and_unpack(url: str, dst: str | Path, from_gdrive: bool = True) -> None:
    """Download an archive and unpack it into the folder it lies in, once for several processes.

    Args:
        url: Address of the archive.
        dst: Path to write the archive to.
        from_gdrive: The address is one of Google Drive.

    Raises:
        ImportError: If Google Drive is asked for and ``gdown`` is not installed.
        ValueError: If the archive cannot be read, or is refused; see `unpack`.
    """
    archive = Path(dst)
    was_there = archive.is_file()
    with alone_with(archive):
        if archive.is_file() and not was_there:
            return  # another process was quicker
        if from_gdrive:
            _from_gdrive(url, archive)
        else:
            torch.hub.download_url_to_file(url, str(archive))
        unpack(archive, archive.parent)


def _from_gdrive(url: str, archive: Path) -> None:
    try:
        import gdown
    except ImportError as error:
        raise ImportError(
            f"{url} lies on Google Drive, which needs the package gdown: pip install gdown"
        ) from error
    gdown.download(url, str(archive), quiet=False)
