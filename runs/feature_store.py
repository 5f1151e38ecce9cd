"""Tensors by key, in memory or on disk, bounded: what is longest unused goes first.

On disk each key is a safetensors file, written under another name and then renamed, so it is whole
wherever a process is killed, and several may write at once. What cannot be read or written is said
once, and the run goes on without it.
"""

from __future__ import annotations

import logging
import os
import re
import time
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from runs.files import UNFINISHED, write_bytes

logger = logging.getLogger(__name__)

FOLDER = Path("~/.cache/spotlighter/features")  # unless FEATURES.DIR names another
NAME = re.compile(r"[0-9a-f]{64}\.safetensors")  # what a store writes and removes
LEFT = 3600  # seconds after which an unfinished file is one of a process that was killed
SLACK = 0.05  # of the bound: what this process writes before it counts the files again


class Entry(NamedTuple):
    """What is stored under one key."""

    tensors: dict[str, Tensor]
    words: dict[str, str]  # what belongs to them


class Memory:
    """A store of this process, which all its runs share."""

    kept: ClassVar[OrderedDict[str, Entry]] = OrderedDict()

    def __init__(self, most: int) -> None:
        """At most so many bytes."""
        self.most = most

    def __contains__(self, key: str) -> bool:
        return key in self.kept

    def get(self, key: str) -> Entry | None:
        """What was put there, if it still is."""
        if key in self.kept:
            self.kept.move_to_end(key)
        return self.kept.get(key)

    def put(self, key: str, entry: Entry) -> None:
        """Keep something, and drop the longest unused."""
        tensors = {name: x.clone() for name, x in entry.tensors.items()}  # of views, not the whole
        self.kept[key] = entry._replace(tensors=tensors)
        while sum(map(size_of, self.kept.values())) > self.most:
            self.kept.popitem(last=False)


class Disk:
    """A store that processes share: a folder of this user's."""

    def __init__(self, folder: Path, most: int) -> None:
        """At most so many bytes; OSError for a folder that cannot be used."""
        self.folder, self.most = folder, most
        self.warned = self.full = False
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if folder.stat().st_uid != os.getuid():
            raise PermissionError("it is another user's")
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError("it cannot be written")
        self.uncounted = float(most)  # bytes that this process wrote since it counted all

    def path(self, key: str) -> Path:
        """The file of a key."""
        return self.folder / f"{key}.safetensors"

    def __contains__(self, key: str) -> bool:
        return self.path(key).is_file()

    def get(self, key: str) -> Entry | None:
        """What was put there, if it still is, and is whole; the tensors are memory-mapped."""
        from safetensors import SafetensorError

        path = self.path(key)
        try:
            entry = read(path)
            if entry.words.pop("key", "") != key or entry.words.pop("sum", "") != total(entry):
                raise ValueError("it is damaged, or of another program")
            os.utime(path)  # used just now
        except FileNotFoundError:
            return None
        except (OSError, ValueError, SafetensorError) as error:
            self.warn("%s cannot be read: %s", path, error)
            return None
        return entry

    def put(self, key: str, entry: Entry) -> None:
        """Keep something, and drop the longest unused."""
        from safetensors.torch import save

        size = size_of(entry)
        if self.full or size > self.most:
            return
        words = entry.words | {"key": key, "sum": total(entry)}
        try:
            write_bytes(self.path(key), save(entry.tensors, words))
            self.uncounted += size
            if self.uncounted > SLACK * self.most:
                self.drop_oldest()
        except OSError as error:
            self.full = True
            self.warn("%s cannot be written: %s", self.folder, error.strerror or error)

    def drop_oldest(self) -> None:
        """Remove the longest unused files beyond the bound, and what killed processes left."""
        try:
            with FileLock(self.folder / ".lock", timeout=0):
                for path in unfinished(self.folder):
                    if time.time() - path.stat().st_mtime > LEFT:
                        path.unlink(missing_ok=True)
                found = sorted(files(self.folder))
                left = sum(size for _, size, _ in found)
                for _, size, path in found:
                    if left <= (1 - SLACK) * self.most:
                        break
                    path.unlink(missing_ok=True)
                    left -= size
        except (Timeout, FileNotFoundError, NotImplementedError):
            return  # another process does it, or has done it
        self.uncounted = 0

    def warn(self, sentence: str, *names: object) -> None:
        """Say the first thing that goes wrong."""
        if not self.warned:
            logger.warning(f"{sentence}; features are computed instead (FEATURES.KEEP)", *names)
        self.warned = True


Store = Memory | Disk


def open_store(kind: str, folder: str, most: int) -> Store | None:
    """The store that FEATURES asks for; None, and a warning, where it cannot be used."""
    if kind == "off":
        return None
    if kind == "memory":
        return Memory(most)
    path = Path(folder or FOLDER).expanduser()
    try:
        return Disk(path, most)
    except OSError as error:
        reason = error.strerror or error
        logger.warning("No features are kept in %s (FEATURES.DIR): %s", path, reason)
        return None


def read(path: Path) -> Entry:
    """The content of a file, memory-mapped."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        names = list(file.keys())
        return Entry({name: file.get_tensor(name) for name in names}, file.metadata() or {})


def files(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """When each file of a store was last used, its bytes, and its path."""
    for path in folder.iterdir():
        if NAME.fullmatch(path.name):
            found = path.stat()
            yield found.st_mtime, found.st_size, path


def unfinished(folder: Path) -> list[Path]:
    """What is being written, and what killed processes left."""
    return list(folder.glob(f".*{UNFINISHED}*"))


def described(path: Path) -> tuple[str, int]:
    """What a file holds, in words, and the number of pictures."""
    from safetensors import SafetensorError

    try:
        entry = read(path)
    except (OSError, SafetensorError):
        return "unreadable", 0
    return entry.words.get("what", "unknown"), max(map(len, entry.tensors.values()), default=0)


def size_of(entry: Entry) -> int:
    """Bytes of the tensors."""
    return sum(x.nbytes for x in entry.tensors.values())


def total(entry: Entry) -> str:
    """A checksum of tensors and words, which safetensors lacks."""
    found = zlib.crc32(repr(sorted(entry.words.items())).encode())
    for name in sorted(entry.tensors):
        plain = entry.tensors[name].contiguous().flatten().view(torch.uint8)
        found = zlib.crc32(plain.numpy().data, found)
    return f"{found:08x}"
