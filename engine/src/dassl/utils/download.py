"""Downloading an archive; the package ``gdown`` is imported only when Google Drive is asked for."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

__all__ = ["download_and_unpack"]


def download_and_unpack(url: str, dst: str | Path, from_gdrive: bool = True) -> None:
    """Download an archive and unpack it into the folder it lies in.

    Args:
        url: Address of the archive.
        dst: Path to write the archive to; its ending says how to unpack it.
        from_gdrive: The address is one of Google Drive.

    Raises:
        ImportError: If Google Drive is asked for and ``gdown`` is not installed.
    """
    archive = Path(dst)
    archive.parent.mkdir(parents=True, exist_ok=True)
    if from_gdrive:
        _from_gdrive(url, archive)
    else:
        torch.hub.download_url_to_file(url, str(archive))
    # The filter keeps members of a tar file inside the folder; zip files have none.
    options: dict[str, Any] = {} if archive.suffix == ".zip" else {"filter": "data"}
    shutil.unpack_archive(archive, archive.parent, **options)


def _from_gdrive(url: str, archive: Path) -> None:
    try:
        import gdown
    except ImportError as error:
        raise ImportError(
            f"{url} lies on Google Drive, which needs the package gdown: pip install gdown"
        ) from error
    gdown.download(url, str(archive), quiet=False)
