"""Downloading an archive; the package ``gdown`` is imported only when Google Drive is asked for."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
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
        ValueError: If the archive cannot be read, or a member leads out of the folder.
    """
    archive = Path(dst)
    archive.parent.mkdir(parents=True, exist_ok=True)
    if from_gdrive:
        _from_gdrive(url, archive)
    else:
        torch.hub.download_url_to_file(url, str(archive))
    try:
        _require_inside(archive)
        # The filter looks at links as well; zip files have none.
        options: dict[str, Any] = {} if archive.suffix == ".zip" else {"filter": "data"}
        shutil.unpack_archive(archive, archive.parent, **options)
    except tarfile.FilterError as error:
        raise ValueError(_leads_out(archive, error.tarinfo.name)) from error
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"{archive} cannot be unpacked ({error}); is it complete?") from error


def _require_inside(archive: Path) -> None:
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as opened_zip:
            names = opened_zip.namelist()
    else:
        with tarfile.open(archive) as opened_tar:
            names = opened_tar.getnames()
    folder = archive.parent.resolve()
    for name in names:
        if not (folder / name).resolve().is_relative_to(folder):
            raise ValueError(_leads_out(archive, name))


def _leads_out(archive: Path, name: str) -> str:
    return f"{archive} is not unpacked: its member {name!r} leads out of {archive.parent}"


def _from_gdrive(url: str, archive: Path) -> None:
    try:
        import gdown
    except ImportError as error:
        raise ImportError(
            f"{url} lies on Google Drive, which needs the package gdown: pip install gdown"
        ) from error
    gdown.download(url, str(archive), quiet=False)
