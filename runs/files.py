"""The folder a run writes to: one run at a time, and every file whole or not there."""

from __future__ import annotations

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


def _leave_to_parent() -> None:
    """In a process that was forked: a worker that outlives the run does not keep its folder."""
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_leave_to_parent)


@contextmanager
def lock_folder(directory: str | Path) -> Iterator[None]:
    """Make a folder, and keep other runs out of it until the block or the process ends.

    Two things are locked: the file `.lock`, which names the process, and the folder itself, because
    the file can be removed. Unfinished files of a killed run are removed.

    Raises:
        BlockingIOError: another run writes there.
        OSError: the folder cannot be written to.
    """
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    with _naming(folder):
        opened = (folder / LOCK).open("a+", encoding="utf-8")
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


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Add a path to an error of the system, which for a failed write names none."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


def _lock(folder: Path, file: TextIO, handle: int) -> None:
    """Lock the file and the folder, or name the run that has locked them."""
    try:
        # A lock of the process, not of the open file: workers that outlive it do not keep it.
        fcntl.lockf(file, EXCLUSIVE)
    except OSError as error:
        file.seek(0)
        _require_free(error, f"another run ({file.read().strip()}) is writing to {folder}")
        logger.warning("%s gives no locks: see to it that no other run writes there", folder)
        return
    try:
        fcntl.flock(handle, EXCLUSIVE)
    except OSError as error:  # some file systems cannot lock folders
        removed = f"though its file {LOCK} was removed"
        _require_free(error, f"another run is writing to {folder}, {removed}")


def _require_free(error: OSError, taken: str) -> None:
    if error.errno in TAKEN:
        raise BlockingIOError(f"{taken}; wait for its end, or choose another --output-dir")


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all, even if the machine stops."""
    unfinished = path.with_name(f".{path.name}{UNFINISHED}{uuid.uuid4().hex}")
    try:
        with _naming(path):
            with unfinished.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
            sync(path.parent)
    finally:
        unfinished.unlink(missing_ok=True)


def sync(folder: Path) -> None:
    """Force the entries of a folder to the disk, where the file system can do so."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def what_is_left(folder: Path, resume: str) -> str:
    """A sentence for a stopped training: its last checkpoint, and what the same command does."""
    kept = last_checkpoint(folder)
    if kept is None:
        begins = f"begins again from {resume}" if resume else "begins anew"
        return f"no checkpoint was written to {folder}, so the same command {begins}"
    epoch = kept.name.rpartition("-")[2]
    which = f"the checkpoint of epoch {epoch}" if epoch.isdecimal() else "the best checkpoint"
    return f"{which} is {kept}; the same command goes on from there"


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint in the output folder of a run, if it has one."""
    for pointer in folder.glob("*/checkpoint"):
        named = pointer.with_name(pointer.read_text("utf-8", "replace").strip())
        if named.is_file():
            return named
    return None
