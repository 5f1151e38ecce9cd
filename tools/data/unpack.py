"""Unpack tar and zip archives from sources that are not trusted.

The whole table of contents is checked before the first byte is written. A link within the archive
becomes a copy of the file it points to, so no link is ever made.
"""

import glob
import lzma
import os
import posixpath
import re
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from tqdm import tqdm

from models.clip.fetch import alone_with

BROKEN = (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError)
MOST_MEMBERS = 5_000_000  # ImageNet has 1.3 million pictures
MOST_TIMES = 200  # times the size of the archive; pictures hardly shrink
ALWAYS_ALLOWED = 2**30  # bytes, of a small archive
LONGEST_NAME = 255  # bytes of one part of a path, as file systems have it
LONGEST_LINK = 4096  # bytes, as Linux has it
MOST_LINKS = 40  # that lead from one to the next
KNOWN_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}


class Entry(NamedTuple):
    """A member of an archive."""

    name: str  # as the archive has it
    kind: str  # "file", "folder" or "link"
    size: int  # bytes
    member: Any  # the library's object for it
    link: str = ""  # where a link points to, as the archive has it
    target: str = ""  # the same as a path in the archive

    @property
    def path(self) -> str:
        """Its path relative to the target folder."""
        return _normal(self.name)


def _normal(name: str) -> str:
    return str(PurePosixPath(name.replace("\\", "/")))


def is_archive(path: Path) -> bool:
    """Return whether a file is a tar or zip archive."""
    return path.is_file() and (tarfile.is_tarfile(path) or zipfile.is_zipfile(path))


@contextmanager
def scratch_beside(target: Path) -> Iterator[Path]:
    """Make a temporary folder beside a path; only one process has it at a time."""
    prefix = f".{target.name}.unfinished-"
    with alone_with(target):
        for left in target.parent.glob(f"{glob.escape(prefix)}*"):  # by a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        options = {"dir": target.parent, "prefix": prefix, "ignore_cleanup_errors": True}
        with tempfile.TemporaryDirectory(**options) as name:
            yield Path(name)


def unpack(archive: Path | IO[bytes], into: Path, name: str = "") -> None:  # name: of an open file
    """Unpack an archive, replacing files; of one that is refused or broken, nothing is left.

    Raises:
        ValueError: the file is no archive, or a broken one. A member is outside `into`, points
            outside it, is neither file nor folder, is encrypted or packed in an unknown way. There
            are too many bytes or members, or the disk has no room for them.
    """
    name = name or str(archive)
    try:
        with _opened(archive) as (members, read, size):
            entries = _checked(members, name, size, into)
            with scratch_beside(into) as scratch:
                content = scratch / "content"
                content.mkdir()
                _write(entries, read, content, name)
                _merge(content, into)
    except BROKEN as error:
        what = f"{name} is no archive, or an incomplete one; remove it and fetch it anew."
        raise ValueError(what) from error


@contextmanager
def _opened(archive: Path | IO[bytes]) -> Iterator[tuple[Iterator[Entry], Callable, int]]:
    """Yield the members of an archive, the function that opens one, and its size in bytes."""
    with archive.open("rb") if isinstance(archive, Path) else nullcontext(archive) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        # A tar file that ends with a zip file looks like one; no zip file looks like a tar file.
        is_tar = tarfile.is_tarfile(file)
        file.seek(0)
        with tarfile.open(fileobj=file) if is_tar else zipfile.ZipFile(file) as opened:
            if is_tar:
                yield _of_tar(opened), opened.extractfile, size
            else:
                yield _of_zip(opened), opened.open, size


def _checked(members: Iterator[Entry], name: str, size: int, into: Path) -> list[Entry]:
    """Return the members of an archive, each path once; a link has the size of its file."""
    found = next(parent for parent in into.absolute().parents if parent.exists())
    most = min(max(ALWAYS_ALLOWED, MOST_TIMES * size), shutil.disk_usage(found).free)
    entries: dict[str, Entry] = {}
    try:
        for entry in _bounded(members, most):
            _require_inside(entry, into)
            before = entries.setdefault(entry.path, entry)
            if "link" in (before.kind, entry.kind) and before is not entry:
                raise ValueError(f"it has {entry.name!r} twice, and once it is a link")
            entries[entry.path] = entry
        plan = [_followed(entry, entries) for entry in entries.values()]
        for path in entries:
            for parent in map(str, PurePosixPath(path).parents):
                if parent in entries and entries[parent].kind != "folder":
                    raise ValueError(f"its member {path!r} is below {parent!r}, which is no folder")
        return list(_bounded(plan, most))
    except ValueError as error:
        raise ValueError(f"{name} is refused: {error}.") from None


def _bounded(entries: Iterable[Entry], most: int) -> Iterator[Entry]:
    """Yield entries; refuse too many, or more than `most` bytes in all."""
    total = 0
    for number, entry in enumerate(entries, 1):
        total += entry.size
        if number > MOST_MEMBERS:
            raise ValueError(f"it has more than {MOST_MEMBERS:,} members")
        if total > most:
            limit = f"{MOST_TIMES} times its size, or all that is free on the disk"
            raise ValueError(f"unpacked it would have more than {most:,} bytes, which is {limit}")
        yield entry


def _of_tar(opened: tarfile.TarFile) -> Iterator[Entry]:
    for member in opened:
        if member.isdir():
            yield Entry(member.name, "folder", 0, member)
        elif member.issym():
            yield _link(member.name, member, member.linkname, posixpath.dirname(member.name))
        elif member.islnk():
            yield _link(member.name, member, member.linkname, "")
        elif member.isfile() and not member.issparse():
            yield Entry(member.name, "file", member.size, member)
        else:
            raise ValueError(f"{member.name!r} is neither file nor folder")
    opened.fileobj.seek(opened.offset)
    if opened.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0"):
        raise tarfile.ReadError("what follows the last member is no member")


def _of_zip(opened: zipfile.ZipFile) -> Iterator[Entry]:
    for info in opened.infolist():
        name, mode = info.orig_filename, info.external_attr >> 16
        if info.flag_bits & 1:
            raise ValueError(f"{name!r} is encrypted; unpack it with its password by hand")
        if info.compress_type not in KNOWN_METHODS:
            packed = f"{name!r} is packed by method {info.compress_type}"
            raise ValueError(f"{packed}, which is not known here; unpack it by hand")
        if stat.S_ISLNK(mode):
            if info.file_size > LONGEST_LINK:
                raise ValueError(f"{name!r} is a link of {info.file_size:,} bytes")
            link = opened.read(info).decode(errors="replace")
            yield _link(name, info, link, posixpath.dirname(name))
        elif stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise ValueError(f"{name!r} is neither file nor folder")
        else:
            yield Entry(name, "folder" if info.is_dir() else "file", info.file_size, info)


def _link(name: str, member: object, link: str, base: str) -> Entry:
    """Return a link, which is relative to the folder `base`."""
    target = _normal(posixpath.normpath(posixpath.join(base, link)))
    return Entry(name, "link", 0, member, link, target)


def _require_inside(entry: Entry, into: Path) -> None:
    path = PurePosixPath(entry.path)
    if path.is_absolute() or ".." in path.parts or re.match("[A-Za-z]:", entry.path):
        raise ValueError(f"its member {entry.name!r} would be written outside {into}")
    too_long = any(len(os.fsencode(part)) > LONGEST_NAME for part in path.parts)
    if "\0" in entry.name or too_long or (entry.path == "." and entry.kind != "folder"):
        raise ValueError(f"its member {entry.name[:LONGEST_NAME]!r} has a name no file can have")


def _followed(entry: Entry, entries: dict[str, Entry]) -> Entry:
    """Return the entry; a link with the size and the path of its file."""
    end = entry
    for _ in range(MOST_LINKS):
        if end.kind == "link":
            end = entries.get(end.target, end)
    if end.kind != "file" and entry.kind == "link":
        link = f"{entry.name!r} is a link to {entry.link[:LONGEST_NAME]!r}"
        raise ValueError(f"{link}, which is no file of the archive")
    return entry if end is entry else entry._replace(size=end.size, target=end.path)


def _write(entries: list[Entry], read: Callable, folder: Path, name: str) -> None:
    """Write files and folders, then a copy of its file for each link."""
    for entry in tqdm(entries, f"Unpacking {Path(name).name}", disable=None):
        path = folder / entry.path
        (path if entry.kind == "folder" else path.parent).mkdir(parents=True, exist_ok=True)
        if entry.kind == "file":
            with read(entry.member) as content, path.open("wb") as file:
                shutil.copyfileobj(content, file, 2**20)
    for entry in entries:
        if entry.kind == "link":
            shutil.copyfile(folder / entry.target, folder / entry.path)


def _merge(source: Path, target: Path) -> None:
    """Move a file or folder to its place; a folder that is there already gets what is new."""
    if source.is_dir() and target.is_dir():
        for entry in sorted(source.iterdir()):
            _merge(entry, target / entry.name)
    else:
        source.replace(target)
