"""Lock the folder of a run, and write its files whole or not at all."""

import errno
import fcntl
import logging
import os
import platform
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

logger = logging.getLogger(__name__)

LOCK = ".lock"
EXCLUSIVE = fcntl.LOCK_EX | fcntl.LOCK_NB
TAKEN = (errno.EACCES, errno.EAGAIN)
UNFINISHED = ".unfinished-"  # in the name of a file that is being written

_held: set[int] = set()  # handles of locked folders


def _release_in_child() -> None:
    """Close the handles in a forked process: a worker that outlives the run keeps no folder."""
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_release_in_child)


@contextmanager
def lock_folder(directory: str | Path) -> Iterator[None]:
    """Make a folder, remove unfinished files in it, and lock it for the block.

    The file `.lock`, which names the process, and the folder are locked (filelock locks a file
    alone): someone may delete the file. A BlockingIOError names the run that has locked them.
    """
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        opened = (folder / LOCK).open("a+", encoding="utf-8")
    except OSError as error:
        error.filename = str(folder)
        raise
    _held.add(handle := os.open(folder, os.O_RDONLY))
    try:
        with opened as file:
            _lock(folder, file, handle)
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}\n")
            file.flush()
            for left in folder.glob(f".*{UNFINISHED}*"):
                left.unlink()
            yield
    finally:
        if handle in _held:
            _held.discard(handle)
            os.close(handle)


def _lock(folder: Path, file: TextIO, handle: int) -> None:
    """Lock the file and the folder, or name the run that has locked them."""
    file.seek(0)
    named = f"another run ({file.read().strip()}) is writing to {folder}"
    unnamed = f"another run is writing to {folder}, though its file {LOCK} was removed"
    # lockf locks for the process, not for the open file: workers that outlive it do not keep it.
    for lock, target, taken in ((fcntl.lockf, file, named), (fcntl.flock, handle, unnamed)):
        try:
            lock(target, EXCLUSIVE)
        except OSError as error:
            if error.errno in TAKEN:
                advice = "wait for its end, or choose another --output-dir"
                raise BlockingIOError(f"{taken}; {advice}") from None
            if target is file:  # many file systems can lock files alone
                warning = "%s gives no locks: see to it that no other run writes there"
                logger.warning(warning, folder)


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8, as `write_bytes` does."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, even if the machine stops."""
    unfinished = path.with_name(f".{path.name}{UNFINISHED}{uuid.uuid4().hex}")
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
        sync(path.parent)
    except OSError as error:
        error.filename = str(path)  # that of a failed write names none
        raise
    finally:
        unfinished.unlink(missing_ok=True)


def sync(folder: Path) -> None:
    """Force the entries of a folder to the disk, if the file system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint in the output folder of a run, if it has one."""
    for pointer in folder.glob("*/checkpoint"):
        named = pointer.parent / pointer.read_text("utf-8", "replace").strip()  # it may be empty
        if named.is_file():
            return named
    return None
