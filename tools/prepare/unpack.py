"""Unpacking archives that nobody has to trust: nothing is written outside, no link is made."""

from __future__ import annotations

import lzma
import posixpath
import shutil
import stat
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import IO, Any

from rich.console import Console
from rich.progress import track

BROKEN = (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError)


def is_archive(path: Path) -> bool:
    """Return whether a file is a tar or zip archive."""
    return path.is_file() and (zipfile.is_zipfile(path) or tarfile.is_tarfile(path))


def unpack(archive: Path, into: Path) -> None:
    """Unpack a tar or zip archive. What a link points to within it is written in the link's place.

    Args:
        archive: the file.
        into: a folder; an archive that is refused may have written some of its members there.

    Raises:
        ValueError: a member would lie outside `into`, points outside, or is no file and no folder;
            or the file is no archive, or a broken one.
    """
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened:
                unpack_zip(opened, into, archive.name)
        else:
            with tarfile.open(archive) as opened:
                unpack_tar(opened, into, archive.name)
    except BROKEN as error:
        raise ValueError(
            f"{archive} is no archive, or an incomplete one; remove it and fetch it anew."
        ) from error


def unpack_tar(archive: tarfile.TarFile, into: Path, name: str) -> None:
    """Unpack an open tar archive; `name` is for messages."""
    for member in progress(archive, name):
        path = inside(into, member.name, name)
        if member.isdir():
            path.mkdir(parents=True, exist_ok=True)
        elif member.isfile() or member.issym() or member.islnk():
            try:
                source = archive.extractfile(member)
            except (KeyError, RecursionError):  # outside, or in a circle
                source = None
            if source is None:
                raise ValueError(
                    f"{name} is refused: {member.name!r} is a link to {member.linkname!r}, which "
                    "is no file of the archive."
                )
            write(source, path)
        else:
            raise ValueError(f"{name} is refused: {member.name!r} is neither file nor folder.")


def unpack_zip(archive: zipfile.ZipFile, into: Path, name: str) -> None:
    """Unpack an open zip archive; `name` is for messages."""
    for member in progress(archive.infolist(), name):
        path = inside(into, member.filename, name)
        if member.is_dir():
            path.mkdir(parents=True, exist_ok=True)
            continue
        source = member.filename
        if stat.S_ISLNK(member.external_attr >> 16):
            link = archive.read(member).decode(errors="replace")
            source = posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
            if source not in archive.namelist():
                raise ValueError(
                    f"{name} is refused: {member.filename!r} is a link to {link!r}, which is no "
                    "file of the archive."
                )
        with archive.open(source) as opened:
            write(opened, path)


def inside(into: Path, member: str, archive: str) -> Path:
    """Return where a member goes.

    Raises:
        ValueError: that is not below `into`.
    """
    path = PurePosixPath(member.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in (path.parts or ("",))[0]:
        raise ValueError(
            f"{archive} is refused: its member {member!r} would be written outside {into}."
        )
    return into / path


def write(source: IO[bytes], path: Path) -> None:
    """Write a member as an ordinary file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with source, path.open("wb") as file:
        shutil.copyfileobj(source, file)


def progress(members: Iterable[Any], name: str) -> Iterable[Any]:
    """Yield members, with a progress bar where stderr is a terminal."""
    console, silent = Console(stderr=True), not sys.stderr.isatty()
    return track(members, f"Unpacking {name}", console=console, disable=silent, total=None)
